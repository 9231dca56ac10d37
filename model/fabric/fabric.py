"""Every kind of fabric tells the fluid and the cycle model the same things; here is what, and how a kind is found."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.cycle.cabling import Cabling, ElectricalCabling
from lightfabric.model.cycle.switched import SwitchedCabling
from lightfabric.model.fabric.component import Components
from lightfabric.model.fabric.link_group import LinkGroup, link_groups
from lightfabric.model.fluid.network import Network
from lightfabric.model.spec import FIBRE_PS_PER_M, ChipletSpec, FabricSpec
from lightfabric.model.timing import Timing


@dataclass(frozen=True)
class Fabric(ABC):
    """Knows a fabric of one kind by its spec, the chiplets on it, and their measured timing.

    Every rate is payload: a port carries ``port_bytes_per_s`` over the length at hand. Every link costs
    ``link.latency_cycles`` and its length; a chiplet that passes traffic on costs ``switch.latency_cycles`` more. ``timing``
    may be None until the RTL is measured: then efficiency is 1, and nothing can be simulated. An electrical fabric has its
    own rates and latencies, and asks neither chiplet nor timing.
    """

    spec: Any
    chiplet: ChipletSpec
    timing: Timing | None = None

    @property
    def name(self) -> str:
        """Give the name that the study calls the fabric by."""
        return self.spec.name

    @property
    def is_reference(self) -> bool:
        """Tell whether the others of a study are compared with this fabric."""
        return False

    @cached_property
    def efficiency(self) -> float:
        """Divide the measured payload rate of a port by its raw line rate; it applies to every circuit."""
        if self.timing is None:
            return 1.0
        return port_bytes_per_s(self.chiplet, self.timing) * 8 / (self.chiplet.gbps_per_port * 1e9)

    @property
    def slot_loss_rate(self) -> float:
        """Give the share of the slots of a line that bit errors spoil."""
        from lightfabric.model.cycle.slot import Losses

        return Losses.of(self.chiplet).slot_loss_rate if self.chiplet.bit_error_rate else 0.0

    @cached_property
    def goodput_share(self) -> float:
        """Give what bit errors leave of the payload rate of a port over ``reach_m`` of fibre."""
        if not self.chiplet.bit_error_rate:
            return 1.0
        # Rates at the far end of the reach: there a replay costs the most.
        with_errors, without = (
            port_bytes_per_s(each, self.measured, self.chiplet.reach_m * FIBRE_PS_PER_M)
            for each in (self.chiplet, replace(self.chiplet, bit_error_rate=0.0))
        )
        return with_errors / without

    @abstractmethod
    def network(self, gpus: int, pairs: Iterable[Pair], circuits: Circuits | None = None) -> Network:
        """Make the links and routes of ``pairs`` for the fluid model, but for a GPU with itself. O(pairs x hops).

        ``circuits`` is needed by optical fabrics only. ValueError names what does not fit.
        """

    @abstractmethod
    def cabling(self, gpus: int, circuits: Circuits | None = None) -> Cabling | ElectricalCabling | SwitchedCabling:
        """Say what joins the chiplets in the cycle model, the twin of ``network``.

        ValueError for more GPUs at a switch than its ports, and where relays could wait for each other in a circle.
        """

    @abstractmethod
    def components(self, gpus: int) -> Components:
        """Count what the network of so many GPUs is built from, accelerators apart; ValueError if it cannot be built."""

    def link_groups(self, network: Network, gpus: int, size_bytes: NDArray[np.float64]) -> list[LinkGroup]:
        """Group the links of a network of this fabric, of which each carries ``size_bytes``, for a person to see."""
        return link_groups(network, gpus, size_bytes)

    def rings(self, members: NDArray[np.int32], gpus: int) -> list[NDArray[np.int32]]:
        """Give the rings over which a group of GPUs is reduced, each with an equal part of the bytes: one in their order."""
        return [members]

    def usable_gpus(self, alive: NDArray[np.bool_], group: int) -> NDArray[np.int64]:
        """Count the GPUs that whole groups can use, ``[state]``, where those ``alive[state, gpu]`` work: here any of them.

        A group has ``group`` GPUs that need the full rate of the fabric among them, as tensor parallelism does.
        """
        return alive.sum(axis=1) // group * group

    @property
    def measured(self) -> Timing:
        """Give the timing; ValueError if the RTL has not been measured."""
        if self.timing is None:
            raise ValueError("Fabric.timing must be measured before a simulation, not None")
        return self.timing

    @property
    def cycle_chiplet(self) -> ChipletSpec:
        """Give the chiplet that the cycle model builds ports from."""
        return self.chiplet

    @property
    def cycle_timing(self) -> Timing:
        """Give the timing of ``cycle_chiplet``; ValueError if it has not been measured."""
        return self.measured

    @property
    def port_gbps(self) -> float:
        """Give the raw rate of a port of a GPU."""
        return self.chiplet.gbps_per_port

    @property
    def link_latency_ns(self) -> float:
        """Give the latency of a link without the cable or fibre between its ends."""
        return self.measured.link.latency_cycles * self.chiplet.cycle_ps / 1000

    @property
    def switch_ps(self) -> int:
        """Give the latency of the switch of a chiplet."""
        return round(self.measured.switch.latency_cycles * self.chiplet.cycle_ps)

    @property
    def relay_bytes_per_s(self) -> float:
        """Give the payload rate of the switch of a chiplet, of one measured flit rate per port."""
        flits_per_s = self.chiplet.core_clock_mhz * 1e6 / float(self.measured.switch.cycles_per_flit)
        return self.chiplet.ports * self.chiplet.payload_bytes * flits_per_s


def port_bytes_per_s(chiplet: ChipletSpec, timing: Timing, propagation_ps: float = 0.0) -> float:
    """Give the payload rate that a port sustains over a fibre, as the cycle model with the measured timing says.

    A long fibre costs rate where buffers or replay depth are too small for its round trip.
    """
    # Imported here because numba takes a second, which an error message need not wait for.
    from lightfabric.model.cycle.sustained import sustained_cycles_per_flit

    delay_cycles = math.ceil(propagation_ps / chiplet.cycle_ps)
    cycles_per_flit = sustained_cycles_per_flit(chiplet, timing.link, delay_cycles)
    return chiplet.payload_bytes * chiplet.core_clock_mhz * 1e6 / float(cycles_per_flit)


def usable_in_parts(alive: NDArray[np.bool_], part: int, group: int) -> NDArray[np.int64]:
    """Count the GPUs that groups can use where none leaves its ``part`` GPUs in a row."""
    first: NDArray[np.int64] = np.arange(0, alive.shape[1], part, dtype=np.int64)
    each: NDArray[np.int64] = np.add.reduceat(alive, first, axis=1, dtype=np.int64)
    return (each // group * group).sum(axis=1)


def class_of(spec: FabricSpec, folder: str) -> Any:
    """Find the class of a kind of fabric in a package: ``sip-ring`` is ``SipRing`` of ``optical.sip_ring``.

    The family, such as ``optical``, is the name of the module that has its spec.
    """
    family, name = type(spec).__module__.rpartition(".")[2], spec.kind.replace("-", "_")
    return getattr(import_module(f"{folder}.{family}.{name}"), spec.kind.title().replace("-", ""))


def fabric_of(spec: FabricSpec, chiplet: ChipletSpec, timing: Timing | None = None) -> Fabric:
    """Make the fabric that a spec describes, with these chiplets."""
    return class_of(spec, __package__ or "")(spec, chiplet, timing)
