"""The decoder of a Reed-Solomon code corrects codewords that pass, and says of each what it has found."""

from itertools import pairwise

from amaranth import Module, Mux, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.reed_solomon import ReedSolomon
from lightfabric.rtl.fec.beat import beats
from lightfabric.rtl.fec.delay import Delay
from lightfabric.rtl.fec.key_equation import KeyEquation
from lightfabric.rtl.fec.search import Search
from lightfabric.rtl.fec.syndrome import Syndromes


class Mode(enum.Enum, shape=2):
    """Lists what is done about errors: symbols are corrected, or errors only told of, or neither."""

    CORRECT = 0
    DETECT = 1
    BYPASS = 2


class Decoder(wiring.Component):
    """Corrects up to t symbols of each codeword, p symbols per clock; a codeword may come every ``code.beats(p)`` clocks.

    The first beat of a codeword leaves ``latency_clocks`` after its last one came, the others in the clocks after it without
    a gap, whatever gaps there were. The latency is 7 + ``key_equation.Folding(code, code.beats(p)).clocks``: 2 for the
    syndromes, those of the key equation, 4 for the search, 1 for the correction. It is the same in all modes.

    With the last beat come the findings. ``corrected`` symbols were mended, 0 to t. ``uncorrectable`` is told when more than
    t errors are the only explanation: then none or some symbols were changed, and the codeword must not be used. More than
    t errors may look like up to t others; that is known to nobody. Without correction nothing is changed: with
    ``Mode.DETECT`` a codeword with any error is ``uncorrectable``, with ``Mode.BYPASS`` none is. ``mode`` may
    change at any time and counts for a codeword when its last beat leaves, for its symbols beat by beat.

    Members
    -------
    i : In(beats(code, p))
    mode : In(Mode)
    o : Out(beats(code, p)), message and parity
    last : Out(1), the beat of ``o`` is the last of its codeword
    corrected : Out(range(t + 1)), valid with ``last``, else 0
    uncorrectable : Out(1), valid with ``last``, else 0
    """

    def __init__(self, code: ReedSolomon, p: int):
        self.code, self.p = code, p
        self.key_equation = KeyEquation(code, code.beats(p))
        self.latency_clocks = Syndromes.LATENCY_CLOCKS + self.key_equation.folding.clocks + Search.LATENCY_CLOCKS + 1
        stream = beats(code, p)
        findings = {"last": Out(1), "corrected": Out(range(code.t + 1)), "uncorrectable": Out(1)}
        super().__init__({"i": In(stream), "mode": In(Mode), "o": Out(stream)} | findings)

    def elaborate(self, platform):
        m = Module()
        m.submodules.syndromes = syndromes = Syndromes(self.code, self.p)
        m.submodules.key_equation = key_equation = self.key_equation
        m.submodules.search = search = Search(self.code, self.p)
        # From its last beat on a codeword waits for the latency, in which as many beats of others may come.
        m.submodules.delay = delay = Delay(self.code, self.p, self.code.beats(self.p) + self.latency_clocks)
        m.d.comb += [
            syndromes.i.valid.eq(self.i.valid),
            syndromes.i.first.eq(self.i.first),
            syndromes.i.data.eq(self.i.data),
            key_equation.start.eq(syndromes.done),
            key_equation.syndromes.eq(syndromes.syndromes),
            search.start.eq(key_equation.done),
            search.locator.eq(key_equation.locator),
            search.evaluator.eq(key_equation.evaluator),
            delay.i.valid.eq(self.i.valid),
            delay.i.first.eq(self.i.first),
            delay.i.data.eq(self.i.data),
            delay.fetch.eq(search.fetch),
        ]
        corrects, end = self.mode == Mode.CORRECT, search.valid & search.last
        corrections = search.errors & corrects.replicate(len(search.errors))
        found, errors = self._add_count(m, search), self._add_errors(m, key_equation)
        explained = (errors <= self.code.t) & (found == errors)
        m.d.sync += [
            self.o.valid.eq(search.valid),
            self.o.first.eq(search.valid & search.first),
            self.o.data.eq(delay.data ^ corrections),
            self.last.eq(end),
            self.corrected.eq(Mux(end & corrects & explained, errors, 0)),
            self.uncorrectable.eq(end & Mux(corrects, ~explained, (self.mode == Mode.DETECT) & (errors != 0))),
        ]
        return m

    def _add_errors(self, m, key_equation):
        """Keeps the number of errors of the codeword whose errors leave the search."""
        errors = [Signal.like(key_equation.errors, name=f"errors_{at}") for at in range(Search.LATENCY_CLOCKS)]
        with m.If(key_equation.done):
            m.d.sync += errors[0].eq(key_equation.errors)
        m.d.sync += [later.eq(earlier) for earlier, later in pairwise(errors)]
        return errors[-1]

    def _add_count(self, m, search):
        """Counts the roots up to this beat of the codeword."""
        before, count = (Signal(range(self.code.t + 1), name=name) for name in ("roots_before", "roots"))
        m.d.comb += count.eq(Mux(search.first, 0, before) + _total(list(search.roots)))
        m.d.sync += before.eq(count)
        return count


def _total(counts: list):
    """Adds counts in pairs, and the sums in pairs again: a chain of hundreds is deeper than Python's stack."""
    while len(counts) > 1:
        counts = [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
    return counts[0]
