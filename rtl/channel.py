"""Channels carry flits between blocks: the channel, the queue at its end, the credits at its beginning."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import ADDRESS_BITS, CHANNEL_BITS, LENGTH_BITS
from lightfabric.model.spec import ChipletSpec


def flit_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out what the network carries of a flit; sequence, answer and credits belong to each link.

    ``error`` comes with ``last`` only: the packet ends here because a reset cut it, and its rest is lost.
    """
    return data.StructLayout(
        {
            "last": 1,
            "error": 1,
            "virtual_channel": CHANNEL_BITS,
            "length_bytes": LENGTH_BITS,
            "destination": ADDRESS_BITS,
            "source": ADDRESS_BITS,
            "payload": spec.payload_bytes * 8,
        }
    )


class ChannelSignature(wiring.Signature):
    """Carries a flit per cycle without back-pressure, and credits back.

    The sender starts with ``spec.buffer_flits`` credits per virtual channel, spends one per flit and gets one back for
    each cycle in which the bit of the virtual channel is set. ``held`` is 1 from the cycle after a flit until the cycle of
    its credit: a sender that misses credits while nothing is held knows that they are lost.

    Members
    -------
    flit : Out(flit_layout(spec))
    valid : Out(1)
    credit : In(spec.virtual_channels)
    held : In(spec.virtual_channels)
    """

    def __init__(self, spec: ChipletSpec):
        back = {"credit": In(spec.virtual_channels), "held": In(spec.virtual_channels)}
        super().__init__({"flit": Out(flit_layout(spec)), "valid": Out(1), **back})


def one_hot_mux(selects, values):
    """Gives the value whose select is 1, or 0 if none is; at most one select may be 1. Combinational, an AND and an OR.

    Selects should be bits of signals: tools work an expression out anew wherever it stands.
    """
    chosen = 0
    for select, value in zip(selects, values, strict=True):
        bits = Value.cast(value)
        chosen = chosen | (bits & select.replicate(len(bits)))
    return chosen


def lowest(bits):
    """Keeps the lowest bit that is 1 and clears all others. Combinational, without a carry."""
    return Cat(bit & ~bits[:n].any() for n, bit in enumerate(bits))


MAX_LUT_RAM_DEPTH = 128
"""A deeper memory is of block RAM, which is read by a register."""


class Fifo(wiring.Component):
    """Gives out what was written in the order in which it came, with registered flags; drops what is written while full.

    Members
    -------
    w_data : In(width)
    w_en : In(1)
    r_data : Out(width), the oldest entry, from the cycle after it was written on
    r_en : In(1), drop the oldest entry
    r_rdy : Out(1), there is one
    more : Out(1), there is another one behind it
    level : Out(range(depth + 1)), entries
    """

    def __init__(self, width: int, depth: int):
        self.width, self.depth = width, depth
        ins = {"w_data": In(width), "w_en": In(1), "r_en": In(1)}
        outs = {"r_data": Out(width), "r_rdy": Out(1), "more": Out(1), "level": Out(range(depth + 1))}
        super().__init__({**ins, **outs})

    def elaborate(self, platform):
        m = Module()
        m.submodules.storage = storage = Memory(shape=self.width, depth=self.depth, init=[])
        write = storage.write_port()
        is_deep = self.depth > MAX_LUT_RAM_DEPTH
        read = storage.read_port(transparent_for=(write,)) if is_deep else storage.read_port(domain="comb")
        produce, consume, next_consume = (Signal(range(self.depth)) for _ in range(3))
        full, writes, reads, level = Signal(), Signal(), Signal(), self.level
        self.state = {"produce": produce, "consume": consume, "full": full}
        # The flags are registers beside the level, so that those who use them do not wait for a comparison.
        # The place of the next entry is written in every cycle until one is put there: ``w_en`` comes late, and need not
        # reach the write enable of a wide memory.
        m.d.comb += [
            writes.eq(self.w_en & ~full),
            reads.eq(self.r_en & self.r_rdy),
            write.addr.eq(produce),
            write.data.eq(self.w_data),
            write.en.eq(~full),
            next_consume.eq(Mux(reads, Mux(consume == self.depth - 1, 0, consume + 1), consume)),
            read.addr.eq(next_consume if is_deep else consume),
            self.r_data.eq(read.data),
        ]
        with m.If(writes):
            m.d.sync += produce.eq(Mux(produce == self.depth - 1, 0, produce + 1))
        m.d.sync += consume.eq(next_consume)
        # A write and a read in one cycle leave the level and its flags as they are.
        with m.If(writes & ~reads):
            m.d.sync += [level.eq(level + 1), self.r_rdy.eq(1), self.more.eq(level != 0), full.eq(level == self.depth - 1)]
        with m.Elif(reads & ~writes):
            m.d.sync += [level.eq(level - 1), self.r_rdy.eq(level != 1), self.more.eq(level > 2), full.eq(0)]
        return m


