"""Streams cross from clock domain to clock domain, whatever resets of either do.

The words of the two state machines, one in each domain:

* *produced*, *consumed*: how many words the input has written, the output has read, in Gray code
* *wants*: a side was reset and the crossing is to be emptied; *flush*: the input stops and asks for it; *flushed*: the
  output has stopped and set its pointer to the input's
* *inside*: the last word that went by was not the last of its packet; *dropping*: the rest of a cut packet is thrown away
* *stopped*: the output gives no more words, but for the end of a cut packet
"""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


def gray(binary):
    """Turns a counter into Gray code, where neighbours differ in one bit [Cummings, SNUG 2002, FIFO style 1]."""
    return binary ^ (binary >> 1)


def binary(gray_code):
    """Turns a Gray code back into the counter."""
    return Cat(gray_code[i:].xor() for i in range(len(gray_code)))


class StreamCrossing(wiring.Component):
    """Carries a stream of packets from one clock domain to another, in order, through a buffer of ``depth`` words.

    A word is offered in the third or fourth cycle of the output's clock after it was taken; the rate is one word per cycle
    of the slower clock from a depth of 16 on. What is offered stays unchanged until it is taken. A packet ends with a word
    of ``last``; without a field of that name every word is a packet.

    A reset of either domain empties the crossing: no word that was taken before the output's reset is offered after it,
    and none that was taken before the input's reset is offered once the output has heard of it, a cycle of the input's
    clock and 4 of the output's later at most.
    The side that was not reset goes on with whole packets. Is a packet cut while its words come in, then the rest of it is
    taken and dropped. Is it cut while its words go out, then it is ended by a word with ``last`` that has zeros in
    ``data`` and ``keep``, 1 in ``error``, the other fields as before, and ``cut`` next to it; a word already offered goes
    before.
    No word is taken until both sides know of the reset, so the input is not ready for some 6 cycles of each clock, or for
    as long as the end of a cut packet is not taken. A reset must last for an edge of its own clock; the resets may come at
    any time, together or one in the wake of the other.

    Nothing but synchronisers crosses: the pointers are not reset at all, since a pointer that jumps while the other side
    reads it is how a reset crosses wrongly. The input stops and asks (``flush``), the output stops, sets its pointer to the
    input's and answers (``flushed``), both take that back, and the input goes on. From any state of the registers
    a reset of both domains leads to an empty crossing.

    Members
    -------
    i : In(stream.Signature(layout)), in ``i_domain``
    o : Out(stream.Signature(layout)), in ``o_domain``
    cut : Out(1), in ``o_domain``, the word offered is the end of a cut packet
    """

    def __init__(self, layout: data.StructLayout, *, i_domain: str, o_domain: str, depth: int = 16):
        if depth < 4 or depth & (depth - 1):
            raise ValueError(f"StreamCrossing.depth must be a power of two from 4 on, not {depth!r}")
        self.layout, self.i_domain, self.o_domain, self.depth = layout, i_domain, o_domain, depth
        super().__init__({"i": In(stream.Signature(layout)), "o": Out(stream.Signature(layout)), "cut": Out(1)})

    def elaborate(self, platform):
        m = Module()
        bits = self.depth.bit_length()
        # No reset reaches these: a register that jumps while the other side reads it may be seen as it never was.
        produced, consumed = (Signal(bits, name=name, reset_less=True) for name in ("produced", "consumed"))
        flush, flushed = (Signal(name=name, reset_less=True) for name in ("flush", "flushed"))
        o_wants = Signal(init=1)
        m.submodules.words = words = Memory(shape=self.layout.size, depth=self.depth, init=[])
        self._add_input(
            m,
            words.write_port(domain=self.i_domain),
            produced,
            flush,
            consumed=self._crossed(m, consumed, self.i_domain, "consumed"),
            flushed=self._crossed(m, flushed, self.i_domain, "flushed"),
            o_wants=self._crossed(m, o_wants, self.i_domain, "o_wants"),
        )
        self._add_output(
            m,
            words.read_port(domain=self.o_domain),
            consumed,
            flushed,
            o_wants,
            produced=self._crossed(m, produced, self.o_domain, "produced"),
            flush=self._crossed(m, flush, self.o_domain, "flush"),
        )
        return m

    def _crossed(self, m, register, domain: str, name: str):
        """Brings a register that changes by one bit at a time into a domain, two register stages later."""
        seen = Signal.like(register, name=f"{name}_seen", reset_less=True)
        m.submodules[f"{name}_crossing"] = FFSynchronizer(register, seen, o_domain=domain)
        return seen

    def _ends(self, word):
        """Tells whether a packet ends with the word."""
        return word.last if "last" in self.layout.members else Const(1)

    def _add_input(self, m, port, produced, flush, *, consumed, flushed, o_wants):
        """Writes the words that come in; ``produced`` and ``consumed`` are Gray codes."""
        i, d = self.i, m.d[self.i_domain]
        wants, inside, dropping = Signal(init=1, name="i_wants"), Signal(name="i_inside"), Signal(name="i_dropping")
        running, full = Signal(name="i_running"), Signal(name="i_full")
        count, following = Signal.like(produced, name="i_count"), Signal.like(produced, name="i_following")
        m.d.comb += [
            running.eq(~(wants | flush | flushed)),
            # A buffer's length apart, Gray codes differ in their two highest bits and in no other.
            full.eq((produced ^ consumed) == 0b11 << len(produced) - 2),
            count.eq(binary(produced)),
            following.eq(count + port.en),
            i.ready.eq(running & (dropping | ~full)),
            port.addr.eq(count[:-1]),
            port.data.eq(i.payload),
            port.en.eq(i.valid & running & ~dropping & ~full),
        ]
        d += produced.eq(gray(following))
        with m.If(i.valid & i.ready):
            d += [inside.eq(~self._ends(i.payload)), dropping.eq(dropping & ~self._ends(i.payload))]
        # ``wants`` of the output may come and go; the flush that it began ends only when the output has answered.
        with m.If(flush):
            d += [flush.eq(~flushed), wants.eq(0), dropping.eq(inside)]
        with m.Elif(~flushed & (wants | o_wants)):
            d += flush.eq(1)

    def _add_output(self, m, port, consumed, flushed, wants, *, produced, flush):
        """Reads words into a register of its own, which a flush leaves alone: what is offered stays."""
        o, d = self.o, m.d[self.o_domain]
        inside, stopped, free, read = (Signal(name=f"o_{name}") for name in ("inside", "stopped", "free", "read"))
        count, following = Signal.like(consumed, name="o_count"), Signal.like(consumed, name="o_following")
        m.d.comb += [
            stopped.eq(wants | flush | flushed),
            free.eq(~o.valid | o.ready),
            read.eq(free & ~stopped & (consumed != produced)),
            count.eq(binary(consumed)),
            following.eq(Mux(flushed, binary(produced), count + read)),
            port.addr.eq(following[:-1]),
        ]
        # The answer waits for the end of a cut packet, so that no word of a later one comes before it.
        d += [consumed.eq(gray(following)), flushed.eq(flush & (flushed | ~inside))]
        with m.If(flush):
            d += wants.eq(0)
        with m.If(free):
            d += [o.valid.eq(read | (stopped & inside)), self.cut.eq(stopped & inside)]
        with m.If(read):
            d += [o.payload.eq(port.data), inside.eq(~self._ends(self.layout(port.data)))]
        with m.Elif(free & stopped & inside):
            end = {"data": 0, "keep": 0, "last": 1, "error": 1}
            d += [o.payload[name].eq(value) for name, value in end.items() if name in self.layout.members]
            d += inside.eq(0)
