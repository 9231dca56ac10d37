"""``lightfabric network`` runs synthetic traffic on routers and tells latency, accepted load and where they saturate."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from lightfabric.flows.option import AsJson, count, number
from lightfabric.flows.report import InputError, print_json, require_between, require_one_of, say, write_csv, written_whole

if TYPE_CHECKING:
    from lightfabric.model.router.experiment import Network, Result
    from lightfabric.model.router.topology import Topology

OUT = "lightfabric-out"
"""Folder of a sweep's figure."""
MAX_BUFFER_FLITS = 1 << 12
MAX_PACKET_FLITS = 1 << 10
# So many places for flits take 1.6 GB.
MAX_SLOTS = 1 << 25
# Packets that have not arrived by then show that the network is saturated.
MAX_CYCLES = 60_000
SWEEP_STEP = 0.05
# A network counts as saturated at so many times the latency at no load [Dally, Towles 2004, 23.1.2].
SATURATED = 3.0
# The last step of a sweep is halved so often.
SEARCH_STEPS = 6
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Settings:
    """Holds the options of the command that describe one experiment."""

    topology: str = "torus"
    k: int = 8
    n: int = 2
    vcs: int = 8
    buffer: int = 8
    packet_flits: int = 1
    load: float = 0.1
    traffic: str = "uniform"
    seed: int = 1
    allocator: str = "islip"
    switching: str = "cut-through"


