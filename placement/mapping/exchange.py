"""All-to-all traffic: tokens to their experts and back, rows of embedding tables to the samples that need them."""

from collections.abc import Sequence
from heapq import heapreplace

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import JobSpec
from lightfabric.placement.mapping.traffic import DATA, EXCHANGE, Traffic, traffic
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.layered import Layer
from lightfabric.placement.workload.transformer import ring_bytes


def expert_traffic(job: JobSpec, plan: Plan, popularity: NDArray[np.float64]) -> Traffic:
    """One iteration's traffic with the all-to-alls of ``plan.ep`` ranks each, for plans without cp.

    ``popularity[expert]`` are shares of the tokens; rank e of an ep group holds the e-th experts / ep of them.
    ValueError if the plan has no experts to share out, or cp.
    """
    if plan.ep == 1 or plan.cp > 1 or job.model.experts % plan.ep:
        raise ValueError(f"Plan.ep must be a divisor of the experts ({job.model.experts}) above 1, and cp 1, not {plan}")
    return traffic(job, plan, popularity.reshape(plan.ep, -1).sum(axis=1) * plan.ep)


def owned_tables(layers: Sequence[Layer], gpus: int) -> tuple[list[int], list[int]]:
    """Parameters of the tables on each GPU, and bytes of their rows per sample.

    The largest table goes first, each to the GPU that sends least so far, of several to the one that holds least.
    """
    held, row_bytes, least = [0] * gpus, [0] * gpus, [(0, 0, gpu) for gpu in range(gpus)]
    for table in sorted((layer for layer in layers if layer.exchange_bytes), key=lambda layer: -layer.parameters):
        owner = least[0][2]
        held[owner] += table.parameters
        row_bytes[owner] += table.exchange_bytes
        heapreplace(least, (row_bytes[owner], held[owner], owner))
    return held, row_bytes


def recommender_traffic(layers: Sequence[Layer], gpus: int, batch: int, gradient_bytes: int = 4) -> Traffic:
    """One iteration: tables dealt out to GPUs, all else on every GPU with gradients in a ring.

    The owner of tables sends their rows of every sample to the sample's GPU, and gets the gradients back.
    """
    sent = np.array(owned_tables(layers, gpus)[1], np.int64) * (batch // gpus)
    node = np.arange(gpus, dtype=np.int32)
    owners = node[sent > 0]
    shared = sum(layer.parameters for layer in layers if not layer.exchange_bytes)
    ring = np.full(gpus, ring_bytes(shared * gradient_bytes, gpus), np.int64)
    data = Traffic(node, np.roll(node, -1), ring, np.full(gpus, DATA, np.int8))
    source, destination = (side.ravel() for side in np.meshgrid(owners, node, indexing="ij"))
    talks = source != destination
    owner, other, size = source[talks], destination[talks], sent[source[talks]]
    return _joined(data, np.concatenate((owner, other)), np.concatenate((other, owner)), np.concatenate((size, size)))


def _joined(flows: Traffic, source: NDArray[np.int32], destination: NDArray[np.int32], size: NDArray[np.int64]) -> Traffic:
    part = np.full(len(source), EXCHANGE, np.int8)
    return Traffic(
        np.concatenate((flows.source, source)),
        np.concatenate((flows.destination, destination)),
        np.concatenate((flows.size_bytes, size)),
        np.concatenate((flows.part, part)),
    )
