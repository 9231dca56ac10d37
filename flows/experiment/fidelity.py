"""A task graph is run as fluids or flit by flit; what is too large for that is refused, what only that shows is kept."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightfabric.flows.report import InputError, require_one_of
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import Timing

if TYPE_CHECKING:
    from lightfabric.model.cycle.cabling import Cabling, ElectricalCabling
    from lightfabric.model.cycle.cluster import Cluster
    from lightfabric.model.cycle.switched import SwitchedCabling
    from lightfabric.model.task import Schedule, TaskGraph

FIDELITIES = ("fluid", "cycle")
# So many flits take the cycle model some minutes.
MAX_FLITS = 1 << 29
BINS_PER_OCTAVE = 8
FILES = ("link-load.png", "message-latency.png")
"""Figures, of which the fluid model has the first alone."""


def require(fidelity: str) -> None:
    """Raise an InputError unless there is such a fidelity."""
    require_one_of("--fidelity", FIDELITIES, fidelity)


def require_few(flits: int, what: str) -> None:
    """Raise an InputError for more flits than the cycle model can move."""
    if flits > MAX_FLITS:
        raise InputError(f"--fidelity must be fluid for {what}, whose {flits} flits are more than {MAX_FLITS}, not cycle")


@dataclass(frozen=True)
class Detail:
    """Holds what a run shows beside its schedule.

    ``load[a, b]`` is the share of the time in which the links from ``nodes[a]`` to ``nodes[b]`` carry flits, NaN if there is
    none; of fluids the share of what they could carry, of the busiest of many. ``messages[k]`` took from 2^(k / 8) ns on, a
    transfer or a chunk of a ring each; fluids have none. ``strips`` are shares of links of other kinds, along the fabric.
    """

    nodes: list[str]
    load: NDArray[np.float64]
    messages: NDArray[np.int64]
    strips: dict[str, NDArray[np.float64]] = field(default_factory=dict[str, NDArray[np.float64]])


def run(
    graph: "TaskGraph",
    spec: ChipletSpec,
    timing: Timing,
    cabling: "Cabling | ElectricalCabling | SwitchedCabling",
    message_latency_cycles: int = 0,
) -> "tuple[Schedule, Detail]":
    """Run a task graph at cycle fidelity. Chunks of a ring count with their mean latency."""
    from lightfabric.model.cycle.cluster import Cluster

    cluster = Cluster(graph, spec, timing, cabling, message_latency_cycles)
    schedule = cluster.run()
    count, cycles = cluster.messages()
    # Bins of equal ratio, from 1 ns on, so that short and long messages are seen alike.
    octaves = np.log2(np.maximum(cycles * spec.cycle_ps / 1000, 1))
    messages = np.bincount((BINS_PER_OCTAVE * octaves).astype(int), count).astype(np.int64)
    return schedule, Detail(*_loads(cluster, schedule), messages)


def _loads(cluster: "Cluster", schedule: "Schedule") -> tuple[list[str], NDArray[np.float64]]:
    """Return the nodes that have links, and the mean load of the links from each to each."""
    ends = np.array([(node, far) for (node, _), far in cluster.far_node.items()], int).reshape(-1, 2)
    nodes, place = np.unique(ends, return_inverse=True)
    source, far = place.reshape(-1, 2).T
    total, links = np.zeros((2, len(nodes), len(nodes)))
    np.add.at(total, (source, far), schedule.link_busy_ps / max(schedule.makespan_ps, 1))
    np.add.at(links, (source, far), 1)
    gpus = cluster.graph.devices
    names = [str(node) if node < gpus else f"hub {node - gpus}" for node in nodes.tolist()]
    return names, np.divide(total, links, out=np.full_like(total, np.nan), where=links > 0)
