"""A fat tree joins leaf switches of GPUs by spines, and pods of leaves by a core."""

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.component import Components
from lightfabric.model.fabric.electrical.electrical import Electrical
from lightfabric.model.fluid.network import Links
from lightfabric.model.spec import FatTreeSpec


class FatTree(Electrical):
    """Links GPUs to leaves and back, these to their pod and back, with 3 levels pods to the core and back.

    The uplinks of a leaf are one link of their summed rate, and so are those of a pod: packets are spread over all of them
    evenly, whatever flow they are of [ECMP at its best]. One flow is no faster than a network card, which is its first
    link.
    """

    spec: FatTreeSpec

    @property
    def port_gbps(self) -> float:
        """Give the raw rate of a network card."""
        return self.spec.nic_gbps

    def links(self, gpus: int) -> list[Links]:
        """Number the links GPU up, down, leaf up, down, pod up, down; nodes follow in that order."""
        spec, rate, hop_ps = self.spec, self.port_bytes_per_s, self.hop_ps
        leaves, pods = self._sizes(gpus)
        gpu, leaf, pod = (np.arange(count, dtype=np.int32) for count in (gpus, leaves, pods))
        of_gpu, of_leaf = gpus + gpu // spec.leaf_gpus, gpus + leaves + leaf // spec.pod_leaves
        up, on_ps = spec.leaf_gpus / spec.oversubscription, hop_ps + self.switch_ps
        uplinks, of_pod = up * rate, spec.pod_leaves * up
        core = np.full(pods, gpus + leaves + pods, np.int32)
        return [
            Links(gpu, of_gpu, rate, hop_ps + self.nic_ps, "NIC out"),
            Links(of_gpu, gpu, rate, on_ps, "NIC in"),
            Links(gpus + leaf, of_leaf, uplinks, on_ps, "leaf up", up),
            Links(of_leaf, gpus + leaf, uplinks, on_ps, "leaf down", up),
            Links(gpus + leaves + pod, core, spec.pod_leaves * uplinks, on_ps, "pod up", of_pod),
            Links(core, gpus + leaves + pod, spec.pod_leaves * uplinks, on_ps, "pod down", of_pod),
        ][: 2 * spec.levels]

    def routes(self, gpus: int, source: NDArray[np.int64], destination: NDArray[np.int64]) -> NDArray[np.int64]:
        """Route pairs as high as they must."""
        (leaves, pods), first = self._sizes(gpus), 2 * gpus
        leaf, to_leaf = source // self.spec.leaf_gpus, destination // self.spec.leaf_gpus
        pod, to_pod = leaf // self.spec.pod_leaves, to_leaf // self.spec.pod_leaves
        links = [
            source,
            np.where(leaf != to_leaf, first + leaf, -1),
            np.where(pod != to_pod, first + 2 * leaves + pod, -1),
            np.where(pod != to_pod, first + 2 * leaves + pods + to_pod, -1),
            np.where(leaf != to_leaf, first + leaves + to_leaf, -1),
            gpus + destination,
        ]
        return np.stack(links, axis=1)

    def components(self, gpus: int) -> Components:
        """Count those of the levels that are needed: one leaf has no spines, one pod no core."""
        leaves, pods = self._sizes(gpus)
        return self.components_of(self.links(gpus)[: 2 + 2 * (leaves > 1) + 2 * (pods > 1)], gpus)

    def _sizes(self, gpus: int) -> tuple[int, int]:
        """Count the leaves and the pods."""
        spec = self.spec
        leaves = -(-gpus // spec.leaf_gpus)
        pods, most = -(-leaves // spec.pod_leaves), 1 if spec.levels == 2 else spec.radix
        if pods > most:
            room = most * spec.pod_leaves * spec.leaf_gpus
            raise ValueError(
                f"a fat tree of {spec.levels} levels and radix {spec.radix} has room for {room} GPUs, not {gpus}"
            )
        return leaves, pods
