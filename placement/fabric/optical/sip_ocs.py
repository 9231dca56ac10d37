"""Placement behind optical circuit switches: a circuit per port, relays for other pairs (SiP-ML, SIGCOMM 2021)."""

from collections.abc import Collection, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.fabric.optical import sip_ocs as model
from lightfabric.model.spec import SpecError
from lightfabric.placement.circuit.assign import assign_ocs
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.optical.optical import Optical, demand_of
from lightfabric.placement.mapping.traffic import DATA, EXCHANGE, PIPELINE, TENSOR, Traffic
from lightfabric.placement.workload.case import Cases
from lightfabric.placement.workload.volume import routed_bytes, sent_bytes

if TYPE_CHECKING:
    from lightfabric.placement.circuit.lane_load import LaneLoad


class SipOcs(model.SipOcs, Optical):
    """The busiest GPU is the bottleneck, whatever the order of ranks."""

    @property
    def switches(self) -> int:
        """Circuits that a GPU has at most."""
        return self.spec.ocs or self.chiplet.ports

    @property
    def partners(self) -> int:
        """One GPU behind each switch."""
        return self.switches

    @property
    def switch_ports(self) -> int:
        """Ports of a GPU at each switch; ValueError unless these are equally many."""
        ports, switches = self.chiplet.ports, self.switches
        if ports % switches:
            raise SpecError("ChipletSpec", "ports", f"a multiple of the {switches} switches of {self.name}", str(ports))
        return ports // switches

    @property
    def bytes_per_s(self) -> float:
        """All ports of a GPU send together."""
        return self.switches * self.switch_ports * self.ports_bytes_per_s(np.array([2 * self.spec.fibre_m])).item()

    def bottleneck_seconds(self, flows: Traffic, gpus: int) -> float:
        """The busiest GPU's bytes at its rate."""
        return self.bound_seconds(flows, gpus)

    def estimated_rates(self, plans: Cases) -> Rates:
        """One tensor, two pipeline and one data circuit share the ports of a rank, with experts also those of an exchange.

        Those of another configuration do not. The sum of the parts' times is least where they share in proportion to the
        square root of their bytes.
        """
        found = [self._shared_by(plans, parts) for parts in self.parts]
        return Rates(*np.min(found, axis=0))

    def _shared_by(self, plans: Cases, parts: tuple[int, ...]) -> list[Any]:
        """Rates of the parts that share a configuration, infinite for the others."""
        if parts == (EXCHANGE,):
            # All ports serve each of its steps, so nothing is relayed.
            return [*[np.full(len(plans), inf)] * 3, np.full(len(plans), self.bytes_per_s)]
        routed = routed_bytes(plans)
        tensor, pipeline, shared = sent_bytes(plans)
        own = [np.float64(part in parts) for part in (TENSOR, PIPELINE, DATA)]
        tensor, pipeline, data = (
            np.sqrt(size * each) for size, each in zip((tensor, pipeline, shared - routed), own, strict=True)
        )
        # A plan on one GPU sends nothing, and would divide by 0.
        weight = np.maximum(tensor + 2 * pipeline + data, 1)
        rates = [np.where(part > 0, self.bytes_per_s * part / weight, inf) for part in (tensor, pipeline, data)]
        rates.append(np.full(len(plans), inf))
        if np.any(plans.ep > 1) and EXCHANGE in parts:
            found = self._shared_with_experts(plans, (tensor, pipeline, data), routed)
            rates = [np.where(plans.ep > 1, new, old) for new, old in zip(found, rates, strict=True)]
        return rates

    def _shared_with_experts(self, plans: Cases, roots: Sequence[Any], routed: Any) -> list[Any]:
        """Rates where whole ports are handed out, the next to each circuit of the part that has least for its root of bytes.

        An exchange has circuits to all peers, among them the next replica that gradients go to, or as many as others leave.
        What it relays then takes the ways that are shortest, which are not spread: all may meet on one circuit.
        """
        tensor, pipeline, data = (size > 0 for size in roots)
        # In groups the next replica may be no peer, and that with the same experts never is.
        apart = (plans.ep < plans.replicas) | (plans.expert_group > 1)
        fixed = np.array([1 * tensor, np.minimum(plans.pp - 1, 2) * pipeline, data * apart])
        peers = plans.expert_group + plans.ep // plans.expert_group - 2
        direct = np.clip(self.switches - fixed.sum(axis=0), 1, np.maximum(peers, 1))
        hops, circuits = _mean_hops(peers, direct), np.vstack((fixed, direct))
        root = np.vstack((*roots, np.sqrt(routed * hops / direct)))
        lanes, every = np.ones(root.shape), np.arange(len(plans))
        for _ in range(self.switches):
            fits = (circuits > 0) & ((circuits * lanes).sum(axis=0) + circuits <= self.switches)
            poorest = np.where(fits, root / lanes, -1).argmax(axis=0)
            lanes[poorest, every] += fits[poorest, every]
        # Where ports are too few for one each, parts relay over each other.
        share = np.minimum(self.switches / np.maximum((circuits * lanes).sum(axis=0), 1), 1)
        lanes[2] = np.where(apart, lanes[2], lanes[3])
        lanes[3] *= np.where(peers > direct, 1, direct) / hops
        return list(np.where(root > 0, self.bytes_per_s / self.switches * lanes * share, inf))

    def assign(self, gpus: int, demand_bytes: dict[Pair, int], first: Collection[Pair] = ()) -> Circuits:
        """Direct circuits for the largest demands, relays for the others."""
        circuits = assign_ocs(gpus, demand_bytes, self.switches, first)
        return Circuits({pair: lanes * self.switch_ports for pair, lanes in circuits.lanes.items()}, circuits.stops)

    def preferences(self, dealt: Traffic) -> list[Collection[Pair]]:
        """Beside none all pairs but those of an exchange, whose peers relay for each other.

        What goes from group to group of such peers has fewer bytes, and without a circuit of its own could not get there.
        """
        other = dealt[dealt.phase != EXCHANGE]
        return [()] if len(other.part) == len(dealt.part) else [(), demand_of(other).keys()]

    def own_load(self, gpus: int, circuits: Circuits, placed: Traffic) -> "LaneLoad":
        """What the ports of the circuits carry."""
        from lightfabric.placement.circuit.lane_load import ocs_load_of

        return ocs_load_of(circuits, placed, gpus, self.chiplet.ports)


def _mean_hops(peers: NDArray[np.int64], circuits: NDArray[np.int64]) -> NDArray[np.float64]:
    """Circuits on the way to a peer, if every circuit leads from those reached to one that was not."""
    total, left, reached, hop = np.zeros(len(peers)), peers, np.ones_like(peers), 0
    while np.any(left):
        hop, reached = hop + 1, np.minimum(reached * circuits, left)
        total, left = total + hop * reached, left - reached
    return np.where(peers > 0, total / np.maximum(peers, 1), 1.0)
