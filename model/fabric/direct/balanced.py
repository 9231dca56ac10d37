"""Balanced ways on any graph: each pair takes one of its shortest, so that links are loaded as evenly as a search finds.

A *way* is a list of links, one from each vertex to the next. Pairs choose in turn, each the way that adds least to the sum
of squares of the times that links take for a unit from all GPUs to all; then each may choose again, until none changes.
"""

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.kernel.compiled import Records, compiled

MAX_ROUNDS = 16

_Ints = NDArray[np.int64]


def balanced(gpus: int, vertices: int, source: _Ints, destination: _Ints, bytes_per_s: NDArray[np.float64]) -> _Ints:
    """Choose the vertices on the way of each pair of GPUs, both ends included, ``[source * gpus + destination, hop]``.

    Links are by rising source; rows are filled up with -1. ValueError if no way joins a pair.
    O(gpus^2 x links between the two) for each of at most ``MAX_ROUNDS``, and gpus^2 x hops of memory.
    """
    hops = _hops(gpus, vertices, source, destination)
    weight = (bytes_per_s.mean() / bytes_per_s) ** 2
    link = _chosen(np.arange(gpus), 1, hops, source, destination, np.arange(len(source)), weight)
    stops = np.full((gpus * gpus, link.shape[1] + 1), -1, np.int64)
    stops[:, 0] = np.repeat(np.arange(gpus), gpus)
    walked = link >= 0
    stops[:, 1:][walked] = destination[link[walked]]
    return stops


def shared_ways(
    gpus: int,
    starts: _Ints,
    source: _Ints,
    destination: _Ints,
    bytes_per_s: NDArray[np.float64],
    orbit: _Ints,
    parts: int,
) -> _Ints:
    """Choose the links on the way of each part of what ``starts`` send to all, ``[start, destination, part, hop]``, or -1.

    All GPUs are led to one of the starts by moves that leave the graph as it is, and links to those of their ``orbit``: what
    its members carry together when all send is what one of them carries of the starts' ways and of those moved. Vertices
    from ``gpus`` on are switches.
    """
    hops = _hops(gpus, int(max(source.max(), destination.max())) + 1, source, destination)
    weight = (bytes_per_s.mean() / bytes_per_s) ** 2
    return _chosen(starts, parts, hops, source, destination, orbit, weight).reshape(len(starts), gpus, parts, -1)


def _chosen(
    starts: _Ints, parts: int, hops: NDArray[np.int32], source: _Ints, destination: _Ints, orbit: _Ints, weight: Any
) -> _Ints:
    """The link of each hop of each way, -1 beyond the last, after as many rounds as it takes."""
    vertices, gpus = int(hops.shape[0]), int(hops.shape[1])
    link = np.full((len(starts) * gpus * parts, int(hops[:gpus].max())), -1, np.int64)
    first = np.searchsorted(source, np.arange(vertices + 1))
    load, cost = np.zeros(int(orbit.max()) + 1), np.zeros(vertices)
    before, fresh, front = (np.full(vertices, -1) for _ in range(3))
    # What leads to one GPU stands in a row, narrow enough for the rows of all to stay in the processor's cache.
    graph = np.ascontiguousarray(hops.T.astype(np.int16)), first, source, destination, orbit, weight
    only = np.zeros(len(link), np.bool_)
    for turn in range(MAX_ROUNDS):
        if not _choose(starts, parts, turn, *graph, load, link, only, cost, before, fresh, front):
            break
    return link


def _hops(gpus: int, vertices: int, source: _Ints, destination: _Ints) -> NDArray[np.int32]:
    """Least links from each vertex to each GPU."""
    sparse: Any = import_module("scipy.sparse")
    csgraph: Any = import_module("scipy.sparse.csgraph")
    graph = sparse.csr_array((np.ones(len(source)), (source, destination)), shape=(vertices, vertices))
    hops: Any = csgraph.shortest_path(graph, unweighted=True)[:, :gpus]
    if not np.isfinite(hops[:gpus]).all():
        lost = np.argwhere(~np.isfinite(hops[:gpus]))[0]
        raise ValueError(f"links must join all {gpus} GPUs, not leave {lost[0]} and {lost[1]} apart")
    return hops.astype(np.int32)


@compiled
def _choose(
    starts: Records,
    parts: int,
    turn: int,
    hops: Records,
    first: Records,
    source: Records,
    destination: Records,
    orbit: Records,
    weight: Records,
    load: Records,
    link: Records,
    only: Records,
    cost: Records,
    before: Records,
    fresh: Records,
    front: Records,
) -> int:
    """Let each part of a pair choose its ``link`` of each hop; count those that change. The last four arrays are its own.

    ``hops`` are ``[end, vertex]``. Who finds that it has an ``only`` way is not asked again.
    """
    changed, gpus = 0, hops.shape[0]
    fresh[:] = -1
    for pair in range(len(link)):
        if only[pair]:
            continue
        start, end = starts[pair // parts // gpus], pair // parts % gpus
        left = hops[end]
        length: Any = np.int64(left[start])
        if turn > 0:
            for hop in range(length):
                load[orbit[link[pair, hop]]] -= 1.0
        front[0], cost[start], begin, until = start, 0.0, 0, 1
        # Vertices on shortest ways are found hop by hop, so that the cost of all before one is final when it is left.
        for hop in range(length):
            last = until
            for at in range(begin, last):
                here = front[at]
                for each in range(first[here], first[here + 1]):
                    there = destination[each]
                    if left[there] != length - hop - 1:
                        continue
                    total = cost[here] + (2.0 * load[orbit[each]] + 1.0) * weight[each]
                    if fresh[there] != pair:
                        fresh[there] = pair
                        front[until] = there
                        until += 1
                    elif total >= cost[there]:
                        continue
                    cost[there] = total
                    before[there] = each
            begin = last
        only[pair] = until == length + 1
        here = end
        for hop in range(length - 1, -1, -1):
            each = before[here]
            changed += link[pair, hop] != each
            link[pair, hop] = each
            load[orbit[each]] += 1.0
            here = source[each]
    return changed
