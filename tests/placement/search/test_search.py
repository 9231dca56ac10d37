"""Search against enumeration by brute force, and against schedules of small pipelines."""

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from lightfabric.model.spec import ACCELERATORS, AcceleratorSpec, JobSpec, ModelSpec, PlanSpec
from lightfabric.placement.cost.layer import pass_seconds
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.plan import Plan
from lightfabric.placement.search.search import Space, least_memory_bytes, prediction, search, table
from lightfabric.placement.workload.case import case, plan_of
from lightfabric.placement.workload.memory import DoesNotFit, memory_bytes, peak_bytes, peak_memory
from lightfabric.placement.workload.preset import MODELS
from lightfabric.placement.workload.volume import ring_bytes, volume

H100 = ACCELERATORS["h100"]
GPT3 = JobSpec(ModelSpec(layers=96, hidden=12288, heads=96, sequence=2048, vocabulary=51200), batch=1536)
SMALL = JobSpec(ModelSpec(layers=12, hidden=768, heads=12, sequence=1024, vocabulary=50304), batch=24)
EVEN = Rates(1e11, 1e11, 1e11)


def plans(job, accelerator, gpus, rates):
    every = table(job, accelerator, gpus, rates)
    return [plan_of(every, index) for index in range(len(every))]


def naive_plans(job, gpus):
    counts, micro_batches = range(1, gpus + 1), (1, 2, 4, 8, 16, 32, 64)
    recomputations = ("none", "selective", "full")
    for dp, tp, pp, micro_batch, recompute in product(counts, counts, counts, micro_batches, recomputations):
        if dp * tp * pp != gpus or job.model.heads % tp or job.model.layers < pp or job.batch % (dp * micro_batch):
            continue
        if job.model.sequence % tp or job.model.ffn_width % tp:
            continue
        for virtual_stages, zero in product(range(1, 17), (0, 1)):
            whole = job.model.layers % (pp * virtual_stages) == 0 and job.batch % (dp * micro_batch * pp) == 0
            if virtual_stages == 1 or (pp > 1 and whole):
                yield Plan(dp, tp, pp, micro_batch, recompute, virtual_stages=virtual_stages, zero=zero)


def slowest_pass(job, plan, rate):
    """Both passes of a micro-batch through the slowest stage and its tensor rings, by the functions of the task graph."""
    # Who holds the optimiser's state plays no part in them.
    seconds, reduced = stage_passes(job, replace(plan, zero=0))
    return max(seconds + reduced / rate)


@cache
def stage_passes(job, plan):
    """Seconds of computation and bytes reduced in both passes, by stage."""
    stage, one = np.arange(plan.pp), case(job, plan, H100)
    passes = 3 if plan.recompute == "full" else 2
    reduced = 2 * passes * one.stage_layers(stage) * ring_bytes(volume(job, plan).reduce_bytes, plan.tp)
    return sum(pass_seconds(one, stage, 0)), reduced


def fastest_uneven(job, plan, rate):
    """Of all stages that a first, a last and stages between alike make."""
    ends = product(range(1, job.model.layers), repeat=2)
    cut = [replace(plan, first_layers=first, last_layers=last) for first, last in ends if _has_rest(job, plan, first, last)]
    return min(slowest_pass(job, entry, rate) for entry in cut)


def _has_rest(job, plan, first, last):
    rest, between = job.model.layers - first - last, plan.pp - 2
    return rest >= between if between else rest == 0


@pytest.mark.parametrize("gpus", [1, 2, 3, 6, 8, 12, 16, 7])
def test_plans_are_those_of_brute_force(gpus):
    found = list(plans(SMALL, H100, gpus, lambda _: EVEN))
    assert len(found) == len(set(found))
    even, uneven = ({plan for plan in found if (plan.first_layers > 0) == given} for given in (False, True))
    assert even == set(naive_plans(SMALL, gpus))
    assert {replace(plan, first_layers=0, last_layers=0) for plan in uneven} <= even


