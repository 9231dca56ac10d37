"""An exchange whose members pass on what is for others: what goes over the same link together is one message.

A *way* is a list of the members at which bytes of a pair stop; a *leg* leads from a stop to the next. A *message* is all
that goes over a leg in one step. It begins when the message before it on its leg, and all that it passes on, have come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Messages:
    """Lists messages by rising step; entry e is of pair ``row[e]``, whose hop ``hop[e]`` is in the message ``message[e]``.

    Entries of a pair on one of its ``ways``, which share its bytes evenly, follow each other.
    """

    step: _Ints
    source: _Ints
    destination: _Ints
    ways: int
    row: _Ints
    hop: _Ints
    message: _Ints

    def sizes(self, size: NDArray[np.number]) -> _Floats:
        """Add up the bytes of each message, where each pair has ``size``."""
        return np.bincount(self.message, size[self.row] / self.ways, len(self.step)).astype(np.float64)

    @cached_property
    def last(self) -> NDArray[np.bool_]:
        """Tell which entries are the last of a way."""
        return np.append(self.hop[1:] == 0, True)

    @cached_property
    def edges(self) -> _Ints:
        """List what waits for what, rows of (before, after): what is passed on, then the messages of a leg in turn."""
        passed = np.stack([self.message[:-1], self.message[1:]], axis=1)[self.hop[1:] > 0]
        order = np.lexsort((self.step, self.destination, self.source))
        same = (np.diff(self.source[order]) == 0) & (np.diff(self.destination[order]) == 0)
        return np.unique(np.concatenate([passed, np.stack([order[:-1][same], order[1:][same]], axis=1)]), axis=0)

    def last_end(self, taken: _Floats) -> float:
        """End of the last message, each of which takes so long, if no leg shares a link with others."""
        leg = np.unique(np.stack([self.source, self.destination]), axis=1, return_inverse=True)[1].ravel()
        return last_end(self.step, self.edges, leg, np.arange(len(leg)), taken)


def last_end(step: _Ints, edges: _Ints, links: _Ints, of: _Ints, taken: _Floats) -> float:
    """End of the last message, of which each takes ``taken[i]`` on ``links[i]`` if ``of[i]`` is its number, which rises.

    Links serve one step after the other, what is in a step together. O(edges + links of messages).
    """
    ready, done, free = np.zeros(len(step)), np.zeros(len(step)), np.zeros(1 + int(links.max(initial=0)))
    edges = edges[np.argsort(step[edges[:, 1]], kind="stable")]
    steps = np.arange(int(step[-1]) + 2)
    into, bounds = step[edges[:, 1]].searchsorted(steps), step[of].searchsorted(steps)
    for number in steps[:-1].tolist():
        before, after = edges[into[number] : into[number + 1]].T
        np.maximum.at(ready, after, done[before])
        own = slice(bounds[number], bounds[number + 1])
        np.maximum.at(free, links[own], ready[of[own]])
        np.add.at(free, links[own], taken[own])
        np.maximum.at(done, of[own], free[links[own]])
    return float(done.max())


def messages(stops: Sequence[_Ints], size: NDArray[np.number]) -> Messages:
    """Make the messages of pairs that send ``size`` over the ways ``stops[way][pair, hop]``, filled up with -1.

    Pairs all begin in the first step, or all end in the last, so that what goes furthest from a source of much goes first;
    what ends earlier if all legs are alike.
    """
    options = [_in_steps(stops, late) for late in (False, True)]
    return min(options, key=lambda each: each.last_end(each.sizes(size)))


def _in_steps(stops: Sequence[_Ints], late: bool) -> Messages:
    members = 1 + max(int(each.max()) for each in stops)
    hops = [(each[:, 1:] >= 0).sum(axis=1) for each in stops]
    last = max(int(each.max()) for each in hops)
    rows, hop, key = list[_Ints](), list[_Ints](), list[_Ints]()
    for ways, count in zip(stops, hops, strict=True):
        row, own = np.nonzero(ways[:, 1:] >= 0)
        step = own + (last - count[row] if late else 0)
        rows.append(row)
        hop.append(own)
        key.append((step * members + ways[row, own]) * members + ways[row, own + 1])
    kinds, message = np.unique(np.concatenate(key), return_inverse=True)
    step, leg = np.divmod(kinds, members * members)
    return Messages(step, leg // members, leg % members, len(stops), np.concatenate(rows), np.concatenate(hop), message)


@dataclass(frozen=True)
class Relays:
    """Knows the ways of pairs of ranks, which are alike in all blocks of ``block`` ranks and all ``columns`` of these.

    ``ways[i][pair]`` are the ranks at which the pair ``key[pair]``, source * block + destination, of the first block and
    column stops; keys rise.
    """

    block: int
    columns: int
    key: _Ints
    ways: tuple[_Ints, ...]

    @property
    def legs(self) -> _Ints:
        """List the ends of all legs, ``[end, leg]``."""
        ends = np.concatenate([np.stack([each[:, :-1], each[:, 1:]]).reshape(2, -1) for each in self.ways], axis=1)
        return np.unique(ends[:, ends[1] >= 0], axis=1)

    def bases(self, rank: NDArray[np.integer]) -> _Ints:
        """Find the first rank of the block and column that each rank is in."""
        return rank.astype(np.int64) // self.block * self.block + rank % self.columns

    def pairs(self, source: NDArray[np.integer], destination: NDArray[np.integer]) -> _Ints:
        """Find the number of each pair, -1 of those that have no ways."""
        base = self.bases(source)
        wanted = np.where(base == self.bases(destination), (source - base) * self.block + destination - base, -1)
        found = np.searchsorted(self.key, wanted).clip(max=len(self.key) - 1)
        return np.where(self.key[found] == wanted, found, -1)

    def messages(self, pairs: _Ints, size: NDArray[np.number]) -> Messages:
        """Make the messages of some of the pairs, see there."""
        return messages([each[pairs] for each in self.ways], size)
