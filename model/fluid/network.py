"""A fabric as the fluid model sees it: links with a payload rate and a latency, and a route for every pair that talks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import (
    FIBRE_PS_PER_M,
    ChipletSpec,
    ElectricalClusterSpec,
    ElectricalSwitchSpec,
    FabricSpec,
    SipOcsSpec,
    SipRingSpec,
)
from lightfabric.model.timing import Timing

Pair = tuple[int, int]

CABLE_PS_PER_M = 5000.0
"""5 ns/m: copper with solid polyethylene, relative permittivity 2.25, so two thirds of the speed of light."""


@dataclass(frozen=True)
class Circuits:
    """Optical circuits between GPUs: ``lanes[source, destination]`` wavelengths on a ring, ports on an OCS.

    ``stops[source, destination]`` is the path of a pair that talks, both ends included: two GPUs when it has a circuit of
    its own, more when GPUs in between relay it from circuit to circuit.
    """

    lanes: dict[Pair, int]
    stops: dict[Pair, tuple[int, ...]]


@dataclass(frozen=True)
class Network:
    """Directed links and routes. Nodes below ``devices`` are GPUs, the others switches.

    The route of the pair whose key ``source * devices + destination`` stands at position p of the rising ``pair_key`` is
    ``route_links[route_start[p]:route_start[p + 1]]``. ``bytes_per_s`` is payload, after coding, headers and CRC.
    """

    devices: int
    link_source: NDArray[np.int32]
    link_destination: NDArray[np.int32]
    bytes_per_s: NDArray[np.float64]
    latency_ps: NDArray[np.int64]
    pair_key: NDArray[np.int64]
    route_start: NDArray[np.int64]
    route_links: NDArray[np.int32]

    def route(self, source: int, destination: int) -> NDArray[np.int32]:
        """Links from one GPU to another, in order; KeyError if the pair has none."""
        key = source * self.devices + destination
        place = int(np.searchsorted(self.pair_key, key))
        if place == len(self.pair_key) or self.pair_key[place] != key:
            raise KeyError(f"no route from GPU {source} to GPU {destination}")
        return self.route_links[self.route_start[place] : self.route_start[place + 1]]


def port_bytes_per_s(chiplet: ChipletSpec, timing: Timing, propagation_ps: float = 0.0) -> float:
    """Payload that a port sustains in each direction over a fibre, as the cycle model with the measured timing says.

    A long fibre costs rate where buffers or replay depth are too small for its round trip.
    """
    from lightfabric.model.cycle.link import sustained_cycles_per_flit  # numba, which an error message need not wait for

    delay_cycles = math.ceil(propagation_ps / chiplet.cycle_ps)
    cycles_per_flit = sustained_cycles_per_flit(chiplet, timing.link, delay_cycles)
    return chiplet.payload_bytes * chiplet.core_clock_mhz * 1e6 / float(cycles_per_flit)


def star(
    gpus: int, bytes_per_s: float, pairs: Iterable[Pair], *, up_latency_ps: int = 0, down_latency_ps: int = 0
) -> Network:
    """Every GPU g with a link g to one switch, node ``gpus``, and a link ``gpus + g`` back; the switch never limits.

    >>> star(4, 12.5e9, [(0, 3)]).route(0, 3).tolist()
    [0, 7]
    """
    source, destination = _pair_arrays(gpus, pairs)
    gpu, switch = np.arange(gpus, dtype=np.int32), np.full(gpus, gpus, np.int32)
    up = _Links(gpu, switch, bytes_per_s, up_latency_ps)
    down = _Links(switch, gpu, bytes_per_s, down_latency_ps)
    return _network(gpus, [up, down], source, destination, np.stack([source, gpus + destination], axis=1))


def build(
    fabric: FabricSpec,
    chiplet: ChipletSpec,
    timing: Timing,
    gpus: int,
    pairs: Iterable[Pair],
    circuits: Circuits | None = None,
) -> Network:
    """The fabric with ``gpus`` GPUs and routes for ``pairs``; pairs of a GPU with itself are left out.

    Every rate is payload: a port carries ``port_bytes_per_s`` over the length at hand, an electrical link of g Gb/s the
    same fraction of its raw rate. Every link costs ``link.latency_cycles`` and its length; a chiplet or switch that passes
    traffic on costs ``switch.latency_cycles`` more. The links, in order:

    * electrical-switch: a link from each GPU to the switch, then a link back to each; see ``star``.
    * electrical-cluster: to the island's switch and back, then to the core through the NIC and back. The core is ideal; a
      NIC adds its latency once per route. Nodes from ``gpus`` on are the islands' switches, the last node is the core.
    * sip-ring, sip-ocs: one link per entry of ``circuits.lanes``, by rising pair, as long as the shorter way round the
      ring or two fibres to the switch; then, for each GPU that relays, a link from it to itself: its chiplet's switch,
      of one measured flit rate per port.

    ``circuits`` is needed by the optical fabrics only. ValueError names what does not fit. O(pairs x hops).
    """
    if gpus < 1:
        raise ValueError(f"gpus must be at least 1, not {gpus}")
    source, destination = _pair_arrays(gpus, pairs)
    if isinstance(fabric, ElectricalSwitchSpec):
        hop_ps = _crossing_ps(chiplet, timing, fabric.cable_m * CABLE_PS_PER_M)
        rate = fabric.gpu_gbps * _payload_bytes_per_gbit(chiplet, timing, fabric.cable_m * CABLE_PS_PER_M)
        return star(
            gpus, rate, _zip_pairs(source, destination),
            up_latency_ps=hop_ps, down_latency_ps=hop_ps + _switch_ps(chiplet, timing),
        )  # fmt: skip
    if isinstance(fabric, ElectricalClusterSpec):
        return _cluster(fabric, chiplet, timing, gpus, source, destination)
    if circuits is None:
        raise ValueError(f"circuits must be given for a {fabric.kind} fabric, not None")
    return _optical(fabric, chiplet, timing, gpus, source, destination, circuits)


class _Links(NamedTuple):
    """Links alike: end points one by one, rate and latency for all or one by one."""

    source: NDArray[np.int32]
    destination: NDArray[np.int32]
    bytes_per_s: float | NDArray[np.floating]
    latency_ps: int | NDArray[np.int64]


def _payload_bytes_per_gbit(chiplet: ChipletSpec, timing: Timing, propagation_ps: float) -> float:
    return port_bytes_per_s(chiplet, timing, propagation_ps) / chiplet.gbps_per_port


def _crossing_ps(chiplet: ChipletSpec, timing: Timing, propagation_ps: float) -> int:
    return round(timing.link.latency_cycles * chiplet.cycle_ps + propagation_ps)


def _switch_ps(chiplet: ChipletSpec, timing: Timing) -> int:
    return round(timing.switch.latency_cycles * chiplet.cycle_ps)


def _pair_arrays(gpus: int, pairs: Iterable[Pair]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ends of the different pairs, by rising key."""
    ends = np.fromiter(chain.from_iterable(pairs), np.int64).reshape(-1, 2)
    outside = np.flatnonzero(((ends < 0) | (ends >= gpus)).any(axis=1))
    if len(outside):
        raise ValueError(f"pairs must be of GPUs from 0 to {gpus - 1}, not {tuple(ends[outside[0]].tolist())}")
    ends = ends[ends[:, 0] != ends[:, 1]]
    key = np.unique(ends[:, 0] * gpus + ends[:, 1])
    return key // gpus, key % gpus


