"""Lower bounds of the quadratic assignment problem: no permutation has a smaller value.

``gilmore_lawler``: Gilmore, Optimal and suboptimal algorithms for the quadratic assignment problem, SIAM 10(2), 1962, and
Lawler, The quadratic assignment problem, Management Science 9(4), 1963. ``projection``: Hadley, Rendl and Wolkowicz, A new
lower bound via projection for the quadratic assignment problem, Mathematics of Operations Research 17(3), 1992.
"""

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.qap.faq import optimize

_Matrix = NDArray[np.float64]
_ROUNDING = 1e-9
"""Share of the largest conceivable value that the bounds leave for the rounding of doubles."""


def lower_bound(flow: NDArray[Any], distance: NDArray[Any]) -> float | int:
    """The best of the bounds here, of the sum of flow[i, j] distance[p(i), p(j)]; an integer for integers. O(n^3).

    Of integers it is rounded up, to an even one if both matrices are symmetric and one has no diagonal.

    Examples:
        >>> lower_bound(np.array([[0, 3], [1, 0]]), np.array([[0, 2], [5, 0]]))
        11

    """
    a, b = flow.astype(np.float64), distance.astype(np.float64)
    scale = float(np.abs(a).sum() * np.abs(b).max())
    # Transposed matrices have the same value but other rows, so Gilmore and Lawler's bound is taken of both.
    bound = max(gilmore_lawler(a, b), gilmore_lawler(a.T, b.T), projection(a, b)) - _ROUNDING * scale
    if not (np.issubdtype(flow.dtype, np.integer) and np.issubdtype(distance.dtype, np.integer)):
        return bound
    even = np.array_equal(flow, flow.T) and np.array_equal(distance, distance.T)
    even = even and not (np.diag(flow).any() and np.diag(distance).any())
    return 2 * ceil(bound / 2) if even else ceil(bound)


def gilmore_lawler(flow: _Matrix, distance: _Matrix) -> float:
    """Each facility with the rest of its row in the best order at each location, then the best assignment of these."""
    n = len(flow)
    off = ~np.eye(n, dtype=bool)
    rising = np.sort(flow[off].reshape(n, n - 1), axis=1)
    falling = -np.sort(-distance[off].reshape(n, n - 1), axis=1)
    return _assignment(rising @ falling.T + np.outer(np.diag(flow), np.diag(distance)))


def projection(flow: _Matrix, distance: _Matrix) -> float:
    """A bound by the eigenvalues on the vectors whose sum is 0; -inf if neither matrix is symmetric."""
    if not (np.array_equal(flow, flow.T) or np.array_equal(distance, distance.T)):
        return -np.inf
    n = len(flow)
    linear = np.outer(np.diag(flow), np.diag(distance))
    a, b = _without_loops((flow + flow.T) / 2), _without_loops((distance + distance.T) / 2)
    basis = _sum_free_basis(n)
    of_a, of_b = (np.linalg.eigvalsh(basis.T @ matrix @ basis) for matrix in (a, b))
    linear += 2 / n * np.outer(a.sum(axis=1), b.sum(axis=1))
    # Products of rising with falling eigenvalues have the least sum that any rotation can give.
    return float(of_a @ of_b[::-1]) + _assignment(linear) - float(a.sum()) * float(b.sum()) / n**2


def _without_loops(matrix: _Matrix) -> _Matrix:
    return matrix - np.diag(np.diag(matrix))


def _sum_free_basis(n: int) -> _Matrix:
    """Orthonormal columns [n, n - 1] whose sums are 0: of the Householder reflection of (1, ..., 1) to an axis."""
    normal = np.full(n, 1 / np.sqrt(n))
    # Adding to the axis rather than taking away from it avoids cancellation.
    normal[0] += 1
    return (np.eye(n) - 2 * np.outer(normal, normal) / (normal @ normal))[:, 1:]


def _assignment(cost: _Matrix) -> float:
    rows, columns = optimize.linear_sum_assignment(cost)
    return float(cost[rows, columns].sum())
