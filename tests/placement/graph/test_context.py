"""Context parallelism in the task graph: ranks that share a sequence, keys and values round their ring."""

from dataclasses import replace

import numpy as np
import pytest

from lightfabric.flows.experiment import cell
from lightfabric.model.fluid import engine as fluid
from lightfabric.model.fluid.network import star
from lightfabric.model.spec import ACCELERATORS, ChipletSpec, JobSpec, ModelSpec, PlanSpec, StudySpec
from lightfabric.model.task import Kind, Part
from lightfabric.placement.cost.layer import optimiser_seconds, pass_seconds
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.graph.iteration import task_graph
from lightfabric.placement.job.kind import workload
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import case
from lightfabric.placement.workload.preset import MODELS
from lightfabric.placement.workload.volume import volume

H100 = ACCELERATORS["h100"]
MODEL = ModelSpec(
    layers=8, hidden=512, heads=8, sequence=4096, vocabulary=1024, kv_heads=4, biases="none", positions="rotary"
)
JOB = JobSpec(MODEL, batch=16)
MIXTURE = JobSpec(replace(MODEL, experts=8, experts_per_token=2, expert_ffn=512, dense_layers=2), batch=16)
RATES = Rates(1e11, 1e11, 1e11)
PLANS = [
    (JOB, Plan(1, 1, 1, 1, cp=4)), (JOB, Plan(2, 2, 2, 1, cp=4)), (JOB, Plan(2, 8, 1, 2, "full", cp=2)),
    (JOB, Plan(1, 1, 4, 1, cp=2, virtual_stages=2)), (MIXTURE, Plan(2, 2, 2, 1, cp=4, ep=4)),
    (MIXTURE, Plan(4, 1, 2, 2, cp=2, ep=4)), (MIXTURE, Plan(2, 1, 2, 1, cp=4, ep=8, zero=1)),
    (MIXTURE, Plan(2, 1, 2, 1, cp=4)),
]  # fmt: skip


def test_ranks_lie_as_the_plan_says():
    plan = Plan(dp=3, tp=2, pp=5, micro_batch=1, cp=4)
    found = plan.by_replica
    for d, p, c, t in np.ndindex(3, 5, 4, 2):
        assert found[d * 4 + c, p, t] == ((d * 5 + p) * 4 + c) * 2 + t


@pytest.mark.parametrize(("job", "plan"), PLANS)
def test_the_graph_sends_what_traffic_says(job, plan):
    graph, flows = task_graph(job, H100, plan), workload(job, H100).traffic(plan)
    graph.verify()
    moved = {}
    for source, destination, size in zip(flows.source, flows.destination, flows.size_bytes, strict=True):
        moved[source, destination] = moved.get((source, destination), 0) + int(size)
    assert graph.demand_bytes() == pytest.approx(moved, abs=2)


@pytest.mark.parametrize(("job", "plan"), PLANS[:4])
def test_keys_and_values_go_to_all_who_share_a_sequence_and_gradients_back(job, plan):
    """Of a token 2 x 4 heads x 64 values of 2 bytes over tp, a head at least: twice forward and back again, once back."""
    graph = task_graph(job, H100, plan)
    moves = (graph.kind == Kind.TRANSFER) & (graph.part == Part.CONTEXT)
    coordinate = np.stack(np.unravel_index(np.arange(plan.gpus), (plan.dp, plan.pp, plan.cp, plan.tp)))
    way = (coordinate[:, graph.peer[moves]] - coordinate[:, graph.device[moves]]) % np.array(
        [[999], [999], [plan.cp], [999]]
    )
    assert not way[[0, 1, 3]].any()
    heads = max(4 // plan.tp, 1)
    each = 4096 // plan.cp * 2 * heads * 64 * 2 * (plan.cp - 1) * 8 // plan.pp * (16 // plan.dp)
    gathers = 3 if plan.recompute == "full" else 2
    for step, times in ((1, gathers), (plan.cp - 1, 1)) if plan.cp > 2 else ((1, gathers + 1),):
        assert graph.work[moves][way[2] == step].sum() == plan.gpus * times * each


def test_an_iteration_alone_is_its_passes_and_three_rounds_of_keys():
    plan, rate = Plan(1, 1, 1, 16, cp=4), 50e9
    graph = task_graph(JOB, H100, plan)
    one = case(JOB, plan, H100)
    passes = sum(float(each) for each in pass_seconds(one, 0, 0)) + float(optimiser_seconds(one, 0))
    gradients = 2 * 3 / 4 * float(volume(JOB, plan).gradient_bytes(0)[0])
    keys = 3 * 8 * 3 * (16 * 4096 // 4) * 2 * 4 * 64 * 2
    found = fluid.run(graph, star(4, rate, graph.demand_bytes())).makespan_ps / 1e12
    assert found == pytest.approx(passes + (gradients + keys) / rate, rel=1e-6)


def test_calls_count_the_rounds_of_keys():
    (kind,) = workload(JOB, H100).calls(Plan(1, 1, 1, 1, cp=4))
    found = {call.collective: call for call in kind.calls if call.axis == "context"}
    each = 1024 * 2 * 4 * 64 * 2
    assert found["all_gather"][2:] == (2 * 8 * 16, 2 * 8 * 16 * each)
    assert found["reduce_scatter"][2:] == (8 * 16, 8 * 16 * 4 * each)


@pytest.mark.parametrize(("job", "given"), [(JOB, {"tp": 2}), (MIXTURE, {"ep": 4, "pp": 2})], ids=["dense", "experts"])
def test_prediction_and_simulation_agree_on_every_fabric(job, given, fabric_spec, invented_timing):
    chiplet = ChipletSpec(ports=8, flit_bytes=256, buffer_flits=127, reach_m=40.0)
    spec = StudySpec("context", H100, job, (fabric_spec,), (16,), chiplet, PlanSpec(cp=4, **given))
    row, _ = cell.simulate(cell.Job(spec, 16, fabric_of(fabric_spec, chiplet, invented_timing), "fluid", ""))
    assert row["fits"], row["reason"]
    assert row["cp"] == 4
    assert all(row[name] == value for name, value in given.items())
    assert row["predicted_total_s"] == pytest.approx(row["iteration_s"], rel=0.1)


def test_long_sequences_fit_only_where_ranks_share_them():
    job = JobSpec(replace(MODELS["llama3-8b"], sequence=1 << 18), batch=8)
    needed = [workload(job, H100).prediction(Plan(1, 8, 1, 1, "full", cp=cp), RATES).memory for cp in (1, 8)]
    assert needed[0].activations > 7.9 * needed[1].activations
