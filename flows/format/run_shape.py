"""The cells of a row that tell the shape of its model: fields of a ``ModelSpec``, and what must agree with a config.json."""

from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from lightfabric.model.spec import ModelSpec

Row = dict[str, str]

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
