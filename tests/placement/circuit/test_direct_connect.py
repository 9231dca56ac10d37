"""TopoOpt's direct-connect fabric: rings that lead round, degrees that are kept, all bytes there, and published times."""

from itertools import permutations
from math import gcd

import networkx as nx
import numpy as np
import pytest

from lightfabric.flows.command import replay
from lightfabric.flows.report import InputError
from lightfabric.model.fluid import engine as fluid
from lightfabric.model.spec import ChipletSpec, TopooptSpec
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.circuit import direct_connect as module
from lightfabric.placement.circuit.direct_connect import direct_circuits, direct_connect, strides
from lightfabric.placement.fabric.fabric import fabric_of

B = 12.5e9


def job(devices, tasks, edges=()):
    """Tasks (kind, device, work, peer, group): of a compute, a transfer, or the group of an all-reduce."""
    groups = [group for *_, group in tasks if group]
    peers = iter(range(len(groups)))
    peer = [next(peers) if group else other for _, _, _, other, group in tasks]
    edges = sorted(edges)
    return TaskGraph(
        devices, np.array([kind for kind, *_ in tasks], np.int8), np.array([device for _, device, *_ in tasks], np.int32),
        np.array([work for _, _, work, _, _ in tasks], np.int64), np.array(peer, np.int32), np.ones(len(tasks), np.int32),
        np.searchsorted([a for a, _ in edges], np.arange(len(tasks) + 1)), np.array([b for _, b in edges], np.int32),
        np.cumsum([0, *map(len, groups)]), np.array([member for group in groups for member in group], np.int32),
    )  # fmt: skip


def reduce_(work, *members):
    return (Kind.ALL_REDUCE, members[0], work, -1, members)


def transfer(source, destination, work):
    return (Kind.TRANSFER, source, work, destination, ())


def compute(device, work):
    return (Kind.COMPUTE, device, work, -1, ())


def microseconds(found, nodes, latency_us=0):
    network = found.topology(nodes, B).network(found.graph.devices, found.graph.demand_bytes())
    return fluid.run(found.graph, network, message_latency_ps=latency_us * 10**6).makespan_ps / 1e6


@pytest.mark.parametrize("members", range(2, 25))
def test_strides_lead_round_and_are_all_used_before_any_twice(members):
    whole = {stride for stride in range(1, members) if gcd(stride, members) == 1}
    for count in range(1, 10):
        found = strides(members, count)
        assert len(found) == count
        assert found[0] == 1
        assert set(found) <= whole
        assert len(set(found)) == min(count, len(whole))
        if 1 < count <= len(whole):
            assert members - 1 in found


@pytest.mark.parametrize("degree", [1, 2, 4, 8])
def test_an_all_reduce_uses_all_links_at_once(degree):
    """2 (n - 1) / n of the buffer through each node, a part on each ring, in 2 (n - 1) steps."""
    size = 16 * 8 * 10**6
    found = direct_connect(job(16, [reduce_(size, *range(16))]), 16, degree)
    assert sum(found.links.values()) == 16 * degree
    expected = 30 / 16 * size / degree / B * 1e6 + 30 * 2
    assert microseconds(found, 16, latency_us=2) == pytest.approx(expected, rel=1e-9)


def test_a_ring_visits_every_member_of_its_group():
    members = (3, 1, 7, 4, 9)
    found = direct_connect(job(10, [reduce_(1000, *members), reduce_(1, *range(10))]), 10, 4)
    orders = [found.graph.group(index).tolist() for index in range(len(found.graph.member_start) - 1)]
    assert all(sorted(order) in (sorted(members), list(range(10))) for order in orders)
    for order in orders:
        ring = list(zip(order, order[1:] + order[:1], strict=True))
        assert all(pair in found.links for pair in ring)
        steps = {(members.index(b) - members.index(a)) % 5 for a, b in ring} if len(order) == 5 else set()
        assert len(steps) <= 1


