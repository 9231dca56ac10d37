"""Placement of a job on a fabric: parallelism, ranks onto GPUs and optical circuits, chosen together.

CODE FLOW: ``search`` ranks plans with each plan's estimated rates on this fabric; those that may be the fastest get their
best order of ranks and, on optical fabrics, circuits, for each size of the groups in which tokens are copied to experts;
the rates that these circuits really give decide.
"""

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits
from lightfabric.model.spec import (
    SEARCHED,
    AcceleratorSpec,
    JobSpec,
    NetworkJobSpec,
    PlanSpec,
)
from lightfabric.placement.collective.relay import Relays
from lightfabric.placement.cost.prediction import Prediction, Rates
from lightfabric.placement.fabric.fabric import Fabric, most_moved, rate_of
from lightfabric.placement.fabric.relaying import at_once_seconds, relaying
from lightfabric.placement.graph.fold import Foldable
from lightfabric.placement.graph.neighbour import ByNeighbours
from lightfabric.placement.job.kind import Workload, workload
from lightfabric.placement.mapping.order import Objective, Order, best_order, pairs_over_a_segment, searched_order
from lightfabric.placement.mapping.traffic import (
    EXCHANGE,
    Traffic,
    bound_byte_hops,
    byte_hops,
    degrees,
    in_rings,
    ring_steps,
)
from lightfabric.placement.plan import Plan

CANDIDATES = 6
"""Placements among which one may choose."""
HARDLY_LONGER = 1.03
"""An exchange that is passed on takes at most so many times what fluids take at once. Flits do not reach that: what waits
for others at relays takes 1.5 times as long and more at 64 GPUs (docs/add-a-fabric.md)."""
RINGS_APART = 1.01
"""Estimates count sums of gradients of experts and of all else one after the other, where circuits for both gain up to so
much by carrying them at once."""
SLOWER_IN_A_ROW = 16
"""Plans in a row that are no faster than the fastest that waits, which then is next though estimates leave open others."""


@dataclass(frozen=True)
class Placement:
    """Where a job runs, how long an iteration should take and why.

    Rank r runs on GPU ``gpu_of_rank[r]``, and ``traffic`` is that between GPUs: ``gpus_by_degree[k]`` GPUs send to k others;
    ``bytes_by_distance[k]`` go k segments along a ring of all GPUs, whatever the fabric. ``order.bound_seconds`` and
    ``compute_bound_seconds`` bound communication and iteration from below. Exchanges are passed on
    by ``relays``, or begin at once if there are none.
    """

    order: Order
    prediction: Prediction
    rates: Rates
    circuits: Circuits | None
    gpus_by_degree: NDArray[np.int64]
    bytes_by_distance: NDArray[np.int64]
    compute_bound_seconds: float
    traffic: Traffic
    relays: Relays | None = None

    @property
    def plan(self) -> Plan:
        """How the job is cut."""
        assert self.prediction.plan is not None, "it is of one plan"
        return self.prediction.plan

    @property
    def gpu_of_rank(self) -> NDArray[np.int32]:
        """The permutation of ranks onto GPUs."""
        return self.order.gpu_of_rank

    def graphs(self, asked: Foldable) -> Foldable:
        """What makes the task graphs of the job with its exchanges as they go here."""
        return ByNeighbours(asked, self.relays) if self.relays else asked

    @property
    def nodes(self) -> int:
        """GPUs times the configurations of their circuits."""
        return self.plan.gpus * (self.circuits.configurations if self.circuits else 1)


def candidates(
    job: JobSpec | NetworkJobSpec,
    accelerator: AcceleratorSpec,
    fabric: Fabric,
    gpus: int,
    pinned: PlanSpec = SEARCHED,
) -> list[Placement]:
    """Placements of the best few plans, that with the least predicted iteration time first, as ``ranked`` finds them."""
    return list(islice(ranked(job, accelerator, fabric, gpus, pinned), CANDIDATES))


