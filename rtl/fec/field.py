"""The arithmetic of GF(2^m) is made of XOR trees, computed from ``model.reed_solomon``, and of one table for inverses."""

from collections.abc import Callable
from functools import reduce
from operator import xor

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from lightfabric.model.reed_solomon import Field
from lightfabric.rtl.crc import parities


def linear(m, value, function: Callable[[int], int], bits: int):
    """Computes a function that is linear in GF(2), such as a product with a constant, of so many bits. Combinational.

    The function is asked for each bit of ``value`` alone: what it makes of them tells all. Not within an ``m.If``.
    """
    columns = [function(1 << bit) for bit in range(len(value))]
    rows = [sum((column >> row & 1) << bit for bit, column in enumerate(columns)) for row in range(bits)]
    return parities(_named(m, value), rows)


def product(m, field: Field, a, b):
    """Multiplies two elements of the field. Combinational: m^2 AND gates and a tree of XOR gates. Not within an ``m.If``."""
    bits = field.m
    a, b = _named(m, a), _named(m, b)
    parts = [Cat(Const(0, bit), b & a[bit].replicate(bits)) for bit in range(bits)]
    while len(parts) > 1:
        parts = [reduce(xor, parts[at : at + 2]) for at in range(0, len(parts), 2)]
    whole = _named(m, parts[0])
    return whole[:bits] ^ linear(m, whole[bits:], lambda high: reduced(field, high << bits), bits)


def _named(m, value) -> Signal:
    """Gives a value a name: a simulator and Verilog would write the whole of it wherever a part of it is used."""
    if isinstance(value, Signal):
        return value
    named = Signal(len(value))
    m.d.comb += named.eq(value)
    return named


def reduced(field: Field, bits: int) -> int:
    """Reduces a polynomial of any degree to an element of the field."""
    value = 0
    for exponent in range(bits.bit_length()):
        value ^= field.power(exponent) if bits >> exponent & 1 else 0
    return value


class Inverse(wiring.Component):
    """Looks up 1 / ``element``, or 0 for 0, in a table of 2^m elements; it is in ``inverse`` two clocks later.

    Members
    -------
    element : In(m)
    inverse : Out(m)
    """

    def __init__(self, field: Field):
        self.field = field
        super().__init__({"element": In(field.m), "inverse": Out(field.m)})

    def elaborate(self, platform):
        m = Module()
        table = [self.field.inverse(element) for element in range(self.field.order + 1)]
        m.submodules.table = memory = Memory(shape=self.field.m, depth=len(table), init=table)
        port = memory.read_port()
        m.d.comb += [port.addr.eq(self.element), port.en.eq(1)]
        # A memory is slow to give its data: multiplied in the same clock they would hold up all the rest.
        m.d.sync += self.inverse.eq(port.data)
        return m
