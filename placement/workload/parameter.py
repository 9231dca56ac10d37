"""Parameters on one rank of a transformer's stage: formulas over columns, whole models by the plan of one rank.

Tensor parallelism cuts heads and feed-forward widths ``tp`` ways, expert parallelism deals the experts out to ``ep``
ranks. Whole on each rank: norms but those over all heads, the biases of what is summed over ranks, the router, the
down-projections of latent attention; so are heads of keys and values that are fewer than ranks.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from lightfabric.model.spec import JobSpec, ModelSpec
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import Cases, case, where


def kv_values(c: Cases) -> Any:
    """Keys and values of a token on one rank; a head that is shared by several ranks is on each of them."""
    width = c.key_width + c.value_size
    return _kv_heads(c) * width if c.exact else c.kv_head_count * width // c.tp


def _kv_heads(c: Cases) -> Any:
    return -(-c.kv_head_count // c.tp)


def _attention(c: Cases) -> Any:
    """Weights, and biases with the norms of latents."""
    queries, outputs = c.heads * c.key_width, c.heads * c.value_size
    found = c.hidden * (queries + outputs) // c.tp + c.hidden * kv_values(c)
    if np.any(c.kv_rank):
        # Down to the ranks, up to the heads, out [DeepSeek-V2, equations 9 to 19].
        up = where(c.query_rank > 0, c.query_rank, c.hidden * c.exact) * queries
        up = up + c.kv_rank * c.heads * (c.head_size + c.value_size)
        down = c.hidden * (c.query_rank + c.kv_rank + c.rope_width)
        found = where(c.kv_rank > 0, down + (up + outputs * c.hidden) // c.tp, found)
    if not c.exact:
        return found
    biases = (
        c.qkv_biases * (queries // c.tp + kv_values(c)) + c.attention_output_biases * c.hidden + c.sinks * c.heads // c.tp
    )
    norms = c.head_norm_size + c.heads_norm * (queries // c.tp + _kv_heads(c) * c.key_width) + c.query_rank + c.kv_rank
    return found + biases + norms


def _feed_forward(c: Cases, width: Any, ways: Any) -> Any:
    """Weights and biases of a block of ``width``, or of one expert, cut so many ways."""
    found = c.matrices * c.hidden * width // ways
    return found + c.ffn_biases * ((c.matrices - 1) * width // ways + c.hidden) if c.exact else found


def stage_parameters(c: Cases, stage: Any) -> tuple[Any, Any]:
    """On a rank of a stage: those that all replicas hold, and experts, of which each of ``ep`` ranks has others.

    With more than one stage both ends keep a word embedding, shared or not.
    """
    layers, routed = c.stage_layers(stage), c.routed_layers(stage)
    norms = c.layer_norms * c.norm_size if c.exact else 0
    shared = layers * (_attention(c) + norms) + (layers - routed) * _feed_forward(c, c.ffn_width, c.tp)
    experts: Any = 0
    if np.any(c.experts):
        beside, expert = (_feed_forward(c, c.expert_width, ways) for ways in (c.tp, c.expert_cut))
        router = c.router_size if c.exact else c.hidden * c.experts
        shared = shared + routed * (c.shared_experts * beside + router)
        experts = routed * np.maximum(c.experts // c.ep, 1) * expert
    first, last = stage == 0, stage == c.pp - 1
    # On one stage a shared embedding is there once, while an embedding and an output layer of their own are two.
    embeddings = where(c.tied, first | last, first * 1 + last)
    ends = embeddings * c.vocabulary_shard * c.hidden
    if c.exact:
        ends = ends + first * c.first_size + last * (c.last_size + c.output_biases * c.vocabulary_shard)
    return shared + ends, experts


def rank_parameters(c: Cases, stage: Any) -> tuple[Any, Any]:
    """``stage_parameters``; experts that are not dealt out are held, cut and reduced like all others."""
    shared, experts = stage_parameters(c, stage)
    return shared + experts * (c.ep == 1), experts * (c.ep > 1)


def fullest_parameters(c: Cases) -> tuple[Any, Any]:
    """Most that a rank of any stage has of either part of ``stage_parameters``."""
    shared, experts = zip(*(stage_parameters(c, stage) for stage in c.fullest_stages()), strict=True)
    return np.maximum.reduce(np.broadcast_arrays(*shared)), np.maximum.reduce(np.broadcast_arrays(*experts))


def parameters(model: ModelSpec) -> int:
    """Parameters of the model [GPT: Narayanan 2021, eq. 2, and a final norm].

    Examples:
        >>> from lightfabric.placement.workload.preset import MODELS
        >>> parameters(MODELS["llama3-8b"])
        8030261248

    """
    return int(whole_parameters(case(JobSpec(model, 1), Plan(1, 1, 1, 1))))


def whole_parameters(c: Cases) -> Any:
    """Parameters of the models, however they are cut."""
    return sum(stage_parameters(replace(c.exactly, tp=1, pp=1, ep=1, virtual_stages=1, first_layers=0, last_layers=0), 0))
