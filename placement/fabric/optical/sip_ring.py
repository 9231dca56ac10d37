"""Placement on a SiP-Ring: wavelengths for pairs near each other, relays for others (SiP-ML, SIGCOMM 2021)."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.fabric.optical import sip_ring as model
from lightfabric.model.spec import SpecError
from lightfabric.placement.circuit.assign import assign_ring
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.fabric import best_nesting
from lightfabric.placement.fabric.optical.optical import Optical, demand_of
from lightfabric.placement.mapping.traffic import DATA, TENSOR, Dimension, Traffic, ring_steps, segment_load
from lightfabric.placement.workload.case import Cases

if TYPE_CHECKING:
    from lightfabric.placement.circuit.lane_load import LaneLoad

MAX_RELAYS = 1 << 21
"""Segments over which relays between neighbours are still listed one by one."""
MIN_BOTH_WAYS = 3
"""GPUs of which each has two neighbours."""


class SipRing(model.SipRing, Optical):
    """The fullest segment is the bottleneck; near neighbours use no others' wavelengths."""

    folds = True

    @property
    def bytes_per_s(self) -> float:
        """Half of the ports each way round; ValueError without a port for each direction."""
        chiplet = self.chiplet
        if chiplet.ports < 2:
            raise SpecError("ChipletSpec", "ports", f"at least 2 on a {self.spec.kind}", str(chiplet.ports))
        # An odd port would serve one direction only, and the other would set the pace.
        return chiplet.ports // 2 * 2 * self.ports_bytes_per_s(np.array([self.spec.fibre_m])).item()

    @property
    def segment_lanes(self) -> int:
        """Wavelengths each way on a segment."""
        return self.chiplet.ports // 2 * self.chiplet.wavelengths_per_port

    def bottleneck_seconds(self, flows: Traffic, gpus: int) -> float:
        """The bytes over the fullest segment at the rate of one direction."""
        reduced = (flows.part == TENSOR) | (flows.part == DATA)
        rings, load = flows[reduced], self._load(flows[reduced], gpus)
        sent, received = (np.bincount(end, minlength=gpus) for end in (rings.source, rings.destination))
        # A ring that does not go all round loads both ways alike, so that halves both ways are no more there.
        if gpus >= MIN_BOTH_WAYS and np.array_equal(sent, received):
            load = (load + load[::-1]) / 2
        return float((load + self._load(flows[~reduced], gpus)).max()) / (self.bytes_per_s / 2)

    def _load(self, flows: Traffic, gpus: int) -> NDArray[np.int64]:
        """Bytes whose wavelengths cross each segment, ``[direction, segment]``."""
        steps = ring_steps(flows.source, flows.destination, gpus)
        return segment_load(flows.source, steps if self.spec.reuse else np.sign(steps) * gpus, flows.size_bytes, gpus)

    def exchanged(self, flows: Traffic, gpu_of_rank: NDArray[np.int32], exchanges: int) -> NDArray[np.int32]:
        """Exchanges of ranks between segments, the same for the same input."""
        from lightfabric.placement.mapping.refine import refined

        return refined(flows, gpu_of_rank, exchanges, np.random.default_rng(1))

    def estimated_rates(self, plans: Cases) -> Rates:
        """A dimension of stride k loads every segment with k pairs, and relayed parts share its wavelengths in turn.

        A ring that goes all round has half of its bytes go either way. Without reuse all pairs of a part share all
        wavelengths, half of them each way.
        An exchange loads most the segment in the middle of its ranks, or of the group there if groups are odd in number.
        """
        rate, reuse, gpus = self.bytes_per_s / 2, self.spec.reuse, plans.dp * plans.tp * plans.pp * plans.cp

        def exchange(stride: NDArray[np.int64]) -> NDArray[np.float64]:
            return (stride * _middle(plans, stride) if reuse else plans.copies * gpus / 2) / rate

        def neighbour(name: Dimension, span: NDArray[np.int64], stride: NDArray[np.int64]) -> NDArray[np.float64]:
            around = (name != "pp") & (span == gpus) & (span > 2 * stride)
            return rate / stride * np.where(around, 2, 1) if reuse else rate / gpus * np.where(name == "pp", 1, 2)

        return best_nesting(plans, neighbour, exchange)

    def hops(self, placed: Traffic, gpus: int) -> NDArray[np.int64]:
        """Segments of the shorter way round, or all."""
        steps = np.abs(ring_steps(placed.source, placed.destination, gpus))
        return steps if self.spec.reuse else np.full_like(steps, gpus)

    def assign(self, gpus: int, demand_bytes: dict[Pair, int], first: Collection[Pair] = ()) -> Circuits:
        """The shorter way round, relayed beyond ``max_hops``."""
        return self._assigned(gpus, demand_bytes, self.spec.max_hops)

    def _assigned(self, gpus: int, demand_bytes: dict[Pair, int], max_hops: int) -> Circuits:
        lanes, rings = self.segment_lanes, self.spec.rings
        if lanes % rings:
            raise SpecError(type(self.spec).__name__, "rings", f"a divisor of the {lanes} wavelengths each way", str(rings))
        return assign_ring(gpus, demand_bytes, self.chiplet, max_hops, self.spec.reuse, rings)

    def ways(self, gpus: int, flows: Traffic) -> list[Circuits]:
        """Beside circuits for all pairs also those between neighbours only, where wavelengths are reused.

        Relayed traffic then takes turns on all wavelengths, where circuits of their own for all pairs divide them for good.
        Left out where relays would be too many to list.
        """
        found = super().ways(gpus, flows)
        if self.spec.reuse and self.hops(flows, gpus).sum() <= MAX_RELAYS:
            found.append(self._assigned(gpus, demand_of(flows), 1))
        return found

    def own_load(self, gpus: int, circuits: Circuits, placed: Traffic) -> "LaneLoad":
        """What wavelengths carry, beside how many it takes for each pair to have one of its own."""
        from lightfabric.placement.circuit.lane_load import ring_load_of

        return ring_load_of(circuits, placed, gpus, self.segment_lanes)


def _middle(plans: Cases, stride: NDArray[np.int64]) -> NDArray[np.float64]:
    """Copies each way over the fullest segment by ranks ``stride`` GPUs apart, of one of the groups that lie interleaved."""
    group, groups = plans.expert_group, plans.ep // plans.expert_group
    # Bytes of a pair of a group, and of a pair of ranks of one place in two groups.
    beside = (plans.copies - plans.crossing) / np.maximum(group - 1, 1)
    between = plans.crossing / np.maximum(groups - 1, 1)
    # Where the ranks go all round, half of what passes a segment goes the other way.
    halves = np.where((plans.ep * stride == plans.dp * plans.tp * plans.pp * plans.cp) & (groups > 2), 2, 1)
    at_edge = group * (groups**2 // 4) * between / halves
    inside = (group**2 // 4) * beside + at_edge - np.where(groups % 2, 0, group / 2 * between / halves)
    return np.maximum(at_edge, inside)
