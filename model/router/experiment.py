"""An experiment runs a network of routers under synthetic traffic until all that was measured has arrived."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.kernel.block import Module, connect
from lightfabric.model.kernel.system import System
from lightfabric.model.router.injection import Client, Traffic, destinations
from lightfabric.model.router.router import Allocator, Router, Switching
from lightfabric.model.router.topology import End, Topology, port_table

CONFIDENT = 1.96
"""A 95 % interval has so many standard deviations to each side; batches are many enough for it."""
CERTAIN = 0.99
"""Packets that pile up by chance alone are taken for saturation in less than one of a hundred experiments."""


@dataclass(frozen=True)
class Result:
    """Holds what an experiment measured. Latencies are in cycles, from the creation of a packet to its last flit.

    ``latency_cycles`` is None, and ``drained`` False, if packets had not arrived in time. ``saturated`` says that the
    network accepts less than it is offered [Dally, Towles 2004, 23.1]: packets pile up at its entries, and their latency
    grows with the time measured. It is told from what piles up in each batch, by Student's t over the batches.
    ``link_load`` is in flits per cycle for each edge of the topology, both ways.
    """

    latency_cycles: float | None
    latency_interval_cycles: float | None
    accepted_load: float
    hops: float | None
    cycles: int
    flit_hops: int
    drained: bool
    saturated: bool
    histogram: NDArray[np.int64]
    link_load: NDArray[np.float64]

    def percentiles(self, wanted: Sequence[int]) -> dict[str, int] | None:
        """Find latencies that so many per cent of the packets do not exceed, of a histogram that ends at ``BINS``."""
        total: NDArray[np.int64] = np.cumsum(self.histogram)
        if not self.drained or total[-1] == 0:
            return None
        return {str(percent): int(np.count_nonzero(total < total[-1] * percent / 100)) for percent in wanted}


def _grows(piled_up: NDArray[np.float64]) -> bool:
    """Tell whether what piled up in each batch is on average above 0 for sure."""
    # What one batch leaves the next one carries off, so that the batches of a stable network differ more than their mean.
    count = len(piled_up)
    if count < 2:
        return False
    critical = float(import_module("scipy.special").stdtrit(count - 1, CERTAIN))
    return float(np.mean(piled_up)) > critical * float(np.std(piled_up, ddof=1)) / sqrt(count)


class Network:
    """Builds and runs the system of one experiment, of ``routers`` and ``clients``."""

    def __init__(
        self,
        topology: Topology,
        traffic: Traffic,
        channels: int,
        depth_flits: int,
        seed: int,
        allocator: Allocator = "islip",
        switching: Switching = "cut-through",
    ) -> None:
        if switching == "store-and-forward" and depth_flits < traffic.packet_flits:
            raise ValueError(f"buffer must be at least {traffic.packet_flits}, a packet, to store it, not {depth_flits}")
        self.topology, self.traffic = topology, traffic
        routers, nodes = len(topology.ends), topology.nodes
        # xorshift must not start at 0, and a signed word has 63 bits.
        seeds = np.random.SeedSequence(seed).generate_state(routers + nodes, np.uint64) >> np.uint64(1) | np.uint64(1)
        fixed = destinations(traffic.pattern, *topology.digits, nodes)
        self.routers = [
            Router(
                len(ends),
                channels,
                topology.route[n],
                **port_table(ends),
                allocator=allocator,
                switching=switching,
                seed=int(seeds[n]),
            )
            for n, ends in enumerate(topology.ends)
        ]
        self.clients = [
            Client(n, nodes, channels, traffic, None if fixed is None else int(fixed[n]), int(seeds[routers + n]))
            for n in range(nodes)
        ]
        top = Module()
        for name, blocks in (("router", self.routers), ("client", self.clients)):
            for n, block in enumerate(blocks):
                top.add(f"{name}[{n}]", block)
        for one, other in topology.edges:
            for a, b in ((one, other), (other, one)):
                for v in range(channels):
                    output = self.routers[a.router].o[a.port * channels + v]
                    connect(output, self.routers[b.router].i[b.port * channels + v], Router.output_fifo(depth_flits))
        for client, end in zip(self.clients, topology.node_ends, strict=True):
            router = self.routers[end.router]
            for v in range(channels):
                connect(client.o[v], router.i[end.port * channels + v], Client.output_fifo(depth_flits))
                connect(router.o[end.port * channels + v], client.i[v], Router.output_fifo(depth_flits))
        self.channels = channels
        self.system = System(top)

    def run(self, most_cycles: int) -> Result:
        """Warm up, measure, then go on until all packets that were measured have arrived, or for ``most_cycles`` in all.

        DeadlockError if nothing moves any more.
        """
        traffic = self.traffic
        while self.system.now < traffic.end_cycle or not (self._drained() or self.system.now >= most_cycles):
            # Clients go on sending, so idleness never ends a run: a batch without any step is what a deadlock looks like.
            steps, most = self.system.statistics.steps, max(most_cycles, traffic.end_cycle)
            self.system.run(min(self.system.now + traffic.batch_cycles, most))
            if self.system.statistics.steps == steps:
                self.system.require_no_deadlock()
        batches = np.array([client.batches for client in self.clients])
        packets, latency, hops = (batches[name].sum(axis=0).astype(float) for name in ("packets", "latency", "hops"))
        # A batch without packets has no mean, at loads so low that few packets are created.
        drained, some = self._drained(), packets[packets > 0]
        # Latencies of packets that follow each other are correlated, the means of long batches hardly [batch means].
        means = latency[packets > 0] / some
        interval = CONFIDENT * float(np.std(means, ddof=1)) / sqrt(len(means)) if len(means) > 1 else None
        measured_cycles = traffic.end_cycle - traffic.warm_up_cycles
        accepted = batches["accepted"].sum(axis=0).astype(float)
        usable = drained and len(some) > 0
        return Result(
            latency_cycles=latency.sum() / packets.sum() if usable else None,
            latency_interval_cycles=interval if usable else None,
            accepted_load=float(accepted.sum()) / measured_cycles / len(self.clients),
            hops=hops.sum() / packets.sum() if usable else None,
            cycles=self.system.now,
            flit_hops=self.flit_hops,
            drained=drained,
            saturated=not drained or _grows(packets * traffic.packet_flits - accepted),
            histogram=np.array([client.bins for client in self.clients], np.int64).sum(axis=0),
            link_load=self._link_load(),
        )

    @property
    def flit_hops(self) -> int:
        """Count the flits that have passed a router until now, at each anew."""
        return sum(int(router.state.flit_hops) for router in self.routers)

    def _drained(self) -> bool:
        waiting = any(int(client.state.created_cycle) < self.traffic.end_cycle for client in self.clients)
        arrived = sum(int(client.batches["packets"].sum()) for client in self.clients)
        return not waiting and arrived == sum(int(client.state.measured) for client in self.clients)

    def _link_load(self) -> NDArray[np.float64]:
        pushed = self.system.channels.fifo["tail"]
        carried = [
            [sum(int(pushed[self._output(end, v)]) for v in range(self.channels)) for end in edge]
            for edge in self.topology.edges
        ]
        return np.array(carried, float).reshape(-1, 2) / max(1, self.system.now)

    def _output(self, end: End, channel: int) -> int:
        """Find the index of the Fifo at an output."""
        return self.routers[end.router].o[end.port * self.channels + channel].bound[0].index
