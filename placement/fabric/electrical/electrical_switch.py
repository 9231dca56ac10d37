"""Placement on an ideal electrical switch, where all GPUs are equally near."""

from lightfabric.model.fabric.electrical import electrical_switch as model
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.electrical.electrical import Electrical
from lightfabric.placement.mapping.traffic import Traffic
from lightfabric.placement.workload.case import Cases


class ElectricalSwitch(model.ElectricalSwitch, Electrical):
    """The busiest GPU is the bottleneck, whatever the order of ranks."""

    def bottleneck_seconds(self, flows: Traffic, gpus: int) -> float:
        """The busiest GPU's bytes at its rate."""
        return self.bound_seconds(flows, gpus)

    def estimated_rates(self, plans: Cases) -> Rates:
        """Every neighbour gets the full rate."""
        return Rates(self.bytes_per_s, self.bytes_per_s, self.bytes_per_s, self.bytes_per_s)
