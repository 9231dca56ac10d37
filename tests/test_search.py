"""Search against enumeration by brute force, and against schedules of small pipelines."""

from itertools import product

import pytest

from lightfabric.model.spec import ACCELERATORS, AcceleratorSpec, JobSpec, ModelSpec
from lightfabric.placement.search import DoesNotFit, Rates, iteration_seconds, plans, search
from lightfabric.placement.workload import Plan, peak_memory

H100 = ACCELERATORS["h100"]
GPT3 = JobSpec(ModelSpec(layers=96, hidden=12288, heads=96, sequence=2048, vocabulary=51200), batch=1536)
SMALL = JobSpec(ModelSpec(layers=12, hidden=768, heads=12, sequence=1024, vocabulary=50304), batch=24)
EVEN = Rates(1e11, 1e11, 1e11)


def naive_plans(job, gpus):
    counts, micro_batches = range(1, gpus + 1), (1, 2, 4, 8, 16, 32, 64)
    recomputations = ("none", "selective", "full")
    for dp, tp, pp, micro_batch, recompute in product(counts, counts, counts, micro_batches, recomputations):
        if dp * tp * pp != gpus or job.model.heads % tp or job.model.layers % pp or job.batch % (dp * micro_batch):
            continue
        if job.model.sequence % tp == 0 and job.model.ffn_width % tp == 0:
            yield Plan(dp, tp, pp, micro_batch, recompute)


@pytest.mark.parametrize("gpus", [1, 2, 3, 6, 8, 12, 16, 7])
def test_plans_are_those_of_brute_force(gpus):
    found = list(plans(SMALL, H100, gpus))
    assert len(found) == len(set(found))
    assert set(found) == set(naive_plans(SMALL, gpus))


@pytest.mark.parametrize("gpus", [2, 8, 12])
def test_the_first_plan_is_the_fastest_that_fits(gpus):
    tight = AcceleratorSpec("tight", 2.0, 1000.0, 100.0, 100.0, 20.0)
    ranked = list(search(SMALL, tight, gpus, lambda _: EVEN))
    fitting = [plan for plan in naive_plans(SMALL, gpus) if peak_memory(SMALL, plan).total <= 2 << 30]
    assert 0 < len(fitting) < len(list(naive_plans(SMALL, gpus)))
    assert {entry.plan for entry in ranked} == set(fitting)
    times = [entry.seconds.total for entry in ranked]
    assert times == sorted(times)
    assert times[0] == min(iteration_seconds(SMALL, tight, plan, EVEN).total for plan in fitting)


def test_a_job_that_does_not_fit_says_what_is_short_and_what_would_do():
    with pytest.raises(DoesNotFit) as caught:
        next(search(GPT3, H100, 32, lambda _: EVEN))
    assert str(caught.value) == (
        "memory on 32 GPUs is short by 12.2 GiB per GPU: the job needs 92.2, h100 has 80.0; 64 GPUs are enough"
    )
    assert caught.value.fits_gpus == 64
    assert next(search(GPT3, H100, 64, lambda _: EVEN))


def test_a_job_that_fits_no_number_of_gpus_says_so():
    tiny = AcceleratorSpec("tiny", 0.001, 1000.0, 100.0, 100.0, 20.0)
    with pytest.raises(DoesNotFit, match="no power of two up to 131072 is enough"):
        next(search(GPT3, tiny, 64, lambda _: EVEN))


def test_a_number_of_gpus_that_divides_nothing_is_refused():
    with pytest.raises(DoesNotFit, match=r"no dp \* tp \* pp = 7 divides batch, heads and layers; 64 GPUs are enough"):
        next(search(GPT3, H100, 7, lambda _: EVEN))


def test_a_precision_without_a_peak_names_its_field():
    job = JobSpec(SMALL.model, 24, "fp8")
    with pytest.raises(ValueError, match=r"AcceleratorSpec.fp8_tflops must be given"):
        next(search(job, ACCELERATORS["a100"], 8, lambda _: EVEN))


def test_slower_links_never_help():
    for plan in plans(SMALL, H100, 12):
        fast, slow = (iteration_seconds(SMALL, H100, plan, Rates(rate, rate, rate)).total for rate in (1e11, 1e10))
        assert slow >= fast


def test_the_bubble_without_communication_is_the_closed_form():
    """(p - 1) / m of the computation when all stages are alike [Narayanan 2021, 2.2.1]."""
    job = JobSpec(ModelSpec(layers=8, hidden=1024, heads=8, sequence=1024, vocabulary=1), batch=32)
    for pp, micro_batch in product((1, 2, 4, 8), (1, 2)):
        plan = Plan(1, 1, pp, micro_batch)
        seconds = iteration_seconds(job, H100, plan, Rates(1e30, 1e30, 1e30))
        assert seconds.bubble / seconds.compute == pytest.approx((pp - 1) * micro_batch / 32, rel=0.01)
