"""Fast approximate quadratic assignment: Frank-Wolfe over the doubly stochastic matrices, then the nearest permutation.

Vogelstein, Conroy, Lyzinski, Podrazik, Kratzer, Harley, Fishkind, Vogelstein, Priebe: Fast Approximate Quadratic
Programming for Graph Matching, PLOS ONE 10(4), 2015.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize as _untyped_optimize  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

optimize: Any = _untyped_optimize
_Matrix = NDArray[np.float64]
_MAX_STEPS = 30
_TOLERANCE = 0.03


def faq(flow: _Matrix, distance: _Matrix, start: _Matrix, go_on: Callable[[], bool] = lambda: True) -> NDArray[np.int64]:
    """Permutation p with a small sum of flow[i, j] distance[p(i), p(j)], from a doubly stochastic matrix.

    At most 30 steps of O(n^3) each, as long as ``go_on``.
    """
    here = start
    for _ in range(_MAX_STEPS):
        if not go_on():
            break
        ahead = here + _step(flow, distance, here)
        # The norm is per facility, so that one tolerance does for all sizes.
        moved = float(np.linalg.norm(ahead - here)) / np.sqrt(len(flow))
        here = ahead
        if moved < _TOLERANCE:
            break
    # The nearest permutation is the one that overlaps most with the matrix, hence the sign.
    return _assignment(-here)


def centre(n: int) -> _Matrix:
    """The doubly stochastic matrix in the middle of all permutations."""
    return np.full((n, n), 1 / n)


def near_centre(n: int, random: np.random.Generator) -> _Matrix:
    """Half way from the centre to a random doubly stochastic matrix, by Sinkhorn's iteration."""
    matrix = random.random((n, n)) + 1e-3
    for _ in range(10):
        matrix /= matrix.sum(axis=0)
        matrix /= matrix.sum(axis=1, keepdims=True)
    return (matrix + 1 / n) / 2


def _step(flow: _Matrix, distance: _Matrix, here: _Matrix) -> _Matrix:
    """The step to the least value on the line to the vertex where the gradient falls most."""
    gradient = flow @ here @ distance.T + flow.T @ here @ distance
    vertex = np.zeros_like(here)
    vertex[np.arange(len(here)), _assignment(gradient)] = 1
    way = vertex - here
    slope = float(np.sum(gradient * way))
    curvature = float(np.sum((flow @ way @ distance.T) * way))
    # Along the way the value is a parabola: the least is at its vertex if it opens upwards, else at an end.
    if curvature > 0:
        return min(1.0, max(0.0, -slope / (2 * curvature))) * way
    return way if slope + curvature < 0 else 0 * way


def _assignment(cost: _Matrix) -> NDArray[np.int64]:
    return optimize.linear_sum_assignment(cost)[1]
