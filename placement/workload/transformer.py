"""A transformer by its shape: parameters, flops, memory and bytes to communicate, all integers.

Training is Megatron's: tensor parallelism with sequence parallelism inside a stage, a 1F1B pipeline of stages, data
parallel replicas, mixed-precision Adam. Tokens go to experts evenly, or as skewed as the job says.

Sources: D. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM" (SC 2021);
V. Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (2022); S. Rajbhandari et al.,
"ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (SC 2020).
"""

from collections.abc import Callable
from dataclasses import dataclass

from lightfabric.model.spec import JobSpec, ModelSpec, Precision
from lightfabric.placement.plan import (
    Plan,
    Recompute,
    micro_batches,
    rank_tokens,
    routed_layers,
    stage_layers,
)
from lightfabric.placement.workload.parameter import expert_parameters, kept_values, layer_parameters, token_weights
from lightfabric.placement.workload.routing import expert_loads


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


def _over_layers(of_layer: Callable[[int], int], layers: int, routed: int) -> int:
    """Sum over ``layers`` layers, ``routed`` of which are mixtures of experts: the last layer is, the first may be not."""
    dense = layers - routed
    return (routed * of_layer(-1) if routed else 0) + (dense * of_layer(0) if dense else 0)


def _over_model(model: ModelSpec, of_layer: Callable[[int], int]) -> int:
    routed = model.layers - model.dense_layers if model.experts else 0
    return _over_layers(of_layer, model.layers, routed)


def _embedding_parameters(model: ModelSpec) -> int:
    words = model.vocabulary * model.hidden
    return words if model.tied else 2 * words


def _position_parameters(model: ModelSpec) -> int:
    return model.sequence * model.hidden if model.positions == "learned" else 0


def parameters(model: ModelSpec) -> int:
    """Parameters of the model [GPT: Narayanan 2021, eq. 2, and a final norm].

    Examples:
        >>> from lightfabric.placement.workload.preset import MODELS
        >>> parameters(MODELS["llama3-8b"])
        8030261248

    """
    layers = _over_model(model, lambda layer: layer_parameters(model, layer))
    return layers + _embedding_parameters(model) + _position_parameters(model) + model.norm_size


def active_parameters(model: ModelSpec) -> int:
    """Parameters that a token passes: all but the experts that it does not go to. Word embeddings count whole."""
    idle = (model.experts - model.experts_per_token) * expert_parameters(model)
    return parameters(model) - _over_model(model, lambda layer: idle * model.is_routed(layer))


