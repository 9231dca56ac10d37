"""The quadratic assignment problem: facilities with flows between them onto locations with distances between them.

A portfolio: the starts that are given, fast approximate assignment, and from these a memetic search by tabu search and
iterated descent, with a lower bound beside the result.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.qap.bound import lower_bound
from lightfabric.placement.qap.faq import centre, faq, near_centre
from lightfabric.placement.qap.memetic import Memetic
from lightfabric.placement.qap.walk import Budget, Permutation, Walk

MAX_FACILITIES = 2048
_MOST = 1e300
_MAX_EXACT = 1 << 62
_FAQ_SHARE = 0.3
"""Share of a budget that is used when FAQ ends early."""
_MANY = 256
"""Facilities from which on FAQ is run from the centre only."""
_CLOSE = 1e-9


@dataclass(frozen=True)
class Solution:
    """Facility i is at location ``permutation[i]``; no permutation has less than ``lower_bound``.

    ``value`` is the sum of flow[i, j] distance[permutation[i], permutation[j]], an int for integers. ``moves`` were made in
    ``seconds`` of CPU.
    """

    permutation: Permutation
    value: float | int
    lower_bound: float | int
    moves: int
    seconds: float


def solve(
    flow: NDArray[Any],
    distance: NDArray[Any],
    *,
    seconds: float | None = None,
    iterations: int | None = None,
    seed: int = 1,
    starts: Sequence[NDArray[Any]] = (),
) -> Solution:
    """The best permutation found in so many CPU-seconds of this process, or after so many swaps, whichever is first.

    With ``iterations`` alone the result depends on nothing but the arguments; with ``seconds`` it depends on the machine.
    Bound and FAQ take their part of ``seconds``, compilation, at the first call, does not. The result is not worse than
    any of ``starts``, and the search ends at the lower bound. O(n^2) per swap and for memory, O(n^3) to begin: an n in the
    thousands takes seconds whatever the budget.

    The matrices are [n, n], with n to ``MAX_FACILITIES``: any numbers, symmetric or not, diagonals count. ValueError if
    they are not, or for a start that is no permutation.

    Examples:
        >>> line = np.array([[0, 1, 2], [1, 0, 1], [2, 1, 0]])
        >>> solve(np.array([[0, 5, 1], [5, 0, 5], [1, 5, 0]]), line, iterations=100).value
        24

    """
    a, b = _matrices(flow, distance)
    if (seconds is None and iterations is None) or not (seconds is None or seconds > 0) or (iterations or 0) < 0:
        raise ValueError(f"solve must have seconds above 0 or iterations from 0, not {seconds} and {iterations}")
    value = _valuer(a, b)
    given = [_permutation(start, len(a)) for start in starts]
    walk, random = Walk(a, b, seed), np.random.default_rng(seed)
    budget = Budget(iterations, seconds)
    bound = lower_bound(a, b)
    # A bound in doubles can be met up to rounding only.
    enough = bound + _CLOSE * abs(bound) if isinstance(bound, float) else bound
    search = Memetic(walk, value, enough, budget, random)
    search.run(_starts(a, b, given, budget, random))
    return Solution(search.best, value(search.best), bound, budget.done, budget.used_seconds)


def _starts(
    a: NDArray[Any], b: NDArray[Any], given: list[Permutation], budget: Budget, random: np.random.Generator
) -> Iterator[Permutation]:
    yield from given
    n = len(a)
    flow, distance = a.astype(np.float64), b.astype(np.float64)
    # The scale does not change which permutation is best, and products of the largest numbers would be infinite.
    scale = max(np.abs(flow).max(), 1e-300), max(np.abs(distance).max(), 1e-300)
    near = (near_centre(n, random) for _ in range(2 if n <= _MANY else 0))
    for start in chain([centre(n)], near):
        if budget.share() < _FAQ_SHARE:
            yield faq(flow / scale[0], distance / scale[1], start, lambda: budget.share() < _FAQ_SHARE)
    if not given:
        yield np.arange(n)


def _valuer(a: NDArray[Any], b: NDArray[Any]) -> Callable[[Permutation], float | int]:
    """Value of a permutation, exact for integers."""
    if a.dtype == np.int64:
        return lambda permutation: int(np.sum(a * b[np.ix_(permutation, permutation)]))
    return lambda permutation: float(np.sum(a * b[np.ix_(permutation, permutation)]))


def _matrices(flow: NDArray[Any], distance: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both as int64 if no sum of theirs overflows, else both as doubles."""
    a, b = np.asarray(flow), np.asarray(distance)
    for name, matrix in (("flow", a), ("distance", b)):
        if matrix.ndim != 2 or matrix.shape != a.shape or not 1 <= len(a) == a.shape[1] <= MAX_FACILITIES:
            raise ValueError(f"solve.{name} must be n x n of the same n from 1 to {MAX_FACILITIES}, not {matrix.shape}")
        if matrix.dtype.kind not in "biuf" or not np.all(np.isfinite(matrix)):
            raise ValueError(f"solve.{name} must be finite numbers, not {matrix.dtype} with others")
    # The sum is taken in doubles, since that of integers might overflow before it is tested.
    largest = float(np.abs(a.astype(np.float64)).sum()) * float(np.abs(b.astype(np.float64)).max())
    if not largest < _MOST:
        raise ValueError(f"solve.flow times solve.distance must be below {_MOST:g} in sum, not {largest:g}")
    whole = a.dtype.kind != "f" and b.dtype.kind != "f" and largest < _MAX_EXACT
    kept = np.int64 if whole and max(a.max(), b.max()) < _MAX_EXACT else np.float64
    return np.ascontiguousarray(a, kept), np.ascontiguousarray(b, kept)


def _permutation(start: NDArray[Any], n: int) -> Permutation:
    order = np.asarray(start)
    if order.shape != (n,) or order.dtype.kind not in "iu" or not np.array_equal(np.sort(order), np.arange(n)):
        raise ValueError(f"solve.starts must be permutations of 0 to {n - 1}, not {order.tolist()!r:.60}")
    return order.astype(np.int64)
