"""Stages of unequal layers: where to cut a pipeline so that its slowest stage is as fast as can be."""

import numpy as np
from numpy.typing import NDArray


def cuts(seconds: NDArray[np.float64], stages: int) -> NDArray[np.int64]:
    """First layer of each stage, and the number of layers at the end, such that the largest sum of a stage is least.

    ``seconds[layer]`` are at least 0; every stage gets a layer. Exact, by dynamic programming over the ends of stages: the
    best first k stages of the first n layers end where the best k - 1 stages and the rest balance, and that place moves
    forward with n. O(stages x layers x log(layers)).

    Examples:
        >>> cuts(np.array([4.0, 1.0, 1.0, 2.0, 4.0]), 3).tolist()
        [0, 1, 4, 5]

    """
    layers = len(seconds)
    if not 1 <= stages <= layers:
        raise ValueError(f"stages must be from 1 to {layers}, the number of layers, not {stages}")
    total = np.concatenate(([0.0], np.cumsum(seconds)))
    slowest = total.copy()
    began = np.zeros((stages, layers + 1), np.int64)
    for stage in range(1, stages):
        ends = np.arange(stage + 1, layers + 1)
        began[stage, ends] = [_balance(slowest, total, stage, end) for end in ends.tolist()]
        starts = began[stage, ends]
        slowest = np.concatenate((np.full(stage + 1, np.inf), np.maximum(slowest[starts], total[ends] - total[starts])))
    found = [layers]
    for stage in range(stages - 1, -1, -1):
        found.append(int(began[stage, found[-1]]))
    return np.array(found[::-1], np.int64)


def _balance(slowest: NDArray[np.float64], total: NDArray[np.float64], stage: int, end: int) -> int:
    """Where the last of the stages that end at ``end`` begins: what comes before gets slower with it, the last faster."""
    low, high = stage, end - 1
    while low < high:
        middle = (low + high) // 2
        if slowest[middle] < total[end] - total[middle]:
            low = middle + 1
        else:
            high = middle
    before = low - 1
    if before >= stage and total[end] - total[before] <= max(slowest[low], total[end] - total[low]):
        return before
    return low


def slowest_stage(seconds: NDArray[np.float64], starts: NDArray[np.int64]) -> float:
    """Sum of the slowest stage of a cut."""
    return float(np.add.reduceat(seconds, starts[:-1]).max())
