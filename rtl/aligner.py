"""The aligner gives out the lanes of a line as they were sent together, and what their training sets say."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import lowest, one_hot_mux
from lightfabric.rtl.deskew import Delay, Deskew
from lightfabric.rtl.lane import SILENT_CYCLES, Lane
from lightfabric.rtl.line import LineSignature, block_bits
from lightfabric.rtl.training_set import HEARD, LANE_BITS, SET, SET_BITS, TRAINING_SET, Phase


class Aligner(wiring.Component):
    """Finds the blocks on each lane, descrambles them and gives the lanes out as they were sent together.

    A block of the latest lane at ``rx`` is at ``blocks`` in the next cycle, and those of the others wait for it. What is
    ``heard`` comes with it if there is one lane, else a cycle later. ``aligned`` holds while frames flow, and falls if a
    lane in use loses its lock or shows a set that was not sent together with those of the others.

    Members
    -------
    rx : In(LineSignature(spec))
    slip : Out(N), for one cycle: the SerDes moves the lane by one bit
    relock : In(1), drop all locks and begin anew
    realign : In(1), forget the sets seen: ``aligned`` is 0 until all lanes in use have shown sets again
    freeze : In(N), lanes that bring blocks without sync headers: their locks stay as they are
    frames : In(1), what comes on lanes in use are frames, not sets
    use : In(N), lanes that carry frames; changes only together with ``reuse``, ``realign`` or ``relock``
    reuse : In(1), pulse: other lanes are in use
    retry : In(1), pulse: lanes that were too far from the others get another chance
    locked : Out(N)
    good : Out(N), locked, proven by their sets and not too far from the others
    numbers : Out(5).array(N), of the transmitter's lanes that come here
    inverted : Out(N)
    errors : Out(N), pulses: a lane had bit errors
    aligned : Out(1)
    blocks : Out(block_bits(spec)).array(N), plain, but for those of frames with a code
    blocks_valid : Out(1)
    heard : Out(HEARD)
    skew_overflow : Out(N), lanes in use that were too far from most others, since ``relock``
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        lanes = spec.lanes_per_port
        super().__init__(
            {
                "rx": In(LineSignature(spec)),
                **dict.fromkeys(("relock", "realign", "reuse", "retry", "frames"), In(1)),
                **dict.fromkeys(("freeze", "use"), In(lanes)),
                **dict.fromkeys(("slip", "locked", "good", "inverted", "errors", "skew_overflow"), Out(lanes)),
                "numbers": Out(LANE_BITS).array(lanes),
                "aligned": Out(1),
                "blocks": Out(block_bits(spec)).array(lanes),
                "blocks_valid": Out(1),
                "heard": Out(HEARD),
            }
        )

    def elaborate(self, platform):
        m = Module()
        silence, relock, shows = Signal(range(SILENT_CYCLES)), Signal(), Signal()
        m.d.comb += relock.eq(self.relock | (silence == SILENT_CYCLES - 1))
        # Without blocks no header is ever bad: a dark line must drop the locks of the lanes by its silence.
        m.d.sync += [silence.eq(Mux(self.rx.valid, 0, silence + 1)), self.blocks_valid.eq(self.rx.valid)]
        lanes = []
        for n, block in enumerate(self.rx.blocks):
            m.submodules[f"lane_{n}"] = lane = Lane(self.spec, n)
            m.d.comb += [
                lane.block.eq(block),
                lane.valid.eq(self.rx.valid),
                lane.relock.eq(relock),
                lane.freeze.eq(self.freeze[n]),
                # Where some lane brings a set all do, but those that carry frames.
                lane.due.eq(shows & ~(self.frames & self.use[n])),
                self.locked[n].eq(lane.locked),
                self.slip[n].eq(lane.slip),
                self.numbers[n].eq(lane.number),
                self.inverted[n].eq(lane.inverted),
                self.errors[n].eq(lane.error),
            ]
            lanes.append(lane)
        m.d.comb += shows.eq(Cat(lane.shows_set for lane in lanes).any())
        (self._one if len(lanes) == 1 else self._several)(m, lanes, relock)
        return m

    def _one(self, m, lanes, relock):
        """Passes a single lane on, which is aligned as soon as it has shown a set."""
        shown, seen, forgets, forgot, lane = Signal(), Signal(), Signal(), Signal(), lanes[0]
        self._hear(m, lane.bits[:SET_BITS], lane.is_set, self.blocks_valid)
        m.d.comb += [forgets.eq(relock | self.realign), self.blocks[0].eq(lane.bits), self.good.eq(lane.good)]
        # A register stage between the set and ``seen``, for speed.
        m.d.sync += [shown.eq(self.heard.set_valid), forgot.eq(forgets), seen.eq((seen | (shown & ~forgot)) & ~forgets)]
        m.d.comb += self.aligned.eq(seen & lane.locked)

    def _several(self, m, lanes, relock):
        """Delays the lanes until they are aligned, and takes the set of a beat from the first lane that shows one."""
        m.submodules.deskew = deskew = Deskew(len(lanes), self.spec.max_skew_blocks)
        m.d.comb += [
            deskew.valid.eq(self.blocks_valid),
            deskew.locked.eq(self.locked),
            deskew.use.eq(self.use),
            deskew.relock.eq(relock),
            deskew.reuse.eq(self.reuse),
            deskew.retry.eq(self.retry),
            deskew.realign.eq(self.realign),
            self.aligned.eq(deskew.aligned),
            self.skew_overflow.eq(deskew.overflow),
            self.good.eq(Cat(lane.good for lane in lanes) & ~deskew.far),
        ]
        valid, infos, are_sets, bits = Signal(), [], Signal(len(lanes)), block_bits(self.spec)
        m.d.sync += valid.eq(self.blocks_valid)
        for n, lane in enumerate(lanes):
            info = data.View(TRAINING_SET, lane.bits[:SET_BITS])
            m.submodules[f"delay_{n}"] = delay = Delay(self.spec.max_skew_blocks, bits)
            kept = Signal(SET_BITS, name=f"info_{n}")
            m.d.comb += [
                deskew.counted[n].eq(lane.is_set & (info.phase >= Phase.COUNTED)),
                deskew.place[n].eq(Cat(info.phase, info.word)),
                delay.i.eq(Cat(lane.bits, lane.is_set)),
                delay.valid.eq(self.blocks_valid),
                delay.blocks.eq(deskew.blocks[n]),
                self.blocks[n].eq(delay.o[:bits]),
            ]
            with m.If(self.blocks_valid):
                m.d.sync += [kept.eq(delay.o[:SET_BITS]), are_sets[n].eq(delay.o[bits])]
            infos.append(kept)
        # Bit errors hide the sets of some lanes; all say the same.
        good, told = are_sets & self.use, Signal(len(lanes))
        m.d.comb += told.eq(lowest(good))
        self._hear(m, one_hot_mux(told, infos), good.any(), valid)

    def _hear(self, m, info, is_set, valid):
        """Says which set a beat is."""
        info = data.View(TRAINING_SET, info)
        m.d.comb += [self.heard.valid.eq(valid), self.heard.set_valid.eq(valid & is_set)]
        m.d.comb += [self.heard.set[name].eq(info[name]) for name, _ in SET]
