"""Cablings of cubes: links joined one by one here, loads and distances against networkx, bounds against all cablings."""

import itertools
from collections import Counter

import networkx as nx
import numpy as np
import pytest

from lightfabric.model.fabric.direct.cubes import Cubes
from lightfabric.model.fabric.fabric import fabric_of
from lightfabric.model.spec import ChipletSpec, CubeTorusSpec
from lightfabric.placement.synthesis.cube_cabling import CubeCabling, least_load, synthesised_cabling

CHIPLET = ChipletSpec(ports=8, wavelengths_per_port=8, virtual_channels=8)
SHAPES = [((4, 4), 2), ((2, 2, 6), 2), ((3, 9), 3), ((8,), 2)]


def joined(shape, edge, permutations):
    """A graph of numbered GPUs, whose links are walked to from each + face."""
    number = {point: at for at, point in enumerate(itertools.product(*map(range, shape)))}
    cubes = list(itertools.product(*(range(length // edge) for length in shape)))
    graph = nx.MultiDiGraph()
    for point, axis in itertools.product(number, range(len(shape))):
        there = [*point]
        there[axis] += 1
        if there[axis] % edge == 0:
            face = [at % edge for other, at in enumerate(point) if other != axis]
            switch = axis * edge ** len(face) + sum(at * edge**power for power, at in enumerate(reversed(face)))
            cube = cubes[permutations[switch][cubes.index(tuple(at // edge for at in point))]]
            there = [edge * block + at % edge for block, at in zip(cube, there, strict=True)]
        graph.add_edge(number[point], number[tuple(there)])
        graph.add_edge(number[tuple(there)], number[point])
    return graph


def fabric(shape, edge, permutations, **fields):
    permutations = tuple(map(tuple, np.asarray(permutations).tolist()))
    return fabric_of(
        CubeTorusSpec("c", "cube-torus", shape=shape, cube_edge=edge, permutations=permutations, **fields), CHIPLET
    )


def mean_load(graph):
    return sum(sum(hops.values()) for _, hops in nx.all_pairs_shortest_path_length(graph)) / graph.number_of_edges()


@pytest.mark.parametrize(("shape", "edge"), SHAPES)
def test_switches_join_plus_faces_to_minus_faces_by_their_permutations(shape, edge):
    generator, cubes = np.random.default_rng(7), Cubes(shape, edge)
    permutations = np.array([generator.permutation(cubes.count) for _ in range(cubes.switches)])
    wires = fabric(shape, edge, permutations).wires(cubes.gpus.size)
    ports = 8 // (2 * len(shape))
    counts = {pair: ports * count for pair, count in Counter(joined(shape, edge, permutations).edges()).items()}
    ends = zip(wires.source.tolist(), wires.destination.tolist(), strict=True)
    assert dict(zip(ends, wires.ports.tolist(), strict=True)) == counts


@pytest.mark.parametrize(("name", "steps"), [("torus", (0, 0, 1)), ("twisted-torus", (1, 1, 1))])
def test_named_cablings_of_two_cubes_are_permutations(name, steps):
    fields = {"link_gbps": 1.0, "electrical_latency_ns": 75.0, "optical_latency_ns": 50.0}
    cabling = CubeCabling(Cubes((4, 4, 8), 4), np.repeat(steps, 16))
    own = fabric((4, 4, 8), 4, cabling.permutations, **fields).wires(128)
    named = fabric_of(CubeTorusSpec("c", "cube-torus", cabling=name, shape=(4, 4, 8), **fields), CHIPLET).wires(128)
    for mine, other in zip(own, named, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize(("shape", "edge"), SHAPES)
def test_loads_are_those_of_the_graph_and_no_cabling_is_below_the_bound(shape, edge):
    generator, cubes = np.random.default_rng(3), Cubes(shape, edge)
    for _ in range(4):
        cabling = CubeCabling(cubes, generator.integers(cubes.count, size=cubes.switches))
        graph = joined(shape, edge, cabling.permutations)
        if not nx.is_strongly_connected(graph):
            continue
        assert cabling.mean_load == pytest.approx(mean_load(graph))
        assert least_load(cubes) <= cabling.mean_load <= cabling.split_load <= cabling.single_load
        if max(Counter(graph.edges()).values()) == 1:
            split = nx.edge_betweenness_centrality(nx.DiGraph(graph), normalized=False)
            assert cabling._even_loads.max() == pytest.approx(max(split.values()))


def test_the_search_finds_the_best_of_all_cablings_of_two_cubes():
    cubes = Cubes((3, 6), 3)
    every = [CubeCabling(cubes, np.array(shifts)) for shifts in itertools.product((0, 1), repeat=cubes.switches)]
    every = [each for each in every if nx.is_strongly_connected(joined((3, 6), 3, each.permutations))]
    best = min(each.split_load for each in every)
    assert best <= synthesised_cabling(cubes, seed=1, steps=300).split_load <= 1.02 * best


def test_a_search_of_seconds_beats_the_best_topology_known_and_a_seed_finds_it_again():
    """72 messages over the fullest link of 4x4x8 [TONS, 2026], on a graph that is joined here."""
    cubes = Cubes((4, 4, 8), 4)
    found, again = (synthesised_cabling(cubes, seed=5, steps=400) for _ in range(2))
    assert found.permutations.tolist() == again.permutations.tolist()
    assert mean_load(joined((4, 4, 8), 4, found.permutations)) == pytest.approx(found.mean_load)
    assert 60 < least_load(cubes) < found.mean_load <= found.split_load < 72
    built = fabric((4, 4, 8), 4, found.permutations)
    wires, pairs = built.wires(128), np.nonzero(~np.eye(128, dtype=bool))
    links = wires.links(built.stops(128, *pairs))
    assert np.bincount(links[links >= 0]).max() == found.single_load == 72


def test_the_cycle_model_cables_it_and_relays_do_not_wait_in_a_circle():
    built = fabric((4, 4), 2, [[1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0], [1, 0, 3, 2]])
    wires, cabling = built.wires(16), built.cabling(16)
    near = set(zip(wires.source.tolist(), wires.destination.tolist(), strict=True))
    assert {(path[0], path[-1]) for path in cabling.relays} == set(itertools.permutations(range(16), 2)) - near
