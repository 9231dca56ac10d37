"""Bits of a 64-bit integer hold sets of small numbers for compiled blocks: occupancy, requests, grants."""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from lightfabric.model.kernel.compiled import Records, compiled


def lowest(bits: Any) -> int:
    """Find the number of the lowest bit that is 1; ``bits`` must not be 0.

    >>> lowest(0b101000)
    3
    """
    return (int(bits) & -int(bits)).bit_length() - 1


def _cttz(typing_context: Any, bits: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        # The constant says that 0 never comes, which spares a comparison on processors without an instruction for it.
        return builder.cttz(arguments[0], context.get_constant(types.boolean, 1))

    return types.int64(types.int64), generate


_count_trailing_zeros: Any = intrinsic(_cttz)


@overload(lowest)
def _lowest(bits: Any) -> Any:  # noqa: ARG001
    def compiled_lowest(bits: Any) -> Any:
        return _count_trailing_zeros(bits)

    compiled_lowest.__annotations__.clear()  # numba compares them with those of this function
    _lowest.__annotations__.clear()
    return compiled_lowest


@compiled
def one_bit(number: int) -> Records:
    """Make a word with this bit alone, from 0 to 63; also of numbers of numpy, which shift in their own width."""
    return np.int64(1) << np.int64(number)


@compiled
def next_in_turn(bits: int, turn: int) -> int:
    """Find the lowest bit from ``turn`` on that is 1, or the lowest of all: a round robin. ``bits`` must not be 0."""
    later = bits >> turn << turn
    return lowest(later if later != 0 else bits)


@compiled
def is_sooner(one: int, other: int, turn: int) -> bool:
    """Tell whether a round robin from ``turn`` on comes to a number before it comes to another one."""
    return one < other if (one >= turn) == (other >= turn) else one >= turn
