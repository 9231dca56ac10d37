"""``lightfabric replay`` runs the task graph of a real job on a fabric, as its authors ran it."""

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from lightfabric.flows.experiment.fidelity import FILES, MAX_FLITS, require, run
from lightfabric.flows.format import task_graph as exchange
from lightfabric.flows.option import AsJson, Fidelity
from lightfabric.flows.report import InputError, RunError, print_json, require_file, require_one_of
from lightfabric.model.spec import ACCELERATORS, ChipletSpec
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.graph.any_source import Wire
from lightfabric.placement.graph.collective import ALGORITHMS

if TYPE_CHECKING:
    from lightfabric.model.fluid.network import Network
    from lightfabric.model.fluid.shortest import Topology
    from lightfabric.model.task import Schedule
    from lightfabric.placement.collective.choice import Choose

# 2 us for each step of a message: the set-up that reproduces the iteration times published with the TopoOpt files.
MESSAGE_LATENCY_PS = 2_000_000
MAX_LATENCY_S = 1.0
FABRICS = ("ideal-switch", "topoopt")
"""By name; any other is a file of InfraGraph."""
TOPOLOGIES = (".yaml", ".yml", ".json")
AUTO = "auto"
"""The algorithm of the least predicted time for each collective."""
FORWARDINGS = ("cut-through", "store-and-forward")
DEGREE = 4
"""Links of a node of TopoOpt unless it is said: the smaller one of its published results."""
MAX_DEGREE = 64
FLIGHT_PS = 1.0
# At cycle fidelity a beat goes out in each cycle, four make a flit.
CHIPLET = ChipletSpec(
    ports=1, wavelengths_per_port=8, wavelength_gbps=16.5, core_clock_mhz=250.0, flit_bytes=256, reach_m=10.0
)

_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([MGT])bps")
_GBPS = {"M": 1e-3, "G": 1.0, "T": 1e3}
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ps|ns|us|ms|s)")
_PS = {"ps": 1, "ns": 10**3, "us": 10**6, "ms": 10**9, "s": 10**12}
_MIN_GBPS, _MAX_GBPS = 1e-3, 1e6


def replay(
    path: Path,
    bandwidth_gbps: float,
    fidelity: str = "fluid",
    *,
    out: Path | None = None,
    trace: Path | None = None,
    latency_ps: int = MESSAGE_LATENCY_PS,
    algorithm: str | None = None,
    accelerator: str | None = None,
    fabric: str = FABRICS[0],
    degree: int = DEGREE,
    forwarding: str = FORWARDINGS[0],
) -> dict[str, Any]:
    """Run one iteration of a task graph on an ideal switch, with ``bandwidth_gbps`` per node and direction.

    ``exchange.read`` says what ``path`` may be and for which of them ``algorithm`` and ``accelerator`` are; ``latency_ps``
    is that of each message; ``trace`` is a file for the schedule, see ``trace.write``. On ``fabric`` topoopt ``degree``
    links of ``bandwidth_gbps`` lead from each node straight to others, see ``direct_connect``. Any other ``fabric`` is a
    topology in a file, see ``infragraph.read``: then ``bandwidth_gbps`` is that of links for which it says none, and the
    latencies of links are added to that of each message. With ``forwarding`` store-and-forward a message is whole at each
    end of a link before it goes on, as in ASTRA-sim's analytical network: see ``stored_and_forwarded``.

    The published bandwidth is payload: nothing is taken off for coding or headers, and at fluid fidelity the links
    themselves have no latency. At cycle fidelity every flit goes over the link, the switch and another link of a chiplet of
    that payload rate, with the timing of its RTL, and the load of the links and the latency of the messages are drawn into
    the folder ``out``. InputError names the file and the field that is wrong.
    """
    wire = Wire(latency_ps, 8e3 / bandwidth_gbps)
    how = _chooser(fabric, bandwidth_gbps, latency_ps) if algorithm == AUTO else algorithm
    graph, nodes = exchange.read(path, how, ACCELERATORS[accelerator] if accelerator else None, wire)
    tasks = len(graph)
    try:
        if fidelity == "cycle":
            schedule = _run_flits(graph, bandwidth_gbps, latency_ps, f"{path.name} at {bandwidth_gbps:g} Gbps", out)
        else:
            stored = forwarding == "store-and-forward"
            graph, network = _joined(graph, nodes, fabric, bandwidth_gbps, degree, stored=stored)
            schedule = _run_stored(graph, network, latency_ps) if stored else _run_fluid(graph, network, latency_ps)
    except ValueError as error:
        raise RunError(f"{path}: {error}") from None
    if trace is not None:
        from lightfabric.flows.format.perfetto import write

        write(trace, graph, schedule)
    return {
        "file": str(path),
        "fabric": fabric,
        "fidelity": fidelity,
        "bandwidth_gbps": bandwidth_gbps,
        "devices": nodes,
        "tasks": tasks,
        "iteration_ms": schedule.makespan_ps / 1e9,
    }


