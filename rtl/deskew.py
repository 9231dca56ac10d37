"""The lanes of a line are delayed until all of them show at the same time what was sent together.

The words of the state machine:

* *place*: the number of a set, by which sets sent together are known; *lag*: the time at which a lane showed place 0
* *seen*: the lane has shown a place; *moved*: its lag is not what it was, so blocks were lost or gained
* *upset*: something that the delays follow from has changed, and the comparison begins anew (WAIT)
* *latest*: the greatest lag of the lanes in use (LATEST); each lane is *ahead* of it by its delay (DISTANCE)
* *far*: too far ahead of the latest, or late where most others are: the lane is not for use
* *settle*: the delay lines fill before what comes out of them counts (SETTLE)
"""

from itertools import pairwise

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

PLACE_BITS = 8
"""The number of a set has so many bits that lanes up to 127 blocks apart are compared rightly."""


class Delay(wiring.Component):
    """Gives a lane's bits, and whether they are a set, 0 to ``max_blocks`` blocks later; combinational at 0.

    Members
    -------
    i, o : In, Out(bits + 1)
    valid : In(1), a block
    blocks : In(range(max_blocks + 1))
    """

    def __init__(self, max_blocks: int, bits: int = 64):
        members = {"i": In(bits + 1), "o": Out(bits + 1), "valid": In(1)}
        super().__init__({**members, "blocks": In(range(max_blocks + 1))})

    def elaborate(self, platform):
        m = Module()
        # Stages of .. 4, 2 and 1 blocks, each taken or not: fewer multiplexers than a choice among all delays.
        line = self.i
        for bit, chosen in reversed(list(enumerate(self.blocks))):
            chain = [Signal.like(self.o, name=f"late_{bit}_{n}") for n in range(1 << bit)]
            with m.If(self.valid):
                m.d.sync += [late.eq(early) for early, late in pairwise([line, *chain])]
            out = Signal.like(self.o, name=f"out_{bit}")
            m.d.comb += out.eq(Mux(chosen, chain[-1], line))
            line = out
        m.d.comb += self.o.eq(line)
        return m


class _Deskewing(enum.Enum, shape=3):
    """The steps of the comparison follow each other from WAIT to DONE."""

    WAIT = 0
    LATEST = 1
    DISTANCE = 2
    SETTLE = 3
    DONE = 4


