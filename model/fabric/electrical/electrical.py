"""What electrical fabrics share: rates and latencies of their spec, whatever the chiplets of a study are.

The cycle model builds their links from ``PORT``, a port of its own, with ``TIMING``: it sends flits of 256 bytes, 244 of
them payload, as two beats of a clock of 1 GHz, and every stage of it takes one cycle. A link has as many such ports as its
rate needs, each at a part of the line rate; what it takes longer than they do is waited for in front of them.
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import fields, replace
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.cycle.cabling import ElectricalCabling, Hub
from lightfabric.model.cycle.switched import SwitchedCabling
from lightfabric.model.fabric.component import Component, ComponentName, Components
from lightfabric.model.fabric.fabric import Fabric
from lightfabric.model.fluid.network import Links, Network, join, pair_ends, ragged
from lightfabric.model.spec import CABLE_PS_PER_M, ChipletSpec
from lightfabric.model.spec.chiplet import SLOWEST_CYCLES_PER_BLOCK
from lightfabric.model.timing import ClientTiming, LinkTiming, SwitchTiming, Timing

PORT = ChipletSpec(
    ports=1,
    wavelengths_per_port=16,
    wavelength_gbps=66.0,
    core_clock_mhz=1000.0,
    flit_bytes=256,
    reach_m=1.0,
    replay_flits=127,
)

MAX_CYCLE_GPUS = 1024
"""Every pair of them has its row of links."""

RELAY_PORT = replace(PORT, virtual_channels=8)
"""A port of fabrics whose links could wait for each other in a circle, which takes virtual channels to avoid."""


def _one_cycle_each(kind: Any) -> Any:
    return kind(**{field.name: 1 for field in fields(kind)})


TIMING = Timing(_one_cycle_each(LinkTiming), _one_cycle_each(SwitchTiming), _one_cycle_each(ClientTiming), "", "", "none")

ISLAND = "NVLink"
"""How the names of those links begin that join GPUs to the switch of their island, without cards and transceivers."""


class Electrical(Fabric):
    """Has links whose payload and latency are those that the spec says; bits are never wrong."""

    @property
    def cycle_chiplet(self) -> ChipletSpec:
        """Give the port that the cycle model builds links from."""
        return PORT

    @property
    def cycle_timing(self) -> Timing:
        """Give the timing of that port."""
        return TIMING

    @property
    def slot_loss_rate(self) -> float:
        """Give none: the error rate of electrical links is what is left after their forward error correction."""
        return 0.0

    @cached_property
    def goodput_share(self) -> float:
        """Give all, since no bit is wrong."""
        return 1.0

    @property
    @abstractmethod
    def port_gbps(self) -> float:
        """Give the raw rate of the fastest link of a GPU."""

    @abstractmethod
    def links(self, gpus: int) -> list[Links]:
        """List all links; ValueError for more GPUs than there is room for."""

    @abstractmethod
    def routes(self, gpus: int, source: NDArray[np.int64], destination: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number the links on the way of each pair in a row, in order; -1 stands for none. Nobody sends to itself."""

    def network(self, gpus: int, pairs: Iterable[Pair], circuits: Circuits | None = None) -> Network:
        """Join the links and the routes of the pairs."""
        source, destination = pair_ends(gpus, pairs)
        return join(gpus, self.links(gpus), source, destination, self.routes(gpus, source, destination))

    def components(self, gpus: int) -> Components:
        """Count the parts of the links, see ``components_of``."""
        return self.components_of(self.links(gpus), gpus)

    def components_of(self, links: list[Links], gpus: int) -> Components:
        """Count what sends into each link: a port of a switch, or a card; and one end of an optical cable, half of a cable.

        Within an island there is a port of its switch for each link down, since the other end is a part of the GPU.
        """
        found = Components()
        for part in links:
            island = part.name.startswith(ISLAND)
            share = self.efficiency if island else self.network_share
            sent = np.broadcast_to(np.float64(part.bytes_per_s), len(part.source)) * (8e-9 / share / part.cables)
            switch = part.source >= gpus
            ends: list[tuple[ComponentName, Any]] = [("island_port", switch)]
            if not island:
                ends = [("nic", ~switch), ("switch_port", switch), ("transceiver", slice(None))]
            for name, chosen in ends:
                for gbps, count in zip(*np.unique(sent[chosen].round(6), return_counts=True), strict=True):
                    found[Component(name, float(gbps))] += ceil(count * part.cables - 1e-9)
        found[Component("fibre")] += sum(count for part, count in found.items() if part.name == "transceiver")
        return +found

    @property
    def network_share(self) -> float:
        """Give the share of the raw rate of links outside of islands that is payload."""
        return self.efficiency

    def cabling(self, gpus: int, circuits: Circuits | None = None) -> ElectricalCabling | SwitchedCabling:
        """Cable the links that pairs of GPUs take; ValueError for what is too slow or too large for flits."""
        if gpus > MAX_CYCLE_GPUS:
            raise ValueError(f"gpus must be at most {MAX_CYCLE_GPUS} at cycle fidelity, not {gpus}")
        return switched(self.network(gpus, np.argwhere(~np.eye(gpus, dtype=bool))), self.cycle_chiplet)

    def busiest_seconds(
        self, gpus: int, source: NDArray[np.int64], destination: NDArray[np.int64], size_bytes: NDArray[Any]
    ) -> float:
        """Find how long the link with the most to do takes for bytes from GPU to GPU."""
        routes = self.routes(gpus, source, destination)
        parts = [np.broadcast_to(np.float64(part.bytes_per_s), len(part.source)) for part in self.links(gpus)]
        bytes_per_s, used = np.concatenate(parts), routes >= 0
        sent = np.bincount(routes[used], np.repeat(size_bytes, used.sum(axis=1)), len(bytes_per_s))
        return float((sent / bytes_per_s).max())

    @cached_property
    def efficiency(self) -> float:
        """Give the share of the raw rate of the fastest link of a GPU that is payload."""
        return self.spec.payload_share

    @property
    def port_bytes_per_s(self) -> float:
        """Give the payload rate of the fastest link of a GPU."""
        return self.port_gbps * 1e9 / 8 * self.efficiency

    @property
    def nic_ps(self) -> int:
        """Give what network cards add to a route, once."""
        return round(self.spec.nic_latency_us * 1e6)

    @property
    def hop_ps(self) -> int:
        """Give the latency of a link with its cable."""
        return round(self.spec.link_latency_ns * 1e3 + self.spec.cable_m * CABLE_PS_PER_M)

    @property
    def switch_ps(self) -> int:
        """Give the latency of a switch from port to port."""
        return round(self.spec.switch_latency_ns * 1e3)

    @property
    def link_latency_ns(self) -> float:
        """Give the latency of a link without its cable."""
        return self.spec.link_latency_ns


