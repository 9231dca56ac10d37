"""The figure of a study: iteration time against GPU count, a line per fabric."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Told apart by all common kinds of colour vision (Okabe and Ito, Color Universal Design, 2008)."""
MARKERS = ("o", "s", "^", "D", "v", "P")
INCHES = (7.2, 6.4)
DPI = 160
STYLE: Any = {
    "font.size": 11,
    "svg.fonttype": "none",
    "svg.hashsalt": "lightfabric",
    "axes.spines.top": False,
    "axes.spines.right": False,
}

Row = dict[str, Any]


def draw(name: str, rows: Sequence[Row], paths: Iterable[Path]) -> None:
    """Draw the rows that have a time into files whose suffixes give the format; equal rows give equal bytes.

    Below the times a second panel compares the speeds, where there is an ideal fabric: on log axes lines run close.
    """
    timed = [row for row in rows if row["fits"]]
    compared = any(row["speed_over_ideal"] for row in timed)
    with rc_context(STYLE):
        figure = Figure(INCHES, layout="constrained")
        panels = figure.subplots(1 + compared, sharex=True, squeeze=False, height_ratios=[5, 3][: 1 + compared])[:, 0]
        _times(panels[0], name, timed)
        if compared:
            _speeds(panels[1], timed)
        _count_axis(panels[-1], sorted({row["gpus"] for row in timed}))
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            figure.savefig(path, dpi=DPI, metadata=metadata)


def draw_latency(name: str, loads: Sequence[float], latency_cycles: Sequence[float], saturation: float, path: Path) -> None:
    """Draw latency against load, and where the network saturates."""
    with rc_context(STYLE):
        figure = Figure((INCHES[0], 4.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(loads, latency_cycles, color=COLOURS[0], marker=MARKERS[0], markersize=5, linewidth=1.6)
        axes.axvline(saturation, color=COLOURS[1], linestyle="--", linewidth=1.2, label=f"saturates at {saturation:.3f}")
        axes.set_xlim(0)
        axes.set_ylim(0)
        axes.set_xlabel("offered load (flits per node and cycle)")
        axes.set_ylabel("packet latency (cycles)")
        axes.set_title(_plain(name), loc="left", fontweight="bold")
        axes.grid(True, color="#dddddd", linewidth=0.6)
        axes.legend(frameon=False)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _times(axes: Axes, name: str, rows: Sequence[Row]) -> None:
    _lines(axes, rows, "iteration_s", 1)
    gpus = sorted({row["gpus"] for row in rows})
    bound = [min(row["compute_bound_s"] for row in rows if row["gpus"] == count) for count in gpus]
    axes.plot(gpus, bound, color="#555555", linestyle="--", linewidth=1.2, label="computation alone")
    axes.set_yscale("log")
    axes.set_ylabel("training iteration (s)")
    axes.set_title(_plain(name), loc="left", fontweight="bold")
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(frameon=False)


def _speeds(axes: Axes, rows: Sequence[Row]) -> None:
    _lines(axes, [row for row in rows if row["speed_over_ideal"]], "speed_over_ideal", 100)
    axes.set_ylabel("speed (% of ideal)")


def _lines(axes: Axes, rows: Sequence[Row], column: str, scale: float) -> None:
    for index, fabric in enumerate(dict.fromkeys(row["fabric"] for row in rows)):
        chosen = [row for row in rows if row["fabric"] == fabric]
        axes.plot(
            [row["gpus"] for row in chosen],
            [scale * row[column] for row in chosen],
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            linewidth=1.6,
            label=_plain(fabric),
        )
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _count_axis(axes: Axes, gpus: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlabel("GPUs")
    axes.xaxis.set_major_locator(FixedLocator(gpus))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _plain(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")
