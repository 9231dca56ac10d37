"""Circles of waiting, beside networkx."""

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from lightfabric.model.deadlock import circle, reached, routed

WAITS = st.dictionaries(st.integers(0, 8), st.sets(st.integers(0, 8)), max_size=9)


@given(WAITS)
def test_a_circle_is_found_exactly_if_there_is_one(waits):
    graph, found = nx.DiGraph([(a, b) for a, after in waits.items() for b in after]), circle(waits)
    assert bool(found) != nx.is_directed_acyclic_graph(graph)
    assert len(set(found)) == len(found)
    assert all(graph.has_edge(a, b) for a, b in zip(found, [*found[1:], *found[:1]], strict=True))


@given(WAITS, st.integers(0, 8))
def test_what_is_reached_has_a_path(waits, start):
    graph = nx.DiGraph([(a, b) for a, after in waits.items() for b in after])
    graph.add_node(start)
    ends = {end for _, after in graph.edges(start) for end in [after, *nx.descendants(graph, after)]}
    assert reached(waits, start) == ends


def test_a_packet_that_runs_in_circles_is_followed_once_round():
    hops = list(routed([[1], [1]], {(0, 1): 1, (1, 1): 0}, [0], {}))
    assert hops[0] == [(0, 1, 0), (1, 1, 0), (0, 1, 0)]
