"""Proof harnesses: a block, an environment that may do whatever is legal, and what must then always hold.

Properties do not depend on what a flit carries, so the specs are small: one payload byte, the shortest windows. The
solver picks every input of a harness anew in each cycle. Inductive proofs speak of the registers of a block; a harness
finds them by name (:func:`register`), so that the hardware has no ports for its proofs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from amaranth import Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from lightfabric.model.codec import SEQUENCE_BITS
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import Credits, Queue, RoundRobin, flit_layout
from lightfabric.rtl.link import Receiver, Transmitter, frame_layout, link_state_layout


class NarrowSpec(ChipletSpec):
    """A chiplet whose flits carry one byte, to spare the solver the others."""

    @property
    def payload_bytes(self) -> int:
        """One byte tells flits apart as well as any number."""
        return 1


SMALL = NarrowSpec(ports=1, wavelengths_per_port=8, flit_bytes=64, virtual_channels=2, buffer_flits=3, replay_flits=2)
"""Buffers of three flits, so that pointers wrap where their bits do not; the least window of replays."""


def opened(block):
    """Module of a block, elaborated once and for good: what a harness reads in it is what is proven."""
    module = block.elaborate(None)
    block.elaborate = lambda _: module
    return module


def register(module, name: str):
    """The signal of that name driven in an opened module; KeyError if there is none."""
    return {signal.name: signal for signal in module._driving}[name]


def replaced(block, assignments) -> None:
    """Takes the inside of a block away and drives its outputs by ``assignments``, the harness's abstraction of it."""
    module = Module()
    module.d.comb += assignments
    block.elaborate = lambda _: module


def in_window(value, first, length):
    """1 if ``value`` is one of the ``length`` sequence numbers from ``first`` on, modulo 2**SEQUENCE_BITS."""
    return (value - first)[:SEQUENCE_BITS] < length


def distance(first, last):
    """How many sequence numbers ``last`` is ahead of ``first``, modulo 2**SEQUENCE_BITS."""
    return (last - first)[:SEQUENCE_BITS]


