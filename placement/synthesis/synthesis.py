"""Synthesis of a collective on any topology: the best schedule that is found, beside what none can be below."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lightfabric.placement.collective.sends import Collective
from lightfabric.placement.synthesis.certificate import Flows, all_to_all, bound_seconds, received_seconds
from lightfabric.placement.synthesis.flood import flood
from lightfabric.placement.synthesis.forward import Path, forward, forward_alike, moved_ways, paths
from lightfabric.placement.synthesis.links import Links
from lightfabric.placement.synthesis.timed import Timed
from lightfabric.placement.synthesis.translated import translated

KINDS = (
    Collective.ALL_REDUCE, Collective.ALL_GATHER, Collective.REDUCE_SCATTER, Collective.ALL_TO_ALL, Collective.BROADCAST,
)  # fmt: skip
CHUNKS = (1, 8, 32)
"""Pieces of what a rank has for all, or for each: of more and smaller ones links are busy sooner."""
PARTS = 16
"""Of each of the smallest pieces, sent on one after the other; what is added up has to come whole."""
MAX_PARTS = 1 << 18
"""Of all pieces on all links, which take a second."""
MAX_SENDS = 1 << 13
"""So many sends are found in about half a second, one after the other; of more there is no schedule."""
MAX_FORWARDED = 1 << 14
"""Pieces of an all-to-all, which need no choice on their way."""
MAX_PIECES = 1 << 10
"""Of ranks that are alike, of which one is looked at: with 512 an all-to-all takes seconds."""
_ROOTED = 16
"""Times as many if all are of one rank."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Synthesised:
    """Tells the ``bound`` in seconds that no schedule is below, and the fastest schedule that was found, if any."""

    bound_seconds: float
    timed: Timed | None

    @property
    def seconds(self) -> float | None:
        """When the last byte of the schedule has arrived; None without one."""
        return self.timed and self.timed.seconds


def synthesised(collective: Collective, links: Links, size: int) -> Synthesised:
    """Synthesise a collective of ``size`` bytes: those of Chakra's convention, the whole buffer of a member.

    The bound is that of the bytes, that of what a rank receives with latencies, or the longest way that a message cannot
    avoid, whichever is longest. There is no
    schedule where it takes more than ``MAX_SENDS``. ValueError where ranks do not reach each other.
    """
    farthest = links.distances(links.latency_ps, np.arange(links.ranks))[:, : links.ranks]
    if collective == Collective.BROADCAST:
        farthest = farthest[:1]
    moved_by_all = collective in (Collective.ALL_GATHER, Collective.ALL_TO_ALL)
    received = received_seconds(links, size / links.ranks) if moved_by_all else 0.0
    flows = all_to_all(links) if collective == Collective.ALL_TO_ALL else None
    moving = bound_seconds(collective, links, size) if flows is None else size / links.ranks * flows.bound
    bound = max(moving, received, float(farthest.max()) / 1e12)
    best = min(schedules(collective, links, size, flows), key=lambda each: each.seconds, default=None)
    assert best is None or best.seconds >= bound * (1 - _ROUNDING), "a schedule must not be below its bound"
    return Synthesised(bound, best)


def schedules(collective: Collective, links: Links, size: int, flows: Flows | None = None) -> Iterator[Timed]:
    """Schedules by pieces of different sizes; ``flows`` are those of an all-to-all if they are known."""
    ranks, ways, found, pieces = links.ranks, None, None, 0
    spread = collective != Collective.BROADCAST
    sends = ranks * _ROOTED if collective == Collective.BROADCAST else ranks**2
    most = MAX_SENDS if collective != Collective.ALL_TO_ALL else MAX_FORWARDED
    for chunks in CHUNKS:
        few = ranks * chunks <= MAX_PIECES if spread and _alike(links) else sends * chunks <= most
        if not few:
            break
        if collective == Collective.ALL_TO_ALL:
            ways = ways or paths(links, flows or all_to_all(links))
            found, pieces = _exchanged(links, ways, chunks, size / ranks / chunks), ranks**2 * chunks
        elif collective == Collective.BROADCAST:
            found = flood(links, np.zeros(_ROOTED * chunks, np.int64), size / chunks / _ROOTED)
            pieces = _ROOTED * chunks
        elif collective == Collective.ALL_GATHER:
            found, pieces = _gathered(links, chunks, size), ranks * chunks
        elif collective == Collective.REDUCE_SCATTER:
            found = _reduced(links, chunks, size)
        else:
            found = _reduced(links, chunks, size).then(_gathered(links, chunks, size))
        yield found
    if found and pieces and PARTS * len(found.piece) <= MAX_PARTS:
        yield found.in_parts(PARTS, pieces)


def _alike(links: Links) -> bool:
    return bool(links.symmetry.radices) and links.vertices == links.ranks


def _exchanged(links: Links, ways: dict[tuple[int, int], list[Path]], chunks: int, each: float) -> Timed:
    if _alike(links):
        return forward_alike(links, ways, chunks, each)
    every = moved_ways(links, ways) if links.symmetry.radices else ways
    return forward(links, every, chunks, each, np.arange(len(links.source)))


def _reduced(links: Links, chunks: int, size: int) -> Timed:
    """A reduce-scatter: where an all-gather copies, it adds up, and switches cannot."""
    return _gathered(links.backwards, chunks, size, copies=False).backwards


def _gathered(links: Links, chunks: int, size: int, *, copies: bool = True) -> Timed:
    """An all-gather, in which piece p is of rank p modulo n."""
    each = size / links.ranks / chunks
    if _alike(links):
        return translated(links, chunks, each)
    return flood(links, np.tile(np.arange(links.ranks), chunks), each, copies=copies)
