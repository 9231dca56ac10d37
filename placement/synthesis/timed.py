"""A synthesised collective says of each piece when it is on which link."""

from dataclasses import dataclass, replace

import numpy as np

from lightfabric.placement.collective.sends import Ids
from lightfabric.placement.synthesis.links import Links


@dataclass(frozen=True)
class Timed:
    """Lists sends in order of their start: piece, link, and when they begin, leave the link free, and arrive.

    A vertex sends a piece when it has arrived there, a link moves one piece after the other, each of ``size`` bytes.
    """

    links: Links
    size: float
    piece: Ids
    link: Ids
    start_ps: Ids

    @property
    def arrival_ps(self) -> Ids:
        """When each piece is at the far end of its link."""
        return self.start_ps + self.links.occupied_ps(self.size)[self.link] + self.links.latency_ps[self.link]

    @property
    def seconds(self) -> float:
        """When the last piece has arrived."""
        return float(self.arrival_ps.max(initial=0)) / 1e12

    def in_parts(self, parts: int, pieces: int) -> "Timed":
        """Cut pieces into parts, so that a vertex sends on the first ones before the last have come.

        Part c of piece p gets the number c ``pieces`` + p. Links keep the order of their pieces, each of which comes to a
        vertex once: not for sums. O(sends x parts).
        """
        size, every = self.size / parts, np.arange(parts)
        busy_ps, latency_ps = self.links.occupied_ps(size), self.links.latency_ps
        free_ps, there_ps, starts = np.zeros(len(busy_ps), np.int64), dict[tuple[int, int], Ids](), list[Ids]()
        for piece, link in zip(self.piece.tolist(), self.link.tolist(), strict=True):
            ends = int(self.links.source[link]), int(self.links.destination[link])
            ready_ps = np.maximum(there_ps.get((ends[0], piece), 0), free_ps[link])
            # A part waits for itself and for those before it.
            start_ps = np.maximum.accumulate(ready_ps - every * busy_ps[link]) + every * busy_ps[link]
            free_ps[link] = start_ps[-1] + busy_ps[link]
            there_ps[ends[1], piece] = start_ps + busy_ps[link] + latency_ps[link]
            starts.append(start_ps)
        start_ps = np.concatenate(starts)
        order = np.argsort(start_ps, kind="stable")
        number = (every * pieces + self.piece[:, None]).ravel()[order]
        return Timed(self.links, size, number, np.repeat(self.link, parts)[order], start_ps[order])

    @property
    def backwards(self) -> "Timed":
        """The same sends from the end to the beginning, over links in the other direction: what spread is reduced."""
        arrival_ps = self.arrival_ps
        start_ps = arrival_ps.max(initial=0) - arrival_ps
        order = np.argsort(start_ps, kind="stable")
        turned = replace(self, links=self.links.backwards, piece=self.piece[order], link=self.link[order])
        return replace(turned, start_ps=start_ps[order])

    def then(self, after: "Timed") -> "Timed":
        """Begin another collective of the same pieces and links when this one has ended."""
        end_ps = int(self.arrival_ps.max(initial=0))
        columns = ((self.piece, after.piece), (self.link, after.link), (self.start_ps, after.start_ps + end_ps))
        piece, link, start_ps = (np.concatenate(both) for both in columns)
        return replace(self, piece=piece, link=link, start_ps=start_ps)
