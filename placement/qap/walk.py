"""A search from permutation to permutation of one quadratic assignment problem, within a budget."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.kernel.dispatch import entry_point
from lightfabric.placement.qap import local_search as swap

Permutation = NDArray[np.int64]
_LARGEST_WORD = 1 << 30
_EXACT = 2.0**53
_ROUNDING = 1e-11
_PAIRS_PER_LOOK = 4e6
"""Between two looks at the clock: about 4 ms."""


@dataclass
class Budget:
    """So many moves, or until so many CPU-seconds of this process are over; None is without limit."""

    moves: int | None
    seconds: float | None
    done: int = 0
    start_seconds: float = field(default_factory=time.process_time)

    @property
    def used_seconds(self) -> float:
        """CPU time since the budget was made."""
        return time.process_time() - self.start_seconds

    def share(self) -> float:
        """How much of it is used, 1 for all."""
        moves = 0.0 if self.moves is None else (self.done / self.moves if self.moves else 1.0)
        seconds = 0.0 if self.seconds is None else self.used_seconds / self.seconds
        return max(moves, seconds)

    def total_moves(self, move_seconds: float) -> float:
        """How many moves it is from now on, given the time of one."""
        moves = np.inf if self.moves is None else self.moves - self.done
        return min(moves, np.inf if self.seconds is None else (self.seconds - self.used_seconds) / move_seconds)


class Walk:
    """Where a search is: ``flow`` and ``distance`` are finite numbers, [n, n].

    The sum of the flow over all pairs, each times the largest distance, must be finite too.
    """

    def __init__(self, flow: NDArray[Any], distance: NDArray[Any], seed: int) -> None:
        self.n = len(flow)
        self._loops = np.diag(flow).astype(np.float64), np.diag(distance).astype(np.float64)
        off = 1.0 - np.eye(self.n)
        a, b = flow * off, distance * off
        self.symmetric = bool(np.array_equal(a, a.T) or np.array_equal(b, b.T))
        # Where one matrix is symmetric only sums of both directions of the other count, and a swap needs one product.
        if np.array_equal(b, b.T):
            a = both_ways = a + a.T
        elif self.symmetric:
            b, both_ways = b + b.T, a
        else:
            both_ways = a + a.T
        self._flow, self._distance, self._both_ways = a, b, both_ways
        dtype, least_gain = _arithmetic(flow, distance, self._largest_change())
        self._nothing = dtype(_LARGEST_WORD) if dtype is np.int32 else np.float64(np.finfo(np.float64).max)
        matrix, row = np.zeros((self.n, self.n), dtype), np.zeros(self.n, dtype)
        integers, order = np.zeros((self.n, self.n), np.int32), np.arange(self.n)
        self._search = swap.Search(
            a.astype(dtype), both_ways.astype(dtype), matrix.copy(), matrix.copy(), matrix.copy(), integers.copy(), integers,
            order.copy(), order.copy(), order, matrix.copy(), matrix.copy(), matrix, row.copy(), row,
            np.array([2 * seed + 1], np.uint64),
            np.array([0.0, 0.0, 0.0, least_gain]), np.zeros(2, np.int64),
        )  # fmt: skip
        # Kernels are compiled here, before the budget of a search begins to run.
        example = (self._search, 1, self._nothing, True)
        self._tabu, self._iterate = entry_point(swap.tabu, *example), entry_point(swap.iterate, *example)

    def _largest_change(self) -> float:
        """No entry of C or D is farther from 0."""
        a, b = self._flow, self._distance
        products = min(_longest(a) * np.ptp(b), _longest(b) * np.ptp(a))
        loops = np.abs(self._loops[0]).max() * np.abs(self._loops[1]).max()
        return float(2 * (2 - self.symmetric) * products + 4 * loops)

    def place(self, permutation: Permutation, value: float) -> None:
        """Start anew at a permutation whose value is known. O(n^3)."""
        search, p = self._search, permutation
        a, b = self._flow, self._distance[np.ix_(p, p)]
        product = a @ b.T + np.outer(self._loops[0], self._loops[1][p])
        if not self.symmetric:
            product += a.T @ b
        alone = np.diag(product)
        search.product[:], search.distance[:], search.permutation[:], search.best[:] = product, b, p, p
        search.delta[:] = np.triu(product + product.T - alone - alone[:, None] + self._both_ways * (b + b.T), 1)
        search.until[:], search.tabu[:] = 0, 0
        search.value[: swap.LEAST_GAIN] = value, value, np.inf
        search.count[:] = 0, swap.GENTLEST

    def tabu(self, moves: int, budget: Budget) -> Permutation:
        """Best permutation of a tabu search of so many moves, fewer if the budget ends."""
        return self._run(self._tabu, moves, budget)

    def iterate(self, moves: int, budget: Budget) -> Permutation:
        """Best permutation of an iterated descent of so many moves or a few more, fewer if the budget ends."""
        return self._run(self._iterate, moves, budget)

    def _run(self, kernel: Any, moves: int, budget: Budget) -> Permutation:
        look = max(1, int(_PAIRS_PER_LOOK / self.n**2))
        while moves > 0 and budget.share() < 1:
            left = moves if budget.moves is None else min(moves, budget.moves - budget.done)
            done = int(kernel(self._search, min(left, look), self._nothing, self.symmetric))
            budget.done, moves = budget.done + done, moves - done
        return self._search.best.copy()


def _longest(matrix: NDArray[Any]) -> float:
    """Largest sum of magnitudes of a row or column."""
    return float(max(np.abs(matrix).sum(axis=0).max(), np.abs(matrix).sum(axis=1).max()))


def _arithmetic(flow: NDArray[Any], distance: NDArray[Any], largest: float) -> tuple[Any, float]:
    """Type of the arrays, and what is a gain rather than rounding."""
    whole = bool(np.all(flow == np.rint(flow)) and np.all(distance == np.rint(distance)))
    dtype = np.int32 if whole and largest < _LARGEST_WORD else np.float64
    # Whole numbers are exact in doubles up to 2^53 and differ by at least 1, so a half tells a gain for sure.
    return dtype, 0.5 if whole and largest < _EXACT else _ROUNDING * largest
