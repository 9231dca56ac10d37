"""Wavelengths of a SiP-Ring for the pairs that talk, reused on disjoint segments: exact, rounded and bounded.

The formulation of SiP-ML (SIGCOMM 2021, ring): whole numbers of wavelengths lambda[direction][fibre][pair], on no segment
of a fibre more than its channels, maximise the least sum of lambda / demand. On fibres of one channel that is wavelength
continuity: each fibre is one wavelength. Always ``without_reuse`` <= ``rounded`` <= ``exact`` <= ``bound``.

CODE FLOW: the linear relaxation prices the segments, and any prices give a bound; ``rounded`` bisects the ratios of whole
lanes and lays each share around the ring from a cut; ``exact`` bisects what is between, an integer programme per step.
"""

from dataclasses import dataclass, replace
from functools import partial
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.circuit.arc import Arcs, lay, take
from lightfabric.placement.circuit.demand import Demand, Lanes, hand_out, most_even
from lightfabric.placement.circuit.programme import Rows, solve
from lightfabric.placement.circuit.relaxation import fraction_bound, relaxed, whole_bound

_Floats = NDArray[np.float64]
CUTS_TRIED = 8
"""Places where laying arcs around the ring may start, the least crossed ones; the first that serves all is taken."""


@dataclass(frozen=True)
class Ring:
    """A bidirectional ring of ``fibres`` fibres each way, each of ``channels`` wavelengths, no circuit over ``max_hops``."""

    nodes: int
    fibres: int
    channels: int
    max_hops: int

    def __post_init__(self) -> None:
        for name, least in (("nodes", 2), ("fibres", 1), ("channels", 1), ("max_hops", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"Ring.{name} must be at least {least}, not {getattr(self, name)}")

    @property
    def capacity(self) -> int:
        """Wavelengths that cross a segment in one direction."""
        return self.fibres * self.channels


@dataclass(frozen=True)
class Assignment:
    """``lanes[direction, fibre, pair]`` wavelengths, forward first; ``value`` is the least lanes / byte of all pairs.

    No assignment has a greater value than ``bound``. The value is 0 where a pair has to go without.
    """

    lanes: Lanes
    value: float
    bound: float

    @property
    def pair_lanes(self) -> Lanes:
        """All wavelengths of each pair."""
        return self.lanes.sum(axis=(0, 1))


def exact(ring: Ring, demand: Demand, *, time_limit_s: float = 60.0) -> Assignment:
    """The best assignment, proven by integer programmes: value == bound. What it leaves free is handed out, poorest first.

    After ``time_limit_s`` the best value found until then and the bound proven until then.
    """
    start = rounded(ring, demand)
    arcs, until = Arcs.of(demand, ring.max_hops), monotonic() + time_limit_s
    lanes, bound = most_even(demand, start.bound, partial(_programme, ring, arcs, until), above=start.value)
    return replace(start, bound=bound) if lanes is None else _filled(ring, demand, arcs, lanes, bound)


def rounded(ring: Ring, demand: Demand) -> Assignment:
    """A feasible assignment close to the bound in seconds: 32 k pairs on 1024 nodes; never worse than without reuse.

    ValueError if a pair is farther apart than the longest circuit. What is left free is handed out, poorest first.
    """
    arcs = Arcs.of(demand, ring.max_hops)
    optimum = relaxed(arcs, demand)
    bound = whole_bound(arcs, demand, ring.capacity, optimum)
    # A second start sends each pair the shorter way, since fractions of the relaxation may round badly.
    shorter = arcs.allowed[0] & ~(arcs.either & (arcs.length[0] > arcs.length[1]))
    # The baseline is a candidate too, which is why the result is never worse than it.
    starts = [without_reuse(ring, demand).lanes]
    for forward in (optimum.forward, shorter.astype(float)) if arcs.either.any() else (optimum.forward,):
        found, _ = most_even(demand, bound, partial(_laid, ring, arcs, forward))
        starts += [] if found is None else [found]
    return max((_filled(ring, demand, arcs, lanes, bound) for lanes in starts), key=lambda assignment: assignment.value)


def one_way(ring: Ring, demand: Demand, steps: Lanes, limit: float) -> Assignment | None:
    """A feasible assignment where each pair goes its ``steps`` forward or, if negative, backward; never worse than no reuse.

    ``limit`` is a bound of its value. None if no lane each was found. What is left free is handed out, poorest first.
    """
    arcs = Arcs(
        ring.nodes, np.stack([demand.source, demand.destination]).astype(np.int64), np.stack([steps, -steps]).clip(0)
    )

    def serve(needed: Lanes) -> Lanes | None:
        found = _laid(ring, arcs, arcs.allowed[0].astype(float), needed)
        return _exclusive(ring, arcs, needed) if found is None else found

    lanes, bound = most_even(demand, limit, serve)
    return None if lanes is None else _filled(ring, demand, arcs, lanes, bound)


def without_reuse(ring: Ring, demand: Demand) -> Assignment:
    """The baseline (Mordia, SIGCOMM 2013): a wavelength of a fibre is one pair's all the way round. The best of those."""
    arcs = Arcs.of(demand, ring.max_hops)
    limit = 2 * ring.capacity / float(demand.size_bytes.sum()) if len(demand) else 0.0
    lanes, bound = most_even(demand, limit, partial(_exclusive, ring, arcs))
    if lanes is None:
        lanes = np.zeros((2, ring.fibres, len(demand)), np.int64)
    return Assignment(lanes, demand.least_ratio(lanes.sum(axis=(0, 1))), bound)


def relaxation(ring: Ring, demand: Demand) -> float:
    """Upper bound of every assignment's value: the best of fractions of wavelengths, by linear programming."""
    arcs = Arcs.of(demand, ring.max_hops)
    return fraction_bound(arcs, demand, ring.capacity, relaxed(arcs, demand))


def verify(ring: Ring, demand: Demand, assignment: Assignment) -> None:
    """ValueError that names what is wrong with an assignment, if anything is."""
    lanes = assignment.lanes
    if lanes.shape != (2, ring.fibres, len(demand)) or lanes.min(initial=0) < 0:
        raise ValueError(f"Assignment.lanes must be at least 0 for {len(demand)} pairs on {ring.fibres} fibres each way")
    used = np.zeros((2, ring.fibres, ring.nodes), np.int64)
    for way, fibre, pair in np.argwhere(lanes).tolist():
        node, end = int(demand.source[pair]), int(demand.destination[pair])
        hops = 0
        while node != end:
            # Backward, a hop from a node crosses the segment below it; for node 0 the index -1 is the last one.
            used[way, fibre, node if way == 0 else node - 1] += lanes[way, fibre, pair]
            node, hops = (node + (1 if way == 0 else -1)) % ring.nodes, hops + 1
        if hops > ring.max_hops:
            raise ValueError(f"Assignment.lanes of pair {pair} must go at most {ring.max_hops} hops, not {hops}")
    if used.max() > ring.channels:
        way, fibre, segment = (int(i) for i in np.unravel_index(used.argmax(), used.shape))
        raise ValueError(
            f"Assignment.lanes must be at most {ring.channels} in direction {way} on fibre {fibre} "
            f"across segment {segment}, not {used.max()}"
        )
    value = demand.least_ratio(assignment.pair_lanes)
    if not value == assignment.value <= assignment.bound * (1 + 1e-9):
        raise ValueError(f"Assignment.value must be {value} and within the bound, not {assignment.value}")


def _exclusive(ring: Ring, arcs: Arcs, needed: Lanes) -> Lanes | None:
    """Give so many lanes, none of them reused, or None: who may go either way fills up what others leave forward."""
    only = np.where(arcs.either, 0, arcs.allowed * needed)
    ahead = np.where(arcs.either, needed, 0)
    # Pairs with one way only come first on the line of channels, so that the others can be split where forward is full.
    space = ring.capacity - int(only[0].sum())
    before = np.cumsum(ahead) - ahead
    forward = only[0] + np.clip(space - before, 0, ahead)
    total = np.stack([forward, needed - forward])
    if total.sum(axis=1).max() > ring.capacity:
        return None
    end = np.cumsum(total, axis=1)[:, None, :]
    edge = ring.channels * np.arange(ring.fibres)[None, :, None]
    return np.clip(end, edge, edge + ring.channels) - np.clip(end - total[:, None, :], edge, edge + ring.channels)


def _laid(ring: Ring, arcs: Arcs, forward: _Floats, needed: Lanes) -> Lanes | None:
    """Lay so many lanes around the ring from cut to cut, what finds no room then the other way; None if that fails."""
    # Pairs with one way only take it in full, whatever a rounded fraction says.
    ahead = np.where(arcs.either, np.rint(needed * forward), arcs.allowed[0] * needed).astype(np.int64)
    wanted = np.stack([ahead, needed - ahead])
    if arcs.load(wanted).max() > 2 * ring.capacity:
        return None
    sides = [_laid_from_cuts(ring, arcs, way, wanted) for way in (0, 1)]
    free, lanes, left = (np.concatenate(parts) for parts in zip(*sides, strict=True))
    for way in (0, 1):
        turned = np.flatnonzero((left[1 - way] > 0) & arcs.either)
        lay(turned, way, arcs.first, arcs.length, free, lanes, left[1 - way])
    return None if left.any() else lanes


def _laid_from_cuts(ring: Ring, arcs: Arcs, way: int, wanted: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    """Free channels, lanes and lanes not served in one direction, each ``[1, ...]``, from the best of some cuts."""
    first, size = arcs.first[way], wanted[way]
    starts = np.bincount(first, size, ring.nodes)
    # Arcs that begin at a node do not cross a cut there, so they are no reason against it.
    crossing = arcs.load(wanted)[way] - starts
    best: tuple[Lanes, Lanes, Lanes] | None = None
    for cut in np.argsort(crossing, kind="stable")[:CUTS_TRIED].tolist():
        offset = np.mod(first - cut, ring.nodes)
        over = offset + arcs.length[way] > ring.nodes
        # Arcs over the cut are laid first, since on the line that remains the order of first segments is best.
        order = np.lexsort((offset, ~over))
        free = np.full((2, ring.fibres, ring.nodes), ring.channels)
        lanes, left = np.zeros((2, ring.fibres, len(size)), np.int64), size.copy()
        missing = lay(order[size[order] > 0], way, arcs.first, arcs.length, free, lanes, left)
        if best is None or missing < best[2].sum():
            best = free[way : way + 1], lanes[way : way + 1], left[None]
        if missing == 0:
            break
    assert best is not None
    return best


def _filled(ring: Ring, demand: Demand, arcs: Arcs, lanes: Lanes, bound: float) -> Assignment:
    """Add all lanes that still fit, each time one to the poorest pair for which there is room."""
    lanes = np.ascontiguousarray(lanes)
    free = np.full((2, ring.fibres, ring.nodes), ring.channels)
    for fibre in range(ring.fibres):
        free[:, fibre] -= arcs.load(lanes[:, fibre]).astype(np.int64)
    ways = [np.flatnonzero(allowed).tolist() for allowed in arcs.allowed.T]
    first, length = arcs.first.tolist(), arcs.length.tolist()

    def give(pair: int) -> bool:
        return any(take(free, lanes, way, pair, first[way][pair], length[way][pair]) for way in ways[pair])

    hand_out(lanes.sum(axis=(0, 1)), demand.size_bytes.astype(float), give)
    value = demand.least_ratio(lanes.sum(axis=(0, 1)))
    # Ratios that differ by rounding are one, so the value may be a last digit above the proven bound.
    return Assignment(lanes, value, max(bound, value))


def _programme(ring: Ring, arcs: Arcs, until: float, needed: Lanes) -> Lanes | None:
    """Find so many lanes by an integer programme; None if there are none, Undecided if the time is over."""
    way, pair = np.nonzero(arcs.allowed)
    number = np.full(arcs.allowed.shape, -1)
    number[way, pair] = np.arange(len(way))
    variables = len(way) * ring.fibres  # variable: fibre x arcs + arc
    fibre = np.arange(ring.fibres)[:, None]
    arc_way, arc_pair, segment = arcs.segments()
    rows = Rows(variables)
    rows.add(np.tile(pair, ring.fibres), np.arange(variables), 1.0, needed.astype(float), np.full(len(needed), np.inf))
    place = (fibre * 2 + arc_way) * ring.nodes + segment
    column = fibre * len(way) + number[arc_way, arc_pair]
    full = np.full(2 * ring.fibres * ring.nodes, float(ring.channels))
    rows.add(place.ravel(), column.ravel(), 1.0, np.zeros(len(full)), full)
    found = solve(rows, np.zeros(variables), np.full(variables, float(ring.channels)), integer=True, until=until)
    if found is None:
        return None
    lanes = np.zeros((2, ring.fibres, len(needed)), np.int64)
    lanes[way, :, pair] = found.reshape(ring.fibres, len(way)).T
    return lanes
