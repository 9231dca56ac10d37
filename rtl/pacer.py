"""The pacer sets the rhythm in which a link puts blocks on its line."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from lightfabric.model.spec import ChipletSpec


class Pacer(wiring.Component):
    """Sets the line's rhythm: ``beat`` is 1 in ``spec.blocks_per_cycle`` of the cycles, as evenly as whole cycles allow.

    Members
    -------
    beat : Out(1)
    coming : Out(1), ``beat`` of the next cycle
    """

    def __init__(self, spec: ChipletSpec):
        self.rate = spec.blocks_per_cycle
        super().__init__({"beat": Out(1), "coming": Out(1)})

    def elaborate(self, platform):
        m = Module()
        beats, cycles = self.rate.numerator, self.rate.denominator
        # The line gains ``beats`` a cycle on what was sent, and each beat pays ``cycles`` of them back.
        owed = Signal(range(cycles))
        m.d.comb += self.coming.eq(owed >= cycles - beats)
        m.d.sync += [self.beat.eq(self.coming), owed.eq(Mux(self.coming, owed - (cycles - beats), owed + beats))]
        return m
