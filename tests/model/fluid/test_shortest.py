"""Shortest paths on any graph of links, against a search of all paths on small ones."""

import numpy as np
import pytest

from lightfabric.model.fluid.shortest import Topology


def topology(vertices, ranks, edges):
    """Links (a, b, rate) in both directions."""
    both = [*edges, *((b, a, rate) for a, b, rate in edges)]
    a, b = (np.array([each[end] for each in both], np.int64) for end in (0, 1))
    rate = np.array([each[2] for each in both], np.float64)
    return Topology(vertices, np.array(ranks, np.int64), a, b, rate, np.arange(len(both), dtype=np.int64))


def paths(links, at, goal, passed=()):
    """All paths without a loop, as lists of links."""
    if at == goal:
        yield []
    for number, (a, b, _) in enumerate(links):
        if a == at and b not in passed:
            for rest in paths(links, b, goal, (*passed, at)):
                yield [number, *rest]


def test_paths_have_the_fewest_hops_and_of_those_the_fastest_links():
    rng = np.random.default_rng(2026)
    checked = 0
    for _ in range(60):
        vertices = int(rng.integers(3, 8))
        edges = {tuple(sorted(rng.choice(vertices, 2, replace=False).tolist())) for _ in range(rng.integers(3, 12))}
        made = topology(
            vertices, rng.permutation(vertices)[:3], [(a, b, float(rng.choice([1e9, 2e9, 4e9]))) for a, b in edges]
        )
        links = list(zip(made.source.tolist(), made.destination.tolist(), made.bytes_per_s.tolist(), strict=True))
        for source, destination in ((0, 1), (1, 2), (2, 0)):
            found = [*paths(links, *(int(made.ranks[rank]) for rank in (source, destination)))]
            if not found:
                with pytest.raises(ValueError, match=f"^links must join rank {source} to rank {destination} in at most"):
                    made.network(3, [(source, destination)])
                continue
            route = made.network(3, [(source, destination)]).route(source, destination).tolist()
            cost = [(len(path), sum(1 / links[number][2] for number in path)) for path in found]
            assert route in found, "seed 2026"
            assert cost[found.index(route)] == pytest.approx(min(cost), rel=1e-12), "seed 2026"
            checked += 1
    assert checked > 80


def two_switches(each, wires):
    """Two switches with so many ranks on each, and wires from one to the other by way of a vertex each."""
    ranks = 2 * each
    ends = [(rank, ranks + rank // each, 1e9) for rank in range(ranks)]
    middle = [(ranks + 2 + wire, ranks + side, 1e8) for wire in range(wires) for side in range(2)]
    return topology(ranks + 2 + wires, range(ranks), ends + middle)


@pytest.mark.parametrize("pattern", ["all to all", "to the other side", "to one side and one on"])
def test_equal_paths_are_shared_out_evenly(pattern):
    each, wires = 16, 8
    pairs = {
        "all to all": [(a, b) for a in range(32) for b in range(32) if a != b],
        "to the other side": [(rank, (rank + 16) % 32) for rank in range(32)],
        "to one side and one on": [(rank, 16 + (rank + 1) % 16) for rank in range(16)],
    }[pattern]
    made = two_switches(each, wires)
    network = made.network(32, pairs)
    used = np.bincount(network.route_links, minlength=len(made.source))
    crossing = made.source == 32
    into = used[crossing & (made.destination >= 34)]
    assert len(into) == wires
    assert into.min() == into.max() > 0


def test_each_level_of_switches_is_shared_out_by_a_digit_of_its_own():
    """From leaf 4 over one of two switches to one of two cores above it, and down again to leaf 5."""
    up = [(4, 6, 1.0), (4, 7, 1.0), (6, 8, 1.0), (6, 9, 1.0), (7, 10, 1.0), (7, 11, 1.0)]
    down = [(8, 12, 1.0), (9, 12, 1.0), (10, 13, 1.0), (11, 13, 1.0), (12, 5, 1.0), (13, 5, 1.0)]
    made = topology(19, [14, 15, 16, 17, 18], [(14, 4, 1.0), *((rank, 5, 1.0) for rank in range(15, 19)), *up, *down])
    network = made.network(5, [(0, rank) for rank in range(1, 5)])
    cores = [made.destination[network.route(0, rank)[2]] for rank in range(1, 5)]
    assert sorted(cores) == [8, 9, 10, 11]


def test_links_keep_their_rates_and_latencies_and_ranks_come_first():
    made = topology(4, [2, 0], [(0, 1, 5e9), (1, 3, 6e9), (3, 2, 7e9)])
    network = made.network(5, [(0, 1), (1, 0)])
    route = network.route(0, 1).tolist()
    assert network.bytes_per_s[route].tolist() == [7e9, 6e9, 5e9]
    assert network.latency_ps[route].tolist() == [5, 4, 3]
    ends = [(int(network.link_source[link]), int(network.link_destination[link])) for link in route]
    # Ranks are nodes 0 and 1, nodes 2 to 4 are devices with no link, and what is between has the numbers after.
    assert ends == [(0, 6), (6, 5), (5, 1)]


def test_a_graph_of_fewer_ranks_than_the_topology_uses_the_first_ones():
    made = topology(4, [0, 1, 2], [(0, 3, 1e9), (1, 3, 1e9), (2, 3, 1e9)])
    network = made.network(2, [(0, 1)])
    assert network.route(0, 1).tolist() == [0, 4]
    assert sorted({*network.link_source.tolist()}) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"^ranks must be at least 4, not 3$"):
        made.network(4, [(0, 3)])
    assert len(made.network(2, []).route_links) == 0
