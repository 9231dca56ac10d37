"""An electrical cluster has islands of GPUs behind a fast switch each, network cards, and an ideal core."""

from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.component import Components
from lightfabric.model.fabric.electrical.electrical import ISLAND, Electrical
from lightfabric.model.fabric.electrical.fat_tree import FatTree
from lightfabric.model.fabric.fabric import usable_in_parts
from lightfabric.model.fluid.network import Links
from lightfabric.model.spec import ElectricalClusterSpec, FatTreeSpec

CORE_GPUS = 1 << 16
"""More have no room in a fat tree of three levels and 64 ports."""


class ElectricalCluster(Electrical):
    """Links GPUs to the switch of their island and back, then to the core through the network card and back.

    A network card adds its latency once per route. Nodes from ``gpus`` on are the switches of the islands, the last node
    is the core.
    """

    spec: ElectricalClusterSpec

    @property
    def port_gbps(self) -> float:
        """Give the raw rate of the link to the switch of the island."""
        return self.spec.island_gbps

    @cached_property
    def efficiency(self) -> float:
        """Give the share of the raw rate of the link to the switch of the island that is payload."""
        return self.spec.island_payload_share

    @property
    def nic_bytes_per_s(self) -> float:
        """Give the payload rate of a network card."""
        return self.spec.nic_gbps * 1e9 / 8 * self.spec.nic_payload_share

    def links(self, gpus: int) -> list[Links]:
        """Number the links up, down, out, in, a GPU after the other."""
        gpu = np.arange(gpus, dtype=np.int32)
        island = gpus + gpu // self.spec.island_gpus
        core = np.full(gpus, island[-1] + 1, np.int32)
        island_rate, nic_rate, hop_ps = self.port_bytes_per_s, self.nic_bytes_per_s, self.hop_ps
        return [
            Links(gpu, island, island_rate, hop_ps, f"{ISLAND} up"),
            Links(island, gpu, island_rate, hop_ps + self.switch_ps, f"{ISLAND} down"),
            Links(gpu, core, nic_rate, hop_ps + self.nic_ps, "NIC out"),
            Links(core, gpu, nic_rate, hop_ps, "NIC in"),
        ]

    def routes(self, gpus: int, source: NDArray[np.int64], destination: NDArray[np.int64]) -> NDArray[np.int64]:
        """Route pairs of one island over its switch, up and down, all others over the core, out and in."""
        inside = source // self.spec.island_gpus == destination // self.spec.island_gpus
        up = source + np.where(inside, 0, 2 * gpus)
        down = destination + np.where(inside, gpus, 3 * gpus)
        return np.stack([up, down], axis=1)

    @property
    def network_share(self) -> float:
        """Give the share of the raw rate of network cards that is payload."""
        return self.spec.nic_payload_share

    def components(self, gpus: int) -> Components:
        """Count those of the islands, and for the ideal core those of a fat tree of 64-port switches that never limits."""
        core = FatTreeSpec(self.name, "fat-tree", nic_gbps=self.spec.nic_gbps, levels=2 if gpus <= 2048 else 3)
        if gpus > CORE_GPUS:
            core = replace(core, radix=128)
        return self.components_of(self.links(gpus)[:2], gpus) + FatTree(core, self.chiplet).components(gpus)

    def rings(self, members: NDArray[np.int32], gpus: int) -> list[NDArray[np.int32]]:
        """Give as many rings as members share each of several islands, so that all their network cards are equally busy.

        Each goes from island to island, in the next ring from the next member on [NCCL: a ring per network card]. Where
        islands have different numbers of members there is one ring in the given order.
        """
        island = members // self.spec.island_gpus
        # Most groups are on one island, and are asked for thousands of times.
        if (island == island[0]).all():
            return [members]
        _, own = np.unique(island, return_counts=True)
        if own[0] == 1 or np.any(own != own[0]):
            return [members]
        of_island = np.sort(members).reshape(len(own), own[0])
        return [np.roll(of_island, -turn, axis=1).ravel() for turn in range(own[0])]

    def usable_gpus(self, alive: NDArray[np.bool_], group: int) -> NDArray[np.int64]:
        """Keep groups on their islands, for network cards are slower; one larger than an island has none."""
        return usable_in_parts(alive, self.spec.island_gpus, group)
