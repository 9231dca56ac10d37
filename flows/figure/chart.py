"""Figures show iteration time against GPU count, and what a network of routers does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from lightfabric.placement.mapping.traffic import Traffic, ring_load

# Told apart by all common kinds of colour vision (Okabe and Ito, Color Universal Design, 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":")
# More lines than this leave a legend no room between them.
MAX_INSIDE = 6
INCHES = (7.2, 6.4)
DPI = 160
STYLE: Any = {
    "font.size": 11,
    "svg.fonttype": "none",
    # A fixed salt makes the identifiers within an SVG the same in each run.
    "svg.hashsalt": "lightfabric",
    "axes.spines.top": False,
    "axes.spines.right": False,
}

Row = dict[str, Any]
LINE, ACROSS = "line", "across"
"""What a row is drawn as, and where."""


def draw(name: str, rows: Sequence[Row], paths: Iterable[Path], swept: Sequence[str] = ()) -> None:
    """Draw the rows that have a time into files whose suffixes give the format; equal rows give equal bytes.

    Below the times a second panel compares the speeds, where there is a baseline: on log axes lines run close. A fabric has
    a line for each combination of the fields ``swept``; but if one number alone is swept, and all have as many GPUs, it is
    the horizontal axis.
    """
    timed = [row | {LINE: line_name(row, swept), ACROSS: row["gpus"]} for row in rows if row["fits"]]
    across = "GPUs"
    if len(swept) == 1 and len({row["gpus"] for row in rows}) == 1 and all(_positive(row[swept[0]]) for row in rows):
        timed = [row | {LINE: row["fabric"], ACROSS: row[swept[0]]} for row in timed]
        across = f"{swept[0]}, on {rows[0]['gpus']} GPUs"
    compared = any(row["speed_over_baseline"] for row in timed)
    with rc_context(STYLE):
        beside = len({row[LINE] for row in timed}) > MAX_INSIDE
        figure = Figure((INCHES[0] + 2.8 * beside, INCHES[1]), layout="constrained")
        panels = figure.subplots(1 + compared, sharex=True, squeeze=False, height_ratios=[5, 3][: 1 + compared])[:, 0]
        _times(panels[0], name, timed)
        # In the constrained layout a legend outside takes its room from the panels.
        figure.legend(loc="outside right upper", frameon=False) if beside else panels[0].legend(frameon=False)
        if compared:
            _speeds(panels[1], timed)
        _count_axis(panels[-1], across, sorted({row[ACROSS] for row in timed}))
        for path in paths:
            # Neither the date nor the version of matplotlib may be in a file whose bytes are compared.
            metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            figure.savefig(path, dpi=DPI, metadata=metadata)


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def line_name(row: Row, swept: Sequence[str]) -> str:
    """Name a row's fabric and the values of what is swept."""
    return ", ".join([row["fabric"], *(f"{path.rpartition('.')[2]} {row[path]}" for path in swept)])


@contextmanager
def titled(name: str, path: Path, height_inches: float = 4.2) -> Iterator[Axes]:
    """Give the axes of a figure with this title, which is written to ``path`` when the block ends."""
    with rc_context(STYLE):
        figure = Figure((INCHES[0], height_inches), layout="constrained")
        axes = figure.subplots()
        axes.set_title(plain(name), loc="left", fontweight="bold")
        yield axes
        # Without the version of matplotlib equal figures are equal bytes.
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def draw_latency(name: str, loads: Sequence[float], latency_cycles: Sequence[float], saturation: float, path: Path) -> None:
    """Draw latency against load, and where the network saturates."""
    with titled(name, path) as axes:
        axes.plot(loads, latency_cycles, color=COLOURS[0], marker=MARKERS[0], markersize=5, linewidth=1.6)
        axes.axvline(saturation, color=COLOURS[1], linestyle="--", linewidth=1.2, label=f"saturates at {saturation:.3f}")
        axes.set_xlim(0)
        axes.set_ylim(0)
        axes.set_xlabel("offered load (flits per node and cycle)")
        axes.set_ylabel("packet latency (cycles)")
        axes.grid(True, color="#dddddd", linewidth=0.6)
        axes.legend(frameon=False)


