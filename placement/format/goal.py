"""GOAL programs, the text that LogGOPSim runs [Hoefler 2010]: a task graph as sends, receives and calculations per rank.

``num_ranks N`` and then ``rank R { ... }`` with statements ``L: calc NANOSECONDS``, ``L: send SIZEb to R tag T``,
``L: recv SIZEb from R tag T``, where R and T may be -1 for any, ``L requires M``, which begins when M has ended, and
``L irequires M``, which begins when M has begun. A label that nothing requires may be left out. Calculations end with
``cpu N``: those of different CPUs of a rank run at once. A ``nic N`` is skipped. Comments are ``// ...`` and ``/* ... */``.
``goal_binary`` has the binary form that LogGOPSim and ATLAHS make of the text.
"""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.format import goal_binary
from lightfabric.placement.format.goal_program import MAX_SIZE, Operation, Required, add_rank
from lightfabric.placement.graph.any_source import NOMINAL, Wire
from lightfabric.placement.graph.assembly import MAX_PARTS, Assembly
from lightfabric.placement.graph.by_rank import ranks

MAX_RANKS = 1 << 16
MAX_STATEMENTS = MAX_PARTS
"""Most statements in the program of a rank."""
_DIGITS = len(str(MAX_SIZE - 1))
"""Most digits of a number that is believed."""

_SKIPPED = re.compile(r"[\s;]+|//[^\n]*|/\*.*?\*/", re.DOTALL)
_HEAD = re.compile(r"num_ranks\s+(\d+)(?!\w)", re.ASCII)
_RANK = re.compile(r"rank\s+(\d+)\s*\{", re.ASCII)
_END = re.compile(r"\}")
_OPERATION = re.compile(
    r"(?:(\w+)\s*:\s*)?"
    r"(?:calc\s+(\d+)|(send|recv)\s+(\d+)b\s+(to|from)\s+(-1|\d+)(?:\s+tag\s+(-1|\d+))?)((?:\s+(?:cpu|nic)\s+\d+){0,2})(?!\w)",
    re.ASCII,
)
_CPU = re.compile(r"cpu\s+(\d+)", re.ASCII)
_REQUIRES = re.compile(r"(\w+)\s+(i?)requires\s+(\w+)", re.ASCII)


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


def write_binary(graph: TaskGraph) -> Iterator[bytes]:
    """The program as LogGOPSim's txt2bin makes it of the text, piece by piece; ValueError as for ``write``."""
    program = _Program("".join(write(graph)))
    return goal_binary.write([(operations, required) for _, operations, required in _ranks(program, _head(program))])


def read(data: bytes, wire: Wire = NOMINAL) -> TaskGraph:
    """Task graph of a program: calculations are COMPUTE, a send and a receive of equal ends and tag, in order, a TRANSFER.

    Every CPU of a rank but the first is a device after those of all ranks. What waits for a send waits until its bytes have
    arrived; a receive that waits is a BARRIER of that and the TRANSFER. What a receive from any source or of any tag gets is
    the first that comes over ``wire``, see ``graph.any_source``. A receive may be larger than its message.

    ValueError, one line that names the line or the node, if the program is not as it must be, such as with an end without
    its other end. Memory in proportion to the program.
    """
    assembly = Assembly([], [], larger=True, wire=wire)
    if goal_binary.is_binary(data):
        devices, found = goal_binary.rank_count(data), goal_binary.read(data)
    else:
        program = _Program(data.removeprefix(BOM_UTF8).decode("latin-1"))
        devices = _head(program)
        found = _ranks(program, devices)
    for rank, operations, required in found:
        add_rank(assembly, rank, operations, required)
    return assembly.graph(devices)


def rank_count(data: bytes) -> int:
    """Number of ranks of a program, which are the first devices of its graph; ValueError as for ``read``."""
    if goal_binary.is_binary(data):
        return goal_binary.rank_count(data)
    return _head(_Program(data.removeprefix(BOM_UTF8).decode("latin-1")))


