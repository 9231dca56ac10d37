"""Circuits of light join GPUs, as placement chooses them and as both models run on them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.task import Part

Pair = tuple[int, int]
"""Two GPUs, the first of which sends."""


class Legs(NamedTuple):
    """Lists the circuits that all pairs take: ``pair[i]``, an index into the rising ``pair_key``, goes over ``circuit[i]``.

    Circuits are counted in the order of ``Circuits.lanes``; keys are what ``pair_keys`` makes.
    """

    pair_key: NDArray[np.int64]
    pair: NDArray[np.int64]
    circuit: NDArray[np.int64]


def pair_keys(source: NDArray[Any], destination: NDArray[Any]) -> NDArray[np.int64]:
    """Make one number of each pair, by which pairs are sorted."""
    return (source.astype(np.int64) << 32) + destination


def found_among(own: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find where each wanted number stands among others, all different; -1 where it does not."""
    order = np.argsort(own)
    place = np.searchsorted(own, wanted, sorter=order)
    there = place < len(own)
    there[there] = own[order[place[there]]] == wanted[there]
    found = np.full(len(wanted), -1)
    found[there] = order[place[there]]
    return found


class Ways(Mapping[Pair, tuple[int, ...]]):
    """Reads as a dictionary of the stops of pairs, all of which stand one after the other in an array.

    On relays a pair may have a thousand stops, so that those of all pairs are too many for a tuple each.
    """

    def __init__(self, stop: NDArray[np.signedinteger], size: NDArray[np.int64]) -> None:
        self.stop, self.size = stop, size

    @staticmethod
    def of(stops: Mapping[Pair, tuple[int, ...]]) -> "Ways":
        """Take the stops of any dictionary."""
        if isinstance(stops, Ways):
            return stops
        stop = np.fromiter(chain.from_iterable(stops.values()), np.int64)
        return Ways(stop, np.fromiter(map(len, stops.values()), np.int64, len(stops)))

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """Give the place of each pair's first stop."""
        return np.cumsum(self.size) - self.size

    @cached_property
    def keys_of_pairs(self) -> NDArray[np.int64]:
        """Give the ``pair_keys`` of all pairs."""
        return pair_keys(self.stop[self.first], self.stop[self.first + self.size - 1])

    def among(self, source: NDArray[np.int64], destination: NDArray[np.int64]) -> "Ways":
        """Give the ways of some of the pairs, in their order; KeyError for another pair."""
        row = found_among(self.keys_of_pairs, pair_keys(source, destination))
        if (row < 0).any():
            lost = int(np.argmin(row))
            raise KeyError((int(source[lost]), int(destination[lost])))
        size = self.size[row]
        step = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
        return Ways(self.stop[np.repeat(self.first[row], size) + step], size)

    @cached_property
    def _row(self) -> dict[Pair, int]:
        ends = self.stop[self.first].tolist(), self.stop[self.first + self.size - 1].tolist()
        return {pair: row for row, pair in enumerate(zip(*ends, strict=True))}

    def __getitem__(self, pair: Pair) -> tuple[int, ...]:
        first, size = int(self.first[self._row[pair]]), int(self.size[self._row[pair]])
        return tuple(self.stop[first : first + size].tolist())

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self.size)


@dataclass(frozen=True)
class Rotation:
    """Lights so many configurations in turn, by the clock: each for ``live_ps``, after which all are dark for ``dark_ps``.

    The first one is lit at time 0. Traffic of the others waits, in the dark too, and none of it is lost.
    """

    configurations: int
    live_ps: int
    dark_ps: int

    @property
    def round_ps(self) -> int:
        """Add up the turns of all configurations."""
        return self.configurations * (self.live_ps + self.dark_ps)

    def light_ps(self, configuration: NDArray[np.int64]) -> NDArray[np.int64]:
        """Say when each configuration is lit first; -1 stands for links that always are, and stays -1."""
        return np.where(configuration < 0, -1, configuration * (self.live_ps + self.dark_ps))


