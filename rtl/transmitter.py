"""The transmitting half of a link gives each slot of the line a frame, and replays what is not acknowledged.

The words of its state machines:

* *slot*: the chance to send one frame; it is *decided* in the cycle in which the framer says ``load``
* *staged*: the flit that goes next unless a replay goes before; it has spent its credit
* *explicit*, *implicit*: a frame says its sequence, or is known by its CRC to have the one after the flit before it
* *opened*: the flit taken last from a queue was not the last of its packet; a staged flit *begins* its packet or not
* *holding*: no packet begins; those that are opened go on to their ends
* *dropping*: a packet lost its beginning with the far end's reset, so that its rest is taken and not sent
* *jump*: the next flit does not follow the one sent last, so it must say its sequence
* *NAK*: an answer that asks for what comes after the sequence it says; *progress*: an answer that freed flits
* *patience*: slots to go until another NAK for the same sequence is heeded, a round trip in all
* *trouble*: replays did not help, the line is to be trained again
"""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import ACK, EXPLICIT, NAK
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import ChannelSignature, EarlyRoundRobin, Queue, flit_layout, one_hot_mux
from lightfabric.rtl.frame import frame_layout, header_layout, peer_state_layout, state_layout
from lightfabric.rtl.line import Framer, sent_layout
from lightfabric.rtl.replay import ReplayBuffer
from lightfabric.rtl.training_set import SET_BITS

REPLAYS_TO_RETRAIN = 3
"""After so many replays without an acknowledgement the link retrains [UCIe 1.1, retry]."""


