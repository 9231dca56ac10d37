"""Tables of training runs: a plan per row, read into ``Cases``. The columns are those of the vTrain and BigScience data."""

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from lightfabric.flows.format.huggingface import load_model
from lightfabric.flows.format.run_shape import Row, differing, of_config, stated
from lightfabric.flows.format.run_software import SOFTWARE, Software, guessed, overlapping
from lightfabric.flows.format.run_system import SYSTEMS, accelerator, letters
from lightfabric.flows.report import InputError, read_bytes
from lightfabric.model.spec import AcceleratorSpec, ModelSpec, Precision, SpecError
from lightfabric.placement.cost.calibration import Calibration, calibration
from lightfabric.placement.cost.prediction import Network, Prediction
from lightfabric.placement.cost.step import step
from lightfabric.placement.plan import Plan, Recompute
from lightfabric.placement.workload.case import (
    RECOMPUTATIONS,
    SCHEDULES,
    Cases,
    Schedule,
    accelerator_values,
    model_values,
    precision_values,
)
from lightfabric.placement.workload.feasible import require_feasible
from lightfabric.placement.workload.memory import peak_memory
from lightfabric.placement.workload.preset import MODELS

MAX_BYTES, MAX_ROWS = 1 << 26, 1 << 17
MOST = 1 << 40
GIB = 1 << 30
NODE_GPUS = 8
MAX_POWERS = 7
"""Micro-batches of 1 to 64 sequences are tried where none is stated."""
MAX_NODES = 4
"""To which DeepSeek's routing sends a token, if a row does not say [DeepSeek-V3, 2.1.2]."""
HEAD_WIDTH = 128
"""Of a model whose heads are not stated."""


@dataclass(frozen=True)
class Runs:
    """The rows of a table, ``[row]``: NaN where ``step_s`` or ``mem_gib`` is not stated."""

    rows: list[Row]
    cases: Cases
    island_bytes_per_s: NDArray[np.float64]
    nic_bytes_per_s: NDArray[np.float64]
    island_gpus: NDArray[np.float64]
    step_seconds: NDArray[np.float64]
    memory_gib: NDArray[np.float64]

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Runs":
        rows = [row for row, take in zip(self.rows, chosen, strict=True) if take]
        columns = (self.island_bytes_per_s, self.nic_bytes_per_s, self.island_gpus, self.step_seconds, self.memory_gib)
        return Runs(rows, self.cases[chosen], *(column[chosen] for column in columns))


def read(path: Path) -> Runs:
    """The runs in a CSV file; InputError names the line and the column of what is wrong."""
    found, refused = read_apart(path)
    if refused or found is None:
        raise InputError(refused[0])
    return found


def read_apart(path: Path) -> tuple[Runs | None, list[str]]:
    """The runs in a CSV file that can be, None if none can, and a line for each other row; InputError if it is no table."""
    text = read_bytes(path, MAX_BYTES, "a CSV file")
    try:
        table = csv.DictReader(io.StringIO(text.decode("utf-8-sig")), strict=True)
        rows = [row for row, _ in zip(table, range(MAX_ROWS + 1), strict=False)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: must be CSV in UTF-8, not: {error}") from None
    columns = table.fieldnames or ()
    needed = [name for name in NEEDED if not ("config" in columns and name in OF_CONFIG)]
    missing = [name for name in needed if name not in columns]
    if missing:
        raise InputError(f"{path}: must have the columns {', '.join(needed)}, not be without {', '.join(missing)}")
    if not 1 <= len(rows) <= MAX_ROWS:
        raise InputError(f"{path}: must have from 1 to {MAX_ROWS} rows, not {len(rows) or 'none'}")
    numbered = [(f"{path}: row {number}", row | {"id": row.get("id") or str(number)}) for number, row in enumerate(rows, 1)]
    return _apart(numbered, path.parent)


_Count = Annotated[int, BeforeValidator(float), Field(ge=1, le=MOST)]
_LOWER = BeforeValidator(str.lower)
_Number = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]


