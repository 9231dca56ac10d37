"""Calls of collectives and their bytes: those counted in a published run, and those of task graphs, task by task."""

from dataclasses import replace
from math import ceil, lcm

import numpy as np
import pytest

from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec, NetworkJobSpec, SpecError
from lightfabric.model.task import Kind
from lightfabric.placement.graph.iteration import task_graph
from lightfabric.placement.job.data_parallel import DataParallel
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.call import transformer_calls
from lightfabric.placement.workload.preset import MODELS

H100 = ACCELERATORS["h100"]
DENSE = ModelSpec(layers=8, hidden=256, heads=8, sequence=128, vocabulary=1024)
UNTIED = replace(DENSE, tied=False)
MOE = replace(DENSE, kv_heads=4, gated=True, experts=8, experts_per_token=2)


def of_rank(job, plan):
    """``[rank][axis, collective]``: calls and bytes."""
    found = {}
    for kind in transformer_calls(job, plan):
        for rank in kind.ranks:
            assert rank not in found
            found[rank] = {(call.axis, call.collective): (call.operations, call.size_bytes) for call in kind.calls}
    assert sorted(found) == list(range(plan.gpus))
    return found


def test_bytes_are_those_that_nccl_counted_in_ccl_bench():
    """Megatron-LM, Llama-3.1-8B on 8 A100: rank 0's bytes of a step, to the digits published [CCL-Bench 2026].

    Batch 32 x 1024, dp 4, tp 2, all recomputed, no sequence parallelism, layer norm, the distributed optimiser.
    """
    job = JobSpec(replace(MODELS["llama3-8b"], sequence=1024, norm="layer"), batch=32, sequence_parallel=False)
    calls = of_rank(job, Plan(4, 2, 1, 8, "full", zero=1))[0]
    gigabytes = {
        name: f"{sum(size for (_, each), (_, size) in calls.items() if each == name) / 1e9:.6g}"
        for name in ("all_reduce", "all_gather", "reduce_scatter")
    }
    assert gigabytes == {"all_reduce": "13.0192", "all_gather": "2.00777", "reduce_scatter": "16.0621"}
    activations = 8 * 1024 * 4096 * 2
    loss = 3 * 8 * 1024 * 4
    assert calls["tensor", "all_reduce"] == (6 * 32 + 2 + 3, 194 * activations + loss)


