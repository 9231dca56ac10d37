# amaranth: UnusedElaboratable=no
"""The bit error tester: errors counted once, a lock that holds, loops, snapshots without a gap, and its registers."""

import math
from itertools import pairwise
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth import Module

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl import ber_tester
from lightfabric.rtl.ber_tester import LaneCounter
from lightfabric.rtl.prbs import ORDERS
from lightfabric.rtl.register_map import BER_REGISTERS, REGISTERS
from lightfabric.rtl.top import AxiLink
from lightfabric.sim.bench.bench import Bench
from lightfabric.sim.bench.register import Access, Master
from lightfabric.sim.channel.error import BitErrors
from lightfabric.sim.channel.fault import Channel, eye_ber
from lightfabric.sim.channel.fibre import Fibre
from lightfabric.sim.line.bathtub import bathtub
from lightfabric.sim.line.ber_tester import BerBench

SPEC = ChipletSpec(ports=1, wavelengths_per_port=2, flit_bytes=64, ber_tester=True)


@pytest.fixture(scope="module")
def bench():
    return BerBench(SPEC)


def wait(cycles):
    yield from (None for _ in range(cycles))


def locked(end, lanes=0b11):
    while end.status is None or end.status.ber_locked != lanes:
        yield


def both(a, b, **controls):
    for end in (a, b):
        end.write(ber_on=1, **controls)


def test_the_values_of_the_register_are_the_sequences():
    (pattern,) = (field for field in BER_REGISTERS[0].fields if field.name == "ber_pattern")
    assert pattern.values == tuple((n, f"prbs{order}") for n, order in enumerate(ORDERS))


def test_a_tester_that_is_off_passes_the_line(bench):
    bench.run(lambda *_: wait(60))
    for end in (bench.a, bench.b):
        numbers = [(beat >> 2 & (1 << 64) - 1) >> 8 for beat in end.passed]
        assert len(numbers) > 50
        assert all(then == now + 1 for now, then in pairwise(numbers))
        assert {beat >> 68 & 0xFF for beat in end.passed} == {1}


@pytest.mark.parametrize("pattern", range(len(ORDERS)))
def test_both_ends_lock_on_each_pattern_and_lose_it_when_one_end_changes(bench, pattern):
    def script(a, b):
        both(a, b, ber_pattern=pattern, ber_invert=pattern & 1)
        yield from locked(a)
        yield from locked(b)
        passed = len(b.passed)
        a.write(ber_pattern=(pattern + 1) % len(ORDERS))
        yield from locked(b, 0)
        b.write(ber_pattern=(pattern + 1) % len(ORDERS))
        yield from locked(b)
        assert len(b.passed) == passed

    bench.run(script)


