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
    """Go through the devices in turn.

    What waits for a BARRIER waits for those tasks before it that it meets, as in an all-to-all each rank waits for what it
    sends and gets. Raises ValueError if tasks wait for each other that meet at no device, or barriers for each other:
    formats with one program per rank cannot say so. A task meets what it waits for where it starts: a TRANSFER at its
    source. O(edges x members).
    """
    tasks, places = _parts(graph)
    # The receiving end of a transfer does not start it, so what the transfer waits for need not be there.
    starts = ~((graph.kind[tasks] == Kind.TRANSFER) & (places != graph.device[tasks]))
    met = zip(_meetings(graph, tasks, places, starts), _through_barriers(graph, tasks, places, starts), strict=True)
    after, before, where = (np.concatenate(both) for both in met)
    order, edge_order = np.lexsort((tasks, places)), np.lexsort((before, after, where))
    bounds = np.searchsorted(places[order], np.arange(graph.devices + 1))
    edge_bounds = np.searchsorted(where[edge_order], np.arange(graph.devices + 1))
    ordered, pairs = tasks[order], np.stack([after, before], axis=1)[edge_order]
    for rank in range(graph.devices):
        yield Rank(ordered[bounds[rank] : bounds[rank + 1]], pairs[edge_bounds[rank] : edge_bounds[rank + 1]])


def _parts(graph: TaskGraph) -> tuple[_Ints, _Ints]:
    """Task and device of every part of a task, by task; a TRANSFER to its own device has one."""
    simple = np.flatnonzero((graph.kind != Kind.ALL_REDUCE) & (graph.kind != Kind.BARRIER))
    moves = np.flatnonzero((graph.kind == Kind.TRANSFER) & (graph.device != graph.peer))
    reduces = np.flatnonzero(graph.kind == Kind.ALL_REDUCE)
    group = graph.peer[reduces]
    of_reduce, at = _expanded(graph.member_start[group], np.diff(graph.member_start)[group])
    tasks = np.concatenate([simple, moves, reduces[of_reduce]]).astype(np.int64)
    places = np.concatenate([graph.device[simple], graph.peer[moves], graph.members[at]]).astype(np.int64)
    # Parts are sorted by task, so that those of any task are found by binary search.
    order = np.argsort(tasks, kind="stable")
    return tasks[order], places[order]


def _expanded(start: _Ints, count: _Ints) -> tuple[_Ints, _Ints]:
    """Row and position of every item of ranges."""
    row = np.repeat(np.arange(len(count)), count)
    return row, start[row] + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)


def _edges(graph: TaskGraph) -> tuple[_Ints, _Ints]:
    """Tell which tasks are before and after each."""
    return np.repeat(np.arange(len(graph)), np.diff(graph.successor_start)), graph.successors.astype(np.int64)


def _spread(of_edge: _Ints, tasks: _Ints) -> tuple[_Ints, _Ints]:
    """Every part of the task of every edge: which edge, which part."""
    return _expanded(np.searchsorted(tasks, of_edge), np.searchsorted(tasks, of_edge + 1) - np.searchsorted(tasks, of_edge))


def _meetings(graph: TaskGraph, tasks: _Ints, places: _Ints, starts: NDArray[np.bool_]) -> tuple[_Ints, _Ints, _Ints]:
    """Edges but those of barriers with every device where both ends are: after, before, where."""
    before, after = _edges(graph)
    joins = (graph.kind[before] != Kind.BARRIER) & (graph.kind[after] != Kind.BARRIER)
    before, after = before[joins], after[joins]
    edge, at = _spread(before, tasks)
    meets = np.isin(after[edge] * graph.devices + places[at], tasks[starts] * graph.devices + places[starts])
    edge, at = edge[meets], at[meets]
    _require_all(np.bincount(edge, minlength=len(before)) > 0, before, after)
    return after[edge], before[edge], places[at]


def _through_barriers(
    graph: TaskGraph, tasks: _Ints, places: _Ints, starts: NDArray[np.bool_]
) -> tuple[_Ints, _Ints, _Ints]:
    """What waits for a barrier, what it waits for at the same device, where."""
    before, after = _edges(graph)
    into, out = (graph.kind[end] == Kind.BARRIER for end in (after, before))
    if (into & out).any():
        task = int(before[np.argmax(into & out)])
        raise ValueError(f"TaskGraph.kind[{task}] must be no BARRIER before another to be exported")
    came, at_came = _spread(before[into], tasks)
    goes, at_goes = _spread(after[out], tasks)
    goes, at_goes = goes[starts[at_goes]], at_goes[starts[at_goes]]
    key_came, key_goes = (
        end[edge] * graph.devices + places[at]
        for end, edge, at in ((after[into], came, at_came), (before[out], goes, at_goes))
    )
    # Both sides of a barrier are joined by sorting, since comparing all with all would take quadratic time.
    order = np.argsort(key_came, kind="stable")
    first, last = (np.searchsorted(key_came[order], key_goes, side=side) for side in ("left", "right"))
    row, at = _expanded(first, last - first)
    _require_all(np.bincount(goes[row], minlength=int(out.sum())) > 0, before[out], after[out])
    return after[out][goes[row]], before[into][came[order][at]], places[at_goes[row]]


def _require_all(met: NDArray[np.bool_], before: _Ints, after: _Ints) -> None:
    if not met.all():
        lost = int(np.argmin(met))
        pair = f"{before[lost]} and {after[lost]}"
        raise ValueError(f"TaskGraph.successors must join tasks that meet at a device to be exported, not {pair}")
