"""A study shows its progress and leaves a table and a folder with results.csv, a figure and manifest.json."""

import contextlib
import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from itertools import groupby, product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from lightfabric.flows import report
from lightfabric.flows.format.spec_file import Variant
from lightfabric.flows.report import InputError, require_file, say, write_csv, written_whole
from lightfabric.model.fabric.component import bill
from lightfabric.model.fabric.fabric import fabric_of
from lightfabric.model.spec import DecodeJobSpec
from lightfabric.model.timing import Timing

FILES = (
    "results.csv", "network-bill.csv", "iteration-time.png", "iteration-time.svg", "time-breakdown.png", "manifest.json",
)  # fmt: skip
_BILL = ("gpus", "fabric", "part", "gbps", "count", "usd_each", "w_each", "usd", "w", "source")
VERSIONS = ("lightfabric", "numpy", "numba", "amaranth")
PLAIN_WIDTH = 120

Row = dict[str, Any]


class Bar:
    """Shows progress on stderr: a bar on a terminal, else a line for each step."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> "Bar":
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def measures(self, block: str) -> None:
        """Tell that the RTL of ``block`` is being simulated."""
        text = f"simulating the RTL of the {block}, once for this chiplet"
        self._progress.update(self._task, description=text)
        if not self._console.is_terminal:
            say(text)

    def done(self, text: str, done: int, total: int) -> None:
        """Tell what has ended as the ``done``-th of ``total``."""
        self._progress.update(self._task, description=text, completed=done, total=total)
        if not self._console.is_terminal:
            say(f"{done}/{total} {text}")


@contextlib.contextmanager
def folder(path: Path, names: Sequence[str] = FILES) -> Iterator[None]:
    """Make a folder in which files can be written; what was made for it vanishes again, if empty, when the block fails."""
    # Only what this run makes may be removed: a folder that was there stays, empty or not.
    made = [parent for parent in (path, *path.parents) if not os.path.lexists(parent)]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
            # Whether a folder can be written is known for sure only after a file was made in it.
            tempfile.TemporaryFile(dir=path).close()
        except OSError as error:
            raise InputError(f"--out must be a folder that can be written, not {path}: {error.strerror}") from None
        for name in names:
            require_file(path / name)
        yield
    except BaseException:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def write(
    out: Path,
    variants: Sequence[Variant],
    source: str,
    rows: Sequence[Row],
    timings: Sequence[Timing],
    columns: Sequence[str],
    fidelity: str,
) -> list[str]:
    """Write all files or, if one fails, none, and return their names. Equal studies give equal bytes.

    Fields that are swept are columns before ``columns``, what only some kinds of job tell after these.
    """
    from lightfabric.flows.figure import breakdown, chart

    swept, spec = list(variants[0].values), variants[0].spec
    title = spec.name if spec.scaling == "strong" else f"{spec.name}, the batch growing with the GPUs"
    columns = [*dict.fromkeys([*swept, *columns, *(name for row in rows for name in row)])]
    with ExitStack() as stack:
        table, bills, png, svg, parts, manifest = (stack.enter_context(written_whole(out / name)) for name in FILES)
        write_csv(table, columns, ([_cell(row.get(name)) for name in columns] for row in rows))
        write_csv(bills, [*swept, *_BILL], _bills(variants, rows))
        chart.draw(title, rows, (png, svg), swept)
        breakdown.draw(title, rows, parts, swept)
        content = _manifest(variants, source, timings, fidelity, table.read_bytes())
        manifest.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return list(FILES)


def _bills(variants: Sequence[Variant], rows: Sequence[Row]) -> Iterator[list[object]]:
    """Make a line for each kind of part of each network that serves the job."""
    served = {(*(row[path] for path in variants[0].values), row["gpus"], row["fabric"]) for row in rows if row["fits"]}
    for variant in variants:
        spec = variant.spec
        for gpus, fabric in product(sorted(spec.gpus), spec.fabrics):
            place = (*variant.values.values(), gpus, fabric.name)
            for item in bill(fabric_of(fabric, spec.chiplet).components(gpus), spec.prices) if place in served else ():
                yield [*map(_cell, (*place, *item.component, *item[1:4], item.usd, item.w, item.source))]


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.9g}" if isinstance(value, float) else value


def _manifest(
    variants: Sequence[Variant], source: str, timings: Sequence[Timing], fidelity: str, results: bytes
) -> dict[str, Any]:
    told = [_described(*each) for each in zip(variants, timings, strict=True)]
    return {
        "command": "study",
        "fidelity": fidelity,
        "source": source,
        **(told[0] if not variants[0].values else {"variants": told}),
        "results_sha256": hashlib.sha256(results).hexdigest(),
        "seeds": [],
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
        "platform": platform.platform(),
    }


def _described(variant: Variant, timing: Timing) -> dict[str, Any]:
    description = asdict(variant.spec)
    return {
        "spec": description,
        "spec_sha256": hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest(),
        "timing": timing.to_dict(),
    }


def print_table(variants: Sequence[Variant], rows: Sequence[Row]) -> None:
    """Print the rows to stdout, one section per variant and GPU count; one row for a count that no fabric can help."""
    swept = list(variants[0].values)
    sections = list[list[tuple[str, ...]]]()
    for (gpus, *values), group in groupby(rows, lambda row: (row["gpus"], *(row[path] for path in swept))):
        section = list(group)
        reasons = {row["reason"] for row in section}
        if None not in reasons and len(reasons) == 1:
            section = [section[0] | {"fabric": "all"}]
        sections.append([(*map(str, values), str(gpus), *_cells(row)) for row in section])
    console = Console(file=sys.stdout)
    console.width = console.width if console.is_terminal else PLAIN_WIDTH + 12 * len(swept)
    fields = [path.rpartition(".")[2] for path in swept]
    header = (*fields, "GPUs", "fabric", "iteration", "of baseline speed", "dp x tp x pp", "order", "where the time goes")
    spec = variants[0].spec
    title = Text(f"{spec.name}: one {'output token' if isinstance(spec.job, DecodeJobSpec) else 'training iteration'}")
    report.print_table(header, sections, title, (*fields, "GPUs", "iteration", "of baseline speed"), console)


def print_costs(variant: Variant, rows: Sequence[Row]) -> None:
    """Print what networks of the largest count cost, of the first variant, and speeds at equal cost, to stdout."""
    largest = max((row["gpus"] for row in rows if row["fits"]), default=0)
    shown = [row for row in rows if row["gpus"] == largest and row["fits"] and variant.values.items() <= row.items()]
    if not shown:
        return
    header = ("fabric", "$ per GPU", "W per GPU", "most of it", "speed", "speed per $", "per $ of network")
    lines = [(row["fabric"], *_costs(variant, row)) for row in shown]
    title = Text(f"Networks of {largest} GPUs, and speeds beside the baseline's; prices and sources are in network-bill.csv")
    console = Console(file=sys.stdout)
    console.width = console.width if console.is_terminal else PLAIN_WIDTH
    report.print_table(header, [lines], title, (*header[1:3], *header[4:]), console)


def _costs(variant: Variant, row: Row) -> Iterator[str]:
    fabric = next(each for each in variant.spec.fabrics if each.name == row["fabric"])
    dearest = bill(fabric_of(fabric, variant.spec.chiplet).components(row["gpus"]), variant.spec.prices)[:2]
    yield f"{row['network_usd_per_gpu']:,.0f}"
    yield f"{row['network_w_per_gpu']:,.1f}"
    shares = ((item.component.name.replace("_", " "), item.usd / (row["network_usd"] or 1)) for item in dearest)
    yield ", ".join(f"{name} {share:.0%}" for name, share in shares)
    for column in ("speed", "speed_per_usd", "speed_per_network_usd"):
        value = row[f"{column}_over_baseline"]
        yield f"{value:.1%}" if value else ""


def _cells(row: Row) -> tuple[str, ...]:
    if not row["fits"]:
        return row["fabric"], "-", "", "", "", row["reason"]
    speed = row["speed_over_baseline"]
    return (
        row["fabric"],
        duration(row["iteration_s"]),
        f"{speed:.1%}" if speed else "",
        f"{row['dp']} x {row['tp']} x {row['pp']}" + (f", cp {row['cp']}" if row.get("cp") else ""),
        row["order"],
        row["limit"],
    )


def duration(seconds: float) -> str:
    """Return a time as four digits and the unit that suits.

    >>> duration(0.0123456), duration(77.2449)
    ('12.35 ms', '77.24 s')
    """
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:#.4g} {unit}"
    return f"{seconds * 1e9:.4g} ns"
