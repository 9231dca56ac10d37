"""Wavelengths of a ring: brute force on small rings, every bound on its side of it, real sizes in seconds."""

import time
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightfabric.placement.circuit import arc
from lightfabric.placement.circuit.demand import Demand
from lightfabric.placement.circuit.wavelength import Assignment, Ring, exact, relaxation, rounded, verify, without_reuse


def neighbours(nodes, hops, size_bytes=lambda: 1, share=1.0, seed=0):
    random = np.random.default_rng(seed)
    near = ((s, (s + way * k) % nodes) for s in range(nodes) for k in range(1, hops + 1) for way in (1, -1))
    return Demand.of(nodes, {pair: int(size_bytes()) for pair in near if random.random() < share})


def sizes(seed):
    random = np.random.default_rng(seed)
    return lambda: random.integers(1, 1 << 30)


@st.composite
def cases(draw, most_nodes=6, most_pairs=4, most_fibres=2, most_channels=2):
    nodes = draw(st.integers(2, most_nodes))
    hops = draw(st.integers(nodes // 2, nodes - 1) | st.just(nodes))
    ring = Ring(nodes, draw(st.integers(1, most_fibres)), draw(st.integers(1, most_channels)), hops)
    pair = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)).filter(lambda p: p[0] != p[1])
    return ring, Demand.of(nodes, draw(st.dictionaries(pair, st.integers(1, 9), min_size=1, max_size=most_pairs)))


def ways(ring, source, destination):
    """The arcs of a pair as sets of (direction, segment), the segment named by its end nodes."""
    for step in (1, -1):
        node, segments = source, set()
        while node != destination:
            segments.add((step, frozenset((node, (node + step) % ring.nodes)) if ring.nodes > 2 else (node, step)))
            node = (node + step) % ring.nodes
        if len(segments) <= ring.max_hops:
            yield segments


def brute_force(ring, demand):
    """The best least ratio over all whole numbers of wavelengths, one pair after the other."""
    sizes = demand.size_bytes.tolist()
    places = [
        [{(fibre, *s) for s in way} for way in ways(ring, *pair) for fibre in range(ring.fibres)]
        for pair in zip(demand.source.tolist(), demand.destination.tolist(), strict=True)
    ]
    best = 0.0

    def serve(pair, used, least):
        nonlocal best
        if pair == len(sizes):
            best = max(best, least)
            return
        for lanes in product(range(ring.channels + 1), repeat=len(places[pair])):
            ratio = min(least, sum(lanes) / sizes[pair])
            after = dict(used)
            for each, segments in zip(lanes, places[pair], strict=True):
                for segment in segments:
                    after[segment] = after.get(segment, 0) + each
            if ratio > best and max(after.values()) <= ring.channels:
                serve(pair + 1, after, ratio)

    serve(0, {}, np.inf)
    return best


@settings(max_examples=60, deadline=None)
@given(cases(most_pairs=3))
def test_the_integer_programme_is_as_good_as_brute_force(case):
    ring, demand = case
    found = exact(ring, demand)
    verify(ring, demand, found)
    assert found.value == found.bound == pytest.approx(brute_force(ring, demand))


@settings(max_examples=15, deadline=None)
@given(cases(most_pairs=6, most_channels=1))
def test_the_integer_programme_is_as_good_as_brute_force_at_one_wavelength_per_fibre(case):
    ring, demand = case
    assert exact(ring, demand).value == pytest.approx(brute_force(ring, demand))


@settings(max_examples=60, deadline=None)
@given(cases(most_nodes=9, most_pairs=12, most_fibres=3, most_channels=4))
def test_no_reuse_rounding_exact_and_relaxation_are_in_this_order(case):
    ring, demand = case
    without, near, best = without_reuse(ring, demand), rounded(ring, demand), exact(ring, demand)
    for assignment in (without, near, best):
        verify(ring, demand, assignment)
    assert without.value <= near.value <= best.value == best.bound <= near.bound <= relaxation(ring, demand) * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(cases(most_nodes=9, most_pairs=12, most_fibres=3, most_channels=4))
def test_no_wavelength_that_fits_is_left(case):
    ring, demand = case
    full = rounded(ring, demand)
    one_more = np.eye(full.lanes.size, dtype=int).reshape(-1, *full.lanes.shape)
    for change in one_more:
        lanes = full.lanes + change
        with pytest.raises(ValueError, match=r"Assignment\.lanes"):
            verify(ring, demand, Assignment(lanes, demand.least_ratio(lanes.sum(axis=(0, 1))), np.inf))


@settings(max_examples=60, deadline=None)
@given(cases(most_nodes=6, most_pairs=4, most_fibres=2, most_channels=2))
@example((Ring(5, 2, 2, 3), Demand.of(5, {(0, 1): 1, (0, 2): 7})))  # all there is: one pair goes forward only, one both ways
def test_without_reuse_the_wavelengths_of_a_direction_are_shared_as_well_as_brute_force_can(case):
    ring, demand = case
    pairs = list(zip(demand.source.tolist(), demand.destination.tolist(), strict=True))
    both = [{next(iter(way))[0] for way in ways(ring, *pair)} for pair in pairs]
    options = [[(a, b) for a, b in product(range(ring.capacity + 1), repeat=2)
                if (1 in side or not a) and (-1 in side or not b)] for side in both]  # fmt: skip
    best = 0.0
    for lanes in product(*options):
        if max(map(sum, zip(*lanes, strict=True))) <= ring.capacity:
            best = max(best, min(sum(each) / size for each, size in zip(lanes, demand.size_bytes.tolist(), strict=True)))
    found = without_reuse(ring, demand)
    assert found.value == found.bound == pytest.approx(best)
    assert (found.lanes.sum(axis=2) <= ring.channels).all()


