"""Where the time of an iteration goes: its critical path, cut into what each task on it is for, latency and contention.

The critical path is walked back from the last task: before a task comes the predecessor that it waited for, before a
computation that waited for its device the one there. So the parts add up to the iteration, to the picosecond.
"""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fluid.network import Network, ragged
from lightfabric.model.fluid.world import tasks_and_paths
from lightfabric.model.task import SHARES, Kind, Part, Schedule, Share, TaskGraph

# Plain numbers, since a look-up in an enumeration takes as long as the rest of a step along the path.
_COMPUTE, _BARRIER = int(Kind.COMPUTE), int(Kind.BARRIER)
_COMPUTES: dict[int, Share] = {Part.OPTIMISER: "optimiser", Part.RECONFIGURATION: "reconfiguration"}
_MOVES: dict[int, Share] = {
    Part.TENSOR: "tensor", Part.PIPELINE: "pipeline", Part.DATA: "data", Part.EXCHANGE: "exchange", Part.CONTEXT: "exchange"
}  # fmt: skip


def attribution(graph: TaskGraph, network: Network, schedule: Schedule) -> dict[Share, int]:
    """Picoseconds of the iteration by what they are spent on; they add up to ``schedule.makespan_ps``.

    Of a message or a collective the time that its bytes alone would take counts for its part, of a message of an exchange
    that of the whole exchange; its latency is ``latency``, and what it took longer ``contention``, but ``reconfiguration``
    where its circuits had their turn, by the clock, at other times. Passes on the critical path are ``compute`` as far as
    the busiest device has them, the others, which it waits for, ``bubble``. O(tasks + edges).
    ValueError for a graph whose tasks have no part.
    """
    if graph.part is None:
        raise ValueError("TaskGraph.part must be given, not None")
    found, before = dict.fromkeys(SHARES, 0), _Predecessors(graph)
    latency_ps, alone_ps, dark_ps = _alone(graph, network, before)
    for task, begin_ps in _critical_path(graph, schedule, before):
        spent_ps = int(schedule.finish_ps[task]) - begin_ps
        part = int(graph.part[task])
        if graph.kind[task] == _COMPUTE:
            found[_COMPUTES.get(part, "compute")] += spent_ps
        elif graph.kind[task] != _BARRIER:
            late = min(int(latency_ps[task]), spent_ps)
            moved = min(alone_ps(task), spent_ps - late)
            dark = min(dark_ps(task, begin_ps, begin_ps + spent_ps - late), spent_ps - late - moved)
            found["latency"] += late
            found[_MOVES[part]] += moved
            found["reconfiguration"] += dark
            found["contention"] += spent_ps - late - moved - dark
    passes = (graph.kind == Kind.COMPUTE) & (graph.part == Part.COMPUTE)
    busiest_ps = int(np.bincount(graph.device[passes], graph.work[passes]).max(initial=0))
    found["bubble"] = max(found["compute"] - busiest_ps, 0)
    found["compute"] -= found["bubble"]
    return found


class _Predecessors:
    """Lists what a task waits for."""

    def __init__(self, graph: TaskGraph) -> None:
        source = np.repeat(np.arange(len(graph)), np.diff(graph.successor_start))
        self._task = source[np.argsort(graph.successors, kind="stable")]
        self._start = np.concatenate([[0], np.cumsum(np.bincount(graph.successors, minlength=len(graph)))])

    def of(self, task: int) -> NDArray[np.int64]:
        return self._task[self._start[task] : self._start[task + 1]]


