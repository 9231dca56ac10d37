"""The codec computes bit by bit what the line carries: the CRCs, the 64b/66b scrambler, the flit.

The hardware in ``lightfabric.rtl`` builds its tables from these functions; benches decode the line with them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from lightfabric.model.spec import ChipletSpec

CRC_BITS = 32
"""Of the CRC field at the end of every flit; a shorter CRC leaves the rest 0, two short ones share it."""


@dataclass(frozen=True)
class Crc:
    """Computes a CRC of at most 32 bits by the parameters of its catalogue entry.

    The register is kept reflected: its bit 0 belongs to the highest power. ``reflect_in`` takes bit 0 of each byte first,
    otherwise bit 7; ``reflect_out`` gives the register out as it is, otherwise reversed. A CRC with ``block_bytes`` is
    always over so many bytes: a shorter message is followed by zeros.
    """

    bits: int
    polynomial: int
    init: int
    xorout: int
    reflect_in: bool
    reflect_out: bool
    block_bytes: int = 0

    def update(self, register: int, stream: int, bits: int) -> int:
        """Shift ``bits`` more bits into the register, bit 0 of ``stream`` first. Linear in (register, stream)."""
        feedback = reverse(self.polynomial, self.bits)
        for position in range(bits):
            register ^= stream >> position & 1
            register = register >> 1 ^ (feedback if register & 1 else 0)
        return register

    def stream(self, message: int, bits: int) -> int:
        """Order the bits of whole bytes, byte 0 in the low bits of ``message``, as the register takes them."""
        if self.reflect_in:
            return message
        content = message.to_bytes(bits // 8, "little")
        return int.from_bytes(bytes(_REVERSED[byte] for byte in content), "little")

    def rows(self, bits: int) -> list[int]:
        """Compute a mask per bit of the next register: next[i] = parity((stream ^ register) & rows[i]).

        ``bits``, at least as many as the CRC has, enter at once: so many that the whole register is folded into the
        stream. Since the update is linear, unit vectors tell all.
        """
        rows = [0] * self.bits
        weight = self.update(0, 1, 1)
        for column in reversed(range(bits)):  # the last bit to enter first: each earlier one is shifted once more
            for row in range(self.bits):
                rows[row] |= (weight >> row & 1) << column
            weight = self.update(weight, 0, 1)
        return rows

    def finish(self, register: int, message_bytes: int) -> int:
        """Turn the register after a message into the CRC of the message."""
        # Zeros change the register too, so those that fill up the block cannot be left out.
        for _ in range(max(0, self.block_bytes - message_bytes)):
            register = register >> 8 ^ _table(self)[register & 0xFF]
        return (register if self.reflect_out else reverse(register, self.bits)) ^ self.xorout

    def compute(self, message: bytes) -> int:
        """Compute the CRC of a message of whole bytes.

        >>> hex(CRCS["crc32c"].compute(b"123456789"))
        '0xe3069283'
        """
        register, table = reverse(self.init, self.bits), _table(self)
        for byte in message if self.reflect_in else message.translate(_REVERSED):
            register = register >> 8 ^ table[(register ^ byte) & 0xFF]
        return self.finish(register, len(message))


def reverse(value: int, bits: int) -> int:
    """Put the low ``bits`` of a value in reverse order."""
    return int(f"{value:0{bits}b}"[::-1], 2)


_REVERSED = bytes(reverse(byte, 8) for byte in range(256))


@cache
def _table(crc: Crc) -> list[int]:
    return [crc.update(0, byte, 8) for byte in range(256)]


CRCS = {
    "crc32c": Crc(32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, True, True),
    "crc24": Crc(24, 0x328B63, 0xFFFFFF, 0xFFFFFF, False, False),
    "crc16": Crc(16, 0x8005, 0, 0, True, False, block_bytes=128),
    "crc16-umts": Crc(16, 0x8005, 0, 0, False, False, block_bytes=128),
}
"""CRC-32C [RFC 3720 12.1]; CRC-24 [Interlaken]; UCIe's CRC-16, over 128 bytes, bit 0 of byte 0 first [UCIe 1.1 by its
letter], and bit 7 first as one open implementation has it."""


def crc_spans(spec: ChipletSpec) -> list[tuple[int, int]]:
    """List (first byte, byte after the last) that each CRC of a flit's CRC field covers, the low bits of the field first."""
    end, block = spec.flit_bytes - spec.CRC_BYTES, CRCS[spec.crc].block_bytes
    return [(at, min(at + block, end)) for at in range(0, end, block)] if block else [(0, end)]