def hub(
    gpus: ArrayLike, bytes_per_s: float, up_ps: float, down_ps: float, port: ChipletSpec = PORT, timing: Timing = TIMING
) -> Hub:
    """Make a hub with this payload rate from and to each GPU, these latencies up to its switches and, with them, down.

    Latencies below those of its ports, of ``PORT`` some nanoseconds and a flit, stay those. ValueError if a port cannot send
    as slowly.
    """
    planes, share, slot_ps = _ports(bytes_per_s, port)
    up_cycles, down_cycles = _port_cycles(timing)
    up_more_ps = up_ps - up_cycles * port.cycle_ps - slot_ps / 2
    down_more_ps = down_ps - down_cycles * port.cycle_ps - slot_ps * 3 / 2
    return Hub(np.array(gpus, np.int32), 0.0, planes, share, max(0.0, up_more_ps), max(0.0, down_more_ps))


def switched(network: Network, port: ChipletSpec = PORT) -> SwitchedCabling:
    """Cable the links that routes of a network take, for the pairs that it has; with latencies and errors as ``hub``."""
    gpus, (used, routes) = network.devices, np.unique(network.route_links, return_inverse=True)
    made = [_ports(rate, port) for rate in network.bytes_per_s[used].tolist()]
    ports, share, slot_ps = np.array(made).reshape(-1, 3).T
    row, hop = ragged(np.diff(network.route_start))
    padded = np.full((gpus * gpus, 1 + hop.max(initial=0)), -1, np.int64)
    padded[network.pair_key[row], hop] = routes
    source, destination = (end[used].astype(np.int64) for end in (network.link_source, network.link_destination))
    of_gpu, (up_cycles, down_cycles) = source < gpus, _port_cycles(TIMING)
    stages_ps = np.where(of_gpu, up_cycles, down_cycles) * port.cycle_ps + slot_ps * np.where(of_gpu, 1 / 2, 3 / 2)
    wait_ps = np.maximum(0.0, network.latency_ps[used] - stages_ps)
    return SwitchedCabling(gpus, source, destination, ports.astype(np.int64), share, wait_ps, padded, port.virtual_channels)


def _ports(bytes_per_s: float, port: ChipletSpec) -> tuple[int, float, float]:
    """Count the ports that a payload rate takes, the share of their line rate, and how long a flit takes at each."""
    port_bytes_per_s = port.payload_bytes * port.core_clock_mhz * 1e6 / float(port.slot_cycles)
    least = port_bytes_per_s / port.wavelengths_per_port / SLOWEST_CYCLES_PER_BLOCK
    if bytes_per_s < least:
        gbps = (f"{rate * 8e-9:.3g} Gb/s" for rate in (least, bytes_per_s))
        raise ValueError("a link must carry {} of payload at cycle fidelity, not {}".format(*gbps))
    ports = ceil(bytes_per_s / port_bytes_per_s)
    return ports, bytes_per_s / ports / port_bytes_per_s, port.payload_bytes * ports / bytes_per_s * 1e12


def _port_cycles(timing: Timing) -> tuple[int, int]:
    """Add up the cycles of a port from a GPU to a switch, and from a switch."""
    # A flit waits half a slot at each link; one slot of those that it takes is counted with the bytes of the message.
    link = timing.link
    stages = link.accept_cycles + link.stage_cycles + link.line_cycles + link.deliver_cycles
    register_cycles = timing.switch.latency_cycles - timing.switch.credit_cycles
    up_cycles = timing.client.ingress_cycles + stages + timing.switch.credit_cycles
    return up_cycles, register_cycles + stages + timing.client.egress_cycles
