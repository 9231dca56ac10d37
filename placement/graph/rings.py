"""All-reduces of a task graph as the rings that a fabric makes of their groups, each of an equal part of the bytes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.task import Kind, TaskGraph

Rings = Callable[[NDArray[np.int32], int], list[NDArray[np.int32]]]
"""The rings of a group among so many GPUs, ``model.fabric.Fabric.rings``."""


def in_rings(graph: TaskGraph, rings: Rings) -> TaskGraph:
    """Put an ALL_REDUCE for each ring of a group in place of one; the graph stays the same where each group is one ring.

    Of bytes that do not divide the first rings have one more each. All of them start when the one would have started, and
    what waits for the one waits for all. O(tasks + edges + members), times the rings where a group has several.
    """
    found = [rings(graph.group(index), graph.devices) for index in range(len(graph.member_start) - 1)]
    reduces = graph.kind == Kind.ALL_REDUCE
    many = np.array([len(each) for each in found], np.int64)
    copies = np.ones(len(graph), np.int64)
    copies[reduces] = many[graph.peer[reduces]]
    if (copies == 1).all():
        return graph
    start, members = np.cumsum(copies) - copies, [ring for each in found for ring in each]
    task, turn = np.repeat(np.arange(len(graph)), copies), _turns(copies)
    reduces, first = reduces[task], np.array([ring[0] for ring in members], np.int32)
    peer = np.where(reduces, (np.cumsum(many) - many)[np.where(reduces, graph.peer[task], 0)] + turn, graph.peer[task])
    source, destination = np.repeat(np.arange(len(graph)), np.diff(graph.successor_start)), graph.successors
    pairs = copies[source] * copies[destination]
    edge, which = np.repeat(np.arange(len(source)), pairs), _turns(pairs)
    before = start[source[edge]] + which // copies[destination[edge]]
    after = start[destination[edge]] + which % copies[destination[edge]]
    order = np.argsort(before, kind="stable")
    return replace(
        graph,
        kind=graph.kind[task],
        device=np.where(reduces, first[np.where(reduces, peer, 0)], graph.device[task]).astype(np.int32),
        work=graph.work[task] // copies[task] + (turn < graph.work[task] % copies[task]),
        peer=peer.astype(np.int32),
        operations=graph.operations[task],
        successor_start=np.searchsorted(before[order], np.arange(len(task) + 1)).astype(np.int64),
        successors=after[order].astype(np.int32),
        member_start=np.cumsum([0, *map(len, members)]),
        members=np.concatenate(members),
        part=None if graph.part is None else graph.part[task],
    )


def _turns(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count from 0 up for each of the counts, one row after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
