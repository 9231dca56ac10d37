"""Cabling joins the chiplets of a cluster: circuits lead from port to port, or switches stand in the middle."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from math import ceil, log2

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightfabric.model.circuit import Circuits, Pair, Rotation
from lightfabric.model.deadlock import Hop, reached, verify, verify_rename
from lightfabric.model.spec import FIBRE_PS_PER_M, ChipletSpec, SpecError

MAX_HUB_GPUS = 64
"""A hub is one switch for each plane, and this is how many ports that has."""


@dataclass(frozen=True)
class Cabling:
    """Says where the circuit of each port ends: port p of GPU g leads to port ``port[g, p]`` of GPU ``gpu[g, p]``.

    ``fibre_m`` is its length, ``share`` its part of the line rate of a whole port, 0 where it is dark: one for all, or an
    array like the others. ``relays`` are the paths, from GPU to GPU, of pairs without a circuit, and the virtual channel of
    each. What comes to a relay by one circuit goes on by one; all others may use any virtual channel, since they end where
    they arrive. The nodes of each configuration of a ``rotation`` follow those of the one before.

    ``renames`` give, for all circuits from one GPU to another, the virtual channel on them for each that flits leave the
    switch on; that of a relay is the one that it starts with. A ring is free of deadlock if one circuit renames.
    """

    gpu: NDArray[np.int32]
    port: NDArray[np.int32]
    fibre_m: float | NDArray[np.float64]
    share: float | NDArray[np.float64] = 1.0
    relays: Mapping[tuple[int, ...], int] = field(default_factory=dict[tuple[int, ...], int])
    rotation: Rotation | None = None
    renames: Mapping[Pair, tuple[int, ...]] = field(default_factory=dict[Pair, tuple[int, ...]])

    def verify(self, virtual_channels: int) -> None:
        """Refuse renames that are no permutations, and relays that may wait for each other in a circle: ValueError."""
        for rename in self.renames.values():
            verify_rename("Cabling.renames", rename, virtual_channels)
        verify("Cabling.relays", (self._hops(path, channel) for path, channel in self.relays.items()))

    def _hops(self, path: tuple[int, ...], channel: int) -> list[Hop]:
        """List the circuits that a relayed packet takes, with the virtual channel on each."""
        hops = list[Hop]()
        for pair in pairwise(path):
            channel = self.renames[pair][channel] if pair in self.renames else channel
            hops.append((*pair, channel))
        return hops

    @property
    def ports(self) -> int:
        """Count the ports of each GPU."""
        return self.gpu.shape[1]

    @property
    def is_duplex(self) -> bool:
        """Tell whether each circuit has one back from port to port, which answers of the hardware's links come by."""
        rows = np.arange(len(self.gpu))[:, None]
        back = self.gpu[self.gpu, self.port], self.port[self.gpu, self.port]
        return bool((back[0] == rows).all() and (back[1] == np.arange(self.ports)).all())

    def light_cycles(self, gpu: int, cycle_ps: float) -> tuple[int, int, int]:
        """Say for the circuits of a GPU when light begins, how long it lasts, when it is back: never dark if all are 0."""
        if self.rotation is None:
            return 0, 0, 0
        at, (configuration, _) = self.rotation, divmod(gpu * self.rotation.configurations, len(self.gpu))
        light_ps = int(at.light_ps(np.array(configuration)))
        return round(light_ps / cycle_ps), round(at.live_ps / cycle_ps), round(at.round_ps / cycle_ps)

    def address(self, source: int, destination: int) -> int:
        """Give the address of a GPU by its port 0; those by its other ports follow. A relayed pair has its own ones."""
        path = self._path_number.get((source, destination))
        return (destination if path is None else len(self.gpu) + path) * self.ports

    def channel(self, source: int, destination: int) -> int:
        """Give the virtual channel of a pair, -1 if it may use any."""
        path = self._path_number.get((source, destination))
        return -1 if path is None else self._paths[path][1]

    def turns(self, source: int, destination: int) -> int:  # noqa: ARG002
        """Say that a flit goes one way from each lane."""
        return 1

    def lanes(self, source: int, destination: int) -> int:
        """Find the ports of one GPU that lead towards another, as bits; ValueError if there is none."""
        path = self._path_number.get((source, destination))
        found = self._lanes_to(source, destination if path is None else self._paths[path][0][1])
        if not found:
            raise ValueError(f"Cabling must have a circuit from GPU {source} to GPU {destination}, not none")
        return sum(1 << lane for lane in found)

    def routes(self, here: int) -> NDArray[np.int32]:
        """List the output of a GPU's switch for each address; no flit is sent to those that no path leads to from here."""
        ports = np.arange(self.ports)
        routes = np.zeros((len(self.gpu) + len(self._paths), self.ports), np.int32)
        routes[self.gpu[here], self.port[here]] = self.ports + ports
        routes[here] = ports
        for row, (path, _) in zip(routes[len(self.gpu) :], self._paths, strict=True):
            if here == path[-1]:
                row[:] = ports
            elif here in path:
                # A GPU may send on fewer or more lanes than lead on from here: these are shared out in turn.
                onwards = self._lanes_to(here, path[path.index(here) + 1])
                arrivals = self.port[path[0], self._lanes_to(path[0], path[1])]
                row[arrivals] = self.ports + np.resize(onwards, len(arrivals))
        return routes.ravel()

    @cached_property
    def _paths(self) -> list[tuple[tuple[int, ...], int]]:
        return list(self.relays.items())

    @cached_property
    def _path_number(self) -> dict[Pair, int]:
        return {(path[0], path[-1]): number for number, (path, _) in enumerate(self._paths)}

    def _lanes_to(self, source: int, destination: int) -> list[int]:
        lit = np.broadcast_to(self.share, self.gpu.shape)[source] > 0
        return np.flatnonzero(lit & (self.gpu[source] == destination)).tolist()


