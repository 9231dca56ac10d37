"""Which algorithm of a collective is the fastest on a fabric: the time of each by what its steps put on the links."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Pair
from lightfabric.model.fluid.network import Network
from lightfabric.placement.collective.algorithm import IN_NETWORK, names, sends
from lightfabric.placement.collective.sends import Collective, Ids, Sends, Step

Networks = Callable[[dict[Pair, int]], Sequence[Network]]
"""The networks that a fabric can make for pairs with bytes: some where circuits may be shared out in several ways."""
MAX_MEMBERS = 1024
MAX_SENDS = 1 << 20
"""Of a collective; algorithms of more are left out."""


@dataclass(frozen=True)
class Predicted:
    """Tells what an algorithm takes: ``latencies`` and ``share`` are those of ``Sends``, its closed form."""

    algorithm: str
    seconds: float
    latencies: int
    share: float


def predictions(
    collective: Collective, gpus: Sequence[int], size: int, networks: Networks, message_latency_ps: int = 0
) -> list[Predicted]:
    """Predict every algorithm that differs for a buffer of ``size`` bytes among 2 to ``MAX_MEMBERS`` GPUs, fastest first.

    A step ends when its fullest link has moved its bytes and the longest of its routes has been passed, and the next begins
    then: exact where all members do the same, as on a switch or a ring, and else an estimate. O(sends x hops).
    """
    found = list[Predicted]()
    for algorithm in names(collective, len(gpus)):
        each = sends(collective, algorithm, len(gpus))
        if sum(len(step.source) for step in each.steps) <= MAX_SENDS:
            options = networks(_demand(each, gpus, size))
            known = [_seconds(each, gpus, size, network, message_latency_ps) for network in options]
            times = [time for time in known if time is not None]
            found += [Predicted(algorithm, min(times), each.latencies, float(each.share))] if times else []
    return sorted(found, key=lambda one: one.seconds)


Choose = Callable[[Collective, Sequence[int], int], str]
"""The algorithm of a collective among GPUs of a buffer of so many bytes."""


def fastest(networks: Networks, message_latency_ps: int = 0) -> Choose:
    """Make what chooses the algorithm with the least predicted time of those that need no switch that reduces.

    A ring for one member, and for more than ``MAX_MEMBERS``.
    """

    @cache
    def chosen(collective: Collective, gpus: tuple[int, ...], size: int) -> str:
        if not 2 <= len(gpus) <= MAX_MEMBERS:
            return "ring"
        found = predictions(collective, gpus, size, networks, message_latency_ps)
        return next(one.algorithm for one in found if one.algorithm != IN_NETWORK)

    return lambda collective, gpus, size: chosen(collective, tuple(gpus), size)


def _demand(found: Sends, gpus: Sequence[int], size: int) -> dict[Pair, int]:
    """Bytes of each pair of GPUs; what goes to a switch and back needs no way from one to another."""
    members, gpu = found.members, np.asarray(gpus, np.int64)
    keys, moved = list[Ids](), list[Ids]()
    for step in found.steps:
        between = (step.source < members) & (step.destination < members)
        keys.append((step.source * members + step.destination)[between])
        moved.append((step.counts * step.times)[between])
    pair, place = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.ceil(np.bincount(place, np.concatenate(moved), len(pair)) * (size / found.parts)).clip(1)
    ends = zip(gpu[pair // members].tolist(), gpu[pair % members].tolist(), strict=True)
    return dict(zip(ends, total.astype(np.int64).tolist(), strict=True))


def _seconds(found: Sends, gpus: Sequence[int], size: int, network: Network, message_latency_ps: int) -> float | None:
    """Time of all steps; None if it needs a switch that all GPUs are linked to, and there is none."""
    ways = _Ways(found, gpus, network)
    if not ways.switch_known:
        return None
    total_ps = 0.0
    for step in found.steps:
        links, owner, latency_ps = ways.of(step)
        load = np.bincount(links, step.counts[owner] * (size / found.parts), len(network.bytes_per_s))
        moving_ps = 1e12 * float((load / network.bytes_per_s).max(initial=0.0))
        total_ps += step.times * (moving_ps + step.hops * (latency_ps + message_latency_ps))
    return total_ps / 1e12


class _Ways:
    """The links that the sends of a collective take over a network."""

    def __init__(self, found: Sends, gpus: Sequence[int], network: Network) -> None:
        self.network, self.members = network, found.members
        gpu = np.asarray(gpus, np.int64)
        needed = any(found.members in step.source for step in found.steps)
        self.up = self.down = np.zeros(0, np.int64)
        if needed:
            self.up, self.down = _star(network, gpu)
        self.switch_known = not needed or len(self.up) > 0
        self.gpu = np.append(gpu, -1)

    def of(self, step: Step) -> tuple[Ids, Ids, int]:
        """Links of all sends with the send that each is of, and the longest latency."""
        network, members = self.network, self.members
        if len(self.up):
            inwards = step.destination == members
            member = np.where(inwards, step.source, step.destination)
            links = np.where(inwards, self.up[member], self.down[member])
            return links, np.arange(len(links)), int(network.latency_ps[links].max())
        key = self.gpu[step.source] * network.devices + self.gpu[step.destination]
        pair = np.searchsorted(network.pair_key, key)
        first, hops = network.route_start[pair], network.route_start[pair + 1] - network.route_start[pair]
        owner = np.repeat(np.arange(len(key)), hops)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(hops) - hops, hops) + np.repeat(first, hops)
        links = network.route_links[place].astype(np.int64)
        latency_ps = np.bincount(owner, network.latency_ps[links], len(key))
        return links, owner, int(latency_ps.max(initial=0))


def _star(network: Network, gpu: Ids) -> tuple[Ids, Ids]:
    """Links of each GPU to a switch that all have one to and one from; none if there is no such switch."""
    source, destination = network.link_source.astype(np.int64), network.link_destination.astype(np.int64)
    for switch in np.unique(destination[destination >= network.devices]).tolist():
        ways = list[NDArray[np.int64]]()
        for near, far in ((source, destination), (destination, source)):
            of_gpu = np.full(int(max(each.max() for each in (source, destination, gpu))) + 1, -1)
            of_gpu[near[far == switch]] = np.flatnonzero(far == switch)
            ways.append(of_gpu[gpu])
        if (np.stack(ways) >= 0).all():
            return ways[0], ways[1]
    return np.zeros(0, np.int64), np.zeros(0, np.int64)
