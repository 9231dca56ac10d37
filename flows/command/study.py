"""``lightfabric study``: from a spec to the time of a training iteration, over GPU counts and fabrics.

CODE FLOW: ``check`` finds what cannot work before anything slow; the RTL is measured, or its timing taken from the cache,
while a worker loads the model; ``simulate`` then runs once per GPU count and fabric, in as many processes as there
are cores, and keeps the placement that is fastest there; the rows become a table, results.csv, a figure and manifest.json.
Rows are kept in a journal as they finish, so that an interrupted study goes on where it was.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightfabric.flows.experiment import fidelity as fidelities
from lightfabric.flows.experiment.loading import load_fluid, load_link
from lightfabric.flows.format.spec_file import Variant, load_variants
from lightfabric.flows.option import AsJson, Fidelity, SpecFile
from lightfabric.flows.report import InputError, RunError, print_json
from lightfabric.flows.tool.journal import Journal, key_of
from lightfabric.flows.tool.pool import ThisProcess, memory_bytes, pool
from lightfabric.model.spec import ChipletSpec, SpecError, StudySpec
from lightfabric.model.task import SHARES
from lightfabric.model.timing import Timing
from lightfabric.placement.job.kind import workload
from lightfabric.placement.workload.memory import DoesNotFit

if TYPE_CHECKING:
    from lightfabric.model.circuit import Circuits
    from lightfabric.model.fluid.network import Network
    from lightfabric.model.task import Schedule, TaskGraph
    from lightfabric.placement.fabric.fabric import Fabric
    from lightfabric.placement.place import Placement

    Simulated = tuple[Placement, TaskGraph, Network, Schedule]

Row = dict[str, Any]
"""One GPU count on one fabric: a value per column of results.csv."""

Cell = tuple[Row, fidelities.Detail | None]
"""A row, and what a run at cycle fidelity shows beside."""

Progress = Callable[[str, int, int], None]
"""Hears what was done, and how many of how many jobs are done now."""

GIB = 1 << 30
JOURNAL = "unfinished.jsonl"
"""Beside the results, until all of them are there."""

_NEEDED = (
    "flows.cli", "flows.command.study", "model.fluid.engine", "model.cycle.sustained", "placement.graph.iteration",
    "placement.place",
)  # fmt: skip
_FLITS_NEEDED = ("model.cycle.cabling", "model.cycle.cluster")
_PRELOAD = [f"lightfabric.{name}" for name in _NEEDED]


@dataclass(frozen=True)
class Job:
    """One cell of the study; ``reason`` says why so many GPUs cannot hold the job, empty if they can."""

    spec: StudySpec
    gpus: int
    fabric: "Fabric"
    fidelity: str
    reason: str
    variant: str = ""

    @property
    def name(self) -> str:
        """How progress and errors call it."""
        return ", ".join(filter(None, (_cell_name(self.gpus, self.fabric), self.variant)))


def check(spec: StudySpec, source: str, at: Callable[[list[int]], int] = min) -> dict[int, str]:
    """Why each GPU count cannot hold the job, ``""`` if it can; quick.

    InputError if none can, or if a fabric cannot serve that count of the others which ``at`` chooses.
    """
    reasons = {gpus: _does_not_fit(spec, gpus) for gpus in sorted(spec.gpus)}
    fitting = [gpus for gpus, reason in reasons.items() if not reason]
    if not fitting:
        raise InputError(f"{source}: gpus must be counts that hold the job, not {max(reasons)}: {reasons[max(reasons)]}")
    from lightfabric.placement.fabric.fabric import fabric_of
    from lightfabric.placement.place import candidates

    gpus = at(fitting)
    for fabric in spec.fabrics:
        try:
            candidates(spec.job, spec.accelerator, fabric_of(fabric, spec.chiplet), gpus)
        except SpecError as error:
            raise InputError(f"{source}: {error.of('chiplet')}") from None
        except ValueError as error:
            raise InputError(f"{source}: fabric {fabric.name!r} must serve {gpus} GPUs, but {error}") from None
    return reasons


def _does_not_fit(spec: StudySpec, gpus: int) -> str:
    try:
        workload(spec.job, spec.accelerator).require(gpus)
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
    from lightfabric.placement.place import candidates

    for gpus in (gpus for gpus, reason in reasons.items() if not reason):
        for fabric in (fabric_of(each, spec.chiplet) for each in spec.fabrics):
            try:
                placed = candidates(spec.job, spec.accelerator, fabric, gpus)[0]
            except ValueError:
                continue  # a row without times
            graph = workload(spec.job, spec.accelerator).task_graph(placed.plan)
            name = _cell_name(gpus, fabric)
            fidelities.require_few(sum(graph.demand_bytes().values()) // spec.chiplet.payload_bytes, f"{source}: {name}")
            try:
                fabric.cabling(gpus, placed.circuits)
            except ValueError as error:
                raise InputError(f"--fidelity must be fluid for {source}: {name}, not cycle: {error}") from None


def _cell_name(gpus: int, fabric: "Fabric") -> str:
    return f"{gpus} GPUs, {fabric.name}"


def simulate(job: Job) -> Cell:
    """The row of one cell; one that cannot be served, or simulated for want of memory, gives a row without times."""
    try:
        row, _, _, detail = simulated(job)
    except ValueError as error:
        return _row(job) | {"fits": False, "reason": str(error)}, None
    except MemoryError:
        reason = f"to simulate it takes more than the {memory_bytes() / GIB:.3g} GiB of memory that a process may have here"
        return _row(job) | {"fits": False, "reason": reason}, None
    return row, detail


def simulated(job: Job) -> tuple[Row, "Placement", "Schedule", fidelities.Detail | None]:
    """Placement, task graph and model of one cell; ValueError if it cannot be served."""
    from lightfabric.model.fluid.attribution import attribution

    if job.reason:
        raise ValueError(job.reason)
    spec = job.spec
    placed, graph, network, schedule = fastest(spec, job.fabric, job.gpus)
    detail = None
    if job.fidelity == "cycle":
        schedule, detail = _run_flits(job, graph, placed.circuits)
    seconds, asked = schedule.makespan_ps / 1e12, workload(spec.job, spec.accelerator)
    spent_s = {name: spent_ps / 1e12 for name, spent_ps in attribution(graph, network, schedule).items()}
    return _row(job) | plan_columns(placed) | {
        "tasks": len(graph),
        "links": len(schedule.link_busy_ps),
        "limit": _largest(spent_s),
        **{f"{name}_s": spent for name, spent in spent_s.items()},
        "busiest_link_share": float(schedule.link_busy_ps.max(initial=0)) / schedule.makespan_ps,
        "iteration_s": seconds,
        "samples_per_s": asked.samples / seconds,
        "tokens_per_s": asked.tokens and asked.tokens / seconds,
    }, placed, schedule, detail  # fmt: skip


def fastest(spec: StudySpec, fabric: "Fabric", gpus: int) -> "Simulated":
    """The placement with the shortest simulated iteration, its task graph on the GPUs, the network, and the schedule there.

    Candidates are simulated, the fastest predicted first, until no prediction is below the shortest: a prediction leaves
    out that parts compete for links. ValueError if the fabric cannot serve.
    """
    from lightfabric.placement.place import candidates

    best = None
    for placed in candidates(spec.job, spec.accelerator, fabric, gpus):
        if best is not None and placed.prediction.total * 1e12 >= best[-1].makespan_ps:
            break
        tried = _run_fluid(spec, fabric, placed)
        if best is None or tried[-1].makespan_ps < best[-1].makespan_ps:
            best = tried
    assert best is not None, "there is a candidate, or an error"
    return best


def _run_fluid(spec: StudySpec, fabric: "Fabric", placed: "Placement") -> "Simulated":
    from lightfabric.model.fluid import engine as fluid
    from lightfabric.placement.graph.rings import in_rings

    graph = workload(spec.job, spec.accelerator).task_graph(placed.plan).placed(placed.gpu_of_rank)
    graph = in_rings(graph, fabric.rings)
    network = fabric.network(placed.plan.gpus, graph.demand_bytes(), placed.circuits)
    return placed, graph, network, fluid.run(graph, network)


def _run_flits(job: Job, graph: "TaskGraph", circuits: "Circuits | None") -> tuple["Schedule", fidelities.Detail]:
    return fidelities.run(graph, job.spec.chiplet, job.fabric.measured, job.fabric.cabling(job.gpus, circuits))


def _row(job: Job) -> Row:
    timing, chiplet = job.fabric.measured, job.spec.chiplet
    nanoseconds = chiplet.cycle_ps / 1000
    return dict.fromkeys(COLUMNS) | {
        "gpus": job.gpus,
        "fabric": job.fabric.name,
        "fabric_kind": job.fabric.spec.kind,
        "fits": True,
        "link_latency_ns": timing.link.latency_cycles * nanoseconds,
        "switch_latency_ns": timing.switch.latency_cycles * nanoseconds,
        "port_payload_gbps": chiplet.gbps_per_port * job.fabric.efficiency,
        "slot_loss_rate": job.fabric.slot_loss_rate,
        "goodput_share": job.fabric.goodput_share,
    }


def plan_columns(placed: Any) -> Row:
    """Columns of a ``Placement``: plan, order, memory, what is predicted and the rates behind it."""
    plan, seconds, rates = placed.plan, placed.prediction, placed.rates
    return {
        "dp": plan.dp, "tp": plan.tp, "pp": plan.pp,
        "virtual_stages": plan.virtual_stages, "first_layers": plan.first_layers, "last_layers": plan.last_layers,
        "ep": plan.ep, "expert_group": plan.expert_group, "zero": plan.zero,
        "micro_batch_sequences": plan.micro_batch, "recompute": plan.recompute, "order": placed.order.name,
        **{f"memory_{name}_gib": getattr(seconds.memory, name) / GIB for name in _MEMORY},
        **{f"predicted_{name}_s": getattr(seconds, name) for name in _SECONDS},
        **{f"{name}_gbps": _finite_gbps(getattr(rates, name)) for name in ("tensor", "pipeline", "data")},
        "compute_bound_s": placed.compute_bound_seconds,
        "max_degree": len(placed.gpus_by_degree) - 1,
        "limit": _largest({name: getattr(seconds, name) for name in _SECONDS if name != "total"}),
    }  # fmt: skip


def _finite_gbps(bytes_per_s: float) -> float | None:
    return bytes_per_s * 8e-9 if bytes_per_s < float("inf") else None


def _largest(parts: Mapping[str, float]) -> str:
    """The two largest parts of an iteration and their shares."""
    first, second = sorted(parts.items(), key=lambda part: -part[1])[:2]
    return ", ".join(f"{name} {value / sum(parts.values()):.0%}" for name, value in (first, second))


_MEMORY = ("weights", "gradients", "optimiser", "activations", "total")
_SECONDS = ("compute", "tensor", "pipeline", "bubble", "data", "optimiser", "total")

COLUMNS = (
    "gpus", "fabric", "fabric_kind", "fits", "reason", "iteration_s", "compute_bound_s", "samples_per_s", "tokens_per_s",
    "speed_over_baseline",
    "dp", "tp", "pp", "virtual_stages", "first_layers", "last_layers", "ep", "expert_group", "zero",
    "micro_batch_sequences", "recompute", "order", "limit",
    *(f"memory_{name}_gib" for name in _MEMORY), *(f"predicted_{name}_s" for name in _SECONDS),
    "tensor_gbps", "pipeline_gbps", "data_gbps", "port_payload_gbps", "link_latency_ns", "switch_latency_ns",
    *(f"{name}_s" for name in SHARES),
    "max_degree", "tasks", "links", "busiest_link_share", "slot_loss_rate", "goodput_share",
)  # fmt: skip
"""Of results.csv, in order. ``tensor_gbps`` and its like are payload rates from a GPU to its neighbour of that dimension.
``compute_s`` to ``contention_s`` are where the time of the simulated iteration goes, ``predicted_compute_s`` and its like
what was predicted. ``slot_loss_rate`` is the share of a line's slots that bit errors spoil, ``goodput_share`` what is left
of a port's payload rate over ``reach_m`` of fibre."""


