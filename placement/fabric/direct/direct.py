"""What direct fabrics share in placement: rates by what each link carries on the ways that pairs take."""

from functools import lru_cache
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.direct import direct as model
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.electrical.electrical import Electrical
from lightfabric.placement.fabric.fabric import best_nesting
from lightfabric.placement.mapping.traffic import Dimension, Traffic, in_rings
from lightfabric.placement.workload.case import Cases

_Ints = NDArray[np.int64]
_Seconds = NDArray[np.float64]

PAIRS_AT_ONCE = 1 << 17
"""So many pairs have their ways in memory together."""


class Direct(model.Direct, Electrical):
    """The fullest link is the bottleneck; there are no circuits to assign, as on electrical fabrics."""

    def bottleneck_seconds(self, flows: Traffic, gpus: int) -> float:
        """The time of the fullest link."""
        flows = in_rings(flows, self.rings, gpus)
        size = flows.size_bytes.astype(float)
        return float(self.link_seconds(gpus, flows.source, flows.destination, size).max(initial=0.0))

    def link_seconds(self, gpus: int, source: Any, destination: Any, size_bytes: _Seconds) -> _Seconds:
        """Time of each link for what pairs send over it. O(pairs x hops)."""
        wires = self.wires(gpus)
        carried = np.zeros(len(wires.source))
        for first in range(0, len(source), PAIRS_AT_ONCE):
            part = slice(first, first + PAIRS_AT_ONCE)
            links = wires.links(self.stops(gpus, source[part].astype(np.int64), destination[part].astype(np.int64)))
            pair, hop = np.nonzero(links >= 0)
            carried += np.bincount(links[pair, hop], size_bytes[part][pair], len(carried))
        return carried / wires.bytes_per_s

    def estimated_rates(self, plans: Cases) -> Rates:
        """Each part moved alone, all groups of ranks at once, on the ways that its pairs take."""
        gpus = plans.dp * plans.tp * plans.pp * plans.cp

        def rate(name: Dimension, span: _Ints, stride: _Ints) -> _Seconds:
            keys = zip(*_columns(plans, gpus, span, stride), strict=True)
            seconds = np.array([_neighbour_seconds(self, name == "pp", *key) for key in keys])
            return np.divide(1.0, seconds, out=np.full(len(plans), inf), where=seconds > 0)

        def exchange(stride: _Ints) -> _Seconds:
            group, groups = plans.expert_group, plans.ep // plans.expert_group
            # Bytes of a pair of a group, and of a pair of ranks of one place in two groups.
            beside = (plans.copies - plans.crossing) / np.maximum(group - 1, 1)
            between = plans.crossing / np.maximum(groups - 1, 1)
            keys = zip(*_columns(plans, gpus, stride, plans.ep, group), strict=True)
            seconds = [_exchange_seconds(self, *key) for key in keys]
            each = zip(seconds, *_columns(plans, beside, between), strict=True)
            return np.array([float((near * one + far * other).max(initial=0.0)) for (near, far), one, other in each])

        return best_nesting(plans, rate, exchange)


def _columns(plans: Cases, *values: Any) -> list[list[Any]]:
    return [np.broadcast_to(value, len(plans)).tolist() for value in values]


@lru_cache(maxsize=1 << 14)
def _neighbour_seconds(fabric: Direct, chain: bool, gpus: int, span: int, stride: int) -> float:
    """Time of the fullest link for a byte from each rank to the next of its ring, or of its chain forward; 0 where alone."""
    if span <= stride:
        return 0.0
    gpu = np.arange(gpus)
    last = gpu % span + stride >= span
    following = np.where(last, gpu - (span - stride), gpu + stride)
    if chain:
        return float(fabric.link_seconds(gpus, gpu[~last], following[~last], np.ones(gpus)).max())
    ends = (gpu, following) if span == 2 * stride else (np.concatenate([gpu, following]), np.concatenate([following, gpu]))
    # A ring of more than two goes both ways round, half of the bytes each.
    return float(fabric.link_seconds(gpus, *ends, np.full(len(ends[0]), gpus / len(ends[0]))).max())


@lru_cache(maxsize=1 << 10)
def _exchange_seconds(fabric: Direct, gpus: int, stride: int, ep: int, group: int) -> tuple[_Seconds, _Seconds]:
    """Times of links for a byte of each pair of a group of an ep group, and of each pair of one place in two such groups.

    Links alike in both are listed once.
    """
    if ep == 1:
        return np.zeros(0), np.zeros(0)
    gpu = np.arange(gpus)
    place = gpu // stride % ep
    partner = gpu[:, None] + (np.arange(ep) - place[:, None]) * stride
    beside = place[:, None] // group == np.arange(ep) // group
    alike = place[:, None] % group == np.arange(ep) % group
    found = list[_Seconds]()
    for chosen in (beside & ~alike, alike & ~beside):
        source, other = np.nonzero(chosen)
        found.append(fabric.link_seconds(gpus, source, partner[source, other], np.ones(len(source))))
    near, far = np.unique(np.stack(found), axis=1)
    return near, far
