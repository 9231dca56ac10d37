"""What nodes that fail leave without use, from the trace of InfiniteHBD [SIGCOMM 2025] in ``examples``.

The published waste is of one random placing of the nodes, and of a reading of the trace row by row: 14 faults end as they
begin, their end first, so that their nodes stay down until the next end, ten of them for good. Then 4.2 % of the nodes are
down in the mean and not 2.3 %; on static rings of 2 nodes no dead node could else cost more than one other.
"""

from dataclasses import replace
from functools import cache
from importlib.resources import as_file, files

import numpy as np

from lightfabric.flows.format.fault_trace import FaultTrace, read
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.published.figure import Figure
from lightfabric.flows.run.waste import down_percent, waste
from lightfabric.model.fabric.fabric import fabric_of

NODES, NODE_GPUS, GROUPS, PLACES, SEED = 400, 8, (16, 32, 64), 4, 1
DOWN_PERCENT = (2.31, 1.75, 5.5, 7.75, 8.75)
WASTE_PERCENT = {
    "one big switch": ((0.12, 0.34, 0.79), 0.03),
    "islands of 72": ((8.00, 9.04, 11.14), 0.15),
    "islands of 576": ((0.66, 2.15, 6.10), 0.15),
    "static rings": ((4.09, 11.87, 25.28), 0.10),
    "ring with bypass of 2": ((0.12, 0.35, 0.82), 0.35),
    "ring with bypass of 3": ((0.12, 0.34, 0.79), 0.03),
}
"""By fabric of ``examples/faults.toml``; and how far a mean over other placings may be off, as a share."""


def row_by_row(trace: FaultTrace) -> FaultTrace:
    """Return a trace whose nodes are down from a row with a start to one with an end, whatever is at the same time."""
    down, change = set[int](), np.zeros_like(trace.change)
    for row, (node, begins) in enumerate(zip(trace.node.tolist(), trace.change > 0, strict=True)):
        if begins != (node in down):
            change[row] = 1 if begins else -1
            (down.add if begins else down.remove)(node)
    return replace(trace, change=change)


@cache
def _trace() -> FaultTrace:
    with as_file(files("lightfabric.examples") / "node_faults.csv") as path:
        return read(path, NODES)


def _waste_percent(name: str) -> list[float]:
    spec = load_spec(None, default="faults")
    fabrics = [fabric_of(each, spec.chiplet) for each in spec.fabrics if each.name == name]
    found = waste(row_by_row(_trace()), NODES, NODE_GPUS, fabrics, GROUPS, PLACES, SEED)
    return (100 * found[0].mean(axis=1)).tolist()


def figures() -> list[Figure]:
    """Nodes that are down, and working GPUs without use by fabric."""
    found = [
        Figure(
            "nodes that are down of 400, mean, median, p90, p99, most, % (trace of InfiniteHBD, SIGCOMM 2025)",
            "faults examples/node_faults.csv",
            DOWN_PERCENT,
            lambda: list(down_percent(_trace(), NODES).values()),
            0.003,
            ".3g",
        )
    ]
    return found + [
        Figure(
            f"GPUs without use at tp 16, 32, 64, {name}, %, were faults of no length to last (the same trace)",
            f"the same row by row, {PLACES} placings; published is one",
            published,
            lambda name=name: _waste_percent(name),
            within,
            ".2f",
        )
        for name, (published, within) in WASTE_PERCENT.items()
    ]
