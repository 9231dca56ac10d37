"""Tokens to experts, evenly or not: what each expert and each rank of an ep group gets."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def zipf(experts: int, exponent: float) -> NDArray[np.float64]:
    """Share of the tokens that each expert gets, the k-th in proportion to 1 / k ** exponent; 0 is even.

    Measured popularity is about as skewed as exponents of 0.5 to 1 [He et al., "FasterMoE" (PPoPP 2022), figure 4].

    Examples:
        >>> zipf(4, 1.0).round(2).tolist()
        [0.48, 0.24, 0.16, 0.12]

    """
    share = np.arange(1, experts + 1) ** -float(exponent)
    return share / share.sum()


@lru_cache(maxsize=1024)
def expert_loads(experts: int, skew: float, ep: int) -> tuple[float, ...]:
    """Tokens for the experts of each of ``ep`` ranks over those of even routing; the busiest rank is the first.

    Experts are dealt out by popularity, ``zipf``: the k-th to rank k modulo ep, which must divide them.

    Examples:
        >>> [round(load, 2) for load in expert_loads(4, 1.0, 2)]
        [1.28, 0.72]

    """
    # Row-major order deals expert k to column k modulo ep.
    return tuple((zipf(experts, skew).reshape(-1, ep).sum(axis=0) * ep).tolist())


def busiest_load(experts: int, skew: float, ep: int) -> float:
    """Tokens for the experts of the busiest of ``ep`` ranks over those of even routing."""
    return max(expert_loads(experts, skew, ep)) if skew and ep > 1 else 1.0
