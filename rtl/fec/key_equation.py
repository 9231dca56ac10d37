"""The reformulated inversionless Berlekamp-Massey algorithm finds where errors are and what they are, as polynomials.

The words, as in Sarwate and Shanbhag, "High-speed architectures for Reed-Solomon decoders", IEEE Trans. VLSI 2001:

* *delta*, *theta*: the two rows of symbols that one iteration makes of those before; there is one iteration per syndrome
* *discrepancy*: symbol 0 of delta; *gamma*: the discrepancy by which theta is scaled
* *errors*: the length of the register that the syndromes so far could come from, and so the number of errors at the end
* *phase*: an iteration takes so many clocks, in each of which the rows turn by ``lanes`` symbols
"""

from dataclasses import dataclass

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.reed_solomon import ReedSolomon
from lightfabric.rtl.fec.field import product


@dataclass(frozen=True)
class Folding:
    """Describes how the key equation of a code is spread over clocks, so that one can be solved every ``beats`` clocks.

    As few multipliers as will do: an iteration takes ``phases`` clocks, with ``lanes`` symbols in each. Where codewords
    take less clocks than there are iterations, stages follow each other, with some of the iterations each.
    """

    code: ReedSolomon
    beats: int

    @property
    def stages(self) -> tuple[range, ...]:
        """List the iterations of each stage."""
        iterations = self.code.parity_symbols
        # A stage takes one clock more to take its rows in, unless it does nothing else.
        most = max(1, min(self.beats - 1, iterations))
        return tuple(range(at, min(at + most, iterations)) for at in range(0, iterations, most))

    @property
    def rows(self) -> int:
        """Count the symbols of delta: those of the syndromes, of the locator, and none where they meet."""
        return self.code.parity_symbols + self.code.t + 1

    @property
    def lanes(self) -> int:
        """Count the symbols of a row that change in one clock."""
        return -(-self.rows // max(1, (self.beats - 1) // self.code.parity_symbols))

    @property
    def phases(self) -> int:
        """Count the clocks of an iteration."""
        return -(-self.rows // self.lanes)

    @property
    def clocks(self) -> int:
        """Count the clocks from the syndromes to the polynomials."""
        return sum(1 if len(stage) * self.phases == 1 else len(stage) * self.phases + 1 for stage in self.stages)

    @property
    def layout(self) -> data.StructLayout:
        """Lay out what a stage hands to the next."""
        row, m = self.lanes * self.phases * self.code.m, self.code.m
        errors = range(self.code.parity_symbols + 1)
        return data.StructLayout({"delta": row, "theta": row, "discrepancy": m, "gamma": m, "errors": errors})


class KeyEquation(wiring.Component):
    """Solves the key equation of a codeword in ``Folding.clocks`` clocks, of which one may begin every ``beats`` clocks.

    With no more than t errors, ``errors`` is their number, the ``locator`` has a root alpha^-e for an error at each position
    e, and ``evaluator`` is the high part of its product with the syndromes, that above the power n - k. With more errors
    ``errors`` is above t as a rule, else the locator has fewer roots than ``errors``, or other errors explain the syndromes.

    Members
    -------
    start : In(1)
    syndromes : In, n - k symbols, valid with ``start``
    done : Out(1)
    locator : Out, t + 1 symbols, that of power 0 in the low bits, valid with ``done``
    evaluator : Out, t symbols, likewise
    errors : Out, valid with ``done``
    """

    def __init__(self, code: ReedSolomon, beats: int):
        self.code, self.folding = code, Folding(code, beats)
        members = {"start": In(1), "syndromes": In(code.parity_symbols * code.m), "done": Out(1)}
        polynomials = {"locator": Out((code.t + 1) * code.m), "evaluator": Out(code.t * code.m)}
        super().__init__(members | polynomials | {"errors": Out(range(code.parity_symbols + 1))})

    def elaborate(self, platform):
        m = Module()
        code, state = self.code, Signal(self.folding.layout)
        row = Cat(self.syndromes, Const(0, code.t * code.m), Const(1, code.m))
        m.d.comb += [
            state.delta.eq(row),
            state.theta.eq(row),
            state.discrepancy.eq(self.syndromes[: code.m]),
            state.gamma.eq(1),
        ]
        start = self.start
        for at, iterations in enumerate(self.folding.stages):
            m.submodules[f"stage_{at}"] = stage = _Stage(self.folding, iterations)
            m.d.comb += [stage.start.eq(start), stage.i.eq(state)]
            start, state = stage.done, stage.o
        m.d.comb += [
            self.done.eq(start),
            self.evaluator.eq(state.delta),
            self.locator.eq(state.delta[code.t * code.m :]),
            self.errors.eq(state.errors),
        ]
        return m


class _Stage(wiring.Component):
    """Does some of the iterations on a state that it takes with ``start``; ``o`` is the outcome from ``done`` on.

    A single iteration of one clock is done on the way in. A stage may start again in the clock of ``done``.
    """

    def __init__(self, folding: Folding, iterations: range):
        self.folding, self.iterations = folding, iterations
        layout = folding.layout
        super().__init__({"start": In(1), "i": In(layout), "done": Out(1), "o": Out(layout)})

    def elaborate(self, platform):
        m = Module()
        clocks = len(self.iterations) * self.folding.phases
        if clocks == 1:
            m.d.sync += [self.done.eq(self.start), *self._step(m, self.i, self.iterations[0], 1)]
            return m
        phase, iteration, running = Signal(range(self.folding.phases)), Signal(self.iterations), Signal()
        ends = phase == self.folding.phases - 1
        step = self._step(m, self.o, iteration, ends)
        m.d.sync += self.done.eq(0)
        with m.If(running):
            m.d.sync += [*step, phase.eq(phase + 1)]
            with m.If(ends):
                m.d.sync += [phase.eq(0), iteration.eq(iteration + 1)]
                with m.If(iteration == self.iterations[-1]):
                    m.d.sync += [running.eq(0), self.done.eq(1)]
        with m.If(self.start):
            m.d.sync += [self.o.eq(self.i), iteration.eq(self.iterations[0]), running.eq(1)]
        return m

    def _step(self, m, state, iteration, ends):
        """Makes the statements of one phase, of which the last one ends the iteration."""
        field, bits, lanes, phases = self.folding.code.field, self.folding.code.m, self.folding.lanes, self.folding.phases
        swaps = (state.discrepancy != 0) & (state.errors * 2 <= iteration)
        delta = [state.delta.word_select(lane, bits) for lane in range(lanes)]
        theta = [state.theta.word_select(lane, bits) for lane in range(lanes)]
        # Above the last symbol there is none: what has turned into its place by then is symbol 0 of the next iteration.
        turned = state.delta.word_select(lanes, bits) if phases > 1 else None
        above = [*delta[1:], Const(0, bits) if turned is None else Mux(ends, 0, turned)]
        made = [
            product(m, field, state.gamma, higher) ^ product(m, field, state.discrepancy, same)
            for higher, same in zip(above, theta, strict=True)
        ]
        kept = [Mux(swaps, higher, same) for higher, same in zip(above, theta, strict=True)]
        return [
            self.o.delta.eq(Cat(state.delta[lanes * bits :], made)),
            self.o.theta.eq(Cat(state.theta[lanes * bits :], kept)),
            self.o.discrepancy.eq(Mux(ends, made[0] if turned is None else turned, state.discrepancy)),
            self.o.gamma.eq(Mux(ends & swaps, state.discrepancy, state.gamma)),
            self.o.errors.eq(Mux(ends & swaps, iteration + 1 - state.errors, state.errors)),
        ]