def baseline(spec: StudySpec) -> str | None:
    """Name of the fabric that others are compared with: that of the spec, else the first of an ideal kind."""
    from lightfabric.model.fabric.fabric import fabric_of

    ideal = (fabric.name for fabric in spec.fabrics if fabric_of(fabric, spec.chiplet).is_reference)
    return spec.baseline or next(ideal, None)


def run(
    variants: Sequence[tuple[Variant, dict[int, str]]],
    timing: Callable[[ChipletSpec, Executor | None], Timing],
    progress: Progress = lambda *_: None,
    fidelity: str = "fluid",
    alone: bool = False,
    journal: Journal | None = None,
) -> tuple[list[Row], list[Timing], dict[str, fidelities.Detail]]:
    """Rows by variant, GPU count and the order of the spec's fabrics, whatever the number of processes and their speed.

    A variant comes with what ``check`` said of its counts. Beside the rows are the timing of each variant and, at cycle
    fidelity, what that shows of each cell, by name. What ``journal`` has of an earlier run is not run again.

    Unless ``alone`` a process per core does it. They start by forkserver: a script that calls this then needs
    ``if __name__ == "__main__":``.
    """
    preload = [*_PRELOAD, *(f"lightfabric.{name}" for name in _FLITS_NEEDED if fidelity == "cycle")]
    most = sum(len(reasons) * len(variant.spec.fabrics) for variant, reasons in variants)
    with ThisProcess() if alone else pool(most, preload=preload) as workers:
        loaded = [workers.submit(load) for load in (load_fluid, load_link)]
        measured = [timing(variant.spec.chiplet, None if alone else workers) for variant, _ in variants]
        for each in loaded:
            each.result()
        cells = [
            jobs(variant.spec, reasons, known, fidelity, variant.name)
            for (variant, reasons), known in zip(variants, measured, strict=True)
        ]
        found = _simulated(workers, [job for part in cells for job in part], progress, journal)
    rows = list[Row]()
    for (variant, _), part in zip(variants, cells, strict=True):
        of_variant = [{**variant.values, **found[job][0]} for job in part]
        _compare(of_variant, baseline(variant.spec))
        rows += of_variant
    details = {job.name: found[job][1] for part in cells for job in part}
    return rows, measured, {name: detail for name, detail in details.items() if detail}


