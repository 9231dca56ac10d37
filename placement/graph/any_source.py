"""Finds the message that each receive takes when some take it from any source or of any tag.

Which message comes first depends on time, so the programs are run once at nominal rates, with MPI's rules: a message goes to
the first posted receive that it fits, a receive takes the first message that has come and fits, and messages from one rank
to another do not overtake each other.
"""

from collections import defaultdict, deque
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

from lightfabric.model.task import Kind

if TYPE_CHECKING:
    from lightfabric.placement.graph.assembly import Assembly, Ends, Receive

LATENCY_PS, PS_PER_BYTE = 2_000_000, 80
"""Nominal time of a message, 2 us and 100 Gbps: it only says which of several messages comes first."""

_Fit = tuple[int, int, int]


def pairs(assembly: "Assembly") -> Iterator[tuple["Receive", int]]:
    """Give every receive that gets a message, with the task of that message. O(n log n) for n parts and their waits."""
    run = _Run(assembly)
    run.to_the_end()
    yield from run.found


class _Run:
    """Runs all programs; a *part* is known by its rank and identity, an event is a part that starts or ends."""

    def __init__(self, assembly: "Assembly") -> None:
        self.found: list[tuple[Receive, int]] = []
        self._tasks, self._of_node = assembly.tasks, assembly.of_node
        self._ends = {task: ends for ends, sends in assembly.sends.items() for _, task in sends}
        self._receives = {
            (each[1], each[2]): (ends, each) for ends, receives in assembly.receives.items() for each in receives
        }
        self._events: list[tuple[int, int, bool, tuple[int, int]]] = []
        self._order = count()
        self._busy_ps, self._arrived_ps = defaultdict[int, int](int), defaultdict[tuple[int, int], int](int)
        self._posted = defaultdict[_Fit, deque[tuple[int, "Receive"]]](deque)
        self._come = defaultdict[_Fit, deque[int]](deque)
        self._taken, self._started = set[int](), set[tuple[int, int]]()
        self._now_ps = 0
        self._find_waits(assembly)

    def _find_waits(self, assembly: "Assembly") -> None:
        self._after = defaultdict[tuple[int, int], list[tuple[int, int]]](list)
        self._waiting = dict.fromkeys(self._of_node, 0)
        alone = ((rank, self._tasks[task].identity, waits) for _, rank, task, waits in assembly.waits)
        receives = ((rank, identity, waits) for _, (_, rank, identity, _, waits) in self._receives.values())
        for rank, identity, waits in (*alone, *receives):
            self._waiting[rank, identity] += len(waits)
            for before in waits:
                self._after[rank, before].append((rank, identity))

    def to_the_end(self) -> None:
        for part, waiting in self._waiting.items():
            if not waiting:
                self._add(0, part, ends=False)
        while self._events:
            self._now_ps, _, ends, part = heappop(self._events)
            self._end(part) if ends else self._start(part)
        # What waits in a circle is matched in order, so that it is the circle that is reported.
        for part in self._of_node:
            if part not in self._started:
                self._exchange(part)

    def _add(self, time_ps: int, part: tuple[int, int], *, ends: bool) -> None:
        heappush(self._events, (time_ps, next(self._order), ends, part))

    def _start(self, part: tuple[int, int]) -> None:
        self._started.add(part)
        index = self._of_node[part]
        if part in self._receives:
            self._exchange(part)
            return
        task, until_ps = self._tasks[index], self._now_ps
        if task.kind == Kind.COMPUTE:
            until_ps = self._busy_ps[task.device] = max(self._busy_ps[task.device], until_ps) + task.work
        elif task.kind == Kind.TRANSFER:
            pair = task.device, task.peer
            arrives_ps = until_ps + LATENCY_PS + PS_PER_BYTE * task.work
            until_ps = self._arrived_ps[pair] = max(self._arrived_ps[pair], arrives_ps)
        self._add(until_ps, part, ends=True)

    def _end(self, part: tuple[int, int]) -> None:
        if self._of_node[part] in self._ends:
            self._exchange(part)
        self._release(part)

    def _release(self, part: tuple[int, int]) -> None:
        for after in self._after[part]:
            self._waiting[after] -= 1
            if not self._waiting[after]:
                self._add(self._now_ps, after, ends=False)

    def _exchange(self, part: tuple[int, int]) -> None:
        """Post a receive, or let a message arrive."""
        if part in self._receives:
            self._post(*self._receives[part])
        elif self._of_node[part] in self._ends:
            self._arrive(self._of_node[part])

    def _post(self, ends: "Ends", receive: "Receive") -> None:
        source, rank, tag = ends
        come = self._come[rank, source, tag]
        while come and come[0] in self._taken:
            come.popleft()
        if come:
            self._take(receive, come.popleft())
        else:
            self._posted[rank, source, tag].append((next(self._order), receive))

    def _arrive(self, task: int) -> None:
        source, rank, tag = self._ends[task]
        fits = [(rank, source, tag), (rank, source, -1), (rank, -1, tag), (rank, -1, -1)]
        posted = [self._posted[fit] for fit in fits if self._posted.get(fit)]
        if posted:
            first = min(posted, key=lambda queue: queue[0][0])
            self._take(first.popleft()[1], task)
            return
        # A message that nobody takes yet is in all queues in which a receive may look for it.
        for fit in fits:
            self._come[fit].append(task)

    def _take(self, receive: "Receive", task: int) -> None:
        self._taken.add(task)
        self.found.append((receive, task))
        part = receive[1], receive[2]
        if part in self._started:
            self._release(part)
