"""Decoding: sizes to the byte, the steady state of the pipeline, published bounds, prediction against simulation."""

from dataclasses import replace

import numpy as np
import pytest

from lightfabric.flows.experiment import cell
from lightfabric.flows.published import expert
from lightfabric.model.fluid import engine as fluid
from lightfabric.model.fluid.network import star
from lightfabric.model.spec import (
    ACCELERATORS,
    ChipletSpec,
    DecodeJobSpec,
    ElectricalSwitchSpec,
    ModelSpec,
    PlanSpec,
    SpecError,
    StudySpec,
)
from lightfabric.placement.cost.output_token import output_token
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.graph.next_token import steps
from lightfabric.placement.job.decode import WAIT_SECONDS
from lightfabric.placement.job.kind import workload
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.memory import DoesNotFit
from lightfabric.placement.workload.preset import MODELS

H100 = ACCELERATORS["h100"]
MIXTURE = ModelSpec(8, 512, 8, 128, 1024, positions="rotary", experts=8, experts_per_token=2, expert_ffn=512, dense_layers=2)
JOB = DecodeJobSpec(MIXTURE, 48, phase="decode", context=500, output_tokens=9)
PLANS = [
    Plan(16, 1, 1, 3, ep=8), Plan(2, 2, 4, 6, ep=2), Plan(1, 8, 2, 24), Plan(4, 1, 4, 3, ep=4, expert_group=2),
    Plan(4, 2, 2, 6), Plan(2, 1, 8, 3, ep=2),
]  # fmt: skip
QWEN_72B = ModelSpec(80, 8192, 64, 4096, 152064, ffn=29568, kv_heads=8, gated=True, positions="rotary", biases="qkv")


def decode(model, batch=1, context=1, **given):
    return DecodeJobSpec(model, batch, phase="decode", context=context, **given)


@pytest.mark.parametrize(
    ("model", "kilobytes"), [(MODELS["deepseek-v3"], 70.272), (QWEN_72B, 327.680), (MODELS["llama3-405b"], 516.096)]
)
def test_caches_are_those_that_were_published(model, kilobytes):
    """Of a token in 16 bits [DeepSeek-AI, "Insights into DeepSeek-V3" (ISCA 2025), table 1]."""
    assert output_token(decode(model), Plan(1, 1, 1, 1)).cache_bytes(0) == 1000 * kilobytes


