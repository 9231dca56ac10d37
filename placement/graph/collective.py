"""Collectives as rounds of messages between the members of a group, for task graphs."""

from collections.abc import Iterator
from typing import NamedTuple

from lightfabric.placement.collective.algorithm import ALGORITHMS, sends
from lightfabric.placement.collective.sends import Collective, Step

__all__ = ["ALGORITHMS", "Collective", "Message", "Round", "rounds"]


class Message(NamedTuple):
    """Moves ``size`` bytes between two places of a group, as so many equal messages one after the other."""

    source: int
    destination: int
    size: int
    operations: int = 1


Round = Iterator[Message]
"""Messages that need not wait for each other; a member sends when its part in the rounds before is over."""


def rounds(collective: Collective, algorithm: str, members: int, size: int) -> list[Round]:
    """Give the rounds of a collective of ``size`` bytes; none for one member, or for no bytes but at a barrier.

    Bytes of pieces that are no whole ones are rounded up. ValueError as in ``collective.algorithm.sends``.
    """
    barrier = collective == Collective.BARRIER
    if members == 1 or not (size or barrier):
        return []
    found = sends(collective, algorithm, members)
    return [_messages(step, found.parts, 0 if barrier else size) for step in found.steps]


def _messages(step: Step, parts: int, size: int) -> Round:
    """All turns of a step as one message per send, which is as long."""
    ends = zip(step.source.tolist(), step.destination.tolist(), (step.counts * step.times).tolist(), strict=True)
    for source, destination, count in ends:
        # Where parts differ by a byte the largest ends last.
        yield Message(source, destination, -(-size * count // parts), step.times * step.hops)