class _Line(BaseModel):
    """The cells of a row that are read; an empty one is as left out."""

    hidden: _Count = 0
    vocab: _Count = 0
    seq: _Count
    gbs: _Count
    mbs: _Count = 0
    config: str = ""
    accel: str = ""
    layers: _Count = 0
    params_b: Annotated[_Number, Field(ge=1e-6)] = 0.0
    heads: _Count = 0
    kv_heads: _Count = 0
    ffn: _Count = 0
    tp: _Count = 1
    pp: _Count = 1
    dp: _Count = 1
    vp: _Count = 1
    cp: _Count = 1
    ep: _Count = 1
    recompute: Annotated[Recompute, _LOWER] = "none"
    zero: Annotated[int, BeforeValidator(float), Field(ge=0, le=3)] | None = None
    fsdp: Annotated[int, BeforeValidator(float), Field(ge=0, le=MOST)] = 0
    software: Annotated[Literal[tuple(SOFTWARE)] | None, _LOWER] = None  # type: ignore[valid-type]
    overlap: Annotated[str, _LOWER] = ""
    max_nodes: Annotated[int, BeforeValidator(float), Field(ge=0, le=MOST)] | None = None
    gradient_precision: Annotated[Literal["fp32", "bf16", "fp16"] | None, _LOWER] = None
    schedule: Annotated[Schedule, _LOWER] = "1f1b"
    precision: Annotated[Literal[Precision, "bf16/fp16", "fp8-cs", "fp8-mx"] | None, _LOWER] = None
    n_acc: _Count = 0
    step_s: _Number = math.nan
    mem_gib: _Number = math.nan
    model: str = ""
    notes: str = ""


NEEDED = ("hidden", "seq", "vocab", "accel", "tp", "pp", "dp", "gbs", "mbs")
NEEDED_OF_SHAPE = ("layers", "heads", "ffn")
"""Columns that must be filled where a column tells more of the shape, such as ``gated``."""
LLAMA: dict[str, Any] = {"tied": False, "positions": "rotary", "biases": "none", "dropout": False}
OF_CONFIG = ("hidden", "vocab")
"""Columns that are not needed where a config.json tells the shape."""
_COLUMNS = {"virtual_stages": "vp", "micro_batch": "mbs", "batch": "gbs"}
"""Names of a plan's fields in tables, where they are others."""
_NO_NUMBER = ("value_error", "float_parsing", "finite_number", "missing")
_MUST_BE: dict[str, str] = dict.fromkeys(_NO_NUMBER, "a number") | {"int_from_float": "a whole number"}


def _line(row: Row) -> _Line:
    """A row as read; ValueError names the column of what is wrong."""
    cells = {name: text for name in _Line.model_fields if (text := (row.get(name) or "").strip())}
    if "layers" in cells:
        cells.pop("params_b", None)
    if "config" not in cells:
        for name in OF_CONFIG if "layers" in cells else (*OF_CONFIG, "params_b"):
            cells.setdefault(name, "")
    try:
        return _Line.model_validate(cells)
    except ValidationError as error:
        first = error.errors()[0]
        name, must_be = str(first["loc"][0]), _MUST_BE.get(first["type"], first["msg"].removeprefix("Input should be "))
        raise ValueError(f"{name} must be {must_be}, not {cells.get(name, '')[:60]!r}") from None


def _layers(line: _Line) -> int:
    """As stated, or as many multiples of the stages as come nearest to ``params_b``: 12 h^2 a layer and the embedding."""
    if line.layers:
        return line.layers
    matrices = line.params_b * 1e9 - line.vocab * line.hidden
    return max(1, round(matrices / (12 * line.hidden**2) / line.pp)) * line.pp


def _heads(line: _Line) -> int:
    """That multiple of tp among the divisors of hidden whose heads are nearest to 128 wide."""
    fitting = [heads for heads in range(line.tp, line.hidden + 1, line.tp) if line.hidden % heads == 0]
    if not fitting:
        raise ValueError(f"heads must be given for tp {line.tp} and hidden {line.hidden}, not left out")
    return min(fitting, key=lambda heads: abs(heads - line.hidden / HEAD_WIDTH))


@cache
def _published(layers: int, hidden: int, ffn: int, name: str, routed: bool) -> ModelSpec | None:
    """The published model of a shape; of several that of this name, else one with experts or without."""
    alike = {
        key: model for key, model in MODELS.items() if (model.layers, model.hidden, model.ffn_width) == (layers, hidden, ffn)
    }
    named = [model for key, model in alike.items() if letters(key) in letters(name)]
    return next(iter(named or [model for model in alike.values() if (model.experts > 0) == routed]), None)