class Queue(wiring.Component):
    """Receives the flits of a channel: one first-in first-out buffer of ``spec.buffer_flits`` per virtual channel.

    A flit valid in cycle t is at ``heads`` from t + 1 on. ``pop`` of a valid head returns its credit in the same cycle.
    A sender that respects its credits never overflows it.

    Members
    -------
    i : In(ChannelSignature(spec))
    heads : Out(flit_layout(spec)).array(spec.virtual_channels)
    valid : Out(spec.virtual_channels)
    more : Out(spec.virtual_channels), another flit is behind the head
    pop : In(spec.virtual_channels)
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        super().__init__(
            {
                "i": In(ChannelSignature(spec)),
                "heads": Out(flit_layout(spec)).array(spec.virtual_channels),
                "valid": Out(spec.virtual_channels),
                "more": Out(spec.virtual_channels),
                "pop": In(spec.virtual_channels),
            }
        )

    def elaborate(self, platform):
        m = Module()
        flit = Value.cast(self.i.flit)
        for channel in range(self.spec.virtual_channels):
            fifo = Fifo(width=len(flit), depth=self.spec.buffer_flits)
            m.submodules[f"fifo_{channel}"] = fifo
            m.d.comb += [
                fifo.w_data.eq(flit),
                fifo.w_en.eq(self.i.valid & (self.i.flit.virtual_channel == channel)),
                Value.cast(self.heads[channel]).eq(fifo.r_data),
                self.valid[channel].eq(fifo.r_rdy),
                self.more[channel].eq(fifo.more),
                fifo.r_en.eq(self.pop[channel]),
                # A pop of an empty buffer frees no place.
                self.i.credit[channel].eq(self.pop[channel] & fifo.r_rdy),
                self.i.held[channel].eq(fifo.r_rdy),
            ]
        return m


class Credits(wiring.Component):
    """Counts the credits left at the sending end of a channel, ``spec.buffer_flits`` per virtual channel after reset.

    Members
    -------
    spend : In(spec.virtual_channels)
    refund : In(spec.virtual_channels)
    left : Out(spec.virtual_channels), 1 where a flit may be sent
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        channels = spec.virtual_channels
        super().__init__({"spend": In(channels), "refund": In(channels), "left": Out(channels)})

    def elaborate(self, platform):
        m = Module()
        depth, self.state = self.spec.buffer_flits, {}
        for channel in range(self.spec.virtual_channels):
            self.state[f"count_{channel}"] = count = Signal(range(depth + 1), init=depth, name=f"count_{channel}")
            m.d.comb += self.left[channel].eq(count != 0)
            m.d.sync += count.eq(count + self.refund[channel] - self.spend[channel])
        return m


LEAK_CYCLES = 16
"""It is far longer than a receiver may have a flit without showing it; a power of two shows in one bit of a counter."""


