"""MixNet joins an electrical cluster, in its regions also by circuits for what goes to experts [MixNet, 2025]."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair, Rotation
from lightfabric.model.cycle.cabling import ElectricalCabling
from lightfabric.model.fabric.component import Components
from lightfabric.model.fabric.electrical.electrical import hub
from lightfabric.model.fabric.electrical.electrical_cluster import ElectricalCluster
from lightfabric.model.fabric.optical.optical import Switched
from lightfabric.model.fluid.network import Network, join, pair_ends
from lightfabric.model.spec import MixnetSpec


class Mixnet(Switched):
    """Has the links of its circuits, then those of an electrical cluster, which all other pairs take.

    Nodes of the second configuration have the circuits of an exchange, those of the first none.
    """

    spec: MixnetSpec

    @property
    def cluster(self) -> ElectricalCluster:
        """Give the islands and network cards."""
        return ElectricalCluster(self.spec.cluster, self.chiplet, self.timing)

    def usable_gpus(self, alive: NDArray[np.bool_], group: int) -> NDArray[np.int64]:
        """Keep groups on their islands, as those of a cluster are."""
        return self.cluster.usable_gpus(alive, group)

    def lights(self, source: NDArray[Any], destination: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which pairs may have circuits: those on different islands of one region."""
        island, region = self.spec.island_gpus, self.spec.region_gpus
        return (source // region == destination // region) & (source // island != destination // island)

    def rotation(self, gpus: int, circuits: Circuits) -> Rotation | None:
        """Give none: circuits change for traffic."""
        return None

    def network(self, gpus: int, pairs: Iterable[Pair], circuits: Circuits | None = None) -> Network:
        """Route pairs with circuits over these, others over their island or their network cards."""
        circuits, (source, destination) = self._given(circuits), pair_ends(gpus, pairs)
        own = gpus // circuits.configurations
        ends = list(zip(source.tolist(), destination.tolist(), strict=True))
        lit = np.array([pair in circuits.stops for pair in ends], bool)
        light = super().network(gpus, [pair for pair in ends if pair in circuits.stops], circuits)
        first, electrical = len(light.bytes_per_s), self.cluster.routes(own, source % own, destination % own)
        routes = np.full((len(ends), max(2, int(np.diff(light.route_start).max(initial=0)))), -1, np.int64)
        routes[:, :2] = np.where(lit[:, None], -1, first + electrical)
        for row in np.flatnonzero(lit).tolist():
            way = light.route(*ends[row])
            routes[row, : len(way)] = way
        # Switches have numbers behind all nodes of the GPUs, of which each configuration has some.
        links = [
            each._replace(
                source=self._switches_behind(each.source, own, gpus),
                destination=self._switches_behind(each.destination, own, gpus),
            )
            for each in self.cluster.links(own)
        ]
        return join(gpus, [*light.links, *links], source, destination, routes)

    def _switches_behind(self, node: NDArray[np.int32], own: int, gpus: int) -> NDArray[np.int32]:
        return node + np.where(node < own, 0, gpus - own).astype(np.int32)

    def cabling(self, gpus: int, circuits: Circuits | None = None) -> ElectricalCabling:
        """Make the hubs of a cluster, for the nodes without circuits, and cable the circuits."""
        circuits, at, size = self._given(circuits), self.cluster, self.spec.island_gpus
        own = gpus // circuits.configurations
        islands = [range(first, min(first + size, own)) for first in range(0, own, size)]
        port = self.chiplet, self.measured
        hubs = [hub(island, at.port_bytes_per_s, at.hop_ps, at.hop_ps + at.switch_ps, *port) for island in islands]
        hubs.append(hub(range(own), at.nic_bytes_per_s, at.hop_ps + at.nic_ps, at.hop_ps, *port))
        return ElectricalCabling(tuple(hubs), self.cabled(gpus, circuits) if circuits.lanes else None)

    def components(self, gpus: int) -> Components:
        """Count those of the circuits and those of the cluster."""
        return super().components(gpus) + self.cluster.components(gpus)

    def rings(self, members: NDArray[np.int32], gpus: int) -> list[NDArray[np.int32]]:
        """Give the rings of a cluster, which keep all network cards busy."""
        return self.cluster.rings(members, gpus)
