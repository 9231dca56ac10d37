"""The task graph of an iteration: well-formed, its totals the workload's, its schedule 1F1B's."""

import subprocess
import sys
from dataclasses import replace
from time import perf_counter

import networkx as nx
import numpy as np
import pytest

from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.cost.layer import optimiser_seconds, pass_seconds
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.graph.iteration import backward_steps, forward_steps, pass_steps, task_graph
from lightfabric.placement.mapping.traffic import traffic
from lightfabric.placement.plan import Plan
from lightfabric.placement.search.search import prediction
from lightfabric.placement.workload.case import case
from lightfabric.placement.workload.volume import ring_bytes, volume

H100 = ACCELERATORS["h100"]
JOB = JobSpec(ModelSpec(layers=8, hidden=256, heads=8, sequence=128, vocabulary=1024), batch=16)
PLANS = [
    Plan(1, 1, 1, 1), Plan(2, 1, 1, 2), Plan(1, 4, 1, 1), Plan(1, 1, 4, 1), Plan(2, 2, 2, 2), Plan(1, 2, 8, 4, "full"),
    Plan(4, 2, 4, 1, "selective"), Plan(2, 4, 8, 8, "full"), Plan(2, 2, 2, 1, virtual_stages=4),
    Plan(1, 1, 4, 2, virtual_stages=2), Plan(2, 1, 4, 1, zero=1),
    Plan(2, 2, 4, 1, first_layers=3, last_layers=1), Plan(1, 2, 2, 1, first_layers=5, last_layers=3), Plan(2, 1, 3, 1),
]  # fmt: skip


def schedule(graph, transfer_ps=0):
    """Finish of every task by a naive list scheduler: all-reduces take no time, transfers ``transfer_ps``."""
    waiting = np.bincount(graph.successors, minlength=len(graph)).tolist()
    ready_ps, finish_ps, free_ps = [0] * len(graph), [0] * len(graph), [0] * graph.devices
    ready = [task for task in range(len(graph)) if waiting[task] == 0]
    while ready:
        task = min(ready, key=lambda t: (ready_ps[t], t))
        ready.remove(task)
        finish_ps[task] = ready_ps[task] + (transfer_ps if graph.kind[task] == Kind.TRANSFER else 0)
        if graph.kind[task] == Kind.COMPUTE:
            device = graph.device[task]
            finish_ps[task] = free_ps[device] = max(ready_ps[task], free_ps[device]) + int(graph.work[task])
        for after in graph.successors[graph.successor_start[task] : graph.successor_start[task + 1]].tolist():
            ready_ps[after] = max(ready_ps[after], finish_ps[task])
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)
    return finish_ps


EXPERTS = JobSpec(
    ModelSpec(
        layers=8, hidden=256, heads=8, sequence=128, vocabulary=1024, kv_heads=4, gated=True, experts=8, experts_per_token=2,
    ), batch=16,
)  # fmt: skip
EXPERT_PLANS = [
    Plan(4, 1, 1, 1, ep=4), Plan(8, 2, 2, 1, ep=4), Plan(4, 2, 2, 1, ep=2, virtual_stages=2, zero=1),
    Plan(8, 1, 2, 1, "full", ep=2), Plan(8, 2, 2, 1, ep=8, expert_group=4), Plan(8, 1, 2, 1, "full", ep=4, expert_group=2),
]  # fmt: skip


@pytest.mark.parametrize("plan", EXPERT_PLANS)
def test_tokens_go_to_their_experts_and_back(plan):
    """Two all-to-alls per layer and pass, four if the forward pass is run again [Lepikhin 2020]; bytes as in the traffic.

    Tokens go in one byte a value, results come back in two.
    """
    job = replace(EXPERTS, dispatch_bytes=1)
    graph = task_graph(job, H100, plan)
    graph.verify()
    exchanges = graph.kind == Kind.TRANSFER
    exchanges &= np.abs(graph.device - graph.peer) % (plan.pp * plan.tp) == 0
    passes = volume(job, plan).micro_batches * (6 if plan.recompute == "full" else 4) * job.model.layers
    sent = volume(job, plan)
    both = int(sent.dispatched_bytes.sum() + sent.combined_bytes.sum())
    assert graph.work[exchanges].sum() == passes // 2 * (plan.gpus // plan.ep // plan.pp) * both
    flows, summed = traffic(job, plan), {}
    for pair, size in zip(
        zip(flows.source.tolist(), flows.destination.tolist(), strict=True), flows.size_bytes, strict=True
    ):
        summed[pair] = summed.get(pair, 0) + int(size)
    assert summed == graph.demand_bytes()


