"""``lightfabric bench mapping``: what orders of ranks cost on a ring, against the best of the structured ones and bounds."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import ACCELERATORS, JobSpec, NetworkJobSpec
from lightfabric.placement.job.kind import workload
from lightfabric.placement.mapping.order import orders
from lightfabric.placement.mapping.refine import nearer, refined
from lightfabric.placement.mapping.traffic import Traffic, bound_byte_hops, byte_hops, ring_load, traffic
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.preset import MODELS
from lightfabric.placement.workload.routing import zipf

GPT = ((1, 8, 8), (2, 8, 4), (4, 4, 16), (8, 8, 8))
"""(dp, tp, pp) of GPT-3."""
EXPERTS = (("mixtral-8x7b", Plan(8, 4, 2, 1, "selective", ep=8)), ("deepseek-v3", Plan(32, 2, 1, 1, "selective", ep=32)),
           ("deepseek-v3", Plan(64, 1, 4, 1, "selective", ep=64)))  # fmt: skip
SKEW = 0.7
"""Exponent of the popularity of experts, between even and Zipf's law."""
RECOMMENDERS = (64, 128)
"""GPUs of MLPerf's recommender, a batch of 65536."""
EXCHANGES, SWAPS = 20_000, 4_000


def measure() -> list[dict[str, Any]]:
    """A row per job: byte-hops, or bytes on the fullest segment, of the best structured order and of ours."""
    return [*_dense(), *_all_to_all()]


def _dense() -> Iterator[dict[str, Any]]:
    job = JobSpec(MODELS["gpt3-175b"], 1536)
    for dp, tp, pp in GPT:
        plan = Plan(dp, tp, pp, 1, "selective")
        flows = traffic(job, plan)
        known = {name: byte_hops(flows.placed(order), plan.gpus) for name, order in orders(plan, folds=False)}
        best = min(known, key=lambda name: known[name])
        found = nearer(flows, dict(orders(plan, folds=False))[best], SWAPS)
        ours, bound = byte_hops(flows.placed(found), plan.gpus), bound_byte_hops(flows, plan.gpus)
        yield _row(f"gpt3-175b, dp {dp} tp {tp} pp {pp}", plan.gpus, "byte-hops", known[best], ours, bound)


def _all_to_all() -> Iterator[dict[str, Any]]:
    for name, plan in EXPERTS:
        job = JobSpec(replace(MODELS[name], sequence=4096), 1024)
        loads = zipf(job.model.experts, SKEW).reshape(plan.ep, -1).sum(axis=1) * plan.ep
        flows = traffic(job, plan, loads.tolist())
        yield _fullest(f"{name}, dp {plan.dp} tp {plan.tp} pp {plan.pp} ep {plan.ep}", flows, plan)
    for gpus in RECOMMENDERS:
        plan = Plan(gpus, 1, 1, 1)
        flows = workload(NetworkJobSpec("dlrm", 65_536, "fp32"), ACCELERATORS["h100"]).traffic(plan)
        yield _fullest("dlrm", flows, plan)


def _fullest(name: str, flows: Traffic, plan: Plan) -> dict[str, Any]:
    best = min((order for _, order in orders(plan, folds=True)), key=lambda order: _load(flows, order))
    found = refined(flows, best, EXCHANGES, np.random.default_rng(1))
    bound = -(-bound_byte_hops(flows, plan.gpus) // (2 * plan.gpus))
    return _row(name, plan.gpus, "bytes on the fullest segment", _load(flows, best), _load(flows, found), bound)


def _load(flows: Traffic, order: NDArray[np.int32]) -> int:
    return int(ring_load(flows.placed(order), len(order)).max())


def _row(job: str, gpus: int, unit: str, structured: int, ours: int, bound: int) -> dict[str, Any]:
    values = {"structured": structured, "ours": ours, "lower_bound": bound}
    return {"job": job, "gpus": gpus, "unit": unit, **values, "ratio": ours / structured}