def _zip_pairs(source: NDArray[np.int64], destination: NDArray[np.int64]) -> Iterable[Pair]:
    return zip(source.tolist(), destination.tolist(), strict=True)


def _network(
    gpus: int,
    links: list[_Links],
    source: NDArray[np.int64],
    destination: NDArray[np.int64],
    routes: NDArray[np.int64],
) -> Network:
    """Put links together; row p of ``routes`` is the route of pair p, filled up with -1."""
    return Network(
        gpus,
        np.concatenate([part.source for part in links]).astype(np.int32),
        np.concatenate([part.destination for part in links]).astype(np.int32),
        np.concatenate([np.broadcast_to(np.float64(part.bytes_per_s), len(part.source)) for part in links]),
        np.concatenate([np.broadcast_to(np.int64(part.latency_ps), len(part.source)) for part in links]),
        source * gpus + destination,
        np.concatenate([[0], np.cumsum((routes >= 0).sum(axis=1))]).astype(np.int64),
        routes[routes >= 0].astype(np.int32),
    )


def _cluster(
    fabric: ElectricalClusterSpec,
    chiplet: ChipletSpec,
    timing: Timing,
    gpus: int,
    source: NDArray[np.int64],
    destination: NDArray[np.int64],
) -> Network:
    gpu = np.arange(gpus, dtype=np.int32)
    island = gpus + gpu // fabric.island_gpus
    core = np.full(gpus, island[-1] + 1, np.int32)
    hop_ps = _crossing_ps(chiplet, timing, fabric.cable_m * CABLE_PS_PER_M)
    per_gbit = _payload_bytes_per_gbit(chiplet, timing, fabric.cable_m * CABLE_PS_PER_M)
    island_rate, nic_rate = fabric.island_gbps * per_gbit, fabric.nic_gbps * per_gbit
    links = [
        _Links(gpu, island, island_rate, hop_ps),
        _Links(island, gpu, island_rate, hop_ps + _switch_ps(chiplet, timing)),
        _Links(gpu, core, nic_rate, hop_ps + round(fabric.nic_latency_us * 1e6)),
        _Links(core, gpu, nic_rate, hop_ps),
    ]
    inside = source // fabric.island_gpus == destination // fabric.island_gpus
    up = source + np.where(inside, 0, 2 * gpus)
    down = destination + np.where(inside, gpus, 3 * gpus)
    return _network(gpus, links, source, destination, np.stack([up, down], axis=1))


