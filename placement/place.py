"""Placement of a job on a fabric: parallelism, ranks onto GPUs and optical circuits, chosen together.

CODE FLOW: ``search`` ranks plans with each plan's estimated rates on this fabric; the best few that differ get their best
order of ranks and, on optical fabrics, circuits; the rates that these circuits really give decide.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, permutations
from math import inf

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.network import Circuits, Pair
from lightfabric.model.spec import (
    AcceleratorSpec,
    ChipletSpec,
    ElectricalClusterSpec,
    FabricSpec,
    JobSpec,
    NetworkJobSpec,
    SipOcsSpec,
    SipRingSpec,
)
from lightfabric.placement.case import Cases
from lightfabric.placement.circuit import assign
from lightfabric.placement.data_parallel import data_parallel_plan, network_memory, network_seconds, network_traffic
from lightfabric.placement.mapping import (
    DATA,
    EXCHANGE,
    PIPELINE,
    TENSOR,
    Dimension,
    Traffic,
    bottleneck_seconds,
    degrees,
    gpu_bytes_per_s,
    ring_steps,
    traffic,
)
from lightfabric.placement.order import Objective, Order, best_order, searched_order
from lightfabric.placement.search import Option, Ranked, Rates, Seconds, iteration_seconds, search, whole_space
from lightfabric.placement.step import sent_bytes
from lightfabric.placement.workload import Memory, Plan, peak_memory

DIMENSIONS: tuple[Dimension, ...] = ("tp", "pp", "dp")
MOST_RELAYS = 1 << 21
PLANS_TRIED = 6
"""Plans of different degrees or virtual stages that get an order and circuits; the estimate that ranks them is close."""


@dataclass(frozen=True)
class Placement:
    """Where a job runs, how long an iteration should take and why.

    Rank r runs on GPU ``gpu_of_rank[r]``, and ``traffic`` is that between GPUs: ``gpus_by_degree[k]`` GPUs send to k others;
    ``bytes_by_distance[k]`` go k segments along a ring of all GPUs, whatever the fabric. ``order.bound_seconds`` and
    ``compute_bound_seconds`` bound communication and iteration from below.
    """

    plan: Plan
    order: Order
    memory: Memory
    seconds: Seconds
    rates: Rates
    circuits: Circuits | None
    gpus_by_degree: NDArray[np.int64]
    bytes_by_distance: NDArray[np.int64]
    compute_bound_seconds: float
    traffic: Traffic

    @property
    def gpu_of_rank(self) -> NDArray[np.int32]:
        """The permutation of ranks onto GPUs."""
        return self.order.gpu_of_rank


def place(
    job: JobSpec | NetworkJobSpec,
    accelerator: AcceleratorSpec,
    fabric: FabricSpec,
    chiplet: ChipletSpec,
    gpus: int,
    *,
    efficiency: float,
    objective: Objective | None = None,
) -> Placement:
    """The placement with the least predicted iteration time: the first of ``candidates``."""
    return candidates(job, accelerator, fabric, chiplet, gpus, efficiency=efficiency, objective=objective)[0]


def candidates(
    job: JobSpec | NetworkJobSpec,
    accelerator: AcceleratorSpec,
    fabric: FabricSpec,
    chiplet: ChipletSpec,
    gpus: int,
    *,
    efficiency: float,
    objective: Objective | None = None,
) -> list[Placement]:
    """Placements of the best few plans, that with the least predicted iteration time first.

    ``efficiency`` is payload rate over raw line rate as measured, and applies to every link of every fabric. With an
    ``objective`` ranks are ordered for it alone, by a search that begins at the best structured order. DoesNotFit if no plan
    fits the memory; ValueError with the reason of the best plan if the fabric can serve none.
    """
    bytes_per_s = gpu_bytes_per_s(fabric, chiplet, efficiency)
    rates = partial(estimated_rates, fabric, efficiency, bytes_per_s)
    found: list[Placement] = []
    reason = ""
    for cut in _cuts(job, accelerator, gpus, rates):
        try:
            found.append(_placed(cut, fabric, chiplet, efficiency, objective))
        except ValueError as error:
            reason = reason or str(error)
        if len(found) == PLANS_TRIED:
            break
    if not found:
        raise ValueError(f"{fabric.name} cannot serve {gpus} GPUs: {reason}")
    return sorted(found, key=lambda placement: placement.seconds.total)


@dataclass(frozen=True)
class _Cut:
    """A job as a plan cuts it, its traffic between ranks, and its prediction at given rates."""

    plan: Plan
    memory: Memory
    flows: Traffic
    seconds: Callable[[Rates], Seconds]


def _cuts(
    job: JobSpec | NetworkJobSpec, accelerator: AcceleratorSpec, gpus: int, rates: Callable[[Cases], Rates]
) -> Iterator[_Cut]:
    """Of the best plans those that differ, the best first by estimated ``rates``; a network has one plan."""
    if isinstance(job, NetworkJobSpec):
        plan = data_parallel_plan(job, accelerator, gpus)
        predict = partial(network_seconds, job, accelerator, plan)
        yield _Cut(plan, network_memory(job, plan), network_traffic(job, plan), predict)
        return
    for entry in _different(search(job, accelerator, gpus, rates)):
        plan, predict = entry.plan, partial(iteration_seconds, job, accelerator, entry.plan)
        yield _Cut(plan, peak_memory(job, plan), traffic(job, plan), predict)


def options(
    job: JobSpec | NetworkJobSpec,
    accelerator: AcceleratorSpec,
    fabric: FabricSpec,
    chiplet: ChipletSpec,
    gpus: int,
    efficiency: float,
) -> tuple[list[Option], list[Option]]:
    """Of all plans there are on a fabric the fastest, and those that nothing beats in time, memory and traffic.

    Of a network none, it has one. Times are those of ``estimated_rates``. The task graph does not carry them all: ``place``
    chooses among those it does.
    """
    if isinstance(job, NetworkJobSpec):
        return [], []
    bytes_per_s = gpu_bytes_per_s(fabric, chiplet, efficiency)
    return whole_space(job, accelerator, gpus, partial(estimated_rates, fabric, efficiency, bytes_per_s))


def _different(ranked: Iterable[Ranked]) -> Iterator[Ranked]:
    """The best of each (dp, tp, pp, ep, virtual stages)."""
    seen: set[tuple[int, ...]] = set()
    for entry in ranked:
        key = (*entry.plan.degrees, entry.plan.ep, entry.plan.virtual_stages)
        if key not in seen:
            seen.add(key)
            yield entry


def estimated_rates(fabric: FabricSpec, efficiency: float, bytes_per_s: float, plans: Cases) -> Rates:
    """Rates of plans from closed forms, before ranks are ordered and circuits assigned; at the best nesting, ``[plan]``.

    ``bytes_per_s`` is what a GPU sends in all. On a ring a dimension of stride k loads every segment with k pairs, and
    relayed parts share its wavelengths in turn; behind OCSs a rank has one tensor, two pipeline and one data circuit, and
    shares its ports so that the sum of the parts' times is least: in proportion to the square root of the bytes.
    """
    sizes = sent_bytes(plans)
    if isinstance(fabric, SipOcsSpec):
        return _shared_rates(sizes, bytes_per_s)
    if not isinstance(fabric, ElectricalClusterSpec | SipRingSpec):
        return Rates(bytes_per_s, bytes_per_s, bytes_per_s)
    lengths: dict[Dimension, NDArray[np.int64]] = {"tp": plans.tp * plans.cp, "pp": plans.pp, "dp": plans.dp}
    best: list[NDArray[np.float64]] = []
    for nesting in permutations(lengths):
        steps = np.cumprod([np.ones_like(plans.tp), *(lengths[name] for name in nesting[:-1])], axis=0)
        step = dict(zip(nesting, steps, strict=True))
        if isinstance(fabric, SipRingSpec):
            rates = [bytes_per_s / 2 / step[name] for name in DIMENSIONS]
        else:
            rates = [_cluster_rate(fabric, efficiency, lengths[name] * step[name], plans) for name in DIMENSIONS]
        costs = [np.sum([size / rate for size, rate in zip(sizes, rates, strict=True)], axis=0), *rates]
        better = costs[0] < best[0] if best else np.ones(len(plans), bool)
        best = [np.where(better, new, old) for new, old in zip(costs, best or costs, strict=True)]
    return Rates(*best[1:])


def _cluster_rate(
    fabric: ElectricalClusterSpec, efficiency: float, span: NDArray[np.int64], plans: Cases
) -> NDArray[np.float64]:
    """That of the island if each ring or chain is inside one, else that of the NIC."""
    nic, island = (gbps * 1e9 / 8 * efficiency for gbps in (fabric.nic_gbps, fabric.island_gbps))
    gpus = plans.dp * plans.tp * plans.pp * plans.cp
    inside = (gpus <= fabric.island_gpus) | ((span <= fabric.island_gpus) & (fabric.island_gpus % span == 0))
    return np.where(inside, island, nic)


def _shared_rates(sizes: tuple[NDArray[np.float64], ...], bytes_per_s: float) -> Rates:
    tensor, pipeline, data = (np.sqrt(size) for size in sizes)
    weight = np.maximum(tensor + 2 * pipeline + data, 1)
    return Rates(*(np.where(part > 0, bytes_per_s * part / weight, inf) for part in (tensor, pipeline, data)))


def _placed(
    cut: _Cut, fabric: FabricSpec, chiplet: ChipletSpec, efficiency: float, objective: Objective | None
) -> Placement:
    plan, flows = cut.plan, cut.flows
    order = best_order(fabric, chiplet, efficiency, plan, flows, objective or "bottleneck")
    if objective is not None:
        order = searched_order(fabric, chiplet, efficiency, flows, order, objective)
    placed = flows.placed(order.gpu_of_rank)
    options = _rate_options(fabric, chiplet, efficiency, plan, placed)
    predicted = [(cut.seconds(rates), rates, circuits) for rates, circuits in options]
    seconds, rates, circuits = min(predicted, key=lambda option: option[0].total)
    return Placement(
        plan=plan,
        order=order,
        memory=cut.memory,
        seconds=seconds,
        rates=rates,
        circuits=circuits,
        gpus_by_degree=np.bincount(degrees(placed, plan.gpus)),
        bytes_by_distance=_bytes_by_distance(placed, plan.gpus),
        compute_bound_seconds=seconds.compute + seconds.optimiser,
        traffic=placed,
    )


def _rate_options(
    fabric: FabricSpec, chiplet: ChipletSpec, efficiency: float, plan: Plan, placed: Traffic
) -> list[tuple[Rates, Circuits | None]]:
    """Ways to serve the traffic: one if electrical; circuits shared by demand and by its square root if optical.

    On a ring also circuits between neighbours only: relayed traffic then takes turns on all wavelengths, where circuits
    of their own for all pairs divide them for good. Left out where relays would be too many to list.
    """
    if not isinstance(fabric, SipRingSpec | SipOcsSpec):
        return [(_electrical_rates(fabric, chiplet, efficiency, plan, placed), None)]
    lane_gbps = chiplet.wavelength_gbps if isinstance(fabric, SipRingSpec) else chiplet.gbps_per_port
    lane = lane_gbps * 1e9 / 8 * efficiency
    demands = _demands(fabric, placed, plan.gpus)
    found = [assign(fabric, chiplet, plan.gpus, demand) for demand in demands]
    segments = np.abs(ring_steps(placed.source, placed.destination, plan.gpus)).sum()
    if isinstance(fabric, SipRingSpec) and segments <= MOST_RELAYS:
        found.append(assign(replace(fabric, max_hops=1), chiplet, plan.gpus, demands[0]))
    return [(_circuit_rates(circuits, lane, placed), circuits) for circuits in found]


def _demands(fabric: FabricSpec, placed: Traffic, gpus: int) -> list[dict[Pair, int]]:
    """Bytes per pair, and the weight that minimises the sum of the parts' times: sqrt(bytes / segments)."""
    hops = np.abs(ring_steps(placed.source, placed.destination, gpus)) if isinstance(fabric, SipRingSpec) else 1
    root = np.rint(1000 * np.sqrt(placed.size_bytes / hops)).astype(np.int64)
    return [_summed(placed, weight) for weight in (placed.size_bytes, root)]