def draw_histogram(name: str, packets: Sequence[int], percentiles: Mapping[str, int], path: Path) -> None:
    """Draw how many packets had each latency, from 0 cycles on, and some percentiles."""
    with titled(name, path) as axes:
        last = max(cycle for cycle, count in enumerate(packets) if count)
        axes.stairs(packets[: last + 1], [cycle - 0.5 for cycle in range(last + 2)], fill=True, color=COLOURS[5])
        for (percent, cycles), colour, style in zip(percentiles.items(), COLOURS[1:4], ("-", "--", ":"), strict=False):
            axes.axvline(cycles, color=colour, linestyle=style, linewidth=1.4, label=f"{percent} %: {cycles} cycles")
        axes.set_xlim(0)
        axes.set_xlabel("packet latency (cycles)")
        axes.set_ylabel("packets")
        if percentiles:
            axes.legend(frameon=False)


def draw_links(name: str, links: Sequence[tuple[int, int, float]], columns: int | None, path: Path) -> None:
    """Draw the load of each link, (source, destination, flits per cycle): on a grid of so many columns, else as a matrix.

    On a grid both directions of an edge lie side by side, each on the right of its way; one that goes round is cut short.
    """
    with titled(name, path, INCHES[0] * 0.86) as axes:
        drawn = _matrix(axes, links) if columns is None else _grid(axes, links, columns)
        axes.figure.colorbar(drawn, ax=axes, label="load (flits per cycle)")


def draw_traffic(name: str, flows: Traffic, placed: Mapping[str, NDArray[np.int32]], path: Path) -> None:
    """Draw the bytes from each GPU to each other, and below the rank on each GPU and what crosses each ring segment.

    ``placed[dimension][gpu]`` is where the GPU's rank is along a dimension of parallelism.
    """
    gpus = len(next(iter(placed.values())))
    megabytes = np.zeros((gpus, gpus))
    np.add.at(megabytes, (flows.source, flows.destination), flows.size_bytes / 1e6)
    with rc_context(STYLE):
        figure = Figure((INCHES[0], 9.4), layout="constrained")
        above, ranks, below = figure.subplots(3, height_ratios=[10, 1, 2.5])
        shown = np.ma.masked_equal(megabytes, 0)
        image = above.imshow(shown, norm=LogNorm() if shown.count() else None, cmap="viridis_r", interpolation="nearest")
        above.set_xlabel("to GPU")
        above.set_ylabel("from GPU")
        above.set_title(plain(f"{name}: bytes per iteration"), loc="left", fontsize=11)
        figure.colorbar(image, ax=above, label="MB")
        _ranks(ranks, placed)
        _segments(below, flows, gpus)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _ranks(axes: Axes, placed: Mapping[str, NDArray[np.int32]]) -> None:
    """Draw a row per dimension, from 0, dark, to its last."""
    lasts = {name: int(position.max()) for name, position in placed.items() if position.any()}
    axes.imshow(
        [placed[name] / last for name, last in lasts.items()], aspect="auto", cmap="cividis", interpolation="nearest"
    )
    axes.set_yticks(range(len(lasts)), [f"{name} 0-{last}" for name, last in lasts.items()])
    axes.set_xlabel("rank on each GPU, from the first of a dimension (dark) to its last (bright)")


def _segments(axes: Axes, flows: Traffic, gpus: int) -> None:
    load = ring_load(flows, gpus) / 1e9
    for direction, label in enumerate(("forward", "backward")):
        axes.step(range(gpus), load[direction], "-:"[direction], where="post", color=COLOURS[direction], label=label)
    axes.set_xlim(-0.5, gpus - 0.5)
    axes.set_ylim(0)
    axes.set_xlabel("ring segment, between GPU k and k + 1")
    axes.set_ylabel("GB")
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))


