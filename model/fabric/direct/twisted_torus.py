"""A twisted torus has shorter ways between GPUs than a torus of the same links [TPUv4, ISCA 2023]."""

from lightfabric.model.fabric.direct.torus import Torus


class TwistedTorus(Torus):
    """Ends the way round an axis half of each longer axis further."""

    twisted = True
