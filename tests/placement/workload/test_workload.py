"""Published figures: parameters, flops and memory of Megatron's models."""

from dataclasses import replace

import numpy as np
import pytest

from lightfabric.model.spec import JobSpec, ModelSpec
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import FULL, NONE, SELECTIVE, case, state_bytes
from lightfabric.placement.workload.memory import layer_activation_bytes, peak_memory, stage_memory
from lightfabric.placement.workload.parameter import parameters, stage_parameters

GPT3 = ModelSpec(layers=96, hidden=12288, heads=96, sequence=2048, vocabulary=51200)
JOB = JobSpec(GPT3, batch=1536)


def kept(job: JobSpec, plan: Plan, recompute: int) -> int:
    return layer_activation_bytes(replace(case(job, plan).exactly, recompute=recompute))[0]


def held(plan: Plan, stage: int) -> int:
    return sum(stage_parameters(case(JOB, plan).exactly, stage))


@pytest.mark.parametrize(
    ("hidden", "heads", "layers", "billions"),
    [(2304, 24, 24, 1.7), (3072, 32, 30, 3.6), (6144, 48, 40, 18.4), (12288, 96, 96, 174.6), (25600, 160, 128, 1008.0)],
)
def test_parameters_are_those_of_narayanan_2021_table_1(hidden, heads, layers, billions):
    count = parameters(ModelSpec(layers, hidden, heads, 2048, 51200))
    assert count / 1e9 == pytest.approx(billions, abs=0.06)


def test_parameters_follow_narayanan_2021_equation_2():
    layers, h, v, s = 96, 12288, 51200, 2048
    final_norm = 2 * h
    assert parameters(GPT3) - final_norm == 12 * layers * h**2 + 13 * layers * h + (v + s) * h


def test_activations_follow_korthikanti_2022_table_2():
    s, b, h, a, t = 2048, 2, 12288, 96, 8
    plan = Plan(dp=1, tp=t, pp=1, micro_batch=b)
    assert kept(JOB, plan, NONE) * t == s * b * h * 34 + 5 * a * s * s * b
    assert kept(JOB, plan, SELECTIVE) * t == s * b * h * 34
    assert kept(JOB, plan, FULL) * t == s * b * h * 2


def test_selective_recomputation_saves_what_korthikanti_2022_says():
    """Section 5: 70 % of the activations of GPT-3, 65 % of MT-NLG."""
    plan = Plan(dp=1, tp=8, pp=1, micro_batch=1)
    saved = [1 - kept(job, plan, SELECTIVE) / kept(job, plan, NONE)
             for job in (JOB, JobSpec(ModelSpec(105, 20480, 128, 2048, 51200), batch=1920))]  # fmt: skip
    assert saved == pytest.approx([0.70, 0.65], abs=0.007)


def test_mixed_precision_adam_takes_18_bytes_per_parameter_and_fp32_16():
    assert [sum(state_bytes(p)) for p in ("fp16", "bf16", "fp8", "fp32", "tf32")] == [18, 18, 18, 16, 16]


def test_ranks_hold_all_parameters_and_what_is_replicated():
    plan = Plan(dp=1, tp=8, pp=4, micro_batch=1)
    every = sum(plan.tp * held(plan, stage) for stage in range(plan.pp))
    norms_and_biases = GPT3.layers * 6 * GPT3.hidden + GPT3.sequence * GPT3.hidden + 2 * GPT3.hidden
    word_embedding_again = GPT3.vocabulary * GPT3.hidden
    assert every == parameters(GPT3) + (plan.tp - 1) * norms_and_biases + word_embedding_again


def test_a_plan_of_one_rank_holds_the_model():
    assert held(Plan(1, 1, 1, 1), 0) == parameters(GPT3)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_no_stage_needs_more_than_the_peak(recompute):
    plan = Plan(dp=2, tp=4, pp=16, micro_batch=2, recompute=recompute)
    one = case(JOB, plan).exactly
    assert peak_memory(one).total == stage_memory(one, np.arange(plan.pp)).total.max()


def test_a_stage_keeps_as_many_micro_batches_as_stages_follow_it():
    """1F1B: the first stage holds pp micro-batches, the last one [Narayanan 2021, 2.2.1]."""
    plan = Plan(dp=1, tp=8, pp=8, micro_batch=1)
    per_micro_batch = 12 * kept(JOB, plan, NONE)
    every = [stage_memory(case(JOB, plan).exactly, stage).activations for stage in range(7)]
    assert every == [(8 - stage) * per_micro_batch for stage in range(7)]
