"""A task graph as its ranks see it: which part of a task is at which rank, and what it waits for there."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.task import Kind, TaskGraph

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rank:
    """What one rank does: ``tasks`` in ascending order, and pairs (task, what it waits for), sorted.

    A TRANSFER is at both its ends, an ALL_REDUCE at all its members.
    """

    tasks: _Ints
    waits: NDArray[np.int64]


def ranks(graph: TaskGraph) -> Iterator[Rank]:
    """Each device in turn.

    Raises ValueError if tasks wait for each other that meet at no device, as barriers do: formats with one program per rank
    cannot say so. A task meets what it waits for where it starts: a TRANSFER at its source. O(edges x members).
    """
    if np.any(graph.kind == Kind.BARRIER):
        task = int(np.argmax(graph.kind == Kind.BARRIER))
        raise ValueError(f"TaskGraph.kind[{task}] must be at a device to be exported, not a BARRIER")
    tasks, places = _parts(graph)
    starts = ~((graph.kind[tasks] == Kind.TRANSFER) & (places != graph.device[tasks]))
    after, before, where = _meetings(graph, tasks, places, tasks[starts] * graph.devices + places[starts])
    order, edge_order = np.lexsort((tasks, places)), np.lexsort((before, after, where))
    bounds = np.searchsorted(places[order], np.arange(graph.devices + 1))
    edge_bounds = np.searchsorted(where[edge_order], np.arange(graph.devices + 1))
    ordered, pairs = tasks[order], np.stack([after, before], axis=1)[edge_order]
    for rank in range(graph.devices):
        yield Rank(ordered[bounds[rank] : bounds[rank + 1]], pairs[edge_bounds[rank] : edge_bounds[rank + 1]])


def _parts(graph: TaskGraph) -> tuple[_Ints, _Ints]:
    """Task and device of every part of a task, by task; a TRANSFER to its own device has one."""
    simple = np.flatnonzero(graph.kind != Kind.ALL_REDUCE)
    moves = np.flatnonzero((graph.kind == Kind.TRANSFER) & (graph.device != graph.peer))
    reduces = np.flatnonzero(graph.kind == Kind.ALL_REDUCE)
    group = graph.peer[reduces]
    of_reduce, at = _expanded(graph.member_start[group], np.diff(graph.member_start)[group])
    tasks = np.concatenate([simple, moves, reduces[of_reduce]]).astype(np.int64)
    places = np.concatenate([graph.device[simple], graph.peer[moves], graph.members[at]]).astype(np.int64)
    order = np.argsort(tasks, kind="stable")
    return tasks[order], places[order]


def _expanded(start: _Ints, count: _Ints) -> tuple[_Ints, _Ints]:
    """Row and position of every item of ranges."""
    row = np.repeat(np.arange(len(count)), count)
    return row, start[row] + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)


def _meetings(graph: TaskGraph, tasks: _Ints, places: _Ints, starting: _Ints) -> tuple[_Ints, _Ints, _Ints]:
    """Edges with every device where both ends are: after, before, where."""
    before = np.repeat(np.arange(len(graph)), np.diff(graph.successor_start))
    first = np.searchsorted(tasks, np.arange(len(graph) + 1))
    edge, at = _expanded(first[before], np.diff(first)[before])
    meets = np.isin(graph.successors[edge].astype(np.int64) * graph.devices + places[at], starting)
    edge, at = edge[meets], at[meets]
    apart = np.bincount(edge, minlength=len(before)) == 0
    if apart.any():
        lost = int(np.argmax(apart))
        pair = f"{before[lost]} and {graph.successors[lost]}"
        raise ValueError(f"TaskGraph.successors must join tasks that meet at a device to be exported, not {pair}")
    return graph.successors[edge].astype(np.int64), before[edge], places[at]
