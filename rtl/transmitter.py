"""The transmitting half of a link: it gives each slot of the line a frame, and replays what is not acknowledged."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import ACK, CREDIT_BITS, DATA, EXPLICIT, NAK, SEQUENCE_BITS
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import ChannelSignature, Queue, RoundRobin, flit_layout, one_hot_mux
from lightfabric.rtl.frame import HEADER, frame_layout, news_layout, state_layout
from lightfabric.rtl.line import Framer, LineSignature
from lightfabric.rtl.replay import ReplayBuffer
from lightfabric.rtl.training_set import SET_BITS

REPLAY_TIMEOUT_SLOTS = 375
"""Slots without an acknowledgement after which the transmitter replays [UCIe 1.1, retry]."""
REPLAYS_TO_RETRAIN = 3
"""Replays without an acknowledgement after which the link retrains [UCIe 1.1, retry]."""


class Transmitter(wiring.Component):
    """Queues flits, numbers them, keeps them until they are acknowledged, and sends one frame per slot of the line.

    A flit waits in its queue until its virtual channel has a credit of the far end and its turn, and then as ``staged`` for
    a slot. A slot carries, in this order: the next flit of a replay; the staged one, if the replay buffer has room; link
    state alone. Frames that say their sequence alternate with frames that answer with ``local``; the first flit of a
    replay says its own. Each frame tells the limit of one virtual channel after the other.

    A replay starts at the flit after the one that an answer which wants more says, but not twice for the same one within
    a round trip; when nothing was acknowledged for 375 slots; and when the line has been trained. After three replays
    without an acknowledgement ``trouble`` asks for training.

    Members
    -------
    i : In(ChannelSignature(spec))
    line : Out(LineSignature(spec))
    local : In(state_layout(spec))
    news : In(news_layout(spec))
    sets : In(1), send training sets
    set : In(32)
    lanes : In(2)
    resume : In(1), the line has been trained; ``news`` has the far end's state in the next cycle
    flush : In(1), the far end was reset: forget what it has not acknowledged
    beat : Out(1)
    trouble : Out(1)
    credits : Out(8).array(spec.virtual_channels), flits that may be sent
    sent, replay, timeout : Out(1), in one cycle for each new flit, replay, and replay for want of an acknowledgement
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        events = dict.fromkeys(("beat", "trouble", "sent", "replay", "timeout"), Out(1))
        training = {"sets": In(1), "set": In(SET_BITS), "lanes": In(2), "resume": In(1), "flush": In(1)}
        super().__init__(
            {
                "i": In(ChannelSignature(spec)),
                "line": Out(LineSignature(spec)),
                "local": In(state_layout(spec)),
                "news": In(news_layout(spec)),
                "credits": Out(CREDIT_BITS).array(spec.virtual_channels),
                **training,
                **events,
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        m.submodules.framer = framer = Framer(spec)
        domain = m.d.comb if spec.beats_per_flit == 1 else m.d.sync
        self.heard = Signal.like(self.news, name="heard")  # a cycle later, for speed, where slots are longer
        domain += self.heard.eq(self.news)
        m.submodules.buffer = buffer = ReplayBuffer(spec)
        wiring.connect(m, framer.line, wiring.flipped(self.line))
        m.d.comb += [
            framer.sets.eq(self.sets),
            framer.set.eq(self.set),
            framer.lanes.eq(self.lanes),
            self.beat.eq(framer.beat),
        ]

        new, ready, framing = Signal(), Signal(), Signal()
        # While a flit has several beats, none is decided in the cycle after the last set.
        domain += framing.eq(~self.sets)
        staged, staged_valid = self._stage(m, new)
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

    def _stage(self, m, new):
        """The next flit, taken from its queue by its turn, at the cost of a credit."""
        spec = self.spec
        m.submodules.queue = queue = Queue(spec)
        m.submodules.turn = turn = RoundRobin(spec.virtual_channels)
        wiring.connect(m, wiring.flipped(self.i), queue.i)
        staged, vacant, stages, linked = Signal(flit_layout(spec)), Signal(), Signal(), Signal()
        valid, will_be_valid, loads = Signal(), Signal(), Signal(init=1)  # ``loads`` has many to reach
        m.d.comb += [
            vacant.eq(linked & (~valid | new if spec.beats_per_flit == 1 else ~valid)),
            stages.eq(vacant & turn.requests.any()),
            will_be_valid.eq(stages | (valid & ~new)),
            turn.taken.eq(stages),
            queue.pop.eq(turn.grant & vacant.replicate(spec.virtual_channels)),
        ]
        m.d.sync += valid.eq(will_be_valid)
        if spec.beats_per_flit == 1:
            m.d.comb += loads.eq(vacant)
        else:
            m.d.sync += loads.eq(~will_be_valid)
        with m.If(loads):
            m.d.sync += staged.as_value().eq(one_hot_mux(turn.grant, queue.heads))
        with m.If(self.flush):
            m.d.sync += linked.eq(0)
        with m.Elif(self.heard.answer):
            m.d.sync += linked.eq(1)
        for v in range(spec.virtual_channels):
            self._spend(m, v, queue, turn, valid & (staged.virtual_channel == v))
        return staged, valid

    def _spend(self, m, v, queue, turn, is_staged):
        """Requests a turn where there is a flit and a credit; both are looked at a cycle ahead."""
        sent, after = Signal(CREDIT_BITS, name=f"sent_{v}"), Signal(CREDIT_BITS, name=f"after_{v}", init=1)
        pop, limit = queue.pop[v], self.heard.limits[v]
        m.d.comb += self.credits[v].eq(limit - sent)
        first, second = queue.valid[v] & (sent != limit), queue.more[v] & (after != limit)
        m.d.sync += turn.requests[v].eq(Mux(pop, second, first))
        with m.If(self.flush):
            m.d.sync += [sent.eq(is_staged), after.eq(Mux(is_staged, 2, 1))]
        with m.Elif(pop):
            m.d.sync += [sent.eq(after), after.eq(after + 1)]

    def _replay(self, m, load, buffer):
        """When to send again what is kept."""
        asked, wanted, timed_out, resumed, wants = (Signal() for _ in range(5))
        last_heard, after, answered = Signal(SEQUENCE_BITS), Signal(SEQUENCE_BITS), Signal(SEQUENCE_BITS)
        differs, tries = Signal(), Signal(range(REPLAYS_TO_RETRAIN + 1))
        # Slots to go; -1 when there is none, which their sign shows at once.
        patience = Signal(range(-1, self.spec.replay_flits), init=-1)
        to_timeout = Signal(range(-1, REPLAY_TIMEOUT_SLOTS), init=REPLAY_TIMEOUT_SLOTS - 1)
        heard = self.heard
        m.d.sync += [asked.eq(heard.answer & heard.wanting), last_heard.eq(heard.sequence), after.eq(last_heard)]
        with m.If(self.resume):
            m.d.sync += resumed.eq(1)
        with m.Elif(asked):
            m.d.sync += resumed.eq(0)
        m.d.sync += [buffer.rewind.eq(wants), self.timeout.eq(timed_out & wants)]
        m.d.comb += [
            timed_out.eq(to_timeout[-1] & ~self.sets),
            wanted.eq(asked & (patience[-1] | differs | resumed)),
            wants.eq((wanted | timed_out) & (buffer.count != 0) & ~buffer.rewind),
            self.replay.eq(buffer.rewind),
        ]
        with m.If(buffer.progress | buffer.rewind | (buffer.count == 0)):
            m.d.sync += to_timeout.eq(REPLAY_TIMEOUT_SLOTS - 1)
        with m.Elif(load & ~timed_out):
            m.d.sync += to_timeout.eq(to_timeout - 1)
        m.d.sync += differs.eq(Mux(wants, after != last_heard, answered != last_heard))  # ``answered`` from ``after``
        with m.If(wants):
            m.d.sync += [answered.eq(after), patience.eq(self.spec.replay_flits - 1)]
        with m.Elif(load & ~patience[-1]):
            m.d.sync += patience.eq(patience - 1)
        with m.If(buffer.progress | self.sets):
            m.d.sync += tries.eq(0)
        with m.Elif(buffer.rewind & (tries != REPLAYS_TO_RETRAIN)):
            m.d.sync += tries.eq(tries + 1)
        m.d.comb += self.trouble.eq(buffer.rewind & (tries == REPLAYS_TO_RETRAIN))

    def _frame(self, m, framer, buffer, staged, ready, framing):
        """What the next slot carries."""
        spec = self.spec
        own, unsent, sends, explicit, implicit = Signal(SEQUENCE_BITS), Signal(SEQUENCE_BITS), Signal(), Signal(), Signal()
        explicit_turn, jumped, credit_channel = Signal(init=1), Signal(), Signal(range(spec.virtual_channels))
        m.d.comb += [
            own.eq(Mux(buffer.again, buffer.sequence, buffer.upcoming)),
            sends.eq((buffer.again & framing) | ready),
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

        # The framer takes a frame of several beats a cycle after its slot was decided; its flit is still there.
        domain = m.d.comb if spec.beats_per_flit == 1 else m.d.sync
        header, again, is_data, is_implicit, sequence = Signal(HEADER), Signal(), Signal(), Signal(), Signal(SEQUENCE_BITS)
        domain += [
            again.eq(buffer.again),
            is_data.eq(sends),
            is_implicit.eq(implicit),
            sequence.eq(own),
            header.type.eq(Mux(sends, DATA, 0)),
            header.code.eq(Mux(explicit, EXPLICIT, Mux(self.local.wanting, NAK, ACK))),
            header.sequence.eq(Mux(sends & (explicit_turn | jumped), own, unsent)),
            header.credit_channel.eq(credit_channel),
            header.credits.eq(self.local.limits[credit_channel]),
        ]
        for name in ("last", "virtual_channel", "length_bytes", "destination", "source"):
            field = Mux(buffer.again, buffer.head[name], staged[name])
            domain += header[name].eq(field & sends.replicate(len(field)))
        payload = Mux(again, buffer.head.payload, staged.payload)
        frame = Signal(frame_layout(spec))
        m.d.comb += [
            frame.header.eq(header),
            frame.header.implicit.eq(is_implicit.replicate(len(header.implicit))),
            frame.payload.eq(payload & is_data.replicate(len(payload))),
            framer.frame.eq(frame),
            framer.implicit.eq(sequence & is_implicit.replicate(SEQUENCE_BITS)),
        ]
