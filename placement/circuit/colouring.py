"""Wavelength numbers for circuits on a ring: circuits that share a segment in one direction have different numbers.

Colouring of circular arcs, which is NP-complete (Garey, Johnson, Miller, Papadimitriou, 1980); laid from a cut it takes at
most twice the fullest segment (Tucker, SIAM J. Appl. Math. 29, 1975).
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.kernel.compiled import Records, compiled
from lightfabric.placement.circuit.demand import Lanes
from lightfabric.placement.mapping.traffic import segment_load

MAX_STEPS = 1 << 26
"""Work that is spent on trying places to cut the ring at, in nodes and arcs x numbers."""
MAX_LENGTHS = 64
"""Lengths of arcs that the lower bound is computed for."""


@dataclass(frozen=True)
class Colouring:
    """Circuit c has wavelength ``number[c]`` of its direction; ``count`` are used and no colouring uses under ``bound``."""

    number: NDArray[np.int64]
    count: int
    bound: int


def colour(nodes: int, source: NDArray[np.int32], steps: Lanes) -> Colouring:
    """Numbers for circuits from ``source``, ``steps`` segments forward or, if negative, backward; at most ``nodes`` of them.

    The best of several places to cut the ring at; ends early where the bound is met. ValueError for a circuit of none or
    more than ``nodes`` segments.

    >>> found = colour(4, np.array([0, 1, 2, 3], np.int32), np.array([2, 2, 2, 2]))
    >>> found.number.tolist(), found.count, found.bound
    ([1, 0, 1, 0], 2, 2)
    """
    wrong = steps[(steps == 0) | (np.abs(steps) > nodes)]
    if len(wrong):
        raise ValueError(f"steps must be from 1 to {nodes} segments either way, not {wrong[0]}")
    number = np.full(len(steps), -1)
    count = bound = 0
    # Each direction has fibres of its own, so both may use the same numbers.
    for backward in (False, True):
        chosen = np.flatnonzero((steps < 0) == backward)
        first = np.mod(np.where(backward, source + steps, source)[chosen], nodes)
        length = np.abs(steps[chosen])
        least = _least(nodes, first, length)
        number[chosen], used = _coloured(nodes, first, length, least)
        count, bound = max(count, used), max(bound, least)
    return Colouring(number, count, bound)


def verify(nodes: int, source: NDArray[np.int32], steps: Lanes, number: NDArray[np.int64]) -> None:
    """ValueError naming the first two circuits of one number, one direction and a segment in common, if there are any."""
    owner: dict[tuple[int, int, int], int] = {}
    for circuit, (start, count, colour) in enumerate(zip(source.tolist(), steps.tolist(), number.tolist(), strict=True)):
        side = 1 if count > 0 else -1
        for step in range(abs(count)):
            segment = (start + step if count > 0 else start - 1 - step) % nodes
            other = owner.setdefault((side, segment, colour), circuit)
            if other != circuit:
                raise ValueError(
                    f"number must differ for circuits {other} and {circuit} on segment {segment}, not be {colour} twice"
                )


def _least(nodes: int, first: Lanes, length: Lanes) -> int:
    """Lower bound of the numbers that arcs need: the fullest segment, and arcs / most that are disjoint.

    The latter of all arcs of a least length, for each: on a ring of 3, three arcs of 2 segments need 3.
    """
    if not len(first):
        return 0
    load = segment_load(first.astype(np.int32), length, np.ones_like(length), nodes)
    least = int(load.max())
    lengths = np.unique(length)
    # Any least length gives a valid bound, so where there are many it is enough to try some of them.
    for shortest in lengths[:: 1 + len(lengths) // MAX_LENGTHS].tolist():
        long = length >= shortest
        end = np.full(2 * nodes + 1, 4 * nodes)  # of the arc that ends first of those that start here or later
        np.minimum.at(end, first[long], first[long] + length[long])
        # The second copy lies one round on, so that a walk around the ring needs no modulo.
        np.minimum.at(end, first[long] + nodes, first[long] + nodes + length[long])
        end = np.minimum.accumulate(end[::-1])[::-1].copy()
        disjoint = _most_disjoint(end, int(first[length == shortest][0]), shortest, nodes)
        least = max(least, ceil(int(long.sum()) / int(disjoint)))
    return least


@compiled
def _most_disjoint(end: Records, begin: int, length: int, nodes: int) -> int:
    """Most arcs of which no two meet: from some node on, each time the one that ends first.

    Some of the most start on any given arc: if none does, at most one meets it, which can be exchanged for it.
    """
    most = 1
    for offset in range(length):
        start = (begin + offset) % nodes
        at, count = end[start], 0
        while at <= start + nodes:
            count += 1
            at = end[at]
        most = max(most, count)
    return most


def _coloured(nodes: int, first: Lanes, length: Lanes, least: int) -> tuple[NDArray[np.int64], int]:
    """The best of both ways to number arcs, from the least crossed places on the ring."""
    best, used = np.arange(len(first)), len(first)
    load = segment_load(first.astype(np.int32), length, np.ones_like(length), nodes)[0]
    crossing = load - np.bincount(first, minlength=nodes)
    by_node = np.lexsort((-length, first))
    at_node = np.searchsorted(first[by_node], np.arange(nodes + 1))
    tries = 1 + MAX_STEPS // (nodes + len(first) * least)
    for cut in np.argsort(crossing, kind="stable")[:tries].tolist():
        offset = np.mod(first - cut, nodes)
        order = np.lexsort((-length, offset, offset + length <= nodes))
        swept, wound = np.full((2, len(first)), -1)
        busy, until = np.zeros(len(first), np.int64), np.full(len(first), nodes)
        for number, count in (
            (swept, _sweep(nodes, order, offset, length, busy, until, swept)),
            (wound, _wind(nodes, cut, by_node, at_node, length, wound)),
        ):
            if count < used:
                best, used = number, int(count)
        if used <= least:
            break
    return best, used


@compiled
def _wind(nodes: int, cut: int, by_node: Records, at_node: Records, length: Records, number: Records) -> int:
    """Number arcs along a helix: the next one starts where the last one ended or soon after, the longest that fits.

    A number ends once round from where it began, and the next begins there, so equal arcs leave no gaps.
    """
    count, at, left = 0, cut, len(by_node)
    limit = cut + 2 * nodes
    begun = False
    while left > 0:
        chosen = -1
        start = at
        while start < limit and chosen < 0:
            for i in range(at_node[start % nodes], at_node[start % nodes + 1]):
                if chosen < 0 and number[by_node[i]] < 0 and start + length[by_node[i]] <= limit:
                    chosen = by_node[i]
            start += 1
        if chosen >= 0:
            # The round of a number begins with its first arc, not where the search for that arc began.
            if not begun:
                begun = True
                limit = start - 1 + nodes
            number[chosen] = count
            at = start - 1 + length[chosen]
            left -= 1
        else:
            count += 1
            begun = False
            limit = at + 2 * nodes
    return count + 1


@compiled
def _sweep(
    nodes: int, order: Records, offset: Records, length: Records, busy: Records, until: Records, number: Records
) -> int:
    """Number arcs along the line from the cut; a number is free from ``busy`` to ``until``, where its first arc began.

    Arcs over the cut come first, one number each. Each other takes the number that is free for the shortest time, so that
    those free to the end of the line are kept for arcs that lead there.
    """
    count = 0
    for i in range(len(order)):
        arc = order[i]
        begin, end = offset[arc], offset[arc] + length[arc]
        if end > nodes:
            busy[count], until[count] = end - nodes, begin
            number[arc] = count
            count += 1
            continue
        chosen = -1
        for colour in range(count):
            fits = busy[colour] <= begin and end <= until[colour]
            if fits and (
                chosen < 0
                or until[colour] < until[chosen]
                or (until[colour] == until[chosen] and busy[colour] > busy[chosen])
            ):
                chosen = colour
        if chosen < 0:
            chosen = count
            count += 1
        busy[chosen] = end
        number[arc] = chosen
    return count
