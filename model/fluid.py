"""Fluid model: transfers share links max-min fairly, nothing happens between events, time jumps from one to the next.

A *path* is what one flow occupies: the route of a pair, or all routes of an all-reduce ring. Flows on one path have one
rate, so a path keeps a virtual clock, the bytes it has served to each of its flows, and a flow ends when that clock reads
its own target. When flows come or go, rates are computed again only for the paths that share links with them, directly or
through others. The rate of a path is the level at which one of its links fills up when all rates of that component rise
together from 0 (progressive filling: Bertsekas and Gallager, Data Networks, 1992, 6.5.2).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from lightfabric.model.network import Network
from lightfabric.model.task import Kind, Schedule, TaskGraph

HORIZON_PS = 1 << 62
"""Schedules must end before this, 53 days, so that no sum of two times overflows."""

_COMPUTE, _BARRIER = int(Kind.COMPUTE), int(Kind.BARRIER)
_NOWHERE = -1


Records = Any
"""An array in compiled code: the type checker does not see the fields of its dtype, nor that an element is a scalar."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    return cast(_Function, cast(Any, numba.njit)(cache=True, error_model="numpy", _nrt=False)(function))


def _record(**fields: str) -> np.dtype[Any]:
    """An aligned structured dtype whose elements read as ``element.field``, compiled or not."""
    assert not any(hasattr(np.record, name) for name in fields), "numpy's own attributes hide fields of their name"
    return np.dtype((np.record, np.dtype(list(fields.items()), align=True)))


def run(graph: TaskGraph, network: Network, *, message_latency_ps: int = 0) -> Schedule:
    """Schedule of one iteration, the same for the same input to the picosecond.

    A TRANSFER occupies its route from its start until its last byte has left; an ALL_REDUCE occupies the routes from each
    member to the next, at one rate, until 2(n-1)/n of ``work`` has left every member. Both finish ``operations`` latencies
    later: of the route plus ``message_latency_ps``, times 2(n-1) for an ALL_REDUCE, whose slowest route counts. A transfer
    to its own device, of no bytes, or a ring of one member finishes at once. Times are rounded to the nearest picosecond.

    ``Schedule.limit`` is the link that set the last rate of a flow, or -1 when its latency took longer than its bytes.

    Raises ValueError when a pair has no route, when tasks wait for each other in a cycle, or beyond ``HORIZON_PS``.
    Complexity: O(log tasks) per event, plus O(links log links + routes) in the component of links whose flows changed.

    >>> from lightfabric.model.network import star
    >>> one = lambda *values: np.array(values, np.int32)
    >>> graph = TaskGraph(2, one(1).astype(np.int8), one(0), np.array([1000]), one(1), one(1),
    ...                   np.array([0, 0]), one(), np.array([0]), one())
    >>> run(graph, star(2, bytes_per_s=1e9, pairs=[(0, 1)]), message_latency_ps=500).makespan_ps
    1000500
    """
    if graph.devices > network.devices:
        raise ValueError(f"TaskGraph.devices must be at most the {network.devices} of the network, not {graph.devices}")
    world = _world(graph, network, message_latency_ps)
    if not _run(world):
        raise ValueError(f"TaskGraph.work must end within {HORIZON_PS} ps on this network, not later")
    task, link = world.task, world.link
    waiting = np.flatnonzero(task["waiting"] > 0)
    if len(waiting):
        raise ValueError(f"TaskGraph.successors must form no cycle, not one through or before task {waiting[0]}")
    return Schedule(task["start_ps"].copy(), task["finish_ps"].copy(), task["limit"].copy(), link["busy_ps"].copy())


_TASK = _record(
    kind="i1", waiting="i4", limit="i4", runs_on="i8", path="i8", work_ps="i8", flow_bytes="f8", latency_ps="i8",
    edge="i8", edge_end="i8", start_ps="i8", finish_ps="i8", next_ready="i8",
)  # fmt: skip
"""A task. ``path`` is -1 when it occupies none; ``flow_bytes`` is what each route of the path carries; ``edge`` to
``edge_end`` are its successors. Tasks that can start form a stack through ``next_ready``."""

