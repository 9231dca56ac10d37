"""An electrical cluster has islands of GPUs behind a fast switch each, network cards, and an ideal core."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.cycle.cabling import ElectricalCabling, hub
from lightfabric.model.fabric.fabric import Fabric
from lightfabric.model.fluid.network import Links, Network, join, pair_ends
from lightfabric.model.spec import CABLE_PS_PER_M, ElectricalClusterSpec


class ElectricalCluster(Fabric):
    """Links GPUs to the switch of their island and back, then to the core through the network card and back.

    A network card adds its latency once per route. Nodes from ``gpus`` on are the switches of the islands, the last node
    is the core.
    """

    spec: ElectricalClusterSpec

    def network(self, gpus: int, pairs: Iterable[Pair], circuits: Circuits | None = None) -> Network:
        """Route pairs of one island over its switch, all others over the core."""
        spec, (source, destination) = self.spec, pair_ends(gpus, pairs)
        gpu = np.arange(gpus, dtype=np.int32)
        island = gpus + gpu // spec.island_gpus
        core = np.full(gpus, island[-1] + 1, np.int32)
        hop_ps = self.crossing_ps(spec.cable_m * CABLE_PS_PER_M)
        island_rate, nic_rate = (self.cable_bytes_per_s(gbps, spec.cable_m) for gbps in (spec.island_gbps, spec.nic_gbps))
        links = [
            Links(gpu, island, island_rate, hop_ps),
            Links(island, gpu, island_rate, hop_ps + self.switch_ps),
            Links(gpu, core, nic_rate, hop_ps + round(spec.nic_latency_us * 1e6)),
            Links(core, gpu, nic_rate, hop_ps),
        ]
        # Links are numbered up, down, out, in, a GPU after the other: a pair takes an up and a down, or an out and an in.
        inside = source // spec.island_gpus == destination // spec.island_gpus
        up = source + np.where(inside, 0, 2 * gpus)
        down = destination + np.where(inside, gpus, 3 * gpus)
        return join(gpus, links, source, destination, np.stack([up, down], axis=1))

    def rings(self, members: NDArray[np.int32]) -> list[NDArray[np.int32]]:
        """Give as many rings as members share each of several islands, so that all their network cards are equally busy.

        Each goes from island to island, in the next ring from the next member on [NCCL: a ring per network card]. Where
        islands have different numbers of members there is one ring in the given order.
        """
        _, own = np.unique(members // self.spec.island_gpus, return_counts=True)
        if len(own) == 1 or own[0] == 1 or np.any(own != own[0]):
            return [members]
        of_island = np.sort(members).reshape(len(own), own[0])
        return [np.roll(of_island, -turn, axis=1).ravel() for turn in range(own[0])]

    def cabling(self, gpus: int, circuits: Circuits | None = None) -> ElectricalCabling:
        """Make a hub for each island, then one for all GPUs."""
        spec, chiplet = self.spec, self.chiplet
        islands = [range(first, min(first + spec.island_gpus, gpus)) for first in range(0, gpus, spec.island_gpus)]
        core = hub(range(gpus), spec.nic_gbps, spec.cable_m, chiplet, spec.nic_latency_us * 1e6)
        return ElectricalCabling((*(hub(island, spec.island_gbps, spec.cable_m, chiplet) for island in islands), core))
