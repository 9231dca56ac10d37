"""Circuits of light join GPUs, as placement chooses them and as both models run on them."""

from collections.abc import Sequence
from dataclasses import dataclass

Pair = tuple[int, int]
"""Two GPUs, the first of which sends."""


@dataclass(frozen=True)
class Circuits:
    """Says which GPUs are joined by light: ``lanes[source, destination]`` wavelengths on a ring, ports on an OCS.

    ``stops[source, destination]`` is the path of a pair that talks, both ends included: two GPUs when it has a circuit of
    its own, more when GPUs in between relay it from circuit to circuit.

    Circuits that change during an iteration have several configurations: traffic of each ``Part`` is on that which
    ``of_part`` names, all on one if it is empty. GPU g is node ``c * gpus + g`` in configuration c, so that a link of one
    is none of another.
    """

    lanes: dict[Pair, int]
    stops: dict[Pair, tuple[int, ...]]
    of_part: tuple[int, ...] = ()

    @property
    def configurations(self) -> int:
        """Count the configurations, at least one."""
        return 1 + max(self.of_part, default=0)

    def only(self, configuration: int, gpus: int) -> "Circuits":
        """Give one of the configurations, with GPUs numbered from 0."""

        def own(stops: tuple[int, ...]) -> bool:
            return stops[0] // gpus == configuration

        lanes = {(a % gpus, b % gpus): count for (a, b), count in self.lanes.items() if own((a, b))}
        paths = [tuple(stop % gpus for stop in path) for path in self.stops.values() if own(path)]
        return Circuits(lanes, {(path[0], path[-1]): path for path in paths})


def joined(each: Sequence[Circuits], of_part: tuple[int, ...], gpus: int) -> Circuits:
    """Make one of circuits for several configurations; those of a single one stay as they are."""
    if len(each) == 1:
        return each[0]
    lanes, stops = dict[Pair, int](), dict[Pair, tuple[int, ...]]()
    for first, circuits in zip(range(0, gpus * len(each), gpus), each, strict=True):
        lanes |= {(first + a, first + b): count for (a, b), count in circuits.lanes.items()}
        stops |= {(first + a, first + b): tuple(first + stop for stop in path) for (a, b), path in circuits.stops.items()}
    return Circuits(lanes, stops, of_part)
