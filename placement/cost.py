"""Time of computation by a pure roofline: each operation takes the longer of flops / peak and bytes / memory bandwidth.

No efficiency constants: the times are lower bounds for kernels that are fused no further than said here. Matrix products
read both operands and write the result once; norms, GeLU, softmax, dropout and residual sums are bound by memory.
"""

from functools import lru_cache

from lightfabric.model.spec import AcceleratorSpec, JobSpec
from lightfabric.placement.workload import Plan, rank_parameters, stage_layers, value_bytes, vocabulary_shard

_ACCESSES_OF_ADAM = 6  # master copy and two moments, each read and written


def _memory_seconds(accelerator: AcceleratorSpec, size_bytes: float) -> float:
    return size_bytes / (accelerator.memory_gbytes_per_s * 1e9)


def gemm_seconds(accelerator: AcceleratorSpec, job: JobSpec, m: int, k: int, n: int, count: int = 1) -> float:
    """Seconds of ``count`` products of an (m, k) and a (k, n) matrix."""
    flops = 2 * m * k * n * count
    size_bytes = (m * k + k * n + m * n) * count * value_bytes(job.precision)
    return max(flops / accelerator.peak_flops(job.precision), _memory_seconds(accelerator, size_bytes))


def _projection_seconds(accelerator: AcceleratorSpec, job: JobSpec, tp: int, micro_batch: int) -> float:
    model, tokens = job.model, micro_batch * job.model.sequence
    h, f = model.hidden, model.ffn_width
    shapes = ((h, 3 * h // tp), (h // tp, h), (h, f // tp), (f // tp, h))
    return sum(gemm_seconds(accelerator, job, tokens, k, n) for k, n in shapes)


def _attention_gemm_seconds(accelerator: AcceleratorSpec, job: JobSpec, tp: int, micro_batch: int) -> float:
    model, heads = job.model, micro_batch * job.model.heads // tp
    s, width = model.sequence, model.hidden // model.heads
    scores = gemm_seconds(accelerator, job, s, width, s, heads)
    return scores + gemm_seconds(accelerator, job, s, s, width, heads)


def _softmax_seconds(accelerator: AcceleratorSpec, job: JobSpec, tp: int, micro_batch: int, accesses: int) -> float:
    model = job.model
    scores = micro_batch * model.heads // tp * model.sequence**2
    return _memory_seconds(accelerator, scores * (accesses * value_bytes(job.precision) + 1))


def _elementwise_seconds(
    accelerator: AcceleratorSpec, job: JobSpec, tp: int, micro_batch: int, accesses: int, gelu_accesses: int
) -> float:
    model, tokens = job.model, micro_batch * job.model.sequence
    values = tokens * (accesses * model.hidden + gelu_accesses * model.ffn_width) // tp
    return _memory_seconds(accelerator, values * value_bytes(job.precision) + 2 * tokens * model.hidden // tp)


@lru_cache(maxsize=4096)
def attention_forward_seconds(accelerator: AcceleratorSpec, job: JobSpec, tp: int, micro_batch: int) -> float:
    """Forward of one layer's attention core on one rank: two products, softmax and dropout (each a read and a write)."""
    softmax = _softmax_seconds(accelerator, job, tp, micro_batch, accesses=4)
    return _attention_gemm_seconds(accelerator, job, tp, micro_batch) + softmax


@lru_cache(maxsize=4096)
def layer_forward_seconds(accelerator: AcceleratorSpec, job: JobSpec, tp: int, micro_batch: int) -> float:
    """Forward of one layer and micro-batch on one of ``tp`` ranks.

    Two norms (read, write) and two dropouts with residual sum (two reads, a write) pass over s b h / t values.
    """
    projections = _projection_seconds(accelerator, job, tp, micro_batch)
    elementwise = _elementwise_seconds(accelerator, job, tp, micro_batch, accesses=10, gelu_accesses=2)
    return projections + elementwise + attention_forward_seconds(accelerator, job, tp, micro_batch)


@lru_cache(maxsize=4096)
def layer_backward_seconds(accelerator: AcceleratorSpec, job: JobSpec, tp: int, micro_batch: int) -> float:
    """Backward of one layer: two products per forward product; every other operation reads one more operand."""
    products = _projection_seconds(accelerator, job, tp, micro_batch)
    products += _attention_gemm_seconds(accelerator, job, tp, micro_batch)
    softmax = _softmax_seconds(accelerator, job, tp, micro_batch, accesses=6)
    return 2 * products + softmax + _elementwise_seconds(accelerator, job, tp, micro_batch, accesses=14, gelu_accesses=3)


def _logit_forward_seconds(accelerator: AcceleratorSpec, job: JobSpec, plan: Plan) -> float:
    """Output layer and the cross-entropy's read and write of fp32 logits."""
    tokens, words = plan.micro_batch * job.model.sequence, vocabulary_shard(job.model, plan.tp)
    product = gemm_seconds(accelerator, job, tokens, job.model.hidden, words)
    return product + _memory_seconds(accelerator, 8 * tokens * words)


def _recompute_seconds(accelerator: AcceleratorSpec, job: JobSpec, plan: Plan) -> float:
    again = {"none": None, "selective": attention_forward_seconds, "full": layer_forward_seconds}[plan.recompute]
    return again(accelerator, job, plan.tp, plan.micro_batch) if again else 0.0


def forward_seconds(accelerator: AcceleratorSpec, job: JobSpec, plan: Plan, stage: int) -> float:
    """Computation of a stage's forward pass of one micro-batch; the lookup of words is left out."""
    layers = stage_layers(job.model, plan) * layer_forward_seconds(accelerator, job, plan.tp, plan.micro_batch)
    return layers + (_logit_forward_seconds(accelerator, job, plan) if stage == plan.pp - 1 else 0.0)


def backward_seconds(accelerator: AcceleratorSpec, job: JobSpec, plan: Plan, stage: int) -> float:
    """Computation of a stage's backward pass of one micro-batch, with what it recomputes."""
    layer = layer_backward_seconds(accelerator, job, plan.tp, plan.micro_batch) + _recompute_seconds(accelerator, job, plan)
    logits = 2 * _logit_forward_seconds(accelerator, job, plan) if stage == plan.pp - 1 else 0.0
    return stage_layers(job.model, plan) * layer + logits


def optimiser_seconds(accelerator: AcceleratorSpec, job: JobSpec, plan: Plan, stage: int) -> float:
    """One Adam step: reads the fp32 gradient, reads and writes its own state, writes the weight."""
    weight = value_bytes(job.precision)
    per_parameter = 4 + 4 * _ACCESSES_OF_ADAM + (weight if weight < 4 else 0)
    return _memory_seconds(accelerator, rank_parameters(job.model, plan, stage) * per_parameter)
