"""Time of a training step, for all configurations at once: passes, pipeline, communication, optimiser."""

from dataclasses import replace
from typing import Any

import numpy as np

from lightfabric.placement.cost.calibration import Calibration
from lightfabric.placement.cost.gemm import Seconds
from lightfabric.placement.cost.layer import Passes, adam_seconds, layer_seconds
from lightfabric.placement.cost.pipeline import bubble_seconds, stages, wait_seconds
from lightfabric.placement.cost.prediction import Network, Prediction
from lightfabric.placement.workload.case import DUALPIPE, ONE_F_ONE_B, PER_EXPERT, PER_RANK, Cases, where
from lightfabric.placement.workload.parameter import fullest_parameters
from lightfabric.placement.workload.volume import Volume


def step(cases: Cases, fitted: Calibration, network: Network) -> Prediction:
    """Predicted time of a step of a 1F1B pipeline, interleaved where ``virtual_stages`` exceeds 1.

    With W both passes of a micro-batch through all stages, w through the slowest, and c one transfer, m micro-batches on p
    stages of v parts take m w + (W - w) / v + 2 (p - 1) c and m - 1 times ``wait_seconds``.
    """
    kernels = layer_seconds(cases, fitted)
    slower = _gathering(cases, fitted, network, kernels)
    layer = [seconds * slower for seconds in kernels]
    forward, by_inputs, by_weights = (seconds * cases.fullest_layers for seconds in layer)
    passes = np.sum(layer, axis=0)
    through = stages(cases, fitted, passes, tensor_seconds(cases, network, passes))
    waiting = through
    if np.any(cases.paired):
        # A micro-batch alone, to begin and to end, has no other to hide behind.
        shown = replace(cases, hides_experts=False, schedule=ONE_F_ONE_B)
        waiting = stages(cases, fitted, passes, tensor_seconds(shown, network, passes))
    transfer = Volume(cases).transfer_bytes / network.pipeline + network.transfer_seconds
    m, parameters = cases.micro_batches, fullest_parameters(cases)
    return Prediction(
        compute=m * through.compute,
        tensor=m * through.tensor + unpaired_seconds(cases, network, passes) + (waiting.tensor - through.tensor) / 2,
        pipeline=2 * (cases.pp - 1) * transfer + (m - 1) * wait_seconds(cases, through, transfer),
        bubble=bubble_seconds(cases, waiting, by_weights) + lone_seconds(cases, network, passes),
        data=_data_seconds(cases, network, parameters, forward, by_inputs + by_weights) + _tie_seconds(cases, network),
        optimiser=adam_seconds(cases, fitted, _own(cases, parameters)),
    )


def _own(cases: Cases, parameters: tuple[Any, Any]) -> Any:
    """Parameters that a rank's optimiser steps: those that ZeRO leaves to it, experts being cut over fewer ranks."""
    shared, experts = parameters
    return where(cases.zero > 0, shared / cases.replicas + experts / cases.expert_replicas, shared + experts)


def tensor_seconds(cases: Cases, network: Network, passes: Seconds) -> Seconds:
    """Communication inside a layer's passes.

    Two all-reduces of activations per pass, again when it is computed again [Shoeybi 2019]; keys and values gathered over
    cp forward and backward, their gradients scattered; tokens to their experts and back. What software overlaps hides behind
    the ``passes`` of a layer: DualPipe behind those in the other direction [DeepSeek-V3, 3.2.1].
    """
    volume = Volume(cases)
    size_bytes, reduces = volume.reduce_bytes, volume.reduces(1) * (1 + volume.backward_passes)
    tensor = reduces * network.pass_seconds(network.tensor, size_bytes, cases.tp, 2, network.tensor_step_seconds)
    # The ring's first piece has no product yet to hide behind [NVIDIA, Transformer Engine, user buffers].
    tensor = where(cases.hides_tensor, np.maximum(tensor / cases.tp, tensor - passes), tensor)
    keys, gathers = cases.cp * volume.key_bytes, 1 + sum(volume.gathers)
    context = gathers * network.pass_seconds(network.context, keys, cases.cp, 1, network.context_step_seconds)
    expert = _expert_seconds(cases, network)
    return tensor + context + where(cases.hidden_experts, np.maximum(expert - passes, 0), expert)


def unpaired_seconds(cases: Cases, network: Network, passes: Seconds) -> Seconds:
    """Exchanges of the passes of DualPipe that have no pass in the other direction to hide behind, at both ends of a step.

    They are about as many as stages: 1.13 s forward and 1.99 s backward of 16 stages [DeepSeek-AI, "Insights into
    DeepSeek-V3" (ISCA 2025), table 4].
    """
    return cases.pp * _hidden_seconds(cases, network, passes)


def lone_seconds(cases: Cases, network: Network, passes: Seconds) -> Seconds:
    """Exchanges in DualPipe's bubble, of p / 2 - 1 backward passes that run alone [DeepSeek-V3, table 2]."""
    return np.maximum(cases.pp / 2 - 1, 0) * _hidden_seconds(cases, network, passes) / 2


def _hidden_seconds(cases: Cases, network: Network, passes: Seconds) -> Seconds:
    """Exchanges of a stage's layers and a micro-batch that DualPipe hides."""
    hidden = np.minimum(_expert_seconds(cases, network), passes)
    return where(cases.schedule == DUALPIPE, cases.fullest_layers * hidden, 0.0)


def _expert_seconds(cases: Cases, network: Network) -> Seconds:
    """All exchanges of a layer and micro-batch, the mean over layers with experts and without."""
    if not np.any(cases.experts):
        return np.zeros(())
    return cases.sparse_share * (1 + Volume(cases).backward_passes) * _exchange_seconds(cases, network)


