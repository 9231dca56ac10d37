"""GOAL programs, the text that LogGOPSim runs [Hoefler 2010]: a task graph as sends, receives and calculations per rank.

``num_ranks N`` and then ``rank R { ... }`` with a statement per line: ``L: calc NANOSECONDS``, ``L: send SIZEb to R tag T``,
``L: recv SIZEb from R tag T``, ``L requires M``. A ``cpu`` or ``nic`` at the end of a statement is skipped.
"""

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.graph.assembly import MAX_PARTS, Assembly
from lightfabric.placement.graph.by_rank import ranks

MAX_RANKS = 1 << 16
MAX_STATEMENTS = MAX_PARTS
"""Most statements in the program of a rank."""
_DIGITS = 15
"""Most digits of a number that is believed."""

_HEAD = re.compile(r"num_ranks\s+(\d+)")
_RANK = re.compile(r"rank\s+(\d+)\s*\{")
_OPERATION = re.compile(
    r"(\w+)\s*:\s*(?:calc\s+(\d+)|(send|recv)\s+(\d+)b\s+(to|from)\s+(\d+)(?:\s+tag\s+(\d+))?)(?:\s+(?:cpu|nic)\s+\d+)*"
)
_REQUIRES = re.compile(r"(\w+)\s+requires\s+(\w+)")


def write(graph: TaskGraph) -> Iterator[str]:
    """The program, line by line. An ALL_REDUCE becomes the 2 (n - 1) steps of its ring, 1/n of ``work`` in each.

    Times are rounded to the nanosecond, and the operations that a task stands for are one. Raises ValueError if tasks wait
    for each other that meet at no rank, see ``graph.by_rank.ranks``.
    """
    yield f"num_ranks {graph.devices}\n"
    for rank, here in enumerate(ranks(graph)):
        yield f"rank {rank} {{\n"
        first, last = dict[int, str](), dict[int, tuple[str, ...]]()
        for task in here.tasks.tolist():
            first[task], last[task] = f"l{task}", (f"l{task}",)
            if graph.kind[task] == Kind.ALL_REDUCE:
                ring = graph.group(int(graph.peer[task]))
                yield from _ring(task, int(graph.work[task]), ring, int(np.argmax(ring == rank)))
                # The last step ends with both its send and its receive, and what waits for the reduction waits for the two.
                if len(ring) > 1:
                    first[task], last[task] = f"l{task}s0", (f"l{task}s{2 * len(ring) - 3}", f"l{task}r{2 * len(ring) - 3}")
            else:
                yield f"l{task}: {_operation(graph, task, rank)}\n"
        for after, before in here.waits.tolist():
            for label in last[before]:
                yield f"{first[after]} requires {label}\n"
        yield "}\n"


def _operation(graph: TaskGraph, task: int, rank: int) -> str:
    source, destination, work = int(graph.device[task]), int(graph.peer[task]), int(graph.work[task])
    if graph.kind[task] == Kind.COMPUTE:
        return f"calc {round(work / 1000)}"
    # A transfer to its own device takes no time, and a program cannot send to itself.
    if source == destination:
        return "calc 0"
    return f"send {work}b to {destination} tag {task}" if source == rank else f"recv {work}b from {source} tag {task}"


def _ring(task: int, work: int, ring: NDArray[np.int32], place: int) -> Iterator[str]:
    """The steps of one member: it sends a part, and then passes on each part that it has received."""
    n = len(ring)
    if n == 1:
        yield f"l{task}: calc 0\n"
    for step in range(2 * (n - 1)):
        # What arrives in a step is what the member before sends in it, one part behind.
        sent, received = (_part(work, n, (at - step) % n) for at in (place, place - 1))
        yield f"l{task}s{step}: send {sent}b to {ring[(place + 1) % n]} tag {task}\n"
        yield f"l{task}r{step}: recv {received}b from {ring[place - 1]} tag {task}\n"
        if step:
            yield f"l{task}s{step} requires l{task}s{step - 1}\n"
            yield f"l{task}s{step} requires l{task}r{step - 1}\n"


def _part(work: int, parts: int, index: int) -> int:
    # Differences of rounded multiples sum to the whole, with parts that differ by a byte at most.
    return work * (index + 1) // parts - work * index // parts


