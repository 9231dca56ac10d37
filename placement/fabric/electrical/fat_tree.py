"""Placement on a fat tree: what stays on a leaf, or in a pod, spares oversubscribed uplinks."""

from lightfabric.model.fabric.electrical import fat_tree as model
from lightfabric.placement.fabric.electrical.electrical import Electrical


class FatTree(model.FatTree, Electrical):
    """The network cards or the uplinks of a leaf are the bottleneck."""
