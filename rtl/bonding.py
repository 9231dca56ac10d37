"""The words of frames are dealt out over the lanes of a line as scrambled 64b/66b blocks, and collected from them."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import SYNC_CONTROL, SYNC_DATA
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.line import ALL_LANES, UPPER_LANES, LineSignature, sent_layout
from lightfabric.rtl.scrambler import Scrambler, scrambled
from lightfabric.rtl.training_set import SET_BITS


class Distributor(wiring.Component):
    """Puts words or training sets on the lanes of a line, as scrambled blocks, in the next cycle.

    On half of the wavelengths the words of a beat take two beats of the line, the low half first.

    Members
    -------
    i : In(sent_layout(spec))
    lanes : In(2), wavelengths of the frames; changes only while sets are sent
    line : Out(LineSignature(spec))
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        super().__init__({"i": In(sent_layout(spec)), "lanes": In(2), "line": Out(LineSignature(spec))})

    def elaborate(self, platform):
        m = Module()
        count, sent = self.spec.wavelengths_per_port, self.i
        piece = Signal()
        with m.If(sent.valid):
            m.d.sync += piece.eq(~piece & ~sent.is_set & (self.lanes != ALL_LANES))
        m.d.sync += self.line.valid.eq(sent.valid)
        for lane, block in enumerate(self.line.blocks):
            bits = sent.words.word_select(lane, 64)
            if count > 1:
                # Both halves of the wavelengths carry the same blocks: a receiver takes those that it has locked.
                half = lane % (count // 2)
                halved = sent.words.word_select(Mux(piece, half + count // 2, half), 64)
                bits = Mux(self.lanes == ALL_LANES, bits, halved)
            # A set has its complement behind it, by which a receiver knows it, and the number of its lane.
            info = (sent.set | lane)[:SET_BITS]
            scrambler = Scrambler(scrambled, Mux(sent.is_set, Cat(info, ~info), bits), f"scrambler_{lane}")
            with m.If(sent.valid):
                sync = Mux(sent.is_set, SYNC_CONTROL, SYNC_DATA)
                m.d.sync += [scrambler.step(), block.bits.eq(scrambler.out), block.sync.eq(sync)]
        return m


class Collector(wiring.Component):
    """Makes the words of a beat from one beat of the line, or from two on half of the wavelengths; combinational.

    Members
    -------
    beat : In(64 * spec.wavelengths_per_port), plain, all wavelengths aligned
    beat_valid : In(1)
    frames : In(1), the beats are those of frames
    lanes : In(2), wavelengths of the frames; changes only while ``frames`` is 0
    words : Out(64 * spec.wavelengths_per_port)
    words_valid : Out(1)
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        bits = spec.beat_bytes * 8
        inputs = {"beat": In(bits), "beat_valid": In(1), "frames": In(1), "lanes": In(2)}
        super().__init__({**inputs, "words": Out(bits), "words_valid": Out(1)})

    def elaborate(self, platform):
        m = Module()
        valid, bits = self.beat_valid & self.frames, len(self.beat)
        if self.spec.wavelengths_per_port == 1:
            m.d.comb += [self.words.eq(self.beat), self.words_valid.eq(valid)]
            return m
        second, low = Signal(), Signal(bits // 2)
        half = Mux(self.lanes == UPPER_LANES, self.beat[bits // 2 :], self.beat[: bits // 2])
        m.d.comb += [
            self.words.eq(Mux(self.lanes == ALL_LANES, self.beat, Cat(low, half))),
            self.words_valid.eq(valid & ((self.lanes == ALL_LANES) | second)),
        ]
        with m.If(~self.frames):
            m.d.sync += second.eq(0)
        with m.Elif(valid & (self.lanes != ALL_LANES)):
            m.d.sync += [second.eq(~second), low.eq(half)]
        return m
