"""A program turns a task graph into operations of GPUs, which the cycle model runs, and a system of RTL, too."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightfabric.model.cycle.cabling import Cabling, ElectricalCabling
from lightfabric.model.cycle.gpu import OPERATION, Does, Gpu
from lightfabric.model.cycle.switched import SwitchedCabling
from lightfabric.model.kernel.bitset import lowest
from lightfabric.model.kernel.compiled import Records
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.task import Kind, TaskGraph

NOWHERE = -1, -1


class Program:
    """Lists the operations of a task graph GPU by GPU.

    A transfer is one for each of its ``operations``; an all-reduce is one for each member, between two joins; a barrier
    is a join on GPU 0. ``operations`` are in the order of ``Gpu.operations``, and name their ``successors`` likewise.
    """

    def __init__(self, graph: TaskGraph, spec: ChipletSpec, cabling: Cabling | ElectricalCabling | SwitchedCabling) -> None:
        self._graph, self._spec, self._cabling = graph, spec, cabling
        self._made = list[dict[str, int]]()
        self._after = list[list[int]]()
        ends = [self._add_task(task) for task in range(len(graph))]
        for task, (_, last) in enumerate(ends):
            after = graph.successors[graph.successor_start[task] : graph.successor_start[task + 1]]
            self._after[last] += [ends[int(other)][0] for other in after]
        self._first = np.array([first for first, _ in ends], np.int64)
        self._last = np.array([last for _, last in ends], np.int64)
        self._lay_out()

    def _add(self, gpu: int, does: int, after: Sequence[int] = (), /, **fields: int) -> int:
        self._made.append({"gpu": gpu, "does": does, **fields})
        self._after.append(list[int]())
        for before in after:
            self._after[before].append(len(self._made) - 1)
        return len(self._made) - 1

    def _add_task(self, task: int) -> tuple[int, int]:
        """Make the operations of a task and return the first and the last one."""
        graph = self._graph
        kind, gpu, work, peer = (int(field[task]) for field in (graph.kind, graph.device, graph.work, graph.peer))
        if kind == Kind.COMPUTE:
            only = self._add(gpu, Does.COMPUTE, cycles=ceil(work / self._spec.cycle_ps))
            return only, only
        # A barrier has no device; GPU 0 keeps it, which costs that nothing.
        if kind == Kind.BARRIER:
            only = self._add(0, Does.JOIN)
            return only, only
        if kind == Kind.TRANSFER:
            return self._add_transfer(gpu, peer, work, int(graph.operations[task]))
        return self._add_ring(graph.group(peer).tolist(), work, int(graph.operations[task]))

    def _add_transfer(self, gpu: int, peer: int, work: int, count: int) -> tuple[int, int]:
        flits = self._flits(work, count) if gpu != peer else 0
        way = self._way(gpu, peer) if flits else {}
        first = last = self._add(gpu, Does.SEND, flits=flits, chunk_flits=flits, **way)
        # Equal messages wait for each other, so each pays the latency of a message, as a library of collectives does.
        for _ in range(count - 1 if flits else 0):
            last = self._add(gpu, Does.SEND, [last], flits=flits, chunk_flits=flits, **way)
        return first, last

    def _add_ring(self, members: list[int], work: int, count: int) -> tuple[int, int]:
        first, size = self._add(members[0], Does.JOIN), len(members)
        chunk_flits = self._flits(work, count * size) if size > 1 else 0
        rings = [
            self._add(
                member, Does.RING, [first], chunk_flits=chunk_flits, flits=2 * (size - 1) * count * chunk_flits,
                **(self._way(member, members[(place + 1) % size]) if chunk_flits else {}),
            )
            for place, member in enumerate(members)
        ]  # fmt: skip
        # The ring is closed only here: a member counts into the one after it, which is made later.
        for place, ring_ in enumerate(rings):
            self._made[ring_]["target"] = rings[(place + 1) % size]
        return first, self._add(members[0], Does.JOIN, rings)

    def _way(self, gpu: int, peer: int) -> dict[str, int]:
        cabling = self._cabling
        way: dict[str, int] = {name: getattr(cabling, name)(gpu, peer) for name in ("lanes", "address", "channel", "turns")}
        return way | {"width": way["lanes"].bit_count()}

    def _flits(self, work_bytes: int, parts: int) -> int:
        return -(-work_bytes // (parts * self._spec.payload_bytes))

    def _lay_out(self) -> None:
        """Number the operations GPU by GPU, in the order in which they were made."""
        gpu = np.array([made["gpu"] for made in self._made], np.int64)
        # Stable, since the lower number goes first among operations that are ready together.
        order = np.argsort(gpu, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        self._place = place
        operations: Records = np.zeros(len(order), OPERATION)
        for name in ("gpu", "does", "cycles", "flits", "chunk_flits", "lanes", "address", "channel", "turns", "width"):
            operations[name][place] = [made.get(name, 0) for made in self._made]
        operations["target"][place] = place[[made.get("target", number) for number, made in enumerate(self._made)]]
        after = [place[self._after[number]] for number in order.tolist()]
        ends = np.cumsum([0, *map(len, after)])
        operations["successor"], operations["successor_end"] = ends[:-1], ends[1:]
        self.successors = np.concatenate([np.zeros(0, np.int64), *after]).astype(np.int32)
        operations["waiting"] = np.bincount(self.successors, minlength=len(order))
        self.operations = operations
        self._starts = np.searchsorted(gpu[order], np.arange(self._graph.devices + 1))

    def gpu(self, number: int, far_ports: ArrayLike, flit_cycles: int) -> Gpu:
        """Make the GPU block of a rank, with its operations."""
        begin, end = self._starts[number], self._starts[number + 1]
        own = self.operations[begin:end]
        span = slice(own["successor"][0], own["successor_end"][-1]) if len(own) else slice(0, 0)
        return Gpu(number, int(begin), own, self.successors[span], far_ports, self._spec.virtual_channels, flit_cycles)

    def times(self, operations: Records) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the cycles in which each task started and finished."""
        return operations["start_cycle"][self._place[self._first]], operations["finish_cycle"][self._place[self._last]]

    @property
    def first_ends(self) -> list[tuple[int, int]]:
        """Find GPU and lane of each task's first flit, ``NOWHERE`` for what sends none."""
        lanes = self.operations["lanes"][self._place[self._first]].tolist()
        senders = zip(self._graph.device.tolist(), lanes, strict=True)
        return [(gpu, lowest(lanes)) if lanes else NOWHERE for gpu, lanes in senders]
