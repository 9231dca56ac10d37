"""What the lanes of optical circuits carry, beside what is least possible, and the wavelengths that the circuits need."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.placement.circuit.colouring import Colouring, colour
from lightfabric.placement.circuit.demand import Demand, Lanes, most_even
from lightfabric.placement.circuit.permutation import best_share
from lightfabric.placement.mapping.traffic import Traffic, ring_steps, segment_load


@dataclass(frozen=True)
class LaneLoad:
    """Bytes of one iteration over each lane of the circuits: a wavelength of a ring or a port of an OCS.

    ``bound_bytes`` is the least ``most_bytes`` of all shares of the lanes among circuits between the same GPUs, the same
    ways round. ``colouring`` is of a ring where each pair that talks has a wavelength of its own, however far apart it is.
    """

    most_bytes: float
    mean_bytes: float
    bound_bytes: float
    colouring: Colouring | None


NOTHING = LaneLoad(0.0, 0.0, 0.0, None)
"""The load of circuits that carry no bytes."""


def ocs_load_of(circuits: Circuits, placed: Traffic, gpus: int, ports: int) -> LaneLoad:
    """Load of the ports of optical circuit switches. O(pairs log(pairs x lanes))."""
    demand, load = _carried(circuits, placed, gpus)
    if not len(demand):
        return NOTHING
    return LaneLoad(float(load.max()), float(load.mean()), 1 / best_share(demand, ports), None)


def ring_load_of(circuits: Circuits, placed: Traffic, gpus: int, segment_lanes: int) -> LaneLoad:
    """Load of the wavelengths of a ring that has ``segment_lanes`` each way. O(pairs log(pairs x lanes)) and a colouring."""
    demand, load = _carried(circuits, placed, gpus)
    if not len(demand):
        return NOTHING
    steps = ring_steps(demand.source, demand.destination, gpus)
    bound = 1 / _best_ring_share(demand, steps, segment_lanes)
    return LaneLoad(float(load.max()), float(load.mean()), bound, _own_wavelengths(gpus, placed))


def _carried(circuits: Circuits, placed: Traffic, gpus: int) -> tuple[Demand, NDArray[np.float64]]:
    """Bytes over each circuit that carries any, and over each of its lanes."""
    carried = dict.fromkeys(circuits.lanes, 0)
    for leg, size in _legs(circuits, placed):
        carried[leg] += size
    demand = Demand.of(gpus, carried)
    lanes = np.array([circuits.lanes[leg] for leg, size in carried.items() if size], np.int64)
    return demand, demand.size_bytes / lanes


def _own_wavelengths(gpus: int, placed: Traffic) -> Colouring:
    """One wavelength for each pair that talks, whether or not it is relayed."""
    keys = np.unique(placed.source.astype(np.int64) * gpus + placed.destination)
    source, destination = (keys // gpus).astype(np.int32), (keys % gpus).astype(np.int32)
    return colour(gpus, source, ring_steps(source, destination, gpus))


def _best_ring_share(demand: Demand, steps: Lanes, capacity: int) -> float:
    """The greatest least lanes / bytes of circuits ``steps`` long, counted over all fibres."""

    def serve(lanes: Lanes) -> Lanes | None:
        return lanes if segment_load(demand.source, steps, lanes, demand.nodes).max() <= capacity else None

    # The bytes over the fullest segment share all its lanes, and no ratio can be greater than theirs.
    fullest = segment_load(demand.source, steps, demand.size_bytes, demand.nodes).max()
    return most_even(demand, capacity / float(fullest), serve)[1]


def _legs(circuits: Circuits, placed: Traffic) -> list[tuple[Pair, int]]:
    ends = zip(placed.source.tolist(), placed.destination.tolist(), placed.size_bytes.tolist(), strict=True)
    return [(leg, size) for source, destination, size in ends for leg in pairwise(circuits.stops[source, destination])]
