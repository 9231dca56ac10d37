"""Builds a task graph from arrays of tasks and edges."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.task import Kind, Part, TaskGraph

Ids = NDArray[np.int32]


class Kept(NamedTuple):
    """Names, for each block of ranks and each column in these, the one whose tasks stand for its own in a graph."""

    blocks: NDArray[np.int64]
    columns: NDArray[np.int64]


@dataclass
class Builder:
    """Task and edge arrays, appended in the order of task indices."""

    columns: list[tuple[NDArray[Any], ...]] = field(default_factory=list[tuple[NDArray[Any], ...]])
    edges: list[tuple[Ids, Ids]] = field(default_factory=list[tuple[Ids, Ids]])
    count: int = 0

    def add(self, kind: Kind, part: Part, device: Ids, work: object, peer: object = -1, operations: object = 1) -> Ids:
        """Index of each new task, in the shape of ``device``; the other values are broadcast to it."""
        values = (int(kind), device, work, peer, operations, int(part))
        self.columns.append(tuple(np.broadcast_to(np.asarray(value), device.shape).ravel() for value in values))
        index = np.arange(self.count, self.count + device.size, dtype=np.int32).reshape(device.shape)
        self.count += device.size
        return index

    def link(self, before: Ids, after: Ids) -> None:
        """Edges from ``before`` to ``after``, broadcast against each other."""
        before, after = np.broadcast_arrays(before, after)
        self.edges.append((before.ravel(), after.ravel()))

    def graph(self, devices: int, groups: list[Ids]) -> TaskGraph:
        """The finished graph; ``groups`` are arrays of members, one group per row."""
        kind, device, work, peer, operations, part = (np.concatenate(column) for column in zip(*self.columns, strict=True))
        none = np.zeros(0, np.int64)
        before, after = (np.concatenate([none, *side]) for side in zip((none, none), *self.edges, strict=True))
        lengths = np.concatenate([none, *(np.full(len(rows), rows.shape[1]) for rows in groups)])
        return TaskGraph(
            devices, kind.astype(np.int8), device.astype(np.int32), work.astype(np.int64), peer.astype(np.int32),
            operations.astype(np.int32),
            _starts(np.bincount(before, minlength=self.count)), after[np.argsort(before, kind="stable")].astype(np.int32),
            _starts(lengths), np.concatenate([none, *(rows.ravel() for rows in groups)]).astype(np.int32),
            part.astype(np.int8),
        )  # fmt: skip


def _starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def picoseconds(seconds: list[float] | NDArray[np.float64]) -> NDArray[np.int64]:
    """Round seconds to whole picoseconds."""
    return np.rint(np.array(seconds) * 1e12).astype(np.int64)
