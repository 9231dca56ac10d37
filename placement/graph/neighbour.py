"""All-to-alls in which GPUs send to their neighbours only, and pass on what is for others."""

from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.direct.lattice import Lattice
from lightfabric.model.fluid.network import ragged
from lightfabric.model.task import Kind, Part, TaskGraph
from lightfabric.placement.collective.relay import Messages, Relays
from lightfabric.placement.graph.builder import Builder, Ids, Kept
from lightfabric.placement.graph.fold import Foldable
from lightfabric.placement.plan import Plan

ROUNDING = 1e-3
"""Sums of shares of whole bytes may be off by less."""
_Ints = NDArray[np.int64]


def all_to_all_by_neighbours(lattice: Lattice, size_bytes: int) -> TaskGraph:
    """Send so many bytes from each GPU to each other one, a link at a time, so that messages never share one.

    In step t each GPU sends a message each way with all that has its hop t there. It does so when its message of the step
    before is sent that way, and what it passes on has come. Links carry as much as if all went straight along ways that load
    them evenly. O(gpus x hops).
    """
    parts, gpus = lattice.directions, lattice.gpus
    way = ways(lattice)
    _, ahead = lattice.neighbours()
    to = lattice.gpu(ahead).astype(np.int32).T
    came_from = np.argsort(to, axis=1)
    builder, here, before = Builder(), np.arange(gpus, dtype=np.int32), dict[int, Ids]()
    for step in range(way.shape[1]):
        now = dict[int, Ids]()
        for direction in range(lattice.directions):
            going = way[:, step] == direction
            if not going.any():
                continue
            sent_bytes = -(-size_bytes * int(going.sum()) // parts)
            now[direction] = builder.add(Kind.TRANSFER, Part.EXCHANGE, here, sent_bytes, to[direction])
            if direction in before:
                builder.link(before[direction], now[direction])
            if step:
                for came in np.unique(way[going, step - 1]).tolist():
                    builder.link(before[came][came_from[came]], now[direction])
        before |= now
    return builder.graph(gpus, [])


def ways(lattice: Lattice) -> _Ints:
    """List the directions of the hops of each part of each displacement, ``[part, hop]``, filled up with -1.

    A displacement has a part for each direction of the lattice. All go one shortest way, or share all of them, whichever
    leaves less to the busiest links of all steps.
    """
    parts = range(lattice.directions)
    shared = [each[part % len(each)] for each in lattice.shortest() for part in parts]
    options = [_hops(vectors, len(parts)) for vectors in (np.repeat(lattice.chosen, len(parts), axis=0), np.array(shared))]
    return min(options, key=lambda found: sum(np.bincount(step[step >= 0]).max() for step in found.T))


def _hops(vectors: _Ints, directions: int) -> _Ints:
    """Let every hop take the axis that fewer others take in its step, short vectors first, which choose less."""
    hops = np.abs(vectors).sum(axis=1)
    found = np.full((len(vectors), int(hops.max())), -1, np.int64)
    load = np.zeros((found.shape[1], directions), np.int64)
    for each in np.argsort(hops, kind="stable").tolist():
        left = np.abs(vectors[each])
        direction = 2 * np.arange(len(left)) + (vectors[each] < 0)
        for step in range(int(hops[each])):
            axis = int(np.lexsort((-left, load[step, direction], left == 0))[0])
            found[each, step] = direction[axis]
            load[step, direction[axis]] += 1
            left[axis] -= 1
    return found


@dataclass(frozen=True)
class ByNeighbours:
    """A job whose exchanges are passed on by the members: ``Foldable`` as the job is."""

    job: Foldable
    relays: Relays

    def repeats(self, plan: Plan) -> tuple[int, int]:
        """Count what the job repeats."""
        return self.job.repeats(plan)

    def task_graph(self, plan: Plan, kept: Kept | None = None) -> TaskGraph:
        """Build the tasks of the job, ``passed_on``."""
        return passed_on(self.job.task_graph(plan, kept), self.relays)


def passed_on(graph: TaskGraph, relays: Relays) -> TaskGraph:
    """Put the messages between neighbours in place of all transfers of each exchange that begin at once, on ranks.

    An exchange is what one barrier ends. Those of pairs without ways stay as they are, and so do transfers of no bytes.
    O(transfers x ways x hops).
    """
    assert graph.part is not None, "exchanges are a part"
    moves = (graph.kind == Kind.TRANSFER) & (graph.part == Part.EXCHANGE) & (graph.work > 0)
    pair = np.full(len(graph), -1)
    pair[moves] = relays.pairs(graph.device[moves], graph.peer[moves])
    task = np.flatnonzero(pair >= 0)
    end = graph.successors[graph.successor_start[task]].astype(np.int64)
    order = np.lexsort((pair[task], relays.bases(graph.device[task]), end))
    task, end = task[order], end[order]
    alike = dict[bytes, list[_Ints]]()
    for own in np.split(task, 1 + np.flatnonzero(np.diff(end))):
        alike.setdefault(pair[own].tobytes(), []).append(own)
    added = _Added(graph, relays)
    for tasks in alike.values():
        added.exchanges(np.stack(tasks), pair[tasks[0]])
    return added.graph_without(task)


class _Added:
    """A graph and what is put in place of its exchanges."""

    def __init__(self, graph: TaskGraph, relays: Relays) -> None:
        self._graph, self._relays, self._count = graph, relays, len(graph)
        self._before = np.repeat(np.arange(len(graph)), np.diff(graph.successor_start))
        self._edges = [np.stack([self._before, graph.successors.astype(np.int64)])]
        self._columns = list[tuple[_Ints, ...]]()

    def exchanges(self, task: _Ints, pair: _Ints) -> None:
        """Add the messages of exchanges that are alike, ``task[exchange, pair]``."""
        graph, size = self._graph, self._graph.work[task]
        found = self._relays.messages(pair, size.sum(axis=0))
        base = self._relays.bases(graph.device[task[:, 0]])[:, None]
        sparse: Any = import_module("scipy.sparse")
        shape = (len(pair), len(found.step))
        parts = sparse.csr_array((np.full(len(found.row), 1 / found.ways), (found.row, found.message)), shape=shape)
        work = np.ceil(size @ parts - ROUNDING).astype(np.int64)
        operations = np.broadcast_to(graph.operations[task].max(axis=1)[:, None], work.shape)
        ends = base + found.source, base + found.destination
        self._columns.append(tuple(each.ravel().astype(np.int64) for each in (*ends, work, operations)))
        first = self._count + len(found.step) * np.arange(len(task))
        self._count += work.size
        self._link(*(first[:, None] + each for each in found.edges.T))
        barrier = graph.successors[graph.successor_start[task[:, 0]]].astype(np.int64)
        arrives = np.unique(found.message[found.last])
        self._link(first[:, None] + arrives, np.broadcast_to(barrier[:, None], (len(task), len(arrives))))
        self._await(task, found, first)

    def _await(self, task: _Ints, found: Messages, first: _Ints) -> None:
        """Let the first messages of a pair wait for what its transfer waited for."""
        place = np.full(len(self._graph), -1)
        place[task.ravel()] = np.arange(task.size)
        own = np.flatnonzero(place[self._graph.successors] >= 0)
        exchange, pair = np.divmod(place[self._graph.successors[own]], task.shape[1])
        begins: _Ints = np.unique(np.stack([found.row, found.message])[:, found.hop == 0], axis=1)
        start = begins[0].searchsorted(np.arange(task.shape[1] + 1))
        edge, turn = ragged(np.diff(start)[pair])
        message = first[exchange[edge]] + begins[1][start[pair[edge]] + turn]
        self._edges.append(np.unique(np.stack([self._before[own[edge]], message]), axis=1))

    def _link(self, before: _Ints, after: _Ints) -> None:
        self._edges.append(np.stack([before.ravel(), after.ravel()]))

    def graph_without(self, task: _Ints) -> TaskGraph:
        """The graph with all that was added, and without some of its own tasks."""
        graph, kept = self._graph, np.ones(self._count, bool)
        kept[task] = False
        number, edges = np.cumsum(kept) - 1, np.concatenate(self._edges, axis=1)
        before, after = number[edges[:, kept[edges].all(axis=0)]]
        order, old = np.argsort(before, kind="stable"), kept[: len(graph)]
        source, peer, work, operations = (np.concatenate(each) for each in zip(*self._columns, strict=True))

        def column(own: NDArray[Any], added: Any) -> NDArray[Any]:
            return np.append(own[old], np.broadcast_to(added, source.shape)).astype(own.dtype)

        assert graph.part is not None, "exchanges are a part"
        return replace(
            graph,
            kind=column(graph.kind, int(Kind.TRANSFER)),
            device=column(graph.device, source),
            work=column(graph.work, work),
            peer=column(graph.peer, peer),
            operations=column(graph.operations, operations),
            successor_start=np.searchsorted(before[order], np.arange(int(kept.sum()) + 1)).astype(np.int64),
            successors=after[order].astype(np.int32),
            part=column(graph.part, int(Part.EXCHANGE)),
        )
