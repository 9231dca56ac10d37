"""The linear relaxation of wavelengths on a ring: fractions of lanes, both ways where a pair may go both."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.circuit.arc import Arcs
from lightfabric.placement.circuit.demand import Demand, Lanes, most_even
from lightfabric.placement.circuit.programme import Rows, relax

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Relaxation:
    """Dual ``price[direction, segment]`` of wavelengths, and which part of a pair's lanes goes ``forward``."""

    price: _Floats
    forward: _Floats


def relaxed(arcs: Arcs, demand: Demand) -> Relaxation:
    """Where every pair has one way only the fullest segment decides; else a linear programme of the pairs that have two."""
    forward = arcs.allowed[0].astype(float)
    price = np.zeros((2, arcs.nodes))
    if arcs.either.any():
        price, forward[arcs.either] = _prices(arcs, demand)
    else:
        # With no choice of ways the fullest segment alone limits the ratio, so it alone has a price.
        price.flat[arcs.load(np.tile(demand.size_bytes, (2, 1))).argmax()] = 1
    return Relaxation(price, forward)


def fraction_bound(arcs: Arcs, demand: Demand, capacity: int, relaxation: Relaxation) -> float:
    """No share of ``capacity`` lanes each way has a greater least ratio, not even of fractions of lanes.

    What crosses the segments costs, at any prices, no more than all they have: weak duality, whatever the rounding.
    """
    price = relaxation.price
    return capacity * float(price.sum() / (demand.size_bytes * arcs.along(price).min(axis=0)).sum())


def whole_bound(arcs: Arcs, demand: Demand, capacity: int, relaxation: Relaxation) -> float:
    """No share of whole lanes has a greater least ratio: at most ``fraction_bound``, by the same argument.

    At prices of the relaxation and at equal ones; and what has one way only must fit on every segment.
    """
    prices = [relaxation.price, np.ones_like(relaxation.price)]
    cheapest = [arcs.along(price).min(axis=0) for price in prices]
    fixed = arcs.allowed & ~arcs.either

    def serve(needed: Lanes) -> Lanes | None:
        dear = any(needed @ cost > capacity * price.sum() * (1 + 1e-9) for cost, price in zip(cheapest, prices, strict=True))
        return None if dear or arcs.load(fixed * needed).max() > capacity else needed

    return most_even(demand, fraction_bound(arcs, demand, capacity, relaxation), serve)[1]


def _prices(arcs: Arcs, demand: Demand) -> tuple[_Floats, _Floats]:
    """Dual prices of segments of capacity 1, and the forward part of the pairs that may go either way.

    Variables: the ratio, what each such pair sends ahead, what it sends back, the load of each segment.
    """
    free = np.flatnonzero(arcs.either)
    count = len(free)
    size = demand.size_bytes / demand.size_bytes.max()
    fixed = arcs.load(np.where(arcs.either, 0.0, arcs.allowed * size))
    rows = Rows(1 + 2 * count + 2 * arcs.nodes)
    pair = np.arange(count)
    value = np.concatenate([-size[free], np.ones(2 * count)])
    column = np.concatenate([pair * 0, 1 + pair, 1 + count + pair])
    rows.add(np.tile(pair, 3), column, value, np.zeros(count), np.zeros(count))
    for way in (0, 1):
        sent, load = 1 + way * count + pair, 1 + 2 * count + way * arcs.nodes + np.arange(arcs.nodes)
        _add_flow(rows, fixed[way], load, sent, arcs.first[way, free], arcs.length[way, free])
    cost, most = np.zeros(rows.variables), np.full(rows.variables, np.inf)
    # The solver minimises, so the ratio has a negative cost; the capacity of a segment is 1.
    cost[0], most[1 + 2 * count :] = -1, 1
    found, saved = relax(rows, cost, most)
    ahead, back = found[1 : 1 + count], found[1 + count : 1 + 2 * count]
    return np.maximum(saved[1 + 2 * count :], 0).reshape(2, -1), ahead / np.maximum(ahead + back, 1e-300)


def _add_flow(rows: Rows, fixed: _Floats, load: Lanes, sent: Lanes, first: Lanes, length: Lanes) -> None:
    """Rows of one direction: the load of a segment is the one before and what starts there less what ends there.

    Sparse, unlike a row per segment of all that crosses it. ``fixed`` times the ratio (variable 0) crosses besides.
    """
    nodes, end = len(load), first + length
    segment = np.arange(nodes)
    inside, over = end < nodes, end > nodes  # arcs over the end are on segment 0 without a start there
    entries: list[tuple[Lanes, Lanes, _Floats]] = [
        (segment, load, np.ones(nodes)),
        (segment[1:], load[:-1], -np.ones(nodes - 1)),
        (segment, np.zeros(nodes, np.int64), -np.diff(fixed, prepend=0)),
        (first, sent, -np.ones(len(sent))),
        (end[inside], sent[inside], np.ones(inside.sum())),
        (np.zeros(over.sum(), np.int64), sent[over], -np.ones(over.sum())),
        (end[over] - nodes, sent[over], np.ones(over.sum())),
    ]
    row, column, value = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    rows.add(row, column, value, np.zeros(nodes), np.zeros(nodes))
