"""Fluid model: transfers share links max-min fairly, nothing happens between events, time jumps from one to the next.

A *path* is what one flow occupies: the route of a pair, or all routes of an all-reduce ring. Flows on one path have one
rate, so a path keeps a virtual clock, the bytes it has served to each of its flows, and a flow ends when that clock reads
its own target. The rate of a path is the level at which one of its links fills up when all rates rise together from 0
(progressive filling: Bertsekas and Gallager, Data Networks, 1992, 6.5.2). When flows come or go, rates are computed again
only for the paths whose bottleneck that changes, directly or through others.
"""

from typing import Any

import numpy as np

from lightfabric.model.fluid.alike import Alike
from lightfabric.model.fluid.heap import pop, push, schedule, take_first
from lightfabric.model.fluid.max_min import advance, settle
from lightfabric.model.fluid.network import Network
from lightfabric.model.fluid.world import AWAKE, CALENDAR, CHANGED, HORIZON_PS, LATEST, NOWHERE, READY, World, build_world
from lightfabric.model.kernel.compiled import compiled
from lightfabric.model.kernel.dispatch import entry_point
from lightfabric.model.task import Kind, Schedule, TaskGraph

_COMPUTE = int(Kind.COMPUTE)


class Late(ValueError):  # noqa: N818
    """Says that a schedule does not end before the moment asked for."""


def run(
    graph: TaskGraph,
    network: Network,
    *,
    message_latency_ps: int = 0,
    alike: Alike | None = None,
    before_ps: int = HORIZON_PS,
) -> Schedule:
    """Schedule of one iteration, the same for the same input to the picosecond.

    A TRANSFER occupies its route from its start until its last byte has left; an ALL_REDUCE occupies the routes from each
    member to the next, at one rate, until 2(n-1)/n of ``work`` has left every member. A TRANSFER finishes ``operations``
    latencies later, of its route plus ``message_latency_ps``. An ALL_REDUCE does so as often as it has steps, 2(n-1) times;
    where routes differ it is what a chunk on its way round loses by the latency of each, less what it gains where routes are
    faster than the slowest. A TRANSFER of no bytes needs no route and takes ``message_latency_ps`` alone; one to its own
    device, an ALL_REDUCE of no bytes and one of a single member finish at once. Times are rounded to the nearest picosecond.

    With ``alike`` the tasks are those of devices that stand for others, and run as if all others had theirs; links are all.

    ``Schedule.limit`` is the link that set the last rate of a flow, or -1 when its latency took longer than its bytes.

    Raises ValueError when a pair has no route or when tasks wait for each other in a cycle; Late if it does not end
    ``before_ps``, as soon as what a device has left to compute shows it.
    Complexity: O(log tasks) per event, plus O(links) of each path whose rate changes with it.

    >>> from lightfabric.model.fluid.network import star
    >>> one = lambda *values: np.array(values, np.int32)
    >>> graph = TaskGraph(2, one(1).astype(np.int8), one(0), np.array([1000]), one(1), one(1),
    ...                   np.array([0, 0]), one(), np.array([0]), one())
    >>> run(graph, star(2, bytes_per_s=1e9, pairs=[(0, 1)]), message_latency_ps=500).makespan_ps
    1000500
    """
    if graph.devices > network.devices:
        raise ValueError(f"TaskGraph.devices must be at most the {network.devices} of the network, not {graph.devices}")
    world = build_world(graph, network, message_latency_ps, alike)
    world.size[LATEST] = before_ps
    task, link = world.task, world.link
    if not entry_point(_run, world)(world) or task["finish_ps"].max(initial=0) >= before_ps:
        raise Late(f"TaskGraph.work must end within {before_ps} ps on this network, not later")
    waiting = np.flatnonzero(world.waiting)
    if len(waiting):
        raise ValueError(f"TaskGraph.successors must form no cycle, not one through or before task {waiting[0]}")
    busy_ps = link["busy_ps"].copy() if alike is None else link["busy_ps"][alike.link]
    return Schedule(task["start_ps"].copy(), task["finish_ps"].copy(), task["limit"].copy(), busy_ps)


@compiled
def _occupy(world: World, path: int, now_ps: int) -> None:
    """The first flow on a path: count it on its links, and enter it in the lists of those that may limit its rate."""
    this = world.path[path]
    for e in range(this.entry, this.entry_end):
        link = world.link[world.entry[e].link]
        if link.active == 0:
            link.busy_since_ps = now_ps
        link.active += 1
    # Only entries up to shared_end can limit a rate; ample links after them are counted, but need no lists.
    for e in range(this.entry, this.shared_end):
        entry = world.entry[e]
        link = world.link[entry.link]
        entry.after = link.first
        entry.before = NOWHERE
        if link.first != NOWHERE:
            world.entry[link.first].before = e
        link.first = e


@compiled
def _vacate(world: World, path: int, now_ps: int) -> None:
    """Take a path whose last flow has left off its links and their lists."""
    this = world.path[path]
    for e in range(this.entry, this.entry_end):
        link = world.link[world.entry[e].link]
        link.active -= 1
        if link.active == 0:
            link.busy_ps += now_ps - link.busy_since_ps
    for e in range(this.entry, this.shared_end):
        entry = world.entry[e]
        if entry.after != NOWHERE:
            world.entry[entry.after].before = entry.before
        if entry.before != NOWHERE:
            world.entry[entry.before].after = entry.after
        else:
            world.link[entry.link].first = entry.after


@compiled
def _note_change(world: World, path: int) -> None:
    this = world.path[path]
    # However many of a path's flows change in a moment, it enters the stack once.
    if not this.changed:
        this.changed = 1
        this.next_changed = world.size[CHANGED]
        world.size[CHANGED] = path