def ranked(
    job: JobSpec | NetworkJobSpec,
    accelerator: AcceleratorSpec,
    fabric: Fabric,
    gpus: int,
    pinned: PlanSpec = SEARCHED,
) -> Iterator[Placement]:
    """Placements of plans that have the values that are ``pinned``, by rising predicted iteration time.

    What is estimated of a plan before it is placed bounds its time from below, so no more plans are placed than may be next.
    DoesNotFit if no plan fits the memory; ValueError with the reason of the best plan if the fabric can serve none.
    """
    _ = fabric.bytes_per_s  # a chiplet without ports enough is said before any plan is tried
    asked, reason, served, slower = workload(job, accelerator, pinned), "", False, 0
    waiting, has_experts = list[Placement](), isinstance(job, JobSpec) and job.model.experts > 0
    for plan, estimated_s in asked.plans(gpus, fabric.estimated_rates):
        least_s = estimated_s / RINGS_APART if has_experts else estimated_s
        while waiting and (_seconds(waiting[0]) <= least_s or slower >= SLOWER_IN_A_ROW):
            yield waiting.pop(0)
            slower = 0
        placed: list[Placement] = []
        for grouped in asked.grouped(plan):
            try:
                placed.append(_placed(asked, grouped, fabric))
            except ValueError as error:
                # Plans come best first, so the first reason is that of the plan one would have wanted.
                reason = reason or str(error)
        if placed:
            best = _exchanged(asked, _waited(asked, min(placed, key=_seconds), fabric), fabric)
            insort(waiting, best, key=_seconds)
            served = True
            slower = 0 if waiting[0] is best else slower + 1
    if not served:
        raise ValueError(f"{fabric.name} cannot serve {gpus} GPUs: {reason}")
    yield from waiting


def ordered(
    job: JobSpec | NetworkJobSpec, accelerator: AcceleratorSpec, fabric: Fabric, placement: Placement, objective: Objective
) -> Placement:
    """The placement of the same plan with ranks ordered for an objective alone, or as it is if a search finds none better.

    The search begins at the best structured order. ValueError if the fabric cannot serve that order.
    """
    cost: dict[Objective, Callable[[Placement], float]] = {
        "bottleneck": lambda found: found.order.seconds,
        "byte-hops": lambda found: found.order.byte_hops,
        "wavelengths": lambda found: pairs_over_a_segment(found.traffic, found.plan.gpus),
    }
    # Rings of a fabric may join other pairs than the search saw, so what was found is compared as it is served.
    asked = workload(job, accelerator)
    found = _exchanged(asked, _waited(asked, _placed(asked, placement.plan, fabric, objective), fabric), fabric)
    return min(placement, found, key=cost[objective])


def _seconds(placement: Placement) -> float:
    return placement.prediction.total


def options(
    job: JobSpec | NetworkJobSpec,
    accelerator: AcceleratorSpec,
    fabric: Fabric,
    gpus: int,
) -> tuple[list[Prediction], list[Prediction]]:
    """The fastest of all plans there are on a fabric, and those that nothing beats in time, memory and traffic.

    Times are those of ``Fabric.estimated_rates``. The task graph does not carry them all: ``place`` chooses among those it
    does.
    """
    return workload(job, accelerator).options(gpus, fabric.estimated_rates)