class Transmitter(wiring.Component):
    """Queues flits, numbers them, keeps them until they are acknowledged, and sends one frame per slot of the line.

    A flit waits in its queue until its virtual channel has a credit of the far end and its turn, and then as ``staged`` for
    a slot. A slot carries, in this order: the next flit of a replay; the staged one, if the replay buffer has room; link
    state alone. Frames that say their sequence alternate with frames that answer with ``local``; the first flit of a
    replay says its own. Each frame tells the limit of one virtual channel after the other.

    A replay starts at the flit after the one that an answer which wants more says, but not twice for the same one within
    a round trip; when nothing was acknowledged for ``spec.timeout_slots``; and when the line has been trained. After three
    replays without an acknowledgement ``trouble`` asks for training. Of a packet that had begun when the far end was reset
    no more is sent.

    With ``hold`` no packet begins from the second cycle on. Packets that have begun go on to their ends, a flit of a channel
    in two cycles at most, and so do replays and link state. ``drained`` follows when every packet has ended and all that was
    sent is acknowledged; a source that stops inside a packet keeps it away.

    Members
    -------
    i : In(ChannelSignature(spec))
    o : Out(sent_layout(spec))
    ready : In(1), of the Framer, 1 unless connected
    local : In(state_layout(spec))
    news : In(peer_state_layout(spec))
    sets : In(1), send training sets
    set : In(32)
    width : In(range(W + 1)), lanes that carry frames
    resume : In(1), the line has been trained; ``news`` has the far end's state in the next cycle
    flush : In(1), the far end was reset: forget what it has not acknowledged
    hold : In(1)
    drained : Out(1), from two cycles after ``hold`` rises at the earliest to two cycles after it falls at the latest
    beat : Out(1)
    trouble : Out(1)
    credits : Out(spec.credit_bits).array(spec.virtual_channels), flits that may be sent
    sent, replay, timeout : Out(1), in one cycle for each new flit, replay, and replay for want of an acknowledgement
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        events = dict.fromkeys(("beat", "trouble", "sent", "replay", "timeout", "drained"), Out(1))
        training = {"sets": In(1), "set": In(SET_BITS), "resume": In(1), "flush": In(1), "hold": In(1)}
        super().__init__(
            {
                "i": In(ChannelSignature(spec)),
                "o": Out(sent_layout(spec)),
                "ready": In(1, init=1),
                "local": In(state_layout(spec)),
                "news": In(peer_state_layout(spec)),
                "width": In(range(spec.wavelengths_per_port + 1)),
                "credits": Out(spec.credit_bits).array(spec.virtual_channels),
                **training,
                **events,
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        m.submodules.framer = framer = Framer(spec)
        domain = m.d.comb if spec.beats_per_flit == 1 else m.d.sync
        # What is heard of the far end has a register stage of its own where slots are longer than a cycle, for speed.
        self.heard = Signal.like(self.news, name="heard")
        domain += self.heard.eq(self.news)
        m.submodules.buffer = buffer = ReplayBuffer(spec)
        m.d.comb += [
            framer.ready.eq(self.ready),
            framer.sets.eq(self.sets),
            framer.set.eq(self.set),
            framer.width.eq(self.width),
            self.beat.eq(framer.beat),
            self.o.eq(framer.o),
        ]

        new, ready, framing = Signal(), Signal(), Signal()
        # With several beats ``framing`` is a register stage behind: no flit is decided in the cycle after the last set.
        domain += framing.eq(~self.sets)
        staged, staged_valid = self._stage(m, new, buffer)
        m.d.comb += [
            ready.eq(staged_valid & buffer.room & ~buffer.busy & ~buffer.rewind & framing),
            new.eq(framer.load & ready),
            buffer.take.eq(framer.load & buffer.again),
            buffer.put.eq(new),
            buffer.flit.eq(staged),
            buffer.clear.eq(self.flush),
            buffer.acknowledge.eq(self.heard.answer),
            buffer.acknowledged.eq(self.heard.sequence),
            self.sent.eq(new),
        ]
        self._replay(m, framer.load, buffer)
        self._frame(m, framer, buffer, staged, ready, framing)
        return m

    def _stage(self, m, new, buffer):
        """Takes the next flit from its queue, by turns, at the cost of a credit."""
        spec = self.spec
        m.submodules.queue = queue = Queue(spec)
        # The grant has every bit of the flits to reach, and their queues: so it is a register.
        m.submodules.turn = turn = EarlyRoundRobin(spec.virtual_channels)
        wiring.connect(m, wiring.flipped(self.i), queue.i)
        staged, vacant, stages, linked = Signal(flit_layout(spec)), Signal(), Signal(), Signal()
        valid, will_be_valid, loads, begins, flushed = Signal(), Signal(), Signal(init=1), Signal(), Signal()
        opened, dropping = Signal(spec.virtual_channels), Signal(spec.virtual_channels)
        taken, drops, will_be_linked = Signal(spec.virtual_channels), Signal(spec.virtual_channels), Signal()
        holding, empty = Signal(), Signal()
        # A cycle after the flush no flit is taken any more, so that what is staged and opened stays as it is.
        m.d.sync += flushed.eq(self.flush)
        # A drop is a register, for speed, so that whether there is another one to drop is known in every second cycle.
        m.d.sync += drops.eq(dropping & queue.valid & ~drops & (~self.flush & ~flushed).replicate(len(drops)))
        m.d.comb += [
            stages.eq(vacant & turn.grant.any()),
            will_be_valid.eq(stages | (valid & ~new & (begins | ~flushed))),
            will_be_linked.eq((linked | self.heard.answer) & ~self.flush),
            turn.taken.eq(stages),
            taken.eq(turn.grant & vacant.replicate(len(taken))),
            queue.pop.eq(taken | drops),
        ]
        # Until the far end has told its limits, those of before its reset must not let a flit through.
        m.d.sync += [valid.eq(will_be_valid), linked.eq(will_be_linked)]
        # Nothing is staged now, and nothing that is granted will be: what has not begun gets no grant while ``holding``.
        m.d.comb += empty.eq(~stages & ~valid & ~opened.any() & (buffer.count == 0) & ~buffer.busy)
        m.d.sync += [holding.eq(self.hold), self.drained.eq(holding & empty)]
        # ``loads`` has every bit of a flit to reach: where slots allow, it is known a cycle ahead.
        if spec.beats_per_flit == 1:
            m.d.comb += [vacant.eq(linked & (~valid | new)), loads.eq(vacant)]
        else:
            m.d.sync += [vacant.eq(will_be_linked & ~will_be_valid), loads.eq(~will_be_valid)]
        with m.If(loads):
            m.d.sync += staged.as_value().eq(one_hot_mux(turn.grant, queue.heads))
        with m.If(stages):
            m.d.sync += begins.eq(~(opened & turn.grant).any())
        for v in range(spec.virtual_channels):
            kept = Signal(name=f"kept_{v}")
            m.d.comb += kept.eq(valid & begins & (staged.virtual_channel == v))
            self._spend(m, v, queue, turn, taken[v], dropping[v], flushed, kept, (holding, opened[v]))
            with m.If(queue.pop[v]):
                m.d.sync += opened[v].eq(~queue.heads[v].last)
            with m.If(flushed):
                m.d.sync += dropping[v].eq(opened[v] & ~kept)
            with m.Elif(queue.pop[v] & queue.heads[v].last):
                m.d.sync += dropping[v].eq(0)
        return staged, valid

    def _spend(self, m, v, queue, turn, taken, dropping, flushed, kept, hold):
        """Requests a turn where there is a flit and a credit; both are looked at a cycle ahead.

        ``sent`` counts flits as the limit does, ``after`` is one more, the count as it is if this cycle takes a flit, and
        ``third`` is two more.
        """
        sent, after, third = (Signal(self.spec.credit_bits, name=f"count_{v}_{n}", init=n) for n in range(3))
        has_one, has_two = Signal(name=f"has_one_{v}"), Signal(name=f"has_two_{v}")
        m.d.comb += self.credits[v].eq(self.heard.limits[v] - sent)

        def below_limit(count):
            # Written as an inequality it would be made of the difference above, and come as late as its carry.
            return (count ^ self.news.limits[v]).any()

        if self.spec.beats_per_flit == 1:
            m.d.comb += [has_one.eq(below_limit(sent)), has_two.eq(below_limit(after))]
        else:  # the comparison takes the place of the register stage of what is heard
            m.d.sync += has_one.eq(Mux(taken, below_limit(after), below_limit(sent)))
            m.d.sync += has_two.eq(Mux(taken, below_limit(third), below_limit(after)))
        holding, opened = hold
        # Whether a flit that is taken ends its packet is known a cycle later: while ``holding`` the next one waits for that.
        goes_on = Mux(taken, queue.more[v] & has_two & ~holding, queue.valid[v] & has_one & (opened | ~holding))
        m.d.comb += turn.requests[v].eq(goes_on & ~dropping)
        # The far end counts from 0 again; a staged flit that is kept is the first one that it will see.
        with m.If(flushed):
            m.d.sync += [count.eq(n + kept) for n, count in enumerate((sent, after, third))]
        with m.Elif(taken):
            m.d.sync += [sent.eq(after), after.eq(third), third.eq(third + 1)]

    def _replay(self, m, load, buffer):
        """Decides when to send again what is kept.

        A NAK is registered (``nak``) and then heeded unless it is for the sequence of the last replay (``answered``) and
        patience is not over: what was sent since may be on its way. ``last_heard`` and ``after`` follow it, a stage each.
        """
        nak, nak_heeded, timed_out, resumed, starts = (Signal() for _ in range(5))
        last_heard, after, answered = (Signal(self.spec.sequence_bits) for _ in range(3))
        differs, tries = Signal(), Signal(range(REPLAYS_TO_RETRAIN + 1))
        # Slots to go, less one: they end at -1, which the sign shows without a comparison.
        patience = Signal(range(-1, self.spec.replay_flits), init=-1)
        timeout_slots = self.spec.timeout_slots
        to_timeout = Signal(range(-1, timeout_slots), init=timeout_slots - 1)
        heard = self.heard
        m.d.sync += [nak.eq(heard.answer & heard.wanting), last_heard.eq(heard.sequence), after.eq(last_heard)]
        with m.If(self.resume):
            m.d.sync += resumed.eq(1)
        with m.Elif(nak):
            m.d.sync += resumed.eq(0)
        m.d.sync += [buffer.rewind.eq(starts), self.timeout.eq(timed_out & starts)]
        m.d.comb += [
            timed_out.eq(to_timeout[-1] & ~self.sets),
            nak_heeded.eq(nak & (patience[-1] | differs | resumed)),
            starts.eq((nak_heeded | timed_out) & (buffer.count != 0) & ~buffer.rewind),
            self.replay.eq(buffer.rewind),
        ]
        with m.If(buffer.progress | buffer.rewind | (buffer.count == 0)):
            m.d.sync += to_timeout.eq(timeout_slots - 1)
        with m.Elif(load & ~timed_out):
            m.d.sync += to_timeout.eq(to_timeout - 1)
        # In the cycle of ``starts`` the register ``answered`` is still the old one: it will be ``after``.
        m.d.sync += differs.eq(Mux(starts, after != last_heard, answered != last_heard))
        with m.If(starts):
            m.d.sync += [answered.eq(after), patience.eq(self.spec.replay_flits - 1)]
        with m.Elif(load & ~patience[-1]):
            m.d.sync += patience.eq(patience - 1)
        # Tries from before a training say nothing about the line as it is after it.
        with m.If(buffer.progress | self.sets):
            m.d.sync += tries.eq(0)
        with m.Elif(buffer.rewind & (tries != REPLAYS_TO_RETRAIN)):
            m.d.sync += tries.eq(tries + 1)
        m.d.comb += self.trouble.eq(buffer.rewind & (tries == REPLAYS_TO_RETRAIN))

    def _frame(self, m, framer, buffer, staged, ready, framing):
        """Makes the frame of the next slot."""
        spec = self.spec
        own, unsent, sequence = (Signal(spec.sequence_bits) for _ in range(3))
        sends, explicit, implicit = Signal(), Signal(), Signal()
        explicit_turn, jumped, credit_channel = Signal(init=1), Signal(), Signal(range(spec.virtual_channels))
        replays = Signal()
        m.d.comb += [
            own.eq(Mux(buffer.again, buffer.sequence, buffer.upcoming)),
            replays.eq(buffer.again & framing),
            sends.eq(replays | ready),
            explicit.eq(explicit_turn | (sends & jumped)),
            implicit.eq(sends & ~explicit),
            unsent.eq(Mux(explicit_turn, buffer.newest, self.local.received)),
        ]
        with m.If(self.sets):
            m.d.sync += [explicit_turn.eq(1), credit_channel.eq(0)]
        with m.Elif(framer.load):
            m.d.sync += explicit_turn.eq(~explicit)
            m.d.sync += credit_channel.eq(Mux(credit_channel == spec.virtual_channels - 1, 0, credit_channel + 1))
        with m.If(buffer.jumps):
            m.d.sync += jumped.eq(1)
        with m.Elif(framer.load & sends):
            m.d.sync += jumped.eq(0)

        # The framer takes a frame of several beats a register stage after its slot was decided; its flit is still there.
        domain = m.d.comb if spec.beats_per_flit == 1 else m.d.sync
        header, again, is_data, is_implicit = Signal(header_layout(spec)), Signal(), Signal(), Signal()
        says, sequences = explicit_turn | jumped, (buffer.sequence, buffer.upcoming, unsent)
        wanting, codes = self.local.wanting, [Const(code, len(header.code)) for code in (EXPLICIT, NAK, ACK)]
        domain += [
            again.eq(buffer.again),
            is_data.eq(sends),
            is_implicit.eq(implicit),
            sequence.eq(own),
            header.type.eq(Cat(sends, one_hot_mux((replays, ready), (buffer.head.error, staged.error)))),
            header.code.eq(one_hot_mux((explicit, ~explicit & wanting, ~explicit & ~wanting), codes)),
            header.sequence.eq(one_hot_mux((replays & says, ready & says, ~sends | ~says), sequences)),
            header.credit_channel.eq(credit_channel),
            header.credits.eq(self.local.limits[credit_channel]),
        ]
        for name in ("last", "virtual_channel", "length_bytes", "destination", "source"):
            domain += header[name].eq(one_hot_mux((replays, ready), (buffer.head[name], staged[name])))
        payload = Mux(again, buffer.head.payload, staged.payload)
        frame = Signal(frame_layout(spec))
        m.d.comb += [
            frame.header.eq(header),
            frame.header.implicit.eq(is_implicit.replicate(len(header.implicit))),
            frame.payload.eq(payload & is_data.replicate(len(payload))),
            framer.frame.eq(frame),
            framer.implicit.eq(sequence & is_implicit.replicate(len(sequence))),
        ]
