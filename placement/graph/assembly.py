"""Puts the programs of ranks together into one task graph: matches sends with receives and the ends of collectives.

A *part* is what a task is at one rank: a send, a receive, a member's part of a collective. A *lane* of a rank computes one
task at a time beside its other lanes: lane 0 is the rank's own device, the others are devices after those of all ranks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.collective.choice import Choose
from lightfabric.placement.graph.any_source import NOMINAL, Ends, Part, Wire, pairs
from lightfabric.placement.graph.collective import Collective, Message, rounds

MAX_PARTS = 1 << 22
"""Most parts of tasks at all ranks together: each takes some 600 bytes."""
MAX_MESSAGES = 1 << 21
"""Most messages of collectives that are not one task: two all-to-alls of 1024 ranks. Each takes some 700 bytes."""
MAX_OPERATIONS = 1 << 30
"""Most operations that a task stands for."""
MAX_WAITS = 1 << 24
"""Most times that a part waits for another."""

Size = tuple[int, int]
"""Bytes, and the operations that they are."""


_ALL = -1
"""Index of the group of all ranks, whose members are known only in the end."""

Receive = tuple[str, int, int, Size, Sequence[int]]
"""Where it stands, its rank, its identity, its size and what it waits for."""


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
class _Collective:
    """A collective as its first member had it; it is one task from ``first`` to ``last`` where a ring is one."""

    where: str
    kind: Collective
    size: Size
    group: int
    first: int
    last: int
    present: set[int] = field(default_factory=set[int])


@dataclass
class Assembly:
    """Tasks as they are read, with what their parts at each rank wait for; ``names`` and ``members`` are the groups.

    A group without members, the one without a name, and 0 if it is not among them, is of all ranks. ``algorithm`` is that
    of all collectives, or chooses that of each. A receive may be larger than its message if ``larger``; over ``wire``
    messages come to receives from any source.
    """

    names: list[str]
    members: list[Sequence[int]]
    algorithm: str | Choose = "ring"
    larger: bool = False
    wire: Wire = NOMINAL
    tasks: list[_Task] = field(default_factory=list[_Task])
    of_node: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    waits: list[tuple[str, int, int, Sequence[int]]] = field(default_factory=list[tuple[str, int, int, Sequence[int]]])
    sends: dict[Ends, list[tuple[str, int]]] = field(default_factory=dict[Ends, list[tuple[str, int]]])
    receives: dict[Ends, list[Receive]] = field(default_factory=dict[Ends, list[Receive]])
    collectives: dict[tuple[str, int], _Collective] = field(default_factory=dict[tuple[str, int], _Collective])
    counts: dict[tuple[int, str], int] = field(default_factory=dict[tuple[int, str], int])
    late: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    lanes: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    callers: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    joins: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    messages: int = 0
    waiting: int = 0

    def __post_init__(self) -> None:
        listed = zip(self.names, self.members, strict=True)
        self.names, self.members = list[str](), list[Sequence[int]]()
        self._groups, self._present = {"": _ALL, "0": _ALL}, list[frozenset[int]]()
        self._told, self._assumed = set[str](), ""
        for name, members in listed:
            self.add_group("groups", name, members)

    def add_group(self, where: str, name: str, members: Sequence[int]) -> None:
        """A communicator group; if it is known already it must be the same."""
        if name in self._told:
            known = self._groups[name]
            if list(members) != ([] if known == _ALL else list(self.members[known])):
                raise ValueError(f"{where} must have the ranks of group {name!r} as elsewhere, not {list(members)[:8]}")
            return
        self._told.add(name)
        self._groups[name] = len(self.members) if len(members) else _ALL
        if len(members):
            self.names.append(name)
            self.members.append(members)
            self._present.append(frozenset(members))

    def other(self, name: str, rank: int) -> int | None:
        """The other member of a group of two; None of any other group."""
        group = self._groups.get(name, _ALL)
        members = () if group == _ALL else self.members[group]
        return next((each for each in members if each != rank), None) if len(members) == 2 and rank in members else None

    def add_alone(
        self, where: str, rank: int, identity: int, waits: Sequence[int], kind: Kind, work: int, *, lane: int = 0
    ) -> None:
        """A task of one rank: COMPUTE on one of its lanes, or BARRIER."""
        device = -1 if kind == Kind.BARRIER else rank
        if lane and kind != Kind.BARRIER:
            # Devices after those of the ranks get their numbers when the ranks are counted; until then they are below -1.
            device = -2 - self.lanes.setdefault((rank, lane), len(self.lanes))
        self._name(where, rank, identity, self._add(_Task(identity, rank, kind, device, work)), waits)

    def add_end(
        self, where: str, rank: int, identity: int, waits: Sequence[int], ends: Ends, size: Size, *, sent: bool
    ) -> None:
        """One end of a message."""
        if not sent:
            self._require_new(where, rank, identity)
            self._count_waits(where, len(waits))
            self.of_node[rank, identity] = -1  # until it is matched
            self.receives.setdefault(ends, []).append((where, rank, identity, size, waits))
            return
        task = self._add(_Task(identity, rank, Kind.TRANSFER, rank, size[0], ends[1], size[1]))
        self.sends.setdefault(ends, []).append((where, task))
        self._name(where, rank, identity, task, waits)

    def add_collective(
        self, where: str, rank: int, identity: int, waits: Sequence[int], name: str, kind: Collective, size: Size
    ) -> None:
        """One member's part of a collective."""
        group = self._groups.get(name)
        if name == "0":
            self._assumed = self._assumed or where
        if group is None:
            # Where no groups are known at all, they are missing for the group 0 too.
            first, name = (self._assumed, "0") if self._assumed and not self._told else (where, name)
            raise ValueError(f"{first}.pg_name must be a communicator group, not {name!r}")
        if group != _ALL and rank not in self._present[group]:
            raise ValueError(f"{where}.pg_name must be a group of which rank {rank} is a member, not {name!r}")
        # As in MPI the order of a rank's collectives on a group says which is which, not their ids.
        turn = self.counts.get((rank, name), 0)
        self.counts[rank, name] = turn + 1
        if (name, turn) not in self.collectives:
            self.collectives[name, turn] = self._begin(where, rank, identity, group, kind, size)
        here = self.collectives[name, turn]
        here.present.add(rank)
        if here.kind != kind:
            raise ValueError(f"{where}.comm_type must be {here.kind.value} as at the other members, not {kind.value}")
        if here.size != size:
            raise ValueError(f"{where}.comm_size must be {here.size[0]} as at the other members, not {size[0]}")
        self._name(where, rank, identity, here.last, waits, here.first)

    def _begin(self, where: str, rank: int, identity: int, group: int, kind: Collective, size: Size) -> _Collective:
        if kind == Collective.ALL_REDUCE and self.algorithm == "ring":
            device = 0 if group == _ALL else self.members[group][0]
            task = self._add(_Task(identity, rank, Kind.ALL_REDUCE, device, size[0], group, size[1]))
            return _Collective(where, kind, size, group, task, task)
        first, last = (self._add(_Task(identity, rank, Kind.BARRIER, -1, 0)) for _ in range(2))
        return _Collective(where, kind, size, group, first, last)

    def graph(self, devices: int) -> TaskGraph:
        """The whole graph of that many ranks, verified; ValueError if an end is missing."""
        for name, members in zip(self.names, self.members, strict=True):
            if len(set(members)) < len(members) or not 0 <= min(members) <= max(members) < devices:
                raise ValueError(f"group {name!r} must be different ranks below {devices}, not {list(members)[:8]}")
        self._close_group_of_all(devices)
        for (name, turn), each in self.collectives.items():
            if len(each.present) < len(self.members[each.group]):
                absent = min(set(self.members[each.group]) - each.present)
                what = each.kind.name.lower().replace("_", "-")
                group = f"group {name!r}" if name else "group of all ranks"
                raise ValueError(f"{group}: {what} {turn} must be at rank {absent}, not missing")
            if each.first != each.last:
                self._expand(each)
        self._match()
        return self._arrays(devices)

    def _close_group_of_all(self, devices: int) -> None:
        of_all = [each for each in self.collectives.values() if each.group == _ALL]
        for each in of_all:
            each.group = len(self.members)
            if each.first == each.last:
                self.tasks[each.first].peer = each.group
        if of_all:
            self.members.append(range(devices))

    def _expand(self, each: _Collective) -> None:
        """Add the messages of a collective between its first and its last task."""
        members, (size, operations) = self.members[each.group], each.size
        chosen = self.algorithm
        try:
            if not isinstance(chosen, str):
                chosen = chosen(each.kind, members, size)
            found = rounds(each.kind, chosen, len(members), size)
        except ValueError as error:
            raise ValueError(f"{each.where}.pg_name {error}") from None
        # What a member's next message waits for: all its messages of the last round in which it had any.
        latest = {place: [each.first] for place in range(len(members))}
        for messages in found:
            ready, now = dict[int, int](), dict[int, list[int]]()
            for message in messages:
                if message.source not in ready:
                    ready[message.source] = self._joined(each, latest[message.source])
                task = self._send(each, message, operations)
                self._join(each, ready[message.source], task)
                now.setdefault(message.source, []).append(task)
                now.setdefault(message.destination, []).append(task)
            latest |= now
        for task in {task for tasks in latest.values() for task in tasks}:
            self._join(each, task, each.last)

    def _send(self, each: _Collective, message: Message, operations: int) -> int:
        self.messages += 1
        if self.messages > MAX_MESSAGES:
            raise ValueError(f"{each.where} must be of collectives of at most {MAX_MESSAGES} messages in all, not more")
        of, members = self.tasks[each.first], self.members[each.group]
        source, destination = members[message.source], members[message.destination]
        count = message.operations * operations
        if count > MAX_OPERATIONS:
            raise ValueError(f"{each.where}.operations must be at most {MAX_OPERATIONS} in all its steps, not {count}")
        return self._add(_Task(of.identity, of.rank, Kind.TRANSFER, source, message.size, destination, count))

    def _joined(self, each: _Collective, tasks: list[int]) -> int:
        """One task that ends with all of these."""
        if len(tasks) == 1:
            return tasks[0]
        of = self.tasks[each.first]
        barrier = self._add(_Task(of.identity, of.rank, Kind.BARRIER, -1, 0))
        for task in tasks:
            self._join(each, task, barrier)
        return barrier

    def _join(self, each: _Collective, before: int, after: int) -> None:
        self._count_waits(each.where, 1)
        self.joins.append((before, after))

    def _require_new(self, where: str, rank: int, identity: int) -> None:
        if len(self.of_node) >= MAX_PARTS:
            raise ValueError(f"{where} must be one of at most {MAX_PARTS} of all ranks, not one more")
        if (rank, identity) in self.of_node:
            raise ValueError(f"{where}.id must be one that no other has, not {identity}")

    def _add(self, task: _Task) -> int:
        self.tasks.append(task)
        return len(self.tasks) - 1

    def _name(self, where: str, rank: int, identity: int, task: int, waits: Sequence[int], first: int | None = None) -> None:
        """What waits for a part waits for its task; the part's own waits are of the ``first`` task, if it has several."""
        self._require_new(where, rank, identity)
        self._count_waits(where, len(waits))
        self.of_node[rank, identity] = task
        if waits:
            self.waits.append((where, rank, task if first is None else first, waits))

    def _count_waits(self, where: str, count: int) -> None:
        self.waiting += count
        if self.waiting > MAX_WAITS:
            raise ValueError(f"{where} must wait as one of at most {MAX_WAITS} times in all, not more")

    def _match(self) -> None:
        """Join sends and receives; a receive that waits becomes a barrier after the message."""
        found = list(self._in_order() if all(min(ends) >= 0 for ends in self.receives) else self._as_they_come())
        matched = {task for _, task in found}
        for ends, sends in self.sends.items():
            for where, task in sends:
                if task not in matched:
                    raise ValueError(f"{where} must have its receive from {ends[0]} at {ends[1]} tag {ends[2]}, not none")
        received = {(rank, identity) for (_, rank, identity, _, _), _ in found}
        for ends, receives in self.receives.items():
            for where, rank, identity, _, _ in receives:
                if (rank, identity) not in received:
                    raise ValueError(f"{where} must have its send from {ends[0]} to {ends[1]} tag {ends[2]}, not none")
        for (where, rank, identity, (size, _), waits), task in found:
            sent = self.tasks[task].work
            if self.larger and size < sent:
                raise ValueError(f"{where} must receive at least the {sent} bytes that are sent to it, not {size}")
            if not self.larger and size != sent:
                raise ValueError(f"{where}.comm_size must be {sent} as sent, not {size}")
            self._receive(where, rank, identity, task, waits)

    def _in_order(self) -> Iterator[tuple[Receive, int]]:
        # As in MPI messages of equal ends and tag arrive in the order in which they were sent.
        for ends, receives in self.receives.items():
            for receive, (_, task) in zip(receives, self.sends.get(ends, ()), strict=False):
                yield receive, task

    def _as_they_come(self) -> Iterator[tuple[Receive, int]]:
        receives = {(each[1], each[2]): each for listed in self.receives.values() for each in listed}
        for receive, send in pairs(self._parts(), self.wire):
            yield receives[receive], self.of_node[send]

    def _parts(self) -> Iterator[Part]:
        """What all ranks do, in the order in which it was read."""
        waits = {task: listed for _, _, task, listed in self.waits}
        ends = {task: ends for ends, sends in self.sends.items() for _, task in sends}
        wanted = {(each[1], each[2]): (ends, each[4]) for ends, listed in self.receives.items() for each in listed}
        for place, index in self.of_node.items():
            if index < 0:
                yield Part(place, wanted[place][1], None, ends=wanted[place][0])
            else:
                task = self.tasks[index]
                yield Part(place, waits.get(index, ()), task.kind, task.device, task.work, ends.get(index, (-1, -1, -1)))

    def _receive(self, where: str, rank: int, identity: int, task: int, waits: Sequence[int]) -> None:
        self.of_node[rank, identity] = task
        if waits:
            barrier = self._add(_Task(identity, rank, Kind.BARRIER, -1, 0))
            self.waits.append((where, rank, barrier, [*waits, identity]))
            self.late[rank, identity] = barrier

    def _edges(self) -> list[tuple[int, int]]:
        edges = set(self.joins)
        for where, rank, task, waits in self.waits:
            for identity in waits:
                before = self.of_node.get((rank, identity))
                if before is None and (where, identity) in self.callers:
                    continue
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
        device = np.where(device < -1, devices - 2 - device, device)
        lengths = [len(members) for members in self.members]
        graph = TaskGraph(
            devices + len(self.lanes), kind.astype(np.int8), device.astype(np.int32), work.copy(), peer.astype(np.int32),
            operations.astype(np.int32), np.searchsorted(edges[:, 0], np.arange(len(order) + 1)).astype(np.int64),
            edges[:, 1].astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.array([member for members in self.members for member in members], np.int32),
        )  # fmt: skip
        graph.verify()
        return graph
