"""The command line: names, options and exit codes; each command is in the module of its name.

Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 130 interrupted. What commands need is imported inside them,
so that a wrong input is said before numba, amaranth or matplotlib would have been loaded.
"""

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from lightfabric.flows.report import InputError, RunError, say

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=False)

_UsageError: Any = typer.BadParameter.__mro__[1]
"""Of the click that this typer uses: its own copy from 0.26 on."""


def _whole(text: Any) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"must be a whole number, not {text!r:.60}") from None


def _number(text: Any) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"must be a number, not {text!r:.60}") from None


def _rate(text: str) -> Any:
    return typer.Option(parser=_number, metavar="FLOAT", help=text)


def _count(text: str) -> Any:
    return typer.Option(parser=_whole, metavar="INTEGER", help=text)


SpecFile = Annotated[Path | None, typer.Argument(metavar="[SPEC.toml]", help="Description; a built-in example if left out.")]
SpecOption = Annotated[Path | None, typer.Option("--spec", help="Description; the built-in prototype if left out.")]
Fidelity = Annotated[str, typer.Option(help="fluid, or cycle: flit by flit.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]


def main() -> NoReturn:
    """The console entry point."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(_run())


def _run() -> int:
    try:
        code = _invoked()
        print(end="", flush=True)
    except (KeyboardInterrupt, typer.Abort):
        warnings.simplefilter("ignore")  # of hardware that was built and not used
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _failed(f"{error.filename or 'a file'} cannot be used: {error.strerror}", 1)
    return code


def _invoked() -> int:
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        return _failed(error, 2)
    except RunError as error:
        return _failed(error, 1)
    except _UsageError as error:
        return _failed(f"{error.format_message().rstrip('.')}; see lightfabric --help", 2)
    return code if isinstance(code, int) else 0


def _failed(error: object, code: int) -> int:
    say(f"lightfabric: {' '.join(str(error).split())}")
    return code


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("lightfabric"))
        raise typer.Exit


@app.callback()
def _lightfabric(
    _: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """From the description of an optical-I/O chiplet to hardware, timing and training time."""


@app.command()
def study(
    spec: SpecFile = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("lightfabric-out"),
    fidelity: Fidelity = "fluid",
    as_json: AsJson = False,
) -> None:
    """Training time over GPU counts and fabrics: table, results.csv, figures, manifest.json."""
    from lightfabric.flows.command import study as flow

    flow.main(spec, out, fidelity, as_json)


@app.command()
def characterize(spec: SpecFile = None, as_json: AsJson = False) -> None:
    """Measure the timing of link and switch on the RTL."""
    from lightfabric.flows.command import characterize as flow

    flow.main(spec, as_json)


@app.command()
def place(
    spec: SpecFile = None,
    gpus: Annotated[
        int | None,
        typer.Option(parser=_whole, metavar="INTEGER", help="Number of GPUs; the spec's largest that fits if left out."),
    ] = None,
    fabric: Annotated[str | None, typer.Option(help="Name of one of the spec's fabrics; all if left out.")] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Folder for the task graph as Chakra traces, or a file .goal for a program of LogGOPSim."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for figures of the traffic between GPUs.")] = None,
    objective: Annotated[
        str,
        typer.Option(
            help="What is least: predicted-time; simulated-time, as study chooses; or of the order of ranks, which is then "
            "searched for it: bottleneck, byte-hops, wavelengths."
        ),
    ] = "predicted-time",
    as_json: AsJson = False,
) -> None:
    """Parallelism, order of ranks, sparsity, locality and lower bounds."""
    from lightfabric.flows.command import place as flow

    flow.main(spec, gpus, fabric, as_json, export, out, objective)


@app.command()
def predict(
    file: Annotated[Path, typer.Argument(help="CSV, a training plan per row.")],
    as_json: AsJson = False,
) -> None:
    """Step time, its parts and memory of the plans in a table."""
    from lightfabric.flows.command import predict as flow

    flow.main(file, as_json)


@app.command()
def qap(
    file: Annotated[Path, typer.Argument(help="n and two n x n matrices, as in QAPLIB.")],
    seconds: Annotated[float, _rate("CPU time of bound and search, without compilation at the first run.")] = 1.0,
    seed: Annotated[int, _count("Of all that is random.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Map facilities onto locations: a quadratic assignment problem, with a lower bound."""
    from lightfabric.flows.command import qap as flow

    flow.main(file, seconds, seed, as_json)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A TopoOpt task graph, a folder of Chakra traces, or a program .goal.")],
    bandwidth: Annotated[str, typer.Option(help="Of a node in each direction, such as 100Gbps.")],
    fabric: Annotated[str, typer.Option(help="What joins the nodes.")] = "ideal-switch",
    fidelity: Fidelity = "fluid",
    out: Annotated[
        Path | None, typer.Option(help="Folder for figures of the links' load and the messages' latency; cycle.")
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="JSON file of the schedule, for ui.perfetto.dev.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the task graph of a real job on a fabric."""
    from lightfabric.flows.command import replay as flow

    flow.main(file, bandwidth, fabric, fidelity, out, as_json, trace)


@app.command()
def network(
    topology: Annotated[str, typer.Option(help="mesh, torus, ring, crossbar, fat-tree or dragonfly.")] = "torus",
    k: Annotated[int, _count("Routers per dimension, or what the topology counts in.")] = 8,
    n: Annotated[int, _count("Dimensions, or levels of a fat tree.")] = 2,
    vcs: Annotated[int, _count("Virtual channels.")] = 8,
    buffer: Annotated[int, _count("Flits that each virtual channel of an input holds.")] = 8,
    packet_flits: Annotated[int, _count("Flits of a packet.")] = 1,
    load: Annotated[float, _rate("Flits per node and cycle.")] = 0.1,
    traffic: Annotated[
        str, typer.Option(help="uniform, transpose, neighbour, tornado, bit-complement or hot-spot.")
    ] = "uniform",
    seed: Annotated[int, _count("Of all that is random.")] = 1,
    allocator: Annotated[str, typer.Option(help="Of the routers' switches: islip or wavefront.")] = "islip",
    switching: Annotated[str, typer.Option(help="cut-through or store-and-forward.")] = "cut-through",
    sweep: Annotated[bool, typer.Option("--sweep", help="Latency over load up to saturation, with a figure.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for load per link and latencies, as figures and CSV; a sweep's is lightfabric-out."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Synthetic traffic on the cycle model of a network of routers."""
    from lightfabric.flows.command import network as flow

    settings = flow.Settings(topology, k, n, vcs, buffer, packet_flits, load, traffic, seed, allocator, switching)
    flow.main(settings, sweep, out, as_json)


@app.command()
def sim(
    block: Annotated[str, typer.Argument(help="link, switch or chiplet.")],
    simulator: Annotated[str, typer.Option(help="amaranth, icarus or verilator.")] = "amaranth",
    spec: SpecOption = None,
    waves: Annotated[Path | None, typer.Option(help="File for the waveforms.")] = None,
    ber: Annotated[
        float | None,
        typer.Option(parser=_number, metavar="FLOAT", help="Bit error rate of the line; the spec's if left out."),
    ] = None,
    packets: Annotated[int, typer.Option(parser=_whole, metavar="INTEGER", help="Number of packets.")] = 1000,
    seed: Annotated[int, typer.Option(parser=_whole, metavar="INTEGER", help="Of the errors and the traffic.")] = 1,
    bursts: Annotated[float, _rate("Bursts of errors per beat; link on verilator.")] = 0.0,
    drops: Annotated[float, _rate("Flits that the line drops; link on verilator.")] = 0.0,
    duplicates: Annotated[float, _rate("Flits that the line repeats; link on verilator.")] = 0.0,
    stalls: Annotated[float, _rate("Share of cycles in which a client pauses; link on verilator.")] = 0.0,
    capture: Annotated[
        Path | None, typer.Option(help="pcapng file for flits (link on amaranth) or arrived packets (icarus, verilator).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a block's RTL."""
    from lightfabric.flows.command import sim as flow

    faults = flow.Faults(bursts, drops, duplicates, stalls)
    flow.main(block, simulator, _prototype(spec), waves, ber, packets, seed, as_json, faults, capture)


@app.command()
def verilog(
    block: Annotated[str, typer.Argument(help="link, switch or chiplet.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the Verilog.")],
    spec: SpecOption = None,
) -> None:
    """Write a block as Verilog."""
    from lightfabric.flows.command import verilog as flow

    flow.main(block, output, _prototype(spec))


@app.command()
def registers(
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the map.")],
    language: Annotated[str, typer.Option("--format", help="systemrdl, markdown or c.")] = "markdown",
) -> None:
    """Write the register map of a link."""
    from lightfabric.flows.command import registers as flow

    flow.main(language, output)


@app.command()
def synth(
    block: Annotated[str, typer.Argument(help="link, switch or chiplet.")],
    device: Annotated[str, typer.Option(help="FPGA, such as ecp5-25k.")],
    spec: SpecOption = None,
    as_json: AsJson = False,
) -> None:
    """Place and route a block: LUT, FF, BRAM, Fmax."""
    from lightfabric.flows.command import synth as flow

    flow.main(block, device, _prototype(spec), as_json)


@app.command()
def verify(
    block: Annotated[str | None, typer.Argument(help="A block; all with proofs if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove properties of the RTL."""
    from lightfabric.flows.command import verify as flow

    flow.main(block, as_json)


@app.command()
def bench(
    name: Annotated[
        str | None, typer.Argument(help="fluid, kernel, allreduce, search, mapping or accuracy; all if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure speed against named references, as ratios, and the cost model against measured steps."""
    from lightfabric.flows.command import bench as flow

    flow.main(name, as_json)


def _prototype(path: Path | None) -> Any:
    from lightfabric.flows.format.spec_file import load_spec

    return load_spec(path, default="prototype")


if __name__ == "__main__":
    main()
