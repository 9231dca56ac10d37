"""Which GPUs groups can use while others are dead: every kind within its bounds, and each rule by a slow walk."""

from itertools import combinations

import networkx as nx
import numpy as np
import pytest

from lightfabric.model.circuit import Circuits
from lightfabric.model.fabric.fabric import fabric_of
from lightfabric.model.spec import (
    FIBRE_PS_PER_M,
    ChipletSpec,
    CubeTorusSpec,
    CustomSpec,
    ElectricalClusterSpec,
    MixnetSpec,
    PhotonicRailsSpec,
    SipRingSpec,
    SpecError,
)

SEED = 7


def states(gpus, node=1, count=40):
    """Some with few dead, some with many, all dead and none."""
    random = np.random.default_rng(SEED)
    alive = random.random((count, -(-gpus // node))) > random.random((count, 1))
    alive[:2] = np.array([[False], [True]])
    return np.repeat(alive, node, axis=1)[:, :gpus]


def usable(spec, alive, group):
    return fabric_of(spec, ChipletSpec()).usable_gpus(alive, group).tolist()


@pytest.mark.parametrize("group", [1, 3, 4, 16])
def test_groups_are_whole_and_of_gpus_that_work(fabric_spec, group):
    alive = states(64)
    found = np.array(usable(fabric_spec, alive, group))
    assert (found % group == 0).all()
    assert (found <= alive.sum(axis=1)).all()
    assert found[0] == 0
    assert found.tolist() == [usable(fabric_spec, alive[[row]], group)[0] for row in range(len(alive))]


def test_one_gpu_more_never_leaves_fewer_of_use(fabric_spec):
    alive = states(64, count=8)
    for gpu in range(0, 64, 7):
        more = alive.copy()
        more[:, gpu] = True
        assert (np.array(usable(fabric_spec, more, 4)) >= usable(fabric_spec, alive, 4)).all()


@pytest.mark.parametrize("hops", [2, 3, 4])
@pytest.mark.parametrize(("node", "gpus"), [(1, 23), (4, 48), (8, 40)])
def test_a_ring_with_bypass_is_as_many_graphs_as_its_gaps_leave(hops, node, gpus):
    spec = SipRingSpec("ring", "sip-ring", node_gpus=node, bypass_hops=hops)
    nodes = gpus // node
    for alive in states(gpus, node):
        graph = nx.Graph()
        graph.add_nodes_from(each for each in range(nodes) if alive[each * node])
        near = (min(b - a, nodes - b + a) <= hops for a, b in combinations(graph, 2))
        graph.add_edges_from(pair for pair, joined in zip(combinations(graph, 2), near, strict=True) if joined)
        sizes = [len(part) * node for part in nx.connected_components(graph)]
        for group in (2, 8):
            assert usable(spec, alive[None], group) == [sum(size // group * group for size in sizes)]


def test_without_bypass_a_ring_is_cut_into_rings_of_a_group():
    alive = np.ones((1, 32), bool)
    alive[0, 8:16] = False
    spec = SipRingSpec("ring", "sip-ring")
    assert [usable(spec, alive, group)[0] for group in (8, 16, 32)] == [24, 16, 0]


@pytest.mark.parametrize(
    "spec",
    [
        ElectricalClusterSpec("islands", "electrical-cluster", 100.0, 10.0, island_gpus=12),
        PhotonicRailsSpec("rails", "photonic-rails", island_gbps=100.0, island_gpus=12),
        MixnetSpec("mixnet", "mixnet", island_gbps=100.0, nic_gbps=10.0, island_gpus=12, region_gpus=24),
    ],
    ids=lambda spec: spec.kind,
)
def test_groups_stay_on_their_islands(spec):
    for alive in states(40):
        islands = [int(alive[first : first + 12].sum()) for first in range(0, 40, 12)]
        for group in (4, 16):
            assert usable(spec, alive[None], group) == [sum(own // group * group for own in islands)]


def test_cubes_are_joined_whole_and_divided_into_blocks():
    alive = np.ones((1, 32), bool)
    alive[0, 9] = False
    spec = CubeTorusSpec("cubes", "cube-torus", cube_edge=2)
    # Cubes of 8 have two blocks of 3 each; a group of 16 or 12 takes two whole cubes.
    assert [usable(spec, alive, group)[0] for group in (4, 3, 8, 16, 12)] == [28, 21, 24, 16, 12]


def test_any_topology_has_what_its_links_still_join():
    links = (
        (0, 6, 100.0, 5.0),
        (1, 6, 100.0, 5.0),
        (2, 6, 100.0, 5.0),
        (2, 3, 100.0, 5.0),
        (3, 4, 9.0, 5.0),
        (4, 5, 9.0, 5.0),
    )
    spec = CustomSpec("net", "custom", 6, links)
    for alive in states(6):
        graph = nx.Graph((int(a), int(b)) for a, b, *_ in links)
        graph.remove_nodes_from(np.flatnonzero(~alive))
        sizes = [len(part - {6}) for part in nx.connected_components(graph)]
        assert usable(spec, alive[None], 2) == [sum(size // 2 * 2 for size in sizes)]


def test_light_has_farther_to_go_past_dead_nodes():
    spec = SipRingSpec("ring", "sip-ring", fibre_m=3.0, node_gpus=2, bypass_hops=3, dead_nodes=(1, 2, 4))
    # Places of the GPUs of a ring of 8: 0 1 . . . . 6 7 . . 10 11 12 13, which are 14.
    at = [0, 1, 6, 7, 10, 11, 12, 13]
    pairs = [(a, b) for a in range(8) for b in range(8) if a != b]
    source, destination = np.array(pairs).T
    for (a, b), length_m in zip(pairs, fabric_of(spec, ChipletSpec()).lengths_m(source, destination, 8), strict=True):
        ahead = (b - a) % 8
        step = 1 if ahead < 4 or (ahead == 4 and a % 2 == 0) else -1
        fibres = next(count for count in range(1, 14) if (at[a] + step * count) % 14 == at[b])
        assert length_m == 3.0 * fibres


def test_both_models_have_the_fibre_past_a_dead_node(invented_timing):
    spec = SipRingSpec("ring", "sip-ring", fibre_m=3.0, node_gpus=1, bypass_hops=2, dead_nodes=(2,))
    fabric = fabric_of(spec, ChipletSpec(ports=2), invented_timing)
    # GPU 2 is behind the dead node, two fibres from GPU 1.
    circuits = Circuits({(0, 1): 4, (1, 2): 4}, {(0, 1): (0, 1), (1, 2): (1, 2)})
    network = fabric.network(4, circuits.lanes, circuits)
    near, far = (network.latency_ps[network.route(*pair)].sum() for pair in circuits.lanes)
    assert far - near == pytest.approx(3.0 * FIBRE_PS_PER_M, abs=1)
    cabling = fabric.cabling(4, circuits)
    assert [cabling.fibre_m[gpu, cabling.gpu[gpu].tolist().index(gpu + 1)] for gpu in (0, 1)] == [3.0, 6.0]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"dead_nodes": (3,)}, r"dead_nodes must be fewer than bypass_hops = 1 in a row, not \(3,\)"),
        (
            {"dead_nodes": (0, 1, 3), "bypass_hops": 2},
            r"dead_nodes must be fewer than bypass_hops = 2 in a row, not \(0, 1, 3\)",
        ),
        ({"dead_nodes": (3, 1), "bypass_hops": 2}, r"dead_nodes must be rising numbers from 0 to 1048575, not \(3, 1\)"),
        ({"bypass_hops": 0}, "bypass_hops must be from 1 to 65536, not 0"),
        ({"rings": 0}, "rings must be from 1 to 65536, not 0"),
    ],
)
def test_a_ring_that_cannot_be_says_why(fields, says):
    with pytest.raises(SpecError, match=rf"^SipRingSpec\.{says}$"):
        SipRingSpec("ring", "sip-ring", **fields)
