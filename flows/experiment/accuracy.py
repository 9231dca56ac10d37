"""``lightfabric bench accuracy``: the cost model against measured steps, on models that its constants were not fitted to."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.flows.experiment.calibrate import is_fitted
from lightfabric.flows.run import run_table as measurement
from lightfabric.placement.cost.calibration import calibration
from lightfabric.placement.cost.layer import layer_weights
from lightfabric.placement.workload.case import FULL, Cases

TABLE = Path("../shared/data/training/step_times.csv")
BRIDGE = TABLE.with_name("megatron_bridge.csv")
"""Rows of NVIDIA's Megatron-Bridge, by system and release."""
SAME_PLAN = ("model", "system", "seq", "mbs", "tp", "pp", "vp", "cp", "ep", "dp")


def measure(path: Path = TABLE) -> list[dict[str, Any]]:
    """Errors per source on the held-out models, beside those of one constant efficiency per source, fitted as the model.

    Empty if the table is not there.
    """
    if not path.is_file():
        return []
    runs = measurement.read(path)
    fitted, held_out = is_fitted(runs), ~is_fitted(runs)
    prediction = measurement.predicted(runs, calibration())
    modelled, memory = prediction.total, measurement.memory_gib(runs, prediction, calibration())
    sources = np.array([row.get("source", "") for row in runs.rows])
    rows = list[dict[str, Any]]()
    for source in sorted(set(sources.tolist())):
        here = sources == source
        constant = _at_constant_rate(runs, here & fitted)
        chosen = here & held_out
        rows.append({
            "source": source,
            "rows": int(chosen.sum()),
            **_errors("model", modelled, runs.step_seconds, chosen),
            **_errors("constant", constant, runs.step_seconds, chosen),
            **_errors("memory", memory, runs.memory_gib, chosen & np.isfinite(runs.memory_gib)),
            "rank_correlation": _rank_correlation(modelled[chosen], runs.step_seconds[chosen]),
        })  # fmt: skip
    return rows


def by_system(path: Path = BRIDGE) -> list[dict[str, Any]]:
    """Errors per system and kind of model on rows that no constant was chosen by, beside what releases differ by.

    ``noise_mean`` is how far rows of one plan in one precision are from the middle of their releases, per sequence: what no
    prediction falls below that does not know the release. Empty if the table is not there.
    """
    if not path.is_file():
        return []
    runs = measurement.read(path)
    modelled, held_out = measurement.predicted(runs, calibration()).total, np.array([not chosen(row) for row in runs.rows])
    kinds = np.where(runs.cases.experts > 0, "experts", "dense")
    systems, noise = np.array([row["system"] for row in runs.rows]), _noise(runs)
    rows = list[dict[str, Any]]()
    for system, kind in sorted(set(zip(systems.tolist(), kinds.tolist(), strict=True))):
        here = (systems == system) & (kinds == kind)
        taken = here & held_out
        repeated = noise[here & np.isfinite(noise)]
        rows.append({
            "system": system,
            "kind": kind,
            "rows": int(taken.sum()),
            "chosen_rows": int((here & ~held_out).sum()),
            **_errors("model", modelled, runs.step_seconds, taken),
            **_errors("chosen", modelled, runs.step_seconds, here & ~held_out),
            "noise_mean": float(repeated.mean()) if len(repeated) else None,
        })  # fmt: skip
    return rows


def chosen(row: measurement.Row) -> bool:
    """Tell whether a constant was chosen by a row: by which, docs/cost-model.md says."""
    release, system, narrow = row["release"], row["system"], row["precision"] not in ("", "NVFP4")
    if row["model"].startswith("LLAMA"):
        return narrow and system in ("DGX-B200", "DGX-GB200")
    waits = release == "26.04" and row["ep"] == "8"
    return waits or (row["mbs"] == "1" and (system, release) in (("DGX-B200", "26.02"), ("DGX-H100", "26.02.01")))


def _noise(runs: measurement.Runs) -> NDArray[np.float64]:
    """Share by which each row is from the median of the rows of its plan and precision, per sequence; NaN if it is alone."""
    each = runs.step_seconds / runs.cases.batch
    plans = [(*(row[name] for name in SAME_PLAN), peak) for row, peak in zip(runs.rows, runs.cases.peak_flops, strict=True)]
    groups = dict[Any, list[int]]()
    for index, plan in enumerate(plans):
        groups.setdefault(plan, []).append(index)
    found = np.full(len(plans), np.nan)
    for members in groups.values():
        if len(members) > 1:
            found[members] = np.abs(each[members] / np.median(each[members]) - 1)
    return found


def _errors(
    name: str, modelled: NDArray[np.float64], measured: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Mean and median absolute error, as shares."""
    error = np.abs(modelled[chosen] / measured[chosen] - 1)
    if not len(error):
        return {f"{name}_mean": None, f"{name}_median": None}
    return {f"{name}_mean": float(error.mean()), f"{name}_median": float(np.median(error))}


def _at_constant_rate(runs: measurement.Runs, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Steps if all flops ran at that share of the peak which the chosen runs' median reaches."""
    cases = runs.cases
    ideal = flops(cases) / (cases.dp * cases.tp * cases.pp * cases.cp * cases.peak_flops)
    return ideal * np.median((runs.step_seconds / ideal)[chosen])


def flops(cases: Cases) -> NDArray[np.float64]:
    """Of a step on all GPUs: six per weight and token, eight if layers are computed again, and attention."""
    per_layer = layer_weights(cases) * cases.tp + cases.sequence * cases.hidden
    passes = np.where(cases.recompute == FULL, 8, 6)
    words = cases.vocabulary * cases.hidden
    return 1.0 * cases.batch * cases.sequence * (passes * cases.layers * per_layer + 6.0 * words)


def _rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Correlate the ranks of two columns, as Spearman did."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other)[0])  # pyright: ignore[reportArgumentType]
