"""Proof harnesses: a block, an environment that may do whatever is legal, and what must then always hold.

Properties do not depend on what a flit carries, so the specs are small: one payload byte, the shortest windows. The
solver picks every input of a harness anew in each cycle. Inductive proofs speak of the registers of a block; a harness
finds them by name (:class:`Inside`), so that the hardware has no ports for its proofs.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from amaranth import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from lightfabric.model.codec import CRC_BITS, CREDIT_BITS, HEADER_FIELDS, SEQUENCE_BITS, SEQUENCES, crc_field
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import CreditLedger, Credits, Queue, RoundRobin, flit_layout
from lightfabric.rtl.crc import implicit_sequence
from lightfabric.rtl.frame import distance, following, frame_layout
from lightfabric.rtl.receiver import Receiver
from lightfabric.rtl.register import OKAY, SLVERR, Registers
from lightfabric.rtl.register_map import REGISTERS
from lightfabric.rtl.replay import ReplayBuffer
from lightfabric.rtl.transmitter import Transmitter


class NarrowSpec(ChipletSpec):
    """A chiplet whose flits carry one byte, to spare the solver the others, and whose replay buffer is as short as is asked.

    A replay buffer that is shorter than the round trip makes a link slower and must not make it wrong.
    """

    def _require_replay_depth(self) -> None:
        pass

    @property
    def payload_bytes(self) -> int:
        """One byte tells flits apart as well as any number."""
        return 1


SMALL = NarrowSpec(ports=1, wavelengths_per_port=8, flit_bytes=64, virtual_channels=2, buffer_flits=3, replay_flits=3)
"""Buffers of three flits, so that pointers wrap where their bits do not, and the replay buffer is never full."""
SLOW = replace(SMALL, wavelengths_per_port=4, replay_flits=2)
"""Two beats to a flit: no two slots in a row; a replay buffer with every place in use."""
TIGHT = replace(SMALL, virtual_channels=1, buffer_flits=2, replay_flits=2)
"""The least with which anything can overtake, for searches from reset."""


class Inside:
    """A block, elaborated once and for good: what a harness reads in it is what is proven."""

    def __init__(self, block):
        self._variables: dict[str, Signal] = {}
        self._block, profiler = block, sys.getprofile()
        sys.setprofile(self._keep)
        try:
            module = block.elaborate(None)
        finally:
            sys.setprofile(profiler)
        self.submodules = module.submodules
        self._signals = self._variables | {signal.name: signal for signal in module._driving}
        block.elaborate = lambda _: module

    def __getitem__(self, name: str) -> Signal:
        """The signal driven by that name, or in a method's variable of that name; KeyError if there is none."""
        return self._signals[name]

    def _keep(self, frame, event: str, _value) -> None:
        if event == "return" and frame.f_locals.get("self") is self._block:
            self._variables |= {name: value for name, value in frame.f_locals.items() if isinstance(value, Signal)}


def replaced(block, assignments) -> None:
    """Takes the inside of a block away and drives its outputs by ``assignments``, the harness's abstraction of it."""
    module = Module()
    module.d.comb += assignments
    block.elaborate = lambda _: module


def counts(m, up, down, name: str, most: int):
    """How often ``up`` less how often ``down`` was 1 before this cycle, at most ``most``."""
    count = Signal(range(most + 1), name=name)
    m.d.sync += count.eq(count + up - down)
    return count


def was(m, value, name: str, init: int = 0):
    """``value`` in the cycle before; ``init`` in the first."""
    past = Signal.like(value, name=name, init=init)
    m.d.sync += past.eq(value)
    return past


def latched(m, happens, name: str):
    """1 after a cycle in which ``happens`` was."""
    happened = Signal(name=name)
    m.d.sync += happened.eq(happened | happens)
    return happened


def within(m, most: int, waits, name: str, message: str):
    """Asserts that there are never more than ``most`` cycles in a row in which somebody ``waits``."""
    waited = Signal(range(most + 2), name=f"{name}_waited")
    m.d.sync += waited.eq(Mux(waits, waited + 1, 0))
    m.d.comb += [Assert(waited <= most, message), Cover(waited == most, f"the longest wait ({name})")]


class Harness(wiring.Component):
    """Blocks in an environment whose every input is the solver's choice; ``_prove`` adds both, and what must hold."""

    def elaborate(self, _platform):
        """The module to prove."""
        m = Module()
        self._prove(m)
        return m


def flags_follow(fifo, full, depth: int):
    """Asserts that a queue's registered flags are those of its level."""
    level = fifo.level
    flags = (full == (level == depth)) & (fifo.r_rdy == (level != 0)) & (fifo.more == (level > 1))
    return Assert(flags & (level <= depth), "invariant: flags")


