"""Nodes that are down leave others without a use: GPUs that work, and of which no whole group is left that a fabric joins.

Nodes of a trace take random places, since it does not say which of them are near each other.
"""

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.flows.format.fault_trace import FaultTrace
from lightfabric.model.fabric.fabric import Fabric

MAX_STATES = 1 << 10
"""More times between events are drawn from, evenly over the trace."""
CHUNK = 1 << 22
"""GPUs of several states that are looked at together."""
DEVIATIONS = 1.96
"""Standard deviations of a mean that 95 % of all means are within."""


def waste(
    trace: FaultTrace, nodes: int, node_gpus: int, fabrics: Sequence[Fabric], groups: Sequence[int], places: int, seed: int
) -> NDArray[np.float64]:
    """Return the share of all GPUs that has no use, mean over time, ``[fabric, group, place]``, for random places of nodes.

    ValueError of a fabric that cannot have so many GPUs. O(states x GPUs) for each entry, of ``MAX_STATES`` at most.
    """
    random = np.random.default_rng(seed)
    place_of = [random.permutation(nodes) for _ in range(places)]
    found = np.zeros((len(fabrics), len(groups), places))
    for share, down in states(trace, nodes, max(1, CHUNK // (nodes * node_gpus))):
        for which, place in enumerate(place_of):
            alive = np.ones_like(down)
            alive[:, place] = ~down
            alive = np.repeat(alive, node_gpus, axis=1)
            for row, fabric in enumerate(fabrics):
                for column, group in enumerate(groups):
                    wasted = alive.sum(axis=1) - fabric.usable_gpus(alive, group)
                    found[row, column, which] += share @ wasted / alive.shape[1]
    return found


def states(trace: FaultTrace, nodes: int, chunk: int) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Yield shares of the time from 0 to the last event and which nodes are down then, ``[state, node]``, some at a time."""
    until = np.flatnonzero(np.diff(trace.time_days, prepend=0.0))
    days = np.diff(trace.time_days[until], prepend=0.0)
    if len(until) > MAX_STATES:
        ends = np.cumsum(days)
        drawn = np.searchsorted(ends, (np.arange(MAX_STATES) + 0.5) / MAX_STATES * ends[-1])
        drawn, days = np.unique(drawn, return_counts=True)
        until = until[drawn]
    share, faults, done = days / days.sum(), np.zeros(nodes, np.int64), 0
    for first in range(0, len(until), chunk):
        own = until[first : first + chunk]
        down = np.zeros((len(own), nodes), bool)
        for row, event in enumerate(own.tolist()):
            np.add.at(faults, trace.node[done:event], trace.change[done:event])
            down[row], done = faults > 0, event
        yield share[first : first + chunk], down


def down_percent(trace: FaultTrace, nodes: int) -> dict[str, float]:
    """Return how many nodes are down, as percent of all: mean over time, quantiles of time, and most."""
    each = [(share, down.sum(axis=1)) for share, down in states(trace, nodes, chunk=64)]
    share, down = (np.concatenate(column) for column in zip(*each, strict=True))
    order = np.argsort(down, kind="stable")
    until, percent = np.cumsum(share[order]), 100 * down[order] / nodes
    quantiles = {
        name: float(percent[min(int(np.searchsorted(until, part)), len(percent) - 1)])
        for name, part in (("median", 0.5), ("p90", 0.9), ("p99", 0.99))
    }
    return {"mean": float(share @ down * 100 / nodes), **quantiles, "most": float(percent[-1])}


def band(values: NDArray[np.float64]) -> dict[str, Any]:
    """Return mean and 95 % confidence interval of the mean, in percent; the interval is none of a single value."""
    mean = 100 * float(values.mean())
    half = 100 * DEVIATIONS * float(values.std(ddof=1)) / sqrt(len(values)) if len(values) > 1 else None
    low, high = (None, None) if half is None else (max(mean - half, 0.0), mean + half)
    return {"waste_percent": mean, "low_percent": low, "high_percent": high}
