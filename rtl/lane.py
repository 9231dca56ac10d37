"""The receiver finds the blocks on each lane of a line, descrambles them, and aligns the lanes by their training sets.

The words of block lock: a lane *locks* after enough good sync headers in a row; before that a bad header is answered by a
*slip*, which moves by one bit where its blocks begin, and a *wait* until the blocks show it. A locked lane drops its lock
only for many bad headers in a *window* of blocks, since bit errors make some.
"""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import SYNC_CONTROL
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import one_hot_mux
from lightfabric.rtl.deskew import Delay, Deskew
from lightfabric.rtl.line import BLOCK, LineSignature
from lightfabric.rtl.scrambler import Scrambler, descrambled
from lightfabric.rtl.training_set import MAGIC, SET, SET_BITS, TRAINING_SET, Phase

SLIP_WAIT_BLOCKS = 8
"""After a slip so many blocks pass unseen: more than the bit slip of a SerDes takes."""
LOCK_BLOCKS = 64
"""So many good sync headers in a row lock; in a window of as many a locked lane counts bad ones [IEEE 802.3 49.2.9]."""
MAX_BAD_HEADERS = 16
"""So many in a window unlock the lane [IEEE 802.3 49.2.9]."""
SILENT_CYCLES = 256
"""Without a block the receiver has no line: a line in use brings one within 4 cycles."""


