"""What direct fabrics share in placement: the time of the fullest link on the ways that pairs take."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits
from lightfabric.model.fabric.direct import direct as model
from lightfabric.placement.fabric.by_link import ByLink

PAIRS_AT_ONCE = 1 << 17
"""So many pairs have their ways in memory together."""


class Direct(model.Direct, ByLink):
    """The fullest link is the bottleneck; there are no circuits to assign."""

    def busiest_seconds(
        self, gpus: int, source: NDArray[np.int64], destination: NDArray[np.int64], size_bytes: NDArray[Any]
    ) -> float:
        """The most bytes over a link at its rate, on the ways that pairs take. O(pairs x hops)."""
        wires = self.wires(gpus)
        carried = np.zeros(len(wires.source))
        for first in range(0, len(source), PAIRS_AT_ONCE):
            part = slice(first, first + PAIRS_AT_ONCE)
            links = wires.links(self.stops(gpus, source[part], destination[part]))
            pair, hop = np.nonzero(links >= 0)
            carried += np.bincount(links[pair, hop], size_bytes[part][pair], len(carried))
        return float((carried / self.link_bytes_per_s(gpus)).max(initial=0.0))

    def relayed(
        self,
        gpus: int,
        source: NDArray[np.int64],
        destination: NDArray[np.int64],
        circuits: Circuits | None,
    ) -> list[NDArray[np.int64]]:
        """The ways of the fabric, where GPUs alone relay."""
        stops = self.stops(gpus, source, destination)
        return [stops] if stops.max(initial=0) < gpus else []