def main(
    topology: Annotated[str, typer.Option(help="mesh, torus, ring, crossbar, fat-tree or dragonfly.")] = "torus",
    k: Annotated[int, count("Routers per dimension, or what the topology counts in.")] = 8,
    n: Annotated[int, count("Dimensions, or levels of a fat tree.")] = 2,
    vcs: Annotated[int, count("Virtual channels.")] = 8,
    buffer: Annotated[int, count("Flits that each virtual channel of an input holds.")] = 8,
    packet_flits: Annotated[int, count("Flits of a packet.")] = 1,
    load: Annotated[float, number("Flits per node and cycle.")] = 0.1,
    traffic: Annotated[
        str, typer.Option(help="uniform, transpose, neighbour, tornado, bit-complement or hot-spot.")
    ] = "uniform",
    seed: Annotated[int, count("Of all that is random.")] = 1,
    allocator: Annotated[str, typer.Option(help="Of the routers' switches: islip or wavefront.")] = "islip",
    switching: Annotated[str, typer.Option(help="cut-through or store-and-forward.")] = "cut-through",
    sweep: Annotated[bool, typer.Option("--sweep", help="Latency over load up to saturation, with a figure.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for load per link and latencies, as figures and CSV; a sweep's is lightfabric-out."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run one experiment, or a sweep over loads, as the options say."""
    settings = Settings(topology, k, n, vcs, buffer, packet_flits, load, traffic, seed, allocator, switching)
    run(settings, sweep, out, as_json)


def run(settings: Settings, sweep: bool, out: Path | None, as_json: bool) -> None:
    """Run one experiment, with figures and tables of its links and latencies in ``out``, or a sweep over loads."""
    _require(settings)
    if not sweep:
        network, result, cpu_s = _run(settings)
        if out is not None:
            _write(settings, network.topology, result, out)
        _print(_row(settings, result, cpu_s), as_json)
        return
    out = out or Path(OUT)
    rows = sweep_loads(settings)
    saturation = saturation_load(settings, rows)
    with written_whole(_in(out, f"{settings.topology}-{settings.traffic}.png")) as figure:
        _draw(settings, rows, saturation, figure)
    if as_json:
        print_json({**asdict(settings), "saturation_load": saturation, "points": rows})
        return
    for row in rows:
        _print(row, False)
    print(f"saturates at {saturation:.3f} flits per node and cycle; {out / f'{settings.topology}-{settings.traffic}.png'}")


def measure(settings: Settings) -> dict[str, Any]:
    """Run an experiment and return its row.

    ``saturated`` is True where the network accepts less than it is offered, and ``latency_cycles`` None as well where
    packets did not arrive in time.
    """
    _, result, cpu_s = _run(settings)
    return _row(settings, result, cpu_s)


def _run(settings: Settings) -> "tuple[Network, Result, float]":
    """Run the experiment; return it and the seconds of the processor that it took."""
    from lightfabric.model.router.experiment import Network
    from lightfabric.model.router.injection import Traffic
    from lightfabric.model.router.topology import topology

    try:
        made = topology(settings.topology, settings.k, settings.n)  # type: ignore[arg-type]
        slots = settings.vcs * settings.buffer * (2 * len(made.edges) + 2 * made.nodes)
        if slots > MAX_SLOTS:
            raise ValueError(f"buffer must be such that there are at most {MAX_SLOTS} places for flits, not {slots}")
        traffic = Traffic(settings.load, settings.packet_flits, settings.traffic)  # type: ignore[arg-type]
        network = Network(
            made, traffic, settings.vcs, settings.buffer, settings.seed,
            settings.allocator, settings.switching,  # type: ignore[arg-type]
        )  # fmt: skip
    except ValueError as error:
        raise InputError(f"--{error}") from None
    begin_s = time.process_time()
    result = network.run(MAX_CYCLES)
    return network, result, time.process_time() - begin_s


def _row(settings: Settings, result: "Result", cpu_s: float) -> dict[str, Any]:
    return {
        **asdict(settings),
        "latency_cycles": result.latency_cycles,
        "latency_interval_cycles": result.latency_interval_cycles,
        "latency_percentiles_cycles": result.percentiles(PERCENTILES),
        "accepted_load": result.accepted_load,
        "hops": result.hops,
        "highest_link_load": float(result.link_load.max(initial=0.0)),
        "saturated": result.saturated,
        "cycles": result.cycles,
        # The clock of the processor can stand still over a short run.
        "flit_hops_per_cpu_s": result.flit_hops / max(cpu_s, 1e-9),
    }


def _write(settings: Settings, topology: "Topology", result: "Result", out: Path) -> None:
    from lightfabric.flows.figure.chart import draw_histogram, draw_links

    name = f"{settings.topology}-{settings.traffic}"
    title = f"{settings.topology}, {settings.traffic} traffic at load {settings.load:g}"
    links = [
        (end.router, other.router, float(load))
        for edge, loads in zip(topology.edges, result.link_load, strict=True)
        # An edge has two links, one for each direction.
        for (end, other), load in zip((edge, edge[::-1]), loads, strict=True)
    ]
    packets: list[int] = result.histogram.tolist()
    with ExitStack() as stack:
        links_csv, latency_csv, links_png, latency_png = (
            stack.enter_context(written_whole(_in(out, f"{name}-{what}")))
            for what in ("links.csv", "latency.csv", "links.png", "latency.png")
        )
        write_csv(links_csv, ("source", "destination", "flits_per_cycle"), links)
        write_csv(latency_csv, ("latency_cycles", "packets"), enumerate(packets))
        is_grid = settings.topology in ("mesh", "torus") and settings.n == 2
        draw_links(title, links or [(0, 0, 0.0)], settings.k if is_grid else None, links_png)
        draw_histogram(title, packets, result.percentiles(PERCENTILES) or {}, latency_png)


def sweep_loads(settings: Settings) -> list[dict[str, Any]]:
    """Run experiments at growing loads, up to and with the first that is saturated."""
    rows, load = list[dict[str, Any]](), 0.02
    while load <= 1:
        rows.append(measure(replace(settings, load=load)))
        say(f"{settings.topology} at load {load:.2f}: {_latency(rows[-1])}")
        if _is_saturated(rows[-1], rows[0]):
            break
        load = SWEEP_STEP * len(rows)
    return rows


def saturation_load(settings: Settings, rows: Sequence[dict[str, Any]]) -> float:
    """Find the load at which the latency is three times that at no load, by halving between the last two of a sweep."""
    if not _is_saturated(rows[-1], rows[0]):
        return 1.0
    low, high = (rows[-2]["load"] if len(rows) > 1 else 0.0), rows[-1]["load"]
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        if _is_saturated(measure(replace(settings, load=middle)), rows[0]):
            high = middle
        else:
            low = middle
    return (low + high) / 2


def _is_saturated(row: dict[str, Any], at_no_load: dict[str, Any]) -> bool:
    # Where less is accepted than offered the latency is that of the time measured, or missing.
    return row["saturated"] or row["latency_cycles"] > SATURATED * (at_no_load["latency_cycles"] or 0)


def _require(settings: Settings) -> None:
    from lightfabric.model.router.injection import PATTERNS
    from lightfabric.model.router.router import MAX_VIRTUAL_CHANNELS, Allocator, Switching
    from lightfabric.model.router.topology import NAMES

    for name, known in (
        ("topology", NAMES),
        ("traffic", PATTERNS),
        ("allocator", get_args(Allocator)),
        ("switching", get_args(Switching)),
    ):
        require_one_of(f"--{name}", known, getattr(settings, name))
    # Where ways close to a circle, flits on it would wait for each other unless they change the virtual channel.
    least_vcs = 2 if settings.topology in ("torus", "ring", "dragonfly") else 1
    for name, least, most in (
        ("vcs", least_vcs, MAX_VIRTUAL_CHANNELS),
        ("buffer", 1, MAX_BUFFER_FLITS),
        ("packet_flits", 1, MAX_PACKET_FLITS),
        ("seed", 0, (1 << 63) - 1),
    ):
        require_between(f"--{name.replace('_', '-')}", least, most, getattr(settings, name))
    if not 0 < settings.load <= 1:
        raise InputError(f"--load must be above 0 and at most 1, not {settings.load!r}")


def _in(folder: Path, name: str) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: must be a folder that can be written, not: {error.strerror}") from None
    return folder / name


def _latency(row: dict[str, Any]) -> str:
    if row["latency_cycles"] is None:
        return "saturated"
    interval = row["latency_interval_cycles"]
    within = "" if interval is None else f" (within {interval:.2f})"
    return f"{row['latency_cycles']:.2f} cycles{within}" + (", saturated" if row["saturated"] else "")


def _print(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    hops = "" if row["hops"] is None else f", {row['hops']:.2f} routers"
    print(
        f"{row['topology']}, {row['traffic']} load {row['load']:.3g}: latency {_latency(row)}, "
        f"accepted {row['accepted_load']:.4f} flits per node and cycle{hops}; "
        f"{row['flit_hops_per_cpu_s'] / 1e6:.2f} million flit-hops per CPU-second"
    )


def _draw(settings: Settings, rows: Sequence[dict[str, Any]], saturation: float, path: Path) -> None:
    from lightfabric.flows.figure.chart import draw_latency

    stable = [row for row in rows if row["latency_cycles"] is not None]
    draw_latency(
        f"{settings.topology}, {settings.traffic} traffic, packets of {settings.packet_flits}",
        [row["load"] for row in stable],
        [row["latency_cycles"] for row in stable],
        saturation,
        path,
    )
