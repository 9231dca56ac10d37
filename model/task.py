"""Task graphs are what placement makes and models and benches run; schedules are what these return."""

from dataclasses import dataclass
from enum import IntEnum
from importlib import import_module
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray


class Kind(IntEnum):
    """Says what a task does with ``work``, and what ``peer`` means for it."""

    COMPUTE = 0
    """Occupies ``device`` for ``work`` picoseconds; a device computes one task at a time, in the order they get ready,
    the lower index first among equals. ``peer`` is -1."""
    TRANSFER = 1
    """Moves ``work`` bytes from ``device`` to the device ``peer``."""
    ALL_REDUCE = 2
    """Ring all-reduce of ``work`` bytes per member over the group ``peer``, in the members' order; ``device`` is the
    first member."""
    BARRIER = 3
    """Takes no time and no device: joins its predecessors. ``work`` is 0, ``peer`` and ``device`` are -1."""


class Part(IntEnum):
    """Says what a task of a training iteration is for."""

    TENSOR = 0
    """Sums over the ranks that share a layer."""
    PIPELINE = 1
    """Activations and their gradients between stages."""
    DATA = 2
    """Sums of gradients over replicas."""
    EXCHANGE = 3
    """Tokens to their experts and back, rows of tables to their samples."""
    COMPUTE = 4
    """Forward and backward passes."""
    OPTIMISER = 5
    RECONFIGURATION = 6
    """Waits of a GPU's ports for light, as a computation of a device that has no other."""
    CONTEXT = 7
    """Keys and values to those who share a sequence, and their gradients back."""


Share = Literal[
    "compute", "optimiser", "bubble", "tensor", "pipeline", "data", "exchange", "latency", "contention", "reconfiguration"
]
SHARES: tuple[Share, ...] = get_args(Share)
"""What the time of an iteration is spent on, see ``model.fluid.attribution``."""


