"""Training: from reset to frames on any lanes that can carry them, back to frames after trouble, and never up on nothing."""

import random
from functools import cache

import pytest

from lightfabric.model.codec import SYNC_CONTROL, descramble, scramble
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.lane import SLIP_WAIT_BLOCKS
from lightfabric.rtl.training_set import SET_BITS, TRAINING_SET, TRAININGS, Phase, config_code
from lightfabric.rtl.training_state import Bounds, State
from lightfabric.sim.bench.training import LockBench, TrainingBench, frame_word, wait
from lightfabric.sim.channel.fibre import Lane, constant, headers, light, noise


def spec_of(**fields) -> ChipletSpec:
    return ChipletSpec(**{"ports": 1, "wavelengths_per_port": 1, "flit_bytes": 64, "buffer_flits": 8, **fields})


SPECS = {
    "one lane": spec_of(),
    "one slow lane": spec_of(wavelength_gbps=8.25, virtual_channels=8, flit_bytes=128),
    "one lane, far": spec_of(reach_m=60.0),
    "two lanes": spec_of(wavelengths_per_port=2, wavelength_gbps=33.0),
    "four lanes": spec_of(wavelengths_per_port=4, virtual_channels=1),
}
FAR_CYCLES = 146
"""60 m of fibre at 500 MHz."""
TOO_FAR_CYCLES = 300
"""Six times ``reach_m`` of the other specs."""
SOON_CYCLES = 2 * TOO_FAR_CYCLES + 50
RETURN_CYCLES = 5000
"""10 us at 500 MHz."""
SILENCE = "silence"
HEADERS = {"headers": headers, "sets in data blocks": lambda _, sent: sent ^ 0b11}
DEAD = {"noise": noise, "low": constant(0), "high": constant(-1 % (1 << 66)), "in turns": constant(int("01" * 33, 2))}


@pytest.fixture(scope="module")
def benches():
    return cache(lambda name: TrainingBench(SPECS[name]))


@pytest.fixture(params=SPECS)
def bench(request, benches) -> TrainingBench:
    return benches(request.param)


def any_lanes(bench: TrainingBench, rng: random.Random) -> list[Lane]:
    """Any bits, any skew that the receiver must bear."""
    return [Lane(rng.randrange(66), rng.randrange(bench.spec.max_skew_blocks + 1)) for _ in range(bench.spec.lanes_per_port)]


def all_lanes(bench: TrainingBench) -> int:
    return (1 << bench.spec.lanes_per_port) - 1


def any_delays(bench: TrainingBench, rng: random.Random) -> tuple[int, int]:
    far = bench.spec.reach_m > 20
    return (FAR_CYCLES, rng.randint(FAR_CYCLES - 9, FAR_CYCLES)) if far else (rng.randint(1, 40), rng.randint(1, 40))


def frame_data(beat: int, count: int) -> int:
    return sum(frame_word(beat, place) << 64 * place for place in range(count))


def assert_frames_are_whole(end, least: int = 20):
    """All since the first beat, in order, on whichever lanes they came."""
    last, count = end.frames[-1], end.spec.wavelengths_per_port
    assert len(last) > least
    assert last == [frame_data(beat, count) for beat in range(len(last))]


def assert_parameters_are_known(bench: TrainingBench):
    """At every resume, those that the other end told then; unless it was reset since, which ends the service soon."""
    for end in (bench.a, bench.b):
        assert lasting_resumes(end)
        for resume in lasting_resumes(end):
            assert (resume.expected, resume.limits) == (resume.told_expected, resume.told_limits)


def lasting_resumes(end):
    """Those after which the end did not begin again soon."""
    begins = [cycle for cycle, state in end.states if state is State.LOCK]
    return [resume for resume in end.resumes if not any(0 < begin - resume.cycle < SOON_CYCLES for begin in begins)]


