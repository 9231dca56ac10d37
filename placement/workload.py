"""A GPT-style dense transformer by its shape: parameters, flops, memory and bytes to communicate, all integers.

Training is Megatron's: tensor parallelism with sequence parallelism inside a stage, a 1F1B pipeline of stages, data
parallel replicas, mixed-precision Adam without sharding of its state.

Sources: D. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM" (SC 2021);
V. Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (2022).
"""

from dataclasses import dataclass
from typing import Literal

from lightfabric.model.spec import JobSpec, ModelSpec, Precision

Recompute = Literal["none", "selective", "full"]
"""What the backward pass computes again instead of keeping: nothing, the attention core, or whole layers."""


@dataclass(frozen=True)
class Plan:
    """How a job is cut: ``dp`` replicas of ``pp`` stages of ``tp`` ranks; ``micro_batch`` sequences at a time.

    Rank (d, p, t), counted from 0, is ``(d * pp + p) * tp + t``.
    """

    dp: int
    tp: int
    pp: int
    micro_batch: int
    recompute: Recompute = "none"

    @property
    def gpus(self) -> int:
        """GPUs that the plan needs, one per rank."""
        return self.dp * self.tp * self.pp

    @property
    def degrees(self) -> tuple[int, int, int]:
        """(dp, tp, pp)."""
        return self.dp, self.tp, self.pp


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU by class."""

    weights: int
    gradients: int
    optimiser: int
    activations: int

    @property
    def total(self) -> int:
        """All classes together."""
        return self.weights + self.gradients + self.optimiser + self.activations


def value_bytes(precision: Precision) -> int:
    """Bytes of a weight or an activation in memory and on the wire: fp8 holds for matrix products only."""
    return 4 if precision in ("fp32", "tf32") else 2


def state_bytes(precision: Precision) -> tuple[int, int, int]:
    """Bytes per parameter of weight, gradient and Adam state.

    Mixed precision 2 + 4 + 12 = 18 [Narayanan 2021]: gradients are summed in fp32, Adam keeps a master copy and two
    moments. Full precision 4 + 4 + 8 = 16.
    """
    return (4, 4, 8) if value_bytes(precision) == 4 else (2, 4, 12)


def micro_batches(job: JobSpec, plan: Plan) -> int:
    """Micro-batches that one replica works off per iteration."""
    return job.batch // (plan.dp * plan.micro_batch)


def stage_layers(model: ModelSpec, plan: Plan) -> int:
    """Transformer layers of one stage."""
    return model.layers // plan.pp


def layer_parameters(model: ModelSpec) -> int:
    """Weights, biases and the two norms of a layer: 12 h^2 + 13 h when ffn = 4 h."""
    h, f = model.hidden, model.ffn_width
    return 4 * h * h + 2 * h * f + 9 * h + f


def parameters(model: ModelSpec) -> int:
    """Parameters of the model; the output layer shares the word embedding [Narayanan 2021, eq. 2, and a final norm]."""
    embedding = (model.vocabulary + model.sequence) * model.hidden
    return model.layers * layer_parameters(model) + embedding + 2 * model.hidden


def vocabulary_shard(model: ModelSpec, tp: int) -> int:
    """Words per tensor-parallel rank, the vocabulary padded to a multiple of ``tp``."""
    return -(-model.vocabulary // tp)


def rank_parameters(model: ModelSpec, plan: Plan, stage: int) -> int:
    """Parameters on one rank of a stage: matrices cut ``tp`` ways, norms and output biases whole.

    With more than one stage both ends keep the shared word embedding.
    """
    h, first, last = model.hidden, stage == 0, stage == plan.pp - 1
    layer = (layer_parameters(model) - 6 * h) // plan.tp + 6 * h
    words = vocabulary_shard(model, plan.tp) * h * (first or last)
    return stage_layers(model, plan) * layer + words + first * model.sequence * h + last * 2 * h


def layer_flops(model: ModelSpec, sequences: int) -> int:
    """Forward flops of a layer: 24 b s h^2 + 4 b s^2 h when ffn = 4 h [Narayanan 2021, appendix]."""
    b, s, h = sequences, model.sequence, model.hidden
    return b * s * h * (8 * h + 4 * model.ffn_width) + attention_flops(model, sequences)


def attention_flops(model: ModelSpec, sequences: int) -> int:
    """Forward flops of the attention core, scores and weighted values: 4 b s^2 h."""
    return 4 * sequences * model.sequence**2 * model.hidden


def logit_flops(model: ModelSpec, sequences: int) -> int:
    """Forward flops of the output layer: 2 b s h V."""
    return 2 * sequences * model.sequence * model.hidden * model.vocabulary


def iteration_flops(job: JobSpec, recompute: Recompute) -> int:
    """Flops of an iteration on all GPUs; backward costs twice forward [Narayanan 2021, eq. 3 for "full"]."""
    model, batch = job.model, job.batch
    again = {"none": 0, "selective": attention_flops(model, batch), "full": layer_flops(model, batch)}[recompute]
    return model.layers * (3 * layer_flops(model, batch) + again) + 3 * logit_flops(model, batch)


def activation_bytes(job: JobSpec, plan: Plan, recompute: Recompute) -> int:
    """Bytes that a rank keeps per layer and micro-batch for the backward pass [Korthikanti 2022, table 2].

    With tensor and sequence parallelism and 2-byte values: none s b h (34 + 5 a s / h) / t, selective 34 s b h / t;
    full 2 s b h / t, because sequence parallelism cuts a layer's input too. Dropout masks take a byte per value.
    """
    model, e = job.model, value_bytes(job.precision)
    tokens = plan.micro_batch * model.sequence
    if recompute == "full":
        return tokens * model.hidden * e // plan.tp
    outside = tokens * ((8 * e + 2) * model.hidden + 2 * e * model.ffn_width)
    core = tokens * model.sequence * model.heads * (2 * e + 1) if recompute == "none" else 0
    return (outside + core) // plan.tp


def rank_activation_bytes(job: JobSpec, plan: Plan, stage: int) -> int:
    """Activations on one rank at the peak of 1F1B: micro-batches in flight, the layer being recomputed, the logits.

    The output layer keeps 4 s b (h + V) / t with fp32 logits [Korthikanti 2022, section 4.3].
    """
    in_flight = min(micro_batches(job, plan), plan.pp - stage)
    kept = activation_bytes(job, plan, plan.recompute) * stage_layers(job.model, plan) * in_flight
    recomputed = activation_bytes(job, plan, "none") - activation_bytes(job, plan, plan.recompute)
    tokens = plan.micro_batch * job.model.sequence
    logits = 4 * tokens * (job.model.hidden // plan.tp + vocabulary_shard(job.model, plan.tp))
    return kept + recomputed + logits * (stage == plan.pp - 1)


def stage_memory(job: JobSpec, plan: Plan, stage: int) -> Memory:
    """Memory on each rank of a stage; nothing is set aside for the run-time system or fragmentation."""
    count = rank_parameters(job.model, plan, stage)
    weights, gradients, optimiser = (count * each for each in state_bytes(job.precision))
    return Memory(weights, gradients, optimiser, rank_activation_bytes(job, plan, stage))


def peak_memory(job: JobSpec, plan: Plan) -> Memory:
    """Memory of the fullest GPU: on the first stage (most in flight) or the last (logits)."""
    return max((stage_memory(job, plan, stage) for stage in {0, plan.pp - 1}), key=lambda memory: memory.total)


def forward_reduces(model: ModelSpec, plan: Plan) -> int:
    """Tensor-parallel all-reduces of a stage per forward pass: two per layer [Shoeybi 2019], none if tp is 1.

    A reduce-scatter and an all-gather of sequence parallelism count as one all-reduce: the same bytes. Those of the
    embedding and the loss, one per iteration end, are left out.
    """
    return 2 * stage_layers(model, plan) * (plan.tp > 1)


def backward_reduces(model: ModelSpec, plan: Plan) -> int:
    """Tensor-parallel all-reduces of a stage per backward pass, with those of a full recomputation."""
    return forward_reduces(model, plan) * (2 if plan.recompute == "full" else 1)


def reduce_bytes(job: JobSpec, plan: Plan) -> int:
    """Bytes per member of one tensor-parallel all-reduce: the activations of a micro-batch, s b h values."""
    return plan.micro_batch * job.model.sequence * job.model.hidden * value_bytes(job.precision)


def transfer_bytes(job: JobSpec, plan: Plan) -> int:
    """Bytes from a rank to its peer in the next or previous stage: its 1/tp of the activations."""
    return reduce_bytes(job, plan) // plan.tp


def gradient_bytes(job: JobSpec, plan: Plan, stage: int) -> int:
    """Bytes per member of the data-parallel all-reduce of a stage.

    The sum over the two copies of the word embedding, at the first and the last stage, is left out.
    """
    return rank_parameters(job.model, plan, stage) * state_bytes(job.precision)[1] * (plan.dp > 1)


def ring_bytes(total: int, members: int) -> int:
    """Bytes on each link of a ring all-reduce of ``total`` bytes per member: 2 (n - 1) / n, rounded."""
    return round(2 * (members - 1) * total / members)
