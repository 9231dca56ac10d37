"""Which GPU each rank runs on: the best of the structured orders, and on a ring whatever a search finds beyond them.

Structured orders nest (tp, dp, pp), folded where a ring closes. Every search starts there: random ones were up to 14 %
worse at 64 ranks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations, product
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.mapping.traffic import (
    Dimension,
    Traffic,
    bound_byte_hops,
    byte_hops,
    ring_load,
    ring_steps,
)
from lightfabric.placement.plan import Plan

Objective = Literal["bottleneck", "byte-hops", "wavelengths"]
"""What an order keeps low: time through the fabric's bottleneck, bytes times ring segments, pairs over a ring segment."""
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

_LEAST_TO_FOLD = 4  # folding a ring of three or fewer shortens nothing

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


def extents(plan: Plan) -> dict[Dimension, int]:
    """Length of each dimension longer than 1, in the order of ranks from the innermost; cp goes with tp, around it."""
    lengths: dict[Dimension, int] = {"tp": plan.cp * plan.tp, "pp": plan.pp, "dp": plan.dp}
    return {name: length for name, length in lengths.items() if length > 1}


def strides(plan: Plan) -> Iterator[dict[Dimension, int]]:
    """GPUs between neighbours along each dimension, for every nesting; dimensions of 1 are left out."""
    lengths = extents(plan)
    for nesting in permutations(lengths):
        steps = np.cumprod([1, *(lengths[name] for name in nesting)])
        yield {name: int(step) for name, step in zip(nesting, steps[:-1], strict=True)}


def fold(length: int) -> NDArray[np.int32]:
    """Positions of a ring's members 0, 1, 2, ... on a line such that neighbours are at most two apart.

    Examples:
        >>> fold(6).tolist()
        [0, 2, 4, 5, 3, 1]

    """
    member = np.arange(length, dtype=np.int32)
    return np.where(2 * member < length, 2 * member, 2 * (length - member) - 1).astype(np.int32)


def orders(plan: Plan, folds: bool) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Name and ``gpu_of_rank`` of every nesting of the dimensions, with every choice of folded rings if ``folds``."""
    lengths = extents(plan)
    # A pipeline is a chain, and folding shortens only the way back of a ring.
    rings: list[Dimension] = [name for name in lengths if folds and name != "pp" and lengths[name] >= _LEAST_TO_FOLD]
    for step in strides(plan):
        for choice in product((False, True), repeat=len(rings)):
            folded: set[Dimension] = {name for name, chosen in zip(rings, choice, strict=True) if chosen}
            name = ",".join(f"fold({d})" if d in folded else d for d in step)
            yield name or "tp", _gpu_of_rank(plan, step, folded)


def _gpu_of_rank(plan: Plan, step: dict[Dimension, int], folded: set[Dimension]) -> NDArray[np.int32]:
    lengths: tuple[tuple[Dimension, int], ...] = (("dp", plan.dp), ("pp", plan.pp), ("tp", plan.cp * plan.tp))
    axes = [(fold(length) if name in folded else np.arange(length)) * step.get(name, 0) for name, length in lengths]
    return (axes[0][:, None, None] + axes[1][:, None] + axes[2]).ravel().astype(np.int32)


def coordinates(plan: Plan, gpu_of_rank: NDArray[np.int32]) -> dict[str, NDArray[np.int32]]:
    """``[dimension][gpu]``: where the GPU's rank is along each dimension, cp being one if it is above 1.

    Examples:
        >>> coordinates(Plan(1, 2, 2, 1), np.array([2, 0, 1, 3], np.int32))["pp"].tolist()
        [0, 1, 0, 1]

    """
    rank = np.argsort(gpu_of_rank).astype(np.int32)
    inner = plan.tp * plan.cp
    found = {"tp": rank % plan.tp, "pp": rank // inner % plan.pp, "dp": rank // (inner * plan.pp)}
    return found | ({"cp": rank // plan.tp % plan.cp} if plan.cp > 1 else {})


Cost = tuple[float, ...]


class Bottleneck(Protocol):
    """What an order needs to know of a fabric; ``placement.fabric`` has it of each kind."""

    @property
    def folds(self) -> bool:
        """Whether folded rings are worth a try."""
        ...

    def bottleneck_seconds(self, flows: Traffic, gpus: int) -> float:
        """Time through the bottleneck, all at once."""
        ...

    def bound_seconds(self, flows: Traffic, gpus: int) -> float:
        """What no order can be below."""
        ...

    def exchanged(self, flows: Traffic, gpu_of_rank: NDArray[np.int32], exchanges: int) -> NDArray[np.int32] | None:
        """A better order by exchanges of ranks, None where none can be."""
        ...


def best_order(fabric: Bottleneck, plan: Plan, flows: Traffic, objective: Objective = "bottleneck") -> Order:
    """The structured order that has least of the objective, then of the others. O(orders x pairs)."""
    cost = _cost(fabric, flows, objective)
    name, gpu_of_rank = min(orders(plan, folds=fabric.folds), key=lambda order: cost(order[1]))
    return _order(fabric, flows, name, gpu_of_rank)


def searched_order(fabric: Bottleneck, flows: Traffic, start: Order, objective: Objective) -> Order:
    """An order with no more of the objective than ``start``, which it is if none is found; the same for the same input.

    A ring's segments are searched; where all GPUs are equally near, for byte-hops only.
    """
    if objective == "byte-hops":
        # The search brings compiled code and scipy along, for which most commands need not wait.
        from lightfabric.placement.mapping.refine import nearer

        found = nearer(flows, start.gpu_of_rank, SWAPS)
    else:
        weighed = flows if objective == "bottleneck" else _pairs(flows, len(start.gpu_of_rank))
        found = fabric.exchanged(weighed, start.gpu_of_rank, EXCHANGES)
    if found is None:
        return start
    cost = _cost(fabric, flows, objective)
    # An order that is no better is not taken, since it would change placements for nothing.
    if cost(found)[0] >= cost(start.gpu_of_rank)[0]:
        return start
    return _order(fabric, flows, f"{objective} search", found)


def _cost(fabric: Bottleneck, flows: Traffic, objective: Objective) -> Callable[[NDArray[np.int32]], Cost]:
    def cost(gpu_of_rank: NDArray[np.int32]) -> Cost:
        placed, gpus = flows.placed(gpu_of_rank), len(gpu_of_rank)
        costs: dict[Objective, float] = {
            "bottleneck": fabric.bottleneck_seconds(placed, gpus),
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


def _order(fabric: Bottleneck, flows: Traffic, name: str, gpu_of_rank: NDArray[np.int32]) -> Order:
    placed, gpus = flows.placed(gpu_of_rank), len(gpu_of_rank)
    seconds = fabric.bottleneck_seconds(placed, gpus)
    bound = fabric.bound_seconds(flows, gpus)
    return Order(name, gpu_of_rank, seconds, bound, byte_hops(placed, gpus), bound_byte_hops(flows, gpus))
