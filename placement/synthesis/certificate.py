"""Least times of collectives on given links: flows and cuts, each with the certificate that proves it.

Sources: Leighton and Rao, "Multicommodity max-flow min-cut theorems", J. ACM 1999, for all-to-alls: prices of links prove
that the bytes times their least distances need so long. Edmonds, "Edge-disjoint branchings", 1973, for all-gathers: trees
of all ranks can be packed as densely as the worst cut lets through (Zhao et al., "ForestColl", 2024).
"""

from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.circuit.programme import Rows, minimum
from lightfabric.placement.collective.sends import Collective, Ids
from lightfabric.placement.synthesis.links import Floats, Links

MAX_FLOWS, MAX_VARIABLES = 1 << 18, 1 << 15
"""Sources times links, and so many of them as a linear programme has: of more the optimum would take minutes."""
PARTS = 8
POWERS = (0, 2, 8, 32, 128)
"""Where they are more: parts of what a rank sends to another, each on a way of its own, and how steep prices are."""
_CAPACITY = 1 << 30
"""Of the largest link in the integers of a maximum flow; cuts are then measured exactly, whatever is rounded."""


@dataclass(frozen=True)
class Flows:
    """An all-to-all as flows from the representative ranks to all others, each of which gets 1, ``[representative, link]``.

    ``seconds`` is how long the fullest link needs for pieces of 1 byte, and ``bound`` what the ``price`` of the links
    proves: no routing is faster.
    """

    amount: Floats
    price: Floats
    seconds: float
    bound: float


def bound_seconds(collective: Collective, links: Links, size: int) -> float:
    """Least time for buffers of ``size`` bytes without latencies, for the kinds of ``synthesis.KINDS``.

    Switches copy, and do not reduce. ValueError where some ranks do not reach others, or links are too many.
    """
    part = size / links.ranks
    if collective == Collective.ALL_TO_ALL:
        return part * all_to_all(links).bound
    if collective == Collective.ALL_GATHER:
        return part * worst_cut(links)
    if collective == Collective.REDUCE_SCATTER:
        return part * worst_cut(links.backwards)
    if collective == Collective.BROADCAST:
        return size * worst_cut(links, rooted=True)
    # The sum has to leave every set of ranks, and enter it. Each byte is received n - 1 times to be added, and n - 1
    # times to be known [Patarasuk and Yuan 2009], wherever that is.
    received = links.bytes_per_s[links.destination < links.ranks].sum()
    cuts = (worst_cut(each, rooted=True) for each in (links, links.backwards))
    return size * max(*cuts, 2 * (links.ranks - 1) / received)


def received_seconds(links: Links, part: float) -> float:
    """Least time in which each rank can get ``part`` bytes of each other one, each link into it idle at first and at last.

    Nothing is at its near end before a first byte has come from the nearest other rank, and the last byte needs its latency.
    """
    distance, least = links.distances(links.latency_ps, np.arange(links.ranks)), 0.0
    for rank in range(links.ranks):
        into = np.flatnonzero(links.destination == rank)
        others = np.delete(distance, rank, axis=0)
        idle = (others[:, links.source[into]].min(axis=0) + links.latency_ps[into]) / 1e12
        order = np.argsort(idle, kind="stable")
        idle, rate = idle[order], links.bytes_per_s[into][order].cumsum()
        # Of so many links that are idle for the least time; any but the right number makes the time longer.
        bytes_idle = (links.bytes_per_s[into][order] * idle).cumsum()
        least = max(least, float(((part * (links.ranks - 1) + bytes_idle) / rate).min()))
    return least


def all_to_all(links: Links) -> Flows:
    """Route an all-to-all so that the fullest link has least to do, aggregated by source: O(sources x links) variables.

    Of more than ``MAX_VARIABLES`` no optimum is found, but good ways, and the bound may be below the best routing.
    On links that look alike from all ranks there is one source, and what the links of an orbit carry is added up.
    """
    symmetry, count = links.symmetry, len(links.source)
    sources, orbits = symmetry.representatives, len(symmetry.sizes)
    flows = len(sources) * count
    if flows > MAX_FLOWS:
        raise ValueError(f"links must be at most {MAX_FLOWS // len(sources)} for so many ranks, not {count}")
    if flows > MAX_VARIABLES:
        return _in_parts(links)
    rows = Rows(flows + 1)
    column = np.arange(flows).reshape(len(sources), count)
    for place, source in enumerate(sources.tolist()):
        needs = (np.arange(links.vertices) < links.ranks).astype(float)
        needs[source] -= links.ranks
        ends, sign = np.concatenate([links.destination, links.source]), np.repeat([1.0, -1.0], count)
        rows.add(ends, np.tile(column[place], 2), sign, needs, needs)
    # Ranks that are alike send as the representative does, each over other links of the orbit.
    share = links.ranks / len(sources) / symmetry.sizes[symmetry.orbit]
    rate = np.zeros(orbits)
    rate[symmetry.orbit] = links.bytes_per_s
    rows.add(
        np.append(np.tile(symmetry.orbit, len(sources)), np.arange(orbits)),
        np.append(column.ravel(), np.full(orbits, flows)),
        np.append(np.tile(share, len(sources)), -rate / rate.max()),
        np.full(orbits, -np.inf),
        np.zeros(orbits),
    )
    cost = np.zeros(flows + 1)
    cost[-1] = 1.0
    values, dual = minimum(rows, cost)
    price = np.maximum(-dual[-orbits:], 0)[symmetry.orbit] / symmetry.sizes[symmetry.orbit]
    return Flows(values[:-1].reshape(column.shape), price, values[-1] / rate.max(), _priced(links, sources, price))


