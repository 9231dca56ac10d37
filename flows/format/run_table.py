"""Tables of training runs: a plan per row, read into ``Cases``. The columns are those of the vTrain and BigScience data.

Needed are ``hidden seq vocab accel tp pp dp gbs mbs`` and ``layers`` or ``params_b``; optional are ``heads kv_heads ffn vp
cp ep recompute zero schedule precision n_acc step_s mem_gib model source notes``. Empty is as left out.
"""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from lightfabric.flows.report import InputError, read_bytes
from lightfabric.model.spec import ACCELERATORS, AcceleratorSpec, ModelSpec, Precision
from lightfabric.placement.cost.calibration import Calibration
from lightfabric.placement.cost.memory import memories
from lightfabric.placement.cost.step import Network, Parts, step_parts
from lightfabric.placement.cost.table import FULL, NONE, RECOMPUTATIONS, SCHEDULES, Cases, accelerator_values, model_values
from lightfabric.placement.workload.preset import MODELS

MOST_BYTES, MOST_ROWS = 1 << 26, 1 << 17
MOST = 1 << 40
GIB = 1 << 30
NODE_GPUS = 8
HEAD_WIDTH = 128
"""Of a model whose heads are not stated."""
ISLAND_BYTES_PER_S = {"a100": 300e9, "h100": 450e9}
"""NVLink to each GPU each way [NVIDIA, A100 and H100 data sheets]."""
NIC_BYTES_PER_S = {"a100": 25e9, "h100": 50e9}
"""Per GPU [NVIDIA, DGX A100 and DGX H100 data sheets], if the notes do not say ``N Gb/s per node``."""
NEEDED = ("hidden", "seq", "vocab", "accel", "tp", "pp", "dp", "gbs", "mbs")

Row = dict[str, str]


@dataclass(frozen=True)
class Runs:
    """The rows of a table, ``[row]``: NaN where ``step_s`` or ``mem_gib`` is not stated."""

    rows: list[Row]
    cases: Cases
    island_bytes_per_s: NDArray[np.float64]
    nic_bytes_per_s: NDArray[np.float64]
    step_seconds: NDArray[np.float64]
    memory_gib: NDArray[np.float64]

    @property
    def gradient_bytes(self) -> NDArray[np.int64]:
        """Per parameter: sums are in fp32 unless all is in fp16, as Megatron and DeepSpeed do by default."""
        in_fp16 = [row.get("precision") in ("fp16", "bf16/fp16") for row in self.rows]
        return np.where(in_fp16, 2, 4)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Runs":
        rows = [row for row, take in zip(self.rows, chosen, strict=True) if take]
        columns = (self.island_bytes_per_s, self.nic_bytes_per_s, self.step_seconds, self.memory_gib)
        return Runs(rows, self.cases[chosen], *(column[chosen] for column in columns))