@dataclass
class _Program:
    """Text of a program, of which statements are taken from the front."""

    text: str
    at: int = 0
    line: int = 1

    def at_end(self) -> bool:
        """Skip what says nothing, and tell whether that is all there is."""
        while skipped := _SKIPPED.match(self.text, self.at):
            self.line += self.text.count("\n", self.at, skipped.end())
            self.at = skipped.end()
        return self.at == len(self.text)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Take a statement if it is the next."""
        self.at_end()
        match = pattern.match(self.text, self.at)
        if match:
            self.line += match[0].count("\n")
            self.at = match.end()
        return match

    def wrong(self, must_be: str, match: re.Match[str] | None = None) -> ValueError:
        start = match.start() if match else self.at
        line = self.line - (match[0].count("\n") if match else 0)
        text = self.text[start : start + 40].partition("\n")[0].strip()
        return ValueError(f"line {line} must be {must_be}, not {text!r}")


def _head(program: _Program) -> int:
    match = program.take(_HEAD)
    devices = _number(match[1]) if match else 0
    if not 1 <= devices <= MAX_RANKS:
        raise program.wrong(f"num_ranks and a number from 1 to {MAX_RANKS}", match)
    return devices


def _number(digits: str | None) -> int:
    """The value of some digits, 0 if there are none, -1 for -1, -2 for a number that is not believed."""
    # The length is looked at first, since Python takes quadratic time to convert digits.
    return int(digits or "0") if len(digits or "") <= _DIGITS else -2


def _ranks(program: _Program, devices: int) -> Iterator[tuple[int, list[Operation], list[Required]]]:
    """The operations of each rank that is there, and what they require."""
    seen = set[int]()
    while not program.at_end():
        match = program.take(_RANK)
        rank = _number(match[1]) if match else -1
        if not 0 <= rank < devices or rank in seen:
            raise program.wrong(f"a new rank below {devices} and {{", match)
        seen.add(rank)
        yield rank, *_rank(rank, program)


def _rank(rank: int, program: _Program) -> tuple[list[Operation], list[Required]]:
    operations, labels, named = list[Operation](), dict[str, int](), list[tuple[int, re.Match[str]]]()
    while not program.take(_END):
        if program.at_end():
            raise ValueError(f"rank {rank} must end with }}, not with the file")
        if len(operations) + len(named) >= MAX_STATEMENTS:
            raise ValueError(f"line {program.line} must be one of at most {MAX_STATEMENTS} of a rank, not one more")
        line = program.line
        if match := program.take(_OPERATION):
            if match[1] in labels:
                raise ValueError(f"line {line}: label must be one that no other of rank {rank} has, not {match[1]!r}")
            if match[1]:
                labels[match[1]] = len(operations)
            operations.append(_operation_of(match, f"line {line}"))
        elif match := program.take(_REQUIRES):
            named.append((line, match))
        else:
            raise program.wrong("calc, send, recv, requires, irequires or }")
    # A requirement may name labels that come after it, so labels are looked up at the end.
    for line, (after, _, before) in ((line, match.groups()) for line, match in named):
        if after not in labels or before not in labels:
            raise ValueError(f"line {line} must have labels of rank {rank}, not {after!r} and {before!r}")
    return operations, [Required(labels[match[1]], labels[match[3]], bool(match[2])) for _, match in named]


def _operation_of(match: re.Match[str], where: str) -> Operation:
    _, calc, verb, size, direction, other, tag, ends = match.groups()
    # Of several CPUs the last one counts.
    cpu = ([0] + [_number(each) for each in _CPU.findall(ends)])[-1]
    numbers = _number(calc or size), _number(other), _number(tag), cpu
    if min(numbers) < -1:
        raise ValueError(f"{where} must have numbers of at most {_DIGITS} digits, not longer ones")
    if verb and direction != ("to" if verb == "send" else "from"):
        raise ValueError(f"{where} must be send to or recv from, not {verb} {direction}")
    return Operation(where, verb or "calc", *numbers)
