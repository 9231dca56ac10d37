"""The task graph of an output token of all sequences, in the steady state of a pipeline that decodes.

The micro-batches are in different stages when the graph begins, as far apart as can be, and each goes once round: through
the later stages, back to the first with its new token, and on to the stage where it began.
"""

import numpy as np

from lightfabric.model.spec import AcceleratorSpec, DecodeJobSpec
from lightfabric.model.task import Kind, Part, TaskGraph
from lightfabric.placement.cost.output_token import TOKEN_BYTES, one_token, output_token
from lightfabric.placement.graph.builder import Builder, Ids, Kept, picoseconds
from lightfabric.placement.graph.iteration import add_steps, kept_ranks
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.volume import volume


def next_token_graph(job: DecodeJobSpec, accelerator: AcceleratorSpec, plan: Plan, kept: Kept | None = None) -> TaskGraph:
    """One output token of ``plan`` over its ranks, or of those ``kept``, as ``iteration.task_graph`` has them; O(tasks).

    A pass computes on its tensor ranks, joins them in one ALL_REDUCE for all of its stage's, exchanges tokens with their
    experts, and goes to the next stage rank by rank. Groups are the tensor rings.
    """
    p, (every, replicas, columns) = plan.pp, kept_ranks(plan, kept)
    rank = every[replicas][:, :, columns]
    token, builder = output_token(job, plan, accelerator), Builder()
    count = int(token.micro_batches)
    passes = np.tile(picoseconds(token.pass_seconds(np.arange(p)))[:, None], (1, count))
    start, _, end = add_steps(builder, volume(one_token(job), plan), plan, rank, passes, np.ones(passes.shape, bool))
    builder.link(end[:, :, :-1], start[:, :, 1:])
    step = steps(p, count)
    turn = np.argsort(np.argsort(step, axis=1), axis=1)
    for stage in range(p if p > 1 else 0):
        after = (stage + 1) % p
        size = int(token.transfer_bytes) if after else TOKEN_BYTES * int(token.of.tokens)
        source, destination = (np.repeat(rank[:, each, None], count, axis=1) for each in (stage, after))
        sent = builder.add(Kind.TRANSFER, Part.PIPELINE, source, size, destination)
        builder.link(end[:, stage, turn[stage]], sent)
        # Where a micro-batch began its loop ends.
        on = step[after] > step[stage]
        builder.link(sent[:, on], start[:, after, turn[after, on]])
    return builder.graph(plan.gpus, [every[replicas].reshape(-1, plan.tp)])


def steps(stages: int, count: int) -> Ids:
    """``[stage, micro-batch]``: after how many other stages a micro-batch comes to a stage.

    Examples:
        >>> steps(4, 2).tolist()
        [[0, 2], [1, 3], [2, 0], [3, 1]]

    """
    first = np.arange(count) * stages // count
    return ((np.arange(stages)[:, None] - first) % stages).astype(np.int32)
