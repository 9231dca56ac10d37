"""``lightfabric bench``: how fast the models run, as ratios to the same code interpreted by Python."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

from lightfabric.flows.report import InputError, RunError, print_json, say

REFERENCE = "the same code interpreted (NUMBA_DISABLE_JIT=1)"


def fluid_tasks_per_s(batch: int) -> float:
    """Tasks per CPU-second of the fluid model: GPT-3 175B with ``batch`` sequences on 1024 GPUs of an ideal switch."""
    from lightfabric.model import fluid
    from lightfabric.model.network import star
    from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec
    from lightfabric.placement.graph import task_graph
    from lightfabric.placement.workload import Plan

    job = JobSpec(ModelSpec(layers=96, hidden=12288, heads=96, sequence=2048, vocabulary=51200), batch)
    graph = task_graph(job, ACCELERATORS["h100"], Plan(dp=16, tp=8, pp=8, micro_batch=1))
    network = star(graph.devices, 5e11, graph.demand_bytes())
    return len(graph) / _cpu_seconds(lambda: fluid.run(graph, network))


def kernel_flit_hops_per_s(flits: int) -> float:
    """Flit-hops per CPU-second of the cycle kernel: ``flits`` from a source through one Fifo to a sink, one per cycle."""
    from lightfabric.model import terminal
    from lightfabric.model.block import Module, connect
    from lightfabric.model.channel import Fifo
    from lightfabric.model.kernel import System

    top = Module()
    source = top.add("source", terminal.Source(cycles=range(flits), offered=terminal.flits(flits)))
    sink = top.add("sink", terminal.Sink())
    connect(source.o, sink.i, Fifo(depth=8, latency_cycles=3))
    system = System(top)
    return flits / _cpu_seconds(lambda: system.run_to_idle(limit_cycle=4 * flits + 100))


def _cpu_seconds(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


BENCHES: dict[str, tuple[str, Callable[[int], float], int, int]] = {
    "fluid": ("tasks per CPU-second", fluid_tasks_per_s, 1536, 16),
    "kernel": ("flit-hops per CPU-second", kernel_flit_hops_per_s, 1_000_000, 2_000),
}
"""Unit, measurement, and its size compiled and interpreted."""


def main(name: str | None, as_json: bool) -> None:
    """The command: measures one bench or all."""
    if name not in (None, *BENCHES):
        raise InputError(f"NAME must be one of {', '.join(BENCHES)}, not {name!r}")
    results = [_result(entry) for entry in (BENCHES if name is None else [name])]
    if as_json:
        print_json({"benches": results})
    else:
        for result in results:
            print("{bench}: {rate:.3g} {unit}, {ratio:.3g} times {reference}".format(**result))


def _result(name: str) -> dict[str, object]:
    unit, measure, size, reference_size = BENCHES[name]
    say(f"measuring {name}")
    measure(reference_size)  # compiles
    rate = max(measure(size) for _ in range(3))
    return {"bench": name, "rate": rate, "unit": unit, "reference": REFERENCE, "ratio": rate / _interpreted(name)}


def _interpreted(name: str) -> float:
    command = [sys.executable, "-m", __name__, name]
    done = subprocess.run(
        command, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise RunError(f"bench {name} failed without numba: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout)


def _measure_interpreted(name: str) -> None:
    _, measure, _, reference_size = BENCHES[name]
    print(measure(reference_size))


if __name__ == "__main__":
    _measure_interpreted(sys.argv[1])
