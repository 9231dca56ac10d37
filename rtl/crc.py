"""CRC-32C of a whole beat at once, as XOR trees computed from ``model.codec``."""

from functools import cache

from amaranth import Cat

from lightfabric.model import codec


@cache
def _rows(bits: int):
    return codec.crc_rows(bits)


def crc_update(state, word):
    """The CRC register after the bits of ``word``, at least 32, bit 0 first. Combinational, an XOR tree per bit."""
    mixed = word ^ state
    return Cat((mixed & row).xor() for row in _rows(len(word)))
