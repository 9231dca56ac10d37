"""Reads the config.json of a Hugging Face model into a ``ModelSpec``; what is wrong with it is one line of file and key."""

import json
from pathlib import Path
from typing import Any

from lightfabric.flows.format.huggingface_family import FAMILIES, ONLY, Family
from lightfabric.flows.format.huggingface_key import Config, key_of, value, wrong
from lightfabric.flows.report import InputError, WrongError, read_bytes, shown
from lightfabric.model.spec import ModelSpec, SpecError

MAX_BYTES = 1 << 20
_MAY_BE_ZERO = ("shared_experts", "dense_layers", "token_types")
_BIASES = {
    (False, False, False): "none",
    (True, False, False): "qkv",
    (False, True, False): "output",
    (True, True, False): "attention",
    (False, False, True): "ffn",
    (True, False, True): "qkv-ffn",
    (False, True, True): "output-ffn",
    (True, True, True): "all",
}
"""Names of what has biases: queries, keys and values; what attention gives; the feed-forward block."""


def load_model(path: Path) -> ModelSpec:
    """Return the shape in the config.json of a model whose ``model_type`` is one of the ``FAMILIES``.

    ``sequence`` is the longest that the model takes. A key that is left out has the value that the model's code gives it,
    where it gives one for all sizes of the family. Anything wrong is an InputError:
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


def _model(config: Config) -> ModelSpec:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise wrong("model_type", f"one of {', '.join(FAMILIES)}", config)
    family = FAMILIES[kind]
    for key, only in family.get(ONLY, {}).items():
        must_be = value(only, config, 1)
        if config.get(key, must_be) != must_be:
            raise wrong(key, shown(must_be), config)
    try:
        return ModelSpec(**_fields(config, family))
    except SpecError as error:
        key = key_of(family.get(error.field), config) or error.field
        raise WrongError(f"{key} must be {error.must_be}, not {error.value}") from None


def _fields(config: Config, family: Family) -> dict[str, Any]:
    read = {name: value(source, config, 0 if name in _MAY_BE_ZERO else 1) for name, source in family.items() if name != ONLY}
    # A null stands for what a ModelSpec takes if a field is left out, and the length of sequences must be given.
    if read["sequence"] is None:
        raise wrong(key_of(family["sequence"], config), "a whole number", config)
    read["biases"] = _BIASES[read.pop("qkv"), read.pop("output"), read.pop("ffn_biases")]
    # The norm that goes with the biases is left out, so that a shape has one way to be told.
    if read["norm"] == ("layer" if read["biases"] == "all" else "rms"):
        del read["norm"]
    return {name: found for name, found in read.items() if found is not None}
