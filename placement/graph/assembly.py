"""Puts the programs of ranks together into one task graph: matches sends with receives and the ends of collectives."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lightfabric.model.task import Kind, TaskGraph

MAX_PARTS = 1 << 22
"""Most parts of tasks at all ranks together: each takes some 600 bytes."""
MAX_WAITS = 1 << 24
"""Most times that a part waits for another."""

Ends = tuple[int, int, int]
"""Source, destination and tag of a message."""

Size = tuple[int, int]
"""Bytes, and the operations that they are."""


@dataclass
class _Task:
    identity: int
    rank: int
    kind: Kind
    device: int
    work: int
    peer: int = -1
    operations: int = 1


@dataclass
class Assembly:
    """Tasks as they are read, with what their parts at each rank wait for; ``names`` and ``members`` are the groups."""

    names: list[str]
    members: list[Sequence[int]]
    tasks: list[_Task] = field(default_factory=list[_Task])
    of_node: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    waits: list[tuple[str, int, int, Sequence[int]]] = field(default_factory=list[tuple[str, int, int, Sequence[int]]])
    sends: dict[Ends, list[tuple[str, int]]] = field(default_factory=dict[Ends, list[tuple[str, int]]])
    receives: dict[Ends, list[tuple[str, int, int, Size, Sequence[int]]]] = field(
        default_factory=dict[Ends, list[tuple[str, int, int, Size, Sequence[int]]]]
    )
    reduces: dict[tuple[int, int], tuple[int, set[int]]] = field(default_factory=dict[tuple[int, int], tuple[int, set[int]]])
    counts: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    late: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    waiting: int = 0

    def __post_init__(self) -> None:
        self._groups = {name: index for index, name in enumerate(self.names)}
        self._present = [frozenset(members) for members in self.members]

    def add_alone(self, where: str, rank: int, identity: int, waits: Sequence[int], kind: Kind, work: int) -> None:
        """A task of one rank: COMPUTE or BARRIER."""
        device = -1 if kind == Kind.BARRIER else rank
        self._name(where, rank, identity, self._add(_Task(identity, rank, kind, device, work)), waits)

    def add_end(
        self, where: str, rank: int, identity: int, waits: Sequence[int], ends: Ends, size: Size, *, sent: bool
    ) -> None:
        """One end of a message."""
        if not sent:
            self._require_new(where, rank, identity)
            self._count_waits(where, waits)
            self.of_node[rank, identity] = -1  # until it is matched
            self.receives.setdefault(ends, []).append((where, rank, identity, size, waits))
            return
        task = self._add(_Task(identity, rank, Kind.TRANSFER, rank, size[0], ends[1], size[1]))
        self.sends.setdefault(ends, []).append((where, task))
        self._name(where, rank, identity, task, waits)

    def add_reduce(self, where: str, rank: int, identity: int, waits: Sequence[int], name: str, size: Size) -> None:
        """One member's part of an all-reduce."""
        group = self._groups.get(name)
        if group is None:
            raise ValueError(f"{where}.pg_name must be a communicator group, not {name!r}")
        if rank not in self._present[group]:
            raise ValueError(f"{where}.pg_name must be a group of which rank {rank} is a member, not {name!r}")
        # As in MPI the order of a rank's collectives on a group says which is which, not their ids.
        turn = self.counts.get((rank, group), 0)
        self.counts[rank, group] = turn + 1
        if (group, turn) not in self.reduces:
            device = self.members[group][0]
            task = self._add(_Task(identity, rank, Kind.ALL_REDUCE, device, size[0], group, size[1]))
            self.reduces[group, turn] = task, set[int]()
        task, present = self.reduces[group, turn]
        present.add(rank)
        if (self.tasks[task].work, self.tasks[task].operations) != size:
            raise ValueError(f"{where}.comm_size must be {self.tasks[task].work} as at the other members, not {size[0]}")
        self._name(where, rank, identity, task, waits)

    def graph(self, devices: int) -> TaskGraph:
        """The whole graph of that many ranks, verified; ValueError if an end is missing."""
        for name, members in zip(self.names, self.members, strict=True):
            if not members or len(set(members)) < len(members) or not 0 <= min(members) <= max(members) < devices:
                raise ValueError(f"group {name!r} must be different ranks below {devices}, not {list(members)[:8]}")
        for (group, turn), (_, present) in self.reduces.items():
            absent = set(self.members[group]) - present
            if absent:
                raise ValueError(
                    f"group {self.names[group]!r}: all-reduce {turn} must be at rank {min(absent)}, not missing"
                )
        self._match()
        return self._arrays(devices)

    def _require_new(self, where: str, rank: int, identity: int) -> None:
        if len(self.of_node) >= MAX_PARTS:
            raise ValueError(f"{where} must be one of at most {MAX_PARTS} of all ranks, not one more")
        if (rank, identity) in self.of_node:
            raise ValueError(f"{where}.id must be one that no other has, not {identity}")

    def _add(self, task: _Task) -> int:
        self.tasks.append(task)
        return len(self.tasks) - 1

    def _name(self, where: str, rank: int, identity: int, task: int, waits: Sequence[int]) -> None:
        self._require_new(where, rank, identity)
        self._count_waits(where, waits)
        self.of_node[rank, identity] = task
        if waits:
            self.waits.append((where, rank, task, waits))

    def _count_waits(self, where: str, waits: Sequence[int]) -> None:
        self.waiting += len(waits)
        if self.waiting > MAX_WAITS:
            raise ValueError(f"{where} must wait as one of at most {MAX_WAITS} times in all, not more")

    def _match(self) -> None:
        """Join sends and receives; a receive that waits becomes a barrier after the message."""
        for ends, sends in self.sends.items():
            found = len(self.receives.get(ends, ()))
            if found < len(sends):
                raise ValueError(
                    f"{sends[found][0]} must have its receive from {ends[0]} at {ends[1]} tag {ends[2]}, not none"
                )
        for ends, receives in self.receives.items():
            sends = self.sends.get(ends, [])
            # As in MPI messages of equal ends and tag arrive in the order in which they were sent.
            for turn, (where, rank, identity, size, waits) in enumerate(receives):
                if turn >= len(sends):
                    raise ValueError(f"{where} must have its send from {ends[0]} to {ends[1]} tag {ends[2]}, not none")
                task = sends[turn][1]
                if self.tasks[task].work != size[0]:
                    raise ValueError(f"{where}.comm_size must be {self.tasks[task].work} as sent, not {size[0]}")
                self._receive(where, rank, identity, task, waits)

    def _receive(self, where: str, rank: int, identity: int, task: int, waits: Sequence[int]) -> None:
        self.of_node[rank, identity] = task
        if waits:
            barrier = self._add(_Task(identity, rank, Kind.BARRIER, -1, 0))
            self.waits.append((where, rank, barrier, [*waits, identity]))
            self.late[rank, identity] = barrier

    def _edges(self) -> list[tuple[int, int]]:
        edges = set[tuple[int, int]]()
        for where, rank, task, waits in self.waits:
            for identity in waits:
                before = self.of_node.get((rank, identity))
                if before is None:
                    raise ValueError(f"{where}.data_deps must be ids of nodes of rank {rank}, not {identity}")
                # The barrier of a receive waits for the message; what waits for the receive waits for the barrier.
                late = self.late.get((rank, identity), before)
                edges.add((before if late == task else late, task))
        return sorted(edges)

    def _arrays(self, devices: int) -> TaskGraph:
        tasks = self.tasks
        # Tasks are in the order of ids, whoever had them first, so that a graph that was written is read as it was.
        order = sorted(range(len(tasks)), key=lambda t: (tasks[t].identity, tasks[t].rank, t))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        edges = place[np.array(self._edges(), np.int64).reshape(-1, 2)]
        edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
        columns = [(int(t.kind), t.device, t.work, t.peer, t.operations) for t in (tasks[index] for index in order)]
        kind, device, work, peer, operations = np.array(columns, np.int64).reshape(-1, 5).T
        lengths = [len(members) for members in self.members]
        graph = TaskGraph(
            devices, kind.astype(np.int8), device.astype(np.int32), work.copy(), peer.astype(np.int32),
            operations.astype(np.int32), np.searchsorted(edges[:, 0], np.arange(len(order) + 1)).astype(np.int64),
            edges[:, 1].astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.array([member for members in self.members for member in members], np.int32),
        )  # fmt: skip
        graph.verify()
        return graph