def vocabulary_shard(model: ModelSpec, tp: int) -> int:
    """Words per tensor-parallel rank, the vocabulary padded to a multiple of ``tp``."""
    return -(-model.vocabulary // tp)


def rank_parameters(model: ModelSpec, plan: Plan, stage: int) -> int:
    """Parameters on one rank of a stage: matrices cut ``tp`` ways, experts ``ep`` ways too, norms and output biases whole.

    With more than one stage both ends keep a word embedding, shared or not.
    """
    first, last = stage == 0, stage == plan.pp - 1
    layers = _over_layers(
        lambda layer: layer_parameters(model, layer, plan.tp, plan.ep),
        stage_layers(model, plan, stage),
        routed_layers(model, plan, stage),
    )
    embeddings = (first or last) if model.tied else first + last
    words = vocabulary_shard(model, plan.tp) * model.hidden * embeddings
    return layers + words + first * _position_parameters(model) + last * model.norm_size


def rank_expert_parameters(model: ModelSpec, plan: Plan, stage: int) -> int:
    """Those of ``rank_parameters`` that other ranks do not hold because of ``ep``: experts, if ep is above 1."""
    held = -(-model.experts // plan.ep) if plan.ep > 1 else 0
    return routed_layers(model, plan, stage) * held * expert_parameters(model, plan.tp)


def layer_flops(model: ModelSpec, sequences: int, layer: int = -1) -> int:
    """Forward flops of a layer: 24 b s h^2 + 4 b s^2 h of a GPT when ffn = 4 h [Narayanan 2021, appendix]."""
    return 2 * sequences * model.sequence * token_weights(model, layer) + attention_flops(model, sequences)


def attention_flops(model: ModelSpec, sequences: int) -> int:
    """Forward flops of the attention core, scores and weighted values, masked or not: 4 b s^2 h of a GPT."""
    return 2 * sequences * model.sequence**2 * (model.query_width + model.attention_width)


def logit_flops(model: ModelSpec, sequences: int) -> int:
    """Forward flops of the output layer: 2 b s h V."""
    return 2 * sequences * model.sequence * model.hidden * model.vocabulary


def iteration_flops(job: JobSpec, recompute: Recompute) -> int:
    """Flops of an iteration on all GPUs; backward costs twice forward [Narayanan 2021, eq. 3 for "full"]."""
    model, batch = job.model, job.batch
    layers = _over_model(model, lambda layer: layer_flops(model, batch, layer))
    again = {"none": 0, "selective": model.layers * attention_flops(model, batch), "full": layers}[recompute]
    return 3 * layers + again + 3 * logit_flops(model, batch)


def busiest_load(job: JobSpec, ep: int) -> float:
    """Tokens for the experts of the busiest of ``ep`` ranks over those of even routing."""
    if not job.expert_skew or ep == 1:
        return 1.0
    return max(expert_loads(job.model.experts, job.expert_skew, ep))


def activation_bytes(job: JobSpec, plan: Plan, recompute: Recompute, layer: int = -1) -> int:
    """Bytes that a rank keeps per layer and micro-batch for the backward pass [Korthikanti 2022, table 2].

    With tensor and sequence parallelism and 2-byte values of a GPT: none s b h (34 + 5 a s / h) / t, selective
    34 s b h / t; full 2 s b h / t, because sequence parallelism cuts a layer's input too. Dropout keeps a second copy of
    the attention core's probabilities and masks of a byte per value. "Selective" is also what fused attention keeps.
    """
    model, e, tokens = job.model, value_bytes(job.precision), rank_tokens(job, plan)
    if recompute == "full":
        return tokens * model.hidden * e // plan.tp
    outside = (
        tokens * e * kept_values(model, plan.tp, layer, busiest_load(job, plan.ep))
        + tokens * 2 * model.hidden * model.dropout // plan.tp
    )
    per_score = 2 * e + 1 if model.dropout else e
    core = tokens * model.sequence * model.heads * per_score if recompute == "none" else 0
    return outside + core // plan.tp


def _stage_activation_bytes(job: JobSpec, plan: Plan, stage: int) -> int:
    """Of one micro-batch in all layers of the stage."""
    layers, routed = stage_layers(job.model, plan, stage), routed_layers(job.model, plan, stage)
    return _over_layers(lambda layer: activation_bytes(job, plan, plan.recompute, layer), layers, routed)


def chunks_in_flight(job: JobSpec, plan: Plan, stage: int) -> int:
    """Chunks of layers whose activations a stage holds at the peak of 1F1B: pp - stage, more if interleaved.

    Interleaved, stage 0 warms up 2 (pp - 1) + (virtual_stages - 1) pp of them [Narayanan 2021, section 2.2], so it holds
    1 + (pp - 1) / (pp virtual_stages) times the activations of its layers [Korthikanti 2022, section 4.2.3].
    """
    behind, interleaved = plan.pp - stage - 1, plan.virtual_stages > 1
    warm_up = 2 * behind + (plan.virtual_stages - 1) * plan.pp if interleaved else behind
    return min(micro_batches(job, plan) * plan.virtual_stages, warm_up + 1)


def _recomputed_bytes(job: JobSpec, plan: Plan) -> int:
    """What the layer that is computed again has more than it kept: of the larger of a dense and a routed layer."""
    layers = (0, -1) if job.model.dense_layers else (-1,)
    kept = plan.recompute
    return max(activation_bytes(job, plan, "none", at) - activation_bytes(job, plan, kept, at) for at in layers)


def rank_activation_bytes(job: JobSpec, plan: Plan, stage: int) -> int:
    """Activations on one rank at the peak of 1F1B: micro-batches in flight, the layer being recomputed, the logits.

    The output layer keeps 4 s b (h + V) / t with fp32 logits [Korthikanti 2022, section 4.3].
    """
    in_flight = chunks_in_flight(job, plan, stage)
    kept = -(-_stage_activation_bytes(job, plan, stage) * in_flight // plan.virtual_stages)
    recomputed = _recomputed_bytes(job, plan) if plan.recompute != "none" else 0
    shards = job.model.hidden // plan.tp + vocabulary_shard(job.model, plan.tp)
    return kept + recomputed + 4 * rank_tokens(job, plan) * shards * (stage == plan.pp - 1)


def stage_memory(job: JobSpec, plan: Plan, stage: int) -> Memory:
    """Memory on each rank of a stage; nothing is set aside for the run-time system or fragmentation.

    ZeRO cuts the state of experts among those ranks only that hold the same experts. The weights that its stage 3
    gathers, a layer at a time, are left out.
    """
    experts = rank_expert_parameters(job.model, plan, stage)
    others = rank_parameters(job.model, plan, stage) - experts
    cut = -(-others // plan.replicas) - (-experts * plan.ep // plan.replicas)
    whole = others + experts
    weights, gradients, optimiser = (
        each * (cut if plan.zero >= from_stage else whole)
        for each, from_stage in zip(state_bytes(job.precision), (3, 2, 1), strict=True)
    )
    return Memory(weights, gradients, optimiser, rank_activation_bytes(job, plan, stage))


def peak_memory(job: JobSpec, plan: Plan) -> Memory:
    """Memory of the fullest GPU: on the first stage (most in flight), the last (logits), or between, where layers differ."""
    stages = range(plan.pp) if job.model.dense_layers or plan.first_layers else {0, plan.pp - 1}
    return max((stage_memory(job, plan, stage) for stage in stages), key=lambda memory: memory.total)


def forward_reduces(model: ModelSpec, plan: Plan, stage: int = 0) -> int:
    """Tensor-parallel all-reduces of a stage per forward pass: two per layer [Shoeybi 2019], none if tp is 1.

    A reduce-scatter and an all-gather of sequence parallelism count as one all-reduce: the same bytes. Those of the
    embedding and the loss, one per iteration end, are left out.
    """
    return 2 * stage_layers(model, plan, stage) * (plan.tp > 1)


def backward_reduces(model: ModelSpec, plan: Plan, stage: int = 0) -> int:
    """Tensor-parallel all-reduces of a stage per backward pass, with those of a full recomputation."""
    return forward_reduces(model, plan, stage) * (2 if plan.recompute == "full" else 1)


def reduce_bytes(job: JobSpec, plan: Plan) -> int:
    """Bytes per member of one tensor-parallel all-reduce: the activations of a micro-batch, s b h / cp values."""
    return rank_tokens(job, plan) * job.model.hidden * value_bytes(job.precision)


def transfer_bytes(job: JobSpec, plan: Plan) -> int:
    """Bytes from a rank to its peer in the next or previous stage: its 1/tp of the activations."""
    return reduce_bytes(job, plan) // plan.tp


def gradient_bytes(job: JobSpec, plan: Plan, stage: int) -> int:
    """Bytes per member of the data-parallel all-reduce of a stage, among dp x cp ranks; experts cut by ``ep`` are not in it.

    With ZeRO gradients are scattered and weights gathered: as many bytes as an all-reduce of the mean of both. The sum over
    the two copies of the word embedding, at the first and the last stage, is left out.
    """
    count = rank_parameters(job.model, plan, stage) - rank_expert_parameters(job.model, plan, stage)
    weight, gradient, _ = state_bytes(job.precision)
    return count * ((gradient + weight) // 2 if plan.zero else gradient) * (plan.replicas > 1)


def expert_gradient_bytes(job: JobSpec, plan: Plan, stage: int) -> int:
    """Bytes per member of the all-reduce of experts cut by ``ep``, among dp x cp / ep ranks."""
    weight, gradient, _ = state_bytes(job.precision)
    each = (gradient + weight) // 2 if plan.zero else gradient
    return rank_expert_parameters(job.model, plan, stage) * each * (plan.replicas > plan.ep)


def exchange_bytes(job: JobSpec, plan: Plan) -> int:
    """Bytes that a rank sends to each of the ``ep`` ranks, itself among them, in one all-to-all of a mixture of experts.

    Two all-to-alls per routed layer forward, to the experts and back, and two backward; 1/tp of the tokens from each rank.
    """
    model = job.model
    values = rank_tokens(job, plan) * model.experts_per_token * model.hidden
    return values * value_bytes(job.precision) // (plan.tp * plan.ep) * (plan.ep > 1)


def forward_exchanges(model: ModelSpec, plan: Plan, stage: int) -> int:
    """All-to-alls of a stage per forward pass: tokens to their experts and back in each routed layer; none if ep is 1."""
    return 2 * (routed_layers(model, plan, stage) // plan.virtual_stages) * plan.virtual_stages * (plan.ep > 1)


def backward_exchanges(model: ModelSpec, plan: Plan, stage: int) -> int:
    """All-to-alls of a stage per backward pass, with those of a full recomputation."""
    return forward_exchanges(model, plan, stage) * (2 if plan.recompute == "full" else 1)


def ring_bytes(total: int, members: int) -> int:
    """Bytes on each link of a ring all-reduce of ``total`` bytes per member: 2 (n - 1) / n, rounded."""
    return round(2 * (members - 1) * total / members)
