"""Switches join GPUs as a fluid network does: by its links, each as many ports as its rate takes, and by its routes."""

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from math import lcm

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.cycle.cabling import layers

_Ints = NDArray[np.int64]
MAX_SWITCH_PORTS = 64
"""A switch keeps the inputs that want an output in a word of 64 bits."""


@dataclass(frozen=True, eq=False)
class SwitchedCabling:
    """Joins GPUs, the nodes below ``gpus``, and switches by links; a GPU that routes pass through has a switch, too.

    Link i leads from node ``source[i]`` to ``destination[i]`` by ``ports[i]`` ports with a ``share`` of their line rate each
    and takes ``wait_ps`` longer than they do. Row ``s * gpus + d`` of ``routes`` are the links from GPU s to GPU d, filled
    up with -1. Flits of a pair take *ways* in turn: way w is port w modulo ``ports`` of each link. A switch whose links all
    have equally many ports is as many *planes*, a switch each, of which each link has a port.

    *Lanes* of a GPU are the ports of the links that leave it, in their order. ValueError for a switch with too many ports,
    SpecError if there are too few virtual channels for routes that do not wait for each other in a circle.
    """

    gpus: int
    source: _Ints
    destination: _Ints
    ports: _Ints
    share: NDArray[np.float64]
    wait_ps: NDArray[np.float64]
    routes: _Ints
    virtual_channels: int

    def __post_init__(self) -> None:
        if (most := int(self.switch_ports.max())) > MAX_SWITCH_PORTS:
            raise ValueError(f"SwitchedCabling.ports must be at most {MAX_SWITCH_PORTS} at a switch, not {most}")

    def address(self, source: int, destination: int) -> int:
        """Give the address of the first way of a pair; those of its other ways follow."""
        return self._row(source, destination) * self._ways

    def turns(self, source: int, destination: int) -> int:
        """Count how many ways of a pair begin with each of its lanes."""
        return self._ways // int(self.ports[self._first(source, destination)])

    def lanes(self, source: int, destination: int) -> int:
        """Find the lanes from one GPU towards the other, as bits."""
        link = self._first(source, destination)
        return (1 << int(self.ports[link])) - 1 << int(self.port_out[link])

    def channel(self, source: int, destination: int) -> int:
        """Give the virtual channel of a pair, -1 if it may use any."""
        return self._channels[self._row(source, destination)]

    def far_ports(self, gpu: int) -> list[int]:
        """List what each lane of a GPU adds to an address: its number among those of its link."""
        ways = [way for ports in self.ports[self.source == gpu].tolist() for way in range(ports)]
        return ways + [0] * (int(self.size[gpu]) - len(ways))

    def place(self, node: int, first: int, port: int) -> tuple[int, int]:
        """Find the plane and the number at a switch of a port of the link whose ports begin at ``first``."""
        planes = int(self.planes[node])
        if planes > 1:
            return port, first // planes
        return 0, first + port + (int(self.size[node]) if node < self.gpus else 0)

    def outputs(self, node: int) -> NDArray[np.int32]:
        """List the output of a switch, in whichever plane, for each address; nothing else is sent there.

        The switch of a GPU has as many ports to it as to links, and these come first.
        """
        rows, way = self._rows[0], np.arange(self._ways)
        found = np.zeros((len(rows), self._ways), np.int32)
        row, hop = np.nonzero((self.source[rows] == node) & (rows >= 0))
        link = rows[row, hop][:, None]
        found[row] = self.place(node, 0, 0)[1] + self.port_out[link] // self.planes[node]
        if self.planes[node] == 1:
            found[row] += way % self.ports[link]
        if node < self.gpus:
            last = rows[np.arange(len(rows)), (rows >= 0).sum(axis=1) - 1]
            here = self.destination[last] == node
            found[here] = (self.port_in[last, None] + way % self.ports[last, None])[here]
        return found.ravel()

    @cached_property
    def is_switch(self) -> NDArray[np.bool_]:
        """Tell which nodes switch: all but GPUs, and GPUs that a route enters and leaves."""
        node: _Ints = np.arange(1 + max(int(self.source.max()), int(self.destination.max())))
        found = node >= self.gpus
        found[self.source[self.routes[:, 1:][self.routes[:, 1:] >= 0]]] = True
        return found

    @cached_property
    def size(self) -> _Ints:
        """Count the ports of each node, over all planes: those of links that leave or of those that come, the more."""
        ends = (np.bincount(end, self.ports, len(self.is_switch)) for end in (self.source, self.destination))
        return np.maximum(*ends).astype(np.int64)

    @cached_property
    def planes(self) -> _Ints:
        """Count the planes of each node."""
        most, least = np.ones(len(self.size), np.int64), np.full(len(self.size), 1 << 31)
        for end in (self.source, self.destination):
            np.maximum.at(most, end, self.ports)
            np.minimum.at(least, end, self.ports)
        return np.where((most == least) & (np.arange(len(most)) >= self.gpus), most, 1)

    @cached_property
    def switch_ports(self) -> _Ints:
        """Count the ports of each plane of each node, 0 if it has no switch; a GPU has as many to its switch as to links."""
        of_gpu = np.arange(len(self.size)) < self.gpus
        return np.where(self.is_switch, np.where(of_gpu, 2, 1) * self.size // self.planes, 0)

    @cached_property
    def port_out(self) -> _Ints:
        """Number the first port of each link among those of all links that leave its source."""
        return self._first_ports(self.source)

    @cached_property
    def port_in(self) -> _Ints:
        """Number the first port of each link among those of all links that come to its destination."""
        return self._first_ports(self.destination)

    def _first_ports(self, end: _Ints) -> _Ints:
        order = np.argsort(end, kind="stable")
        before = np.cumsum(self.ports[order]) - self.ports[order]
        first = np.empty_like(before)
        first[order] = before - before[np.searchsorted(end[order], end[order])]
        return first

    def _first(self, source: int, destination: int) -> int:
        return int(self.routes[source * self.gpus + destination, 0])

    def _row(self, source: int, destination: int) -> int:
        return int(self._rows[1][source * self.gpus + destination])

    @cached_property
    def _ways(self) -> int:
        return lcm(*self.ports[np.unique(self.routes[self.routes >= 0])].tolist())

    @cached_property
    def _rows(self) -> tuple[_Ints, _Ints]:
        """Routes from the first switch on that differ, and the one of each pair."""
        source, routes = np.arange(len(self.routes)) // self.gpus, self.routes.copy()
        # A GPU without a switch has one link for all that it sends there, and its lanes say which: only what follows counts.
        alone = ~self.is_switch[source] & (routes[:, 1] >= 0)
        routes[alone, :-1], routes[alone, -1] = routes[alone, 1:], -1
        rows, place = np.unique(routes, axis=0, return_inverse=True)
        return rows, place.ravel()

    @cached_property
    def _channels(self) -> list[int]:
        """Virtual channel of each row: one of several layers if links could wait for each other in a circle."""
        rows, links = self._rows[0], len(self.source)
        sparse, csgraph = import_module("scipy.sparse"), import_module("scipy.sparse.csgraph")
        before, after = rows[:, :-1][rows[:, 1:] >= 0], rows[:, 1:][rows[:, 1:] >= 0]
        waits = sparse.csr_array((np.ones(len(before)), (before, after)), shape=(links, links))
        if csgraph.connected_components(waits, connection="strong")[0] == links:
            return [-1] * len(rows)
        # Links to GPUs without a switch wait for none, so that they are left out, and fewer ways differ.
        used = (rows >= 0) & self.is_switch[self.destination[rows]]
        paths = [
            (*self.source[row[use]].tolist(), *self.destination[row[use]][-1:].tolist())
            for row, use in zip(rows, used, strict=True)
        ]
        several = list(dict.fromkeys(path for path in paths if len(path) > 2))
        layer = dict(zip(several, layers(several, self.virtual_channels), strict=True))
        count = 1 + max(layer.values())
        copies = self.virtual_channels // count
        # A layer may be there several times: fewer flits then wait behind others that go elsewhere.
        return [layer[path] + n % copies * count if path in layer else -1 for n, path in enumerate(paths)]
