"""Placement on cubes that optical circuit switches join to a torus."""

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits
from lightfabric.model.fabric.direct import cube_torus as model
from lightfabric.placement.fabric.direct.direct import Direct
from lightfabric.placement.fabric.direct.torus import Torus


class CubeTorus(model.CubeTorus, Torus):
    """Shares all but its links with a torus."""

    def relayed(
        self, gpus: int, source: NDArray[np.int64], destination: NDArray[np.int64], circuits: Circuits | None
    ) -> list[NDArray[np.int64]]:
        """The ways of the grid, or by permutations those that are balanced."""
        own = Direct if self.spec.permutations else Torus
        return own.relayed(self, gpus, source, destination, circuits)
