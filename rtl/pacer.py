"""The pacer sets the rhythm in which a link puts blocks on its line."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec

MAX_LATE_BEATS = 2
"""So many beats for which the SerDes was not ready are sent later, which is what two rhythms of one rate need."""
READY_SLACK_BEATS = 8
"""So many more beats may leave the link, at most, after the SerDes was ready last: they are in its register stages."""


class Pacer(wiring.Component):
    """Sets the line's rhythm: ``beat`` is 1 in ``spec.blocks_per_cycle`` of the cycles, as evenly as whole cycles allow.

    In a cycle after one without ``ready`` there is no beat. Up to ``MAX_LATE_BEATS`` that are missed so are sent as soon as
    they can be, so that a SerDes that pauses in its own rhythm still gets all blocks of its line; more are left out.

    Members
    -------
    ready : In(1), 1 unless connected
    beat : Out(1)
    coming : Out(1), ``beat`` of the next cycle
    """

    def __init__(self, spec: ChipletSpec):
        self.rate = spec.blocks_per_cycle
        super().__init__({"ready": In(1, init=1), "beat": Out(1), "coming": Out(1)})

    def elaborate(self, platform):
        m = Module()
        beats, cycles = self.rate.numerator, self.rate.denominator
        # The line gains ``beats`` a cycle on what was sent, and each beat pays ``cycles`` of them back.
        owed = Signal(range((MAX_LATE_BEATS + 1) * cycles))
        m.d.comb += self.coming.eq(self.ready & (owed >= cycles - beats))
        m.d.sync += self.beat.eq(self.coming)
        with m.If(self.coming):
            m.d.sync += owed.eq(owed - (cycles - beats))
        with m.Elif(owed < MAX_LATE_BEATS * cycles):
            m.d.sync += owed.eq(owed + beats)
        return m