@pytest.mark.parametrize("gpus", [4, 6, 12])
@pytest.mark.parametrize("rate", [1e9, 1e11])
def test_stages_are_as_fast_as_any(gpus, rate):
    """Fast rings make the output layer worth more layers than slow ones."""
    found = set(plans(SMALL, H100, gpus, lambda _: Rates(rate, 1e11, 1e11)))
    uneven = {replace(plan, first_layers=0, last_layers=0): plan for plan in found if plan.first_layers}
    assert uneven
    for plan in (entry for entry in found if not entry.first_layers and entry.pp > 1 and entry.virtual_stages == 1):
        best = fastest_uneven(SMALL, plan, rate)
        if plan in uneven:
            assert slowest_pass(SMALL, uneven[plan], rate) == pytest.approx(best)
            assert best < slowest_pass(SMALL, plan, rate)
        else:
            assert slowest_pass(SMALL, plan, rate) <= best * (1 + 1e-9)


@pytest.mark.parametrize("gpus", [2, 8, 12])
def test_the_first_plan_is_the_fastest_that_fits(gpus):
    tight = AcceleratorSpec("tight", 2.5, 1000.0, 100.0, 100.0, 20.0, memory_reserve_share=0.2)
    ranked = list(search(SMALL, tight, gpus, lambda _: EVEN))
    every = list(plans(SMALL, tight, gpus, lambda _: EVEN))
    assert set(naive_plans(SMALL, gpus)) < set(every)
    fitting = [plan for plan in every if peak_memory(case(SMALL, plan).exactly).total <= 2 << 30]
    assert 0 < len(fitting) < len(every)
    assert set(ranked) == set(fitting)
    times = [prediction(SMALL, tight, plan, EVEN).total for plan in ranked]
    assert times == sorted(times)
    assert times[0] == min(prediction(SMALL, tight, plan, EVEN).total for plan in fitting)


def test_a_job_that_does_not_fit_says_what_is_short_and_what_would_do():
    with pytest.raises(DoesNotFit) as caught:
        next(search(GPT3, H100, 32, lambda _: EVEN))
    assert str(caught.value) == (
        "memory on 32 GPUs is short by 15.4 GiB per GPU: the job needs 92.2, h100 has 76.8 for it; 64 GPUs are enough"
    )
    assert caught.value.fits_gpus == 64
    assert next(search(GPT3, H100, 64, lambda _: EVEN))


def test_a_job_that_fits_no_number_of_gpus_says_so():
    tiny = AcceleratorSpec("tiny", 0.001, 1000.0, 100.0, 100.0, 20.0)
    with pytest.raises(DoesNotFit, match="no power of two up to 262144 is enough"):
        next(search(GPT3, tiny, 64, lambda _: EVEN))


EXPERTS = JobSpec(
    ModelSpec(layers=4, hidden=512, heads=8, sequence=512, vocabulary=512, experts=8, experts_per_token=2), batch=48
)


@pytest.mark.parametrize(
    "pins",
    [{"tp": 2}, {"dp": 4, "pp": 2, "virtual_stages": 2}, {"ep": 4, "expert_group": 2}, {"micro_batch": 2, "zero": 0},
     {"zero": 1, "recompute": "selective"}, {"dp": 8, "tp": 1, "pp": 1, "micro_batch": 1, "ep": 8, "expert_group": 1}],
)  # fmt: skip
def test_pinned_plans_are_those_of_all_that_have_these_values(pins):
    free = search(EXPERTS, H100, 8, lambda _: EVEN)
    wanted = [plan for plan in free if all(getattr(plan, name) == value for name, value in pins.items())]
    assert wanted
    assert list(search(EXPERTS, H100, 8, lambda _: EVEN, Space().only(PlanSpec(**pins)))) == wanted


