"""Rings and tori of switches at full load: datelines keep them moving, and without one they stop or are refused."""

from fractions import Fraction

import numpy as np
import pytest

from lightfabric.model.cycle.switch import Switch
from lightfabric.model.cycle.terminal import Sink, Source, flits
from lightfabric.model.deadlock import routed, verify
from lightfabric.model.kernel.block import Module, connect
from lightfabric.model.kernel.channel import Fifo
from lightfabric.model.kernel.system import DeadlockError, System
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import SwitchTiming

SPEC = ChipletSpec(ports=3, virtual_channels=4, buffer_flits=4)
TIMING = SwitchTiming(latency_cycles=2, credit_cycles=1, credit_loop_cycles=3, cycles_per_flit=Fraction(1))
PACKET_FLITS = 8
PORTS = 5
"""The client, then up and down of each dimension; the sixth port of the switch is idle."""
DATELINE = ((1, 0, 3, 2), (2, 3, 0, 1))
"""By dimension: bit 0 of a virtual channel says that the packet has crossed that of x, bit 1 that of y."""


def port_towards(shape, here, there):
    """Dimension order, the shorter way, up if both are as long."""
    for dimension, (size, a, b) in enumerate(zip(shape, here, there, strict=True)):
        if ahead := (b - a) % size:
            return 1 + 2 * dimension + (2 * ahead > size)
    return 0


class Torus:
    def __init__(self, shape, has_dateline):
        nodes = [(x, y) for y in range(shape[1]) for x in range(shape[0])]
        number = {node: n for n, node in enumerate(nodes)}
        self.routes = [[port_towards(shape, here, there) for there in nodes] for here in nodes]
        self.far, self.renames = {}, {}
        for here in nodes:
            for port in range(1, PORTS):
                dimension, step = (port - 1) // 2, 1 - 2 * ((port - 1) % 2)
                at, line = list(here), (number[here], port)
                at[dimension] += step
                if has_dateline and not 0 <= at[dimension] < shape[dimension]:
                    self.renames[line] = DATELINE[dimension]
                at[dimension] %= shape[dimension]
                self.far[line] = number[tuple(at)]

    def verify(self, starts=(0,)):
        verify("Torus.routes", routed(self.routes, self.far, starts, self.renames))

    def run(self, destinations):
        """Let each node send its packets on virtual channel 0 as fast as it can; returns the flits that arrive at each."""
        top, sinks, channels = Module(), [], SPEC.virtual_channels
        switches = [top.add(f"switch[{n}]", Switch(SPEC, TIMING, routes)) for n, routes in enumerate(self.routes)]
        for n, switch in enumerate(switches):
            for v in range(channels):
                to = np.repeat(destinations[n] if v == 0 else [], PACKET_FLITS).astype(int)
                last = np.arange(len(to)) % PACKET_FLITS == PACKET_FLITS - 1
                sent = flits(len(to), source=n, destination=to, packet=np.arange(len(to)), last=last)
                source = top.add(f"source[{n}][{v}]", Source(np.zeros(len(to)), sent))
                connect(source.o, switch.i[v], Switch.input_fifo(SPEC, TIMING))
                sinks.append(top.add(f"sink[{n}][{v}]", Sink(capacity_flits=1)))
                connect(switch.o[v], sinks[-1].i, switch.output_fifo())
                connect(switch.o[PORTS * channels + v], switch.i[PORTS * channels + v], Fifo(1))
        for (n, port), far in self.far.items():
            # What leaves upwards comes in at the port that leads back down.
            back = port + 1 if port % 2 else port - 1
            for v, renamed in enumerate(self.renames.get((n, port), range(channels))):
                fifo = Switch.input_fifo(SPEC, TIMING, producer_cycles=1)
                connect(switches[n].o[port * channels + v], switches[far].i[back * channels + renamed], fifo)
        system = System(top)
        system.run_to_idle(1 << 30)
        return np.array([int(sink.state.taken) for sink in sinks]).reshape(len(switches), channels).sum(axis=1)


def two_on(nodes, packets):
    """Every client sends two hops up."""
    return [np.full(packets, (n + 2) % nodes) for n in range(nodes)]


def test_two_hops_round_a_ring_stop_without_a_dateline_and_arrive_with_one():
    with pytest.raises(DeadlockError, match="deadlock in cycle"):
        Torus((4, 1), has_dateline=False).run(two_on(4, 80))
    assert Torus((4, 1), has_dateline=True).run(two_on(4, 80)).tolist() == [80 * PACKET_FLITS] * 4


@pytest.mark.parametrize("shape", [(4, 1), (8, 1), (4, 4)])
def test_routes_without_a_dateline_are_refused_and_the_circle_is_named(shape):
    Torus(shape, has_dateline=True).verify()
    circle = r"not (\d+)\.(\d) vc 0 -> \d+\.\2 vc 0 -> .*-> \1\.\2 vc 0$"
    with pytest.raises(ValueError, match=f"^Torus.routes must close no circle of waiting, {circle}"):
        Torus(shape, has_dateline=False).verify()


def test_a_dateline_does_not_help_those_who_start_on_both_sides_of_it():
    with pytest.raises(ValueError, match="must close no circle"):
        Torus((4, 1), has_dateline=True).verify(starts=(0, 1))


@pytest.mark.parametrize("packets", [2000, pytest.param(1_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(4, 1), (8, 1), (4, 4)])
def test_uniform_packets_at_load_1_all_arrive(shape, packets):
    nodes, rng = shape[0] * shape[1], np.random.default_rng(17)
    destinations = [rng.integers(0, nodes, packets // nodes) for _ in range(nodes)]
    expected = np.bincount(np.concatenate(destinations), minlength=nodes) * PACKET_FLITS
    assert np.array_equal(Torus(shape, has_dateline=True).run(destinations), expected)
