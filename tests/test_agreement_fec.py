"""A link with error correction in the cycle model and in the RTL: the same cycles, also where codewords are lost."""

from dataclasses import replace

import numpy as np
import pytest

from lightfabric.model.cycle.link import Link
from lightfabric.model.cycle.slot import Losses
from lightfabric.model.cycle.terminal import Sink, Source, flits
from lightfabric.model.kernel.block import Module, connect
from lightfabric.model.kernel.system import System
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import LinkTiming
from lightfabric.rtl.fec.sublayer import FecDecoder, FecEncoder
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.link import LinkBench, LinkRun
from lightfabric.sim.channel.error import BitErrors
from lightfabric.sim.link_timing import measure_link

SPEC = ChipletSpec(
    ports=1, wavelengths_per_port=2, flit_bytes=64, virtual_channels=1, buffer_flits=60, reach_m=1.0, fec="light"
)
KP4 = replace(SPEC, fec="kp4", wavelength_gbps=34.0, buffer_flits=110, replay_flits=0)
LATE_AT_RECEIVER = ["deliver", "credit_in", "ack_out", "ack_in", "nak_out", "halt_in", "nak_in"]


def with_latencies(spec: ChipletSpec) -> LinkTiming:
    """The timing of the link without its code, with the latency of the encoder before the line and the decoder's behind."""
    # As many blocks per second; how many flits wait for an answer is no matter of pipelines, so few of them will do.
    gbps = spec.wavelength_gbps * spec.BLOCK_BITS_ON_LINE / spec.block_bits_on_line
    plain = measure_link(replace(spec, fec="none", wavelength_gbps=gbps, buffer_flits=12, replay_flits=0))
    encoder, decoder = FecEncoder(spec).latency_cycles, FecDecoder(spec).latency_cycles
    late = {f"{name}_cycles": getattr(plain, f"{name}_cycles") + decoder for name in LATE_AT_RECEIVER}
    at_line = {name: getattr(plain, name) + encoder for name in ("first_beat_cycle", "line_cycles")}
    return replace(plain, **late, **at_line)


@pytest.fixture(scope="module")
def timing() -> LinkTiming:
    return with_latencies(SPEC)


@pytest.fixture(scope="module")
def bench() -> LinkBench:
    return LinkBench(SPEC)


@pytest.fixture(scope="module")
def kp4_bench() -> LinkBench:
    return LinkBench(KP4)


def run_of_rtl(bench: LinkBench, sent: list[int], losses: Losses, frame_beat: int = 0, **options) -> LinkRun:
    numbered = [(cycle, ClientFlit(n.to_bytes(2, "little"))) for n, cycle in enumerate(sent)]
    lost = {
        f"lost_{end}": lambda first_beat, backwards=backwards: replace(losses, backwards=backwards)(first_beat, frame_beat)
        for end, backwards in (("a", False), ("b", True))
    }
    return bench.run(numbered, delay_cycles=3, bound_cycles=40_000, **(lost if losses.slot_loss_rate else {}), **options)


def cycles_of_model(timing: LinkTiming, run: LinkRun, losses: Losses, spec: ChipletSpec = SPEC) -> list[int]:
    """When the model delivers flits offered in the cycles in which those of the RTL were taken, after the same training."""
    top, offered = Module(), [cycle for cycle, _ in run.sent]
    linked_cycle = run.trained[0] + timing.start_cycles
    link = top.add("link", Link(spec, timing, 3, frame_beat=run.frame_beat, linked_cycle=linked_cycle, losses=losses))
    source = top.add("source", Source(offered, flits(len(offered), packet=range(len(offered)))))
    sink = top.add("sink", Sink([False]))
    connect(source.o, link.i[0], Link.input_fifo(spec, timing))
    connect(link.o[0], sink.i, link.output_fifo())
    System(top).run_to_idle()
    assert [int(record["packet"]) for record in sink.records] == list(range(len(offered)))
    return [int(record["cycle"]) - 1 for record in sink.records]


def spread(count: int) -> list[int]:
    return [220 + 3 * n + 40 * (n // 25) for n in range(count)]


def test_flits_take_as_long_in_the_model_as_in_the_rtl(bench, timing):
    run = run_of_rtl(bench, spread(100), Losses())
    assert [cycle for cycle, _ in run.received] == cycles_of_model(timing, run, Losses())


def test_flits_take_as_long_in_longer_blocks(kp4_bench):
    """Lanes carry blocks of 68 bits with KP4."""
    run = run_of_rtl(kp4_bench, spread(50), Losses())
    assert [cycle for cycle, _ in run.received] == cycles_of_model(with_latencies(KP4), run, Losses(), KP4)


def test_locks_hold_while_units_of_the_other_end_are_still_on_a_fibre(bench):
    """An end that trains again gets units, whose first bits are no sync headers, while light goes there and back."""
    flits_, delay_cycles = [(1700, ClientFlit(b"a")), (4500, ClientFlit(b"b"))], 50
    run = bench.run(flits_, delay_cycles=delay_cycles, retrain_at={2700}, bound_cycles=9_000)
    assert run.training["lock_cycles"] == 1
    assert len(run.recoveries) == 1
    assert 4 * delay_cycles < run.recoveries[0] < 5 * delay_cycles + 150


def test_lost_codewords_cost_as_many_cycles_in_the_model_as_in_the_rtl(bench, timing):
    """Their slots are spoiled by words of the code in the RTL, so that each is lost in the cycle in which it would come."""
    frame_beat = run_of_rtl(bench, [0], Losses()).frame_beat
    losses = replace(Losses.of(replace(SPEC, bit_error_rate=8e-4)), seed=5)
    run = run_of_rtl(bench, spread(200), losses, frame_beat)
    assert run.crc_errors > 4
    assert run.replays > 2
    assert [cycle for cycle, _ in run.received] == cycles_of_model(timing, run, losses)


@pytest.mark.parametrize("name", ["bench", "kp4_bench"])
def test_at_a_raw_error_rate_of_1e_4_a_corrected_line_keeps_its_rate(name, request):
    """Without a code every ninth slot is lost there. All bits of both lines are hit, those of training sets, too."""
    bench = request.getfixturevalue(name)
    clean = run_of_rtl(bench, [0] * 200, Losses())
    errors = {f"errors_{end}": BitErrors(1e-4, np.random.default_rng(seed)) for end, seed in (("a", 1), ("b", 2))}
    noisy = run_of_rtl(bench, [0] * 200, Losses(), **errors)
    assert noisy.bit_errors > 10
    taken = [run.received[-1][0] - run.received[0][0] for run in (clean, noisy)]
    assert taken[0] >= 0.99 * taken[1]


@pytest.mark.slow
def test_the_measured_timing_is_that_without_the_code_and_its_latencies(timing):
    measured = measure_link(replace(SPEC, buffer_flits=24))
    for name in ("line", "stage", "next", "accept", "credit_out", *LATE_AT_RECEIVER):
        ours, theirs = getattr(timing, f"{name}_cycles"), getattr(measured, f"{name}_cycles")
        # Where no staged flit was seen to be refused, the halt is measured from above alone.
        assert ours == theirs or (name == "halt_in" and ours <= theirs <= timing.nak_in_cycles), name
