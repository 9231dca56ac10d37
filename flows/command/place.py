"""``lightfabric place``: how a job is cut and where its ranks run, without simulating it."""

from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightfabric.flows.command.study import check
from lightfabric.flows.experiment.cell import GIB, fastest, plan_columns
from lightfabric.flows.figure.result import folder
from lightfabric.flows.format import task_graph as exchange
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.option import AsJson, SpecFile, count
from lightfabric.flows.report import InputError, print_json, require_file, say, written_whole
from lightfabric.model.spec import FabricSpec, StudySpec
from lightfabric.placement.job.kind import workload
from lightfabric.placement.mapping.order import OBJECTIVES as ORDER_OBJECTIVES
from lightfabric.placement.mapping.order import Objective, coordinates
from lightfabric.placement.mapping.traffic import degrees, ring_load
from lightfabric.placement.search.search import MAX_GPUS

if TYPE_CHECKING:
    from lightfabric.placement.cost.prediction import Prediction
    from lightfabric.placement.fabric.fabric import Fabric
    from lightfabric.placement.place import Placement
    from lightfabric.placement.workload.call import RankKind

OBJECTIVES = ("predicted-time", "simulated-time", *ORDER_OBJECTIVES)
"""What is least: the iteration, as predicted or by the fluid model; or what the order of ranks keeps low."""
_OF_ORDER: dict[str, Objective] = {known: known for known in ORDER_OBJECTIVES}


def main(
    path: SpecFile = None,
    gpus: Annotated[int | None, count("Number of GPUs; the spec's largest that fits if left out.")] = None,
    fabric: Annotated[str | None, typer.Option(help="Name of one of the spec's fabrics; all if left out.")] = None,
    as_json: AsJson = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Folder for the task graph as Chakra traces, or a file .goal or .bin for a program of LogGOPSim."),
    ] = None,
    topology: Annotated[Path | None, typer.Option(help="File .yaml or .json for the fabric as InfraGraph.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for figures of the traffic between GPUs.")] = None,
    objective: Annotated[
        str,
        typer.Option(
            help="What is least: predicted-time; simulated-time, as study chooses; or of the order of ranks, which is then "
            "searched for it: bottleneck, byte-hops, wavelengths."
        ),
    ] = "predicted-time",
) -> None:
    """The command: places the job on ``gpus`` GPUs of one fabric or all, and prints why it is so.

    ``objective`` is one of ``OBJECTIVES``. ``export`` is where the task graph on the GPUs of the only fabric is written: a
    GOAL program if its name ends in .goal or .bin, else a folder of Chakra traces. ``out`` is a folder for figures of the
    traffic, one per fabric; ``topology`` a file for its links in InfraGraph.
    """
    spec = chosen(load_spec(path), gpus, fabric)
    if objective not in OBJECTIVES:
        raise InputError(f"--objective must be one of {', '.join(OBJECTIVES)}, not {objective!r}")
    for option, path_out in (("--export", export), ("--topology", topology)):
        if path_out is not None and len(spec.fabrics) > 1:
            names = ", ".join(kind.name for kind in spec.fabrics)
            raise InputError(f"{option} must be with one --fabric of {names}, not none")
    if export is not None:
        exchange.require(export)
    if topology is not None:
        require_file(topology)
    with folder(out, [_figure_name(kind) for kind in spec.fabrics]) if out else nullcontext():
        _run(spec, str(path or spec.name), as_json, export, topology, out, objective)


def _run(
    spec: StudySpec, source: str, as_json: bool, export: Path | None, topology: Path | None, out: Path | None, objective: str
) -> None:
    count, found = placements(spec, source, objective)
    spec = spec.at(count)
    from lightfabric.placement.place import options

    placed = [placement for _, placement, _ in found]
    rows = [columns(*each) for each in found]
    tried = [options(spec.job, spec.accelerator, kind, count) for kind, _, _ in found]
    if out is not None:
        _draw(out, spec, placed)
    if export is not None:
        _export(export, spec, *found[0][:2])
    if topology is not None:
        _write_topology(topology, *found[0][:2])
    if as_json:
        for row, placement, (fastest, front) in zip(rows, placed, tried, strict=True):
            row |= {
                "communication": [*map(_communication, workload(spec.job, spec.accelerator).calls(placement.plan))],
                "fastest": [*map(_option, fastest)],
                "pareto": [*map(_option, front)],
            }
        print_json({"spec": spec.name, "gpus": count, "placements": rows})
        return
    _print_table(f"{spec.name} on {count} GPUs", rows)
    for kind, (_, front) in zip(spec.fabrics, tried, strict=True):
        if front:
            _print_options(f"{kind.name}: of all plans those that no other beats in time, memory and traffic", front)


