"""CRC-32C of a whole beat at once, as XOR trees computed from ``model.codec``."""

from functools import cache

from amaranth import Cat

from lightfabric.model import codec


@cache
def _rows(bits: int):
    return codec.crc_rows(bits)


def crc_update(state, word):
    """The CRC register after the bits of ``word``, bit 0 first. Combinational, one XOR tree per bit of the register."""
    return Cat((state & on_state).xor() ^ (word & on_word).xor() for on_state, on_word in _rows(len(word)))
