"""The tuner brings each ring of a bus to a laser line of its own, and holds it there.

A *frame* is one sample of each ring, in the order of the bus: ring 0 meets the light first. A ring is *resting* while it has
no line, *waiting* while it wants one, *acquiring* while it sweeps for one, which one ring does at a time, *tuned* while it
holds one, and *failed* when there was none for it.

Arbitration is that of the bus: light that a ring has dropped is not seen further down. The waiting ring that is the first on
the bus takes the first line above its floor that it sees, and when it has locked the next one goes. This is the linear
probing of hash tables, on the circle of the FSR: every order of arrival makes the same total of ways [Knuth, TAOCP 3, 6.4,
theorem P], and no assignment that moves all rings upwards has a smaller one. So the total tuning power is least, also across
the FSR. A ring that comes later than rings further down sees their lines, too: their loss of light tells it that these are
taken.
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec.tuner import TunerSpec
from lightfabric.rtl.channel import lowest
from lightfabric.rtl.ring_lock import FRACTION_BITS, RingLock, ring_layout
from lightfabric.rtl.ring_sweep import RingSweep


def sample_layout(spec: TunerSpec) -> data.StructLayout:
    """Lays out a sample: the ring that it is of, and the code of its converter."""
    return data.StructLayout({"ring": range(spec.rings), "power": spec.adc_bits})


def heater_layout(spec: TunerSpec) -> data.StructLayout:
    """Lays out what a heater is to be set to."""
    return data.StructLayout({"ring": range(spec.rings), "code": spec.heater_bits})


def peak_layout(spec: TunerSpec) -> data.StructLayout:
    """Lays out an entry of the peak list: ring, heat as a code and sample where it is highest, if another ring has it."""
    return data.StructLayout({"ring": range(spec.rings), "code": spec.heater_bits, "power": spec.adc_bits, "taken": 1})


class Tuner(wiring.Component):
    """Tunes the rings of one bus.

    Samples come in the order of the rings from 0 on, one in a cycle at most, with pauses of any length; the heater's code
    that follows from a sample is there three cycles later and stands until the ring's next one. Nothing can be held back.
    After a reset all heaters are off and all rings rest.

    From the rise of ``enable`` the rings of an idle bus are ``locked`` or ``failed`` within ``rings * spec.acquire_frames``
    frames, if each ring's first line holds it. A ring is locked after four periods of the dither with light. It is ``alarm``
    and waits for another line after four without, or at an end of its heater's range: below the floor and above an FSR from
    there is a reserve, and the next line then is the same one an FSR away. A ring that is failed stays so until ``enable``
    falls. A ring without a line goes to a low code, a step a frame, and steps aside from light that it meets there; one that
    sweeps takes the light of rings further down for some frames.

    Members
    -------
    enable : In(spec.rings), tune this ring; park it otherwise
    i : In(sample_layout(spec)), with ``i_valid``
    o : Out(heater_layout(spec)), with ``o_valid``
    peak : Out(peak_layout(spec)), with ``peak_valid``
    locked, failed : Out(spec.rings)
    alarm : Out(spec.rings), 1 for the cycle in which a ring has lost its line
    """

    def __init__(self, spec: TunerSpec):
        self.spec, rings = spec, spec.rings
        super().__init__(
            {
                "enable": In(rings),
                "i": In(sample_layout(spec)),
                "i_valid": In(1),
                "o": Out(heater_layout(spec)),
                "o_valid": Out(1),
                "peak": Out(peak_layout(spec)),
                "peak_valid": Out(1),
                "locked": Out(rings),
                "failed": Out(rings),
                "alarm": Out(rings),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec, rings = self.spec, self.spec.rings
        m.submodules.lock, m.submodules.sweep = lock, sweep = RingLock(spec), RingSweep(spec)
        m.submodules.memory = memory = Memory(shape=ring_layout(spec), depth=rings, init=[])
        read, write = memory.read_port(), memory.write_port()
        early, early_valid, early_here = Signal(sample_layout(spec)), Signal(), Signal(rings)
        sample, valid, here, warmer = Signal(sample_layout(spec)), Signal(), Signal(rings), Signal()
        m.d.comb += [read.addr.eq(self.i.ring), read.en.eq(1)]
        m.d.sync += [early.eq(self.i), early_valid.eq(self.i_valid)]
        m.d.sync += [bit.eq(self.i_valid & (self.i.ring == ring)) for ring, bit in enumerate(early_here)]
        # The lock has a register stage within, and all else waits for it.
        m.d.sync += [sample.eq(early), valid.eq(early_valid), here.eq(early_here)]
        frame_ends = here[-1]
        plus, minus, early_warmer = self._period(m, early_here[-1])
        aligned = Signal()
        m.d.sync += [warmer.eq(early_warmer), aligned.eq(minus)]

        turn, turn_ring, acquires, tuned = Signal(rings), Signal(range(rings)), Signal(), Signal()
        runs, enabled = Signal(), Signal()
        # A reset does not reach the memory: until a ring's first sample what is kept of it is nothing.
        known, ring = Signal(rings), Signal(ring_layout(spec))
        m.d.sync += known.eq(known | early_here)
        m.d.comb += ring.eq(Mux((known & early_here).any(), read.data, 0))
        m.d.comb += [
            enabled.eq((self.enable & here).any()),
            tuned.eq((self.locked & here).any()),
            acquires.eq(sweep.busy & (turn & here).any()),
            runs.eq(tuned | (acquires & sweep.confirms)),
            lock.ring.eq(ring),
            lock.power.eq(early.power),
            lock.plus.eq(plus),
            lock.minus.eq(minus),
            sweep.step.eq(acquires & enabled),
            sweep.abort.eq(acquires & ~enabled),
            sweep.power.eq(sample.power),
            sweep.code.eq(lock.known.code >> FRACTION_BITS),
            sweep.aligned.eq(aligned),
            sweep.lit.eq(lock.lit),
            sweep.lost.eq(lock.lost),
        ]
        # Only rings further down can lose their light to the one that sweeps.
        behind = Signal()
        m.d.sync += behind.eq(~frame_ends & (behind | acquires))
        m.d.comb += sweep.falls.eq(behind & tuned & lock.known.lit & ~lock.following.lit)

        loses = Signal()
        m.d.comb += loses.eq(tuned & enabled & lock.lost)
        self._turns(m, here, enabled, acquires, loses, turn, turn_ring, frame_ends)
        following = Signal(ring_layout(spec))
        self._move(m, following, sample, enabled & runs, enabled & acquires)
        dither = Mux(enabled & runs, spec.dither_codes, 0)
        code = following.code >> FRACTION_BITS
        m.d.comb += [write.addr.eq(sample.ring), write.data.eq(following), write.en.eq(valid)]
        m.d.sync += [
            self.o_valid.eq(valid),
            self.o.ring.eq(sample.ring),
            self.o.code.eq(Mux(warmer, code + dither, code - dither)),
            self.peak_valid.eq(sweep.step & sweep.peak),
            self.peak.ring.eq(turn_ring),
            self.peak.code.eq(sweep.peak_code),
            self.peak.power.eq(sweep.peak_power),
            self.peak.taken.eq(sweep.taken),
        ]
        return m

    def _period(self, m, frame_ends):
        """Counts the frames of a period, and gives when a half has ended and which one is now.

        What is set in a frame is seen by the sample of the next one, so that the last sample of a half is that of the frame
        in which the other half begins.
        """
        half = self.spec.half_frames
        frame = Signal(range(2 * half))
        plus, minus, warmer = Signal(), Signal(), Signal()
        with m.If(frame_ends):
            m.d.sync += frame.eq(Mux(frame == 2 * half - 1, 0, frame + 1))
        m.d.comb += [plus.eq(frame == half), minus.eq(frame == 0), warmer.eq(frame < half)]
        return plus, minus, warmer

    def _turns(self, m, here, enabled, acquires, loses, turn, turn_ring, frame_ends):
        """Keeps who waits, who has a line and who has failed, and gives the turn to the first on the bus that waits."""
        sweep, rings = m.submodules.sweep, self.spec.rings
        waiting, first, wants, starts = Signal(rings), Signal(rings), Signal(), Signal()
        self.state = {"waiting": waiting, "turn": turn, "here": here}
        m.d.comb += [
            first.eq(lowest(waiting)),
            wants.eq(enabled & ~acquires & ((~(self.locked | self.failed) & here).any() | loses)),
            starts.eq(frame_ends & ~sweep.busy & waiting.any()),
            sweep.start.eq(starts),
        ]
        parked = here & (~enabled).replicate(rings)
        m.d.sync += [
            waiting.eq((waiting | (here & wants.replicate(rings))) & ~parked & ~(first & starts.replicate(rings))),
            self.locked.eq(
                (self.locked | (here & sweep.locks.replicate(rings))) & ~parked & ~(here & loses.replicate(rings))
            ),
            self.failed.eq((self.failed | (here & sweep.fails.replicate(rings))) & ~parked),
            self.alarm.eq(here & loses.replicate(rings)),
        ]
        with m.If(starts):
            m.d.sync += [turn.eq(first), turn_ring.eq(sum(Mux(bit, ring, 0) for ring, bit in enumerate(first)))]

    def _move(self, m, following, sample, runs, acquires):
        """Works out what becomes of a ring: the lock moves it, or the sweep, or it goes to its rest."""
        spec, lock, sweep = self.spec, m.submodules.lock, m.submodules.sweep
        code = sweep.code
        rests = Signal(spec.heater_bits)
        arrived = Signal()
        m.d.comb += [arrived.eq(lock.known.rested | (code <= spec.rest_codes)), rests.eq(code)]
        with m.If(~arrived):
            m.d.comb += rests.eq(code - spec.step_codes)
        with m.Elif((sample.power >= spec.threshold // 2) & (code <= 2 * spec.rest_codes)):
            m.d.comb += rests.eq(code + spec.step_codes)
        m.d.comb += [following.eq(lock.following), following.rested.eq(0)]
        with m.If(~runs):
            m.d.comb += [
                following.code.eq(Mux(acquires, sweep.following, rests) << FRACTION_BITS),
                following.speed.eq(0),
                following.dark.eq(0),
                following.rested.eq(arrived & ~acquires),
            ]
