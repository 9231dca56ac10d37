"""Memory of a transformer's ranks by class, of one plan or of all at once, by formulas over columns.

Sources: V. Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (2022); S. Rajbhandari et
al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (SC 2020).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lightfabric.model.spec import AcceleratorSpec
from lightfabric.placement.workload.case import DUALPIPE, FULL, GPIPE, NONE, Cases, where
from lightfabric.placement.workload.parameter import kv_values, rank_parameters


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU by class, numbers or columns; what the run-time system takes is ``memory_reserve_share``."""

    weights: Any
    gradients: Any
    optimiser: Any
    activations: Any

    @property
    def total(self) -> Any:
        """What all classes take together."""
        return self.weights + self.gradients + self.optimiser + self.activations

    def at(self, index: Any = ()) -> "Memory":
        """Whole bytes of one case."""
        shape = np.shape(self.total)
        return Memory(*(int(np.broadcast_to(column, shape)[index]) for column in vars(self).values()))


class DoesNotFit(ValueError):  # noqa: N818
    """No plan fits: says what is short by how much, and ``fits_gpus``, the least power of two that would do, or None."""

    def __init__(self, text: str, fits_gpus: int | None) -> None:
        super().__init__(text)
        self.fits_gpus = fits_gpus


def memory_bytes(accelerator: AcceleratorSpec) -> int:
    """What the memory of the accelerator has for a job."""
    return int(accelerator.memory_gib * (1 - accelerator.memory_reserve_share) * (1 << 30))


def shortage(accelerator: AcceleratorSpec, gpus: int, needed_bytes: int) -> str:
    """Say in words by how much memory is short."""
    gib, room_bytes = 1 << 30, memory_bytes(accelerator)
    return (
        f"memory on {gpus} GPUs is short by {(needed_bytes - room_bytes) / gib:.1f} GiB per GPU: "
        f"the job needs {needed_bytes / gib:.1f}, {accelerator.name} has {room_bytes / gib:.1f} for it"
    )


def peak_bytes(c: Cases) -> Any:
    """Memory of the fullest GPU, all classes together."""
    return np.maximum.reduce(np.broadcast_arrays(*(stage_memory(c, stage).total for stage in c.fullest_stages())))


def peak_memory(c: Cases) -> Memory:
    """Memory of the fullest GPU, on the stage that is fullest in all."""
    found = [stage_memory(c, stage) for stage in c.fullest_stages()]
    # Classes are those of one stage: the most of each class over all stages is what no GPU holds.
    fullest = np.argmax(np.stack(np.broadcast_arrays(*(memory.total for memory in found))), axis=0)
    columns = zip(*(vars(memory).values() for memory in found), strict=True)
    return Memory(*(np.choose(fullest, np.broadcast_arrays(*column)) for column in columns))


def stage_memory(c: Cases, stage: Any) -> Memory:
    """Memory on each rank of a stage.

    ZeRO 1, 2 and 3 cut optimiser, gradients and weights by the replicas, the state of experts among those ranks only that
    hold the same ones. The weights that its stage 3 gathers, a layer at a time, are left out.
    """
    shared, experts = rank_parameters(c, stage)
    whole, part = shared + experts, _part(c, shared, c.sharing) + _part(c, experts, c.expert_replicas)
    # ZeRO cuts first what is needed least often: the optimiser's state from stage 1 on, gradients from 2, weights from 3.
    per_parameter = (c.value_bytes, 3), (c.gradient_bytes, 2), (c.optimiser_bytes, 1)
    weights, gradients, optimiser = (each * where(c.zero >= from_stage, part, whole) for each, from_stage in per_parameter)
    # Both copies of a stage share the state of one optimiser.
    copies = c.stage_copies
    return Memory(weights * copies, gradients * copies, optimiser, stage_activation_bytes(c, stage))


