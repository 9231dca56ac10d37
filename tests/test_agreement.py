"""The cycle model against the RTL, cycle for cycle: same spec, same stimulus, timing measured on the RTL."""

import contextlib
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil

import numpy as np
import pytest

from lightfabric.flows.format.timing_store import measured_timing
from lightfabric.model.cycle import link as model_link
from lightfabric.model.cycle import replay as model_replay
from lightfabric.model.cycle import switch as model_switch
from lightfabric.model.cycle.slot import Losses
from lightfabric.model.cycle.terminal import Sink, Source, flits
from lightfabric.model.kernel.block import Module, connect
from lightfabric.model.kernel.system import System
from lightfabric.model.spec import FIBRE_PS_PER_M, ChipletSpec
from lightfabric.model.timing import Timing
from lightfabric.rtl import receiver, transmitter
from lightfabric.rtl.training_set import PHASES
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.link import LinkBench, LinkRun
from lightfabric.sim.bench.switch import SwitchBench
from lightfabric.sim.characterize import characterize
from lightfabric.sim.link_timing import stream_window_flits

SPECS = {
    "a beat per flit": ChipletSpec(ports=1, wavelengths_per_port=8, flit_bytes=64, buffer_flits=12, reach_m=2.0),
    "two beats, slow line": ChipletSpec(
        ports=2,
        wavelengths_per_port=4,
        flit_bytes=64,
        core_clock_mhz=1100,
        virtual_channels=1,
        buffer_flits=6,
        reach_m=1.0,
    ),
    "four beats, odd rate": ChipletSpec(
        ports=2,
        wavelengths_per_port=2,
        flit_bytes=64,
        core_clock_mhz=700,
        virtual_channels=3,
        buffer_flits=5,
        reach_m=1.0,
    ),
}
DELAYS_CYCLES = (0, 1, 45)
TRAINED_CYCLE = 420
"""Later than the end of the training in every run here."""


@pytest.fixture(scope="module", params=SPECS)
def measured(request) -> tuple[ChipletSpec, Timing, LinkBench, SwitchBench]:
    spec = SPECS[request.param]
    # Kept by the hash of the RTL, so that the slow tests need not measure again what the others have.
    return spec, measured_timing(spec), LinkBench(spec), SwitchBench(spec)


Sent = list[tuple[int, int]]
"""(cycle, virtual channel) of each flit, at most one per cycle."""
Delivered = list[tuple[int, int, int]]
"""(cycle, virtual channel, number of the flit), sorted."""


