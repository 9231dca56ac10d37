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
    """The ways that the flows of an all-to-all take from each representative rank to each other one."""
    found = dict[tuple[int, int], list[Path]]()
    for source, amount in zip(links.symmetry.representatives.tolist(), flows.amount, strict=True):
        for destination, path in _taken_apart(links, source, amount.copy()):
            found.setdefault((source, destination), []).append(path)
    assert len(found) == len(flows.amount) * (links.ranks - 1), "a flow goes to each other rank"
    return found


def moved_ways(links: Links, ways: dict[tuple[int, int], list[Path]]) -> dict[tuple[int, int], list[Path]]:
    """The ways of the first rank, moved to all ranks that are like it."""
    every = dict[tuple[int, int], list[Path]]()
    for by in range(links.ranks):
        moved = links.with_switches(links.symmetry.moved(by))
        number = links.numbers(moved[links.source], moved[links.destination])
        for (source, destination), own in ways.items():
            of_pair = (int(moved[source]), int(moved[destination]))
            every[of_pair] = [tuple(number[list(path)].tolist()) for path in own]
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


def forward(links: Links, ways: dict[tuple[int, int], list[Path]], chunks: int, size: float, turns: Ids) -> Timed:
    """Send ``chunks`` pieces of ``size`` bytes between each two ranks, over the least loaded of their ways each.

    Piece c of rank s for rank t has the number (c n + s) n + t. Links of the same ``turns`` move one piece at a time, all
    together. O(pieces x hops x log pieces).
    """
    busy = links.occupied_ps(size)
    message = busy + links.latency_ps
    path = _shared_out(links, ways, chunks, busy, turns)
    # What a piece has still to go from each of its links on: the farthest goes first.
    left = {piece: np.cumsum(message[list(way)][::-1])[::-1].tolist() for piece, way in path.items()}
    waiting = [list[tuple[int, int, int, int]]() for _ in range(int(turns.max()) + 1)]
    free_ps, sent, events = [0] * len(waiting), list[tuple[int, int, int]](), list[tuple[int, int, int]]()
    turn_of: list[int] = turns.tolist()

    def begin(turn: int, now_ps: int) -> None:
        if free_ps[turn] <= now_ps and waiting[turn]:
            _, _, piece, hop = heappop(waiting[turn])
            link = path[piece][hop]
            free_ps[turn] = now_ps + int(busy[link])
            sent.append((piece, link, now_ps))
            heappush(events, (free_ps[turn], -1, turn))
            if hop + 1 < len(path[piece]):
                heappush(events, (now_ps + int(message[link]), piece, hop + 1))

    def wait(piece: int, hop: int) -> None:
        # Of pieces with as far to go those for the next ranks are first, so that not all want the same rank at once.
        near = (piece - piece // links.ranks) % links.ranks
        heappush(waiting[turn_of[path[piece][hop]]], (-left[piece][hop], near, piece, hop))

    for piece in path:
        wait(piece, 0)
    for turn in range(len(waiting)):
        begin(turn, 0)
    while events:
        now_ps, ready = events[0][0], dict[int, None]()
        while events and events[0][0] == now_ps:
            _, piece, place = heappop(events)
            if piece >= 0:
                wait(piece, place)
            ready[place if piece < 0 else turn_of[path[piece][place]]] = None
        for turn in ready:
            begin(turn, now_ps)
    piece, link, start_ps = np.array(sent, np.int64).reshape(-1, 3).T
    return Timed(links, size, piece, link, start_ps)


def forward_alike(links: Links, ways: dict[tuple[int, int], list[Path]], chunks: int, size: float) -> Timed:
    """Do for all ranks, which are alike and have no switches, what is found for the first, moved to each of them.

    While one link of an orbit moves a piece of the first rank, each other one moves a piece of another rank.
    """
    first, ranks = forward(links, ways, chunks, size, links.symmetry.orbit), links.ranks
    chunk, goal = first.piece // ranks**2, first.piece % ranks
    pieces, taken = list[Ids](), list[Ids]()
    for by in range(ranks):
        moved = links.symmetry.moved(by)
        pieces.append((chunk * ranks + by) * ranks + moved[goal])
        taken.append(links.numbers(moved[links.source], moved[links.destination])[first.link])
    start_ps = np.tile(first.start_ps, ranks)
    order = np.argsort(start_ps, kind="stable")
    return Timed(links, size, np.concatenate(pieces)[order], np.concatenate(taken)[order], start_ps[order])


def _shared_out(
    links: Links, ways: dict[tuple[int, int], list[Path]], chunks: int, busy: Ids, turns: Ids
) -> dict[int, Path]:
    """A way for each piece: those with the fewest choices first, each where the fullest link is least full after it."""
    load, found = np.zeros(int(turns.max()) + 1), dict[int, Path]()
    for (source, destination), options in sorted(ways.items(), key=lambda each: len(each[1])):
        for chunk in range(chunks):
            own = [(load[turns[list(path)]] + busy[list(path)]).max() for path in options]
            way = min(zip(own, options, strict=True), key=lambda each: (each[0], len(each[1])))[1]
            np.add.at(load, turns[list(way)], busy[list(way)])
            found[(chunk * links.ranks + source) * links.ranks + destination] = way
    return found