def crc_field(spec: ChipletSpec, body: bytes, sequence: int = 0) -> int:
    """Compute the CRC field of a flit whose other bytes are ``body``.

    A flit that does not say its sequence has it in its CRC: the CRC is that of a flit with ``sequence`` XORed onto the
    first bytes. So a receiver that expects another sequence finds the CRC wrong [implicit sequence numbers, as in RXL for
    CXL].
    """
    # Folded into the first bytes, a sequence costs no bits of the flit, and any wrong one changes the CRC: it is linear, and
    # finds all errors within so many bits in a row.
    crc, folded = CRCS[spec.crc], bytes([body[0] ^ sequence & 0xFF, body[1] ^ sequence >> 8]) + body[2:]
    parts = [crc.compute(folded[first:end]) for first, end in crc_spans(spec)]
    return sum(part << crc.bits * n for n, part in enumerate(parts))


SCRAMBLER_BITS = 58
SCRAMBLER_TAPS = (39, 58)
"""1 + x^39 + x^58 [IEEE 802.3 49.2.6]. The state is the line's last 58 bits, the oldest in bit 0."""


_NEAR = SCRAMBLER_BITS - SCRAMBLER_TAPS[0]
_BLOCK_MASK = (1 << 64) - 1


def scramble(state: int, block: int) -> tuple[int, int]:
    """Scramble a 64-bit block, bit 0 first on the line; returns the next state and the scrambled block."""
    line, known = state, SCRAMBLER_BITS
    while known < SCRAMBLER_BITS + 64:  # as many bits at once as the nearer tap allows
        done, bits = known - SCRAMBLER_BITS, min(SCRAMBLER_TAPS[0], SCRAMBLER_BITS + 64 - known)
        part = (block >> done ^ line >> done + _NEAR ^ line >> done) & (1 << bits) - 1
        line |= part << known
        known += bits
    return line >> 64, line >> SCRAMBLER_BITS


def descramble(state: int, block: int) -> tuple[int, int]:
    """Undo :func:`scramble` once 58 bits have been seen; returns the next state and the plain 64-bit block."""
    # Self-synchronous: only bits of the line enter, so a receiver needs no common start, and errors die out after 58 bits.
    line = state | block << SCRAMBLER_BITS
    return line >> 64, (block ^ line >> _NEAR ^ line) & _BLOCK_MASK


SYNC_DATA = 0b10
"""Sync header of a data block, bit 0 first on the line: 0 then 1 [IEEE 802.3 49.2.4.3]."""

SYNC_CONTROL = 0b01
"""Sync header of a control block: a training set."""

ADDRESS_BITS = 10
LENGTH_BITS = 8
CHANNEL_BITS = 3

IDLE, DATA, BROKEN = 0, 1, 3
"""Types of a flit: link state alone, client data too, or the end of a packet whose rest is lost; the low bit means data."""
EXPLICIT, ACK, NAK = 0, 1, 2
"""Replay commands [UCIe 1.1, retry]: what the sequence of a flit means."""

IMPLICIT = (1 << 9) - 1
"""Of a flit that does not say its sequence; all others have 0. Fewer than nine wrong bits do not make one the other."""


def header_fields(spec: ChipletSpec) -> dict[str, int]:
    """Give the bits of each header field, the first in the least significant bits; what is left of the header is 0.

    With sequences and credits of 8 bits they are 64 in all, the whole header.
    """
    return {
        "type": 2,
        "last": 1,
        "code": 2,
        "sequence": spec.sequence_bits,
        "virtual_channel": CHANNEL_BITS,
        "length_bytes": LENGTH_BITS,
        "destination": ADDRESS_BITS,
        "source": ADDRESS_BITS,
        "credit_channel": CHANNEL_BITS,
        "credits": spec.credit_bits,
        "implicit": 9,
    }


