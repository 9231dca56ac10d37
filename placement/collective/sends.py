"""What a collective sends, step by step: which pieces of the members' buffers go from whom to whom, and what waits for it.

S is the whole buffer of a member: what an all-reduce sums or a broadcast spreads, what an all-gather ends with, what a
reduce-scatter or an all-to-all begins with. It is cut into ``parts`` equal pieces. Of n members, piece p of an all-gather
is at first at member p mod n, where a reduce-scatter has it in the end; piece p of an all-to-all goes from member p // n to
member p mod n; the root of those that have one is member 0, and piece p of a scatter is for member p.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class Collective(IntEnum):
    """Names the collectives, by the numbers of Chakra's schema."""

    ALL_REDUCE = 0
    REDUCE = 1
    ALL_GATHER = 2
    GATHER = 3
    SCATTER = 4
    BROADCAST = 5
    ALL_TO_ALL = 6
    REDUCE_SCATTER = 7
    REDUCE_SCATTER_BLOCK = 8
    BARRIER = 9


@dataclass(frozen=True)
class Step:
    """Sends that begin at once; a member sends when its part in the steps before is over.

    Send i moves the pieces ``pieces(turn)[i]``, where -1 stands for none, in each of ``times`` turns one after the other: in
    each turn other pieces, but as many. The receiver adds them to its own if the send ``reduces``. With ``hops`` above 1 the
    sends are in the order of a path of so many, and each passes on bytes while it gets them.
    """

    source: Ids
    destination: Ids
    pieces: Callable[[int], Ids]
    times: int = 1
    hops: int = 1
    reduces: bool | NDArray[np.bool_] = False
    deals: bool = False
    """Whether each gets what is its own: backwards these are whole sums that are collected, and nothing is added."""

    @property
    def counts(self) -> Ids:
        """Count the pieces of each send in a turn."""
        return (self.pieces(0) >= 0).sum(axis=1)

    def backwards(self, *, reduces: bool) -> "Step":
        """Make the step that undoes this one: all goes back, in the reverse order."""

        def pieces(turn: int) -> Ids:
            return self.pieces(self.times - 1 - turn)[::-1]

        source, destination = self.destination[::-1], self.source[::-1]
        return replace(self, source=source, destination=destination, pieces=pieces, reduces=reduces and not self.deals)

    def among(self, members: Ids, of_piece: Ids) -> "Step":
        """Do the same in several groups at once, a row of ``members`` each; ``of_piece[group, piece, k]`` are the pieces."""

        def pieces(turn: int) -> Ids:
            own = self.pieces(turn)
            found = np.where(own[..., None] >= 0, of_piece[:, own], -1)
            return found.reshape(len(members) * len(own), -1)

        return replace(
            self, source=members[:, self.source].ravel(), destination=members[:, self.destination].ravel(), pieces=pieces
        )


@dataclass(frozen=True)
class Sends:
    """Describes the steps of a collective among so many members; node ``members`` is a switch that reduces, if any."""

    members: int
    parts: int
    steps: Sequence[Step]

    @property
    def latencies(self) -> int:
        """Count the latencies that the steps take one after the other: the alpha term of the closed form."""
        return sum(step.times * step.hops for step in self.steps)

    @property
    def share(self) -> Fraction:
        """Add up over the steps what the busiest member sends or receives, as a share of S: the beta term."""
        total = 0
        for step in self.steps:
            ends = (np.bincount(end, step.counts, self.members + 1) for end in (step.source, step.destination))
            # What a switch moves is not a member's, and its ports are those of the members.
            total += step.times * int(max(end[: self.members].max() for end in ends))
        return Fraction(total, self.parts)

    def backwards(self, *, reduces: bool) -> "Sends":
        """Make the collective that collects what this one spreads."""
        return replace(self, steps=[step.backwards(reduces=reduces) for step in reversed(self.steps)])

    def then(self, after: "Sends") -> "Sends":
        """Append the steps of another collective of the same pieces."""
        return replace(self, steps=[*self.steps, *after.steps])


def fixed(pieces: Ids) -> Callable[[int], Ids]:
    """Say that a step of one turn moves these ``[send, piece]``."""
    return lambda _: pieces


def column(pieces: Ids) -> Callable[[int], Ids]:
    """Say that a step of one turn moves one piece per send."""
    return fixed(pieces[:, None])
