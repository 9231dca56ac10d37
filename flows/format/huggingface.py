"""Reads the config.json of a Hugging Face model into a ``ModelSpec``; what is wrong with it is one line of file and key."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightfabric.flows.report import InputError, WrongError, read_bytes, shown
from lightfabric.model.spec import ModelSpec, SpecError

MAX_BYTES = 1 << 20
MAX_COUNT = 1 << 22


@dataclass(frozen=True)
class _Family:
    """Tells how configs of one ``model_type`` say the fields of a ModelSpec.

    ``keys`` names the key of each field, or several that mean the same; ``optional`` fields may be left out or null.
    ``fixed`` are fields that the family always has, or has if their key is left out. ``only`` gives the values without which
    the shape would be another. ``dropout`` is the key of its rate and the rate if that is left out.
    """

    keys: dict[str, tuple[str, ...]]
    fixed: dict[str, Any]
    tied: bool
    optional: frozenset[str] = frozenset()
    only: dict[str, Any] = field(default_factory=dict)
    dropout: tuple[str, float] | None = None


_USUAL = {
    "layers": ("num_hidden_layers",),
    "hidden": ("hidden_size",),
    "heads": ("num_attention_heads",),
    "sequence": ("max_position_embeddings",),
    "vocabulary": ("vocab_size",),
    "ffn": ("intermediate_size",),
}
_GPT2 = {
    "layers": ("n_layer",),
    "hidden": ("n_embd",),
    "heads": ("n_head",),
    "sequence": ("n_positions",),
    "vocabulary": ("vocab_size",),
    "ffn": ("n_inner",),
}
_BLOOM = {
    "layers": ("n_layer", "num_hidden_layers"),
    "hidden": ("hidden_size", "n_embed"),
    "heads": ("n_head", "num_attention_heads"),
    "sequence": ("seq_length",),
    "vocabulary": ("vocab_size",),
}
_GROUPED = _USUAL | {"kv_heads": ("num_key_value_heads",), "head_width": ("head_dim",)}
_MIXTRAL = _GROUPED | {"experts": ("num_local_experts",), "experts_per_token": ("num_experts_per_tok",)}
_DEEPSEEK = _USUAL | {
    "head_width": ("qk_nope_head_dim",),
    "experts": ("n_routed_experts",),
    "experts_per_token": ("num_experts_per_tok",),
    "expert_ffn": ("moe_intermediate_size",),
    "shared_experts": ("n_shared_experts",),
    "dense_layers": ("first_k_dense_replace",),
    "query_rank": ("q_lora_rank",),
    "kv_rank": ("kv_lora_rank",),
    "rope_width": ("qk_rope_head_dim",),
    "value_width": ("v_head_dim",),
}
# Models of this kind norm by the root mean square, gate their ffn, and have no biases.
_RMS = {"gated": True, "positions": "rotary", "biases": "none", "dropout": False}
_NO_BIAS = {"attention_bias": False, "mlp_bias": False}
_MAY_BE_ZERO = ("shared_experts", "dense_layers")
_EITHER = frozenset({"kv_heads", "head_width"})

_FAMILIES = {
    "llama": _Family(_GROUPED, _RMS, tied=False, optional=_EITHER, only=_NO_BIAS),
    "mistral": _Family(_GROUPED, _RMS, tied=False, optional=_EITHER),
    "mixtral": _Family(_MIXTRAL, _RMS, tied=False, optional=_EITHER),
    "qwen2": _Family(_GROUPED, _RMS | {"biases": "qkv"}, tied=False, optional=_EITHER),
    "gpt2": _Family(_GPT2, {}, tied=True, optional=frozenset({"ffn"}), dropout=("resid_pdrop", 0.1)),
    "gpt_neox": _Family(
        _USUAL, {"positions": "rotary"}, tied=False, only={"attention_bias": True}, dropout=("hidden_dropout", 0.0)
    ),
    "bloom": _Family(
        _BLOOM,
        {"positions": "alibi", "sequence": 2048},
        tied=True,
        optional=frozenset({"sequence"}),
        dropout=("hidden_dropout", 0.0),
    ),
    "deepseek_v3": _Family(
        _DEEPSEEK, _RMS, tied=False, optional=frozenset({"query_rank"}), only=_NO_BIAS | {"moe_layer_freq": 1}
    ),
    "bert": _Family(_USUAL, {}, tied=True, dropout=("hidden_dropout_prob", 0.1)),
}


def load_model(path: Path) -> ModelSpec:
    """Return the shape in the config.json of a llama, mistral, mixtral, qwen2, gpt2, gpt_neox, bloom, deepseek_v3 or bert.

    ``sequence`` is the longest that the model takes. Anything wrong is an InputError:
    ``config.json: num_hidden_layers must be a whole number from 1 to 4194304, not '32'``.
    """
    content = read_bytes(path, MAX_BYTES, "a config.json")
    try:
        return _model(_config(content))
    except WrongError as error:
        raise InputError(f"{path}: {error}") from None


def _config(content: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except RecursionError:
        raise WrongError("must be JSON of a few levels, not deeply nested") from None
    except ValueError as error:
        raise WrongError(f"must be JSON, not: {error}") from None
    if not isinstance(config, dict):
        raise WrongError(f"must be a JSON object, not {shown(config)}")
    return config


def _model(config: dict[str, Any]) -> ModelSpec:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _FAMILIES:
        raise _wrong("model_type", f"one of {', '.join(_FAMILIES)}", config)
    family = _FAMILIES[kind]
    for key, must_be in family.only.items():
        if config.get(key, must_be) != must_be:
            raise _wrong(key, shown(must_be), config)
    try:
        return ModelSpec(**_fields(config, family))
    except SpecError as error:
        key = _key(config, family.keys.get(error.field, (error.field,)))
        raise WrongError(f"{key} must be {error.must_be}, not {error.value}") from None


def _fields(config: dict[str, Any], family: _Family) -> dict[str, Any]:
    values = dict(family.fixed)
    for name, keys in family.keys.items():
        key = _key(config, keys)
        if config.get(key) is not None or name not in family.optional:
            values[name] = _count(config, key, 0 if name in _MAY_BE_ZERO else 1)
    values["tied"] = config.get("tie_word_embeddings", family.tied)
    if not isinstance(values["tied"], bool):
        raise _wrong("tie_word_embeddings", "true or false", config)
    if family.dropout:
        values["dropout"] = _rate(config, *family.dropout) > 0
    return values


def _key(config: dict[str, Any], keys: tuple[str, ...]) -> str:
    return next((key for key in keys if key in config), keys[0])


def _count(config: dict[str, Any], key: str, least: int) -> int:
    value = config.get(key)
    # A bool is an int to isinstance, and true is no count.
    if type(value) is not int or not least <= value <= MAX_COUNT:
        raise _wrong(key, f"a whole number from {least} to {MAX_COUNT}", config)
    return value


def _rate(config: dict[str, Any], key: str, otherwise: float) -> float:
    value = config.get(key, otherwise)
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise _wrong(key, "a number from 0 to 1", config)
    return value


def _wrong(key: str, must_be: str, config: dict[str, Any]) -> WrongError:
    return WrongError(f"{key} must be {must_be}, not {shown(config[key]) if key in config else 'left out'}")