class Deskew(wiring.Component):
    """Computes how late each lane must be made for all to show the same set at the same time.

    ``place`` is the number of a set modulo 256, of the lanes with ``counted``. One lane is compared after the other, then
    the delay lines fill: ``aligned`` is 1 about 4 x lanes cycles and ``max_blocks`` + 1 blocks after the last lane in use
    showed a place. If lanes in use are more than ``max_blocks`` apart, those on the side of fewer are ``far``.

    Members
    -------
    valid : In(1)
    counted : In(lanes)
    place : In(8).array(lanes)
    locked, use : In(lanes)
    relock, realign, reuse, retry : In(1)
    blocks : Out(range(max_blocks + 1)).array(lanes)
    aligned : Out(1)
    far : Out(lanes), until ``retry``, ``relock`` or the lane's loss of its lock
    overflow : Out(lanes), until ``relock``
    """

    def __init__(self, lanes: int, max_blocks: int):
        self.lanes, self.max_blocks = lanes, max_blocks
        super().__init__(
            {
                "valid": In(1),
                "counted": In(lanes),
                "place": In(PLACE_BITS).array(lanes),
                "locked": In(lanes),
                "use": In(lanes),
                **dict.fromkeys(("relock", "realign", "reuse", "retry"), In(1)),
                "blocks": Out(range(max_blocks + 1)).array(lanes),
                "aligned": Out(1),
                **dict.fromkeys(("far", "overflow"), Out(lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = range(self.lanes)
        shown, seen, moved, upset = Signal(self.lanes), Signal(self.lanes), Signal(self.lanes), Signal()
        block = Signal(PLACE_BITS)
        lags = [Signal(PLACE_BITS, name=f"lag_{n}") for n in lanes]
        # ``lag`` of a lane is registered, so ``shown`` goes through a register stage beside it.
        m.d.sync += [block.eq(block + self.valid), shown.eq(self.counted & self.valid.replicate(self.lanes)), moved.eq(0)]
        for n in lanes:
            lag = Signal(PLACE_BITS, name=f"new_lag_{n}")
            m.d.sync += lag.eq(block - self.place[n])
            with m.If(shown[n]):
                m.d.sync += [lags[n].eq(lag), seen[n].eq(1), moved[n].eq(lag != lags[n])]
        with m.If(self.relock | self.realign):
            m.d.sync += seen.eq(0)
        m.d.sync += upset.eq(self.relock | self.realign | self.reuse | (self.use & (moved | ~seen | ~self.locked)).any())
        self._compare(m, lags, upset)
        return m

    def _compare(self, m, lags, upset):
        """Goes over the lanes twice, two cycles for each: first for the latest, then for the distance of each from it."""
        lane, second, looked = Signal(range(max(self.lanes, 2))), Signal(), Signal(PLACE_BITS)
        latest, found, failed = Signal(PLACE_BITS), Signal(), Signal()
        settle, used = Signal(range(self.max_blocks + 1)), self.use.bit_select(lane, 1)
        beyond, balance, excluded = Signal(self.lanes), Signal(signed(7)), Signal(self.lanes)
        ahead, later = Signal(PLACE_BITS), Signal()
        # Lags wrap around, so the sign of a difference tells which is later. The first lane in use has none to compare with.
        m.d.comb += [ahead.eq(latest - looked), later.eq(ahead[-1] | ~found)]
        # The choice of a lag takes the first of the two cycles (a register stage), its use the second.
        with m.Switch(lane):
            for n, lag in enumerate(lags):
                with m.Case(n):
                    m.d.sync += looked.eq(lag)
        state, last, too_far = Signal(_Deskewing), lane == self.lanes - 1, used & (ahead > self.max_blocks)
        m.d.sync += self.aligned.eq((state == _Deskewing.DONE) & ~upset)
        with m.Switch(state):
            with m.Case(_Deskewing.WAIT):
                m.d.sync += [state.eq(_Deskewing.LATEST), lane.eq(0), second.eq(0), found.eq(0)]
                m.d.sync += [failed.eq(0), balance.eq(0)]
            with m.Case(_Deskewing.LATEST):
                m.d.sync += second.eq(~second)
                with m.If(second):
                    m.d.sync += lane.eq(Mux(last, 0, lane + 1))
                with m.If(second & used & later):
                    m.d.sync += [latest.eq(looked), found.eq(1)]
                with m.If(second & last):
                    m.d.sync += state.eq(_Deskewing.DISTANCE)
            with m.Case(_Deskewing.DISTANCE):
                m.d.sync += [second.eq(~second), settle.eq(self.max_blocks)]
                with m.If(second):
                    m.d.sync += [lane.eq(lane + 1), failed.eq(failed | too_far)]
                    m.d.sync += [beyond.bit_select(lane, 1).eq(too_far), balance.eq(balance + Mux(too_far, 1, -used))]
                    with m.Switch(lane):
                        for n, blocks in enumerate(self.blocks):
                            with m.Case(n):
                                m.d.sync += blocks.eq(ahead)
                with m.If(second & last):
                    m.d.sync += state.eq(_Deskewing.SETTLE)
            with m.Case(_Deskewing.SETTLE):
                m.d.sync += settle.eq(settle - self.valid)
                with m.If(failed):
                    m.d.comb += excluded.eq(Mux(balance > 0, self.use & ~beyond, beyond))
                    m.d.sync += state.eq(_Deskewing.WAIT)
                with m.Elif(self.valid & (settle == 0)):
                    m.d.sync += state.eq(_Deskewing.DONE)
        with m.If(upset):
            m.d.sync += state.eq(_Deskewing.WAIT)
        forgets = (self.relock | self.retry).replicate(self.lanes)
        m.d.sync += self.far.eq((self.far | excluded) & self.locked & ~forgets)
        m.d.sync += self.overflow.eq((self.overflow | excluded) & ~self.relock.replicate(self.lanes))
