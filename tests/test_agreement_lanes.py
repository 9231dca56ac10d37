"""A link on fewer wavelengths than it has, in the cycle model and in the RTL: the same cycles, scattered and in a stream."""

import random
from fractions import Fraction

import pytest

from lightfabric.model.cycle.link import Link
from lightfabric.model.cycle.slot import Losses
from lightfabric.model.cycle.terminal import Sink, Source, flits
from lightfabric.model.kernel.block import Module, connect
from lightfabric.model.kernel.system import System
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import LinkTiming
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.link import LinkBench, LinkRun
from lightfabric.sim.link_timing import measure_link

SPEC = ChipletSpec(ports=1, wavelengths_per_port=4, flit_bytes=64, virtual_channels=1, buffer_flits=90, reach_m=5.0)
DELAY_CYCLES = 4
SENT_CYCLE = 2400
"""Later than the end of the training, in which the far end waits for lanes that may come yet."""


@pytest.fixture(scope="module")
def timing() -> LinkTiming:
    return measure_link(SPEC)


@pytest.fixture(scope="module")
def bench() -> LinkBench:
    return LinkBench(SPEC)


def noise_on(lanes: tuple[int, ...], rng: random.Random):
    """Errors in half of the bits of these lanes, which no receiver locks on."""
    bits = SPEC.block_bits_on_line
    return lambda _beat, _bits: sum(rng.getrandbits(bits) << bits * lane for lane in lanes)


def run_of_rtl(bench: LinkBench, dead: tuple[int, ...], sent: list[int]) -> LinkRun:
    """As many lanes are dead in each direction, others; not lane 0 of a, on which the bench finds the beats of frames."""
    numbered = [(cycle, ClientFlit(n.to_bytes(2, "little"))) for n, cycle in enumerate(sent)]
    errors = {
        "errors_a": noise_on(dead, random.Random(1)),
        "errors_b": noise_on(tuple(lane - 1 for lane in dead), random.Random(2)),
    }
    return bench.run(numbered, delay_cycles=DELAY_CYCLES, bound_cycles=20_000, **errors)


def cycles_of_model(timing: LinkTiming, run: LinkRun, lanes: int) -> list[int]:
    """When the model delivers flits offered in the cycles in which those of the RTL were taken, after the same training."""
    top, offered = Module(), [cycle for cycle, _ in run.sent]
    trained = {"frame_beat": run.frame_beat, "linked_cycle": run.trained[0] + timing.start_cycles}
    link = top.add("link", Link(SPEC, timing, DELAY_CYCLES, lanes=lanes, losses=Losses(), **trained))
    source = top.add("source", Source(offered, flits(len(offered), packet=range(len(offered)))))
    sink = top.add("sink", Sink([False]))
    connect(source.o, link.i[0], Link.input_fifo(SPEC, timing))
    connect(link.o[0], sink.i, link.output_fifo())
    System(top).run_to_idle()
    assert [int(record["packet"]) for record in sink.records] == list(range(len(offered)))
    return [int(record["cycle"]) - 1 for record in sink.records]


@pytest.mark.parametrize("dead", [(), (1,), (3,), (1, 2), (2, 3), (1, 2, 3)], ids=str)
def test_flits_take_as_long_on_the_lanes_that_are_left(bench, timing, dead):
    """Flits that find the line idle, at all phases of its beats, and then so many that it is the line that they wait for."""
    scattered = [SENT_CYCLE + 41 * n for n in range(40)]
    stream = [scattered[-1] + 200] * 250
    run, lanes = run_of_rtl(bench, dead, scattered + stream), SPEC.wavelengths_per_port - len(dead)
    arrived = [cycle for cycle, _ in run.received]
    assert run.trained[0] < SENT_CYCLE
    assert arrived == cycles_of_model(timing, run, lanes)
    # Between flits far apart whole periods of the line's beats have passed, 33 cycles for 32 beats of 4 words.
    window = 96
    cycles_per_flit = Fraction(arrived[-1] - arrived[-1 - window], window)
    assert cycles_per_flit == SPEC.slot_cycles * Fraction(SPEC.wavelengths_per_port, lanes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": 0}, "Link.lanes must be from 1 to 4, not 0"),
        ({"lanes": 5}, "Link.lanes must be from 1 to 4, not 5"),
        ({"lanes": 3, "losses": Losses(0.01)}, "Link.lanes must be 4 on a line with losses or trainings, not 3"),
        ({"lanes": 3, "retrain_at": (9,)}, "Link.lanes must be 4 on a line with losses or trainings, not 3"),
    ],
)
def test_lanes_that_the_model_does_not_have_are_refused(timing, options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Link(SPEC, timing, **options)
