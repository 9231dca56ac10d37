"""A cell of a study is one GPU count on one fabric: it is placed and simulated here, and becomes a row of columns."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightfabric.flows.experiment import fidelity as fidelities
from lightfabric.flows.tool.pool import memory_bytes
from lightfabric.model.spec import StudySpec
from lightfabric.model.task import SHARES
from lightfabric.placement.job.kind import workload

if TYPE_CHECKING:
    from lightfabric.model.circuit import Circuits
    from lightfabric.model.task import Schedule, TaskGraph
    from lightfabric.placement.fabric.fabric import Fabric
    from lightfabric.placement.graph.fold import Folded
    from lightfabric.placement.place import Placement

    Simulated = tuple[Placement, Folded, Schedule]

Row = dict[str, Any]
"""One GPU count on one fabric: a value per column of results.csv."""

Cell = tuple[Row, fidelities.Detail | None]
"""A row, and what a run shows beside."""

GIB = 1 << 30
MAX_LATE = 4
"""Placements in a row that are simulated and are no faster than one before."""


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
        return ", ".join(filter(None, (cell_name(self.gpus, self.fabric.name), self.variant)))


def cell_name(gpus: int, fabric: str) -> str:
    """How progress and errors call a cell."""
    return f"{gpus} GPUs, {fabric}"


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


def simulated(job: Job) -> tuple[Row, "Placement", "Schedule", fidelities.Detail]:
    """Placement, task graph and model of one cell; ValueError if it cannot be served."""
    if job.reason:
        raise ValueError(job.reason)
    from lightfabric.flows.experiment.link_load import link_load
    from lightfabric.model.fluid.attribution import attribution

    spec, asked = job.spec, workload(job.spec.job, job.spec.accelerator)
    placed, run, schedule = fastest(spec, job.fabric, job.gpus)
    graph, network, alike = run
    tasks = int(alike.copies(graph).sum())
    if job.fidelity == "fluid":
        detail = link_load(job.fabric, job.gpus, run, schedule)
    else:
        graph = _whole(spec, job.fabric, placed)
        schedule, detail = _run_flits(job.fabric, graph, placed.circuits)
    seconds = schedule.makespan_ps / 1e12
    spent_s = {name: spent_ps / 1e12 for name, spent_ps in attribution(graph, network, schedule).items()}
    return _row(job) | plan_columns(placed) | {
        "tasks": tasks,
        "links": len(schedule.link_busy_ps),
        "limit": _largest(spent_s),
        **{f"{name}_s": spent for name, spent in spent_s.items()},
        "busiest_link_share": float(schedule.link_busy_ps.max(initial=0)) / schedule.makespan_ps,
        "iteration_s": seconds,
        "samples_per_s": asked.samples / seconds,
        "tokens_per_s": asked.tokens and asked.tokens / seconds,
        **asked.figures(placed.plan, seconds, job.fabric.bytes_per_s),
    }, placed, schedule, detail  # fmt: skip


def fastest(spec: StudySpec, fabric: "Fabric", gpus: int) -> "Simulated":
    """The placement with the shortest simulated iteration, its folded task graph on the GPUs, and the schedule there.

    Placements are simulated, the fastest predicted first, until no prediction is below the shortest, or ``MAX_LATE`` in a
    row are no shorter: a prediction leaves out that parts compete for links. Each only until it is known to be no shorter.
    ValueError if the fabric cannot serve.
    """
    from lightfabric.model.fluid import engine as fluid
    from lightfabric.placement.place import ranked

    best, before_ps, late = None, fluid.HORIZON_PS, 0
    for placed in ranked(spec.job, spec.accelerator, fabric, gpus, spec.plan):
        if placed.prediction.total * 1e12 >= before_ps or late == MAX_LATE:
            break
        late += 1
        run = _folded(spec, fabric, placed)
        with suppress(fluid.Late):
            schedule = fluid.run(run.graph, run.network, alike=run.alike, before_ps=before_ps)
            best, before_ps, late = (placed, run, schedule), schedule.makespan_ps, 0
    assert best is not None, "there is a candidate, or an error"
    return best


def _folded(spec: StudySpec, fabric: "Fabric", placed: "Placement") -> "Folded":
    from lightfabric.model.fluid.alike import Alike
    from lightfabric.placement.graph.fold import Folded, folded

    if placed.circuits is not None and placed.circuits.configurations > 1:
        graph = _whole(spec, fabric, placed)
        network = fabric.network(graph.devices, graph.demand_bytes(), placed.circuits)
        # Ranks that are alike on each configuration need not turn their ports together, so nothing is folded.
        return Folded(graph, network, Alike.nothing(network))
    asked = placed.graphs(workload(spec.job, spec.accelerator))
    return folded(asked, placed.plan, placed.gpu_of_rank, fabric, placed.circuits)


def _whole(spec: StudySpec, fabric: "Fabric", placed: "Placement") -> "TaskGraph":
    """The tasks of all ranks, with the turns of circuits between them."""
    from lightfabric.placement.graph.fold import unfolded

    asked = placed.graphs(workload(spec.job, spec.accelerator))
    graph = unfolded(asked, placed.plan, placed.gpu_of_rank, fabric)
    return fabric.reconfigured(graph, placed.circuits)


def _run_flits(fabric: "Fabric", graph: "TaskGraph", circuits: "Circuits | None") -> tuple["Schedule", fidelities.Detail]:
    return fidelities.run(graph, fabric.cycle_chiplet, fabric.cycle_timing, fabric.cabling(graph.devices, circuits))


def _row(job: Job) -> Row:
    fabric = job.fabric
    return dict.fromkeys(COLUMNS) | {
        "gpus": job.gpus,
        "batch": job.spec.job.batch,
        "fabric": fabric.name,
        "fabric_kind": fabric.spec.kind,
        "fits": True,
        "link_latency_ns": fabric.link_latency_ns,
        "switch_latency_ns": fabric.switch_ps / 1000,
        "port_payload_gbps": fabric.port_gbps * fabric.efficiency,
        "slot_loss_rate": fabric.slot_loss_rate,
        "goodput_share": fabric.goodput_share,
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
        **({"cp": plan.cp} if plan.cp > 1 else {}),
    }  # fmt: skip


def _finite_gbps(bytes_per_s: float) -> float | None:
    return bytes_per_s * 8e-9 if bytes_per_s < float("inf") else None


def _largest(parts: Mapping[str, float]) -> str:
    """The two largest parts of an iteration and their shares."""
    first, second = sorted(parts.items(), key=lambda part: -part[1])[:2]
    return ", ".join(f"{name} {value / sum(parts.values()):.0%}" for name, value in (first, second))


_MEMORY = ("weights", "gradients", "optimiser", "activations", "total")
_SECONDS = ("compute", "tensor", "pipeline", "bubble", "data", "optimiser", "reconfiguration", "total")

COLUMNS = (
    "gpus", "fabric", "fabric_kind", "fits", "reason", "iteration_s", "compute_bound_s", "samples_per_s", "tokens_per_s",
    "speed_over_baseline", "speed_per_usd_over_baseline", "speed_per_network_usd_over_baseline",
    "network_usd", "network_usd_per_gpu", "network_w", "network_w_per_gpu", "batch",
    "dp", "tp", "pp", "virtual_stages", "first_layers", "last_layers", "ep", "expert_group", "zero",
    "micro_batch_sequences", "recompute", "order", "limit",
    *(f"memory_{name}_gib" for name in _MEMORY), *(f"predicted_{name}_s" for name in _SECONDS),
    "tensor_gbps", "pipeline_gbps", "data_gbps", "port_payload_gbps", "link_latency_ns", "switch_latency_ns",
    *(f"{name}_s" for name in SHARES),
    "max_degree", "tasks", "links", "busiest_link_share", "slot_loss_rate", "goodput_share",
)  # fmt: skip
"""Of results.csv, in order. ``tensor_gbps`` and its like are payload rates from a GPU to its neighbour of that dimension.
``compute_s`` to ``reconfiguration_s`` are where the time of the simulated iteration goes, ``predicted_compute_s`` and its
like what was predicted. ``slot_loss_rate`` is the share of a line's slots that bit errors spoil, ``goodput_share`` what is
left of a port's payload rate over ``reach_m`` of fibre. Where links have rates and latencies of their own, these are the
least rate and the longest latency of a GPU's links, and no switch adds to it. A network is all but the accelerators, which
``speed_per_usd`` pays for, too."""
