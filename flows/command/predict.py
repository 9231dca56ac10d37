"""``lightfabric predict`` tells step time, its parts and memory of the training plans in a table."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from lightfabric.flows.option import AsJson
from lightfabric.flows.report import InputError, print_json, print_table, say
from lightfabric.flows.run import run_table as measurement
from lightfabric.placement.cost.calibration import calibration
from lightfabric.placement.cost.prediction import PARTS
from lightfabric.placement.workload.parameter import whole_parameters


def main(file: Annotated[Path, typer.Argument(help="CSV, a training plan per row.")], as_json: AsJson = False) -> None:
    """Print one entry for each row of the file that can run, in their order, and to stderr a line for each that cannot."""
    runs, refused = measurement.read_apart(file)
    if runs is not None:
        entries = predictions(runs)
        if as_json:
            print_json(entries)
        else:
            _print_table(str(file), entries)
    for line in refused[:-1]:
        say(f"lightfabric: {line}")
    if refused:
        raise InputError(refused[-1])


def predictions(runs: measurement.Runs) -> list[dict[str, Any]]:
    """Return ``id``, ``parameters``, ``mbs``, ``step_s``, its parts, ``memory_gib`` and what was measured of each run."""
    fitted = calibration()
    found = measurement.predicted(runs, fitted)
    columns = {"step_s": found.total, "memory_gib": measurement.memory_gib(runs, found, fitted)}
    columns |= {f"{name}_s": seconds for name, seconds in found.parts.items()}
    columns |= {"measured_step_s": runs.step_seconds, "measured_memory_gib": runs.memory_gib}
    table = np.stack([np.broadcast_to(column, len(runs.rows)) for column in columns.values()], axis=1)
    values = [[None if np.isnan(value) else value for value in row] for row in table.tolist()]
    parameters = np.broadcast_to(whole_parameters(runs.cases), len(runs.rows)).tolist()
    return [
        {"id": row.get("id") or str(number), "parameters": count, "mbs": mbs} | dict(zip(columns, entry, strict=True))
        for number, (row, count, mbs, entry) in enumerate(
            zip(runs.rows, parameters, runs.cases.micro_batch.tolist(), values, strict=True), 1
        )
    ]


def _print_table(title: str, entries: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.text import Text

    names = ("id", "step_s", "measured_step_s", "memory_gib", "measured_memory_gib", *(f"{part}_s" for part in PARTS))
    header = [name.removesuffix("_s").removesuffix("_gib").replace("_", " ") for name in names]
    rows = (
        [entry["id"], *("-" if (value := entry[name]) is None else f"{value:.4g}" for name in names[1:])]
        for entry in entries
    )
    console = Console()
    console.width = max(console.width, 120)
    print_table(header, [rows], Text(f"{title}: seconds per step, GiB per GPU"), header, console)
