"""The task graph of one training iteration: all replicas, stages and micro-batches, then gradients and Adam.

Every array is built by broadcasting over the coordinates (replica, stage, step, tensor rank); a step is one forward or
backward pass of one micro-batch.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import AcceleratorSpec, JobSpec
from lightfabric.model.task import Kind, Part, TaskGraph
from lightfabric.placement.cost.layer import optimiser_seconds, pass_seconds
from lightfabric.placement.graph.builder import Builder, Ids, Kept, picoseconds
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import Cases, case
from lightfabric.placement.workload.volume import Volume, volume

PipelineSchedule = Literal["1f1b", "gpipe"]
"""In which order a stage runs its passes: alternating after a warm-up, or all forward and then all backward."""


def forward_steps(stages: int, count: int, virtual_stages: int = 1, paired: bool = False) -> NDArray[np.int64]:
    """``[stage, k]``: when in its own sequence of steps a stage runs its k-th forward pass in 1F1B.

    A stage warms up with one forward pass per stage after it, then alternates forward and backward, then drains
    [Narayanan 2019, PipeDream-Flush]. With ``virtual_stages`` chunks of layers it runs ``count`` micro-batches through each,
    and warms up with two passes per stage after it and all of the first chunks but one [Narayanan 2021, 2.2.2]. ``paired``
    it has one pass more, and as many also without chunks, so that a pass lies between any two of a micro-batch.

    Examples:
        >>> forward_steps(2, 3).tolist()
        [[0, 1, 3], [0, 2, 4]]

    """
    batch, warm = np.arange(count * virtual_stages), _warm_up(stages, count, virtual_stages, paired)
    return np.where(batch < warm, batch, 2 * batch - warm)


def backward_steps(stages: int, count: int, virtual_stages: int = 1, paired: bool = False) -> NDArray[np.int64]:
    """``[stage, k]``: when a stage runs its k-th backward pass; the steps that ``forward_steps`` leaves."""
    total, warm = count * virtual_stages, _warm_up(stages, count, virtual_stages, paired)
    batch = np.arange(total)
    return np.where(batch < total - warm, warm + 2 * batch + 1, total + batch)


def _warm_up(stages: int, count: int, virtual_stages: int, paired: bool) -> NDArray[np.int64]:
    behind = stages - 1 - np.arange(stages)
    passes = behind if virtual_stages == 1 and not paired else 2 * behind + (virtual_stages - 1) * stages + paired
    return np.minimum(passes, count * virtual_stages)[:, None]


def pass_steps(
    schedule: PipelineSchedule, stages: int, count: int, virtual_stages: int = 1, paired: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``[virtual stage, micro-batch]``: steps of the forward and of the backward passes on the stage that has it.

    Virtual stage q is on stage q modulo ``stages``. Micro-batches go through a chunk in groups of ``stages``, which must
    divide their number if there are several chunks; GPipe [Huang 2019] has one, and runs backward in the same order.

    Examples:
        >>> [steps.tolist() for steps in pass_steps("gpipe", 1, 3)]
        [[[0, 1, 2]], [[3, 4, 5]]]

    """
    if virtual_stages > 1 and (schedule == "gpipe" or count % stages):
        raise ValueError(f"Plan.virtual_stages must be 1 in GPipe or without micro-batches in groups, not {virtual_stages}")
    if schedule == "gpipe":
        first = np.tile(np.arange(count), (stages, 1))
        return first, first + count
    chunk, stage = np.divmod(np.arange(stages * virtual_stages)[:, None], stages)
    group, place = np.divmod(np.arange(count), stages)
    first = group * stages * virtual_stages + place
    forward = forward_steps(stages, count, virtual_stages, paired)[stage, first + chunk * stages]
    backward = backward_steps(stages, count, virtual_stages, paired)[stage, first + (virtual_stages - 1 - chunk) * stages]
    return forward, backward


