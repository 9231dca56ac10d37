"""Makes ``placement/cost/calibration.json`` from the measured rows in FOLDER.

``python -m lightfabric.flows.experiment.calibrate FOLDER`` runs it.

Collectives first, from their own measurements; then all other constants at once, by robust least squares of the logarithm of
measured steps, within bounds that physics gives. Rows of ``HELD_OUT`` models are never seen: ``bench accuracy`` tells the
error on them.
"""

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.flows.report import say, written_whole
from lightfabric.flows.run import run_table as measurement
from lightfabric.flows.run.run_system import SYSTEMS
from lightfabric.placement.cost.calibration import Calibration
from lightfabric.placement.workload.memory import peak_memory

FITTED_MODELS = ("gpt-h1024-l12", "gpt-h1024-l24", "gpt-h2048-l16", "gpt-187B", "gpt-200B")
"""By layers among the small models, by shape among the large; all others are held out."""
LARGE_WEIGHT = 3.0
"""Of a row on more than one node: there are 14 of them and 540 others."""
OUTLIER = 0.2
"""Errors of more than this count less than their square: some rows ran out of memory [README.md of the data]."""

BOUNDS: dict[str, tuple[float, float]] = {
    "gemm_efficiency": (0.8, 0.88),
    "fill_depth": (1, 500),
    "align_8": (0.4, 1),
    "memory_efficiency": (0.6, 0.92),
    "kernel_seconds": (1e-6, 1e-5),
    "forward_launch_seconds": (1e-4, 2e-3),
    "backward_launch_seconds": (1e-4, 3e-3),
    "collective_launch_seconds": (1e-7, 5e-4),
    "loss_accesses": (8, 60),
    "optimiser_seconds": (1e-4, 2e-2),
    "optimiser_bytes": (26, 120),
    "transfer_seconds": (5e-6, 5e-4),
    "deepspeed_accesses": (1, 4),
    "deepspeed_sum_bytes": (6, 12),
    "deepspeed_reduced_share": (0.02, 0.8),
}
"""Gradient, fp32 weight and both moments are 26 bytes per parameter at least. 0.92 of HBM2e's peak is what copies reach.
Of the best shape's rate 0.9 is what shapes of language models reach under load [SemiAnalysis, see ``ACCELERATORS``]; gaps
between kernels take some of it. A gradient of 16 bits added to its sum is 6 bytes, to one in fp32 by a kernel of its own,
and cleared, 12."""
ASSUMED = {
    "network_efficiency": 0.8,
    "exchange_efficiency": 0.88,
    "sharded_slowdown": 1.12,
    "odd_heads": 0.4,
    "exchange_seconds": 6e-4,
    "graph_exchange_seconds": 1.5e-4,
    "expert_launch_seconds": 3e-3,
    "context_gib": 3.0,
}
"""No row of these tables measures them. Payload of an InfiniBand NIC under NCCL's rings, headers and imbalance taken off;
that of exchanges, 44 of 50 GB/s [DeepSeek-AI, "Insights into DeepSeek-V3" (ISCA 2025), figure 5; DeepEP; HybridEP's kernels
on 64 H100]. NCCL's share of the multiprocessors while it gathers, 12 to 16 of 108. Heads that 2 or 4 divides against those
that 8 does [Anthony et al., "The Case for Co-Designing Model Architectures with Hardware" (2024), figure 7]. The wait for
counts of tokens, of 0.2 to 1 ms, is what is left of Qwen3 30B-A3B on an island [NVIDIA, Megatron-Bridge, release 26.04];
without it HybridEP takes 0.12 to 0.19 ms longer than its kernels [DeepEP, docs/README_Hybrid-EP.md, GB200]. Launches of
experts' casts are what is left of Qwen3 30B-A3B at micro-batches of 1 on B200 in release 26.02 and on H100 in 26.02.01. A
group of ranks takes NCCL 0.53 to 0.67 GiB on A100 [NVIDIA, nccl, issue 964]; a run has four, and a context of half a GiB."""