def every(period_cycles: int) -> Callable[[int, int], int]:
    """A consumer that takes one flit in each cycle divisible by the period, as Sink does with the pauses of `pauses`."""
    last = -1

    def credit_cycle(_: int, cycle: int) -> int:
        nonlocal last
        first_cycle = max(cycle, last) + 1
        last = -(-first_cycle // period_cycles) * period_cycles
        return last

    return credit_cycle


def pauses(period_cycles: int) -> list[bool]:
    return [cycle % period_cycles != 0 for cycle in range(period_cycles)]


NO_LOSSES = Losses()


@dataclass(frozen=True)
class Line:
    """What both get: the fibre, the slots that are lost, the trainings; and how fast the consumer is."""

    delay_cycles: int = 0
    period_cycles: int = 1
    losses: Losses = NO_LOSSES
    retrain_at: tuple[int, ...] = ()


def run_of_rtl(bench: LinkBench, sent: Sent, line: Line) -> LinkRun:
    return bench.run(
        [(cycle, ClientFlit(n.to_bytes(2, "little"), virtual_channel=v)) for n, (cycle, v) in enumerate(sent)],
        delay_cycles=line.delay_cycles,
        credit_cycle=every(line.period_cycles),
        lost_a=line.losses,
        lost_b=replace(line.losses, backwards=True),
        retrain_at=line.retrain_at,
        bound_cycles=40_000,
    )


def delivered_by(run: LinkRun) -> Delivered:
    return sorted((cycle, f.virtual_channel, int.from_bytes(f.payload, "little")) for cycle, f in run.received)


def link_of_model(spec: ChipletSpec, timing: Timing, sent: Sent, line: Line, run: LinkRun) -> Delivered:
    """What the model's link delivers when it is trained in the cycle in which that of ``run`` was."""
    top, sinks = Module(), []
    link = model_link.Link(
        spec,
        timing.link,
        line.delay_cycles,
        frame_beat=run.frame_beat,
        linked_cycle=run.trained[0] + timing.link.start_cycles,
        losses=line.losses,
        retrain_at=line.retrain_at,
    )
    top.add("link", link)
    for v in range(spec.virtual_channels):
        mine = [n for n, (_, channel) in enumerate(sent) if channel == v]
        numbered = flits(len(mine), packet=mine, virtual_channel=v)
        source = top.add(f"source_{v}", Source([sent[n][0] for n in mine], numbered))
        sinks.append(top.add(f"sink_{v}", Sink(pauses(line.period_cycles))))
        connect(source.o, link.i[v], model_link.Link.input_fifo(spec, timing.link))
        connect(link.o[v], sinks[-1].i, link.output_fifo())
    System(top).run_to_idle()
    return delivered(sinks)


def delivered(sinks: list[Sink]) -> Delivered:
    """A sink that is always open pops a flit in the cycle after it was valid at the hardware's output."""
    records = np.concatenate([sink.records for sink in sinks])
    return sorted((int(r["cycle"]) - 1, int(r["virtual_channel"]), int(r["packet"])) for r in records)


def both(measured, sent: Sent, line: Line) -> tuple[Delivered, Delivered]:
    """What the model delivers, and the RTL. Flits are offered to the model when the one driver of the RTL came to them."""
    spec, timing, bench, _ = measured
    run = run_of_rtl(bench, sent, line)
    driven = [(cycle, flit.virtual_channel) for cycle, flit in run.sent]
    return link_of_model(spec, timing, driven, line, run), delivered_by(run)


def scattered(count: int, channels: int, seed: int, most_apart_cycles: int, first_cycle: int = TRAINED_CYCLE) -> Sent:
    rng = random.Random(seed)
    cycle, sent = first_cycle, []
    for _ in range(count):
        sent.append((cycle, rng.randrange(channels)))
        cycle += rng.randint(1, most_apart_cycles)
    return sent


def test_the_receiver_and_the_transmitter_lose_patience_alike():
    counts = (transmitter.REPLAYS_TO_RETRAIN, receiver.BAD_FRAMES_TO_RETRAIN, PHASES)
    assert counts == (
        model_replay.REPLAYS_TO_RETRAIN,
        model_replay.BAD_SLOTS_TO_RETRAIN,
        model_replay.SETS,
    )


MAX_POINTER_LOOP_CYCLES = 17
"""Of openHMC, the best open link, at 256 to 1024 bits: 17 to 20."""


def test_a_place_in_the_replay_buffer_comes_back_in_time(measured):
    """Within what the depth of the buffer is made for; where a flit is a beat, as fast as in the best open link."""
    spec, timing, *_ = measured
    link = timing.link
    assert 2 * link.line_cycles + link.ack_out_cycles + link.ack_in_cycles <= spec.LOOP_CYCLES
    assert link.pointer_loop_cycles <= spec.LOOP_CYCLES + spec.LOOP_SLOTS * spec.slot_cycles
    if spec.beats_per_flit == 1:
        assert link.pointer_loop_cycles <= MAX_POINTER_LOOP_CYCLES


@pytest.mark.parametrize("delay_cycles", [0, 45])
def test_a_lone_flit_takes_as_long_in_the_model_as_in_the_rtl(measured, delay_cycles):
    spec, timing, *_ = measured
    apart_cycles = 40 + 2 * delay_cycles
    sent = [(TRAINED_CYCLE + n * apart_cycles + n, n % spec.virtual_channels) for n in range(8)]
    model, rtl = both(measured, sent, Line(delay_cycles))
    assert model == rtl
    assert min(got[0] - at for (at, _), got in zip(sent, rtl, strict=True)) >= timing.link.latency_cycles + delay_cycles


@pytest.mark.parametrize("delay_cycles", DELAYS_CYCLES)
@pytest.mark.parametrize("first_cycle", [0, TRAINED_CYCLE])
def test_scattered_traffic_arrives_in_the_same_cycles(measured, delay_cycles, first_cycle):
    """Also what was sent before the line was trained."""
    seed, apart_cycles = (2, 17) if first_cycle else (1, 3)
    sent = scattered(40, measured[0].virtual_channels, seed, apart_cycles, first_cycle)
    model, rtl = both(measured, sent, Line(delay_cycles))
    assert model == rtl


MAX_SLOT_CYCLES = 4


def random_spec(seed: int) -> ChipletSpec:
    """Any spec of up to eight wavelengths and short slots: others only take longer to simulate."""
    rng = random.Random(seed)
    spec = None
    while spec is None or spec.slot_cycles > MAX_SLOT_CYCLES:
        gbps, cycles_per_block = rng.uniform(5, 112), rng.uniform(1.0, 3.9)
        with contextlib.suppress(ValueError):  # a fibre too long for the replay buffer
            spec = ChipletSpec(
                ports=rng.randint(1, 2),
                wavelengths_per_port=1 << rng.randint(0, 3),
                wavelength_gbps=gbps,
                core_clock_mhz=gbps * 1000 / 66 * rng.choice((1.0001, cycles_per_block)),
                flit_bytes=rng.choice((64, 128, 256)),
                crc=rng.choice(("crc32c", "crc24", "crc16", "crc16-umts")),
                virtual_channels=rng.randint(1, 4),
                buffer_flits=rng.randint(2, 48),
                reach_m=rng.uniform(0.1, 20),
            )
    return spec


RANDOM_SPECS = range(int(os.environ.get("LIGHTFABRIC_RANDOM_SPECS", "1")))
"""200 take hours."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", RANDOM_SPECS)
def test_uncontended_flits_of_random_specs_arrive_in_the_same_cycles(seed):
    spec = random_spec(seed)
    print(f"seed {seed}: {spec}")
    rng, timing = random.Random(seed), characterize(spec)
    measured = spec, timing, LinkBench(spec), SwitchBench(spec)
    slot_cycles, reach_cycles = ceil(spec.slot_cycles), ceil(spec.reach_m * FIBRE_PS_PER_M / spec.cycle_ps)
    for delay_cycles in (0, rng.randint(1, reach_cycles), reach_cycles):
        first_cycle = 3 * (timing.link.lock_cycles + timing.link.align_cycles) + 20 * delay_cycles
        sent = scattered(24, spec.virtual_channels, seed, 2 * slot_cycles + 9, first_cycle)
        model, rtl = both(measured, sent, Line(delay_cycles))
        assert model == rtl
    test_a_lone_flit_crosses_the_switch_in_the_measured_cycles(measured)


def test_a_stream_takes_the_measured_cycles_per_flit(measured):
    spec, timing, *_ = measured
    window_flits = stream_window_flits(spec)
    sent = [(0, n % spec.virtual_channels) for n in range(2 * window_flits)]
    model, rtl = both(measured, sent, Line())
    assert model == rtl
    assert Fraction(model[-1][0] - model[-1 - window_flits][0], window_flits) == timing.link.cycles_per_flit


@pytest.mark.parametrize(("delay_cycles", "period_cycles"), [(0, 1), (1, 9), (45, 1)])
def test_a_stream_waits_for_credits_and_acknowledgements_alike(measured, delay_cycles, period_cycles):
    spec, timing, bench, _ = measured
    sent, line = [(n, 0) for n in range(3 * spec.buffer_flits)], Line(delay_cycles, period_cycles)
    run = run_of_rtl(bench, sent, line)
    model, rtl = link_of_model(spec, timing, sent, line, run), delivered_by(run)
    credit_cycle = every(period_cycles)  # the model's sinks say when they popped
    assert [n for _, _, n in model] == [n for _, _, n in rtl]
    assert [cycle + 1 for cycle, _, _ in model] == [credit_cycle(n, cycle) for n, (cycle, _, _) in enumerate(rtl)]


FAR = ChipletSpec(ports=1, wavelengths_per_port=8, flit_bytes=64, virtual_channels=1, reach_m=23.0)
"""Its round trip holds more flits than sequences of 8 bits tell apart."""


@pytest.fixture(scope="module")
def far() -> tuple[ChipletSpec, Timing, LinkBench, None]:
    return FAR, measured_timing(FAR), LinkBench(FAR), None


def test_a_long_fibre_is_filled_with_wide_sequences_that_wrap_alike(far):
    """At the full rate of the line, where 127 outstanding flits would not do."""
    spec, timing, *_ = far
    assert (spec.sequences, spec.round_trip_flits > 127) == (511, True)
    sent = [(0, 0)] * (spec.sequences + 90)
    model, rtl = both(far, sent, Line(spec.reach_cycles))
    assert model == rtl
    window_flits = spec.blocks_per_cycle.numerator * 16
    assert (
        Fraction(model[-1][0] - model[-1 - window_flits][0], window_flits) == timing.link.cycles_per_flit == spec.slot_cycles
    )


def test_wide_sequences_that_are_lost_are_sent_again_alike(far):
    spec, *_ = far
    model, rtl = both(far, [(0, 0)] * (spec.sequences + 90), Line(spec.reach_cycles, losses=Losses(0.01, 3)))
    assert [n for *_, n in model] == [n for *_, n in rtl]
    assert model[-1][0] == pytest.approx(rtl[-1][0], rel=0.02)


SLOT_LOSS_RATES = (0.01, 0.03, 0.1)
SLOW = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 17)]


@pytest.mark.parametrize("seed", [*range(5), *SLOW])
def test_the_same_slots_lost_cost_the_same_time(measured, seed):
    """Random traffic, slots lost at random in both directions: all flits, the total time within 2 %, and mostly exact."""
    sent = scattered(50, measured[0].virtual_channels, seed, 1 + seed % 5)
    losses = Losses(SLOT_LOSS_RATES[seed % 2 + seed % 3 // 2], seed)
    line = Line(DELAYS_CYCLES[seed % 3], losses=losses)
    model, rtl = both(measured, sent, line)
    assert sorted(n for *_, n in model) == sorted(n for *_, n in rtl)
    assert model[-1][0] - TRAINED_CYCLE == pytest.approx(rtl[-1][0] - TRAINED_CYCLE, rel=0.02)
    if losses.slot_loss_rate < SLOT_LOSS_RATES[-1]:
        assert model == rtl


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_slots_that_bit_errors_spoil_in_pairs_cost_the_same_time(measured, seed):
    """As those of the highest bit error rate: a wrong bit near the end of a slot spoils the next one, too."""
    spec, *_ = measured
    losses = Losses.of(replace(spec, bit_error_rate=spec.MAX_BIT_ERROR_RATE), seed)
    assert 0 < losses.echo_rate < losses.own_rate < SLOT_LOSS_RATES[-1]
    sent = scattered(50, spec.virtual_channels, seed, 1 + seed % 5)
    model, rtl = both(measured, sent, Line(DELAYS_CYCLES[seed % 3], losses=losses))
    assert sorted(n for *_, n in model) == sorted(n for *_, n in rtl)
    assert model[-1][0] - TRAINED_CYCLE == pytest.approx(rtl[-1][0] - TRAINED_CYCLE, rel=0.02)


def test_a_retraining_stops_deliveries_for_as_long(measured):
    """Within one cycle of training sets: a training ends with a whole one, and a cycle or two decide with which."""
    spec, *_ = measured
    reach_cycles = ceil(spec.reach_m * FIBRE_PS_PER_M / spec.cycle_ps)
    for delay_cycles in (0, reach_cycles):
        sent = [(TRAINED_CYCLE + 8 * n, n % spec.virtual_channels) for n in range(40)]
        line = Line(delay_cycles, retrain_at=(TRAINED_CYCLE + 100,))
        model, rtl = both(measured, sent, line)
        assert [n for *_, n in model] == [n for *_, n in rtl]
        outages = [max(b - a for (a, *_), (b, *_) in pairwise(run)) for run in (model, rtl)]
        assert abs(outages[0] - outages[1]) <= PHASES / spec.blocks_per_cycle + spec.slot_cycles


def switch_of_rtl(bench: SwitchBench, sent: dict[int, list[tuple[int, int, int, int]]]):
    offered = {
        port: [(cycle, ClientFlit(bytes([n]), to, port, v, last)) for n, (cycle, to, v, last) in enumerate(flits_)]
        for port, flits_ in sent.items()
    }
    run = bench.run(offered, bound_cycles=20_000)
    return sorted(
        (cycle, f.destination, f.virtual_channel, f.source, f.payload[0]) for port in run.received for cycle, f in port
    )


def switch_of_model(spec: ChipletSpec, timing: Timing, sent: dict[int, list[tuple[int, int, int, int]]]):
    top, sinks = Module(), []
    switch = top.add("switch", model_switch.Switch(spec, timing.switch))
    for port in range(spec.switch_ports):
        for v in range(spec.virtual_channels):
            queue = port * spec.virtual_channels + v
            mine = [(n, *flit) for n, flit in enumerate(sent.get(port, [])) if flit[2] == v]
            numbers, cycles, to, _, last = zip(*mine, strict=True) if mine else ((), (), (), (), ())
            offered = flits(len(mine), packet=numbers, source=port, destination=to, virtual_channel=v, last=last)
            source = top.add(f"source_{queue}", Source(cycles, offered))
            sinks.append(top.add(f"sink_{queue}", Sink()))
            connect(source.o, switch.i[queue], switch.input_fifo(spec, timing.switch))
            connect(switch.o[queue], sinks[-1].i, switch.output_fifo())
    System(top).run_to_idle()
    records = np.concatenate([sink.records for sink in sinks])
    fields = ("destination", "virtual_channel", "source", "packet")
    return sorted((int(r["cycle"]) - 1, *(int(r[name]) for name in fields)) for r in records)


def packets(spec: ChipletSpec, seed: int, most_apart_cycles: int) -> dict[int, list[tuple[int, int, int, int]]]:
    """For each input (cycle, destination, virtual channel, last) of flits in packets of one to three."""
    rng = random.Random(seed)
    sent = {}
    for port in range(spec.switch_ports):
        cycle, flits_ = 0, []
        for _ in range(8):
            to, v, length = rng.randrange(spec.switch_ports), rng.randrange(spec.virtual_channels), rng.randint(1, 3)
            for n in range(length):
                flits_.append((cycle, to, v, int(n == length - 1)))
                cycle += rng.randint(1, most_apart_cycles)
        sent[port] = flits_[: spec.buffer_flits * 2]
        to, v = sent[port][-1][1:3]
        sent[port][-1] = (sent[port][-1][0], to, v, 1)
    return sent


def test_a_lone_flit_crosses_the_switch_in_the_measured_cycles(measured):
    spec, timing, _, bench = measured
    sent = {port: [(20 * port, (port + 1) % spec.switch_ports, 0, 1)] for port in range(spec.switch_ports)}
    rtl = switch_of_rtl(bench, sent)
    assert switch_of_model(spec, timing, sent) == rtl
    assert {cycle - 20 * source for cycle, _, _, source, _ in rtl} == {timing.switch.latency_cycles}


def test_a_stream_crosses_the_switch_at_the_measured_rate(measured):
    spec, timing, _, bench = measured
    sent = {0: [(n, 1, 0, 1) for n in range(3 * spec.buffer_flits)]}
    rtl = switch_of_rtl(bench, sent)
    assert switch_of_model(spec, timing, sent) == rtl
    assert Fraction(rtl[-1][0] - rtl[0][0], len(rtl) - 1) == timing.switch.cycles_per_flit


@pytest.mark.parametrize("seed", range(3))
def test_contention_in_the_switch_is_decided_alike(measured, seed):
    spec, timing, _, bench = measured
    sent = packets(spec, seed, 1 + seed)
    assert switch_of_model(spec, timing, sent) == switch_of_rtl(bench, sent)
