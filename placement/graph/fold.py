"""Folds a task graph: replicas, and tensor ranks of all stages, that have the same links before them run once for all.

Who is alike is not known by the kind of fabric but found by comparing: colours of links, paths, blocks and columns of ranks
are refined until the partition is equitable [McKay, "Practical graph isomorphism", 1981: colour refinement].
A colour is a 64-bit hash of what it was and of the sum of the colours that it meets.

A *block* is of ranks one after the other, such as a replica, or the replicas that share experts; a *column* is the ranks at
one place modulo a number in all blocks, such as a tensor rank of all stages.
"""

from collections.abc import Iterable
from itertools import product
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.fluid.alike import Alike
from lightfabric.model.fluid.network import Network, links_of, route_latency_ps
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.graph.builder import Kept
from lightfabric.placement.graph.rings import Rings, in_rings
from lightfabric.placement.plan import Plan

_Ints = NDArray[np.int64]
_Colours = NDArray[np.uint64]


class Foldable(Protocol):
    """A ``Workload``, as far as folding needs it."""

    def repeats(self, plan: Plan) -> tuple[int, int]:
        """Count the blocks of ranks, and the columns, ranks next to each other in a block, that have the same program."""
        ...

    def task_graph(self, plan: Plan, kept: Kept | None = None) -> TaskGraph:
        """Build the tasks of the blocks and columns that are kept."""
        ...


class Linked(Protocol):
    """A ``Fabric``, as far as folding needs it."""

    def network(self, gpus: int, pairs: Iterable[Pair], circuits: Circuits | None = None) -> Network:
        """Make the links and routes of pairs."""
        ...

    def rings(self, members: NDArray[np.int32], gpus: int) -> list[NDArray[np.int32]]:
        """Give the rings over which a group is reduced."""
        ...


class Folded(NamedTuple):
    """A graph of the ranks that stand for others, on GPUs; the whole network; and whom they stand for."""

    graph: TaskGraph
    network: Network
    alike: Alike


def folded(
    job: Foldable, plan: Plan, gpu_of_rank: NDArray[np.int32], fabric: Linked, circuits: Circuits | None = None
) -> Folded:
    """Fold the iteration of a job as far as the fabric is symmetric: times are equal but for the last bits of rates.

    O(pairs x hops) for each round of the refinement, of which there are a few; the graph is never there unfolded.
    """
    blocks, columns = job.repeats(plan)
    rank = np.arange(plan.gpus).reshape(blocks, -1, columns)
    first = Kept(np.zeros(blocks, np.int64), np.zeros(columns, np.int64))
    paths = _paths(job.task_graph(plan, first), rank, gpu_of_rank, fabric.rings)
    pairs: Any = np.stack([paths.source, paths.destination], axis=1)
    network = fabric.network(plan.gpus, pairs, circuits)
    block, column, link = _refined(paths, network, blocks, columns)
    graph = job.task_graph(plan, Kept(block, column)).placed(gpu_of_rank)
    device = np.empty(plan.gpus, np.int64)
    device[gpu_of_rank[rank]] = gpu_of_rank[rank[block][:, :, column]]
    return Folded(in_rings(graph, fabric.rings), network, Alike(device, link))


def unfolded(job: Foldable, plan: Plan, gpu_of_rank: NDArray[np.int32], fabric: Linked) -> TaskGraph:
    """Build the iteration of a job with the tasks of all ranks, on their GPUs and in the rings of the fabric."""
    return in_rings(job.task_graph(plan).placed(gpu_of_rank), fabric.rings)


class _Paths(NamedTuple):
    """All paths of the unfolded graph, pairs and rings: path i is of the edges from ``start[i]`` to before ``start[i + 1]``.

    Paths of one ``role`` are at the same place of different blocks or columns, and may lead ``towards`` another block; one
    that is of all blocks or columns has the number of these in place of its own.
    """

    role: _Ints
    block: _Ints
    towards: _Ints
    column: _Ints
    start: _Ints
    source: NDArray[np.int32]
    destination: NDArray[np.int32]


