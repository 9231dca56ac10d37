"""Codewords go over wires in beats of p symbols, the highest power in the lowest bits."""

from amaranth import Cat, Module, Signal
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
    """Counts the beats of a codeword. Combinational but for the count.

    Members
    -------
    valid, first : In(1), of ``beat.beats``
    number : Out, of the beat that is valid now
    last : Out(1), the beat is the last of its codeword
    """

    def __init__(self, beats: int):
        self.beats = beats
        super().__init__({"valid": In(1), "first": In(1), "number": Out(range(beats)), "last": Out(1)})

    def elaborate(self, platform):
        m = Module()
        count = Signal.like(self.number)
        with m.If(~self.first):
            m.d.comb += self.number.eq(count)
        m.d.comb += self.last.eq(self.number == self.beats - 1)
        with m.If(self.valid & self.last):
            m.d.sync += count.eq(0)
        with m.Elif(self.valid):
            m.d.sync += count.eq(self.number + 1)
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
