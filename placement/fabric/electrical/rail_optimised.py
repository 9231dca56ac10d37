"""Placement on islands joined by rails: what stays on an island is fast, and what stays on a rail pays no relay."""

from lightfabric.model.fabric.electrical import rail_optimised as model
from lightfabric.placement.fabric.electrical.electrical import Electrical


class RailOptimised(model.RailOptimised, Electrical):
    """The network cards, the ports of islands or the uplinks of a rail are the bottleneck."""

    @property
    def bytes_per_s(self) -> float:
        """The rates of the island and of the network card together."""
        return self.port_bytes_per_s + self.nic_bytes_per_s
