"""The obvious Python twin of the kernel's Fifo, Source and Sink: lists, no calendar, every block in every cycle."""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise


class NaiveFifo:
    def __init__(self, depth: int, latency_cycles: int, credit_cycles: int) -> None:
        self.latency_cycles, self.credit_cycles = latency_cycles, credit_cycles
        self.entries: deque[tuple[int, int]] = deque()
        self.space_from = deque([0] * depth)

    def can_push(self, now: int) -> bool:
        return bool(self.space_from) and self.space_from[0] <= now

    def push(self, now: int, packet: int) -> None:
        self.space_from.popleft()
        self.entries.append((now + self.latency_cycles, packet))

    def can_pop(self, now: int) -> bool:
        return bool(self.entries) and self.entries[0][0] <= now

    def pop(self, now: int) -> int:
        self.space_from.append(now + self.credit_cycles)
        return self.entries.popleft()[1]


def run_chain(
    fifos: Sequence[NaiveFifo], offer_cycles: Sequence[int], pauses: Sequence[bool], until_cycle: int
) -> list[tuple[int, int]]:
    """What a sink at the end of a chain of hops sees: (cycle, packet)."""
    offered = deque(enumerate(offer_cycles))
    seen: list[tuple[int, int]] = []
    for now in range(until_cycle):
        if offered and offered[0][1] <= now and fifos[0].can_push(now):
            fifos[0].push(now, offered.popleft()[0])
        for taken, given in pairwise(fifos):
            if taken.can_pop(now) and given.can_push(now):
                given.push(now, taken.pop(now))
        if fifos[-1].can_pop(now) and not (pauses and pauses[now % len(pauses)]):
            seen.append((now, fifos[-1].pop(now)))
    return seen
