"""Wavelengths on a SiP-Ring and circuits through SiP-OCS switches for the pairs of GPUs that talk (SiP-ML, SIGCOMM 2021).

Both maximise the least lanes / demand over all circuits, in whole lanes, exactly for the routes chosen here; what is left
is handed out one lane at a time to the circuit that has least. Wavelength colours are not assigned: a segment's
wavelengths are counted, as in the published formulation.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby, pairwise
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.spec import ChipletSpec
from lightfabric.placement.circuit.alltoall import best
from lightfabric.placement.circuit.demand import Demand, Lanes, hand_out
from lightfabric.placement.mapping.traffic import ring_steps, segment_load


def _between_others(demand_bytes: dict[Pair, int]) -> dict[Pair, int]:
    """The pairs of different GPUs that have something to send."""
    return {pair: size for pair, size in demand_bytes.items() if size > 0 and pair[0] != pair[1]}


def _scale(weight: NDArray[np.float64], most: int, fits: Callable[[Lanes], bool]) -> Lanes | None:
    """Lanes that maximise min(lanes / weight) with at least one each, by bisection; None if one each does not fit."""
    low, high = 0.0, float(most / weight.max()) * 2
    best = np.ones(len(weight), np.int64)
    if not fits(best):
        return None
    # The interval ends when no float is left between its ends, so the result does not hang on a tolerance.
    while low < (middle := (low + high) / 2) < high:
        lanes = np.maximum(np.ceil(weight * middle), 1).astype(np.int64)
        if fits(lanes):
            low, best = middle, lanes
        else:
            high = middle
    return best


@dataclass(frozen=True)
class _Legs:
    """Arcs on a ring with their summed demand, and for every pair the GPUs at which its legs meet."""

    source: NDArray[np.int32]
    steps: NDArray[np.int64]
    demand: NDArray[np.float64]
    stops: dict[Pair, tuple[int, ...]]


def _legs(gpus: int, demand: dict[Pair, int], longest: int) -> _Legs:
    ends = np.array(list(demand), np.int32)
    steps = ring_steps(ends[:, 0], ends[:, 1], gpus)
    # A pair is cut into as few legs as reach, and these as equal as whole segments allow.
    count = -(-np.abs(steps) // longest)
    pair = np.repeat(np.arange(len(ends)), count)
    index = np.arange(len(pair)) - np.repeat(np.cumsum(count) - count, count)
    begin, end = (steps[pair] * (index + shift) // count[pair] for shift in (0, 1))
    source, destination = (np.mod(ends[pair, 0] + offset, gpus) for offset in (begin, end))
    # Legs of several pairs with the same ends share one circuit, which then carries the sum of their demands.
    keys = source * gpus + destination
    unique, first, which = np.unique(keys, return_index=True, return_inverse=True)
    size = np.array(list(demand.values()), float)[pair]
    stops = _stops(list(demand), np.cumsum(count), destination)
    return _Legs(
        source[first].astype(np.int32), (end - begin)[first], np.bincount(which, size, len(unique)).astype(float), stops
    )


def _stops(pairs: list[Pair], leg_end: Lanes, destination: Lanes) -> dict[Pair, tuple[int, ...]]:
    ends, visited = leg_end.tolist(), destination.tolist()
    starts = [0, *ends[:-1]]
    return {pair: (pair[0], *visited[i:j]) for pair, i, j in zip(pairs, starts, ends, strict=True)}


def assign_ring(
    gpus: int, demand_bytes: dict[Pair, int], chiplet: ChipletSpec, max_hops: int, reuse: bool = True, rings: int = 1
) -> Circuits:
    """Lead circuits the shorter way round, on ``ports // 2`` fibres each way, for all pairs with a demand.

    Without ``reuse`` a wavelength is of one circuit on all segments, so that shorter circuits spare none. Of several
    ``rings``, which share out the wavelengths, each lane is on one all its way; then the share is near the best.
    Pairs farther apart than ``max_hops`` are relayed by GPUs in between; where wavelengths do not suffice for one on each
    circuit, circuits are halved in length and relay more. ValueError with what is needed and what there is if even
    neighbours have too few.
    """
    demand = _between_others(demand_bytes)
    if not demand:
        return Circuits({}, {})
    capacity = chiplet.ports // 2 * chiplet.wavelengths_per_port
    longest = needed = min(max_hops, max(gpus // 2, 1))
    while longest:
        legs = _legs(gpus, demand, longest)
        taken = legs.steps if reuse else np.sign(legs.steps) * gpus

        # The defaults bind this round's legs: a closure would see those of the last round.
        def fits(lanes: Lanes, legs: _Legs = legs, taken: Lanes = taken) -> bool:
            return bool(segment_load(legs.source, taken, lanes, gpus).max() <= capacity)

        if capacity and (np.abs(taken) == 1).all():
            # Circuits between neighbours share no segment with others.
            return _circuits(legs, np.full(len(taken), capacity), gpus)
        lanes = _scale(legs.demand, capacity, fits)
        # Without reuse the lanes of a circuit may be on any rings, so that these are no limit.
        if lanes is not None and reuse and rings > 1:
            lanes = _on_rings(legs, lanes, gpus, rings, capacity // rings)
        elif lanes is not None:
            _fill_segments(legs, taken, lanes, capacity, gpus)
        if lanes is not None:
            return _circuits(legs, lanes, gpus)
        needed = int(segment_load(legs.source, taken, np.ones_like(taken), gpus).max())
        # Shorter legs are shared by more pairs and cross fewer segments each, so fewer wavelengths may do.
        longest //= 2
    raise ValueError(
        f"a segment of the ring needs {needed} wavelengths each way for the circuits that cross it, "
        f"not the {capacity} that {chiplet.ports} ports give"
    )


def _on_rings(legs: _Legs, most: Lanes, gpus: int, rings: int, channels: int) -> Lanes | None:
    """Lanes of the legs on rings of so many channels each way, where ``most`` are the best of all channels together."""
    from lightfabric.placement.circuit.wavelength import Ring, one_way

    destination = np.mod(legs.source + legs.steps, gpus).astype(np.int32)
    demand = Demand(gpus, legs.source, destination, np.rint(legs.demand).astype(np.int64))
    found = one_way(Ring(gpus, rings, channels, gpus), demand, legs.steps, demand.least_ratio(most))
    return None if found is None else found.pair_lanes


def _fill_segments(legs: _Legs, taken: Lanes, lanes: Lanes, capacity: int, gpus: int) -> None:
    """Give one wavelength more at a time to all circuits alike, of as many bytes over as many segments, or to none.

    A collective goes at the rate of its slowest circuit, and ranks that all have equal circuits are simulated once.
    """
    free = capacity - segment_load(legs.source, taken, lanes, gpus)
    (demand, _), kind = np.unique(np.stack([legs.demand, taken]), axis=1, return_inverse=True)
    members = np.split(np.argsort(kind, kind="stable"), np.cumsum(np.bincount(kind))[:-1])
    each = lanes[[of_kind[0] for of_kind in members]]

    def take(i: int) -> bool:
        needed = segment_load(legs.source[members[i]], taken[members[i]], np.ones(len(members[i]), np.int64), gpus)
        if (needed > free).any():
            return False
        np.subtract(free, needed, out=free)
        return True

    hand_out(each, demand, take)
    lanes[:] = each[kind]


def _circuits(legs: _Legs, lanes: Lanes, gpus: int) -> Circuits:
    destination = np.mod(legs.source + legs.steps, gpus).tolist()
    pairs = zip(legs.source.tolist(), destination, strict=True)
    return Circuits(dict(zip(pairs, lanes.tolist(), strict=True)), legs.stops)


def assign_ocs(gpus: int, demand_bytes: dict[Pair, int], ports: int, first: Collection[Pair] = ()) -> Circuits:
    """Give each port one circuit; a pair without a port of its own is relayed over the fewest circuits there are.

    Pairs that come ``first`` have a circuit before others of more demand. If a GPU talks to all others and has fewer ports,
    circuits and relays are those of the best ``alltoall`` scheme. Where circuits of the largest demands would lead nowhere
    else, GPUs that reach each other are joined in a ring before.
    ValueError with what is needed and what there is if a pair cannot be served.
    """
    demand = _between_others(demand_bytes)
    if not demand:
        return Circuits({}, {})
    partners = np.bincount([source for source, _ in demand]).max()
    if partners == gpus - 1 > ports:
        # Of pairs alike the largest first are cliques in a chain, and relays pass along all of it.
        scheme = best(gpus, ports)
        stops = {pair: tuple(scheme.path(*pair)) for pair in demand}
    else:
        try:
            stops = _relayed(direct_pairs(ports, gpus, demand, first), gpus, demand, ports)
        except ValueError:
            rings = dict.fromkeys(_rings(gpus, demand), 0)
            stops = _relayed(direct_pairs(ports, gpus, rings | demand, rings.keys()), gpus, demand, ports)
    load: dict[Pair, int] = {}
    for pair, path in stops.items():
        for leg in pairwise(path):
            load[leg] = load.get(leg, 0) + demand[pair]
    ends, weight = np.array(list(load), np.int64), np.array(list(load.values()), float)

    def fits(lanes: Lanes) -> bool:
        return all(np.bincount(ends[:, side], lanes, gpus).max() <= ports for side in (0, 1))

    lanes = _scale(weight, ports, fits)
    assert lanes is not None, "circuits are chosen within the ports"
    _fill_ports(ends, weight, lanes, ports, gpus)
    return Circuits(dict(zip(load, lanes.tolist(), strict=True)), stops)


def _rings(gpus: int, demand: dict[Pair, int]) -> list[Pair]:
    """Join GPUs that can reach each other along pairs with a demand in a ring, in the order of their numbers."""
    sparse, csgraph = import_module("scipy.sparse"), import_module("scipy.sparse.csgraph")
    graph = sparse.csr_array((np.ones(len(demand)), np.array(list(demand)).T), shape=(gpus, gpus))
    component = csgraph.connected_components(graph, connection="strong")[1]
    each = [np.flatnonzero(component == one).tolist() for one in range(component.max() + 1)]
    return [pair for ring in each if len(ring) > 1 for pair in pairwise([*ring, ring[0]])]


def direct_pairs(ports: int, gpus: int, demand: dict[Pair, int], first: Collection[Pair]) -> list[Pair]:
    """Pairs that get a circuit: all if the ports suffice, otherwise the largest first while both ends have a port.

    Of pairs alike each GPU takes that to its next partner first, then that to the one after, round the GPUs: of partners
    that all talk with each other every one is then as near as others, where largest first alone makes cliques in a chain.
    """
    out, into = [ports] * gpus, [ports] * gpus
    chosen: list[Pair] = []
    ahead = sorted(demand, key=lambda pair: (pair[0], (pair[1] - pair[0]) % gpus))
    turn = {pair: place for _, own in groupby(ahead, key=itemgetter(0)) for place, pair in enumerate(own)}
    before = set(first)
    for source, destination in sorted(demand, key=lambda pair: (pair not in before, -demand[pair], turn[pair])):
        if out[source] and into[destination]:
            out[source] -= 1
            into[destination] -= 1
            chosen.append((source, destination))
    return chosen


def _relayed(direct: list[Pair], gpus: int, demand: dict[Pair, int], ports: int) -> dict[Pair, tuple[int, ...]]:
    stops: dict[Pair, tuple[int, ...]] = {pair: pair for pair in direct if pair in demand}
    neighbours: list[list[int]] = [[] for _ in range(gpus)]
    for source, destination in direct:
        neighbours[source].append(destination)
    # A pair is left over only since one of its ends had no port free, so it has to follow circuits that there are.
    for source, destination in (pair for pair in demand if pair not in stops):
        path = _shortest_path(neighbours, source, destination)
        if path is None:
            needed = max(np.bincount(side, minlength=gpus).max() for side in np.array(list(demand)).T)
            raise ValueError(
                f"GPU {source} cannot reach GPU {destination}: {needed} ports would give every pair its circuit, "
                f"not the {ports} there are, and no other circuits lead there"
            )
        stops[source, destination] = path
    return stops


def _shortest_path(neighbours: list[list[int]], source: int, destination: int) -> tuple[int, ...] | None:
    came_from, wave = {source: source}, [source]
    while wave and destination not in came_from:
        following: list[int] = []
        for node in wave:
            for neighbour in neighbours[node]:
                if neighbour not in came_from:
                    came_from[neighbour] = node
                    following.append(neighbour)
        wave = following
    if destination not in came_from:
        return None
    path = [destination]
    while path[-1] != source:
        path.append(came_from[path[-1]])
    return tuple(reversed(path))


def _fill_ports(ends: Lanes, weight: NDArray[np.float64], lanes: Lanes, ports: int, gpus: int) -> None:
    out, into = ((ports - np.bincount(ends[:, side], lanes, gpus)).astype(int).tolist() for side in (0, 1))
    source, destination = ends[:, 0].tolist(), ends[:, 1].tolist()

    def take(i: int) -> bool:
        if not (out[source[i]] and into[destination[i]]):
            return False
        out[source[i]] -= 1
        into[destination[i]] -= 1
        return True

    hand_out(lanes, weight, take)


def permutations(circuits: Circuits, gpus: int, ports: int) -> NDArray[np.int32]:
    """What each OCS is set to: switch p connects the output of GPU g to the input of GPU ``result[p, g]``.

    Bipartite edge colouring with alternating paths (Koenig 1916): ``ports`` switches are enough if no GPU has more
    circuits each way. Idle outputs are joined with idle inputs, perhaps the GPU's own. ValueError if a GPU has more.
    """
    to = np.full((ports, gpus), -1, np.int32)
    source_of = np.full((ports, gpus), -1, np.int32)
    for (source, destination), lanes in circuits.lanes.items():
        for _ in range(lanes):
            _colour(to, source_of, source, destination)
    for port in range(ports):
        # Idle inputs and outputs are equally many in each switch, because its setting is a partial permutation.
        to[port, to[port] < 0] = np.flatnonzero(source_of[port] < 0)
    return to


def _colour(to: NDArray[np.int32], source_of: NDArray[np.int32], source: int, destination: int) -> None:
    free_out, free_in = to[:, source] < 0, source_of[:, destination] < 0
    # While both ends have a port free a circuit can always be fitted in, so only too many circuits are an error.
    if not (free_out.any() and free_in.any()):
        end, name = (destination, "to") if free_out.any() else (source, "from")
        raise ValueError(f"there are more circuits {name} GPU {end} than the {len(to)} ports")
    both = free_out & free_in
    if both.any():
        port = int(np.argmax(both))
    else:
        port = _swap(to, source_of, destination, int(np.argmax(free_out)), int(np.argmax(free_in)))
    to[port, source], source_of[port, destination] = destination, source


def _swap(to: NDArray[np.int32], source_of: NDArray[np.int32], destination: int, a: int, b: int) -> int:
    """Exchange ports a and b along the path from ``destination``, so that a, free at the source, gets free there too."""
    path: list[tuple[int, int, int]] = []
    receiver = destination
    # The path never comes to the source: it reaches senders through port a, which is free at the source.
    while receiver >= 0 and (sender := int(source_of[a, receiver])) >= 0:
        path.append((a, sender, receiver))
        receiver = int(to[b, sender])
        if receiver >= 0:
            path.append((b, sender, receiver))
    # All entries are cleared before any is written: neighbours on the path write into each other's old places.
    for port, sender, receiver in path:
        to[port, sender] = source_of[port, receiver] = -1
    for port, sender, receiver in path:
        to[a + b - port, sender], source_of[a + b - port, receiver] = receiver, sender
    return a
