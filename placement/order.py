"""Which GPU each rank runs on: the best of the structured orders, and on a ring whatever a search finds beyond them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import ChipletSpec, FabricSpec, SipRingSpec
from lightfabric.placement.mapping import (
    Traffic,
    bottleneck_seconds,
    bound_bottleneck_seconds,
    bound_byte_hops,
    byte_hops,
    orders,
    ring_load,
    ring_steps,
)
from lightfabric.placement.plan import Plan

Objective = Literal["bottleneck", "byte-hops", "wavelengths"]
"""What an order keeps low: time through the fabric's bottleneck, bytes times ring segments, pairs over a ring segment."""
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

EXCHANGES, SWAPS = 20_000, 2_000
"""How long a search tries: exchanges of two ranks, and iterations of the quadratic assignment."""


@dataclass(frozen=True)
class Order:
    """Rank r runs on GPU ``gpu_of_rank[r]``; ``name`` lists the dimensions from the innermost.

    ``seconds`` moves the whole iteration's bytes through the fabric's bottleneck, all at once; no order can be below
    ``bound_seconds``, the busiest GPU's bytes at the GPU's full rate. ``byte_hops`` are bytes times ring segments, and no
    order can be below ``bound_byte_hops``.
    """

    name: str
    gpu_of_rank: NDArray[np.int32]
    seconds: float
    bound_seconds: float
    byte_hops: int
    bound_byte_hops: int


Cost = tuple[float, ...]


def best_order(
    fabric: FabricSpec,
    chiplet: ChipletSpec,
    efficiency: float,
    plan: Plan,
    flows: Traffic,
    objective: Objective = "bottleneck",
) -> Order:
    """The structured order that has least of the objective, then of the others. O(orders x pairs)."""
    cost = _cost(fabric, chiplet, efficiency, flows, objective)
    name, gpu_of_rank = min(orders(plan, folds=isinstance(fabric, SipRingSpec)), key=lambda order: cost(order[1]))
    return _order(fabric, chiplet, efficiency, flows, name, gpu_of_rank)


def searched_order(
    fabric: FabricSpec, chiplet: ChipletSpec, efficiency: float, flows: Traffic, start: Order, objective: Objective
) -> Order:
    """An order with no more of the objective than ``start``, which it is if none is found; the same for the same input.

    A ring's segments are searched; where all GPUs are equally near, for byte-hops only.
    """
    from lightfabric.placement.refine import nearer, refined

    if objective == "byte-hops":
        found = nearer(flows, start.gpu_of_rank, SWAPS)
    elif isinstance(fabric, SipRingSpec):
        weighed = flows if objective == "bottleneck" else _pairs(flows, len(start.gpu_of_rank))
        found = refined(weighed, start.gpu_of_rank, EXCHANGES, np.random.default_rng(1))
    else:
        return start
    cost = _cost(fabric, chiplet, efficiency, flows, objective)
    if cost(found)[0] >= cost(start.gpu_of_rank)[0]:
        return start
    return _order(fabric, chiplet, efficiency, flows, f"{objective} search", found)


def _cost(
    fabric: FabricSpec, chiplet: ChipletSpec, efficiency: float, flows: Traffic, objective: Objective
) -> Callable[[NDArray[np.int32]], Cost]:
    def cost(gpu_of_rank: NDArray[np.int32]) -> Cost:
        placed, gpus = flows.placed(gpu_of_rank), len(gpu_of_rank)
        costs: dict[Objective, float] = {
            "bottleneck": bottleneck_seconds(fabric, chiplet, efficiency, placed, gpus),
            "byte-hops": byte_hops(placed, gpus),
        }
        if objective == "wavelengths":
            costs[objective] = pairs_over_a_segment(placed, gpus)
        longest = int(np.abs(ring_steps(placed.source, placed.destination, gpus)).max(initial=0))
        return costs.pop(objective), *costs.values(), longest

    return cost


def pairs_over_a_segment(placed: Traffic, gpus: int) -> int:
    """Pairs of GPUs that talk across the fullest segment of a ring: no fewer wavelengths give each its own."""
    return int(ring_load(_pairs(placed, gpus), gpus).max(initial=0))


def _pairs(flows: Traffic, gpus: int) -> Traffic:
    """A byte for each pair that talks."""
    _, first = np.unique(flows.source.astype(np.int64) * gpus + flows.destination, return_index=True)
    each = np.ones(len(first), np.int64)
    return Traffic(flows.source[first], flows.destination[first], each, flows.part[first])


def _order(
    fabric: FabricSpec, chiplet: ChipletSpec, efficiency: float, flows: Traffic, name: str, gpu_of_rank: NDArray[np.int32]
) -> Order:
    placed, gpus = flows.placed(gpu_of_rank), len(gpu_of_rank)
    seconds = bottleneck_seconds(fabric, chiplet, efficiency, placed, gpus)
    bound = bound_bottleneck_seconds(fabric, chiplet, efficiency, flows, gpus)
    return Order(name, gpu_of_rank, seconds, bound, byte_hops(placed, gpus), bound_byte_hops(flows, gpus))
