"""A bathtub is measured by the bit error tester at one sampling phase after the other, as software does with a SerDes.

The phase is the SerDes' to set: the register ``rx_phase`` is an output for it. Here the model of the channel is the SerDes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lightfabric.rtl.prbs import ORDERS
from lightfabric.sim.channel.fault import Channel
from lightfabric.sim.channel.fibre import Fibre
from lightfabric.sim.line.ber_tester import BerBench, End

PHASES = 256
"""Steps of ``rx_phase`` in a bit."""
SETTLE_CYCLES = 40


@dataclass(frozen=True)
class Point:
    """Holds what all lanes together counted at a phase: few bits where too many errors dropped the pattern."""

    phase: int
    bits: int
    errors: int


def bathtub(bench: BerBench, channel: Channel, phases: Sequence[int], cycles: int, *, seed: int) -> list[Point]:
    """Measure the line from end a at each phase, for so many cycles.

    Every measurement begins in the middle of the bit: a tester keeps a pattern at error rates at which it could not find it.
    """
    block_bits = bench.spec.block_bits_on_line
    fibre, points = Fibre(channel, block_bits, seed), list[Point]()

    def script(a: End, b: End) -> Iterator[None]:
        for end in (a, b):
            end.write(ber_on=1, ber_pattern=ORDERS.index(31))
        for phase in phases:
            fibre.sample(0.0)
            yield from (None for _ in range(SETTLE_CYCLES))
            while b.status.ber_locked != (1 << len(channel.lanes)) - 1:
                yield
            fibre.sample(phase / PHASES)
            yield from (None for _ in range(SETTLE_CYCLES))
            b.write(ber_clear=1)
            yield from (None for _ in range(cycles))
            readings = yield from b.snapshot()
            blocks, errors = (sum(getattr(reading, name) for reading in readings) for name in ("blocks", "errors"))
            points.append(Point(phase, blocks * block_bits, errors))

    bench.run(script, channel=fibre, bound_cycles=len(phases) * (cycles + 1_000))
    return points