def _optical(
    fabric: SipRingSpec | SipOcsSpec,
    chiplet: ChipletSpec,
    timing: Timing,
    gpus: int,
    source: NDArray[np.int64],
    destination: NDArray[np.int64],
    circuits: Circuits,
) -> Network:
    ends = sorted(circuits.lanes)
    lanes = np.array([_lanes(circuits, pair, gpus) for pair in ends], np.int64)
    link_source, link_destination = np.array(ends, np.int64).reshape(-1, 2).T
    if isinstance(fabric, SipRingSpec):
        apart = np.abs(link_source - link_destination)
        length_m, lanes_per_port = np.minimum(apart, gpus - apart) * fabric.fibre_m, chiplet.wavelengths_per_port
    else:
        length_m, lanes_per_port = np.full(len(ends), 2 * fabric.fibre_m), 1
    lengths_m, length = np.unique(length_m, return_inverse=True)
    lane = np.array([port_bytes_per_s(chiplet, timing, m * FIBRE_PS_PER_M) for m in lengths_m])[length] / lanes_per_port
    stops = [_stops(circuits, pair) for pair in _zip_pairs(source, destination)]
    relays = sorted({stop for path in stops for stop in path[1:-1]})
    relay = np.array(relays, np.int32)
    switch_flits_per_s = chiplet.core_clock_mhz * 1e6 / float(timing.switch.cycles_per_flit)
    switch_rate = chiplet.ports * chiplet.payload_bytes * switch_flits_per_s
    hop_ps = np.rint(timing.link.latency_cycles * chiplet.cycle_ps + length_m * FIBRE_PS_PER_M).astype(np.int64)
    links = [
        _Links(link_source.astype(np.int32), link_destination.astype(np.int32), lanes * lane, hop_ps),
        _Links(relay, relay, switch_rate, _switch_ps(chiplet, timing)),
    ]
    circuit_link = {pair: link for link, pair in enumerate(ends)}
    relay_link = {gpu: link for link, gpu in enumerate(relays, len(ends))}
    return _network(gpus, links, source, destination, _relayed(stops, circuit_link, relay_link))


def _lanes(circuits: Circuits, pair: Pair, gpus: int) -> int:
    if not (0 <= pair[0] < gpus and 0 <= pair[1] < gpus and pair[0] != pair[1]):
        raise ValueError(f"Circuits.lanes must join two GPUs from 0 to {gpus - 1}, not {pair}")
    if circuits.lanes[pair] < 1:
        raise ValueError(f"Circuits.lanes[{pair}] must be at least 1, not {circuits.lanes[pair]}")
    return circuits.lanes[pair]


def _stops(circuits: Circuits, pair: Pair) -> tuple[int, ...]:
    stops = circuits.stops.get(pair)
    if stops is None:
        raise ValueError(f"Circuits.stops must have a path for the pair {pair}, not none")
    if len(stops) < 2 or (stops[0], stops[-1]) != pair:
        raise ValueError(f"Circuits.stops[{pair}] must lead from {pair[0]} to {pair[1]}, not along {stops}")
    return stops


def _relayed(stops: list[tuple[int, ...]], circuit_link: dict[Pair, int], relay_link: dict[int, int]) -> NDArray[np.int64]:
    """Routes along stops: a circuit, then the switch of the relay and the next circuit, until the last stop."""
    routes = np.full((len(stops), max((2 * len(path) - 3 for path in stops), default=0)), -1, np.int64)
    for row, path in enumerate(stops):
        end = 2 * len(path) - 3
        try:
            routes[row, 0:end:2] = [circuit_link[hop] for hop in pairwise(path)]
        except KeyError as error:
            hop = error.args[0]
            raise ValueError(f"Circuits.stops[{path[0], path[-1]}] must follow circuits, not {hop[0]} -> {hop[1]}") from None
        routes[row, 1:end:2] = [relay_link[stop] for stop in path[1:-1]]
    return routes