def random_job(rng, nodes):
    tasks, edges = [], []
    for _ in range(int(rng.integers(1, 9))):
        choice = rng.integers(3)
        if choice == 0:
            tasks.append(compute(int(rng.integers(nodes)), int(rng.integers(10**7))))
        elif choice == 1:
            a, b = rng.choice(nodes, 2, replace=False).tolist()
            tasks.append(transfer(a, b, int(rng.integers(10**6))))
        else:
            tasks.append(
                reduce_(int(rng.integers(10**6)), *rng.permutation(nodes)[: int(rng.integers(1, nodes + 1))].tolist())
            )
        edges += [(before, len(tasks) - 1) for before in range(len(tasks) - 1) if rng.random() < 0.4]
    return job(nodes, tasks, edges)


def test_degrees_are_kept_all_talk_and_no_byte_or_wait_is_lost():
    rng = np.random.default_rng(2026)
    for _ in range(80):
        nodes, degree = int(rng.integers(2, 10)), int(rng.integers(1, 6))
        graph = random_job(rng, nodes)
        found = direct_connect(graph, nodes, degree)
        found.graph.verify()
        table = np.zeros((nodes, nodes), int)
        for (a, b), count in found.links.items():
            table[a, b] += count
        assert (table.sum(axis=0) <= degree).all(), "seed 2026"
        assert (table.sum(axis=1) <= degree).all(), "seed 2026"
        assert not table.diagonal().any(), "seed 2026"
        assert (np.linalg.matrix_power(np.eye(nodes) + (table > 0), nodes) > 0).all(), "all reach each other, seed 2026"
        for kind in Kind:
            assert graph.work[graph.kind == kind].sum() == found.graph.work[found.graph.kind == kind].sum(), "seed 2026"
        # With all links without end, what is left is computation and its order, which is as before.
        ideal = [
            fluid.run(each, found.topology(nodes, 1e30).network(nodes, each.demand_bytes())).makespan_ps
            for each in (graph, found.graph)
        ]
        assert ideal[0] == ideal[1], "seed 2026"
        assert microseconds(found, nodes) >= ideal[0] / 1e6 - 1e-6, "seed 2026"


