"""The encoder puts the parity of a Reed-Solomon code into codewords that pass."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.reed_solomon import ReedSolomon
from lightfabric.rtl.fec.beat import BeatCounter, beats
from lightfabric.rtl.fec.field import linear


class Encoder(wiring.Component):
    """Replaces the last n - k symbols of each codeword by its parity, p symbols per clock.

    The input has room for the parity: what is in ``data`` after the k symbols of the message is ignored. A beat leaves one
    clock after it came, gaps and ``first`` included, so a codeword is sustained in every ``code.beats(p)`` clocks.

    p may be any number up to n. Where the message ends within a beat, its last k mod p symbols are encoded together with
    the last of the beat before, as if zeros came before the message, which change no parity: the register takes p symbols
    in every step. The first parity symbols follow in the same beat. The last beat is filled up with zeros.

    Members
    -------
    i : In(beats(code, p))
    o : Out(beats(code, p))
    """

    def __init__(self, code: ReedSolomon, p: int):
        self.code, self.p = code, p
        super().__init__({"i": In(beats(code, p)), "o": Out(beats(code, p))})

    def elaborate(self, platform):
        m = Module()
        beat_bits, parity_bits = len(self.i.data), self.code.parity_symbols * self.code.m
        # The beat in which the message ends has 1 to p of its symbols.
        end_beat, symbols_before = divmod(self.code.k - 1, self.p)
        end_bits = (symbols_before + 1) * self.code.m
        m.submodules.counter = counter = BeatCounter(self.code.beats(self.p), mark=end_beat)
        m.d.comb += [counter.valid.eq(self.i.valid), counter.first.eq(self.i.first)]
        # The remainder has its highest power, which leaves first, in its low bits, as a beat has.
        beat, before, remainder = Signal(beat_bits), Signal(beat_bits - end_bits), Signal(parity_bits)
        in_parity, left, step = Signal(), Signal(beat_bits + parity_bits), Signal(beat_bits)
        with m.If(~counter.begins):
            m.d.comb += left.eq(remainder)
        message = Cat(Mux(counter.begins, Const(0, len(before)), before), self.i.data[:end_bits])
        m.d.comb += step.eq(left[:beat_bits] ^ message)
        m.d.comb += self.o.data.eq(Mux(in_parity, Cat(beat[:end_bits], remainder), beat))
        m.d.sync += self.o.valid.eq(self.i.valid)
        with m.If(self.i.valid):
            m.d.sync += [
                self.o.first.eq(counter.begins),
                in_parity.eq(counter.reached),
                before.eq(self.i.data[end_bits:]),
                beat.eq(self.i.data),
                remainder.eq(left[beat_bits:] ^ linear(m, step, self._remainder, parity_bits)),
            ]
            with m.If(counter.passed):
                # Of what moves out of the remainder, these symbols have not left in the beat before.
                m.d.sync += [beat.eq(left[beat_bits - end_bits : beat_bits]), remainder.eq(left[beat_bits:])]
        return m

    def _remainder(self, symbols: int) -> int:
        """Computes the parity of a message of p symbols, both with the highest power in the low bits."""
        bits = self.code.m
        message = [symbols >> at & (1 << bits) - 1 for at in range(0, self.p * bits, bits)]
        return sum(symbol << at * bits for at, symbol in enumerate(self.code.parity(message)))