Values = NDArray[np.float64]


def collectives(path: Path) -> dict[str, float]:
    """Constants of an all-reduce on one island, by least squares of the logarithm of measured times."""
    from scipy.optimize import least_squares

    with path.open(newline="") as file:
        rows = [(int(row["n"]), int(row["bytes"]), float(row["time_us"]) * 1e-6) for row in csv.DictReader(file)]
    members, size_bytes, seconds = np.array(rows).T
    peak = SYSTEMS["a100"].island_bytes_per_s

    def modelled(logs: Values) -> Values:
        start, member, efficiency, root = np.exp(logs)
        wire = 2 * (members - 1) / members * size_bytes / (peak * efficiency)
        return start + member * (members - 1) + wire + root * np.sqrt(wire)

    found = least_squares(lambda logs: np.log(modelled(logs) / seconds), np.log([3e-5, 5e-6, 0.75, 2e-3]))
    names = ("collective_seconds", "member_seconds", "island_efficiency", "chunk_root_seconds")
    return dict(zip(names, np.exp(found.x).tolist(), strict=True))


def is_fitted(runs: measurement.Runs) -> NDArray[np.bool_]:
    """Rows of the models that constants may be fitted to."""
    return np.array([row.get("model") in FITTED_MODELS for row in runs.rows])


def fit(runs: measurement.Runs, known: dict[str, float]) -> Calibration:
    """All constants that are not ``known``, fitted to the measured steps of ``runs``."""
    from scipy.optimize import least_squares

    weight = np.where(runs.cases.dp * runs.cases.tp * runs.cases.pp > measurement.NODE_GPUS, LARGE_WEIGHT, 1.0)
    low, high = np.log(np.array(list(BOUNDS.values()))).T

    def calibration(logs: Values) -> Calibration:
        values = dict(zip(BOUNDS, np.exp(logs).tolist(), strict=True))
        # Each factor of two that rows lack to a cache line costs alike: the rows have too few shapes to tell more.
        aligned = {f"align_{size}": values["align_8"] ** (power / 3) for size, power in ((32, 1), (16, 2))}
        return Calibration(**known, **values, **aligned)

    def errors(logs: Values) -> Values:
        return weight * np.log(measurement.predicted(runs, calibration(logs)).total / runs.step_seconds)

    found = least_squares(errors, (low + high) / 2, loss="soft_l1", f_scale=OUTLIER, bounds=(low, high))
    return calibration(found.x)


def reserved_gib(runs: measurement.Runs) -> float:
    """Median of what the measured memory exceeds the modelled by."""
    stated = np.isfinite(runs.memory_gib)
    modelled = peak_memory(runs.cases).total / measurement.GIB
    return float(np.median((runs.memory_gib - modelled)[stated]))


def main(folder: Path, result: Path) -> None:
    """Fit the constants and write the file."""
    runs = measurement.read(folder / "step_times.csv")
    chosen = runs[is_fitted(runs)]
    known = ASSUMED | collectives(folder / "collectives_a100.csv") | {"reserved_gib": reserved_gib(chosen)}
    found = fit(chosen, known)
    content: dict[str, Any] = {
        "provenance": {
            "script": "python -m lightfabric.flows.experiment.calibrate",
            "rows": f"{len(chosen.rows)} of {len(runs.rows)} in step_times.csv, those of {', '.join(FITTED_MODELS)}",
            "sources": sorted({row["source"] for row in chosen.rows}),
            "collectives": "all of collectives_a100.csv: NCCL all-reduces on 2, 4 and 8 A100 of a node [vTrain, MICRO 2024]",
            "assumed": sorted(ASSUMED),
        },
        "constants": {name: float(f"{value:.4g}") for name, value in asdict(found).items()},
    }
    with written_whole(result) as beside:
        beside.write_text(json.dumps(content, indent=2) + "\n")
    say(f"{result}: fitted to {len(chosen.rows)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parents[2] / "placement" / "cost" / "calibration.json")
