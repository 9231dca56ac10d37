"""The Chien search finds the positions of errors, and Forney's formula their values, p symbols per clock."""

from functools import reduce
from itertools import pairwise
from operator import xor

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.reed_solomon import Field, ReedSolomon
from lightfabric.rtl.fec.field import Inverse, linear, product


class Search(wiring.Component):
    """Tries all positions of a codeword, in the order of the line, and computes what must be added to the symbols there.

    The first beat of ``errors`` comes ``LATENCY_CLOCKS`` after ``start``, the others in the clocks after it. ``start`` may
    come again ``code.beats(p)`` clocks later.

    At x = alpha^-e the error at e is x^(first_root + n - k) times the evaluator, over the odd part of the locator, which is
    x times its derivative: the evaluator is the high part of the product of locator and syndromes [Sarwate, Shanbhag 2001].

    Members
    -------
    start : In(1)
    locator, evaluator : In, of ``KeyEquation``, valid with ``start``
    valid, first, last : Out(1)
    fetch : Out(1), ``valid`` will be 1 two clocks later
    roots : Out(p), the symbol of the beat is in error
    errors : Out, p symbols, 0 where there is no root
    """

    LATENCY_CLOCKS = 4

    def __init__(self, code: ReedSolomon, p: int):
        self.code, self.p = code, p
        polynomials = {"locator": In((code.t + 1) * code.m), "evaluator": In(code.t * code.m)}
        marks = {name: Out(1) for name in ("valid", "first", "last", "fetch")}
        super().__init__({"start": In(1)} | polynomials | marks | {"roots": Out(p), "errors": Out(p * code.m)})

    def elaborate(self, platform):
        m = Module()
        code, beats = self.code, self.code.beats(self.p)
        even, odd = (range(parity, code.t + 1, 2) for parity in (0, 1))
        lowest = code.first_root + code.parity_symbols
        exponents = even, odd, range(lowest, lowest + code.t)
        locator = [self.locator.word_select(power, code.m) for power in (*even, *odd)]
        # The terms of each polynomial at the x of the first symbol of a beat.
        terms = [Signal(len(part) * code.m, name=f"terms_{at}") for at, part in enumerate(exponents)]
        initial = Cat(locator[: len(even)]), Cat(locator[len(even) :]), self.evaluator
        number, running = Signal(range(beats)), Signal()
        m.d.sync += [number.eq(number + 1), running.eq(running & (number != beats - 1))]
        for now, start, powers in zip(terms, initial, exponents, strict=True):
            scaled = [_scaled(m, code.field, part, powers, x) for part, x in ((start, 1 - beats * self.p), (now, self.p))]
            m.d.sync += now.eq(Mux(self.start, *scaled))
        with m.If(self.start):
            m.d.sync += [number.eq(0), running.eq(1)]
        summed, looked_up = Signal(3), Signal(3)
        m.d.sync += [
            summed.eq(Cat(running, number == 0, number == beats - 1)),
            looked_up.eq(summed),
            Cat(self.valid, self.first, self.last).eq(looked_up),
        ]
        m.d.comb += self.fetch.eq(summed[0])
        for lane in range(self.p):
            sums = [linear(m, now, self._summed(powers, lane), code.m) for now, powers in zip(terms, exponents, strict=True)]
            # Positions after the end of the codeword are none.
            exists = ~summed[2] if lane >= code.n - (beats - 1) * self.p else 1
            self._add_lane(m, lane, sums, exists)
        return m

    def _add_lane(self, m, lane: int, sums, exists):
        """Computes the error of one symbol from the even and odd part of the locator and the evaluator there."""
        bits = self.code.m
        even, odd, *numerators = (
            Signal(bits, name=f"{name}_{lane}") for name in ("even", "odd", "sum", "kept", "numerator")
        )
        is_root = Signal(name=f"is_root_{lane}")
        m.submodules[f"inverse_{lane}"] = inverse = Inverse(self.code.field)
        m.d.sync += [register.eq(value) for register, value in zip((even, odd, numerators[0]), sums, strict=True)]
        m.d.sync += [later.eq(earlier) for earlier, later in pairwise(numerators)]
        m.d.sync += [is_root.eq((even == odd) & exists), self.roots[lane].eq(is_root)]
        error = product(m, self.code.field, numerators[-1], inverse.inverse)
        m.d.comb += [
            inverse.element.eq(odd),
            self.errors.word_select(lane, bits).eq(error & self.roots[lane].replicate(bits)),
        ]

    def _summed(self, exponents: range, x: int):
        """Makes the function that evaluates the terms of a polynomial at alpha^x times their own x."""
        return lambda terms: reduce(xor, _products(self.code.field, terms, exponents, x))


def _products(field: Field, terms: int, exponents: range, x: int) -> list[int]:
    """Multiplies each term by alpha^x to the exponent of the term."""
    symbols = (terms >> at * field.m & field.order for at in range(len(exponents)))
    return [field.multiply(symbol, field.power(x * power)) for symbol, power in zip(symbols, exponents, strict=True)]


def _scaled(m, field: Field, terms, exponents: range, x: int):
    """Multiplies each term by alpha^x to the exponent of the term. Combinational."""
    words = (terms.word_select(at, field.m) for at in range(len(exponents)))
    factors = (field.power(x * power) for power in exponents)
    return Cat(
        linear(m, word, lambda value, factor=factor: field.multiply(value, factor), field.m)
        for word, factor in zip(words, factors, strict=True)
    )