def _part(c: Cases, amount: Any, ways: Any) -> Any:
    """One of so many parts; what a rank holds is whole."""
    return -(-amount // ways) if c.exact else amount / ways


def _floor(c: Cases, amount: Any, ways: Any) -> Any:
    return amount // ways if c.exact else amount / ways


def chunks_in_flight(c: Cases, stage: Any) -> Any:
    """Chunks of layers whose activations a stage holds at the peak of 1F1B: pp - stage, more if interleaved; all of GPipe.

    Of DualPipe's two stages on a GPU it is pp + 1 in all [DeepSeek-V3, table 2], of stages that are alike.
    Interleaved, stage 0 warms up 2 (pp - 1) + (virtual_stages - 1) pp of them [Narayanan 2021, section 2.2], so it holds
    1 + (pp - 1) / (pp virtual_stages) times the activations of its layers [Korthikanti 2022, section 4.2.3].
    """
    behind, every = c.pp - stage - 1, c.micro_batches * c.virtual_stages
    warm_up = where(c.virtual_stages > 1, 2 * behind + (c.virtual_stages - 1) * c.pp, behind)
    if not c.exact:
        warm_up = where(behind > 0, warm_up, 2 * (c.virtual_stages - 1))
    warm_up = where(c.paired, 2 * behind + (c.virtual_stages - 1) * c.pp + 1, warm_up)
    held = where((c.schedule == DUALPIPE) & (c.pp > 1), c.pp + 1, warm_up + 1)
    return where(c.schedule == GPIPE, every, np.minimum(every, held))


def stage_activation_bytes(c: Cases, stage: Any) -> Any:
    """Activations on one rank at the peak: micro-batches in flight, the layer that is computed again, the logits.

    The output layer keeps 4 s b (h + V) / t with fp32 logits [Korthikanti 2022, section 4.3].
    """
    layers, routed = c.stage_layers(stage), c.routed_layers(stage)
    kept, again = layer_activation_bytes(c)
    stored = (layers - routed) * kept
    if np.any(c.experts):
        kept, of_routed = layer_activation_bytes(c, routed=True)
        again = where(c.experts > 0, where(c.dense_layers > 0, np.maximum(again, of_routed), of_routed), again)
        stored = stored + routed * kept
    shards = c.hidden // c.tp + c.vocabulary_shard
    stored = _part(c, stored * chunks_in_flight(c, stage), c.virtual_stages)
    return stored + again + 4 * c.tokens * shards * (stage == c.pp - 1)


def _between(c: Cases, routed: bool) -> Any:
    """Values of a token in a feed-forward block.

    What is between the matrices; of experts also their inputs, the outputs that the router weighs, and its probabilities.
    """
    if not routed:
        return c.matrices * c.ffn_width
    between = c.matrices * c.expert_width
    if not c.exact:
        return (c.routed_per_token + c.shared_experts) * between
    experts = np.ceil(c.routed_per_token * (2 * c.hidden + between)).astype(np.int64)
    return c.experts + experts + c.shared_experts * between


def layer_activation_bytes(c: Cases, routed: bool = False) -> tuple[Any, Any]:
    """Bytes of a layer and micro-batch that a rank keeps for the backward pass, and that it has more when in the layer.

    Kept are the inputs of norms and products [Korthikanti 2022, section 4.1, table 2]: with GPT's shapes, sequence
    parallelism and 2-byte values s b h (34 + 5 a s / h) / t, selective 34 s b h / t, full 2 s b h / t. Dropout keeps a
    second copy of the attention core's probabilities and masks of a byte per value. "Selective" is also what fused attention
    keeps. A ``routed`` layer is a mixture of experts.
    """
    e, t, shard = c.value_bytes, c.tp, where(c.sharded, c.tp, 1)
    dropout, scores = (c.dropout, True) if c.exact else (True, np.logical_not(c.flash))
    whole = np.logical_not(c.lean)
    heads = whole * c.heads * (c.key_width + c.value_size) + 2 * (c.query_rank + c.kv_rank)
    inputs, inner = (2 + 2 * whole) * c.hidden, heads + _between(c, routed)
    cut = where(c.sharded, _floor(c, inputs + inner, t), inputs + _floor(c, inner, t))
    outside = c.tokens * e * (cut + kv_values(c)) + c.tokens * 2 * c.hidden * dropout // shard
    core = scores * (c.tokens * c.sequence * c.heads * (e + dropout * (e + 1)) // t)
    partly = outside + where(c.recompute == NONE, core, 0)
    kept = where(c.recompute == FULL, c.tokens * c.hidden * e // shard, partly)
    return kept, np.maximum(outside + core - kept, 0)
