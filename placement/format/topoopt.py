"""Task graphs of TopoOpt (NSDI 2023): FlatBuffers files of real training jobs, read into a ``TaskGraph``.

The files are those of ``simulation/`` in github.com/hipersys-team/TopoOpt. ``flatbuffers`` reads them but verifies nothing,
so every read is checked here. There is no recursion, and work and memory stay in proportion to the size of the file.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from flatbuffers import number_types as _untyped_types  # pyright: ignore[reportMissingTypeStubs]
from flatbuffers import table as _untyped_table  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from lightfabric.model.task import Kind, TaskGraph

MAX_MS = 1e9
"""Longest computation that is believed: 11 days."""
MAX_BYTES = 1 << 60
"""Largest transfer that is believed: 1 EiB."""
MAX_NODES = 1 << 20
"""Most nodes, and most switches, that are believed."""

_Ints = NDArray[np.int64]
_types: Any = _untyped_types
_UntypedTable: Any = _untyped_table.Table
_U8, _U16, _U32, _U64 = _types.Uint8Flags, _types.Uint16Flags, _types.Uint32Flags, _types.Uint64Flags


class TaskType(IntEnum):
    """What the file calls its tasks."""

    FORWARD = 0
    BACKWARD = 1
    COMMUNICATION = 2
    UPDATE = 3
    BARRIER = 4
    NOMINAL_COMMUNICATION = 5
    ALL_REDUCE = 6


_NODES, _SWITCHES, _TASKS, _DEVICES = 1, 2, 8, 9
_DEVICE_ID, _DEVICE_PROPERTY = 1, 3
_TYPE, _ID, _DEVICE, _RUN_TIME, _SIZE, _NEXT = range(6)
_LEAST_TABLE_BYTES = 16
"""The bytes of a table in a vector: its offset there, its offset to the field positions, and an id that no other has."""


def read(data: bytes) -> TaskGraph:
    """Task graph of a TopoOpt file; task t of the file is task t of the graph.

    Forward, backward and update tasks are COMPUTE on the node of their device. Communication is a TRANSFER between the
    nodes that its network device names. An all-reduce is an ALL_REDUCE over its nodes, in the order of the file. Its run
    time delays it and nothing else, so all-reduce i of the file has a COMPUTE on a device of its own, ``nodes`` + i,
    before it; these follow the tasks of the file. (On the devices of its nodes, the published times come out 3 to 23 % too
    long; left out, up to 10 % too short.)

    ValueError, one line that names the field, when the file is not as it must be. O(size) in time and memory.
    """
    if len(data) < 8:
        raise ValueError(f"file must be a FlatBuffer of at least 8 bytes, not {len(data)}")
    root = _Table(data, int.from_bytes(data[:4], "little"), "")
    node_count, switches = _count(root, _NODES, "nodes", 1), _count(root, _SWITCHES, "switches", 0)
    devices, tasks = _tables(root, _DEVICES, "devices"), _tables(root, _TASKS, "tasks")
    device_ids, task_ids = devices.identities(_DEVICE_ID), tasks.identities(_ID)
    kind = tasks.scalars(_TYPE, _U8, "type").astype(np.int64)
    tasks.require("type", kind <= max(TaskType), f"from 0 to {max(TaskType)}", kind)
    source, destination = _ends(tasks, kind, devices, device_ids, node_count, node_count + switches)
    row, target = tasks.items(_NEXT, "next")
    # An all-reduce lists its members where other tasks list successors, so the two meanings of the field part here.
    grouped = kind[row] == TaskType.ALL_REDUCE
    member_row, members = row[grouped], target[grouped]
    tasks.require_items("next", member_row, members < node_count, f"nodes below {node_count} for an all-reduce", members)
    edge_from, edge_to = row[~grouped], _find(task_ids, target[~grouped])
    tasks.require_items("next", edge_from, edge_to >= 0, "ids of tasks", target[~grouped])
    run_time_ps, size_bytes = _run_time_ps(tasks), _size_bytes(tasks)
    graph = _Builder(node_count, kind, source, destination, run_time_ps, size_bytes).graph(
        edge_from, edge_to, member_row, members.astype(np.int64)
    )
    graph.verify()
    return graph


def nodes(graph: TaskGraph) -> int:
    """Nodes of a graph that was read: its devices without those of the all-reduces."""
    return graph.devices - int(np.count_nonzero(graph.kind == Kind.ALL_REDUCE))


def _count(root: "_Table", slot: int, name: str, least: int) -> int:
    count = root.number(slot, _U32, name)
    root.require(name, least <= count <= MAX_NODES, f"from {least} to {MAX_NODES}", count)
    return count


def _run_time_ps(tasks: "_Tables") -> _Ints:
    run_time_ms = tasks.scalars(_RUN_TIME, _types.Float32Flags, "run_time").astype(np.float64)
    believed = (run_time_ms >= 0) & (run_time_ms <= MAX_MS)
    tasks.require("run_time", believed, f"from 0 to {MAX_MS:g} ms", run_time_ms)
    # Milliseconds to picoseconds; the file has 32-bit floats, which the double product does not round again.
    return np.rint(run_time_ms * 1e9).astype(np.int64)


def _size_bytes(tasks: "_Tables") -> _Ints:
    size_bytes = tasks.scalars(_SIZE, _U64, "transfer_size")
    tasks.require("transfer_size", size_bytes <= MAX_BYTES, f"at most {MAX_BYTES} bytes", size_bytes)
    return size_bytes.astype(np.int64)


def _ends(
    tasks: "_Tables", kind: _Ints, devices: "_Tables", device_ids: dict[int, int], nodes: int, stride: int
) -> tuple[_Ints, _Ints]:
    """Nodes on which each task computes, or between which it communicates; -1 for others."""
    transfer = (kind == TaskType.COMMUNICATION) | (kind == TaskType.NOMINAL_COMMUNICATION)
    placed = transfer | (kind == TaskType.FORWARD) | (kind == TaskType.BACKWARD) | (kind == TaskType.UPDATE)
    wanted = tasks.scalars(_DEVICE, _U64, "device")
    device = _find(device_ids, wanted)
    tasks.require("device", ~placed | (device >= 0), "the id of a device", wanted)
    # The zero at the end is what tasks without a device read: their index is -1, and the check below lets them pass.
    properties = np.append(devices.scalars(_DEVICE_PROPERTY, _U64, "property"), np.uint64(0))[device]
    fits = ~transfer | (properties < stride * stride) & (properties // stride < nodes) & (properties % stride < nodes)
    tasks.require(
        "device", fits, f"a network device between two of {nodes} nodes, property from x {stride} + to", properties
    )
    fits = transfer | ~placed | (properties < nodes)
    tasks.require("device", fits, f"a device whose property is a node below {nodes}", properties)
    known = np.where(placed, properties % (stride * stride), 0).astype(np.int64)
    source = np.where(transfer, known // stride, np.where(placed, known, -1))
    return source, np.where(transfer, known % stride, -1)


@dataclass(frozen=True)
class _Builder:
    """Turns the tasks of a file into those of a graph."""

    nodes: int
    kind: _Ints
    source: _Ints
    destination: _Ints
    run_time_ps: _Ints
    size_bytes: _Ints

    def graph(self, edge_from: _Ints, edge_to: _Ints, member_row: _Ints, members: _Ints) -> TaskGraph:
        """The graph with the edges between tasks, and the members of each all-reduce, row by row."""
        n = len(self.kind)
        reduces = np.flatnonzero(self.kind == TaskType.ALL_REDUCE)
        local = n + np.arange(len(reduces))
        member_start, group_members, group_of = _groups(reduces, member_row, members)
        device, peer, entrance = self.source.copy(), self.destination.copy(), np.arange(n)
        device[reduces] = group_members[member_start[group_of]]
        peer[reduces] = group_of
        # Edges to an all-reduce of the file lead to the task of its run time, which leads to the all-reduce.
        entrance[reduces] = local
        work = np.where(self._moves(), self.size_bytes, np.where(self.kind == TaskType.BARRIER, 0, self.run_time_ps))
        successor_start, successors = _csr(
            n + len(local), np.concatenate([edge_from, local]), np.concatenate([entrance[edge_to], reduces])
        )
        return TaskGraph(
            devices=self.nodes + len(local),
            kind=np.concatenate([self._kinds(), np.full(len(local), Kind.COMPUTE)]).astype(np.int8),
            device=np.concatenate([device, self.nodes + np.arange(len(local))]).astype(np.int32),
            work=np.concatenate([work, self.run_time_ps[reduces]]),
            peer=np.concatenate([peer, np.full(len(local), -1)]).astype(np.int32),
            operations=np.ones(n + len(local), np.int32),
            successor_start=successor_start,
            successors=successors,
            member_start=member_start,
            members=group_members,
        )

    def _moves(self) -> NDArray[np.bool_]:
        return (self.kind == TaskType.ALL_REDUCE) | (self.destination >= 0)

    def _kinds(self) -> _Ints:
        kinds = np.full(max(TaskType) + 1, Kind.COMPUTE, np.int64)
        kinds[[TaskType.COMMUNICATION, TaskType.NOMINAL_COMMUNICATION]] = Kind.TRANSFER
        kinds[TaskType.BARRIER] = Kind.BARRIER
        kinds[TaskType.ALL_REDUCE] = Kind.ALL_REDUCE
        return kinds[self.kind]


def _groups(reduces: _Ints, member_row: _Ints, members: _Ints) -> tuple[_Ints, NDArray[np.int32], _Ints]:
    """Different groups in CSR form, and the group of each all-reduce; equal groups are one."""
    ends = np.searchsorted(member_row, reduces, "right")
    starts = np.searchsorted(member_row, reduces, "left")
    index: dict[bytes, int] = {}
    group_of = np.zeros(len(reduces), np.int64)
    rows: list[_Ints] = []
    for place, (start, end, task) in enumerate(zip(starts.tolist(), ends.tolist(), reduces.tolist(), strict=True)):
        group = members[start:end]
        if end == start or len(np.unique(group)) < end - start:
            raise ValueError(f"tasks[{task}].next must be different nodes, at least 1, not {group[:9].tolist()}")
        group_of[place] = index.setdefault(group.tobytes(), len(index))
        if group_of[place] == len(rows):
            rows.append(group)
    start = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return start, np.concatenate([members[:0], *rows]).astype(np.int32), group_of


def _csr(count: int, source: _Ints, destination: _Ints) -> tuple[_Ints, NDArray[np.int32]]:
    order = np.argsort(source, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=count))]).astype(np.int64)
    return start, destination[order].astype(np.int32)


def _find(ids: dict[int, int], wanted: NDArray[np.uint64]) -> _Ints:
    """Which table has each id, -1 for none."""
    return np.array([ids.get(number, -1) for number in wanted.tolist()], np.int64)


class _Table(_UntypedTable):
    """A table that refuses to read outside itself and its file; ``prefix`` names it before its fields."""

    __slots__ = ("_prefix", "_reading", "_table_bytes")

    def __init__(self, file: bytes, at: int, prefix: str) -> None:
        self.Bytes, self.Pos, self._prefix, self._reading = file, at, prefix, "offset"
        # The offset is signed and subtracted: the list of fields may be before or behind its table, even outside the file.
        fields = at - self.Get(_types.SOffsetTFlags, at)
        self._reading = "fields"
        fields_bytes, self._table_bytes = self.Get(_U16, fields), self.Get(_U16, fields + 2)
        self.require("fields", 4 <= fields_bytes <= len(file) - fields, "a list in the file", fields_bytes)
        self.require("fields", 4 <= self._table_bytes <= len(file) - at, "in a table in the file", self._table_bytes)

    def require(self, name: str, holds: bool, must_be: str, value: Any) -> None:
        """ValueError that names the field unless it holds."""
        if not holds:
            raise ValueError(f"{self._prefix}{name} must be {must_be}, not {value}")

    def Get(self, flags: Any, off: int) -> Any:  # noqa: N802
        """Read at a position in the file; the library reads every field and every list of fields by this."""
        # The library does not check positions, and a negative one would count from the end of the file.
        if not 0 <= off <= len(self.Bytes) - flags.bytewidth:
            self.require(self._reading, False, f"inside {len(self.Bytes)} bytes", off)
        return _UntypedTable.Get(self, flags, off)

    def number(self, slot: int, flags: Any, name: str) -> Any:
        """Value of a field, 0 where it is left out."""
        at = self._position(slot, flags, name)
        return self.Get(flags, at) if at else 0

    def vector(self, slot: int, item_bytes: int, name: str) -> tuple[int, int]:
        """Position of the first item and number of items of a vector; no items where it is left out."""
        at = self._position(slot, _U32, name)
        if not at:
            return 0, 0
        start = at + self.Get(_U32, at)
        count = self.Get(_U32, start)
        fits = start + 4 + count * item_bytes <= len(self.Bytes)
        self.require(name, fits, f"a vector inside the {len(self.Bytes)} bytes of the file", count)
        return start + 4, count

    def _position(self, slot: int, flags: Any, name: str) -> int:
        self._reading = name
        offset = self.Offset(4 + 2 * slot)
        self.require(name, not offset or 4 <= offset <= self._table_bytes - flags.bytewidth, "inside its table", offset)
        return offset and self.Pos + offset


def _tables(root: _Table, slot: int, name: str) -> "_Tables":
    start, count = root.vector(slot, 4, name)
    # Entries may name the same table, so the vector's length alone would allow more tables than the file has room for.
    most = len(root.Bytes) // _LEAST_TABLE_BYTES
    root.require(name, count <= most, f"at most {most} tables in {len(root.Bytes)} bytes", count)
    places = enumerate(range(start, start + 4 * count, 4))
    return _Tables(root.Bytes, [_Table(root.Bytes, root.Indirect(at), f"{name}[{index}].") for index, at in places])


@dataclass(frozen=True)
class _Tables:
    """The tables of a vector, whose fields are read as columns."""

    file: bytes
    tables: list[_Table]

    def require(self, name: str, holds: NDArray[np.bool_], must_be: str, value: NDArray[Any]) -> None:
        """ValueError that names the field of the first table for which it does not hold."""
        self.require_items(name, np.arange(len(holds)), holds, must_be, value)

    def require_items(self, name: str, row: _Ints, holds: NDArray[np.bool_], must_be: str, value: NDArray[Any]) -> None:
        """Raise the same ValueError for the items of vectors, where ``row`` is the table of each item."""
        for bad in np.flatnonzero(~holds)[:1].tolist():
            self.tables[row[bad]].require(name, False, must_be, value[bad])

    def scalars(self, slot: int, flags: Any, name: str) -> NDArray[Any]:
        """Values of a field, 0 where it is left out."""
        return np.array([table.number(slot, flags, name) for table in self.tables], _types.to_numpy_type(flags))

    def items(self, slot: int, name: str) -> tuple[_Ints, NDArray[np.uint64]]:
        """Table and value of all items of vectors of 64-bit numbers that do not overlap."""
        vectors = [table.vector(slot, 8, name) for table in self.tables]
        count = np.array([count for _, count in vectors], np.int64)
        # Vectors that overlap would let a file of a few kilobytes stand for gigabytes of edges.
        apart = np.cumsum(count) * 8 <= len(self.file)
        self.require(name, apart, f"a vector that overlaps no other in {len(self.file)} bytes", count)
        values = [np.frombuffer(self.file, "<u8", count, start) for start, count in vectors]
        return np.repeat(np.arange(len(count)), count), np.concatenate([np.zeros(0, np.uint64), *values])

    def identities(self, slot: int) -> dict[int, int]:
        """Map the id of each table to its index; ValueError unless all ids differ."""
        ids = dict[int, int]()
        for place, table in enumerate(self.tables):
            number = table.number(slot, _U64, "id")
            table.require("id", ids.setdefault(number, place) == place, "an id that no other has", number)
        return ids
