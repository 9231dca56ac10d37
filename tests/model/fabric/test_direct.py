"""Direct fabrics: links against graphs built here, ways and loads against networkx, times against bounds."""

import itertools

import networkx as nx
import numpy as np
import pytest

from lightfabric.model.cycle.cluster import Cluster
from lightfabric.model.fabric.direct.lattice import Lattice, most_cubic
from lightfabric.model.fabric.electrical.electrical import TIMING
from lightfabric.model.fabric.fabric import fabric_of, port_bytes_per_s
from lightfabric.model.fluid import engine
from lightfabric.model.spec import (
    CABLE_PS_PER_M,
    FIBRE_PS_PER_M,
    ChipletSpec,
    CubeTorusSpec,
    CustomSpec,
    SpecError,
    TorusSpec,
    TwistedTorusSpec,
)
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.fabric.fabric import fabric_of as placed_on
from lightfabric.placement.mapping.traffic import Traffic

CHIPLET = ChipletSpec(ports=8, wavelengths_per_port=8)
CYCLE_CHIPLET = ChipletSpec(ports=4, wavelengths_per_port=4, flit_bytes=64, virtual_channels=4)
TWISTS = {
    (4, 4, 8): {0: (0, 0, 4), 1: (0, 0, 4)},
    (4, 8, 8): {0: (0, 4, 4)},
    (2, 8): {0: (0, 4)},
    (2, 4, 8): {0: (0, 2, 4), 1: (0, 0, 4)},
    (3, 5): {0: (0, 2)},
}
"""Where the way round an axis ends, by axis, as in the papers for the first two."""


def grid(shape, twists):
    """The torus as a graph of points, joined one by one."""
    graph = nx.MultiDiGraph()
    for point in itertools.product(*map(range, shape)):
        for axis in range(len(shape)):
            there = [*point]
            there[axis] += 1
            # The shift of one axis may lead round a later one, which then adds its own.
            for each, most in enumerate(shape):
                if there[each] >= most:
                    there = [at + by for at, by in zip(there, twists.get(each, (0,) * len(shape)), strict=True)]
                    there[each] -= most
            if tuple(there) != point:
                graph.add_edge(point, tuple(there))
                graph.add_edge(tuple(there), point)
    return nx.relabel_nodes(graph, {point: number for number, point in enumerate(sorted(graph))})


def all_pairs(gpus):
    return np.nonzero(~np.eye(gpus, dtype=bool))


def link_loads(fabric, gpus):
    wires = fabric.wires(gpus)
    links = wires.links(fabric.stops(gpus, *all_pairs(gpus)))
    return np.bincount(links[links >= 0], minlength=len(wires.source))


CASES = [
    *((shape, True) for shape in TWISTS),
    *((shape, False) for shape in ((4, 4, 8), (2, 3), (5,), (1, 4, 1), (2, 2, 2))),
]


