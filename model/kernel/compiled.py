"""Compiled functions and records are what blocks, channels and the fluid model are written with, by numba.

With ``NUMBA_DISABLE_JIT=1`` the same code runs under a debugger.
"""

from collections.abc import Callable, Set
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from llvmlite import ir as _untyped_ir  # pyright: ignore[reportMissingTypeStubs]
from numba import types
from numba.extending import intrinsic

from lightfabric.model.kernel.dispatch import lean, numba

Records = Any
"""An array in compiled code: the type checker does not see the fields of its dtype, nor that an element is a scalar."""
F = TypeVar("F", bound=Callable[..., Any])

ir: Any = _untyped_ir
_MODEL = Path(__file__).parents[1]
_SOURCES_STAMP = tuple((str(path.relative_to(_MODEL)), path.stat().st_mtime_ns) for path in sorted(_MODEL.rglob("*.py")))


def compiled(function: F, fastmath: Set[str] = frozenset()) -> F:
    """Let numba compile a module-level function on its first call and cache it on disk; its type stays what it was.

    It must not allocate. That frees it from counting references to each array of ``Channels`` in each call of a helper,
    which makes blocks 20 times as fast. ``fastmath`` are LLVM's flags for arithmetic of floating point.
    """
    # The cached code of a block contains helpers of other files, but numba looks only at the block's own file.
    return cast(F, lean(function, _SOURCES_STAMP, set(fastmath)))


def _from(array: Records, start: int) -> Records:
    return array[start:]


def _offset(typing_context: Any, array: Any, start: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        rest = context.make_array(array)(context, builder, arguments[0])
        # Only the address moves: a slice would work out shape and bounds as well, which a step function has no need of.
        rest.data = builder.gep(rest.data, [context.cast(builder, arguments[1], start, types.intp)])
        return rest._getvalue()

    return array(array, start), generate


from_: Any = _from if numba.config.DISABLE_JIT else intrinsic(_offset)
"""``from_(array, start)`` is ``array[start:]`` in a step function, for ``start`` within the array, cheaper than a slice. Its
length has no meaning."""


def _touch(typing_context: Any, array: Any, place: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        data = context.make_array(array)(context, builder, arguments[0]).data
        byte = ir.IntType(8).as_pointer()
        word = ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", (byte,), function_type)
        where = builder.gep(data, [context.cast(builder, arguments[1], place, types.intp)])
        builder.call(prefetch, [builder.bitcast(where, byte), word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.none(array, place), generate


def _touch_nothing(array: Records, place: int) -> None: ...


touch: Any = _touch_nothing if numba.config.DISABLE_JIT else intrinsic(_touch)
"""``touch(array, place)`` in a step function fetches an element into the processor's cache before it is needed."""


PAGE = 64
"""A page of paged memory has so many entries."""
_PAGE_BITS = PAGE.bit_length() - 1


@compiled
def page(place: int) -> int:
    """Find the number of the page of an entry."""
    return place >> _PAGE_BITS


@compiled
def look_up(paged: Records, place: int) -> Records:
    """Read an entry of paged memory: where each page begins, and the entries of all pages, equal ones once."""
    starts, entries = paged
    return entries[starts[page(place)] + (place & PAGE - 1)]


def record(**fields: Any) -> np.dtype[Any]:
    """Make an aligned structured dtype whose elements read as ``element.field``, compiled or not."""
    assert not any(hasattr(np.record, name) for name in fields), "numpy's own attributes hide fields of their name"
    return np.dtype((np.record, np.dtype(list(fields.items()), align=True)))