class Harness(wiring.Component):
    """Blocks in an environment whose every input is the solver's choice; ``_prove`` adds both, and what must hold."""

    def elaborate(self, _platform):
        """The module to prove."""
        m = Module()
        self._prove(m)
        return m


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
        fifos, counts = opened(queue).submodules, opened(credits_)

        refund = Signal.like(credits_.refund)
        sent = (self.send & credits_.left.bit_select(self.channel, 1))[0]
        m.d.comb += [credits_.spend.bit_select(self.channel, 1).eq(sent), credits_.refund.eq(refund)]
        m.d.comb += queue.pop.eq(self.pop)
        m.d.sync += [queue.i.valid.eq(sent), queue.i.flit.virtual_channel.eq(self.channel), refund.eq(queue.i.credit)]

        for v in range(self.spec.virtual_channels):
            count, level = register(counts, f"count_{v}"), fifos[f"fifo_{v}"].level
            arrives, spent = Signal(name=f"arrives_{v}"), Signal(name=f"spent_{v}")
            m.d.comb += [
                arrives.eq(queue.i.valid & (queue.i.flit.virtual_channel == v)),
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
        fifos = opened(self.queue).submodules
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

        module = opened(fifo)
        produce, consume = register(module, "produce"), register(module, "consume")
        probe = module.submodules.storage.read_port(domain="comb")
        m.d.comb += [
            probe.addr.eq((consume + ahead) % modulo),
            Assert(fifo.level == inside, "invariant: level"),
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
        above, count = register(opened(arbiter), "above"), self.count
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


class Window:
    """The sequence registers and the replay buffer in an opened transmitter, and what must hold of them in every state."""

    def __init__(self, m, spec: ChipletSpec, inside):
        self._memory = inside.submodules.kept
        self.oldest, self.send, self.new = (register(inside, name) for name in ("oldest", "send", "new"))
        self.outstanding = distance(self.oldest, self.new)
        (read,) = self._memory.read_ports
        m.d.comb += [
            Assert(self.outstanding <= spec.replay_flits, "never more outstanding than the replay buffer holds"),
            Assert(distance(self.oldest, self.send) <= self.outstanding, "oldest, send and new are in this order"),
            Assert((self.send == self.new) | (read.data == self.kept(m, self.send)), "invariant: the buffer is read ahead"),
        ]

    def kept(self, m, sequence):
        """What the replay buffer holds at the place of a sequence number."""
        probe = self._memory.read_port(domain="comb")
        m.d.comb += probe.addr.eq(sequence)
        return probe.data


class ReplayWindow(Harness):
    """A transmitter before a line of any pace and a far end that acknowledges, frees and asks for replays at will.

    The far end acknowledges only what was numbered and frees only what was sent. An arbitrary flit is watched from
    its first sending until it is acknowledged: every replay of its sequence must carry it unchanged.

    Members
    -------
    flit, valid : In, what the client sends
    local, remote : In(link_state_layout(spec))
    load : In(1), a slot of the line
    mark : In(1), watch the flit that is sent
    """

    def __init__(self, transmitter=Transmitter, spec: ChipletSpec = SMALL):
        self.spec, self.transmitter = spec, transmitter(spec)
        state = link_state_layout(spec)
        super().__init__(
            {
                "flit": In(flit_layout(spec)),
                "valid": In(1),
                "local": In(state),
                "remote": In(state),
                "load": In(1),
                "mark": In(1),
            }
        )

    def _prove(self, m):
        m.submodules.transmitter = transmitter = self.transmitter
        inside = opened(transmitter)
        framer = inside.submodules.framer
        replaced(framer, framer.load.eq(self.load))
        m.d.comb += [
            transmitter.i.flit.eq(self.flit),
            transmitter.i.valid.eq(self.valid),
            transmitter.local.eq(self.local),
            transmitter.remote.eq(self.remote),
        ]
        window = Window(m, self.spec, inside)
        oldest, send, new, outstanding = window.oldest, window.send, window.new, window.outstanding
        ack = self.remote.expected
        m.d.comb += Assume(distance(oldest, ack) <= outstanding)
        self._credits(m, inside)

        frame = Signal(frame_layout(self.spec))
        sequence, watching, watched = Signal(SEQUENCE_BITS), Signal(), Signal(frame.shape())
        header = frame.header
        sends, replays = Signal(), Signal()
        m.d.comb += [
            frame.eq(framer.frame),
            sends.eq(self.load & header.data),
            replays.eq(sends & (send != new)),
            Assert(~sends | (header.sequence == send), "a frame has the sequence that is to be sent"),
        ]
        alive = watching & in_window(sequence, oldest, outstanding)
        again = alive & replays & (header.sequence == sequence)
        m.d.comb += [
            Assert(~again | same_flit(frame, watched), "a replay carries the flit first sent"),
            Assert(~alive | same_flit(window.kept(m, sequence), watched), "invariant: the buffer keeps the watched flit"),
            Cover(again & (outstanding == self.spec.replay_flits), "a flit is replayed in a full window"),
        ]
        with m.If(sends & ~replays & self.mark & ~watching):
            m.d.sync += [watching.eq(1), sequence.eq(send), watched.eq(frame)]
        with m.Elif(~in_window(sequence, ack, distance(ack, new))):
            m.d.sync += watching.eq(0)

    def _credits(self, m, inside):
        for v in range(self.spec.virtual_channels):
            sent, freed = register(inside, f"sent_{v}"), Signal(SEQUENCE_BITS, name=f"freed_{v}")
            m.d.sync += freed.eq(self.remote.freed[v])
            m.d.comb += [
                Assume(distance(freed, self.remote.freed[v]) <= distance(freed, sent)),
                Assert(distance(freed, sent) <= self.spec.buffer_flits, "never more in use than the far buffer holds"),
            ]


class LossyLine(Harness):
    """A transmitter and a receiver with a line between them that delays every frame at will and loses any of them.

    Frames stay in order, at most two in flight, and a frame arrives as it was sent or not at all: the CRC finds all errors.
    News of the receiver's state reach the transmitter late or never, in order. Credits come and go at will. An arbitrary
    flit is watched: if it is the k-th to be sent, the k-th to be delivered must be the same.

    Members
    -------
    flit, valid : In, what the client sends
    freed : In, the credits that the transmitter hears of
    load : In(1), a slot of the line, used if the line has room
    move : In(2), frames that go on
    lose : In(1), the frame that arrives is lost
    report, hear : In(1), the receiver's state sets out, and reaches the transmitter
    mark : In(1), watch the flit that is sent
    """

    def __init__(self, transmitter=Transmitter, receiver=Receiver, spec: ChipletSpec = SMALL):
        self.spec, self.transmitter, self.receiver = spec, transmitter(spec), receiver(spec)
        choices = dict.fromkeys(("valid", "load", "lose", "report", "hear", "mark"), In(1))
        freed = self.transmitter.remote.freed.shape()
        super().__init__({"flit": In(flit_layout(spec)), "freed": In(freed), "move": In(2), **choices})

    def _prove(self, m):
        m.submodules.transmitter, m.submodules.receiver = self.transmitter, self.receiver
        inside, deframer = opened(self.transmitter), opened(self.receiver).submodules.deframer
        framer = inside.submodules.framer
        window = Window(m, self.spec, inside)
        in_flight, *_ = flights = self._line(m, framer, deframer)
        m.d.comb += [self.transmitter.i.flit.eq(self.flit), self.transmitter.i.valid.eq(self.valid)]
        self._news(m, window)

        out, expected = self.receiver.o, self.receiver.local.expected
        taken, delivered, sent_first = Signal(SEQUENCE_BITS), Signal(SEQUENCE_BITS), Signal()
        m.d.comb += sent_first.eq(framer.load & framer.frame[:1] & (window.send == window.new))
        m.d.sync += [taken.eq(taken + sent_first), delivered.eq(delivered + out.valid)]

        watching, index, watched = Signal(), Signal(SEQUENCE_BITS), Signal.like(in_flight.frame)
        due = watching & out.valid & (delivered == index)
        with m.If(due):
            m.d.sync += watching.eq(0)
        with m.Elif(sent_first & self.mark & ~watching):
            m.d.sync += [watching.eq(1), index.eq(taken), watched.eq(framer.frame)]

        held_back = watching & in_window(index, window.oldest, window.outstanding)
        m.d.comb += [
            Assert(~out.valid | (taken != delivered), "nothing is delivered that was not sent"),
            Assert(~due | same_flit(out.flit, watched), "the k-th flit delivered is the k-th flit sent"),
            Cover(due & (self.transmitter.replays == 1), "the watched flit arrives after a replay"),
            Assert((taken == window.new) & (distance(delivered, expected) == out.valid), "invariant: counts"),
            Assert(
                ~watching | in_window(index, delivered, distance(delivered, taken)), "invariant: watched until delivered"
            ),
            Assert(~held_back | same_flit(window.kept(m, index), watched), "invariant: the buffer keeps the watched flit"),
        ]
        for flight in flights:
            is_watched = flight.data & watching & (flight.sequence == index)
            m.d.comb += Assert(~is_watched | same_flit(flight.frame, watched), "invariant: the line keeps the watched flit")
        self._sequences_in_flight(m, *flights, expected, window.new)

    def _line(self, m, framer, deframer):
        """Two frames in flight, ``near`` behind ``far``, in the place of framer, line and deframer."""
        near, far = (Flight(frame_layout(self.spec), name) for name in ("near", "far"))
        load, advances, arrives = Signal(), Signal(), Signal()
        m.d.comb += [
            arrives.eq(far.full & self.move[1]),
            advances.eq(near.full & self.move[0] & (~far.full | arrives)),
            load.eq(self.load & (~near.full | advances)),
        ]
        good, bad = arrives & ~self.lose, arrives & self.lose
        replaced(framer, framer.load.eq(load))
        replaced(deframer, [deframer.frame.eq(far.frame), deframer.good.eq(good), deframer.bad.eq(bad)])
        near.step(m, load, framer.frame, advances)
        far.step(m, advances, near.frame, arrives)
        return near, far

    def _news(self, m, window):
        """The way back of the receiver's state: as late as the solver likes, some of it lost."""
        local = self.receiver.local
        news, heard = Signal(local.shape()), Signal(local.shape())
        with m.If(self.report):
            m.d.sync += news.eq(local)
        with m.If(self.hear):
            m.d.sync += heard.eq(news)
        m.d.comb += [self.transmitter.remote.eq(heard), self.transmitter.remote.freed.eq(self.freed)]
        steps = [distance(window.oldest, x) for x in (heard.expected, news.expected, local.expected, window.new)]
        m.d.comb += Assert(Cat(a <= b for a, b in pairwise(steps)).all(), "invariant: news are late, never early")

    def _sequences_in_flight(self, m, near, far, expected, new):
        """Sequences are unique in what can be in flight at a time: no frame of an earlier round passes for a new one."""
        window = self.spec.replay_flits
        for flight in (near, far):
            recent = in_window(new, flight.sequence + 1, 2 * window)
            close = in_window(expected, flight.sequence - window, 2 * window + 1)
            m.d.comb += Assert(~flight.data | (recent & close), "invariant: frames in flight are recent")
        forward = in_window(near.sequence, far.sequence - window + 1, 4 * window)
        m.d.comb += Assert(~(near.data & far.data) | forward, "invariant: a frame steps back less than a window")


class Flight:
    """Place for one frame on the line."""

    def __init__(self, layout, name: str):
        self.frame, self.full = Signal(layout, name=name), Signal(name=f"{name}_full")
        self.sequence, self.data = self.frame.header.sequence, self.full & self.frame.header.data

    def step(self, m, enters, frame, leaves):
        """Takes ``frame`` when one ``enters``; empty after one ``leaves`` unless another enters."""
        m.d.sync += self.full.eq(enters | (self.full & ~leaves))
        with m.If(enters):
            m.d.sync += self.frame.eq(frame)


def same_flit(one, other):
    """1 if two frames or flits carry the same, link state aside."""
    return Cat(a == b for a, b in zip(_carried(one), _carried(other), strict=True)).all()


def _carried(view):
    names = ("last", "virtual_channel", "length_bytes", "destination", "source")
    holder = view.header if hasattr(view, "header") else view
    return [getattr(holder, name) for name in names] + [view.payload]


@dataclass(frozen=True)
class Proof:
    """A property of a block, by induction over ``depth`` cycles; its covers are reached within ``cover_depth``."""

    name: str
    block: str
    property: str
    harness: Callable[[], Elaboratable]
    depth: int
    cover_depth: int

    def rtlil(self) -> str:
        """The harness as RTLIL, with ``top`` as its top."""
        return rtlil.convert(self.harness(), name="top", emit_src=False)


PROOFS = (
    Proof("flit-order", "queue", "the k-th flit out of a virtual channel is the k-th in", FlitOrder, 2, 12),
    Proof("credit-loop", "credits", "credits are conserved and the queue never overflows", CreditLoop, 2, 16),
    Proof("turns", "arbiter", "one requester is granted, and nobody waits longer than a round", Turns, 2, 12),
    Proof("replay-window", "link", "the replay window keeps its bounds, its order and its flits", ReplayWindow, 2, 12),
    Proof("lossy-line", "link", "over a line that loses frames, flits arrive once, in order, unchanged", LossyLine, 2, 14),
)
BLOCKS = tuple(dict.fromkeys(proof.block for proof in PROOFS))
