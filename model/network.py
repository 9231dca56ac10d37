"""A fabric as the fluid model sees it: links with a payload rate and a latency, and a route for every pair that talks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]


@dataclass(frozen=True)
class Circuits:
    """Optical circuits between GPUs: ``lanes[source, destination]`` wavelengths on a ring, ports on an OCS.

    ``stops[source, destination]`` is the path of a pair that talks, both ends included: two GPUs when it has a circuit of
    its own, more when GPUs in between relay it from circuit to circuit.
    """

    lanes: dict[Pair, int]
    stops: dict[Pair, tuple[int, ...]]


@dataclass(frozen=True)
class Network:
    """Directed links and routes. Nodes below ``devices`` are GPUs, the others switches.

    The route of the pair whose key ``source * devices + destination`` stands at position p of the rising ``pair_key`` is
    ``route_links[route_start[p]:route_start[p + 1]]``. ``bytes_per_s`` is payload, after coding, headers and CRC.
    """

    devices: int
    link_source: NDArray[np.int32]
    link_destination: NDArray[np.int32]
    bytes_per_s: NDArray[np.float64]
    latency_ps: NDArray[np.int64]
    pair_key: NDArray[np.int64]
    route_start: NDArray[np.int64]
    route_links: NDArray[np.int32]

    def route(self, source: int, destination: int) -> NDArray[np.int32]:
        """Links from one GPU to another, in order; KeyError if the pair has none."""
        key = source * self.devices + destination
        place = int(np.searchsorted(self.pair_key, key))
        if place == len(self.pair_key) or self.pair_key[place] != key:
            raise KeyError(f"no route from GPU {source} to GPU {destination}")
        return self.route_links[self.route_start[place] : self.route_start[place + 1]]