def test_matchings_move_the_most_bytes():
    """Against all permutations; a ring of all nodes takes one link of each, and each matching one more."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        wanted = rng.integers(0, 1000, (5, 5)).astype(float)
        np.fill_diagonal(wanted, 0)
        graph = job(5, [transfer(a, b, int(wanted[a, b])) for a in range(5) for b in range(5) if wanted[a, b]])
        found = dict(direct_connect(graph, 5, 2).links)
        for at in range(5):
            found[at, (at + 1) % 5] -= 1
        best = max(sum(wanted[a, b] for a, b in enumerate(order) if a != b) for order in permutations(range(5)))
        assert sum(wanted[pair] for pair, count in found.items() if count) == best, "seed 7"


def test_a_pair_counts_half_after_each_of_its_links():
    """1000, then 500, are more than 400, which then is more than 250; while that is linked, 3 hears no one else."""
    graph = job(4, [transfer(0, 2, 1000), transfer(0, 3, 400), transfer(1, 3, 1)])
    links = direct_connect(graph, 4, 4).links
    assert (links[0, 2], links[0, 3], links[1, 3]) == (2, 1, 2)


def test_bytes_that_no_link_takes_straight_go_by_way_of_others():
    found = direct_connect(job(4, [transfer(0, 3, 10**6)]), 4, 1)
    assert found.links == {(0, 1): 1, (1, 2): 1, (2, 3): 1, (3, 0): 1}
    assert microseconds(found, 4) == pytest.approx(80)
    assert microseconds(direct_connect(job(4, [transfer(0, 3, 10**6)]), 4, 2), 4) == pytest.approx(80)


def test_a_job_of_one_node_needs_no_links():
    found = direct_connect(job(1, [compute(0, 5_000_000), reduce_(100, 0)]), 1, 4)
    assert found.links == {}
    assert microseconds(found, 1) == 5


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"degree": 0}, "--degree must be from 1 to 64, not 0"), ({"degree": 65}, "--degree must be from 1 to 64, not 65"),
        ({"fabric": "ideal-switch", "degree": 4}, "--degree must be left out unless --fabric is topoopt, not 4"),
        ({"fidelity": "cycle"}, "--fidelity must be fluid unless --fabric is ideal-switch, not cycle"),
        ({}, "--fabric must be ideal-switch for more than 3 nodes, not topoopt: 4 nodes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(tmp_path, monkeypatch, given, says):
    monkeypatch.setattr(module, "MAX_NODES", 3)
    (tmp_path / "job.goal").write_text("num_ranks 4\nrank 0 {\nsend 8b to 1\n}\nrank 1 {\nrecv 8b from 0\n}\n")
    with pytest.raises(InputError) as error:
        replay.main(tmp_path / "job.goal", "100Gbps", **{"fabric": "topoopt"} | given)
    assert str(error.value) == says


def test_cpus_beside_the_gpus_need_no_links(tmp_path):
    (tmp_path / "job.goal").write_text(
        "num_ranks 3\nrank 0 {\nsend 125000b to 2\ncalc 5 cpu 1\n}\nrank 2 {\nrecv 125000b from 0\ncalc 7 cpu 3\n}\n"
    )
    assert replay.replay(tmp_path / "job.goal", 100.0, fabric="topoopt", degree=2)["iteration_ms"] == pytest.approx(0.012)


def table(gpus, seed, share=0.5):
    random = np.random.default_rng(seed)
    return {pair: int(random.integers(1, 100)) for pair in permutations(range(gpus), 2) if random.random() < share}


@pytest.mark.parametrize("seed", range(8))
def test_links_are_a_ring_and_the_matching_of_most_bytes(seed):
    gpus, demand = 6, table(6, seed)
    links = direct_circuits(gpus, demand, 2).lanes.copy()
    around = {(gpu, (gpu + 1) % gpus) for gpu in range(gpus)}
    worth = {pair: size / (1 + (pair in around)) for pair, size in demand.items()}
    for pair in around:
        links[pair] -= 1
    best = max(sum(worth.get(pair, 0) for pair in enumerate(to)) for to in permutations(range(gpus)))
    assert sum(count * worth[pair] for pair, count in links.items() if count) == pytest.approx(best)


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
@pytest.mark.parametrize("gpus", [2, 7, 12])
def test_no_gpu_has_more_links_than_its_degree_and_pairs_go_over_the_fewest(gpus, degree):
    demand = table(gpus, gpus)
    circuits = direct_circuits(gpus, demand, degree)
    for side in (0, 1):
        ends = np.bincount([pair[side] for pair in circuits.lanes], list(circuits.lanes.values()), gpus)
        assert 1 <= ends.min() <= ends.max() <= degree
    graph = nx.DiGraph(circuits.lanes.keys())
    assert circuits.stops.keys() == demand.keys()
    for (source, destination), way in circuits.stops.items():
        assert (way[0], way[-1]) == (source, destination)
        assert nx.is_path(graph, way)
        assert len(way) == 1 + nx.shortest_path_length(graph, source, destination)


def test_what_a_fabric_of_links_cannot_have_is_said():
    with pytest.raises(ValueError, match=r"^gpus must be at most 2048 where links are matched, not 2049$"):
        direct_circuits(2049, {(0, 1): 1}, 4)
    fabric = fabric_of(TopooptSpec("links", "topoopt", degree=3), ChipletSpec(ports=4))
    with pytest.raises(ValueError, match=r"^ChipletSpec\.ports must be a multiple of the degree 3 of links, not 4$"):
        fabric.assign(4, {(0, 1): 1})


def test_all_gpus_are_reduced_over_a_ring_of_each_stride_and_others_over_one():
    fabric = fabric_of(TopooptSpec("links", "topoopt", degree=4), ChipletSpec(ports=8))
    every = np.arange(16, dtype=np.int32)
    rings = fabric.rings(every, 16)
    assert [ring[1] for ring in rings] == [1, 3, 7, 15]
    assert all(sorted(ring) == every.tolist() and len(set(np.diff(ring) % 16)) == 1 for ring in rings)
    assert [ring.tolist() for ring in fabric.rings(every[::4], 16)] == [[0, 4, 8, 12]]
    # Each stride has its links, of two ports.
    demand = {(a, (a + stride) % 16): 100 for a in range(16) for stride in (1, 3, 7, 15)} | {(0, 5): 1}
    circuits = fabric.assign(16, demand)
    assert circuits.lanes == {(a, (a + stride) % 16): 2 for a in range(16) for stride in (1, 3, 7, 15)}
    # The fewest coins of 1, 3, 7 and 15 for 5, backward ones as 16 less.
    assert len(circuits.stops[0, 5]) == 1 + 3
