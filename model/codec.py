"""Bit-exact references of the packet interface: CRC-32C, the 64b/66b scrambler, the flit.

The hardware in ``lightfabric.rtl`` builds its tables from these functions; benches decode the line with them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from lightfabric.model.spec import ChipletSpec

CRC_BITS = 32
CRC_POLYNOMIAL_REFLECTED = 0x82F63B78
"""CRC-32C (Castagnoli), bit 0 of byte 0 first [RFC 3720 12.1]."""
CRC_INIT = CRC_XOROUT = 0xFFFFFFFF


def crc_update(state: int, data: int, bits: int) -> int:
    """State of the CRC-32C register after ``bits`` more bits of ``data``, bit 0 first. Linear in (state, data)."""
    for position in range(bits):
        state ^= data >> position & 1
        state = state >> 1 ^ (CRC_POLYNOMIAL_REFLECTED if state & 1 else 0)
    return state


_CRC_OF_BYTE = [crc_update(0, byte, 8) for byte in range(256)]


def crc_rows(bits: int) -> list[int]:
    """Masks per bit of the next state: next[i] = parity((data ^ state) & rows[i]), ``state`` on the first 32 data bits.

    ``bits``, at least 32, enter at once: so many that the whole state is folded into the data. Since the update is linear,
    unit vectors tell all.
    """
    rows = [0] * CRC_BITS
    weight = crc_update(0, 1, 1)
    for column in reversed(range(bits)):  # the last bit to enter first: each earlier one is shifted once more
        for row in range(CRC_BITS):
            rows[row] |= (weight >> row & 1) << column
        weight = crc_update(weight, 0, 1)
    return rows


CRC_RESIDUE = crc_update(CRC_INIT, CRC_INIT ^ CRC_XOROUT, CRC_BITS)
"""State after any message and its own CRC: what it is after the empty message and its."""


def crc32c(data: bytes) -> int:
    """CRC-32C of whole bytes.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    state = CRC_INIT
    for byte in data:
        state = state >> 8 ^ _CRC_OF_BYTE[(state ^ byte) & 0xFF]
    return state ^ CRC_XOROUT


SCRAMBLER_BITS = 58
SCRAMBLER_TAPS = (39, 58)
"""1 + x^39 + x^58 [IEEE 802.3 49.2.6]. The state is the line's last 58 bits, the oldest in bit 0."""


_NEAR = SCRAMBLER_BITS - SCRAMBLER_TAPS[0]
_BLOCK_MASK = (1 << 64) - 1


def scramble(state: int, block: int) -> tuple[int, int]:
    """Next state and scrambled 64-bit block, bit 0 first on the line."""
    line, known = state, SCRAMBLER_BITS
    while known < SCRAMBLER_BITS + 64:  # as many bits at once as the nearer tap allows
        done, bits = known - SCRAMBLER_BITS, min(SCRAMBLER_TAPS[0], SCRAMBLER_BITS + 64 - known)
        part = (block >> done ^ line >> done + _NEAR ^ line >> done) & (1 << bits) - 1
        line |= part << known
        known += bits
    return line >> 64, line >> SCRAMBLER_BITS


def descramble(state: int, block: int) -> tuple[int, int]:
    """Next state and plain 64-bit block; the inverse of :func:`scramble` once 58 bits have been seen."""
    line = state | block << SCRAMBLER_BITS
    return line >> 64, (block ^ line >> _NEAR ^ line) & _BLOCK_MASK


SYNC_DATA = 0b10
"""Sync header of a data block, bit 0 first on the line: 0 then 1 [IEEE 802.3 49.2.4.3]."""

SEQUENCE_BITS = 9
ADDRESS_BITS = 10
LENGTH_BITS = 8
CHANNEL_BITS = 3
HEADER_FIELDS = {
    "data": 1,
    "last": 1,
    "nak": 1,
    "virtual_channel": CHANNEL_BITS,
    "sequence": SEQUENCE_BITS,
    "ack": SEQUENCE_BITS,
    "length_bytes": LENGTH_BITS,
    "destination": ADDRESS_BITS,
    "source": ADDRESS_BITS,
    "credit_channel": CHANNEL_BITS,
    "credits": SEQUENCE_BITS,
}
"""Bits of each header field, the first in the least significant bits; 64 bits in all."""


@dataclass(frozen=True)
class Flit:
    """One flit: 8 bytes of header, payload padded with zeros, CRC-32C of all that, little endian.

    ``data`` is 0 for a flit that only carries link state. ``sequence`` is that of this flit, or of the next one if ``data``
    is 0; ``ack`` is the next sequence expected by the sender of this flit, and ``nak`` flips each time it asks for a replay
    from there; ``credits`` counts the buffers ever freed in ``credit_channel``, modulo 512.
    """

    payload: bytes = b""
    data: int = 0
    last: int = 0
    nak: int = 0
    virtual_channel: int = 0
    sequence: int = 0
    ack: int = 0
    destination: int = 0
    source: int = 0
    credit_channel: int = 0
    credits: int = 0

    @property
    def length_bytes(self) -> int:
        """Payload bytes in use."""
        return len(self.payload)

    def encode(self, spec: ChipletSpec) -> bytes:
        """The ``spec.flit_bytes`` bytes before 64b/66b coding. ValueError if a field does not fit."""
        if len(self.payload) > spec.payload_bytes:
            raise ValueError(f"Flit.payload must have at most {spec.payload_bytes} bytes, not {len(self.payload)}")
        header = position = 0
        for name, bits in HEADER_FIELDS.items():
            value = getattr(self, name)
            if not 0 <= value < 1 << bits:
                raise ValueError(f"Flit.{name} must be from 0 to {(1 << bits) - 1}, not {value}")
            header |= value << position
            position += bits
        body = header.to_bytes(spec.HEADER_BYTES, "little") + self.payload.ljust(spec.payload_bytes, b"\0")
        return body + crc32c(body).to_bytes(spec.CRC_BYTES, "little")

    @staticmethod
    def decode(spec: ChipletSpec, encoded: bytes) -> "Flit | None":
        """The flit in ``spec.flit_bytes`` bytes; None if the CRC does not match."""
        body, crc = encoded[: -spec.CRC_BYTES], int.from_bytes(encoded[-spec.CRC_BYTES :], "little")
        if crc32c(body) != crc:
            return None
        header, values = int.from_bytes(body[: spec.HEADER_BYTES], "little"), dict[str, int]()
        for name, bits in HEADER_FIELDS.items():
            values[name] = header & (1 << bits) - 1
            header >>= bits
        length_bytes = values.pop("length_bytes")
        return Flit(payload=body[spec.HEADER_BYTES :][:length_bytes], **values)


assert {field.name for field in fields(Flit)} - {"payload"} == HEADER_FIELDS.keys() - {"length_bytes"}


def beats(spec: ChipletSpec, encoded: bytes) -> list[tuple[int, ...]]:
    """A flit as beats of one unscrambled 64-bit block per wavelength, the first bytes in the first beat on wavelength 0."""
    blocks = [int.from_bytes(encoded[i : i + spec.BLOCK_BYTES], "little") for i in range(0, len(encoded), spec.BLOCK_BYTES)]
    lanes = spec.wavelengths_per_port
    return [tuple(blocks[i : i + lanes]) for i in range(0, len(blocks), lanes)]


def from_beats(spec: ChipletSpec, flit_beats: Iterable[Sequence[int]]) -> bytes:
    """The inverse of :func:`beats`."""
    return b"".join(block.to_bytes(spec.BLOCK_BYTES, "little") for beat in flit_beats for block in beat)