def task_graph(
    job: JobSpec,
    accelerator: AcceleratorSpec,
    plan: Plan,
    schedule: PipelineSchedule = "1f1b",
    kept: Kept | None = None,
) -> TaskGraph:
    """One iteration of ``plan`` over its ranks; groups are the tensor rings, the data rings, those of experts.

    A pass computes on its tp ranks, joins them in one ALL_REDUCE that stands for all of its stage's, gathers keys and values
    over the cp ranks that share its tokens, sends tokens to their experts among ep replicas next to each other, if there are
    any, and back, then goes to the next stage rank by rank; with
    ``virtual_stages`` 1F1B is interleaved, and the last stage's goes to the first's next chunk of layers. A stage starts a
    step when its previous one has been reduced. Gradients are reduced when all replicas have drained, the optimiser
    follows. The schedule moves the same bytes, but what ``workload`` says of memory is of 1F1B. Gradients and weights of
    ZeRO 1 are the bytes of one all-reduce. O(tasks): GPT-3 on 1024 ranks, 812 160 tasks, takes 0.2 s and 150 MiB.

    Of ``kept`` blocks of replicas and tensor ranks there are only the tasks of those that stand for others, the first
    among them, in the same order, and the groups of these, with all members.
    """
    every, replicas, columns = kept_ranks(plan, kept)
    rank = every[replicas][:, :, columns]
    builder, sent, timed = Builder(), volume(job, plan), case(job, plan, accelerator)
    ready = _add_passes(builder, sent, timed, plan, rank, schedule)
    reduces = _add_gradient_reduces(builder, sent, plan, rank, ready)
    seconds = optimiser_seconds(timed, np.arange(plan.pp))
    step = builder.add(Kind.COMPUTE, Part.OPTIMISER, rank, picoseconds(seconds)[:, None])
    for reduced in reduces:
        builder.link(reduced, step)
    column = every[:, :, columns]
    groups = [every[replicas].reshape(-1, plan.tp), column.reshape(plan.replicas, -1).T]
    if len(reduces) > 1:
        groups.append(column.reshape(plan.replicas // plan.ep, -1).T)
    return builder.graph(plan.gpus, groups)


def kept_ranks(plan: Plan, kept: Kept | None) -> tuple[Ids, NDArray[np.int64], NDArray[np.int64]]:
    """All ranks, ``Plan.by_replica``, and the replicas and the tensor ranks among them that are kept."""
    blocks, columns = (np.unique(each) for each in kept or (np.arange(plan.replicas // plan.block), np.arange(plan.tp)))
    return plan.by_replica, (blocks[:, None] * plan.block + np.arange(plan.block)).ravel(), columns


def _add_passes(builder: Builder, sent: Volume, timed: Cases, plan: Plan, rank: Ids, schedule: PipelineSchedule) -> Ids:
    """All forward and backward passes; returns what ends the last step, ``[replica, stage, tensor rank or 1]``."""
    forward, backward = pass_steps(schedule, plan.pp, sent.micro_batches, plan.virtual_stages, timed.paired)
    chunk, stages = np.divmod(np.arange(plan.pp * plan.virtual_stages), plan.pp)
    # Columns are the steps of a stage in its own order, not micro-batches, since that order is what links them.
    durations_ps = np.zeros((plan.pp, 2 * forward.size // plan.pp), np.int64)
    is_forward = np.zeros(durations_ps.shape, bool)
    is_forward[stages[:, None], forward] = True
    seconds = pass_seconds(timed, stages, chunk)
    for steps, each in zip((forward, backward), seconds, strict=True):
        durations_ps[stages[:, None], steps] = picoseconds(each)[:, None]
    start, free, end = add_steps(builder, sent, plan, rank, durations_ps, is_forward)
    # A stage runs one pass at a time, in the order of the schedule, whatever else may be ready.
    builder.link((free if timed.paired else end)[:, :, :-1], start[:, :, 1:])
    size, all_but_last, all_but_first = sent.transfer_bytes, np.s_[:, :-1], np.s_[:, 1:]
    # Virtual stages are in a row, so the way from the last stage to the first one's next chunk is no special case.
    for steps, sender, receiver in ((forward, all_but_last, all_but_first), (backward, all_but_first, all_but_last)):
        before, after = end[:, stages[:, None], steps][sender], start[:, stages[:, None], steps][receiver]
        _add_transfers(builder, size, rank[:, stages][sender], rank[:, stages][receiver], before, after)
    if not timed.paired:
        return end[:, :, -1]
    # Exchanges may end in another order than they began in.
    done = builder.add(Kind.BARRIER, Part.EXCHANGE, np.full((len(rank), plan.pp, 1, 1), -1, np.int32), 0)
    builder.link(end, done)
    return done[:, :, 0]


def add_steps(
    builder: Builder, sent: Volume, plan: Plan, rank: Ids, durations_ps: NDArray[np.int64], is_forward: NDArray[np.bool_]
) -> tuple[Ids, Ids, Ids]:
    """Computation, tensor all-reduce and exchanges of every step, ``[replica, stage, step, rank]``.

    What starts it, what ends it but for the exchanges of experts, and what ends it.
    """
    device = np.broadcast_to(rank[:, :, None, :], (len(rank), *is_forward.shape, rank.shape[-1]))
    start = builder.add(Kind.COMPUTE, Part.COMPUTE, device, durations_ps[:, :, None])
    free = start
    if plan.tp > 1:
        free = _add_reduces(builder, sent, plan, start, device[..., :1], is_forward)
    free = _add_gathers(builder, sent, plan, rank, free, is_forward)
    return start, free, _add_exchanges(builder, sent, plan, rank, free, is_forward)


def _add_reduces(builder: Builder, sent: Volume, plan: Plan, start: Ids, device: Ids, is_forward: NDArray[np.bool_]) -> Ids:
    """One task stands for all reductions of a step, with their bytes together, and counts them for their latencies."""
    group = np.arange(len(start) * plan.pp).reshape(-1, plan.pp, 1, 1)
    each = _by_pass(sent, sent.reduces(sent.of.stage_layers(np.arange(plan.pp))), is_forward)
    end = builder.add(Kind.ALL_REDUCE, Part.TENSOR, device, each * sent.reduce_bytes, group, each)
    builder.link(start, end)
    return end


def _add_gathers(builder: Builder, sent: Volume, plan: Plan, rank: Ids, ready: Ids, is_forward: NDArray[np.bool_]) -> Ids:
    """Keys and values, if cp is above 1, once round the ring of ranks that share a sequence, their gradients back."""
    if plan.cp == 1:
        return ready
    shape = (len(rank) // plan.cp, plan.cp, plan.pp, is_forward.shape[1], rank.shape[-1])
    ring: Ids = rank.reshape(-1, plan.cp, plan.pp, 1, rank.shape[-1])
    layers: NDArray[np.int64] = sent.of.stage_layers(np.arange(plan.pp))[:, None, None] // plan.virtual_stages
    before = np.broadcast_to(ready, (*ready.shape[:-1], rank.shape[-1])).reshape(shape)
    for way, in_forward, in_backward in ((-1, *sent.gathers), (1, 0, 1)):
        hops = (plan.cp - 1) * layers * np.where(is_forward, in_forward, in_backward)[:, :, None].astype(np.int64)
        peers = np.broadcast_to(np.roll(ring, way, axis=1), shape)
        work, operations = hops * int(sent.key_bytes), np.maximum(hops, 1)
        sends = builder.add(Kind.TRANSFER, Part.CONTEXT, np.broadcast_to(ring, shape), work, peers, operations)
        builder.link(before, sends)
        end = builder.add(Kind.BARRIER, Part.CONTEXT, np.full((shape[0], 1, *shape[2:]), -1, np.int32), 0)
        builder.link(sends, end)
        before = np.broadcast_to(end, shape)
    return before.reshape(len(rank), *shape[2:])


def _by_pass(sent: Volume, of_stage: Any, is_forward: NDArray[np.bool_]) -> NDArray[np.int64]:
    """``[stage, step, 1]``: operations of a chunk's pass, of those of a stage's forward pass."""
    passes = np.where(is_forward, 1, sent.backward_passes)
    return (of_stage[:, None] * passes // sent.of.virtual_stages)[:, :, None]


def _add_exchanges(builder: Builder, sent: Volume, plan: Plan, rank: Ids, ready: Ids, is_forward: NDArray[np.bool_]) -> Ids:
    """The all-to-alls of every step, if ep is above 1: one transfer for all of its stage's, and a barrier that ends them.

    If experts are not alike, one for all to the experts and then one for all back: other ranks have more to send.
    """
    if plan.ep == 1:
        return ready
    rounds = _by_pass(sent, sent.exchanges(sent.of.routed_layers(np.arange(plan.pp))), is_forward) // 2
    there, back = sent.dispatched_bytes, sent.combined_bytes
    if (there == there.T).all():
        return _add_exchange(builder, plan, rank, ready, rounds, there + back, 2)
    arrived = _add_exchange(builder, plan, rank, ready, rounds, there, 1)
    return _add_exchange(builder, plan, rank, arrived, rounds, back, 1)


def _add_exchange(
    builder: Builder, plan: Plan, rank: Ids, ready: Ids, rounds: NDArray[np.int64], sent: NDArray[np.int64], each: int
) -> Ids:
    """``rounds[stage, step, 1]`` times ``sent[source, destination]`` bytes as one, a round being ``each`` all-to-alls.

    What a rank hands on in its group begins to leave while it still arrives, so that nothing waits but for the end.
    """
    source, destination = np.nonzero(sent)
    block = rank.reshape(-1, plan.ep, plan.pp, 1, rank.shape[-1])
    steps, columns = rounds.shape[1], rank.shape[-1]
    device = np.broadcast_to(block[:, source], (len(block), len(source), plan.pp, steps, columns))
    # Stages without experts send nothing, but a task must stand for at least one operation.
    work, operations = sent[source, destination][:, None, None, None] * rounds, np.maximum(each * rounds, 1)
    tasks = builder.add(Kind.TRANSFER, Part.EXCHANGE, device, work, block[:, destination], operations)
    before = np.broadcast_to(ready, (*ready.shape[:-1], columns)).reshape(-1, plan.ep, plan.pp, steps, columns)
    builder.link(before[:, source], tasks)
    end = builder.add(Kind.BARRIER, Part.EXCHANGE, np.full((len(block), 1, plan.pp, steps, columns), -1, np.int32), 0)
    builder.link(tasks, end)
    return np.broadcast_to(end, before.shape).reshape(len(rank), plan.pp, steps, columns)


def _add_transfers(builder: Builder, size_bytes: int, source: Ids, destination: Ids, before: Ids, after: Ids) -> None:
    """Transfers between neighbouring stages; ``before``, ``after`` are ``[replica, virtual stage, micro-batch, rank]``."""
    device = np.broadcast_to(source[:, :, None, :], after.shape)
    sent = builder.add(Kind.TRANSFER, Part.PIPELINE, device, size_bytes, destination[:, :, None, :])
    builder.link(before, sent)
    builder.link(sent, after)


def _add_gradient_reduces(builder: Builder, sent: Volume, plan: Plan, rank: Ids, ready: Ids) -> list[Ids]:
    """One all-reduce per stage and tensor rank, none of one replica, one per expert rank; what the optimiser waits for."""
    if plan.replicas == 1:
        return [ready]
    groups, columns = len(rank) * plan.pp, rank[0].size
    group: Ids = groups + np.arange(columns, dtype=np.int32).reshape(rank[:1].shape)
    shared, dealt = sent.gradient_bytes(np.arange(plan.pp))
    reduced = builder.add(Kind.ALL_REDUCE, Part.DATA, rank[:1], shared[:, None], group)
    builder.link(ready, reduced)
    # Experts that all replicas hold are reduced with the rest, and those that only one holds are not reduced.
    if plan.ep in (1, plan.replicas):
        return [reduced]
    first = rank[: plan.ep]
    group = groups + columns + np.arange(first.size).reshape(first.shape)
    experts = builder.add(Kind.ALL_REDUCE, Part.DATA, first, dealt[:, None], group)
    blocks = ready.reshape(-1, plan.ep, plan.pp, ready.shape[-1])
    builder.link(blocks, experts)
    return [reduced, np.tile(experts, (len(rank) // plan.ep, 1, 1))]
