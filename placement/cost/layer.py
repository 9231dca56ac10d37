"""Time of computation of one rank, for all configurations at once: every kernel of a layer, the ends of the model, Adam.

The kernels are those of Megatron-LM [Shoeybi 2019; Narayanan 2021; Korthikanti 2022]. What they reach on an accelerator is
fitted to measured steps: see ``calibration.json``.
"""

from typing import Any

import numpy as np

from lightfabric.placement.cost.calibration import Calibration, calibration
from lightfabric.placement.cost.gemm import Seconds, gemm_seconds, memory_seconds
from lightfabric.placement.workload.case import FULL, PER_RANK, SELECTIVE, Cases, where
from lightfabric.placement.workload.parameter import rank_parameters

FLASH_FORWARD, FLASH_BACKWARD = 0.85, 0.72
"""Rate of flash attention against large matrix products: 230 and 195 Tflop/s on an A100 [Dao 2023, figures 4 and 5]."""
FORWARD_KERNELS, BACKWARD_KERNELS = 12, 20
"""Launches of a layer that are no matrix products."""
FUSED_LOSS_ACCESSES = 8
"""Of a logit, as ``loss_accesses``: cast to fp32, read for the maximum, for the sum, and read and written as the gradient
[NVIDIA, Megatron-Core, ``fused_cross_entropy.py``; half of it each way]."""
EXPERT_ROWS = 64
"""Tokens of an expert are padded to a multiple of this, as in MegaBlocks [Gale 2022, 5.1], where it is 128."""

Shapes = list[tuple[Any, Any, Any, Any]]
"""(rows, outputs, inputs, count) of the products of a part of a layer, ``[case]`` each."""

Passes = tuple[Any, Any, Any]
"""Forward; backward by inputs, which the stage before waits for; backward by weights, which nobody does."""