def assert_flushes_follow_resets(end, other):
    """An end that has received frames forgets its sequence state after a reset of the other, and only then."""
    lasting = {resume.cycle for resume in lasting_resumes(end)}
    events = sorted([*end.events, *((cycle, "other reset") for cycle in other.cycles_of("reset"))])
    has_received = must_flush = may_flush = False
    for cycle, event in events:
        if event == "reset":
            has_received = must_flush = may_flush = False
        elif event == "frames_in":
            has_received = True
        elif event == "other reset":
            must_flush, may_flush = must_flush or has_received, True
        elif event == "flush":
            assert may_flush
            has_received = must_flush = may_flush = False
        elif event == "resume" and cycle in lasting:
            assert not must_flush


def last_times(end) -> dict[str, int]:
    """Cycles of the last training, by the states that were seen."""
    lock, align, exchange, active = (
        max(cycle for cycle, state in end.states if state is wanted)
        for wanted in (State.LOCK, State.ALIGN, State.EXCHANGE, State.ACTIVE)
    )
    return {"lock": align - lock, "align": exchange - align, "exchange": active - exchange}


@pytest.mark.parametrize("seed", range(2))
def test_it_comes_up_on_any_lanes_within_its_bounds(bench, seed):
    rng = random.Random(seed)
    there, back, delays = any_lanes(bench, rng), any_lanes(bench, rng), any_delays(bench, rng)
    run = bench.run(there=there, back=back, delay_cycles=delays, seed=seed, script=lambda _: bench.up(150))
    pace = bench.spec.blocks_per_cycle
    for end, report in ((bench.a, run.a), (bench.b, run.b)):
        assert_frames_are_whole(end)
        assert last_times(end) == {name: report.cycles[name] for name in ("lock", "align", "exchange")}
        assert report.cycles["lock"] * pace < 66 * (SLIP_WAIT_BLOCKS + 3) + 64 + 100
        assert report.cycles["align"] * pace < 100
        assert report.cycles["exchange"] * pace < 66 * (SLIP_WAIT_BLOCKS + 3) + 64 + 100 + 3 * max(delays) + 120
        assert report.cycles["recovery"] == 0
        assert len(end.resumes) == 1
        assert not {"flush", "relock", "retrainings", "skew_overflow", "config_mismatch"} & {name for _, name in end.events}
    assert_parameters_are_known(bench)


def test_perfect_lanes_do_not_slip_and_frames_follow_sixteen_sets_after_resume(bench):
    bench.run()
    for end in (bench.a, bench.b):
        (resume,), (frames,), (active,) = (end.cycles_of(event) for event in ("resume", "frames_out", "active"))
        assert not end.cycles_of("slip")
        assert 16 <= (frames - resume) * bench.spec.blocks_per_cycle <= 33
        assert active * bench.spec.blocks_per_cycle < 64 + 100 + 120


@pytest.mark.parametrize(("name", "seed"), [("one lane", 0), ("one lane", 1), ("two lanes", 0), ("four lanes", 1)])
def test_one_bit_error_in_a_thousand_does_not_keep_it_down_nor_take_it_down(benches, name, seed):
    bench, rng = benches(name), random.Random(seed)
    bench.run(there=any_lanes(bench, rng), back=any_lanes(bench, rng), ber=1e-3, seed=seed, script=lambda _: bench.up(600))
    assert not bench.a.cycles_of("retrainings")
    assert len(bench.a.resumes) == len(bench.b.resumes) == 1
    assert_parameters_are_known(bench)
    for end in (bench.a, bench.b):
        whole = [data == frame_data(n, bench.spec.wavelengths_per_port) for n, data in enumerate(end.frames[-1])]
        assert 0.2 < sum(whole) / len(whole) < 0.95


@pytest.mark.parametrize(("name", "dead"), [("two lanes", [0]), ("two lanes", [1]), ("four lanes", [1])])
def test_dead_lanes_leave_the_others(benches, name, dead):
    bench, rng = benches(name), random.Random(dead[0])
    there = any_lanes(bench, rng)
    for lane in dead:
        there[lane].fault = noise
    run = bench.run(there=there, script=lambda _: bench.up(100))
    left = all_lanes(bench) - sum(1 << lane for lane in dead)
    assert (run.a.lanes_out, run.b.lanes_in) == (left, left)
    assert (run.b.lanes_out, run.a.lanes_in) == (all_lanes(bench), all_lanes(bench))
    assert_frames_are_whole(bench.b)
    assert_frames_are_whole(bench.a)
    assert run.cycles * bench.spec.blocks_per_cycle < 2 * Bounds.lock + 1000