@pytest.mark.parametrize(("shape", "twisted"), CASES)
def test_links_and_ways_are_those_of_the_graph(shape, twisted):
    kind, name = (TwistedTorusSpec, "twisted-torus") if twisted else (TorusSpec, "torus")
    graph, gpus = grid(shape, TWISTS[shape] if twisted else {}), int(np.prod(shape))
    fabric = fabric_of(kind("t", name, shape=shape), CHIPLET)
    wires = fabric.wires(gpus)
    directions = max(degree for _, degree in graph.out_degree)
    counts = {(a, b): graph.number_of_edges(a, b) * (8 // directions) for a, b in set(graph.edges())}
    ends = zip(wires.source.tolist(), wires.destination.tolist(), strict=True)
    assert dict(zip(ends, wires.ports.tolist(), strict=True)) == counts
    distance = dict(nx.all_pairs_shortest_path_length(graph))
    for stops in fabric.stops(gpus, *all_pairs(gpus)).tolist():
        path = [stop for stop in stops if stop >= 0]
        assert all(pair in counts for pair in itertools.pairwise(path))
        assert len(path) - 1 == distance[path[0]][path[-1]]


@pytest.mark.parametrize(
    ("shape", "twisted", "load", "single"),
    [
        ((4, 4, 8), False, 128, 128),
        ((4, 4, 8), True, 220 / 3, 74),
        ((4, 8, 8), False, 256, 256),
        ((4, 8, 8), True, 184, 184),
    ],
)
def test_loads_are_those_published_split_or_on_single_ways(shape, twisted, load, single):
    graph, gpus = nx.DiGraph(grid(shape, TWISTS[shape] if twisted else {})), int(np.prod(shape))
    split = nx.edge_betweenness_centrality(graph, normalized=False)
    lattice = Lattice(shape, twisted)
    assert max(split.values()) == pytest.approx(float(max(lattice.split_loads())), rel=1e-12)
    assert float(max(lattice.split_loads())) == pytest.approx(load, rel=1e-15)
    kind, name = (TwistedTorusSpec, "twisted-torus") if twisted else (TorusSpec, "torus")
    loads = link_loads(fabric_of(kind("t", name), CHIPLET), gpus)
    assert loads.max() == single
    assert loads.sum() == sum(sum(lengths.values()) for _, lengths in nx.all_pairs_shortest_path_length(graph))


def test_pairs_on_any_graph_take_ways_that_load_links_evenly():
    """On a twisted torus that is only known as a list of links, and on a random graph, against one shortest way each."""
    graph = nx.DiGraph(grid((4, 4, 8), TWISTS[4, 4, 8]))
    regular = nx.random_regular_graph(4, 40, seed=7)
    for links, gpus in ((graph, 128), (nx.DiGraph(regular), 40)):
        ends = tuple((float(a), float(b)) for a, b in links.edges() if a < b)
        loads = link_loads(fabric_of(CustomSpec("c", "custom", gpus, ends), CHIPLET), gpus)
        split = nx.edge_betweenness_centrality(links, normalized=False)
        total = sum(sum(lengths.values()) for _, lengths in nx.all_pairs_shortest_path_length(links))
        assert loads.sum() == total
        assert loads.max() >= total / len(split)
        assert loads.max() <= max(split.values()) + 1


def test_a_link_of_half_the_rate_gets_less():
    """Two ways of two hops from 0 to 3, over 1 and over 2, of 100 and 50 Gb/s."""
    links = ((0.0, 1.0, 100.0, 10.0), (1.0, 3.0, 100.0, 10.0), (0.0, 2.0, 50.0, 10.0), (2.0, 3.0, 50.0, 10.0))
    fabric = fabric_of(CustomSpec("c", "custom", 4, links), CHIPLET)
    assert fabric.stops(4, np.array([0, 3]), np.array([3, 0])).tolist() == [[0, 1, 3], [3, 1, 0]]
    network = fabric.network(2, [(0, 1)])
    assert network.bytes_per_s[network.route(0, 1)].tolist() == [12.5e9]
    assert network.latency_ps[network.route(0, 1)].tolist() == [10_000]


@pytest.mark.parametrize(
    ("spec", "gbps", "latency_ns"),
    [
        (TorusSpec("t", "torus", link_gbps=300.0, link_latency_ns=70.0), 300, 70),
        (CubeTorusSpec("c", "cube-torus", link_gbps=300.0, electrical_latency_ns=75.0, optical_latency_ns=50.0), 300, 75),
        # The link of 10 Gb/s is one of switches.
        (CustomSpec("c", "custom", 2, ((0, 2, 300, 40), (1, 3, 200, 60), (2, 3, 10, 999))), 200, 60),
    ],
)
def test_links_of_their_own_rate_tell_it_and_their_latency_in_place_of_the_chiplets(spec, gbps, latency_ns, invented_timing):
    noisy = fabric_of(spec, ChipletSpec(bit_error_rate=1e-5), invented_timing)
    assert (noisy.port_gbps * noisy.efficiency, noisy.link_latency_ns, noisy.switch_ps) == (gbps, latency_ns, 0)
    assert (noisy.slot_loss_rate, noisy.goodput_share) == (0, 1)
    of_chiplet = fabric_of(TorusSpec("t", "torus"), CHIPLET, invented_timing)
    assert (of_chiplet.port_gbps, of_chiplet.switch_ps) == (CHIPLET.gbps_per_port, 3 * CHIPLET.cycle_ps)


def test_a_slice_of_two_cubes_has_576_electrical_and_192_optical_links():
    spec = CubeTorusSpec("c", "cube-torus", link_gbps=1.0, electrical_latency_ns=75.0, optical_latency_ns=50.0)
    assert np.unique(fabric_of(spec, CHIPLET).wires(128).flight_ps, return_counts=True)[1].tolist() == [192, 576]
    wires = fabric_of(CubeTorusSpec("c", "cube-torus", cube_edge=2, cable_m=1.0, fibre_m=20.0), CHIPLET).wires(32)
    assert np.unique(wires.flight_ps).tolist() == pytest.approx([CABLE_PS_PER_M, 40 * FIBRE_PS_PER_M])


def test_a_relay_adds_its_switch_between_two_links(invented_timing):
    network = fabric_of(TorusSpec("t", "torus", dimensions=1), CHIPLET, invented_timing).network(8, [(0, 2), (0, 7)])
    route = network.route(0, 2)
    hop_ps = round(20 * CHIPLET.cycle_ps + 2 * FIBRE_PS_PER_M)
    assert network.latency_ps[route].tolist() == [hop_ps, 3 * CHIPLET.cycle_ps, hop_ps]
    port = port_bytes_per_s(CHIPLET, invented_timing, 2 * FIBRE_PS_PER_M)
    assert network.bytes_per_s[route[0]] == pytest.approx(4 * port)
    assert network.link_source[route].tolist() == [0, 1, 1]
    assert len(network.route(0, 7)) == 1


def test_a_ring_goes_both_ways_and_takes_half_the_time():
    fabric = placed_on(TorusSpec("t", "torus", shape=(4, 4)), CHIPLET)
    row, nobody = np.arange(4, dtype=np.int32), np.zeros(4, np.int8)
    assert [ring.tolist() for ring in fabric.rings(row, 16)] == [[0, 1, 2, 3], [3, 2, 1, 0]]
    flows = Traffic(row, np.roll(row, -1), np.full(4, 1000), nobody)
    one_way = fabric.busiest_seconds(16, flows.source.astype(int), flows.destination.astype(int), flows.size_bytes)
    assert one_way == pytest.approx(1000 / (2 * CHIPLET.gbps_per_port * 1e9 / 8))
    assert fabric.bottleneck_seconds(flows, 16) == pytest.approx(one_way / 2)


def test_a_grid_is_as_cubic_as_the_count_allows():
    for count, axes in itertools.product(range(1, 65), (1, 2, 3)):
        lengths = itertools.product(range(1, count + 1), repeat=axes - 1) if axes > 1 else [()]
        shapes = {
            tuple(sorted((*each, count // int(np.prod(each or [1])))))
            for each in lengths
            if count % int(np.prod(each or [1])) == 0
        }
        assert most_cubic(count, axes) == min(shapes, key=lambda shape: shape[::-1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: fabric_of(TorusSpec("t", "torus", shape=(4, 4)), CHIPLET).wires(8),
            r"TorusSpec.shape must be of 8 GPUs, not",
        ),
        (
            lambda: fabric_of(TorusSpec("t", "torus", dimensions=5), CHIPLET).wires(32),
            "ChipletSpec.ports must be at least 10, one",
        ),
        (
            lambda: fabric_of(CubeTorusSpec("c", "cube-torus"), CHIPLET).wires(100),
            "gpus must be a multiple of the 64 of a cube",
        ),
        (lambda: CubeTorusSpec("c", "cube-torus", shape=(4, 6)), "CubeTorusSpec.shape must be lengths that 4 divides, not"),
        (
            lambda: CubeTorusSpec("c", "cube-torus", permutations=((0, 1),)),
            "CubeTorusSpec.shape must be of at most 2048 GPUs beside permutations, not ()",
        ),
        (
            lambda: CubeTorusSpec("c", "cube-torus", shape=(2, 4), cube_edge=2, permutations=((0, 1),) * 3),
            "CubeTorusSpec.permutations must be a permutation of cubes 0 to 1 for each of 4 switches, not 3",
        ),
        (
            lambda: CubeTorusSpec("c", "cube-torus", shape=(2, 4), cube_edge=2, permutations=((0, 1), (1, 1)) * 2),
            r"CubeTorusSpec.permutations must be a permutation of cubes 0 to 1 for each of 4 switches, not \[1, 1\]",
        ),
        (
            lambda: TorusSpec("t", "torus", link_gbps=1.0),
            "TorusSpec.link_gbps must be given with link_gbps, link_latency_ns",
        ),
        (lambda: TorusSpec("t", "torus", shape=(1,)), "TorusSpec.shape must be of more than one GPU, not"),
        (
            lambda: CustomSpec("c", "custom", 2, ((0, 1, 5),)),
            "CustomSpec.links must be all of two vertices, or all of two with",
        ),
        (lambda: CustomSpec("c", "custom", 2, ((0, 0),)), "CustomSpec.links must be between different vertices from 0 to"),
        (lambda: CustomSpec("c", "custom", 2, ((0, 2),)), "CustomSpec.links must be with gbps and ns at switches"),
        (
            lambda: CustomSpec("c", "custom", 2, ((0, 1, 0, 1),)),
            "CustomSpec.links must be of gbps above 0 and ns of at least 0",
        ),
        (
            lambda: fabric_of(CustomSpec("c", "custom", 2, ((0, 1),)), CHIPLET).wires(3),
            "gpus must be at most the 2 of 'c', not 3",
        ),
        (
            lambda: fabric_of(CustomSpec("c", "custom", 3, ((0, 1),)), CHIPLET).stops(3, np.array([0]), np.array([1])),
            "links must join all 3 GPUs, not leave 0 and 2 apart",
        ),
    ],
)
def test_what_cannot_be_is_named(make, message):
    with pytest.raises((ValueError, SpecError), match=message):
        make()


def every_other(shape, flits):
    """All-reduces among every other GPU of each row and column, each both ways, so that two share a link and all relay."""
    number = np.arange(np.prod(shape)).reshape(shape)
    lines = [line[start::2] for grid_ in (number, number.T) for line in grid_ for start in (0, 1) if len(line) > 2]
    rings = [ring for line in lines for ring in ([line, line[::-1]] if len(line) > 2 else [line])]
    count, none = len(rings), np.zeros(0, np.int32)
    return TaskGraph(
        number.size, np.full(count, Kind.ALL_REDUCE, np.int8), np.array([ring[0] for ring in rings], np.int32),
        np.full(count, flits * CYCLE_CHIPLET.payload_bytes), np.arange(count, dtype=np.int32), np.ones(count, np.int32),
        np.zeros(count + 1, np.int64), none, np.cumsum([0, *map(len, rings)]), np.concatenate(rings).astype(np.int32),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("torus", (4, 4)), ("twisted-torus", (2, 8)), ("torus", (8, 8)), ("twisted-torus", (4, 16))],
)
def test_contended_rings_take_as_long_flit_by_flit_as_in_the_fluid_model(kind, shape):
    spec = (TwistedTorusSpec if kind == "twisted-torus" else TorusSpec)("t", kind, shape=shape)
    fabric, graph = fabric_of(spec, CYCLE_CHIPLET, TIMING), every_other(shape, 512)
    fluid_ps = engine.run(graph, fabric.network(graph.devices, graph.demand_bytes())).makespan_ps
    cycle_ps = Cluster(graph, CYCLE_CHIPLET, TIMING, fabric.cabling(graph.devices)).run().makespan_ps
    assert cycle_ps == pytest.approx(fluid_ps, rel=0.03)


def test_links_of_their_own_rate_take_as_long_flit_by_flit_as_in_the_fluid_model():
    """A torus whose GPUs relay; and two switches, with GPUs at 400 and 200 Gb/s, and two ports between."""
    links = ((0, 4, 400, 75), (1, 4, 400, 75), (2, 5, 200, 75), (3, 5, 200, 75), (4, 5, 1200, 300))
    specs = [
        TorusSpec("t", "torus", shape=(4, 4), link_gbps=900.0, link_latency_ns=300.0),
        CustomSpec("c", "custom", 4, tuple(tuple(map(float, link)) for link in links)),
    ]
    for spec, shape in zip(specs, [(4, 4), (1, 4)], strict=True):
        fabric, graph = fabric_of(spec, CHIPLET), every_other(shape, 4096)
        network = fabric.network(graph.devices, graph.demand_bytes())
        cluster = Cluster(graph, fabric.cycle_chiplet, fabric.cycle_timing, fabric.cabling(graph.devices))
        assert cluster.run().makespan_ps == pytest.approx(engine.run(graph, network).makespan_ps, rel=0.03)


def test_what_the_cycle_model_cannot_cable_is_said():
    own = TorusSpec("t", "torus", link_gbps=1.0, link_latency_ns=1.0)
    with pytest.raises(ValueError, match=r"a link must carry 15.3 Gb/s of payload at cycle fidelity, not 2 Gb/s"):
        fabric_of(own, CHIPLET).cabling(8)
    with pytest.raises(SpecError, match=r"ChipletSpec.virtual_channels must be enough for layers of relays"):
        fabric_of(TorusSpec("t", "torus", dimensions=1), ChipletSpec(virtual_channels=1)).cabling(8)
    with pytest.raises(ValueError, match="gpus must be all 3 of the fabric, not 2"):
        fabric_of(CustomSpec("c", "custom", 3, ((0, 1), (1, 2), (0, 2))), CHIPLET).cabling(2)
