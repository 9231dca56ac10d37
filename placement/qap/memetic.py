"""Memetic search for the quadratic assignment problem: a small population, crossed and improved by local search.

After Benlic and Hao, Memetic search for the quadratic assignment problem, Expert Systems with Applications 42(1), 2015. Each
child is improved by tabu search, which is best where the matrices are without structure, or by iterated descent, which is
best where few large flows decide. Which of the two is used follows from what each has found so far.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from lightfabric.placement.qap.walk import Budget, Permutation, Walk

_MEMBERS = 10
_LEAST_MEMBERS = 4
_GENERATIONS = 6
"""Generations that the budget shall be enough for, unless the population is the smallest."""
_CHILDREN = 300
"""Children that the budget shall be enough for, each of ``_LEAST_MOVES`` per facility or more."""
_LEAST_MOVES = 15
_CHILDREN_IN_VAIN = 40
_SHARPNESS = 3
_MEMORY = 0.98
"""Share of an improver's record that is kept from child to child."""


@dataclass
class _Improver:
    """``wins`` of ``tries``: the share of the population that a child beat, in sum."""

    run: Callable[[int, Budget], Permutation]
    wins: float = 1.0
    tries: float = 2.0


@dataclass(frozen=True)
class _Member:
    value: float
    permutation: Permutation


def _value(member: _Member) -> float:
    return member.value


class Memetic:
    """A search that ends with its budget, or when ``value`` has come down to ``enough``.

    ``best`` is the best permutation of all, the starts included.
    """

    def __init__(
        self, walk: Walk, value: Callable[[Permutation], float], enough: float, budget: Budget, random: np.random.Generator
    ) -> None:
        self._walk, self._value, self._enough, self._budget, self._random = walk, value, enough, budget, random
        self._improvers = _Improver(walk.tabu), _Improver(walk.iterate)
        self._moves, self._size = _LEAST_MOVES * walk.n, _MEMBERS
        self._members: list[_Member] = []
        self.best = np.arange(walk.n)
        self.best_value = math.inf

    def run(self, starts: Iterable[Permutation]) -> None:
        """Search onwards from the starts that are given.

        Every other population begins with the best member of the one before.
        """
        for start in starts:
            self._see(start)
        if self._goes_on():
            self._plan(self._budget.used_seconds)
        populations = 0
        while self._goes_on():
            self._populate(populations)
            self._evolve()
            populations += 1
            if self._members:
                self._members = [min(self._members, key=_value)][: 1 - populations % 2]

    def _goes_on(self) -> bool:
        return self._budget.share() < 1 and self.best_value > self._enough

    def _see(self, permutation: Permutation) -> _Member:
        member = _Member(self._value(permutation), permutation)
        if member.value < self.best_value:
            self.best_value, self.best = member.value, member.permutation
        return member

    def _plan(self, start_seconds: float) -> None:
        """The first member; then moves per child, from the time that it took, and members."""
        self._members = [self._improved(self._improvers[0], self.best)]
        move_seconds = (self._budget.used_seconds - start_seconds) / max(1, self._budget.done)
        moves = self._budget.total_moves(move_seconds)
        # A larger budget makes longer searches from each child rather than more children.
        self._moves = max(self._moves, int(moves / _CHILDREN))
        self._size = int(min(_MEMBERS, max(_LEAST_MEMBERS, moves / self._moves / _GENERATIONS)))

    def _improved(self, improver: _Improver, permutation: Permutation) -> _Member:
        self._walk.place(permutation, self._value(permutation))
        return self._see(improver.run(self._moves, self._budget))

    def _populate(self, populations: int) -> None:
        """Fill up with random permutations, by both improvers in turn."""
        found: list[tuple[float, int]] = []
        for i in range(self._size):
            if not self._goes_on():
                return
            start = self.best if populations == i == 0 else self._random.permutation(self._walk.n)
            # Improvers take turns, and populations begin with different ones, so that neither has the better starts.
            turn = (i + 1 + populations) % 2
            member = self._improved(self._improvers[turn], start)
            found.append((member.value, turn))
            if not self._has(member):
                self._members.append(member)
        if populations == 0:
            self._compare(sorted(found))

    def _compare(self, found: list[tuple[float, int]]) -> None:
        """A head start for the improver of the better first members, up to 3 to 1."""
        ranks = [np.mean([place for place, (_, turn) in enumerate(found) if turn == which]) for which in (0, 1)]
        better = self._improvers[int(ranks[1] < ranks[0])]
        better.wins += 2 * abs(float(ranks[0] - ranks[1])) / (len(found) / 2)

    def _evolve(self) -> None:
        """Children in the place of the worst, until too many in a row are not better than the best."""
        in_vain = 0
        while self._goes_on() and in_vain < _CHILDREN_IN_VAIN and len(self._members) > 1:
            improver = self._drawn()
            least = self._least()
            child = self._improved(improver, self._child())
            worst = max(range(len(self._members)), key=lambda place: self._members[place].value)
            # A child that is there already beats nobody: copies would soon be the whole population.
            new = not self._has(child)
            beaten = np.mean([new and child.value < member.value for member in self._members])
            if beaten > 0:
                self._members[worst] = child
            # Records fade, since the improver that is better at first need not be so once members are alike.
            for each in self._improvers:
                each.wins, each.tries = each.wins * _MEMORY, each.tries * _MEMORY
            improver.wins, improver.tries = improver.wins + float(beaten), improver.tries + 1
            in_vain = 0 if child.value < least else in_vain + 1

    def _least(self) -> float:
        return min(map(_value, self._members))

    def _has(self, member: _Member) -> bool:
        return any(np.array_equal(member.permutation, other.permutation) for other in self._members)

    def _drawn(self) -> _Improver:
        # The power favours the better improver without ever leaving the other out.
        rates = [(improver.wins / improver.tries) ** _SHARPNESS for improver in self._improvers]
        return self._improvers[int(self._random.random() * sum(rates) >= rates[0])]

    def _child(self) -> Permutation:
        """Cross two random members; if they are almost the same, move a quarter of the facilities of one in a cycle."""
        drawn = self._random.permutation(len(self._members))
        one, other = (self._members[int(place)].permutation for place in drawn[:2])
        if np.count_nonzero(one != other) >= max(4, len(one) / 10):
            return crossed(one, other, self._random)
        child = one.copy()
        moved = self._random.permutation(len(one))[: max(2, len(one) // 4)]
        child[moved] = np.roll(child[moved], 1)
        return child


def crossed(one: Permutation, other: Permutation, random: np.random.Generator) -> Permutation:
    """Uniform crossover: each facility where one of the parents has it while that is free, the rest at random.

    What the parents share remains: no other facility is there in either.
    """
    child = np.full(len(one), -1)
    free = np.ones(len(one), bool)
    parents = np.stack([one, other])
    heads = random.integers(0, 2, len(one))
    for facility in random.permutation(len(one)):
        for parent in (heads[facility], 1 - heads[facility]):
            if free[parents[parent, facility]]:
                child[facility] = parents[parent, facility]
                free[child[facility]] = False
                break
    child[child < 0] = random.permutation(np.flatnonzero(free))
    return child