class CreditLoop(Harness):
    """A sender that respects its credits, a channel of one cycle each way, a queue that is popped at will.

    Members
    -------
    send, channel : In, the sender's wish: a flit of that virtual channel
    pop : In(spec.virtual_channels)
    """

    def __init__(self, queue=Queue, credit_count=Credits, spec: ChipletSpec = SMALL):
        self.spec, self.queue, self.credits = spec, queue(spec), credit_count(spec)
        channels = spec.virtual_channels
        super().__init__({"send": In(1), "channel": In(range(channels)), "pop": In(channels)})

    def _prove(self, m):
        queue, credits_, depth = self.queue, self.credits, self.spec.buffer_flits
        m.submodules.queue, m.submodules.credits = queue, credits_
        fifos, counts = Inside(queue).submodules, Inside(credits_)

        refund = Signal.like(credits_.refund)
        sent = (self.send & credits_.left.bit_select(self.channel, 1))[0]
        m.d.comb += [credits_.spend.bit_select(self.channel, 1).eq(sent), credits_.refund.eq(refund)]
        m.d.comb += queue.pop.eq(self.pop)
        m.d.sync += [queue.i.valid.eq(sent), queue.i.flit.virtual_channel.eq(self.channel), refund.eq(queue.i.credit)]

        for v in range(self.spec.virtual_channels):
            count, level = counts[f"count_{v}"], fifos[f"fifo_{v}"].level
            arrives, spent = Signal(name=f"arrives_{v}"), Signal(name=f"spent_{v}")
            m.d.comb += [
                arrives.eq(queue.i.valid & (queue.i.flit.virtual_channel == v)),
                flags_follow(fifos[f"fifo_{v}"], Inside(fifos[f"fifo_{v}"])["full"], depth),
                Assert(count + arrives + level + refund[v] == depth, "credits are conserved"),
                Assert(count <= depth, "credits never exceed the buffer"),
                Assert(~(arrives & (level == depth)), "the queue never overflows"),
            ]
            with m.If(count == 0):
                m.d.sync += spent.eq(1)
            m.d.comb += Cover(spent & (count == depth), "all credits were spent and came back")


class FlitOrder(Harness):
    """A queue filled and popped at will, with an arbitrary flit of each virtual channel watched on its way.

    The watched flit must be at the head when as many flits have left as were before it, and the queue must offer a head
    exactly when more flits went in than came out: the k-th flit out is the k-th flit in.

    Members
    -------
    flit, valid : In, what arrives
    pop : In(spec.virtual_channels)
    mark : In(1), watch the flit that arrives
    """

    def __init__(self, queue=Queue, spec: ChipletSpec = SMALL):
        self.spec, self.queue = spec, queue(spec)
        super().__init__({"flit": In(flit_layout(spec)), "valid": In(1), "pop": In(spec.virtual_channels), "mark": In(1)})

    def _prove(self, m):
        m.submodules.queue = self.queue
        fifos = Inside(self.queue).submodules
        m.d.comb += [self.queue.i.flit.eq(self.flit), self.queue.i.valid.eq(self.valid), self.queue.pop.eq(self.pop)]
        for v in range(self.spec.virtual_channels):
            self._watch(m, v, fifos[f"fifo_{v}"])

    def _watch(self, m, v: int, fifo):
        depth, modulo = self.spec.buffer_flits, self.spec.buffer_flits
        inside, ahead = Signal(range(depth + 1), name=f"inside_{v}"), Signal(range(depth), name=f"ahead_{v}")
        watching, watched = Signal(name=f"watching_{v}"), Signal(self.flit.shape(), name=f"watched_{v}")
        enters, leaves = Signal(name=f"enters_{v}"), Signal(name=f"leaves_{v}")
        head = self.queue.heads[v]
        m.d.comb += [
            enters.eq(self.valid & (self.flit.virtual_channel == v) & (inside != depth)),
            leaves.eq(self.pop[v] & (inside != 0)),
            Assert(self.queue.valid[v] == (inside != 0), "a head is offered while a flit is inside"),
            Assert(~(watching & (ahead == 0)) | (head == watched), "the k-th flit out is the k-th flit in"),
            Cover(watching & leaves & (ahead == 0) & (inside == depth), "the watched flit leaves a full queue"),
        ]
        m.d.sync += inside.eq(inside + enters - leaves)
        with m.If(watching & leaves):
            m.d.sync += [watching.eq(ahead != 0), ahead.eq(Mux(ahead == 0, 0, ahead - 1))]
        with m.Elif(~watching & self.mark & enters):
            m.d.sync += [watching.eq(1), ahead.eq(inside - leaves), watched.eq(self.flit)]

        module = Inside(fifo)
        produce, consume = module["produce"], module["consume"]
        probe = module.submodules.storage.read_port(domain="comb")
        m.d.comb += [
            probe.addr.eq((consume + ahead) % modulo),
            Assert(fifo.level == inside, "invariant: level"),
            flags_follow(fifo, module["full"], depth),
            Assert((inside <= depth) & (consume < depth) & (produce == (consume + inside) % modulo), "invariant: pointers"),
            Assert(~watching | ((ahead < inside) & (probe.data == Value.cast(watched))), "invariant: watched flit"),
        ]


