"""Orders of ranks by objective: never worse than any structured order, by costs that are counted here flow by flow."""

import numpy as np
import pytest

from lightfabric.model.spec import ACCELERATORS, ChipletSpec, ElectricalSwitchSpec, JobSpec, ModelSpec, SipRingSpec
from lightfabric.model.task import Part
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.mapping.order import OBJECTIVES, best_order, orders, searched_order
from lightfabric.placement.mapping.traffic import bound_byte_hops, traffic
from lightfabric.placement.place import candidates, ordered
from lightfabric.placement.plan import Plan

RING = fabric_of(SipRingSpec("ring", "sip-ring"), ChipletSpec())
SWITCH = fabric_of(ElectricalSwitchSpec("switch", "electrical-switch", 4096.0), ChipletSpec())
JOB = JobSpec(ModelSpec(layers=8, hidden=256, heads=8, sequence=128, vocabulary=1024, experts=8, experts_per_token=2), 64)
PLANS = [Plan(4, 2, 2, 1), Plan(8, 1, 2, 1, ep=8), Plan(4, 1, 4, 1, ep=4), Plan(2, 4, 2, 1), Plan(16, 1, 1, 1, ep=8)]


def naive_cost(objective, flows, gpu_of_rank):
    """Every flow walks its ring segments, the shorter way, of two equal ways the one ``ring_steps`` names.

    Half of what is reduced goes the other way, from each member to the one before.
    """
    gpus = len(gpu_of_rank)
    load, pairs, hops = np.zeros((2, gpus)), np.zeros((2, gpus)), 0
    seen = set()
    for source, destination, size, part in zip(*vars(flows).values(), strict=True):
        a, b = int(gpu_of_rank[source]), int(gpu_of_rank[destination])
        ahead = (b - a) % gpus
        backward = 2 * ahead > gpus or (2 * ahead == gpus and a % 2 == 1)
        first, length = (b, gpus - ahead) if backward else (a, ahead)
        crossed = [(first + k) % gpus for k in range(length)]
        hops += length * int(size)
        load[int(backward), crossed] += size / 2
        load[int(backward ^ (part in (Part.TENSOR, Part.DATA))), crossed] += size / 2
        if (a, b) not in seen:
            pairs[int(backward), crossed] += 1
        seen.add((a, b))
    return {"bottleneck": load.max(), "byte-hops": hops, "wavelengths": pairs.max()}[objective]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_no_structured_order_has_less_of_the_objective(plan, objective):
    flows = traffic(JOB, plan)
    best = best_order(RING, plan, flows, objective)
    structured = min(naive_cost(objective, flows, order) for _, order in orders(plan, folds=True))
    assert naive_cost(objective, flows, best.gpu_of_rank) == structured
    found = searched_order(RING, flows, best, objective)
    assert sorted(found.gpu_of_rank.tolist()) == list(range(plan.gpus))
    assert naive_cost(objective, flows, found.gpu_of_rank) <= structured
    assert (found is best) == (naive_cost(objective, flows, found.gpu_of_rank) == structured)
    assert found.byte_hops == naive_cost("byte-hops", flows, found.gpu_of_rank) >= bound_byte_hops(flows, plan.gpus)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_search_finds_what_no_structured_order_has(objective):
    flows = [traffic(JOB, plan) for plan in PLANS]
    best = [best_order(RING, plan, each, objective) for plan, each in zip(PLANS, flows, strict=True)]
    found = [searched_order(RING, *pair, objective) for pair in zip(flows, best, strict=True)]
    assert any(searched is not structured for searched, structured in zip(found, best, strict=True))


def test_behind_a_switch_only_byte_hops_depend_on_the_order():
    flows = traffic(JOB, PLANS[0])
    start = best_order(SWITCH, PLANS[0], flows)
    assert searched_order(SWITCH, flows, start, "bottleneck") is start


def test_candidates_differ_and_the_fastest_predicted_comes_first():
    found = candidates(JOB, ACCELERATORS["h100"], RING, 16)
    predicted = [placement.prediction.total for placement in found]
    assert len(found) > 1
    assert predicted == sorted(predicted)
    keys = {(*placement.plan.degrees, placement.plan.ep, placement.plan.virtual_stages) for placement in found}
    assert len(keys) == len(found)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_keeps_the_plan_and_is_no_worse_than_by_predicted_time(objective, fabric_spec, invented_timing):
    fabric = fabric_of(fabric_spec, ChipletSpec(ports=8), invented_timing)
    placed = candidates(JOB, ACCELERATORS["h100"], fabric, 16)[0]
    found = ordered(JOB, ACCELERATORS["h100"], fabric, placed, objective)
    assert found.plan == placed.plan
    naive = [naive_cost(objective, each.traffic, np.arange(16)) for each in (found, placed)]
    if objective == "bottleneck":
        naive = [each.order.seconds for each in (found, placed)]
    assert naive[0] <= naive[1]
