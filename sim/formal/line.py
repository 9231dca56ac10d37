"""The descrambler is proven to bring back what went into the scrambler."""

from amaranth.hdl import Assert, Cover
from amaranth.lib.wiring import In

from lightfabric.model.codec import SCRAMBLER_BITS
from lightfabric.rtl.scrambler import Scrambler, descrambled, scrambled
from lightfabric.sim.formal.harness import Harness, latched

BLOCK_BITS = 64


class ScramblerIdentity(Harness):
    """Sends any blocks through a scrambler and a descrambler that begin in any two states.

    Members
    -------
    valid, block : In, sent in this cycle
    near, far : In(58), the states in which they begin
    """

    def __init__(self, scrambler=scrambled, descrambler=descrambled):
        self.scrambler, self.descrambler = scrambler, descrambler
        super().__init__({"valid": In(1), "block": In(BLOCK_BITS), **dict.fromkeys(("near", "far"), In(SCRAMBLER_BITS))})

    def _prove(self, m):
        near = Scrambler(self.scrambler, self.block, "near_state")
        far = Scrambler(self.descrambler, near.out, "far_state")
        begun = latched(m, 1, "begun")
        sent = latched(m, begun & self.valid, "sent")
        with m.If(~begun):
            m.d.sync += [near.history.eq(self.near), far.history.eq(self.far)]
        with m.Elif(self.valid):
            m.d.sync += [near.step(), far.step()]
        late = slice(SCRAMBLER_BITS, BLOCK_BITS)
        m.d.comb += [
            Assert(far.out[late] == self.block[late], "bits behind 58 others are those that were sent"),
            Assert(~sent | (far.history == near.history), "after a block both have the same state"),
            Assert(~sent | (far.out == self.block), "after a block all are those that were sent"),
            Cover(latched(m, near.history != far.history, "differed") & sent, "states that differ become the same"),
        ]
