"""Arcs of pairs around a ring of fibres each way, and how wavelengths are laid along them.

Direction 0 is forward, towards higher nodes. Segment k lies between nodes k and k + 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.kernel.compiled import Records, compiled
from lightfabric.placement.circuit.demand import Demand, Lanes


@dataclass(frozen=True)
class Arcs:
    """``length[direction, pair]`` segments from ``first[direction, pair]`` upwards; length 0 where that way is too long."""

    nodes: int
    first: Lanes
    length: Lanes

    @classmethod
    def of(cls, demand: Demand, max_hops: int) -> "Arcs":
        """The arcs of a demand; ValueError if a pair is more than ``max_hops`` apart both ways round."""
        ahead = np.mod(demand.destination.astype(np.int64) - demand.source, demand.nodes)
        length = np.stack([ahead, demand.nodes - ahead])
        length[length > max_hops] = 0
        far = np.flatnonzero(length.max(axis=0) == 0)
        if len(far):
            pair, hops = far[0], min(ahead[far[0]], demand.nodes - ahead[far[0]])
            raise ValueError(
                f"Ring.max_hops must be at least {hops} for a circuit from node {demand.source[pair]} "
                f"to node {demand.destination[pair]}, not {max_hops}"
            )
        # Arcs are counted upwards, so the backward one of a pair begins at its destination.
        return cls(demand.nodes, np.stack([demand.source, demand.destination]).astype(np.int64), length)

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """Which pairs may go which way, ``[direction, pair]``."""
        return self.length > 0

    @property
    def either(self) -> NDArray[np.bool_]:
        """Which pairs may go either way."""
        return self.allowed[0] & self.allowed[1]

    def load(self, amount: NDArray[np.float64] | Lanes) -> NDArray[np.float64]:
        """How much crosses each segment, ``[direction, segment]``, of amounts ``[direction, pair]``. O(pairs + nodes)."""
        change = np.zeros((2, 2 * self.nodes + 1))
        for way in (0, 1):
            chosen = self.allowed[way]
            first, size = self.first[way, chosen], amount[way, chosen]
            change[way] += np.bincount(first, size, len(change[way]))
            change[way] -= np.bincount(first + self.length[way, chosen], size, len(change[way]))
        # Arcs may pass the last node, so the line is two rounds long, and the rounds are added up.
        twice_round = np.cumsum(change, axis=1)[:, : 2 * self.nodes]
        return twice_round[:, : self.nodes] + twice_round[:, self.nodes :]

    def along(self, price: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of ``price[direction, segment]`` along each arc, ``[direction, pair]``; infinite where there is none."""
        total = np.zeros((2, 2 * self.nodes + 1))
        total[:, 1:] = np.cumsum(np.tile(price, 2), axis=1)
        way = np.arange(2)[:, None]
        return np.where(self.allowed, total[way, self.first + self.length] - total[way, self.first], np.inf)

    def segments(self) -> tuple[Lanes, Lanes, Lanes]:
        """Direction, pair and segment of every segment of every arc."""
        way, pair = np.nonzero(self.allowed)
        count = self.length[way, pair]
        row = np.repeat(np.arange(len(way)), count)
        step = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        return way[row], pair[row], (self.first[way, pair][row] + step) % self.nodes


@compiled
def room(free: Records, way: int, fibre: int, first: int, length: int) -> int:
    """The least ``free[way, fibre, segment]`` along an arc."""
    least, segment = free[way, fibre, first], first
    for _ in range(1, length):
        segment = segment + 1 if segment + 1 < free.shape[2] else 0
        least = min(least, free[way, fibre, segment])
    return least


@compiled
def take(free: Records, lanes: Records, way: int, pair: int, first: int, length: int) -> bool:
    """Give a pair one more lane, on the fibre that has most room along its arc; False if none has any."""
    chosen, most = -1, 0
    for fibre in range(free.shape[1]):
        here = room(free, way, fibre, first, length)
        if here > most:
            chosen, most = fibre, here
    if chosen < 0:
        return False
    segment = first
    for _ in range(length):
        free[way, chosen, segment] -= 1
        segment = segment + 1 if segment + 1 < free.shape[2] else 0
    lanes[way, chosen, pair] += 1
    return True


@compiled
def lay(order: Records, way: int, first: Records, length: Records, free: Records, lanes: Records, left: Records) -> int:
    """Give the pairs, in order, up to ``left[pair]`` lanes each, which is counted down. How many there was no room for.

    Where the order is that of the first segments along a line, no other serves more.
    """
    missing = 0
    for i in range(len(order)):
        pair = order[i]
        while left[pair] > 0 and take(free, lanes, way, pair, first[way, pair], length[way, pair]):
            left[pair] -= 1
        missing += left[pair]
    return missing
