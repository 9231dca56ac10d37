"""Beats of one width become beats of another, by wires that are known for each beat of a codeword.

A *step* is a beat that comes and a beat that goes; ``steps`` of them are a codeword. A bit that goes comes from a step that
is named, or is a constant. Where a step needs what comes later all that goes is *lag* steps late.
"""

from itertools import groupby, pairwise

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

Source = tuple[int, int] | int
"""A bit that goes is bit ``[1]`` of step ``[0]``, or a constant 0 or 1."""


class Regroup(wiring.Component):
    """Puts together each beat of a codeword from the bits of some of its beats, ``latency_clocks`` after the last of them.

    In the clock in which step ``number`` comes, step ``number - lag`` goes, modulo the steps: codewords follow each other
    without a gap, and the first to come is preceded by ``lag`` beats that mean nothing. All steps alike are wires and take
    no clock, others one.

    Members
    -------
    i : In(bits)
    valid : In(1)
    number : In(range(steps)), of the step that comes
    o : Out(len(sources[0]))
    o_valid : Out(1)
    o_number : Out(range(steps)), of the step that goes
    """

    def __init__(self, bits: int, sources: list[list[Source]]):
        self.sources, steps = sources, len(sources)
        named = [(step, source[0]) for step, beat in enumerate(sources) for source in beat if isinstance(source, tuple)]
        self.lag = max(comes - goes for goes, comes in named)
        self.depth = max(goes + self.lag - comes for goes, comes in named)
        self.latency_clocks = 0 if len({self._relative(step) for step in range(steps)}) == 1 else 1
        outputs = {"o": Out(len(sources[0])), "o_valid": Out(1), "o_number": Out(range(steps))}
        super().__init__({"i": In(bits), "valid": In(1), "number": In(range(steps))} | outputs)

    def _relative(self, step: int) -> tuple[Source, ...]:
        """Gives the sources of a step, with how many steps ago each came in place of its number."""
        return tuple(
            (step + self.lag - source[0], source[1]) if isinstance(source, tuple) else source
            for source in self.sources[step]
        )

    def elaborate(self, platform):
        m = Module()
        steps, bits = len(self.sources), len(self.i)
        history = [self.i, *(Signal(bits, name=f"before_{age}") for age in range(1, self.depth + 1))]
        with m.If(self.valid):
            m.d.sync += [late.eq(early) for early, late in pairwise(history)]
        domain = m.d.sync if self.latency_clocks else m.d.comb
        domain += self.o_valid.eq(self.valid)
        if not self.latency_clocks:
            m.d.comb += self.o.eq(_joined(history, self._relative(0)))
        if steps == 1:
            return m
        with m.Switch(self.number):
            for step in range(steps):
                with m.Case((step + self.lag) % steps):
                    domain += self.o_number.eq(step)
                    if self.latency_clocks:
                        with m.If(self.valid):
                            m.d.sync += self.o.eq(_joined(history, self._relative(step)))
        return m


def _joined(history, sources: tuple[Source, ...]):
    """Joins bits, those that follow each other in their beat as one slice."""

    def run(entry) -> object:
        at, source = entry
        return (source[0], source[1] - at) if isinstance(source, tuple) else (None, source)

    parts = []
    for (age, _), entries in groupby(enumerate(sources), run):
        found = [source for _, source in entries]
        if age is None:
            parts.append(Const(found[0], 1).replicate(len(found)))
        else:
            parts.append(history[age][found[0][1] : found[0][1] + len(found)])
    return Cat(parts)
