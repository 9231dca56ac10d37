"""Optical fabrics share circuits, which are links of some lanes, and GPUs that relay from circuit to circuit."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair, Rotation, Ways, found_among, pair_keys
from lightfabric.model.cycle.cabling import Cabling, ElectricalCabling, circuits_cabled
from lightfabric.model.fabric.component import Component, Components, light
from lightfabric.model.fabric.fabric import Fabric, port_bytes_per_s
from lightfabric.model.fluid.network import Links, Network, join, pair_ends
from lightfabric.model.spec import FIBRE_PS_PER_M
from lightfabric.model.spec.optical import DELAYS


class Optical(Fabric):
    """Has one link per entry of ``circuits.lanes``, by rising pair; then a link of each GPU that relays to itself.

    The latter is the switch of its chiplet, of one measured flit rate per port. ValueError without circuits. Circuits of
    several configurations are for as many times more ``gpus``, see ``Circuits``.
    """

    @property
    @abstractmethod
    def lanes_per_port(self) -> int:
        """Count the lanes of circuits that a port has."""

    @property
    @abstractmethod
    def turns_as_one(self) -> bool:
        """Tell whether all GPUs get new circuits together, because those of some may be in the way of others."""

    @abstractmethod
    def lengths_m(self, source: NDArray[np.int64], destination: NDArray[np.int64], gpus: int) -> NDArray[np.float64]:
        """Measure the fibre of the circuit of each pair."""

    def dark_ps(self, gpus: int, circuits: Circuits) -> int:
        """Add up how long ports are dark when circuits change: delays of the spec, and the longest line's training.

        Each begins when the one before has ended. Training is what a retraining takes on the RTL, 0 until that is measured.
        """
        delays_ps = sum(getattr(self.spec, name) for name in DELAYS) * 1e6
        if self.timing is None:
            return round(delays_ps)
        link, longest_m = self.timing.link, float(self._of_circuits_m(gpus, list(circuits.lanes)).max())
        delay_cycles = longest_m * FIBRE_PS_PER_M / self.chiplet.cycle_ps
        cycles = link.retrain_cycles + link.start_cycles + float(link.retrain_cycles_per_delay) * delay_cycles
        return round(delays_ps + cycles * self.chiplet.cycle_ps)

    def rotation(self, gpus: int, circuits: Circuits) -> Rotation | None:
        """Say how circuits follow each other by the clock; None if they do not, or if there is one configuration."""
        if self.spec.reconfigure != "periodic" or circuits.configurations == 1:
            return None
        # Circuits that are lit as soon as they are set still have a clock to be lit by.
        dark_ps = max(self.dark_ps(gpus, circuits), 1)
        return Rotation(circuits.configurations, max(round(self.spec.duty * dark_ps), 1), dark_ps)

    def ports_bytes_per_s(self, length_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the payload rate of a port over each of these lengths of fibre; before the RTL is measured all are alike."""
        if self.timing is None:
            return np.full(len(length_m), self.chiplet.gbps_per_port * 1e9 / 8 * self.efficiency)
        # The rate over a length is a simulation: fabrics have thousands of circuits, but few lengths.
        lengths_m, length = np.unique(length_m, return_inverse=True)
        rates = [_port_bytes_per_s(self.chiplet, self.timing, each * FIBRE_PS_PER_M) for each in lengths_m.tolist()]
        return np.array(rates)[length]

    def network(self, gpus: int, pairs: Iterable[Pair], circuits: Circuits | None = None) -> Network:
        """Route along ``circuits.stops``: a circuit, then the switch of the relay and the next circuit."""
        circuits, (source, destination) = self._given(circuits), pair_ends(gpus, pairs)
        # Links that lead as far as each other are in a row, as those on a way round a ring are: ``fluid`` is quicker so.
        ends = sorted(circuits.lanes, key=lambda pair: ((pair[1] - pair[0]) % gpus, pair))
        lanes = np.array([_lanes(circuits, pair, gpus) for pair in ends], np.int64)
        link_source, link_destination = np.array(ends, np.int64).reshape(-1, 2).T
        length_m = self._of_circuits_m(gpus // circuits.configurations, ends)
        ways = _ways(circuits, source, destination)
        # Relays are all stops but the first and the last.
        inside = np.ones(len(ways.stop), bool)
        inside[ways.first] = inside[ways.first + ways.size - 1] = False
        relay = np.unique(ways.stop[inside]).astype(np.int32)
        latency_ps = self.measured.link.latency_cycles * self.chiplet.cycle_ps + length_m * FIBRE_PS_PER_M
        hop_ps = np.rint(latency_ps).astype(np.int64)
        rate = lanes * (self.ports_bytes_per_s(length_m) / self.lanes_per_port)
        links = [
            Links(link_source.astype(np.int32), link_destination.astype(np.int32), rate, hop_ps, "circuits"),
            Links(relay, relay, self.relay_bytes_per_s, self.switch_ps, "relays"),
        ]
        made = join(gpus, links, source, destination, _routes(ways, pair_keys(link_source, link_destination), relay))
        own = gpus // circuits.configurations
        return replace(made, rotation=self.rotation(own, circuits), configuration=made.link_source.astype(np.int64) // own)

    def components(self, gpus: int) -> Components:
        """Count the chiplets' light, and a strand of fibre from each port to the next GPU, or to a switch."""
        ports = gpus * self.chiplet.ports
        return light(self.chiplet, ports) + Components({Component("fibre"): ports})

    def cabling(self, gpus: int, circuits: Circuits | None = None) -> Cabling | ElectricalCabling:
        """Cable the circuits as ``cabled`` says."""
        return self.cabled(gpus, self._given(circuits))

    def cabled(self, gpus: int, circuits: Circuits) -> Cabling:
        """Cable a circuit of several ports as so many lanes, one of some wavelengths at less than a port's rate."""
        ends = sorted(circuits.lanes)
        own = gpus // circuits.configurations
        of_pair = dict(zip(ends, self._of_circuits_m(own, ends).tolist(), strict=True))
        made = circuits_cabled(circuits, gpus, self.lanes_per_port, of_pair, self.chiplet.virtual_channels)
        return replace(made, rotation=self.rotation(own, circuits))

    def _of_circuits_m(self, gpus: int, ends: list[Pair]) -> NDArray[np.float64]:
        """Measure circuits by their ends, which are nodes of any configuration of the GPUs."""
        source, destination = np.array(ends, np.int64).reshape(-1, 2).T % gpus
        return self.lengths_m(source, destination, gpus)

    def _given(self, circuits: Circuits | None) -> Circuits:
        if circuits is None:
            raise ValueError(f"circuits must be given for a {self.spec.kind} fabric, not None")
        return circuits


_port_bytes_per_s = lru_cache(maxsize=1 << 12)(port_bytes_per_s)


class Switched(Optical):
    """Leads ports of GPUs to switches of light, where a lane is a port with all its wavelengths."""

    @property
    def lanes_per_port(self) -> int:
        """A lane is a port."""
        return 1

    def components(self, gpus: int) -> Components:
        """Count a port of a switch of light for each port of a chiplet, and a second strand, back from there."""
        ports = gpus * self.chiplet.ports
        return super().components(gpus) + Components({Component("fibre"): ports, Component("ocs_port"): ports})

    @property
    def turns_as_one(self) -> bool:
        """A switch of light joins two of its ports, whatever the others do."""
        return False

    def lengths_m(self, source: NDArray[np.int64], destination: NDArray[np.int64], gpus: int) -> NDArray[np.float64]:
        """Count two fibres: one to the switch and one from it."""
        return np.full(len(source), 2 * self.spec.fibre_m)


def _lanes(circuits: Circuits, pair: Pair, gpus: int) -> int:
    if not (0 <= pair[0] < gpus and 0 <= pair[1] < gpus and pair[0] != pair[1]):
        raise ValueError(f"Circuits.lanes must join two GPUs from 0 to {gpus - 1}, not {pair}")
    if circuits.lanes[pair] < 1:
        raise ValueError(f"Circuits.lanes[{pair}] must be at least 1, not {circuits.lanes[pair]}")
    return circuits.lanes[pair]


def stops_of(circuits: Circuits, pair: Pair) -> tuple[int, ...]:
    """Find the path of a pair; ValueError if there is none, or if it does not lead from the one to the other."""
    stops = circuits.stops.get(pair)
    if stops is None:
        raise ValueError(f"Circuits.stops must have a path for the pair {pair}, not none")
    if len(stops) < 2 or (stops[0], stops[-1]) != pair:
        raise ValueError(f"Circuits.stops[{pair}] must lead from {pair[0]} to {pair[1]}, not along {stops}")
    return stops


def _ways(circuits: Circuits, source: NDArray[np.int64], destination: NDArray[np.int64]) -> Ways:
    """Give the paths of pairs as ``stops_of`` does, all at once."""
    if isinstance(circuits.stops, Ways):
        try:
            return circuits.stops.among(source, destination)
        except KeyError as error:
            raise ValueError(f"Circuits.stops must have a path for the pair {error.args[0]}, not none") from None
    pairs = list(zip(source.tolist(), destination.tolist(), strict=True))
    return Ways.of({pair: stops_of(circuits, pair) for pair in pairs})


def _routes(ways: Ways, circuits: NDArray[np.int64], relay: NDArray[np.int32]) -> NDArray[np.int64]:
    """Make rows of links along stops: a circuit, then the switch of the relay and the next circuit, to the last stop.

    ``circuits`` are keys of pairs, in the order of their links; those of the switches come after them.
    """
    stop, size = ways.stop, ways.size
    row = np.repeat(np.arange(len(size)), size)
    column = np.arange(len(stop)) - ways.first[row]
    # Paths have different lengths: -1 after the last link of a row says that there is none.
    routes = np.full((len(size), max(2 * int(size.max(initial=0)) - 3, 0)), -1, np.int64)
    begin = np.flatnonzero(column < size[row] - 1)
    link = found_among(circuits, pair_keys(stop[begin], stop[begin + 1]))
    if (link < 0).any():
        hop = begin[np.argmin(link)]
        way = stop[row == row[hop]].tolist()
        raise ValueError(f"Circuits.stops[{way[0], way[-1]}] must follow circuits, not {stop[hop]} -> {stop[hop + 1]}")
    routes[row[begin], 2 * column[begin]] = link
    inner = begin[column[begin] > 0]
    routes[row[inner], 2 * column[inner] - 1] = len(circuits) + np.searchsorted(relay, stop[inner])
    return routes
