"""Runs the cocotb benches: Verilog of a block, a foreign simulator, foreign AXI4-Stream clients."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightfabric.flows import verilog
from lightfabric.flows.report import RunError
from lightfabric.flows.tools import simulator_environment
from lightfabric.model.spec import ChipletSpec

SIMULATORS = ("icarus", "verilator")
BOUND_S = 300
_TOP = "bench"
_BUILD_ARGS = {
    # Verilog 2005: in SystemVerilog mode Icarus never starts an always @* whose inputs keep their initial values.
    "icarus": ["-g2005"],
    # The ports alone are public, by _PUBLIC: with all signals public, building and running take three times as long.
    "verilator": ["--no-public-flat-rw", *(f"-Wno-{rule}" for rule in verilog.WAIVERS)],
}
_PUBLIC = f'`verilator_config\npublic_flat_rw -module "{_TOP}" -var "*"\n'
_WAVES = {"icarus": f"{_TOP}.fst", "verilator": "dump.vcd"}


def run(
    block: str,
    simulator: str,
    spec: ChipletSpec,
    build_dir: Path,
    *,
    packets: int = 100,
    ber: float = 0.0,
    seed: int = 1,
    pauses: bool = True,
    bound_s: int = BOUND_S,
    stall_timeouts: int | None = None,
    waves: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run the bench of a block in ``build_dir`` and return what it wrote: the packets' tally, counters and cycles.

    ``waves`` is written as VCD by Verilator and as FST by Icarus. RunError if a tool is missing, the build fails, the
    bench fails or takes more than ``bound_s``, or no test ran. Packets are given up when none has arrived for
    ``stall_timeouts`` replay timeouts.
    """
    with simulator_environment(simulator):
        from cocotb_tools.check_results import get_results
        from cocotb_tools.runner import get_runner

        from lightfabric.sim.axi import Run
        from lightfabric.sim.traffic import STALL_TIMEOUTS

        build_dir.mkdir(parents=True, exist_ok=True)
        build_dir = build_dir.resolve()
        source, tally, results = build_dir / f"{_TOP}.v", build_dir / "tally.json", build_dir / "results.xml"
        sources = [source]
        if simulator == "verilator":
            sources.append(build_dir / "public.vlt")
            sources[-1].write_text(_PUBLIC, encoding="utf-8")
        source.write_text(verilog.convert(_design(block, spec), _TOP), encoding="utf-8")
        for stale in (tally, results):
            stale.unlink(missing_ok=True)
        runner = get_runner(simulator)
        runner.log.setLevel("WARNING")
        settings: dict[str, Any] = {"timescale": ("1ns", "1ps"), "waves": waves is not None}
        progress(f"{simulator} builds the {block}")
        with _named(build_dir / "build.log", f"{simulator} did not build the {block}"):
            runner.build(
                sources=sources, hdl_toplevel=_TOP, build_dir=build_dir, build_args=_BUILD_ARGS[simulator], always=True,
                log_file=build_dir / "build.log", **settings,
            )  # fmt: skip
        progress(f"{simulator} simulates the {block}")
        job = Run(spec, str(tally), packets, ber, seed, pauses, bound_s, stall_timeouts or STALL_TIMEOUTS)
        with _named(build_dir / "test.log", f"{simulator} did not end the bench of the {block}"):
            runner.test(
                test_module=f"lightfabric.sim.cocotb_{block}", hdl_toplevel=_TOP, hdl_toplevel_lang="verilog",
                build_dir=build_dir, results_xml=str(results), log_file=build_dir / "test.log", seed=seed,
                extra_env={**job.environment(), "COCOTB_LOG_LEVEL": "WARNING"}, **settings,
            )  # fmt: skip
            tests, failed = get_results(results)
        if tests == 0 or failed or not tally.exists():
            raise RunError(
                f"{simulator}: {failed} of {tests} tests of the {block} failed: {_end_of(build_dir / 'test.log')}"
            )
        if waves is not None:
            waves.write_bytes((build_dir / _WAVES[simulator]).read_bytes())
        return json.loads(tally.read_text())


def _design(block: str, spec: ChipletSpec):
    """What the bench of a block simulates: the switch alone, the others as two ends joined by fibres."""
    from lightfabric.rtl.top import tops
    from lightfabric.sim.pair import Pair

    if block == "switch":
        return tops[block](spec)
    second = 1 if block == "link" else spec.ports
    return Pair(spec, tops[block](spec, address=0), tops[block](spec, address=second))


class _named:  # noqa: N801
    """Turns what a runner raises into a RunError with the end of its log."""

    def __init__(self, log: Path, what: str):
        self._log, self._what = log, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, (RuntimeError, SystemExit)):
            raise RunError(f"{self._what}: {_end_of(self._log) or error}") from None


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
