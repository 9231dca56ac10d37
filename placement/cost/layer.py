"""Time of computation of one rank, for all configurations at once: every kernel of a layer, the ends of the model, Adam.

The kernels are those of Megatron-LM [Shoeybi 2019; Narayanan 2021; Korthikanti 2022]. What they reach on an accelerator is
fitted to measured steps: see ``calibration.json``.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from lightfabric.model.spec import AcceleratorSpec, JobSpec
from lightfabric.placement.cost.calibration import Calibration, calibration
from lightfabric.placement.cost.gemm import Seconds, gemm_seconds, memory_seconds
from lightfabric.placement.cost.table import FULL, SELECTIVE, Cases, cases
from lightfabric.placement.plan import stage_layers
from lightfabric.placement.workload.transformer import Plan, rank_parameters

FLASH_FORWARD, FLASH_BACKWARD = 0.85, 0.72
"""Rate of flash attention against large matrix products: 230 and 195 Tflop/s on an A100 [Dao 2023, figures 4 and 5]."""
FORWARD_KERNELS, BACKWARD_KERNELS = 12, 20
"""Launches of a layer that are no matrix products."""
EXPERT_ROWS = 64
"""Tokens of an expert are padded to a multiple of this, as in MegaBlocks [Gale 2022, 5.1], where it is 128."""

Shapes = list[tuple[Any, Any, Any, Any]]
"""(rows, outputs, inputs, count) of the products of a part of a layer, ``[case]`` each."""

Passes = tuple[Seconds, Seconds, Seconds]
"""Forward; backward by inputs, which the stage before waits for; backward by weights, which nobody does."""


def attention_shapes(cases: Cases) -> Shapes:
    """Products of the attention block without its core; five if latent [DeepSeek-V2, 2.1], else two."""
    m, h, t = cases.tokens, cases.hidden, cases.tp
    if not np.any(cases.kv_rank):
        return [(m, cases.qkv_width // t, h, 1), (m, h, cases.heads * cases.head_width // t, 1)]
    latent = cases.kv_rank > 0
    heads, keys = cases.heads // t, cases.head_width + cases.rope_width
    values = np.where(latent, cases.value_width, cases.head_width)
    down = np.where(latent, cases.query_rank + cases.kv_rank + cases.rope_width, cases.qkv_width // t)
    return [
        (m, down, h, 1),
        (m, np.where(latent, heads * keys, 0), cases.query_rank, 1),
        (m, np.where(latent, heads * (cases.head_width + values), 0), cases.kv_rank, 1),
        (m, h, heads * values, 1),
    ]


def dense_shapes(cases: Cases, width: Any) -> Shapes:
    """Products of a feed-forward block of ``width``."""
    m, h, wide = cases.tokens, cases.hidden, width // cases.tp
    return [(m, (1 + cases.gated) * wide, h, 1), (m, h, wide, 1)]


def expert_shapes(cases: Cases) -> Shapes:
    """Products of the experts of the busiest rank, padded to whole cache lines, of those of all tokens, of the router."""
    local = np.maximum(cases.experts // cases.ep, 1)
    rows = np.ceil(cases.tokens * cases.routed_per_token / local / EXPERT_ROWS) * EXPERT_ROWS
    wide = cases.expert_ffn // cases.tp
    routed = [(rows, (1 + cases.gated) * wide, cases.hidden, local), (rows, cases.hidden, wide, local)]
    router = (cases.tokens, cases.experts, cases.hidden, 1)
    return [*routed, *dense_shapes(cases, cases.shared_experts * cases.expert_ffn), router]


def _products(cases: Cases, fitted: Calibration, shapes: Shapes) -> Passes:
    forward = sum(gemm_seconds(cases, fitted, m, n, k, count) for m, n, k, count in shapes)
    by_inputs = sum(gemm_seconds(cases, fitted, m, k, n, count) for m, n, k, count in shapes)
    by_weights = sum(gemm_seconds(cases, fitted, k, n, m, count) for m, n, k, count in shapes)
    return np.asarray(forward), np.asarray(by_inputs), np.asarray(by_weights)


def weights(shapes: Shapes) -> Any:
    """Parameters of the products on one rank."""
    return sum(n * k * count for _, n, k, count in shapes)


def _core(cases: Cases, fitted: Calibration) -> Passes:
    """Scores, softmax and weighted values, forward and backward: kernel by kernel, or flash, which skips the masked half."""
    heads, s, d = cases.micro_batch * cases.heads / cases.tp, cases.sequence // cases.cp, cases.head_width
    pairs = heads * s * cases.sequence
    half = 2 * pairs * (d + cases.rope_width / 2) / (cases.peak_flops * fitted.gemm_efficiency)
    flash = (half / FLASH_FORWARD + fitted.kernel_seconds, 2.5 * half / FLASH_BACKWARD + fitted.kernel_seconds)
    if np.all(cases.flash):
        return *flash, np.zeros(1)
    products = gemm_seconds(cases, fitted, s, cases.sequence, d, heads) + gemm_seconds(
        cases, fitted, s, d, cases.sequence, heads
    )
    accesses = (memory_seconds(cases, fitted, pairs * (count * cases.value_bytes + 1)) for count in (4, 6))
    plain = (scale * products + softmax for scale, softmax in zip((1, 2), accesses, strict=True))
    forward, backward = (np.where(cases.flash, fused, several) for fused, several in zip(flash, plain, strict=True))
    return forward, backward, np.zeros(1)


def _elementwise(cases: Cases, fitted: Calibration) -> Passes:
    """Two norms (read, write), two dropouts with residual sum (two reads, a write), the moving of heads, the activation."""
    whole = cases.tokens * cases.hidden / np.where(cases.sharded, cases.tp, 1)
    heads = cases.tokens * (cases.qkv_width + cases.heads * cases.head_width) / cases.tp
    active = cases.routed_per_token + cases.shared_experts
    width = cases.ffn + cases.sparse_share * (active * cases.expert_ffn - cases.ffn)
    wide = cases.tokens * width / cases.tp
    moved = cases.sparse_share * 4 * cases.routed_per_token * cases.tokens * cases.hidden / cases.tp
    forward = 10 * whole + 2 * heads + (2 + cases.gated) * wide + moved
    backward = 14 * whole + 2 * heads + (3 + 2 * cases.gated) * wide + moved
    first, second = (
        memory_seconds(cases, fitted, values * cases.value_bytes) + kernels * fitted.kernel_seconds
        for values, kernels in ((forward, FORWARD_KERNELS), (backward, BACKWARD_KERNELS))
    )
    return first, second, np.zeros(1)


def _feed_forward(cases: Cases, fitted: Calibration) -> Passes:
    """Dense and sparse layers in their proportion."""
    dense = _products(cases, fitted, dense_shapes(cases, cases.ffn))
    if not np.any(cases.experts):
        return dense
    sparse, share = _products(cases, fitted, expert_shapes(cases)), cases.sparse_share
    return tuple((1 - share) * a + share * b for a, b in zip(dense, sparse, strict=True))  # type: ignore[return-value]


def layer_weights(cases: Cases, layers: Any = 1, routed: Any = None) -> tuple[Any, Any]:
    """Weights on one rank of ``layers``, ``routed`` of them mixtures: those that all ranks of a replica's ep share, experts.

    Of a layer, the mean over all, if not said.
    """
    sparse, experts = cases.sparse_share * layers if routed is None else routed, expert_shapes(cases)
    dense = layers * weights(attention_shapes(cases)) + (layers - sparse) * weights(dense_shapes(cases, cases.ffn))
    return dense + sparse * weights(experts[2:]), sparse * weights(experts[:2])


def layer_seconds(cases: Cases, fitted: Calibration) -> Passes:
    """One layer and micro-batch; the backward pass by inputs has what it recomputes, that by weights the sum of gradients.

    The host launches a pass's kernels; no pass is faster than that.
    """
    core = _core(cases, fitted)
    parts = (
        _products(cases, fitted, attention_shapes(cases)),
        core,
        _feed_forward(cases, fitted),
        _elementwise(cases, fitted),
    )
    forward, by_inputs, by_weights = (sum(part[side] for part in parts) for side in range(3))
    by_weights = by_weights + memory_seconds(cases, fitted, 3 * cases.value_bytes * sum(layer_weights(cases)))
    launch = np.where(cases.tp > 1, fitted.collective_launch_seconds, 0.0)
    forward = np.maximum(forward, fitted.forward_launch_seconds + launch)
    by_inputs = np.maximum(by_inputs, fitted.backward_launch_seconds + launch - by_weights)
    selective = (cases.recompute == SELECTIVE) & ~cases.flash
    again = np.where(cases.recompute == FULL, forward, np.where(selective, core[0], 0.0))
    return forward, by_inputs + again, by_weights


def logit_seconds(cases: Cases, fitted: Calibration) -> tuple[Seconds, Seconds]:
    """Output layer and loss of a micro-batch, forward and backward."""
    shape = (cases.tokens, cases.vocabulary_shard, cases.hidden, 1)
    loss = memory_seconds(cases, fitted, 2 * fitted.loss_accesses * cases.tokens * cases.vocabulary_shard)
    forward, by_inputs, by_weights = _products(cases, fitted, [shape])
    return forward + loss, by_inputs + by_weights + loss


def lookup_seconds(cases: Cases, fitted: Calibration) -> Seconds:
    """Embedding of a micro-batch, sum with positions and dropout; as long backward."""
    return memory_seconds(cases, fitted, 5 * cases.tokens * cases.hidden * cases.value_bytes)


def adam_seconds(cases: Cases, fitted: Calibration, parameters: Any) -> Seconds:
    """An optimiser step on so many parameters of a rank."""
    return fitted.optimiser_seconds + memory_seconds(cases, fitted, fitted.optimiser_bytes * parameters)


@lru_cache(maxsize=4096)
def _stage_passes(accelerator: AcceleratorSpec, job: JobSpec, plan: Plan) -> tuple[float, ...]:
    """A layer forward and backward, output layer forward and backward, lookup."""
    one, fitted = cases(job, accelerator, [plan]), calibration()
    layer, logits = layer_seconds(one, fitted), logit_seconds(one, fitted)
    passes = (layer[0], layer[1] + layer[2], *logits, lookup_seconds(one, fitted))
    return tuple(float(seconds[0]) for seconds in passes)


def forward_seconds(accelerator: AcceleratorSpec, job: JobSpec, plan: Plan, stage: int, chunk: int = 0) -> float:
    """Computation of a forward pass of one micro-batch through a stage's chunk of layers, all of them if it has one."""
    forward, _, logits, _, lookup = _stage_passes(accelerator, job, plan)
    return forward * stage_layers(job.model, plan, stage) / plan.virtual_stages + _ends_seconds(
        plan, stage, chunk, logits, lookup
    )


def backward_seconds(accelerator: AcceleratorSpec, job: JobSpec, plan: Plan, stage: int, chunk: int = 0) -> float:
    """Computation of the backward pass, with what it recomputes."""
    _, backward, _, logits, lookup = _stage_passes(accelerator, job, plan)
    return backward * stage_layers(job.model, plan, stage) / plan.virtual_stages + _ends_seconds(
        plan, stage, chunk, logits, lookup
    )


def _ends_seconds(plan: Plan, stage: int, chunk: int, logits: float, lookup: float) -> float:
    first, last = (stage, chunk) == (0, 0), (stage, chunk) == (plan.pp - 1, plan.virtual_stages - 1)
    return logits * last + lookup * first


def optimiser_seconds(accelerator: AcceleratorSpec, job: JobSpec, plan: Plan, stage: int) -> float:
    """One Adam step on the parameters of a rank, or its share of them."""
    parameters = rank_parameters(job.model, plan, stage) / (plan.replicas if plan.zero else 1)
    return float(adam_seconds(cases(job, accelerator, [plan]), calibration(), parameters)[0])