def counted(graph, plan):
    """Operations and bytes of every rank by its tasks: of all-reduces over tensor and data, of messages by partner."""
    found = [{} for _ in range(plan.gpus)]

    def add(rank, key, operations, size):
        before = found[rank].get(key, (0, 0))
        found[rank][key] = before[0] + operations, before[1] + size

    for kind, device, work, peer, operations in zip(
        *(column.tolist() for column in (graph.kind, graph.device, graph.work, graph.peer, graph.operations)), strict=True
    ):
        if kind == Kind.ALL_REDUCE:
            members = graph.group(peer).tolist()
            stages = {rank // plan.tp % plan.pp for rank in members}
            axis = "tensor" if len(members) == plan.tp and members[-1] - members[0] == plan.tp - 1 else "data"
            assert len(stages) == 1
            for rank in members:
                add(rank, axis, operations, work)
        elif kind == Kind.TRANSFER:
            beside = (device - peer) % (plan.pp * plan.tp) == 0
            add(device, "expert" if beside else "send", operations, work)
            if not beside:
                add(peer, "recv", operations, work)
    return found


PLANS = [
    Plan(2, 2, 1, 2), Plan(2, 2, 2, 1, "full"), Plan(1, 2, 4, 2, "selective"), Plan(2, 2, 2, 1, virtual_stages=2),
    Plan(2, 4, 4, 1, first_layers=1, last_layers=3), Plan(3, 2, 2, 1), Plan(4, 2, 1, 2, "full"),
]  # fmt: skip


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("cut", [False, True])
def test_calls_of_each_rank_are_those_of_the_task_graph(plan, cut):
    """Beside those of layers the ends call for themselves: embedding, output layer and loss, 128 tokens a sequence."""
    job = JobSpec(UNTIED, batch=24, sequence_parallel=cut)
    graph, calls = counted(task_graph(job, H100, plan), plan), of_rank(job, plan)
    m, whole = 24 // plan.dp // plan.micro_batch, plan.micro_batch * 128 * 256 * 2
    for rank, found in calls.items():
        stage = rank // plan.tp % plan.pp
        ends = (stage == 0) + (stage == plan.pp - 1)
        reduces, size = graph[rank]["tensor"]
        sums = reduces + m * ends
        loss = 3 * m * (stage == plan.pp - 1)
        extra = loss * plan.micro_batch * 128 * 4
        assert size == reduces * whole
        for name in ("send", "recv"):
            assert found.get(("pipeline", name)) == graph[rank].get(name)
        if cut:
            layers = reduces // m // (6 if plan.recompute == "full" else 4)
            again = m * (2 * layers + (stage == plan.pp - 1))
            assert found["tensor", "reduce_scatter"] == (sums, sums * whole)
            assert found["tensor", "all_gather"] == (sums + again, (sums + again) * whole // plan.tp)
            # Layer norms and biases after sums of attention and feed-forward, in fp32.
            norms = layers * (2 * 2 * 256 + 2 * 256) + (stage == plan.pp - 1) * 2 * 256
            assert found["tensor", "all_reduce"] == (1 + loss, 4 * norms + extra)
        else:
            received = graph[rank].get("recv", (0, 0))
            assert found["tensor", "all_reduce"] == (sums + loss, sums * whole + extra)
            assert found.get(("tensor", "all_gather"), (0, 0)) == received
        if plan.dp > 1:
            last = m * (stage == plan.pp - 1)
            count, size = graph[rank]["data"]
            assert found["data", "all_reduce"] == (count + last, size + 8 * last)


@pytest.mark.parametrize("skew", [0.0, 1.0])
@pytest.mark.parametrize(
    "plan",
    [Plan(4, 1, 1, 1, ep=4), Plan(8, 1, 2, 1, "full", ep=4, expert_group=2), Plan(8, 2, 2, 1, ep=8, expert_group=4),
     Plan(4, 2, 2, 1, ep=2, virtual_stages=2)],
)  # fmt: skip
def test_tokens_that_each_rank_sends_to_experts_are_those_of_the_task_graph(plan, skew):
    job = JobSpec(MOE, batch=16, expert_skew=skew, dispatch_bytes=1)
    graph, calls = counted(task_graph(job, H100, plan), plan), of_rank(job, plan)
    trips = 16 // plan.dp * 8 // plan.pp * (6 if plan.recompute == "full" else 4)
    for rank, found in calls.items():
        count, size = found["expert", "all_to_all"]
        assert size == graph[rank]["expert"][1]
        assert count == trips * (2 if plan.expert_group > 1 else 1)
    sizes = {found["expert", "all_to_all"] for found in calls.values()}
    assert len(sizes) == (1 if not skew else plan.ep)


def test_the_distributed_optimiser_scatters_gradients_and_gathers_weights_of_its_part():
    dense, zero = (of_rank(JobSpec(UNTIED, batch=24), Plan(3, 2, 2, 1, zero=zero)) for zero in (0, 1))
    for rank in range(12):
        last = rank // 2 % 2 * (24 // 3)
        parameters = (dense[rank]["data", "all_reduce"][1] - 8 * last) // 4
        padded = ceil(parameters / lcm(3, 128)) * lcm(3, 128)
        assert zero[rank]["data", "reduce_scatter"] == (1, 4 * padded)
        assert zero[rank]["data", "all_gather"] == (1, 2 * padded // 3)
        assert zero[rank].get(("data", "all_reduce"), (0, 0)) == (last, 8 * last)


def test_both_copies_of_an_embedding_sum_their_gradients():
    calls = of_rank(JobSpec(DENSE, batch=16), Plan(1, 2, 4, 1))
    held = {rank: found.get(("pipeline", "all_reduce")) for rank, found in calls.items()}
    assert held == {rank: (1, 1024 // 2 * 256 * 4) if rank in (0, 1, 6, 7) else None for rank in range(8)}


def test_a_large_plan_has_a_kind_of_ranks_for_each_end_and_one_between():
    gpt3 = JobSpec(MODELS["gpt3-175b"], batch=1536)
    kinds = transformer_calls(gpt3, Plan(16, 8, 8, 1, "full"))
    assert [len(kind.ranks) for kind in kinds] == [128, 768, 128]
    assert [kind.ranks[0] for kind in kinds] == [0, 8, 56]


def test_one_gpu_calls_nothing():
    (kind,) = transformer_calls(JobSpec(DENSE, batch=16), Plan(1, 1, 1, 1))
    assert kind == ([0], ())


def test_plans_without_a_task_graph_have_no_calls():
    with pytest.raises(SpecError) as caught:
        transformer_calls(JobSpec(DENSE, batch=16), Plan(2, 1, 1, 1, zero=3))
    assert str(caught.value) == "Plan.zero must be 0 or 1, not 3"


@pytest.mark.parametrize("network", ["dlrm", "vgg-16"])
def test_calls_of_replicas_and_tables_are_those_of_the_task_graph(network):
    job = (
        NetworkJobSpec(network, 512, table_rows=(50, 40, 30), table_width=16)
        if network == "dlrm"
        else NetworkJobSpec(network, 512)
    )
    asked, plan = DataParallel(job, H100), Plan(8, 1, 1, 32)
    graph = asked.task_graph(plan)
    sent = graph.kind == Kind.TRANSFER
    moved = np.bincount(graph.device[sent], graph.work[sent], 8)
    reduced = graph.work[graph.kind == Kind.ALL_REDUCE]
    ranks = {rank: kind.calls for kind in asked.calls(plan) for rank in kind.ranks}
    for rank in range(8):
        by_name = {call.collective: call[2:] for call in ranks[rank]}
        assert by_name["all_reduce"] == (len(reduced), reduced.sum())
        assert by_name.get("all_to_all", (0, 0)) == ((4, moved[rank]) if network == "dlrm" else (0, 0))