@pytest.mark.parametrize("plan", EXPERT_PLANS)
def test_tokens_of_popular_experts_go_there_first_and_then_back(plan):
    """Two phases per pass: what a rank gets of the first it sends in the second; together the traffic."""
    job = replace(EXPERTS, expert_skew=1.0)
    graph = task_graph(job, H100, plan)
    graph.verify()
    flows = traffic(job, plan)
    keys = zip(flows.source.tolist(), flows.destination.tolist(), strict=True)
    summed = {}
    for pair, size in zip(keys, flows.size_bytes.tolist(), strict=True):
        summed[pair] = summed.get(pair, 0) + size
    assert summed == graph.demand_bytes()
    barriers = np.count_nonzero(graph.kind == Kind.BARRIER)
    assert barriers == 2 * plan.gpus // plan.ep * 2 * volume(job, plan).micro_batches * plan.virtual_stages
    second = plan.pp * plan.tp  # of the ep group of rank 0, and of its group there
    sent = graph.kind == Kind.TRANSFER
    to_first = sent & (graph.device == second) & (graph.peer == 0)
    from_first = sent & (graph.device == 0) & (graph.peer == second)
    assert sorted(graph.work[to_first].tolist()) == sorted(graph.work[from_first].tolist())
    assert len(set(graph.work[to_first].tolist())) > 1


@pytest.mark.parametrize("plan", EXPERT_PLANS)
def test_an_exchange_ends_when_all_tokens_are_there(plan):
    graph = task_graph(EXPERTS, H100, plan)
    before = np.repeat(np.arange(len(graph)), np.diff(graph.successor_start))
    ends = graph.kind == Kind.BARRIER
    assert ends.sum() == plan.gpus // plan.ep * 2 * volume(EXPERTS, plan).micro_batches * plan.virtual_stages
    arrivals = np.bincount(graph.successors, minlength=len(graph))[ends]
    peers, beside = plan.ep // plan.expert_group - 1, plan.expert_group - 1
    assert set(arrivals.tolist()) == {plan.ep * (peers + beside)}
    assert (np.diff(graph.successor_start)[ends] > 0).all()
    assert (graph.kind[before[np.isin(graph.successors, np.flatnonzero(ends))]] == Kind.TRANSFER).all()


@pytest.mark.parametrize("plan", PLANS)
def test_the_graph_is_well_formed(plan):
    graph = task_graph(JOB, H100, plan)
    graph.verify()
    before = np.repeat(np.arange(len(graph)), np.diff(graph.successor_start))
    assert nx.is_directed_acyclic_graph(nx.DiGraph(np.stack([before, graph.successors], axis=1).tolist()))
    assert graph.devices == plan.gpus


@pytest.mark.parametrize("plan", PLANS)
def test_totals_are_those_of_the_workload(plan):
    graph = task_graph(JOB, H100, plan)
    count, reduce_ = volume(JOB, plan).micro_batches, graph.kind == Kind.ALL_REDUCE
    data = reduce_ & (graph.peer >= plan.dp * plan.pp)
    tensor = reduce_ & ~data
    reduces = 2 * JOB.model.layers * (3 if plan.recompute == "full" else 2) * (plan.tp > 1)
    assert graph.operations[tensor].sum() == plan.dp * count * reduces
    assert graph.work[tensor].sum() == plan.dp * count * reduces * volume(JOB, plan).reduce_bytes
    moved = 2 * plan.dp * (plan.pp * plan.virtual_stages - 1) * plan.tp * count * volume(JOB, plan).transfer_bytes
    assert graph.work[graph.kind == Kind.TRANSFER].sum() == moved
    assert graph.work[data].sum() == plan.tp * sum(volume(JOB, plan).gradient_bytes(np.arange(plan.pp))[0])


@pytest.mark.parametrize("plan", PLANS)
def test_every_device_computes_its_micro_batches_and_the_optimiser(plan):
    graph = task_graph(JOB, H100, plan)
    compute = graph.kind == Kind.COMPUTE
    busy_ps = np.bincount(graph.device[compute], graph.work[compute], plan.gpus).reshape(plan.dp, plan.pp, plan.tp)
    one = case(JOB, plan, H100)
    for stage in range(plan.pp):
        passes = sum(sum(pass_seconds(one, stage, chunk)) for chunk in range(plan.virtual_stages))
        seconds = volume(JOB, plan).micro_batches * passes + optimiser_seconds(one, stage)
        assert busy_ps[:, stage] == pytest.approx(seconds * 1e12, rel=1e-6)