class Turns(Harness):
    """Requesters that come and go, and a user that takes the grant or not.

    Members
    -------
    requests : In(count)
    taken : In(1), where there is a grant to take
    """

    def __init__(self, arbiter=RoundRobin, count: int = 4):
        self.arbiter, self.count = arbiter(count), count
        super().__init__({"requests": In(count), "taken": In(1)})

    def _prove(self, m):
        m.submodules.arbiter = arbiter = self.arbiter
        above, count = Inside(arbiter)["above"], self.count
        grant, everyone = arbiter.grant, (1 << self.count) - 1
        m.d.comb += [
            arbiter.requests.eq(self.requests),
            arbiter.taken.eq(self.taken & self.requests.any()),
            Assert((grant & (grant - 1)) == 0, "at most one is granted"),
            Assert((grant & ~self.requests) == 0, "only who requests is granted"),
            Assert(grant.any() == self.requests.any(), "somebody is granted if somebody requests"),
        ]
        last = [above == everyone & ~((2 << p) - 1) for p in range(count)]
        m.d.comb += Assert(Cat(last).any(), "invariant: a turn")
        for i in range(count):
            waits = Signal(range(count + 1), name=f"waits_{i}")
            with m.If(~self.requests[i] | (arbiter.taken & grant[i])):
                m.d.sync += waits.eq(0)
            with m.Elif(arbiter.taken):
                m.d.sync += waits.eq(waits + 1)
            m.d.comb += Assert(waits < count, f"nobody waits for {count} grants")
            for p in range(count):
                between = (i - p - 1) % count
                m.d.comb += Assert(~last[p] | (waits + between < count), "invariant: who is next")
            m.d.comb += Cover((waits == count - 1) & grant[i], "the last in turn is granted")


class Ledger(Harness):
    """The books of a virtual channel between a far sender that keeps its limit and a client that keeps the rules.

    The sender hears of the limit late. The client holds flits and gives a credit for each, or loses one without. After a
    restart the sender counts from 0 again and may send nothing until it hears of a limit. Leaks are found after a few cycles
    of silence instead of many, which spares the solver the others.

    Members
    -------
    send : In(1), the sender's wish
    hear : In(1), the sender hears of the limit
    give, lose : In(1), the client's wish
    restart : In(1)
    """

    LEAK_CYCLES = 4

    def __init__(self, ledger=CreditLedger, spec: ChipletSpec = SMALL):
        self.spec, self.ledger = spec, ledger(spec, self.LEAK_CYCLES)
        super().__init__(dict.fromkeys(("send", "hear", "give", "lose", "restart"), In(1)))

    def _prove(self, m):
        m.submodules.ledger = ledger = self.ledger
        self.inside, depth = Inside(ledger), self.spec.buffer_flits
        out, quiet = self.inside["out"], self.inside["quiet_cycles"]
        entered, heard = Signal(CREDIT_BITS), Signal(CREDIT_BITS)
        gives, loses = Signal(), Signal()
        held = counts(m, ledger.flit, gives + loses, "held", depth)
        lost = counts(m, loses, ledger.leak, "lost", depth)
        m.d.comb += [
            ledger.flit.eq(self.send & (entered != heard)),
            gives.eq(self.give & (held != 0)),
            loses.eq(self.lose & ~gives & (held != 0)),
            ledger.credit.eq(gives),
            ledger.held.eq(held != 0),
            ledger.restart.eq(self.restart),
        ]
        m.d.sync += entered.eq(Mux(self.restart, 0, entered + ledger.flit))
        with m.If(self.restart):
            m.d.sync += heard.eq(0)
        with m.Elif(self.hear):
            m.d.sync += heard.eq(ledger.limit)
        may_enter, knows = (limit - entered for limit in (ledger.limit, heard))
        was_full, was_lost = latched(m, held == depth, "was_full"), latched(m, lost == depth, "was_lost")
        m.d.comb += [
            Assert(may_enter[:CREDIT_BITS] == depth - held - lost, "the limit is the buffer and what was freed"),
            Assert(out == held + lost, "what is out is what entered and did not leave"),
            Assert(held + lost <= depth, "the buffer never overflows"),
            Assert(~ledger.violation, "who keeps the rules is never reported"),
            Assert(~ledger.leak | (lost != 0), "only what is missing is given again"),
            Assert((quiet == 0) | (held == 0), "invariant: quiet while nothing is held"),
            Assert(knows[:CREDIT_BITS] <= may_enter[:CREDIT_BITS], "invariant: limits are late, never early"),
            Assert(quiet <= self.LEAK_CYCLES, "invariant: quiet cycles"),
            Cover(was_full & (held == 0) & (lost == 0) & (entered == depth + 1), "a full buffer is emptied and used again"),
            Cover(was_lost & (lost == 0), "all credits were lost and are given again"),
        ]
        self._soon(m, lost, held)

    def _soon(self, m, lost, held):
        """What is missing is given again within so many cycles after the client has become quiet."""
        quiet, ledger = Signal(range(self.LEAK_CYCLES + 3)), self.ledger
        with m.If(ledger.flit | (held != 0) | (lost == 0) | ledger.leak):
            m.d.sync += quiet.eq(0)
        with m.Else():
            m.d.sync += quiet.eq(quiet + 1)
        known = self.inside["quiet_cycles"]
        m.d.comb += [
            Assert(quiet <= self.LEAK_CYCLES, "what is missing is given again soon"),
            Assert((quiet <= known) | (known == self.LEAK_CYCLES), "invariant: quiet cycles are counted"),
        ]