Placed = tuple["Fabric", "Placement", float | None]
"""A fabric, the placement there, and the simulated iteration in seconds if that is the objective."""


def placements(spec: StudySpec, source: str, objective: str) -> tuple[int, list[Placed]]:
    """The largest of a spec's GPU counts that holds the job, and the placement on each fabric."""
    count = max(count for count, reason in check(spec, source, at=max).items() if not reason)
    from lightfabric.flows.format.timing_store import measured_timing

    timing = measured_timing(spec.chiplet, lambda block: say(f"simulating the RTL of the {block}, once for this chiplet"))
    from lightfabric.placement.fabric.fabric import fabric_of

    fabrics = [fabric_of(kind, spec.chiplet, timing) for kind in spec.fabrics]
    return count, [(kind, *_place(spec.at(count), kind, count, objective)) for kind in fabrics]


def chosen(spec: StudySpec, gpus: int | None, fabric: str | None) -> StudySpec:
    """The spec with one GPU count and one fabric, or all that it has; InputError if there is no such."""
    if gpus is not None and not 2 <= gpus <= MAX_GPUS:
        raise InputError(f"--gpus must be from 2 to {MAX_GPUS}, not {gpus}")
    fabrics = tuple(kind for kind in spec.fabrics if fabric in (None, kind.name))
    if not fabrics:
        raise InputError(f"--fabric must be one of {', '.join(kind.name for kind in spec.fabrics)}, not {fabric!r}")
    # A baseline that is not among them has nothing to be compared with.
    baseline = spec.baseline if any(kind.name == spec.baseline for kind in fabrics) else ""
    spec = replace(spec, fabrics=fabrics, baseline=baseline)
    return spec if gpus is None else replace(spec.at(gpus), gpus=(gpus,))


def _place(spec: StudySpec, fabric: "Fabric", gpus: int, objective: str) -> tuple["Placement", float | None]:
    """The placement, and the simulated iteration in seconds if that is the objective."""
    from lightfabric.placement.place import ordered, ranked

    try:
        if objective == "simulated-time":
            placed, _, schedule = fastest(spec, fabric, gpus)
            return placed, schedule.makespan_ps / 1e12
        placed = next(ranked(spec.job, spec.accelerator, fabric, gpus, spec.plan))
        if objective in _OF_ORDER:
            placed = ordered(spec.job, spec.accelerator, fabric, placed, _OF_ORDER[objective])
        return placed, None
    except ValueError as error:
        raise InputError(f"fabric {fabric.name!r} must serve {gpus} GPUs, but {error}") from None


def _export(path: Path, spec: StudySpec, fabric: "Fabric", placed: "Placement") -> None:
    from lightfabric.placement.graph.fold import unfolded

    asked = placed.graphs(workload(spec.job, spec.accelerator))
    exchange.write(path, unfolded(asked, placed.plan, placed.gpu_of_rank, fabric))


def _write_topology(path: Path, fabric: "Fabric", placed: "Placement") -> None:
    from lightfabric.flows.format import infragraph

    pairs = zip(placed.traffic.source.tolist(), placed.traffic.destination.tolist(), strict=True)
    try:
        if placed.nodes > placed.plan.gpus:
            raise ValueError("its circuits change during an iteration")
        infragraph.write(path, fabric.network(placed.plan.gpus, pairs, placed.circuits))
    except ValueError as error:
        raise InputError(
            f"--topology must be of a fabric that InfraGraph can describe, but of {fabric.name}: {error}"
        ) from None