def attention_shapes(cases: Cases) -> Shapes:
    """Products of the attention block without its core; five if latent [DeepSeek-V2, 2.1], else two."""
    m, h, t = cases.tokens, cases.hidden, cases.tp
    if not np.any(cases.kv_rank):
        return [(m, cases.qkv_width // t, h, 1), (m, h, cases.heads * cases.head_size // t, 1)]
    latent = cases.kv_rank > 0
    heads, keys = cases.heads // t, cases.head_size + cases.rope_width
    values = where(latent, cases.value_size, cases.head_size)
    down = where(latent, cases.query_rank + cases.kv_rank + cases.rope_width, cases.qkv_width // t)
    return [
        (m, down, h, 1),
        (m, where(latent, heads * keys, 0), cases.query_rank, 1),
        (m, where(latent, heads * (cases.head_size + values), 0), cases.kv_rank, 1),
        (m, h, heads * values, 1),
    ]


def dense_shapes(cases: Cases, width: Any) -> Shapes:
    """Products of a feed-forward block of ``width``."""
    m, h, wide = cases.tokens, cases.hidden, width // cases.tp
    return [(m, (1 + cases.gated) * wide, h, 1), (m, h, wide, 1)]


def expert_shapes(cases: Cases) -> Shapes:
    """Products of the experts of the busiest rank, padded to whole cache lines, of those of all tokens, of the router."""
    local = np.maximum(cases.experts // cases.ep, 1)
    tokens = cases.tokens * cases.expert_cut / cases.tp
    rows = np.ceil(tokens * cases.routed_per_token / local / EXPERT_ROWS) * EXPERT_ROWS
    wide = cases.expert_width // cases.expert_cut
    routed = [(rows, (1 + cases.gated) * wide, cases.hidden, local), (rows, cases.hidden, wide, local)]
    router = (cases.tokens, cases.experts, cases.hidden, 1)
    return [*routed, *dense_shapes(cases, cases.shared_experts * cases.expert_width), router]


def products(cases: Cases, fitted: Calibration, shapes: Shapes, half: bool = False) -> Passes:
    """Time products of shapes, forward and backward, with the casts of their operands below 16 bits."""
    forward = sum(gemm_seconds(cases, fitted, m, n, k, count, half) for m, n, k, count in shapes)
    # A backward product has as many operations as the forward one, but its other shape fills tiles and waves otherwise.
    by_inputs = sum(gemm_seconds(cases, fitted, m, k, n, count, half) for m, n, k, count in shapes)
    by_weights = sum(gemm_seconds(cases, fitted, k, n, m, count, half) for m, n, k, count in shapes)
    narrow = not half and bool(np.any(cases.operand_bytes < cases.value_bytes))
    if narrow:
        # Operands are cast from 16 bits as they are and transposed, for the two backward products: read once, written twice.
        # In 4 bits they are read twice, for the scale of a tensor comes first [NVIDIA, Transformer Engine, NVFP4].
        reads = where(cases.operand_bytes < 1, 2, 1)
        each = where(cases.operand_bytes < cases.value_bytes, reads * cases.value_bytes + 2 * cases.operand_bytes, 0)
        forward = forward + memory_seconds(cases, fitted, each * sum(m * k * count for m, _, k, count in shapes))
        by_inputs = by_inputs + memory_seconds(cases, fitted, each * sum(m * n * count for m, n, _, count in shapes))
    return np.asarray(forward), np.asarray(by_inputs), np.asarray(by_weights)


def weights(shapes: Shapes) -> Any:
    """Parameters of the products on one rank."""
    return sum(n * k * count for _, n, k, count in shapes)


def _core(cases: Cases, fitted: Calibration) -> Passes:
    """Scores, softmax and weighted values, forward and backward: kernel by kernel, or flash, which skips the masked half."""
    heads, s, d = cases.micro_batch * cases.heads / cases.tp, cases.sequence // cases.cp, cases.head_size
    pairs = heads * s * cases.sequence
    # Scores and values take four operations per pair and width, half of them masked; positions widen scores only.
    half = 2 * pairs * (d + cases.rope_width / 2) / (cases.half_flops * fitted.gemm_efficiency)
    # The backward pass of flash attention has five products to the forward pass's two, for it computes the scores again.
    flash = (half / FLASH_FORWARD + fitted.kernel_seconds, 2.5 * half / FLASH_BACKWARD + fitted.kernel_seconds)
    if np.all(cases.flash):
        return *flash, 0.0
    products = gemm_seconds(cases, fitted, s, cases.sequence, d, heads, half=True) + gemm_seconds(
        cases, fitted, s, d, cases.sequence, heads, half=True
    )
    products = products / where(d % 8 > 0, fitted.odd_heads, 1.0)
    apart = where(cases.deepspeed, fitted.deepspeed_accesses, 1.0)
    accesses = (memory_seconds(cases, fitted, pairs * (apart * count * cases.value_bytes + 1)) for count in (4, 6))
    plain = (scale * products + softmax for scale, softmax in zip((1, 2), accesses, strict=True))
    forward, backward = (where(cases.flash, fused, several) for fused, several in zip(flash, plain, strict=True))
    return forward, backward, 0.0


def elementwise(cases: Cases, fitted: Calibration) -> Passes:
    """Two norms (read, write), two dropouts with residual sum (two reads, a write), the moving of heads, the activation."""
    whole = cases.tokens * cases.hidden / where(cases.sharded, cases.tp, 1)
    heads = cases.tokens * (cases.qkv_width + cases.heads * cases.head_size) / cases.tp
    active = cases.routed_per_token + cases.shared_experts
    width = cases.ffn_width + cases.sparse_share * (active * cases.expert_width - cases.ffn_width)
    wide = cases.tokens * width / cases.tp
    # Sorted to be sent, and back; by expert, too, if copies do not come sorted [NVIDIA, Megatron-Core, token_dispatcher.py].
    times = where(cases.dispatch == PER_RANK, 4, 6)
    moved = cases.sparse_share * times * cases.routed_per_token * cases.tokens * cases.hidden / cases.tp
    forward = 10 * whole + 2 * heads + (2 + cases.gated) * wide + moved
    backward = 14 * whole + 2 * heads + (3 + 2 * cases.gated) * wide + moved
    apart = where(cases.deepspeed, fitted.deepspeed_accesses, 1.0)
    first, second = (
        memory_seconds(cases, fitted, apart * values * cases.value_bytes) + kernels * fitted.kernel_seconds
        for values, kernels in ((forward, FORWARD_KERNELS), (backward, BACKWARD_KERNELS))
    )
    return first, second, 0.0


def _feed_forward(cases: Cases, fitted: Calibration) -> Passes:
    """Dense and sparse layers in their proportion."""
    dense = products(cases, fitted, dense_shapes(cases, cases.ffn_width))
    if not np.any(cases.experts):
        return dense
    sparse, share = products(cases, fitted, expert_shapes(cases)), cases.sparse_share
    return tuple((1 - share) * a + share * b for a, b in zip(dense, sparse, strict=True))  # type: ignore[return-value]


def layer_weights(cases: Cases) -> Any:
    """Weights of a layer on one rank, the mean over all."""
    sparse, experts = cases.sparse_share, expert_shapes(cases)
    dense = weights(attention_shapes(cases)) + (1 - sparse) * weights(dense_shapes(cases, cases.ffn_width))
    return dense + sparse * weights(experts[2:]) + sparse * weights(experts[:2])


def _launches(cases: Cases, fitted: Calibration) -> tuple[Any, Any]:
    """What the host takes to launch the forward and the backward pass of a layer."""
    launch = fitted.collective_launch_seconds * (cases.tp - 1)
    narrow = cases.operand_bytes < cases.value_bytes
    # Of three products of each weight one is in the forward pass.
    cast = cases.sparse_share * narrow * fitted.expert_launch_seconds / 3
    # An exchange that passes hide does not wait on the accelerator, but the host still does.
    waits = cases.sparse_share * (narrow & cases.hides_experts) * 2 * fitted.exchange_seconds
    forward = fitted.forward_launch_seconds + launch + cast + waits
    backward = fitted.backward_launch_seconds + launch + 2 * cast + waits
    return where(cases.graphs, 0.0, forward), where(cases.graphs, 0.0, backward)


def _exchanging(cases: Cases) -> Any:
    """How much longer passes take on the multiprocessors that hidden exchanges of tokens leave them [DeepSeek-V3, 3.2.2]."""
    left = cases.multiprocessors - cases.exchange_multiprocessors
    busy = cases.hidden_experts & (cases.ep > 1) & (left > 0)
    return where(busy, cases.multiprocessors / np.maximum(left, 1), 1.0)


def layer_seconds(cases: Cases, fitted: Calibration) -> Passes:
    """One layer and micro-batch; the backward pass by inputs has what it recomputes, that by weights the sum of gradients.

    The host launches a pass's kernels; no pass is faster than that.
    """
    core = _core(cases, fitted)
    parts = (
        products(cases, fitted, attention_shapes(cases)),
        core,
        _feed_forward(cases, fitted),
        elementwise(cases, fitted),
    )
    slower = _exchanging(cases)
    forward, by_inputs, by_weights = (slower * sum(part[side] for part in parts) for side in range(3))
    summed = where(cases.deepspeed, fitted.deepspeed_sum_bytes, 3 * cases.value_bytes)
    by_weights = by_weights + slower * memory_seconds(cases, fitted, summed * layer_weights(cases))
    launches = _launches(cases, fitted)
    forward = np.maximum(forward, launches[0])
    # The limit is that of the whole backward pass, of which the part by weights is counted apart.
    by_inputs = np.maximum(by_inputs, launches[1] - by_weights)
    # Flash attention keeps no core, so selective recomputation adds nothing to it.
    selective = (cases.recompute == SELECTIVE) & ~cases.flash
    again = where(cases.recompute == FULL, forward, where(selective, slower * core[0], 0.0))
    if np.any(cases.lean):
        # Norms and the products from latents up are cheap to compute again for what they would keep [DeepSeek-V3, 3.2.3].
        latents = products(cases, fitted, attention_shapes(cases)[1:3])[0] + parts[3][0]
        again = again + where(cases.lean & (cases.recompute != FULL), slower * latents, 0.0)
    return forward, by_inputs + again, by_weights


def next_token_seconds(cases: Cases, fitted: Calibration, layer: Seconds) -> Seconds:
    """Predict a further token: a ``layer``, an output layer of its own, and two embeddings' product before them.

    [DeepSeek-V3, 2.2, equations 21 to 23].
    """
    both = sum(products(cases, fitted, [(cases.tokens, cases.hidden, 2 * cases.hidden // cases.tp, 1)]))
    return layer + both + sum(logit_seconds(cases, fitted))


def logit_seconds(cases: Cases, fitted: Calibration) -> tuple[Seconds, Seconds]:
    """Output layer and loss of a micro-batch, forward and backward."""
    shape = (cases.tokens, cases.vocabulary_shard, cases.hidden, 1)
    accesses = where(cases.fused, FUSED_LOSS_ACCESSES, fitted.loss_accesses)
    loss = memory_seconds(cases, fitted, 2 * accesses * cases.tokens * cases.vocabulary_shard)
    forward, by_inputs, by_weights = products(cases, fitted, [shape], half=True)
    return forward + loss, by_inputs + by_weights + loss


def lookup_seconds(cases: Cases, fitted: Calibration) -> Seconds:
    """Embedding of a micro-batch, sum with positions and dropout; as long backward."""
    return memory_seconds(cases, fitted, 5 * cases.tokens * cases.hidden * cases.value_bytes)


def adam_seconds(cases: Cases, fitted: Calibration, parameters: Any) -> Seconds:
    """An optimiser step on so many parameters of a rank."""
    return fitted.optimiser_seconds + memory_seconds(cases, fitted, fitted.optimiser_bytes * parameters)


def pass_seconds(case: Cases, stage: Any, chunk: Any) -> tuple[Seconds, Seconds]:
    """Computation of one micro-batch through a chunk of layers of one plan's stage, ``[stage]``: forward, backward.

    The backward pass has what it recomputes.
    """
    fitted, last = calibration(), (stage == case.pp - 1) & (chunk == case.virtual_stages - 1)
    forward, by_inputs, by_weights = layer_seconds(case, fitted)
    layers, lookup = case.stage_layers(stage), lookup_seconds(case, fitted) * ((stage == 0) & (chunk == 0))
    passes = zip((forward, by_inputs + by_weights), logit_seconds(case, fitted), strict=True)
    ahead, back = (layer * layers / case.virtual_stages + (logits * last + lookup) for layer, logits in passes)
    return ahead, back


def optimiser_seconds(case: Cases, stage: Any) -> Seconds:
    """One Adam step on the parameters of a rank of one plan's stage, or its share of them."""
    parameters = sum(rank_parameters(case.exactly, stage)) / where(case.zero > 0, case.replicas, 1)
    return adam_seconds(case, calibration(), parameters)