@dataclass(frozen=True)
class TaskGraph:
    """Describes one iteration of a job on ``devices`` devices, as arrays with one entry per task.

    A task starts when all its predecessors have finished. ``operations`` is the number of equal operations, one after
    the other, that a TRANSFER or ALL_REDUCE stands for: ``work`` is their total, each pays the message latency.
    Successors of task t are ``successors[successor_start[t]:successor_start[t + 1]]``, the members of group g
    ``members[member_start[g]:member_start[g + 1]]`` (CSR form). ``part``, a ``Part``, is None in a graph from a file.
    """

    devices: int
    kind: NDArray[np.int8]
    device: NDArray[np.int32]
    work: NDArray[np.int64]
    peer: NDArray[np.int32]
    operations: NDArray[np.int32]
    successor_start: NDArray[np.int64]
    successors: NDArray[np.int32]
    member_start: NDArray[np.int64]
    members: NDArray[np.int32]
    part: NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return len(self.kind)

    def group(self, index: int) -> NDArray[np.int32]:
        """List the devices of a group, in ring order."""
        return self.members[self.member_start[index] : self.member_start[index + 1]]

    def placed(self, gpu_of_rank: NDArray[np.int32]) -> "TaskGraph":
        """Make the same graph with rank r on GPU ``gpu_of_rank[r]``, a permutation of 0..devices-1."""
        order = np.asarray(gpu_of_rank, np.int32)
        if not np.array_equal(np.sort(order), np.arange(self.devices)):
            raise ValueError(f"gpu_of_rank must be a permutation of 0..{self.devices - 1}, not {order!r}")
        device = np.where(self.device >= 0, order[self.device], -1).astype(np.int32)
        transfer = self.kind == Kind.TRANSFER
        peer = np.where(transfer, order[np.where(transfer, self.peer, 0)], self.peer).astype(np.int32)
        return TaskGraph(
            self.devices, self.kind, device, self.work, peer, self.operations,
            self.successor_start, self.successors, self.member_start, order[self.members], self.part,
        )  # fmt: skip

    def demand_bytes(self) -> dict[tuple[int, int], int]:
        """Add up the bytes of one iteration from each device to each other device it talks to."""
        moves = self.kind == Kind.TRANSFER
        ends, pair = np.unique(self.device[moves].astype(np.int64) * self.devices + self.peer[moves], return_inverse=True)
        moved = np.zeros(len(ends), np.int64)
        np.add.at(moved, pair, self.work[moves])
        keys = zip((ends // self.devices).tolist(), (ends % self.devices).tolist(), strict=True)
        pairs = dict(zip(keys, moved.tolist(), strict=True))
        reduces = self.kind == Kind.ALL_REDUCE
        total = np.zeros(len(self.member_start) - 1, np.int64)
        np.add.at(total, self.peer[reduces], self.work[reduces])
        for index in np.flatnonzero(total):
            ring = self.group(int(index))
            # A ring all-reduce sends 2 (n - 1) chunks of an n-th over each edge of the ring.
            each = round(2 * (len(ring) - 1) * int(total[index]) / len(ring))
            for source, destination in zip(ring.tolist(), np.roll(ring, -1).tolist(), strict=True):
                pairs[source, destination] = pairs.get((source, destination), 0) + each
        return {pair: size for pair, size in pairs.items() if size > 0 and pair[0] != pair[1]}

    def verify(self) -> None:
        """Raise ValueError, naming task and field, unless the graph is well-formed and acyclic. O(tasks + edges).

        That every send has its receive, and that all bytes sent arrive, holds by construction and is not checked: a
        TRANSFER or an ALL_REDUCE is one task for all its ends. Importers, whose files name each end apart, check it.
        """
        n = len(self)
        for name in ("device", "work", "peer", "operations"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"TaskGraph.{name} must have {n} entries, not {len(getattr(self, name))}")
        _verify_csr("successor", self.successor_start, self.successors, n, n)
        groups = len(self.member_start) - 1
        _verify_csr("member", self.member_start, self.members, groups, self.devices)
        barrier, transfer = self.kind == Kind.BARRIER, self.kind == Kind.TRANSFER
        reduce_ = self.kind == Kind.ALL_REDUCE
        self._verify_each("kind", (self.kind >= 0) & (self.kind <= max(Kind)), "a Kind")
        self._verify_each("device", barrier | (self.device >= 0) & (self.device < self.devices), "a device")
        self._verify_each("work", self.work >= 0, "at least 0")
        self._verify_each("operations", self.operations >= 1, "at least 1")
        self._verify_each("peer", ~transfer | (self.peer >= 0) & (self.peer < self.devices), "a device")
        self._verify_each("peer", ~reduce_ | (self.peer >= 0) & (self.peer < groups), "a group")
        self._verify_acyclic()

    def _verify_each(self, name: str, holds: NDArray[np.bool_], must_be: str) -> None:
        bad = np.flatnonzero(~holds)
        if len(bad):
            raise ValueError(f"TaskGraph.{name}[{bad[0]}] must be {must_be}, not {getattr(self, name)[bad[0]]}")

    def _verify_acyclic(self) -> None:
        sparse, csgraph = import_module("scipy.sparse"), import_module("scipy.sparse.csgraph")
        n, source = len(self), np.repeat(np.arange(len(self)), np.diff(self.successor_start))
        # Made of pairs, edges that are there twice become one: with two connected_components does not end.
        graph = sparse.csr_array((np.ones(len(source)), (source, self.successors)), shape=(n, n))
        component = csgraph.connected_components(graph, connection="strong")[1]
        # Tasks that reach each other are one strong component; no other edge stays within one, but that of a task to itself.
        circling = source[component[source] == component[self.successors]]
        if len(circling):
            raise ValueError(f"TaskGraph.successors must form no cycle, not one through task {circling[0]}")


def _verify_csr(name: str, start: NDArray[np.int64], items: NDArray[np.int32], rows: int, bound: int) -> None:
    if len(start) != rows + 1 or start[0] != 0 or start[-1] != len(items) or np.any(np.diff(start) < 0):
        raise ValueError(f"TaskGraph.{name}_start must rise from 0 to {len(items)} in {rows + 1} entries")
    if len(items) and not (items.min() >= 0 and items.max() < bound):
        raise ValueError(f"TaskGraph.{name}s must be from 0 to {bound - 1}, not {items.min()}..{items.max()}")


@dataclass(frozen=True)
class Schedule:
    """Says when each task ran, and how long each link of the network was busy.

    ``limit`` says what decided the finish of each task: a link index for communication that was slowed by that link, -1
    for computation or latency.
    """

    start_ps: NDArray[np.int64]
    finish_ps: NDArray[np.int64]
    limit: NDArray[np.int32]
    link_busy_ps: NDArray[np.int64]

    @property
    def makespan_ps(self) -> int:
        """Find the finish of the last task; 0 for an empty graph."""
        return int(self.finish_ps.max()) if len(self.finish_ps) else 0
