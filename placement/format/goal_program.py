"""What a GOAL program says of a rank, whether it was text or binary, and how its tasks come of it."""

from collections.abc import Sequence
from typing import NamedTuple

from lightfabric.model.task import Kind
from lightfabric.placement.graph.assembly import Assembly

MAX_SIZE = 10**15
"""A number that is not believed: 11 days in nanoseconds, or a petabyte."""
ANY = -1
"""Peer or tag of a receive that takes messages of any."""


class Operation(NamedTuple):
    """Calculates for ``size`` nanoseconds, or sends or receives ``size`` bytes; ``where`` it stands is for messages."""

    where: str
    verb: str
    size: int
    peer: int = 0
    tag: int = 0
    cpu: int = 0


class Required(NamedTuple):
    """Operation ``after`` waits for operation ``before``, or for its begin."""

    after: int
    before: int
    begun: bool


def add_rank(assembly: Assembly, rank: int, operations: Sequence[Operation], required: Sequence[Required]) -> None:
    """Add the program of a rank; ValueError names the operation that is wrong."""
    waits, begun = _waits(operations, required)
    for number, operation in enumerate(operations):
        _add(assembly, rank, number, operation, waits.get(number, []))
        if number in begun:
            # Of two tasks that get ready in one moment a CPU does the lower number first, and then at once the other one.
            kind, lane = (Kind.COMPUTE, operation.cpu) if operation.verb == "calc" else (Kind.BARRIER, 0)
            assembly.add_alone(operation.where, rank, _begin(number), waits.get(number, []), kind, 0, lane=lane)


def _begin(number: int) -> int:
    """Identity of the task that ends when an operation begins; the operation itself has the identity after it."""
    return 2 * number


def _waits(operations: Sequence[Operation], required: Sequence[Required]) -> tuple[dict[int, list[int]], set[int]]:
    """What each operation waits for, and those with which others begin."""
    waits, begun = dict[int, list[int]](), set[int]()
    for after, before, begins in required:
        both = operations[after], operations[before]
        # A CPU does one calculation after the other, so what begins with another one of its own begins when that ends.
        of_one_cpu = both[0].verb == both[1].verb == "calc" and both[0].cpu == both[1].cpu
        waits.setdefault(after, []).append(_begin(before) + (of_one_cpu or not begins))
        if begins and not of_one_cpu:
            begun.add(before)
    return waits, begun


def _add(assembly: Assembly, rank: int, number: int, operation: Operation, waits: list[int]) -> None:
    where, verb, size, peer, tag, cpu = operation
    identity = _begin(number) + 1
    if verb == "calc":
        # GOAL counts nanoseconds, the task graph picoseconds.
        assembly.add_alone(where, rank, identity, waits, Kind.COMPUTE, size * 1000, lane=cpu)
        return
    sent = verb == "send"
    if sent and ANY in (peer, tag):
        said = f"send {size}b to {peer} tag {tag}"
        raise ValueError(f"{where} must be to a rank and with a tag, -1 for any is of recv, not {said!r}")
    ends = (rank, peer, tag) if sent else (peer, rank, tag)
    assembly.add_end(where, rank, identity, waits, ends, (size, 1), sent=sent)