def _simulated(workers: Executor, cells: list[Job], progress: Progress, journal: Journal | None) -> dict[Job, Cell]:
    found = _kept(journal, cells) if journal else {}
    # The largest, which take longest, first.
    waiting = sorted((job for job in cells if not job.reason and job not in found), key=lambda job: -job.gpus)
    futures = {workers.submit(simulate, job): job for job in waiting}
    total = len(futures) + len(found)
    if found:
        progress("kept of an earlier run", len(found), total)
    for job, cell in _finished(futures):
        found[job] = cell
        # Another run may have more memory.
        if journal and cell[0]["fits"]:
            journal.keep(_key(job), _plain(cell))
        progress(job.name, len(found), total)
    hopeless = [job for job in cells if job.reason]
    return found | dict(zip(hopeless, workers.map(simulate, hopeless), strict=True))


def jobs(spec: StudySpec, reasons: dict[int, str], timing: Timing, fidelity: str, variant: str = "") -> list[Job]:
    """The cells of a study, or of a variant, by GPU count and then in the order of the fabrics."""
    from lightfabric.placement.fabric.fabric import fabric_of

    fabrics = [fabric_of(fabric, spec.chiplet, timing) for fabric in spec.fabrics]
    return [Job(spec, gpus, fabric, fidelity, reason, variant) for gpus, reason in reasons.items() for fabric in fabrics]


