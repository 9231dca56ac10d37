"""What the links of a network carry in an iteration, whether all ranks are in the graph or some stand for others."""

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fluid.alike import Alike
from lightfabric.model.fluid.network import Network, links_of
from lightfabric.model.task import Kind, TaskGraph


def link_bytes(graph: TaskGraph, network: Network, alike: Alike) -> NDArray[np.float64]:
    """Bytes over each link, of all tasks that those of the graph stand for: together bytes times links on their way.

    A ring all-reduce sends 2(n-1)/n of its bytes over each of its edges. Every link of a class carries as much, so what the
    tasks and their copies load a class with is shared out evenly. O(tasks + routes).
    """
    sent = graph.work * alike.copies(graph).astype(np.float64)
    moves = (graph.kind == Kind.TRANSFER) & (graph.work > 0) & (graph.device != graph.peer)
    size = np.diff(graph.member_start)
    reduces = graph.kind == Kind.ALL_REDUCE
    total = np.where(size > 1, np.bincount(graph.peer[reduces], sent[reduces], len(size)), 0.0)
    group = np.repeat(np.arange(len(size)), size)
    following = np.arange(1, len(group) + 1)
    following[graph.member_start[1:][size > 0] - 1] = graph.member_start[:-1][size > 0]
    edge = np.flatnonzero(total[group] > 0)
    source = np.concatenate([graph.device[moves], graph.members[edge]]).astype(np.int64)
    destination = np.concatenate([graph.peer[moves], graph.members[following[edge]]])
    amount = np.concatenate([sent[moves], (2 * total * (size - 1) / np.maximum(size, 1))[group[edge]]])
    route, place = np.unique(source * network.devices + destination, return_inverse=True)
    row, link = links_of(network, np.searchsorted(network.pair_key, route))
    of_class = np.bincount(alike.link[link], np.bincount(place, amount)[row], len(alike.link))
    return (of_class / np.maximum(alike.link_copies(), 1))[alike.link]
