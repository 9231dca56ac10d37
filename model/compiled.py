"""Functions and records for numba: what blocks, channels and the fluid model are written with.

With ``NUMBA_DISABLE_JIT=1`` the same code runs under a debugger.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba as _untyped_numba
import numpy as np

Records = Any
"""An array in compiled code: the type checker does not see the fields of its dtype, nor that an element is a scalar."""
F = TypeVar("F", bound=Callable[..., Any])

numba: Any = _untyped_numba
_SOURCES_STAMP = tuple((path.name, path.stat().st_mtime_ns) for path in sorted(Path(__file__).parent.glob("*.py")))


def compiled(function: F) -> F:
    """A module-level function compiled by numba on its first call and cached on disk; its type stays what it was.

    It must not allocate. That frees it from counting references to each array of ``Channels`` in each call of a helper,
    which makes blocks 20 times as fast.
    """
    in_file = Path(function.__code__.co_filename).exists()
    dispatcher: Any = numba.njit(cache=in_file, error_model="numpy", _nrt=False, forceinline=True)(function)
    if in_file and dispatcher is not function:
        # The cached code of a block contains the helpers of this folder, but numba looks only at the block's own file.
        index = dispatcher._cache._cache_file
        index._source_stamp = (index._source_stamp, _SOURCES_STAMP)
    return cast(F, dispatcher)


def entry_point(function: F, *arguments: object) -> F:
    """The machine code of a compiled function for arguments of these types, 10 times as quick to enter: no type check."""
    compile_for = getattr(function, "compile", None)
    return compile_for(tuple(numba.typeof(argument) for argument in arguments)) if compile_for else function


def record(**fields: Any) -> np.dtype[Any]:
    """An aligned structured dtype whose elements read as ``element.field``, compiled or not."""
    assert not any(hasattr(np.record, name) for name in fields), "numpy's own attributes hide fields of their name"
    return np.dtype((np.record, np.dtype(list(fields.items()), align=True)))
