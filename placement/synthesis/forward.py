"""An all-to-all along given ways: flows are taken apart into paths, and links take what has farthest to go first."""

from collections.abc import Iterator
from heapq import heappop, heappush

import numpy as np

from lightfabric.placement.collective.sends import Ids
from lightfabric.placement.synthesis.certificate import Flows
from lightfabric.placement.synthesis.links import Floats, Links
from lightfabric.placement.synthesis.timed import Timed

Path = tuple[int, ...]
"""Links from one rank to another."""
_NOTHING = 1e-6
"""Flows that are less are the rounding of the solver."""


def paths(links: Links, flows: Flows) -> dict[tuple[int, int], list[Path]]:
    """The ways that the flows of an all-to-all take between each two ranks, moved to all ranks where these are alike."""
    found = dict[tuple[int, int], list[Path]]()
    for source, amount in zip(links.symmetry.representatives.tolist(), flows.amount, strict=True):
        for destination, path in _taken_apart(links, source, amount.copy()):
            found.setdefault((source, destination), []).append(path)
    assert len(found) == len(flows.amount) * (links.ranks - 1), "a flow goes to each other rank"
    if not links.symmetry.radices:
        return found
    every = dict[tuple[int, int], list[Path]]()
    for by in range(links.ranks):
        moved = links.with_switches(links.symmetry.moved(by))
        number = links.numbers(moved[links.source], moved[links.destination])
        for (source, destination), ways in found.items():
            of_pair = (int(moved[source]), int(moved[destination]))
            every[of_pair] = [tuple(number[list(path)].tolist()) for path in ways]
    return every


def _taken_apart(links: Links, source: int, amount: Floats) -> Iterator[tuple[int, Path]]:
    """Paths of the least links over what is left of the flows, until each rank has got its 1."""
    leaving = [np.flatnonzero(links.source == vertex).tolist() for vertex in range(links.vertices)]
    wanted = np.ones(links.ranks)
    wanted[source] = 0
    while (wanted > _NOTHING).any():
        came, wave = {source: -1}, [source]
        while wave:
            following = list[int]()
            for vertex in wave:
                for link in leaving[vertex]:
                    near = int(links.destination[link])
                    if amount[link] > _NOTHING and near not in came:
                        came[near] = link
                        following.append(near)
            wave = following
        reached = [rank for rank in came if rank < links.ranks and wanted[rank] > _NOTHING]
        if not reached:
            return
        for rank in reached:
            path, vertex = list[int](), rank
            while vertex != source:
                path.append(came[vertex])
                vertex = int(links.source[came[vertex]])
            moved = min(wanted[rank], amount[path].min())
            if moved > _NOTHING:
                amount[path] -= moved
                wanted[rank] -= moved
                yield rank, tuple(reversed(path))


def forward(links: Links, ways: dict[tuple[int, int], list[Path]], chunks: int, size: float) -> Timed:
    """Send ``chunks`` pieces of ``size`` bytes between each two ranks, over the least loaded of their ways each.

    Piece c of rank s for rank t has the number (c n + s) n + t. O(pieces x hops x log pieces).
    """
    busy = links.occupied_ps(size)
    message = busy + links.latency_ps
    path = _shared_out(links, ways, chunks, busy)
    # What a piece has still to go from each of its links on: the farthest goes first.
    left = {piece: np.cumsum(message[list(way)][::-1])[::-1].tolist() for piece, way in path.items()}
    waiting = [list[tuple[int, int, int, int]]() for _ in busy]
    free_ps, sent, events = [0] * len(busy), list[tuple[int, int, int]](), list[tuple[int, int, int]]()

    def begin(link: int, now_ps: int) -> None:
        if free_ps[link] <= now_ps and waiting[link]:
            _, _, piece, hop = heappop(waiting[link])
            free_ps[link] = now_ps + int(busy[link])
            sent.append((piece, link, now_ps))
            heappush(events, (free_ps[link], -1, link))
            if hop + 1 < len(path[piece]):
                heappush(events, (now_ps + int(message[link]), piece, hop + 1))

    def wait(piece: int, hop: int) -> None:
        # Of pieces with as far to go those for the next ranks are first, so that not all want the same rank at once.
        turn = (piece - piece // links.ranks) % links.ranks
        heappush(waiting[path[piece][hop]], (-left[piece][hop], turn, piece, hop))

    for piece in path:
        wait(piece, 0)
    for link in range(len(busy)):
        begin(link, 0)
    while events:
        now_ps, ready = events[0][0], dict[int, None]()
        while events and events[0][0] == now_ps:
            _, piece, place = heappop(events)
            link = place if piece < 0 else path[piece][place]
            if piece >= 0:
                wait(piece, place)
            ready[link] = None
        for link in ready:
            begin(link, now_ps)
    piece, link, start_ps = np.array(sent, np.int64).reshape(-1, 3).T
    return Timed(links, size, piece, link, start_ps)


def _shared_out(links: Links, ways: dict[tuple[int, int], list[Path]], chunks: int, busy: Ids) -> dict[int, Path]:
    """A way for each piece: those with the fewest choices first, each where the fullest link is least full after it."""
    load, found = np.zeros(len(busy)), dict[int, Path]()
    for (source, destination), options in sorted(ways.items(), key=lambda each: len(each[1])):
        for chunk in range(chunks):
            way = min(options, key=lambda path: ((load[list(path)] + busy[list(path)]).max(), len(path)))
            load[list(way)] += busy[list(way)]
            found[(chunk * links.ranks + source) * links.ranks + destination] = way
    return found
