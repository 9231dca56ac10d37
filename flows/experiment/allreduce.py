"""A ring all-reduce runs at flit level on a ring of fibres and through optical circuit switches, beside its closed form."""

import time
from math import ceil
from typing import Any

import numpy as np

from lightfabric.flows.format.timing_store import measured_timing
from lightfabric.flows.tool.pool import peak_bytes
from lightfabric.model.cycle.cabling import Cabling, circuit_switched, ring
from lightfabric.model.cycle.cluster import Cluster
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.model.timing import Timing

GPUS, SIZE_BYTES = 1024, 1_000_000
# From a chiplet to the next one, and from a chiplet to the optical switch.
RING_FIBRE_M, OCS_FIBRE_M = 2.0, 20.0


def all_reduce(gpus: int, size_bytes: int) -> TaskGraph:
    """Return the graph of one all-reduce of so many bytes per GPU over all, in their order."""
    return TaskGraph(
        gpus,
        kind=np.array([Kind.ALL_REDUCE], np.int8),
        device=np.zeros(1, np.int32),
        work=np.array([size_bytes], np.int64),
        peer=np.zeros(1, np.int32),
        operations=np.ones(1, np.int32),
        successor_start=np.zeros(2, np.int64),
        successors=np.zeros(0, np.int32),
        member_start=np.array([0, gpus], np.int64),
        members=np.arange(gpus, dtype=np.int32),
    )


def cabling(fabric: str, gpus: int, ports: int) -> Cabling:
    """Join every GPU to the next: by half of its ports on a ``ring``, by all of them through ``ocs``."""
    if fabric == "ring":
        return ring(gpus, ports, RING_FIBRE_M)
    return circuit_switched(np.tile((np.arange(gpus) + 1) % gpus, (ports, 1)), OCS_FIBRE_M)


def closed_form_cycles(
    gpus: int, size_bytes: int, lanes: int, delay_cycles: int, spec: ChipletSpec, timing: Timing
) -> float:
    """Return 2 (n - 1) times a chunk's flits on the lanes and the latency of the last [Patarasuk, Yuan, 2009].

    The latency is that of both clients, two switches, the link and the fibre, and the cycle in which the GPU takes the flit.
    Buffers cover the round trip.
    """
    # Rounded three times: a chunk is whole bytes, then whole flits, and the fullest lane is waited for.
    flits = ceil(ceil(ceil(size_bytes / gpus) / spec.payload_bytes) / lanes)
    latency_cycles = timing.client.latency_cycles + 2 * timing.switch.latency_cycles + timing.link.latency_cycles
    # One cycle more: the GPU takes a flit in the cycle after the egress shows it.
    latency_cycles += delay_cycles + 1
    return 2 * (gpus - 1) * (latency_cycles + (flits - 1) * float(timing.link.cycles_per_flit))


def measure() -> dict[str, Any]:
    """Measure both fabrics with the default chiplet: cycles, closed form, time of the processor."""
    spec = ChipletSpec()
    timing = measured_timing(spec)
    Cluster(all_reduce(2, 1), spec, timing, cabling("ring", 2, spec.ports)).run()  # compiles
    rows = [_row(fabric, spec, timing) for fabric in ("ring", "ocs")]
    return {"bench": "allreduce", "gpus": GPUS, "bytes": SIZE_BYTES, "peak_memory_bytes": peak_bytes(), "fabrics": rows}


def _row(fabric: str, spec: ChipletSpec, timing: Timing) -> dict[str, Any]:
    begin_s = time.process_time()
    cluster = Cluster(all_reduce(GPUS, SIZE_BYTES), spec, timing, cabling(fabric, GPUS, spec.ports))
    cycles = cluster.run().makespan_ps / spec.cycle_ps
    cpu_s = time.process_time() - begin_s
    lanes = spec.ports // 2 if fabric == "ring" else spec.ports
    closed_form = closed_form_cycles(GPUS, SIZE_BYTES, lanes, cluster.delay_cycles, spec, timing)
    flits = int(cluster.flits_per_link().sum())
    return {"fabric": fabric, "cycles": cycles, "closed_form_cycles": closed_form, "flits": flits, "cpu_s": cpu_s}