class ReplayWindow(Harness):
    """A replay buffer that is filled, acknowledged, rewound, read and cleared at will, as far as its contract allows.

    A reference keeps the sequence last freed and the number of flits kept by what the contract says. An arbitrary flit is
    watched from its ``put`` until it is freed: every replay of its sequence must carry it unchanged, and the sequences of a
    replay must follow one another from the one after the last freed to the newest.

    Members
    -------
    flit : In(flit_layout(spec))
    put, acknowledge, rewind, take, clear : In(1), wishes
    acknowledged : In(8)
    mark : In(1), watch the flit that is put
    """

    def __init__(self, buffer=ReplayBuffer, spec: ChipletSpec = SMALL):
        self.spec, self.buffer = spec, buffer(spec)
        wishes = dict.fromkeys(("put", "acknowledge", "rewind", "take", "clear", "mark"), In(1))
        super().__init__({**wishes, "flit": In(flit_layout(spec)), "acknowledged": In(SEQUENCE_BITS)})

    def _prove(self, m):
        m.submodules.buffer = buffer = self.buffer
        self.inside = Inside(buffer)
        after_take, after_clear = was(m, buffer.take, "after_take"), was(m, buffer.clear, "after_clear", init=1)
        self.ready = Signal()  # the head has been read
        slow = self.spec.beats_per_flit > 1
        m.d.comb += [
            self.ready.eq(buffer.again & (~after_take if slow else 1)),
            buffer.flit.eq(self.flit),
            buffer.clear.eq(self.clear),
            buffer.rewind.eq(self.rewind & ~self.clear),
            buffer.put.eq(self.put & buffer.room & ~buffer.busy & ~buffer.rewind & ~self.clear),
            buffer.take.eq(self.take & self.ready),
            buffer.acknowledge.eq(self.acknowledge & ~after_clear),
            buffer.acknowledged.eq(self.acknowledged),
            Assume(self.acknowledged < SEQUENCES),
        ]
        self._reference(m, after_clear)
        self._watch(m)
        self._invariants(m)
        self._jumps(m)

    def _reference(self, m, after_clear):
        """What is kept by the contract, and that the buffer says so."""
        buffer, most = self.buffer, self.spec.replay_flits
        freed, kept = Signal(SEQUENCE_BITS, init=SEQUENCES - 1), Signal(range(most + 1))
        frees, heeded = Signal(), Signal()
        answer = was(m, self.acknowledged, "answer")
        ahead, ahead_before = distance(freed, answer), was(m, distance(freed, self.acknowledged), "ahead_before")
        m.d.comb += frees.eq(buffer.acknowledge & (ahead <= kept) & ~heeded)
        m.d.sync += [kept.eq(kept - Mux(frees, ahead, 0) + buffer.put), heeded.eq(frees)]
        with m.If(frees):
            m.d.sync += freed.eq(answer)
        with m.If(buffer.clear):
            m.d.sync += [kept.eq(0), freed.eq(SEQUENCES - 1)]
        m.d.comb += [
            Assert(buffer.count == kept, "an answer frees its flit and all before it, or nothing"),
            Assert(kept <= most, "never more than the replay buffer holds"),
            Assert(~buffer.room | (kept < most), "room is room"),
            Assert(distance(freed, buffer.newest) == kept, "the newest flit is the last one put"),
            Assert(buffer.upcoming == following(buffer.newest), "sequences follow one another"),
            Assert(after_clear | (self.inside["ahead"] == ahead_before), "invariant: how far an answer is ahead"),
            Assert(self.inside["acknowledged"] == answer, "invariant: the answer"),
            Assert(self.inside["stale"] == heeded, "invariant: an answer in the cycle after one that is heeded is not"),
            Assert(
                (freed < SEQUENCES) & (buffer.newest < SEQUENCES) & (buffer.sequence < SEQUENCES), "invariant: sequences"
            ),
            Cover(frees & (ahead == most), "all of a full buffer are acknowledged at once"),
        ]
        self.freed, self.kept = freed, kept

    def _watch(self, m):
        buffer = self.buffer
        watching, watched, sequence = Signal(), Signal(flit_layout(self.spec)), Signal(SEQUENCE_BITS)
        back = distance(sequence, buffer.newest)
        with m.If(buffer.clear):
            m.d.sync += watching.eq(0)
        with m.Elif(watching):
            m.d.sync += watching.eq((back < self.kept) | buffer.busy)
        with m.Elif(self.mark & buffer.put):
            m.d.sync += [watching.eq(1), watched.eq(self.flit), sequence.eq(buffer.upcoming)]
        shown = self.ready & watching & (buffer.sequence == sequence)
        again = latched(m, shown & buffer.take, "again")
        memory, end = self.inside.submodules.kept, self.inside["end"]
        probe = memory.read_port(domain="comb")
        m.d.comb += [
            probe.addr.eq(end - back - 1),
            Assert(~shown | (buffer.head == watched), "a replay carries the flit first sent"),
            Assert(~watching | (probe.data == watched), "invariant: the buffer keeps the watched flit"),
            Assert(~watching | (back < self.spec.replay_flits), "invariant: watched while it is kept"),
            Cover(shown & buffer.take & again, "a flit is replayed twice"),
        ]

    def _invariants(self, m):
        """Which flits a replay shows, and what the registers have to do with it."""
        buffer, inside, most = self.buffer, self.inside, self.spec.replay_flits
        first, end, place, oldest = (inside[name] for name in ("first", "end", "place", "oldest"))
        to_send, behind = inside["to_send"], inside["behind"]
        memory = inside.submodules.kept
        read, probe = memory.read_ports[0], memory.read_port(domain="comb")
        left = distance(buffer.sequence, buffer.newest) + 1
        took, next_in_turn, rewound = Signal(), Signal(SEQUENCE_BITS), was(m, buffer.rewind, "rewound")
        with m.If(self.ready | rewound):
            m.d.sync += [took.eq(buffer.take), next_in_turn.eq(following(buffer.sequence))]
        with m.If(buffer.rewind | behind | self.clear):
            m.d.sync += took.eq(0)
        freed_before = was(m, self.freed, "freed_before")
        freed_now = freed_before != self.freed
        m.d.comb += [
            probe.addr.eq(place),
            Assert(~self.ready | (left <= self.kept) | freed_now, "what was acknowledged is not sent again"),
            Assert(~(self.ready & took) | (buffer.sequence == next_in_turn), "a replay goes on with the next"),
            Assert(
                ~rewound | (~buffer.again & (buffer.sequence == following(freed_before))), "it begins after the last freed"
            ),
            Assert(
                ~rewound | (buffer.busy == was(m, self.kept != 0, "kept_any")), "a replay is busy from the next cycle on"
            ),
            Assert(~buffer.busy | (left == to_send), "invariant: sequence of the head"),
            Assert(~buffer.busy | (place == (end - to_send)[: len(place)]), "invariant: place of the head"),
            Assert((to_send <= most) & (buffer.busy == (to_send != 0)), "invariant: to send"),
            Assert(~buffer.busy | (to_send <= self.kept) | behind | freed_now, "invariant: behind"),
            Assert((oldest == self.freed) & (end == (first + self.kept)[: len(end)]), "invariant: pointers"),
            Assert(~self.ready | (read.data == probe.data), "invariant: read ahead"),
            Cover(buffer.take & took & (self.kept == most) & (to_send == 1), "all that is kept is sent again"),
        ]

    def _jumps(self, m):
        """Where the next flit sent, new or again, does not follow the one sent last."""
        buffer, last, jumped = self.buffer, Signal(SEQUENCE_BITS, init=SEQUENCES - 1), Signal()
        coming = Mux(buffer.busy, buffer.sequence, buffer.upcoming)
        with m.If(buffer.take | buffer.put):
            m.d.sync += [last.eq(coming), jumped.eq(0)]
        with m.If(buffer.jumps | buffer.clear):
            m.d.sync += jumped.eq(1)
        m.d.comb += Assert(jumped | (coming == following(last)), "a flit follows the one sent last unless a jump is shown")


