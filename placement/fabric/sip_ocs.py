"""Placement behind optical circuit switches: a circuit per port, relays for other pairs (SiP-ML, SIGCOMM 2021)."""

from math import inf
from typing import TYPE_CHECKING

import numpy as np

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.fabric import sip_ocs as model
from lightfabric.placement.circuit.assign import assign_ocs
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.optical import Optical
from lightfabric.placement.mapping.traffic import Traffic
from lightfabric.placement.workload.case import Cases
from lightfabric.placement.workload.volume import sent_bytes

if TYPE_CHECKING:
    from lightfabric.placement.circuit.lane_load import LaneLoad


class SipOcs(model.SipOcs, Optical):
    """The busiest GPU is the bottleneck, whatever the order of ranks."""

    @property
    def bytes_per_s(self) -> float:
        """All ports of a GPU send together."""
        return self.chiplet.gbps * 1e9 / 8 * self.efficiency

    @property
    def lane_gbps(self) -> float:
        """A lane is a port."""
        return self.chiplet.gbps_per_port

    def bottleneck_seconds(self, flows: Traffic, gpus: int) -> float:
        """The busiest GPU's bytes at its rate."""
        return self.bound_seconds(flows, gpus)

    def estimated_rates(self, plans: Cases) -> Rates:
        """One tensor, two pipeline and one data circuit share the ports of a rank.

        The sum of the parts' times is least where they share in proportion to the square root of their bytes.
        """
        tensor, pipeline, data = (np.sqrt(size) for size in sent_bytes(plans))
        # A plan on one GPU sends nothing, and would divide by 0.
        weight = np.maximum(tensor + 2 * pipeline + data, 1)
        return Rates(*(np.where(part > 0, self.bytes_per_s * part / weight, inf) for part in (tensor, pipeline, data)))

    def assign(self, gpus: int, demand_bytes: dict[Pair, int]) -> Circuits:
        """Direct circuits for the largest demands, relays for the others."""
        return assign_ocs(gpus, demand_bytes, self.chiplet.ports)

    def lane_load(self, gpus: int, circuits: Circuits, placed: Traffic) -> "LaneLoad":
        """What the ports of the circuits carry."""
        from lightfabric.placement.circuit.lane_load import ocs_load_of

        return ocs_load_of(circuits, placed, gpus, self.chiplet.ports)
