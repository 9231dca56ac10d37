"""A rail-optimised network joins the network cards of the same number of all islands by a rail of their own."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.component import Components
from lightfabric.model.fabric.electrical.electrical import ISLAND
from lightfabric.model.fabric.electrical.electrical_cluster import ElectricalCluster
from lightfabric.model.fluid.network import Links
from lightfabric.model.spec import RailOptimisedSpec


class RailOptimised(ElectricalCluster):
    """Links GPUs to the switch of their island and back, to their rail switch and back, then rail switches to spines.

    What is for another rail of another island goes first over the switch of its own island to the GPU on that rail, which
    sends it on [NCCL: PXN]; where a last island lacks that GPU it stays on its rail, and changes behind it. The uplinks of a
    rail switch are one link of their summed rate.
    """

    spec: RailOptimisedSpec  # pyright: ignore[reportIncompatibleVariableOverride]

    def links(self, gpus: int) -> list[Links]:
        """Number the links up, down, out, in, GPU by GPU, then those of rail switches to spines and back."""
        spec, island, nic, hop_ps = self.spec, self.port_bytes_per_s, self.nic_bytes_per_s, self.hop_ps
        gpu, on_ps = np.arange(gpus, dtype=np.int32), hop_ps + self.switch_ps
        switch, first_rail = gpus + gpu // spec.island_gpus, gpus + -(-gpus // spec.island_gpus)
        rail = np.arange(first_rail, first_rail + self._rails(gpus), dtype=np.int32)
        of_gpu, spine = first_rail + self._rail(gpu), np.full_like(rail, rail[-1] + 1)
        up = spec.rail_islands / spec.oversubscription
        return [
            Links(gpu, switch, island, hop_ps, f"{ISLAND} up"),
            Links(switch, gpu, island, on_ps, f"{ISLAND} down"),
            Links(gpu, of_gpu, nic, hop_ps + self.nic_ps, "NIC out"),
            Links(of_gpu, gpu, nic, on_ps, "NIC in"),
            Links(rail, spine, up * nic, on_ps, "rail up", up),
            Links(spine, rail, up * nic, on_ps, "rail down", up),
        ]

    def routes(self, gpus: int, source: NDArray[np.int64], destination: NDArray[np.int64]) -> NDArray[np.int64]:
        """Route within islands by their switch, else by the rail of the destination."""
        size, rails = self.spec.island_gpus, self._rails(gpus)
        inside = source // size == destination // size
        relay = source // size * size + destination % size
        there = relay < gpus
        sender = np.where(there, relay, source)
        receiver = np.where(there, destination, destination // size * size + source % size)
        rail, to_rail = self._rail(sender), self._rail(receiver)
        before, behind = (inside | (sender != source)), ~inside & (receiver != destination)
        links = [
            np.where(before, source, -1),
            np.where(before, gpus + np.where(inside, destination, sender), -1),
            np.where(~inside, 2 * gpus + sender, -1),
            np.where(~inside & (rail != to_rail), 4 * gpus + rail, -1),
            np.where(~inside & (rail != to_rail), 4 * gpus + rails + to_rail, -1),
            np.where(~inside, 3 * gpus + receiver, -1),
            np.where(behind, receiver, -1),
            np.where(behind, gpus + destination, -1),
        ]
        return np.stack(links, axis=1)

    def components(self, gpus: int) -> Components:
        """Count those of the links; spines are there only if a rail has several switches."""
        spines = self._rails(gpus) > self.spec.island_gpus
        return self.components_of(self.links(gpus)[: 6 if spines else 4], gpus)

    def rings(self, members: NDArray[np.int32], gpus: int) -> list[NDArray[np.int32]]:
        """Give those of a cluster, but every second island the other way round: so a ring goes on where it has come in.

        Between islands it then stays on a rail, from the last of an odd number of islands to the first over a relay.
        """
        rings = super().rings(members, gpus)
        if len(rings) > 1:
            for ring in rings:
                of_island = ring.reshape(-1, len(rings))
                of_island[1::2] = of_island[1::2, ::-1].copy()
        return rings

    def _rail(self, gpu: NDArray[Any]) -> NDArray[Any]:
        """Number the rail switch of a GPU."""
        size = self.spec.island_gpus
        return gpu // (size * self.spec.rail_islands) * size + gpu % size

    def _rails(self, gpus: int) -> int:
        """Count the rail switches of all islands."""
        return -(-gpus // (self.spec.island_gpus * self.spec.rail_islands)) * self.spec.island_gpus
