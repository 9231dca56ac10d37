"""A lattice is the grid of GPUs of a torus, closed along each axis straight or with a twist.

GPUs are points with whole coordinates; a *vector* leads from one to another by so many links along each axis. Points that
the way round an axis joins are the same GPU, so that several vectors lead from one GPU to another.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import product
from math import factorial, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

EVEN_WITHIN, MAX_KINDS = 1e-3, 256
"""How even loads have to be for a search to end, and of how many kinds its changes are."""

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Lattice:
    """Places GPUs on a grid of axes longer than 1, the last axis counting up first.

    If ``twisted``, the way round an axis ends half of the length further along each axis that is longer and comes later.
    """

    shape: tuple[int, ...]
    twisted: bool = False

    @property
    def gpus(self) -> int:
        """Count the points of the grid."""
        return prod(self.shape)

    @property
    def directions(self) -> int:
        """Count the links that leave a GPU, two for each axis."""
        return 2 * len(self.shape)

    def points(self, gpu: _Ints) -> _Ints:
        """Give the coordinates of GPUs, ``[..., axis]``."""
        return np.stack(np.unravel_index(gpu, self.shape), axis=-1).astype(np.int64)

    def gpu(self, point: _Ints) -> _Ints:
        """Find the GPUs at points, which may lie any way outside the grid."""
        inside = point.copy()
        for axis, length in enumerate(self.shape):
            rounds = inside[..., axis] // length
            inside[..., axis] -= rounds * length
            inside += rounds[..., None] * self._shifts[axis]
        place: Any = np.ravel_multi_index(tuple(np.moveaxis(inside, -1, 0)), self.shape)
        return place

    def neighbours(self) -> tuple[_Ints, _Ints]:
        """Find the point of each GPU, and the points that its links lead to, ``[gpu, direction, axis]``, maybe outside."""
        here = self.points(np.arange(self.gpus))
        unit = np.eye(len(self.shape), dtype=np.int64)
        return here, here[:, None] + np.stack([unit, -unit], axis=1).reshape(-1, len(self.shape))

    def stops(self, source: _Ints, destination: _Ints, way: int = 0) -> _Ints:
        """List the GPUs on the way of each pair, both ends included, ``[pair, hop]``, filled up with -1.

        Ways are as short as any, go axis by axis, and load links evenly when all GPUs send to all: on a straight axis with
        an even number of GPUs every other one sends the one way to its opposite. Each ``way`` up to twice the axes begins
        with another axis, or has the other GPUs send that way.
        """
        other, first = divmod(way, len(self.shape))
        vector, start = self._vectors(source, destination, other), self.points(source)
        length = np.abs(vector)
        turned = np.roll(length, -first, axis=1)
        before = np.roll(np.cumsum(turned, axis=1) - turned, first, axis=1)
        hops = length.sum(axis=1)
        stops = np.full((len(source), int(hops.max(initial=0)) + 1), -1, np.int64)
        for hop in range(stops.shape[1]):
            here = hops >= hop
            moved = np.clip(hop - before[here], 0, length[here]) * np.sign(vector[here])
            stops[here, hop] = self.gpu(start[here] + moved)
        return stops

    @cached_property
    def _shifts(self) -> _Ints:
        """Where the way round each axis ends, ``[axis, axis]``."""
        shifts = np.zeros((len(self.shape),) * 2, np.int64)
        for axis, length in enumerate(self.shape if self.twisted else ()):
            for later in range(axis + 1, len(self.shape)):
                shifts[axis, later] = self.shape[later] // 2 if self.shape[later] > length else 0
        return shifts

    def _vectors(self, source: _Ints, destination: _Ints, other: int) -> _Ints:
        start, end = self.points(source), self.points(destination)
        if self._shifts.any():
            return self.chosen[self.gpu(end - start)]
        length = np.array(self.shape)
        ahead = (end - start) % length
        opposite = (2 * ahead == length) & (start % 2 != other)
        return ahead - length * ((2 * ahead > length) | opposite)

    @cached_property
    def chosen(self) -> _Ints:
        """The vector from GPU 0 to each other, of the shortest those that together load all directions alike.

        All pairs a vector apart take the same way, so that all links of a direction carry the same.
        """
        return _even(self.shortest())

    def split_loads(self) -> list[Fraction]:
        """Give what a link of each direction carries if every pair splits one unit evenly over all its shortest ways."""
        loads = [Fraction(0)] * self.directions
        for vectors in self.shortest():
            ways = [factorial(int(abs(each).sum())) // prod(map(factorial, abs(each).tolist())) for each in vectors]
            for vector, share in zip(vectors.tolist(), ways, strict=True):
                for axis, hops in enumerate(vector):
                    loads[2 * axis + (hops < 0)] += Fraction(share * abs(hops), sum(ways))
        return loads

    def shortest(self) -> list[_Ints]:
        """List all shortest vectors from GPU 0 to each GPU, ``[vector, axis]``. O(gpus x 3^axes)."""
        found = list[_Ints]()
        for rounds in product((-1, 0, 1), repeat=len(self.shape)):
            vector = self.points(np.arange(self.gpus))
            # The way round an axis moves the later ones, so that the axes are brought near 0 one after the other.
            for axis, length in enumerate(self.shape):
                over = vector[:, axis] // length - rounds[axis]
                vector[:, axis] -= over * length
                vector += over[:, None] * self._shifts[axis]
            found.append(vector)
        vectors = np.stack(found, axis=1)
        hops = np.abs(vectors).sum(axis=2)
        near = hops == hops.min(axis=1)[:, None]
        return [np.unique(each[short], axis=0) for each, short in zip(vectors, near, strict=True)]


def _even(choices: list[_Ints]) -> _Ints:
    """One vector of each list, such that the sum of squares of hops in each direction is least, by local search.

    They are chosen one after the other; then one or two together are changed, the best change first, until none helps.
    """
    loads = [np.concatenate([each.clip(0), (-each).clip(0)], axis=1) for each in choices]
    vectors = np.concatenate(choices)
    own = np.repeat(np.arange(len(loads)), [len(each) for each in loads])
    first = np.cumsum([0, *(len(each) for each in loads)])
    table, chosen, total = np.concatenate(loads), first[:-1].copy(), np.zeros_like(loads[0][0])
    for gpu, each in enumerate(loads):
        best = int(((total + each) ** 2).sum(axis=1).argmin())
        chosen[gpu] += best
        total += each[best]
    while total.max() > (1 + EVEN_WITHIN) * total.mean():
        change = table - table[chosen[own]]
        kinds, example = np.unique(change, axis=0, return_index=True)
        # Large lattices have very many ties, of which the smallest are enough to level what is left.
        small = np.argsort((kinds**2).sum(axis=1), kind="stable")[:MAX_KINDS]
        kinds, example = kinds[small], example[small]
        after = total + kinds[:, None] + kinds
        squares = (after**2).sum(axis=2)
        # Two changes of one GPU's vector exclude each other; one alone is a change with none, which every GPU has.
        for place in np.argsort(squares, axis=None, kind="stable").tolist():
            one, other = divmod(place, len(kinds))
            if squares[one, other] >= (total**2).sum():
                return vectors[chosen]
            alike = np.flatnonzero((change == kinds[other]).all(axis=1) & (own != own[example[one]]))
            if len(alike):
                for entry in (example[one], alike[0]):
                    chosen[own[entry]] = entry
                total = after[one, other].copy()
                break
    return vectors[chosen]


@lru_cache(maxsize=1 << 10)
def most_cubic(count: int, axes: int) -> tuple[int, ...]:
    """Give the rising lengths of axes whose product is ``count`` and of which the longest is shortest, then the next.

    >>> most_cubic(128, 3), most_cubic(6, 3)
    ((4, 4, 8), (1, 2, 3))
    """
    if axes == 1:
        return (count,)
    divisors = [longest for longest in range(1, count + 1) if count % longest == 0 and longest**axes >= count]
    found = ((*most_cubic(count // longest, axes - 1), longest) for longest in divisors)
    return min((lengths for lengths in found if list(lengths) == sorted(lengths)), key=lambda lengths: lengths[::-1])
