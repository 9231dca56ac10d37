"""Time of a training step, for all configurations at once: passes, pipeline, communication, optimiser."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.cost.calibration import Calibration
from lightfabric.placement.cost.gemm import Seconds
from lightfabric.placement.cost.layer import adam_seconds, layer_seconds, layer_weights
from lightfabric.placement.cost.pipeline import bubble_seconds, stages, wait_seconds
from lightfabric.placement.cost.table import DUALPIPE, FULL, Cases

Rate = NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """Payload bytes/s at which a rank sends to its next neighbour of each dimension, ``[case]``, and what starting costs.

    A collective takes ``start_seconds`` and ``member_seconds`` for each member but one, and ``chunk_root_seconds`` times the
    root of its time on the wire; a transfer between stages ``transfer_seconds``: 0 where a fabric's own model has them.
    ``gather`` is the rate at which sharded weights are collected.
    """

    tensor: Rate
    context: Rate
    expert: Rate
    data: Rate
    gather: Rate
    pipeline: Rate
    start_seconds: float = 0.0
    member_seconds: float = 0.0
    chunk_root_seconds: float = 0.0
    transfer_seconds: float = 0.0

    def pass_seconds(self, rate: Any, size_bytes: Any, members: Any, passes: int = 1) -> Seconds:
        """A collective of ``size_bytes`` per member: reduce-scatter or all-gather is a pass round a ring, all-reduce two."""
        wire = passes * (members - 1) / members * size_bytes / rate
        start = self.start_seconds + self.member_seconds * (members - 1)
        return np.where(members > 1, start + wire + self.chunk_root_seconds * np.sqrt(wire), 0.0)


@dataclass(frozen=True)
class Parts:
    """Where a step's time goes, ``[case]``. Parts do not overlap: they add up."""

    compute: Seconds
    tensor: Seconds
    pipeline: Seconds
    bubble: Seconds
    data: Seconds
    optimiser: Seconds

    @property
    def total(self) -> Seconds:
        """The step."""
        return sum((getattr(self, entry.name) for entry in fields(self)), np.zeros(1))


def step_parts(cases: Cases, fitted: Calibration, network: Network, gradient_bytes: Any) -> Parts:
    """Predicted step of a 1F1B pipeline, interleaved where ``virtual_stages`` exceeds 1.

    With W both passes of a micro-batch through all stages, w through the slowest, and c one transfer, m micro-batches on p
    stages of v parts take m w + (W - w) / v + 2 (p - 1) c and m - 1 times ``wait_seconds``.
    """
    slower = np.where(cases.zero == 3, fitted.sharded_slowdown, 1.0)
    slower = slower * np.where(cases.deepspeed, fitted.deepspeed_slowdown, 1.0)
    layer = [seconds * slower for seconds in layer_seconds(cases, fitted)]
    forward, by_inputs, by_weights = (seconds * cases.stage_layers for seconds in layer)
    passes = np.sum(layer, axis=0)
    through = stages(cases, fitted, passes, tensor_seconds(cases, network, passes))
    size_bytes = cases.tokens * cases.hidden * cases.value_bytes / cases.tp
    transfer = size_bytes / network.pipeline + network.transfer_seconds
    m = cases.micro_batches
    parameters = sum(rank_parameters(cases))
    return Parts(
        compute=m * through.compute,
        tensor=m * through.tensor,
        pipeline=2 * (cases.pp - 1) * transfer + (m - 1) * wait_seconds(cases, through, transfer),
        bubble=bubble_seconds(cases, through, by_weights),
        data=_data_seconds(cases, network, gradient_bytes, forward, by_inputs + by_weights)
        + _tie_seconds(cases, network, gradient_bytes),
        optimiser=adam_seconds(cases, fitted, parameters / np.where(cases.zero > 0, cases.dp * cases.cp, 1)),
    )


def stage_parameters(cases: Cases) -> list[tuple[Any, Any]]:
    """Of ranks of the first stage, the second, the fullest between and the last: layers and embedding, experts.

    Norms are left out. Leading dense layers are in the first chunks, which go round the stages.
    """
    first, fullest, last = cases.layers_at
    words = cases.vocabulary_shard * cases.hidden
    ends = (words * np.where((cases.pp == 1) & ~cases.tied, 2, 1), 0, 0, words)
    begins = (0, first, cases.layers - last - fullest, cases.layers - last)
    rounds, rest = np.divmod(cases.dense_layers, cases.layers / cases.virtual_stages)
    found: list[tuple[Any, Any]] = []
    for layers, begin, end in zip((first, cases.second_stage[0], fullest, last), begins, ends, strict=True):
        chunk = layers / cases.virtual_stages
        dense = rounds * chunk + np.clip(rest - begin / cases.virtual_stages, 0, chunk)
        shared, experts = layer_weights(cases, layers, np.where(cases.experts > 0, layers - dense, 0))
        found.append((shared + end, experts))
    return found