class CreditLedger(wiring.Component):
    """Keeps the books of one virtual channel for a far sender that is told a limit and no single credits.

    ``limit`` is the number of flits that may ever be sent, modulo 2^n: the buffer and what was freed. Flits that the client
    neither holds nor gives back for ``leak_cycles``, a power of two, are ``leak``, one a cycle; their credits are given
    again. A credit while nothing is out, and a flit beyond the buffer, are ``violation`` and change nothing. To ``insert`` a
    flit that the far end did not send takes the first place that is free, which is lowered from the limit: ``inserted``.

    The words of the state: what is *out* has entered the client's buffer and no credit has come back for it; *room* is the
    rest of the buffer; the client is *quiet* while flits are out and it neither holds nor gets one, nor gives a credit.

    Members
    -------
    flit, credit, held : In(1), of the channel
    restart : In(1), the far sender counts from 0 again
    insert : In(1), until ``inserted``
    inserted : Out(1)
    limit : Out(spec.credit_bits)
    leak, violation : Out(1)
    """

    def __init__(self, spec: ChipletSpec, leak_cycles: int = LEAK_CYCLES):
        self.spec, self.leak_cycles = spec, leak_cycles
        outs = dict.fromkeys(("inserted", "leak", "violation"), Out(1))
        outs["limit"] = Out(spec.credit_bits, init=spec.buffer_flits)
        super().__init__({**dict.fromkeys(("flit", "credit", "held", "restart", "insert"), In(1)), **outs})

    def elaborate(self, platform):
        m = Module()
        depth = self.spec.buffer_flits
        room, quiet_cycles = Signal(range(depth + 1), init=depth), Signal(range(self.leak_cycles + 1))
        enters, leaves, grows, empty, full = Signal(), Signal(), Signal(), Signal(init=1), Signal()
        self.state = {"room": room, "quiet_cycles": quiet_cycles, "empty": empty, "full": full}
        # A flit beyond the buffer still finds a place if a credit comes in the same cycle.
        m.d.comb += [
            enters.eq(self.flit & (~full | self.credit)),
            self.leak.eq(quiet_cycles[-1] & ~self.credit & ~empty),
            leaves.eq((self.credit & (~empty | self.flit)) | self.leak),
            self.violation.eq((self.flit & ~enters) | (self.credit & ~leaves)),
            # A place that becomes free goes to what is inserted before the far end hears of it.
            self.inserted.eq(self.insert & ~self.flit & ~self.restart & (~full | leaves)),
            grows.eq(enters | self.inserted),
        ]
        # The credit and the flit come late: all outcomes are ready when it is known which one it is.
        m.d.sync += room.eq(Mux(grows == leaves, room, Mux(leaves, room + 1, room - 1)))
        # The flags are registers beside the count, as those of a Fifo.
        with m.If(grows & ~leaves):
            m.d.sync += [empty.eq(0), full.eq(room == 1)]
        with m.Elif(leaves & ~grows):
            m.d.sync += [empty.eq(room == depth - 1), full.eq(0)]
        # Of two sums Yosys would make one, which waits for the choice between 1 and -1: so this is not written as a sum.
        one_less = ~(~self.limit + 1)
        m.d.sync += self.limit.eq(Mux(leaves == self.inserted, self.limit, Mux(leaves, self.limit + 1, one_less)))
        with m.If(self.held | self.flit | self.inserted | self.credit | empty):
            m.d.sync += quiet_cycles.eq(0)
        with m.Elif(~quiet_cycles[-1]):
            m.d.sync += quiet_cycles.eq(quiet_cycles + 1)
        # Flits of before the restart keep their places: the new limit begins below the buffer by what is out.
        with m.If(self.restart):
            m.d.sync += self.limit.eq(Mux(enters == leaves, room, Mux(leaves, room + 1, room - 1)))
        return m


class RoundRobin(wiring.Component):
    """Grants one of the requests, the next in turn after the last one that was taken. Combinational.

    Members
    -------
    requests : In(count)
    grant : Out(count), one-hot or zero
    taken : In(1), the grant is used: the turn moves on
    """

    def __init__(self, count: int):
        super().__init__({"requests": In(count), "grant": Out(count), "taken": In(1)})

    def elaborate(self, platform):
        m = Module()
        above = Signal.like(self.requests)
        self.state = {"above": above}
        m.d.comb += self.grant.eq(_in_turn(self.requests, above))
        with m.If(self.taken):
            m.d.sync += above.eq(_above(self.grant))
        return m


class EarlyRoundRobin(wiring.Component):
    """Grants as RoundRobin does, but from a register: the requests are told a cycle ahead.

    Members
    -------
    requests : In(count), those of the next cycle
    grant : Out(count), one-hot or zero
    taken : In(1), the grant is used: the turn moves on
    """

    def __init__(self, count: int):
        super().__init__({"requests": In(count), "grant": Out(count), "taken": In(1)})

    def elaborate(self, platform):
        m = Module()
        above, next_above = Signal.like(self.requests), Signal.like(self.requests)
        self.state = {"above": above}
        m.d.comb += next_above.eq(Mux(self.taken, _above(self.grant), above))
        m.d.sync += [above.eq(next_above), self.grant.eq(_in_turn(self.requests, next_above))]
        return m


def _in_turn(requests, above):
    """Grants the lowest request above the last winner, or else the lowest of all. Combinational."""
    # Side by side, both choices need no rotation before and behind them.
    pending = requests & above
    return Mux(pending.any(), lowest(pending), lowest(requests))


def _above(winner):
    """Masks the places above that of the winner. Combinational."""
    return Cat(winner[:n].any() for n, _ in enumerate(winner))
