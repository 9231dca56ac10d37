"""Placement on a twisted torus, whose longest ways are shorter."""

from lightfabric.model.fabric.direct import twisted_torus as model
from lightfabric.placement.fabric.direct.torus import Torus


class TwistedTorus(model.TwistedTorus, Torus):
    """Shares all but its ways with a torus."""
