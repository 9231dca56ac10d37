"""Time of matrix products by their shapes: tiles, waves of tiles, alignment, memory. All sizes are arrays, broadcast."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.cost.calibration import Calibration
from lightfabric.placement.workload.case import Cases, where

Seconds = NDArray[np.float64]

TILES = ((256, 128, 1.0), (128, 256, 1.0), (128, 128, 0.92), (256, 64, 0.9), (128, 64, 0.78), (64, 64, 0.6))
"""Rows, columns and relative rate of the tiles that a library chooses from; smaller ones load more for what they compute
[NVIDIA, Matrix Multiplication Background User's Guide, "Tile Quantization"]."""


def gemm_seconds(cases: Cases, fitted: Calibration, m: Any, n: Any, k: Any, count: Any = 1, half: bool = False) -> Seconds:
    """Seconds of ``count`` products of an (m, k) and a (k, n) matrix, in one kernel.

    The best tile decides. Its tiles run in waves of one per multiprocessor, and the last wave takes as long as a full one.
    Rows that are no multiple of 64 values, a cache line, cost part of the rate. No kernel is faster than its memory.
    Operands are of the case's precision, or of 16 bits at least if ``half``.
    """
    busy = np.maximum(cases.multiprocessors, 1)
    area = np.inf
    for rows, columns, rate in TILES:
        tiles = np.ceil(m / rows) * np.ceil(n / columns) * count
        area = np.minimum(area, np.ceil(tiles / busy) * (rows * columns / rate))
    # Where the number of multiprocessors is not known no waves can be counted.
    area = where(cases.multiprocessors > 0, area * busy, m * n * count)
    peak_flops, operand_bytes = (cases.half_flops, cases.value_bytes) if half else (cases.peak_flops, cases.operand_bytes)
    rate = peak_flops * fitted.gemm_efficiency * alignment(fitted, n, k)
    return np.maximum(
        2 * area * (k + fitted.fill_depth) / rate,
        memory_seconds(cases, fitted, ((m * k + k * n) * operand_bytes + m * n * cases.value_bytes) * count),
    ) + where(m * n * k > 0, fitted.kernel_seconds, 0.0)


def alignment(fitted: Calibration, n: Any, k: Any) -> NDArray[np.float64]:
    """Share of the rate that the lengths of rows leave: the operands' and the result's are k and n.

    Rows of 128 bytes are read without waste [NVIDIA, the same guide, "Requirements to use Tensor Cores"].
    """
    # A power of two divides the bitwise or of two numbers only if it divides both.
    both = np.asarray(n).astype(np.int64) | np.asarray(k).astype(np.int64)
    shares = np.array([fitted.align_8, fitted.align_8, fitted.align_8, fitted.align_8, fitted.align_16, fitted.align_32, 1])
    power = (both % 2 == 0).astype(np.int64)
    for bit in range(1, 6):
        power += both % (2 << bit) == 0
    return shares[power]


def memory_seconds(cases: Cases, fitted: Calibration, size_bytes: Any) -> Seconds:
    """Seconds to read and write so many bytes."""
    return size_bytes / (cases.memory_bytes_per_s * fitted.memory_efficiency)