@dataclass(frozen=True, eq=False)
class Hub:
    """Joins ``gpus`` by switches that never limit, one for each of ``planes``, with a link from and to each GPU.

    ``gpus`` rise. A link has a ``share`` of the line rate of a port and a time of flight; ``latency_ps`` more are lost at
    the GPU, as in a network card, and ``down_latency_ps`` on the way back, behind the switch.
    """

    gpus: NDArray[np.int32]
    flight_ps: float
    planes: int = 1
    share: float = 1.0
    latency_ps: float = 0.0
    down_latency_ps: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.gpus) <= MAX_HUB_GPUS:
            raise ValueError(f"Hub.gpus must be 1 to {MAX_HUB_GPUS}, not {len(self.gpus)}")

    def place(self, gpu: int) -> int:
        """Find the port of the switches at which a GPU is; -1 if it is at none."""
        place = int(np.searchsorted(self.gpus, gpu))
        return place if place < len(self.gpus) and self.gpus[place] == gpu else -1


@dataclass(frozen=True)
class ElectricalCabling:
    """Joins GPUs by hubs; two talk over the first one that both are at, else over ``circuits`` if there are any.

    Lanes of a GPU: the ports of circuits, then plane by plane, hub by hub.
    """

    hubs: tuple[Hub, ...]
    circuits: Cabling | None = None

    @property
    def _ports(self) -> int:
        return self.circuits.ports if self.circuits else 0

    def first_lane(self, gpu: int, hub: Hub) -> int:
        """Find the lane of a GPU that leads to the first plane of a hub."""
        before = self.hubs[: self.hubs.index(hub)]
        return self._ports + sum(other.planes for other in before if other.place(gpu) >= 0)

    def far_ports(self, gpu: int) -> list[int]:
        """List what each lane adds to the address of another GPU: the port at which a circuit ends, 0 at a hub."""
        ports: list[int] = self.circuits.port[gpu].tolist() if self.circuits else []
        return ports + [0] * sum(hub.planes for hub in self.hubs if hub.place(gpu) >= 0)

    def between(self, source: int, destination: int) -> Hub | Cabling:
        """Find the hub over which two GPUs talk, or the circuits; ValueError if there are none."""
        for hub in self.hubs:
            if min(hub.place(source), hub.place(destination)) >= 0:
                return hub
        if self.circuits is None:
            raise ValueError(f"ElectricalCabling must have one for GPU {source} and GPU {destination}, not none")
        return self.circuits

    def address(self, source: int, destination: int) -> int:
        """Give the address of a GPU: its port at the switches between the two."""
        way = self.between(source, destination)
        return way.place(destination) if isinstance(way, Hub) else way.address(source, destination)

    def channel(self, source: int, destination: int) -> int:
        """Leave a pair any virtual channel of a hub, which -1 says."""
        way = self.between(source, destination)
        return -1 if isinstance(way, Hub) else way.channel(source, destination)

    def turns(self, source: int, destination: int) -> int:  # noqa: ARG002
        """Say that a flit goes one way from each lane."""
        return 1

    def lanes(self, source: int, destination: int) -> int:
        """Find the lanes from one GPU towards the other, as bits."""
        way = self.between(source, destination)
        if isinstance(way, Hub):
            return (1 << way.planes) - 1 << self.first_lane(source, way)
        return way.lanes(source, destination)


def ring(gpus: int, ports: int, fibre_m: float) -> Cabling:
    """Cable a ring: the first half of the ports leads to the next GPU, the other half to the one before."""
    if gpus < 2 or ports % 2:
        raise ValueError(f"ring.ports must be even and gpus at least 2, not {ports} and {gpus}")
    here, half = np.arange(gpus)[:, None], ports // 2
    step = np.where(np.arange(ports) < half, 1, -1)
    far_port = (np.arange(ports) + half) % ports
    return Cabling(((here + step) % gpus).astype(np.int32), np.tile(far_port, (gpus, 1)).astype(np.int32), fibre_m)


def circuit_switched(permutations: ArrayLike, fibre_m: float) -> Cabling:
    """Cable GPUs through switches of light: port p of GPU g leads to port p of GPU ``permutations[p, g]``, by two fibres."""
    ends = np.array(permutations, np.int32)
    each: NDArray[np.int32] = np.arange(ends.shape[1], dtype=np.int32)
    if not np.array_equal(np.sort(ends, axis=1), np.tile(each, (len(ends), 1))):
        raise ValueError(f"circuit_switched.permutations must have a permutation of 0..{ends.shape[1] - 1} in each row")
    ports = np.tile(np.arange(len(ends), dtype=np.int32), (ends.shape[1], 1))
    return Cabling(ends.T.copy(), ports, 2 * fibre_m)


