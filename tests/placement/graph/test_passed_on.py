"""Exchanges of jobs that members pass on: nothing is lost, folding changes nothing, flits take as long as fluids."""

import numpy as np
import pytest

from lightfabric.flows.experiment import cell
from lightfabric.model.cycle.cluster import Cluster
from lightfabric.model.fabric.electrical.electrical import TIMING
from lightfabric.model.fluid import engine
from lightfabric.model.spec import (
    ACCELERATORS,
    ChipletSpec,
    CubeTorusSpec,
    DragonflySpec,
    JobSpec,
    ModelSpec,
    NetworkJobSpec,
    PlanSpec,
    StudySpec,
    TopooptSpec,
    TorusSpec,
)
from lightfabric.model.task import Kind, Part
from lightfabric.placement.collective.relay import messages
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.graph.fold import unfolded
from lightfabric.placement.job.kind import workload

CHIPLET = ChipletSpec(ports=4, wavelengths_per_port=4, flit_bytes=64, virtual_channels=8)
H100 = ACCELERATORS["h100"]
DLRM = NetworkJobSpec("dlrm", 4096, table_rows=(1000,) * 5, table_width=256, bottom_widths=(8, 256), top_widths=(8, 1))
MIXTURE = JobSpec(ModelSpec(4, 4096, 8, 2048, 1024, experts=8, experts_per_token=4, expert_ffn=64), batch=64)
FLAT, CUBES = TorusSpec("torus", "torus", dimensions=2), CubeTorusSpec("cubes", "cube-torus", dimensions=2, cube_edge=2)


def served(job, spec, gpus, chiplet=CHIPLET, timing=TIMING, **given):
    study = StudySpec("relays", H100, job, (spec,), (gpus,), chiplet, PlanSpec(**given))
    fabric = fabric_of(spec, chiplet, timing)
    return study, fabric, *cell.fastest(study, fabric, gpus)


@pytest.mark.parametrize(
    ("job", "spec", "gpus", "given"),
    [(DLRM, FLAT, 16, {}), (DLRM, CUBES, 16, {}), (MIXTURE, FLAT, 32, {"dp": 32, "ep": 8})],
    ids=["tables-torus", "tables-cubes", "experts"],
)
def test_what_is_passed_on_comes_where_it_is_to_go_and_folding_changes_nothing(job, spec, gpus, given):
    study, fabric, placed, _, schedule = served(job, spec, gpus, **given)
    assert placed.relays is not None
    direct = unfolded(workload(job, H100), placed.plan, placed.gpu_of_rank, fabric)
    graph = cell._whole(study, fabric, placed)
    graph.verify()
    network = fabric.network(gpus, graph.demand_bytes(), placed.circuits)
    found = engine.run(graph, network)
    assert found.makespan_ps == pytest.approx(schedule.makespan_ps, rel=1e-9)
    # A GPU keeps what is for it, and bytes go as far as their shortest way is.
    kept, far, shape = np.zeros((2, gpus)), np.zeros(2), (4, gpus // 4)
    for number, each in enumerate((direct, graph)):
        moves = (each.kind == Kind.TRANSFER) & (each.part == Part.EXCHANGE)
        np.add.at(kept[number], each.peer[moves], each.work[moves])
        np.subtract.at(kept[number], each.device[moves], each.work[moves])
        apart = np.abs(np.subtract(*(np.stack(np.divmod(end[moves], shape[1])) for end in (each.device, each.peer))))
        far[number] = (np.minimum(apart, np.array(shape)[:, None] - apart).sum(axis=0) * each.work[moves]).sum()
    moves = (graph.kind == Kind.TRANSFER) & (graph.part == Part.EXCHANGE)
    assert kept[1] == pytest.approx(kept[0], abs=int(moves.sum()))
    assert far[1] == pytest.approx(far[0], rel=1e-4)
    # No message meets another of its exchange on its link, where groups are all GPUs.
    if job is DLRM:
        order = np.lexsort((found.start_ps[moves], graph.peer[moves], graph.device[moves]))
        ends = np.stack([graph.device[moves], graph.peer[moves], found.start_ps[moves], found.finish_ps[moves]])[:, order]
        same = (np.diff(ends[:2]) == 0).all(axis=0)
        assert (ends[3, :-1] <= ends[2, 1:])[same].all()


def test_flits_of_a_job_that_passes_on_take_as_long_as_fluids():
    study, fabric, placed, _, schedule = served(DLRM, FLAT, 16)
    cluster = Cluster(cell._whole(study, fabric, placed), CHIPLET, TIMING, fabric.cabling(16))
    assert cluster.run().makespan_ps == pytest.approx(schedule.makespan_ps, rel=0.01)
    assert placed.prediction.total * 1e12 == pytest.approx(schedule.makespan_ps, rel=0.05)


@pytest.mark.parametrize(
    ("spec", "gpus"),
    [
        (FLAT, 256),
        (CubeTorusSpec("cubes", "cube-torus", dimensions=3, cube_edge=4), 256),
        (TopooptSpec("topoopt", "topoopt", degree=4), 64),
        (DragonflySpec("dragonfly", "dragonfly", 400.0, 400.0, 4, 8, global_links=4), 256),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_a_recommender_is_predicted_and_hardly_slower_than_with_exchanges_at_once(spec, gpus, invented_timing):
    chiplet = ChipletSpec(ports=12, flit_bytes=256, buffer_flits=127, reach_m=40.0)
    job = NetworkJobSpec("dlrm", 65536)
    _, fabric, placed, _, schedule = served(job, spec, gpus, chiplet, invented_timing)
    assert placed.prediction.total * 1e12 == pytest.approx(schedule.makespan_ps, rel=0.1)
    direct = unfolded(workload(job, H100), placed.plan, placed.gpu_of_rank, fabric)
    at_once_ps = engine.run(direct, fabric.network(gpus, direct.demand_bytes(), placed.circuits)).makespan_ps
    assert schedule.makespan_ps < 1.03 * at_once_ps


def test_what_goes_furthest_from_one_source_goes_first():
    """GPU 0 of a line sends 7 GPUs a byte each: it is busy for 7, and the byte that goes furthest comes last."""
    stops = np.array([[*range(far + 1), *[-1] * (7 - far)] for far in range(1, 8)])
    found = messages([stops], np.ones(7))
    assert found.step.max() == 6
    assert found.sizes(np.ones(7)).tolist() == [1] * 28
    assert [found.destination[found.step == step].max() for step in range(7)] == list(range(1, 8))
