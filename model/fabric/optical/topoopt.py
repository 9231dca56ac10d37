"""TopoOpt joins GPUs straight to others, by links that are chosen once for a job [NSDI 2023]."""

from math import gcd

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.component import Component, Components, light
from lightfabric.model.fabric.optical.optical import Switched
from lightfabric.model.spec import TopooptSpec


class Topoopt(Switched):
    """Makes a circuit of some ports of a pair, through a patch panel in place of switches."""

    spec: TopooptSpec

    def components(self, gpus: int) -> Components:
        """Count the chiplets' light and, for each port, one of the patch panel with two strands, to it and from it."""
        ports = gpus * self.chiplet.ports
        return light(self.chiplet, ports) + Components({Component("fibre"): 2 * ports, Component("patch_port"): ports})

    def rings(self, members: NDArray[np.int32], gpus: int) -> list[NDArray[np.int32]]:
        """Give a ring of each stride where all GPUs are members, so that others reach each other over few links, too."""
        if len(members) < gpus:
            return [members]
        at = np.arange(gpus)
        return [members[stride * at % gpus] for stride in sorted(set(strides(gpus, self.spec.degree)))]


def strides(members: int, count: int) -> list[int]:
    """Strides of so many rings over all members, near a geometric progression from 1 to members - 1.

    All that lead round are there before any is there twice.

    >>> strides(16, 4), strides(12, 3), strides(4, 3)
    ([1, 3, 7, 15], [1, 5, 11], [1, 3, 1])
    """
    whole = [stride for stride in range(1, members) if gcd(stride, members) == 1] or [1]
    chosen = list[int]()
    while len(chosen) < count:
        wanted = min(count - len(chosen), len(whole))
        ratio = (whole[-1] / whole[0]) ** (1 / max(1, wanted - 1))
        left = list(whole)
        for step in range(wanted):
            nearest = min(left, key=lambda stride: abs(stride - ratio**step))
            left.remove(nearest)
            chosen.append(nearest)
    return chosen
