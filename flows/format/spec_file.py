"""Reads a TOML file into a ``Spec``; what is wrong with it is one line that names file and field."""

import json
import tomllib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, is_dataclass
from difflib import get_close_matches
from importlib.resources import as_file, files
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from lightfabric.flows.format import link_list
from lightfabric.flows.format.huggingface import load_model
from lightfabric.flows.report import MAX_SHOWN, InputError, WrongError, cut, read_bytes, shown
from lightfabric.model.chiplet_preset import CHIPLETS
from lightfabric.model.spec import (
    ACCELERATORS,
    COMPONENTS,
    AcceleratorSpec,
    ChipletSpec,
    DecodeJobSpec,
    FabricSpec,
    JobSpec,
    ModelSpec,
    NetworkJobSpec,
    PlanSpec,
    PriceSpec,
    PricesSpec,
    SpecError,
    StudySpec,
)
from lightfabric.placement.workload.preset import MODELS

MAX_BYTES = 1 << 18
# The time of tomllib grows with the square of a line's dots, its stack with the line's brackets.
MAX_CHARACTERS = 400
MAX_DEPTH = 5
MAX_SENTENCE = 240

# Sums and products of values in this range, and of 0, neither overflow nor vanish.
MIN, MAX = 1e-6, 1e12
# No result is divided by these probabilities.
_MAY_BE_TINY = ("bit_error_rate",)

_FABRICS: dict[str, type] = {get_args(get_type_hints(kind)["kind"])[0]: kind for kind in get_args(FabricSpec)}
_TABLES: dict[str, type] = {
    "": StudySpec, "accelerator": AcceleratorSpec, "chiplet": ChipletSpec, "job.model": ModelSpec, "plan": PlanSpec,
    "prices": PricesSpec, **{f"prices.{part}": PriceSpec for part in COMPONENTS},
}  # fmt: skip
_MUST_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of common size",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "tuple_type": "an array",
    "dataclass_type": "a table",
    "dataclass_exact_type": "a table",
    "missing": "given",
}
_STANDS_FOR_MODEL = ("preset", "config")
_UNKNOWN = "unexpected_keyword_argument"

Location = tuple[int | str, ...]


EXAMPLES = (
    "gpt3-175b", "qwen3-235b-a22b", "llama3-70b-decode", "dlrm", "small", "prototype", "faults",
    "sip-ml", "sip-ml-resnet", "sip-ml-transformer", "mixnet",
)  # fmt: skip
"""Built in, as files of ``examples/``; those of SiP-ML and MixNet have a sweep, so that only ``study`` runs them."""

MAX_VARIANTS = 256


@dataclass(frozen=True)
class Variant:
    """Holds a spec and the value that each swept field has in it, by its path; none without a sweep."""

    values: Mapping[str, Any]
    spec: StudySpec

    @property
    def name(self) -> str:
        """Name the swept fields without the tables they are in, and their values."""
        return ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in self.values.items())


def load_spec(path: Path | None, default: str = "gpt3-175b") -> StudySpec:
    """Return the spec in a TOML file without a sweep, or a built-in example if ``path`` is None.

    ``[accelerator] preset = "h100"`` stands for the fields of that accelerator, ``[chiplet] preset = "oci-gen1"`` for those
    of that chiplet, ``[job.model] preset = "llama3-70b"`` for
    those of that model and ``config = "config.json"`` for those of a Hugging Face model, its path relative to the TOML
    file's folder; other keys beside them override them.
    Anything wrong is an InputError: ``my.toml: chiplet.ports must be from 1 to 32, not -3``.
    """
    first, *_ = variants = load_variants(path, default)
    if first.values:
        raise InputError(f"{path}: sweep must be left out but for study, not {len(variants)} variants")
    return first.spec


def load_variants(path: Path | None, default: str = "gpt3-175b") -> list[Variant]:
    """Return the specs that a file stands for, one for each combination of the values in its ``[sweep]``, the last fastest.

    ``"chiplet.wavelengths_per_port" = [8, 16]`` sweeps that field, ``"fabrics.SiP-Ring.max_hops"`` one of the fabric of that
    name. Errors are those of ``load_spec``.
    """
    if path is None:
        with as_file(files("lightfabric.examples") / f"{default}.toml") as example:
            return load_variants(example)
    content = read_bytes(path, MAX_BYTES, "a TOML file")
    try:
        tables = _tables(content)
        sweep = _sweep(tables.pop("sweep", {}))
        return [_variant(tables, dict(zip(sweep, values, strict=True)), path.parent) for values in product(*sweep.values())]
    except WrongError as error:
        raise InputError(f"{path}: {error}") from None


def _sweep(sweep: object) -> dict[str, list[Any]]:
    if not isinstance(sweep, dict):
        raise WrongError(f"sweep must be a table, not {shown(sweep)}")
    for path, values in sweep.items():
        if not isinstance(values, list) or not values or any(isinstance(value, dict | list) for value in values):
            raise WrongError(f"sweep.{_key(path)} must be an array of values, not {shown(values)}")
    if (count := prod(map(len, sweep.values()))) > MAX_VARIANTS:
        raise WrongError(f"sweep must be of at most {MAX_VARIANTS} variants, not {count}")
    return sweep