def _model(line: _Line, row: Row, config: Callable[[str], ModelSpec]) -> ModelSpec:
    """That of the config or, with what the row says beside, of the published models the one of this shape.

    Else a GPT, its feed-forward layer gated if it is not 4 h wide, or a Llama if the row says that it is gated.
    """
    shape = stated(row)
    if line.config:
        told = shape | _told(line, "layers", "hidden", "heads", "kv_heads", "ffn")
        return of_config(config(line.config), told, line.seq, line.vocab)
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


def _told(line: _Line, *names: str) -> dict[str, int]:
    return {name: value for name in names if (value := getattr(line, name))}


def _plan(line: _Line, model: ModelSpec, zero: int) -> dict[str, int]:
    try:
        plan = Plan(line.dp, line.tp, line.pp, line.mbs, line.recompute, line.ep, line.cp, line.vp, zero)
        require_feasible(model, line.gbs, plan, line.schedule)
    except SpecError as error:
        raise ValueError(f"{_COLUMNS.get(error.field, error.field)} must be {error.must_be}, not {error.value}") from None
    if line.n_acc not in (0, plan.gpus):
        raise ValueError(f"n_acc must be dp * tp * pp * cp ({plan.gpus}), not {line.n_acc}")
    columns = {name: getattr(plan, name) for name in ("dp", "tp", "pp", "cp", "ep", "virtual_stages", "micro_batch")}
    columns |= {"batch": line.gbs, "schedule": SCHEDULES.index(line.schedule)}
    return columns | {"recompute": RECOMPUTATIONS.index(line.recompute)}


def _software(line: _Line, chip: AcceleratorSpec) -> Software:
    if line.schedule == "dualpipe" and not line.software:
        return overlapping(SOFTWARE["hai-llm"], line.overlap)
    known = SOFTWARE[line.software] if line.software else guessed(chip.name, line.precision, line.recompute)
    return overlapping(known, line.overlap)


def _run_by(software: Software, line: _Line, model: ModelSpec, operand_bytes: float) -> dict[str, Any]:
    """Columns that the software decides."""
    shards, replicas = line.fsdp, line.dp * line.cp
    if shards and replicas % shards:
        raise ValueError(f"fsdp must be 0 or a divisor of dp * cp ({replicas}), not {shards}")
    zero = 3 if shards else software.zero if line.zero is None else line.zero
    hides = {f"hides_{name}": name in software.hides for name in ("tensor", "experts")}
    kernels = {"flash": software.flash, "sharded": software.sharded, "fused": software.fused, "deepspeed": software.apart}
    latent = model.kv_rank is not None
    ends = {"overlaps": "data" in software.hides, "lean": software.lean and latent, "sums_embedding": model.tied}
    limit = MAX_NODES if line.max_nodes is None and model.experts and latent else line.max_nodes or 0
    experts = {"max_nodes": limit, "dispatch_bytes": operand_bytes if software.narrow_dispatch else 2}
    return kernels | hides | ends | experts | {"zero": zero, "shards": shards or replicas}


_NODE_GBPS = re.compile(r"(\d+(?:\.\d+)?) Gb/s per node")


_SPELT: dict[str, Precision] = {name: name for name in get_args(Precision)}
_SPELT |= {"bf16/fp16": "fp16", "fp8-cs": "fp8", "fp8-mx": "mxfp8"}
"""Precisions as sources write them: FP8 by the scale of its current values, or of blocks."""


def _columns(row: Row, config: Callable[[str], ModelSpec]) -> tuple[dict[str, Any], tuple[float, ...]]:
    """What ``Cases`` and ``Runs`` have of a row."""
    line = _line(row)
    chip, model = accelerator(line.accel), _model(line, row, config)
    precision = _SPELT[line.precision or "bf16"]
    values = accelerator_values(chip, precision) | precision_values(precision)
    if precision == "fp16":
        values["gradient_bytes"] = 2  # sums are in fp32 unless all is in fp16, as Megatron and DeepSpeed do by default
    if line.gradient_precision:
        values["gradient_bytes"] = 4 if line.gradient_precision == "fp32" else 2
    run_by = _run_by(_software(line, chip), line, model, values["operand_bytes"])
    case = model_values(model) | values | run_by | _plan(line, model, run_by["zero"])
    stated = _NODE_GBPS.search(line.notes)
    system = SYSTEMS[chip.name]
    nic = float(stated[1]) * 1e9 / 8 / NODE_GPUS if stated else system.nic_bytes_per_s
    links = (system.island_bytes_per_s, nic, system.island_gpus)
    return case, (*links, line.step_s, line.mem_gib)