def _in_parts(links: Links) -> Flows:
    """Send parts on the shortest ways that load links evenly, beside what the best of some prices proves.

    Prices rise with how long a link is busy: in the optimum only the links that are busy all the time have one.
    """
    symmetry, count = links.symmetry, len(links.source)
    sources, sizes = symmetry.representatives, symmetry.sizes[symmetry.orbit]
    # What needs no schedule of this size need not wait for numba.
    from lightfabric.model.fabric.direct.balanced import shared_ways

    ways = shared_ways(links.ranks, sources, links.source, links.destination, links.bytes_per_s, symmetry.orbit, PARTS)
    amount = np.stack([np.bincount(own[own >= 0], minlength=count) / PARTS for own in ways])
    carried = np.bincount(symmetry.orbit, amount.sum(axis=0))[symmetry.orbit] * links.ranks / len(sources) / sizes
    busy = carried / links.bytes_per_s
    prices = [(busy / busy.max()) ** power for power in POWERS]
    bound, price = max(((_priced(links, sources, each), each) for each in prices), key=lambda found: found[0])
    return Flows(amount, price, float(busy.max()), bound)


def _priced(links: Links, sources: Ids, price: Floats) -> float:
    """What prices of links prove: each byte pays for the cheapest way at least, and a second of all links is so much."""
    near = links.distances(price, sources)[:, : links.ranks]
    if not np.isfinite(near).all():
        raise ValueError("links must join all ranks, not leave some apart")
    return float(near.sum() * links.ranks / len(sources) / (links.bytes_per_s @ price))


def worst_cut(links: Links, *, rooted: bool = False) -> float:
    """Most ranks behind a cut that leads to another rank, per byte/s of its links; 1 if only the first rank, the root, is.

    Dinkelbach's method: what a minimum cut finds at the ratio of the worst cut is worse, or there is none.
    """
    ranks, worst = links.ranks, 0.0
    goals = np.arange(1, ranks) if rooted else links.symmetry.representatives
    sends = (np.arange(links.vertices) < (1 if rooted else ranks)).astype(float)
    for goal in goals.tolist():
        alone = np.arange(links.vertices) != goal
        worse = max(worst, _ratio(links, sends, alone))
        while True:
            worst = worse
            worse = _ratio(links, sends, _nearest_cut(links, sends, worst, goal))
            if worse <= worst:
                break
    return worst


def _ratio(links: Links, sends: Floats, behind: NDArray[np.bool_]) -> float:
    across = behind[links.source] & ~behind[links.destination]
    if not sends[behind].any():
        return 0.0
    if not across.any():
        raise ValueError("links must join all ranks, not leave some apart")
    return float(sends[behind].sum() / links.bytes_per_s[across].sum())


def _nearest_cut(links: Links, sends: Floats, ratio: float, goal: int) -> NDArray[np.bool_]:
    """The vertices on the near side of a minimum cut, if each rank feeds 1 / ratio and one takes all."""
    sparse, csgraph = import_module("scipy.sparse"), import_module("scipy.sparse.csgraph")
    start, feeding = links.vertices, np.flatnonzero(sends)
    rate = np.concatenate([links.bytes_per_s, sends[feeding] / ratio])
    capacity = np.rint(rate / rate.max() * (_CAPACITY // (1 + len(feeding)))).astype(np.int32)
    ends = np.append(links.source, np.full(len(feeding), start)), np.append(links.destination, feeding)
    graph = sparse.csr_array((capacity, ends), shape=(start + 1, start + 1))
    left = graph - csgraph.maximum_flow(graph, start, goal).flow
    left.data = np.maximum(left.data, 0)
    left.eliminate_zeros()
    reached = csgraph.breadth_first_order(left, start, return_predecessors=False)
    behind = np.zeros(start + 1, bool)
    behind[reached] = True
    return behind[:-1]
