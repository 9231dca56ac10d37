"""The task graph of one training iteration: all replicas, stages and micro-batches, then gradients and Adam.

Every array is built by broadcasting over the coordinates (replica, stage, step, tensor rank); a step is one forward or
backward pass of one micro-batch.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import AcceleratorSpec, JobSpec
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.cost import backward_seconds, forward_seconds, optimiser_seconds
from lightfabric.placement.workload import (
    Plan,
    backward_reduces,
    forward_reduces,
    gradient_bytes,
    micro_batches,
    reduce_bytes,
    transfer_bytes,
)

Ids = NDArray[np.int32]
PipelineSchedule = Literal["1f1b", "gpipe"]
"""In which order a stage runs its passes: alternating after a warm-up, or all forward and then all backward."""

_PICOSECONDS = 1e12


def forward_steps(stages: int, count: int) -> NDArray[np.int64]:
    """``[stage, micro-batch]``: when in its own sequence of 2 x count steps a stage runs a forward pass in 1F1B.

    A stage warms up with one forward pass per stage after it, then alternates forward and backward, then drains
    [Narayanan 2019, PipeDream-Flush].

    Examples:
        >>> forward_steps(2, 3).tolist()
        [[0, 1, 3], [0, 2, 4]]

    """
    warm = np.minimum(stages - 1 - np.arange(stages), count)[:, None]
    batch = np.arange(count)
    return np.where(batch < warm, batch, 2 * batch - warm)


def backward_steps(stages: int, count: int) -> NDArray[np.int64]:
    """``[stage, micro-batch]``: when a stage runs a backward pass; the steps that ``forward_steps`` leaves."""
    warm = np.minimum(stages - 1 - np.arange(stages), count)[:, None]
    batch = np.arange(count)
    return np.where(batch < count - warm, warm + 2 * batch + 1, count + batch)


def pass_steps(schedule: PipelineSchedule, stages: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``[stage, micro-batch]``: steps of the forward and of the backward passes; GPipe's [Huang 2019] backward in order.

    Examples:
        >>> [steps.tolist() for steps in pass_steps("gpipe", 1, 3)]
        [[[0, 1, 2]], [[3, 4, 5]]]

    """
    if schedule == "1f1b":
        return forward_steps(stages, count), backward_steps(stages, count)
    forward = np.tile(np.arange(count), (stages, 1))
    return forward, forward + count


@dataclass
class _Builder:
    """Task and edge arrays, appended in the order of task indices."""

    columns: list[tuple[NDArray[Any], ...]] = field(default_factory=list[tuple[NDArray[Any], ...]])
    edges: list[tuple[Ids, Ids]] = field(default_factory=list[tuple[Ids, Ids]])
    count: int = 0

    def add(self, kind: Kind, device: Ids, work: object, peer: object = -1, operations: object = 1) -> Ids:
        """Index of each new task, in the shape of ``device``; the other values are broadcast to it."""
        values = (int(kind), device, work, peer, operations)
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
        kind, device, work, peer, operations = (np.concatenate(column) for column in zip(*self.columns, strict=True))
        before, after = (np.concatenate(side) for side in zip(*self.edges, strict=True))
        lengths = np.concatenate([np.full(len(rows), rows.shape[1]) for rows in groups])
        return TaskGraph(
            devices, kind.astype(np.int8), device.astype(np.int32), work.astype(np.int64), peer.astype(np.int32),
            operations.astype(np.int32),
            _starts(np.bincount(before, minlength=self.count)), after[np.argsort(before, kind="stable")].astype(np.int32),
            _starts(lengths), np.concatenate([rows.ravel() for rows in groups]).astype(np.int32),
        )  # fmt: skip


def _starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _picoseconds(seconds: list[float]) -> NDArray[np.int64]:
    return np.rint(np.array(seconds) * _PICOSECONDS).astype(np.int64)


