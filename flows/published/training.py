"""Training steps that other groups measured: ``steps.csv``, a table for ``predict`` that no constant was fitted to."""

from functools import cache
from pathlib import Path

import numpy as np

from lightfabric.flows.published.figure import Figure
from lightfabric.flows.run import run_table
from lightfabric.placement.cost.calibration import calibration

TABLE = Path(__file__).with_name("steps.csv")
"""Runs of one source and kind have the same ``what``; ``step_s`` is what was published, ``within`` that of the figure."""


@cache
def _runs() -> run_table.Runs:
    return run_table.read(TABLE)


def figures() -> list[Figure]:
    """A figure for each ``what`` of the table, in its order."""
    return [_figure(what) for what in dict.fromkeys(row["what"] for row in _runs().rows)]


def _figure(what: str) -> Figure:
    runs = _runs()
    runs = runs[np.array([row["what"] == what for row in runs.rows])]

    def ours() -> list[float]:
        return run_table.predicted(runs, calibration()).total.tolist()

    return Figure(what, f"predict {TABLE.name}", runs.step_seconds.tolist(), ours, float(runs.rows[0]["within"]))