NOISE = ("type", "code", "sequence")
"""What a receiver looks at in the header of a wrong frame."""


class LossyLine(Harness):
    """A transmitter and a receiver with a line between them that does to each frame what it likes.

    A frame waits on the line as long as the line likes. Then it arrives as it was sent, or as noise with a wrong CRC, or
    not at all; and it stays to arrive again, or leaves. The CRC finds all errors. The way back tells of the receiver's
    state as late and as often as it likes, or never. The client beyond gives credits for the flits that it holds at will.
    A flit carries the number of the flits before it in its virtual channel, so that each is known when it is delivered.

    Members
    -------
    valid, channel : In, the client's wish to send a flit of that virtual channel
    load : In(1), a slot of the line, used if the line has room
    arrive, stay : In(1), something of the frame on the line arrives; it goes on being there
    right, lost : In(1), as it was sent; nothing at all
    noise : In, what matters in the header of a frame with a wrong CRC
    report, hear : In(1), the receiver's state sets out, and reaches the transmitter
    give : In(spec.virtual_channels), the far client's wish to give a credit
    """

    MOST_FLITS = 15
    CHOICES = ("valid", "load", "arrive", "stay", "right", "lost", "report", "hear")

    def __init__(self, transmitter=Transmitter, receiver=Receiver, spec: ChipletSpec = TIGHT):
        self.spec, self.transmitter, self.receiver = spec, transmitter(spec), receiver(spec)
        choices = dict.fromkeys(self.CHOICES, In(1))
        channels, noise = spec.virtual_channels, data.StructLayout({name: HEADER_FIELDS[name] for name in NOISE})
        super().__init__({"channel": In(range(max(2, channels))), "noise": In(noise), "give": In(channels), **choices})

    def _prove(self, m):
        m.submodules.transmitter, m.submodules.receiver = self.transmitter, self.receiver
        inside, checks = Inside(self.transmitter).submodules, Inside(self.receiver).submodules
        self._line(m, inside.framer, checks.deframer, inside.buffer.take)
        self._way_back(m)
        self._clients(m)
        corrupted, dropped = latched(m, self.receiver.bad, "corrupted"), latched(m, self.is_dropped, "dropped")
        arrives_again = self.receiver.o.valid & was(m, self.is_again, "arrived_again")
        m.d.comb += [
            Assert(self.receiver.violations == 0, "no flit comes without a credit"),
            Cover(arrives_again & (corrupted | dropped), "a flit arrives in a replay, after a wrong or a lost frame"),
        ]

    def _line(self, m, framer, deframer, again):
        """One frame on the line, in the place of framer, line and deframer."""
        frame, implicit, full = Signal(frame_layout(self.spec)), Signal(SEQUENCE_BITS), Signal()
        arrives, leaves = Signal(), Signal()
        self.is_dropped, self.is_again = Signal(), Signal()  # of the frame on the line: it is lost, it is of a replay
        wrong = Signal(frame_layout(self.spec))
        m.d.comb += [
            arrives.eq(full & self.arrive),
            leaves.eq(arrives & ~self.stay),
            self.is_dropped.eq(leaves & self.lost),
            [wrong.header[name].eq(self.noise[name]) for name in NOISE],
        ]
        error = Mux(self.right, implicit_sequence(self.spec, implicit), no_sequence(self.spec))
        shown = Mux(self.right, frame.as_value(), wrong.as_value())
        replaced(framer, framer.load.eq(self.load & (~full | leaves)))
        replaced(deframer, [deframer.frame.eq(shown), deframer.error.eq(error), deframer.valid.eq(arrives & ~self.lost)])
        m.d.comb += self.receiver.frames.eq(1)
        m.d.sync += full.eq(framer.load | (full & ~leaves))
        with m.If(framer.load):
            m.d.sync += [frame.eq(framer.frame), implicit.eq(framer.implicit), self.is_again.eq(again)]

    def _way_back(self, m):
        """The receiver's state as it once was; the limits come with it."""
        local, news = self.receiver.local, self.transmitter.news
        told = Signal(local.shape(), init={"received": SEQUENCES - 1})
        with m.If(self.report):
            m.d.sync += told.eq(local)
        m.d.comb += news.sequence.eq(told.received)
        m.d.sync += [news.answer.eq(self.hear), news.wanting.eq(told.wanting)]
        with m.If(self.hear):
            m.d.sync += [limit.eq(known) for limit, known in zip(news.limits, told.limits, strict=True)]

    def _clients(self, m):
        """Who sends numbered flits as far as the queues have room, and who holds them and gives credits."""
        source, sink, depth = self.transmitter.i, self.receiver.o, self.spec.buffer_flits
        self.waiting = Signal()
        waiting = []
        for v in range(self.spec.virtual_channels):
            enters = Signal(name=f"enters_{v}")
            taken = sink.valid & (sink.flit.virtual_channel == v)
            sent = counts(m, enters, 0, f"sent_{v}", self.MOST_FLITS)
            delivered = counts(m, taken, 0, f"delivered_{v}", self.MOST_FLITS)
            queued = counts(m, enters, source.credit[v], f"queued_{v}", depth)
            held = counts(m, taken, sink.credit[v], f"held_{v}", depth)
            waiting.append(sent != delivered)
            m.d.comb += [
                enters.eq(self.valid & (self.channel == v) & (queued != depth)),
                sink.held[v].eq(held != 0),
                sink.credit[v].eq(self.give[v] & (held != 0)),
                Assert(~taken | (sent != delivered), "nothing is delivered that was not sent"),
                Assert(
                    ~taken | (sink.flit.as_value() == self._numbered(v, delivered)), "flits are delivered once and in order"
                ),
                Assert(~taken | (held != depth), "the far buffer never overflows"),
            ]
            with m.If(enters):
                m.d.comb += [source.valid.eq(1), source.flit.as_value().eq(self._numbered(v, sent))]
        m.d.comb += self.waiting.eq(Cat(waiting).any())

    def _numbered(self, v: int, number):
        """The flit with so many before it in virtual channel ``v``; every field changes with the number."""
        flit = Signal(flit_layout(self.spec))
        values = {"last": number[0], "virtual_channel": v, "payload": number, "length_bytes": ~number}
        values |= {"destination": Cat(number, v), "source": ~Cat(number, v)}
        parts = []
        for name, field in flit.shape():
            value = Value.cast(values[name])
            parts.append(
                value[: field.width] if len(value) >= field.width else Cat(value, Const(0, field.width - len(value)))
            )
        return Cat(parts)


