"""Placement on MixNet: circuits for what goes to experts of a region, network cards for all else [MixNet, 2025]."""

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair, joined
from lightfabric.model.fabric.optical import mixnet as model
from lightfabric.model.task import TaskGraph
from lightfabric.placement.circuit.assign import assign_ocs, direct_pairs
from lightfabric.placement.cost.prediction import Prediction, Rates
from lightfabric.placement.fabric.electrical.electrical_cluster import ElectricalCluster, leaving, ranks_within
from lightfabric.placement.fabric.fabric import most_moved, rate_of
from lightfabric.placement.fabric.optical.optical import Optical, demand_of
from lightfabric.placement.graph.reconfiguration import in_configurations, with_turns_of_blocks
from lightfabric.placement.mapping.traffic import EXCHANGE, Traffic, busiest_bytes
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import Cases

if TYPE_CHECKING:
    from lightfabric.placement.circuit.lane_load import LaneLoad


class Mixnet(model.Mixnet, Optical):
    """The busiest port, network card or island port is the bottleneck."""

    @property
    def cluster(self) -> ElectricalCluster:
        """The islands and network cards."""
        return ElectricalCluster(self.spec.cluster, self.chiplet, self.timing)

    @property
    def bytes_per_s(self) -> float:
        """The rates of the island, of the network card and of all ports together."""
        return self.cluster.bytes_per_s + self._light_bytes_per_s

    @property
    def _light_bytes_per_s(self) -> float:
        return self.chiplet.ports * self.ports_bytes_per_s(np.array([2 * self.spec.fibre_m])).item()

    def bottleneck_seconds(self, flows: Traffic, gpus: int) -> float:
        """The slowest of what is on circuits, on network cards and on islands."""
        lit = self._may_be_lit(flows)
        light_s = busiest_bytes(flows[lit], 1) / self._light_bytes_per_s if lit.any() else 0.0
        return max(light_s, self.cluster.bottleneck_seconds(flows[~lit], gpus))

    def _may_be_lit(self, flows: Traffic) -> NDArray[np.bool_]:
        return self.lights(flows.source, flows.destination) & (flows.part == EXCHANGE)

    def lit(self, placed: Traffic) -> Traffic:
        """What goes to experts on other islands of the region."""
        return placed[self._may_be_lit(placed)]

    def estimated_rates(self, plans: Cases) -> Rates:
        """Rates of the cluster, but what goes to experts on other islands of the region is on all ports."""
        at = self.cluster

        def exchange(stride: NDArray[np.int64]) -> Any:
            out, far = (
                leaving(plans, ranks_within(plans, stride, size)) for size in (self.spec.island_gpus, self.spec.region_gpus)
            )
            light_s, island_s = (out - far) / self._light_bytes_per_s, (plans.copies - out) / at.port_bytes_per_s
            return np.maximum.reduce([light_s, island_s, far / at.nic_bytes_per_s])

        return at.nested_rates(plans, exchange)

    def assign(self, gpus: int, demand_bytes: dict[Pair, int], first: Collection[Pair] = ()) -> Circuits:
        """Direct circuits for the largest demands of each region; all others have none."""
        pairs = direct_pairs(self.chiplet.ports, gpus, demand_bytes, first)
        return assign_ocs(gpus, {pair: demand_bytes[pair] for pair in pairs}, self.chiplet.ports)

    def rate_options(self, plan: Plan, placed: Traffic) -> list[tuple[Rates, Circuits | None]]:
        """The rate of each part alone; that of an exchange is of the slower of its circuits and all else."""
        light = self.assign(plan.gpus, demand_of(self.lit(placed)))
        rates = self.cluster.rate_options(plan, placed)[0][0]
        flows = placed.at_once(EXCHANGE)
        pairs = zip(flows.source.tolist(), flows.destination.tolist(), strict=True)
        lit = np.array([pair in light.stops for pair in pairs], bool) & self._may_be_lit(flows)
        if not lit.any():
            return [(rates, light)]
        seconds = max(self.seconds(light, flows[lit], plan.gpus), self.cluster.bottleneck_seconds(flows[~lit], plan.gpus))
        circuits = joined([Circuits({}, {}), light], (0, 0, 0, 1), plan.gpus)
        return [(replace(rates, expert=rate_of(most_moved(flows, EXCHANGE), seconds)), circuits)]

    def reconfigured(self, graph: TaskGraph, circuits: Circuits | None) -> TaskGraph:
        """Turn ports for each layer of experts, some of them during the computation before it."""
        if circuits is None or circuits.configurations == 1:
            return graph
        moved, dark_ps = in_configurations(graph, circuits), self.dark_ps(graph.devices, circuits)
        return with_turns_of_blocks(moved, circuits, dark_ps, self.spec.hidden_share)

    def reconfiguration_seconds(
        self, found: Prediction, placed: Traffic, circuits: Circuits | None, micro_batches: float
    ) -> float:
        """What is not hidden, and what computation is too short to hide."""
        if circuits is None or circuits.configurations == 1:
            return 0.0
        assert found.plan is not None, "it is of one plan"
        dark = (found.exchanges - found.gathers) / 2 * self.dark_ps(found.plan.gpus, circuits) / 1e12
        hidden = self.spec.hidden_share * dark
        return dark - hidden + max(hidden - found.compute, 0.0)

    def lane_load(self, gpus: int, circuits: Circuits, placed: Traffic) -> "LaneLoad":
        """What the ports of the circuits carry."""
        if circuits.configurations == 1:
            return self.own_load(gpus, circuits, placed[:0])
        light, flows = circuits.only(1, gpus), self.lit(placed)
        pairs = zip(flows.source.tolist(), flows.destination.tolist(), strict=True)
        return self.own_load(gpus, light, flows[np.array([pair in light.stops for pair in pairs], bool)])

    def own_load(self, gpus: int, circuits: Circuits, placed: Traffic) -> "LaneLoad":
        """What the ports of the circuits carry."""
        from lightfabric.placement.circuit.lane_load import ocs_load_of

        return ocs_load_of(circuits, placed, gpus, self.chiplet.ports)
