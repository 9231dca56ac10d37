"""What fabrics without circuits share: rates that follow from what each part alone puts on each link."""

from abc import abstractmethod
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.fabric import Fabric, best_nesting, most_moved, rate_of
from lightfabric.placement.mapping.traffic import DATA, EXCHANGE, PIPELINE, TENSOR, Dimension, Traffic, in_rings
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import Cases

RING_BYTES = 1 << 40
"""To a neighbour where rates of rings are counted: they are whole numbers, and this many hides the rest of a division."""


class ByLink(Fabric):
    """A fabric whose links and routes are there before any traffic."""

    @abstractmethod
    def busiest_seconds(
        self, gpus: int, source: NDArray[np.int64], destination: NDArray[np.int64], size_bytes: NDArray[Any]
    ) -> float:
        """How long the link with the most to do takes for bytes from GPU to GPU."""

    def bottleneck_seconds(self, flows: Traffic, gpus: int) -> float:
        """The busiest link's bytes at its rate."""
        flows = in_rings(flows, self.rings, gpus)
        source, destination = flows.source.astype(np.int64), flows.destination.astype(np.int64)
        return self.busiest_seconds(gpus, source, destination, flows.size_bytes)

    def rate_options(self, plan: Plan, placed: Traffic) -> list[tuple[Rates, Circuits | None]]:
        """The rate of each part when it is moved alone."""
        rates: list[float] = []
        for part in (TENSOR, PIPELINE, DATA, EXCHANGE):
            flows = placed.at_once(part)
            rates.append(rate_of(most_moved(flows, part), self.bottleneck_seconds(flows, plan.gpus)))
        return [(Rates(*rates), None)]

    def estimated_rates(self, plans: Cases) -> Rates:
        """Rates where all GPUs have neighbours as far away as each other, counted link by link.

        O(different spans and strides x GPUs), with experts x GPUs x ep.
        """
        gpus = plans.dp * plans.tp * plans.pp * plans.cp

        def rate(name: Dimension, span: NDArray[np.int64], stride: NDArray[np.int64]) -> NDArray[np.float64]:
            return _for_each(lambda *case: self._known_rate(name == "pp", *map(int, case)), gpus, span, stride)

        def exchange(stride: NDArray[np.int64]) -> NDArray[np.float64]:
            beside = plans.copies - plans.crossing
            return _for_each(self._exchange_seconds, plans.crossing, beside, gpus, stride, plans.ep, plans.expert_group)

        return best_nesting(plans, rate, exchange)

    @cached_property
    def _known_rate(self) -> Callable[..., float]:
        """``_neighbour_rate``, worked out once: nestings share strides and spans."""
        return cache(self._neighbour_rate)

    def _neighbour_rate(self, is_chain: bool, gpus: int, span: int, stride: int) -> float:
        """The rate to a neighbour in rings or chains of every ``stride``-th GPU of a span."""
        gpu = np.arange(gpus, dtype=np.int32)
        after = gpu % span + stride
        source = gpu[after < span] if is_chain else gpu[: gpus if stride < span else 0]
        following = (source - source % span + after[source] % span).astype(np.int32)
        flows = Traffic(source, following, np.full(len(source), RING_BYTES), np.full(len(source), DATA, np.int8))
        return rate_of(RING_BYTES, self.bottleneck_seconds(flows, gpus))

    def _exchange_seconds(self, crossing: float, beside: float, *counts: float) -> float:
        """Seconds for so many bytes from each of ``ep`` GPUs to those of its place in other groups, and to its own group."""
        gpus, stride, ep, group = map(int, counts)
        gpu = np.arange(gpus)[:, None]
        place, other, near = gpu // stride % ep, np.arange(1, ep // group) * group, np.arange(1, group)
        to = np.concatenate([(place + other) % ep, place // group * group + (place % group + near) % group], axis=1)
        share = np.repeat([crossing / max(len(other), 1), beside / max(len(near), 1)], [len(other), len(near)])
        source, destination, size = np.broadcast_arrays(gpu, gpu + (to - place) * stride, share)
        return self.busiest_seconds(gpus, source.ravel(), destination.ravel(), size.ravel())


def _for_each(function: Callable[..., float], *columns: Any) -> NDArray[np.float64]:
    """Values of a function of some columns, called once for each different row."""
    rows = np.stack(np.broadcast_arrays(*columns), axis=-1).astype(np.float64)
    different, place = np.unique(rows.reshape(-1, len(columns)), axis=0, return_inverse=True)
    return np.array([function(*row) for row in different.tolist()])[place.reshape(rows.shape[:-1])]
