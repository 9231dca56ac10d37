"""Placement on cubes that optical circuit switches join to a torus."""

from lightfabric.model.fabric.direct import cube_torus as model
from lightfabric.placement.fabric.direct.torus import Torus


class CubeTorus(model.CubeTorus, Torus):
    """Shares all but its links with a torus."""
