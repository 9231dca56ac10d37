"""Copies of tokens between ranks, counted token by token in random routing and choice by choice where choices are few."""

from dataclasses import replace
from itertools import combinations
from math import comb, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import least_squares

from lightfabric.model.spec import ACCELERATORS, ChipletSpec, ElectricalSwitchSpec, JobSpec, ModelSpec, SpecError
from lightfabric.placement.cost.prediction import Network
from lightfabric.placement.cost.step import tensor_seconds
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.job.transformer import Transformer
from lightfabric.placement.mapping.traffic import EXCHANGE, busiest_bytes, traffic
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import case
from lightfabric.placement.workload.routing import busiest_copies, copies
from lightfabric.placement.workload.volume import volume

SEED = 20261130
CHIPLET = ChipletSpec(ports=4, wavelengths_per_port=8)


def job(experts, per_token, **fields):
    model = ModelSpec(
        layers=4, hidden=256, heads=8, sequence=128, vocabulary=1024, experts=experts, experts_per_token=per_token
    )
    return JobSpec(model, batch=64, **fields)


def messages(source, chosen, rank_of, group):
    """Ways of one token of ``source`` whose experts are ``chosen``: over to peers first, from there to ranks beside them."""
    wanted = {rank_of(expert) for expert in chosen}
    sent = []
    for home in {rank // group for rank in wanted}:
        entry = source if source // group == home else home * group + source % group
        if entry != source:
            sent.append((source, entry))
        sent += [(entry, rank) for rank in wanted if rank // group == home and rank != entry]
    return sent


def draw(rng, job):
    """Experts of a token: some groups, whichever, and experts in them, whichever."""
    size = job.model.experts // job.expert_groups
    groups = rng.choice(job.expert_groups, job.max_groups, replace=False)
    allowed = np.concatenate([np.arange(group * size, (group + 1) * size) for group in groups])
    return rng.choice(allowed, job.model.experts_per_token, replace=False).tolist()


CASES = [
    (job(8, 2), 4, 1), (job(8, 2), 8, 4), (job(32, 4), 8, 1), (job(32, 4), 8, 2), (job(32, 4), 8, 8), (job(16, 16), 4, 2),
    (job(64, 8, expert_groups=8, max_groups=4), 16, 2), (job(64, 8, expert_groups=8, max_groups=2), 16, 4),
    (job(48, 4, expert_groups=4, max_groups=2), 8, 2), (job(30, 3, expert_groups=5, max_groups=2), 3, 1),
]  # fmt: skip


@pytest.mark.parametrize(("job", "ep", "group"), CASES)
def test_copies_are_those_counted_token_by_token_in_random_routing(job, ep, group):
    """Within 5 standard deviations of the mean of each way, which 1 of 1.7 million exceeds."""
    rng, tokens = np.random.default_rng(SEED), 3000
    counted, squares = np.zeros((2, ep, ep))
    held = job.model.experts // ep
    for source in range(ep):
        for _ in range(tokens):
            for way in messages(source, draw(rng, job), lambda expert: expert // held, group):
                counted[way] += 1
    # A rank hands on tokens of one peer of each group, so the variance of a way is that of so many independent chances.
    mean, peers = counted / tokens, ep // group
    each = np.clip(mean / peers, 1 / tokens, 1 - 1 / tokens)
    squares = peers * each * (1 - each) / tokens
    found = copies(job, ep, group)
    assert (np.abs(found - mean) <= 5 * np.sqrt(squares)).all(), f"seed {SEED}"
    assert ((found > 0) == (counted > 0)).all()


@pytest.mark.parametrize(("experts", "per_token", "ep", "group"), [(8, 2, 8, 4), (64, 8, 16, 4), (256, 8, 64, 8)])
def test_a_token_visits_as_many_groups_as_the_hypergeometric_law_says(experts, per_token, ep, group):
    groups = ep // group
    visited = groups * (1 - comb(experts - experts // groups, per_token) / comb(experts, per_token))
    found = copies(job(experts, per_token), ep, group)
    assert found[0, group::group].sum() == pytest.approx(visited * (groups - 1) / groups, rel=1e-12)


def test_a_limit_of_groups_is_that_of_deepseek_v3():
    """At most 4 of 8 nodes [DeepSeek-V3, 2.1.2]: 4 (1 - C(96, 8) / C(128, 8)) of them, 3.63."""
    found = copies(job(256, 8, expert_groups=8, max_groups=4), 64, 8)
    assert found[0, 8::8].sum() * 8 / 7 == pytest.approx(4 * (1 - comb(96, 8) / comb(128, 8)), rel=1e-12)


@pytest.mark.parametrize("most", [8, 4])
def test_bytes_between_groups_are_those_of_the_cost_model_between_nodes(most):
    """It draws a token's nodes independently, expert by expert, which leaves less than 1 % out."""
    moe, plan = job(256, 8, expert_groups=8, max_groups=most), Plan(64, 1, 1, 1, ep=64, expert_group=8)
    sent = volume(moe, plan)
    between = np.arange(64)[:, None] // 8 != np.arange(64) // 8
    over = ((sent.dispatched_bytes + sent.combined_bytes) * between)[0].sum()
    rate, fast = np.array(1e9), np.array(1e30)
    nodes = Network(fast, fast, rate, fast, fast, fast, islands=8)
    of_nodes = replace(case(moe, plan), max_nodes=most)
    passes = 2 * 4  # forward and backward in 4 layers, of which the cost model times one
    assert tensor_seconds(of_nodes, nodes, np.array(0.0)) * 1e9 * 4 == pytest.approx(passes * over, rel=0.01)


def enumerated(weights, per_token):
    """Chance of every choice of experts, in proportion to the product of their weights."""
    choices = list(combinations(range(len(weights)), per_token))
    chance = np.array([prod(weights[expert] for expert in choice) for choice in choices])
    return choices, chance / chance.sum()


def shares(weights, per_token):
    choices, chance = enumerated(weights, per_token)
    return np.array([sum(c for choice, c in zip(choices, chance, strict=True) if e in choice) for e in range(len(weights))])


@pytest.mark.parametrize(("skew", "per_token"), [(0.3, 2), (1.0, 2), (0.7, 3)])
@pytest.mark.parametrize(("ep", "group"), [(8, 1), (4, 1), (4, 2), (2, 1), (8, 4)])
def test_skewed_copies_are_those_of_all_choices_of_different_experts(skew, per_token, ep, group):
    """Of the choices that give each expert its share, those drawn by popularity; the k-th expert is on rank k modulo ep."""
    popular = np.array([(k + 1.0) ** -skew for k in range(8)])
    wanted = per_token * popular / popular.sum()
    close = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15)
    fit = least_squares(lambda logs: shares(np.exp(logs), per_token) - wanted, np.log(popular), **close)
    assert np.abs(fit.fun).max() < 1e-9
    counted = np.zeros((ep, ep))
    for choice, chance in zip(*enumerated(np.exp(fit.x), per_token), strict=True):
        for source in range(ep):
            for way in messages(source, choice, lambda expert: expert % ep, group):
                counted[way] += chance
    assert copies(job(8, per_token, expert_skew=skew), ep, group) == pytest.approx(counted, abs=1e-7)


def test_no_rank_gets_more_copies_of_a_token_than_one():
    """At this skew the first expert would get 1.85 copies of every token: each goes there once, and its second elsewhere."""
    found = copies(job(8, 2, expert_skew=4.0), 8)
    assert found[1:, 0] == pytest.approx(1)
    assert found[0].sum() == pytest.approx(1)


@given(st.data())
def test_loads_of_ranks_with_one_expert_each_are_its_copies(data):
    loads = np.array(data.draw(st.lists(st.floats(0.2, 1.5), min_size=8, max_size=8)))
    loads = loads / loads.mean()
    if loads.max() * 2 / 8 >= 1:
        return
    found = copies(job(8, 2), 8, 1, tuple(loads.tolist()))
    assert found[0, 1:] == pytest.approx(loads[1:] / 4, abs=1e-9)


@pytest.mark.parametrize("skew", [0.0, 1.0])
@pytest.mark.parametrize("group", [1, 2, 8])
def test_time_of_an_exchange_is_that_of_the_busiest_rank_of_the_traffic(skew, group):
    """On an ideal switch the predicted time of tensor parallelism, here of experts alone, is that of the bytes sent."""
    moe, plan = job(16, 4, expert_skew=skew), Plan(16, 1, 1, 1, ep=16, expert_group=group)
    fabric = fabric_of(ElectricalSwitchSpec("switch", "electrical-switch", 400.0), CHIPLET)
    flows = traffic(moe, plan)
    ((rates, _),) = fabric.rate_options(plan, flows)
    predicted = Transformer(moe, ACCELERATORS["h100"]).prediction(plan, rates)
    there = busiest_bytes(flows.at_once(EXCHANGE), 16)
    # Bytes of a way, tens of thousands and more, are whole numbers in the traffic alone.
    assert predicted.tensor == pytest.approx(2 * there / fabric.bytes_per_s, rel=2e-5)
    tokens = volume(moe, plan).micro_batches * 4 * 2 * 128 * 256 * 2
    assert there == pytest.approx(tokens * busiest_copies(moe, 16, group), rel=2e-5)


def test_tokens_go_in_a_byte_and_come_back_in_two():
    plan = Plan(8, 1, 1, 1, ep=8, expert_group=2)
    sent = volume(job(8, 2, dispatch_bytes=1), plan)
    assert np.abs(2 * sent.dispatched_bytes - sent.combined_bytes.T).max() <= 1  # each is rounded to whole bytes
    assert (volume(job(8, 2), plan).dispatched_bytes == sent.combined_bytes.T).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"expert_groups": 3}, "JobSpec.expert_groups must be a divisor of experts (8), not 3"),
        ({"expert_groups": 4, "max_groups": 5}, "JobSpec.max_groups must be from 1 to 4, not 5"),
        ({"expert_groups": 8, "max_groups": 1}, "JobSpec.max_groups must be enough for 2 experts of a token, not 1"),
        ({"expert_groups": 2, "expert_skew": 1.0}, "JobSpec.expert_groups must be 1 beside expert_skew, not 2"),
        ({"dispatch_bytes": 5}, "JobSpec.dispatch_bytes must be from 0 to 4, not 5"),
    ],
)  # fmt: skip
def test_a_wrong_routing_is_said(fields, message):
    with pytest.raises(SpecError) as caught:
        job(8, 2, **fields)
    assert str(caught.value) == message


def test_groups_divide_the_ranks_of_an_ep_group():
    with pytest.raises(SpecError, match=r"^Plan\.expert_group must be a divisor of ep \(8\), not 3$"):
        Plan(8, 1, 1, 1, ep=8, expert_group=3)
    assert [plan.expert_group for plan in Plan(8, 1, 1, 1, ep=8).grouped] == [1, 2, 4]
    dense = Plan(8, 1, 1, 1)
    assert dense.grouped == [dense] == [replace(dense, expert_group=1)]
