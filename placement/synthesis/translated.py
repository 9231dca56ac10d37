"""An all-gather on links that look alike from all ranks: what one rank's pieces do, all others do moved to their owners.

An *orbit* is all links that translations lead to each other, such as those one step up an axis. While one of them moves a
piece of the first rank, each other one moves the same piece of another rank: an orbit moves one piece at a time.
"""

from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.circuit.programme import assignment
from lightfabric.placement.collective.sends import Ids
from lightfabric.placement.synthesis.links import Floats, Links
from lightfabric.placement.synthesis.timed import Timed

_Bools = NDArray[np.bool_]


def translated(links: Links, chunks: int, size: float) -> Timed:
    """Gather ``chunks`` pieces of ``size`` bytes of each rank at all; needs a symmetry and no switches.

    Whenever orbits are free, as many as can be move pieces where they bring most ranks nearer to them.
    """
    orbit, busy, message = links.symmetry.orbit, links.occupied_ps(size), links.occupied_ps(size) + links.latency_ps
    distance = links.distances(message, np.arange(links.ranks))
    near, there = np.tile(distance[0], (chunks, 1)), np.zeros((chunks, links.ranks), bool)
    there[:, 0] = True
    held, sent, events = there.copy(), list[tuple[int, int, int]](), list[tuple[int, int, int]]()
    free_ps, now_ps = np.zeros(len(links.symmetry.sizes), np.int64), 0
    while True:
        ready = np.flatnonzero(free_ps <= now_ps)
        for link, piece in _chosen(links, np.isin(orbit, ready), there, held, _gain(near, distance)):
            vertex = links.destination[link]
            held[piece, vertex] = True
            near[piece] = np.minimum(near[piece], distance[vertex])
            free_ps[orbit[link]] = now_ps + busy[link]
            sent.append((piece, link, now_ps))
            heappush(events, (int(free_ps[orbit[link]]), -1, -1))
            heappush(events, (now_ps + int(message[link]), piece, int(vertex)))
        if not events:
            return _for_all(links, size, np.array(sent, np.int64).reshape(-1, 3))
        now_ps = events[0][0]
        while events and events[0][0] == now_ps:
            _, piece, vertex = heappop(events)
            if piece >= 0:
                there[piece, vertex] = True


def _gain(near: Floats, distance: Floats) -> Floats:
    """How much nearer all ranks are to a piece when a rank has it, ``[piece, rank]``."""
    return np.stack([np.maximum(each - distance, 0).sum(axis=1) for each in near])


def _chosen(links: Links, free: _Bools, there: _Bools, held: _Bools, gain: Floats) -> list[tuple[int, int]]:
    """Links and pieces: each orbit once, each piece once to a rank; as many as can be, then those of most gain."""
    piece, link = np.nonzero(there[:, links.source] & ~held[:, links.destination] & free)
    if not len(link):
        return []
    orbits, row = np.unique(links.symmetry.orbit[link], return_inverse=True)
    targets, column = np.unique(piece * links.ranks + links.destination[link], return_inverse=True)
    weight, number = np.zeros((len(orbits), len(targets))), np.zeros((len(orbits), len(targets)), np.int64)
    worth = gain[piece, links.destination[link]]
    weight[row, column], number[row, column] = worth + len(orbits) * (1 + worth.max()), link
    rows, columns = assignment(weight)
    real = weight[rows, columns] > 0
    return list(zip(number[rows, columns][real].tolist(), (targets[columns] // links.ranks)[real].tolist(), strict=True))


def _for_all(links: Links, size: float, sent: Ids) -> Timed:
    """Do for each rank's pieces what was found for those of the first, moved to its place."""
    piece, link, start_ps = sent.T
    moved = [links.symmetry.moved(rank) for rank in range(links.ranks)]
    link = np.concatenate([links.numbers(each[links.source[link]], each[links.destination[link]]) for each in moved])
    piece = np.concatenate([piece * links.ranks + rank for rank in range(links.ranks)])
    start_ps = np.tile(start_ps, links.ranks)
    order = np.argsort(start_ps, kind="stable")
    return Timed(links, size, piece[order], link[order], start_ps[order])