def read(data: bytes) -> TaskGraph:
    """Task graph of a program: calculations are COMPUTE, a send and a receive of equal ends and tag, in order, a TRANSFER.

    What waits for a send waits until its bytes have arrived; a receive that waits is a BARRIER of that and the TRANSFER.

    ValueError, one line that names the line, if the program is not as it must be: with ``irequires``, messages from any
    rank, ends without their other end. Memory in proportion to the program.
    """
    lines = _lines(data)
    devices = _head(lines)
    assembly, seen = Assembly([], []), set[int]()
    for number, text in lines:
        match = _RANK.fullmatch(text)
        rank = _number(match[1]) if match else -1
        if not 0 <= rank < devices or rank in seen:
            raise ValueError(f"line {number} must be a new rank below {devices} and {{, not {text[:40]!r}")
        seen.add(rank)
        _read_rank(assembly, rank, lines)
    return assembly.graph(devices)


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that say something; ``//`` begins a comment."""
    for number, raw in enumerate(data.split(b"\n"), 1):
        text = raw.decode("ascii", "replace").partition("//")[0].strip().rstrip(";")
        if text:
            yield number, text


def _head(lines: Iterator[tuple[int, str]]) -> int:
    number, text = next(lines, (1, ""))
    match = _HEAD.fullmatch(text)
    devices = _number(match[1]) if match else 0
    if not 1 <= devices <= MAX_RANKS:
        raise ValueError(f"line {number} must be num_ranks and a number from 1 to {MAX_RANKS}, not {text[:40]!r}")
    return devices


def _number(digits: str | None) -> int:
    """The value of some digits, 0 if there are none, -1 for a number that is not believed."""
    # The length is looked at first, since Python takes quadratic time to convert digits.
    return int(digits or "0") if len(digits or "") <= _DIGITS else -1


def _read_rank(assembly: Assembly, rank: int, lines: Iterator[tuple[int, str]]) -> None:
    operations, labels = list[tuple[int, re.Match[str]]](), dict[str, int]()
    waits: dict[str, list[int]] = {}
    required = list[tuple[int, str, str]]()
    for number, text in lines:
        if text == "}":
            break
        if len(operations) + len(required) >= MAX_STATEMENTS:
            raise ValueError(f"line {number} must be one of at most {MAX_STATEMENTS} of a rank, not one more")
        if match := _OPERATION.fullmatch(text):
            if match[1] in labels:
                raise ValueError(f"line {number}: label must be one that no other of rank {rank} has, not {match[1]!r}")
            labels[match[1]] = len(operations)
            operations.append((number, match))
        elif match := _REQUIRES.fullmatch(text):
            required.append((number, match[1], match[2]))
        else:
            raise ValueError(f"line {number} must be calc, send, recv, requires or }}, not {text[:40]!r}")
    else:
        raise ValueError(f"rank {rank} must end with }}, not with the file")
    # A requirement may name labels that come after it, so labels are looked up at the end.
    for number, after, before in required:
        if after not in labels or before not in labels:
            raise ValueError(f"line {number} must have labels of rank {rank}, not {after!r} and {before!r}")
        waits.setdefault(after, []).append(labels[before])
    for identity, (number, match) in enumerate(operations):
        _read_operation(assembly, rank, identity, match, waits.get(match[1], []), f"line {number}")


def _read_operation(
    assembly: Assembly, rank: int, identity: int, match: re.Match[str], waits: list[int], where: str
) -> None:
    _, calc, verb, size, direction, other, tag = match.groups()
    if min(_number(digits) for digits in (calc, size, other, tag)) < 0:
        raise ValueError(f"{where} must have numbers of at most {_DIGITS} digits, not longer ones")
    if calc is not None:
        # GOAL counts nanoseconds, the task graph picoseconds.
        assembly.add_alone(where, rank, identity, waits, Kind.COMPUTE, _number(calc) * 1000)
        return
    sent = verb == "send"
    if direction != ("to" if sent else "from"):
        raise ValueError(f"{where} must be send to or recv from, not {verb} {direction}")
    ends = (rank, _number(other), _number(tag)) if sent else (_number(other), rank, _number(tag))
    assembly.add_end(where, rank, identity, waits, ends, (_number(size), 1), sent=sent)
