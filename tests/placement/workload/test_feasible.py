"""Plans that can run, and the first reason why others cannot."""

from dataclasses import replace

import numpy as np
import pytest

from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec, SpecError
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.plan import Plan
from lightfabric.placement.search.search import WHOLE, table
from lightfabric.placement.workload.case import plan_of
from lightfabric.placement.workload.feasible import require_feasible
from lightfabric.placement.workload.preset import MODELS

GPT = ModelSpec(layers=32, hidden=4096, heads=32, sequence=2048, vocabulary=51200)
ALIKE = "such that pp * it divides the layers (32) or is two more"
MIXTRAL = MODELS["mixtral-8x7b"]


def plan(**degrees):
    return Plan(**{"dp": 1, "tp": 1, "pp": 1, "micro_batch": 1} | degrees)


def test_every_plan_of_the_search_can_run():
    """The search makes its plans from divisors, so that it shares no rule with what is checked."""
    for name, batch, gpus in (("gpt3-175b", 96, 96), ("mixtral-8x7b", 64, 64), ("deepseek-v3", 64, 32), ("gpt2-xl", 40, 20)):
        plans = table(JobSpec(MODELS[name], batch), ACCELERATORS["h100"], gpus, lambda _: Rates(1e11, 1e11, 1e11), WHOLE)
        chosen = np.random.default_rng(5).permutation(len(plans))[:300]
        assert len(chosen) > 100
        for index in chosen:
            require_feasible(MODELS[name], batch, plan_of(plans, index))


@pytest.mark.parametrize(
    ("model", "batch", "cut"),
    [
        (GPT, 8, plan(pp=4)),
        (replace(GPT, layers=30), 8, plan(pp=4)),  # 8, 8, 7, 7 layers
        (MODELS["llama3-70b"], 32, plan(tp=16, pp=4)),  # two ranks for each of the 8 heads of keys and values
        (MODELS["llama3-405b"], 2048, plan(dp=128, tp=8, pp=16, virtual_stages=8)),  # 126 layers and both ends in 128 chunks
        (MIXTRAL, 128, plan(dp=4, pp=4, cp=2, ep=8)),
    ],
)
def test_plans_that_were_run_can_run(model, batch, cut):
    require_feasible(model, batch, cut)


@pytest.mark.parametrize(("name", "pp", "virtual"), [("deepseek-v3", 2, 8), ("kimi-k2", 16, 2), ("qwen3-235b-a22b", 4, 12)])
def test_stages_that_are_laid_out_have_any_layers(name, pp, virtual):
    """61 layers in 16 and 32 chunks, 94 in 48 [NVIDIA, Megatron-Bridge, ``scripts/performance/configs``]."""
    cut = plan(pp=pp, virtual_stages=virtual)
    require_feasible(MODELS[name], 64, cut, laid_out=True)
    with pytest.raises(SpecError):
        require_feasible(MODELS[name], 64, cut)


@pytest.mark.parametrize(
    ("model", "batch", "cut", "schedule", "says"),
    [
        (GPT, 64, plan(pp=64), "1f1b", "pp must be at most the layers (32), not 64"),
        (GPT, 64, plan(pp=33), "gpipe", "pp must be at most the layers (32), not 33"),
        (GPT, 64, plan(tp=3), "1f1b", "tp must be a divisor of the heads (32), not 3"),
        (replace(GPT, heads=12, head_width=128, kv_heads=6), 64, plan(tp=4), "1f1b",
         "tp must be a divisor or a multiple of the heads of keys (6), not 4"),
        (replace(GPT, ffn=16388), 64, plan(tp=8), "1f1b", "tp must be a divisor of the feed-forward width (16388), not 8"),
        (replace(MIXTRAL, expert_ffn=100), 64, plan(tp=8), "1f1b", "tp must be a divisor of an expert's width (100), not 8"),
        (GPT, 64, plan(cp=3), "1f1b", "cp must be a divisor of the sequence (2048), not 3"),
        (replace(GPT, sequence=24), 64, plan(cp=8, tp=2), "1f1b",
         "tp must be a divisor of the tokens of a sequence on a rank (3), not 2"),
        (GPT, 100, plan(dp=3), "1f1b", "batch must be a multiple of dp * mbs (3), not 100"),
        (GPT, 100, plan(dp=3, micro_batch=11), "1f1b", "batch must be a multiple of dp * mbs (33), not 100"),
        (GPT, 2, plan(dp=3), "1f1b", "batch must be at least dp * mbs (3), not 2"),
        (GPT, 64, plan(pp=8, virtual_stages=3), "1f1b",
         f"virtual_stages must be {ALIKE}, not 3"),
        (GPT, 64, plan(pp=8, virtual_stages=8), "1f1b",
         f"virtual_stages must be {ALIKE}, not 8"),
        (replace(GPT, layers=30), 64, plan(pp=4, virtual_stages=2), "1f1b",
         f"virtual_stages must be {ALIKE.replace('32', '30')}, not 2"),
        (GPT, 60, plan(pp=8, virtual_stages=2), "1f1b",
         "batch must be a multiple of dp * mbs * pp (8) with virtual stages, not 60"),
        (GPT, 64, plan(virtual_stages=2), "1f1b", "virtual_stages must be 1 without a pipeline, not 2"),
        (GPT, 64, plan(pp=8, virtual_stages=2), "zero-bubble",
         "virtual_stages must be 1 with the schedule zero-bubble, not 2"),
        (GPT, 63, plan(pp=3), "dualpipe", "pp must be even with DualPipe, not 3"),
        (GPT, 63, plan(pp=4), "dualpipe",
         "batch must be an even multiple of dp * mbs (1), at least 8, with DualPipe, not 63"),
        (GPT, 6, plan(pp=4), "dualpipe",
         "batch must be an even multiple of dp * mbs (1), at least 8, with DualPipe, not 6"),
        (GPT, 64, plan(dp=4, ep=4), "1f1b", "ep must be 1 for a model without experts, not 4"),
        (MIXTRAL, 120, plan(dp=6, ep=3), "1f1b", "ep must be a divisor of the experts (8), not 3"),
        (MIXTRAL, 128, plan(dp=16, ep=16), "1f1b", "ep must be a divisor of the experts (8), not 16"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_plan_that_cannot_run_says_why(model, batch, cut, schedule, says):
    with pytest.raises(SpecError) as caught:
        require_feasible(model, batch, cut, schedule)
    assert caught.value.of("") == says
