"""Any topology that a list of links describes, with ways that load its links evenly."""

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.direct.direct import Direct, Wires, balanced_ways
from lightfabric.model.spec import FIBRE_PS_PER_M, CustomSpec

_Ints = NDArray[np.int64]


class Custom(Direct):
    """Has all links of the spec, whatever number of its GPUs the job runs on."""

    spec: CustomSpec

    @property
    def own_link(self) -> tuple[float, float] | None:
        """Give the least rate and the longest latency of links to GPUs, if they have them of their own."""
        links = [link[2:] for link in self.spec.links if min(link[:2]) < self.spec.gpus]
        return (min(link[0] for link in links), max(link[1] for link in links)) if links[0] else None

    def joined(self, gpus: int) -> Wires:
        """Give each link and the one back."""
        if gpus > self.spec.gpus:
            raise ValueError(f"gpus must be at most the {self.spec.gpus} of {self.name!r}, not {gpus}")
        table = np.array(self.spec.links)
        one, other = table[:, :2].astype(np.int64).T
        ends = np.concatenate([np.stack([one, other], axis=1), np.stack([other, one], axis=1)])
        vertices = max(self.spec.gpus, int(ends.max()) + 1)
        if table.shape[1] == 4:
            rate, flight_ps = np.tile(table[:, 2] * 1e9 / 8, 2), np.tile(table[:, 3] * 1e3, 2)
            return Wires.of(vertices, ends, 0, rate, flight_ps)
        ports = self.ports_per_link(int(np.bincount(ends[:, 0]).max()))
        rate = ports * self.chiplet.gbps_per_port * 1e9 / 8 * self.efficiency
        return Wires.of(vertices, ends, ports, rate, self.spec.fibre_m * FIBRE_PS_PER_M)

    def stops(self, gpus: int, source: _Ints, destination: _Ints) -> _Ints:
        """Take the ways that are balanced for all GPUs of the spec together."""
        return balanced_ways(self, self.spec.gpus)[source * self.spec.gpus + destination]

    def usable_gpus(self, alive: NDArray[np.bool_], group: int) -> NDArray[np.int64]:
        """Give a group any GPUs that the others alive, and switches, join."""
        sparse: Any = import_module("scipy.sparse")
        wires, gpus = self.wires(alive.shape[1]), self.spec.gpus
        usable = np.zeros(len(alive), np.int64)
        for state, own in enumerate(alive):
            works = np.ones(wires.vertices, bool)
            works[:gpus] = False
            works[: len(own)] = own
            lit = works[wires.source] & works[wires.destination]
            ends = wires.source[lit], wires.destination[lit]
            graph = sparse.csr_array((np.ones(len(ends[0])), ends), shape=(wires.vertices, wires.vertices))
            joined = import_module("scipy.sparse.csgraph").connected_components(graph, directed=False)[1]
            usable[state] = (np.bincount(joined[:gpus][works[:gpus]]) // group * group).sum()
        return usable
