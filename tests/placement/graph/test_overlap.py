"""Exchanges of experts that go on while the next pass computes: the order of passes, memory, prediction and simulation."""

from dataclasses import replace

import numpy as np
import pytest

from lightfabric.flows.experiment import cell
from lightfabric.model.fluid import engine as fluid
from lightfabric.model.fluid.network import star
from lightfabric.model.spec import ACCELERATORS, ChipletSpec, JobSpec, ModelSpec, PlanSpec, SpecError, StudySpec
from lightfabric.model.task import Kind, Part
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.graph.iteration import backward_steps, forward_steps, task_graph
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import case
from lightfabric.placement.workload.memory import chunks_in_flight

H100 = ACCELERATORS["h100"]
MODEL = ModelSpec(8, 1024, 8, 1024, 1024, experts=8, experts_per_token=2, expert_ffn=1024)
JOB = JobSpec(MODEL, batch=64)
HIDDEN = replace(JOB, overlap_experts=True)
PLANS = [Plan(8, 1, 1, 1, ep=8), Plan(4, 2, 2, 1, ep=4), Plan(4, 1, 4, 2, ep=2), Plan(4, 1, 2, 1, ep=4, virtual_stages=2)]


@pytest.mark.parametrize(("stages", "count", "chunks"), [(1, 1, 1), (1, 6, 1), (4, 1, 1), (4, 9, 1), (2, 4, 2), (4, 8, 3)])
def test_a_pass_lies_between_those_of_a_micro_batch_and_memory_knows_how_many_are_begun(stages, count, chunks):
    forward, backward = (steps(stages, count, chunks, paired=True) for steps in (forward_steps, backward_steps))
    assert (np.sort(np.hstack([forward, backward]), axis=1) == np.arange(2 * count * chunks)).all()
    assert (forward < backward).all()
    assert count * chunks == 1 or (backward[-1] - forward[-1]).min() > 1 or count == 1
    plan = Plan(1, 1, stages, 1, virtual_stages=chunks)
    job = replace(HIDDEN, batch=count, model=replace(MODEL, layers=stages * chunks))
    for stage in range(stages):
        events = sorted([(step, 1) for step in forward[stage]] + [(step, -1) for step in backward[stage]])
        assert max(np.cumsum([change for _, change in events])) == chunks_in_flight(case(job, plan).exactly, stage)


@pytest.mark.parametrize("plan", PLANS)
def test_the_same_bytes_move_and_no_more_than_one_pass_computes_at_a_time(plan):
    graph, before = task_graph(HIDDEN, H100, plan), task_graph(JOB, H100, plan)
    graph.verify()
    assert graph.demand_bytes() == before.demand_bytes()
    for kind in (Kind.COMPUTE, Kind.TRANSFER, Kind.ALL_REDUCE):
        assert (graph.kind == kind).sum() == (before.kind == kind).sum()
    # A rank steps when all of its exchanges have ended.
    schedule = fluid.run(graph, star(plan.gpus, 1e10, graph.demand_bytes()))
    exchanges, steps = (graph.part == Part.EXCHANGE) & (graph.kind == Kind.TRANSFER), graph.part == Part.OPTIMISER
    for rank in range(plan.gpus):
        ended = schedule.finish_ps[exchanges & (graph.device == rank)].max()
        assert ended <= schedule.start_ps[steps & (graph.device == rank)].min()


def test_an_exchange_that_takes_less_than_passes_is_hidden_but_for_the_last():
    """On one stage, whose last backward pass has nothing to hide behind."""
    plan, rate = Plan(8, 1, 1, 1, ep=8), 2e11
    graph = task_graph(HIDDEN, H100, plan)
    found = fluid.run(graph, star(8, rate, graph.demand_bytes())).makespan_ps
    computed = np.bincount(graph.device[graph.kind == Kind.COMPUTE], graph.work[graph.kind == Kind.COMPUTE]).max()
    free = fluid.run(graph, star(8, 1e18, graph.demand_bytes())).makespan_ps
    assert computed == pytest.approx(free, rel=1e-6)
    sends = (graph.part == Part.EXCHANGE) & (graph.kind == Kind.TRANSFER) & (graph.device == 0)
    reduced = graph.work[graph.kind == Kind.ALL_REDUCE].sum() * 2 * 7 / 8 / rate * 1e12
    last = graph.work[sends].sum() / 16 / rate * 1e12
    assert found == pytest.approx(computed + reduced + last, rel=1e-3)


def test_prediction_and_simulation_agree_on_every_fabric(fabric_spec, invented_timing):
    chiplet = ChipletSpec(ports=8, flit_bytes=256, buffer_flits=127, reach_m=40.0)
    spec = StudySpec("overlap", H100, HIDDEN, (fabric_spec,), (16,), chiplet, PlanSpec(tp=1, pp=2, ep=4, virtual_stages=1))
    row, _ = cell.simulate(cell.Job(spec, 16, fabric_of(fabric_spec, chiplet, invented_timing), "fluid", ""))
    assert row["fits"], row["reason"]
    assert row["predicted_total_s"] == pytest.approx(row["iteration_s"], rel=0.1)


def test_there_is_nothing_to_hide_without_experts():
    with pytest.raises(SpecError, match=r"JobSpec.overlap_experts must be false without experts, not True"):
        JobSpec(ModelSpec(8, 512, 8, 256, 1024), batch=64, overlap_experts=True)
