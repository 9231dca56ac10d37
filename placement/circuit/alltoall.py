"""All-to-all between nodes of bounded degree: directly, over rings of several strides, or by groups, beside its bounds.

Experts (MoE) and embedding tables (DLRM) send from all nodes to all. Nodes are numbers of a mixed radix; each digit is an
axis whose nodes are joined by circulant links, node i to i + s for each stride s. One axis with all strides is direct; with
few, a multi-ring (TopoOpt, NSDI 2023: TotientPerms, strides coprime to the nodes); several axes are hierarchical. Traffic
goes axis by axis, on paths of fewest strides, so that what each link carries is known in closed form.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import permutations, product
from math import gcd, prod

import numpy as np
from numpy.typing import NDArray

MAX_AXES = 3
SMALL_AXIS = 24
"""Up to this length strides are improved one by one."""


@dataclass(frozen=True)
class Axis:
    """``length`` nodes in a circle, node i linked to i + s for each of the ``strides``, which are from 1 to length - 1."""

    length: int
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.length < 2:
            raise ValueError(f"Axis.length must be at least 2, not {self.length}")
        if any(not 1 <= s < self.length for s in self.strides) or len(set(self.strides)) < len(self.strides):
            raise ValueError(f"Axis.strides must be different, from 1 to {self.length - 1}, not {self.strides}")
        reached = self.length // gcd(self.length, *self.strides)
        if reached < self.length:
            raise ValueError(f"Axis.strides must reach all {self.length} nodes, not {reached} by {self.strides}")

    @cached_property
    def uses(self) -> NDArray[np.int64]:
        """How often the path to each distance uses each stride, ``[distance, stride]``; fewest strides (change-making).

        Of the paths that are as short, the one that leaves the strides most evenly used by the distances before.
        """
        count = np.zeros((self.length, len(self.strides)), np.int64)
        hops = np.full(self.length, -1)
        hops[0] = 0
        total, one = count[0].copy(), np.eye(len(self.strides), dtype=np.int64)
        wave = [0]
        while wave:
            near = {(at + s) % self.length for at in wave for s in self.strides}
            following = sorted(distance for distance in near if hops[distance] < 0)
            for distance in following:
                before = (distance - np.array(self.strides)) % self.length
                options = count[before] + one
                uneven = ((total + options) ** 2).sum(axis=1).astype(float)
                # Only distances of earlier waves are known: the hops of this wave are set when it is complete.
                uneven[hops[before] < 0] = np.inf
                count[distance] = options[uneven.argmin()]
                total += count[distance]
            hops[following] = hops[wave[0]] + 1
            wave = following
        return count

    @cached_property
    def load(self) -> NDArray[np.int64]:
        """What a link of each stride carries if each pair of the axis sends 1."""
        return self.uses.sum(axis=0)

    @property
    def steps(self) -> int:
        """Links of the longest path."""
        return int(self.uses.sum(axis=1).max())


@dataclass(frozen=True)
class Scheme:
    """Axes, the last digit of a node first to change, and how many parallel ``lanes[axis][stride]`` each link has."""

    axes: tuple[Axis, ...]
    lanes: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        """``direct``, ``multi-ring`` or ``hierarchical``, with the strides of each axis."""
        if len(self.axes) == 1:
            (axis,) = self.axes
            return "direct" if len(axis.strides) == axis.length - 1 else f"multi-ring {list(axis.strides)}"
        return "hierarchical " + " x ".join(f"{axis.length} {list(axis.strides)}" for axis in self.axes)

    @property
    def nodes(self) -> int:
        """How many nodes all axes have together."""
        return prod(axis.length for axis in self.axes)

    @property
    def degree(self) -> int:
        """Lanes that leave a node."""
        return sum(map(sum, self.lanes))

    @property
    def steps(self) -> int:
        """Links of the longest path."""
        return sum(axis.steps for axis in self.axes)

    def lane_bytes(self, size_bytes: int) -> tuple[NDArray[np.float64], ...]:
        """What each lane of each axis and stride carries, if each node sends so much to each other one."""
        loads = (size_bytes * (self.nodes // axis.length) * axis.load for axis in self.axes)
        return tuple(load / np.array(lanes) for load, lanes in zip(loads, self.lanes, strict=True))

    def most_bytes(self, size_bytes: int) -> float:
        """What the fullest lane has to carry."""
        return max(float(load.max()) for load in self.lane_bytes(size_bytes))

    def path(self, source: int, destination: int) -> list[int]:
        """Nodes from one to the other, both included: first along the last axis."""
        path = [source]
        place = 1
        for axis in reversed(self.axes):
            distance = (destination // place - source // place) % axis.length
            # All nodes send alike, so the order of strides on a path does not change what links carry.
            for stride, count in zip(axis.strides, axis.uses[distance].tolist(), strict=True):
                for _ in range(count):
                    digit = path[-1] // place % axis.length
                    path.append(path[-1] + ((digit + stride) % axis.length - digit) * place)
            place *= axis.length
        return path

    def cut_bytes(self, size_bytes: int) -> float:
        """Lower bound for any routing on these links: what crosses a cut, over its lanes, at worst.

        The cuts between the first m nodes and the others, for the digits in any order; all of one node are among them.
        """
        shape = [axis.length for axis in self.axes]
        worst = 0.0
        for order in permutations(range(len(shape))):
            rank = np.arange(self.nodes).reshape([shape[i] for i in order]).transpose(np.argsort(order))
            leave = np.zeros(self.nodes + 1)
            for dimension, (axis, lanes) in enumerate(zip(self.axes, self.lanes, strict=True)):
                for stride, count in zip(axis.strides, lanes, strict=True):
                    # A link is entered where the cuts that it crosses begin and end: one running sum serves all cuts.
                    here, there = rank.ravel(), np.roll(rank, -stride, axis=dimension).ravel()
                    up = there > here
                    np.add.at(leave, here[up] + 1, count)
                    np.subtract.at(leave, there[up] + 1, count)
            inside = np.arange(1, self.nodes)
            worst = max(worst, float((size_bytes * inside * (self.nodes - inside) / np.cumsum(leave)[1 : self.nodes]).max()))
        return worst


def degree_bytes(nodes: int, degree: int, size_bytes: int, *, duplex: bool = False) -> float:
    """Lower bound for the fullest lane of any graph: all bytes x the least distances there can be, over all lanes.

    At most degree^k nodes are k links away, degree (degree - 1)^(k - 1) if each link is one both ways (Moore). At distance 1
    it is the bound of the node's own lanes.

    >>> degree_bytes(16, 4, 15)
    97.5
    """
    _require(nodes, degree, duplex)
    left, total, hops, near = nodes - 1, 0, 1, degree
    while left > 0:
        here = min(left, near)
        total, left, hops = total + here * hops, left - here, hops + 1
        near *= max(degree - 1, 1) if duplex else degree
    return size_bytes * total / degree


def all_gather_bytes_per_s(nodes: int, node_bytes_per_s: float) -> float:
    """Most that an all-gather can reach on any direct graph: each node receives all but its own part by its own links.

    >>> [round(all_gather_bytes_per_s(n, links * 25), 2) for n, links in ((8, 2), (16, 2), (16, 4), (32, 4), (64, 4))]
    [57.14, 53.33, 106.67, 103.23, 101.59]
    """
    return node_bytes_per_s * nodes / (nodes - 1)


def best(nodes: int, degree: int, *, duplex: bool = False) -> Scheme:
    """The scheme with the least bytes on its fullest lane, then the fewest steps, of all that this module knows.

    With ``duplex`` each link is one both ways, as links of the hardware are. Lanes left over double the fullest links.
    ValueError if the degree is too small for all nodes to reach each other.
    """
    return min(schemes(nodes, degree, duplex=duplex), key=lambda scheme: (scheme.most_bytes(1), scheme.steps))


def schemes(nodes: int, degree: int, *, duplex: bool = False) -> Iterator[Scheme]:
    """Direct, multi-ring and hierarchical schemes of at most so many lanes per node; ValueError as ``best``."""
    _require(nodes, degree, duplex)
    for lengths in _factorisations(nodes, 2, MAX_AXES):
        most = [min(degree, length - 1) for length in lengths]
        for split in product(*(range(_least_degree(a, duplex), m + 1) for a, m in zip(lengths, most, strict=True))):
            full = all(d == m for d, m in zip(split, most, strict=True))
            # Degree may be left over only where every axis has all its strides: elsewhere another split uses it.
            if sum(split) == degree or (full and sum(split) < degree):
                for axes in product(*(axes_of(a, d, duplex) for a, d in zip(lengths, split, strict=True))):
                    yield _with_lanes(axes, degree, duplex)


def _least_degree(length: int, duplex: bool) -> int:
    return 2 if duplex and length > 2 else 1


def _require(nodes: int, degree: int, duplex: bool) -> None:
    if nodes < 2:
        raise ValueError(f"nodes must be at least 2, not {nodes}")
    least = _least_degree(nodes, duplex)
    if degree < least:
        raise ValueError(f"degree must be at least {least} for {nodes} nodes to reach each other, not {degree}")


def _factorisations(number: int, least: int, most_factors: int) -> Iterator[tuple[int, ...]]:
    """Rising factors, at most so many, that multiply to a number."""
    yield (number,)
    if most_factors > 1:
        for factor in range(least, int(number**0.5) + 1):
            if number % factor == 0:
                for rest in _factorisations(number // factor, factor, most_factors - 1):
                    yield (factor, *rest)


@lru_cache(maxsize=1024)
def axes_of(length: int, degree: int, duplex: bool) -> tuple[Axis, ...]:
    """Good axes of at most so many strides: direct, the coprime strides of TotientPerms, and the best that is known."""
    if degree >= length - 1:
        return (Axis(length, tuple(range(1, length))),)
    count, most = (degree // 2, length // 2) if duplex else (degree, length - 1)
    rings = _closed(length, totient_strides(length, count, most), duplex)
    options = [Axis(length, strides) for strides in {rings, *_geometric(length, degree, duplex)}]
    chosen = min(options, key=_cost)
    return tuple(dict.fromkeys([Axis(length, rings), _improved(chosen, duplex) if length <= SMALL_AXIS else chosen]))


def totient_strides(nodes: int, count: int, most: int) -> tuple[int, ...]:
    """Strides coprime to the nodes up to ``most``, 1 among them, near a geometric progression (TopoOpt, NSDI 2023).

    Each makes one ring of all nodes, over which an all-reduce can go. Fewer where there are not so many.

    >>> totient_strides(16, 3, 15)
    (1, 3, 15)
    """
    coprime = [stride for stride in range(1, most + 1) if gcd(stride, nodes) == 1]
    ratio = coprime[-1] ** (1 / max(count - 1, 1))
    chosen: list[int] = []
    for i in range(min(count, len(coprime))):
        chosen.append(min((s for s in coprime if s not in chosen), key=lambda s: abs(s - ratio**i)))
    return tuple(sorted(chosen))


def _geometric(length: int, degree: int, duplex: bool) -> set[tuple[int, ...]]:
    """Strides 1, r, r^2 ..., rounded, for ratios about those that give every distance a short number to that base."""
    count = degree // 2 if duplex else degree
    most = length // 2 if duplex else length - 1
    found: set[tuple[int, ...]] = set()
    for base in np.linspace(0.7, 1.4, 15):
        ratio = max(1.0, base * length ** (1 / max(count, 1)))
        strides = [1]
        for i in range(1, count):
            strides.append(max(round(ratio**i), strides[-1] + 1))
        if strides[-1] <= most:
            found.add(_closed(length, tuple(strides), duplex))
            if duplex and degree % 2 and length % 2 == 0 and strides[-1] < length // 2:
                found.add(_closed(length, (*strides, length // 2), duplex))
    return found


def _closed(length: int, strides: tuple[int, ...], duplex: bool) -> tuple[int, ...]:
    """Add the way back of each stride, if both ways are wanted."""
    return tuple(sorted({*strides, *(length - s for s in strides)})) if duplex else strides


def _cost(axis: Axis) -> tuple[int, int]:
    return int(axis.load.max()), axis.steps


def _improved(axis: Axis, duplex: bool) -> Axis:
    """The best after changing one stride at a time, as long as that helps."""
    while True:
        options = [axis]
        for old in axis.strides:
            # With both ways a stride and its way back can only change together.
            kept = set(axis.strides) - {old, axis.length - old if duplex else old}
            for new in range(1, axis.length):
                strides = _closed(axis.length, tuple(sorted({*kept, new})), duplex)
                if len(strides) == len(axis.strides) and gcd(axis.length, *strides) == 1:
                    options.append(Axis(axis.length, strides))
        better = min(options, key=_cost)
        if _cost(better) >= _cost(axis):
            return axis
        axis = better


def _with_lanes(axes: tuple[Axis, ...], degree: int, duplex: bool) -> Scheme:
    """Lanes that are left go to the links that carry most per lane, if both ways to both."""
    nodes = prod(axis.length for axis in axes)
    lanes = [[1] * len(axis.strides) for axis in axes]
    left = degree - sum(map(sum, lanes))
    places = [(i, j) for i, axis in enumerate(axes) for j in range(len(axis.strides))]
    while left > 0:
        i, j = max(places, key=lambda at: nodes // axes[at[0]].length * axes[at[0]].load[at[1]] / lanes[at[0]][at[1]])
        strides = axes[i].strides
        # A stride of half the axis is its own way back, and the set has one member then.
        pair = {j, strides.index(axes[i].length - strides[j])} if duplex else {j}
        if len(pair) > left:
            break
        for each in pair:
            lanes[i][each] += 1
        left -= len(pair)
    return Scheme(axes, tuple(map(tuple, lanes)))
