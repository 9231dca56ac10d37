"""Rates at which ranks send to their neighbours: by closed forms, and as placed traffic and circuits give them."""

from dataclasses import replace
from itertools import pairwise, permutations
from math import inf

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fluid.network import Circuits, Pair
from lightfabric.model.spec import ChipletSpec, ElectricalClusterSpec, FabricSpec, SipOcsSpec, SipRingSpec
from lightfabric.placement.circuit.assign import assign
from lightfabric.placement.cost.step import sent_bytes
from lightfabric.placement.cost.table import Cases
from lightfabric.placement.mapping.traffic import (
    DATA,
    EXCHANGE,
    PIPELINE,
    TENSOR,
    Dimension,
    Traffic,
    bottleneck_seconds,
    ring_steps,
)
from lightfabric.placement.plan import Plan
from lightfabric.placement.search.search import Rates

DIMENSIONS: tuple[Dimension, ...] = ("tp", "pp", "dp")
MOST_RELAYS = 1 << 21


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


def rate_options(
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
