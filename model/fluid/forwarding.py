"""Store-and-forward: a message is whole at each vertex before its next link takes it, first come, first served.

The engine has no such links, but devices that do one thing at a time in the order in which it gets ready are just that, so a
link becomes a device, and a hop of a message two computations: its bytes at the rate of the link, and then the latency.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fluid.network import Links, Network, join
from lightfabric.model.task import Kind, TaskGraph

MAX_TASKS = 1 << 24
"""Most tasks that a job becomes, of 160 bytes each while it runs."""

_Ints = NDArray[np.int64]


class _Messages(NamedTuple):
    """Messages alike, one after the other: ``repeats`` of ``size`` bytes from a rank to another, for a task."""

    task: _Ints
    source: _Ints
    destination: _Ints
    size: NDArray[np.float64]
    repeats: _Ints


def pairs(graph: TaskGraph) -> set[tuple[int, int]]:
    """Tell which devices send to which others, messages of no bytes too."""
    found = _messages(graph)
    return set(zip(found.source.tolist(), found.destination.tolist(), strict=True))


def stored_and_forwarded(graph: TaskGraph, network: Network, message_latency_ps: int) -> tuple[TaskGraph, Network]:
    """Make of a job one whose schedule is that of its messages, stored at each end of a link; ``network`` has all ``pairs``.

    A message of S bytes over h free links of rate r takes h S / r and h latencies, those of the links and of a message. An
    ALL_REDUCE is 2 (n - 1) messages of work / n from each member to the next, one after the other. The first tasks are
    those of ``graph``, of which those that communicate are the BARRIER that begins them.
    ValueError for more than ``MAX_TASKS``. O(messages x hops).

    >>> from lightfabric.model.fluid import engine
    >>> from lightfabric.model.fluid.network import star
    >>> one = lambda *values: np.array(values, np.int32)
    >>> graph = TaskGraph(2, one(1).astype(np.int8), one(0), np.array([1000]), one(1), one(1),
    ...                   np.array([0, 0]), one(), np.array([0]), one())
    >>> job, links = stored_and_forwarded(graph, star(2, 1e9, pairs(graph)), 500)
    >>> engine.run(job, links).makespan_ps
    2001000
    """
    found = _messages(graph)
    place = np.searchsorted(network.pair_key, found.source * network.devices + found.destination)
    first, hops = network.route_start[place], np.diff(network.route_start)[place]
    steps = found.repeats * hops
    talking = np.unique(found.task)
    total = len(graph) + len(talking) + 2 * int(steps.sum())
    if total > MAX_TASKS:
        raise ValueError(f"messages must be at most {MAX_TASKS // 2} over all hops to be stored there, not {total // 2}")
    message = np.repeat(np.arange(len(steps)), steps)
    step = np.arange(len(message)) - np.repeat(np.cumsum(steps) - steps, steps)
    link = network.route_links[first[message] + step % hops[message]].astype(np.int64)
    hop_ps = np.rint(found.size[message] / network.bytes_per_s[link] * 1e12).astype(np.int64)
    ends, begins = len(graph), len(graph) + len(talking)
    waits_ps = network.latency_ps[link] + message_latency_ps
    # Nothing else is done where a message waits for the end of a latency, so each has a device of its own.
    devices = graph.devices + len(network.bytes_per_s)
    work = np.stack([hop_ps, waits_ps], axis=1).ravel()
    device = np.stack([graph.devices + link, devices + np.arange(len(link))], axis=1).ravel()
    idle = (graph.kind == Kind.TRANSFER) | (graph.kind == Kind.ALL_REDUCE)
    job = _graph(
        devices + len(link),
        np.concatenate(
            [np.where(idle, Kind.BARRIER, graph.kind), np.full(len(talking), Kind.BARRIER), np.full(len(work), 0)]
        ),
        np.concatenate([np.where(idle, -1, graph.device), np.full(len(talking), -1), device]),
        np.concatenate([np.where(idle, 0, graph.work), np.zeros(len(talking), np.int64), work]),
        _edges(graph, talking, ends, begins, found, steps),
    )
    none = np.zeros(0, np.int64)
    return job, join(
        job.devices, [Links(none.astype(np.int32), none.astype(np.int32), 1.0, 0)], none, none, none.reshape(0, 1)
    )


def _messages(graph: TaskGraph) -> _Messages:
    moves = np.flatnonzero((graph.kind == Kind.TRANSFER) & (graph.device != graph.peer))
    members = np.diff(graph.member_start)
    reduces = np.flatnonzero((graph.kind == Kind.ALL_REDUCE) & (graph.work > 0))
    reduces = reduces[members[graph.peer[reduces]] > 1]
    group = graph.peer[reduces]
    task = np.repeat(reduces, members[group])
    at = np.arange(len(task)) - np.repeat(np.cumsum(members[group]) - members[group], members[group])
    of = graph.peer[task]
    source, destination = (graph.members[graph.member_start[of] + each] for each in (at, (at + 1) % members[of]))
    operations = graph.operations.astype(np.int64)
    tasks = np.concatenate([moves, task])
    order = np.argsort(tasks, kind="stable")
    size = np.concatenate([graph.work[moves] / operations[moves], graph.work[task] / members[of] / operations[task]])
    repeats = np.concatenate([operations[moves], 2 * (members[of] - 1) * operations[task]])
    ends = (
        np.concatenate(each).astype(np.int64) for each in ((graph.device[moves], source), (graph.peer[moves], destination))
    )
    sources, destinations = (each[order] for each in ends)
    return _Messages(tasks[order], sources, destinations, size[order], repeats[order])


def _edges(graph: TaskGraph, talking: _Ints, ends: int, begins: int, found: _Messages, steps: _Ints) -> _Ints:
    """What waits for what, as rows (before, after): the tasks, then the messages from the begin of each to its end."""
    before = np.repeat(np.arange(len(graph)), np.diff(graph.successor_start))
    end = np.arange(len(graph))
    end[talking] = ends + np.arange(len(talking))
    last = begins + 2 * np.cumsum(steps)
    first = last - 2 * steps
    inside = np.ones(2 * int(steps.sum()), bool)
    inside[first - begins] = False
    chained = begins + np.flatnonzero(inside)
    pairs_of = [
        (end[before], graph.successors.astype(np.int64)), (found.task, first), (last - 1, end[found.task]),
        (chained - 1, chained),
    ]  # fmt: skip
    return np.concatenate([np.stack(each, axis=1) for each in pairs_of])


def _graph(devices: int, kind: _Ints, device: _Ints, work: _Ints, edges: _Ints) -> TaskGraph:
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    before, after = edges[order].T
    return TaskGraph(
        devices, kind.astype(np.int8), device.astype(np.int32), work, np.full(len(kind), -1, np.int32),
        np.ones(len(kind), np.int32), np.searchsorted(before, np.arange(len(kind) + 1)).astype(np.int64),
        after.astype(np.int32), np.zeros(1, np.int64), np.zeros(0, np.int32),
    )  # fmt: skip
