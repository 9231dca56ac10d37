"""Photonic rails join islands of GPUs behind electrical switches by circuits between GPUs of one place [Opus, 2025]."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.cycle.cabling import ElectricalCabling
from lightfabric.model.fabric.component import Components
from lightfabric.model.fabric.electrical.electrical import ISLAND, hub
from lightfabric.model.fabric.electrical.electrical_cluster import ElectricalCluster
from lightfabric.model.fabric.optical.optical import Switched, stops_of
from lightfabric.model.fluid.network import Links, Network, join, pair_ends
from lightfabric.model.spec import PhotonicRailsSpec, SpecError


class PhotonicRails(Switched):
    """Has the links of its circuits, then one of each GPU to the switch of its island, then one back.

    ``Circuits.stops`` are of pairs on different islands; if these are on different rails the second stop is the GPU on the
    source's island and the destination's rail. The nodes of a GPU in all configurations share its links to the island.
    """

    spec: PhotonicRailsSpec

    @property
    def islands(self) -> ElectricalCluster:
        """Give the islands, as they would be with network cards as fast as rails."""
        return ElectricalCluster(self.spec.islands(self.chiplet.gbps, self.efficiency), self.chiplet, self.timing)

    def inside(self, source: NDArray[Any], destination: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which pairs are on one island; both ends are nodes of one configuration."""
        return source // self.spec.island_gpus == destination // self.spec.island_gpus

    def gate(self, source: NDArray[Any], destination: NDArray[Any]) -> NDArray[Any]:
        """Find the GPU of the source's island that is on the destination's rail."""
        return source + destination % self.spec.island_gpus - source % self.spec.island_gpus

    def require_whole(self, gpus: int) -> None:
        """Raise SpecError unless GPUs fill their islands, for else a rail may have no GPU on one."""
        size = self.spec.island_gpus
        if gpus > size and gpus % size:
            raise SpecError(type(self.spec).__name__, "island_gpus", f"a divisor of the {gpus} GPUs", str(size))

    def network(self, gpus: int, pairs: Iterable[Pair], circuits: Circuits | None = None) -> Network:
        """Route pairs of one island over its switch, others over a rail, to which some go over the island."""
        spec, circuits, (source, destination) = self.spec, self._given(circuits), pair_ends(gpus, pairs)
        own, inside = gpus // circuits.configurations, self.inside(source, destination)
        self.require_whole(own)
        gate = np.where(inside, destination, self.gate(source, destination))
        ends = zip(source.tolist(), gate.tolist(), destination.tolist(), strict=True)
        legs = {(b, c): stops_of(circuits, (a, c))[int(a != b) :] for a, b, c in ends if b != c}
        rail = super().network(gpus, legs, replace(circuits, stops=legs))
        gpu, first = np.arange(own, dtype=np.int32), len(rail.bytes_per_s)
        rate, hop_ps, switch_ps = self.islands.port_bytes_per_s, self.islands.hop_ps, self.islands.switch_ps
        links = [
            *rail.links,
            Links(gpu, gpus + gpu // spec.island_gpus, rate, hop_ps, f"{ISLAND} up"),
            Links(gpus + gpu // spec.island_gpus, gpu, rate, hop_ps + switch_ps, f"{ISLAND} down"),
        ]
        over = source != gate
        routes = np.full((len(source), 2 + int(np.diff(rail.route_start).max(initial=0))), -1, np.int64)
        routes[over, 0], routes[over, 1] = first + source[over] % own, first + own + gate[over] % own
        for row in np.flatnonzero(~inside).tolist():
            way = rail.route(int(gate[row]), int(destination[row]))
            routes[row, 2 : 2 + len(way)] = way
        made = join(gpus, links, source, destination, routes)
        configuration = np.full(len(made.bytes_per_s), -1)
        configuration[:first] = rail.configuration
        return replace(made, rotation=rail.rotation, configuration=configuration)

    def components(self, gpus: int) -> Components:
        """Count those of the rails, and the ports of the switches of islands."""
        return super().components(gpus) + self.islands.components_of(self.islands.links(gpus)[:2], gpus)

    def rings(self, members: NDArray[np.int32], gpus: int) -> list[NDArray[np.int32]]:
        """Give as many rings as members share each of several islands, at the same places: each rail then has as much.

        A ring goes through an island one way and through the next the other way, so that it leaves on the rail by which the
        next ring comes; of an odd number of islands the way back to the first is over its switch.
        """
        size = self.spec.island_gpus
        _, own = np.unique(members // size, return_counts=True)
        if len(own) == 1 or own[0] == 1 or np.any(own != own[0]):
            return [members]
        of_island = np.sort(members).reshape(len(own), own[0])
        if np.any(of_island % size != of_island[0] % size):
            return [members]
        turned = [np.roll(of_island, -turn, axis=1) for turn in range(own[0])]
        for ring in turned:
            ring[1::2] = ring[1::2, ::-1].copy()
        return [ring.ravel() for ring in turned]

    def usable_gpus(self, alive: NDArray[np.bool_], group: int) -> NDArray[np.int64]:
        """Keep groups on their islands, as those of a cluster are."""
        return self.islands.usable_gpus(alive, group)

    def cabling(self, gpus: int, circuits: Circuits | None = None) -> ElectricalCabling:
        """Make a hub for each island, and cable the circuits; ValueError for a pair that no rail has both ends of."""
        spec, circuits = self.spec, self._given(circuits)
        own = gpus // circuits.configurations
        self.require_whole(own)
        for source, destination in circuits.stops:
            if source % spec.island_gpus != destination % spec.island_gpus:
                both = f"GPU {source % own} and GPU {destination % own}"
                raise ValueError(f"flits go between islands on one rail only, which {both} do not share")
        at, down_ps = self.islands, self.islands.hop_ps + self.islands.switch_ps
        each = hub(range(1), at.port_bytes_per_s, at.hop_ps, down_ps, self.chiplet, self.measured)
        islands = np.arange(gpus, dtype=np.int32).reshape(-1, own)
        firsts = range(0, own, spec.island_gpus)
        hubs = (replace(each, gpus=islands[:, first : first + spec.island_gpus].ravel()) for first in firsts)
        return ElectricalCabling(tuple(hubs), self.cabled(gpus, circuits) if circuits.lanes else None)
