"""Dispatch keeps all that relies on how numba works inside, which it may change; the rest uses its documented API.

Foremost it binds step functions with their arguments, for compiled code to call one after the other although their types
differ. A call from Python hands over each array anew, which takes longer than many a step. Here the arguments lie flat in
memory, in the order in which numba's calling convention wants them, and a few instructions load them and jump.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import numba as _untyped_numba
import numpy as np
from llvmlite import ir as _untyped_ir  # pyright: ignore[reportMissingTypeStubs]
from numba import types
from numba.core.compiler_lock import global_compiler_lock as _untyped_lock
from numba.extending import intrinsic
from numba.np import arrayobj as _untyped_arrayobj
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])

numba: Any = _untyped_numba
arrayobj: Any = _untyped_arrayobj
ir: Any = _untyped_ir
_compiler_lock: Any = _untyped_lock
_WORD = ir.IntType(64)
_THUNK = ir.FunctionType(ir.VoidType(), [_WORD, _WORD])
_SIZE, _LENGTH = 3, 6
"""Where the size and the length of the first array are among the words of all arguments."""


def lean(function: Callable[..., Any], sources: object, fastmath: set[str]) -> Any:
    """Compile a function without allocation when first called, cached on disk until its file or ``sources`` are others."""
    # What is typed at a prompt has no file beside which its code could be cached.
    in_file = Path(function.__code__.co_filename).exists()
    options = {"error_model": "numpy", "_nrt": False, "forceinline": True, "fastmath": fastmath}
    dispatcher: Any = numba.njit(cache=in_file, **options)(function)
    if in_file and dispatcher is not function:
        index = dispatcher._cache._cache_file
        index._source_stamp = (index._source_stamp, sources)
    return dispatcher


def entry_point(function: F, *arguments: object) -> F:
    """Give a compiled function for arguments of these types, 10 times as quick to enter: no type check."""
    return function if numba.config.DISABLE_JIT else _specialised(function, *arguments).entry_point


def _specialised(function: Callable[..., object], *arguments: object) -> Any:
    """Compile a function for arguments of these types and return what numba has made of it."""
    dispatcher: Any = function
    argument_types = tuple(numba.typeof(argument) for argument in arguments)
    with _indices_from_zero():
        dispatcher.compile(argument_types)
    return dispatcher.overloads[argument_types]


@contextmanager
def _indices_from_zero() -> Generator[None]:
    """Compile so in this context that indices never count from an array's end: it makes blocks a quarter shorter."""

    def as_it_is(context: Any, builder: Any, index_type: Any, index: Any, size: Any) -> Any:  # noqa: ARG001
        return context.cast(builder, index, index_type, types.intp)

    before, arrayobj.fix_integer_index = arrayobj.fix_integer_index, as_it_is
    try:
        yield
    finally:
        arrayobj.fix_integer_index = before


class Calls:
    """Binds (function, first, others) to addresses: ``call`` of one does ``function(now, first[:count], *others)``.

    The functions return nothing; ``first`` is an array of one dimension, the others arrays and tuples of arrays.
    """

    def __init__(self, calls: Sequence[tuple[Callable[..., None], Any, tuple[Any, ...]]]) -> None:
        self._kept = list[Any]()
        self.address: Any = [self._bound(function, first, others) for function, first, others in calls]
        if not numba.config.DISABLE_JIT:
            self.address = np.array(self.address, np.int64)

    def _bound(self, function: Callable[..., None], first: Any, others: tuple[Any, ...]) -> Any:
        if not numba.config.DISABLE_JIT:
            return self._thunk(function, (0, first, *others))

        def interpreted(now: int, count: int) -> None:
            function(now, first[:count], *others)

        return interpreted

    def _thunk(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> int:
        compiled, words = _specialised(function, *arguments), np.array(list(_flat(arguments)), np.int64)
        library, address = _load_and_jump(compiled, words)
        # The machine code holds bare addresses, which the garbage collector does not see.
        self._kept += [arguments, compiled, words, library]
        return address


def _flat(value: Any) -> Iterator[int]:
    """Flatten arguments to words: numbers as they are; of an array no owner, its size, address, shape and strides."""
    if isinstance(value, tuple):
        for item in cast("tuple[Any, ...]", value):
            yield from _flat(item)
    elif isinstance(value, np.ndarray):
        array = cast(NDArray[Any], value)
        yield from (0, 0, array.size, array.itemsize, array.ctypes.data, *array.shape, *array.strides)
    else:
        yield value


@_compiler_lock
def _load_and_jump(compiled: Any, words: NDArray[np.int64]) -> tuple[Any, int]:
    """Make machine code of two arguments that loads all others, and tell where it begins."""
    function_type = compiled.target_context.call_conv.get_function_type(types.none, compiled.signature.args)
    result, exception, *parameters = function_type.args
    # A version of numba with another layout of arrays must fail here, not jump with wrong arguments.
    assert len(parameters) == len(words)
    library = compiled.target_context.codegen().create_library("calls")
    module, name = library.create_ir_module("calls"), f"call_{words.ctypes.data}"
    thunk = ir.Function(module, _THUNK, name)
    builder = ir.IRBuilder(thunk.append_basic_block())
    first = builder.inttoptr(_WORD(words.ctypes.data), _WORD.as_pointer())
    given = [builder.load(builder.gep(first, [_WORD(place)])) for place in range(len(words))]
    given[0], given[_SIZE], given[_LENGTH] = thunk.args[0], thunk.args[1], thunk.args[1]
    arguments = [
        builder.inttoptr(value, wanted) if isinstance(wanted, ir.PointerType) else value
        for value, wanted in zip(given, parameters, strict=True)
    ]
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    callee = builder.inttoptr(_WORD(address), function_type.as_pointer())
    builder.call(callee, [builder.alloca(result.pointee), builder.alloca(exception.pointee), *arguments])
    builder.ret_void()
    library.add_ir_module(module)
    library.finalize()
    return library, library.get_pointer_to_function(name)


def _call(typing_context: Any, address: Any, now: Any, count: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        builder.call(builder.inttoptr(arguments[0], _THUNK.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64), generate


def _call_interpreted(function: Callable[[int, int], None], now: int, count: int) -> None:
    function(now, count)


call: Any = _call_interpreted if numba.config.DISABLE_JIT else intrinsic(_call)
"""``call(address, now, count)`` in a compiled function: see :class:`Calls`."""