def _placed(asked: Workload, plan: Plan, fabric: Fabric, objective: Objective | None = None) -> Placement:
    flows = asked.traffic(plan)
    order = best_order(fabric, plan, flows, objective or "bottleneck")
    if objective is not None:
        order = searched_order(fabric, flows, order, objective)
    placed = flows.placed(order.gpu_of_rank)
    options = fabric.rate_options(plan, placed)
    dealt = in_rings(placed, fabric.rings, plan.gpus)
    if asked.waits:
        options = [(replace(rates, **fabric.waits(plan.gpus, dealt, circuits)), circuits) for rates, circuits in options]
    predicted = [
        (_with_light(asked, asked.prediction(plan, rates), fabric, placed, circuits), rates, circuits)
        for rates, circuits in options
    ]
    # Which circuits are best depends on how a plan's traffic is mixed, so each option is predicted.
    prediction, rates, circuits = min(predicted, key=lambda option: option[0].total)
    if dealt is not placed:
        # Which pairs the rings of a fabric join depends on where ranks are, so what they cost is known only now.
        order = replace(order, byte_hops=byte_hops(dealt, plan.gpus), bound_byte_hops=bound_byte_hops(dealt, plan.gpus))
    return Placement(
        order=order,
        prediction=prediction,
        rates=rates,
        circuits=circuits,
        gpus_by_degree=np.bincount(degrees(dealt, plan.gpus)),
        bytes_by_distance=_bytes_by_distance(dealt, plan.gpus),
        compute_bound_seconds=prediction.compute + prediction.optimiser,
        traffic=dealt,
    )


def _waited(asked: Workload, placement: Placement, fabric: Fabric) -> Placement:
    """The placement with what messages are on their way however small they are, in its rates and its prediction."""
    if asked.waits:
        return placement
    return _at_rates(
        asked,
        placement,
        replace(placement.rates, **fabric.waits(placement.plan.gpus, placement.traffic, placement.circuits)),
    )


def _at_rates(asked: Workload, placement: Placement, rates: Rates) -> Placement:
    reconfiguration = placement.prediction.reconfiguration
    predicted = replace(asked.prediction(placement.plan, rates), reconfiguration=reconfiguration)
    return replace(placement, rates=rates, prediction=predicted)


def _exchanged(asked: Workload, placement: Placement, fabric: Fabric) -> Placement:
    """The placement with exchanges that members pass on, if these take hardly longer than at once.

    Not where each message waits, for small ones pay for each relay, nor where keys and values go round rings, nor before the
    RTL is measured, which says what relays take.
    """
    plan, rates, circuits = placement.plan, placement.rates, placement.circuits
    flows, repeats = placement.traffic.of(EXCHANGE), asked.repeats(plan)
    turns = circuits is not None and circuits.configurations > 1
    if asked.waits or plan.cp > 1 or not len(flows.part) or turns or fabric.timing is None:
        return placement
    moved, each_way = most_moved(placement.traffic.at_once(EXCHANGE), EXCHANGE), placement.prediction.exchanges / 2
    found = relaying(fabric, repeats, placement.gpu_of_rank, placement.traffic, circuits)
    if repeats == (1, 1):
        # All groups of several are alike, and what one holds up is another's; of one that is all GPUs little is alike.
        seconds = at_once_seconds(fabric, plan.gpus, flows, circuits) - rates.expert_wait
        rates = replace(rates, expert=rate_of(moved, seconds))
    at_once_s = moved / rates.expert + each_way * rates.expert_wait
    if found is None or found.seconds + each_way * found.wait_seconds > HARDLY_LONGER * at_once_s:
        return _at_rates(asked, placement, rates)
    rates = replace(rates, expert=rate_of(moved, found.seconds), expert_wait=found.wait_seconds)
    return replace(_at_rates(asked, placement, rates), relays=found.relays, circuits=found.circuits)


def _with_light(
    asked: Workload, found: Prediction, fabric: Fabric, placed: Traffic, circuits: Circuits | None
) -> Prediction:
    """The prediction with what ports wait for light."""
    assert found.plan is not None, "it is of one plan"
    micro_batches = asked.samples / (found.plan.replicas * found.plan.micro_batch)
    return replace(found, reconfiguration=fabric.reconfiguration_seconds(found, placed, circuits, micro_batches))


def _bytes_by_distance(placed: Traffic, gpus: int) -> NDArray[np.int64]:
    distance = np.abs(ring_steps(placed.source, placed.destination, gpus))
    total = np.zeros(gpus // 2 + 1, np.int64)
    np.add.at(total, distance, placed.size_bytes)
    return total