def _chooser(fabric: str, bandwidth_gbps: float, latency_ps: int) -> "Choose":
    """Return what chooses the algorithm of each collective on a fabric whose links the choice does not change."""
    from lightfabric.model.fluid.network import star
    from lightfabric.placement.collective.choice import fastest

    if fabric == FABRICS[0]:
        rate = bandwidth_gbps * 1e9 / 8
        return fastest(lambda demand: [star(max(map(max, demand), default=0) + 1, rate, demand)], latency_ps)
    topology = _topology(fabric, bandwidth_gbps)

    def networks(demand: dict[tuple[int, int], int]) -> "list[Network]":
        try:
            return [topology.network(len(topology.ranks), demand)]
        except ValueError as error:
            raise InputError(f"{fabric}: {error}") from None

    return fastest(networks, latency_ps)


def _topology(fabric: str, bandwidth_gbps: float) -> "Topology":
    from lightfabric.flows.format import infragraph

    return infragraph.read(Path(fabric), bandwidth_gbps)


def _joined(
    graph: TaskGraph, nodes: int, fabric: str, bandwidth_gbps: float, degree: int, *, stored: bool
) -> tuple[TaskGraph, "Network"]:
    """Give the links and routes of the pairs that a graph has, and the graph as it uses them."""
    from lightfabric.model.fluid.forwarding import pairs
    from lightfabric.model.fluid.network import star

    # Messages of no bytes need a route only where each link of it takes its time.
    demand = pairs if stored else TaskGraph.demand_bytes
    if fabric == "ideal-switch":
        return graph, star(graph.devices, bandwidth_gbps * 1e9 / 8, demand(graph))
    if fabric == "topoopt":
        from lightfabric.placement.circuit.direct_connect import MAX_NODES, direct_connect

        if nodes > MAX_NODES:
            raise InputError(f"--fabric must be ideal-switch for more than {MAX_NODES} nodes, not topoopt: {nodes} nodes")
        direct = direct_connect(graph, nodes, degree)
        graph, topology = direct.graph, direct.topology(nodes, bandwidth_gbps * 1e9 / 8)
    else:
        topology = _topology(fabric, bandwidth_gbps)
        if len(topology.ranks) < nodes:
            raise InputError(f"{fabric}: must have an xpu for each of {nodes} ranks, not {len(topology.ranks)}")
    try:
        return graph, topology.network(graph.devices, demand(graph))
    except ValueError as error:
        raise InputError(f"{fabric}: {error}") from None


def _run_fluid(graph: TaskGraph, network: "Network", latency_ps: int) -> "Schedule":
    from lightfabric.model.fluid import engine as fluid

    return fluid.run(graph, network, message_latency_ps=latency_ps)


def _run_stored(graph: TaskGraph, network: "Network", latency_ps: int) -> "Schedule":
    from lightfabric.model.fluid import engine as fluid
    from lightfabric.model.fluid.forwarding import stored_and_forwarded

    return fluid.run(*stored_and_forwarded(graph, network, latency_ps))


