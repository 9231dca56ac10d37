"""Collective calls of each rank in an iteration, to the byte, as NCCL is called by Megatron-LM.

Bytes are those that go into a call at the rank, as PyTorch's profiler and CCL-Bench count them: of an all-reduce the buffer,
of an all-gather the rank's own part, of a reduce-scatter the whole buffer, of an all-to-all what goes to other ranks, of a
send or a receive the message. What moves over links is in ``mapping.traffic``. Groups of one rank call nothing, and
broadcasts of batches are left out.

With ``JobSpec.sequence_parallel`` a sum over tensor ranks is a reduce-scatter and an all-gather, inputs of layers are
gathered once more for the gradients of weights, and the gradients of what all tensor ranks hold are summed [Korthikanti
2022, 4.2.2]. Else it is an all-reduce, and a stage gathers the parts of the activations that the tensor ranks before it have
sent [Narayanan 2021, 4.1].
"""

from collections.abc import Iterable, Iterator
from math import lcm
from typing import Literal, NamedTuple

from lightfabric.model.spec import JobSpec, SpecError
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.parameter import rank_parameters
from lightfabric.placement.workload.volume import Volume, volume

Axis = Literal["tensor", "context", "data", "expert", "pipeline", "all"]
Name = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send", "recv"]

FLOAT_BYTES = 4
"""Losses, norms and times are fp32 whatever the precision."""
LOSS_SUMS = 3
"""Over tensor ranks for the loss of a token: the largest logit, the label's, the sum of exponentials [Shoeybi 2019, 3]."""
TIMERS = 24
"""Times of an iteration that each rank tells all others [Megatron-LM core, ``training_log``; 25 before "all-grads-sync"]."""
PADDED = 128
"""A buffer of the distributed optimiser has a multiple of this and of its ranks in parameters [``DistributedOptimizer``]."""


class Call(NamedTuple):
    """Says how often a rank calls a collective on an axis, and how many bytes go into these calls together."""

    axis: Axis
    collective: Name
    operations: int
    size_bytes: int


class RankKind(NamedTuple):
    """Names ranks whose calls are alike, and the calls of one of them."""

    ranks: list[int]
    calls: tuple[Call, ...]


def rank_kinds(calls: Iterable[tuple[Iterable[int], Iterable[Call]]]) -> list[RankKind]:
    """Put ranks of equal calls together, in the order of their first; calls of an axis and collective are one entry."""
    found: dict[tuple[Call, ...], list[int]] = {}
    for ranks, each in calls:
        summed: dict[tuple[Axis, Name], tuple[int, int]] = {}
        for axis, collective, operations, size_bytes in each:
            before = summed.get((axis, collective), (0, 0))
            if operations and size_bytes:
                summed[axis, collective] = before[0] + operations, before[1] + size_bytes
        found.setdefault(tuple(Call(*key, *total) for key, total in summed.items()), []).extend(ranks)
    return [RankKind(sorted(ranks), same) for same, ranks in found.items()]


def transformer_calls(job: JobSpec, plan: Plan) -> list[RankKind]:
    """Count the calls of a transformer's plan that a task graph carries; SpecError for one with ``zero`` above 1."""
    if plan.zero > 1:
        raise SpecError("Plan", "zero", "0 or 1", str(plan.zero))
    sent = volume(job, plan)
    rank = plan.by_replica.reshape(-1, plan.ep, plan.pp, plan.tp)

    def each() -> Iterator[tuple[list[int], list[Call]]]:
        for stage in range(plan.pp):
            inside = [
                *_tensor(job, plan, sent, stage),
                *_context(plan, sent, stage),
                *_data(plan, sent, stage),
                *_pipeline(plan, sent, stage),
            ]
            for place in range(plan.ep):
                calls = [*inside, *_expert(plan, sent, stage, place), *_report(plan)]
                yield rank[:, place, stage].ravel().tolist(), calls

    return rank_kinds(each())