def _alone(
    graph: TaskGraph, network: Network, before: _Predecessors
) -> tuple[NDArray[np.int64], Callable[[int], int], Callable[[int, int, int], int]]:
    """Latency of each task, and what tells the time of its bytes, or of its exchange's, with nothing else on the way.

    And what tells how long its circuits are not lit from one moment to another.
    """
    task, path, entry = tasks_and_paths(graph, network, 0)
    bytes_per_ps = network.bytes_per_s * 1e-12
    ps_per_byte = np.zeros(len(path) + 1)  # what moves no bytes is on path -1
    np.maximum.at(ps_per_byte, entry["path"], entry["uses"] / bytes_per_ps[entry["link"]])
    single_ps = np.rint(task["flow_bytes"] * ps_per_byte[task["path"]]).astype(np.int64)

    @cache
    def exchange_ps(barrier: int) -> int:
        """Time of the link that has most to do for all messages before a barrier together."""
        own = before.of(barrier)
        own = own[task["path"][own] >= 0]
        used, place = np.unique(task["path"][own], return_inverse=True)
        sent = np.zeros(len(used))
        np.add.at(sent, place, task["flow_bytes"][own])
        row, step = ragged(path["entry_end"][used] - path["entry"][used])
        entries = entry[path["entry"][used[row]] + step]
        links, place = np.unique(entries["link"], return_inverse=True)
        load = np.zeros(len(links))
        np.add.at(load, place, sent[row] * entries["uses"])
        return round(float((load / bytes_per_ps[links]).max(initial=0)))

    def alone_ps(each: int) -> int:
        after = graph.successors[graph.successor_start[each] : graph.successor_start[each + 1]]
        # A reconfiguration may wait for a message, too.
        ends = after[graph.kind[after] == _BARRIER]
        return exchange_ps(int(ends[0])) if len(ends) == 1 else int(single_ps[each])

    def dark_ps(each: int, begin_ps: int, end_ps: int) -> int:
        own = path[task["path"][each]]
        live_ps, round_ps = int(own["live_ps"]), int(own["round_ps"])
        if task["path"][each] < 0 or round_ps == 0:
            return 0
        rounds = [divmod(at_ps - int(own["light_ps"]), round_ps) for at_ps in (begin_ps, end_ps)]
        first_ps, last_ps = (count * live_ps + min(within_ps, live_ps) for count, within_ps in rounds)
        return end_ps - begin_ps - (last_ps - first_ps)

    return task["latency_ps"], alone_ps, dark_ps


def _critical_path(graph: TaskGraph, schedule: Schedule, before: _Predecessors) -> Iterator[tuple[int, int]]:
    """Tasks from the last to the first, each with the time from which it alone was waited for."""
    finish_ps, on_device = schedule.finish_ps, _Computations(graph, schedule)
    task = int(finish_ps.argmax()) if len(graph) else -1
    while task >= 0:
        own = before.of(task)
        last = int(own[finish_ps[own].argmax()]) if len(own) else -1
        busy = on_device.last_before(task)
        if busy >= 0 and (last < 0 or finish_ps[busy] > finish_ps[last]):
            last = busy
        yield task, int(finish_ps[last]) if last >= 0 else 0
        task = last


class _Computations:
    """Finds the computation that kept a device busy before another one."""

    def __init__(self, graph: TaskGraph, schedule: Schedule) -> None:
        self._graph, self._start_ps = graph, schedule.start_ps
        # One of no time ends where it begins, so it keeps no device busy.
        task = np.flatnonzero((graph.kind == Kind.COMPUTE) & (graph.work > 0))
        order: NDArray[np.intp] = np.lexsort((schedule.finish_ps[task], graph.device[task]))
        self._task = task[order]
        self._finish_ps = schedule.finish_ps[self._task]
        self._first = np.searchsorted(graph.device[self._task], np.arange(graph.devices + 1))

    def last_before(self, task: int) -> int:
        """Computation that ended last on the device of another one before that began; -1 if there is none."""
        if self._graph.kind[task] != _COMPUTE:
            return -1
        device = int(self._graph.device[task])
        first, end = int(self._first[device]), int(self._first[device + 1])
        place = int(np.searchsorted(self._finish_ps[first:end], int(self._start_ps[task]), "right"))
        return int(self._task[first + place - 1]) if place else -1
