"""Placement on TopoOpt's links: a ring of all GPUs, matchings of most bytes, relays for other pairs [NSDI 2023]."""

from collections.abc import Collection

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.fabric.optical import topoopt as model
from lightfabric.model.spec import SpecError
from lightfabric.placement.circuit.direct_connect import direct_circuits
from lightfabric.placement.fabric.optical.sip_ocs import SipOcs
from lightfabric.placement.mapping.traffic import Traffic


class Topoopt(model.Topoopt, SipOcs):  # pyright: ignore[reportIncompatibleVariableOverride]
    """The busiest GPU is the bottleneck, as behind switches of light."""

    @property
    def switches(self) -> int:
        """Count the links of a GPU."""
        return self.spec.degree

    @property
    def switch_ports(self) -> int:
        """Ports of a GPU on each link; ValueError unless these are equally many."""
        ports, degree = self.chiplet.ports, self.spec.degree
        if ports % degree:
            raise SpecError("ChipletSpec", "ports", f"a multiple of the degree {degree} of {self.name}", str(ports))
        return ports // degree

    def preferences(self, dealt: Traffic) -> list[Collection[Pair]]:
        """None, since matchings weigh all pairs."""
        return [()]

    def assign(self, gpus: int, demand_bytes: dict[Pair, int], first: Collection[Pair] = ()) -> Circuits:
        """Links by demand, of as many ports each."""
        return direct_circuits(gpus, demand_bytes, self.spec.degree, self.switch_ports)