def beat_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out a received beat: plain, lane 0 in the low bits of ``data``."""
    return data.StructLayout({"data": 64 * spec.wavelengths_per_port, "valid": 1, "set_valid": 1, "set": SET})


class BlockLock(wiring.Component):
    """Finds where the blocks of a lane begin, by their sync headers [IEEE 802.3 49.2.9].

    Members
    -------
    sync : In(2)
    valid : In(1)
    relock : In(1), drop the lock
    locked : Out(1)
    slip : Out(1), for one cycle, and again after ``SLIP_WAIT_BLOCKS`` at the earliest
    """

    def __init__(self):
        super().__init__({"sync": In(2), "valid": In(1), "relock": In(1), "locked": Out(1), "slip": Out(1)})

    def elaborate(self, platform):
        m = Module()
        block, bad_headers = Signal(range(LOCK_BLOCKS)), Signal(range(MAX_BAD_HEADERS))
        wait = Signal(range(SLIP_WAIT_BLOCKS + 1))
        good, ends, too_bad = Signal(), Signal(), Signal()
        m.d.comb += [
            good.eq(self.sync[0] ^ self.sync[1]),
            ends.eq(block == LOCK_BLOCKS - 1),
            # The register does not count the present bad header yet, so the limit is less by it.
            too_bad.eq(~self.locked | (bad_headers == MAX_BAD_HEADERS - 1)),
        ]
        m.d.sync += self.slip.eq(0)
        with m.If(self.valid & (wait != 0)):
            m.d.sync += wait.eq(wait - 1)
        with m.Elif(self.valid & ~good & too_bad):
            m.d.sync += [self.slip.eq(1), wait.eq(SLIP_WAIT_BLOCKS), self.locked.eq(0), block.eq(0), bad_headers.eq(0)]
        with m.Elif(self.valid):
            m.d.sync += [block.eq(block + 1), bad_headers.eq(Mux(ends, 0, bad_headers + ~good))]
            with m.If(ends):
                m.d.sync += self.locked.eq(1)
        with m.If(self.relock):
            m.d.sync += [self.locked.eq(0), block.eq(0), bad_headers.eq(0)]
        return m


class Lane(wiring.Component):
    """Descrambles one lane of a receiver, a cycle later.

    Members
    -------
    block : In(BLOCK)
    valid : In(1)
    relock : In(1)
    locked, slip : Out(1)
    bits : Out(64), plain
    is_set : Out(1), ``bits`` are a training set of this lane
    """

    def __init__(self, number: int):
        self.number = number
        inputs = {"block": In(BLOCK), "valid": In(1), "relock": In(1)}
        super().__init__({**inputs, "locked": Out(1), "slip": Out(1), "bits": Out(64), "is_set": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.lock = lock = BlockLock()
        m.d.comb += [
            lock.sync.eq(self.block.sync),
            lock.valid.eq(self.valid),
            lock.relock.eq(self.relock),
            self.locked.eq(lock.locked),
            self.slip.eq(lock.slip),
        ]
        descrambler, is_control = Scrambler(descrambled, self.block.bits, "descrambler"), Signal()
        # Registered where the halves of a block differ, a set is found with a level of logic less afterwards.
        complements = Signal(SET_BITS)
        with m.If(self.valid):
            m.d.sync += [
                descrambler.step(),
                self.bits.eq(descrambler.out),
                complements.eq(descrambler.out[:SET_BITS] ^ descrambler.out[SET_BITS:]),
                is_control.eq(self.block.sync == SYNC_CONTROL),
            ]
        info = data.View(TRAINING_SET, self.bits[:SET_BITS])
        own = (info.lane == self.number) & (info.magic == MAGIC)
        m.d.comb += self.is_set.eq(is_control & own & complements.all())
        return m


class Aligner(wiring.Component):
    """Finds the blocks on each lane, descrambles them and gives the lanes out as they were sent together.

    A block at ``rx`` is at ``beat`` in the next cycle if there is one lane; else two cycles later if it is of the latest
    lane, and those of the others wait for it. ``aligned`` holds while frames flow, and falls if a lane loses its lock or
    shows a set that was not sent together with those of the others.

    Members
    -------
    rx : In(LineSignature(spec))
    slip : Out(W), for one cycle: the SerDes moves the lane by one bit
    relock : In(1), drop all locks and begin anew
    realign : In(1), forget the sets seen: ``aligned`` is 0 until all lanes in use have shown sets again
    use : In(W), lanes that carry frames; changes only together with ``realign`` or ``relock``
    locked : Out(W)
    aligned : Out(1)
    beat : Out(beat_layout(spec))
    skew_overflow : Out(W), lanes in use that were too far ahead of the last one, since ``relock``
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        lanes = spec.wavelengths_per_port
        super().__init__(
            {
                "rx": In(LineSignature(spec)),
                "slip": Out(lanes),
                "relock": In(1),
                "realign": In(1),
                "use": In(lanes),
                "locked": Out(lanes),
                "aligned": Out(1),
                "beat": Out(beat_layout(spec)),
                "skew_overflow": Out(lanes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        count = self.spec.wavelengths_per_port
        silence, relock, valid = Signal(range(SILENT_CYCLES)), Signal(), Signal()
        m.d.comb += relock.eq(self.relock | (silence == SILENT_CYCLES - 1))
        # Without blocks no header is ever bad: a dark line must drop the locks of the lanes by its silence.
        m.d.sync += [silence.eq(Mux(self.rx.valid, 0, silence + 1)), valid.eq(self.rx.valid)]
        received = []
        for n, block in enumerate(self.rx.blocks):
            m.submodules[f"lane_{n}"] = lane = Lane(n)
            m.d.comb += [
                lane.block.eq(block),
                lane.valid.eq(self.rx.valid),
                lane.relock.eq(relock),
                self.locked[n].eq(lane.locked),
                self.slip[n].eq(lane.slip),
            ]
            received.append(lane)
        if count == 1:
            self._one(m, received[0], valid, relock)
        else:
            self._several(m, received, valid, relock)
        return m

    def _one(self, m, lane, valid, relock):
        """Passes a single lane on, which is aligned as soon as it has shown a set."""
        shown, seen, forgets, forgot = Signal(), Signal(), Signal(), Signal()
        self._give(m, lane.bits[:SET_BITS], lane.is_set, valid, lane.bits)
        m.d.comb += forgets.eq(relock | self.realign)
        # A register stage between the set and ``seen``, for speed.
        m.d.sync += [shown.eq(self.beat.set_valid), forgot.eq(forgets), seen.eq((seen | (shown & ~forgot)) & ~forgets)]
        m.d.comb += self.aligned.eq(seen & lane.locked)

    def _several(self, m, lanes, valid, relock):
        """Delays the lanes until they are aligned, and takes the set of a beat from the first lane that shows one."""
        m.submodules.deskew = deskew = Deskew(len(lanes))
        m.d.comb += [
            deskew.valid.eq(valid),
            deskew.locked.eq(self.locked),
            deskew.use.eq(self.use),
            deskew.relock.eq(relock),
            deskew.realign.eq(self.realign),
            self.aligned.eq(deskew.aligned),
            self.skew_overflow.eq(deskew.overflow),
        ]
        beat_valid, words, are_sets = Signal(), [], Signal(len(lanes))
        m.d.sync += beat_valid.eq(valid)
        for n, lane in enumerate(lanes):
            info = data.View(TRAINING_SET, lane.bits[:SET_BITS])
            m.submodules[f"delay_{n}"] = delay = Delay()
            word = Signal(64, name=f"word_{n}")
            m.d.comb += [
                deskew.counted[n].eq(lane.is_set & (info.phase >= Phase.COUNTED)),
                deskew.place[n].eq(Cat(info.phase, info.word)),
                delay.i.eq(Cat(lane.bits, lane.is_set)),
                delay.valid.eq(valid),
                delay.blocks.eq(deskew.blocks[n]),
            ]
            with m.If(valid):
                m.d.sync += [word.eq(delay.o[:64]), are_sets[n].eq(delay.o[64])]
            words.append(word)
        # Bit errors hide the sets of some lanes; all say the same.
        good = Signal(len(lanes))
        m.d.comb += good.eq(are_sets & self.use)
        first = (good & -good)[: len(lanes)]
        info = one_hot_mux(first, [word[:SET_BITS] for word in words])
        self._give(m, info, good.any(), beat_valid, Cat(words))

    def _give(self, m, info, is_set, valid, bits):
        """Gives out a beat, and the set that it is."""
        info, beat = data.View(TRAINING_SET, info), self.beat
        m.d.comb += [
            beat.data.eq(bits),
            beat.valid.eq(valid),
            beat.set_valid.eq(valid & is_set),
            *(beat.set[name].eq(info[name]) for name in ("phase", "step", "word")),
        ]
