"""One layer of a transformer: its parameters, whole or on one of the ranks that it is cut over, its flops, what it keeps.

Tensor parallelism cuts heads and feed-forward widths ``tp`` ways, expert parallelism deals the experts out to ``ep``
ranks. Whole on each rank: norms, the biases of what is summed over ranks, the router, the down-projections of latent
attention; so are heads of keys and values that are fewer than ranks. ``layer`` says which layer is meant, the last by
default: in a mixture of experts the leading ones are dense.
"""

from functools import lru_cache
from math import ceil

from lightfabric.model.spec import ModelSpec


def _attention_weights(model: ModelSpec, tp: int = 1) -> int:
    if model.kv_rank is not None:
        return _latent_weights(model, model.kv_rank, tp)
    cut = model.hidden * (model.query_width + model.attention_width)
    return cut // tp + model.hidden * kv_values(model, tp)


def _latent_weights(model: ModelSpec, kv_rank: int, tp: int) -> int:
    """Down to the ranks, up to the heads, out [DeepSeek-V2, equations 9 to 19]."""
    down = model.hidden * ((model.query_rank or 0) + kv_rank + (model.rope_width or 0))
    up_query = (model.query_rank or model.hidden) * model.query_width
    up_kv = kv_rank * (model.kv_width + model.attention_width)
    return down + (up_query + up_kv + model.attention_width * model.hidden) // tp


def _attention_vectors(model: ModelSpec, tp: int = 1) -> int:
    """Biases of the projections, the norm before them and those of latent attention."""
    qkv = 0 if model.biases == "none" else model.query_width // tp + kv_values(model, tp)
    out = model.hidden if model.biases == "all" else 0
    return qkv + out + model.norm_size + (model.query_rank or 0) + (model.kv_rank or 0)


def kv_values(model: ModelSpec, tp: int = 1) -> int:
    """Keys and values of a token on one of ``tp`` ranks; a head that is shared by several ranks is on each of them."""
    return -(-model.kv_head_count // tp) * (model.key_size + model.value_size)


def _matrices(model: ModelSpec) -> int:
    return 3 if model.gated else 2


def _ffn_weights(model: ModelSpec, width: int, tp: int = 1) -> int:
    return _matrices(model) * model.hidden * width // tp


def _ffn_vectors(model: ModelSpec, width: int, tp: int = 1) -> int:
    return (_matrices(model) - 1) * width // tp + model.hidden if model.biases == "all" else 0


def expert_parameters(model: ModelSpec, tp: int = 1) -> int:
    """Parameters of one expert on one of ``tp`` ranks."""
    return _ffn_weights(model, model.expert_width, tp) + _ffn_vectors(model, model.expert_width, tp)


def _ffn_parameters(model: ModelSpec, layer: int, tp: int, ep: int) -> int:
    if not model.is_routed(layer):
        return _ffn_weights(model, model.ffn_width, tp) + _ffn_vectors(model, model.ffn_width, tp) + model.norm_size
    held = -(-model.experts // ep) + model.shared_experts
    return held * expert_parameters(model, tp) + model.hidden * model.experts + model.norm_size


@lru_cache(maxsize=4096)
def layer_parameters(model: ModelSpec, layer: int = -1, tp: int = 1, ep: int = 1) -> int:
    """Weights, biases and norms of a layer on one of ``tp`` x ``ep`` ranks: all of a GPT's are 12 h^2 + 13 h."""
    attention = _attention_weights(model, tp) + _attention_vectors(model, tp)
    return attention + _ffn_parameters(model, layer, tp, ep)


def token_weights(model: ModelSpec, layer: int = -1) -> int:
    """Matrix weights that multiply a token in a layer: of the experts those that it goes to, and the router."""
    if not model.is_routed(layer):
        return _attention_weights(model) + _ffn_weights(model, model.ffn_width)
    experts = (model.experts_per_token + model.shared_experts) * _ffn_weights(model, model.expert_width)
    return _attention_weights(model) + experts + model.hidden * model.experts


@lru_cache(maxsize=4096)
def kept_values(model: ModelSpec, tp: int, layer: int = -1, expert_load: float = 1.0) -> int:
    """Values of a token that one of ``tp`` ranks keeps of a layer for the backward pass, without the attention core.

    Inputs of norms and products [Korthikanti 2022, section 4.1], 8 h + 2 f of a GPT, cut in the sequence or in the
    width; of an expert its input, what is between its matrices, and the output that the router weighs, of ``expert_load``
    times the tokens of even routing.
    """
    latent = 2 * ((model.query_rank or 0) + (model.kv_rank or 0))
    attention = 2 * model.hidden + model.query_width + model.attention_width + latent
    cut = attention + 2 * model.hidden + _kept_between(model, layer, expert_load)
    return cut // tp + kv_values(model, tp)


def _kept_between(model: ModelSpec, layer: int, expert_load: float) -> int:
    if not model.is_routed(layer):
        return _matrices(model) * model.ffn_width
    between = _matrices(model) * model.expert_width
    routed = ceil(expert_load * model.experts_per_token * (2 * model.hidden + between))
    return model.experts + routed + model.shared_experts * between
