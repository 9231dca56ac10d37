"""Syndromes of received codewords are computed p symbols per clock."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.reed_solomon import ReedSolomon
from lightfabric.rtl.fec.beat import BeatCounter, beats
from lightfabric.rtl.fec.field import linear


class Syndromes(wiring.Component):
    """Evaluates each codeword at the roots of the generator polynomial; all are 0 for a codeword without errors.

    The codeword is that of ``slots`` symbols, the empty ones of its last beat taken as zeros after its end. So each
    position is higher by their number, and the syndromes are those of the errors at these positions.

    Members
    -------
    i : In(beats(code, p))
    done : Out(1), two clocks after the last beat
    syndromes : Out, n - k symbols, that of the first root in the low bits, valid with ``done``
    """

    LATENCY_CLOCKS = 2

    def __init__(self, code: ReedSolomon, p: int):
        self.code, self.p = code, p
        super().__init__({"i": In(beats(code, p)), "done": Out(1), "syndromes": Out(code.parity_symbols * code.m)})

    def elaborate(self, platform):
        m = Module()
        field, bits = self.code.field, self.code.m
        m.submodules.counter = counter = BeatCounter(self.code.beats(self.p))
        m.d.comb += [counter.valid.eq(self.i.valid), counter.first.eq(self.i.first)]
        empty = self.code.beats(self.p) * self.p - self.code.n
        data = Signal.like(self.i.data)
        m.d.comb += data.eq(self.i.data)
        if empty:
            with m.If(counter.ends):
                m.d.comb += data[-empty * bits :].eq(0)
        share, valid, first, last = Signal.like(self.syndromes), Signal(), Signal(), Signal()
        roots = range(self.code.first_root, self.code.first_root + self.code.parity_symbols)
        m.d.sync += [
            valid.eq(self.i.valid),
            first.eq(counter.begins),
            last.eq(counter.ends),
            share.eq(Cat(linear(m, data, self._evaluated(root), bits) for root in roots)),
            self.done.eq(valid & last),
        ]
        for at, root in enumerate(roots):
            syndrome, step = self.syndromes.word_select(at, bits), field.power(root * self.p)
            moved = linear(m, syndrome, lambda value, step=step: field.multiply(value, step), bits)
            with m.If(valid):
                m.d.sync += syndrome.eq(share.word_select(at, bits) ^ Mux(first, 0, moved))
        return m

    def _evaluated(self, root: int):
        """Makes the function that evaluates a beat as a polynomial at alpha^root."""
        field, bits = self.code.field, self.code.m

        def evaluated(beat: int) -> int:
            value = 0
            for at in range(0, self.p * bits, bits):
                value = field.multiply(value, field.power(root)) ^ (beat >> at & field.order)
            return value

        return evaluated
