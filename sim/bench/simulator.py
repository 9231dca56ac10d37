"""Amaranth's simulator is made to run the wide expressions of a link in about a quarter of the time.

It writes each expression of a design out as Python, again wherever it occurs: a beat of 1024 bits once for every bit of its
CRC. Here a part of an expression that has been computed is kept in a variable for the lines after it, a repeated bit is a
product, a parity counts bits, and many parities of a few bits are looked up. A signal that keeps its value is not told so.
The values are those of Amaranth's own compiler, which the tests compare.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

from amaranth import Module
from amaranth.hdl._ast import Const, Operator, Value
from amaranth.hdl._xfrm import ValueVisitor
from amaranth.sim import Simulator, _pyrtl

_UPDATE = re.compile(r"(slots\[\d+\])\.update\((\w+)[,)]")
_TABLE_BITS = 4
"""A table of so many bits has 16 entries; larger ones save less time than it takes to make them."""
_SHORT = 40
"""A shorter expression costs less to compute again than to keep."""


def simulator(design: Module) -> Simulator:
    """Elaborate a design and make a simulator of it. Takes seconds for a wide design."""
    stock = _pyrtl._RHSValueCompiler, _pyrtl._PythonEmitter
    _pyrtl._RHSValueCompiler, _pyrtl._PythonEmitter = _Expressions, _Lines
    try:
        return Simulator(design)
    finally:
        _pyrtl._RHSValueCompiler, _pyrtl._PythonEmitter = stock


class _Lines(_pyrtl._PythonEmitter):
    """Writes lines of Python and knows which variables hold which expression at the place it has come to."""

    def __init__(self):
        super().__init__()
        self._kept = dict[str, str]()

    def append(self, code: str) -> None:
        """Write a line; the call that takes over a signal's next value only where that is another one."""
        if match := _UPDATE.match(code):
            code = f"if {match[1]}.next != {match[2]}: {code}"
        super().append(code)

    @contextmanager
    def indent(self) -> Iterator[None]:
        # What a branch computes is not known after it: another one may have been taken.
        before = self._kept
        self._kept = dict(before)
        with super().indent():
            yield
        self._kept = before

    def keep(self, code: str) -> str:
        """Return the variable that holds this expression, which is computed here if it was not before."""
        if code not in self._kept:
            self._kept[code] = self.def_var("kept", code)
        return self._kept[code]


class _Expressions(_pyrtl._RHSValueCompiler):
    """Compiles an expression to Python, with variables for its longer parts."""

    def on_value(self, value):
        # Only the current values of signals stay as they are while a process runs.
        if self.mode != "curr":
            return super().on_value(value)
        code = ValueVisitor.on_value(self, value)
        return code if len(code) < _SHORT else self.emitter.keep(code)

    def on_Operator(self, value):  # noqa: N802
        if value.operator != "r^":
            return super().on_Operator(value)
        (operand,) = value.operands
        return f"({_mask(len(operand)):#x} & {self(operand)}).bit_count()"

    def on_Concat(self, value):  # noqa: N802
        if masks := _masks(value.parts):
            # Equal expressions are other objects in a design that was elaborated, but their code is the same.
            operands = {self(operand): operand for operand in (part.operands[0].operands[0] for part in value.parts)}
            (code, operand), *others = operands.items()
            if not others and not operand.shape().signed and len(operand) < _TABLE_BITS * len(masks):
                return _looked_up(code, len(operand), masks)
        terms, offset = list[str](), 0
        for (code, width), same in groupby((self(part), len(part)) for part in value.parts):
            count = len(list(same))
            # Factor with a 1 where each of the equal parts begins.
            ones = sum(1 << width * n for n in range(count))
            terms.append(f"(({_mask(width):#x} & {code}) * {ones << offset:#x})")
            offset += width * count
        return f"({' | '.join(terms)})" if terms else "0"


def _masks(parts: Sequence[Value]) -> list[int]:
    """Return the masks if all parts are parities of something under a constant mask."""
    masks = list[int]()
    for part in parts:
        match part:
            case Operator(operator="r^", operands=[Operator(operator="&", operands=[_, Const(value=mask)])]):
                masks.append(mask)
            case _:
                return []
    return masks


def _looked_up(code: str, bits: int, masks: list[int]) -> str:
    """Write parities under many masks as tables of a few bits each, whose entries are XORed: a parity is linear."""
    columns = [sum((mask >> bit & 1) << row for row, mask in enumerate(masks)) for bit in range(bits)]
    terms = list[str]()
    for at in range(0, bits, _TABLE_BITS):
        table = [0]
        for column in columns[at : at + _TABLE_BITS]:
            table += [entry ^ column for entry in table]
        terms.append(f"{tuple(table)}[{len(table) - 1} & {code} >> {at}]")
    return f"({' ^ '.join(terms)})"


def _mask(width: int) -> int:
    return (1 << width) - 1
