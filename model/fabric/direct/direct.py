"""What direct fabrics share: links between vertices, most of them GPUs, and the ways over them that relays lead."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.cycle.cabling import Cabling, circuits_cabled
from lightfabric.model.cycle.switched import SwitchedCabling
from lightfabric.model.fabric.component import Component, Components, light
from lightfabric.model.fabric.electrical.electrical import RELAY_PORT, TIMING, switched
from lightfabric.model.fabric.fabric import Fabric, port_bytes_per_s, usable_in_parts
from lightfabric.model.fluid.network import Links, Network, join, pair_ends
from lightfabric.model.spec import FIBRE_PS_PER_M, ChipletSpec, SpecError
from lightfabric.model.timing import Timing

_Ints = NDArray[np.int64]
_Each = float | NDArray[np.float64]


class Wires(NamedTuple):
    """Lists directed links, by rising source and then destination, one from a vertex to another at most.

    ``ports`` are those of the chiplet that each has, over ``flight_ps`` of cable or fibre. Where they are 0 a link is no
    chiplet's: it carries ``bytes_per_s`` of payload, and ``flight_ps`` is its whole latency.
    """

    vertices: int
    source: _Ints
    destination: _Ints
    ports: _Ints
    bytes_per_s: NDArray[np.float64]
    flight_ps: NDArray[np.float64]

    @classmethod
    def of(cls, vertices: int, ends: _Ints, ports: int, bytes_per_s: _Each, flight_ps: _Each) -> "Wires":
        """Join parallel links to one, of the ports and the rate of all and the flight of the longest."""
        key, place = np.unique(ends[:, 0] * vertices + ends[:, 1], return_inverse=True)
        longest_ps = np.zeros(len(key))
        np.maximum.at(longest_ps, place, flight_ps)
        rate = np.zeros(len(key))
        np.add.at(rate, place, bytes_per_s)
        return cls(vertices, key // vertices, key % vertices, ports * np.bincount(place), rate, longest_ps)

    def links(self, stops: _Ints) -> _Ints:
        """Find the links from each stop to the next, ``[pair, hop]``, -1 after the last stop."""
        before, after = stops[:, :-1], stops[:, 1:]
        found = np.searchsorted(self.source * self.vertices + self.destination, before * self.vertices + after)
        return np.where(after >= 0, found, -1)


class Direct(Fabric):
    """Has the links of ``joined``, then a link of each vertex to itself, the chiplet's switch when it relays."""

    @abstractmethod
    def joined(self, gpus: int) -> Wires:
        """Say which links there are; ValueError if the fabric cannot be made for so many GPUs."""

    def wires(self, gpus: int) -> Wires:
        """Give the links of ``joined``, worked out once."""
        if gpus not in self._wires:
            self._wires[gpus] = self.joined(gpus)
        return self._wires[gpus]

    @cached_property
    def _wires(self) -> dict[int, Wires]:
        return {}

    @property
    def own_link(self) -> tuple[float, float] | None:
        """Give the Gb/s of the slowest link of a GPU and the ns of the longest, relay included; None of a chiplet's."""
        return None

    @property
    def port_gbps(self) -> float:
        """Give the raw rate of a port, or the payload of a link that has a rate of its own."""
        return self.own_link[0] if self.own_link else super().port_gbps

    @cached_property
    def efficiency(self) -> float:
        """Give the measured share of payload; a link that has a rate of its own carries it whole."""
        return 1.0 if self.own_link else super().efficiency

    @property
    def slot_loss_rate(self) -> float:
        """Give the share of slots that bit errors of a chiplet's line spoil."""
        return 0.0 if self.own_link else super().slot_loss_rate

    @cached_property
    def goodput_share(self) -> float:
        """Give what bit errors leave of the payload of a chiplet's port."""
        return 1.0 if self.own_link else super().goodput_share

    @property
    def link_latency_ns(self) -> float:
        """Give the latency between the ends of a link without the fibre, or all of it where it is the link's own."""
        return self.own_link[1] if self.own_link else super().link_latency_ns

    @property
    def switch_ps(self) -> int:
        """Give the latency of the switch of a chiplet, which a latency of a link's own includes."""
        return 0 if self.own_link else super().switch_ps

    def link_bytes_per_s(self, gpus: int) -> NDArray[np.float64]:
        """Give the payload rates of the links, worked out once; over their lengths if the RTL is measured."""
        if gpus not in self._link_bytes_per_s:
            wires = self.wires(gpus)
            rate = wires.bytes_per_s
            if wires.ports.all() and self.timing is not None:
                # The rate over a length is a simulation: fabrics have thousands of links, but few lengths.
                flights_ps, flight = np.unique(wires.flight_ps, return_inverse=True)
                ports = [port_bytes_per_s(self.chiplet, self.timing, each) for each in flights_ps.tolist()]
                rate = wires.ports * np.array(ports, np.float64)[flight]
            self._link_bytes_per_s[gpus] = rate
        return self._link_bytes_per_s[gpus]

    @cached_property
    def _link_bytes_per_s(self) -> dict[int, NDArray[np.float64]]:
        return {}

    @abstractmethod
    def stops(self, gpus: int, source: _Ints, destination: _Ints) -> _Ints:
        """List the vertices on the way of each pair, both ends included, ``[pair, hop]``, filled up with -1."""

    def network(self, gpus: int, pairs: Iterable[Pair], circuits: Circuits | None = None) -> Network:
        """Route pairs along ``stops``: a link, then the switch of the relay and the next link."""
        source, destination = pair_ends(gpus, pairs)
        wires = self.wires(gpus)
        routes = wires.links(self.stops(gpus, source, destination))
        ends = wires.source.astype(np.int32), wires.destination.astype(np.int32)
        if not wires.ports.all():
            links = [Links(*ends, wires.bytes_per_s, np.rint(wires.flight_ps).astype(np.int64))]
            return join(gpus, links, source, destination, routes)
        hop_ps = np.rint(self.measured.link.latency_cycles * self.chiplet.cycle_ps + wires.flight_ps).astype(np.int64)
        relay = np.arange(wires.vertices, dtype=np.int32)
        links = [
            Links(*ends, self.link_bytes_per_s(gpus), hop_ps),
            Links(relay, relay, self.relay_bytes_per_s, self.switch_ps),
        ]
        return join(gpus, links, source, destination, _relayed(routes, wires))

    def components(self, gpus: int) -> Components:
        """Count the chiplets' light and a strand for each port of a link; of links that are no chiplet's the transceivers.

        A GPU has the port behind a transceiver itself, a switch is built of ports.
        """
        wires = self.wires(gpus)
        if wires.ports.all():
            return light(self.chiplet, gpus * self.chiplet.ports) + Components({Component("fibre"): int(wires.ports.sum())})
        rates = (wires.bytes_per_s * 8e-9).round(6)
        found = Components({Component("fibre"): len(rates)})
        found.update(Component("transceiver", gbps) for gbps in rates.tolist())
        found.update(Component("switch_port", gbps) for gbps in rates[wires.source >= gpus].tolist())
        return found

    @property
    def cycle_chiplet(self) -> ChipletSpec:
        """Give the chiplet, or a port of electrical fabrics for links that have a rate of their own."""
        return RELAY_PORT if self.own_link else self.chiplet

    @property
    def cycle_timing(self) -> Timing:
        """Give the timing of that."""
        return TIMING if self.own_link else self.measured

    def cabling(self, gpus: int, circuits: Circuits | None = None) -> Cabling | SwitchedCabling:
        """Cable the ports of each link; all pairs have their ways, on virtual channels that leave no circle.

        Links that have a rate of their own are cabled as those of electrical fabrics. O(gpus^2 x hops), so that it is for
        hundreds of GPUs.
        """
        wires = self.wires(gpus)
        if self.own_link:
            return switched(self.network(gpus, np.argwhere(~np.eye(gpus, dtype=bool))), self.cycle_chiplet)
        if wires.vertices != gpus:
            raise ValueError(f"gpus must be all {wires.vertices} of the fabric, not {gpus}")
        source, destination = np.nonzero(~np.eye(gpus, dtype=bool))
        stops = self.stops(gpus, source, destination).tolist()
        paths = [tuple(stop for stop in path if stop >= 0) for path in stops]
        ends = list(zip(wires.source.tolist(), wires.destination.tolist(), strict=True))
        length_m = dict(zip(ends, (wires.flight_ps / FIBRE_PS_PER_M).tolist(), strict=True))
        joined = Circuits(dict(zip(ends, wires.ports.tolist(), strict=True)), {(path[0], path[-1]): path for path in paths})
        cabling = circuits_cabled(joined, gpus, 1, length_m, self.chiplet.virtual_channels)
        layers = 1 + max(cabling.relays.values(), default=0)
        copies = self.chiplet.virtual_channels // layers
        # A layer may be there several times: fewer flits then wait behind others that go elsewhere.
        spread = {path: layer + place % copies * layers for place, (path, layer) in enumerate(cabling.relays.items())}
        return replace(cabling, relays=spread)

    def rings(self, members: NDArray[np.int32], gpus: int) -> list[NDArray[np.int32]]:
        """Give a ring each way round, since a link one way leaves that the other way free."""
        return [members, members[::-1]] if len(members) > 2 else [members]

    def usable_gpus(self, alive: NDArray[np.bool_], group: int) -> NDArray[np.int64]:
        """Give groups fixed blocks of GPUs, as links lead to neighbours only."""
        return usable_in_parts(alive, group, group)

    def ports_per_link(self, links: int) -> int:
        """Divide the ports of a chiplet among the links that leave it; SpecError if it has too few."""
        if self.chiplet.ports < links:
            must_be = f"at least {links}, one for each link of a GPU on {self.name!r}"
            raise SpecError("ChipletSpec", "ports", must_be, str(self.chiplet.ports))
        return self.chiplet.ports // links


@lru_cache(maxsize=8)
def balanced_ways(fabric: Direct, gpus: int) -> _Ints:
    """Choose the ways of all pairs together, so that links are loaded evenly, ``[source * gpus + destination, hop]``."""
    # Imported here because numba takes a second, which an error message need not wait for.
    from lightfabric.model.fabric.direct.balanced import balanced

    wires = fabric.wires(gpus)
    return balanced(gpus, wires.vertices, wires.source, wires.destination, wires.bytes_per_s)


def _relayed(routes: _Ints, wires: Wires) -> _Ints:
    """Put the switch of each relay between the links of a route."""
    both = np.full((len(routes), max(2 * routes.shape[1] - 1, 0)), -1, np.int64)
    onwards = routes[:, 1:]
    both[:, ::2], both[:, 1::2] = routes, np.where(onwards >= 0, len(wires.source) + wires.source[onwards], -1)
    return both
