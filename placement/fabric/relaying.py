"""What an exchange takes that members of its groups pass on, where GPUs relay."""

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits
from lightfabric.model.fluid.network import links_of, route_latency_ps
from lightfabric.model.task import Kind, Part
from lightfabric.placement.collective.relay import Messages, Relays, last_end
from lightfabric.placement.fabric.fabric import Fabric
from lightfabric.placement.graph.builder import Builder
from lightfabric.placement.mapping.traffic import EXCHANGE, Traffic

_Ints = NDArray[np.int64]


class Relaying(NamedTuple):
    """Says how ranks pass on, what all exchanges one way take in an iteration, and what each waits for its messages."""

    relays: Relays
    circuits: Circuits | None
    seconds: float
    wait_seconds: float


def relaying(
    fabric: Fabric, repeats: tuple[int, int], gpu_of_rank: NDArray[np.int32], placed: Traffic, circuits: Circuits | None
) -> Relaying | None:
    """Find how the exchanges of blocks and columns, which are alike, are passed on; None where nothing is to be relayed.

    O(pairs of a block x ways x hops + messages of all blocks).
    """
    exchange = placed.of(EXCHANGE)
    rank = np.argsort(gpu_of_rank)
    source, destination = rank[exchange.source], rank[exchange.destination]
    block, columns = len(rank) // repeats[0], repeats[1]
    first = (source < block) & (source % columns == 0)
    if not len(source) or ((source // block != destination // block) | ((source - destination) % columns != 0)).any():
        return None
    key = np.unique(source[first] * block + destination[first])
    sender, receiver = (gpu_of_rank[end].astype(np.int64) for end in (key // block, key % block))
    ways = fabric.relayed(len(rank), sender, receiver, circuits)
    relays = Relays(block, columns, key, tuple(_at_members(each, key, rank, block, columns) for each in ways))
    if max((each.shape[1] for each in relays.ways), default=0) <= 2:
        return None
    there = np.flatnonzero(first[: len(source) // 2])
    pairs = relays.pairs(source[there], destination[there])
    size = exchange.size_bytes[there]
    return _timed(fabric, relays, relays.messages(pairs, size), size, gpu_of_rank, circuits)


def at_once_seconds(fabric: Fabric, gpus: int, exchange: Traffic, circuits: Circuits | None) -> float:
    """Run an exchange that begins at once as fluids, the mean of both ways.

    It takes longer than its fullest link where that waits for flows which others hold up. O(flows x links of a flow).
    """
    from lightfabric.model.fluid import engine

    ends: Any = np.stack([exchange.source, exchange.destination], axis=1)
    network, half = fabric.network(gpus, ends, circuits), len(exchange.part) // 2
    makespans_ps = list[int]()
    for flows in (exchange[:half], exchange[half:]):
        builder = Builder()
        builder.add(Kind.TRANSFER, Part.EXCHANGE, flows.source, flows.size_bytes, flows.destination)
        makespans_ps.append(engine.run(builder.graph(gpus, []), network).makespan_ps)
    return sum(makespans_ps) / 2e12


def _at_members(stops: _Ints, key: _Ints, rank: NDArray[np.integer], block: int, columns: int) -> _Ints:
    """Ways as ranks, without the stops at GPUs that are not of the group of a pair, the ranks that it is joined to."""
    source, destination = divmod(key, block)
    sparse: Any = import_module("scipy.sparse")
    joined = sparse.csr_array((np.ones(len(key)), (source, destination)), shape=(block, block))
    group = import_module("scipy.sparse.csgraph").connected_components(joined, directed=False)[1]
    ranks = np.where(stops >= 0, rank[stops], -1)
    own = (ranks >= 0) & (ranks < block) & (ranks % columns == 0)
    own &= group[np.where(own, ranks, 0)] == group[source][:, None]
    order = np.argsort(~own, axis=1, kind="stable")[:, : int(own.sum(axis=1).max(initial=0))]
    return np.take_along_axis(np.where(own, ranks, -1), order, axis=1)


def _timed(
    fabric: Fabric, relays: Relays, found: Messages, size: _Ints, gpu_of_rank: NDArray[np.int32],
    circuits: Circuits | None,
) -> Relaying | None:  # fmt: skip
    """Time the messages of all blocks and columns on the links that they share."""
    gpus = len(gpu_of_rank)
    base = (np.arange(0, gpus, relays.block)[:, None] + np.arange(relays.columns)).ravel()
    source, destination = gpu_of_rank[(relays.legs[:, :, None] + base).reshape(2, -1)].astype(np.int64)
    try:
        circuits = fabric.with_ways(gpus, circuits, zip(source.tolist(), destination.tolist(), strict=True))
    except ValueError:
        return None
    ways: Any = np.stack([source, destination], axis=1)
    network = fabric.network(gpus, ways, circuits)
    ends: Any = gpu_of_rank[(np.stack([found.source, found.destination])[:, :, None] + base).reshape(2, -1)]
    key: _Ints = ends[0].astype(np.int64) * gpus + ends[1]
    route = network.pair_key.searchsorted(key)
    of, link = links_of(network, route)
    taken = np.repeat(found.sizes(size), len(base))[of] / network.bytes_per_s[link]
    edges = (found.edges[:, None] * len(base) + np.arange(len(base))[:, None]).reshape(-1, 2)
    seconds = last_end(np.repeat(found.step, len(base)), edges, link.astype(np.int64), of, taken)
    wait_seconds = (1 + int(found.step[-1])) * float(route_latency_ps(network, np.unique(route)).max()) / 1e12
    return Relaying(relays, circuits, seconds, wait_seconds)