def runs(lines: Sequence[tuple[str, Row]]) -> Runs:
    """The runs in rows, each with the place that its errors name; an empty ``mbs`` is the fastest that fits."""
    found, refused = _apart(lines, Path())
    if refused or found is None:
        raise InputError(refused[0])
    return found


def _apart(lines: Sequence[tuple[str, Row]], folder: Path) -> tuple[Runs | None, list[str]]:
    found, refused = list[_Columns](), list[str]()

    @cache
    def config(path: str) -> ModelSpec:
        if not path.isprintable():
            raise ValueError(f"config must be the path of a config.json, not {path[:60]!r}")
        return load_model(folder / path)

    for place, row in lines:
        try:
            known = row if (row.get("mbs") or "").strip() else _fastest(row, config)
            found.append((known, *_columns(known, config)))
        except (ValueError, InputError) as error:
            refused.append(f"{place}: {error}")
    return _joined(found) if found else None, refused


def _fastest(row: Row, config: Callable[[str], ModelSpec]) -> Row:
    """The row with that power of two as ``mbs`` that divides a replica's batch and is fastest of those that fit."""
    line = _line(row)
    found, refused = list[_Columns](), list[ValueError | InputError]()
    for size in (1 << power for power in range(MAX_POWERS)):
        if size == 1 or line.gbs // line.dp % size == 0:
            known = row | {"mbs": str(size)}
            try:
                found.append((known, *_columns(known, config)))
            except (ValueError, InputError) as error:
                refused.append(error)
    if not found:
        raise refused[0]
    fitted, tried = calibration(), _joined(found)
    predictions = predicted(tried, fitted)
    # If none fits the smallest is the answer that is least wrong.
    fits = memory_gib(predictions, fitted) <= accelerator(line.accel).memory_gib
    return tried.rows[int(np.argmin(np.where(fits, predictions.total, np.inf))) if fits.any() else 0]


_Columns = tuple[Row, dict[str, Any], tuple[float, ...]]
"""A row, and what ``Cases`` and ``Runs`` have of it."""


def _joined(found: Sequence[_Columns]) -> Runs:
    rows, cases, others = zip(*found, strict=True)
    table: dict[str, Any] = {name: np.array([case[name] for case in cases]) for name in cases[0]}
    return Runs(list(rows), Cases(**table), *np.array(others).T)


def network(runs: Runs, fitted: Calibration) -> Network:
    """Islands behind a fast switch, a NIC per GPU; dimensions nested as tp, cp, dp, pp from the innermost, as Megatron's.

    A ring over several members in each island uses the NICs of all of them. Software that does not overlap gathered sharded
    weights one after the other, through one NIC.
    """
    cases, slow = runs.cases, runs.nic_bytes_per_s * fitted.network_efficiency
    fast = runs.island_bytes_per_s * fitted.island_efficiency
    inner = cases.tp * cases.cp
    stage = inner * cases.dp

    def members(stride: Any, degree: Any) -> Any:
        return np.clip(runs.island_gpus // stride, 1, degree)

    def rate(span: Any, nics: Any = 1) -> Any:
        return np.where(span <= runs.island_gpus, fast, np.minimum(fast, slow * nics))

    return Network(
        tensor=rate(cases.tp, members(1, cases.tp)),
        context=rate(inner, members(cases.tp, cases.cp)),
        expert=rate(inner * cases.ep),
        island=fast,
        islands=np.maximum(np.ceil(inner * cases.ep / runs.island_gpus), 1),
        exchange_seconds=fitted.exchange_seconds,
        data=rate(stage, members(inner, cases.dp)),
        gather=rate(stage, np.where(cases.overlaps, members(inner, cases.dp), 1)),
        pipeline=rate(stage * cases.pp),
        start_seconds=fitted.collective_seconds,
        member_seconds=fitted.member_seconds,
        chunk_root_seconds=fitted.chunk_root_seconds,
        transfer_seconds=fitted.transfer_seconds,
    )


def predicted(runs: Runs, fitted: Calibration) -> Prediction:
    """Predicted step of each run, and the memory of its fullest GPU without what is reserved."""
    return replace(step(runs.cases, fitted, network(runs, fitted)), memory=peak_memory(runs.cases))


def memory_gib(prediction: Prediction, fitted: Calibration) -> NDArray[np.float64]:
    """Predicted memory of each run's fullest GPU."""
    return prediction.memory.total / GIB + fitted.reserved_gib
