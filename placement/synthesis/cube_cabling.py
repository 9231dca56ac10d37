"""The cabling of cubes of GPUs that loads the fullest link of an all-to-all least, by simulated annealing.

Each optical switch adds a *shift* to the number of a cube, axis by axis around the grid of cubes, to find the one whose
- face it joins to the + face. So cubes are alike, the links of an *orbit*, one in each cube, carry the same, and only what
the GPUs of the first cube send is looked at. Of two cubes these are all the cablings that the switches can make.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.direct.balanced import shared_ways
from lightfabric.model.fabric.direct.cubes import Cubes
from lightfabric.model.kernel.compiled import Records, compiled

POWERS = (2, 4, 6)
"""Of the means of loads that are made least, a search each: which one ends with the least maximum depends on the size."""
HOT, COLD = 5e-3, 1e-4
"""How much worse than before a step may be at the beginning and at the end, as a share of the torus."""
PARTS = 8
"""Of what a pair sends, each with a way of its own, where it is split."""

_Ints = NDArray[np.int64]
_Way = tuple[int, ...]


@dataclass(frozen=True)
class CubeCabling:
    """Says which shift each switch makes; loads are of an all-to-all of 1 for each pair of GPUs, on shortest ways."""

    cubes: Cubes
    shifts: _Ints

    @property
    def permutations(self) -> _Ints:
        """Give the cube that each switch joins to each, ``[switch, cube]``, as the spec of a fabric has them."""
        return _moved(self.cubes)[0, self.shifts]

    @property
    def mean_load(self) -> float:
        """Give the sum of distances over links: on these links the fullest one has no less to carry."""
        return float(self._even_loads.mean())

    @cached_property
    def split_load(self) -> float:
        """Give what the fullest link carries if each pair splits its 1: evenly, or in parts on the best ways for all."""
        return min(float(self._even_loads.max()), float(self._loads(PARTS).max()) / PARTS, float(self.single_load))

    @property
    def single_load(self) -> int:
        """Give what the fullest link carries if each pair takes one way."""
        return int(self._loads(1).max())

    @cached_property
    def _even_loads(self) -> NDArray[np.float64]:
        """What a link of each orbit carries if all shortest ways of a pair carry the same."""
        room = _room(self.cubes)
        _mean(_Graph(*self.cubes.steps, _moved(self.cubes)), self.shifts, 1, room)
        return room.load

    def _loads(self, parts: int) -> _Ints:
        """What a link of each orbit carries."""
        gpus, directions = self.cubes.gpus, 2 * len(self.cubes.shape)
        position = np.empty(gpus.size, np.int64)
        position[gpus] = np.arange(self.cubes.positions)
        orbit = (position[:, None] * directions + np.arange(directions)).ravel()
        source, ends = np.repeat(np.arange(gpus.size), directions), self.cubes.ends(self.permutations).ravel()
        ways = shared_ways(gpus.size, gpus[0], source, ends, np.ones(len(source)), orbit, parts)
        return np.bincount(orbit[ways[ways >= 0]], minlength=self.cubes.positions * directions)


def synthesised_cabling(cubes: Cubes, seed: int, steps: int) -> CubeCabling:
    """Find the cabling of the least ``split_load`` among those that a search for each of ``POWERS`` ends with.

    A step gives one switch another shift. O(steps x positions x GPUs x axes): 3000 take 4 CPU-s for 128 GPUs.
    """
    generator = np.random.default_rng(seed)
    axis = np.arange(cubes.switches) * len(cubes.shape) // cubes.switches
    step_along = [prod(cubes.grid[each + 1 :]) % cubes.count for each in range(len(cubes.shape))]
    torus = np.where(np.array(cubes.grid)[axis] > 1, np.array(step_along)[axis], 0)
    graph, room = _Graph(*cubes.steps, _moved(cubes)), _room(cubes)
    found = list[CubeCabling]()
    for power in POWERS:
        shift, best = torus.copy(), torus.copy()
        switch, turn = generator.integers(cubes.switches, size=steps), generator.integers(1, cubes.count, size=steps)
        heat = HOT * (COLD / HOT) ** (np.arange(steps) / steps) * generator.exponential(size=steps)
        _anneal(graph, shift, best, power, switch, turn, heat, room)
        found.append(CubeCabling(cubes, best))
    return min(found, key=lambda each: each.split_load)


def least_load(cubes: Cubes) -> float:
    """Bound the fullest link of any cabling of the switches from below: the least sum of distances over links.

    A GPU has no more others within some hops than in the tree of cubes in which no two links lead to the same cube, as in
    Moore's bound for graphs whose vertices have so many links. O(GPUs x positions).
    """
    far, switch = (each.tolist() for each in cubes.steps)
    gpus, total = cubes.gpus.size, 0
    for position in range(cubes.positions):
        # A cube of the tree is the way to it: switches, and whether from + to - or back.
        front, left = [(_Way(), position)], gpus - 1
        seen = set(front)
        while left > 0:
            total += left
            front = [each for here in front for each in _beyond(*here, far, switch) if not (each in seen or seen.add(each))]
            left -= len(front)
    return total / (cubes.positions * len(far[0]))


def _beyond(way: _Way, position: int, far: list[list[int]], switch: list[list[int]]) -> list[tuple[_Way, int]]:
    """The neighbours of a GPU in the tree of cubes."""
    found = list[tuple[_Way, int]]()
    for direction, (there, through) in enumerate(zip(far[position], switch[position], strict=True)):
        turn, back = 2 * through + direction % 2, 2 * through + 1 - direction % 2
        if through < 0:
            found.append((way, there))
        else:
            found.append((way[:-1] if way[-1:] == (back,) else (*way, turn), there))
    return found


class _Graph(NamedTuple):
    """Where a link leads, and through which switch if any, ``[position, direction]``; ``moved[back, shift, cube]``."""

    far: _Ints
    switch: _Ints
    moved: _Ints


class _Room(NamedTuple):
    """Arrays for the kernel's own use; ``load[position, direction]`` is what links of an orbit carry."""

    ends: _Ints
    hops: _Ints
    queue: _Ints
    ways: NDArray[np.float64]
    share: NDArray[np.float64]
    load: NDArray[np.float64]


