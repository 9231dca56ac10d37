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

    def step(self, word, beat):
        """Statements that take in the word of a beat, not the last of the flit."""
        pairs = zip(self.registers, self.spans, strict=True)
        return [register.eq(self._stepped(register, word, beat, span)) for register, span in pairs]

    def field(self, word):
        """The CRC field of the flit whose last beat is ``word``; its last 32 bits, where the field goes, do not matter."""
        parts = [self._last(register, word, span) for register, span in zip(self.registers, self.spans, strict=True)]
        return Cat(parts)[:CRC_BITS] | Const(0, CRC_BITS)

    def _stepped(self, register, word, beat, span):
        stepped = parities(self._folded(register, word), _rows(self.spec.crc, len(word)))
        if len(self.spans) == 1:
            return stepped
        first, end = (at // self.spec.beat_bytes for at in span)
        return Mux((beat >= first) & (beat < end), stepped, register)

    def _last(self, register, word, span):
        """The CRC over a span from its register when ``word`` is the last beat of the flit."""
        first_byte, message_bytes = self.spec.flit_bytes - self.spec.beat_bytes, span[1] - span[0]
        part = word[8 * max(0, span[0] - first_byte) : 8 * max(0, span[1] - first_byte)]
        if len(part) == 0:  # the span ended in an earlier beat
            masks = [self.crc.finish(1 << bit, message_bytes) ^ self.crc.xorout for bit in range(self.crc.bits)]
            turned = [sum((mask >> row & 1) << bit for bit, mask in enumerate(masks)) for row in range(self.crc.bits)]
            return parities(register, turned) ^ self.crc.xorout
        rows = _last_rows(self.spec.crc, len(part), message_bytes)
        return parities(self._folded(register, part), rows) ^ self.crc.xorout

    def _folded(self, register, word):
        """The word in the order of the CRC with the register on its first bits."""
        if self.crc.reflect_in:
            return word ^ register
        return Cat(word.word_select(byte, 8)[::-1] for byte in range(len(word) // 8)) ^ register
