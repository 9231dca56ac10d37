"""Finds the message that each receive takes when some take it from any source or of any tag.

Which message comes first depends on time, so the programs are run once as if each message had a wire of its own, with MPI's
rules: a message goes to the first posted receive that it fits, a receive takes the first message that has come and fits, and
messages from one rank to another do not overtake each other.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from lightfabric.model.task import Kind


class Wire(NamedTuple):
    """Says how long a message takes: it only tells which of several messages comes first."""

    latency_ps: int
    ps_per_byte: float


NOMINAL = Wire(2_000_000, 80.0)
"""2 us and 100 Gbps, for those who only read a program."""

Ends = tuple[int, int, int]
"""Source, destination and tag of a message; a receive has -1 for any source and for any tag."""
Place = tuple[int, int]
"""Rank of a part, and its identity there."""


class Part(NamedTuple):
    """Describes what a rank does: a receive, or a task, which sends if it is a TRANSFER, and then has ends too."""

    place: Place
    waits: Sequence[int]
    kind: Kind | None
    device: int = -1
    work: int = 0
    ends: Ends = (-1, -1, -1)


def pairs(parts: Iterable[Part], wire: Wire) -> list[tuple[Place, Place]]:
    """Match every receive that gets a message, whose ``kind`` is None, with its send: O(n log n) for n parts and waits."""
    run = _Run(parts, wire)
    run.to_the_end()
    return run.found


class _Run:
    """Runs all programs; an event is a part that starts or ends."""

    def __init__(self, parts: Iterable[Part], wire: Wire) -> None:
        self._wire = wire
        self.found: list[tuple[Place, Place]] = []
        self._parts = {part.place: part for part in parts}
        self._events: list[tuple[int, int, bool, Place]] = []
        self._order = count()
        self._busy_ps, self._arrived_ps = defaultdict[int, int](int), defaultdict[tuple[int, int], int](int)
        self._posted = defaultdict[Ends, deque[tuple[int, Place]]](deque)
        self._come = defaultdict[Ends, deque[Place]](deque)
        self._taken, self._started = set[Place](), set[Place]()
        self._now_ps = 0
        self._waiting = {part.place: len(part.waits) for part in self._parts.values()}
        self._after = defaultdict[Place, list[Place]](list)
        for part in self._parts.values():
            for before in part.waits:
                self._after[part.place[0], before].append(part.place)

    def to_the_end(self) -> None:
        for place, waiting in self._waiting.items():
            if not waiting:
                self._add(0, place, ends=False)
        while self._events:
            self._now_ps, _, ends, place = heappop(self._events)
            if ends:
                self._end(self._parts[place])
            else:
                self._start(self._parts[place])
        # What waits in a circle is matched in order, so that it is the circle that is reported.
        for place, part in self._parts.items():
            if place not in self._started:
                self._exchange(part)

    def _add(self, time_ps: int, place: Place, *, ends: bool) -> None:
        heappush(self._events, (time_ps, next(self._order), ends, place))

    def _start(self, part: Part) -> None:
        self._started.add(part.place)
        if part.kind is None:
            self._exchange(part)
            return
        until_ps = self._now_ps
        if part.kind == Kind.COMPUTE:
            until_ps = self._busy_ps[part.device] = max(self._busy_ps[part.device], until_ps) + part.work
        elif part.kind == Kind.TRANSFER:
            arrives_ps = until_ps + self._wire.latency_ps + round(self._wire.ps_per_byte * part.work)
            until_ps = self._arrived_ps[part.ends[:2]] = max(self._arrived_ps[part.ends[:2]], arrives_ps)
        self._add(until_ps, part.place, ends=True)

    def _end(self, part: Part) -> None:
        self._exchange(part)
        self._release(part.place)

    def _release(self, place: Place) -> None:
        for after in self._after[place]:
            self._waiting[after] -= 1
            if not self._waiting[after]:
                self._add(self._now_ps, after, ends=False)

    def _exchange(self, part: Part) -> None:
        """Post a receive, or let a message arrive."""
        if part.kind is None:
            self._post(part)
        elif part.kind == Kind.TRANSFER:
            self._arrive(part)

    def _post(self, receive: Part) -> None:
        come = self._come[receive.ends]
        while come and come[0] in self._taken:
            come.popleft()
        if come:
            self._take(receive.place, come.popleft())
        else:
            self._posted[receive.ends].append((next(self._order), receive.place))

    def _arrive(self, send: Part) -> None:
        source, rank, tag = send.ends
        fits = [(source, rank, tag), (source, rank, -1), (-1, rank, tag), (-1, rank, -1)]
        posted = [self._posted[fit] for fit in fits if self._posted.get(fit)]
        if posted:
            first = min(posted, key=lambda queue: queue[0][0])
            self._take(first.popleft()[1], send.place)
            return
        # A message that nobody takes yet is in all queues in which a receive may look for it.
        for fit in fits:
            self._come[fit].append(send.place)

    def _take(self, receive: Place, send: Place) -> None:
        self._taken.add(send)
        self.found.append((receive, send))
        if receive in self._started:
            self._release(receive)
