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
    """Tells where in its codeword a beat is, from registers but for ``first``: all symbols of a beat hang on that.

    Members
    -------
    valid, first : In(1), of ``beats``
    begins, ends : Out(1), the beat is the first or the last of its codeword
    reached, passed : Out(1), it is the one with the number ``mark`` or comes after it, or only after it
    """

    def __init__(self, beats: int, mark: int = 0):
        self.beats, self.mark = beats, mark
        super().__init__({"valid": In(1), "first": In(1)} | dict.fromkeys(("begins", "ends", "reached", "passed"), Out(1)))

    def elaborate(self, platform):
        m = Module()
        count, at_end = Signal(range(self.beats)), Signal(init=self.beats == 1)
        second = min(1, self.beats - 1)
        with m.If(self.valid):
            m.d.sync += count.eq(Mux(self.first, second, Mux(at_end, 0, count + 1)))

        def since(number: int, kept):
            """Tells whether the beat has this number or a higher one, compared a beat ahead."""
            with m.If(self.valid):
                m.d.sync += kept.eq(
                    Mux(self.first, second >= number, Mux(at_end, number == 0, kept | (count == number - 1)))
                )
            return Mux(self.first, number == 0, kept)

        m.d.comb += [
            self.begins.eq(~since(1, Signal(name="begun"))),
            self.ends.eq(since(self.beats - 1, at_end)),
            self.reached.eq(since(self.mark, Signal(init=self.mark == 0, name="was_reached"))),
            self.passed.eq(since(self.mark + 1, Signal(name="was_passed"))),
        ]
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
