"""A task graph is run in RTL, on chiplets joined by fibres, to compare the cycle model with it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightfabric.flows.report import RunError
from lightfabric.flows.tool import native
from lightfabric.flows.tool.verilog_text import convert
from lightfabric.model.cycle.cabling import Cabling
from lightfabric.model.cycle.program import Program
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.task import TaskGraph
from lightfabric.sim.native import cluster as system


@dataclass(frozen=True)
class SystemRun:
    """Holds the cycles in which each task started and finished, from reset on; the first beat of a slot by GPU and lane."""

    start: NDArray[np.int64]
    finish: NDArray[np.int64]
    frame_beats: dict[tuple[int, int], int]


def build(spec: ChipletSpec, folder: Path, addresses: int = 64) -> Path:
    """Build the program for systems of this spec with up to so many addresses, as ``native.build``."""
    node = system.Node(spec, addresses)
    files = {f"{system.TOP}.v": convert(node, system.TOP), **system.sources(), system.SHAPE: system.shape(node)}
    return native.built(system.TOP, files, folder)


def run(made: Path, graph: TaskGraph, spec: ChipletSpec, cabling: Cabling, bound_cycles: int = 1 << 22) -> SystemRun:
    """Run a graph whose rank r is GPU r on what was built; ``cabling`` has the ports of the spec.

    ValueError for what the RTL cannot be; RunError if a packet is lost or changed, or if it does not end within
    ``bound_cycles``.
    """
    program = Program(graph, spec, cabling)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as text:
        text.write(system.text(program, spec, cabling, bound_cycles))
        text.flush()
        seen = native.counts(made, [text.name])
    # The program marks an operation that has not ended by -1.
    if min(seen["finish"], default=0) < 0:
        unfinished = seen["finish"].index(-1)
        raise RunError(f"the system did not end within {bound_cycles} cycles: operation {unfinished} is not done")
    operations = program.operations.copy()
    operations["start_cycle"], operations["finish_cycle"] = seen["start"], seen["finish"]
    ends = [(gpu, port) for gpu in range(graph.devices) for port in range(cabling.ports)]
    return SystemRun(*program.times(operations), dict(zip(ends, seen["frame_beats"], strict=True)))
