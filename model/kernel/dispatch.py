"""Step functions with their arguments bound, for compiled code to call one after the other although their types differ.

A call from Python hands over each array anew, which takes longer than many a step. Here the arguments lie flat in memory, in
the order in which numba's calling convention wants them, and a few instructions load them and jump.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from llvmlite import ir as _untyped_ir  # pyright: ignore[reportMissingTypeStubs]
from numba import types
from numba.core.compiler_lock import global_compiler_lock as _untyped_lock
from numba.extending import intrinsic
from numpy.typing import NDArray

from lightfabric.model.kernel.compiled import numba, specialised

ir: Any = _untyped_ir
_compiler_lock: Any = _untyped_lock
_WORD = ir.IntType(64)
_THUNK = ir.FunctionType(ir.VoidType(), [_WORD, _WORD])
_SIZE, _LENGTH = 3, 6
"""Of the first array, among the words of all arguments: the size and the length."""


class Calls:
    """A list of (function, first, others): ``call(address[n], now, count)`` is ``function(now, first[:count], *others)``.

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
        compiled, words = specialised(function, *arguments), np.array(list(_flat(arguments)), np.int64)
        library, address = _load_and_jump(compiled, words)
        self._kept += [arguments, compiled, words, library]
        return address


def _flat(value: Any) -> Iterator[int]:
    """Numbers as they are; of an array no owner, its size, its address, shape and strides."""
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
    """Machine code of two arguments, and where it begins."""
    function_type = compiled.target_context.call_conv.get_function_type(types.none, compiled.signature.args)
    result, exception, *parameters = function_type.args
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