@pytest.mark.parametrize(("stages", "count"), [(1, 1), (1, 5), (4, 1), (4, 2), (4, 4), (4, 9), (8, 3)])
def test_the_steps_of_a_stage_are_a_permutation_in_1f1b_order(stages, count):
    forward, backward = forward_steps(stages, count), backward_steps(stages, count)
    assert (np.sort(np.hstack([forward, backward]), axis=1) == np.arange(2 * count)).all()
    assert (forward < backward).all()
    for stage in range(stages):
        events = sorted([(step, 1) for step in forward[stage]] + [(step, -1) for step in backward[stage]])
        assert max(np.cumsum([change for _, change in events])) == min(stages - stage, count)


@pytest.mark.parametrize("pp", [1, 2, 4, 8])
@pytest.mark.parametrize("micro_batch", [1, 4])
@pytest.mark.parametrize("order", ["1f1b", "gpipe"])
def test_the_bubble_is_the_closed_form(pp, micro_batch, order):
    """Makespan (m + p - 1) (forward + backward) when all stages are alike and nothing else takes time."""
    plan = Plan(1, 2, pp, micro_batch)
    graph = task_graph(JOB, H100, plan, order)
    graph.verify()
    count = volume(JOB, plan).micro_batches
    passes = graph.kind == Kind.COMPUTE
    passes[-plan.gpus :] = False
    work = np.where(passes, np.where(np.isin(np.arange(len(graph)), _forward_tasks(plan, count, order)), 100, 200), 0)
    assert max(schedule(replace(graph, work=work))) == (count + pp - 1) * 300


def _forward_tasks(plan, count, order):
    tasks = np.arange(plan.gpus * 2 * count).reshape(plan.dp, plan.pp, 2 * count, plan.tp)
    return tasks[:, np.arange(plan.pp)[:, None], pass_steps(order, plan.pp, count)[0]]


@pytest.mark.parametrize(("stages", "virtual_stages", "groups"), [(2, 2, 1), (2, 2, 3), (4, 2, 2), (4, 4, 1), (8, 3, 2)])
def test_interleaved_steps_are_a_permutation_and_the_bubble_shrinks_by_the_chunks(stages, virtual_stages, groups):
    """Makespan m (f + b) + (p - 1) (f + b) / v if a stage's passes take f and b [Narayanan 2021, 2.2.2]."""
    count = stages * groups
    forward, backward = pass_steps("1f1b", stages, count, virtual_stages)
    for stage in range(stages):
        steps = np.concatenate([forward[stage::stages].ravel(), backward[stage::stages].ravel()])
        assert np.array_equal(np.sort(steps), np.arange(2 * count * virtual_stages))
    job = replace(JOB, model=replace(JOB.model, layers=48), batch=count)
    plan = Plan(1, 1, stages, 1, virtual_stages=virtual_stages)
    graph = task_graph(job, H100, plan)
    graph.verify()
    order = np.zeros((stages, 2 * count * virtual_stages), np.int64)
    for steps, work in ((forward, 100), (backward, 200)):
        order[np.arange(len(steps))[:, None] % stages, steps] = work
    work = np.zeros(len(graph), np.int64)
    work[: order.size] = order.ravel()
    assert max(schedule(replace(graph, work=work))) == count * virtual_stages * 300 + (stages - 1) * 300


@pytest.mark.parametrize(("order", "count"), [("gpipe", 4), ("1f1b", 3)])
def test_chunks_need_1f1b_and_groups_of_micro_batches(order, count):
    with pytest.raises(
        ValueError, match=r"Plan.virtual_stages must be 1 in GPipe or without micro-batches in groups, not 2"
    ):
        pass_steps(order, 2, count, 2)


CLOSE = [
    Plan(1, 1, 2, 1), Plan(1, 1, 4, 1), Plan(1, 1, 8, 1), Plan(1, 1, 4, 2), Plan(2, 1, 4, 1),
    Plan(1, 1, 2, 1, virtual_stages=2), Plan(1, 1, 4, 1, virtual_stages=2), Plan(1, 1, 2, 1, virtual_stages=4),
    Plan(1, 1, 4, 1, first_layers=3, last_layers=1), Plan(1, 1, 2, 1, first_layers=5, last_layers=3), Plan(1, 1, 3, 1),
    Plan(1, 1, 4, 1, first_layers=1, last_layers=3),
]  # fmt: skip


@pytest.mark.parametrize("plan", CLOSE)
def test_the_predicted_iteration_is_close_to_the_schedule(plan):
    """With transfers of a fifth of a pass: the closed form of the steady state is within 5 %."""
    graph = task_graph(JOB, H100, plan)
    transfer_ps = int(0.2e12 * pass_seconds(case(JOB, plan, H100), 0, 0)[0])
    rate = volume(JOB, plan).transfer_bytes / (transfer_ps / 1e12)
    predicted = prediction(JOB, H100, plan, Rates(1e30, rate, 1e30)).total
    assert max(schedule(graph, transfer_ps)) / 1e12 == pytest.approx(predicted, rel=0.05)


