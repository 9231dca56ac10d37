"""Systems of chiplets in RTL, natively simulated, and in the cycle model: the same task graphs, in the same cycles."""

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lightfabric.flows.experiment import cluster as system
from lightfabric.flows.format.timing_store import measured_timing
from lightfabric.model.cycle.cabling import Cabling, circuit_switched, layers, ring
from lightfabric.model.cycle.cluster import Cluster
from lightfabric.model.spec import ACCELERATORS, ChipletSpec, JobSpec, ModelSpec
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.graph.iteration import task_graph
from lightfabric.placement.plan import Plan

pytestmark = pytest.mark.slow

SPEC = ChipletSpec(ports=2, wavelengths_per_port=4, flit_bytes=64, buffer_flits=24, reach_m=5.0)
TRAINED_CYCLE = 2000
JOB = JobSpec(ModelSpec(layers=4, hidden=64, heads=4, sequence=32, vocabulary=128), batch=8)
MAX_OFF = 0.02
"""Of the total time, where flits compete; the bound of the project. Seen: 1.3 %."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return system.build(SPEC, tmp_path_factory.mktemp("system"))


def joined(parts: list[tuple[Kind, int, int, int]], devices: int) -> TaskGraph:
    """Tasks (kind, device, peer, work) that wait for nothing."""
    kind, device, peer, work = (np.array(column) for column in zip(*parts, strict=True))
    none, count = np.zeros(0, np.int32), len(parts)
    return TaskGraph(
        devices, kind.astype(np.int8), device.astype(np.int32), work.astype(np.int64), peer.astype(np.int32),
        np.ones(count, np.int32), np.zeros(count + 1, np.int64), none, np.zeros(1, np.int64), none,
    )  # fmt: skip


def after_training(graph: TaskGraph) -> TaskGraph:
    """The same tasks, the first of them waiting until the lines of the RTL are trained, as those of the model are."""
    count, roots = len(graph), np.setdiff1d(np.arange(len(graph)), graph.successors)
    wait_ps = round((TRAINED_CYCLE - 1) * SPEC.cycle_ps)
    edges = len(graph.successors) + len(roots)
    return (
        replace(
            graph,
            kind=np.append(graph.kind, np.int8(Kind.COMPUTE)),
            device=np.append(graph.device, np.int32(0)),
            work=np.append(graph.work, wait_ps),
            peer=np.append(graph.peer, np.int32(-1)),
            operations=np.append(graph.operations, np.int32(1)),
            successor_start=np.append(graph.successor_start, edges),
            successors=np.concatenate([graph.successors, roots]).astype(np.int32),
        )
        if count
        else graph
    )


def iteration(plan: Plan) -> TaskGraph:
    """One iteration with passes of about 1 us, as long as its messages; real launches are a thousand times that."""
    graph = task_graph(JOB, ACCELERATORS["a100"], plan)
    return replace(graph, work=np.where(graph.kind == Kind.COMPUTE, graph.work // 4000, graph.work))


def torus_2x2(fibre_m: float) -> Cabling:
    """Port 0 along the rows, port 1 along the columns; across by the row first."""
    gpu, port = (np.array(table, np.int32) for table in ([[n ^ 1, n ^ 2] for n in range(4)], [[0, 1]] * 4))
    across = [(n, n ^ 1, n ^ 3) for n in range(4)]
    return Cabling(gpu, port, fibre_m, 1.0, dict(zip(across, layers(across, SPEC.virtual_channels), strict=True)))


def ring_of_8(fibre_m: float, graph: TaskGraph) -> Cabling:
    """A ring with relays for all who talk and are no neighbours, the short way round."""
    cabling = ring(8, SPEC.ports, fibre_m)
    paths = [path for path in map(around, graph.demand_bytes()) if len(path) > 2]
    return replace(cabling, relays=dict(zip(paths, layers(paths, SPEC.virtual_channels), strict=True)))


def around(pair: tuple[int, int]) -> tuple[int, ...]:
    source, destination = pair
    steps = (destination - source + 4) % 8 - 4
    return tuple((source + n) % 8 for n in (range(steps + 1) if steps > 0 else range(0, steps - 1, -1)))


def both(graph: TaskGraph, cabling: Cabling, made: Path):
    """Cycles in which each task finished, after the start, in the model and in the RTL."""
    graph = after_training(graph)
    rtl = system.run(made, graph, SPEC, cabling)
    model = Cluster(graph, SPEC, measured_timing(SPEC), cabling, frame_beats=rtl.frame_beats).run()
    assert max(rtl.frame_beats.values()) / SPEC.blocks_per_cycle < TRAINED_CYCLE - 100
    cycles = np.rint(model.finish_ps / SPEC.cycle_ps).astype(int)
    return cycles[:-1] - TRAINED_CYCLE, rtl.finish[:-1] - TRAINED_CYCLE


@pytest.mark.parametrize("seed", range(2))
def test_lone_transfers_finish_in_the_same_cycle(seed, made):
    """One after the other, of one to a hundred flits, between neighbours and across."""
    print(f"seed {seed}")
    rng, cabling = random.Random(seed), torus_2x2(0.7 + 3 * seed)
    pairs = [rng.sample(range(4), 2) for _ in range(24)]
    graph = joined([(Kind.TRANSFER, a, b, rng.randint(1, 100 * SPEC.payload_bytes)) for a, b in pairs], 4)
    chain = replace(graph, successor_start=np.minimum(np.arange(25), 23), successors=np.arange(1, 24, dtype=np.int32))
    model, rtl = both(chain, cabling, made)
    assert all(before < after for before, after in pairwise(rtl.tolist()))
    assert model.tolist() == rtl.tolist()


EXACT = [(2, 2, 1), (2, 1, 2), (1, 2, 2), (4, 1, 1)]


@pytest.mark.parametrize("degrees", [*EXACT, (1, 1, 4)])
def test_an_iteration_on_2x2_chiplets_takes_as_long(degrees, made):
    plan = Plan(*degrees, micro_batch=1)
    model, rtl = both(iteration(plan), torus_2x2(1.0), made)
    assert model.max() == pytest.approx(rtl.max(), rel=MAX_OFF)
    if degrees in EXACT:
        assert model.tolist() == rtl.tolist()


@pytest.mark.parametrize("degrees", [(8, 1, 1), (2, 2, 2), (4, 2, 1), (1, 2, 4)])
def test_an_iteration_on_a_ring_of_8_chiplets_takes_as_long(degrees, made):
    plan = Plan(*degrees, micro_batch=1)
    graph = iteration(plan)
    model, rtl = both(graph, ring_of_8(1.0, graph), made)
    print(degrees, model.max(), rtl.max(), np.abs(model - rtl).max())
    assert model.max() == pytest.approx(rtl.max(), rel=MAX_OFF)


def test_circuits_without_a_way_back_are_refused(tmp_path):
    there = circuit_switched([[1, 2, 0], [1, 2, 0]], 1.0)
    with pytest.raises(ValueError, match=r"^Cabling must join whole ports both ways for RTL"):
        system.run(tmp_path, joined([(Kind.TRANSFER, 0, 1, 9)], 3), SPEC, there)


def test_renamed_virtual_channels_are_refused_by_chiplets_that_are_all_alike(tmp_path):
    renamed = replace(ring(4, SPEC.ports, 1.0), renames={(3, 0): (1, 0)})
    with pytest.raises(ValueError, match=r"^Cabling\.renames must be empty for chiplets that are all alike"):
        system.run(tmp_path, joined([(Kind.TRANSFER, 0, 1, 9)], 4), SPEC, renamed)
