"""Spreads pieces from their owners to all ranks: whenever a link is free, it moves what brings most ranks nearer to a piece.

A piece is *held* by a vertex as soon as it is on its way there, and *there* when it has arrived. How *near* a rank is to a
piece is the time of a message from the nearest vertex that holds it.
"""

from collections.abc import Iterator
from heapq import heappop, heappush

import numpy as np

from lightfabric.placement.circuit.programme import assignment
from lightfabric.placement.collective.sends import Ids
from lightfabric.placement.synthesis.links import Floats, Links
from lightfabric.placement.synthesis.timed import Timed


def flood(links: Links, owner: Ids, size: float, *, copies: bool = True) -> Timed:
    """Spread each piece of ``size`` bytes from its owner to all ranks. O(pieces^2 x ranks x links) at worst.

    Unless switches make ``copies`` a piece leaves them once for each time that it came.
    """
    return _Flood(links, owner, size, copies).run()


class _Flood:
    def __init__(self, links: Links, owner: Ids, size: float, copies: bool) -> None:
        self.links, self.size, self.pieces, self.copies = links, size, len(owner), copies
        self.busy_ps = links.occupied_ps(size).tolist()
        message = links.occupied_ps(size) + links.latency_ps
        self.distance = links.distances(message, np.arange(links.vertices))
        self.message_ps = message.tolist()
        every = np.arange(self.pieces)
        self.near = self.distance[owner, : links.ranks]
        self.there = np.zeros((links.vertices, self.pieces), bool)
        self.arrives_ps = np.full((links.vertices, self.pieces), np.inf)
        self.there[owner, every], self.arrives_ps[owner, every] = True, 0.0
        self.entries = np.bincount(links.destination, minlength=links.vertices)
        self.free_ps = [0] * len(links.source)
        self.leaving = [np.flatnonzero(links.source == vertex).tolist() for vertex in range(links.vertices)]
        self.sent = list[tuple[int, int, int]]()

    def run(self) -> Timed:
        """Go from event to event: a piece arrives, or a link becomes free; ValueError if ranks do not reach each other."""
        events = list[tuple[int, int, int]]()
        every, now_ps = set(range(len(self.free_ps))), 0
        idle = every
        while True:
            for link, piece in self._chosen(idle, now_ps):
                heappush(events, (self.free_ps[link], link, -1))
                heappush(events, (now_ps + self.message_ps[link], link, piece))
            if not events and self.there[: self.links.ranks].all():
                break
            if not events:
                # A link may have left a piece to another one that then left it too: now all look again.
                if idle is every:
                    raise ValueError("links must join all ranks, not leave some apart")
                idle = every
                continue
            now_ps, idle = events[0][0], set[int]()
            while events and events[0][0] == now_ps:
                _, link, piece = heappop(events)
                if piece < 0:
                    idle.add(link)
                else:
                    vertex = int(self.links.destination[link])
                    self.there[vertex, piece] = True
                    idle.update(each for each in self.leaving[vertex] if self.free_ps[each] <= now_ps)
        piece, link, start_ps = np.array(list(self._useful()), np.int64).reshape(-1, 3)[::-1].T
        return Timed(self.links, self.size, piece, link, start_ps)

    def _useful(self) -> Iterator[tuple[int, int, int]]:
        """All sends from the last to the first, but those to a switch that had no use for them."""
        leaves = set[tuple[int, int]]()
        for piece, link, start_ps in reversed(self.sent):
            source, destination = int(self.links.source[link]), int(self.links.destination[link])
            if destination >= self.links.ranks and (destination, piece) not in leaves:
                continue
            leaves.discard((destination, piece))
            leaves.add((source, piece))
            yield piece, link, start_ps

    def _chosen(self, idle: set[int], now_ps: int) -> Iterator[tuple[int, int]]:
        """Send what is best over links that are free, those into one vertex together."""
        into = dict[int, list[int]]()
        # The slowest links choose first: what they bring others need not.
        for link in sorted(idle, key=lambda link: (-self.message_ps[link], link)):
            into.setdefault(int(self.links.destination[link]), []).append(link)
        for vertex, links in into.items():
            for link, piece in self._matched(links, vertex, now_ps):
                self._send(link, piece, vertex, now_ps)
                yield link, piece

    def _matched(self, links: list[int], vertex: int, now_ps: int) -> list[tuple[int, int]]:
        """Links into a vertex with different pieces: as many links as can be, then those of most gain."""
        found = [self._options(link, vertex, now_ps) for link in links]
        if len(links) == 1:
            ((pieces, gain),) = found
            return [(links[0], int(pieces[gain.argmax()]))] if len(pieces) else []
        every = np.unique(np.concatenate([pieces for pieces, _ in found]))
        weight = np.zeros((len(links), len(every)))
        for row, (pieces, gain) in zip(weight, found, strict=True):
            row[np.searchsorted(every, pieces)] = gain
        weight += (weight > 0) * (len(links) * weight.max(initial=0.0))
        row, column = assignment(weight)
        helps = weight[row, column] > 0
        return list(zip(np.array(links)[row[helps]].tolist(), every[column[helps]].tolist(), strict=True))

    def _options(self, link: int, vertex: int, now_ps: int) -> tuple[Ids, Floats]:
        """The pieces that can be sent over a link and help, and how much nearer to each all ranks would be."""
        pieces = np.flatnonzero(self.there[self.links.source[link]] & np.isinf(self.arrives_ps[vertex]))
        if len(pieces) and self.entries[vertex] > 1:
            # What others that hold it could bring there sooner is left to them.
            others = np.maximum(self.arrives_ps[:, pieces], now_ps) + self.distance[:, vertex, None]
            pieces = pieces[now_ps + self.message_ps[link] <= others.min(axis=0)]
        gain = np.maximum(self.near[pieces] - self.distance[vertex, : self.links.ranks], 0).sum(axis=1)
        return pieces[gain > 0], gain[gain > 0]

    def _send(self, link: int, piece: int, vertex: int, now_ps: int) -> None:
        self.arrives_ps[vertex, piece] = now_ps + self.message_ps[link]
        source = self.links.source[link]
        if source >= self.links.ranks and not self.copies:
            self.there[source, piece], self.arrives_ps[source, piece] = False, np.inf
        self.near[piece] = self.distance[np.isfinite(self.arrives_ps[:, piece]), : self.links.ranks].min(axis=0)
        self.free_ps[link] = now_ps + self.busy_ps[link]
        self.sent.append((piece, link, now_ps))