def test_a_stage_waits_for_its_gradients_before_the_optimiser():
    plan = Plan(2, 1, 2, 1)
    graph = task_graph(JOB, H100, plan)
    optimiser = np.arange(len(graph) - plan.gpus, len(graph))
    before = np.repeat(np.arange(len(graph)), np.diff(graph.successor_start))
    for task in optimiser:
        (waits_for,) = before[graph.successors == task]
        assert graph.kind[waits_for] == Kind.ALL_REDUCE
        assert graph.device[task] in graph.group(graph.peer[waits_for])


GPT3 = JobSpec(ModelSpec(layers=96, hidden=12288, heads=96, sequence=2048, vocabulary=51200), batch=1536)


@pytest.mark.parametrize(
    "plan", [Plan(1, 8, 1, 1), Plan(8, 8, 16, 1), Plan(16, 8, 8, 1, "full"), Plan(128, 8, 16, 1)], ids=lambda plan: plan.gpus
)
@pytest.mark.parametrize("order", ["1f1b", "gpipe"])
def test_gpt3_moves_the_bytes_of_the_workload_between_every_two_ranks(plan, order):
    """All pairs of ranks, exactly: 8 to 16 384 ranks, one full iteration, in seconds."""
    began = perf_counter()
    graph = task_graph(GPT3, H100, plan, order)
    graph.verify()
    assert perf_counter() - began < 10
    assert graph.demand_bytes() == dict(_pairs(GPT3, plan))


def _pairs(job, plan):
    """Bytes from each rank to its neighbours, by the closed forms of ``workload``."""
    count = volume(job, plan).micro_batches
    reduces = 2 * job.model.layers // plan.pp * (3 if plan.recompute == "full" else 2)
    tensor = round(ring_bytes(count * reduces * volume(job, plan).reduce_bytes, plan.tp))
    data = [round(ring_bytes(int(volume(job, plan).gradient_bytes(stage)[0]), plan.dp)) for stage in range(plan.pp)]
    for d, p, t in np.ndindex(plan.dp, plan.pp, plan.tp):
        here = (d * plan.pp + p) * plan.tp + t
        if plan.tp > 1:
            yield (here, here - t + (t + 1) % plan.tp), tensor
        if plan.dp > 1:
            yield (here, (((d + 1) % plan.dp) * plan.pp + p) * plan.tp + t), data[p]
        for other in {p - 1, p + 1} & set(range(plan.pp)):
            yield (here, here + (other - p) * plan.tp), count * volume(job, plan).transfer_bytes


def test_gpt3_on_1024_ranks_fits_2_gib():
    code = """if True:
        import resource
        from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec
        from lightfabric.placement.graph.iteration import task_graph
        from lightfabric.placement.plan import Plan
        job = JobSpec(ModelSpec(layers=96, hidden=12288, heads=96, sequence=2048, vocabulary=51200), batch=1536)
        task_graph(job, ACCELERATORS["h100"], Plan(8, 8, 16, 1)).verify()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 2 << 20


def _graph_of_edges(tasks, edges):
    """Computations of one device."""
    edges = np.array(sorted(edges), np.int32).reshape(-1, 2)
    return TaskGraph(
        1,
        kind=np.zeros(tasks, np.int8),
        device=np.zeros(tasks, np.int32),
        work=np.ones(tasks, np.int64),
        peer=np.full(tasks, -1, np.int32),
        operations=np.ones(tasks, np.int32),
        successor_start=np.searchsorted(edges[:, 0], np.arange(tasks + 1)),
        successors=edges[:, 1],
        member_start=np.zeros(1, np.int64),
        members=np.zeros(0, np.int32),
    )


@pytest.mark.parametrize("seed", range(60))
def test_a_graph_with_a_cycle_is_refused_and_a_task_on_it_named(seed):
    random = np.random.default_rng(seed)
    tasks = int(random.integers(1, 12))
    edges = random.integers(0, tasks, (int(random.integers(0, tasks + 3)), 2)).tolist()
    oracle = nx.DiGraph(edges)
    if nx.is_directed_acyclic_graph(oracle):
        _graph_of_edges(tasks, edges).verify()
        return
    with pytest.raises(ValueError, match=r"^TaskGraph\.successors must form no cycle, not one through task \d+$") as caught:
        _graph_of_edges(tasks, edges).verify()
    named = int(str(caught.value).split()[-1])
    assert named in {task for cycle in nx.simple_cycles(oracle) for task in cycle}


def test_a_chain_takes_no_longer_to_verify_than_its_length():
    begin = perf_counter()
    _graph_of_edges(300_000, [(task, task + 1) for task in range(299_999)]).verify()
    assert perf_counter() - begin < 10