def _gathering(cases: Cases, fitted: Calibration, network: Network, kernels: Passes) -> Any:
    """How much longer passes take while the weights of ZeRO 3 are gathered for both and their gradients scattered."""
    if not np.any(cases.zero == 3):
        return 1.0
    busy = 3 * _gather_seconds(cases, network, fullest_parameters(cases)) / (sum(kernels) * cases.fullest_layers)
    return where(cases.zero == 3, 1 + (fitted.sharded_slowdown - 1) * np.minimum(busy, 1), 1.0)


def _gather_seconds(cases: Cases, network: Network, parameters: tuple[Any, Any]) -> Seconds:
    """Weights of a stage that ZeRO 3 gathers for a pass, or their gradients scattered."""
    return _shared_seconds(cases, network, network.gather, parameters, cases.value_bytes, cases.sharing)


def _exchange_seconds(cases: Cases, network: Network) -> Seconds:
    """Tokens of a micro-batch to the experts of a layer and back; the results come back in 16 bits."""
    sent_bytes = where(cases.dispatch_bytes > 0, cases.dispatch_bytes, cases.value_bytes) + cases.value_bytes
    each = copies_seconds(cases, network) * cases.tokens * cases.hidden / cases.tp * sent_bytes
    waits = where(cases.graphs, network.graph_exchange_seconds, network.exchange_seconds)
    return where(cases.ep > 1, 2 * (network.start_seconds + waits) + each, 0.0)


def copies_seconds(cases: Cases, network: Network) -> Seconds:
    """Seconds per byte of a token that goes to its experts, in the time of the busiest rank.

    NCCL's all-to-all brings a copy to each expert. Else a token goes once to each island that has experts of its own, at
    most ``max_nodes``, and is copied there while others still arrive [DeepSeek-V3, 2.1.2 and 3.2.2]: to each expert, or once
    to each rank, the own among them, which kernels copy alike [DeepEP; HybridEP].
    """
    islands, ways = network.islands, cases.routed_per_token
    most = where(cases.max_nodes > 0, np.minimum(cases.max_nodes, islands), islands)
    beside = np.maximum(cases.ep / islands, 1)
    visits = where(cases.dispatch == PER_EXPERT, ways, different(most, ways))
    over = where(islands > 1, visits * (islands - 1) / islands / network.expert, 0.0)
    arrived = where(cases.dispatch == PER_EXPERT, 1 / islands, 1.0)
    copies = where(cases.dispatch == PER_RANK, different(most * beside, ways), ways * (beside - 1) / beside * arrived)
    copies = where(cases.copies > 0, cases.copies, copies)
    return np.maximum(over, copies / where(islands > 1, network.island, network.expert))


def different(places: Any, draws: Any) -> Any:
    """Mean of how many different places so many draws among them hit."""
    return places * (1 - (1 - 1 / places) ** draws)


def _data_seconds(
    cases: Cases, network: Network, parameters: tuple[Any, Any], forward: Seconds, backward: Seconds
) -> Seconds:
    """Gradients, and the weights if they are sharded, as far as no pass hides them.

    What overlaps is hidden but for a layer's: gradients behind the last backward pass, gathered weights behind the first
    forward pass. Interleaved, a chunk's gradients are whole, and its weights needed, while pp micro-batches pass each of
    the others [Narayanan 2021, figure 4], so both hide behind as many passes. ZeRO 3 gathers the weights for both passes of
    every micro-batch, each behind the pass before, and scatters the gradients, which are hidden too if they overlap.
    """

    def seconds(each: Any, passes: int = 1) -> Seconds:
        return _shared_seconds(cases, network, network.data, parameters, each, cases.replicas, passes)

    behind = where(cases.virtual_stages > 1, np.minimum(cases.micro_batches, cases.pp), 1)

    def exposed(whole: Seconds, once: Seconds) -> Seconds:
        # The layer that ends the backward pass, or begins the forward pass, has no pass left to hide behind.
        return where(cases.overlaps, np.maximum(whole - behind * once, whole / cases.fullest_layers), whole)

    reduced = seconds(cases.gradient_bytes, 2)
    # A reduce-scatter is half an all-reduce; the weights are gathered afterwards, in their own precision.
    sharded = exposed(reduced / 2, backward) + exposed(seconds(cases.value_bytes), forward)
    once = where(cases.zero > 0, sharded, exposed(reduced, backward))
    if not np.any(cases.zero == 3):
        return once
    gathered = scattered = _gather_seconds(cases, network, parameters)
    hides = where(cases.overlaps, scattered, 0)
    each = np.maximum(gathered - forward, 0) + np.maximum(gathered + hides - backward, 0) + scattered - hides
    return where(cases.zero == 3, cases.micro_batches * each + gathered / cases.fullest_layers, once)


def _shared_seconds(
    cases: Cases, network: Network, rate: Any, parameters: tuple[Any, Any], each: Any, members: Any, passes: int = 1
) -> Seconds:
    """A collective of ``each`` bytes per parameter among ``members``, of experts among those that hold the same."""
    dense, experts = (count * cases.stage_copies * each for count in parameters)
    shared = network.pass_seconds(rate, dense, members, passes, network.data_step_seconds)
    if not np.any(cases.experts):
        return shared
    return shared + network.pass_seconds(rate, experts, cases.expert_replicas, passes, network.data_step_seconds)


def _tie_seconds(cases: Cases, network: Network) -> Seconds:
    """Sum of the gradients of both copies of the embedding, on the first and the last stage."""
    size_bytes = cases.vocabulary_shard * cases.hidden * cases.gradient_bytes
    return where(cases.sums_embedding & (cases.pp > 1), size_bytes / network.pipeline + network.transfer_seconds, 0.0)
