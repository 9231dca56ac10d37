"""XOR trees, computed from ``model.codec``, make the CRC field of a flit, a whole beat at a time.

The words: a *row* is the mask of the bits whose parity is one bit of a CRC; a *span* is the part of a flit that one CRC
covers; *shares* are what a word adds to the CRCs; a *root* is what a register holds in place of its CRC.

Between the beats of a flit a CRC is a polynomial that each beat multiplies by x^b, with b bits in a beat, a power of 2. The
b-th power is linear in GF(2), and no two CRCs have the same one, so a register may hold the b-th root in place of a CRC: to
it a beat is a product with x, a shift by one bit, where the CRC itself takes an XOR tree for each of its bits.
"""

from functools import cache, reduce
from operator import xor

from amaranth import Cat, Const, Mux, Signal

from lightfabric.model.codec import CRC_BITS, CRCS, crc_field, crc_spans, reverse
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


@cache
def _root_rows(name: str, beat_bits: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Computes the rows that make a CRC's register of its root, and those that make the root of the register."""
    crc = CRCS[name]
    power, powers = 1 << crc.bits - 1, []  # the register is reflected: this is the polynomial 1
    for _ in range(crc.bits):
        powers.append(power)
        power = crc.update(power, 0, beat_bits)
    rows = _transposed(powers, crc.bits)
    return tuple(rows), tuple(_inverse(rows))


def _transposed(rows, width: int) -> list[int]:
    return [sum((row >> bit & 1) << at for at, row in enumerate(rows)) for bit in range(width)]


def _product(rows, others) -> list[int]:
    """Multiplies two matrices in GF(2)."""
    return [reduce(xor, (other for bit, other in enumerate(others) if row >> bit & 1), 0) for row in rows]


def _inverse(rows) -> list[int]:
    """Inverts a square matrix in GF(2) by elimination."""
    size = len(rows)
    both = [row | 1 << size + at for at, row in enumerate(rows)]
    for bit in range(size):
        pivot = next(at for at in range(bit, size) if both[at] >> bit & 1)
        both[bit], both[pivot] = both[pivot], both[bit]
        both = [row ^ (both[bit] if row >> bit & 1 and at != bit else 0) for at, row in enumerate(both)]
    return [row >> size for row in both]


def parities(value, masks):
    """Takes the parity of ``value`` under each mask, an XOR tree per bit. Combinational."""
    return Cat((value & mask).xor() for mask in masks)


def implicit_sequence(spec: ChipletSpec, sequence):
    """Tells what a sequence that a flit does not say changes in its CRC field. Combinational."""
    # A CRC is linear but for what it is XORed with, so what each bit of the sequence changes tells all.
    body = bytes(spec.flit_bytes - spec.CRC_BYTES)
    changes = [crc_field(spec, body, 1 << bit) ^ crc_field(spec, body) for bit in range(spec.sequence_bits)]
    return parities(
        sequence, [sum((change >> row & 1) << bit for bit, change in enumerate(changes)) for row in range(CRC_BITS)]
    )


class FlitCrc:
    """Keeps the registers of the CRCs of one flit (two where a short CRC covers half of it), for ``m.d.sync`` of its user.

    The CRC is linear: what a word adds to it, its *shares*, can be computed before the register is known.
    """

    def __init__(self, spec: ChipletSpec, name: str):
        self.spec, self.crc, self.spans = spec, CRCS[spec.crc], crc_spans(spec)
        own = (1 << self.crc.bits) - 1  # the register is XORed onto the first bits of what comes next
        powers, self._roots = _root_rows(spec.crc, spec.beat_bytes * 8)
        start = reverse(self.crc.init, self.crc.bits)
        self._start = sum(((row & start).bit_count() & 1) << bit for bit, row in enumerate(self._roots))
        self.registers = [Signal(self.crc.bits, init=self._start, name=f"{name}_{n}") for n, _ in enumerate(self.spans)]
        steps = _product(self._roots, _rows(spec.crc, spec.beat_bytes * 8))
        ends = [self._end_rows(span) for span in self.spans]
        self._share_rows = [*steps, *(row for _, word_rows in ends for row in word_rows)]
        self._step_rows = _product([row & own for row in steps], powers)
        self._field_rows = [_product(rows, powers) for rows, _ in ends]

    def _end_rows(self, span):
        """Computes the masks, per bit of the CRC over a span, of its register and of the last word."""
        first_byte, message_bytes = self.spec.flit_bytes - self.spec.beat_bytes, span[1] - span[0]
        begin, end = (max(0, at - first_byte) for at in span)
        if begin == end:  # the span ended in an earlier beat
            masks = [self.crc.finish(1 << bit, message_bytes) ^ self.crc.xorout for bit in range(self.crc.bits)]
            return _transposed(masks, self.crc.bits), [0] * self.crc.bits
        rows = _last_rows(self.spec.crc, 8 * (end - begin), message_bytes)
        return [row & (1 << self.crc.bits) - 1 for row in rows], [row << 8 * begin for row in rows]

    def start(self, sequence):
        """Makes the statements that begin a flit whose first bytes have ``sequence`` XORed onto them."""
        whole = Cat(sequence, Const(0, -len(sequence) % 8))
        bits = whole if self.crc.reflect_in else Cat(whole[at : at + 8][::-1] for at in range(0, len(whole), 8))
        first, *others = self.registers
        return [first.eq(parities(bits, self._roots) ^ self._start), *(register.eq(self._start) for register in others)]

    def shares(self, m, word):
        """Computes what the word of a beat adds to the CRCs, for ``step`` and, in a last beat, for ``field``. Combinational.

        The last 32 bits of the last word, where the field goes, do not matter.
        """
        return parities(self._stream(m, word), self._share_rows)

    def registered_shares(self, m, word, enable, *, may_be_last=True, clear=None):
        """Keeps the shares of ``word`` of the cycle before, if ``enable`` was 1 then; 0 after ``clear``.

        Those of every 16 bits have their own registers: trees of two levels of four-input LUTs.
        """
        stream, rows = self._stream(m, word), self._share_rows if may_be_last else self._share_rows[: self.crc.bits]
        shares = Const(0, len(self._share_rows))
        for at in range(0, len(stream), 16):
            register = Signal(len(rows), name=f"shares_{at}")
            with m.If(enable):
                m.d.sync += register.eq(parities(stream[at : at + 16], [row >> at & 0xFFFF for row in rows]))
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