def chiplet_of(payload_gbps: float) -> ChipletSpec:
    """Return a chiplet whose one port has this payload rate: ``CHIPLET`` with another clock, and line and reach to match."""
    line_gbps = payload_gbps * 66 / 64 * CHIPLET.flit_bytes / CHIPLET.payload_bytes / CHIPLET.wavelengths_per_port
    faster = line_gbps / CHIPLET.wavelength_gbps
    core_clock_mhz = faster * CHIPLET.core_clock_mhz * (1 + 1e-12)  # not less than the line needs, whatever is rounded
    return replace(CHIPLET, wavelength_gbps=line_gbps, core_clock_mhz=core_clock_mhz, reach_m=CHIPLET.reach_m / faster)


def _run_flits(graph: TaskGraph, bandwidth_gbps: float, latency_ps: int, name: str, out: Path | None) -> "Schedule":
    from lightfabric.flows.format.timing_store import measured_timing
    from lightfabric.model.cycle.cabling import MAX_HUB_GPUS, ElectricalCabling, Hub
    from lightfabric.model.fluid.network import star

    spec = chiplet_of(bandwidth_gbps)
    # On the wire a message without bytes is a flit all the same.
    empty = (graph.kind == Kind.TRANSFER) & (graph.device != graph.peer) & (graph.work == 0)
    graph = replace(graph, work=np.where(empty, 1, graph.work))
    demand = graph.demand_bytes()
    talkers, flits = np.unique(np.array(list(demand), np.int32)), sum(demand.values()) // spec.payload_bytes
    if flits > MAX_FLITS or len(talkers) > MAX_HUB_GPUS:
        most = f"more than {MAX_FLITS} flits or {MAX_HUB_GPUS} nodes"
        raise InputError(f"--fidelity must be fluid for {most}, not cycle: {flits} flits, {len(talkers)} nodes")
    # Without traffic there is no hub to build, and both fidelities tell the same.
    if not len(talkers):
        return _run_fluid(graph, star(graph.devices, bandwidth_gbps * 1e9 / 8, ()), latency_ps)
    timing = measured_timing(CHIPLET)  # in cycles, which a faster clock does not change
    # The latency of a message stands in time, not in cycles: a faster clock needs more of them.
    latency_cycles = round(latency_ps / spec.cycle_ps)
    schedule, detail = run(graph, spec, timing, ElectricalCabling((Hub(talkers, FLIGHT_PS),)), latency_cycles)
    if out is not None:
        from lightfabric.flows.figure.panel import draw

        draw(out, name, {FABRICS[0]: detail})
    return schedule


