"""Placement on islands of GPUs joined by network cards: what stays on an island is fast."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.electrical import electrical_cluster as model
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.electrical.electrical import Electrical
from lightfabric.placement.fabric.fabric import best_nesting
from lightfabric.placement.mapping.traffic import Dimension
from lightfabric.placement.workload.case import Cases


class ElectricalCluster(model.ElectricalCluster, Electrical):
    """The busiest network card or island port is the bottleneck."""

    @property
    def bytes_per_s(self) -> float:
        """The rates of the island and of the network card together."""
        return self.port_bytes_per_s + self.nic_bytes_per_s

    def estimated_rates(self, plans: Cases) -> Rates:
        """The rate of the island where each ring or chain is inside one, else that of the network card.

        A ring has the network cards of all its members on an island, if these are as many on each.
        Of an exchange each peer is one or the other, and the slower of the two sets the pace.
        """
        return self.nested_rates(plans, lambda stride: self._exchange_seconds_of(plans, stride))

    def nested_rates(self, plans: Cases, exchange: Callable[[NDArray[np.int64]], Any]) -> Rates:
        """Rates at the best nesting, see there, with what an exchange takes."""
        nic, island = self.nic_bytes_per_s, self.port_bytes_per_s
        island_gpus, gpus = self.spec.island_gpus, plans.dp * plans.tp * plans.pp * plans.cp

        def rate(name: Dimension, span: NDArray[np.int64], stride: NDArray[np.int64]) -> NDArray[np.float64]:
            # A span that does not divide the island lies across its edge somewhere, and the slowest part sets the pace.
            inside = (gpus <= island_gpus) | ((span <= island_gpus) & (island_gpus % span == 0))
            alike = (name != "pp") & (island_gpus % stride == 0) & (span % island_gpus == 0)
            own = np.where(alike, island_gpus // stride, 1)
            return np.where(inside, island, np.minimum(own * nic, island * own / np.maximum(own - 1, 0.5)))

        return best_nesting(plans, rate, exchange)

    def _exchange_seconds_of(self, plans: Cases, stride: NDArray[np.int64]) -> Any:
        own = ranks_within(plans, stride, self.spec.island_gpus)
        out = leaving(plans, own)
        inside = plans.copies - out + self.forwarded(plans, own)
        return np.maximum(out / self.nic_bytes_per_s, inside / self.port_bytes_per_s)

    def forwarded(self, plans: Cases, own: Any) -> Any:
        """Copies that pass an island before they leave it, where ``own`` ranks of a group of experts are on each: none."""
        return 0


def ranks_within(plans: Cases, stride: NDArray[np.int64], size: int) -> Any:
    """Ranks of an ep group among ``size`` GPUs next to each other: whole groups of experts, or a part of one."""
    gpus = plans.dp * plans.tp * plans.pp * plans.cp
    return np.minimum(np.minimum(gpus, size) // stride, plans.ep).clip(1)


def leaving(plans: Cases, own: Any) -> Any:
    """Copies to ranks of the ep group that are not among a rank's ``own``."""
    group, beside = plans.expert_group, plans.copies - plans.crossing
    return plans.crossing * others(plans.ep / group, own / group) + beside * others(group, own)


def others(members: Any, own: Any) -> Any:
    """Share of the other members of a group that are not among a rank's ``own``."""
    return np.where(members > 1, (members - own.clip(1)).clip(0) / np.maximum(members - 1, 1), 0.0)
