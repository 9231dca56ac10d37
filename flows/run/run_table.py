"""Tables of training runs: a plan per row, read into ``Cases``. The columns are those of the vTrain and BigScience data."""

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from lightfabric.flows.format.huggingface import load_model
from lightfabric.flows.report import InputError, read_bytes
from lightfabric.flows.run.run_line import OF_CONFIG, SEQUENCE_PARALLEL, Line, Row, line_of
from lightfabric.flows.run.run_shape import model_of
from lightfabric.flows.run.run_software import SOFTWARE, Software, bridge, guessed, overlapping
from lightfabric.flows.run.run_system import SYSTEMS, accelerator
from lightfabric.model.spec import AcceleratorSpec, ModelSpec, Precision, SpecError
from lightfabric.placement.cost.calibration import Calibration, calibration
from lightfabric.placement.cost.prediction import Network, Prediction
from lightfabric.placement.cost.step import step
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import (
    RECOMPUTATIONS,
    SCHEDULES,
    Cases,
    accelerator_values,
    model_values,
    precision_values,
)
from lightfabric.placement.workload.feasible import require_feasible
from lightfabric.placement.workload.memory import peak_memory

MAX_BYTES, MAX_ROWS = 1 << 26, 1 << 17
GIB = 1 << 30
NODE_GPUS = 8
MAX_POWERS = 7
"""Micro-batches of 1 to 64 sequences are tried where none is stated."""
MAX_NODES = 4
"""To which DeepSeek's routing sends a token, if a row does not say [DeepSeek-V3, 2.1.2]."""
NEEDED = ("hidden", "seq", "vocab", "accel", "tp", "pp", "dp", "gbs", "mbs")
STANDS_FOR = {"config": OF_CONFIG, "model": OF_CONFIG, "system": ("accel",)}
"""Columns beside which others are not needed, since they tell the same."""
_COLUMNS = {"virtual_stages": "vp", "micro_batch": "mbs", "batch": "gbs"}
"""Names of a plan's fields in tables, where they are others."""


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
    told = {name for column in columns for name in STANDS_FOR.get(column, ())}
    needed = [name for name in NEEDED if name not in told]
    missing = [name for name in needed if name not in columns]
    if missing:
        raise InputError(f"{path}: must have the columns {', '.join(needed)}, not be without {', '.join(missing)}")
    if not 1 <= len(rows) <= MAX_ROWS:
        raise InputError(f"{path}: must have from 1 to {MAX_ROWS} rows, not {len(rows) or 'none'}")
    numbered = [(f"{path}: row {number}", row | {"id": row.get("id") or str(number)}) for number, row in enumerate(rows, 1)]
    return _apart(numbered, path.parent)


def _plan(line: Line, model: ModelSpec, zero: int, software: Software) -> dict[str, int]:
    # Where experts are whole on a rank, ranks of tensor parallelism have experts of their own, too.
    whole = software.whole_experts and model.experts > 0
    if whole and (model.experts % line.ep or line.dp * line.cp * line.tp % line.ep):
        most = math.gcd(model.experts, line.dp * line.cp * line.tp)
        raise ValueError(f"ep must be a divisor of the experts and of dp * cp * tp ({most}), not {line.ep}")
    try:
        plan = Plan(line.dp, line.tp, line.pp, line.mbs, line.recomputed, 1 if whole else line.ep, line.cp, line.vp, zero)
        require_feasible(model, line.gbs, plan, line.schedule, software.laid_out)
    except SpecError as error:
        raise ValueError(f"{_COLUMNS.get(error.field, error.field)} must be {error.must_be}, not {error.value}") from None
    if line.n_acc not in (0, plan.gpus):
        raise ValueError(f"n_acc must be dp * tp * pp * cp ({plan.gpus}), not {line.n_acc}")
    columns = {name: getattr(plan, name) for name in ("dp", "tp", "pp", "cp", "virtual_stages", "micro_batch")}
    columns |= {"batch": line.gbs, "schedule": SCHEDULES.index(line.schedule), "ep": line.ep, "expert_tp": int(whole)}
    columns["filled"] = software.laid_out
    return columns | {"recompute": RECOMPUTATIONS.index(line.recomputed)}