def columns(fabric: "Fabric", placed: "Placement", simulated_s: float | None = None) -> dict[str, Any]:
    """What the command says of a placement, by column."""
    distance = placed.bytes_by_distance
    return {"fabric": fabric.name} | plan_columns(placed) | {
        "simulated_total_s": simulated_s,
        "order_s": placed.order.seconds,
        "order_bound_s": placed.order.bound_seconds,
        "byte_hops": placed.order.byte_hops,
        "byte_hops_bound": placed.order.bound_byte_hops,
        "circuits": None if placed.circuits is None else len(placed.circuits.lanes),
        **_lane_columns(fabric, placed),
        "gpus_by_degree": placed.gpus_by_degree.tolist(),
        "degree_of_gpu": degrees(placed.traffic, placed.plan.gpus).tolist(),
        "segment_bytes": ring_load(placed.traffic, placed.plan.gpus).tolist(),
        "bytes_by_distance": distance.tolist(),
        "mean_distance_gpus": float(distance @ range(len(distance))) / max(1, int(distance.sum())),
        "gpu_of_rank": placed.gpu_of_rank.tolist(),
    }  # fmt: skip


def _lane_columns(fabric: "Fabric", placed: "Placement") -> dict[str, Any]:
    """None where there are no lanes, or no wavelengths of circuits' own."""
    load = None
    if placed.circuits is not None:
        load = fabric.lane_load(placed.plan.gpus, placed.circuits, placed.traffic)
    return {
        "lane_bytes": load and load.most_bytes,
        "mean_lane_bytes": load and load.mean_bytes,
        "lane_bytes_bound": load and load.bound_bytes,
        "wavelengths": load and load.colouring and load.colouring.count,
        "wavelengths_bound": load and load.colouring and load.colouring.bound,
    }


def _communication(alike: "RankKind") -> dict[str, Any]:
    """Ranks whose calls are alike, and what goes into the collectives of one of them in an iteration."""
    total: dict[str, int] = {}
    for call in alike.calls:
        total[call.collective] = total.get(call.collective, 0) + call.size_bytes
    return {"ranks": alike.ranks, "bytes": total, "calls": [call._asdict() for call in alike.calls]}


def _option(option: "Prediction") -> dict[str, Any]:
    costs = {
        "predicted_s": option.total,
        "memory_gib": option.memory.total / GIB,
        "sent_gb_per_gpu": option.sent_bytes / 1e9,
    }
    assert option.plan is not None, "it is of one plan"
    return asdict(option.plan) | costs


_MAX_SHOWN = 6
"""Of the plans that nothing beats; --json has all."""


def _print_options(title: str, front: list["Prediction"]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title))
    rows = [_option(option) for option in front[:_MAX_SHOWN]]
    for name in rows[0] if rows else ():
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console = Console()
    console.width = max(console.width, 170)
    console.print(table)


def _figure_name(fabric: FabricSpec) -> str:
    return f"traffic-{fabric.name.replace(' ', '-').replace('/', '-')}.png"


def _draw(out: Path, spec: StudySpec, placed: list["Placement"]) -> None:
    """A figure for each fabric: bytes from GPU to GPU, ranks on GPUs, and what crosses each segment of a ring of all."""
    from lightfabric.flows.figure.chart import draw_traffic

    for kind, found in zip(spec.fabrics, placed, strict=True):
        with written_whole(out / _figure_name(kind)) as beside:
            draw_traffic(f"{spec.name}, {kind.name}", found.traffic, coordinates(found.plan, found.gpu_of_rank), beside)
        say(f"{out / _figure_name(kind)}: traffic between GPUs")


_LISTS = ("gpus_by_degree", "degree_of_gpu", "segment_bytes", "bytes_by_distance", "gpu_of_rank")
_NOTES = {
    "order_s": "all bytes through the bottleneck at once",
    "order_bound_s": "no order of ranks can be below",
    "compute_bound_s": "no fabric can be below with this plan",
    "max_degree": "other GPUs that a GPU sends to",
    "mean_distance_gpus": "of a byte, along a ring of all GPUs",
    "byte_hops": "bytes times ring segments",
    "byte_hops_bound": "no order of ranks can be below",
    "lane_bytes": "over the fullest wavelength of a ring, port of an OCS",
    "lane_bytes_bound": "no lanes for these circuits can be below",
    "wavelengths": "so that each pair of GPUs on the ring has its own",
    "wavelengths_bound": "no numbering can be below",
}


def _print_table(title: str, placements: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title))
    table.add_column("", no_wrap=True)
    for placement in placements:
        table.add_column(Text(placement["fabric"]), justify="right")
    table.add_column("", no_wrap=True)
    for name in (name for name in placements[0] if name not in ("fabric", *_LISTS)):
        table.add_row(name, *(_cell(placement[name]) for placement in placements), _NOTES.get(name, ""))
    console = Console()
    console.width = max(console.width, 170)
    console.print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
