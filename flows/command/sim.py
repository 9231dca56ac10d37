"""``lightfabric sim`` sends random packets through the RTL of a block and tells what became of them."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from lightfabric.flows.command.verilog import BLOCKS
from lightfabric.flows.option import AsJson, LoadedSpec, count, number
from lightfabric.flows.report import InputError, RunError, print_json, require_between, require_one_of, written_whole
from lightfabric.flows.tool.executable import SIMULATORS
from lightfabric.model.spec import FEC_CODES, ChipletSpec

MAX_BER = MAX_RATE = 0.5
MAX_STALLS = 0.9
MAX_PACKETS = 1_000_000
# Of a line on the native bench; under Amaranth as many as packets.
MAX_FLITS = 100_000_000
MAX_SEED = (1 << 63) - 1
# A foreign simulator that has not ended by then is killed.
BOUND_S = 6 * 3600

Progress = Callable[[int, int], None]
"""(flits that have arrived, flits in all)"""


@dataclass(frozen=True)
class Faults:
    """Holds the faults that the native bench of the link has beside bit errors.

    Rates of ``bursts`` per beat, of ``drops`` and ``duplicates`` per flit, and the share of cycles in which a client
    ``stalls``.
    """

    bursts: float = 0.0
    drops: float = 0.0
    duplicates: float = 0.0
    stalls: float = 0.0


LINE = "line"
"""A link with a line of bit errors, of which the line is measured."""
LINES = ("line from a to b", "line from b to a")
"""Interfaces of a capture of the link."""

# Simulators that have no such faults report none, so that all results have the same names.
_NO_FAULTS = {"bursts": 0, "dropped_flits": 0, "duplicated_flits": 0}


def main(
    block: Annotated[str, typer.Argument(help="link, switch, chiplet or line.")],
    simulator: Annotated[
        str | None, typer.Option(help="amaranth, icarus or verilator; amaranth if left out, of a line verilator if there.")
    ] = None,
    spec: LoadedSpec = None,
    waves: Annotated[Path | None, typer.Option(help="File for the waveforms.")] = None,
    ber: Annotated[float | None, number("Bit error rate of the line; the spec's if left out.")] = None,
    packets: Annotated[int, count("Number of packets.")] = 1000,
    seed: Annotated[int, count("Of the errors and the traffic.")] = 1,
    as_json: AsJson = False,
    bursts: Annotated[float, number("Bursts of errors per beat; link on verilator.")] = 0.0,
    drops: Annotated[float, number("Flits that the line drops; link on verilator.")] = 0.0,
    duplicates: Annotated[float, number("Flits that the line repeats; link on verilator.")] = 0.0,
    stalls: Annotated[float, number("Share of cycles in which a client pauses; link on verilator.")] = 0.0,
    capture: Annotated[
        Path | None, typer.Option(help="pcapng file for flits (link on amaranth) or arrived packets (icarus, verilator).")
    ] = None,
    lanes: Annotated[int | None, count("Wavelengths of a port; line. The spec's if left out.")] = None,
    fec: Annotated[str | None, typer.Option(help="Error correction of a port; line. The spec's if left out.")] = None,
    flits: Annotated[int, count("Number of flits; line.")] = 2000,
    ppm: Annotated[float, number("Parts per million by which one end's clock is faster; line on verilator.")] = 0.0,
    trace: Annotated[Path | None, typer.Option(help="File of errors, a row of block, lane and bit for each; line.")] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Measure at several bit error rates; line.")] = False,
    figure: Annotated[Path | None, typer.Option(help="PNG or SVG file for the figure of a sweep; line.")] = None,
) -> None:
    """Check the options, simulate and print a line or a JSON object; RunError if a packet did not arrive.

    A ``ber`` of None stands for the bit error rate of the spec's lines.
    """
    if block == LINE:
        of_link = {"waves": waves, "capture": capture, **asdict(Faults(bursts, drops, duplicates, stalls))}
        for name, value in of_link.items():
            if value:
                raise InputError(f"--{name} must be left out for the line, not {str(value)!r}")
        job = _line_job(spec.chiplet, ber, lanes, fec, flits, seed, trace, ppm)
        _simulate_line(spec.name, job, simulator, sweep, figure, as_json)
        return
    for name, value in {"lanes": lanes, "fec": fec, "trace": trace, "ppm": ppm, "sweep": sweep, "figure": figure}.items():
        if value:
            raise InputError(f"--{name} must be left out but for the line, not {str(value)!r}")
    simulator = simulator or "amaranth"
    # The switch has no line on which bits could flip.
    of_line: float = 0.0 if block == "switch" else spec.chiplet.bit_error_rate
    ber = of_line if ber is None else ber
    faults = Faults(bursts, drops, duplicates, stalls)
    _require_options(block, simulator, ber, packets, seed, faults)
    _require_capture(block, simulator, capture)
    with _written(waves) as beside, _written(capture) as captured, _bar(f"{simulator}: {block}") as progress:
        if simulator == "amaranth":
            measured = simulate(block, spec.chiplet, ber, packets, seed, beside, progress, captured)
        elif _is_native(block, simulator):
            measured = _simulate_natively(spec.chiplet, ber, packets, seed, faults, beside)
        else:
            job = {"packets": packets, "ber": ber, "seed": seed, "pauses": False, "bound_s": BOUND_S}
            measured = _simulate_outside(block, simulator, spec.chiplet, waves=beside, capture=captured, **job)
    named = {"block": block, "simulator": simulator, "spec": spec.name, "ber": ber, "seed": seed}
    result = {**named, **_NO_FAULTS, **measured}
    if as_json:
        print_json(result)
    else:
        names = ("delivered", "lost", "corrupted", "duplicated", "reordered", "replays", "cycles")
        print(f"{block} on {simulator}, {packets} packets: " + ", ".join(f"{result[name]} {name}" for name in names))
    wrong = ("corrupted", "duplicated", "reordered", "protocol_errors")
    if result["delivered"] < packets or any(result.get(name) for name in wrong):
        raise RunError(f"the {block} did not deliver {packets} packets once, in order and unchanged")


def _line_job(
    chiplet: ChipletSpec,
    ber: float | None,
    lanes: int | None,
    fec: str | None,
    flits: int,
    seed: int,
    trace: Path | None,
    ppm: float,
) -> Any:
    """Check the options of a line and make its job."""
    from lightfabric.flows.tool.line import Job
    from lightfabric.model.spec.require import SpecError
    from lightfabric.sim.channel.fault import MAX_PPM

    ber = chiplet.bit_error_rate if ber is None else ber
    if not 0 <= ber < MAX_BER:
        raise InputError(f"--ber must be at least 0 and below {MAX_BER}, not {ber!r}")
    require_between("--flits", 1, MAX_FLITS, flits)
    require_between("--ppm", -MAX_PPM, MAX_PPM, ppm)
    require_between("--seed", 0, MAX_SEED, seed)
    fec = chiplet.fec if fec is None else fec
    require_one_of("--fec", ("none", *FEC_CODES), fec)
    given = {"ports": 1, "fec": fec, "bit_error_rate": 0.0, "replay_flits": 0}
    try:
        spec = replace(chiplet, **given, **({} if lanes is None else {"wavelengths_per_port": lanes}))
        if trace:
            with trace.open("rb"):
                pass
    except SpecError as error:
        option = {"wavelengths_per_port": "--lanes"}.get(error.field, f"{error.owner}.{error.field}")
        raise InputError(f"{option} must be {error.must_be}, not {error.value}") from None
    except OSError as error:
        raise InputError(f"{trace}: must be a file of errors that can be read, not: {error.strerror}") from None
    return Job(spec, ber, flits, seed, trace, ppm)


def _simulate_line(name: str, job: Any, simulator: str | None, sweep: bool, figure: Path | None, as_json: bool) -> None:
    """Run a line, at one bit error rate or at several, and print what it did; RunError if flits are lost at a single one."""
    from lightfabric.flows.tool import line

    if simulator is not None:
        require_one_of("--simulator", ("amaranth", "verilator"), simulator)
    if job.trace and (sweep or simulator == "verilator"):
        raise InputError(f"--trace must be left out of a sweep and on verilator, not {str(job.trace)!r}")
    if not line.runs_natively(job, simulator):
        if job.ppm:
            raise InputError(f"--ppm must be 0 but for the line on verilator, not {job.ppm!r}")
        require_between("--flits of a line on amaranth", 1, MAX_PACKETS, job.flits)
    if figure and not sweep:
        raise InputError(f"--figure must be given with --sweep alone, not {str(figure)!r}")
    if figure:
        require_one_of("the suffix of --figure", (".png", ".svg"), figure.suffix)
    with _written(figure) as beside, _bar("line") as progress:
        try:
            bers = line.swept_bers(job.spec, job.flits) if sweep else ()
            rows = line.sweep(job, bers, simulator, progress) if sweep else [line.measure(job, simulator)]
        except ValueError as error:
            raise InputError(str(error)) from None
        if beside:
            from lightfabric.flows.figure.waterfall import draw_waterfall

            draw_waterfall(job.spec, rows, beside)
    if as_json:
        print_json({"block": LINE, "spec": name, "points": rows} if sweep else {"block": LINE, "spec": name, **rows[0]})
    else:
        for row in rows:
            print(line.told(row))
    if not sweep and rows[0]["delivered_flits"] < job.flits:
        raise RunError(f"the line carried {rows[0]['delivered_flits']} of {job.flits} flits before it was given up")


def simulate(
    block: str,
    spec: ChipletSpec,
    ber: float,
    packets: int,
    seed: int,
    waves: Path | None = None,
    progress: Progress = lambda _, __: None,
    capture: Path | None = None,
) -> dict[str, Any]:
    """Run a block's bench under Amaranth's simulator.

    ``capture`` gets the flits of both lines of a link as pcapng. Returns the tally of the packets, replays, frames with a
    wrong CRC, bit errors, cycles and cycles per second. RunError if flits stop to arrive.
    """
    import numpy as np

    from lightfabric.sim.bench.bench import BenchTimeoutError
    from lightfabric.sim.channel.error import BitErrors

    rng = np.random.default_rng(seed)
    run = {"link": partial(_link, capture), "switch": _switch, "chiplet": _chiplet}[block]
    begin_s = time.perf_counter()
    try:
        result = run(spec, packets, rng, BitErrors(ber, rng), str(waves) if waves else None, progress)
    except BenchTimeoutError as error:
        raise RunError(f"amaranth: {error}") from None
    return {**result, "cycles_per_s": round(result["cycles"] / (time.perf_counter() - begin_s), 1)}


def _link(
    capture: Path | None, spec: ChipletSpec, count: int, rng: Any, errors: Any, waves: str | None, progress: Progress
) -> dict[str, Any]:
    from lightfabric.sim.bench import packet as traffic
    from lightfabric.sim.bench.capture import flits as captured
    from lightfabric.sim.bench.capture import pcapng
    from lightfabric.sim.bench.link import LinkBench

    packets = traffic.random_packets(spec, count, rng, [0], [1])
    flits = [flit for packet in packets for flit in packet.flits(spec)]
    stop = _Stall(spec, len(flits), progress)
    run = LinkBench(spec).run(
        [(0, flit) for flit in flits],
        delay_cycles=1, errors_a=errors, errors_b=errors, bound_cycles=1 << 62, waves=waves, progress=stop,
        decode=capture is not None,
    )  # fmt: skip
    if capture is not None:
        capture.write_bytes(pcapng(LINES, captured(spec, run.a_slots, 0) + captured(spec, run.b_slots, 1)))
    return _outcome(packets, [run.received], run.cycles, run.bit_errors, run.replays, run.crc_errors)


def _switch(spec: ChipletSpec, count: int, rng: Any, errors: Any, waves: str | None, progress: Progress) -> dict[str, Any]:
    from lightfabric.sim.bench import packet as traffic
    from lightfabric.sim.bench.switch import SwitchBench

    ports = range(spec.switch_ports)
    packets = traffic.random_packets(spec, count, rng, ports, ports)
    flits = {port: [(0, f) for p in packets if p.source == port for f in p.flits(spec)] for port in ports}
    total = sum(map(len, flits.values()))
    progress(0, total)
    # A switch loses nothing: without a fault it needs far fewer cycles than this bound allows.
    run = SwitchBench(spec).run(flits, bound_cycles=1_000 + 8 * total, waves=waves)
    progress(total, total)
    return _outcome(packets, run.received, run.cycles, errors.count)


def _chiplet(spec: ChipletSpec, count: int, rng: Any, errors: Any, waves: str | None, progress: Progress) -> dict[str, Any]:
    from lightfabric.sim.bench import packet as traffic
    from lightfabric.sim.bench.chiplet import ChipletBench

    bench = ChipletBench(spec)
    packets = traffic.random_packets(spec, count, rng, bench.addresses, bench.addresses)
    flits = {at: [f for p in packets if p.source == at for f in p.flits(spec)] for at in bench.addresses}
    stop = _Stall(spec, sum(map(len, flits.values())), progress)
    run = bench.run(flits, errors=errors, bound_cycles=1 << 62, waves=waves, progress=stop)
    return _outcome(packets, run.received.values(), run.cycles, errors.count, run.replays, run.crc_errors)


def _outcome(
    packets: Any, received: Iterable[Any], cycles: int, bit_errors: int, replays: int = 0, crc_errors: int = 0
) -> dict[str, Any]:
    from lightfabric.sim.bench.packet import Tally, assembled

    arrived = [packet for at in received for packet in assembled(flit for _, flit in at)]
    counts = {"replays": replays, "crc_errors": crc_errors, "bit_errors": bit_errors, "cycles": cycles}
    return {**asdict(Tally.of(packets, arrived)), **counts}


class _Stall:
    """Reports in each cycle the flits that have arrived, and ends a run in which none arrives any more."""

    def __init__(self, spec: ChipletSpec, total: int, progress: Progress):
        from lightfabric.sim.bench import packet as traffic

        self._total, self._progress, self._patience = total, progress, traffic.stall_cycles(spec, traffic.STALL_TIMEOUTS)
        self._arrived = self._quiet_cycles = 0

    def __call__(self, arrived: int) -> None:
        from lightfabric.sim.bench.bench import BenchTimeoutError

        # The bound is on silence, not on the length of the run: a bad line may be slow for as long as it gets on.
        if arrived != self._arrived or arrived >= self._total:
            self._arrived, self._quiet_cycles = arrived, 0
            self._progress(arrived, self._total)
            return
        self._quiet_cycles += 1
        if self._quiet_cycles > self._patience:
            lost = f"{self._total - arrived} of {self._total} flits are lost"
            raise BenchTimeoutError(f"{lost}: none arrived for {self._patience} cycles")


def _simulate_outside(block: str, simulator: str, spec: ChipletSpec, **options: Any) -> dict[str, Any]:
    from lightfabric.flows.tool import cocotb

    with tempfile.TemporaryDirectory(prefix="lightfabric-") as folder:
        return cocotb.run(block, simulator, spec, Path(folder), **options)


def _is_native(block: str, simulator: str) -> bool:
    return (block, simulator) == ("link", "verilator")


def _simulate_natively(
    spec: ChipletSpec, ber: float, packets: int, seed: int, faults: Faults, waves: Path | None
) -> dict[str, Any]:
    from lightfabric.flows.tool import native as flow
    from lightfabric.sim.native import link as native

    # Both directions are busy at once, so that answers and credits travel among flits.
    back = packets // 2
    with tempfile.TemporaryDirectory(prefix="lightfabric-") as folder:
        program = flow.build(spec, Path(folder), waves=waves is not None)
        job = native.Run(packets - back, back, seed=seed, ber=ber, ber_back=ber, **asdict(faults))
        return flow.run(program, job, waves=waves, bound_s=BOUND_S)


def _require_options(block: str, simulator: str, ber: float, packets: int, seed: int, faults: Faults) -> None:
    require_one_of("BLOCK", (*BLOCKS, LINE), block)
    require_one_of("--simulator", SIMULATORS, simulator)
    if not 0 <= ber < MAX_BER:
        raise InputError(f"--ber must be at least 0 and below {MAX_BER}, not {ber!r}")
    if ber and block == "switch":
        raise InputError(f"--ber must be 0 for the switch, which has no line, not {ber!r}")
    require_between("--packets", 1, MAX_PACKETS, packets)
    require_between("--seed", 0, MAX_SEED, seed)
    for name, rate in asdict(faults).items():
        if rate and not _is_native(block, simulator):
            raise InputError(f"--{name} must be 0 but for the link on verilator, not {rate!r}")
    for name in ("bursts", "drops", "duplicates"):
        if not 0 <= getattr(faults, name) < MAX_RATE:
            raise InputError(f"--{name} must be at least 0 and below {MAX_RATE}, not {getattr(faults, name)!r}")
    require_between("--stalls", 0, MAX_STALLS, faults.stalls)


def _require_capture(block: str, simulator: str, capture: Path | None) -> None:
    if capture and (_is_native(block, simulator) or (simulator == "amaranth" and block != "link")):
        can = "of the link on amaranth or icarus, or of another block on icarus or verilator"
        raise InputError(f"--capture must be {can}, not of the {block} on {simulator}")


def _written(file: Path | None) -> AbstractContextManager[Path | None]:
    return written_whole(file) if file else nullcontext()


@contextmanager
def _bar(what: str) -> Iterator[Progress]:
    """Show a progress bar on stderr, which is gone when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("flits"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda arrived, total: bar.update(task, completed=arrived, total=total)
