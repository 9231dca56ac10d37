"""The lanes of a line are called by their numbers, to know which are there and good, and offered for use in their order.

The words of this file:

* *number*: a lane is known by its number at the transmitter; a *lane* without more is one of the receiver
* *call*: one number after the other is called, a cycle for each; the first good lane of the number *answers*
* *offer*: the lanes that answered in the last round, as many as there are wavelengths
* *reduced*: fewer lanes than wavelengths are in use; *return*: more are offered than are in use
* *flap*: lanes that returned were lost again soon
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import lowest
from lightfabric.rtl.training_set import LANE_BITS

HOLD_OFF_BITS = 7
"""Lanes must be good for 2^7 blocks before they are taken back: twice what block lock takes, and little beside 10 us."""
MAX_FLAPS = 9
"""Each flap doubles the hold-off, up to 2^16 blocks: with the training 140 us at 2 ns a block, far below 1 ms."""
FLAP_BITS = 12
"""Lanes lost within 2^12 blocks of their return have flapped: their training took about as long as they served."""
CALM_BITS = 20
"""2^20 blocks without a loss of lanes, about 2 ms, end the memory of flaps."""


class RollCall(wiring.Component):
    """Offers the good lanes of the lowest numbers, and ranks those in use by their numbers.

    An offer is at most two rounds old, a round being a cycle for each lane; so are ranks.

    Members
    -------
    good : In(N)
    numbers : In(5).array(N)
    use : In(N), lanes in use
    lanes : In(N), and their numbers as a mask
    offer : Out(N), lanes that could be in use
    offered : Out(N), their numbers as a mask
    width : Out(range(W + 1)), how many they are
    doubles : Out(N), good lanes whose number another lane has answered
    ranks : Out(range(W)).array(N)
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        lanes, count = spec.lanes_per_port, spec.wavelengths_per_port
        super().__init__(
            {
                **dict.fromkeys(("good", "use", "lanes"), In(lanes)),
                "numbers": In(LANE_BITS).array(lanes),
                **dict.fromkeys(("offer", "offered", "doubles"), Out(lanes)),
                "width": Out(range(count + 1)),
                "ranks": Out(range(max(count, 2))).array(lanes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, count = self.spec.lanes_per_port, self.spec.wavelengths_per_port
        called, ends, here, answers = Signal(LANE_BITS), Signal(), Signal(lanes), Signal(lanes)
        offer, offered, doubles = Signal(lanes), Signal(lanes), Signal(lanes)
        width, rank, takes = Signal(range(count + 1)), Signal(range(count + 1)), Signal()
        new_offer, new_offered, new_width = Signal(lanes), Signal(lanes), Signal.like(width)
        m.d.comb += [
            ends.eq(called == lanes - 1),
            [here[n].eq(number == called) for n, number in enumerate(self.numbers)],
            answers.eq(lowest(here & self.good)),
            takes.eq(answers.any() & (width != count)),
            new_offer.eq(offer | (answers & takes.replicate(lanes))),
            new_offered.eq(offered | (takes << called)),
            new_width.eq(width + takes),
        ]
        m.d.sync += [called.eq(Mux(ends, 0, called + 1)), doubles.eq(doubles | (here & self.good & ~answers))]
        m.d.sync += [offer.eq(new_offer), offered.eq(new_offered), width.eq(new_width)]
        with m.If(ends):
            m.d.sync += [offer.eq(0), offered.eq(0), width.eq(0), doubles.eq(0)]
            m.d.sync += [self.offer.eq(new_offer), self.offered.eq(new_offered), self.width.eq(new_width)]
            m.d.sync += self.doubles.eq(doubles | (here & self.good & ~answers))
        m.d.sync += rank.eq(Mux(ends, 0, rank + self.lanes.bit_select(called, 1)))
        for n in range(lanes):
            with m.If(here[n] & self.use[n]):
                m.d.sync += self.ranks[n].eq(rank)
        return m


class HoldOff(wiring.Component):
    """Asks for a training when lanes that were lost have been good again for long enough; longer after each flap.

    Members
    -------
    beat : In(1)
    active : In(1), frames flow
    more : In(1), more lanes are offered than are in use
    lost : In(1), pulse: a training begins because lanes in use failed
    asks : Out(1)
    """

    def __init__(self):
        super().__init__({**dict.fromkeys(("beat", "active", "more", "lost"), In(1)), "asks": Out(1)})

    def elaborate(self, platform):
        m = Module()
        flaps, waited, served = Signal(range(MAX_FLAPS + 1)), Signal(HOLD_OFF_BITS + MAX_FLAPS + 1), Signal(CALM_BITS + 1)
        returned = Signal()
        m.d.comb += self.asks.eq(waited.bit_select(flaps + HOLD_OFF_BITS, 1))
        with m.If(~self.active | ~self.more | self.asks):
            m.d.sync += waited.eq(0)
        with m.Elif(self.beat):
            m.d.sync += waited.eq(waited + 1)
        with m.If(self.asks):
            m.d.sync += returned.eq(1)
        with m.If(self.lost):
            m.d.sync += [returned.eq(0), flaps.eq(flaps + (returned & ~served[FLAP_BITS:].any() & (flaps != MAX_FLAPS)))]
        with m.Elif(served[-1]):
            m.d.sync += [flaps.eq(0), returned.eq(0)]
        # Service is counted from the return on, and goes on over trainings that are not for want of lanes.
        with m.If(self.asks | self.lost):
            m.d.sync += served.eq(0)
        with m.Elif(self.beat & self.active & ~served[-1]):
            m.d.sync += served.eq(served + 1)
        return m
