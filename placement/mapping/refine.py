"""Orders of ranks on a ring beyond the structured ones: of less load on the fullest segment, or of fewer byte-hops."""

from typing import Any

import numpy as np
from numba import njit  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from numpy.typing import NDArray

from lightfabric.placement.mapping.traffic import Traffic
from lightfabric.placement.qap.solve import solve


def refined(
    flows: Traffic, gpu_of_rank: NDArray[np.int32], iterations: int, generator: np.random.Generator
) -> NDArray[np.int32]:
    """An order with no more bytes on the fullest ring segment than ``gpu_of_rank``; flows go the shorter way.

    ``iterations`` random exchanges of two ranks are tried; one is kept if the fullest segment gets emptier, or stays and the
    sum of squares of all segments does not grow. An exchange costs as much as the segments of both ranks' flows. The same
    generator gives the same order.
    """
    gpus = len(gpu_of_rank)
    start, flow = _incident(flows, gpus)
    order = gpu_of_rank.astype(np.int64)
    draws = generator.integers(0, gpus, (iterations, 2))
    _exchange(order, flows.source.astype(np.int64), flows.destination.astype(np.int64), flows.size_bytes, start, flow, draws)
    return order.astype(np.int32)


def nearer(flows: Traffic, gpu_of_rank: NDArray[np.int32], iterations: int) -> NDArray[np.int32]:
    """An order with no more byte-hops on a ring than ``gpu_of_rank``: a quadratic assignment problem, see ``qap.solve``."""
    gpus = len(gpu_of_rank)
    sent = np.zeros((gpus, gpus), np.int64)
    np.add.at(sent, (flows.source, flows.destination), flows.size_bytes)
    apart = np.abs(np.subtract.outer(np.arange(gpus), np.arange(gpus)))
    # The way back on a ring is as long as the way there, so both directions of a pair are one flow.
    solution = solve(sent + sent.T, np.minimum(apart, gpus - apart), iterations=iterations, starts=[gpu_of_rank])
    return solution.permutation.astype(np.int32)


def _incident(flows: Traffic, gpus: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The flows of each rank, those that it receives after those that it sends, in CSR form."""
    ends = np.concatenate((flows.source, flows.destination))
    order = np.argsort(ends, kind="stable")
    start = np.concatenate(([0], np.cumsum(np.bincount(ends, minlength=gpus))))
    return start, order % len(flows.source)


@njit(cache=True)
def _add(load: Any, one: int, other: int, amount: int, gpus: int) -> None:
    """Load of a flow from GPU ``one`` to ``other``, as ``mapping.traffic.ring_steps`` and ``segment_load`` count it."""
    ahead = (other - one) % gpus
    backward = 2 * ahead > gpus or (2 * ahead == gpus and one % 2 == 1 and gpus > 2)
    first, steps, direction = (other, gpus - ahead, 1) if backward else (one, ahead, 0)
    for step in range(steps):
        load[direction, (first + step) % gpus] += amount


@njit(cache=True)
def _move(
    load: Any, order: Any, source: Any, destination: Any, size: Any, start: Any, flow: Any, a: int, b: int, sign: int
) -> None:
    """Add or take away the flows of ranks a and b; those between them once."""
    gpus = len(order)
    for rank in (a, b):
        for index in range(start[rank], start[rank + 1]):
            one, other = source[flow[index]], destination[flow[index]]
            if rank == b and a in (one, other):
                continue
            _add(load, order[one], order[other], sign * size[flow[index]], gpus)


@njit(cache=True)
def _cost(load: Any) -> Any:
    """The fullest segment, and the sum of squares."""
    most, squares = 0, 0.0
    for direction in range(2):
        for amount in load[direction]:
            most = max(most, amount)
            # Squares of bytes would overflow 64-bit integers.
            squares += float(amount) * float(amount)
    return most, squares


@njit(cache=True)
def _exchange(order: Any, source: Any, destination: Any, size: Any, start: Any, flow: Any, draws: Any) -> None:
    gpus = len(order)
    load = np.zeros((2, gpus), np.int64)
    for index in range(len(source)):
        _add(load, order[source[index]], order[destination[index]], size[index], gpus)
    most, squares = _cost(load)
    for a, b in draws:
        if a == b:
            continue
        _move(load, order, source, destination, size, start, flow, a, b, -1)
        order[a], order[b] = order[b], order[a]
        _move(load, order, source, destination, size, start, flow, a, b, 1)
        new_most, new_squares = _cost(load)
        if new_most < most or (new_most == most and new_squares <= squares):
            most, squares = new_most, new_squares
        else:
            _move(load, order, source, destination, size, start, flow, a, b, -1)
            order[a], order[b] = order[b], order[a]
            _move(load, order, source, destination, size, start, flow, a, b, 1)
