"""Runs the cocotb benches: Verilog of a block, a foreign simulator, foreign AXI4-Stream clients."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightfabric.flows.report import RunError
from lightfabric.flows.tool.executable import simulator_environment
from lightfabric.flows.tool.verilog_text import WAIVERS, convert
from lightfabric.model.spec import ChipletSpec

_TOP = "bench"
_TIMESCALE = ("1ns", "1ps")
_BUILD_ARGS = {
    # Verilog 2005: in SystemVerilog mode Icarus never starts an always @* whose inputs keep their initial values.
    "icarus": ["-g2005"],
    # The ports alone are public, by _PUBLIC: with all signals public, building and running take three times as long.
    "verilator": ["--no-public-flat-rw", *(f"-Wno-{rule}" for rule in WAIVERS)],
}
_PUBLIC = f'`verilator_config\npublic_flat_rw -module "{_TOP}" -var "*"\n'
# The runner's own dump module is SystemVerilog, which Icarus does not read with -g2005.
_DUMP = f'module dump; initial begin $dumpfile("{_TOP}.fst"); $dumpvars(0, {_TOP}); end endmodule\n'
_WAVES = {"icarus": f"{_TOP}.fst", "verilator": "dump.vcd"}


def run(
    block: str,
    simulator: str,
    spec: ChipletSpec,
    build_dir: Path,
    *,
    stall_timeouts: int | None = None,
    waves: Path | None = None,
    capture: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> dict[str, Any]:
    """Run the bench of a block in ``build_dir`` and return what it wrote: the packets' tally, counters and cycles.

    ``waves`` is written as VCD by Verilator and as FST by Icarus, ``capture`` as pcapng. RunError if a tool is missing, the
    build fails, the bench fails or takes more than ``bound_s``, or no test ran. Packets are given up when none has arrived
    for ``stall_timeouts`` replay timeouts. The ``options`` are fields of ``sim.cocotb.axi.Run``.
    """
    with simulator_environment(simulator):
        from lightfabric.sim.bench.packet import STALL_TIMEOUTS
        from lightfabric.sim.cocotb.axi import Run

        build_dir.mkdir(parents=True, exist_ok=True)
        build_dir = build_dir.resolve()
        tally = build_dir / "tally.json"
        # What an earlier run left must not pass for the result of this one.
        tally.unlink(missing_ok=True)
        options["stall_timeouts"] = stall_timeouts or STALL_TIMEOUTS
        job = Run(spec, str(tally), capture=str(capture.resolve()) if capture else "", **options)
        progress(f"{simulator} builds the {block}")
        runner = _built(block, simulator, spec, build_dir, waves is not None)
        progress(f"{simulator} simulates the {block}")
        _test(runner, block, simulator, build_dir, job.environment(), job.seed, waves is not None)
        if waves is not None:
            waves.write_bytes((build_dir / _WAVES[simulator]).read_bytes())
        return json.loads(tally.read_text())


def _built(block: str, simulator: str, spec: ChipletSpec, build_dir: Path, waves: bool) -> Any:
    from cocotb_tools.runner import get_runner

    sources = [_written(build_dir / f"{_TOP}.v", convert(_design(block, spec), _TOP))]
    build_args, log = list(_BUILD_ARGS[simulator]), build_dir / "build.log"
    if simulator == "verilator":
        sources.append(_written(build_dir / "public.vlt", _PUBLIC))
    elif waves:
        sources.append(_written(build_dir / "dump.v", _DUMP))
        build_args += ["-s", "dump"]
    runner = get_runner(simulator)
    runner.log.setLevel("WARNING")
    with _explained(log, f"{simulator} did not build the {block}"):
        runner.build(
            sources=sources, hdl_toplevel=_TOP, build_dir=build_dir, build_args=build_args, always=True, log_file=log,
            timescale=_TIMESCALE, waves=waves and simulator == "verilator",
        )  # fmt: skip
    return runner


def _test(
    runner: Any, block: str, simulator: str, build_dir: Path, environment: dict[str, str], seed: int, waves: bool
) -> None:
    from cocotb_tools.check_results import get_results

    log, results = build_dir / "test.log", build_dir / "results.xml"
    results.unlink(missing_ok=True)
    with _explained(log, f"{simulator} did not end the bench of the {block}"):
        runner.test(
            test_module=f"lightfabric.sim.cocotb.{block}", hdl_toplevel=_TOP, hdl_toplevel_lang="verilog",
            build_dir=build_dir, results_xml=str(results), log_file=log, seed=seed,
            extra_env={**environment, "COCOTB_LOG_LEVEL": "WARNING"}, timescale=_TIMESCALE, waves=waves,
        )  # fmt: skip
        tests, failed = get_results(results)
    if tests == 0 or failed:
        raise RunError(f"{simulator}: {failed} of {tests} tests of the {block} failed: {_end_of(log)}")


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _design(block: str, spec: ChipletSpec):
    """Return what the bench of a block simulates: switch and registers alone, the others as two ends joined by fibres."""
    from lightfabric.rtl.register import Registers
    from lightfabric.rtl.top import AxiChiplet, AxiLink, AxiSwitch
    from lightfabric.sim.bench.pair import Pair

    if block == "registers":
        return Registers()
    if block == "switch":
        return AxiSwitch(spec)
    if block == "link":
        return Pair(spec, AxiLink(spec, address=0), AxiLink(spec, address=1))
    return Pair(spec, AxiChiplet(spec, address=0), AxiChiplet(spec, address=spec.ports))


@contextmanager
def _explained(log: Path, what: str) -> Iterator[None]:
    """Turn what a runner raises into a RunError with the end of its log."""
    try:
        yield
    except (RuntimeError, SystemExit) as error:
        raise RunError(f"{what}: {_end_of(log) or error}") from None


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
