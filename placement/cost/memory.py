"""Memory of the fullest rank by class, for all configurations at once [Korthikanti 2022, section 4; Rajbhandari 2020]."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from lightfabric.placement.cost.step import stage_parameters
from lightfabric.placement.cost.table import FULL, GPIPE, NONE, Cases


@dataclass(frozen=True)
class Memories:
    """Bytes on a rank, ``[case]``; ``buffers`` are what the layer at work needs, and on the last stage the logits."""

    weights: Any
    gradients: Any
    optimiser: Any
    activations: Any
    buffers: Any

    @property
    def total(self) -> Any:
        """All classes together; nothing is set aside for the run-time system or fragmentation."""
        return sum(getattr(self, entry.name) for entry in fields(self))


def memories(cases: Cases, gradient_bytes: Any) -> Memories:
    """Memory of the fullest stage.

    That is the first, which has most micro-batches in flight, the second, the next with more layers than that, or the last
    with logits. ``gradient_bytes`` are those of a parameter; ZeRO 1, 2 and 3 cut optimiser, gradients and weights by dp.
    """
    kept, working = layer_activation_bytes(cases)
    logits = 4 * cases.tokens * (cases.vocabulary_shard + cases.hidden / cases.tp)
    own = (np.where(cases.pp == 1, logits, 0), 0, 0, logits)
    stages = [
        _memories(cases, gradient_bytes, parameters, kept * chunks, np.maximum(working - kept, 0) + output)
        for parameters, chunks, output in zip(stage_parameters(cases), _layers_in_flight(cases), own, strict=True)
    ]
    fullest = np.argmax(np.stack(np.broadcast_arrays(*(stage.total for stage in stages))), axis=0)
    names = [entry.name for entry in fields(Memories)]
    columns = {name: np.broadcast_arrays(*(getattr(stage, name) for stage in stages)) for name in names}
    return Memories(**{name: np.choose(fullest, column) for name, column in columns.items()})


def _layers_in_flight(cases: Cases) -> tuple[Any, Any, Any, Any]:
    """Layers of the stages of ``stage_parameters``, times the micro-batches that each holds at most."""
    m, p, v = cases.micro_batches, cases.pp, cases.virtual_stages
    every = cases.schedule == GPIPE
    first, fullest, last = cases.layers_at
    second, place = cases.second_stage
    in_flight = np.where(every, m, np.where(v > 1, p + (p - 1) / v, p))
    return (
        first * np.minimum(m, in_flight),
        second * np.minimum(m, np.where(every, m, in_flight - 1)),
        fullest * np.minimum(m, np.where(every, m, in_flight - place)),
        last * np.minimum(m, np.where(every, m, 2 - 1 / v)),
    )


def _memories(cases: Cases, gradient_bytes: Any, parameters: tuple[Any, Any], activations: Any, buffers: Any) -> Memories:
    dense, experts = parameters
    replicas, sparse_replicas = cases.dp * cases.cp, np.maximum(cases.dp * cases.cp // cases.ep, 1)

    def held(each: Any, stage: int) -> Any:
        cut = cases.zero >= stage
        return each * (dense / np.where(cut, replicas, 1) + experts / np.where(cut, sparse_replicas, 1))

    return Memories(
        weights=held(cases.value_bytes, 3),
        gradients=held(gradient_bytes, 2),
        optimiser=held(np.where(cases.value_bytes == 4, 8, 12), 1),
        activations=activations,
        buffers=buffers,
    )


def layer_activation_bytes(cases: Cases) -> tuple[Any, Any]:
    """Bytes of a layer and micro-batch that a rank keeps for the backward pass, and that it needs while in the layer.

    With 2-byte values and GPT's shapes 10 s b h + (24 s b h + 5 a s^2 b) / t, the first term cut too if sharded; the last
    only if plain attention is not recomputed; 2 s b h if all is recomputed [Korthikanti 2022, table 2].
    """
    e, t = cases.value_bytes, cases.tp
    cut = np.where(cases.sharded, t, 1)
    active = cases.routed_per_token + cases.shared_experts
    width = cases.ffn + cases.sparse_share * (active * cases.expert_ffn - cases.ffn)
    heads = cases.qkv_width + cases.heads * cases.head_width
    outside = (4 * e + 2) * cases.hidden / cut + e * (heads + (2 + cases.gated) * width) / t
    core = np.where(cases.flash, 0, cases.heads * cases.sequence * (2 * e + 1) / t)
    kept = np.where(cases.recompute == FULL, e * cases.hidden / cut, outside + np.where(cases.recompute == NONE, core, 0))
    return cases.tokens * kept, cases.tokens * (outside + core)
