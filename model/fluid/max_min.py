"""Rates of the fluid model, max-min fair: all rates rise together until links fill up, one by one.

Progressive filling: Bertsekas and Gallager, Data Networks, 1992, 6.5.2. Rates are max-min fair if and only if every path
crosses a full link on which no other has a higher rate: its *bottleneck*, which *holds* it. So a settlement leaves most
rates as they are, *frozen*, and fills up what these leave. Its words:

* lift: take a path's rate back; from now on it *rises* with the level of the filling.
* fix: a link is full, so the paths that rise through it keep the level as their rate.
* thaw: lift frozen paths, for their bottleneck has changed, or another link is full at a level below their rates.

Levels only rise and lower rates are final, so a path is lifted once at most: those whose flows came or went at the start,
with the paths held where flows went, the others as it turns out that they change.
"""

import math

import numpy as np

from lightfabric.model.fluid.heap import pop, push, schedule
from lightfabric.model.fluid.world import CHANGED, HORIZON_PS, LIFTED, NOWHERE, RISING, ROUND, World
from lightfabric.model.kernel.compiled import Records, compiled


@compiled
def advance(world: World, path: int, now_ps: int) -> None:
    """Bring a path's virtual clock to now."""
    this = world.path[path]
    this.served += this.rate * (now_ps - this.since_ps)
    this.since_ps = now_ps


@compiled
def _call(world: World, path: int) -> bool:
    """Put the end of a path's next flow on the calendar; False if it is beyond the horizon."""
    this = world.path[path]
    first = world.item[world.queue[this.queue].start]
    left_ps = max(world.key[first] - this.served, 0.0) / this.rate
    if left_ps >= HORIZON_PS - this.since_ps:
        return False
    schedule(world, len(world.task) + path, this.since_ps + np.int64(math.floor(left_ps + 0.5)))
    return True


@compiled
def _give(link: Records, rate: float, rising: int) -> None:
    """Add to what is free on a link, without error: a sum must not tell in which order flows came and went.

    Knuth, The Art of Computer Programming, volume 2, 4.2.2, theorem B.
    """
    before, free = link.free, link.free + rate
    part = free - before
    link.free = free
    link.free_rest += (before - (free - part)) + (rate - part)
    link.rising += rising


@compiled
def _share(link: Records) -> float:
    """Level at which a link fills up."""
    return (link.free + link.free_rest) / link.rising if link.rising > 0 else math.inf


@compiled
def _lift(world: World, path: int, late: bool) -> None:
    """Let a path rise; ``late`` if others do so already, and may now meet a full link sooner than the queue says."""
    this = world.path[path]
    this.lifted_round = world.size[ROUND]
    this.late = late
    this.next_lifted = world.size[LIFTED]
    world.size[LIFTED] = path


@compiled
def _take_back(world: World, path: int) -> None:
    """Give the rate of a lifted path back to its links, through which its flows rise now."""
    this = world.path[path]
    flows, settled_flows, rate = this.flows, this.settled_flows, this.rate
    for e in range(this.entry, this.shared_end):
        entry = world.entry[e]
        _give(world.link[entry.link], settled_flows * entry.uses * rate, flows * entry.uses)
    if settled_flows > 0:
        world.link[this.bottleneck].held -= 1
    if flows > 0:
        this.rising = 1
        world.size[RISING] += 1
    else:
        this.settled_flows, this.rate = 0, 0.0


@compiled
def _thaw(world: World, link: int, level: float, held: bool, late: bool) -> bool:
    """Lift frozen paths on a link that are above a level, all or those it has ``held``; False if there are none."""
    found = False
    e = world.link[link].first
    while e != NOWHERE:
        path = world.entry[e].path
        this = world.path[path]
        if this.lifted_round != world.size[ROUND] and this.rate > level and (this.bottleneck == link or not held):
            _lift(world, path, late)
            found = True
        e = world.entry[e].after
    return found


