"""The same collectives run as fluids and flit by flit on small fabrics of each kind, while others compete."""

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from lightfabric.flows.format.timing_store import measured_timing
from lightfabric.model.cycle.cluster import Cluster
from lightfabric.model.fabric.direct.torus import Torus
from lightfabric.model.fluid import engine
from lightfabric.model.spec import ChipletSpec, FabricSpec
from lightfabric.model.task import Kind, Part, TaskGraph
from lightfabric.model.timing import Timing
from lightfabric.placement.fabric.fabric import Fabric, fabric_of
from lightfabric.placement.fabric.optical.optical import Optical
from lightfabric.placement.graph.builder import Builder
from lightfabric.placement.graph.neighbour import all_to_all_by_neighbours
from lightfabric.placement.graph.rings import in_rings

CHIPLET = ChipletSpec(ports=4, wavelengths_per_port=4, flit_bytes=64, virtual_channels=8)
GPUS = (16, 64)
REDUCED_FLITS, SENT_FLITS = 16384, 128
"""Of the buffer of a GPU that is reduced, and of what it sends to each other one."""
NIC = {"nic_gbps": 400.0, "nic_latency_us": 0.5}


def fabrics(gpus: int) -> list[FabricSpec]:
    """List fabrics of 16 or 64 GPUs; leaves and groups are smaller than the whole."""
    square, long = ([4, 4], [2, 8]) if gpus == GPUS[0] else ([8, 8], [4, 16])
    radix, twice = (8, 6) if gpus == GPUS[0] else (16, 12)
    groups = {"gpus_per_router": 2, "routers_per_group": 4, "global_links": 2, "link_gbps": NIC["nic_gbps"]}
    every = [
        {"name": "ring", "kind": "torus", "dimensions": 1},
        {"name": "torus", "kind": "torus", "shape": square},
        {"name": "twisted torus", "kind": "twisted-torus", "shape": long},
        {"name": "OCS", "kind": "sip-ocs", "fibre_m": CHIPLET.reach_m / 2},
        {"name": "fat tree", "kind": "fat-tree", "radix": radix, **NIC},
        {"name": "fat tree 2:1", "kind": "fat-tree", "radix": twice, "oversubscription": 2.0, **NIC},
        {"name": "dragonfly", "kind": "dragonfly", **groups, **NIC},
    ]
    return TypeAdapter(list[FabricSpec]).validate_json(json.dumps(every))


def measure() -> dict[str, Any]:
    """Run all collectives on all fabrics with the measured timing of the chiplet; some minutes."""
    timing = measured_timing(CHIPLET)
    every = (fabric_rows(spec, gpus, timing) for gpus in GPUS for spec in fabrics(gpus))
    return {"bench": "agreement", "agreements": [row for rows in every for row in rows]}


def fabric_rows(spec: FabricSpec, gpus: int, timing: Timing) -> list[dict[str, Any]]:
    """Run each collective on a fabric: a row of the time in either model, the cycle model's as a ratio to the other's."""
    fabric = fabric_of(spec, CHIPLET, timing)
    return [_row(fabric, what, graph) for what, graph in _collectives(fabric, gpus)]


def _collectives(fabric: Fabric, gpus: int) -> Iterator[tuple[str, TaskGraph]]:
    payload = fabric.cycle_chiplet.payload_bytes
    yield "all-reduces of even and odd GPUs", in_rings(_two_reduces(gpus, REDUCED_FLITS * payload), fabric.rings)
    yield "all-to-all at once", _at_once(gpus, SENT_FLITS * payload)
    if isinstance(fabric, Torus):
        yield "all-to-all by neighbours", all_to_all_by_neighbours(fabric.lattice(gpus), SENT_FLITS * payload)


def _two_reduces(gpus: int, size_bytes: int) -> TaskGraph:
    builder, groups = Builder(), np.arange(gpus, dtype=np.int32).reshape(-1, 2).T
    builder.add(Kind.ALL_REDUCE, Part.DATA, groups[:, 0], size_bytes, np.arange(2))
    return builder.graph(gpus, [groups])


def _at_once(gpus: int, size_bytes: int) -> TaskGraph:
    builder, here = Builder(), np.arange(gpus, dtype=np.int32)
    ahead = np.arange(1, gpus, dtype=np.int32)[:, None]
    builder.add(Kind.TRANSFER, Part.EXCHANGE, np.broadcast_to(here, (gpus - 1, gpus)), size_bytes, (here + ahead) % gpus)
    return builder.graph(gpus, [])


def _row(fabric: Fabric, what: str, graph: TaskGraph) -> dict[str, Any]:
    gpus, demand = graph.devices, graph.demand_bytes()
    circuits = fabric.assign(gpus, demand) if isinstance(fabric, Optical) else None
    begin_s = time.process_time()
    fluid_ps = engine.run(graph, fabric.network(gpus, demand, circuits)).makespan_ps
    cluster = Cluster(graph, fabric.cycle_chiplet, fabric.cycle_timing, fabric.cabling(gpus, circuits))
    cycle_ps = cluster.run().makespan_ps
    return {
        "fabric": fabric.name,
        "gpus": gpus,
        "collective": what,
        "fluid_us": fluid_ps / 1e6,
        "cycle_us": cycle_ps / 1e6,
        "ratio": cycle_ps / fluid_ps,
        "flits": int(cluster.flits_per_link().sum()),
        "cpu_s": time.process_time() - begin_s,
    }