def test_heads_of_keys_are_cut_over_tensor_ranks_until_each_has_one_and_latents_are_not_cut():
    def cached(name, tp):
        return output_token(decode(MODELS[name]), Plan(1, tp, 1, 1)).cached_bytes

    assert [4096 // cached("llama3-70b", tp) for tp in (1, 2, 4, 8, 16)] == [1, 2, 4, 8, 8]
    assert cached("deepseek-v3", 1) == cached("deepseek-v3", 8) == 2 * (512 + 64)


def test_a_token_of_a_sequence_alone_takes_little_longer_than_to_read_the_weights():
    """Llama 3 70B in 16 bits on 8 H100, 141 GB at 8 x 3.35 TB/s; what no token can do without but the embedding."""
    job = workload(decode(MODELS["llama3-70b"]), H100)
    predicted = job.prediction(Plan(1, 8, 1, 1), Rates(450e9, 450e9, 450e9)).total
    read = (2 * 70.55e9 - 2 * 128256 * 8192) / (8 * 3350e9)
    assert job.figures(Plan(1, 8, 1, 1), predicted, 1e12)["output_token_bound_s"] == pytest.approx(read, rel=0.002)
    assert 1.05 < predicted / read < 1.5


def test_the_cache_is_read_once_for_a_token_and_has_room_for_all():
    plan, long = Plan(1, 8, 1, 4), decode(MODELS["llama3-70b"], 4, context=1000, output_tokens=201)
    short = replace(long, context=1100, output_tokens=1)
    assert output_token(long, plan).read_bytes(0) == output_token(short, plan).read_bytes(0)
    assert output_token(long, plan).cache_bytes(0) == 4 * 1200 * 80 * 2 * 128 * 2
    each = output_token(replace(short, context=1101), plan).read_bytes(0) - output_token(short, plan).read_bytes(0)
    assert each == 4 * 80 * 2 * 128 * 2
    half = output_token(replace(short, cache_bytes=1), plan)
    assert 2 * half.cache_bytes(0) == output_token(short, plan).cache_bytes(0)


@pytest.mark.parametrize("stages", [1, 2, 3, 5, 8])
def test_micro_batches_go_once_round_and_no_two_meet(stages):
    for count in range(1, stages + 1):
        step = steps(stages, count)
        assert (np.sort(step, axis=0) == np.arange(stages)[:, None]).all()
        assert all(len(set(row)) == count for row in step.tolist())


@pytest.mark.parametrize("plan", PLANS)
def test_the_graph_sends_what_traffic_says_and_is_the_sum_of_its_passes(plan):
    job = workload(JOB, H100)
    graph, flows = job.task_graph(plan), job.traffic(plan)
    graph.verify()
    moved = {}
    for source, destination, size in zip(flows.source, flows.destination, flows.size_bytes, strict=True):
        moved[source, destination] = moved.get((source, destination), 0) + int(size)
    assert graph.demand_bytes() == pytest.approx(moved, abs=2)
    # On a network that costs nothing a token is a loop of passes, or of the slowest stage's.
    token = output_token(JOB, plan, H100)
    passes = np.broadcast_to(token.pass_seconds(np.arange(plan.pp)), plan.pp)
    alone = max(passes.sum(), token.micro_batches * passes.max())
    found = fluid.run(graph, star(16, 1e18, graph.demand_bytes())).makespan_ps / 1e12
    assert alone * (1 - 1e-6) < found < 1.1 * alone


def test_exchanges_take_the_published_bound_and_a_token_more():
    """Of two micro-batches of 32 tokens a GPU, at 50 GB/s 120.96 us a layer and 14.76 ms [ISCA 2025]."""
    ranks = 1 + expert.DECODE_COPIES
    model = ModelSpec(
        expert.DECODE_LAYERS, expert.DECODE_HIDDEN, 1, 1, 1, positions="rotary", experts=ranks, experts_per_token=ranks,
        expert_ffn=1,
    )  # fmt: skip
    job = decode(model, ranks * 2 * expert.DECODE_TOKENS, dispatch_bytes=1)
    plan = Plan(ranks, 1, 1, 2 * expert.DECODE_TOKENS, ep=ranks)
    graph = workload(job, H100).task_graph(plan)
    for rate, (layer_us, token_ms) in expert.DECODE_RATES.items():
        token = output_token(job, plan, replace(H100, memory_gbytes_per_s=1e9))
        bound = token.bound_seconds(rate * 1e9)
        assert bound == pytest.approx(2 * expert.DECODE_LAYERS * layer_us / 1e6, rel=1e-12)
        assert round(bound * 1e3, 2) == token_ms
        found = fluid.run(graph, star(ranks, rate * 1e9, graph.demand_bytes())).makespan_ps / 1e12
        assert found > bound
        with pytest.raises(RuntimeError, match="below its bound"):
            workload(job, H100).figures(plan, 0.99 * bound, rate * 1e9)


def test_prediction_and_simulation_agree_on_every_fabric(fabric_spec, invented_timing):
    chiplet = ChipletSpec(ports=8)
    for pinned in (PlanSpec(), PlanSpec(tp=2, pp=2, ep=4)):
        spec = StudySpec("decode", H100, JOB, (fabric_spec,), (16,), chiplet, pinned)
        row, _ = cell.simulate(cell.Job(spec, 16, fabric_of(fabric_spec, chiplet, invented_timing), "fluid", ""))
        assert row["fits"], row["reason"]
        assert row["predicted_total_s"] == pytest.approx(row["iteration_s"], rel=0.1)
        assert row["output_token_bound_s"] < row["iteration_s"]
        assert row["tokens_per_s_per_gpu"] == pytest.approx(48 / row["iteration_s"] / 16)


def test_no_plan_is_predicted_to_be_faster_than_the_first():
    job, rates = workload(JOB, H100), Rates(2e11, 1e11, 5e10, 5e10, *[WAIT_SECONDS] * 3)
    first, _ = next(job.plans(16, lambda _: rates))
    each = [job.prediction(plan, rates).total for plan in PLANS if plan.expert_group == 1]
    assert job.prediction(first, rates).total <= min(each) * (1 + 1e-12)


def test_pinned_plans_are_kept():
    pinned = PlanSpec(tp=2, pp=4, micro_batch=12)
    found = [*workload(JOB, H100, pinned).plans(16, lambda _: Rates(1e11, 1e11, 1e11))]
    assert {(plan.tp, plan.pp, plan.micro_batch) for plan, _ in found} == {(2, 4, 12)}
    assert {plan.ep for plan, _ in found} == {1, 2}


def test_caches_that_do_not_fit_are_said_with_what_would_do():
    job = decode(MODELS["llama3-70b"], 256, context=32768)
    with pytest.raises(DoesNotFit, match=r"short by .* GiB per GPU.*; 64 GPUs are enough") as error:
        workload(job, H100).require(16)
    assert error.value.fits_gpus == 64
    workload(job, H100).require(64)


def test_what_passes_of_training_have_is_refused():
    with pytest.raises(SpecError, match=r"StudySpec.plan must be without virtual_stages, cp"):
        StudySpec(
            "decode", H100, JOB, (ElectricalSwitchSpec("switch", "electrical-switch", 1.0),), (16,), plan=PlanSpec(zero=1)
        )
    with pytest.raises(SpecError, match=r"DecodeJobSpec.context must be at most the positions \(1024\)"):
        decode(MODELS["gpt2"], context=1024, output_tokens=2)