def _matrix(axes: Axes, links: Sequence[tuple[int, int, float]]) -> ScalarMappable:
    routers = 1 + max(max(source, destination) for source, destination, _ in links)
    loads = np.full((routers, routers), np.nan)
    for source, destination, load in links:
        loads[source, destination] = load
    axes.set_xlabel("to router")
    axes.set_ylabel("from router")
    return axes.imshow(loads, cmap="viridis", vmin=0, interpolation="nearest")


def _grid(axes: Axes, links: Sequence[tuple[int, int, float]], columns: int) -> ScalarMappable:
    lines = LineCollection([_line(a, b, columns) for a, b, _ in links], cmap="viridis", linewidths=3)
    lines.set_array(np.array([load for _, _, load in links]))
    lines.set_clim(0)
    axes.add_collection(lines)
    routers = np.array(sorted({router for source, destination, _ in links for router in (source, destination)}))
    axes.plot(routers % columns, routers // columns, "o", color="#444444", markersize=5)
    axes.set_aspect("equal")
    axes.set_xlabel("column")
    axes.set_ylabel("row")
    return lines


def _line(source: int, destination: int, columns: int) -> list[tuple[float, float]]:
    x, y = source % columns, source // columns
    dx, dy = destination % columns - x, destination // columns - y
    goes_round = abs(dx) + abs(dy) > 1
    if goes_round:
        # A link that goes round leaves the grid on the other side: half a step shows where to.
        dx, dy = -0.5 * np.sign(dx), -0.5 * np.sign(dy)
    # To the right of the way, so that the two directions of an edge lie beside each other.
    aside_x, aside_y = 0.09 * np.sign(dy), -0.09 * np.sign(dx)
    return [(x + aside_x, y + aside_y), (x + dx + aside_x, y + dy + aside_y)]


def _times(axes: Axes, name: str, rows: Sequence[Row]) -> None:
    _lines(axes, rows, "iteration_s", 1)
    places = sorted({row[ACROSS] for row in rows})
    bound = [min(row["compute_bound_s"] for row in rows if row[ACROSS] == place) for place in places]
    axes.plot(places, bound, color="#555555", linestyle="--", linewidth=1.2, label="computation alone")
    axes.set_yscale("log")
    axes.set_ylabel("training iteration (s)")
    axes.set_title(plain(name), loc="left", fontweight="bold")
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _speeds(axes: Axes, rows: Sequence[Row]) -> None:
    _lines(axes, [row for row in rows if row["speed_over_baseline"]], "speed_over_baseline", 100)
    # The baseline is as fast as itself, whatever its count.
    names = dict.fromkeys(row["fabric"] for row in rows)
    same = [name for name in names if all(row["speed_over_baseline"] == 1 for row in rows if row["fabric"] == name)]
    axes.set_ylabel(plain(f"speed (% of {same[0] if same else 'baseline'})"))


def _lines(axes: Axes, rows: Sequence[Row], column: str, scale: float) -> None:
    for index, line in enumerate(dict.fromkeys(row[LINE] for row in rows)):
        chosen = [row for row in rows if row[LINE] == line]
        turn, colour = divmod(index, len(COLOURS))
        axes.plot(
            [row[ACROSS] for row in chosen],
            [scale * row[column] for row in chosen],
            DASHES[turn % len(DASHES)],
            color=COLOURS[colour],
            marker=MARKERS[(colour + turn) % len(MARKERS)],
            markersize=5,
            linewidth=1.6,
            label=plain(line),
        )
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _count_axis(axes: Axes, name: str, places: Sequence[float]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlabel(plain(name))
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def plain(text: str) -> str:
    """Return the text so that matplotlib sees no formula in it."""
    return text.replace("$", r"\$")
