"""Routes deadlock where channels wait for each other in a circle: this finds circles, and refuses routes that close one.

Its words:

* *hop*: what a packet holds while it waits for the next: a virtual channel of a line, as (switch, line, virtual channel)
* *waits*: for each hop those that a packet in it may want next [Dally, Seitz, IEEE Trans. Computers 1987]
* *rename*: the virtual channel on a line for each that flits leave the switch on, a permutation; on a ring the line that
  renames is the dateline
"""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T", bound=Hashable)
Hop = tuple[int, int, int]
"""(switch, line or next switch, virtual channel)"""
Line = tuple[int, int]
"""(switch, line or next switch)"""


def reached(after: Mapping[T, Collection[T]], start: T) -> set[T]:
    """Find all that something waits for, directly or through others.

    >>> sorted(reached({1: {2}, 2: {3}, 4: {1}}, 1))
    [2, 3]
    """
    seen, left = set[T](), [start]
    while left:
        found = set(after.get(left.pop(), ())) - seen
        seen |= found
        left += found
    return seen


def circle(waits: Mapping[T, Collection[T]]) -> list[T]:
    """Find some that wait for each other in a circle, in its order; none if nothing does. O(waits).

    >>> circle({1: {2}, 2: {3}, 3: {2}})
    [2, 3]
    >>> circle({1: {2, 3}, 2: {3}})
    []
    """
    open_waits = {one: len(after) for one, after in waits.items()}
    before = defaultdict[T, list[T]](list)
    for one, after in waits.items():
        for other in after:
            before[other].append(one)
    # What waits for nothing goes on, and frees those that wait for it: what is never free waits for a circle.
    free = [one for one in before if not open_waits.get(one)]
    while free:
        for one in before.get(free.pop(), ()):
            open_waits[one] -= 1
            if not open_waits[one]:
                free.append(one)
    stuck = {one: None for one, count in open_waits.items() if count}
    return _walk(waits, stuck) if stuck else []


def _walk(waits: Mapping[T, Collection[T]], stuck: Mapping[T, None]) -> list[T]:
    """Go from one of those that are stuck to the next until one comes again."""
    place, here = dict[T, int](), next(iter(stuck))
    while here not in place:
        place[here] = len(place)
        here = next(other for other in waits[here] if other in stuck)
    return list(place)[place[here] :]


def verify(owner: str, paths: Iterable[Sequence[Hop]]) -> None:
    """Refuse paths of packets, each a sequence of hops, that may deadlock; ValueError names one circle.

    >>> verify("Plan.routes", [[(0, 1, 0), (1, 0, 0)], [(1, 0, 0), (0, 1, 0)]])
    Traceback (most recent call last):
    ValueError: Plan.routes must close no circle of waiting, not 0.1 vc 0 -> 1.0 vc 0 -> 0.1 vc 0
    """
    waits = defaultdict[Hop, dict[Hop, None]](dict)
    for path in paths:
        for hop, then in pairwise(path):
            waits[hop][then] = None
    if found := circle(waits):
        names = " -> ".join(f"{switch}.{line} vc {channel}" for switch, line, channel in [*found, found[0]])
        raise ValueError(f"{owner} must close no circle of waiting, not {names}")


def verify_rename(owner: str, rename: Sequence[int], virtual_channels: int) -> None:
    """Refuse what is no permutation of the virtual channels: packets of two on one would mix."""
    if sorted(rename) != list(range(virtual_channels)):
        raise ValueError(f"{owner} must be a permutation of 0..{virtual_channels - 1}, not {tuple(rename)}")


def routed(
    routes: Sequence[Sequence[int]], far: Mapping[Line, int], channels: Iterable[int], renames: Mapping[Line, Sequence[int]]
) -> Iterator[list[Hop]]:
    """Follow packets from each switch to each destination, on each virtual channel that they start on.

    A packet for d leaves switch s by output ``routes[s][d]``; ``far`` says at which switch the line of an output ends, and
    has none for clients. A packet that comes to a line again, which it would do for ever, ends there.
    """
    starts = list(channels)
    for start, row in enumerate(routes):
        for destination in range(len(row)):
            for channel in starts:
                yield _followed(routes, far, renames, (start, destination, channel))


def _followed(
    routes: Sequence[Sequence[int]],
    far: Mapping[Line, int],
    renames: Mapping[Line, Sequence[int]],
    packet: tuple[int, int, int],
) -> list[Hop]:
    here, destination, channel = packet
    hops = list[Hop]()
    while destination < len(routes[here]) and (line := (here, routes[here][destination])) in far:
        channel = renames[line][channel] if line in renames else channel
        again = (*line, channel) in hops
        hops.append((*line, channel))
        if again:
            break
        here = far[line]
    return hops
