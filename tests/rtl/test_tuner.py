"""The tuner beside the plant in Python, a sample at a time: locks, arbitration, faults, parking, reset."""

import numpy as np
import pytest
from amaranth import ResetInserter, Signal
from amaranth.sim import Simulator

from lightfabric.model.spec.tuner import CONFIRM_PERIODS, TunerSpec
from lightfabric.rtl.tuner import Tuner
from lightfabric.sim.plant.ring_bus import Plant, RingBus

SPEC = TunerSpec(rings=4, heater_bits=11, range_ghz=1024.0, fsr_ghz=800.0)
BUS = RingBus(SPEC)
FLOOR_GHZ = SPEC.floor_code / SPEC.codes_per_ghz
ALL = (1 << SPEC.rings) - 1
BOUND_FRAMES = SPEC.rings * SPEC.acquire_frames


class Bench:
    """Frames of the tuner and its plant; ``peaks`` are those told, ``alarms`` the rings that lost their line."""

    def __init__(self, cold_ghz, pauses=None):
        self.plant, self.tuner = Plant(BUS, cold_ghz, np.random.default_rng(7)), Tuner(SPEC)
        self.pauses = pauses
        self.codes, self.peaks, self.alarms, self.frames = [0] * SPEC.rings, [], 0, 0
        self.broken = None

    def run(self, story):
        self.reset = Signal()
        simulator = Simulator(ResetInserter(self.reset)(self.tuner))
        simulator.add_clock(1e-6)

        async def testbench(ctx):
            self.ctx = ctx
            ctx.set(self.tuner.enable, ALL)
            await story(self)

        simulator.add_testbench(testbench)
        simulator.run()

    async def cycle(self):
        ctx, tuner = self.ctx, self.tuner
        await ctx.tick()
        if ctx.get(tuner.o_valid):
            self.codes[ctx.get(tuner.o.ring)] = ctx.get(tuner.o.code)
        if ctx.get(tuner.peak_valid):
            self.peaks.append(tuple(ctx.get(getattr(tuner.peak, name)) for name in ("ring", "code", "power", "taken")))
        self.alarms |= ctx.get(tuner.alarm)

    async def frame(self):
        ctx, tuner = self.ctx, self.tuner
        if self.broken is not None:
            self.codes[0] = self.broken
        self.plant.heat(self.codes, SPEC.frame_ns)
        for ring, power in enumerate(self.plant.samples()):
            ctx.set(tuner.i_valid, 1)
            ctx.set(tuner.i.ring, ring)
            ctx.set(tuner.i.power, int(power))
            await self.cycle()
            ctx.set(tuner.i_valid, 0)
            for _ in range(self.pauses.integers(4) if self.pauses else 0):
                await self.cycle()
        for _ in range(3):
            await self.cycle()
        self.frames += 1

    async def until(self, done, bound_frames=BOUND_FRAMES):
        for _ in range(bound_frames):
            await self.frame()
            if done():
                return
        raise AssertionError(f"not within {bound_frames} frames")

    def locked(self):
        return self.ctx.get(self.tuner.locked)

    def failed(self):
        return self.ctx.get(self.tuner.failed)

    def settled(self):
        return self.locked() | self.failed() == ALL

    def held(self):
        """The line of each locked ring, which must be within a quarter of its width."""
        detunings = abs(self.plant.detunings_ghz)
        rings = [ring for ring in range(SPEC.rings) if self.locked() >> ring & 1]
        assert detunings[rings].min(axis=1).max() < SPEC.fwhm_ghz / 4
        lines = [int(line) for line in detunings[rings].argmin(axis=1)]
        assert len(set(lines)) == len(lines)
        return dict(zip(rings, lines, strict=True))


def cold(*above_floor_ghz):
    """Resonances so far above the floor's reach of the line of the same number."""
    return BUS.lines_ghz() + FLOOR_GHZ + np.array(above_floor_ghz)


@pytest.mark.parametrize(
    ("above_ghz", "lines", "pauses"),
    [
        ((30, 40, 50, 60), [0, 1, 2, 3], 5),
        ((30, -170, 30, 30), [0, 3, 2, 1], None),  # ring 1 finds line 0 taken; it goes on past the end of the comb
        ((-30, -30, -30, -30), [3, 0, 1, 2], None),  # cyclic order, the first one around the FSR
    ],
)
def test_each_ring_takes_the_first_free_line_above_its_floor(above_ghz, lines, pauses):
    bench = Bench(cold(*above_ghz), np.random.default_rng(pauses) if pauses else None)

    async def story(bench):
        await bench.until(bench.settled)
        assert bench.locked() == ALL
        assert list(bench.held().values()) == lines
        assert bench.alarms == 0

    bench.run(story)