@dataclass(frozen=True)
class Circuits:
    """Says which GPUs are joined by light: ``lanes[source, destination]`` wavelengths on a ring, ports on an OCS.

    ``stops[source, destination]`` is the path of a pair that talks, both ends included: two GPUs when it has a circuit of
    its own, more when GPUs in between relay it from circuit to circuit.

    Circuits that change during an iteration have several configurations: traffic of each ``Part`` is on that which
    ``of_part`` names, on the first one if it names none. An exchange goes in ``steps``: what a pair has to exchange is so
    many configurations behind the first of that part. GPU g is node ``c * gpus + g`` in configuration c, so that a link of
    one is none of another.
    """

    lanes: dict[Pair, int]
    stops: Mapping[Pair, tuple[int, ...]]
    of_part: tuple[int, ...] = ()
    steps: Mapping[Pair, int] = field(default_factory=dict[Pair, int])

    @property
    def configurations(self) -> int:
        """Count the configurations, at least one."""
        exchanged = self.of_part[Part.EXCHANGE] + max(self.steps.values(), default=0) if self.of_part else 0
        return 1 + max(*self.of_part, 0, exchanged)

    def configuration_of(
        self, part: NDArray[np.int8], source: NDArray[np.int32], destination: NDArray[np.int32]
    ) -> NDArray[np.int64]:
        """Find the configuration of each flow of a part between two GPUs."""
        named = np.zeros(len(Part), np.int64)
        named[: len(self.of_part)] = self.of_part
        found = named[part]
        if self.steps:
            exchange = np.flatnonzero((part == Part.EXCHANGE) | (part == Part.CONTEXT))
            pairs = zip(source[exchange].tolist(), destination[exchange].tolist(), strict=True)
            found[exchange] += np.array([self.steps.get(pair, 0) for pair in pairs], np.int64)
        return found

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Give source and destination of each circuit, ``[end, circuit]``."""
        return np.array(list(self.lanes), np.int64).reshape(-1, 2).T

    @cached_property
    def legs(self) -> Legs:
        """Give the circuits on all ways as arrays. O(stops)."""
        ways = Ways.of(self.stops)
        stop, pair_key, end = ways.stop, ways.keys_of_pairs, ways.first + ways.size - 1
        order, rank = np.argsort(pair_key), np.empty(len(pair_key), np.int64)
        rank[order] = np.arange(len(order))
        inside = np.ones(len(stop), bool)
        inside[end] = False
        begin = np.flatnonzero(inside)
        circuit = found_among(pair_keys(*self.ends), pair_keys(stop[begin], stop[begin + 1]))
        # On photonic rails the way to the rail is no circuit.
        return Legs(pair_key[order], np.repeat(rank, ways.size - 1)[circuit >= 0], circuit[circuit >= 0])

    def only(self, configuration: int, gpus: int) -> "Circuits":
        """Give one of the configurations, with GPUs numbered from 0."""

        def own(stops: tuple[int, ...]) -> bool:
            return stops[0] // gpus == configuration

        lanes = {(a % gpus, b % gpus): count for (a, b), count in self.lanes.items() if own((a, b))}
        paths = [tuple(stop % gpus for stop in path) for path in self.stops.values() if own(path)]
        return Circuits(lanes, {(path[0], path[-1]): path for path in paths})


def joined(
    each: Sequence[Circuits], of_part: tuple[int, ...], gpus: int, steps: Mapping[Pair, int] | None = None
) -> Circuits:
    """Make one of circuits for several configurations; those of a single one stay as they are."""
    if len(each) == 1:
        return each[0]
    lanes, stops = dict[Pair, int](), dict[Pair, tuple[int, ...]]()
    for first, circuits in zip(range(0, gpus * len(each), gpus), each, strict=True):
        lanes |= {(first + a, first + b): count for (a, b), count in circuits.lanes.items()}
        stops |= {(first + a, first + b): tuple(first + stop for stop in path) for (a, b), path in circuits.stops.items()}
    return Circuits(lanes, stops, of_part, steps or {})
