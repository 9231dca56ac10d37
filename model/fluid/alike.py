"""Devices and links that do the same at the same time, of which the fluid model runs one for all.

Max-min fair rates are equal within the classes of an equitable partition: every path of a class crosses as many links of
each class of links, every link of a class is crossed by as many paths of each class of paths. So a path stands for its
``copies``, and loads the link that stands for its class as much as all of them load each of its links.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fluid.network import Network
from lightfabric.model.task import Kind, TaskGraph


class Alike(NamedTuple):
    """Names for each device and each link of a network the one that stands for it; those of a graph stand for themselves."""

    device: NDArray[np.int64]
    link: NDArray[np.int64]

    @staticmethod
    def nothing(network: Network) -> "Alike":
        """Let each device and each link stand for itself alone."""
        return Alike(np.arange(network.devices), np.arange(len(network.link_source)))

    def copies(self, graph: TaskGraph) -> NDArray[np.int64]:
        """Count the tasks that each task of a graph of devices that stand for others stands for, itself among them.

        A TRANSFER has a copy for each copy of its source, an ALL_REDUCE for as many as its members are not themselves; a
        BARRIER is as often there as what it waits for.
        """
        size = np.bincount(self.device, minlength=len(self.device))
        copies = np.where(graph.device >= 0, size[self.device[graph.device]], 1)
        reduces, member = graph.kind == Kind.ALL_REDUCE, self.device[graph.members]
        group = np.repeat(np.arange(len(graph.member_start) - 1), np.diff(graph.member_start))
        first = member[graph.member_start[:-1]]
        copies[reduces] = (size[first] // np.bincount(group[member == first[group]]))[graph.peer[reduces]]
        before = np.repeat(np.arange(len(graph)), np.diff(graph.successor_start))
        joins = graph.kind[graph.successors] == Kind.BARRIER
        copies[graph.successors[joins]] = copies[before[joins]]
        return copies

    def link_copies(self) -> NDArray[np.int64]:
        """Count the links that each link stands for."""
        return np.bincount(self.link, minlength=len(self.link))