def test_a_pinned_micro_batch_need_not_be_a_power_of_two():
    plan = next(search(EXPERTS, H100, 8, lambda _: EVEN, Space().only(PlanSpec(micro_batch=3))))
    assert (plan.micro_batch, EXPERTS.batch // plan.dp % 3) == (3, 0)


@pytest.mark.parametrize(
    "pins", [{"tp": 3}, {"pp": 5}, {"dp": 8, "tp": 2}, {"ep": 3}, {"micro_batch": 5}, {"expert_group": 16}]
)
def test_a_pinned_plan_that_does_not_divide_is_named(pins):
    given = ", ".join(f"{name} {value}" for name, value in pins.items())
    with pytest.raises(DoesNotFit, match=rf"^no dp \* tp \* pp = 8 with {given} divides batch and heads"):
        next(search(EXPERTS, H100, 8, lambda _: EVEN, Space().only(PlanSpec(**pins))))


@pytest.mark.parametrize("pins", [{}, {"recompute": "none"}, {"micro_batch": 4, "tp": 1}, {"zero": 0, "pp": 1}, {"ep": 2}])
def test_the_least_memory_is_that_of_the_plan_that_needs_least(pins):
    space = Space().only(PlanSpec(**pins))
    every = table(EXPERTS, H100, 8, lambda _: EVEN, space)
    assert least_memory_bytes(EXPERTS, 8, space) == peak_bytes(every[every.first_layers == 0].exactly).min()


def test_a_number_of_gpus_that_divides_nothing_is_refused():
    with pytest.raises(
        DoesNotFit, match=r"no dp \* tp \* pp = 101 divides batch and heads and has a layer for each stage; 64 GPUs"
    ):
        next(search(GPT3, H100, 101, lambda _: EVEN))


def test_a_precision_without_a_peak_names_its_field():
    job = JobSpec(SMALL.model, 24, "fp8")
    with pytest.raises(ValueError, match=r"AcceleratorSpec.fp8_tflops must be given"):
        next(search(job, ACCELERATORS["a100"], 8, lambda _: EVEN))


def test_slower_links_never_help():
    for plan in plans(SMALL, H100, 12, lambda _: EVEN):
        fast, slow = (prediction(SMALL, H100, plan, Rates(rate, rate, rate)).total for rate in (1e11, 1e10))
        assert slow >= fast


def test_the_bubble_without_communication_is_the_closed_form():
    """(p - 1) / m of the computation when all stages are alike [Narayanan 2021, 2.2.1]."""
    job = JobSpec(ModelSpec(layers=16, hidden=1024, heads=8, sequence=1024, vocabulary=1), batch=32)
    for pp, micro_batch in product((1, 2, 4, 8), (1, 2)):
        plan = Plan(1, 1, pp, micro_batch)
        seconds = prediction(job, H100, plan, Rates(1e30, 1e30, 1e30))
        assert seconds.bubble / seconds.compute == pytest.approx((pp - 1) * micro_batch / 32, rel=0.01)


def test_a_pipeline_of_experts_too_full_at_its_fastest_cut_is_tried_with_more_layers_at_its_ends():
    """DeepSeek-V3 cut 8 x 4 x 8 fits 80 GB with 8 and 6 of 61 layers at its ends, but neither evenly nor with 7 and 6."""
    job = JobSpec(MODELS["deepseek-v3"], 1024, expert_groups=8, max_groups=4, dispatch_bytes=1)
    h100 = replace(ACCELERATORS["h100"], memory_reserve_share=0.0)
    every = table(job, h100, 256, lambda _: Rates(4.159e11, 4.62e10, 4.62e10, 8.44e10))
    alike = every[(every.dp == 8) & (every.tp == 4) & (every.pp == 8) & (every.virtual_stages == 1) & (every.ep == 8)]
    alike = alike[(alike.micro_batch == 1) & (alike.recompute == 1) & (alike.zero == 1) & (alike.expert_group == 2)]
    fits = peak_bytes(alike.exactly) <= memory_bytes(h100)
    cuts = list(zip(alike.first_layers.tolist(), alike.last_layers.tolist(), fits.tolist(), strict=True))
    assert {(0, 0, False), (7, 6, False), (8, 6, True)} <= set(cuts)
