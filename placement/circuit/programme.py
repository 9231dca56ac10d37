"""Linear and integer programmes, by HiGHS (Huangfu and Hall, 2018), and assignment problems: what is used of scipy.

scipy is imported at the first call, so that an error message need not wait for it.
"""

from dataclasses import dataclass, field
from importlib import import_module
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.circuit.demand import Undecided

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


@dataclass
class Rows:
    """Constraints ``least <= sum of value x variable <= most``, which are added in blocks of sparse rows."""

    variables: int
    row: list[_Ints] = field(default_factory=list[_Ints])
    column: list[_Ints] = field(default_factory=list[_Ints])
    value: list[_Floats] = field(default_factory=list[_Floats])
    least: list[_Floats] = field(default_factory=list[_Floats])
    most: list[_Floats] = field(default_factory=list[_Floats])
    count: int = 0

    def add(self, row: _Ints, column: _Ints, value: _Floats | float, least: _Floats, most: _Floats) -> None:
        """Add as many rows as there are in ``least`` and ``most``; ``row`` counts from the first of them."""
        self.row.append(row + self.count)
        self.column.append(column)
        self.value.append(np.broadcast_to(value, row.shape).astype(float))
        self.least.append(least)
        self.most.append(most)
        self.count += len(least)

    def matrix(self) -> Any:
        """The rows in scipy's sparse form; what is added twice counts twice."""
        entries = np.concatenate(self.value), (np.concatenate(self.row), np.concatenate(self.column))
        return import_module("scipy.sparse").csr_array(entries, shape=(self.count, self.variables))


def solve(rows: Rows, cost: _Floats, most: _Floats, *, integer: bool, until: float = np.inf) -> _Floats | None:
    """Variables from 0 to ``most`` of the least total cost; None if the constraints have no solution.

    With ``until``, a time of ``time.monotonic``, the best solution at that time; Undecided if there is none yet.
    """
    optimize = import_module("scipy.optimize")
    left = until - monotonic()
    if left <= 0:
        raise Undecided
    found = optimize.milp(
        cost,
        integrality=np.full(rows.variables, int(integer)),
        bounds=optimize.Bounds(0, most),
        constraints=optimize.LinearConstraint(rows.matrix(), np.concatenate(rows.least), np.concatenate(rows.most)),
        # The solver's default gap would let a worse solution pass as the best, and bounds would be wrong.
        options={"mip_rel_gap": 0.0} | ({} if np.isinf(left) else {"time_limit": left}),
    )
    # Status 2 is the proof that there is no solution; anything else without one is a limit or trouble.
    if found.x is None and found.status != 2:
        raise Undecided(found.message)
    return None if found.x is None else np.rint(found.x) if integer else found.x


def relax(rows: Rows, cost: _Floats, most: _Floats) -> tuple[_Floats, _Floats]:
    """Real variables from 0 to ``most`` of the least total cost, and what one more of each ``most`` would save.

    The constraints, all equations, must have a solution.
    """
    found = import_module("scipy.optimize").linprog(
        cost, A_eq=rows.matrix(), b_eq=np.concatenate(rows.least), bounds=np.stack([np.zeros_like(most), most], axis=1)
    )
    assert found.status == 0, found.message
    # More room lowers the cost, so the solver's marginals are negative and their opposite is what it saves.
    return found.x, -found.upper.marginals


def minimum(rows: Rows, cost: _Floats) -> tuple[_Floats, _Floats]:
    """Real variables of at least 0 with the least total cost, and what it grows by with the limits of each row.

    Rows must be equations, or have no least value. ValueError if they have no solution.
    """
    matrix, most = rows.matrix(), np.concatenate(rows.most)
    equal = np.concatenate(rows.least) == most
    found = import_module("scipy.optimize").linprog(
        cost, A_ub=matrix[~equal], b_ub=most[~equal], A_eq=matrix[equal], b_eq=most[equal], method="highs"
    )
    if found.status != 0:
        raise ValueError(found.message)
    dual = np.zeros(len(most))
    dual[equal], dual[~equal] = found.eqlin.marginals, found.ineqlin.marginals
    return found.x, dual


def heaviest_permutation(weight: _Floats) -> _Ints:
    """The column of each row that together weigh most. O(n^3), in practice about n^2."""
    return assignment(weight)[1]


def assignment(weight: _Floats) -> tuple[_Ints, _Ints]:
    """Rows and columns of a matrix, each at most once and as many as can be, that together weigh most."""
    return import_module("scipy.optimize").linear_sum_assignment(weight, maximize=True)


def perfect_matching(allowed: NDArray[np.bool_]) -> _Ints | None:
    """A column for each row, all different, where allowed; None if there is none. Hopcroft and Karp, O(edges sqrt(n))."""
    graph = import_module("scipy.sparse").csr_array(allowed)
    column = import_module("scipy.sparse.csgraph").maximum_bipartite_matching(graph, perm_type="column")
    return None if column.min(initial=0) < 0 else column.astype(np.int64)
