"""Cubes are blocks of a grid of GPUs; what leaves one goes through an optical circuit switch [TPUv4, ISCA 2023].

There is a switch for each place on the face of a cube, for each axis. It joins the + face of each cube to the - face of
one, all at that place: a permutation of the cubes. The number of a switch counts up along the places first, the last axis
first of all, as the numbers of cubes and of the *positions* in a cube do. *Directions* are + and - of each axis in turn.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Cubes:
    """Cuts a grid of GPUs into cubes of ``edge`` along each axis, which divides each length of ``shape``."""

    shape: tuple[int, ...]
    edge: int

    @property
    def count(self) -> int:
        """Count the cubes of the grid."""
        return prod(self.grid)

    @property
    def grid(self) -> tuple[int, ...]:
        """Give how many cubes are along each axis."""
        return tuple(length // self.edge for length in self.shape)

    @property
    def positions(self) -> int:
        """Count the GPUs of a cube."""
        return self.edge ** len(self.shape)

    @property
    def switches(self) -> int:
        """Count the switches, of all axes together."""
        return len(self.shape) * self.edge ** (len(self.shape) - 1)

    @cached_property
    def gpus(self) -> _Ints:
        """Number the GPUs in the grid, ``[cube, position]``."""
        axes = len(self.shape)
        split = np.arange(prod(self.shape)).reshape([each for length in self.grid for each in (length, self.edge)])
        return split.transpose([*range(0, 2 * axes, 2), *range(1, 2 * axes, 2)]).reshape(self.count, self.positions)

    @cached_property
    def steps(self) -> tuple[_Ints, _Ints]:
        """Give where each link leads to and the switch that it goes through, -1 for none, ``[position, direction]``."""
        axes = len(self.shape)
        here = np.stack(np.unravel_index(np.arange(self.positions), (self.edge,) * axes), axis=-1)
        far, switch = (np.full((self.positions, 2 * axes), -1, np.int64) for _ in range(2))
        for direction in range(2 * axes):
            axis, there = direction // 2, here.copy()
            there[:, axis] += 1 - 2 * (direction % 2)
            leaves = there[:, axis] // self.edge != 0
            face = np.ravel_multi_index(tuple(np.delete(here, axis, axis=1).T), (self.edge,) * (axes - 1)) if axes > 1 else 0
            switch[:, direction] = np.where(leaves, axis * self.edge ** (axes - 1) + face, -1)
            far[:, direction] = np.ravel_multi_index(tuple((there % self.edge).T), (self.edge,) * axes)
        return far, switch

    def ends(self, permutations: _Ints) -> _Ints:
        """Find the GPU at the end of each link, ``[gpu, direction]``, by the permutations ``[switch, cube]``."""
        far, switch = self.steps
        both = np.stack([permutations, np.argsort(permutations, axis=1)])
        cube = np.arange(self.count)[:, None, None]
        there = np.where(switch < 0, cube, both[np.arange(far.shape[1]) % 2, switch, cube])
        ends = np.empty((self.gpus.size, far.shape[1]), np.int64)
        ends[self.gpus] = self.gpus[there, far]
        return ends