def task_graph(job: JobSpec, accelerator: AcceleratorSpec, plan: Plan, schedule: PipelineSchedule = "1f1b") -> TaskGraph:
    """One iteration of ``plan`` over its ranks; groups are the tensor rings, then the data rings.

    A pass computes on its tp ranks, joins them in one ALL_REDUCE that stands for all of its stage's, then goes to the
    next stage rank by rank. A stage starts a step when its previous one has been reduced. Gradients are reduced when all
    replicas have drained, the optimiser follows. The schedule moves the same bytes, but what ``workload`` says of memory
    is of 1F1B. O(tasks): GPT-3 on 1024 ranks, 812 160 tasks, takes 0.2 s and 150 MiB.
    """
    d, p, t = plan.dp, plan.pp, plan.tp
    rank = np.arange(plan.gpus, dtype=np.int32).reshape(d, p, t)
    builder = _Builder()
    ready = _add_passes(builder, job, accelerator, plan, rank, schedule)
    reduced = _add_gradient_reduces(builder, job, plan, rank, ready)
    seconds = [optimiser_seconds(accelerator, job, plan, stage) for stage in range(p)]
    builder.link(reduced, builder.add(Kind.COMPUTE, rank, _picoseconds(seconds)[:, None]))
    return builder.graph(plan.gpus, [rank.reshape(d * p, t), rank.reshape(d, p * t).T])


def _add_passes(
    builder: _Builder, job: JobSpec, accelerator: AcceleratorSpec, plan: Plan, rank: Ids, schedule: PipelineSchedule
) -> Ids:
    """All forward and backward passes; returns what ends the last step, ``[replica, stage, tensor rank or 1]``."""
    count, stages = micro_batches(job, plan), np.arange(plan.pp)[:, None]
    forward, backward = pass_steps(schedule, plan.pp, count)
    is_forward = np.zeros((plan.pp, 2 * count), bool)
    is_forward[stages, forward] = True
    start, end = _add_steps(builder, job, accelerator, plan, rank, is_forward)
    builder.link(end[:, :, :-1], start[:, :, 1:])
    size, all_but_last, all_but_first = transfer_bytes(job, plan), np.s_[:, :-1], np.s_[:, 1:]
    for steps, sender, receiver in ((forward, all_but_last, all_but_first), (backward, all_but_first, all_but_last)):
        before, after = end[:, stages, steps][sender], start[:, stages, steps][receiver]
        _add_transfers(builder, size, rank[sender], rank[receiver], before, after)
    return end[:, :, -1]


def _add_steps(
    builder: _Builder, job: JobSpec, accelerator: AcceleratorSpec, plan: Plan, rank: Ids, is_forward: NDArray[np.bool_]
) -> tuple[Ids, Ids]:
    """Computation and tensor all-reduce of every step: what starts and what ends it, ``[replica, stage, step, rank]``."""
    forward, backward = (
        _picoseconds([seconds(accelerator, job, plan, stage) for stage in range(plan.pp)])[:, None]
        for seconds in (forward_seconds, backward_seconds)
    )
    shape = (plan.dp, *is_forward.shape, plan.tp)
    device = np.broadcast_to(rank[:, :, None, :], shape)
    start = builder.add(Kind.COMPUTE, device, np.where(is_forward, forward, backward)[:, :, None])
    if plan.tp == 1:
        return start, start
    group = np.arange(plan.dp * plan.pp).reshape(plan.dp, plan.pp, 1, 1)
    reduces = np.where(is_forward, forward_reduces(job.model, plan), backward_reduces(job.model, plan))[:, :, None]
    end = builder.add(Kind.ALL_REDUCE, device[..., :1], reduces * reduce_bytes(job, plan), group, reduces)
    builder.link(start, end)
    return start, end


def _add_transfers(builder: _Builder, size_bytes: int, source: Ids, destination: Ids, before: Ids, after: Ids) -> None:
    """Transfers between neighbouring stages; ``before`` and ``after`` are ``[replica, stage, micro-batch, rank]``."""
    device = np.broadcast_to(source[:, :, None, :], after.shape)
    sent = builder.add(Kind.TRANSFER, device, size_bytes, destination[:, :, None, :])
    builder.link(before, sent)
    builder.link(sent, after)


def _add_gradient_reduces(builder: _Builder, job: JobSpec, plan: Plan, rank: Ids, ready: Ids) -> Ids:
    """One data-parallel all-reduce per stage and tensor rank, none if dp is 1; returns what the optimiser waits for."""
    if plan.dp == 1:
        return ready
    group = plan.dp * plan.pp + np.arange(plan.pp * plan.tp).reshape(1, plan.pp, plan.tp)
    size = np.array([gradient_bytes(job, plan, stage) for stage in range(plan.pp)])[:, None]
    reduced = builder.add(Kind.ALL_REDUCE, rank[:1], size, group)
    builder.link(ready, reduced)
    return reduced
