"""The binary form of GOAL programs that LogGOPSim's ``txt2bin`` writes and LogGOPSim and ATLAHS run.

Little-endian and without padding [spcl/LogGOPSim, src/LogGOPSim/Parser.hpp, ``Graph::serialize_mmap``]: a cookie (u64), the
number of ranks (u32), the highest CPU and NIC (u8 each), begin and end of every rank's part (u64 each, from behind the
cookie). A part is the number of nodes and of roots (u32 each), the roots (u32 each), the nodes of ``_NODE``, and the
appendix (u32 each): for each node those that wait for its end, then those that wait for its begin.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.format.goal_program import ANY, MAX_SIZE, Operation, Required
from lightfabric.placement.graph.assembly import MAX_PARTS

MAX_RANKS = 1 << 16
MAX_STATEMENTS = MAX_PARTS
"""Most nodes of a rank and times that they wait, together."""
COOKIE = 4223
"""First of a program."""
_SPENT = 2342
"""First of a program that a run of LogGOPSim with --save-mem has used up."""
_VERBS = {1: "send", 2: "recv", 3: "calc"}
_WILDCARD = (1 << 32) - 1
_NODE = np.dtype(
    [
        ("waits", "<u4"), ("type", "u1"), ("peer", "<u4"), ("size", "<u8"), ("tag", "<u4"), ("cpu", "u1"), ("nic", "u1"),
        ("ended", "<u4"), ("ended_at", "<u4"), ("begun", "<u4"), ("begun_at", "<u4"),
    ]
)  # fmt: skip
"""Of a node: what it waits for, how many wait for its end and its begin, and where in the appendix these are."""
_HEAD_BYTES, _ENTRY_BYTES = 6, 16
_Ints = NDArray[np.int64]


def is_binary(data: bytes) -> bool:
    """Tell a binary program by its cookie."""
    return len(data) >= 8 and int.from_bytes(data[:8], "little") in (COOKIE, _SPENT)


def rank_count(data: bytes) -> int:
    """Number of ranks of a program; ValueError if it is used up, cut, or of too many."""
    if int.from_bytes(data[:8], "little") == _SPENT:
        raise ValueError("cookie must be that of a program, not that of one which a simulation has used up")
    ranks = int.from_bytes(data[8:12], "little")
    most = min(MAX_RANKS, (len(data) - 8 - _HEAD_BYTES) // _ENTRY_BYTES)
    if not 1 <= ranks <= most:
        raise ValueError(f"ranks must be from 1 to {most} in {len(data)} bytes, not {ranks}")
    return ranks


def read(data: bytes) -> Iterator[tuple[int, list[Operation], list[Required]]]:
    """Go through the ranks with their operations and what these require; ValueError, one line, names rank and node."""
    ranks, body = rank_count(data), memoryview(data)[8:]
    table = np.frombuffer(body, "<u8", 2 * ranks, _HEAD_BYTES).reshape(-1, 2).tolist()
    last = _HEAD_BYTES + _ENTRY_BYTES * ranks
    for rank, (begin, end) in enumerate(table):
        # Parts that overlapped could be many times as large together as the file.
        if not last <= begin <= end <= len(body):
            raise ValueError(f"rank {rank} must be in bytes {last} to {len(body)}, not {begin} to {end}")
        last = end
        yield rank, *_rank(f"rank {rank}", bytes(body[begin:end]))


def _rank(where: str, part: bytes) -> tuple[list[Operation], list[Required]]:
    count, roots = (int.from_bytes(part[at : at + 4], "little") for at in (0, 4))
    begin = 8 + 4 * roots
    appendix_at = begin + _NODE.itemsize * count
    if appendix_at > len(part) or (len(part) - appendix_at) % 4:
        raise ValueError(f"{where} must be of the size of its {count} nodes and {roots} roots, not of {len(part)} bytes")
    nodes = np.frombuffer(part, _NODE, count, begin)
    waiting = int(nodes["ended"].sum(dtype=np.int64) + nodes["begun"].sum(dtype=np.int64))
    if waiting * 4 > len(part) - appendix_at:
        raise ValueError(f"{where} must have {waiting} entries in its appendix, not {(len(part) - appendix_at) // 4}")
    if count + waiting > MAX_STATEMENTS:
        raise ValueError(f"{where} must be of at most {MAX_STATEMENTS} statements, not {count + waiting}")
    appendix = np.frombuffer(memoryview(part)[appendix_at:], "<u4").astype(np.int64)
    return list(_operations(where, nodes)), _required(where, nodes, appendix)


def _operations(where: str, nodes: NDArray[np.void]) -> Iterator[Operation]:
    columns = (nodes[name].tolist() for name in ("type", "size", "peer", "tag", "cpu"))
    for number, (kind, size, *ends, cpu) in enumerate(zip(*columns, strict=True)):
        at = f"{where}: node {number}"
        if kind not in _VERBS:
            raise ValueError(f"{at}.type must be 1, 2 or 3, not {kind}")
        if size >= MAX_SIZE:
            raise ValueError(f"{at}.size must be below {MAX_SIZE}, not {size}")
        peer, tag = (ANY if value == _WILDCARD else value for value in ends)
        yield Operation(at, _VERBS[kind], size, peer, tag, cpu)


def _required(where: str, nodes: NDArray[np.void], appendix: _Ints) -> list[Required]:
    found = list[Required]()
    for name, begun in (("ended", False), ("begun", True)):
        count, start = nodes[name].astype(np.int64), nodes[f"{name}_at"].astype(np.int64)
        beyond = np.flatnonzero((count > 0) & (start + count > len(appendix)))
        if len(beyond):
            raise ValueError(f"{where}: node {beyond[0]}.{name}_at must be in the appendix, not {start[beyond[0]]}")
        before = np.repeat(np.arange(len(nodes)), count)
        place = np.arange(len(before)) - np.repeat(np.cumsum(count) - count, count)
        after = appendix[np.repeat(start, count) + place]
        if len(after) and after.max() >= len(nodes):
            raise ValueError(f"{where} must have nodes below {len(nodes)} in its appendix, not {after.max()}")
        found += [Required(*pair, begun) for pair in zip(after.tolist(), before.tolist(), strict=True)]
    waits = np.bincount([each.after for each in found], minlength=len(nodes)) - nodes["waits"].astype(np.int64)
    if waits.any():
        node = int(np.flatnonzero(waits)[0])
        raise ValueError(
            f"{where}: node {node}.waits must be {waits[node] + nodes['waits'][node]}, not {nodes['waits'][node]}"
        )
    return found


def write(ranks: Sequence[tuple[list[Operation], list[Required]]]) -> Iterator[bytes]:
    """The program of these ranks, piece by piece."""
    parts = [_part(operations, required) for operations, required in ranks]
    ends = _HEAD_BYTES + _ENTRY_BYTES * len(parts) + np.cumsum([0] + [len(part) for part in parts])
    cpu = max((operation.cpu for operations, _ in ranks for operation in operations), default=0)
    yield COOKIE.to_bytes(8, "little") + len(parts).to_bytes(4, "little") + bytes([cpu, 0])
    yield np.stack([ends[:-1], ends[1:]], axis=1).astype("<u8").tobytes()
    yield from parts


def _part(operations: list[Operation], required: list[Required]) -> bytes:
    after, before, begun = np.array(required, np.int64).reshape(-1, 3).T
    types = {verb: number for number, verb in _VERBS.items()}
    nodes = np.zeros(len(operations), _NODE)
    nodes["type"] = [types[each.verb] for each in operations]
    for name in ("size", "peer", "tag", "cpu"):
        nodes[name] = [getattr(each, name) for each in operations]
    nodes["waits"] = np.bincount(after, minlength=len(nodes))
    for name, kind in (("ended", 0), ("begun", 1)):
        nodes[name] = np.bincount(before[begun == kind], minlength=len(nodes))
    both = np.stack([nodes["ended"], nodes["begun"]], axis=1).astype(np.int64).ravel()
    nodes["ended_at"], nodes["begun_at"] = (np.cumsum(both) - both).reshape(-1, 2).T
    roots = np.flatnonzero(nodes["waits"] == 0)
    head = np.array([len(nodes), len(roots), *roots], "<u4").tobytes()
    return head + nodes.tobytes() + after[np.lexsort((begun, before))].astype("<u4").tobytes()