def test_a_ring_that_comes_later_leaves_the_lines_of_rings_further_down():
    bench = Bench(cold(30, 40, 50, 60))

    async def story(bench):
        bench.ctx.set(bench.tuner.enable, ALL & ~1)
        await bench.until(lambda: bench.locked() == ALL & ~1)
        # Where it is now, ring 0 meets the lines of all others first, and its own last.
        bench.plant.cold_ghz[0] = bench.plant.lines_ghz[3] + FLOOR_GHZ + 70
        before, bench.peaks = bench.held(), []
        bench.ctx.set(bench.tuner.enable, ALL)
        await bench.until(bench.settled)
        assert bench.alarms == 0
        assert bench.held() == {**before, 0: 0}
        assert [(ring, taken) for ring, _, _, taken in bench.peaks] == [(0, 1), (0, 1), (0, 1), (0, 0)]

    bench.run(story)


def test_a_ring_whose_line_dies_is_alarm_at_once_and_fails_when_it_finds_no_other():
    bench = Bench(cold(30, 40, 50, 60))

    async def story(bench):
        await bench.until(bench.settled)
        bench.plant.lines_mw[2] = 0
        await bench.until(lambda: bench.alarms == 4, 2 * SPEC.half_frames * (CONFIRM_PERIODS + 1))
        await bench.until(bench.settled)
        assert (bench.locked(), bench.failed(), bench.alarms) == (0b1011, 0b0100, 0b0100)
        assert bench.held() == {0: 0, 1: 1, 3: 3}
        bench.plant.lines_mw[2] = BUS.line_mw
        bench.ctx.set(bench.tuner.enable, ALL & ~4)
        await bench.frame()
        bench.ctx.set(bench.tuner.enable, ALL)
        await bench.until(bench.settled)
        assert bench.held() == {0: 0, 1: 1, 2: 2, 3: 3}

    bench.run(story)


def test_a_ring_whose_line_is_stolen_finds_the_one_that_is_left():
    bench = Bench(cold(30, 40, 50, 60))

    async def story(bench):
        await bench.until(bench.settled)
        shift_ghz = bench.plant.resonances_ghz[0] + bench.plant.shift_ghz[0] - bench.plant.lines_ghz[2]
        bench.broken = round((shift_ghz % SPEC.fsr_ghz) * SPEC.codes_per_ghz)
        await bench.until(lambda: bench.alarms & 4)
        await bench.until(lambda: bench.settled() and bench.locked() & 4)
        assert bench.held()[2] == 0

    bench.run(story)


def test_a_parked_ring_cools_and_steps_aside_from_light():
    bench = Bench(cold(30, 40, 50, 60))

    async def story(bench):
        await bench.until(bench.settled)
        # At the end of its way down ring 1 meets line 1, which nobody has then.
        bench.plant.cold_ghz[1] = bench.plant.lines_ghz[1] + SPEC.rest_codes / SPEC.codes_per_ghz - 5
        bench.ctx.set(bench.tuner.enable, ALL & ~2)
        for _ in range(100):
            await bench.frame()
        assert bench.locked() == ALL & ~2
        assert bench.codes[1] < SPEC.rest_codes + 2 * SPEC.codes_per_fwhm
        assert bench.plant.samples()[1] < SPEC.threshold // 2

    bench.run(story)


def test_a_reset_leaves_nothing_of_what_was_kept():
    """The memory of the tuner keeps its rows through a reset; a warm heater may not come back."""
    bench = Bench(cold(30, 40, 50, 60))

    async def story(bench):
        await bench.until(lambda: bench.locked() & 1)
        assert bench.codes[0] > SPEC.floor_code
        bench.ctx.set(bench.reset, 1)
        await bench.cycle()
        bench.ctx.set(bench.reset, 0)
        bench.ctx.set(bench.tuner.enable, 0)
        await bench.frame()
        # Ring 0 is still warm, sees its line and steps aside.
        assert max(bench.codes) <= SPEC.step_codes

    bench.run(story)