def test_errors_of_the_line_are_counted_once_each_and_per_lane(bench):
    seed, on, made = 4, [], [0, 0]
    rng = np.random.default_rng(seed)

    def errors(_, bits):
        flips = np.flatnonzero(rng.random(bits) < 0.02) if on else ()
        for place in flips:
            made[place // 66] += 1
        return sum(1 << int(place) for place in flips)

    def script(a, b):
        both(a, b, ber_pattern=ORDERS.index(31))
        yield from locked(b)
        b.write(ber_clear=1)
        yield
        on.append(1)
        yield from wait(600)
        on.clear()
        yield from wait(20)
        readings = yield from b.snapshot()
        assert [reading.errors for reading in readings] == made, seed
        assert min(made) > 500
        assert b.status.ber_locked == 0b11

    bench.run(script, there=errors)


def test_errors_made_on_purpose_reach_the_chosen_lanes_at_the_chosen_rate(bench):
    def script(a, b):
        both(a, b, ber_pattern=2)
        yield from locked(b)
        a.write(ber_error_lanes=0b10)
        b.write(ber_clear=1)
        yield
        for _ in range(5):
            a.write(ber_error_once=1)
            yield from wait(8)
        first = yield from b.snapshot(ber_clear=1)
        assert [reading.errors for reading in first] == [0, 5]
        a.write(ber_error_blocks=7)
        yield from wait(500)
        none, some = yield from b.snapshot()
        assert none.errors == 0
        assert some.errors == pytest.approx(some.blocks / 7, abs=3)
        assert some.errors > 50

    bench.run(script)


def test_a_snapshot_is_of_one_cycle_on_all_lanes_and_stays(bench):
    def script(a, b):
        both(a, b)
        yield from locked(b)
        b.write(ber_clear=1)
        yield from wait(40)
        first, second = yield from b.snapshot()
        assert first == second
        assert first.blocks > 30
        yield from wait(40)
        b.write(ber_clear=1, ber_lane=0)
        yield from wait(5)
        assert b.status.ber_blocks == first.blocks
        b.write(ber_lane=2)
        yield from wait(3)
        assert b.status.ber_blocks == 0, "there is no such lane"

    bench.run(script)


def test_the_near_loop_needs_no_other_end_and_the_far_loop_brings_the_pattern_back(bench):
    def near(a, b):
        a.write(ber_on=1, ber_near_loop=1)
        yield from locked(a)
        b.write(ber_on=1)
        yield from wait(60)
        assert b.status.ber_locked == 0

    def far(a, b):
        b.write(ber_far_loop=1)
        a.write(ber_on=1, ber_error_lanes=0b01)
        yield from locked(a)
        a.write(ber_clear=1, ber_error_once=1)
        yield from wait(20)
        readings = yield from a.snapshot()
        assert [reading.errors for reading in readings] == [1, 0]

    seed = 6
    bench.run(near, there=BitErrors(0.49, np.random.default_rng(seed)))
    bench.run(far)


def test_errors_in_bursts_are_counted_as_gilbert_and_elliott_make_them(bench):
    fibre, seen = Fibre(Channel.uniform(2, ber=1e-3, ber_bad=0.3, worsens=1e-4, recovers=0.02), 66, 5), {}

    def script(a, b):
        both(a, b)
        yield from locked(b)
        b.write(ber_clear=1)
        yield
        seen["from"] = fibre.bit_errors
        yield from wait(1500)
        readings = yield from b.snapshot()
        seen["errors"], seen["made"] = sum(reading.errors for reading in readings), fibre.bit_errors - seen["from"]

    bench.run(script, channel=fibre)
    assert seen["made"] > 300
    # Bits on their way at the beginning and at the end: some ten blocks of each lane.
    assert abs(seen["errors"] - seen["made"]) < 40


def test_a_bathtub_over_the_sampling_phase_is_that_of_gaussian_jitter(bench):
    jitter_ui, phases = 0.12, (-110, -90, -60, 0, 60, 90)
    points = bathtub(bench, Channel.uniform(2, jitter_ui=jitter_ui), phases, 400, seed=3)
    assert [point.phase for point in points] == list(phases)
    for point in points:
        tails = [NormalDist().cdf(-(0.5 + side * point.phase / 256) / jitter_ui) for side in (1, -1)]
        rate = sum(tails) / 2
        assert rate == pytest.approx(eye_ber(jitter_ui, point.phase / 256))
        if rate < 0.1:
            assert point.bits > 40_000
            assert abs(point.errors - rate * point.bits) < 4 * math.sqrt(rate * point.bits) + 1, point
    # More than an eighth of the bits are wrong: the pattern was dropped.
    assert eye_ber(jitter_ui, -110 / 256) > 0.125
    assert points[0].bits < 20_000


@pytest.mark.parametrize("seed", range(3))
def test_a_counter_misses_nothing_counts_nothing_twice_and_stays_at_its_highest_value(monkeypatch, seed):
    monkeypatch.setattr(ber_tester, "ERROR_BITS", 7)
    monkeypatch.setattr(ber_tester, "BLOCK_COUNT_BITS", 4)
    m, rng = Module(), np.random.default_rng(seed)
    m.submodules.counter = counter = LaneCounter(9)
    rates = {"step": 0.6, "clear": 0.05, "snapshot": 0.1}
    fed = [
        {name: int(rng.random() < rate) for name, rate in rates.items()} | {"errors": int(rng.integers(10))}
        for _ in range(400)
    ]
    for cycle in fed:
        cycle["errors"] *= cycle["step"]
    expected, count, shown = [], [0, 0], (0, 0)
    for cycle in fed:
        expected.append(shown)
        if cycle["snapshot"]:
            shown = tuple(count)
        count = [0, 0] if cycle["clear"] else count
        count = [min(count[0] + cycle["errors"], 127), min(count[1] + cycle["step"], 15)]
    seen = []

    class Actor:
        samples = (counter.shown_errors, counter.shown_blocks)

        def step(self, ctx, cycle, *shown):
            if cycle:
                seen.append(shown)
            for name, value in (fed[cycle] if cycle < len(fed) else {}).items():
                ctx.set(getattr(counter, name), value)

    Bench(m).run([Actor()], lambda cycle: cycle == len(fed), len(fed) + 1)
    assert seen == expected
    assert any(errors == 127 for errors, _ in seen)
    assert any(blocks == 15 for _, blocks in seen)


def test_software_measures_a_link_in_the_near_loop_through_its_registers():
    m = Module()
    m.submodules.link = link = AxiLink(SPEC)
    bus = SimpleNamespace(
        **{name.removeprefix("s_axil_"): getattr(link, name) for name in link.signature.members if "axil" in name}
    )
    names = {register.name: 4 * number for number, register in enumerate(REGISTERS)}
    bit = {field.name.removeprefix("ber_"): 1 << lowest for lowest, field in BER_REGISTERS[0].placed}
    on, once, snapshot, near = (bit[name] for name in ("on", "error_once", "snapshot", "near_loop"))
    look = [Access(names[name]) for name in ("ber_control", "ber_locked", "ber_errors", "ber_blocks", "status")]
    accesses = [
        Access(names["ber_error_lanes"], 0b10),
        Access(names["ber_lane"], 1),
        Access(names["rx_phase"], 0x1C5),
        Access(names["ber_control"], on | near),
        *[Access(names["id"])] * 8,
        *[Access(names["ber_control"], on | near | once)] * 3,
        *[Access(names["id"])] * 4,
        Access(names["ber_control"], on | near | snapshot),
        *look,
        Access(names["ber_control"], near),
        *[Access(names["id"])] * 500,
        Access(names["status"]),
    ]
    master = Master(bus, accesses, {}, together=False)
    phases = []

    class Serdes:
        samples = (link.rx_phase,)

        def step(self, *seen):
            phases.append(seen[-1])

    Bench(m).run([master, Serdes()], lambda _: master.done, 4000)
    assert phases[-1] == 0xC5
    answers = [answer.data for answer in master.answers]
    control, lanes, errors, blocks, status = answers[-507:-502]
    assert (control, lanes, errors) == (bit["present"] | near | on, 0b11, 3)
    assert blocks > 20
    assert status == 0, "the link is held in reset"
    assert answers[-1] >> 4 & 1, "the link is up again, with itself"
