"""Rates of the fluid model, max-min fair: all rates of a component rise together until links fill up, one by one.

Progressive filling: Bertsekas and Gallager, Data Networks, 1992, 6.5.2.
"""

import math

import numpy as np

from lightfabric.model.fluid.heap import pop, push, schedule
from lightfabric.model.fluid.world import CHANGED, HORIZON_PS, NOWHERE, REACHED, RISING, ROUND, World
from lightfabric.model.kernel.compiled import compiled


@compiled
def advance(world: World, path: int, now_ps: int) -> None:
    """Bring a path's virtual clock to now."""
    this = world.path[path]
    this.served += this.rate * (now_ps - this.since_ps)
    this.since_ps = now_ps


@compiled
def _reach(world: World, path: int) -> None:
    """Take the links of a path into the component, unless they are in it or settled."""
    for e in range(world.path[path].entry, world.path[path].entry_end):
        link = world.link[world.entry[e].link]
        if link.seen_round != world.size[ROUND]:
            link.seen_round = world.size[ROUND]
            link.free = link.capacity
            link.rising = 0
            world.reached[world.size[REACHED]] = world.entry[e].link
            world.size[REACHED] += 1


@compiled
def _gather(world: World, seed: int) -> None:
    """Component of all links and active paths that share links with a path, directly or through others."""
    world.size[REACHED] = 0
    world.size[RISING] = 0
    _reach(world, seed)
    done = 0
    while done < world.size[REACHED]:
        e = world.link[world.reached[done]].first
        done += 1
        while e != NOWHERE:
            path = world.entry[e].path
            this = world.path[path]
            if this.seen_round != world.size[ROUND]:
                this.seen_round = world.size[ROUND]
                world.size[RISING] += 1
                _reach(world, path)
                for other in range(this.entry, this.entry_end):
                    world.link[world.entry[other].link].rising += this.flows * world.entry[other].uses
            e = world.entry[e].after


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
def _fix(world: World, path: int, link: int, level: float, now_ps: int) -> bool:
    """A link is full: the rate of a path rises no further. False if its next flow ends beyond the horizon."""
    this = world.path[path]
    this.fixed_round = world.size[ROUND]
    this.bottleneck = link
    world.size[RISING] -= 1
    for e in range(this.entry, this.entry_end):
        entry = world.entry[e]
        weight = this.flows * entry.uses
        world.link[entry.link].free -= level * weight
        world.link[entry.link].rising -= weight
    if this.rate == level:
        return True
    advance(world, path, now_ps)
    this.rate = level
    return this.changed or _call(world, path)


@compiled
def _fill(world: World, now_ps: int) -> bool:
    """Raise all rates of the component together until links fill up, one after the other; False beyond the horizon.

    The level at which a link would fill only rises as others fill, so a stale key is a lower bound.
    """
    queue, tasks = len(world.queue) - 1, len(world.task)
    filling = world.queue[queue]
    filling.count = 0
    for i in range(world.size[REACHED]):
        link = world.link[world.reached[i]]
        if link.rising > 0:
            push(world, queue, tasks + world.reached[i], link.free / link.rising)
    level = 0.0
    while world.size[RISING] > 0:
        item = pop(world, queue)
        link = world.link[item - tasks]
        if link.rising == 0:
            continue
        share = link.free / link.rising
        if share > world.key[item] and filling.count > 0 and share > world.key[world.item[filling.start]]:
            push(world, queue, item, share)
            continue
        level = max(level, share)
        e = link.first
        while e != NOWHERE:
            path = world.entry[e].path
            if world.path[path].fixed_round != world.size[ROUND] and not _fix(world, path, item - tasks, level, now_ps):
                return False
            e = world.entry[e].after
    return True


@compiled
def settle(world: World, now_ps: int) -> bool:
    """Bring rates and calendar up to date with the flows that came and went; False beyond the horizon."""
    world.size[ROUND] += 1
    path = world.size[CHANGED]
    while path != NOWHERE:
        this = world.path[path]
        if this.flows != this.settled_flows:
            this.settled_flows = this.flows
            if this.flows == 0:
                this.rate = 0.0
            _gather(world, path)
            if not _fill(world, now_ps):
                return False
        path = this.next_changed
    while world.size[CHANGED] != NOWHERE:
        path = world.size[CHANGED]
        this = world.path[path]
        this.changed = 0
        if this.flows > 0 and not _call(world, path):
            return False
        world.size[CHANGED] = this.next_changed
    return True
