"""Settings of optical circuit switches one after the other: SiP-ML's multi-shot, and decomposition into permutations."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.circuit.demand import Demand
from lightfabric.placement.circuit.permutation import Settings
from lightfabric.placement.circuit.programme import heaviest_permutation, perfect_matching

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]
MAX_SLOTS = 1 << 16
"""Most slots that a schedule may need at least."""
_LEAST_BYTES = 1e-6
"""Less than this is what rounding left."""
_SPARE = 1e-6
"""Weight of bytes that have a circuit already."""


@dataclass(frozen=True)
class Slot:
    """``to[switch, node]`` for so long, after the delay of setting it."""

    seconds: float
    to: Settings


@dataclass(frozen=True)
class Schedule:
    """Slots that serve all of a demand; ``seconds`` with the delays. No schedule of this kind takes less than the bound."""

    slots: tuple[Slot, ...]
    seconds: float
    bound_seconds: float


def multi_shot(
    demand: Demand,
    switches: int,
    *,
    circuit_bytes_per_s: float,
    delay_seconds: float,
    slot_seconds: float,
    duplex: bool = False,
) -> Schedule:
    """Set each slot to the most circuits x outstanding bytes, one switch after the other (SiP-ML, multi-shot).

    All switches are set at once and are dark for ``delay_seconds`` before each slot. A slot ends after ``slot_seconds``
    (five delays in SiP-ML), or when its circuits have nothing more to send. Each switch gets the heaviest permutation of
    what the others of the slot leave, exactly; with ``duplex`` a matching of at least half the greatest weight.
    ValueError unless times and rate are positive (the delay may be 0) and ``slot_seconds`` gives at most MAX_SLOTS slots.
    O(slots x switches) assignment problems.
    """
    _require(switches, circuit_bytes_per_s, delay_seconds, slot_seconds)
    most_bytes, settings = _bounds(demand, switches, duplex)
    transfer = most_bytes / circuit_bytes_per_s
    if transfer > MAX_SLOTS * slot_seconds:
        raise ValueError(f"slot_seconds must be at least {transfer / MAX_SLOTS:g}, not {slot_seconds:g}")
    left = _matrix(demand)
    heaviest = _heavy_matching if duplex else heaviest_permutation
    slots: list[Slot] = []
    while left.any():
        to = _settings(left, switches, circuit_bytes_per_s * slot_seconds, heaviest)
        rate = circuit_bytes_per_s * _counts(to)
        served = (rate > 0) & (left > 0)
        seconds = min(slot_seconds, float((left[served] / rate[served]).max()))
        left = np.maximum(left - rate * seconds, 0)
        left[left < _LEAST_BYTES] = 0
        slots.append(Slot(seconds, to))
    seconds = sum(slot.seconds for slot in slots) + len(slots) * delay_seconds
    return Schedule(tuple(slots), seconds, transfer + settings * delay_seconds)


def _require(switches: int, rate: float, delay: float, slot: float) -> None:
    if switches < 1:
        raise ValueError(f"switches must be at least 1, not {switches}")
    for name, value in (("circuit_bytes_per_s", rate), ("slot_seconds", slot)):
        if not 0 < value < np.inf:
            raise ValueError(f"{name} must be positive, not {value}")
    if not 0 <= delay < np.inf:
        raise ValueError(f"delay_seconds must be at least 0, not {delay}")


def _bounds(demand: Demand, switches: int, duplex: bool) -> tuple[float, int]:
    """What some circuit carries at least, in bytes, and how many settings some node takes to reach all its partners."""
    # The two ways of a duplex circuit are taken together, so the larger demand of the two decides.
    joined = demand.both_ways() if duplex else demand
    (sent, received), (out, into) = joined.node_bytes(), joined.degrees()
    size, degree = (sent + received, out + into) if duplex else (np.maximum(sent, received), np.maximum(out, into))
    return float(size.max(initial=0)) / switches, -(-int(degree.max(initial=0)) // switches)


def _matrix(demand: Demand) -> _Floats:
    size = np.zeros((demand.nodes, demand.nodes))
    size[demand.source, demand.destination] = demand.size_bytes
    return size


def _counts(to: Settings) -> _Floats:
    """Circuits from each node to each other one."""
    count = np.zeros((to.shape[1], to.shape[1]))
    for setting in to:
        count[np.arange(len(count)), setting] += 1
    return count


def _settings(left: _Floats, switches: int, slot_bytes: float, heaviest: Callable[[_Floats], _Ints]) -> Settings:
    """One setting per switch, each the heaviest for what the circuits before it do not move in a slot.

    What they do move counts a little, the less the more circuits there are for it, so that no switch idles meanwhile.
    """
    to = np.zeros((switches, len(left)), np.int32)
    for switch in range(switches):
        count = _counts(to[:switch])
        to[switch] = heaviest(np.maximum(left - count * slot_bytes, 0) + _SPARE * left / (1 + count))
    return to


def _heavy_matching(weight: _Floats) -> _Ints:
    """The partner of each node, itself if idle: heaviest pairs first, at least half of the most that a matching weighs."""
    both = np.triu(weight + weight.T, 1)
    low, high = np.nonzero(both)
    partner = np.arange(len(weight))
    # A pair that is taken excludes at most two pairs of the best matching, neither heavier than itself: hence at least half.
    for i in np.argsort(-both[low, high], kind="stable").tolist():
        a, b = int(low[i]), int(high[i])
        if partner[a] == a and partner[b] == b:
            partner[a], partner[b] = b, a
    return partner


@dataclass(frozen=True)
class Mixture:
    """``weight_bytes[i]`` through permutation ``to[i, node]``, one after the other."""

    weight_bytes: _Ints
    to: Settings

    @property
    def total_bytes(self) -> int:
        """What every node sends, idle time included: the greatest sum of a row or column of what was decomposed."""
        return int(self.weight_bytes.sum())


def decompose(size_bytes: _Ints) -> Mixture:
    """Permutations whose sum covers a matrix ``[source, destination]`` of whole bytes, in the least total of all.

    The matrix is filled up until all rows and columns sum to the greatest of them, which no total can be below, and
    decomposed (Birkhoff, 1946; von Neumann, 1953) into at most n^2 - 2n + 2 permutations. Few, since each is one whose
    least entry is within a factor of two of the best, as in Solstice (CoNEXT 2015). O(n^2) perfect matchings.
    ValueError unless the matrix is square and not negative.

    >>> decompose(np.array([[0, 2, 1], [1, 0, 2], [2, 1, 0]])).weight_bytes.tolist()
    [2, 1]
    """
    if size_bytes.ndim != 2 or size_bytes.shape[0] != size_bytes.shape[1] or size_bytes.min(initial=0) < 0:
        raise ValueError(
            f"size_bytes must be square and at least 0, not {size_bytes.shape} from {size_bytes.min(initial=0)}"
        )
    left = _filled_up(size_bytes)
    rows = np.arange(len(left))
    weights: list[int] = []
    found: list[_Ints] = []
    threshold = 1 << (int(left.max(initial=0)).bit_length())
    # Entries only shrink, so what has no matching above a threshold never gets one, and the threshold is only lowered.
    while left.any():
        to = perfect_matching(left >= threshold)
        if to is None:
            threshold >>= 1
            continue
        weights.append(int(left[rows, to].min()))
        found.append(to)
        left[rows, to] -= weights[-1]
    return Mixture(np.array(weights, np.int64), np.array(found, np.int32).reshape(-1, len(left)))


def _filled_up(size_bytes: _Ints) -> _Ints:
    """Add as much, corner by corner, that all rows and columns have one sum."""
    filled = size_bytes.astype(np.int64)
    row, column = filled.sum(axis=1), filled.sum(axis=0)
    most = max(row.max(initial=0), column.max(initial=0))
    i = j = 0
    while i < len(filled) and j < len(filled):
        # Each step fills up a row or a column, so 2n steps are enough.
        more = min(most - row[i], most - column[j])
        filled[i, j] += more
        row[i] += more
        column[j] += more
        i, j = i + (row[i] == most), j + (column[j] == most)
    return filled