@compiled
def _begin_flow(world: World, task: int, now_ps: int) -> None:
    path = world.task[task].path
    this = world.path[path]
    _note_change(world, path)
    if this.flows == 0:
        _occupy(world, path, now_ps)
        # The clock of an idle path may start anew from 0, which keeps the float small and its steps fine.
        this.served = 0.0
        this.since_ps = now_ps
    else:
        # The clock must read the present before a target is set by it, or the flow would be served for time before it began.
        advance(world, path, now_ps)
    this.flows += 1
    push(world, this.queue, task, this.served + world.task[task].flow_bytes)


@compiled
def _make_ready(world: World, task: int) -> None:
    world.task[task].next_ready = world.size[READY]
    world.size[READY] = task


@compiled
def _release(world: World, task: int, now_ps: int) -> None:
    """A task has finished: its successors may start."""
    world.task[task].finish_ps = now_ps
    for edge in range(world.edge[task], world.edge[task + 1]):
        successor: Any = np.int64(world.successor[edge])
        world.waiting[successor] -= 1
        if world.waiting[successor] == 0:
            _make_ready(world, successor)


@compiled
def _end_flows(world: World, path: int, now_ps: int) -> None:
    """The next flow of a path ends now, and with it all that would end within half a picosecond."""
    this = world.path[path]
    queue = world.queue[this.queue]
    _note_change(world, path)
    advance(world, path, now_ps)
    # The event's time was rounded to whole picoseconds, so the clock may fall short of the target: it is put there.
    this.served = max(this.served, world.entrant[queue.start].key)
    # Half a picosecond is what rounding of the event's time can be off: flows that end within it end in this moment.
    until = this.served + 0.5 * this.rate
    while queue.count > 0 and world.entrant[queue.start].key <= until:
        task = pop(world, this.queue)
        ended = world.task[task]
        this.flows -= 1
        # A link is named only if sending took at least as long as the latency that follows.
        if ended.latency_ps <= now_ps - ended.start_ps:
            ended.limit = this.bottleneck
        schedule(world, task, now_ps + ended.latency_ps)
    if this.flows == 0:
        _vacate(world, path, now_ps)


@compiled
def _wake(world: World, device: int) -> None:
    world.device[device].next_awake = world.size[AWAKE]
    world.size[AWAKE] = device


@compiled
def _finish(world: World, task: int, now_ps: int) -> None:
    """The time of a task on the calendar has come: it has computed, or its last byte has arrived."""
    if world.task[task].kind == _COMPUTE:
        device = world.task[task].runs_on
        world.device[device].busy = 0
        # The first queues are those of the devices, so the number of a device is that of its queue.
        if world.queue[device].count > 0:
            _wake(world, device)
    _release(world, task, now_ps)


@compiled
def _start_ready(world: World, moment: float, now_ps: int) -> None:
    """Start flows and barriers, queue computations. Equal ``moment`` is equal time, small enough to be exact in a float."""
    while world.size[READY] != NOWHERE:
        task = world.size[READY]
        this = world.task[task]
        world.size[READY] = this.next_ready
        this.start_ps = now_ps
        if this.kind == _COMPUTE:
            # Computations that get ready in one moment run in the order of their numbers, however they were found.
            device = this.runs_on
            push(world, device, task, moment)
            if world.queue[device].count == 1 and not world.device[device].busy:
                _wake(world, device)
        elif this.path == NOWHERE:
            if this.latency_ps > 0:
                schedule(world, task, now_ps + this.latency_ps)
            else:
                _release(world, task, now_ps)
        else:
            _begin_flow(world, task, now_ps)


@compiled
def _start_devices(world: World, now_ps: int) -> bool:
    """Start the first computation of each idle device; False if one has too much left to compute."""
    while world.size[AWAKE] != NOWHERE:
        device = world.size[AWAKE]
        world.size[AWAKE] = world.device[device].next_awake
        world.device[device].busy = 1
        task = pop(world, device)
        this = world.task[task]
        this.start_ps = now_ps
        # The comparison is written so that the sum cannot overflow 64 bits.
        if world.device[device].left_ps >= world.size[LATEST] - now_ps:
            return False
        world.device[device].left_ps -= this.work_ps
        schedule(world, task, now_ps + this.work_ps)
    return True


@compiled
def _start(world: World) -> None:
    """Make the tasks ready that wait for nothing."""
    for task in range(len(world.task)):
        if world.waiting[task] == 0:
            _make_ready(world, task)


@compiled
def _run(world: World) -> bool:
    """Event loop, False if it comes to the horizon. A moment is over, and rates settle, when nothing more happens in it."""
    tasks = len(world.task)
    _start(world)
    now_ps: Any = np.int64(0)
    moment = 0.0
    while True:
        # Everything that happens in a moment is worked off before rates change, so many flows cost one settlement.
        while world.size[CALENDAR] > 0 and world.calendar[0].time_ps == now_ps:
            item = take_first(world)
            if item < tasks:
                _finish(world, item, now_ps)
            else:
                _end_flows(world, item - tasks, now_ps)
        # Ready tasks start flows and wake devices, devices may finish at once, and only then can rates settle.
        if world.size[READY] != NOWHERE:
            _start_ready(world, moment, now_ps)
        elif world.size[AWAKE] != NOWHERE:
            if not _start_devices(world, now_ps):
                return False
        elif world.size[CHANGED] != NOWHERE:
            if not settle(world, now_ps):
                return False
        elif world.size[CALENDAR] > 0:
            now_ps = world.calendar[0].time_ps
            moment += 1.0
        else:
            return True
