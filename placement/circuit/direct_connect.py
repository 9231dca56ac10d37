"""TopoOpt: nodes joined directly by links of one degree, chosen from a job's traffic [Wang et al., "TopoOpt", NSDI 2023].

A *stride* p of a ring leads from each member of a group to the p-th after it. An interface is a transmitter and a receiver,
each with a fibre of its own: a ring takes one interface of each of its members, and so does a matching.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair, Ways
from lightfabric.model.fabric.optical.topoopt import strides
from lightfabric.model.fluid.shortest import Topology
from lightfabric.model.task import Kind, TaskGraph

MAX_NODES = 1 << 11
"""Most nodes whose traffic with each other is held as a table and matched in a minute."""

_Ints = NDArray[np.int64]
Group = tuple[int, ...]


@dataclass(frozen=True)
class DirectConnect:
    """How many links lead from one node to another, and the job with its all-reduces spread over the rings."""

    links: dict[Pair, int]
    graph: TaskGraph

    def topology(self, nodes: int, bytes_per_s: float) -> Topology:
        """Make the links with their rates; several from one node to another are one of the sum of their rates."""
        ends = np.array(sorted(self.links), np.int64).reshape(-1, 2)
        counts = np.array([count for _, count in sorted(self.links.items())], np.float64)
        ranks, no_latency = np.arange(nodes), np.zeros(len(ends), np.int64)
        return Topology(nodes, ranks, ends[:, 0], ends[:, 1], counts * bytes_per_s, no_latency)


def direct_connect(graph: TaskGraph, nodes: int, degree: int) -> DirectConnect:
    """Join the first ``nodes`` devices of a job by ``degree`` interfaces each, as its traffic is best served.

    All-reduces get the share of the degree that they have of the bytes, rounded up, group sizes theirs of that, and each
    group rings of ``strides``; a ring of all nodes is always there. What is left is given out by matchings of most bytes,
    those of a pair counting half after each link. Any other way is the shortest over all links: on a ring's strides that is
    the fewest coins of the paper. Every all-reduce is split over the rings of its group, one for each.
    Complexity: O(degree x nodes^3), and the size of the graph times the rings of a group.
    """
    reduced = _reduced_bytes(graph)
    rest = _exchanged_bytes(graph, nodes)
    # Transmitters and receivers of each node that lead nowhere yet.
    spare = np.full((2, nodes), degree)
    moved = sum(reduced.values())
    share = ceil(degree * moved / (moved + rest.sum())) if moved else 0
    rings = _rings(reduced, nodes, share, spare)
    links = Counter[Pair]()
    for orders in rings.values():
        for order in orders:
            links.update(pair for pair in zip(order, (*order[1:], order[0]), strict=True) if pair[0] != pair[1])
    links.update(_matched(rest, spare))
    return DirectConnect(dict(links), _spread(graph, rings))


def direct_circuits(gpus: int, demand_bytes: dict[Pair, int], degree: int, ports: int = 1) -> Circuits:
    """Give each GPU ``degree`` links, each of so many ports: a ring of all, then matchings of most bytes.

    Pairs without a link are relayed over the fewest.

    ValueError for more than ``MAX_NODES``. O(degree x gpus^3), mostly far less.
    """
    if gpus > MAX_NODES:
        raise ValueError(f"gpus must be at most {MAX_NODES} where links are matched, not {gpus}")
    demand = {pair: size for pair, size in demand_bytes.items() if size > 0 and pair[0] != pair[1]}
    if not demand:
        return Circuits({}, {})
    rest, around = np.zeros((gpus, gpus)), [(gpu, (gpu + 1) % gpus) for gpu in range(gpus)]
    rest[tuple(np.array(list(demand)).T)] = list(demand.values())
    rest[tuple(np.array(around).T)] /= 2
    links = Counter(around) + _matched(rest, np.full((2, gpus), degree - 1))
    table = np.array([(*pair, count * ports) for pair, count in links.items()])
    return _joined(gpus, np.array(list(demand)).tobytes(), table.tobytes())


def _matched(rest: NDArray[np.float64], spare: _Ints) -> Counter[Pair]:
    """Links of all matchings that ``spare`` interfaces have; bytes of a pair count half after each of its links."""
    links = Counter[Pair]()
    while pairs := _matching(rest, spare):
        links.update(pairs)
        for a, b in pairs:
            rest[a, b] /= 2
            spare[0, a] -= 1
            spare[1, b] -= 1
    return links


@lru_cache(maxsize=16)
def _joined(gpus: int, pairs: bytes, links: bytes) -> Circuits:
    """Join GPUs by links, the rows of a table: source, destination, lanes. Many plans have the same pairs and links."""
    table = np.frombuffer(links, np.int64).reshape(-1, 3)
    lanes = {(a, b): count for a, b, count in table.tolist()}
    return Circuits(lanes, _fewest_links(gpus, np.frombuffer(pairs, np.int64).reshape(-1, 2), lanes))


def _fewest_links(gpus: int, pairs: _Ints, links: Collection[Pair]) -> Ways:
    """Where each pair stops on a way of the fewest links."""
    source, destination = pairs.T
    relayed = np.array([pair not in links for pair in zip(source.tolist(), destination.tolist(), strict=True)])
    size, row = np.full(len(source), 2), np.zeros(len(source), np.int64)
    before = np.zeros((1, gpus), np.int32)
    if relayed.any():
        sparse: Any = import_module("scipy.sparse")
        csgraph: Any = import_module("scipy.sparse.csgraph")
        graph = sparse.csr_array((np.ones(len(links)), tuple(np.array(list(links)).T)), shape=(gpus, gpus))
        sources, row[relayed] = np.unique(source[relayed], return_inverse=True)
        far, before = csgraph.shortest_path(graph, unweighted=True, indices=sources, return_predecessors=True)
        size[relayed] = 1 + far[row, destination][relayed].astype(np.int64)
    ways = Ways(np.empty(int(size.sum()), np.int32), size)
    ways.stop[ways.first], ways.stop[ways.first + size - 1] = source, destination
    # All are walked back together, a link at a time, until they have only the source before them.
    at, place = destination.copy(), ways.first + size - 2
    while len(moving := np.flatnonzero(place > ways.first)):
        at[moving] = before[row[moving], at[moving]]
        ways.stop[place[moving]] = at[moving]
        place[moving] -= 1
    return ways


def _reduced_bytes(graph: TaskGraph) -> dict[Group, int]:
    """Bytes on the links of every group that reduces, of more than one member."""
    reduces = graph.kind == Kind.ALL_REDUCE
    work = np.bincount(graph.peer[reduces], graph.work[reduces], len(graph.member_start) - 1)
    found = dict[Group, int]()
    for index in np.flatnonzero(work).tolist():
        group = tuple(graph.group(index).tolist())
        if len(group) > 1:
            found[group] = found.get(group, 0) + round(2 * (len(group) - 1) * work[index])
    return found


def _exchanged_bytes(graph: TaskGraph, nodes: int) -> NDArray[np.float64]:
    """Bytes from each node to each other that no ring moves."""
    moves = (graph.kind == Kind.TRANSFER) & (graph.device != graph.peer)
    table = np.zeros((nodes, nodes))
    np.add.at(table, (graph.device[moves], graph.peer[moves]), graph.work[moves])
    return table


def _rings(reduced: dict[Group, int], nodes: int, share: int, spare: _Ints) -> dict[Group, list[Group]]:
    """Orders of the rings of each group; what they take of ``spare`` interfaces is taken off."""
    of_size = Counter[int]()
    for group, moved in reduced.items():
        of_size[len(group)] += moved
    # The ring of all nodes, which joins all that talk, is first, and the others are by what they move.
    sizes = sorted(of_size, key=lambda size: (size != nodes, -of_size[size]))
    everyone, found, left = tuple(range(nodes)), dict[Group, list[Group]](), share
    if not sizes or sizes[0] != nodes:
        found[everyone] = [everyone]
        spare -= 1
        left -= 1
    for size in sizes:
        count = min(left, ceil(share * of_size[size] / of_size.total()))
        left -= count
        for group in reduced:
            if len(group) != size:
                continue
            # Groups that share members may together want more interfaces than there are.
            here = min(count, int(spare[:, list(group)].min()))
            orders = [tuple(group[stride * at % size] for at in range(size)) for stride in strides(size, here)]
            if orders:
                found.setdefault(group, []).extend(orders)
                spare[:, list(group)] -= len(orders)
    return found


def _matching(wanted: NDArray[np.float64], spare: _Ints) -> list[Pair]:
    """Pairs of a transmitter and a receiver that are spare, one of a node at most, that move most bytes together."""
    optimize: Any = import_module("scipy.optimize")
    sends, receives = (np.flatnonzero(each > 0) for each in spare)
    table = wanted[np.ix_(sends, receives)]
    rows, columns = optimize.linear_sum_assignment(table, maximize=True)
    moves = table[rows, columns] > 0
    return list(zip(sends[rows[moves]].tolist(), receives[columns[moves]].tolist(), strict=True))


def _spread(graph: TaskGraph, rings: dict[Group, list[Group]]) -> TaskGraph:
    """The graph with as many all-reduces in place of one as its group has rings, each of an equal part of the bytes."""
    groups = [tuple(graph.group(index).tolist()) for index in range(len(graph.member_start) - 1)]
    orders = [rings.get(group, [group]) for group in groups]
    first = np.concatenate([[0], np.cumsum([len(each) for each in orders])]).astype(np.int64)
    ways = np.array([len(each) for each in orders], np.int64)
    reduces = graph.kind == Kind.ALL_REDUCE
    copies = np.where(reduces, np.concatenate([ways, [1]])[np.where(reduces, graph.peer, -1)], 1)
    task, part = _expanded(copies)
    of_ring = reduces[task]
    peer = np.where(of_ring, first[np.where(of_ring, graph.peer[task], 0)] + part, graph.peer[task])
    work = np.where(
        of_ring, graph.work[task] * (part + 1) // copies[task] - graph.work[task] * part // copies[task], graph.work[task]
    )
    flat = [order for each in orders for order in each]
    head = np.array([order[0] if order else 0 for order in flat] or [0], np.int64)
    device = np.where(of_ring, head[np.where(of_ring, peer, 0)], graph.device[task])
    before, after = np.repeat(np.arange(len(graph)), np.diff(graph.successor_start)), graph.successors.astype(np.int64)
    start = np.concatenate([[0], np.cumsum(copies)])
    edge, which = _expanded(copies[before] * copies[after])
    heads = start[before[edge]] + which // copies[after[edge]]
    tails = start[after[edge]] + which % copies[after[edge]]
    rising = np.lexsort((tails, heads))
    return replace(
        graph, kind=graph.kind[task], device=device.astype(np.int32), work=work, peer=peer.astype(np.int32),
        operations=graph.operations[task], successors=tails[rising].astype(np.int32),
        successor_start=np.searchsorted(heads[rising], np.arange(len(task) + 1)).astype(np.int64),
        member_start=np.concatenate([[0], np.cumsum([len(order) for order in flat])]).astype(np.int64),
        members=np.array([member for order in flat for member in order], np.int32),
    )  # fmt: skip


def _expanded(counts: _Ints) -> tuple[_Ints, _Ints]:
    """Each index as often as its count says, and which of them it is."""
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