def main(
    file: Annotated[
        Path,
        typer.Argument(
            help="A TopoOpt task graph, a folder of Chakra traces, or a program of GOAL, text (.goal) or binary."
        ),
    ],
    bandwidth: Annotated[
        str,
        typer.Option(
            help="Of a node in each direction, such as 100Gbps; of a link of topoopt, or of a file that says none."
        ),
    ],
    fabric: Annotated[
        str, typer.Option(help="What joins the nodes: ideal-switch, topoopt, or a file .yaml or .json of InfraGraph.")
    ] = "ideal-switch",
    fidelity: Fidelity = "fluid",
    out: Annotated[
        Path | None, typer.Option(help="Folder for figures of the links' load and the messages' latency; cycle.")
    ] = None,
    as_json: AsJson = False,
    trace: Annotated[Path | None, typer.Option(help="JSON file of the schedule, for ui.perfetto.dev.")] = None,
    latency: Annotated[str, typer.Option(help="Of each message or step of a collective, such as 500ns.")] = "2us",
    algorithm: Annotated[
        str | None,
        typer.Option(help="Of the collectives of a Chakra trace: ring, tree, direct, halving-doubling; auto: the fastest."),
    ] = None,
    accelerator: Annotated[
        str | None, typer.Option(help="That does the work of a Chakra trace that has no duration: a100 or h100.")
    ] = None,
    forwarding: Annotated[
        str, typer.Option(help="At each hop: cut-through, or store-and-forward with a latency and the whole message each.")
    ] = FORWARDINGS[0],
    degree: Annotated[int | None, typer.Option(help=f"Links of a node of topoopt; {DEGREE} if left out.")] = None,
) -> None:
    """Check the options, replay the graph and print one line or one JSON object."""
    from lightfabric.flows.figure import result as results

    bandwidth_gbps, latency_ps = _gbps(bandwidth), _latency_ps(latency)
    _require_fabric(fabric, fidelity, degree)
    require_one_of("--forwarding", FORWARDINGS, forwarding)
    if forwarding != FORWARDINGS[0]:
        for option, value in (("--fidelity", None if fidelity == "fluid" else fidelity), ("--trace", trace)):
            if value is not None:
                raise InputError(f"{option} must be left out with --forwarding {forwarding}, not {value}")
    if algorithm is not None:
        require_one_of("--algorithm", (*ALGORITHMS, AUTO), algorithm)
    if algorithm == AUTO and fabric == "topoopt":
        must_be = f"one of {', '.join(ALGORITHMS)} on topoopt, whose links depend on it"
        raise InputError(f"--algorithm must be {must_be}, not {AUTO}")
    if accelerator is not None:
        require_one_of("--accelerator", ACCELERATORS, accelerator)
    if out is not None and fidelity != "cycle":
        raise InputError(f"--out must be left out unless --fidelity is cycle, not {out}")
    if trace is not None:
        require_file(trace)
    with results.folder(out, FILES) if out else nullcontext():
        result = replay(
            file, bandwidth_gbps, fidelity,
            out=out, trace=trace, latency_ps=latency_ps, algorithm=algorithm, accelerator=accelerator, fabric=fabric,
            degree=DEGREE if degree is None else degree, forwarding=forwarding,
        )  # fmt: skip
    if as_json:
        print_json(result)
    else:
        print(
            f"{result['iteration_ms']:.3f} ms per iteration of {file.name}: {result['tasks']} tasks, "
            f"{result['devices']} devices on {result['fabric']} at {bandwidth_gbps:g} Gbps each"
        )


def _require_fabric(fabric: str, fidelity: str, degree: int | None) -> None:
    if Path(fabric).suffix not in TOPOLOGIES:
        require_one_of("--fabric", (*FABRICS, "a file .yaml or .json"), fabric)
    require(fidelity)
    if fabric != FABRICS[0] and fidelity != "fluid":
        raise InputError(f"--fidelity must be fluid unless --fabric is {FABRICS[0]}, not {fidelity}")
    if degree is not None and fabric != "topoopt":
        raise InputError(f"--degree must be left out unless --fabric is topoopt, not {degree}")
    if degree is not None and not 1 <= degree <= MAX_DEGREE:
        raise InputError(f"--degree must be from 1 to {MAX_DEGREE}, not {degree}")


def _gbps(bandwidth: str) -> float:
    match = _RATE.fullmatch(bandwidth)
    gbps = float(match[1]) * _GBPS[match[2]] if match else 0.0
    if not _MIN_GBPS <= gbps <= _MAX_GBPS:
        must_be = f"a rate with unit such as 100Gbps, from {_MIN_GBPS:g}Gbps to {_MAX_GBPS:.0f}Gbps"
        raise InputError(f"--bandwidth must be {must_be}, not {bandwidth!r}")
    return gbps


def _latency_ps(latency: str) -> int:
    match = _TIME.fullmatch(latency)
    latency_ps = round(float(match[1]) * _PS[match[2]]) if match else -1
    if not 0 <= latency_ps <= MAX_LATENCY_S * _PS["s"]:
        raise InputError(f"--latency must be a time with unit such as 500ns, from 0s to {MAX_LATENCY_S:g}s, not {latency!r}")
    return latency_ps
