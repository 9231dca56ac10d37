"""What optical fabrics share: circuits for the traffic at hand, and what they give each part of it."""

from abc import abstractmethod
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.fabric import Fabric, most_moved, rate_of
from lightfabric.placement.mapping.traffic import DATA, EXCHANGE, PIPELINE, TENSOR, Traffic, in_rings
from lightfabric.placement.plan import Plan


class Optical(Fabric):
    """A fabric of circuits, whose lanes are shared among the pairs that talk."""

    @property
    @abstractmethod
    def lane_gbps(self) -> float:
        """Raw rate of a lane of a circuit."""

    @abstractmethod
    def assign(self, gpus: int, demand_bytes: dict[Pair, int]) -> Circuits:
        """Circuits for all pairs with a demand; ValueError with what is needed and what there is if there are too few."""

    def hops(self, placed: Traffic, gpus: int) -> NDArray[np.int64] | int:
        """Lengths of fibre on which a wavelength of each pair cannot be used by others."""
        return 1

    def rate_options(self, plan: Plan, placed: Traffic) -> list[tuple[Rates, Circuits | None]]:
        """Circuits shared by demand, and by the weight that minimises the sum of the parts' times: sqrt(bytes / hops)."""
        dealt = in_rings(placed, self.rings, plan.gpus)
        # Circuits are handed out by whole numbers, and the factor keeps the roots apart when they are rounded.
        root = np.rint(1000 * np.sqrt(dealt.size_bytes / self.hops(dealt, plan.gpus))).astype(np.int64)
        found = [self.assign(plan.gpus, _summed(dealt, weight)) for weight in (dealt.size_bytes, root)]
        found += self.other_circuits(plan.gpus, dealt)
        return [(self.circuit_rates(circuits, placed, dealt), circuits) for circuits in found]

    def other_circuits(self, gpus: int, dealt: Traffic) -> list[Circuits]:
        """Circuits that this kind of fabric may be quicker with."""
        return []

    def circuit_rates(self, circuits: Circuits, placed: Traffic, dealt: Traffic) -> Rates:
        """Rate of each part alone on circuits: what the slowest of its pairs gets, shared with pairs relayed over it.

        It is the rate at which what is ``placed`` is moved, by the rings that it is ``dealt`` out to.
        """
        lane_bytes_per_s = self.lane_gbps * 1e9 / 8 * self.efficiency
        rates: list[float] = []
        for part in (TENSOR, PIPELINE, DATA, EXCHANGE):
            # What goes to experts and what comes back alternate, so an exchange never shares circuits with its own way back.
            flows, own = ((each.at_once(part) if part == EXCHANGE else each.of(part)) for each in (dealt, placed))
            demand = _summed(flows, flows.size_bytes)
            load: dict[Pair, int] = {}
            for pair, size in demand.items():
                for leg in pairwise(circuits.stops[pair]):
                    load[leg] = load.get(leg, 0) + size
            seconds = max((size / (circuits.lanes[leg] * lane_bytes_per_s) for leg, size in load.items()), default=0.0)
            moved = most_moved(own, part) if part == EXCHANGE else max(demand_of(own).values(), default=0)
            rates.append(rate_of(moved, seconds))
        return Rates(*rates)


def demand_of(placed: Traffic) -> dict[Pair, int]:
    """Bytes of each pair of GPUs."""
    return _summed(placed, placed.size_bytes)


def _summed(placed: Traffic, weight: NDArray[np.int64]) -> dict[Pair, int]:
    total: dict[Pair, int] = {}
    for source, destination, each in zip(placed.source.tolist(), placed.destination.tolist(), weight.tolist(), strict=True):
        total[source, destination] = total.get((source, destination), 0) + each
    return total
