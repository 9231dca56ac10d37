"""Rates of the fluid model, max-min fair: all rates rise together until links fill up, one by one.

Progressive filling: Bertsekas and Gallager, Data Networks, 1992, 6.5.2. Rates are max-min fair if and only if every path
crosses a full link on which no other has a higher rate: its bottleneck. So when flows come or go only those paths need
new rates whose bottleneck is touched, and a settlement raises these alone, among the *frozen* rates of all others.

* lift: take a path's rate back; it *rises* again, from the level which the filling has reached.
* fix: a link is full, and the paths that rise through it keep the level as their rate.
* thaw: lift a frozen path after all, for it is above the level at which its link is full, or its bottleneck has changed.

Levels only rise, and at a level all lower rates are final, so each path is lifted at most once in a settlement.
"""

import math

import numpy as np

from lightfabric.model.fluid.heap import pop, push, schedule
from lightfabric.model.fluid.world import CHANGED, HORIZON_PS, LIFTED, NOWHERE, RISING, ROUND, World
from lightfabric.model.kernel.compiled import Records, compiled

DONE, RISES, STANDS = range(3)


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
    """Add to what is free on a link, without error (Knuth, TAOCP 2, 4.2.2, theorem B), so that no history is left in it."""
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
def _lift(world: World, path: int, level: float) -> None:
    """Let a path rise from a level on."""
    this = world.path[path]
    this.lifted_round = world.size[ROUND]
    flows, settled_flows, rate = this.flows, this.settled_flows, this.rate
    for e in range(this.entry, this.shared_end):
        entry = world.entry[e]
        _give(world.link[entry.link], settled_flows * entry.uses * rate, flows * entry.uses)
    if settled_flows > 0:
        world.link[this.bottleneck].held -= 1
    this.lifted_at = level
    if flows > 0:
        this.stage = RISES
        world.size[RISING] += 1
        this.next_lifted = world.size[LIFTED]
        world.size[LIFTED] = path


@compiled
def _thaw(world: World, link: int, level: float, held_only: bool) -> bool:
    """Lift the frozen paths on a link that are above a level, or only those whose bottleneck it is; False if none are."""
    found = False
    e = world.link[link].first
    while e != NOWHERE:
        path = world.entry[e].path
        this = world.path[path]
        if this.lifted_round != world.size[ROUND] and this.rate > level and not (held_only and this.bottleneck != link):
            _lift(world, path, level)
            found = True
        e = world.entry[e].after
    return found


@compiled
def _fix(world: World, path: int, link: int, level: float, now_ps: int) -> bool:
    """End the rise of a path; False if its next flow ends beyond the horizon."""
    this = world.path[path]
    world.size[RISING] -= 1
    flows, more = this.flows, this.flows * level - this.settled_flows * this.rate
    for e in range(this.entry, this.shared_end):
        entry = world.entry[e]
        weight = flows * entry.uses
        _give(world.link[entry.link], -weight * level, -weight)
        if world.link[entry.link].held > 0 and more != 0:
            _thaw(world, entry.link, level, True)
    this.stage = STANDS if more > 0 and this.lifted_at > 0 else DONE
    this.settled_flows = flows
    this.bottleneck = link
    world.link[link].held += 1
    if this.rate == level:
        return True
    advance(world, path, now_ps)
    this.rate = level
    return this.changed or _call(world, path)


@compiled
def _queue(world: World, path: int) -> None:
    """Queue a path by the first link to fill up of those on its way on which something rises, if on any."""
    this = world.path[path]
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

    The level at which a link fills up only rises as others fill, or is queued again with a path that is lifted, so a stale
    key is a lower bound.
    """
    queue, tasks = len(world.queue) - 1, len(world.task)
    level = 0.0
    while world.size[RISING] > 0:
        while world.size[LIFTED] != NOWHERE:
            path = world.size[LIFTED]
            world.size[LIFTED] = world.path[path].next_lifted
            _queue(world, path)
        item = pop(world, queue)
        path = item - tasks
        this = world.path[path]
        if this.stage == DONE:
            continue
        link, share = this.narrowest, world.key[item]
        if _share(world.link[link]) == share and not _thaw(world, link, share, False):
            level = max(level, share)
            e = world.link[link].first
            while e != NOWHERE:
                other = world.entry[e].path
                if world.path[other].stage == RISES and not _fix(world, other, link, level, now_ps):
                    return False
                e = world.entry[e].after
        if this.stage != DONE:
            _queue(world, path)
    return True


@compiled
def settle(world: World, now_ps: int) -> bool:
    """Bring rates and calendar up to date with the flows that came and went; False beyond the horizon."""
    world.size[ROUND] += 1
    world.queue[len(world.queue) - 1].count = 0
    path = world.size[CHANGED]
    while path != NOWHERE:
        this = world.path[path]
        if this.flows != this.settled_flows:
            if this.lifted_round != world.size[ROUND]:
                _lift(world, path, 0.0)
            if this.flows < this.settled_flows:
                for e in range(this.entry, this.shared_end):
                    if world.link[world.entry[e].link].held > 0:
                        _thaw(world, world.entry[e].link, 0.0, True)
            if this.flows == 0:
                this.settled_flows, this.rate = 0, 0.0
        path = this.next_changed
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