def test_a_lane_that_dies_in_service_leaves_the_others_and_returns_by_itself(benches):
    bench = benches("two lanes")

    def script(ctx):
        yield from bench.up()
        bench.back.lanes[0].fault = constant(0)
        yield from wait(40)
        yield from bench.up(100)
        assert ctx.get(bench.a.training.lanes_in) == 0b10
        assert_frames_are_whole(bench.a)
        bench.back.lanes[0].fault = light
        yield from wait(RETURN_CYCLES)
        assert ctx.get(bench.a.training.lanes_in) == 0b11
        yield from bench.up(100)

    run = bench.run(script=script)
    assert (run.a.lanes_in, run.b.lanes_out) == (0b11, 0b11)
    assert_frames_are_whole(bench.a)
    assert_parameters_are_known(bench)


@pytest.mark.parametrize(("name", "fault"), [*(("one lane", fault) for fault in (*DEAD, SILENCE)), ("two lanes", "noise")])
def test_a_pulled_fibre_takes_the_link_down_and_a_new_one_brings_it_up(benches, name, fault):
    bench, rng = benches(name), random.Random(1)

    def script(_):
        yield from bench.up(100)
        for plant in (bench.there, bench.back):
            plant.silent = fault == SILENCE
            for lane in plant.lanes:
                lane.fault = DEAD.get(fault, light)
        yield from wait(300 if fault == SILENCE else 150)
        for end in (bench.a, bench.b):
            # Bits that always turn look like headers: only the frames tell, which is not for the training to see.
            assert (end.state is State.ACTIVE) == (fault == "in turns")
        yield from wait(500)
        for plant in (bench.there, bench.back):
            plant.silent = False
            for lane, new in zip(plant.lanes, any_lanes(bench, rng), strict=True):
                lane.fault, lane.offset = light, new.offset
        yield from wait(300)
        yield from bench.up(100)

    bench.run(script=script)
    for end in (bench.a, bench.b):
        assert_frames_are_whole(end)
        assert not end.cycles_of("flush")


@pytest.mark.parametrize(
    ("name", "ways", "fault"),
    [
        *(("one lane", 2, fault) for fault in (*DEAD, *HEADERS, SILENCE)),
        *(("one lane", 1, fault) for fault in ("noise", "headers")),
        ("two lanes", 2, "headers"),
    ],
)
def test_nothing_but_training_sets_brings_it_up(benches, name, ways, fault):
    bench = benches(name)

    def script(_):
        for plant in (bench.there, bench.back)[:ways]:
            plant.silent = fault == SILENCE
            for lane in plant.lanes:
                lane.fault = {**DEAD, **HEADERS}.get(fault, light)
        yield from wait(Bounds.lock + 500)

    bench.run(script=script, seed=5)
    for end in (bench.a, bench.b):
        assert not {"active", "resume", "frames_in", "frames_out"} & {name for _, name in end.events}
        assert not {state for _, state in end.states} & {State.CONFIRM, State.START, State.ACTIVE}
    assert bench.b.cycles_of("relock")


def test_without_light_it_is_down_after_two_attempts_and_tries_again(benches):
    bench, pace = benches("one lane"), SPECS["one lane"].blocks_per_cycle

    def script(_):
        for plant in (bench.there, bench.back):
            plant.lanes[0].fault = noise
        yield from wait(int((2 * Bounds.lock + Bounds.down) / pace) + 100)
        for plant in (bench.there, bench.back):
            plant.lanes[0].fault = light
        yield from bench.up(50)

    bench.run(script=script)
    for end in (bench.a, bench.b):
        states = [state for _, state in end.states][:4]
        assert states == [State.RESET, State.LOCK, State.DOWN, State.LOCK]
        down, again = (cycle for cycle, _ in end.states[2:4])
        assert 2 * Bounds.lock <= down * pace < 2 * Bounds.lock + 10
        assert Bounds.down <= (again - down) * pace < Bounds.down + 10
        assert_frames_are_whole(end)


