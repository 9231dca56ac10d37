"""Figures show runs, a panel for each: load of the links as a heat map and, at cycle fidelity, latency of the messages."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from lightfabric.flows.experiment.fidelity import BINS_PER_OCTAVE, FILES, Detail
from lightfabric.flows.figure.chart import COLOURS, DPI, INCHES, STYLE, plain
from lightfabric.flows.report import written_whole

MAX_COLUMNS = 4
MAX_PANELS = 24
"""Of more runs, in a large sweep, the first are drawn."""
PANEL_INCHES = 3.2
MAX_MARKS = 4
STRIP_HEIGHT = 0.17
"""Of a matrix above."""

Panels = Mapping[str, Detail]
"""Runs by their title."""


def draw(out: Path, name: str, runs: Panels, files: Sequence[str] = FILES) -> None:
    """Draw both figures, ``fidelity.FILES``, into a folder, or none of them; of fluids, without messages, the first."""
    runs = dict(islice(runs.items(), MAX_PANELS))
    with ExitStack() as stack:
        loads, *latencies = (stack.enter_context(written_whole(out / file)) for file in files)
        label = "time in use (%)" if latencies else "carried, of what the link could carry meanwhile (%)"
        draw_link_loads(f"{name}: load of the links", runs, label, loads)
        for path in latencies:
            draw_message_latencies(f"{name}: latency of the messages", runs, path)


def draw_link_loads(name: str, panels: Panels, label: str, path: Path) -> None:
    """Draw what share of the time links carry something: between nodes a matrix, white where there is none, else strips.

    A strip is a kind of link along the fabric, with the share of its busiest link above it at the right.
    """
    with rc_context(STYLE):
        figure, places = _panels(name, panels, shared=False)
        most = 100 * max(map(_busiest, panels.values()), default=0) or 1
        drawn = None
        for place, (title, run) in zip(places, panels.items(), strict=False):
            drawn = _links(place, run, most) or drawn
            place.set_title(plain(f"{title}: at most {_busiest(run):.0%}"), loc="left", fontsize="small")
        if drawn is not None:
            figure.colorbar(drawn, ax=figure.axes, label=label, shrink=0.8)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _busiest(run: Detail) -> float:
    return max(float(np.nanmax(each, initial=0)) for each in (run.load, *run.strips.values()))


def _links(axes: Axes, run: Detail, most: float) -> ScalarMappable | None:
    """Draw the matrix from 0 to 1 both ways, and below it the strips, as high as they must be to be seen."""
    shades: Any = {"cmap": "viridis", "vmin": 0, "vmax": most, "interpolation": "nearest", "aspect": "auto"}
    drawn, bottom, height = None, 0.0, STRIP_HEIGHT if run.load.size else 1.0
    if run.load.size:
        drawn, bottom = axes.imshow(100 * run.load, extent=(0, 1, 1, 0), **shades), 1.0
    for kind, share in run.strips.items():
        drawn = axes.imshow(100 * share[None], extent=(0, 1, bottom + height, bottom + height / 2), **shades)
        busiest = f"{np.nanmax(share, initial=0):.0%}"
        for x, side, text in ((0, "left", plain(kind)), (1, "right", busiest)):
            axes.text(x, bottom + 0.45 * height, text, ha=side, va="bottom", fontsize="small")
        bottom += height
    axes.set_xlim(0, 1)
    axes.set_ylim(max(bottom, 1), 0)
    _label_nodes(axes, run)
    return drawn


def _label_nodes(axes: Axes, run: Detail) -> None:
    node = "GPU or hub" if any(each.startswith("hub") for each in run.nodes) else "GPU"
    count = len(run.nodes)
    marks = np.arange(0, count, -(-count // MAX_MARKS))
    names = [run.nodes[mark] for mark in marks]
    axes.set_xticks((marks + 0.5) / count, names)
    axes.set_xlabel(f"to {node}" if run.load.size else node)
    if run.load.size:
        axes.set_yticks((marks + 0.5) / count, names)
        axes.set_ylabel(f"from {node}")
    else:
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)


def draw_message_latencies(name: str, panels: Panels, path: Path) -> None:
    """Draw how many messages took how long, from the moment they could be sent until all of them had arrived."""
    with rc_context(STYLE):
        figure, axes = _panels(name, panels, shared=True)
        for place, run in zip(axes, panels.values(), strict=False):
            _histogram(place, run.messages)
        most = max((int(run.messages.max(initial=1)) for run in panels.values()), default=1)
        for place in figure.axes:
            place.set_ylim(0.7, 1.5 * most)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _histogram(axes: Axes, messages: NDArray[np.int64]) -> None:
    axes.set_xlabel("latency (us)")
    axes.set_ylabel("messages")
    used = np.flatnonzero(messages)
    if not len(used):
        return
    first, end = int(used[0]), int(used[-1]) + 1
    edges_us = 2 ** (np.arange(first, end + 1) / BINS_PER_OCTAVE) / 1000
    axes.stairs(messages[first:end], edges_us, fill=True, color=COLOURS[0])
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, marks in ((axes.xaxis, (1, 2, 5)), (axes.yaxis, (1,))):
        axis.set_major_locator(LogLocator(10, subs=marks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _panels(name: str, titles: Collection[str], *, shared: bool) -> tuple[Figure, list[Axes]]:
    count = len(titles)
    # Without runs there is one empty panel, so that the file exists.
    columns = min(max(count, 1), MAX_COLUMNS)
    rows = -(-max(count, 1) // columns)
    figure = Figure((max(PANEL_INCHES * columns + 1, INCHES[0]), PANEL_INCHES * rows + 0.5), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).flat
    for place in list(places)[count:]:
        place.remove()
    figure.suptitle(plain(name), fontweight="bold", x=0.02, ha="left")
    for place, title in zip(figure.axes, titles, strict=False):
        place.set_title(plain(title), loc="left", fontsize="small")
    return figure, figure.axes