def _paths(one: TaskGraph, rank: _Ints, gpu_of_rank: NDArray[np.int32], rings: Rings) -> _Paths:
    """List the paths of the ranks ``[block, place, column]``; ``one`` is the graph of the first block and column."""
    blocks, _, columns = rank.shape
    moves = (one.kind == Kind.TRANSFER) & (one.work > 0) & (one.device != one.peer)
    pairs = np.unique(np.stack([one.device[moves], one.peer[moves]], axis=1), axis=0)
    shift = rank[:, 0]
    # What the last blocks send beyond them goes to the first ones.
    ends = (pairs[:, :, None, None] + shift) % rank.size
    role, _, column = (each.ravel() for each in np.indices(ends[:, 0].shape))
    block, towards = (ends // rank[0].size).swapaxes(0, 1).reshape(2, -1)
    ends = gpu_of_rank[ends]
    found, roles, whose = list[NDArray[np.int32]](), dict[tuple[int, ...], int](), list[tuple[int, int, int]]()
    for group in np.unique(one.peer[(one.kind == Kind.ALL_REDUCE) & (one.work > 0)]).tolist():
        members = one.group(group)
        # A group has a copy in each block if it is in one block, and in each column if it is in one.
        in_block, in_column = bool((members < rank[0].size).all()), not (members % columns).any()
        for b, c in product(range(blocks) if in_block else [blocks], range(columns) if in_column else [columns]):
            of_group = rings(gpu_of_rank[members + shift[b * in_block, c * in_column]], len(gpu_of_rank))
            for turn, ring in enumerate(of_group):
                key = (group, turn, len(of_group), len(ring))
                whose.append((roles.setdefault(key, len(pairs) + len(roles)), b, c))
                found.append(ring)
    role_of, block_of, column_of = np.array(whose, np.int64).reshape(-1, 3).T
    start = np.cumsum([0, *[1] * len(role), *map(len, found)])
    ring = np.concatenate([*found, np.zeros(0, np.int32)])
    following = np.arange(1, len(ring) + 1)
    following[start[len(role) + 1 :] - len(role) - 1] = start[len(role) : -1] - len(role)
    return _Paths(
        np.append(role, role_of), np.append(block, block_of), np.append(towards, block_of), np.append(column, column_of),
        start, np.append(ends[:, 0], ring), np.append(ends[:, 1], ring[following]),
    )  # fmt: skip


def _refined(paths: _Paths, network: Network, blocks: int, columns: int) -> tuple[_Ints, _Ints, _Ints]:
    """Find the first block, column and link that each is like."""
    route = np.searchsorted(network.pair_key, paths.source.astype(np.int64) * network.devices + paths.destination)
    size = np.diff(paths.start)
    of_edge, rings = np.repeat(np.arange(len(size)), size), np.repeat(size > 1, size)
    edge, crossed = links_of(network, route)
    of = of_edge[edge]
    # The slowest edge of a ring sets its pace.
    slowest_ps = np.zeros(len(size), np.int64)
    np.maximum.at(slowest_ps, of_edge[rings], route_latency_ps(network, route[rings]))
    fixed = _mixed(_mixed(paths.role.astype(np.uint64)) + slowest_ps.astype(np.uint64))
    # One more of each for the paths that are of all.
    block, column = np.zeros(blocks + 1, np.uint64), np.zeros(columns + 1, np.uint64)
    link = _mixed(network.bytes_per_s.view(np.uint64)) + network.latency_ps.astype(np.uint64)
    first = np.searchsorted(of, np.arange(len(size)))
    classes = 1, 1, len(np.unique(link))
    while True:
        own = _mixed(block)[paths.block] + _mixed(~block)[paths.towards] + _mixed(column)[paths.column] * np.uint64(3)
        path = _mixed(fixed + own + np.add.reduceat(_mixed(link)[crossed], first) if len(first) else fixed)
        # Blocks are alike if their paths are, column by column, and columns if theirs are, block by block.
        sent = _mixed(path + paths.column.astype(np.uint64))
        given, taken = (_sums(sent, end, len(block)) for end in (paths.block, paths.towards))
        block = _mixed(block + given + _mixed(taken))
        column = _mixed(column + _sums(_mixed(path + paths.block.astype(np.uint64)), paths.column, len(column)))
        link = _mixed(link + _sums(path[of], crossed, len(link)))
        before, classes = classes, (len(np.unique(block[:-1])), len(np.unique(column[:-1])), len(np.unique(link)))
        if classes == before:
            return _first_like(block[:-1]), _first_like(column[:-1]), _first_like(link)


def _mixed(colour: _Colours) -> _Colours:
    """Hash each, by the finaliser of SplitMix64 [Steele, Lea and Flood, OOPSLA 2014]."""
    colour = colour + np.uint64(0x9E3779B97F4A7C15)
    colour = (colour ^ (colour >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    colour = (colour ^ (colour >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return colour ^ (colour >> np.uint64(31))


def _sums(colour: _Colours, owner: NDArray[Any], owners: int) -> _Colours:
    """Add up the colours of each owner, in whatever order they come."""
    sums = np.zeros(owners, np.uint64)
    np.add.at(sums, owner, colour)
    return sums


def _first_like(colour: _Colours) -> _Ints:
    _, first, which = np.unique(colour, return_index=True, return_inverse=True)
    return first[which]
