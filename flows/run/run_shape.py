"""The cells of a row that tell the shape of its model: fields of a ``ModelSpec``, and what must agree with a config.json."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from lightfabric.flows.run.run_line import Line, Row
from lightfabric.flows.run.run_system import letters
from lightfabric.model.spec import ModelSpec
from lightfabric.placement.workload.preset import MODELS

ELSEWHERE = ("layers", "hidden", "heads", "sequence", "vocabulary", "ffn", "kv_heads")
"""Fields that a row has under its own rules, some by other names."""
_HINTS = {entry.name: get_type_hints(ModelSpec)[entry.name] for entry in fields(ModelSpec) if entry.name not in ELSEWHERE}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(hint) for name, hint in _HINTS.items()}
_SAID: dict[str, bool] = {
    **dict.fromkeys(("1", "1.0", "true", "yes"), True),
    **dict.fromkeys(("0", "0.0", "false", "no"), False),
}
_STANDS_IN = {
    "ffn": "ffn_width",
    "kv_heads": "kv_head_count",
    "head_width": "head_size",
    "expert_ffn": "expert_width",
    "value_width": "value_size",
}
"""Properties that have a value where their field is left out."""
NEEDED_OF_SHAPE = ("layers", "heads", "ffn")
"""Columns that must be filled where a column tells more of the shape, such as ``gated``."""
LLAMA: dict[str, Any] = {"tied": False, "positions": "rotary", "biases": "none", "dropout": False}
HEAD_WIDTH = 128
"""Of a model whose heads are not stated."""
_SAME = (("llama31", "llama3"), ("llama33", "llama3"))
"""Llama 3.1 and 3.3 have the shapes of Llama 3 [Meta, their model cards]."""


def stated(row: Row) -> dict[str, Any]:
    """The fields of a ModelSpec in a row, an empty cell as left out; ValueError names the column of what is wrong."""
    cells = {name: text for name in _HINTS if (text := (row.get(name) or "").strip().lower())}
    found = {name: _value(name, text) for name, text in cells.items()}
    if found.get("experts") and "experts_per_token" not in found:
        raise ValueError("experts_per_token must be given beside experts, not left out")
    return found


def _value(name: str, text: str) -> Any:
    # Most tables say only whether queries and keys have a norm, and most models have one for all heads.
    if name == "qk_norm" and text in _SAID:
        return "head" if _SAID[text] else "none"
    try:
        return _ADAPTERS[name].validate_python(_SAID.get(text, text) if _HINTS[name] is bool else text)
    except ValidationError:
        raise ValueError(f"{name} must be {_must_be(name)}, not {text[:60]!r}") from None


def _must_be(name: str) -> str:
    words = [word for part in (_HINTS[name], *get_args(_HINTS[name])) for word in get_args(part) if isinstance(word, str)]
    return " or ".join(dict.fromkeys(map(repr, words))) or ("true or false" if _HINTS[name] is bool else "a whole number")


def differing(model: ModelSpec, told: dict[str, Any]) -> str | None:
    """The first field in which a model is not as told, None if there is none."""
    return next((name for name, value in told.items() if _held(model, name) != value), None)


def of_config(model: ModelSpec, told: dict[str, Any], sequence: int, vocabulary: int) -> ModelSpec:
    """A config's model with a row's sequence, and its vocabulary, which may be padded, unless that is 0.

    ValueError if the model is not as told, or has not learned as many positions.
    """
    name = differing(model, told)
    if name is not None:
        raise ValueError(f"{name} must be {_held(model, name)!r}, as in the config, not {told[name]!r}")
    if 0 < vocabulary < model.vocabulary:
        raise ValueError(f"vocab must be at least {model.vocabulary}, as in the config, not {vocabulary}")
    rows = None
    if model.positions == "learned":
        rows = model.position_rows or model.sequence
        if sequence > model.sequence:
            raise ValueError(f"seq must be at most {model.sequence}, the positions of the model, not {sequence}")
    return replace(model, sequence=sequence, vocabulary=vocabulary or model.vocabulary, position_rows=rows)


def _held(model: ModelSpec, name: str) -> Any:
    return getattr(model, _STANDS_IN.get(name, name))


def _layers(line: Line) -> int:
    """As stated, or as many multiples of the stages as come nearest to ``params_b``: 12 h^2 a layer and the embedding."""
    if line.layers:
        return line.layers
    matrices = line.params_b * 1e9 - line.vocab * line.hidden
    return max(1, round(matrices / (12 * line.hidden**2) / line.pp)) * line.pp


def _heads(line: Line) -> int:
    """That multiple of tp among the divisors of hidden whose heads are nearest to 128 wide."""
    fitting = [heads for heads in range(line.tp, line.hidden + 1, line.tp) if line.hidden % heads == 0]
    if not fitting:
        raise ValueError(f"heads must be given for tp {line.tp} and hidden {line.hidden}, not left out")
    return min(fitting, key=lambda heads: abs(heads - line.hidden / HEAD_WIDTH))


def named(name: str) -> ModelSpec:
    """Give the published model whose name is in a name, however it is spelt; ValueError if there is none."""
    spelt = letters(name)
    for variant, same in _SAME:
        spelt = spelt.replace(variant, same)
    # Longer names first, since GPT-OSS 120B has no 20B, but GPT-2 XL has a GPT-2.
    for known in sorted(MODELS, key=len, reverse=True):
        if letters(known) in spelt:
            return MODELS[known]
    raise ValueError(f"model must have one of {', '.join(MODELS)} in its name, not {name[:60]!r}")


@cache
def _published(layers: int, hidden: int, ffn: int, name: str, routed: bool) -> ModelSpec | None:
    """The published model of a shape; of several that of this name, else one with experts or without."""
    alike = {
        key: model for key, model in MODELS.items() if (model.layers, model.hidden, model.ffn_width) == (layers, hidden, ffn)
    }
    named = [model for key, model in alike.items() if letters(key) in letters(name)]
    return next(iter(named or [model for model in alike.values() if (model.experts > 0) == routed]), None)


def model_of(line: Line, row: Row, config: Callable[[str], ModelSpec]) -> ModelSpec:
    """Give the model of the config or of the name or, with what the row says beside, the published one of this shape.

    Else a GPT, its feed-forward layer gated if it is not 4 h wide, or a Llama if the row says that it is gated.
    """
    shape = stated(row)
    if line.config or not line.hidden:
        told = shape | _told(line, "layers", "hidden", "heads", "kv_heads", "ffn")
        return of_config(config(line.config) if line.config else named(line.model), told, line.seq, line.vocab)
    layers, wide = _layers(line), 4 * line.hidden
    ffn = line.ffn or wide
    published = _published(layers, line.hidden, ffn, line.model, line.ep > 1 or shape.get("experts", 0) > 0)
    if published is not None and differing(published, shape | _told(line, "heads", "kv_heads")) is None:
        return replace(published, sequence=line.seq, vocabulary=line.vocab)
    for name in NEEDED_OF_SHAPE if shape else ():
        # All layers but the leading dense ones have experts, and then the width of theirs is enough.
        if not getattr(line, name) and not (name == "ffn" and shape.get("expert_ffn") and not shape.get("dense_layers")):
            raise ValueError(f"{name} must be given beside {next(iter(shape))}, not left out")
    heads = line.heads or _heads(line)
    usual: dict[str, Any] = LLAMA if shape.get("gated") else {"gated": ffn != wide}
    return ModelSpec(layers, line.hidden, heads, line.seq, line.vocab, ffn, line.kv_heads or None, **usual | shape)


def _told(line: Line, *names: str) -> dict[str, int]:
    return {name: value for name in names if (value := getattr(line, name))}
