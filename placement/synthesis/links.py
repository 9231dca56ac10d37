"""The links of a topology as synthesis sees them, and the moves of its ranks that leave it as it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fluid.network import Network
from lightfabric.model.fluid.shortest import Topology
from lightfabric.placement.collective.sends import Ids

Floats = NDArray[np.float64]
MAX_TWISTED = 3
"""Most axes of which twists are looked for."""


@dataclass(frozen=True)
class Links:
    """Directed links between vertices, of which the first ``ranks`` are the members and all others switches.

    Two vertices have one link each way at most. Switches may copy what they pass on, and do not add up.
    """

    ranks: int
    vertices: int
    source: Ids
    destination: Ids
    bytes_per_s: Floats
    latency_ps: Ids

    @property
    def backwards(self) -> "Links":
        """The same links in the other direction."""
        return Links(self.ranks, self.vertices, self.destination, self.source, self.bytes_per_s, self.latency_ps)

    def occupied_ps(self, size: float) -> Ids:
        """How long a message of so many bytes keeps each link busy."""
        return np.ceil(1e12 * size / self.bytes_per_s).astype(np.int64)

    def distances(self, weight: Floats | Ids, start: Ids) -> Floats:
        """Least sums of weights from each of some vertices to all, ``[start, vertex]``."""
        sparse, csgraph = import_module("scipy.sparse"), import_module("scipy.sparse.csgraph")
        # A weight of 0 would be no link.
        weights = np.maximum(np.asarray(weight, np.float64), 1e-300)
        matrix = sparse.csr_array((weights, (self.source, self.destination)), shape=(self.vertices, self.vertices))
        return csgraph.dijkstra(matrix, indices=start)

    @cached_property
    def symmetry(self) -> "Symmetry":
        """Orbits under translations of the ranks as numbers of a mixed radix; each alone where there are none.

        One step beyond the end of an axis may move the later ones, as in twisted tori.
        """
        if self._alike_to_switches():
            for radices in sorted(_products(self.ranks), key=len):
                steps = self._steps(radices)
                if len(steps) == len(radices):
                    return self._orbits(steps, radices)
        return Symmetry(np.arange(self.ranks), np.arange(len(self.source)), (), [])

    def _alike_to_switches(self) -> bool:
        """Whether each switch has links to and from all ranks or none: they stay where they are."""
        ends = ((self.source, self.destination), (self.destination, self.source))
        counts = [np.bincount(near[far < self.ranks], minlength=self.vertices)[self.ranks :] for near, far in ends]
        return all(bool(np.isin(each, (0, self.ranks)).all()) for each in counts)

    def _steps(self, radices: tuple[int, ...]) -> list[Ids]:
        """A step along each axis, with the first twist that leaves the links as they are; up to an axis that has none."""
        found = list[Ids]()
        for axis in range(len(radices)):
            twists = product(*map(range, radices[axis + 1 :])) if len(radices) <= MAX_TWISTED else [()]
            steps = (_step(radices, axis, twist) for twist in twists)
            step = next((each for each in steps if self._stays(each)), None)
            # Steps in any order lead to the same rank: then they are translations, and no link is led to itself.
            if step is None or any(not np.array_equal(step[each], each[step]) for each in found):
                break
            found.append(step)
        return found

    def _stays(self, moved: Ids) -> bool:
        key, place = self._keys(np.arange(self.vertices)), self._keys(self.with_switches(moved))
        order, other = np.argsort(key), np.argsort(place)
        return (
            np.array_equal(key[order], place[other])
            and np.array_equal(self.bytes_per_s[order], self.bytes_per_s[other])
            and np.array_equal(self.latency_ps[order], self.latency_ps[other])
        )

    def _keys(self, vertex: Ids) -> Ids:
        return vertex[self.source] * self.vertices + vertex[self.destination]

    def with_switches(self, moved: Ids) -> Ids:
        """Where each vertex goes if ranks move, and switches stay."""
        return np.concatenate([moved, np.arange(self.ranks, self.vertices)])

    def numbers(self, source: Ids, destination: Ids) -> Ids:
        """The links between pairs of vertices that have one."""
        key = self._keys(np.arange(self.vertices))
        order = np.argsort(key)
        return order[np.searchsorted(key[order], source * self.vertices + destination)]

    def _orbits(self, steps: list[Ids], radices: tuple[int, ...]) -> "Symmetry":
        """Links that the moves lead to each other are in one orbit; all ranks are."""
        sparse, csgraph = import_module("scipy.sparse"), import_module("scipy.sparse.csgraph")
        count, every = len(self.source), [self.with_switches(each) for each in steps]
        leads = [self.numbers(each[self.source], each[self.destination]) for each in every]
        edges = np.tile(np.arange(count), len(leads)), np.concatenate(leads)
        graph = sparse.csr_array((np.ones(len(edges[0])), edges), shape=(count, count))
        return Symmetry(np.zeros(1, np.int64), csgraph.connected_components(graph)[1].astype(np.int64), radices, steps)


@dataclass(frozen=True)
class Symmetry:
    """Ranks that stand for all others, which are alike, the orbit of each link, and a step along each axis of the ranks."""

    representatives: Ids
    orbit: Ids
    radices: tuple[int, ...]
    steps: list[Ids]

    @property
    def sizes(self) -> Ids:
        """Count the links of each orbit."""
        return np.bincount(self.orbit)

    def moved(self, by: int) -> Ids:
        """Where each rank goes with the translation that leads the first one to the rank ``by``."""
        at = np.arange(len(self.steps[0]))
        for digit, step in zip(np.unravel_index(by, self.radices), self.steps, strict=True):
            for _ in range(int(digit)):
                at = step[at]
        return at


def links_of(topology: Topology) -> Links:
    """Number the ranks of a topology first, and add up its parallel links; the least of their latencies counts."""
    new = np.full(topology.vertices, -1)
    new[topology.ranks] = np.arange(len(topology.ranks))
    others = np.flatnonzero(new < 0)
    new[others] = len(topology.ranks) + np.arange(len(others))
    key = new[topology.source] * topology.vertices + new[topology.destination]
    pair, place = np.unique(key, return_inverse=True)
    latency_ps = np.full(len(pair), np.iinfo(np.int64).max)
    np.minimum.at(latency_ps, place, topology.latency_ps)
    return Links(
        len(topology.ranks),
        topology.vertices,
        pair // topology.vertices,
        pair % topology.vertices,
        np.bincount(place, topology.bytes_per_s).astype(np.float64),
        latency_ps,
    )


def links_between(network: Network) -> Links:
    """Take the links of a network whose devices are the ranks; what leads from a vertex to itself joins nothing."""
    joins = network.link_source != network.link_destination
    source, destination = (end[joins].astype(np.int64) for end in (network.link_source, network.link_destination))
    vertices = int(max(source.max(initial=0), destination.max(initial=0), network.devices - 1)) + 1
    rate, latency_ps = network.bytes_per_s[joins], network.latency_ps[joins]
    return links_of(Topology(vertices, np.arange(network.devices), source, destination, rate, latency_ps))


def _products(number: int) -> Iterator[tuple[int, ...]]:
    """Ordered factors above 1 that multiply to a number."""
    yield (number,)
    for factor in range(2, number // 2 + 1):
        if number % factor == 0:
            for rest in _products(number // factor):
                yield (factor, *rest)


def _step(radices: tuple[int, ...], axis: int, twist: tuple[int, ...]) -> Ids:
    """Where each rank goes that takes one step along an axis, and beyond its end a twist along the later ones."""
    digits = list(np.unravel_index(np.arange(prod(radices)), radices))
    wraps = digits[axis] == radices[axis] - 1
    digits[axis] = (digits[axis] + 1) % radices[axis]
    for later, by in enumerate(twist, axis + 1):
        digits[later] = (digits[later] + by * wraps) % radices[later]
    return np.ravel_multi_index(digits, radices)