_PATH = _record(
    entry="i8", entry_end="i8", queue="i8", flows="i8", settled_flows="i8", rate="f8", served="f8", since_ps="i8",
    bottleneck="i8", seen_round="i8", fixed_round="i8", changed="i8", next_changed="i8",
)  # fmt: skip
"""A path. ``flows`` are on it now, ``settled_flows`` when ``rate``, bytes per picosecond to each, was last settled;
``served`` bytes to each until ``since_ps``. Paths whose flows have ``changed`` form a stack through ``next_changed``.
``seen_round`` is the last settlement that reached it, ``fixed_round`` the last that found its rate."""

_ENTRY = _record(link="i8", path="i8", uses="i8", after="i8", before="i8")
"""A path on a link, which it occupies ``uses`` times; those of active paths form a list through ``after``, ``before``."""

_LINK = _record(
    capacity="f8", first="i8", busy_since_ps="i8", busy_ps="i8", seen_round="i8", free="f8", rising="i8",
)  # fmt: skip
"""A link, in bytes per picosecond. ``first`` entry of an active path, -1 if idle. While a component settles, ``free`` is
what the paths of known rate leave, ``rising`` the flows whose rates still rise."""

_DEVICE = _record(busy="i8", next_awake="i8")
"""A device; those that are idle and have work form a stack through ``next_awake``."""

_QUEUE = _record(start="i8", count="i8")
"""A binary heap in ``item[start:start + count]``, least (key, item) first."""

_OCCASION = _record(time_ps="i8", place="i8")
"""When a task finishes or the next flow of a path ends, and where in the calendar that stands, -1 if it does not."""

_READY, _AWAKE, _CHANGED, _CALENDAR, _ROUND, _REACHED, _RISING = range(7)


class _World(NamedTuple):
    """All that the compiled engine knows: t tasks, p paths, l links, d devices, as arrays of records.

    Queue i below d holds the computations that wait for device i, by the moment they got ready; queue d + i the flows of
    path i, by the bytes served at which they end; the last one links, items t to t + l, by the level at which they fill
    up. ``key`` is by item. The calendar is one more binary heap, of ``occasion``: tasks, and paths from t on.
    ``size`` holds the heads of the stacks, and the counts of the calendar, of the settlements, of the links reached by
    the one under way and of its paths whose rates still rise.
    """

    task: Records
    successor: Records
    path: Records
    entry: Records
    link: Records
    reached: Records
    device: Records
    queue: Records
    item: Records
    key: Records
    calendar: Records
    occasion: Records
    size: Records


def _world(graph: TaskGraph, network: Network, message_latency_ps: int) -> _World:
    """Everything at rest at time 0. Paths 0.. are the routes of the network, the rings of the graph's groups follow."""
    task = _tasks(graph, network, message_latency_ps)
    path, entry = _paths(graph, network, np.unique(graph.peer[(task["path"] >= 0) & (graph.kind == Kind.ALL_REDUCE)]))
    path["queue"] = graph.devices + np.arange(len(path))
    link = _records(_LINK, len(network.bytes_per_s), capacity=network.bytes_per_s * 1e-12, first=_NOWHERE)
    moves = task["path"] >= 0
    queued = np.concatenate([graph.device[graph.kind == Kind.COMPUTE], graph.devices + task["path"][moves]]).astype(np.int64)
    queue = _records(_QUEUE, graph.devices + len(path) + 1)
    queue["start"][1:] = np.cumsum(np.bincount(queued, minlength=len(queue) - 1))
    items, events = len(task) + len(link), len(task) + len(path)
    world = _World(
        task, graph.successors, path, entry, link, np.empty(len(link), np.int64),
        _records(_DEVICE, graph.devices), queue, np.empty(items, np.int64), np.empty(items),
        np.empty(events, np.int64), _records(_OCCASION, events, place=_NOWHERE), np.zeros(7, np.int64),
    )  # fmt: skip
    world.size[[_READY, _AWAKE, _CHANGED]] = _NOWHERE
    return world


def _records(dtype: np.dtype[Any], count: int, **values: Any) -> Records:
    """Records with the given fields and zeros elsewhere."""
    records = np.zeros(count, dtype)
    for name, value in values.items():
        records[name] = value
    return records


