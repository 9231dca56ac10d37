"""All-to-alls that neighbours pass on: everything arrives, no link carries more, and flits take as long as fluids."""

from itertools import pairwise

import numpy as np
import pytest

from lightfabric.model.cycle.cluster import Cluster
from lightfabric.model.fabric.direct.lattice import Lattice
from lightfabric.model.fabric.electrical.electrical import TIMING
from lightfabric.model.fabric.fabric import fabric_of
from lightfabric.model.fluid import engine
from lightfabric.model.spec import ChipletSpec, TorusSpec, TwistedTorusSpec
from lightfabric.placement.graph.neighbour import all_to_all_by_neighbours, ways

CHIPLET = ChipletSpec(ports=4, wavelengths_per_port=4, flit_bytes=64, virtual_channels=8)
SHAPES = [((4, 4), False), ((2, 8), True), ((3, 5), False), ((4, 4, 4), False), ((4, 8), True), ((7,), False)]


@pytest.mark.parametrize(("shape", "twisted"), SHAPES)
def test_every_part_comes_where_it_is_to_go_after_the_message_that_brought_it(shape, twisted):
    """Followed hop by hop from every GPU; messages are as large as what is in them, by the times of a schedule."""
    lattice, size = Lattice(shape, twisted), 1000 * 2 * len(shape)
    graph, parts = all_to_all_by_neighbours(lattice, size), 2 * len(shape)
    kind = TwistedTorusSpec if twisted else TorusSpec
    fabric = fabric_of(kind("t", "twisted-torus" if twisted else "torus", shape=shape), ChipletSpec(ports=8), TIMING)
    schedule = engine.run(graph, fabric.network(lattice.gpus, graph.demand_bytes()))
    found = ways(lattice)
    blocks = [(step, way) for step in range(found.shape[1]) for way in np.unique(found[:, step]).tolist() if way >= 0]
    first = {block: number * lattice.gpus for number, block in enumerate(blocks)}
    unit, carried = np.repeat(np.eye(len(shape), dtype=int), 2, axis=0), np.zeros(len(graph), int)
    unit[1::2] *= -1
    for gpu in range(lattice.gpus):
        reached = []
        for hops in found:
            here, sent = gpu, []
            for step, way in enumerate(hops[hops >= 0].tolist()):
                task = first[step, way] + here
                assert graph.device[task] == here
                here = int(lattice.gpu(lattice.points(np.array(here)) + unit[way]))
                assert graph.peer[task] == here
                carried[task] += size // parts
                sent.append(task)
            assert all(schedule.finish_ps[a] <= schedule.start_ps[b] for a, b in pairwise(sent))
            reached.append(here)
        assert np.bincount(reached).tolist() == [parts] * lattice.gpus
    assert carried.tolist() == graph.work.tolist()


@pytest.mark.parametrize(("kind", "shape"), [("torus", (4, 4)), ("twisted-torus", (2, 8))])
def test_passed_on_by_neighbours_flits_take_as_long_as_fluids_and_hardly_longer_than_the_fullest_link(kind, shape):
    spec = (TwistedTorusSpec if kind == "twisted-torus" else TorusSpec)("t", kind, shape=shape)
    fabric = fabric_of(spec, CHIPLET, TIMING)
    graph = all_to_all_by_neighbours(Lattice(shape, kind == "twisted-torus"), 256 * CHIPLET.payload_bytes)
    network = fabric.network(16, graph.demand_bytes())
    fluid_ps = engine.run(graph, network).makespan_ps
    cycle_ps = Cluster(graph, CHIPLET, TIMING, fabric.cabling(16)).run().makespan_ps
    assert cycle_ps == pytest.approx(fluid_ps, rel=0.01)
    every = fabric.network(16, np.argwhere(~np.eye(16, dtype=bool)))
    load = np.bincount(every.route_links) * 256 * CHIPLET.payload_bytes
    assert fluid_ps < 1.1e12 * float((load / every.bytes_per_s).max())