@pytest.mark.parametrize(
    "change",
    [{"crc": "crc16"}, {"virtual_channels": 3}, {"flit_bytes": 256}, {"replay_flits": 200}],
    ids=lambda change: next(iter(change)),
)
def test_ends_that_were_built_differently_say_so_and_stay_down(change):
    bench = TrainingBench(spec_of(), spec_of(**change))
    bench.run(script=lambda _: wait(1000))
    for end in (bench.a, bench.b):
        assert end.cycles_of("config_mismatch")
        assert not end.cycles_of("resume")


def test_the_configuration_code_tells_all_specs_apart():
    specs = [
        ChipletSpec(
            wavelengths_per_port=wavelengths,
            virtual_channels=channels,
            crc=crc,
            flit_bytes=flit_bytes,
            replay_flits=replay_flits,
        )
        for wavelengths in (1, 2, 4, 8)
        for channels in (1, 2, 8)
        for crc in ("crc32c", "crc24", "crc16", "crc16-umts")
        for flit_bytes in (64, 128, 256)
        for replay_flits in (0, 20_000)
    ]
    codes = {config_code(spec) for spec in specs}
    assert len(codes) == len(specs)
    assert all(0 < code < 1 << 16 for code in codes)


def told(echoes: bool):
    """A lane on which the number of a training is brought with ``echoes`` as it is, or always 0."""
    states = [0, 0]
    phase, bit = TRAINING_SET["phase"], TRAINING_SET["word"].offset + TRAININGS["echoes"].offset

    def fault(_, sent: int) -> int:
        states[0], plain = descramble(states[0], sent >> 2)
        if sent & 0b11 == SYNC_CONTROL and plain >> phase.offset & 0b1111 == Phase.NUMBER and not echoes:
            plain = plain & ~(1 << bit) | 1 << bit + SET_BITS  # the high half is the complement
        states[1], line = scramble(states[1], plain)
        return line << 2 | sent & 0b11

    return fault


@pytest.mark.parametrize("echoes", [False, True])
def test_parameters_are_taken_only_from_an_end_that_says_that_it_echoes(benches, echoes):
    """The number it tells may be left from the training before: it alone proves nothing."""
    bench = benches("one lane")
    bench.run(back=[Lane(fault=told(echoes))], script=lambda _: wait(1500))
    assert bool(bench.a.resumes) == echoes


@pytest.mark.parametrize("name", ["one lane", "one lane, far", "two lanes"])
def test_an_end_that_is_reset_makes_both_train_and_the_other_say_so(benches, name):
    bench, rng = benches(name), random.Random(2)

    def script(ctx):
        yield from bench.up(200)
        bench.a.reset(ctx, 1)
        yield from wait(20)
        bench.a.reset(ctx, 0)
        yield from bench.up(200)

    bench.run(script=script, delay_cycles=any_delays(bench, rng))
    assert len(bench.b.cycles_of("flush")) == len(bench.b.cycles_of("peer_reset")) == 1
    assert len(bench.b.cycles_of("retrainings")) == 1
    assert not bench.a.cycles_of("flush")
    assert (bench.b.cycles_of("resume")[-1] - bench.b.cycles_of("flush")[0]) * bench.spec.blocks_per_cycle >= 32
    assert_parameters_are_known(bench)
    for end in (bench.a, bench.b):
        assert_frames_are_whole(end)


