"""All-to-all under a degree bound: closed forms against paths walked one by one, and bounds that hold for any graph."""

import time
from itertools import combinations, pairwise

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.placement.circuit.alltoall import (
    Axis,
    Scheme,
    all_gather_bytes_per_s,
    best,
    degree_bytes,
    schemes,
    totient_strides,
)


def links(scheme):
    """Lanes from node to node, from the digits of the nodes."""
    graph = nx.DiGraph()
    place = scheme.nodes
    for axis, lanes in zip(scheme.axes, scheme.lanes, strict=True):
        place //= axis.length
        for node in range(scheme.nodes):
            digit = node // place % axis.length
            for stride, count in zip(axis.strides, lanes, strict=True):
                to = node + ((digit + stride) % axis.length - digit) * place
                assert not graph.has_edge(node, to)
                graph.add_edge(node, to, lanes=count, place=place, stride=stride)
    return graph


def walked(scheme, size_bytes):
    """Bytes per lane of every link, from the path of every pair."""
    graph = links(scheme)
    load = dict.fromkeys(graph.edges, 0)
    for source in graph:
        for destination in set(graph) - {source}:
            path = scheme.path(source, destination)
            assert (path[0], path[-1]) == (source, destination)
            assert len(path) - 1 <= scheme.steps
            for leg in pairwise(path):
                load[leg] += size_bytes
    return {leg: load[leg] / graph.edges[leg]["lanes"] for leg in load}


GROUPED = [
    Scheme((Axis(4, (1, 3)), Axis(3, (1, 2))), ((1, 1), (1, 1))),
    Scheme((Axis(2, (1,)), Axis(3, (1,)), Axis(4, (1, 2))), ((2,), (1,), (1, 3))),
]
CASES = [
    (2, 1, True),
    (5, 4, False),
    (6, 2, False),
    (8, 3, True),
    (12, 4, True),
    (12, 12, False),
    (16, 3, False),
    (16, 4, True),
]


@pytest.mark.parametrize("scheme", GROUPED + [best(n, d, duplex=both) for n, d, both in CASES], ids=lambda s: s.name)
def test_what_links_carry_is_what_the_paths_of_all_pairs_bring(scheme):
    load = walked(scheme, 10)
    graph = links(scheme)
    places = sorted({place for *_, place in graph.edges(data="place")}, reverse=True)
    expected = dict(zip(places, scheme.lane_bytes(10), strict=True))
    for leg, each in load.items():
        data = graph.edges[leg]
        axis = scheme.axes[places.index(data["place"])]
        assert each == pytest.approx(expected[data["place"]][axis.strides.index(data["stride"])])
    assert max(load.values()) == pytest.approx(scheme.most_bytes(10))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 24), st.integers(1, 7), st.booleans())
def test_the_best_scheme_keeps_the_degree_and_no_bound_is_above_it(nodes, degree, duplex):
    if degree < (2 if duplex and nodes > 2 else 1):
        with pytest.raises(ValueError, match=rf"degree must be at least 2 for {nodes} nodes to reach each other, not 1"):
            best(nodes, degree, duplex=duplex)
        return
    scheme = best(nodes, degree, duplex=duplex)
    graph = links(scheme)
    out = dict(graph.out_degree(weight="lanes"))
    assert set(out.values()) == {scheme.degree}
    assert scheme.degree <= degree
    assert nx.is_strongly_connected(graph) or nodes == 1
    if duplex:
        assert all(graph.has_edge(b, a) and graph[b][a]["lanes"] == count for a, b, count in graph.edges(data="lanes"))
    most = scheme.most_bytes(3) * (1 + 1e-9)
    assert scheme.cut_bytes(3) <= most
    assert degree_bytes(nodes, degree, 3, duplex=duplex) <= most


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(1, 4), st.booleans())
def test_cuts_are_among_all_cuts(nodes, degree, duplex):
    if duplex and degree < 2:
        degree = 2
    scheme = best(nodes, degree, duplex=duplex)
    graph = links(scheme)
    worst = 0.0
    for inside in (set(chosen) for count in range(1, nodes) for chosen in combinations(range(nodes), count)):
        lanes = sum(n for a, b, n in graph.edges(data="lanes") if a in inside and b not in inside)
        worst = max(worst, len(inside) * (nodes - len(inside)) / lanes)
    assert (nodes - 1) / scheme.degree <= scheme.cut_bytes(1) * (1 + 1e-9)
    assert scheme.cut_bytes(1) <= worst * (1 + 1e-9)
    assert worst <= scheme.most_bytes(1) * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 14), st.integers(1, 4), st.integers(0, 10**6), st.booleans())
