"""Settings of optical switches: brute force over all settings of few nodes, and bounds on their side of it."""

import time
from itertools import combinations_with_replacement, permutations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.model.cycle import cabling
from lightfabric.placement.circuit.demand import Demand
from lightfabric.placement.circuit.permutation import circuits, one_shot


@st.composite
def demands(draw, most_nodes, most_pairs=8, switches=2):
    """Such that each pair can have a circuit, one-way or two-way as one wishes to see it."""
    nodes = draw(st.integers(2, most_nodes))
    wanted = draw(st.dictionaries(st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)), st.integers(1, 9)))
    degree, demand = [0] * nodes, {}
    for (a, b), size in list(wanted.items())[:most_pairs]:
        new = (b, a) not in demand
        if a != b and (not new or max(degree[a], degree[b]) < switches):
            demand[a, b] = size
            degree[a] += new
            degree[b] += new
    return Demand.of(nodes, demand or {(0, 1): 5})


def all_settings(nodes, duplex):
    every = np.array(list(permutations(range(nodes))))
    return every[[all(p[p[g]] == g for g in range(nodes)) for p in every]] if duplex else every


def brute_force(demand, switches, duplex):
    """The best least circuits / demand of all settings of the switches, whose order is of no account."""
    per_switch = all_settings(demand.nodes, duplex)[:, demand.source] == demand.destination
    chosen = np.array(list(combinations_with_replacement(range(len(per_switch)), switches)))
    counts = sum(per_switch[chosen[:, k]].astype(int) for k in range(switches))
    return (counts / demand.size_bytes).min(axis=1).max()


@settings(max_examples=60, deadline=None)
@given(demands(4, switches=3))
def test_three_switches_are_set_as_well_as_brute_force_can(demand):
    found = one_shot(demand, 3)
    assert found.value == found.bound == pytest.approx(brute_force(demand, 3, duplex=False))


@settings(max_examples=15, deadline=None)
@given(demands(6))
def test_two_switches_of_six_nodes_are_set_as_well_as_brute_force_can(demand):
    assert one_shot(demand, 2).value == pytest.approx(brute_force(demand, 2, duplex=False))


@settings(max_examples=40, deadline=None)
@given(demands(6, most_pairs=14, switches=3))
def test_three_switches_are_set_both_ways_as_well_as_brute_force_can(demand):
    found = one_shot(demand, 3, duplex=True)
    assert found.value == found.bound == pytest.approx(brute_force(demand, 3, duplex=True))


@settings(max_examples=60, deadline=None)
@given(demands(9, most_pairs=20, switches=5), st.integers(5, 7), st.booleans())
def test_a_setting_is_a_permutation_per_switch_and_its_value_is_what_it_gives(demand, switches, duplex):
    found = one_shot(demand, switches, duplex=duplex)
    assert found.to.shape == (switches, demand.nodes)
    assert (np.sort(found.to, axis=1) == np.arange(demand.nodes)).all()
    counts = [sum(row[a] == b for row in found.to) for a, b in zip(demand.source, demand.destination, strict=True)]
    assert circuits(demand, found.to).tolist() == counts
    assert found.value == min(count / size for count, size in zip(counts, demand.size_bytes, strict=True)) <= found.bound


@settings(max_examples=40, deadline=None)
@given(demands(9, most_pairs=20, switches=4))
def test_two_way_circuits_serve_no_more_than_one_way_and_suit_the_links_of_the_hardware(demand):
    both, one = one_shot(demand, 6, duplex=True), one_shot(demand, 6)
    assert both.value <= one.value
    assert cabling.circuit_switched(both.to, 2.0).is_duplex


def test_three_nodes_that_all_talk_need_a_third_switch_for_both_ways():
    """Shannon's triangle: two switches are enough for each node, but no two of its edges share one."""
    demand = Demand.of(3, {(a, b): 2 for a in range(3) for b in range(3) if a != b})
    assert one_shot(demand, 2).value == 0.5
    assert one_shot(demand, 2, duplex=True).bound == 0.0
    assert one_shot(demand, 3, duplex=True).value == 0.5


def test_where_alternating_paths_fail_the_integer_programme_does_not():
    edges = [(0, 2), (0, 4), (0, 5), (1, 2), (1, 3), (1, 4), (2, 5), (3, 5)]
    demand = Demand.of(6, dict.fromkeys(edges, 2))
    assert one_shot(demand, 3, duplex=True).value == 0.5 == brute_force(demand, 3, duplex=True)


def test_the_graph_of_petersen_takes_a_fourth_switch():
    """Three edges at each node, and no colouring of the edges with three colours (Petersen, 1898)."""
    demand = Demand.of(10, dict.fromkeys(nx.petersen_graph().edges, 1))
    assert [one_shot(demand, switches, duplex=True).bound for switches in (3, 4)] == [0, 1]
    assert one_shot(demand, 4, duplex=True).value == 1


def test_a_programme_without_time_leaves_a_value_and_a_bound():
    found = one_shot(Demand.of(10, dict.fromkeys(nx.petersen_graph().edges, 1)), 3, duplex=True, time_limit_s=0.0)
    assert (found.value, found.bound) == (0, 1)


@pytest.mark.parametrize(
    ("duplex", "says"), [(False, "at least 3, for node 0 sends to"), (True, "at least 3, for node 0 talks")]
)
def test_too_few_switches_for_the_pairs_of_a_node_say_so(duplex, says):
    demand = Demand.of(4, {(0, 1): 1, (0, 2): 1, (0, 3): 1})
    with pytest.raises(ValueError, match=f"switches must be {says} .*so many, not 2"):
        one_shot(demand, 2, duplex=duplex)


@pytest.mark.parametrize("duplex", [False, True])
def test_nothing_to_send_is_served(duplex):
    assert one_shot(Demand.of(3, {}), 2, duplex=duplex).to.shape == (2, 3)


@pytest.mark.parametrize("duplex", [False, True])
def test_a_thousand_nodes_and_twenty_switches_take_seconds(duplex):
    """A torus of 32 x 32 with a heavy dimension: even, so that the bound is met both ways."""
    at = np.arange(1024)
    pairs = {}
    for size, to in ((700, (at + 1) % 1024), (100, (at + 32) % 1024)):
        pairs |= {pair: size for a, b in zip(at.tolist(), to.tolist(), strict=True) for pair in ((a, b), (b, a))}
    started = time.monotonic()
    found = one_shot(Demand.of(1024, pairs), 20, duplex=duplex)
    assert time.monotonic() - started < 20
    assert found.value == found.bound == 8 / 700
