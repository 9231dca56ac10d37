"""Placement on photonic rails: what stays on an island is fast, what leaves it needs circuits of its rail [Opus, 2025]."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.fabric.optical import photonic_rails as model
from lightfabric.placement.circuit.assign import assign_ocs
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.electrical.electrical_cluster import ElectricalCluster, others
from lightfabric.placement.fabric.optical.optical import Optical
from lightfabric.placement.mapping.traffic import Traffic, busiest_bytes, in_rings
from lightfabric.placement.workload.case import Cases

if TYPE_CHECKING:
    from lightfabric.placement.circuit.lane_load import LaneLoad


class PhotonicRails(model.PhotonicRails, Optical):
    """The busiest port of a rail or of an island is the bottleneck."""

    @property
    def bytes_per_s(self) -> float:
        """The rates of the island and of all ports of the rail together."""
        return self.islands.port_bytes_per_s + self._rail_bytes_per_s

    @property
    def _rail_bytes_per_s(self) -> float:
        return self.chiplet.ports * self.ports_bytes_per_s(np.array([2 * self.spec.fibre_m])).item()

    def bottleneck_seconds(self, flows: Traffic, gpus: int) -> float:
        """The slower of the busiest GPU's rail and the busiest island port."""
        rail, island = self._legs(in_rings(flows, self.rings, gpus))
        island_s = busiest_bytes(island, 1) / self.islands.port_bytes_per_s
        return max(busiest_bytes(rail, 1) / self._rail_bytes_per_s, island_s)

    def _legs(self, flows: Traffic) -> tuple[Traffic, Traffic]:
        """What goes over rails, from the GPU that is on the right one, and what goes over islands, some of it to there."""
        leaves = ~self.inside(flows.source, flows.destination)
        gate = np.where(leaves, self.gate(flows.source, flows.destination), flows.destination)
        rail, island = (
            Traffic(*ends, flows.size_bytes, flows.part) for ends in ((gate, flows.destination), (flows.source, gate))
        )
        return rail[leaves], island[flows.source != gate]

    def estimated_rates(self, plans: Cases) -> Rates:
        """Rates as on islands with network cards of the ports together, each part at its turn."""
        return _Cluster(self.islands.spec, self.chiplet, self.timing).estimated_rates(plans)

    def assign(self, gpus: int, demand_bytes: dict[Pair, int], first: Collection[Pair] = ()) -> Circuits:
        """Circuits of each rail for what passes it, relays on the same rail for what has none."""
        self.require_whole(gpus)
        ends = np.array(list(demand_bytes), np.int64).reshape(-1, 2)
        leaves = ~self.inside(ends[:, 0], ends[:, 1])
        gate, legs = self.gate(ends[:, 0], ends[:, 1]), dict[Pair, int]()
        pairs = [(a, b, c) for (a, c), b in zip(ends[leaves].tolist(), gate[leaves].tolist(), strict=True)]
        for source, begin, destination in pairs:
            legs[begin, destination] = legs.get((begin, destination), 0) + demand_bytes[source, destination]
        rail = assign_ocs(gpus, legs, self.chiplet.ports, {(b, c) for a, b, c in pairs if (a, c) in first})
        return Circuits(rail.lanes, {**rail.stops, **{(a, c): (a, *rail.stops[b, c]) for a, b, c in pairs if a != b}})

    def lit(self, placed: Traffic) -> Traffic:
        """The traffic that leaves its island."""
        return placed[~self.inside(placed.source, placed.destination)]

    def seconds(self, circuits: Circuits, flows: Traffic, gpus: int) -> float:
        """Time of the slowest circuit or of the busiest island port."""
        rail, island = self._legs(flows)
        return max(super().seconds(circuits, rail, gpus), busiest_bytes(island, 1) / self.islands.port_bytes_per_s)

    def own_load(self, gpus: int, circuits: Circuits, placed: Traffic) -> "LaneLoad":
        """What the ports of the circuits carry."""
        from lightfabric.placement.circuit.lane_load import ocs_load_of

        return ocs_load_of(circuits, self._legs(placed)[0], gpus, self.chiplet.ports)


class _Cluster(ElectricalCluster):
    """An electrical cluster whose network cards join GPUs of one place on their islands only."""

    def forwarded(self, plans: Cases, own: Any) -> Any:
        """Copies to ranks at other places: of those of other groups where groups share an island, of one's own on others."""
        group, beside = plans.expert_group, plans.copies - plans.crossing
        crossing = plans.crossing * others(plans.ep / group, own / group)
        return crossing * (1 - group / own).clip(0) + beside * others(group, own) * (1 - 1 / own)

    def relayed(
        self, gpus: int, source: NDArray[np.int64], destination: NDArray[np.int64], circuits: Circuits | None
    ) -> list[NDArray[np.int64]]:
        """None, since what GPUs hand on goes over their islands."""
        return []
