"""Task graphs of TopoOpt (NSDI 2023): FlatBuffers files of real training jobs, read into a ``TaskGraph``.

The files are those of ``simulation/`` in github.com/hipersys-team/TopoOpt, their tables and vectors laid out as in
flatbuffers.dev, "FlatBuffers internals". All offsets of all tables are checked and followed at once, in arrays: no
recursion, and work and memory stay in proportion to the size of the file.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.task import Kind, TaskGraph

MOST_MS = 1e9
"""Longest computation that is believed: 11 days."""
MOST_BYTES = 1 << 60
"""Largest transfer that is believed: 1 EiB."""
MOST_NODES = 1 << 20
"""Most nodes, and most switches, that are believed."""

_Ints = NDArray[np.int64]


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
"""Of a table in a vector: its offset there, its offset to the field positions, and an id that no other has."""


def read(data: bytes) -> TaskGraph:
    """Task graph of a TopoOpt file; task t of the file is task t of the graph.

    Forward, backward and update tasks are COMPUTE on the node of their device. Communication is a TRANSFER between the
    nodes that its network device names. An all-reduce is an ALL_REDUCE over its nodes, in the order of the file. Its run
    time delays it and nothing else, so all-reduce i of the file has a COMPUTE on a device of its own, ``nodes`` + i,
    before it; these follow the tasks of the file. (On the devices of its nodes, the published times come out 3 to 23 % too
    long; left out, up to 10 % too short.)

    ValueError, one line that names the field, when the file is not as it must be. O(size) in time and memory.
    """
    root = _root(np.frombuffer(data, np.uint8))
    node_count, switches = _count(root, _NODES, "nodes", 1), _count(root, _SWITCHES, "switches", 0)
    devices, tasks = root.tables(_DEVICES, "devices"), root.tables(_TASKS, "tasks")
    device_ids, task_ids = devices.identities(_DEVICE_ID), tasks.identities(_ID)
    kind = tasks.scalars(_TYPE, "u1", "type").astype(np.int64)
    tasks.require("type", kind <= max(TaskType), f"from 0 to {max(TaskType)}", kind)
    source, destination = _ends(tasks, kind, devices, device_ids, node_count, node_count + switches)
    row, target = tasks.items(_NEXT, "next")
    grouped = kind[row] == TaskType.ALL_REDUCE
    member_row, members = row[grouped], target[grouped]
    tasks.require_items("next", member_row, members < node_count, f"nodes below {node_count} for an all-reduce", members)
    edge_from, edge_to = row[~grouped], task_ids.find(target[~grouped])
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


def _count(root: "_Tables", slot: int, name: str, least: int) -> int:
    count = root.scalars(slot, "<u4", name)
    root.require(name, (count >= least) & (count <= MOST_NODES), f"from {least} to {MOST_NODES}", count)
    return int(count[0])


def _run_time_ps(tasks: "_Tables") -> _Ints:
    run_time_ms = tasks.scalars(_RUN_TIME, "<f4", "run_time").astype(np.float64)
    believed = (run_time_ms >= 0) & (run_time_ms <= MOST_MS)
    tasks.require("run_time", believed, f"from 0 to {MOST_MS:g} ms", run_time_ms)
    return np.rint(run_time_ms * 1e9).astype(np.int64)


def _size_bytes(tasks: "_Tables") -> _Ints:
    size_bytes = tasks.scalars(_SIZE, "<u8", "transfer_size")
    tasks.require("transfer_size", size_bytes <= MOST_BYTES, f"at most {MOST_BYTES} bytes", size_bytes)
    return size_bytes.astype(np.int64)


def _ends(
    tasks: "_Tables", kind: _Ints, devices: "_Tables", device_ids: "_Identities", nodes: int, stride: int
) -> tuple[_Ints, _Ints]:
    """Nodes on which each task computes, or between which it communicates; -1 for others."""
    transfer = (kind == TaskType.COMMUNICATION) | (kind == TaskType.NOMINAL_COMMUNICATION)
    placed = transfer | (kind == TaskType.FORWARD) | (kind == TaskType.BACKWARD) | (kind == TaskType.UPDATE)
    wanted = tasks.scalars(_DEVICE, "<u8", "device")
    device = device_ids.find(wanted)
    tasks.require("device", ~placed | (device >= 0), "the id of a device", wanted)
    properties = np.append(devices.scalars(_DEVICE_PROPERTY, "<u8", "property"), np.uint64(0))[device]
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


@dataclass(frozen=True)
class _Identities:
    """Different 64-bit ids, for look-up."""

    rising: NDArray[np.uint64]
    order: _Ints

    def find(self, wanted: NDArray[np.uint64]) -> _Ints:
        """Which table has each id, -1 for none."""
        if not len(self.rising):
            return np.full(len(wanted), -1)
        place = np.minimum(np.searchsorted(self.rising, wanted), len(self.rising) - 1)
        return np.where(self.rising[place] == wanted, self.order[place], -1)


@dataclass(frozen=True)
class _Tables:
    """Tables of one kind, with checked positions: ``at`` in the file, and of the list of their fields."""

    file: NDArray[np.uint8]
    owner: str
    at: _Ints
    fields: _Ints
    fields_bytes: _Ints
    table_bytes: _Ints

    def require(self, name: str, holds: NDArray[np.bool_], must_be: str, value: NDArray[Any]) -> None:
        """ValueError that names the field of the first table for which it does not hold."""
        bad = np.flatnonzero(~holds)
        if len(bad):
            raise ValueError(f"{self._field(name, int(bad[0]))} must be {must_be}, not {value[bad[0]]}")

    def require_items(self, name: str, row: _Ints, holds: NDArray[np.bool_], must_be: str, value: NDArray[Any]) -> None:
        """Likewise for the items of vectors: ``row`` is the table of each."""
        bad = np.flatnonzero(~holds)
        if len(bad):
            raise ValueError(f"{self._field(name, int(row[bad[0]]))} must be {must_be}, not {value[bad[0]]}")

    def _field(self, name: str, table: int) -> str:
        return f"{self.owner}[{table}].{name}" if self.owner else name

    def positions(self, slot: int, size: int, name: str) -> _Ints:
        """Where a field of ``size`` bytes is in the file; -1 for tables without it."""
        entry = 4 + 2 * slot
        offset = np.zeros(len(self.at), np.int64)
        listed = entry + 2 <= self.fields_bytes
        offset[listed] = _gather(self.file, self.fields[listed] + entry, "<u2")
        inside = (offset == 0) | (offset >= 4) & (offset + size <= self.table_bytes)
        self.require(name, inside, "inside its table", offset)
        return np.where(offset > 0, self.at + offset, -1)

    def scalars(self, slot: int, dtype: str, name: str) -> NDArray[Any]:
        """Values of a field, 0 where it is left out."""
        at = self.positions(slot, np.dtype(dtype).itemsize, name)
        values = np.zeros(len(at), dtype)
        values[at >= 0] = _gather(self.file, at[at >= 0], dtype)
        return values

    def vectors(self, slot: int, item_bytes: int, name: str) -> tuple[_Ints, _Ints]:
        """Position of the first item and number of items of a vector; no items where it is left out."""
        at = self.positions(slot, 4, name)
        here = at >= 0
        start, count = np.zeros(len(at), np.int64), np.zeros(len(at), np.int64)
        start[here] = at[here] + _gather(self.file, at[here], "<u4")
        self.require(name, start + 4 <= len(self.file), f"a vector inside the {len(self.file)} bytes of the file", start)
        count[here] = _gather(self.file, start[here], "<u4")
        fits = start + 4 + count * item_bytes <= len(self.file)
        self.require(name, fits, f"a vector inside the {len(self.file)} bytes of the file", count)
        return start + 4, count

    def items(self, slot: int, name: str) -> tuple[_Ints, NDArray[np.uint64]]:
        """Table and value of all items of vectors of 64-bit numbers that do not overlap."""
        start, count = self.vectors(slot, 8, name)
        apart = np.cumsum(count) * 8 <= len(self.file)
        self.require(name, apart, f"a vector that overlaps no other in {len(self.file)} bytes", count)
        row = np.repeat(np.arange(len(count)), count)
        step = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        return row, _gather(self.file, start[row] + 8 * step, "<u8")

    def tables(self, slot: int, name: str) -> "_Tables":
        """The tables of a vector of the only table."""
        starts, counts = self.vectors(slot, 4, name)
        start, count = int(starts[0]), int(counts[0])
        most = len(self.file) // _LEAST_TABLE_BYTES
        if count > most:
            raise ValueError(f"{name} must be at most {most} tables in {len(self.file)} bytes, not {count}")
        at = start + 4 * np.arange(count)
        return _tables(self.file, name, at + _gather(self.file, at, "<u4"))

    def identities(self, slot: int) -> _Identities:
        """The tables by their ids, all different."""
        ids = self.scalars(slot, "<u8", "id")
        order = np.argsort(ids, kind="stable")
        first = np.ones(len(ids), np.bool_)
        first[order[1:]] = ids[order[1:]] != ids[order[:-1]]
        self.require("id", first, "an id that no other has", ids)
        return _Identities(ids[order], order)


def _root(file: NDArray[np.uint8]) -> _Tables:
    if len(file) < 8:
        raise ValueError(f"file must be a FlatBuffer of at least 8 bytes, not {len(file)}")
    return _tables(file, "", _gather(file, np.zeros(1, np.int64), "<u4").astype(np.int64))


def _tables(file: NDArray[np.uint8], owner: str, at: _Ints) -> _Tables:
    """Tables at unchecked positions; ValueError unless each lies in the file with the list of its fields."""
    zero = np.zeros(len(at), np.int64)
    _Tables(file, owner, at, zero, zero, zero).require("offset", at + 4 <= len(file), f"inside {len(file)} bytes", at)
    fields = at - _gather(file, at, "<i4")
    table = _Tables(file, owner, at, fields, zero, zero)
    table.require("fields", (fields >= 0) & (fields + 4 <= len(file)), f"listed inside {len(file)} bytes", fields)
    fields_bytes, table_bytes = (
        _gather(file, fields, "<u2").astype(np.int64),
        _gather(file, fields + 2, "<u2").astype(np.int64),
    )
    table.require("fields", (fields_bytes >= 4) & (fields + fields_bytes <= len(file)), "a list in the file", fields_bytes)
    table.require("fields", (table_bytes >= 4) & (at + table_bytes <= len(file)), "in a table in the file", table_bytes)
    return _Tables(file, owner, at, fields, fields_bytes, table_bytes)


def _gather(file: NDArray[np.uint8], at: _Ints, dtype: str) -> NDArray[Any]:
    """Values at positions that are known to be inside the file."""
    scattered = np.empty((len(at), np.dtype(dtype).itemsize), np.uint8)
    for byte in range(scattered.shape[1]):
        scattered[:, byte] = file[at + byte]
    return scattered.view(dtype).reshape(len(at))
