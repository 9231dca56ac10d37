"""The receiver finds the blocks on each lane, descrambles them, and learns from its training sets which lane it is.

The words of block lock: a lane *locks* after enough good sync headers in a row; before that a bad header is answered by a
*slip*, which moves by one bit where its blocks begin, and a *wait* until the blocks show it. A locked lane drops its lock
only for many bad headers in a *window* of blocks, since bit errors make some.

The words of what is learned: a lane's *number* is that of the transmitter's lane whose sets it brings; *inverted* means that
all its bits are. Sets that agree with both make *trust*, all other blocks where sets are due cost it. Without trust another
number or polarity is taken; a lane that has gained all trust is *proven* until it has lost all.
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import SYNC_CONTROL
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.line import block_bits, block_layout
from lightfabric.rtl.scrambler import Scrambler, descrambled
from lightfabric.rtl.training_set import LANE_BITS, MAGIC, PARITY, SET_BITS, TRAINING_SET, Phase, parity_of

SLIP_WAIT_BLOCKS = 8
"""After a slip so many blocks pass unseen: more than the bit slip of a SerDes takes."""
LOCK_BLOCKS = 64
"""So many good sync headers in a row lock; in a window of as many a locked lane counts bad ones [IEEE 802.3 49.2.9]."""
MAX_BAD_HEADERS = 16
"""So many in a window unlock the lane [IEEE 802.3 49.2.9]."""
SILENT_CYCLES = 256
"""Without a block the receiver has no line: a line in use brings one within 4 cycles."""
MAX_TRUST = 31
"""So many sets prove a lane: it needs as many blocks as block lock leaves after the first of them has been seen."""
DISTRUST = 2
"""A block that is no set costs the trust of so many sets: lanes that lose more than a third, at 2e-3, are not proven."""


class BlockLock(wiring.Component):
    """Finds where the blocks of a lane begin, by their sync headers [IEEE 802.3 49.2.9].

    Members
    -------
    sync : In(2)
    valid : In(1)
    relock : In(1), drop the lock
    freeze : In(1), the blocks have no sync headers: the lock stays as it is
    locked : Out(1)
    slip : Out(1), for one cycle, and again after ``SLIP_WAIT_BLOCKS`` at the earliest
    """

    def __init__(self):
        inputs = {"sync": In(2), **dict.fromkeys(("valid", "relock", "freeze"), In(1))}
        super().__init__({**inputs, "locked": Out(1), "slip": Out(1)})

    def elaborate(self, platform):
        m = Module()
        block, bad_headers = Signal(range(LOCK_BLOCKS)), Signal(range(MAX_BAD_HEADERS))
        wait = Signal(range(SLIP_WAIT_BLOCKS + 1))
        good, ends, too_bad, valid = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            good.eq(self.sync[0] ^ self.sync[1]),
            ends.eq(block == LOCK_BLOCKS - 1),
            # The register does not count the present bad header yet, so the limit is less by it.
            too_bad.eq(~self.locked | (bad_headers == MAX_BAD_HEADERS - 1)),
            valid.eq(self.valid & ~(self.freeze & self.locked)),
        ]
        m.d.sync += self.slip.eq(0)
        with m.If(valid & (wait != 0)):
            m.d.sync += wait.eq(wait - 1)
        with m.Elif(valid & ~good & too_bad):
            m.d.sync += [self.slip.eq(1), wait.eq(SLIP_WAIT_BLOCKS), self.locked.eq(0), block.eq(0), bad_headers.eq(0)]
        with m.Elif(valid):
            m.d.sync += [block.eq(block + 1), bad_headers.eq(Mux(ends, 0, bad_headers + ~good))]
            with m.If(ends):
                m.d.sync += self.locked.eq(1)
        with m.If(self.relock):
            m.d.sync += [self.locked.eq(0), block.eq(0), bad_headers.eq(0)]
        return m


class Lane(wiring.Component):
    """Descrambles one lane of a receiver, a cycle later, and learns its number and polarity.

    Members
    -------
    block : In(block_layout(spec))
    valid : In(1)
    relock, freeze : In(1)
    due : In(1), a cycle after ``valid``: the block should be a set
    locked, slip : Out(1)
    good : Out(1), locked and proven
    number : Out(5), of the lane at the transmitter
    inverted : Out(1)
    bits : Out(block_bits(spec)), plain, or where they have a code and are no set, as they came
    is_set : Out(1), ``bits`` are a training set of this lane
    shows_set : Out(1), or one of another lane or polarity
    error : Out(1), pulse: the blocks since the last counted set do not have the parity that this one tells
    """

    def __init__(self, spec: ChipletSpec, number: int):
        self.number_at_first, self.has_code = number, spec.code is not None
        super().__init__(
            {
                "block": In(block_layout(spec)),
                **dict.fromkeys(("valid", "relock", "freeze", "due"), In(1)),
                **dict.fromkeys(("locked", "slip", "good"), Out(1)),
                "number": Out(LANE_BITS, init=number),
                "inverted": Out(1),
                "bits": Out(block_bits(spec)),
                **dict.fromkeys(("is_set", "shows_set", "error"), Out(1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.lock = lock = BlockLock()
        m.d.comb += [
            lock.sync.eq(self.block.sync),
            lock.valid.eq(self.valid),
            lock.relock.eq(self.relock),
            lock.freeze.eq(self.freeze),
            self.locked.eq(lock.locked),
            self.slip.eq(lock.slip),
        ]
        block, is_control = Signal.like(self.block), Signal()
        m.d.comb += block.eq(self.block.as_value() ^ self.inverted.replicate(len(block.as_value())))
        descrambler = Scrambler(descrambled, block.bits, "descrambler")
        # Registered where the halves of a block differ, a set is found with a level of logic less afterwards.
        complements, plain, as_it_came = Signal(SET_BITS), Signal(64), Signal.like(block.as_value())
        with m.If(self.valid):
            m.d.sync += [
                descrambler.step(),
                plain.eq(descrambler.out),
                as_it_came.eq(block),
                complements.eq(descrambler.out[:SET_BITS] ^ descrambler.out[SET_BITS:]),
                is_control.eq(block.sync == SYNC_CONTROL),
            ]
        info, shows = data.View(TRAINING_SET, plain[:SET_BITS]), Signal(2)
        # Of inverted sets the header is that of data, and each half is the other one.
        m.d.comb += shows[0].eq(is_control & complements.all() & (info.magic == MAGIC))
        m.d.comb += shows[1].eq(~is_control & complements.all() & (~info.magic == MAGIC))
        m.d.comb += [self.is_set.eq(shows[0] & (info.lane == self.number)), self.shows_set.eq(shows.any())]
        m.d.comb += self.bits.eq(Mux(shows.any(), plain, as_it_came) if self.has_code else plain)
        self._learn(m, shows, info.lane)
        self._check_parity(m, block, info, plain)
        return m

    def _learn(self, m, shows, number):
        """Follows a register stage behind the block: what it shows is trusted, distrusted, or believed for want of trust."""
        trust, valid, proven, due = Signal(range(MAX_TRUST + 1)), Signal(), Signal(), Signal()
        agrees, sets, inverse, told = Signal(), Signal(), Signal(), Signal(LANE_BITS)
        comes = Signal()
        m.d.sync += [comes.eq(self.valid), valid.eq(comes)]
        m.d.sync += [agrees.eq(self.is_set), sets.eq(shows[0]), inverse.eq(shows[1]), told.eq(number), due.eq(self.due)]
        m.d.comb += self.good.eq(self.locked & proven)
        with m.If(self.relock | self.slip):
            m.d.sync += [trust.eq(0), proven.eq(0)]
        with m.Elif(valid & agrees):
            m.d.sync += trust.eq(trust + (trust != MAX_TRUST))
            m.d.sync += proven.eq(proven | (trust == MAX_TRUST))
        with m.Elif(valid & due & (trust >= DISTRUST)):
            m.d.sync += trust.eq(trust - DISTRUST)
        with m.Elif(valid & due):
            m.d.sync += [trust.eq(0), proven.eq(0), self.inverted.eq(self.inverted ^ inverse)]
            with m.If(sets):
                m.d.sync += self.number.eq(told)

    def _check_parity(self, m, block, info, plain):
        """Sums the parities as the transmitter does, and compares them at each counted set but the first."""
        now, before, total = Signal(8), Signal(8), Signal(8)
        comes, is_counted, synced = Signal(), Signal(), Signal()
        m.d.sync += comes.eq(self.valid)
        m.d.comb += is_counted.eq(self.is_set & (info.phase >= Phase.COUNTED))
        with m.If(self.valid):
            m.d.sync += [now.eq(parity_of(block)), before.eq(now)]
        with m.If(comes):
            m.d.sync += total.eq(Mux(is_counted, 0, total) ^ before)
        m.d.sync += self.error.eq(comes & is_counted & synced & (total != plain[PARITY]))
        # Blocks that were not received as they were sent for want of lock or polarity are no errors of bits.
        m.d.sync += synced.eq((synced | (comes & is_counted)) & self.locked)
