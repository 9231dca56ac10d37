"""Placement on a dragonfly: what stays in a group spares the few links between groups."""

from lightfabric.model.fabric.electrical import dragonfly as model
from lightfabric.placement.fabric.electrical.electrical import Electrical


class Dragonfly(model.Dragonfly, Electrical):
    """The network cards, or the links between two groups or two routers, are the bottleneck."""