def _variant(tables: dict[str, Any], values: dict[str, Any], folder: Path) -> Variant:
    tables = deepcopy(tables)
    for path, value in values.items():
        *owners, field = path.split(".")
        table: Any = tables
        for owner in owners:
            if isinstance(table, list):
                table = next((each for each in table if isinstance(each, dict) and each.get("name") == owner), None)
            else:
                table = table.setdefault(owner, {})
            if not isinstance(table, dict | list):
                raise WrongError(f"sweep.{_key(path)} must be the path of a field, not one through {owner!r}")
        if not isinstance(table, dict):
            raise WrongError(f"sweep.{_key(path)} must be the path of a field, not of a list of tables")
        table[field] = value
    return Variant(values, _spec(tables, folder))


def _tables(content: bytes) -> dict[str, Any]:
    try:
        # Editors of Windows begin a file with a byte order mark, which TOML does not know.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongError(f"must be TOML in UTF-8, not: {error.reason} at byte {error.start}") from None
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > MAX_CHARACTERS:
            raise WrongError(f"line {number} must be at most {MAX_CHARACTERS} characters, not {len(line)}")
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise WrongError("must be TOML of a few levels, not deeply nested") from None
    except ValueError as error:
        raise WrongError(f"must be TOML, not: {error}") from None
    _check_depth(tables)
    return tables


def _check_depth(tables: dict[str, Any]) -> None:
    level: list[Any] = [tables]
    for _ in range(MAX_DEPTH):
        containers = (entry.values() if isinstance(entry, dict) else entry for entry in level)
        level = [item for container in containers for item in container if isinstance(item, dict | list)]
    if level:
        raise WrongError(f"must be TOML of at most {MAX_DEPTH} levels, not deeply nested")


def _spec(tables: dict[str, Any], folder: Path) -> StudySpec:
    _expand_preset(tables, "accelerator", ACCELERATORS)
    _expand_preset(tables, "chiplet", {name: preset.spec for name, preset in CHIPLETS.items()})
    _expand_model(tables.get("job"), folder)
    _check_fabrics(tables)
    link_list.expand(tables.get("fabrics"), folder)
    try:
        # A date, which TOML has and JSON lacks, becomes a list, which no field takes.
        spec = TypeAdapter(StudySpec).validate_json(json.dumps(tables, default=lambda moment: [str(moment)]))
        spec.accelerator.peak_flops(spec.job.precision)
    except ValidationError as error:
        raise WrongError(_sentence(error.errors(), tables)) from None
    except SpecError as error:
        raise WrongError(_owned(("accelerator",), error)) from None
    _check_magnitudes((), spec)
    return spec


def _expand_preset(tables: dict[str, Any], name: str, presets: Mapping[str, Any]) -> None:
    """Replace ``preset`` of a table by the fields that it stands for and the file does not override."""
    table = tables.get(name)
    if not isinstance(table, dict) or "preset" not in table:
        return
    preset = table.pop("preset")
    if not isinstance(preset, str) or preset not in presets:
        raise WrongError(f"{name}.preset must be one of {', '.join(presets)}, not {shown(preset)}")
    stands_for = asdict(presets[preset])
    # A depth that followed from the fields of the preset follows from those of the file.
    if name == "chiplet":
        del stands_for["replay_flits"]
    tables[name] = stands_for | table


def _expand_model(job: object, folder: Path) -> None:
    """Replace ``preset`` or ``config`` of ``job.model`` by the fields that it stands for and the file does not override."""
    if isinstance(job, dict) and {"model", "network"} <= job.keys():
        raise WrongError(f"job.model must be left out beside network, not {shown(job['model'])}")
    table = job.get("model") if isinstance(job, dict) else None
    if not isinstance(job, dict) or not isinstance(table, dict) or not table.keys() & set(_STANDS_FOR_MODEL):
        return
    if "preset" in table and "config" in table:
        raise WrongError(f"job.model.config must be left out beside preset, not {shown(table['config'])}")
    model = _preset_model(table.pop("preset")) if "preset" in table else _imported_model(table.pop("config"), folder)
    job["model"] = asdict(model) | table


def _preset_model(name: object) -> ModelSpec:
    if not isinstance(name, str) or name not in MODELS:
        raise WrongError(f"job.model.preset must be one of {', '.join(MODELS)}, not {shown(name)}")
    return MODELS[name]


def _imported_model(path: object, folder: Path) -> ModelSpec:
    if not isinstance(path, str) or not path.strip() or not path.isprintable():
        raise WrongError(f"job.model.config must be the path of a config.json, not {shown(path)}")
    return load_model(folder / path)


