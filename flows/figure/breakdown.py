"""A figure shows where the time of an iteration goes: a bar for each fabric, stacked of the parts that add up to it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightfabric.flows.figure.chart import DPI, INCHES, STYLE, Row, line_name, plain
from lightfabric.model.task import Share

MAX_BARS = 32
"""Of more bars, in a large sweep, those of the least time are shown."""
SHADES: dict[Share, str] = {
    "compute": "#0072B2", "optimiser": "#56B4E9", "bubble": "#BBBBBB", "tensor": "#D55E00", "pipeline": "#E69F00",
    "data": "#009E73", "exchange": "#CC79A7", "latency": "#F0E442", "contention": "#000000", "reconfiguration": "#882255",
}  # fmt: skip
"""Of computation blue, of waiting grey, black and wine, of transfers the others of Okabe and Ito's."""
LIGHT = ("optimiser", "bubble", "pipeline", "exchange", "latency")
"""Shades on which numbers are black."""
LEAST_SEEN, LEAST_NUMBERED = 0.002, 0.05
"""Parts of a smaller share of the longest bar cannot be seen, and have no room for a number."""


def draw(name: str, rows: Sequence[Row], path: Path, swept: Sequence[str] = ()) -> None:
    """Draw the rows of the largest GPU count that has times; equal rows give equal bytes."""
    timed = [row for row in rows if row["fits"]]
    gpus = max((row["gpus"] for row in timed), default=0)
    shown = [row for row in timed if row["gpus"] == gpus]
    if len(shown) > MAX_BARS:
        shown = sorted(shown, key=lambda row: row["iteration_s"])[:MAX_BARS]
    with rc_context(STYLE):
        figure = Figure((INCHES[0] + 1.2, 1.6 + 0.5 * max(len(shown), 2)), layout="constrained")
        axes = figure.subplots()
        _bars(axes, shown, [line_name(row, swept) for row in shown])
        if shown:
            # In the constrained layout a legend outside takes its room from the bars.
            figure.legend(loc="outside lower center", ncols=6, frameon=False)
        axes.set_title(plain(f"{name} on {gpus} GPUs: where the time goes"), loc="left", fontweight="bold")
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _bars(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    places, left = np.arange(len(rows)), np.zeros(len(rows))
    longest = max((row["iteration_s"] for row in rows), default=1.0)
    for share, colour in SHADES.items():
        seconds = np.array([row[f"{share}_s"] for row in rows], float)
        seen = share if seconds.max(initial=0) > LEAST_SEEN * longest else "_nolegend_"
        bars = axes.barh(places, seconds, left=left, color=colour, height=0.7, label=seen)
        shares = [each / row["iteration_s"] for each, row in zip(seconds, rows, strict=True)]
        texts = [
            f"{part:.0%}" if each > LEAST_NUMBERED * longest else "" for part, each in zip(shares, seconds, strict=True)
        ]
        axes.bar_label(bars, texts, label_type="center", color="black" if share in LIGHT else "white", fontsize="small")
        left += seconds
    axes.set_yticks(places, [plain(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.03 * longest)
    axes.set_xlabel("training iteration (s)")
    axes.grid(True, axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