def following(spec: ChipletSpec, sequence: int) -> int:
    """Count to the sequence after this one."""
    return (sequence + 1) % spec.sequences


@dataclass(frozen=True)
class Flit:
    """Describes one flit: header, payload padded with zeros, 4 bytes of CRC, little endian.

    ``code`` says what ``sequence`` is: EXPLICIT, of this flit, or, if it is IDLE, of the last data flit before it;
    ACK, of the last data flit that the sender of this one received in order; NAK, the same, and all after it are wanted
    again. ``credits`` is the number of flits that may ever be sent in ``credit_channel`` since the link was reset, modulo
    two to the number of its bits.
    """

    payload: bytes = b""
    type: int = IDLE
    last: int = 0
    code: int = EXPLICIT
    sequence: int = 0
    virtual_channel: int = 0
    destination: int = 0
    source: int = 0
    credit_channel: int = 0
    credits: int = 0

    @property
    def length_bytes(self) -> int:
        """Count the payload bytes in use."""
        return len(self.payload)

    @property
    def implicit(self) -> int:
        """Give IMPLICIT if the flit has a sequence of its own that it does not say, else 0."""
        return IMPLICIT if self.type & DATA and self.code != EXPLICIT else 0

    def encode(self, spec: ChipletSpec, own_sequence: int = 0) -> bytes:
        """Encode the flit as ``spec.flit_bytes`` bytes, before 64b/66b coding. ValueError if a field does not fit.

        ``own_sequence`` is that of the flit, if it is implicit.
        """
        if len(self.payload) > spec.payload_bytes:
            raise ValueError(f"Flit.payload must have at most {spec.payload_bytes} bytes, not {len(self.payload)}")
        header = position = 0
        for name, bits in header_fields(spec).items():
            value = getattr(self, name)
            if not 0 <= value < 1 << bits:
                raise ValueError(f"Flit.{name} must be from 0 to {(1 << bits) - 1}, not {value}")
            header |= value << position
            position += bits
        body = header.to_bytes(spec.header_bytes, "little") + self.payload.ljust(spec.payload_bytes, b"\0")
        return body + crc_field(spec, body, own_sequence if self.implicit else 0).to_bytes(spec.CRC_BYTES, "little")

    @staticmethod
    def decode(spec: ChipletSpec, encoded: bytes, own_sequence: int = 0) -> "Flit | None":
        """Decode ``spec.flit_bytes`` bytes; None if the CRC is wrong, or the sequence of an implicit flit is another one."""
        body, field = encoded[: -spec.CRC_BYTES], int.from_bytes(encoded[-spec.CRC_BYTES :], "little")
        header, values = int.from_bytes(body[: spec.header_bytes], "little"), dict[str, int]()
        for name, bits in header_fields(spec).items():
            values[name] = header & (1 << bits) - 1
            header >>= bits
        length_bytes, implicit = values.pop("length_bytes"), values.pop("implicit")
        # A field between both values has wrong bits, whatever the CRC says about the rest.
        if implicit not in (0, IMPLICIT) or field != crc_field(spec, body, own_sequence if implicit else 0):
            return None
        return Flit(payload=body[spec.header_bytes :][:length_bytes], **values)


def beats(spec: ChipletSpec, encoded: bytes) -> list[tuple[int, ...]]:
    """Cut a flit into beats of one unscrambled 64-bit block per wavelength, the first bytes on wavelength 0."""
    blocks = [int.from_bytes(encoded[i : i + spec.BLOCK_BYTES], "little") for i in range(0, len(encoded), spec.BLOCK_BYTES)]
    lanes = spec.wavelengths_per_port
    return [tuple(blocks[i : i + lanes]) for i in range(0, len(blocks), lanes)]


def from_beats(spec: ChipletSpec, flit_beats: Iterable[Sequence[int]]) -> bytes:
    """Join the beats of a flit to its bytes, the inverse of :func:`beats`."""
    return b"".join(block.to_bytes(spec.BLOCK_BYTES, "little") for beat in flit_beats for block in beat)