def _room(cubes: Cubes) -> _Room:
    gpus, directions = cubes.gpus.size, 2 * len(cubes.shape)
    ends, load = np.zeros((gpus, directions), np.int64), np.zeros((cubes.positions, directions))
    hops, queue = (np.zeros(gpus, np.int64) for _ in range(2))
    return _Room(ends, hops, queue, np.zeros(gpus), np.zeros(gpus), load)


def _moved(cubes: Cubes) -> _Ints:
    """The cube that each shift leads to from each, and the one from which it leads there."""
    at = np.stack(np.unravel_index(np.arange(cubes.count), cubes.grid))
    ways = (at[:, None, :] + sign * at[:, :, None] for sign in (1, -1))
    return np.stack([np.ravel_multi_index(tuple(each), cubes.grid, mode="wrap") for each in ways])


@compiled
def _anneal(
    graph: _Graph, shift: Records, best: Records, power: int, switch: Records, turn: Records, heat: Records, room: _Room
) -> None:
    """Leave in ``best`` the shifts of the least mean of loads; each step may be worse by its ``heat``."""
    first = mean = least = _mean(graph, shift, power, room)
    for step in range(len(switch)):
        place = switch[step]
        before = shift[place]
        shift[place] = graph.moved[0, turn[step], before]
        now = _mean(graph, shift, power, room)
        if now > mean + heat[step] * first:
            shift[place] = before
            continue
        mean = now
        if mean < least:
            least = mean
            for each in range(len(shift)):
                best[each] = shift[each]


@compiled
def _mean(graph: _Graph, shift: Records, power: int, room: _Room) -> float:
    """The mean of that power of what links carry if pairs split evenly over all shortest ways; infinite if not all have."""
    positions, directions = graph.far.shape
    gpus = len(room.hops)
    for gpu in range(gpus):
        cube, position = gpu // positions, gpu % positions
        for direction in range(directions):
            through, there = graph.switch[position, direction], cube
            if through >= 0:
                there = graph.moved[direction % 2, shift[through], cube]
            room.ends[gpu, direction] = there * positions + graph.far[position, direction]
    room.load[:] = 0.0
    for start in range(positions):
        if not _count_ways(start, room):
            return np.inf
        # From the farthest on, what reaches a GPU comes over its links in proportion to the shortest ways.
        room.share[:] = 1.0
        for place in range(gpus - 1, -1, -1):
            here = room.queue[place]
            passed = 0.0
            for direction in range(directions):
                there = room.ends[here, direction]
                if room.hops[there] == room.hops[here] + 1:
                    carried = room.ways[here] / room.ways[there] * room.share[there]
                    room.load[here % positions, direction] += carried
                    passed += carried
            room.share[here] += passed
    total = 0.0
    for position in range(positions):
        for direction in range(directions):
            total += room.load[position, direction] ** power
    return (total / (positions * directions)) ** (1.0 / power)


@compiled
def _count_ways(start: int, room: _Room) -> bool:
    """Count the shortest ways to all GPUs, nearest first in ``queue``; tell whether all are reached."""
    room.hops[:] = -1
    room.ways[:] = 0.0
    room.hops[start], room.ways[start], room.queue[0] = 0, 1.0, start
    head, tail = 0, 1
    while head < tail:
        here = room.queue[head]
        head += 1
        for direction in range(room.ends.shape[1]):
            there = room.ends[here, direction]
            if room.hops[there] < 0:
                room.hops[there] = room.hops[here] + 1
                room.queue[tail] = there
                tail += 1
            if room.hops[there] == room.hops[here] + 1:
                room.ways[there] += room.ways[here]
    return tail == len(room.hops)