def rank_parameters(cases: Cases) -> tuple[Any, Any]:
    """Most that a rank of any stage has: layers and embedding, experts."""
    dense, experts = zip(*stage_parameters(cases), strict=True)
    return np.maximum.reduce(dense), np.maximum.reduce(experts)


def sent_bytes(cases: Cases) -> tuple[Any, Any, Any]:
    """Bytes of one iteration from a rank to its next neighbour: tensor, pipeline, data.

    Data are gradients in fp32 both ways, or with ZeRO one way and weights the other; keys and values that cp gathers, and
    tokens that go to experts.
    """
    activations = cases.tokens * cases.hidden * cases.value_bytes
    passes = cases.micro_batches * cases.stage_layers * np.where(cases.recompute == FULL, 6, 4)
    tensor = 2 * (cases.tp - 1) / cases.tp * passes * activations
    pipeline = np.where(cases.pp > 1, cases.micro_batches * cases.virtual_stages * activations / cases.tp, 0.0)
    keys = (cases.cp - 1) * passes * 2 * cases.kv_heads * cases.head_width * cases.tokens * cases.value_bytes / cases.tp
    routed = (cases.ep - 1) / cases.ep * passes * activations * cases.sparse_share * cases.experts_per_token / cases.tp
    replicas = cases.dp * cases.cp
    each = np.where(cases.zero > 0, 4 + cases.value_bytes, 8)
    gradients = (replicas - 1) / replicas * sum(rank_parameters(cases)) * each
    return tensor, pipeline, gradients + 0.75 * keys + routed


def tensor_seconds(cases: Cases, network: Network, passes: Seconds) -> Seconds:
    """Communication inside a layer's passes.

    Two all-reduces of activations per pass, again when it is computed again [Shoeybi 2019]; keys and values gathered over
    cp forward and backward, their gradients scattered; tokens to their experts and back, twice, in the time of the busiest
    rank. DualPipe hides the latter behind the ``passes`` of a layer in the other direction [DeepSeek-V3, 3.2.1].
    """
    size_bytes, again = cases.tokens * cases.hidden * cases.value_bytes, np.where(cases.recompute == FULL, 1, 0)
    tensor = (4 + 2 * again) * network.pass_seconds(network.tensor, size_bytes, cases.tp, passes=2)
    keys = 2 * cases.kv_heads * cases.head_width * cases.micro_batch * cases.sequence * cases.value_bytes / cases.tp
    context = (3 + again) * network.pass_seconds(network.context, keys, cases.cp)
    routed = size_bytes * cases.routed_per_token / cases.tp
    expert = cases.sparse_share * (4 + 2 * again) * network.pass_seconds(network.expert, routed, cases.ep)
    return tensor + context + np.where(cases.schedule == DUALPIPE, np.maximum(expert - passes, 0), expert)


def _data_seconds(cases: Cases, network: Network, gradient_bytes: Any, forward: Seconds, backward: Seconds) -> Seconds:
    """Gradients, and the weights if they are sharded, as far as no pass hides them.

    What overlaps is hidden behind the last backward pass but for a layer's. ZeRO 3 gathers the weights for both passes of
    every micro-batch, each behind the pass before, and scatters the gradients, which are hidden too if they overlap.
    """
    replicas, (dense, experts) = cases.dp * cases.cp, rank_parameters(cases)

    def seconds(rate: Any, each: Any, passes: int = 1) -> Seconds:
        shared = network.pass_seconds(rate, dense * each, replicas, passes)
        if not np.any(cases.experts):
            return shared
        return shared + network.pass_seconds(rate, experts * each, np.maximum(replicas // cases.ep, 1), passes)

    reduced = seconds(network.data, gradient_bytes, 2)
    once = np.where(cases.zero > 0, reduced / 2 + seconds(network.data, cases.value_bytes), reduced)
    once = np.where(cases.overlaps, np.maximum(once - backward, once / cases.stage_layers), once)
    if not np.any(cases.zero == 3):
        return once
    gathered, scattered = (seconds(network.gather, cases.value_bytes) for _ in range(2))
    hides = np.where(cases.overlaps, scattered, 0)
    each = np.maximum(gathered - forward, 0) + np.maximum(gathered + hides - backward, 0) + scattered - hides
    return np.where(cases.zero == 3, cases.micro_batches * each + gathered / cases.stage_layers, once)


def _tie_seconds(cases: Cases, network: Network, gradient_bytes: Any) -> Seconds:
    """Sum of the gradients of both copies of the embedding, on the first and the last stage."""
    size_bytes = cases.vocabulary_shard * cases.hidden * gradient_bytes
    return np.where(cases.sums_embedding & (cases.pp > 1), size_bytes / network.pipeline + network.transfer_seconds, 0.0)
