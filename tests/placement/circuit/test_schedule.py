"""Settings one after the other: all is served, never faster than the bounds, and the classical theorems hold."""

import math
from itertools import permutations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.model.cycle import cabling
from lightfabric.placement.circuit.demand import Demand
from lightfabric.placement.circuit.multi_shot import decompose, multi_shot

SIPML = {"circuit_bytes_per_s": 1e6, "delay_seconds": 20e-6, "slot_seconds": 100e-6}


@st.composite
def demands(draw, most_nodes=7):
    nodes = draw(st.integers(2, most_nodes))
    pair = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)).filter(lambda p: p[0] != p[1])
    return Demand.of(nodes, draw(st.dictionaries(pair, st.integers(1, 1000), min_size=1)))


def delivered(schedule, nodes, circuit_bytes_per_s):
    """Most bytes that each pair can have sent."""
    moved = np.zeros((nodes, nodes))
    for slot in schedule.slots:
        for row in slot.to.tolist():
            assert sorted(row) == list(range(nodes))
            for node, to in enumerate(row):
                moved[node, to] += slot.seconds * circuit_bytes_per_s
    return moved


@settings(max_examples=80, deadline=None)
@given(demands(), st.integers(1, 4), st.booleans())
def test_every_byte_is_served_and_the_time_is_that_of_slots_and_delays(demand, switches, duplex):
    schedule = multi_shot(demand, switches, duplex=duplex, **SIPML)
    moved = delivered(schedule, demand.nodes, SIPML["circuit_bytes_per_s"])
    assert (moved[demand.source, demand.destination] >= demand.size_bytes - 1e-3).all()
    live = math.fsum(slot.seconds for slot in schedule.slots)
    assert max(slot.seconds for slot in schedule.slots) <= SIPML["slot_seconds"]
    assert schedule.seconds == pytest.approx(live + 20e-6 * len(schedule.slots))
    assert schedule.seconds >= schedule.bound_seconds * (1 - 1e-9)
    if duplex:
        assert all(cabling.circuit_switched(slot.to, 2.0).is_duplex for slot in schedule.slots)


@settings(max_examples=40, deadline=None)
@given(demands(5), st.integers(1, 3))
def test_the_first_permutation_is_the_heaviest_of_all(demand, switches):
    size = np.zeros((demand.nodes, demand.nodes))
    size[demand.source, demand.destination] = demand.size_bytes
    first = multi_shot(demand, switches, **SIPML).slots[0].to[0]
    heaviest = max(size[range(demand.nodes), p].sum() for p in permutations(range(demand.nodes)))
    assert size[range(demand.nodes), first].sum() == heaviest


@settings(max_examples=40, deadline=None)
@given(demands())
def test_the_first_matching_weighs_at_least_half_of_the_heaviest(demand):
    """Heaviest: networkx, Edmonds' blossoms."""
    graph = nx.Graph()
    for a, b, size in zip(demand.source.tolist(), demand.destination.tolist(), demand.size_bytes.tolist(), strict=True):
        graph.add_edge(a, b, weight=size + (graph[a][b]["weight"] if graph.has_edge(a, b) else 0))
    heaviest = sum(graph[a][b]["weight"] for a, b in nx.max_weight_matching(graph))
    first = multi_shot(demand, 1, duplex=True, **SIPML).slots[0].to[0].tolist()
    assert sum(graph[a][b]["weight"] for a, b in enumerate(first) if a < b and graph.has_edge(a, b)) * 2 >= heaviest


def test_a_ring_is_served_in_one_slot_and_meets_its_bound():
    demand = Demand.of(8, {(g, (g + 1) % 8): 60 for g in range(8)})
    schedule = multi_shot(demand, 2, **SIPML)
    assert len(schedule.slots) == 1
    assert schedule.seconds == schedule.bound_seconds == pytest.approx(20e-6 + 30e-6)


def test_more_partners_than_switches_take_as_many_settings():
    demand = Demand.of(7, {(0, b): 10 for b in range(1, 7)})
    schedule = multi_shot(demand, 2, **SIPML)
    assert len(schedule.slots) == 3
    assert schedule.seconds == pytest.approx(schedule.bound_seconds)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"slot_seconds": 0.0}, "slot_seconds must be positive, not 0.0"),
        ({"slot_seconds": 1e-12}, "slot_seconds must be at least 7.62939e-10, not 1e-12"),
        ({"circuit_bytes_per_s": -1.0}, "circuit_bytes_per_s must be positive, not -1.0"),
        ({"delay_seconds": -1.0}, "delay_seconds must be at least 0, not -1.0"),
        ({"switches": 0}, "switches must be at least 1, not 0"),
    ],
)
def test_what_no_schedule_can_keep_is_refused(change, says):
    arguments = {"switches": 1, **SIPML, **change}
    with pytest.raises(ValueError, match=says):
        multi_shot(Demand.of(2, {(0, 1): 50}), **arguments)


def test_nothing_to_send_takes_no_time():
    assert multi_shot(Demand.of(4, {}), 2, **SIPML).seconds == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 7), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_a_matrix_is_covered_by_few_permutations_in_the_least_total(nodes, seed, share):
    random = np.random.default_rng(seed)
    size = random.integers(0, 1000, (nodes, nodes)) * (random.random((nodes, nodes)) < share)
    mixture = decompose(size)
    covered = np.zeros((nodes, nodes), int)
    for weight, to in zip(mixture.weight_bytes, mixture.to, strict=True):
        assert sorted(to) == list(range(nodes))
        assert weight > 0
        covered[range(nodes), to] += weight
    assert (covered >= size).all()
    assert mixture.total_bytes == max(size.sum(axis=0).max(), size.sum(axis=1).max())
    assert len(mixture.weight_bytes) <= nodes * nodes - 2 * nodes + 2


def test_a_sum_of_three_permutations_takes_three():
    shift = np.roll(np.eye(16, dtype=int), 1, axis=1)
    size = 100 * shift + 7 * shift @ shift + 30 * shift @ shift @ shift
    assert sorted(decompose(size).weight_bytes.tolist()) == [7, 30, 100]


@pytest.mark.parametrize("size", [np.zeros((2, 3), int), np.array([[-1]])])
def test_only_a_square_of_bytes_is_decomposed(size):
    with pytest.raises(ValueError, match="size_bytes must be square and at least 0"):
        decompose(size)