def _check_fabrics(tables: dict[str, Any]) -> None:
    """Require of each fabric a known kind, so that only the errors of that kind count later, and a name of its own."""
    entry = tables.get("fabrics")
    fabrics = entry if isinstance(entry, list) else []
    for index, fabric in enumerate(fabrics):
        if not isinstance(fabric, dict):
            raise WrongError(f"fabrics[{index}] must be a table, not {shown(fabric)}")
        kind = fabric.get("kind")
        if not isinstance(kind, str) or kind not in _FABRICS:
            value = shown(kind) if "kind" in fabric else "left out"
            raise WrongError(f"fabrics[{index}].kind must be one of {', '.join(_FABRICS)}, not {value}")
        others = [other.get("name") for other in fabrics[:index]]
        if "name" in fabric and fabric["name"] in others:
            raise WrongError(f"fabrics[{index}].name must differ from those before, not {shown(fabric['name'])}")


def _check_magnitudes(location: Location, value: object) -> None:
    if is_dataclass(value):
        for entry in fields(value):
            _check_magnitudes((*location, entry.name), getattr(value, entry.name))
    elif isinstance(value, tuple):
        for index, entry in enumerate(value):
            _check_magnitudes((*location, index), entry)
    elif isinstance(value, float) and value and location[-1] not in _MAY_BE_TINY and not MIN <= value <= MAX:
        raise WrongError(f"{_dotted(location)} must be from {MIN:g} to {MAX:g}, not {value!r}")


def _sentence(errors: list[ErrorDetails], tables: dict[str, Any]) -> str:
    """Return the first error, unknown keys before all: they explain the missing ones."""
    of_kind = [(place, error) for error in errors if (place := _location(error["loc"], tables)) is not None]
    # min keeps the first of equals, so the order of the file decides.
    location, error = min(of_kind, key=lambda entry: entry[1]["type"] != _UNKNOWN)
    if error["type"] == "value_error":
        return _owned(location, error.get("ctx", {})["error"])
    if error["type"] == _UNKNOWN:
        return _unknown(location, tables)
    must_be = _MUST_BE.get(error["type"], error["msg"])
    if location == ("job", "model") and error["type"] == "missing":
        must_be = "given, or network in its place"
    if error["type"] == "literal_error":
        must_be = error.get("ctx", {})["expected"]
    value = "left out" if error["type"] == "missing" else shown(_value_at(location, tables, error["input"]))
    return f"{_dotted(location) or 'the file'} must be {must_be}, not {value}"


def _job_type(tables: dict[str, Any]) -> type:
    job = tables.get("job")
    told = job.keys() if isinstance(job, dict) else ()
    return NetworkJobSpec if "network" in told else DecodeJobSpec if "phase" in told else JobSpec


def _location(loc: Location, tables: dict[str, Any]) -> Location | None:
    """Return where an error is in the file; None if it is of another kind of fabric or job than the file's."""
    if loc[:1] == ("job",) and len(loc) > 1:
        return loc[:1] + loc[2:] if loc[1] == _job_type(tables).__name__ else None
    if loc[:1] != ("fabrics",) or len(loc) < 3:
        return loc
    kind = _FABRICS[tables["fabrics"][loc[1]]["kind"]]
    return loc[:2] + loc[3:] if loc[2] == kind.__name__ else None


def _owned(location: Location, error: SpecError) -> str:
    """Say what is wrong, with the owner's path in the file for its name."""
    return cut(error.of(_dotted(location)), MAX_SENTENCE)


def _unknown(location: Location, tables: dict[str, Any]) -> str:
    *owner, key = location
    known = _known(tuple(owner), tables)
    with_unit = [name for name in known if name.startswith(f"{key}_")]
    close = with_unit or get_close_matches(str(key), known, 1)
    hint = f"(did you mean {close[0]}?)" if close else f"({', '.join(known)})"
    return f"{_dotted(location)} must be a known field {hint}, not an unknown one"


def _known(owner: Location, tables: dict[str, Any]) -> list[str]:
    if owner[:1] == ("fabrics",):
        table = _FABRICS[tables["fabrics"][owner[1]]["kind"]]
    else:
        table = _job_type(tables) if owner == ("job",) else _TABLES[_dotted(owner)]
    stands_for = {AcceleratorSpec: ["preset"], ChipletSpec: ["preset"], ModelSpec: list(_STANDS_FOR_MODEL)}.get(table, [])
    return [entry.name for entry in fields(table)] + stands_for


def _dotted(location: Location) -> str:
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{_key(step)}"
    return text.removeprefix(".")


def _key(name: str) -> str:
    """Return a TOML key, quoted if it must be."""
    bare = name.isascii() and name.replace("-", "_").isidentifier()
    return name if bare and len(name) <= MAX_SHOWN else shown(name)


def _value_at(location: Location, tables: Any, otherwise: object) -> object:
    try:
        for step in location:
            tables = tables[step]
    except (LookupError, TypeError):
        return otherwise
    return tables
