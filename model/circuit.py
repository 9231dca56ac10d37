"""Circuits of light join GPUs, as placement chooses them and as both models run on them."""

from dataclasses import dataclass

Pair = tuple[int, int]
"""Two GPUs, the first of which sends."""


@dataclass(frozen=True)
class Circuits:
    """Says which GPUs are joined by light: ``lanes[source, destination]`` wavelengths on a ring, ports on an OCS.

    ``stops[source, destination]`` is the path of a pair that talks, both ends included: two GPUs when it has a circuit of
    its own, more when GPUs in between relay it from circuit to circuit.
    """

    lanes: dict[Pair, int]
    stops: dict[Pair, tuple[int, ...]]
