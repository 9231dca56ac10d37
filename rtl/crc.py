"""XOR trees, computed from ``model.codec``, make the CRC field of a flit, a whole beat at a time.

The words: a *row* is the mask of the bits whose parity is one bit of a CRC; a *span* is the part of a flit that one CRC
covers; *shares* are what a word adds to the CRCs.
"""

from functools import cache

from amaranth import Cat, Const, Mux, Signal

from lightfabric.model.codec import CRC_BITS, CRCS, SEQUENCE_BITS, crc_field, crc_spans, reverse
from lightfabric.model.spec import ChipletSpec


# Thousands of bits take seconds to compute, and every link of a chiplet asks for the same rows.
@cache
def _rows(name: str, bits: int) -> tuple[int, ...]:
    return tuple(CRCS[name].rows(bits))


@cache
def _last_rows(name: str, bits: int, message_bytes: int) -> tuple[int, ...]:
    """Computes the masks, per bit, of the CRC that ends with these bits, but for what it is XORed with."""
    crc = CRCS[name]
    finished = [crc.finish(1 << bit, message_bytes) ^ crc.xorout for bit in range(crc.bits)]
    rows = [0] * crc.bits
    for bit, row in enumerate(_rows(name, bits)):
        for out in range(crc.bits):
            rows[out] ^= row if finished[bit] >> out & 1 else 0
    return tuple(rows)


def parities(value, masks):
    """Takes the parity of ``value`` under each mask, an XOR tree per bit. Combinational."""
    return Cat((value & mask).xor() for mask in masks)


def implicit_sequence(spec: ChipletSpec, sequence):
    """Tells what a sequence that a flit does not say changes in its CRC field. Combinational."""
    # A CRC is linear but for what it is XORed with, so what each bit of the sequence changes tells all.
    nothing = crc_field(spec, bytes(spec.flit_bytes - spec.CRC_BYTES))
    changes = [crc_field(spec, bytes(spec.flit_bytes - spec.CRC_BYTES), 1 << bit) ^ nothing for bit in range(SEQUENCE_BITS)]
    return parities(
        sequence, [sum((change >> row & 1) << bit for bit, change in enumerate(changes)) for row in range(CRC_BITS)]
    )


class FlitCrc:
    """Keeps the registers of the CRCs of one flit (two where a short CRC covers half of it), for ``m.d.sync`` of its user.

    The CRC is linear: what a word adds to it, its *shares*, can be computed before the register is known.
    """

    def __init__(self, spec: ChipletSpec, name: str):
        self.spec, self.crc, self.spans = spec, CRCS[spec.crc], crc_spans(spec)
        self._start = reverse(self.crc.init, self.crc.bits)
        self.registers = [Signal(self.crc.bits, init=self._start, name=f"{name}_{n}") for n, _ in enumerate(self.spans)]
        own = (1 << self.crc.bits) - 1  # the register is XORed onto the first bits of what comes next
        steps = _rows(spec.crc, spec.beat_bytes * 8)
        ends = [self._end_rows(span) for span in self.spans]
        self._share_rows = [*steps, *(row for _, word_rows in ends for row in word_rows)]
        self._step_rows, self._field_rows = [row & own for row in steps], [rows for rows, _ in ends]

    def _end_rows(self, span):
        """Computes the masks, per bit of the CRC over a span, of its register and of the last word."""
        first_byte, message_bytes = self.spec.flit_bytes - self.spec.beat_bytes, span[1] - span[0]
        begin, end = (max(0, at - first_byte) for at in span)
        if begin == end:  # the span ended in an earlier beat
            masks = [self.crc.finish(1 << bit, message_bytes) ^ self.crc.xorout for bit in range(self.crc.bits)]
            turned = [sum((mask >> row & 1) << bit for bit, mask in enumerate(masks)) for row in range(self.crc.bits)]
            return turned, [0] * self.crc.bits
        rows = _last_rows(self.spec.crc, 8 * (end - begin), message_bytes)
        return [row & (1 << self.crc.bits) - 1 for row in rows], [row << 8 * begin for row in rows]

    def start(self, sequence):
        """Makes the statements that begin a flit whose first byte has ``sequence`` XORed onto it."""
        bits = sequence if self.crc.reflect_in else sequence[::-1]
        first, *others = self.registers
        return [first.eq(bits ^ self._start), *(register.eq(self._start) for register in others)]

    def shares(self, m, word):
        """Computes what the word of a beat adds to the CRCs, for ``step`` and, in a last beat, for ``field``. Combinational.

        The last 32 bits of the last word, where the field goes, do not matter.
        """
        return parities(self._stream(m, word), self._share_rows)

    def registered_shares(self, m, word, enable, *, may_be_last=True, clear=None):
        """Keeps the shares of ``word`` of the cycle before, if ``enable`` was 1 then; 0 after ``clear``.

        Those of every 32 bits have their own registers: trees of two levels of four-input LUTs.
        """
        stream, rows = self._stream(m, word), self._share_rows if may_be_last else self._share_rows[: self.crc.bits]
        shares = Const(0, len(self._share_rows))
        for at in range(0, len(stream), 32):
            register = Signal(len(rows), name=f"shares_{at}")
            with m.If(enable):
                m.d.sync += register.eq(parities(stream[at : at + 32], [row >> at & 0xFFFF_FFFF for row in rows]))
            if clear is not None:
                with m.If(clear):
                    m.d.sync += register.eq(0)
            shares = shares ^ register
        return shares

    def step(self, shares, beat):
        """Makes the statements that take in the word of a beat, not the last of the flit."""
        statements, share = [], shares[: self.crc.bits]
        for register, span in zip(self.registers, self.spans, strict=True):
            first, end = (at // self.spec.beat_bytes for at in span)
            is_covered = (beat >= first) & (beat < end) if len(self.spans) > 1 else 1
            statements.append(register.eq(Mux(is_covered, parities(register, self._step_rows) ^ share, register)))
        return statements

    def field(self, shares):
        """Computes the CRC field of the flit whose last beat has these shares."""
        parts = [
            parities(register, rows) ^ shares.word_select(n, self.crc.bits) ^ self.crc.xorout
            for n, (register, rows) in enumerate(zip(self.registers, self._field_rows, strict=True), 1)
        ]
        return Cat(parts)[:CRC_BITS] | Const(0, CRC_BITS)

    def _stream(self, m, word):
        """Puts the word in the order in which the CRC takes its bits."""
        if self.crc.reflect_in:
            return word
        stream = Signal(len(word))
        m.d.comb += stream.eq(Cat(word.word_select(byte, 8)[::-1] for byte in range(len(word) // 8)))
        return stream