def _software(line: Line, chip: AcceleratorSpec, precision: Precision, model: ModelSpec) -> Software:
    if line.schedule == "dualpipe" and not line.software:
        return overlapping(SOFTWARE["hai-llm"], line.overlap)
    if line.of_bridge:
        spread = line.ep > NODE_GPUS and line.vp > 1
        known = bridge(line.release, chip.name, precision, model.kv_rank is not None, spread)
        return overlapping(known, line.overlap)
    known = SOFTWARE[line.software] if line.software else guessed(chip.name, line.precision, line.recomputed)
    return overlapping(known, line.overlap)


def _run_by(software: Software, line: Line, model: ModelSpec, operand_bytes: float) -> dict[str, Any]:
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
    experts |= {name: getattr(software, name) for name in ("dispatch", "graphs", "exchange_multiprocessors")}
    # DeepSeek-V3 is trained to predict a second token [DeepSeek-V3, 2.2], in Megatron-Bridge's recipes, too.
    same = latent and (model.layers, model.experts) == (61, 256)
    experts["next_tokens"] = int(same) if line.next_tokens is None else line.next_tokens
    return kernels | hides | ends | experts | {"zero": zero, "shards": shards or replicas}


_NODE_GBPS = re.compile(r"(\d+(?:\.\d+)?) Gb/s per node")


_SPELT: dict[str, Precision] = {name: name for name in get_args(Precision)}
_SPELT |= {"bf16/fp16": "fp16", "fp8-cs": "fp8", "fp8-ds": "fp8", "fp8-sc": "fp8", "fp8-mx": "mxfp8"}
"""Precisions as sources write them: FP8 by the scale of current values, of earlier ones, of blocks of 128, of MX blocks."""


def _accelerator(line: Line) -> AcceleratorSpec:
    return accelerator(line.accel) if line.accel or not line.system else accelerator(line.system, "system")


def _columns(row: Row, config: Callable[[str], ModelSpec]) -> tuple[dict[str, Any], tuple[float, ...]]:
    """What ``Cases`` and ``Runs`` have of a row."""
    line = line_of(row)
    chip, model = _accelerator(line), model_of(line, row, config)
    # Megatron-Bridge's tables leave the precision out where dense models run faster than 16 bits could; experts do not.
    precision = _SPELT[line.precision or ("fp8" if line.of_bridge and not model.experts else "bf16")]
    values = accelerator_values(chip, precision) | precision_values(precision)
    software = _software(line, chip, precision, model)
    if line.recompute.endswith(SEQUENCE_PARALLEL):
        software = replace(software, sharded=True)
    # Sums are in fp32 unless all is in fp16, as Megatron and DeepSpeed do by default.
    if precision == "fp16" or (software.half_gradients and values["gradient_bytes"] == 4):
        values["gradient_bytes"] = 2
    if line.gradient_precision:
        values["gradient_bytes"] = 4 if line.gradient_precision == "fp32" else 2
    run_by = _run_by(software, line, model, values["operand_bytes"])
    case = model_values(model) | values | run_by | _plan(line, model, run_by["zero"], software)
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
    line = line_of(row)
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
    fits = memory_gib(tried, predictions, fitted) <= _accelerator(line).memory_gib
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
    experts = np.where(cases.expert_tp > 0, cases.expert_tp, inner) * cases.ep

    def members(stride: Any, degree: Any) -> Any:
        return np.clip(runs.island_gpus // stride, 1, degree)

    def rate(span: Any, nics: Any = 1, slow: Any = slow) -> Any:
        return np.where(span <= runs.island_gpus, fast, np.minimum(fast, slow * nics))

    reduced = np.where(cases.deepspeed, fitted.deepspeed_reduced_share, fitted.network_efficiency)
    return Network(
        tensor=rate(cases.tp, members(1, cases.tp)),
        context=rate(inner, members(cases.tp, cases.cp)),
        expert=rate(experts, slow=runs.nic_bytes_per_s * fitted.exchange_efficiency),
        island=fast,
        islands=np.maximum(np.ceil(experts / runs.island_gpus), 1),
        exchange_seconds=fitted.exchange_seconds,
        graph_exchange_seconds=fitted.graph_exchange_seconds,
        data=rate(stage, members(inner, cases.dp), runs.nic_bytes_per_s * reduced),
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


def memory_gib(runs: Runs, prediction: Prediction, fitted: Calibration) -> NDArray[np.float64]:
    """Predicted memory of each run's fullest GPU."""
    return prediction.memory.total / GIB + np.where(runs.cases.deepspeed, fitted.reserved_gib, fitted.context_gib)