class Calm(LossyLine):
    """A line that loses and spoils frames for some cycles and then becomes calm and stays so.

    There is a slot in each cycle, whose frame arrives in the next, and news of the receiver's state as it was. When the line
    is calm each frame arrives as it was sent, every other cycle brings news, the far client gives back each credit at once,
    and the sender's client is quiet, so that no flit behind a lost one shows that it is missing.

    Members
    -------
    calm : In(1), where it begins
    """

    WITHIN_CYCLES = 14
    CHOICES = (*LossyLine.CHOICES, "calm")

    def _prove(self, m):
        super()._prove(m)
        calm, answers, was_wrong = Signal(), Signal(), latched(m, self.receiver.bad, "was_wrong")
        m.d.comb += calm.eq(latched(m, self.calm, "was_calm"))
        m.d.sync += answers.eq(~answers)
        m.d.comb += [
            Assume(self.load & self.arrive & self.report & ~self.stay),
            Assume(~calm | (self.right & ~self.lost & self.give.all() & ~self.valid & (self.hear == answers))),
        ]
        waited = Signal(range(self.WITHIN_CYCLES + 2))
        m.d.sync += waited.eq(Mux(calm & self.waiting & ~self.receiver.o.valid, waited + 1, 0))
        m.d.comb += [
            Assert(waited <= self.WITHIN_CYCLES, "a waiting flit is delivered soon"),
            Cover(was_wrong & (waited > self.WITHIN_CYCLES // 2) & self.receiver.o.valid, "a wrong frame makes a flit wait"),
        ]


def no_sequence(spec: ChipletSpec) -> int:
    """An error of a CRC field that no sequence makes."""
    nothing = crc_field(spec, bytes(spec.flit_bytes - spec.CRC_BYTES))
    body = bytes(spec.flit_bytes - spec.CRC_BYTES)
    made = {crc_field(spec, body, sequence) ^ nothing for sequence in range(1 << SEQUENCE_BITS)}
    return next(error for error in range(1 << CRC_BITS) if error not in made)


class Accesses(Harness):
    """The registers of a link before a master that sends what it likes, when it likes, and keeps the rules of the bus.

    The books of the bus: a write is open from the cycle after its address, or its data, was taken until its answer was, a
    read from the cycle after its address was taken. A master lets an access go on in the cycles in which it takes an answer,
    and, while an address waits for data or data for an address, in those in which it offers what is missing.

    Members
    -------
    bus : In(AxiLiteSignature()), what the master sends
    inputs : In(input_layout(table))
    """

    def __init__(self, registers=Registers, table=REGISTERS):
        self.registers = registers(table)
        choices = ("awvalid", "awaddr", "wvalid", "wdata", "wstrb", "bready", "arvalid", "araddr", "rready")
        members = {name: In(getattr(self.registers.bus, name).shape()) for name in choices}
        super().__init__({**members, "inputs": In(self.registers.inputs.shape())})
        self.choices, self.table = choices, table

    def _prove(self, m):
        m.submodules.registers = self.registers
        self.inside, bus = Inside(self.registers), self.registers.bus
        m.d.comb += self.registers.inputs.eq(self.inputs)
        m.d.comb += [getattr(bus, name).eq(getattr(self, name)) for name in self.choices]
        self._keeps_rules(m, bus, "aw", ("awaddr",), Assume)
        self._keeps_rules(m, bus, "w", ("wdata", "wstrb"), Assume)
        self._keeps_rules(m, bus, "ar", ("araddr",), Assume)
        self._keeps_rules(m, bus, "b", ("bresp",), Assert)
        self._keeps_rules(m, bus, "r", ("rresp", "rdata"), Assert)
        self._write(m, bus)
        self._read(m, bus)

    def _keeps_rules(self, m, bus, channel: str, names, claim):
        """What is offered stays until it is taken."""
        valid, ready = getattr(bus, f"{channel}valid"), getattr(bus, f"{channel}ready")
        waits = was(m, valid & ~ready, f"{channel}_waits")
        same = [was(m, getattr(bus, name), f"{name}_before") == getattr(bus, name) for name in names]
        m.d.comb += claim(~waits | (valid & Cat(same).all()), f"what is offered stays until it is taken ({channel})")

    def _write(self, m, bus):
        address_held, data_held = self.inside["address_held"], self.inside["data_held"]
        answered = bus.bvalid & bus.bready
        addresses = counts(m, bus.awvalid & bus.awready, answered, "addresses", 3)
        words = counts(m, bus.wvalid & bus.wready, answered, "words", 3)
        may_go_on = (bus.bready | ~bus.bvalid) & (bus.awvalid | address_held) & (bus.wvalid | data_held)
        within(m, 2, may_go_on & ~answered, "write", "a write is answered in the second cycle that the master lets it go on")
        mapped, taken = self._oldest_address(m, bus, answered)
        m.d.comb += [
            Assert((addresses == address_held + bus.bvalid) & (words == data_held + bus.bvalid), "one answer per write"),
            Assert(~bus.bvalid | ((addresses != 0) & (words != 0)), "no answer without an address and its data"),
            Assert(~bus.bvalid | (bus.bresp == Mux(mapped, OKAY, SLVERR)), "a write past the table is an error, no other"),
            Cover(answered & ~mapped & (addresses == 2) & (words == 2), "a write past the table, with the next behind it"),
            Cover(answered & mapped & taken, "a write after another one"),
        ]

    def _oldest_address(self, m, bus, answered):
        """Whether the oldest open write is to a register; and whether another was answered before."""
        held, current = Signal(name="held_mapped"), Signal(name="current_mapped")
        is_mapped = bus.awaddr[2:] < len(self.table)
        waiting, commit = self.inside["write_address"], self.inside["commit"]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += held.eq(is_mapped)
        with m.If(commit):
            m.d.sync += current.eq(held)
        held_now = self.inside["address_held"]
        m.d.comb += Assert(~held_now | (held == (waiting < len(self.table))), "invariant: address of the write")
        return current, latched(m, answered, "answered_before")

    def _read(self, m, bus):
        reading, grouped = self.inside["reading"], self.inside["grouped"]
        answered, taken = bus.rvalid & bus.rready, bus.arvalid & bus.arready
        reads = counts(m, taken, answered, "reads", 1)
        address = Signal.like(bus.araddr)
        with m.If(taken):
            m.d.sync += address.eq(bus.araddr)
        number, mapped = address[2:], address[2:] < len(self.table)
        read_address, read_mapped = self.inside["read_address"], self.inside["read_mapped"]
        is_first = bus.rvalid & (number == 0)
        may_go_on = (bus.arvalid | (reads != 0)) & (bus.rready | ~bus.rvalid)
        within(m, 3, may_go_on & ~answered, "read", "a read is answered in the third cycle that the master lets it go on")
        m.d.comb += [
            Assert(reads == reading + grouped + bus.rvalid, "one answer per read, one read at a time"),
            Assert(~bus.rvalid | (bus.rresp == Mux(mapped, OKAY, SLVERR)), "a read past the table is an error, no other"),
            Assert(~bus.rvalid | mapped | (bus.rdata == 0), "a read past the table shows nothing"),
            Assert(~is_first | (bus.rdata == self.table[0].reset), "the first register is what the link is"),
            Assert((reads == 0) | (read_address == number), "invariant: address of the read"),
            Assert(~grouped | (read_mapped == mapped), "invariant: the read is of a register"),
            Cover(answered & mapped & (bus.rdata != self.table[0].reset), "a register is read"),
            Cover(answered & ~mapped, "a read past the table is answered"),
        ]


@dataclass(frozen=True)
class Proof:
    """A property of a block; its covers are reached within ``cover_depth`` cycles from reset.

    It is proven by induction over ``depth`` cycles, or, if it is ``bounded``, searched for an exception in all ``depth``
    cycles from reset: then it says nothing about later ones.
    """

    name: str
    block: str
    property: str
    harness: Callable[[], Elaboratable]
    depth: int
    cover_depth: int
    bounded: bool = False

    def method(self) -> str:
        """What kind of proof it is, and how deep."""
        return f"bounded, {self.depth} cycles from reset" if self.bounded else f"k-induction, depth {self.depth}"

    def rtlil(self) -> str:
        """The harness as RTLIL, with ``top`` as its top."""
        return rtlil.convert(self.harness(), name="top", emit_src=False)


PROOFS = (
    Proof("flit-order", "queue", "the k-th flit out of a virtual channel is the k-th in", FlitOrder, 2, 12),
    Proof("credit-loop", "credits", "credits are conserved and the queue never overflows", CreditLoop, 2, 16),
    Proof("credits", "credits", "limits are the buffer and what was freed; leaks are what is missing", Ledger, 2, 18),
    Proof("turns", "arbiter", "one requester is granted, and nobody waits longer than a round", Turns, 2, 12),
    Proof("replay-window", "link", "a replay is what was put and not freed, in order and unchanged", ReplayWindow, 2, 14),
    Proof(
        "replay-window-slow", "link", "the same where a flit is more than a beat", partial(ReplayWindow, spec=SLOW), 2, 20
    ),
    Proof(
        "lossy-line",
        "link",
        "flits arrive once, in order, unchanged, whatever the line does",
        LossyLine,
        17,
        20,
        bounded=True,
    ),
    Proof(
        "calm-line",
        "link",
        f"credits and replay never block each other: on a line without errors a flit comes in {Calm.WITHIN_CYCLES} cycles",
        Calm,
        22,
        20,
        bounded=True,
    ),
    Proof("registers", "registers", "every access is answered, once and soon", Accesses, 5, 12),
)
BLOCKS = tuple(dict.fromkeys(proof.block for proof in PROOFS))
