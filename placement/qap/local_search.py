"""Local search for the quadratic assignment problem by swaps of two facilities: tabu search and iterated descent, compiled.

With A the flow, B the distance between the locations of the facilities, and C[i,j] = sum over k of A[i,k] B[j,k], the swap
of u and v changes the value by D[u,v] = C[u,v] + C[v,u] - C[u,u] - C[v,v] + (A[u,v] + A[v,u]) (B[u,v] + B[v,u]). A swap of
r and q adds x y' to C, where x = A[:,r] - A[:,q] and y = B[:,q] - B[:,r], and exchanges two columns of it, so that D[u,v]
falls by (x[u] - x[v]) (y[u] - y[v]) for pairs of others: one product per pair and swap, where Taillard (1991) has two, and
n for each pair with r or q. If neither matrix is symmetric, C has a second such term of the transposed matrices.

The arrays are of 32-bit integers when nothing can overflow, else of doubles.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from lightfabric.model.kernel.compiled import Records, compiled

CURRENT, BEST, BASE, LEAST_GAIN = range(4)
"""Places in ``Search.value``."""
MOVE, STRENGTH = range(2)
"""Places in ``Search.count``."""
GENTLEST = 3
_NEVER = 2**31 - 1

_unordered: Any = partial(compiled, fastmath={"nnan", "nsz"})
"""Like ``compiled``, for minima of numbers that are never NaN, which may then be taken in any order."""


class Search(NamedTuple):
    """State of a search: matrices by facility, ``distance`` and ``tabu`` between the locations that they are at.

    ``delta`` and ``tabu`` hold pairs (u, v) with u < v only. ``until[u, v]`` is the last move before which u may not go to
    the location of v; a swap is tabu while both its facilities are.
    """

    flow: Records
    both_ways: Records
    distance: Records
    product: Records
    delta: Records
    until: Records
    tabu: Records
    permutation: Records
    best: Records
    base: Records
    base_product: Records
    base_delta: Records
    base_distance: Records
    x: Records
    y: Records
    random: Records
    value: Records
    count: Records


@compiled
def _uniform(search: Search) -> float:
    """Draw a number from [0, 1) by xorshift64 (Marsaglia, 2003)."""
    word = search.random[0]
    # The shifts 13, 7, 17 are one of the triples with full period; 0 is the one state from which nothing follows.
    word ^= word << np.uint64(13)
    word ^= word >> np.uint64(7)
    word ^= word << np.uint64(17)
    search.random[0] = word
    # The mantissa of a double has 53 bits, and as many of the word are left.
    return float(word >> np.uint64(11)) / 9007199254740992.0


@compiled
def _below(search: Search, count: int) -> int:
    return int(_uniform(search) * count)


@compiled
def _exchange_columns(matrix: Records, r: int, q: int) -> None:
    for i in range(len(matrix)):
        matrix[i, r], matrix[i, q] = matrix[i, q], matrix[i, r]


@compiled
def _add_term(search: Search) -> None:
    """Add the products of ``x`` and ``y`` to C, and take them from D."""
    n, x, y = len(search.permutation), search.x, search.y
    for u in range(n):
        x_u, y_u = x[u], y[u]
        delta = search.delta[u]
        for v in range(u + 1, n):
            delta[v] -= (x_u - x[v]) * (y_u - y[v])
        # Where flow is sparse most of x is 0, and whole rows of C stay as they are.
        if x_u != 0:
            product = search.product[u]
            for v in range(n):
                product[v] += x_u * y[v]


@compiled
def _recount(search: Search, w: int) -> None:
    """Compute D of all pairs with w anew from C."""
    product, distance = search.product, search.distance
    for v in range(len(search.permutation)):
        change = product[w, v] + product[v, w] - product[w, w] - product[v, v]
        change += search.both_ways[w, v] * (distance[w, v] + distance[v, w])
        if v > w:
            search.delta[w, v] = change
        elif v < w:
            search.delta[v, w] = change


@compiled
def swap(search: Search, r: int, q: int, symmetric: bool) -> None:
    """Exchange the locations of r and q. O(n^2)."""
    n, x, y, flow, distance = len(search.permutation), search.x, search.y, search.flow, search.distance
    # The value must be taken before D is brought up to date.
    search.value[CURRENT] += search.delta[min(r, q), max(r, q)]
    for i in range(n):
        x[i] = flow[r, i] - flow[q, i]
        y[i] = distance[q, i] - distance[r, i]
    # The terms are of the distances before the swap, so columns are exchanged only afterwards.
    _add_term(search)
    if not symmetric:
        for i in range(n):
            x[i] = flow[i, r] - flow[i, q]
            y[i] = distance[i, q] - distance[i, r]
        _add_term(search)
    _exchange_columns(search.product, r, q)
    _exchange_columns(distance, r, q)
    for i in range(n):
        distance[r, i], distance[q, i] = distance[q, i], distance[r, i]
    search.permutation[r], search.permutation[q] = search.permutation[q], search.permutation[r]
    # The product rule holds for pairs of other facilities only.
    _recount(search, r)
    _recount(search, q)


@_unordered
def _least(search: Search, move: int, aspiration: float, nothing: float) -> tuple[float, int]:
    """Least D of the pairs that are not tabu or below ``aspiration``, and the first facility of such a pair or -1."""
    least, row = nothing, -1
    for u in range(len(search.permutation) - 1):
        delta, tabu = search.delta[u], search.tabu[u]
        least_of_row = nothing
        for v in range(u + 1, len(search.permutation)):
            # The bitwise or leaves no branch, so that the compiler can make the loop into vector instructions.
            change = delta[v] if (tabu[v] <= move) | (delta[v] < aspiration) else nothing
            least_of_row = min(least_of_row, change)
        if least_of_row < least:
            least, row = least_of_row, u
    return least, row


@compiled
def _keep_best(search: Search) -> None:
    if search.value[CURRENT] < search.value[BEST] - search.value[LEAST_GAIN]:
        search.value[BEST] = search.value[CURRENT]
        for i in range(len(search.permutation)):
            search.best[i] = search.permutation[i]


@compiled
def _forbid(search: Search, r: int, q: int, move: int) -> None:
    """Tabu on the way back of a swap that was just made. Tenures are 8 n times the cube of a random number.

    Of this form in Taillard's later codes: most are short, some very long.
    """
    n, until = len(search.permutation), search.until
    # Columns stand for the locations of facilities, and two of these have just changed.
    _exchange_columns(until, r, q)
    first, second = _uniform(search), _uniform(search)
    until[r, q] = move + int(first * first * first * 8 * n)
    until[q, r] = move + int(second * second * second * 8 * n)
    for v in range(n):
        if v != r:
            search.tabu[min(v, r), max(v, r)] = min(until[v, r], until[r, v])
        if v != q:
            search.tabu[min(v, q), max(v, q)] = min(until[v, q], until[q, v])


@compiled
def tabu(search: Search, moves: int, nothing: float, symmetric: bool) -> int:
    """Robust tabu search (Taillard, 1991): always the best swap that is not tabu, or beats the best value.

    ``nothing`` is a number of the type of D and above all of them.
    """
    n = len(search.permutation)
    for _ in range(moves):
        search.count[MOVE] += 1
        move: Any = np.int32(search.count[MOVE])
        wanted = search.value[BEST] - search.value[LEAST_GAIN] - search.value[CURRENT]
        # The bound may lie far below any D, where 32-bit integers would wrap around.
        aspiration = search.x.dtype.type(max(wanted, -nothing))
        least, r = _least(search, move, aspiration, nothing)
        # All swaps are tabu and none is good enough: any move keeps the search going.
        if r < 0:
            r = _below(search, n - 1)
            q = r + 1 + _below(search, n - 1 - r)
        else:
            # The scan finds the row only, so that it can run in vectors; the column is looked up afterwards, once per move.
            q = r + 1
            while search.delta[r, q] != least or (search.tabu[r, q] > move and search.delta[r, q] >= aspiration):
                q += 1
        swap(search, r, q, symmetric)
        _forbid(search, r, q, move)
        _keep_best(search)
    return moves


@compiled
def shake(search: Search, strength: int, symmetric: bool) -> None:
    """Move at most ``strength`` random facilities around a cycle."""
    n = len(search.permutation)
    u = _below(search, n)
    for _ in range(strength - 1):
        # Swaps in a chain make one cycle as long as no facility is drawn twice; where one is, fewer move.
        v = (u + 1 + _below(search, n - 1)) % n
        swap(search, u, v, symmetric)
        u = v


@compiled
def _descend(search: Search, nothing: float, symmetric: bool) -> int:
    """Make the best swap until none gains, and say how many were made."""
    moves = 0
    while True:
        # No tenure reaches this move number, so nothing is tabu.
        least, r = _least(search, _NEVER, nothing, nothing)
        if r < 0 or least >= -search.value[LEAST_GAIN]:
            return moves
        q = r + 1
        while search.delta[r, q] != least:
            q += 1
        swap(search, r, q, symmetric)
        moves += 1


@compiled
def _copy(source: Records, target: Records) -> None:
    for i in range(len(source)):
        from_row, to_row = source[i], target[i]
        for k in range(len(source)):
            to_row[k] = from_row[k]


@compiled
def _keep_base(search: Search) -> None:
    search.value[BASE] = search.value[CURRENT]
    # Copies of C and D take n squared steps, where a new start from the permutation would take n cubed.
    _copy(search.product, search.base_product)
    _copy(search.delta, search.base_delta)
    _copy(search.distance, search.base_distance)
    for i in range(len(search.permutation)):
        search.base[i] = search.permutation[i]


@compiled
def _return(search: Search) -> None:
    """Go back to the permutation that the search began from."""
    search.value[CURRENT] = search.value[BASE]
    _copy(search.base_product, search.product)
    _copy(search.base_delta, search.delta)
    _copy(search.base_distance, search.distance)
    for i in range(len(search.permutation)):
        search.permutation[i] = search.base[i]


@compiled
def iterate(search: Search, moves: int, nothing: float, symmetric: bool) -> int:
    """Iterated descent: a cycle of 3 random facilities, descent, back unless it is as good; cycles grow by one in vain.

    At least ``moves`` swaps are made; how many is the result, keeping or returning counted as one. The strength is reset at
    2/5 of the facilities and when something better is found, as in variable neighbourhood search (Mladenovic and Hansen,
    1997).
    """
    n = len(search.permutation)
    done = 0
    while done < moves:
        strength = search.count[STRENGTH]
        shake(search, strength, symmetric)
        done += strength + 1 + _descend(search, nothing, symmetric)
        _keep_best(search)
        gain = search.value[BASE] - search.value[CURRENT]
        if gain > search.value[LEAST_GAIN]:
            search.count[STRENGTH] = GENTLEST
        elif strength < max(GENTLEST + 1, 2 * n // 5):
            search.count[STRENGTH] = strength + 1
        else:
            search.count[STRENGTH] = GENTLEST
        # A plateau can be crossed only if steps along it are kept.
        if gain >= -search.value[LEAST_GAIN]:
            _keep_base(search)
        else:
            _return(search)
    return done
