"""The rhythm of the line: what the SerDes that is not always ready gets of it."""

import random

import pytest
from amaranth.sim import Simulator

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.link import Link
from lightfabric.rtl.pacer import MAX_LATE_BEATS, READY_SLACK_BEATS, Pacer
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.link import LinkBench

GEARBOX = ChipletSpec(ports=1, wavelengths_per_port=1, wavelength_gbps=10.0, core_clock_mhz=156.25, flit_bytes=64)
SPECS = {
    "32 of 33": GEARBOX,
    "every cycle": ChipletSpec(ports=1, wavelengths_per_port=4, wavelength_gbps=33.0, core_clock_mhz=500.0, flit_bytes=64),
    "every third": ChipletSpec(ports=1, wavelengths_per_port=2, wavelength_gbps=11.0, core_clock_mhz=500.0, flit_bytes=64),
}


def simulated(block, ready, beat, cycles):
    """The cycles in which ``beat`` is 1, where ``ready`` is set by the rule ``ready[1]`` of the cycle."""
    sim, seen = Simulator(block), []
    sim.add_clock(1e-9)

    async def run(ctx):
        for cycle in range(cycles):
            ctx.set(ready[0], ready[1](cycle))
            if ctx.get(beat):
                seen.append(cycle)
            await ctx.tick()

    sim.add_testbench(run)
    sim.run()
    return seen


def beats_of(spec, ready, cycles=4000):
    pacer = Pacer(spec)
    return simulated(pacer, (pacer.ready, ready), pacer.beat, cycles)


def test_the_headroom_is_the_share_of_cycles_without_a_block():
    assert [round(spec.clock_headroom_ppm) for spec in SPECS.values()] == [31250, 0, 2_000_000]


@pytest.mark.parametrize("pause", range(0, 33, 8))
def test_a_serdes_that_pauses_in_its_own_rhythm_gets_all_blocks(pause):
    """A gearbox of 64b/66b takes no block in one of 33 cycles, whichever it likes."""
    beats = beats_of(GEARBOX, lambda cycle: cycle % 33 != pause)
    assert {cycle % 33 for cycle in beats[40:]} == set(range(33)) - {(pause + 1) % 33}
    assert abs(len(beats) - 4000 * 32 / 33) <= 2


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_no_beat_follows_a_cycle_in_which_the_serdes_is_not_ready_and_few_are_made_up_for(spec):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    ready = [rng.random() < 0.95 for _ in range(2000)] + [False] * 100 + [True] * 1000
    beats = beats_of(spec, ready.__getitem__, len(ready))
    assert all(ready[cycle - 1] for cycle in beats)
    late, rate = sum(cycle >= 2100 for cycle in beats), spec.blocks_per_cycle
    assert 1000 * rate - 1 <= late <= min(1000, 1000 * rate + MAX_LATE_BEATS + 1)
    assert rate == 1 or late > 1000 * rate + MAX_LATE_BEATS - 2


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_few_beats_leave_the_link_after_the_serdes_was_ready_last(spec):
    link = Link(spec)
    beats = simulated(link, (link.tx_ready, lambda cycle: cycle % 40 < 20), link.tx.valid, 400)
    late = [sum(20 + 40 * n <= cycle < 40 + 40 * n for cycle in beats) for n in range(10)]
    assert 0 < max(late) <= READY_SLACK_BEATS
    assert len(beats) > 5 * spec.blocks_per_cycle * 20


@pytest.mark.parametrize("wavelengths", [1, 8])
def test_flits_arrive_once_from_a_serdes_that_pauses_at_will(wavelengths):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng, spec = random.Random(seed), ChipletSpec(ports=1, wavelengths_per_port=wavelengths, flit_bytes=64, buffer_flits=8)
    flits = [(0, ClientFlit(rng.randbytes(8), 3, 4, rng.randrange(2), True)) for _ in range(40)]
    run = LinkBench(spec).run(flits, ready=lambda _: rng.random() < 0.7, bound_cycles=20_000)
    assert (run.replays, run.crc_errors) == (0, 0)
    for v in range(2):
        sent = [flit for _, flit in flits if flit.virtual_channel == v]
        assert [flit for _, flit in run.received if flit.virtual_channel == v] == sent