@pytest.mark.parametrize("both", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("seed", range(3))
def test_a_line_that_is_dark_for_too_long_lapses_at_both_ends_and_comes_back(lapsing, both, seed):
    """As if both ends had been reset: whichever lapses first, each forgets once, and before it resumes."""
    rng = random.Random(seed)
    dark_cycles = lapsing.spec.stall_cycles + (rng.randint(100, 3000) if seed else 3000)
    begun = dark(lapsing, both, dark_cycles, seed)
    for end, other in ((lapsing.a, lapsing.b), (lapsing.b, lapsing.a)):
        assert len(end.cycles_of("flush")) == 1
        assert end.cycles_of("flush")[0] < other.cycles_of("resume")[-1]
        assert_frames_are_whole(end)
    if both:
        # An end sees some blocks late that it is dark.
        assert all(end.cycles_of("flush")[0] < begun + lapsing.spec.stall_cycles + 400 for end in ends(lapsing))
    assert_parameters_are_known(lapsing)


@pytest.mark.parametrize("seed", range(6))
def test_ends_lapse_both_or_not_at_all(lapsing, seed):
    """Where the light comes back about when they would lapse."""
    rng = random.Random(seed)
    dark(lapsing, bool(seed % 2), lapsing.spec.stall_cycles - rng.randint(0, 1200), seed)
    counts = [len(end.cycles_of("flush")) for end in ends(lapsing)]
    assert counts in ([0, 0], [1, 1])
    assert_parameters_are_known(lapsing)
    assert_flushes_agree(lapsing)


def test_a_short_darkness_makes_nobody_forget(lapsing):
    dark(lapsing, True, lapsing.spec.stall_cycles // 4, 1)
    assert not any(end.cycles_of("flush") for end in ends(lapsing))
    assert_parameters_are_known(lapsing)


@pytest.fixture(scope="module")
def lapsing() -> TrainingBench:
    return TrainingBench(spec_of(stall_cycles=4000))


def ends(bench: TrainingBench):
    return bench.a, bench.b


def dark(bench: TrainingBench, both: bool, cycles: int, seed: int) -> int:
    """Up, then without light on the way from a to b, or on both, and up again. Returns the first dark cycle."""
    begun = 0

    def script(_):
        nonlocal begun
        for _ in bench.up(200):
            begun += 1
            yield
        bench.there.silent, bench.back.silent = True, both
        yield from wait(cycles)
        bench.there.silent = bench.back.silent = False
        yield from bench.up(300)

    bench.run(script=script, delay_cycles=(9, 14), seed=seed, bound_cycles=30_000)
    return begun


def assert_flushes_agree(bench: TrainingBench):
    """Frames flow between ends that have both forgotten, or neither has."""
    last = [max(end.cycles_of("flush"), default=0) for end in ends(bench)]
    assert all(end.cycles_of("resume")[-1] > max(last) for end in ends(bench))


def test_sets_in_flight_from_before_a_reset_are_not_believed(benches):
    """The other end is in EXCHANGE when this one is reset, and misses the first word of freshness."""
    bench = benches("one lane")

    def script(ctx):
        yield from bench.up(2 * TOO_FAR_CYCLES + 1)
        ctx.set(bench.a.training.retrain, 1)
        yield
        ctx.set(bench.a.training.retrain, 0)
        while bench.b.state is not State.EXCHANGE:
            yield
        bench.a.reset(ctx, 1)
        yield
        bench.a.reset(ctx, 0)
        yield from wait(TOO_FAR_CYCLES + 3)
        bench.there.lanes[0].fault = noise
        yield
        bench.there.lanes[0].fault = light
        yield from wait(TOO_FAR_CYCLES)
        yield from bench.up(2 * TOO_FAR_CYCLES)

    bench.run(script=script, delay_cycles=(TOO_FAR_CYCLES, TOO_FAR_CYCLES))
    changed, flush = bench.b.states[-5][0], bench.b.cycles_of("flush")[0]
    assert bench.b.states[-5][1] is State.ALIGN
    assert changed < flush
    assert_parameters_are_known(bench)


def test_frames_wait_until_the_other_end_has_all_parameters(benches):
    bench, headers_alone = benches("one lane"), 0b11

    def script(_):
        while bench.b.state is not State.EXCHANGE:
            yield
        yield from wait(8)
        bench.there.lanes[0].fault = lambda _, sent: sent & headers_alone
        yield from wait(150)
        assert (bench.a.state, bench.b.state) == (State.CONFIRM, State.EXCHANGE)
        bench.there.lanes[0].fault = light
        yield from bench.up(100)

    bench.run(delay_cycles=(60, 20), script=script)
    for end in (bench.a, bench.b):
        assert len(end.cycles_of("resume")) == 1
        assert_frames_are_whole(end)


@pytest.mark.parametrize(
    ("name", "delay_cycles", "seed"),
    [
        *(("one lane", 30, seed) for seed in range(4)),
        *(("one lane", TOO_FAR_CYCLES, seed) for seed in range(2)),
        *(("two lanes", 10, seed) for seed in range(2)),
    ],
)
def test_resets_at_any_time_leave_both_ends_agreed(benches, name, delay_cycles, seed):
    """An end never goes on with parameters from before the other end's reset, or from before its own."""
    bench, rng = benches(name), random.Random(seed)

    def script(ctx):
        yield from bench.up(2 * delay_cycles + 1)
        for _ in range(3):
            end = rng.choice((bench.a, bench.b))
            end.reset(ctx, 1)
            yield from wait(rng.randint(1, 30))
            end.reset(ctx, 0)
            yield from wait(rng.randint(0, 200 + 4 * delay_cycles))
        yield from bench.up(100)

    bench.run(script=script, delay_cycles=(delay_cycles, delay_cycles + 9), ber=rng.choice((0.0, 3e-4)), seed=seed)
    assert_parameters_are_known(bench)
    assert_flushes_follow_resets(bench.a, bench.b)
    assert_flushes_follow_resets(bench.b, bench.a)


@pytest.mark.parametrize(
    ("name", "how", "asks"),
    [
        *(("one lane", how, asks) for how in ("retrain", "trouble") for asks in ("a", "b", "ab")),
        ("one slow lane", "retrain", "a"),
        ("one lane, far", "trouble", "ab"),
        ("two lanes", "trouble", "b"),
        ("four lanes", "retrain", "ab"),
    ],
)
def test_a_training_asked_for_returns_to_active(benches, name, how, asks):
    bench = benches(name)

    def script(ctx):
        yield from bench.up(100)
        for end in asks:
            ctx.set(getattr(getattr(bench, end).training, how), 1)
        yield
        for end in asks:
            ctx.set(getattr(getattr(bench, end).training, how), 0)
        yield from wait(10)
        assert bench.a.state is not State.ACTIVE or bench.b.state is not State.ACTIVE
        yield from bench.up(100)

    delays = any_delays(bench, random.Random(3))
    run = bench.run(script=script, delay_cycles=delays)
    for end, report in ((bench.a, run.a), (bench.b, run.b)):
        assert len(end.cycles_of("retrainings")) == 1
        assert not end.cycles_of("flush")
        left = max(cycle for cycle, state in end.states if state is State.LOCK)
        assert report.cycles["recovery"] == end.cycles_of("active")[-1] - left
        assert report.cycles["recovery"] * bench.spec.blocks_per_cycle < 4 * max(delays) + 160
        assert_frames_are_whole(end)
    assert_parameters_are_known(bench)


def test_trouble_that_stays_though_all_lanes_are_good_takes_the_link_down_and_it_begins_anew(benches):
    bench = benches("two lanes")

    def script(ctx):
        for _ in range(4):
            yield from bench.up(20)
            assert ctx.get(bench.b.training.lanes_in) == 0b11
            ctx.set(bench.b.training.trouble, 1)
            yield
            ctx.set(bench.b.training.trouble, 0)
            yield from wait(10)

    bench.run(script=script)
    assert [state for _, state in bench.b.states].count(State.DOWN) == 2
    assert State.DOWN not in {state for _, state in bench.a.states}


@pytest.mark.parametrize(("service_slots", "relocks"), [(20, 0), (200, 1)])
def test_trouble_after_long_service_drops_no_locks(monkeypatch, service_slots, relocks):
    monkeypatch.setattr(Bounds, "stable_slots", service_slots)
    monkeypatch.setattr(ChipletSpec, "timeout_slots", 1)
    bench = TrainingBench(spec_of())

    def script(ctx):
        yield from bench.up(400)
        ctx.set(bench.b.training.trouble, 1)
        yield
        ctx.set(bench.b.training.trouble, 0)
        yield from wait(10)
        yield from bench.up(20)

    bench.run(script=script)
    assert len(bench.b.cycles_of("relock")) == relocks
    assert not bench.a.cycles_of("relock")


def test_a_lane_that_jumps_by_a_block_is_aligned_again_in_the_next_training(benches):
    bench = benches("two lanes")

    def script(ctx):
        yield from bench.up(100)
        bench.there.lanes[0].skew_blocks = 3
        yield from wait(20)
        ctx.set(bench.b.training.trouble, 1)
        yield
        ctx.set(bench.b.training.trouble, 0)
        yield from wait(10)
        yield from bench.up(100)

    bench.run(script=script)
    assert_frames_are_whole(bench.b)


def test_a_lane_that_slips_in_service_is_found_again(bench):
    def script(_):
        yield from bench.up(100)
        bench.back.lanes[0].offset = 63
        yield from wait(200)
        yield from bench.up(100)

    bench.run(script=script)
    assert bench.a.cycles_of("slip")
    assert bench.b.cycles_of("retrainings")
    assert_frames_are_whole(bench.a)


@pytest.mark.parametrize("skew", [7, 8, 16])
def test_skew_beyond_the_bound_is_flagged_and_one_of_two_lanes_serves(benches, skew):
    bench = benches("two lanes")
    run = bench.run(there=[Lane(skew_blocks=skew), Lane()])
    flagged = bool(bench.b.cycles_of("skew_overflow"))
    assert flagged == (skew > bench.spec.max_skew_blocks)
    assert run.b.lanes_in == (0b01 if flagged else 0b11)
    assert not bench.a.cycles_of("skew_overflow")
    assert_frames_are_whole(bench.b)


def test_an_end_that_is_enabled_late_is_waited_for(benches):
    bench = benches("one lane")

    def script(ctx):
        yield from wait(3000)
        assert bench.b.state is State.RESET
        ctx.set(bench.b.training.enable, 1)
        yield from bench.up(50)
        ctx.set(bench.a.training.enable, 0)
        yield from wait(400)
        assert (bench.a.state, bench.b.state) == (State.RESET, State.EXCHANGE)
        ctx.set(bench.a.training.enable, 1)
        yield from bench.up(50)

    bench.run(enable=(1, 0), script=script)
    assert not bench.b.cycles_of("flush")
    assert_frames_are_whole(bench.a)


def test_a_lane_that_jumps_by_a_block_in_training_is_aligned_again(benches):
    bench = benches("two lanes")

    def script(ctx):
        yield from wait(300)
        assert bench.a.state is State.EXCHANGE
        bench.back.lanes[0].skew_blocks = 3
        yield from wait(200)
        ctx.set(bench.b.training.enable, 1)
        yield from bench.up(50)

    bench.run(enable=(1, 0), script=script)
    assert_frames_are_whole(bench.a)


def test_an_end_that_is_never_enabled_costs_the_other_no_lanes(monkeypatch):
    for name in ("lock", "room", "down"):
        monkeypatch.setattr(Bounds, name, 128)
    bench = TrainingBench(SPECS["two lanes"])

    def script(_):
        while bench.a.state is not State.DOWN:
            yield

    run = bench.run(enable=(1, 0), script=script)
    assert [state for _, state in bench.a.states].count(State.EXCHANGE) == 2
    assert run.a.lanes_in == all_lanes(bench)


def locks(syncs):
    """Clause 49, slowly: 64 good headers lock, 16 bad in a window of 64 unlock, an unlocked lane slips at a bad one."""
    shown, locked, window, wait_blocks = [], 0, [], 0
    for sync in syncs:
        slip = 0
        if sync is not None and wait_blocks:
            wait_blocks -= 1
        elif sync is not None:
            window.append(sync in (1, 2))
            if window.count(False) >= (16 if locked else 1):
                locked, slip, window, wait_blocks = 0, 1, [], SLIP_WAIT_BLOCKS
            elif len(window) == 64:
                locked, window = 1, []
        shown.append((locked, slip))
    return shown


@pytest.mark.parametrize(("bad", "idle"), [(0.0, 0.0), (0.5, 0.0), (0.2, 0.0), (0.01, 0.3), (0.25, 0.5)])
def test_block_lock_is_that_of_clause_49(bad, idle):
    rng = random.Random(int(100 * bad))
    good = [rng.choice((1, 2)) for _ in range(64)]
    syncs = good + [
        None if rng.random() < idle else rng.choice((0, 3)) if rng.random() < bad else rng.choice((1, 2))
        for _ in range(1500)
    ]
    assert LockBench().run(syncs) == locks(syncs)
