"""All-to-all traffic: tokens to their experts and back, rows of embedding tables to the samples that need them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import JobSpec
from lightfabric.placement.layered import Layer
from lightfabric.placement.mapping import DATA, EXCHANGE, Traffic, exchanged_bytes, traffic
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload import ring_bytes


def zipf(experts: int, exponent: float) -> NDArray[np.float64]:
    """Share of the tokens that each expert gets, the k-th in proportion to 1 / k ** exponent; 0 is even.

    Measured popularity is about as skewed as exponents of 0.5 to 1 [He et al., "FasterMoE" (PPoPP 2022), figure 4].

    Examples:
        >>> zipf(4, 1.0).round(2).tolist()
        [0.48, 0.24, 0.16, 0.12]

    """
    share = np.arange(1, experts + 1) ** -float(exponent)
    return share / share.sum()


def expert_traffic(job: JobSpec, plan: Plan, popularity: NDArray[np.float64]) -> Traffic:
    """One iteration's traffic with the all-to-alls of ``plan.ep`` ranks each, for plans without cp.

    ``popularity[expert]`` are shares of the tokens; rank e of an ep group holds the e-th experts / ep of them.
    ValueError if the plan has no experts to share out, or cp.
    """
    if plan.ep == 1 or plan.cp > 1 or job.model.experts % plan.ep:
        raise ValueError(f"Plan.ep must be a divisor of the experts ({job.model.experts}) above 1, and cp 1, not {plan}")
    share = popularity.reshape(plan.ep, -1).sum(axis=1) * plan.ep
    rank = np.arange(plan.gpus, dtype=np.int32).reshape(plan.dp // plan.ep, plan.ep, plan.pp, plan.tp)
    sent = exchanged_bytes(job, plan)[:, None] / 2
    source, destination = np.broadcast_arrays(rank[:, :, None], rank[:, None, :])
    # A rank sends tokens to a busy rank's experts, and gets as much back from them.
    size = np.rint(sent * (share[:, None] + share[None, :])[None, :, :, None, None])
    talks = source != destination
    exchanged = np.broadcast_to(size, source.shape)[talks].astype(np.int64)
    even = traffic(job, plan)
    others = even.part != EXCHANGE
    rest = Traffic(even.source[others], even.destination[others], even.size_bytes[others], even.part[others])
    return _joined(rest, source[talks], destination[talks], exchanged)


def recommender_traffic(layers: Sequence[Layer], gpus: int, batch: int, value_bytes: int = 4) -> Traffic:
    """One iteration of a recommender: tables dealt out to GPUs by size, all else on every GPU with gradients in a ring.

    The owner of tables sends their rows of every sample to the sample's GPU, and gets the gradients back. The largest
    table goes to the GPU that holds least so far.
    """
    tables = sorted((layer for layer in layers if layer.exchange_bytes), key=lambda layer: -layer.parameters)
    held, sent = np.zeros(gpus), np.zeros(gpus, np.int64)
    for table in tables:
        owner = int(np.argmin(held))
        held[owner] += table.parameters
        sent[owner] += table.exchange_bytes * batch // gpus
    node = np.arange(gpus, dtype=np.int32)
    shared = sum(layer.parameters for layer in layers if not layer.exchange_bytes)
    ring = np.full(gpus, ring_bytes(shared * value_bytes, gpus), np.int64)
    data = Traffic(node, np.roll(node, -1), ring, np.full(gpus, DATA, np.int8))
    source, destination = (side.ravel() for side in np.meshgrid(node, node, indexing="ij"))
    size = sent[source] + sent[destination]
    talks = (source != destination) & (size > 0)
    return _joined(data, source[talks], destination[talks], size[talks])


def _joined(flows: Traffic, source: NDArray[np.int32], destination: NDArray[np.int32], size: NDArray[np.int64]) -> Traffic:
    part = np.full(len(source), EXCHANGE, np.int8)
    return Traffic(
        np.concatenate((flows.source, source)),
        np.concatenate((flows.destination, destination)),
        np.concatenate((flows.size_bytes, size)),
        np.concatenate((flows.part, part)),
    )