def _finished(futures: dict["Future[Cell]", Job]) -> Iterator[tuple[Job, Cell]]:
    for future in as_completed(futures):
        try:
            yield futures[future], future.result()
        except ValueError as error:
            raise RunError(f"{futures[future].name}: {error}") from None
        except BrokenProcessPool:
            # Processes take one cell more than they work on.
            begun = "; ".join(job.name for each, job in futures.items() if each.running()) or "none"
            raise RunError(f"a worker process ended early, perhaps for want of memory; of these cells: {begun}") from None


def _key(job: Job) -> str:
    spec = job.spec
    parts = (spec.accelerator, spec.job, spec.chiplet, job.fabric.spec)
    return key_of([*map(asdict, parts), job.fabric.measured.to_dict(), job.gpus, job.fidelity])


def _plain(cell: Cell) -> Row:
    row, detail = cell
    return {"row": row, "detail": detail and [detail.nodes, detail.load.tolist(), detail.messages.tolist()]}


def _kept(journal: Journal, cells: list[Job]) -> dict[Job, Cell]:
    import numpy as np

    found = dict[Job, Cell]()
    for job in cells:
        if known := journal.found.get(_key(job)):
            nodes, load, messages = known["detail"] or [None] * 3
            detail = fidelities.Detail(nodes, np.array(load), np.array(messages, np.int64)) if nodes else None
            found[job] = known["row"], detail
    return found


def _compare(rows: list[Row], name: str | None) -> None:
    best = {row["gpus"]: row["iteration_s"] for row in rows if row["fabric"] == name}
    for row in rows:
        reference = best.get(row["gpus"])
        if reference and row["iteration_s"]:
            row["speed_over_baseline"] = reference / row["iteration_s"]


def main(
    path: SpecFile = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("lightfabric-out"),
    fidelity: Fidelity = "fluid",
    as_json: AsJson = False,
) -> None:
    """The command: reads, checks, runs, writes the results into ``out`` and prints them."""
    fidelities.require(fidelity)
    variants = load_variants(path)
    source = str(path or variants[0].spec.name)
    known = [
        (variant, checked(variant.spec, ", ".join(filter(None, (source, variant.name))), fidelity)) for variant in variants
    ]
    from lightfabric.flows.figure import result

    names = [*result.FILES, *(fidelities.FILES if fidelity == "cycle" else ())]
    with result.folder(out, names), result.Bar() as bar:
        from lightfabric.flows.format.timing_store import measured_timing

        def timing(chiplet: ChipletSpec, workers: Executor | None) -> Timing:
            return measured_timing(chiplet, bar.measures, workers)

        journal = Journal(out / JOURNAL)
        rows, measured, details = run(known, timing, bar.done, fidelity, journal=journal)
        name = variants[0].spec.name
        if fidelity == "cycle":
            from lightfabric.flows.figure.panel import draw

            draw(out, name, details)
        result.write(out, variants, source, rows, measured, COLUMNS, fidelity)
        journal.end()
    if as_json:
        print_json({"spec": name, "rows": rows, "files": names})
    else:
        result.print_table(variants, rows)
        print(f"{', '.join(names)} are in {out}")
