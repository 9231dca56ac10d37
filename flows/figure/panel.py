"""Figures show runs at cycle fidelity, a panel for each run: load of the links as a heat map, latency of the messages."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from lightfabric.flows.experiment.fidelity import BINS_PER_OCTAVE, FILES, Detail
from lightfabric.flows.figure.chart import COLOURS, DPI, INCHES, STYLE, plain
from lightfabric.flows.report import written_whole

MAX_COLUMNS = 4
PANEL_INCHES = 3.2

Panels = Mapping[str, Detail]
"""Runs by their title."""


def draw(out: Path, name: str, runs: Panels) -> None:
    """Draw both figures, ``fidelity.FILES``, into a folder, or none of them."""
    with ExitStack() as stack:
        loads, latencies = (stack.enter_context(written_whole(out / file)) for file in FILES)
        draw_link_loads(f"{name}: load of the links", runs, loads)
        draw_message_latencies(f"{name}: latency of the messages", runs, latencies)


def draw_link_loads(name: str, panels: Panels, path: Path) -> None:
    """Draw for each pair of nodes the share of the time in which its links carry flits; white where it has no link."""
    with rc_context(STYLE):
        figure, axes = _panels(name, panels, shared=False)
        most = max((float(np.nanmax(run.load, initial=0)) for run in panels.values()), default=0) or 1
        drawn = None
        for place, run in zip(axes, panels.values(), strict=False):
            drawn = place.imshow(100 * run.load, cmap="viridis", vmin=0, vmax=100 * most, interpolation="nearest")
            _label_nodes(place, run.nodes)
        if drawn is not None:
            figure.colorbar(drawn, ax=figure.axes, label="time in use (%)", shrink=0.8)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _label_nodes(axes: Axes, nodes: Sequence[str]) -> None:
    axes.set_xlabel("to GPU or hub")
    axes.set_ylabel("from GPU or hub")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, integer=True))
        axis.set_major_formatter(FuncFormatter(lambda place, _: nodes[int(place)] if 0 <= place < len(nodes) else ""))


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