def read(path: Path) -> Runs:
    """The runs in a CSV file; InputError names the line and the column of what is wrong."""
    text = read_bytes(path, MOST_BYTES, "a CSV file")
    try:
        table = csv.DictReader(io.StringIO(text.decode("utf-8-sig")), strict=True)
        rows = [row for row, _ in zip(table, range(MOST_ROWS + 1), strict=False)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: must be CSV in UTF-8, not: {error}") from None
    missing = [name for name in NEEDED if name not in (table.fieldnames or ())]
    if missing:
        raise InputError(f"{path}: must have the columns {', '.join(NEEDED)}, not be without {', '.join(missing)}")
    if not 1 <= len(rows) <= MOST_ROWS:
        raise InputError(f"{path}: must have from 1 to {MOST_ROWS} rows, not {len(rows) or 'none'}")
    return runs([(f"{path}: row {number}", row) for number, row in enumerate(rows, 1)])


@dataclass(frozen=True)
class _Line:
    """One row, and where it is for errors."""

    place: str
    row: Row

    def text(self, name: str) -> str:
        return (self.row.get(name) or "").strip()

    def number(self, name: str, default: float | None = None, least: float = 0.0) -> float:
        text = self.text(name)
        if not text and default is not None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= MOST:
            raise InputError(f"{self.place}: {name} must be a number from {least:g} to {MOST:g}, not {text[:60]!r}")
        return value

    def count(self, name: str, default: int | None = None, least: int = 1) -> int:
        value = self.number(name, default, least)
        if value != int(value):
            raise InputError(f"{self.place}: {name} must be a whole number, not {self.text(name)!r}")
        return int(value)

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        text = self.text(name).lower() or default
        if text not in choices:
            raise InputError(f"{self.place}: {name} must be one of {', '.join(choices)}, not {self.text(name)[:60]!r}")
        return text


def _accelerator(line: _Line) -> AcceleratorSpec:
    text = line.text("accel").lower()
    for name, accelerator in ACCELERATORS.items():
        if name in text:
            return accelerator
    raise InputError(
        f"{line.place}: accel must have {' or '.join(ACCELERATORS)} in its name, not {line.text('accel')[:60]!r}"
    )


def _layers(line: _Line) -> int:
    """As stated, or as many multiples of the stages as come nearest to ``params_b``: 12 h^2 a layer and the embedding."""
    if line.text("layers"):
        return line.count("layers")
    hidden, stages = line.count("hidden"), line.count("pp")
    matrices = line.number("params_b", least=1e-6) * 1e9 - line.count("vocab") * hidden
    return max(1, round(matrices / (12 * hidden**2) / stages)) * stages


def _heads(line: _Line) -> int:
    """As stated, or that multiple of tp among the divisors of hidden whose heads are nearest to 128 wide."""
    if line.text("heads"):
        return line.count("heads")
    hidden, tp = line.count("hidden"), line.count("tp")
    fitting = [heads for heads in range(tp, hidden + 1, tp) if hidden % heads == 0]
    if not fitting:
        raise InputError(f"{line.place}: heads must be given for tp {tp} and hidden {hidden}, not left out")
    return min(fitting, key=lambda heads: abs(heads - hidden / HEAD_WIDTH))


def _letters(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


@cache
def _published(layers: int, hidden: int, ffn: int, name: str, routed: bool) -> ModelSpec | None:
    """The published model of a shape; of several that of this name, else one with experts or without."""
    alike = {
        key: model for key, model in MODELS.items() if (model.layers, model.hidden, model.ffn_width) == (layers, hidden, ffn)
    }
    named = [model for key, model in alike.items() if _letters(key) in _letters(name)]
    return next(iter(named or [model for model in alike.values() if (model.experts > 0) == routed]), None)


def _model(line: _Line) -> ModelSpec:
    """Of the published models the one of this shape; else a GPT, its feed-forward layer gated if it is not 4 h wide."""
    layers, hidden = _layers(line), line.count("hidden")
    ffn = line.count("ffn", 4 * hidden)
    sequence, vocabulary = line.count("seq"), line.count("vocab")
    published = _published(layers, hidden, ffn, line.text("model"), line.count("ep", 1) > 1)
    try:
        if published is not None and line.count("heads", published.heads) == published.heads:
            return replace(published, sequence=sequence, vocabulary=vocabulary)
        heads = _heads(line)
        kv_heads = line.count("kv_heads", heads)
        return ModelSpec(layers, hidden, heads, sequence, vocabulary, ffn, kv_heads, gated=ffn != 4 * hidden)
    except ValueError as error:
        raise InputError(f"{line.place}: {error}") from None


def _plan(line: _Line, heads: int) -> dict[str, int]:
    names = {"virtual_stages": "vp"}
    dimensions = ("dp", "tp", "pp", "cp", "ep", "virtual_stages")
    plan = {name: line.count(names.get(name, name), 1) for name in dimensions}
    plan |= {"batch": line.count("gbs"), "micro_batch": line.count("mbs"), "zero": line.count("zero", 0, least=0)}
    plan["schedule"] = SCHEDULES.index(line.choice("schedule", SCHEDULES, SCHEDULES[0]))
    plan["recompute"] = RECOMPUTATIONS.index(line.choice("recompute", RECOMPUTATIONS, "none"))
    if plan["zero"] > 3:
        raise InputError(f"{line.place}: zero must be from 0 to 3, not {plan['zero']}")
    if heads % plan["tp"]:
        raise InputError(f"{line.place}: tp must be a divisor of the heads ({heads}), not {plan['tp']}")
    if plan["batch"] < plan["dp"] * plan["micro_batch"]:
        must_be = f"at least dp * mbs ({plan['dp'] * plan['micro_batch']})"
        raise InputError(f"{line.place}: gbs must be {must_be}, not {plan['batch']}")
    gpus = plan["dp"] * plan["tp"] * plan["pp"] * plan["cp"]
    if line.count("n_acc", gpus) != gpus:
        raise InputError(f"{line.place}: n_acc must be dp * tp * pp * cp ({gpus}), not {line.count('n_acc')}")
    return plan


def _software(line: _Line, accelerator: AcceleratorSpec, tied: bool, plan: dict[str, int]) -> dict[str, bool]:
    """What kernels a run had, which no table states: on an A100 in fp16 attention was plain until nothing was recomputed."""
    recent = accelerator.name != "a100" or line.text("precision").lower() in ("bf16", "fp8")
    kept, both = plan["recompute"] == NONE, line.text("precision").lower() == "bf16/fp16"
    sharded = recent or plan["recompute"] != FULL
    return {"flash": recent or kept, "sharded": sharded, "overlaps": sharded, "sums_embedding": tied, "deepspeed": both}


_OTHERS = {"first_layers": 0, "last_layers": 0, "expert_load": 1.0}
"""What no table says: layers and tokens are dealt out evenly."""

_NODE_GBPS = re.compile(r"(\d+(?:\.\d+)?) Gb/s per node")


def _nic_bytes_per_s(line: _Line, accelerator: AcceleratorSpec) -> float:
    stated = _NODE_GBPS.search(line.text("notes"))
    return float(stated[1]) * 1e9 / 8 / NODE_GPUS if stated else NIC_BYTES_PER_S[accelerator.name]


def runs(lines: Sequence[tuple[str, Row]]) -> Runs:
    """The runs in rows, each with the place that its errors name."""
    columns: list[dict[str, Any]] = []
    links: list[tuple[float, float]] = []
    for place, row in lines:
        line = _Line(place, row)
        accelerator, model = _accelerator(line), _model(line)
        precision = line.choice("precision", (*get_args(Precision), "bf16/fp16"), "bf16")
        plan = _plan(line, model.heads)
        values = accelerator_values(accelerator, "fp16" if precision == "bf16/fp16" else precision)
        software = _software(line, accelerator, model.tied, plan)
        columns.append(model_values(model) | values | plan | software | _OTHERS)
        links.append((ISLAND_BYTES_PER_S[accelerator.name], _nic_bytes_per_s(line, accelerator)))
    table = Cases(**{name: np.array([column[name] for column in columns]) for name in columns[0]})
    rows = [row for _, row in lines]
    island, nic = np.array(links).T
    return Runs(rows, table, island, nic, _measured(lines, "step_s"), _measured(lines, "mem_gib"))


def _measured(lines: Sequence[tuple[str, Row]], name: str) -> NDArray[np.float64]:
    return np.array([_Line(place, row).number(name, math.nan) for place, row in lines])


def network(runs: Runs, fitted: Calibration) -> Network:
    """Nodes of 8 behind a fast switch, a NIC per GPU; dimensions nested as tp, cp, dp, pp from the innermost, as Megatron's.

    A ring over several members in each node uses the NICs of all of them. Software that does not overlap gathered sharded
    weights one after the other, through one NIC.
    """
    cases, slow = runs.cases, runs.nic_bytes_per_s * fitted.network_efficiency
    fast = runs.island_bytes_per_s * fitted.island_efficiency
    inner = cases.tp * cases.cp
    stage = inner * cases.dp
    members = np.clip(NODE_GPUS // inner, 1, cases.dp)

    def rate(span: Any, nics: Any = 1) -> Any:
        return np.where(span <= NODE_GPUS, fast, np.minimum(fast, slow * nics))

    return Network(
        tensor=rate(cases.tp),
        context=rate(inner),
        expert=rate(inner * cases.ep),
        data=rate(stage, members),
        gather=rate(stage, np.where(cases.overlaps, members, 1)),
        pipeline=rate(stage * cases.pp),
        start_seconds=fitted.collective_seconds,
        member_seconds=fitted.member_seconds,
        chunk_root_seconds=fitted.chunk_root_seconds,
        transfer_seconds=fitted.transfer_seconds,
    )


def predicted(runs: Runs, fitted: Calibration) -> Parts:
    """Predicted parts of each run's step."""
    return step_parts(runs.cases, fitted, network(runs, fitted), runs.gradient_bytes)


def memory_gib(runs: Runs, fitted: Calibration) -> NDArray[np.float64]:
    """Predicted memory of each run's fullest GPU."""
    return memories(runs.cases, runs.gradient_bytes).total / GIB + fitted.reserved_gib
