"""Bytes between pairs of nodes, and the search for the most even share of lanes that a fabric can give them.

A lane is a wavelength of a ring or a circuit of a switch. The ratio of a pair is its lanes / bytes; the share is the more
even, the greater the least ratio of all pairs (SiP-ML, SIGCOMM 2021).
"""

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Pair

Lanes = NDArray[np.int64]
Found = TypeVar("Found")
_ROUNDING = 1e-12
"""Ratios that differ by less, relatively, are one."""


class Undecided(Exception):  # noqa: N818
    """A solver came to its time limit with neither a solution nor the proof that there is none."""


@dataclass(frozen=True)
class Demand:
    """Bytes, at least 1, from ``source[p]`` to ``destination[p]`` for each pair p; no pair occurs twice.

    >>> demand = Demand.of(4, {(0, 1): 10, (2, 3): 20})
    >>> demand.least_ratio(np.array([1, 1]))
    0.05
    >>> demand.needed(0.1).tolist()
    [1, 2]
    """

    nodes: int
    source: NDArray[np.int32]
    destination: NDArray[np.int32]
    size_bytes: NDArray[np.int64]

    def __post_init__(self) -> None:
        pairs, sizes = len(self.source), len(self.size_bytes)
        if not pairs == len(self.destination) == sizes:
            raise ValueError(f"Demand.size_bytes must be one for each of {pairs} pairs, not {sizes}")
        for name, end in (("source", self.source), ("destination", self.destination)):
            if len(end) and not 0 <= end.min() <= end.max() < self.nodes:
                raise ValueError(f"Demand.{name} must be from 0 to {self.nodes - 1}, not {end.min()} to {end.max()}")
        alone = self.source[self.source == self.destination]
        if len(alone):
            raise ValueError(f"Demand.destination must be another node, not {alone[0]} itself")
        if len(self) and self.size_bytes.min() < 1:
            raise ValueError(f"Demand.size_bytes must be at least 1, not {self.size_bytes.min()}")
        if len(np.unique(self.source.astype(np.int64) * self.nodes + self.destination)) < len(self):
            raise ValueError("Demand.destination must be one for each pair, not several")

    @classmethod
    def of(cls, nodes: int, size_bytes: dict[Pair, int]) -> "Demand":
        """Make a demand from a mapping; pairs with nothing to send are left out."""
        sizes = {pair: size for pair, size in size_bytes.items() if size}
        ends = np.array(list(sizes), np.int32).reshape(-1, 2)
        return cls(nodes, ends[:, 0], ends[:, 1], np.array(list(sizes.values()), np.int64))

    def __len__(self) -> int:
        return len(self.source)

    def both_ways(self) -> "Demand":
        """One pair, from the lower node, for each two that talk, with the greater of the demands between them."""
        low, high = np.minimum(self.source, self.destination), np.maximum(self.source, self.destination)
        keys, which = np.unique(low.astype(np.int64) * self.nodes + high, return_inverse=True)
        size = np.zeros(len(keys), np.int64)
        np.maximum.at(size, which, self.size_bytes)
        return Demand(self.nodes, (keys // self.nodes).astype(np.int32), (keys % self.nodes).astype(np.int32), size)

    def needed(self, ratio: float) -> Lanes:
        """Fewest lanes with which every pair has this ratio, up to rounding."""
        return np.ceil(self.size_bytes * (ratio * (1 - _ROUNDING))).astype(np.int64)

    def least_ratio(self, lanes: Lanes) -> float:
        """The least lanes / bytes of all pairs, infinite without any."""
        return float((lanes / self.size_bytes).min(initial=np.inf))

    def degrees(self) -> tuple[Lanes, Lanes]:
        """How many nodes each one sends to, and receives from."""
        return np.bincount(self.source, minlength=self.nodes), np.bincount(self.destination, minlength=self.nodes)

    def node_bytes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What each node sends, and receives."""
        out, into = np.zeros(self.nodes), np.zeros(self.nodes)
        np.add.at(out, self.source, self.size_bytes)
        np.add.at(into, self.destination, self.size_bytes)
        return out, into

    def ratios(self, above: float, limit: float) -> NDArray[np.float64]:
        """All ratios of whole lanes in (above, limit], rising."""
        # Both limits are shifted alike, so that a ratio that was served before is not asked for again because of rounding.
        most = np.floor(self.size_bytes * (limit * (1 + _ROUNDING))).astype(np.int64)
        least = np.floor(self.size_bytes * (above * (1 + _ROUNDING))).astype(np.int64) + 1
        count = np.maximum(most - least + 1, 0)
        pair = np.repeat(np.arange(len(self)), count)
        lanes = least[pair] + np.arange(len(pair)) - np.repeat(np.cumsum(count) - count, count)
        return np.unique(lanes / self.size_bytes[pair])


def most_even(
    demand: Demand, limit: float, serve: Callable[[Lanes], Found | None], *, above: float = 0.0
) -> tuple[Found | None, float]:
    """What serves the greatest least ratio in (above, limit], and an upper bound of that ratio.

    ``serve`` finds something that gives each pair so many lanes at least, or says None where nothing can: bisection of the
    ratios of whole lanes, of which one is the best, so the bound is attained unless ``serve`` raised Undecided.
    None, and ``above`` as the bound, if no ratio can be served. O(log(pairs x lanes)) calls.
    """
    ratios = demand.ratios(above, limit)
    low, high, refuted = -1, len(ratios), len(ratios)
    best: Found | None = None
    while high - low > 1:
        middle = (low + high) // 2
        try:
            found = serve(demand.needed(float(ratios[middle])))
        except Undecided:
            # Nothing is known of this ratio, so the search goes on below it, and the proven bound stays where it is.
            high = middle
            continue
        if found is None:
            high = refuted = middle
        else:
            low, best = middle, found
    return best, float(ratios[refuted - 1]) if refuted else above


def hand_out(lanes: Lanes, weight: NDArray[np.float64], take: Callable[[int], bool]) -> None:
    """Give what is left, one lane at a time, to the pair with the least lanes / weight that can take it."""
    poorest = [(float(lanes[i] / weight[i]), i) for i in range(len(lanes))]
    heapify(poorest)
    while poorest:
        _, i = heappop(poorest)
        # Nothing is ever given back, so a pair that cannot take one lane more is done with.
        if take(i):
            lanes[i] += 1
            heappush(poorest, (float(lanes[i] / weight[i]), i))