@compiled
def _fix(world: World, path: int, link: int, level: float, now_ps: int) -> bool:
    """End the rise of a path; False if its next flow ends beyond the horizon."""
    this = world.path[path]
    flows = this.flows
    more = flows * level - this.settled_flows * this.rate
    for e in range(this.entry, this.shared_end):
        entry = world.entry[e]
        weight = flows * entry.uses
        _give(world.link[entry.link], -weight * level, -weight)
        if world.link[entry.link].held > 0 and more != 0:
            _thaw(world, entry.link, level, True, True)
    world.size[RISING] -= 1
    this.rising = 0
    this.late &= more > 0
    this.settled_flows = flows
    this.bottleneck = link
    world.link[link].held += 1
    if this.rate == level:
        return True
    advance(world, path, now_ps)
    this.rate = level
    return this.changed or _call(world, path)


@compiled
def _fix_all(world: World, link: int, level: float, now_ps: int) -> bool:
    """Fix what rises through a link; False beyond the horizon."""
    e = world.link[link].first
    while e != NOWHERE:
        path = world.entry[e].path
        if world.path[path].rising and not _fix(world, path, link, level, now_ps):
            return False
        e = world.entry[e].after
    return True


@compiled
def _enqueue(world: World, path: int) -> None:
    """Queue a path, if it matters, by the first link to fill up of those on its way through which something rises."""
    this = world.path[path]
    if not (this.rising or this.late):
        return
    narrowest, level = NOWHERE, math.inf
    for e in range(this.entry, this.shared_end):
        link = world.entry[e].link
        share = _share(world.link[link])
        if share < level:
            narrowest, level = link, share
    this.narrowest = narrowest
    if narrowest != NOWHERE:
        push(world, len(world.queue) - 1, len(world.task) + path, level)


@compiled
def _fill(world: World, now_ps: int) -> bool:
    """Raise all lifted paths together until links fill up, one after the other; False beyond the horizon.

    No link fills up before the first in the queue: fixing a path only delays the links on its way, and whoever is lifted
    enters with what they are then. A late path stays for its links after it is fixed, if that is above its old rate.
    """
    level = 0.0
    while True:
        path = world.size[LIFTED]
        while path != NOWHERE:
            _take_back(world, path)
            path = world.path[path].next_lifted
        while world.size[LIFTED] != NOWHERE:
            path = world.size[LIFTED]
            world.size[LIFTED] = world.path[path].next_lifted
            _enqueue(world, path)
        if world.size[RISING] == 0:
            return True
        item = pop(world, len(world.queue) - 1)
        path = item - len(world.task)
        this, share = world.path[path], world.key[item]
        if this.rising or this.late:
            link = this.narrowest
            if _share(world.link[link]) == share and not _thaw(world, link, share, False, True):
                level = max(level, share)
                if not _fix_all(world, link, level, now_ps):
                    return False
            _enqueue(world, path)


@compiled
def _lift_changed(world: World) -> None:
    """Lift the paths whose flows came or went, and those held where flows went."""
    path = world.size[CHANGED]
    while path != NOWHERE:
        this = world.path[path]
        if this.flows != this.settled_flows and this.lifted_round != world.size[ROUND]:
            _lift(world, path, False)
        if this.flows < this.settled_flows:
            for e in range(this.entry, this.shared_end):
                if world.link[world.entry[e].link].held > 0:
                    _thaw(world, world.entry[e].link, 0.0, True, False)
        path = this.next_changed


@compiled
def settle(world: World, now_ps: int) -> bool:
    """Bring rates and calendar up to date with the flows that came and went; False beyond the horizon."""
    world.size[ROUND] += 1
    world.queue[len(world.queue) - 1].count = 0
    _lift_changed(world)
    if not _fill(world, now_ps):
        return False
    while world.size[CHANGED] != NOWHERE:
        path = world.size[CHANGED]
        this = world.path[path]
        this.changed = 0
        if this.flows > 0 and not _call(world, path):
            return False
        world.size[CHANGED] = this.next_changed
    return True