def _summed(placed: Traffic, weight: NDArray[np.int64]) -> dict[Pair, int]:
    total: dict[Pair, int] = {}
    for source, destination, each in zip(placed.source.tolist(), placed.destination.tolist(), weight.tolist(), strict=True):
        total[source, destination] = total.get((source, destination), 0) + each
    return total


def _electrical_rates(fabric: FabricSpec, chiplet: ChipletSpec, efficiency: float, plan: Plan, placed: Traffic) -> Rates:
    """Rate of each part alone."""
    rates: list[float] = []
    for part in (TENSOR, PIPELINE, DATA, EXCHANGE):
        flows = placed.at_once(part)
        seconds = bottleneck_seconds(fabric, chiplet, efficiency, flows, plan.gpus)
        rates.append(_most_moved(flows, part) / seconds if seconds else inf)
    return Rates(*rates)


def _most_moved(flows: Traffic, part: int) -> int:
    """To a neighbour; of an all-to-all to all together, or from all."""
    if part == EXCHANGE and len(flows.part):
        return max(int(np.bincount(end, flows.size_bytes).max()) for end in (flows.source, flows.destination))
    return int(flows.size_bytes.max(initial=0))


def _circuit_rates(circuits: Circuits, lane_bytes_per_s: float, placed: Traffic) -> Rates:
    """Rate of each part alone on its circuits: what the slowest of its pairs gets, shared with pairs relayed over it."""
    rates: list[float] = []
    for part in (TENSOR, PIPELINE, DATA, EXCHANGE):
        flows = placed.at_once(part) if part == EXCHANGE else placed.of(part)
        demand = _summed(flows, flows.size_bytes)
        load: dict[Pair, int] = {}
        for pair, size in demand.items():
            for leg in pairwise(circuits.stops[pair]):
                load[leg] = load.get(leg, 0) + size
        seconds = max((size / (circuits.lanes[leg] * lane_bytes_per_s) for leg, size in load.items()), default=0.0)
        moved = _most_moved(flows, part) if part == EXCHANGE else max(demand.values(), default=0)
        rates.append(moved / seconds if seconds else inf)
    return Rates(*rates)


def _bytes_by_distance(placed: Traffic, gpus: int) -> NDArray[np.int64]:
    distance = np.abs(ring_steps(placed.source, placed.destination, gpus))
    total = np.zeros(gpus // 2 + 1, np.int64)
    np.add.at(total, distance, placed.size_bytes)
    return total
