"""All-to-all traffic of experts and tables, and orders of ranks that carry it better than the structured ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.model.spec import ACCELERATORS, JobSpec, NetworkJobSpec
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.job.data_parallel import DataParallel
from lightfabric.placement.mapping.order import orders
from lightfabric.placement.mapping.refine import refined
from lightfabric.placement.mapping.traffic import (
    DATA,
    EXCHANGE,
    Traffic,
    bound_byte_hops,
    byte_hops,
    ring_steps,
    segment_load,
    traffic,
)
from lightfabric.placement.plan import Plan
from lightfabric.placement.search.search import prediction
from lightfabric.placement.workload.preset import MODELS
from lightfabric.placement.workload.routing import expert_loads, zipf
from lightfabric.placement.workload.volume import volume

MIXTRAL = JobSpec(replace(MODELS["mixtral-8x7b"], sequence=4096), batch=512)
DEEPSEEK = JobSpec(MODELS["deepseek-v3"], batch=1024)


DLRM = DataParallel(NetworkJobSpec("dlrm", 65536, "fp32"), ACCELERATORS["h100"])


def expert_traffic(job, plan, popularity):
    """Rank e of an ep group holds the e-th experts / ep of them."""
    return traffic(job, plan, (popularity.reshape(plan.ep, -1).sum(axis=1) * plan.ep).tolist())


def fullest(flows, order):
    placed = flows.placed(order)
    steps = ring_steps(placed.source, placed.destination, len(order))
    return int(segment_load(placed.source, steps, placed.size_bytes, len(order)).max())


def best_structured(flows, plan):
    return min((order for _, order in orders(plan, folds=True)), key=lambda order: fullest(flows, order))


@st.composite
def random_flows(draw):
    gpus = draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = rng.integers(0, 1000, (gpus, gpus)) * (rng.random((gpus, gpus)) < 0.5)
    np.fill_diagonal(size, 0)
    source, destination = np.nonzero(size)
    part = np.full(len(source), EXCHANGE, np.int8)
    flows = Traffic(source.astype(np.int32), destination.astype(np.int32), size[source, destination], part)
    return flows, rng.permutation(gpus).astype(np.int32)


@settings(deadline=None)  # the first call compiles
@given(random_flows())
def test_a_refined_order_is_a_permutation_and_never_fuller(case):
    flows, order = case
    found = refined(flows, order, 200, np.random.default_rng(1))
    assert sorted(found.tolist()) == list(range(len(order)))
    assert fullest(flows, found) <= fullest(flows, order)


@given(random_flows())
def test_no_order_has_fewer_byte_hops_than_the_bound(case):
    flows, order = case
    assert byte_hops(flows.placed(order), len(order)) >= bound_byte_hops(flows, len(order))


def test_a_ring_on_a_ring_meets_the_bound_of_byte_hops():
    node = np.arange(8, dtype=np.int32)
    flows = Traffic(node, np.roll(node, -1), np.full(8, 5), np.full(8, DATA, np.int8))
    assert bound_byte_hops(flows, 8) == byte_hops(flows, 8) == 40


def test_even_experts_exchange_what_the_workload_says():
    """Four all-to-alls per layer and micro-batch [Lepikhin 2020, GShard]."""
    plan = Plan(8, 2, 2, 1, "selective", ep=4)
    flows = expert_traffic(MIXTRAL, plan, zipf(8, 0.0)).of(EXCHANGE)
    pairs = plan.gpus * (plan.ep - 1)
    assert len(flows.source) == 2 * pairs  # there and back
    # A token goes once to a rank that has one of its two experts or both: of 28 pairs of experts 15 are elsewhere.
    token_bytes = 4096 * 4096 * 2 // plan.tp
    assert set(flows.size_bytes.tolist()) == {2 * 16 * volume(MIXTRAL, plan).micro_batches * round(token_bytes * 13 / 28)}


def test_skewed_experts_move_as_many_bytes_and_load_the_first_rank_most():
    plan = Plan(8, 1, 1, 1, "selective", ep=8)
    even, skewed = (expert_traffic(MIXTRAL, plan, zipf(8, exponent)).of(EXCHANGE) for exponent in (0.0, 1.0))
    assert skewed.size_bytes.sum() == pytest.approx(even.size_bytes.sum(), rel=1e-7)
    assert np.bincount(skewed.destination, skewed.size_bytes).argmax() == 0


@pytest.mark.parametrize(("skew", "ep"), [(0.5, 2), (1.0, 4), (0.7, 8), (0.0, 4)])
def test_loads_are_those_of_experts_dealt_out_by_popularity(skew, ep):
    popularity = [(k + 1) ** -skew for k in range(8)]
    dealt = [sum(popularity[rank::ep]) / sum(popularity) * ep for rank in range(ep)]
    assert expert_loads(8, skew, ep) == pytest.approx(dealt)


@pytest.mark.parametrize("skew", [0.5, 1.0])
def test_a_skewed_job_computes_exchanges_and_keeps_more_on_its_busiest_rank(skew):
    """With tokens alone in play, the part of a step that experts take grows with the busiest rank's load."""
    even, skewed = MIXTRAL, replace(MIXTRAL, expert_skew=skew)
    plan, alone = Plan(8, 1, 1, 1, "selective", ep=8), Plan(8, 1, 1, 1, "selective")
    rates = Rates(1e12, 1e12, 1e12, 1e11)
    load = max(expert_loads(8, skew, 8))
    before, after = (prediction(job, ACCELERATORS["h100"], plan, rates) for job in (even, skewed))
    assert after.tensor == pytest.approx(before.tensor * load)
    assert before.compute * (1 + load) / 2 < after.compute < before.compute * load
    assert after.memory.activations > 1.2 * before.memory.activations
    assert len({prediction(job, ACCELERATORS["h100"], alone, rates).memory for job in (even, skewed)}) == 1


@pytest.mark.parametrize(
    ("flows", "plan", "share"),
    [
        (expert_traffic(DEEPSEEK, Plan(64, 1, 4, 1, "selective", ep=64), zipf(256, 1.5)), Plan(64, 1, 4, 1), 0.97),
        (expert_traffic(DEEPSEEK, Plan(32, 2, 1, 1, "selective", ep=32), zipf(256, 1.5)), Plan(32, 2, 1, 1), 0.85),
        (DLRM.traffic(Plan(64, 1, 1, 1)), Plan(64, 1, 1, 1), 0.9),
        (DLRM.traffic(Plan(128, 1, 1, 1)), Plan(128, 1, 1, 1), 0.75),
    ],
    ids=["deepseek-256", "deepseek-64", "dlrm-64", "dlrm-128"],
)
def test_experts_and_tables_fill_a_ring_less_than_in_the_best_structured_order(flows, plan, share):
    order = best_structured(flows, plan)
    found = refined(flows, order, 20_000, np.random.default_rng(1))
    assert fullest(flows, found) < share * fullest(flows, order)