def test_no_graph_of_a_degree_has_shorter_distances_than_the_bound(nodes, degree, seed, duplex):
    if duplex:
        degree = max(2, degree)
        if degree >= nodes or nodes * degree % 2:
            return
        graph = nx.random_regular_graph(degree, nodes, seed)
    else:
        graph = nx.DiGraph(nx.random_k_out_graph(nodes, degree, 1.0, self_loops=False, seed=seed))
    for source in graph:
        distance = nx.single_source_shortest_path_length(graph, source)
        if len(distance) == nodes:
            assert sum(distance.values()) >= degree_bytes(nodes, degree, degree, duplex=duplex) - 1e-9


def test_a_one_way_ring_carries_the_triangular_number_and_a_full_graph_one():
    """Closed forms: n (n - 1) / 2 on a ring; (n - 1) / n of everything on a direct graph, one part per link."""
    assert Scheme((Axis(9, (1,)),), ((1,),)).most_bytes(7) == 7 * 9 * 8 // 2 == degree_bytes(9, 1, 7)
    assert best(9, 8).most_bytes(7) == 7 == degree_bytes(9, 8, 7)
    assert best(9, 8).name == "direct"


def test_a_two_way_ring_carries_an_eighth_of_the_square():
    """Odd n: (n^2 - 1) / 8 each way, its halves cut by two links each way."""
    ring = best(17, 2, duplex=True)
    assert ring.most_bytes(1) == (17 * 17 - 1) / 8 == ring.cut_bytes(1)


def test_groups_of_a_full_mesh_take_two_steps():
    """A node sends what is for 8 groups over each link of its group, then what comes from 8 others over the next."""
    grid = Scheme((Axis(8, tuple(range(1, 8))), Axis(8, tuple(range(1, 8)))), ((1,) * 7,) * 2)
    assert (grid.steps, grid.degree, grid.most_bytes(5)) == (2, 14, 5 * 8)


def test_lanes_that_are_left_double_the_fullest_links():
    assert best(3, 7).lanes == ((4, 3),)
    assert best(2, 6).most_bytes(12) == 2


@pytest.mark.parametrize(
    ("nodes", "strides"), [(8, (1, 7)), (16, (1, 4, 12, 15)), (32, (1, 8, 24, 31)), (64, (1, 8, 56, 63))]
)
def test_chord_rings_gather_as_fast_as_their_links_allow(nodes, strides):
    """At the rate of the closed form every node can take in as much from each other one at once: maximum flow."""
    rate = all_gather_bytes_per_s(nodes, 25 * len(strides)) / nodes  # of each node's part
    graph = nx.DiGraph()
    for node in range(nodes):
        graph.add_edge("all", node, capacity=rate)
        graph.add_edges_from((node, (node + s) % nodes, {"capacity": 25}) for s in strides)
    assert nx.maximum_flow_value(graph, "all", 0) == pytest.approx(nodes * rate)


def test_paths_take_the_fewest_strides():
    axis = Axis(40, (1, 7, 12))
    graph = nx.DiGraph((node, (node + s) % 40) for node in range(40) for s in axis.strides)
    distance = nx.single_source_shortest_path_length(graph, 0)
    assert axis.uses.sum(axis=1).tolist() == [distance[node] for node in range(40)]
    assert ((axis.uses @ axis.strides) % 40 == range(40)).all()


def test_totient_strides_make_one_ring_each():
    """TopoOpt: gcd(p, n) = 1, one ring is always the plain one, the others about geometric."""
    assert totient_strides(1024, 4, 1023) == (1, 11, 101, 1023)
    assert totient_strides(12, 9, 11) == (1, 5, 7, 11)
    for stride in totient_strides(30, 5, 29):
        assert nx.number_strongly_connected_components(nx.DiGraph((n, (n + stride) % 30) for n in range(30))) == 1


@pytest.mark.parametrize("nodes", [64, 128])
def test_eight_two_way_links_come_within_half_of_the_least_distances(nodes):
    scheme = best(nodes, 8, duplex=True)
    assert scheme.most_bytes(1) <= 1.5 * degree_bytes(nodes, 8, 1, duplex=True)


def test_a_thousand_nodes_take_seconds():
    started = time.monotonic()
    assert best(1024, 8, duplex=True).steps <= 9
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: best(8, 0), "degree must be at least 1 for 8 nodes to reach each other, not 0"),
        (lambda: best(8, 1, duplex=True), "degree must be at least 2 for 8 nodes to reach each other, not 1"),
        (lambda: list(schemes(1, 3)), "nodes must be at least 2, not 1"),
        (lambda: Axis(8, (2, 6)), r"strides must reach all 8 nodes, not 4 by \(2, 6\)"),
        (lambda: Axis(8, ()), r"strides must reach all 8 nodes, not 1 by \(\)"),
        (lambda: Axis(8, (1, 8)), r"strides must be different, from 1 to 7, not \(1, 8\)"),
        (lambda: Axis(1, ()), "length must be at least 2, not 1"),
    ],
)
def test_what_cannot_reach_all_nodes_says_so(make, says):
    with pytest.raises(ValueError, match=says):
        make()
