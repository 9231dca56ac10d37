"""``lightfabric bench accuracy``: the cost model against measured steps, on models that its constants were not fitted to."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.flows.experiment.calibrate import is_fitted
from lightfabric.flows.format import run_table as measurement
from lightfabric.placement.cost.calibration import calibration
from lightfabric.placement.cost.layer import layer_weights
from lightfabric.placement.workload.case import FULL, Cases

TABLE = Path("../shared/data/training/step_times.csv")


def measure(path: Path = TABLE) -> list[dict[str, Any]]:
    """Errors per source on the held-out models, beside those of one constant efficiency per source, fitted as the model.

    Empty if the table is not there.
    """
    if not path.is_file():
        return []
    runs = measurement.read(path)
    fitted, held_out = is_fitted(runs), ~is_fitted(runs)
    prediction = measurement.predicted(runs, calibration())
    modelled, memory = prediction.total, measurement.memory_gib(prediction, calibration())
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
    return cases.batch * cases.sequence * (passes * cases.layers * per_layer + 6.0 * words)


def _rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Correlate the ranks of two columns, as Spearman did."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other)[0])  # pyright: ignore[reportArgumentType]