def circuits_cabled(
    circuits: Circuits, gpus: int, lanes_per_port: int, length_m: Mapping[Pair, float], virtual_channels: int
) -> Cabling:
    """Join ports as circuits say: as many as their lanes take, all of a circuit with the same share of a port's rate.

    ValueError if there are too few virtual channels for relays that do not wait for each other in a circle.
    """
    count = {pair: -(-lanes // lanes_per_port) for pair, lanes in circuits.lanes.items()}
    lines = [pair for pair in sorted(count) for _ in range(count[pair])]
    lit = {pair: circuits.lanes[pair] / count[pair] / lanes_per_port for pair in count}
    outputs, inputs = (_numbered([pair[side] for pair in lines]) for side in (0, 1))
    ports = 1 + max([-1, *outputs, *inputs])
    gpu, port = (np.full((gpus, ports), -1, np.int32) for _ in range(2))
    fibre_m, share = (np.zeros((gpus, ports)) for _ in range(2))
    for pair, output, input_ in zip(lines, outputs, inputs, strict=True):
        gpu[pair[0], output], port[pair[0], output] = pair[1], input_
        fibre_m[pair[0], output], share[pair[0], output] = length_m[pair], lit[pair]
    # GPUs have different numbers of circuits, yet equal chiplets: the ports that are left over are dark.
    _join_idle(gpu, port)
    relayed = [path for path in circuits.stops.values() if len(path) > 2]
    return Cabling(gpu, port, fibre_m, share, dict(zip(relayed, layers(relayed, virtual_channels), strict=True)))


def _numbered(ends: list[int]) -> list[int]:
    """Number the occurrences of each value from 0, in the order in which they come."""
    seen = Counter[int]()
    numbers = list[int]()
    for end in ends:
        numbers.append(seen[end])
        seen[end] += 1
    return numbers


def _join_idle(gpu: NDArray[np.int32], port: NDArray[np.int32]) -> None:
    """Join idle outputs to idle inputs, so that every port of every switch is bound."""
    # Every circuit takes an output and an input, so as many of both are left over.
    ports, idle = gpu.shape[1], gpu < 0
    free = np.setdiff1d(np.arange(gpu.size), gpu[~idle] * ports + port[~idle])
    gpu[idle], port[idle] = free // max(ports, 1), free % max(ports, 1)


def layers(paths: Sequence[tuple[int, ...]], virtual_channels: int) -> list[int]:
    """Choose for each path the first virtual channel on which its circuits close no circle of waiting with others.

    On each the circuits that wait for each other then have an order, so that the last can always go on [Dally, Seitz, 1987];
    layers as in LASH [Skeie, Lysne, Theiss, IPDPS 2002]. ValueError if there are too few.
    """
    waits = [defaultdict[Pair, set[Pair]](set) for _ in range(virtual_channels)]
    chosen = list[int]()
    # First fit: the order of the paths decides how many layers it takes, and is kept so that results repeat.
    for path in paths:
        hops = list(pairwise(path))
        free = [layer for layer, after in enumerate(waits) if not _closes_circle(after, hops)]
        if not free:
            more = "of relays that do not wait for each other in a circle"
            raise SpecError("ChipletSpec", "virtual_channels", f"enough for layers {more}", str(virtual_channels))
        chosen.append(free[0])
        for hop, then in pairwise(hops):
            waits[free[0]][hop].add(then)
    return chosen


def _closes_circle(after: Mapping[Pair, set[Pair]], hops: Sequence[Pair]) -> bool:
    """Tell whether a circuit of a path waits already, directly or through others, for one before it."""
    return any(not reached(after, hop).isdisjoint(hops[:place]) for place, hop in enumerate(hops))


def line(spec: ChipletSpec, share: float) -> ChipletSpec:
    """Give a port a share of its line rate, on as few wavelengths as that rate and the clock allow."""
    if share == 1:
        return spec
    gbps = share * spec.gbps_per_port
    block_gbps = spec.block_bits_on_line * spec.core_clock_mhz * 1e-3
    # A wavelength sends one block per cycle at most. Powers of two divide every flit; the margin is for rounding of shares.
    wavelengths = 1 << max(0, ceil(log2(gbps * (1 + 1e-9) / block_gbps)))
    return replace(spec, wavelengths_per_port=wavelengths, wavelength_gbps=gbps / wavelengths)


def delay_cycles(flight_ps: float, spec: ChipletSpec) -> int:
    """Round the time of flight of light up to whole cycles."""
    return ceil(flight_ps / spec.cycle_ps)


def fibre_cycles(fibre_m: float, spec: ChipletSpec) -> int:
    """Give the whole cycles that light takes through a fibre."""
    return delay_cycles(fibre_m * FIBRE_PS_PER_M, spec)
