"""The switch built from a spec is measured here, from input 0 to output 1."""

from fractions import Fraction

from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import SwitchTiming
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.switch import SwitchBench


def measure_switch(spec: ChipletSpec) -> SwitchTiming:
    """Measure the timing of the switch of this spec, from input 0 to output 1 with all other ports quiet."""
    bench, flit, depth = SwitchBench(spec), ClientFlit(b"\1", 1), spec.buffer_flits
    release_cycle = 2 * depth + 40
    bound_cycles = 2 * release_cycle + 10_000
    stream = bench.run({0: [(0, flit)] + [(20, flit)] * (depth + 8)}, bound_cycles=bound_cycles)
    held = bench.run(
        {0: [(0, flit)] * (depth + 1)},
        credit_cycle=lambda number, cycle: release_cycle + 100 * min(number, 1),
        bound_cycles=bound_cycles,
    )
    arrivals = [cycle for cycle, _ in stream.received[1]]
    return SwitchTiming(
        latency_cycles=arrivals[0] - stream.sent[0][0][0],
        # The first flit went alone, for the latency: the stream begins with the second and has a gap fewer than flits.
        cycles_per_flit=Fraction(arrivals[-1] - arrivals[1], len(arrivals) - 2),
        # The credit leaves the input's register when the flit has left the queue.
        credit_cycles=stream.credits_back[0][0] - stream.sent[0][0][0],
        credit_loop_cycles=held.received[1][depth][0] - release_cycle,
    )