def _tensor(job: JobSpec, plan: Plan, sent: Volume, stage: int) -> Iterator[Call]:
    if plan.tp == 1:
        return
    m, layers, whole = sent.micro_batches, int(sent.of.stage_layers(stage)), sent.reduce_bytes
    first, last = stage == 0, stage == plan.pp - 1
    # An embedding is summed once, forward, and the gradient of what goes into the output layer once, backward.
    sums = m * (sent.reduces(layers) * (1 + int(sent.backward_passes)) + first + last)
    if job.sequence_parallel:
        gathers = sums + m * (2 * layers + last)
        yield Call("tensor", "all_gather", gathers, gathers * whole // plan.tp)
        yield Call("tensor", "reduce_scatter", sums, sums * whole)
        yield Call("tensor", "all_reduce", 1, _held_alike(job, layers, last) * sent.of.gradient_bytes)
    else:
        received = _received(plan, m, stage)
        yield Call("tensor", "all_reduce", sums, sums * whole)
        yield Call("tensor", "all_gather", received, received * sent.transfer_bytes)
    loss = LOSS_SUMS * m * last
    yield Call("tensor", "all_reduce", loss, loss * sent.of.tokens * FLOAT_BYTES)


def _context(plan: Plan, sent: Volume, stage: int) -> Iterator[Call]:
    if plan.cp > 1:
        layers = sent.micro_batches * int(sent.of.stage_layers(stage))
        gathers, scatters = layers * int(sum(sent.gathers)), layers
        yield Call("context", "all_gather", gathers, gathers * sent.key_bytes)
        yield Call("context", "reduce_scatter", scatters, scatters * plan.cp * sent.key_bytes)


def _held_alike(job: JobSpec, layers: int, last: bool) -> int:
    """Parameters of norms, and of biases that are added to sums, which all tensor ranks hold."""
    model = job.model
    biases = (model.attention_output_biases + model.ffn_biases) * model.hidden
    norms = model.layer_norms * model.norm_size + model.head_norm_size
    return layers * (norms + biases) + last * model.final_norm * model.norm_size


def _data(plan: Plan, sent: Volume, stage: int) -> Iterator[Call]:
    shared, experts = rank_parameters(sent.of, stage)
    for count, members in ((shared, plan.replicas), (experts, int(sent.of.expert_replicas))):
        if members == 1 or not count:
            continue
        if plan.zero == 0:
            yield Call("data", "all_reduce", 1, int(count) * sent.of.gradient_bytes)
            continue
        unit = lcm(PADDED, members)
        padded = -(-int(count) // unit) * unit
        yield Call("data", "reduce_scatter", 1, padded * sent.of.gradient_bytes)
        yield Call("data", "all_gather", 1, padded // members * sent.of.value_bytes)
    if plan.replicas > 1 and stage == plan.pp - 1:
        # The loss and the number of its tokens.
        yield Call("data", "all_reduce", sent.micro_batches, sent.micro_batches * 2 * FLOAT_BYTES)


def _expert(plan: Plan, sent: Volume, stage: int, place: int) -> Iterator[Call]:
    if plan.ep == 1:
        return
    exchanges = sent.micro_batches * int(sent.exchanges(sent.of.routed_layers(stage))) * (1 + int(sent.backward_passes))
    # Peers of other groups and ranks of the same group are two groups of NCCL.
    ways = 2 if 1 < plan.expert_group < plan.ep else 1
    both = int(sent.dispatched_bytes[place].sum() + sent.combined_bytes[place].sum())
    yield Call("expert", "all_to_all", ways * exchanges, exchanges // 2 * both)


def _received(plan: Plan, micro_batches: int, stage: int) -> int:
    """Activations, and their gradients, that a rank gets from other stages, and sends to them."""
    if plan.pp == 1:
        return 0
    return micro_batches * (2 * plan.virtual_stages - (stage == 0) - (stage == plan.pp - 1))


def _pipeline(plan: Plan, sent: Volume, stage: int) -> Iterator[Call]:
    if plan.pp == 1:
        return
    count = _received(plan, sent.micro_batches, stage)
    yield Call("pipeline", "send", count, count * sent.transfer_bytes)
    yield Call("pipeline", "recv", count, count * sent.transfer_bytes)
    if sent.of.tied and stage in (0, plan.pp - 1):
        yield Call("pipeline", "all_reduce", 1, int(sent.of.vocabulary_shard) * sent.of.hidden * sent.of.gradient_bytes)


def _report(plan: Plan) -> Iterator[Call]:
    """What all ranks tell each other of an iteration: the norm of the gradients, and times."""
    if plan.gpus > 1:
        yield Call("all", "all_reduce", 1, FLOAT_BYTES)
        yield Call("all", "all_gather", 1, TIMERS * FLOAT_BYTES)
