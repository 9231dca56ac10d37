"""Received symbols wait in a memory until their errors are known."""

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from lightfabric.model.reed_solomon import ReedSolomon
from lightfabric.rtl.fec.beat import BeatCounter, beats

BANK_BEATS = 1024
"""So deep are the memories of FPGAs at most; they are slow, so nothing may select between two before a register."""


class Delay(wiring.Component):
    """Keeps at least so many beats, and gives the next one two clocks after ``fetch``; codewords given up are written over.

    Members
    -------
    i : In(beats(code, p))
    fetch : In(1)
    data : Out, p symbols
    """

    def __init__(self, code: ReedSolomon, p: int, depth: int):
        self.beats, self.depth = code.beats(p), depth
        stream = beats(code, p)
        super().__init__({"i": In(stream), "fetch": In(1), "data": Out(p * code.m)})

    def elaborate(self, platform):
        m = Module()
        bits = self.depth.bit_length()
        banks = max(1, (1 << bits) // BANK_BEATS)
        m.submodules.counter = counter = BeatCounter(self.beats)
        begin, following, write, read = (Signal(bits, name=name) for name in ("begin", "following", "write", "read"))
        m.d.comb += [
            counter.valid.eq(self.i.valid),
            counter.first.eq(self.i.first),
            write.eq(Mux(self.i.first, begin, following)),
        ]
        with m.If(self.i.valid):
            m.d.sync += following.eq(write + 1)
            with m.If(counter.ends):
                m.d.sync += begin.eq(write + 1)
        m.d.sync += read.eq(read + self.fetch)
        bank_bits = bits - (banks - 1).bit_length()
        bank, bank_before = (Signal(range(banks), name=name) for name in ("bank", "bank_before"))
        m.d.sync += [bank_before.eq(read[bank_bits:]), bank.eq(bank_before)]
        given = [self._add_bank(m, at, write, read, bank_bits) for at in range(banks)]
        m.d.comb += self.data.eq(Array(given)[bank])
        return m

    def _add_bank(self, m, at: int, write, read, bank_bits: int):
        """Adds a memory for some of the places, and the register of its output."""
        # What is fetched was written long before: synthesis need not care for a read of what is being written. That is
        # asked for by an attribute, which Yosys heeds where it makes a synchronous port of a register itself.
        attributes = {"no_rw_check": 1}
        memory = Memory(shape=len(self.i.data), depth=1 << bank_bits, init=[], attrs=attributes)
        m.submodules[f"bank_{at}"] = memory
        write_port, read_port = memory.write_port(), memory.read_port(domain="comb")
        given, data = (Signal(len(self.data), name=f"{name}_{at}", reset_less=True) for name in ("given", "data"))
        m.d.comb += [
            write_port.addr.eq(write),
            write_port.data.eq(self.i.data),
            write_port.en.eq(self.i.valid & (write[bank_bits:] == at)),
            read_port.addr.eq(read),
        ]
        m.d.sync += [given.eq(read_port.data), data.eq(given)]
        return data