def _tasks(graph: TaskGraph, network: Network, message_latency_ps: int) -> Records:
    routes, route_ps = len(network.pair_key), _route_latency_ps(network)
    transfer, reduce_ = graph.kind == Kind.TRANSFER, graph.kind == Kind.ALL_REDUCE
    members = np.ones(len(graph), np.int64)
    members[reduce_] = np.diff(graph.member_start)[graph.peer[reduce_]]
    pairs = transfer & (graph.work > 0) & (graph.device != graph.peer)
    rings = reduce_ & (graph.work > 0) & (members > 1)
    path, steps = np.full(len(graph), _NOWHERE, np.int64), np.zeros(len(graph))
    path[pairs] = _routes_of(network, graph.device[pairs], graph.peer[pairs])
    path[rings] = routes + graph.peer[rings]
    steps[pairs], steps[rings] = 1, 2 * (members[rings] - 1)
    edge_group, edge_route = _ring_routes(graph, network, np.unique(graph.peer[rings]))
    path_ps = np.concatenate([route_ps, np.zeros(len(graph.member_start) - 1, np.int64), [0]])
    np.maximum.at(path_ps, routes + edge_group, route_ps[edge_route])
    latency_ps = steps * graph.operations * (path_ps[path] + message_latency_ps)
    if len(graph) and latency_ps.max() >= HORIZON_PS:
        raise ValueError(f"TaskGraph.operations must have latencies below {HORIZON_PS} ps, not {latency_ps.max():.3g} ps")
    return _records(
        _TASK, len(graph), kind=graph.kind, waiting=np.bincount(graph.successors, minlength=len(graph)), limit=_NOWHERE,
        runs_on=graph.device, path=path, work_ps=graph.work, latency_ps=latency_ps,
        flow_bytes=np.where(rings, 2 * (members - 1) / np.maximum(members, 1), 1) * graph.work,
        edge=graph.successor_start[:-1], edge_end=graph.successor_start[1:],
    )  # fmt: skip


def _routes_of(network: Network, source: NDArray[np.int32], destination: NDArray[np.int32]) -> NDArray[np.int64]:
    """Position of each pair's route in ``pair_key``."""
    key = source.astype(np.int64) * network.devices + destination
    place = np.searchsorted(network.pair_key, key)
    found = place < len(network.pair_key)
    found[found] = network.pair_key[place[found]] == key[found]
    found[found] = np.diff(network.route_start)[place[found]] > 0
    if not found.all():
        pair = int(np.flatnonzero(~found)[0])
        raise ValueError(f"Network must have a route from GPU {source[pair]} to GPU {destination[pair]}, not none")
    return place


def _ring_routes(graph: TaskGraph, network: Network, used: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every edge of the rings of the groups ``used``: the group, the route."""
    row, step = _ragged(np.diff(graph.member_start)[used])
    group = used[row].astype(np.int64)
    start, size = graph.member_start[group], np.diff(graph.member_start)[group]
    source, destination = graph.members[start + step], graph.members[start + (step + 1) % size]
    return group, _routes_of(network, source, destination)


def _ragged(size: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and position in the row of every item of rows of the given sizes."""
    row = np.repeat(np.arange(len(size)), size)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)


def _route_latency_ps(network: Network) -> NDArray[np.int64]:
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(network.latency_ps[network.route_links])])
    return sums[network.route_start[1:]] - sums[network.route_start[:-1]]


