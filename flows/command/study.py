"""``lightfabric study``: from a spec to the time of a training iteration, over GPU counts and fabrics.

CODE FLOW: ``check`` finds what cannot work before anything slow; the RTL is measured, or its timing taken from the cache,
while a worker loads the model; ``simulate`` then runs once per GPU count and fabric, in as many processes as there
are cores, and keeps the placement that is fastest there; the rows become tables, results.csv, a bill, figures and
manifest.json. Rows are kept in a journal as they finish, so that an interrupted study goes on where it was.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lightfabric.flows.experiment import fidelity as fidelities
from lightfabric.flows.experiment.cell import COLUMNS, Job, Row, cell_name
from lightfabric.flows.experiment.grid import Progress, simulated
from lightfabric.flows.experiment.loading import load_fluid, load_link
from lightfabric.flows.format.spec_file import Variant, load_variants
from lightfabric.flows.option import AsJson, Fidelity, SpecFile
from lightfabric.flows.report import InputError, print_json
from lightfabric.flows.tool.journal import Journal
from lightfabric.flows.tool.pool import ThisProcess, pool
from lightfabric.flows.tool.scheduler import require, scheduler
from lightfabric.model.spec import ChipletSpec, SpecError, StudySpec
from lightfabric.model.timing import Timing
from lightfabric.placement.job.kind import workload
from lightfabric.placement.workload.memory import DoesNotFit

JOURNAL = "unfinished.jsonl"
"""Beside the results, until all of them are there."""

_NEEDED = (
    "flows.cli", "flows.command.study", "model.fluid.engine", "model.cycle.sustained", "placement.graph.fold",
    "placement.place",
)  # fmt: skip
_FLITS_NEEDED = ("model.cycle.cabling", "model.cycle.cluster")
_PRELOAD = [f"lightfabric.{name}" for name in _NEEDED]


def check(spec: StudySpec, source: str, at: Callable[[list[int]], int] = min) -> dict[int, str]:
    """Why each GPU count cannot hold the job, ``""`` if it can; quick.

    InputError if none can, or if a fabric cannot serve that count of the others which ``at`` chooses.
    """
    reasons = {gpus: _does_not_fit(spec.at(gpus), gpus) for gpus in sorted(spec.gpus)}
    fitting = [gpus for gpus, reason in reasons.items() if not reason]
    if not fitting:
        raise InputError(f"{source}: gpus must be counts that hold the job, not {max(reasons)}: {reasons[max(reasons)]}")
    from lightfabric.placement.fabric.fabric import fabric_of
    from lightfabric.placement.place import ranked

    gpus = at(fitting)
    for fabric in spec.fabrics:
        try:
            next(ranked(spec.at(gpus).job, spec.accelerator, fabric_of(fabric, spec.chiplet), gpus, spec.plan))
        except SpecError as error:
            raise InputError(f"{source}: {error.of('chiplet')}") from None
        except ValueError as error:
            raise InputError(f"{source}: fabric {fabric.name!r} must serve {gpus} GPUs, but {error}") from None
    return reasons


def _does_not_fit(spec: StudySpec, gpus: int) -> str:
    try:
        workload(spec.job, spec.accelerator, spec.plan).require(gpus)
    except DoesNotFit as error:
        return str(error)
    return ""


def checked(spec: StudySpec, source: str, fidelity: str) -> dict[int, str]:
    """What ``check`` says, and at cycle fidelity ``check_flits`` too."""
    fidelities.require(fidelity)
    reasons = check(spec, source)
    if fidelity == "cycle":
        check_flits(spec, source, reasons)
    return reasons


def check_flits(spec: StudySpec, source: str, reasons: dict[int, str]) -> None:
    """InputError for the first cell too large to be run flit by flit, or that no cabling can serve."""
    from lightfabric.placement.fabric.fabric import fabric_of
    from lightfabric.placement.graph.fold import unfolded
    from lightfabric.placement.place import ranked

    for gpus in (gpus for gpus, reason in reasons.items() if not reason):
        for fabric in (fabric_of(each, spec.chiplet) for each in spec.fabrics):
            try:
                placed = next(ranked(spec.at(gpus).job, spec.accelerator, fabric, gpus, spec.plan))
            except ValueError:
                continue  # a row without times
            asked, name = workload(spec.at(gpus).job, spec.accelerator), cell_name(gpus, fabric.name)
            demand = unfolded(asked, placed.plan, placed.gpu_of_rank, fabric).demand_bytes()
            # What is relayed is moved over each circuit on its way.
            stops = placed.circuits.stops if placed.circuits else {}
            moved = sum(size * (len(stops.get(pair, pair)) - 1) for pair, size in demand.items())
            fidelities.require_few(moved // fabric.cycle_chiplet.payload_bytes, f"{source}: {name}")
            try:
                fabric.cabling(placed.nodes, placed.circuits)
            except ValueError as error:
                raise InputError(f"--fidelity must be fluid for {source}: {name}, not cycle: {error}") from None


def baseline(spec: StudySpec) -> str | None:
    """Name of the fabric that others are compared with: that of the spec, else the first of an ideal kind."""
    from lightfabric.model.fabric.fabric import fabric_of

    ideal = (fabric.name for fabric in spec.fabrics if fabric_of(fabric, spec.chiplet).is_reference)
    return spec.baseline or next(ideal, None)


def run(
    variants: Sequence[tuple[Variant, dict[int, str]]],
    timings: Callable[[Sequence[ChipletSpec], Executor | None], list[Timing]],
    progress: Progress = lambda *_: None,
    fidelity: str = "fluid",
    alone: bool = False,
    journal: Journal | None = None,
    cluster: str | None = None,
) -> tuple[list[Row], list[Timing], dict[str, fidelities.Detail]]:
    """Rows by variant, GPU count and the order of the spec's fabrics, whatever the number of processes and their speed.

    A variant comes with what ``check`` said of its counts. Beside the rows are the timing of each variant and
    what each cell shows of links and messages, by its name. What ``journal`` has of an earlier run is not run again.

    Unless ``alone`` a process per core does it, or the workers of the Dask scheduler at the address ``cluster``. Processes
    start by forkserver: a script that calls this then needs ``if __name__ == "__main__":``.
    """
    preload = [*_PRELOAD, *(f"lightfabric.{name}" for name in _FLITS_NEEDED if fidelity == "cycle")]
    most = sum(len(reasons) * len(variant.spec.fabrics) for variant, reasons in variants)
    start = ThisProcess if alone else partial(scheduler, cluster) if cluster else partial(pool, most, preload=preload)
    with start() as workers:
        loaded = [workers.submit(load) for load in (load_fluid, load_link)]
        measured = timings([variant.spec.chiplet for variant, _ in variants], None if alone else workers)
        for each in loaded:
            each.result()
        cells = [
            jobs(variant.spec, reasons, known, fidelity, variant.name)
            for (variant, reasons), known in zip(variants, measured, strict=True)
        ]
        found = simulated(workers, [job for part in cells for job in part], progress, journal)
    rows = list[Row]()
    for (variant, _), part in zip(variants, cells, strict=True):
        of_variant = [
            {**variant.values, **row, **(costs(job) if row["fits"] else {})} for job in part for row in found[job][:1]
        ]
        _compare(of_variant, baseline(variant.spec), variant.spec.prices.accelerator.at(0)[0])
        rows += of_variant
    details = {job.name: found[job][1] for part in cells for job in part}
    return rows, measured, {name: detail for name, detail in details.items() if detail}


def jobs(spec: StudySpec, reasons: dict[int, str], timing: Timing, fidelity: str, variant: str = "") -> list[Job]:
    """The cells of a study, or of a variant, by GPU count and then in the order of the fabrics."""
    from lightfabric.placement.fabric.fabric import fabric_of

    fabrics = [fabric_of(fabric, spec.chiplet, timing) for fabric in spec.fabrics]
    return [
        Job(spec.at(gpus), gpus, fabric, fidelity, reason, variant) for gpus, reason in reasons.items() for fabric in fabrics
    ]


def costs(job: Job) -> Row:
    """Columns of what the network of a cell costs and draws at the prices of the spec."""
    from lightfabric.model.fabric.component import bill

    items = bill(job.fabric.components(job.gpus), job.spec.prices)
    usd, w = sum(item.usd for item in items), sum(item.w for item in items)
    return {
        "network_usd": usd, "network_usd_per_gpu": usd / job.gpus, "network_w": w, "network_w_per_gpu": w / job.gpus,
    }  # fmt: skip


def _compare(rows: list[Row], name: str | None, accelerator_usd: float) -> None:
    best = {row["gpus"]: row for row in rows if row["fabric"] == name}
    for row in rows:
        reference = best.get(row["gpus"])
        if reference and reference["iteration_s"] and row["iteration_s"]:
            speed = reference["iteration_s"] / row["iteration_s"]
            row["speed_over_baseline"] = speed
            for column, own_usd in (("usd", row["gpus"] * accelerator_usd), ("network_usd", 0.0)):
                paid, theirs = row["network_usd"] + own_usd, reference["network_usd"] + own_usd
                row[f"speed_per_{column}_over_baseline"] = speed * theirs / paid if paid else None


def _of_largest(details: dict[str, fidelities.Detail], rows: Sequence[Row]) -> dict[str, fidelities.Detail]:
    """Details of the largest GPU count that has times, by what they are called without it."""
    largest = cell_name(max((row["gpus"] for row in rows if row["fits"]), default=0), "")
    return {name.removeprefix(largest): detail for name, detail in details.items() if name.startswith(largest)}


def main(
    path: SpecFile = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("lightfabric-out"),
    fidelity: Fidelity = "fluid",
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler whose workers run the study, not this machine.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The command: reads, checks, runs, writes the results into ``out`` and prints them."""
    fidelities.require(fidelity)
    if cluster is not None:
        require()
    variants = load_variants(path)
    source = str(path or variants[0].spec.name)
    known = [
        (variant, checked(variant.spec, ", ".join(filter(None, (source, variant.name))), fidelity)) for variant in variants
    ]
    from lightfabric.flows.figure import result

    drawn = fidelities.FILES if fidelity == "cycle" else fidelities.FILES[:1]
    names = [*result.FILES, *drawn]
    with result.folder(out, names), result.Bar() as bar:
        from lightfabric.flows.format.timing_store import measured_timings

        def timings(chiplets: Sequence[ChipletSpec], workers: Executor | None) -> list[Timing]:
            return measured_timings(chiplets, bar.measures, workers)

        journal = Journal(out / JOURNAL)
        rows, measured, details = run(known, timings, bar.done, fidelity, journal=journal, cluster=cluster)
        name = variants[0].spec.name
        from lightfabric.flows.figure.panel import draw

        draw(out, name, details if fidelity == "cycle" else _of_largest(details, rows), drawn)
        result.write(out, variants, source, rows, measured, COLUMNS, fidelity)
        journal.end()
    if as_json:
        print_json({"spec": name, "rows": rows, "files": names})
    else:
        result.print_table(variants, rows)
        result.print_costs(variants[0], rows)
        print(f"{', '.join(names)} are in {out}")