def test_a_fibre_of_two_wavelengths_serves_more_than_two_fibres_of_one():
    """Three arcs of two segments on a ring of three meet in pairs: two cross each segment, but each needs its fibre."""
    demand = Demand.of(3, {(0, 2): 2, (2, 1): 2, (1, 0): 2})
    assert exact(Ring(3, 1, 2, 2), demand).value == 1.5
    assert exact(Ring(3, 2, 1, 2), demand).value == 1.0
    lanes = np.zeros((2, 2, 3), int)
    lanes[0, [0, 1, 1], [0, 1, 2]] = 1
    with pytest.raises(ValueError, match="at most 1 in direction 0 on fibre 1 across segment 2, not 2"):
        verify(Ring(3, 2, 1, 2), demand, Assignment(lanes, 0.5, 1.5))


def test_disjoint_segments_reuse_every_wavelength():
    demand = neighbours(8, 1)
    assert exact(Ring(8, 2, 16, 1), demand).value == 32
    assert without_reuse(Ring(8, 2, 16, 1), demand).value == 64 // 16


def test_a_time_limit_leaves_a_value_and_a_bound():
    ring, demand = Ring(16, 5, 8, 16), neighbours(16, 8, sizes(3), 0.5)
    found = exact(ring, demand, time_limit_s=0.0)
    verify(ring, demand, found)
    assert found.value <= found.bound


def test_a_pair_beyond_the_longest_circuit_is_named():
    with pytest.raises(ValueError, match=r"max_hops must be at least 4 for a circuit from node 1 to node 5, not 3"):
        rounded(Ring(8, 1, 4, 3), Demand.of(8, {(0, 1): 1, (1, 5): 1}))


@pytest.mark.parametrize("name", ["nodes", "fibres", "channels", "max_hops"])
def test_a_ring_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=rf"Ring\.{name} must be at least \d, not 0"):
        replace(Ring(8, 1, 1, 4), **{name: 0})


@pytest.mark.parametrize("change", ["lane", "hops", "value", "shape", "negative"])
def test_what_is_wrong_with_an_assignment_is_found(change):
    ring, demand = Ring(8, 2, 3, 4), neighbours(8, 3)
    good = rounded(ring, demand)
    lanes = good.lanes.copy()
    if change == "lane":
        lanes[0, 0, 0] += 3
    elif change == "hops":
        lanes[1, 0, 0] += 1  # of the pair (0, 1) the long way
    elif change == "negative":
        lanes[0, 0, 0] = -1
    bad = replace(good, lanes=lanes[:1] if change == "shape" else lanes, value=good.value + (change == "value"))
    with pytest.raises(ValueError, match=r"Assignment\.(lanes|value)"):
        verify(ring, demand, bad)
    verify(ring, demand, good)


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_thousand_nodes_with_sixteen_hops_take_seconds_and_reach_the_bound(share):
    ring = Ring(1024, 5, 32, 16)  # 320 wavelengths per GPU, SiP-ML
    demand = neighbours(1024, 16, sizes(1), share)
    rounded(Ring(4, 1, 1, 2), Demand.of(4, {(0, 1): 1}))  # compiles
    started = time.monotonic()
    found = rounded(ring, demand)
    assert time.monotonic() - started < 20
    verify(ring, demand, found)
    assert found.value == found.bound


def naive_take(free, lanes, way, pair, first, length):
    """Twin of ``arc.take``: the fibre with most room, the first of equals."""
    segments = [(first + k) % free.shape[2] for k in range(length)]
    rooms = [min(free[way, fibre, s] for s in segments) for fibre in range(free.shape[1])]
    if max(rooms) < 1:
        return False
    chosen = rooms.index(max(rooms))
    for s in segments:
        free[way, chosen, s] -= 1
    lanes[way, chosen, pair] += 1
    return True


@settings(deadline=None)
@given(st.integers(2, 8), st.integers(1, 3), st.integers(0, 2**32 - 1), st.data())
def test_lanes_are_laid_as_by_the_twin(nodes, fibres, seed, data):
    free = np.random.default_rng(seed).integers(0, 4, (2, fibres, nodes))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, nodes - 1), st.integers(1, nodes), st.integers(0, 4)), min_size=1))
    first, length, left = (np.array(column) for column in zip(*pairs, strict=True))
    lanes = np.zeros((2, fibres, len(pairs)), int)
    twin_free, twin_lanes, twin_left = free.copy(), lanes.copy(), left.copy()
    for pair, (begin, count, wanted) in enumerate(pairs):
        for _ in range(wanted):
            twin_left[pair] -= naive_take(twin_free, twin_lanes, 1, pair, begin, count)
    order = np.arange(len(pairs))
    missing = arc.lay(order, 1, np.tile(first, (2, 1)), np.tile(length, (2, 1)), free, lanes, left)
    assert missing == twin_left.sum()
    assert (free == twin_free).all()
    assert (lanes == twin_lanes).all()
    assert (left == twin_left).all()