def _paths(graph: TaskGraph, network: Network, used: NDArray[np.int32]) -> tuple[Records, Records]:
    """Paths and their entries; a link that several routes of a ring share is entered once, used several times."""
    routes, links = len(network.pair_key), max(len(network.bytes_per_s), 1)
    group, edge_route = _ring_routes(graph, network, used)
    owner, route = np.concatenate([np.arange(routes), routes + group]), np.concatenate([np.arange(routes), edge_route])
    row, step = _ragged(np.diff(network.route_start)[route])
    key, uses = np.unique(
        owner[row] * links + network.route_links[network.route_start[route[row]] + step], return_counts=True
    )
    entry = _records(_ENTRY, len(key), link=key % links, path=key // links, uses=uses)
    ends = np.cumsum(np.bincount(entry["path"], minlength=routes + len(graph.member_start) - 1))
    return _records(_PATH, len(ends), entry_end=ends, entry=np.concatenate([[0], ends[:-1]]), bottleneck=_NOWHERE), entry


@_compiled
def _push(world: _World, queue: int, item: int, key: float) -> None:
    this = world.queue[queue]
    start, hole = this.start, this.count
    this.count += 1
    world.key[item] = key
    while hole > 0:
        parent = (hole - 1) >> 1
        other = world.item[start + parent]
        if world.key[other] < key or (world.key[other] == key and other < item):
            break
        world.item[start + hole] = other
        hole = parent
    world.item[start + hole] = item


@_compiled
def _pop(world: _World, queue: int) -> int:
    this = world.queue[queue]
    this.count -= 1
    start, count = this.start, this.count
    least, item = world.item[start], world.item[start + count]
    key = world.key[item]
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= count:
            break
        other = world.item[start + child]
        if child + 1 < count:
            right = world.item[start + child + 1]
            if world.key[right] < world.key[other] or (world.key[right] == world.key[other] and right < other):
                child += 1
                other = right
        if key < world.key[other] or (key == world.key[other] and item < other):
            break
        world.item[start + hole] = other
        hole = child
    world.item[start + hole] = item
    return least


@_compiled
def _earlier(world: _World, a: int, b: int) -> bool:
    time_a, time_b = world.occasion[a].time_ps, world.occasion[b].time_ps
    return time_a < time_b or (time_a == time_b and a < b)


@_compiled
def _seat(world: _World, hole: int, item: int) -> None:
    """Find the place of an item in the calendar, from a hole up or down."""
    count = world.size[_CALENDAR]
    while hole > 0:
        parent = (hole - 1) >> 1
        other = world.calendar[parent]
        if _earlier(world, other, item):
            break
        world.calendar[hole] = other
        world.occasion[other].place = hole
        hole = parent
    while True:
        child = 2 * hole + 1
        if child >= count:
            break
        if child + 1 < count and _earlier(world, world.calendar[child + 1], world.calendar[child]):
            child += 1
        other = world.calendar[child]
        if _earlier(world, item, other):
            break
        world.calendar[hole] = other
        world.occasion[other].place = hole
        hole = child
    world.calendar[hole] = item
    world.occasion[item].place = hole


@_compiled
def _schedule(world: _World, item: int, time_ps: int) -> None:
    """Put an item on the calendar, or move it."""
    this = world.occasion[item]
    this.time_ps = time_ps
    hole = this.place
    if hole == _NOWHERE:
        hole = world.size[_CALENDAR]
        world.size[_CALENDAR] += 1
    _seat(world, hole, item)


@_compiled
def _next(world: _World) -> int:
    """Take the first item off the calendar."""
    item = world.calendar[0]
    first = world.occasion[item].place
    world.occasion[item].place = _NOWHERE
    world.size[_CALENDAR] -= 1
    if world.size[_CALENDAR] > 0:
        _seat(world, first, world.calendar[world.size[_CALENDAR]])
    return item


@_compiled
def _occupy(world: _World, path: int, now_ps: int) -> None:
    """The first flow on a path: enter it in the lists of its links."""
    for e in range(world.path[path].entry, world.path[path].entry_end):
        entry = world.entry[e]
        link = world.link[entry.link]
        entry.after = link.first
        entry.before = _NOWHERE
        if link.first == _NOWHERE:
            link.busy_since_ps = now_ps
        else:
            world.entry[link.first].before = e
        link.first = e


@_compiled
def _vacate(world: _World, path: int, now_ps: int) -> None:
    """The last flow has left a path."""
    for e in range(world.path[path].entry, world.path[path].entry_end):
        entry = world.entry[e]
        link = world.link[entry.link]
        if entry.after != _NOWHERE:
            world.entry[entry.after].before = entry.before
        if entry.before != _NOWHERE:
            world.entry[entry.before].after = entry.after
        else:
            link.first = entry.after
            if link.first == _NOWHERE:
                link.busy_ps += now_ps - link.busy_since_ps


@_compiled
def _advance(world: _World, path: int, now_ps: int) -> None:
    """Bring a path's virtual clock to now, and note that its flows change."""
    this = world.path[path]
    this.served += this.rate * (now_ps - this.since_ps)
    this.since_ps = now_ps


@_compiled
def _note_change(world: _World, path: int) -> None:
    this = world.path[path]
    if not this.changed:
        this.changed = 1
        this.next_changed = world.size[_CHANGED]
        world.size[_CHANGED] = path


@_compiled
def _begin_flow(world: _World, task: int, now_ps: int) -> None:
    path = world.task[task].path
    this = world.path[path]
    _note_change(world, path)
    if this.flows == 0:
        _occupy(world, path, now_ps)
        this.served = 0.0
        this.since_ps = now_ps
    else:
        _advance(world, path, now_ps)
    this.flows += 1
    _push(world, this.queue, task, this.served + world.task[task].flow_bytes)


@_compiled
def _make_ready(world: _World, task: int) -> None:
    world.task[task].next_ready = world.size[_READY]
    world.size[_READY] = task


@_compiled
def _release(world: _World, task: int, now_ps: int) -> None:
    """A task has finished: its successors may start."""
    this = world.task[task]
    this.finish_ps = now_ps
    for edge in range(this.edge, this.edge_end):
        successor: Any = np.int64(world.successor[edge])
        world.task[successor].waiting -= 1
        if world.task[successor].waiting == 0:
            _make_ready(world, successor)


@_compiled
def _end_flows(world: _World, path: int, now_ps: int) -> None:
    """The next flow of a path ends now, and with it all that would end within half a picosecond."""
    this = world.path[path]
    queue = world.queue[this.queue]
    _note_change(world, path)
    _advance(world, path, now_ps)
    this.served = max(this.served, world.key[world.item[queue.start]])
    until = this.served + 0.5 * this.rate
    while queue.count > 0 and world.key[world.item[queue.start]] <= until:
        task = _pop(world, this.queue)
        ended = world.task[task]
        this.flows -= 1
        if ended.latency_ps <= now_ps - ended.start_ps:
            ended.limit = this.bottleneck
        _schedule(world, task, now_ps + ended.latency_ps)
    if this.flows == 0:
        _vacate(world, path, now_ps)


@_compiled
def _wake(world: _World, device: int) -> None:
    world.device[device].next_awake = world.size[_AWAKE]
    world.size[_AWAKE] = device


@_compiled
def _finish(world: _World, task: int, now_ps: int) -> None:
    """The time of a task on the calendar has come: it has computed, or its last byte has arrived."""
    if world.task[task].kind == _COMPUTE:
        device = world.task[task].runs_on
        world.device[device].busy = 0
        if world.queue[device].count > 0:
            _wake(world, device)
    _release(world, task, now_ps)


@_compiled
def _start_ready(world: _World, moment: float, now_ps: int) -> None:
    """Start flows and barriers, queue computations. Equal ``moment`` is equal time, small enough to be exact in a float."""
    while world.size[_READY] != _NOWHERE:
        task = world.size[_READY]
        this = world.task[task]
        world.size[_READY] = this.next_ready
        this.start_ps = now_ps
        if this.kind == _COMPUTE:
            device = this.runs_on
            _push(world, device, task, moment)
            if world.queue[device].count == 1 and not world.device[device].busy:
                _wake(world, device)
        elif this.path == _NOWHERE:
            _release(world, task, now_ps)
        else:
            _begin_flow(world, task, now_ps)


@_compiled
def _start_devices(world: _World, now_ps: int) -> bool:
    """Start the first computation of each idle device; False if one ends beyond the horizon."""
    while world.size[_AWAKE] != _NOWHERE:
        device = world.size[_AWAKE]
        world.size[_AWAKE] = world.device[device].next_awake
        world.device[device].busy = 1
        task = _pop(world, device)
        this = world.task[task]
        this.start_ps = now_ps
        if this.work_ps >= HORIZON_PS - now_ps:
            return False
        _schedule(world, task, now_ps + this.work_ps)
    return True


@_compiled
def _reach(world: _World, path: int) -> None:
    """Take the links of a path into the component, unless they are in it or settled."""
    for e in range(world.path[path].entry, world.path[path].entry_end):
        link = world.link[world.entry[e].link]
        if link.seen_round != world.size[_ROUND]:
            link.seen_round = world.size[_ROUND]
            link.free = link.capacity
            link.rising = 0
            world.reached[world.size[_REACHED]] = world.entry[e].link
            world.size[_REACHED] += 1


@_compiled
def _gather(world: _World, seed: int) -> None:
    """Component of all links and active paths that share links with a path, directly or through others."""
    world.size[_REACHED] = 0
    world.size[_RISING] = 0
    _reach(world, seed)
    done = 0
    while done < world.size[_REACHED]:
        e = world.link[world.reached[done]].first
        done += 1
        while e != _NOWHERE:
            path = world.entry[e].path
            this = world.path[path]
            if this.seen_round != world.size[_ROUND]:
                this.seen_round = world.size[_ROUND]
                world.size[_RISING] += 1
                _reach(world, path)
                for other in range(this.entry, this.entry_end):
                    world.link[world.entry[other].link].rising += this.flows * world.entry[other].uses
            e = world.entry[e].after


@_compiled
def _call(world: _World, path: int) -> bool:
    """Put the end of a path's next flow on the calendar; False if it is beyond the horizon."""
    this = world.path[path]
    first = world.item[world.queue[this.queue].start]
    left_ps = max(world.key[first] - this.served, 0.0) / this.rate
    if left_ps >= HORIZON_PS - this.since_ps:
        return False
    _schedule(world, len(world.task) + path, this.since_ps + np.int64(math.floor(left_ps + 0.5)))
    return True


@_compiled
def _fix(world: _World, path: int, link: int, level: float, now_ps: int) -> bool:
    """A link is full: the rate of a path rises no further. False if its next flow ends beyond the horizon."""
    this = world.path[path]
    this.fixed_round = world.size[_ROUND]
    this.bottleneck = link
    world.size[_RISING] -= 1
    for e in range(this.entry, this.entry_end):
        entry = world.entry[e]
        weight = this.flows * entry.uses
        world.link[entry.link].free -= level * weight
        world.link[entry.link].rising -= weight
    if this.rate == level:
        return True
    _advance(world, path, now_ps)
    this.rate = level
    return this.changed or _call(world, path)


@_compiled
def _fill(world: _World, now_ps: int) -> bool:
    """Raise all rates of the component together until links fill up, one after the other; False beyond the horizon.

    The level at which a link would fill only rises as others fill, so a stale key is a lower bound.
    """
    queue, tasks = len(world.queue) - 1, len(world.task)
    filling = world.queue[queue]
    filling.count = 0
    for i in range(world.size[_REACHED]):
        link = world.link[world.reached[i]]
        if link.rising > 0:
            _push(world, queue, tasks + world.reached[i], link.free / link.rising)
    level = 0.0
    while world.size[_RISING] > 0:
        item = _pop(world, queue)
        link = world.link[item - tasks]
        if link.rising == 0:
            continue
        share = link.free / link.rising
        if share > world.key[item] and filling.count > 0 and share > world.key[world.item[filling.start]]:
            _push(world, queue, item, share)
            continue
        level = max(level, share)
        e = link.first
        while e != _NOWHERE:
            path = world.entry[e].path
            if world.path[path].fixed_round != world.size[_ROUND] and not _fix(world, path, item - tasks, level, now_ps):
                return False
            e = world.entry[e].after
    return True


@_compiled
def _settle(world: _World, now_ps: int) -> bool:
    """Bring rates and calendar up to date with the flows that came and went; False beyond the horizon."""
    world.size[_ROUND] += 1
    path = world.size[_CHANGED]
    while path != _NOWHERE:
        this = world.path[path]
        if this.flows != this.settled_flows:
            this.settled_flows = this.flows
            if this.flows == 0:
                this.rate = 0.0
            _gather(world, path)
            if not _fill(world, now_ps):
                return False
        path = this.next_changed
    while world.size[_CHANGED] != _NOWHERE:
        path = world.size[_CHANGED]
        this = world.path[path]
        this.changed = 0
        if this.flows > 0 and not _call(world, path):
            return False
        world.size[_CHANGED] = this.next_changed
    return True


@_compiled
def _start(world: _World) -> None:
    """Make ready what waits for nothing."""
    for task in range(len(world.task)):
        if world.task[task].waiting == 0:
            _make_ready(world, task)


@_compiled
def _run(world: _World) -> bool:
    """Event loop, False if it comes to the horizon. A moment is over, and rates settle, when nothing more happens in it."""
    tasks = len(world.task)
    _start(world)
    now_ps: Any = np.int64(0)
    moment = 0.0
    while True:
        while world.size[_CALENDAR] > 0 and world.occasion[world.calendar[0]].time_ps == now_ps:
            item = _next(world)
            if item < tasks:
                _finish(world, item, now_ps)
            else:
                _end_flows(world, item - tasks, now_ps)
        if world.size[_READY] != _NOWHERE:
            _start_ready(world, moment, now_ps)
        elif world.size[_AWAKE] != _NOWHERE:
            if not _start_devices(world, now_ps):
                return False
        elif world.size[_CHANGED] != _NOWHERE:
            if not _settle(world, now_ps):
                return False
        elif world.size[_CALENDAR] > 0:
            now_ps = world.occasion[world.calendar[0]].time_ps
            moment += 1.0
        else:
            return True
