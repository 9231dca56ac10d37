"""Wavelength numbers on a ring: no two circuits on a segment share one, and the count is close to what is needed."""

import time
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.placement.circuit.colouring import colour, verify


def covered(nodes, source, steps):
    """(direction, segment) of a circuit, segment k between nodes k and k + 1."""
    if steps > 0:
        return {(1, (source + k) % nodes) for k in range(steps)}
    return {(-1, (source - 1 - k) % nodes) for k in range(-steps)}


def conflicts(nodes, circuits):
    """The graph of the circuits that share a segment in one direction."""
    arcs = [covered(nodes, *circuit) for circuit in circuits]
    graph = nx.Graph()
    graph.add_nodes_from(range(len(arcs)))
    graph.add_edges_from((a, b) for a, b in combinations(range(len(arcs)), 2) if arcs[a] & arcs[b])
    return graph


def colourable(graph, colours):
    """Whether so many colours are enough, by trying all, up to their names."""
    order = sorted(graph, key=graph.degree, reverse=True)
    given_to = {}

    def attempt(place):
        if place == len(order):
            return True
        taken = {given_to[other] for other in graph[order[place]] if other in given_to}
        for c in range(min(colours, len(set(given_to.values())) + 1)):
            if c not in taken:
                given_to[order[place]] = c
                if attempt(place + 1):
                    return True
                del given_to[order[place]]
        return False

    return attempt(0)


@st.composite
def rings(draw, most_nodes=6, most_circuits=10):
    nodes = draw(st.integers(2, most_nodes))
    steps = st.integers(-nodes, nodes).filter(bool)
    return nodes, draw(st.lists(st.tuples(st.integers(0, nodes - 1), steps), min_size=1, max_size=most_circuits))


def coloured(nodes, circuits):
    source, steps = (np.array(column) for column in zip(*circuits, strict=True))
    return colour(nodes, source.astype(np.int32), steps)


@settings(max_examples=150, deadline=None)
@given(rings() | rings(20, 40))
def test_circuits_on_a_segment_have_different_numbers(case):
    nodes, circuits = case
    found = coloured(nodes, circuits)
    graph = conflicts(nodes, circuits)
    assert all(found.number[a] != found.number[b] for a, b in graph.edges)
    assert set(found.number.tolist()) == set(range(found.count))
    load = {}
    for circuit in circuits:
        for place in covered(nodes, *circuit):
            load[place] = load.get(place, 0) + 1
    assert max(load.values()) <= found.bound <= found.count <= 2 * max(load.values())


@settings(max_examples=80, deadline=None)
@given(rings(most_circuits=9))
def test_the_fewest_numbers_are_between_bound_and_count(case):
    nodes, circuits = case
    found, graph = coloured(nodes, circuits), conflicts(nodes, circuits)
    assert colourable(graph, found.count)
    assert not colourable(graph, found.bound - 1)


@pytest.mark.parametrize(("nodes", "hops", "fewest"), [(3, 2, 3), (5, 2, 3), (64, 5, 6), (64, 16, 16), (64, 33, 64)])
def test_equal_circuits_all_round_take_as_many_numbers_as_do_not_fit_on_one(nodes, hops, fewest):
    """One number holds nodes // hops of them."""
    found = coloured(nodes, [(node, hops) for node in range(nodes)])
    assert found.count == found.bound == fewest == -(-nodes // (nodes // hops))


@pytest.mark.parametrize(("nodes", "needed"), [(8, 8), (16, 32), (32, 128)])
def test_all_pairs_of_an_even_ring_take_an_eighth_of_the_square(nodes, needed):
    """Opposite pairs go each way in turn: each way nodes^2 / 2 arcs of nodes / 4 segments on average."""
    half = nodes // 2
    circuits = [(s, k) for s in range(nodes) for k in range(-half + 1, half) if k]
    circuits += [(s, half if s % 2 else -half) for s in range(nodes)]
    found = coloured(nodes, circuits)
    assert found.bound == needed <= found.count <= needed + 1


def test_all_pairs_within_sixteen_hops_of_a_thousand_nodes_take_as_many_as_the_fullest_segment():
    circuits = [(s, k) for s in range(1024) for k in range(-16, 17) if k]
    coloured(4, [(0, 1)])  # compiles
    started = time.monotonic()
    found = coloured(1024, circuits)
    assert time.monotonic() - started < 10
    assert found.count == found.bound == 16 * 17 // 2
    source, steps = (np.array(column) for column in zip(*circuits, strict=True))
    verify(1024, source, steps, found.number)
    found.number[5] = found.number[6]
    with pytest.raises(ValueError, match="number must differ for circuits 5 and 6 on segment 1023, not be"):
        verify(1024, source, steps, found.number)


def test_circuits_of_no_segments_or_more_than_a_round_are_refused():
    for steps in (0, 5, -5):
        with pytest.raises(ValueError, match=f"steps must be from 1 to 4 segments either way, not {steps}"):
            coloured(4, [(0, steps)])
