"""Any graph of links as a network: every pair takes a shortest path, and equal ones are shared out by destination."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Pair
from lightfabric.model.fluid.network import Links, Network, join, pair_ends

MAX_HOPS = 1 << 12
_HOP = float(1 << 40)
_COST = 1e13
"""Cost of a link of 1 B/s; that of 4096 links of 1 Mb/s together is below that of a hop, so hops count first, exactly."""

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Topology:
    """Describes links between vertices, each in one direction; rank r is at vertex ``ranks[r]``."""

    vertices: int
    ranks: _Ints
    source: _Ints
    destination: _Ints
    bytes_per_s: NDArray[np.float64]
    latency_ps: _Ints

    def network(self, devices: int, pairs: Iterable[Pair]) -> Network:
        """Make the network of so many devices, of which the first are the ranks and the others reach nothing.

        A path has the fewest hops, of those the least sum of 1 / rate; where several links begin such a path, the digits
        of the destination say which is taken, the lowest one first, so that destinations beside each other part [D-mod-k:
        Zahavi, "Fat-tree routing and node ordering providing contention free traffic", JPDC 2012].
        ValueError if a pair has no path, or a rank no vertex. O(destinations x links x log vertices).
        """
        source, destination = pair_ends(devices, pairs)
        self._require_ranks(source, destination)
        if not len(source):
            # Without routes no link is ever used.
            empty = np.zeros(0, np.int32)
            return join(devices, [Links(empty, empty, 1.0, 0)], source, destination, np.zeros((0, 1), np.int64))
        sparse, csgraph = import_module("scipy.sparse"), import_module("scipy.sparse.csgraph")
        weight = _HOP + np.rint(_COST / self.bytes_per_s)
        # Backwards, so that the distances are those to a destination.
        backwards = sparse.csr_array((weight, (self.destination, self.source)), shape=(self.vertices, self.vertices))
        order = np.argsort(self.source, kind="stable")
        routes = list[tuple[_Ints, _Ints]]()
        for rank in np.unique(destination).tolist():
            pair = np.flatnonzero(destination == rank)
            distance: Any = csgraph.dijkstra(backwards, indices=int(self.ranks[rank]))
            on_path = order[(distance[self.source] == weight + distance[self.destination])[order]]
            routes.append((pair, self._walk(source[pair], rank, on_path)))
        hops = max(route.shape[1] for _, route in routes)
        table = np.full((len(source), hops), -1, np.int64)
        for pair, route in routes:
            table[pair, : route.shape[1]] = route
        return join(devices, [self._links(devices)], source, destination, table)

    def _require_ranks(self, source: _Ints, destination: _Ints) -> None:
        highest = max(source.max(initial=-1), destination.max(initial=-1))
        if highest >= len(self.ranks):
            raise ValueError(f"ranks must be at least {highest + 1}, not {len(self.ranks)}")

    def _walk(self, source: _Ints, rank: int, on_path: _Ints) -> _Ints:
        """Links of the paths to one rank, [pair, hop], filled up with -1; ``on_path`` are those of any, by their source."""
        first = np.searchsorted(self.source[on_path], np.arange(self.vertices + 1))
        at, digits, columns = self.ranks[source], np.full(len(source), rank), list[_Ints]()
        while (moving := at != self.ranks[rank]).any():
            choices = np.where(moving, first[at + 1] - first[at], 1)
            if not choices.all() or len(columns) == MAX_HOPS:
                lost = int(source[np.argmin(choices)])
                raise ValueError(f"links must join rank {lost} to rank {rank} in at most {MAX_HOPS} hops, not leave it out")
            link = on_path[np.where(moving, first[at] + digits % choices, 0)]
            columns.append(np.where(moving, link, -1))
            at, digits = np.where(moving, self.destination[link], at), digits // choices
        return np.stack(columns, axis=1)

    def _links(self, devices: int) -> Links:
        """The links with the ranks numbered first, then devices that have none, then all other vertices."""
        here = self.ranks[:devices]
        others = np.ones(self.vertices, bool)
        others[here] = False
        node = np.empty(self.vertices, np.int64)
        node[here], node[others] = np.arange(len(here)), devices + np.arange(others.sum())
        source, destination = (node[end].astype(np.int32) for end in (self.source, self.destination))
        return Links(source, destination, self.bytes_per_s, self.latency_ps)
