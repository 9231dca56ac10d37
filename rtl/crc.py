"""The CRC field of a flit, a whole beat at a time, as XOR trees computed from ``model.codec``."""

from functools import cache

from amaranth import Cat, Const, Mux, Signal

from lightfabric.model.codec import CRC_BITS, CRCS, SEQUENCE_BITS, crc_field, crc_spans, reverse
from lightfabric.model.spec import ChipletSpec


@cache
def _rows(name: str, bits: int) -> tuple[int, ...]:
    return tuple(CRCS[name].rows(bits))


@cache
def _last_rows(name: str, bits: int, message_bytes: int) -> tuple[int, ...]:
    """Masks per bit of the CRC that ends with these bits, but for what it is XORed with."""
    crc = CRCS[name]
    finished = [crc.finish(1 << bit, message_bytes) ^ crc.xorout for bit in range(crc.bits)]
    rows = [0] * crc.bits
    for bit, row in enumerate(_rows(name, bits)):
        for out in range(crc.bits):
            rows[out] ^= row if finished[bit] >> out & 1 else 0
    return tuple(rows)


def parities(value, masks):
    """Parity of ``value`` under each mask, an XOR tree per bit. Combinational."""
    return Cat((value & mask).xor() for mask in masks)


def implicit_sequence(spec: ChipletSpec, sequence):
    """What a sequence that a flit does not say changes in its CRC field. Combinational."""
    nothing = crc_field(spec, bytes(spec.flit_bytes - spec.CRC_BYTES))
    changes = [crc_field(spec, bytes(spec.flit_bytes - spec.CRC_BYTES), 1 << bit) ^ nothing for bit in range(SEQUENCE_BITS)]
    return parities(
        sequence, [sum((change >> row & 1) << bit for bit, change in enumerate(changes)) for row in range(CRC_BITS)]
    )


class FlitCrc:
    """Registers of the CRCs of one flit (two where a short CRC covers half of it), for ``m.d.sync`` of its user."""

    def __init__(self, spec: ChipletSpec, name: str):
        self.spec, self.crc, self.spans = spec, CRCS[spec.crc], crc_spans(spec)
        self._start = reverse(self.crc.init, self.crc.bits)
        self.registers = [Signal(self.crc.bits, init=self._start, name=f"{name}_{n}") for n, _ in enumerate(self.spans)]

    def start(self, sequence):
        """Statements that begin a flit whose first byte has ``sequence`` XORed onto it."""
        bits = sequence if self.crc.reflect_in else sequence[::-1]
        first, *others = self.registers
        return [first.eq(bits ^ self._start), *(register.eq(self._start) for register in others)]

    def shares(self, word):
        """What the word of a beat adds to the CRCs, for ``step``, and, as the last of a flit, for ``field``. Combinational.

        The last 32 bits of the last word, where the field goes, do not matter.
        """
        nothing = Const(0, self.crc.bits)
        steps = [self._stepped(nothing, word) for _ in self.spans]
        return Cat(steps, (self._last(nothing, word, span) for span in self.spans))

    def registered_shares(self, m, word, enable, *, may_be_last=True, clear=None):
        """The shares of ``word`` in the cycle before, if ``enable`` was 1 then; 0 after ``clear``.

        Those of every 32 bits have their own registers: trees of two levels of four-input LUTs.
        """
        shares = 0
        for at in range(0, len(word), 32):
            share = self.shares(word & (0xFFFF_FFFF << at))
            share = share if may_be_last else share[: len(share) // 2]
            register = Signal(len(share), name=f"shares_{at}")
            with m.If(enable):
                m.d.sync += register.eq(share)
            if clear is not None:
                with m.If(clear):
                    m.d.sync += register.eq(0)
            shares = shares ^ register
        return shares

    def step(self, shares, beat):
        """Statements that take in the word of a beat, not the last of the flit."""
        nothing, statements = Const(0, self.spec.beat_bytes * 8), []
        for n, (register, span) in enumerate(zip(self.registers, self.spans, strict=True)):
            stepped = self._stepped(register, nothing) ^ shares.word_select(n, self.crc.bits)
            first, end = (at // self.spec.beat_bytes for at in span)
            is_covered = (beat >= first) & (beat < end) if len(self.spans) > 1 else 1
            statements.append(register.eq(Mux(is_covered, stepped, register)))
        return statements

    def field(self, shares):
        """The CRC field of the flit whose last beat has these shares."""
        nothing, parts = Const(0, self.spec.beat_bytes * 8), []
        for n, (register, span) in enumerate(zip(self.registers, self.spans, strict=True), len(self.spans)):
            share = shares.word_select(n, self.crc.bits)
            parts.append(self._last(register, nothing, span) ^ share ^ self.crc.xorout)
        return Cat(parts)[:CRC_BITS] | Const(0, CRC_BITS)

    def _stepped(self, register, word):
        return parities(self._folded(register, word), _rows(self.spec.crc, len(word)))

    def _last(self, register, word, span):
        """The CRC over a span, but for what it is XORed with, from its register when ``word`` is the last of the flit."""
        first_byte, message_bytes = self.spec.flit_bytes - self.spec.beat_bytes, span[1] - span[0]
        part = word[8 * max(0, span[0] - first_byte) : 8 * max(0, span[1] - first_byte)]
        if len(part) == 0:  # the span ended in an earlier beat
            masks = [self.crc.finish(1 << bit, message_bytes) ^ self.crc.xorout for bit in range(self.crc.bits)]
            turned = [sum((mask >> row & 1) << bit for bit, mask in enumerate(masks)) for row in range(self.crc.bits)]
            return parities(register, turned)
        return parities(self._folded(register, part), _last_rows(self.spec.crc, len(part), message_bytes))

    def _folded(self, register, word):
        """The word in the order of the CRC with the register on its first bits."""
        if self.crc.reflect_in:
            return word ^ register
        return Cat(word.word_select(byte, 8)[::-1] for byte in range(len(word) // 8)) ^ register
