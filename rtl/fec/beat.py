"""Codewords go over wires in beats of p symbols, the highest power in the lowest bits."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.reed_solomon import ReedSolomon


def beats(code: ReedSolomon, p: int) -> wiring.Signature:
    """Makes the signature of codewords in beats of p symbols; there is no back-pressure, gaps are allowed anywhere.

    A codeword of n symbols takes ``code.beats(p)`` beats with ``valid``. The symbols lie in the order of the line, bit 0 of
    the first one in bit 0 of ``data``; what room the last beat leaves, its highest bits, are zeros where a block gives them
    and ignored where it takes them.

    ``first`` marks the first beat. A codeword also begins, without a mark, after the last beat of another and after reset.
    ``first`` before that gives up the codeword that it interrupts, of which the decoder gives nothing.
    """
    if not 1 <= p <= code.n:
        raise ValueError(f"beats.p must be from 1 to {code.n}, not {p!r}")
    return wiring.Signature({"valid": Out(1), "first": Out(1), "data": Out(p * code.m)})


class BeatCounter(wiring.Component):
    """Counts the beats of codewords. What it tells of a beat comes with it, from registers but for ``first``.

    Members
    -------
    valid, first : In(1), of ``beats``
    number : Out, the place of the beat in its codeword
    begins, ends : Out(1), the beat is the first or the last of its codeword
    reached, passed : Out(1), its number is at least that of the ``mark``, or above it
    """

    def __init__(self, beats: int, mark: int = 0):
        self.beats, self.mark = beats, mark
        flags = {name: Out(1) for name in ("begins", "ends", "reached", "passed")}
        super().__init__({"valid": In(1), "first": In(1), "number": Out(range(beats))} | flags)

    def elaborate(self, platform):
        m = Module()
        count, following = Signal.like(self.number), Signal.like(self.number)
        m.d.comb += [self.number.eq(Mux(self.first, 0, count)), following.eq(Mux(self.ends, 0, self.number + 1))]
        with m.If(self.valid):
            m.d.sync += count.eq(following)
        for flag, holds in (
            (self.begins, lambda number: number == 0),
            (self.ends, lambda number: number == self.beats - 1),
            (self.reached, lambda number: number >= self.mark),
            (self.passed, lambda number: number > self.mark),
        ):
            # Compared a beat ahead: all symbols of a beat hang on a flag.
            kept = Signal(init=holds(0), name=f"{flag.name}_kept")
            with m.If(self.valid):
                m.d.sync += kept.eq(holds(following))
            m.d.comb += flag.eq(Mux(self.first, holds(0), kept))
        return m


def interleave(code: ReedSolomon, beats):
    """Puts the beats of codewords that leave together on a line in turn, symbol by symbol. Combinational, only wires.

    So a burst of errors is shared by the codewords: of I of them, each sees every I-th symbol of it.
    """
    symbols = range(len(beats[0]) // code.m)
    return Cat(beat.word_select(at, code.m) for at in symbols for beat in beats)


def deinterleave(code: ReedSolomon, data, codewords: int) -> list:
    """Takes the beats apart that ``interleave`` has put on a line. Combinational, only wires."""
    symbols = [data.word_select(at, code.m) for at in range(len(data) // code.m)]
    return [Cat(symbols[at::codewords]) for at in range(codewords)]
