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
from typing import Any

import numpy as np

from lightfabric.model.fluid.heap import pop, push, schedule
from lightfabric.model.fluid.world import CHANGED, HORIZON_PS, LIFTED, NOWHERE, RISING, ROUND, World
from lightfabric.model.kernel.compiled import compiled

_INFINITE_BITS: Any = np.int64(np.array(np.inf).view(np.int64))


@compiled
def _lit_ps(path: Any, now_ps: int) -> int:
    """Count how long a path has been lit until now, from the first round on."""
    rounds, within_ps = divmod(now_ps - path.light_ps, path.round_ps)
    return rounds * path.live_ps + min(within_ps, path.live_ps)


@compiled
def _when_lit(path: Any, lit_ps: int) -> int:
    """Find the first moment at which a path has been lit for so long."""
    rounds = (lit_ps - 1) // path.live_ps
    return path.light_ps + rounds * path.round_ps + lit_ps - rounds * path.live_ps


@compiled
def advance(world: World, path: int, now_ps: int) -> None:
    """Bring a path's virtual clock to now."""
    this = world.path[path]
    passed_ps = now_ps - this.since_ps
    if this.round_ps > 0:
        passed_ps = _lit_ps(this, now_ps) - _lit_ps(this, this.since_ps)
    this.served += this.rate * passed_ps
    this.since_ps = now_ps


@compiled
def _call(world: World, path: int) -> bool:
    """Put the end of a path's next flow on the calendar; False if it is beyond the horizon."""
    this = world.path[path]
    target = world.entrant[world.queue[this.queue].start].key
    left_ps = max(target - this.served, 0.0) / this.rate
    if left_ps >= HORIZON_PS - this.since_ps:
        return False
    end_ps = this.since_ps + np.int64(math.floor(left_ps + 0.5))
    if this.round_ps > 0:
        if left_ps / this.live_ps >= (HORIZON_PS - this.since_ps) / this.round_ps - 2.0:
            return False
        end_ps = max(this.since_ps, _when_lit(this, _lit_ps(this, this.since_ps) + end_ps - this.since_ps))
    schedule(world, len(world.task) + path, end_ps)
    return True


@compiled
def _give(world: World, path: int, flows: int, rate: float, rising: int) -> None:
    """Add the rate of so many flows to what is free on the links of a path, without error, and flows to those that rise.

    A sum must not tell in which order flows came and went: Knuth, The Art of Computer Programming, volume 2, 4.2.2,
    theorem B.
    """
    for r in range(world.path[path].run, world.path[path].run_end):
        run = world.run[r]
        given, more = flows * run.uses * rate, rising * run.uses
        for link in range(run.first, run.end):
            before = world.free[link]
            free = before + given
            part = free - before
            world.free[link] = free
            rest = world.free_rest[link] + ((before - (free - part)) + (given - part))
            world.free_rest[link] = rest
            flows_rising = world.rising[link] + more
            world.rising[link] = flows_rising
            share = (free + rest) / flows_rising
            world.share[link] = share if flows_rising > 0 else math.inf


@compiled
def _lift(world: World, path: int, late: bool) -> None:
    """Let a path rise; ``late`` if others do so already, and may now meet a full link sooner than the queue says."""
    this = world.path[path]
    world.lifted_round[path] = world.size[ROUND]
    this.late = late
    this.next_lifted = world.size[LIFTED]
    world.size[LIFTED] = path


@compiled
def _take_back(world: World, path: int) -> None:
    """Give the rate of a lifted path back to its links, through which its flows rise now."""
    this = world.path[path]
    _give(world, path, this.settled_flows, this.rate, this.flows)
    if this.settled_flows > 0:
        world.held[this.bottleneck] -= 1
    if this.flows > 0:
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
        if world.lifted_round[path] != world.size[ROUND]:
            this = world.path[path]
            if this.rate > level and (this.bottleneck == link or not held):
                _lift(world, path, late)
                found = True
        e = world.entry[e].after
    return found


@compiled
def _thaw_held(world: World, path: int, but: int, level: float, late: bool) -> None:
    """Lift the paths above a level that are held by the links of a path, ``but`` one."""
    for r in range(world.path[path].run, world.path[path].run_end):
        for link in range(world.run[r].first, world.run[r].end):
            if world.held[link] > 0 and link != but:
                _thaw(world, link, level, True, late)


@compiled
def _fix(world: World, path: int, link: int, level: float, now_ps: int) -> bool:
    """End the rise of a path; False if its next flow ends beyond the horizon."""
    this = world.path[path]
    flows = this.flows
    more = flows * level - this.settled_flows * this.rate
    _give(world, path, flows, -level, -flows)
    if more != 0:
        # Before paths are fixed on a link, all above its level there are lifted already.
        _thaw_held(world, path, link, level, True)
    world.size[RISING] -= 1
    this.rising = 0
    this.late &= more > 0
    this.settled_flows = flows
    this.bottleneck = link
    world.held[link] += 1
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
def _narrowest(world: World, path: int) -> int:
    """The first link of a path to fill up, of several the first on its way, NOWHERE if none will."""
    this = world.path[path]
    least = _INFINITE_BITS
    for r in range(this.run, this.run_end):
        for link in range(world.run[r].first, world.run[r].end):
            # The bits of numbers from 0 on have their order, and are compared several at a time.
            least = min(least, world.share_bits[link])
    if least == _INFINITE_BITS:
        return NOWHERE
    for r in range(this.run, this.run_end):
        for link in range(world.run[r].first, world.run[r].end):
            if world.share_bits[link] == least:
                return link
    return NOWHERE


@compiled
def _enqueue(world: World, path: int) -> None:
    """Queue a path, if it matters, by the first link to fill up of those on its way through which something rises."""
    this = world.path[path]
    if not (this.rising or this.late):
        return
    this.narrowest = _narrowest(world, path)
    if this.narrowest != NOWHERE:
        push(world, len(world.queue) - 1, len(world.task) + path, world.share[this.narrowest])


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
        share = world.entrant[world.queue[len(world.queue) - 1].start].key
        path = pop(world, len(world.queue) - 1) - len(world.task)
        this = world.path[path]
        if this.rising or this.late:
            link = this.narrowest
            if world.share[link] == share and not _thaw(world, link, share, False, True):
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
        if this.flows != this.settled_flows and world.lifted_round[path] != world.size[ROUND]:
            _lift(world, path, False)
        if this.flows < this.settled_flows:
            _thaw_held(world, path, NOWHERE, 0.0, False)
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
