"""Placement on a torus, where what is near along an axis loads few links."""

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits
from lightfabric.model.fabric.direct import torus as model
from lightfabric.placement.fabric.direct.direct import Direct


class Torus(model.Torus, Direct):
    """The fullest link is the bottleneck, whichever axis it is on."""

    @property
    def bytes_per_s(self) -> float:
        """All links of a GPU send together; with fewer axes longer than 1, fewer ports may be left over."""
        axes = len(self.spec.shape) or self.spec.dimensions
        if self.spec.link_gbps:
            return 2 * axes * self.spec.link_gbps * 1e9 / 8
        self.ports_per_link(2 * axes)
        ports = max(links * self.ports_per_link(links) for links in range(2, 2 * axes + 1, 2))
        return ports * self.chiplet.gbps_per_port * 1e9 / 8 * self.efficiency

    def relayed(
        self,
        gpus: int,
        source: NDArray[np.int64],
        destination: NDArray[np.int64],
        circuits: Circuits | None,
    ) -> list[NDArray[np.int64]]:
        """Begin with each axis, and go either way round to opposite GPUs, so that axes are busy all the time."""
        lattice = self.lattice(gpus)
        return [lattice.stops(source, destination, way) for way in range(lattice.directions)]
