"""A fabric as the fluid model sees it: links with a payload rate and a latency, and a route for every pair that talks."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Pair, Rotation


@dataclass(frozen=True)
class Network:
    """The fluid model runs on directed links and the routes over them.

    Nodes below ``devices`` are GPUs, the others switches.

    The route of the pair whose key ``source * devices + destination`` stands at position p of the rising ``pair_key`` is
    ``route_links[route_start[p]:route_start[p + 1]]``. ``bytes_per_s`` is payload, after coding, headers and CRC.

    Links of circuits that follow each other by the clock are lit in their ``configuration`` of a ``rotation`` only, -1 for
    those that always are; all links of a way that are not are of the same.
    ``names[name_of_link[l]]`` says what link l is, ``""`` where nobody has said it.
    """

    devices: int
    link_source: NDArray[np.int32]
    link_destination: NDArray[np.int32]
    bytes_per_s: NDArray[np.float64]
    latency_ps: NDArray[np.int64]
    pair_key: NDArray[np.int64]
    route_start: NDArray[np.int64]
    route_links: NDArray[np.int32]
    rotation: Rotation | None = None
    configuration: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ("",)
    name_of_link: NDArray[np.int8] | None = None

    def route(self, source: int, destination: int) -> NDArray[np.int32]:
        """Links from one GPU to another, in order; KeyError if the pair has none."""
        # Keys are rising, as ``pair_ends`` makes them, hence the binary search instead of a dictionary of millions of pairs.
        key = source * self.devices + destination
        place = int(np.searchsorted(self.pair_key, key))
        if place == len(self.pair_key) or self.pair_key[place] != key:
            raise KeyError(f"no route from GPU {source} to GPU {destination}")
        return self.route_links[self.route_start[place] : self.route_start[place + 1]]

    @property
    def links(self) -> "list[Links]":
        """Give the links as they were joined, to be joined with others: those of one name after each other are one part."""
        name = np.zeros(len(self.bytes_per_s), np.int8) if self.name_of_link is None else self.name_of_link
        parts = np.split(np.arange(len(name)), np.flatnonzero(np.diff(name)) + 1)
        return [
            Links(
                self.link_source[part], self.link_destination[part], self.bytes_per_s[part], self.latency_ps[part],
                self.names[name[part[0]]],
            )
            for part in parts
            if len(part)
        ]  # fmt: skip


def star(
    gpus: int, bytes_per_s: float, pairs: Iterable[Pair], *, up_latency_ps: int = 0, down_latency_ps: int = 0
) -> Network:
    """Every GPU g with a link g to one switch, node ``gpus``, and a link ``gpus + g`` back; the switch never limits.

    >>> star(4, 12.5e9, [(0, 3)]).route(0, 3).tolist()
    [0, 7]
    """
    source, destination = pair_ends(gpus, pairs)
    gpu, switch = np.arange(gpus, dtype=np.int32), np.full(gpus, gpus, np.int32)
    up = Links(gpu, switch, bytes_per_s, up_latency_ps)
    down = Links(switch, gpu, bytes_per_s, down_latency_ps)
    return join(gpus, [up, down], source, destination, np.stack([source, gpus + destination], axis=1))


class Links(NamedTuple):
    """Links alike: end points one by one, rate and latency for all or one by one; what they are, and of how many cables."""

    source: NDArray[np.int32]
    destination: NDArray[np.int32]
    bytes_per_s: float | NDArray[np.floating]
    latency_ps: int | NDArray[np.int64]
    name: str = ""
    cables: float = 1.0


def pair_ends(gpus: int, pairs: Iterable[Pair]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sources and destinations of the different pairs, by rising key, also of rows; ValueError unless all are GPUs."""
    if gpus < 1:
        raise ValueError(f"gpus must be at least 1, not {gpus}")
    rows: Any = pairs
    if not isinstance(rows, np.ndarray):
        rows = np.fromiter(chain.from_iterable(pairs), np.int64)
    ends = rows.astype(np.int64).reshape(-1, 2)
    outside = np.flatnonzero(((ends < 0) | (ends >= gpus)).any(axis=1))
    if len(outside):
        raise ValueError(f"pairs must be of GPUs from 0 to {gpus - 1}, not {tuple(ends[outside[0]].tolist())}")
    # Pairs of a GPU with itself have no route: what they send is there at once.
    ends = ends[ends[:, 0] != ends[:, 1]]
    key = np.unique(ends[:, 0] * gpus + ends[:, 1])
    return key // gpus, key % gpus


def join(
    gpus: int,
    links: list[Links],
    source: NDArray[np.int64],
    destination: NDArray[np.int64],
    routes: NDArray[np.int64],
) -> Network:
    """The network of these links; row p of ``routes`` is the route of pair p, filled up with -1."""
    names = tuple(dict.fromkeys(part.name for part in links))
    return Network(
        gpus,
        np.concatenate([part.source for part in links]).astype(np.int32),
        np.concatenate([part.destination for part in links]).astype(np.int32),
        # Rates and latencies are widened from one number, so a fabric of equal links need not repeat it.
        np.concatenate([np.broadcast_to(np.float64(part.bytes_per_s), len(part.source)) for part in links]),
        np.concatenate([np.broadcast_to(np.int64(part.latency_ps), len(part.source)) for part in links]),
        source * gpus + destination,
        np.concatenate([[0], np.cumsum((routes >= 0).sum(axis=1))]).astype(np.int64),
        routes[routes >= 0].astype(np.int32),
        names=names,
        name_of_link=np.repeat([names.index(part.name) for part in links], [len(part.source) for part in links]).astype(
            np.int8
        ),
    )


def ragged(size: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and position in the row of every item of rows of the given sizes."""
    row = np.repeat(np.arange(len(size)), size)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)


def links_of(network: Network, route: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Which of some routes every link of these is of, and the link."""
    size = np.diff(network.route_start)[route]
    row = np.repeat(np.arange(len(route)), size)
    place = np.arange(len(row)) + np.repeat(network.route_start[route] - np.cumsum(size) + size, size)
    return row, network.route_links[place]


def route_latency_ps(network: Network, route: NDArray[np.int64]) -> NDArray[np.int64]:
    """Latency of each of some routes."""
    row, link = links_of(network, route)
    # Latencies are whole numbers, so differences of running sums are exact and routes of any length cost alike.
    sums = np.append(0, np.cumsum(network.latency_ps[link]))
    ends = np.cumsum(np.bincount(row, minlength=len(route)))
    return np.diff(sums[ends], prepend=0)
