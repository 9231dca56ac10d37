"""The link: credited flits from one chiplet to the next over a line with errors, by go-back-N replay [UCIe 1.1, retry]."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import (
    ACK,
    CHANNEL_BITS,
    CREDIT_BITS,
    DATA,
    EXPLICIT,
    HEADER_FIELDS,
    NAK,
    SEQUENCE_BITS,
    SEQUENCES,
)
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import ChannelSignature, CreditLedger, Queue, RoundRobin, flit_layout, one_hot_mux
from lightfabric.rtl.crc import implicit_sequence
from lightfabric.rtl.lane import Aligner
from lightfabric.rtl.line import SET_BITS, Deframer, Framer, LineSignature
from lightfabric.rtl.training import Training, connect

HEADER = data.StructLayout(HEADER_FIELDS)
NEVER_RECEIVED = SEQUENCES - 1
"""The last sequence in order of an end that has received none: the one before the first, 0."""

REPLAY_TIMEOUT_SLOTS = 375
"""Slots without an acknowledgement after which the transmitter replays [UCIe 1.1, retry]."""
REPLAYS_TO_RETRAIN = 3
"""Replays without an acknowledgement after which the link retrains [UCIe 1.1, retry]."""
BAD_FRAMES_TO_RETRAIN = 16
"""Frames with a wrong CRC in a row: the beginnings of the frames are lost, or the line is."""


def frame_layout(spec: ChipletSpec) -> data.StructLayout:
    """What the CRC covers: header and payload."""
    return data.StructLayout({"header": HEADER, "payload": spec.payload_bytes * 8})


def state_layout(spec: ChipletSpec) -> data.StructLayout:
    """What a receiver tells the other end's transmitter.

    ``received`` is the last sequence received in order, ``wanting`` is 1 while a later flit is known to be missing,
    ``limits`` are the flits that may ever be sent in each virtual channel since the link was reset, modulo 256.
    """
    limits = data.ArrayLayout(CREDIT_BITS, spec.virtual_channels)
    return data.StructLayout({"received": SEQUENCE_BITS, "wanting": 1, "limits": limits})


def news_layout(spec: ChipletSpec) -> data.StructLayout:
    """What a receiver hears of the other end's.

    In the cycle after ``sequence``, with ``answer``, that is its ``received``, and ``wanting`` is new. ``limits`` hold.
    """
    limits = data.ArrayLayout(CREDIT_BITS, spec.virtual_channels)
    return data.StructLayout({"sequence": SEQUENCE_BITS, "answer": 1, "wanting": 1, "limits": limits})


TRAINING_STATUS = {
    "state": 4,
    "active": 1,
    "lanes_in": 2,
    "lanes_out": 2,
    "config_mismatch": 1,
    "peer_reset": 1,
    "lock_cycles": 32,
    "align_cycles": 32,
    "exchange_cycles": 32,
    "recovery_cycles": 32,
}
"""What the training tells of itself, and its bits."""

EVENTS = data.StructLayout(
    {
        **dict.fromkeys(("sent", "received", "replay", "timeout", "bad", "retraining", "peer_reset"), 1),
        "leaks": 4,
        "violations": 4,
    }
)
"""What happens in a cycle: flits sent for the first time and accepted, replays and those of them for want of an
acknowledgement, frames dropped for their CRC, trainings done again, resets of the far end; credits lost and invented."""


def status_layout(spec: ChipletSpec) -> data.StructLayout:
    """What a link tells of its state; ``credits`` are the flits that it may send in each virtual channel."""
    lanes = dict.fromkeys(("lanes_locked", "skew_overflow"), spec.wavelengths_per_port)
    return data.StructLayout({**TRAINING_STATUS, **lanes, "credits": data.ArrayLayout(CREDIT_BITS, spec.virtual_channels)})


def following(sequence):
    """The sequence after this one. Combinational."""
    return Mux(sequence == SEQUENCES - 1, 0, sequence + 1)[:SEQUENCE_BITS]


def distance(first, last):
    """How many sequences ``last`` is ahead of ``first``, modulo 255. Combinational."""
    ahead = (last - first)[: SEQUENCE_BITS + 1]
    return Mux(ahead[-1], last + ~first, ahead)[:SEQUENCE_BITS]


class ReplayBuffer(wiring.Component):
    """Flits sent and not yet acknowledged, and the place of a replay among them.

    ``put`` keeps a flit as the newest, under the sequence ``upcoming``. ``acknowledge``, a cycle after the sequence, frees
    its flit and all before it; one for a sequence that is not kept changes nothing.
    After ``rewind`` all that are kept then are to be sent again: while ``again`` is 1, ``head`` and ``sequence`` are the
    next of them, and ``take`` goes on to the one after. ``busy`` is 1 from the cycle after ``rewind`` until nothing is to be
    sent again; nothing may be put in a cycle with ``rewind`` or ``busy``. What is acknowledged is not sent again.

    Members
    -------
    put : In(1)
    flit : In(flit_layout(spec))
    acknowledged : In(8), a sequence
    acknowledge : In(1), it was acknowledged, in the next cycle
    rewind : In(1)
    take : In(1)
    clear : In(1), forget all
    again, busy : Out(1)
    jumps : Out(1), the next flit sent, new or again, does not follow the one sent last
    head : Out(flit_layout(spec))
    sequence : Out(8), of ``head``
    upcoming : Out(8), of the flit put next
    newest : Out(8), of the flit put last
    count : Out(8), flits kept
    room : Out(1), another may be put
    progress : Out(1), flits were freed in the cycle before
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        flit = flit_layout(spec)
        switches = dict.fromkeys(("put", "acknowledge", "rewind", "take", "clear"), In(1))
        flags = dict.fromkeys(("again", "busy", "jumps", "room", "progress"), Out(1))
        numbers = dict.fromkeys(("sequence", "upcoming", "count"), Out(SEQUENCE_BITS))
        values = {"flit": In(flit), "acknowledged": In(SEQUENCE_BITS), "head": Out(flit)}
        newest = Out(SEQUENCE_BITS, init=NEVER_RECEIVED)
        super().__init__({**switches, **flags, **numbers, **values, "newest": newest})

    def elaborate(self, platform):
        m = Module()
        depth = 1 << self.spec.replay_flits.bit_length()  # more than are kept: the next place is none of a replay's
        m.submodules.kept = kept = Memory(shape=flit_layout(self.spec), depth=depth, init=[])
        write, read = kept.write_port(), kept.read_port()
        oldest = Signal(SEQUENCE_BITS, init=NEVER_RECEIVED)  # the sequence last freed
        first, end, place = (Signal(range(depth), name=name) for name in ("first", "end", "place"))
        after_place = (place + 1)[: len(place)]
        # The next place is written until a flit is put there: ``put`` has not to reach all of the memory.
        m.d.comb += [write.addr.eq(end), write.data.eq(self.flit), write.en.eq(self.room)]
        one_beat = self.spec.beats_per_flit == 1  # only then another slot is decided in the cycle after a take
        m.d.comb += [read.addr.eq(Mux(self.take, after_place, place) if one_beat else place), self.head.eq(read.data)]

        ahead, acknowledged, frees = Signal(SEQUENCE_BITS), Signal(SEQUENCE_BITS), Signal()
        stale = Signal()  # ``ahead`` is from before the last answer freed its flits: that of a repeated frame
        m.d.sync += stale.eq(frees)
        m.d.comb += frees.eq(self.acknowledge & ~stale & (ahead <= self.count))
        m.d.sync += [ahead.eq(distance(oldest, self.acknowledged)), acknowledged.eq(self.acknowledged)]
        m.d.sync += self.progress.eq(frees & (ahead != 0))
        with m.If(frees):
            m.d.sync += oldest.eq(acknowledged)

        most = self.spec.replay_flits
        # All outcomes are ready when it is known which one it is.
        left, left_after_put = self.count - ahead, self.count + ~ahead + 2
        m.d.sync += self.count.eq(Mux(frees, Mux(self.put, left_after_put, left), Mux(self.put, self.count + 1, self.count)))
        m.d.sync += [first.eq(Mux(frees, first + ahead, first)), end.eq(end + self.put)]
        m.d.sync += self.room.eq(Mux(self.put, self.count < most - 1, self.count < most))
        with m.If(self.put):
            m.d.sync += [self.newest.eq(self.upcoming), self.upcoming.eq(following(self.upcoming))]

        to_send, fetched, behind = Signal(SEQUENCE_BITS), Signal(), Signal()
        m.d.comb += [self.again.eq(self.busy & fetched & ~behind), self.jumps.eq(self.rewind | behind)]
        m.d.sync += [fetched.eq(1), behind.eq((to_send > self.count) & ~behind & ~self.rewind)]
        with m.If(self.take):
            m.d.sync += [place.eq(after_place), to_send.eq(to_send - 1), self.sequence.eq(following(self.sequence))]
            m.d.sync += self.busy.eq(to_send != 1)
        with m.If(self.jumps):
            m.d.sync += [to_send.eq(self.count), place.eq(first), self.sequence.eq(following(oldest)), fetched.eq(0)]
            m.d.sync += self.busy.eq(self.count != 0)
        with m.If(self.clear):
            m.d.sync += [self.count.eq(0), to_send.eq(0), self.busy.eq(0), first.eq(0), end.eq(0)]
            m.d.sync += [self.newest.eq(NEVER_RECEIVED), oldest.eq(NEVER_RECEIVED), self.upcoming.eq(0)]
        return m


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


CHECKED = data.StructLayout({**dict.fromkeys(("good", "bad", "numbered", "is_data"), 1), "sequence": SEQUENCE_BITS})
"""A received frame: right or wrong; if it is right and ``numbered``, its sequence or that of the last flit before it."""


class Receiver(wiring.Component):
    """Accepts each flit once and in order, and keeps the state that both ends' transmitters need.

    A flit that does not say its sequence is taken for the one after the flit before it; its CRC shows whether it is. A frame
    with a wrong CRC and a sequence ahead of the next in order mean that a flit is missing; ``local.wanting`` says so until
    the next in order has come, or until a frame shows that nothing is missing. What came before is dropped.

    Members
    -------
    beat : In(64 * spec.wavelengths_per_port)
    beat_valid : In(1)
    frames : In(1), the beats are those of frames
    lanes : In(2)
    resume : In(1)
    resumed : In(state_layout(spec)), the far end's, at ``resume``
    flush : In(1), the far end was reset: its sequences and limits begin anew
    o : Out(ChannelSignature(spec))
    local : Out(state_layout(spec))
    news : Out(news_layout(spec))
    trouble : Out(1), no good frame for too long
    received, bad : Out(1), in one cycle for each flit accepted and each frame dropped for its CRC
    leaks, violations : Out(4), credits found missing, and credits or flits that nobody was due, in this cycle
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        state, flags = state_layout(spec), dict.fromkeys(("trouble", "received", "bad"), Out(1))
        super().__init__(
            {
                "beat": In(spec.beat_bytes * 8),
                "beat_valid": In(1),
                "frames": In(1),
                "lanes": In(2),
                "resume": In(1),
                "resumed": In(state),
                "flush": In(1),
                "o": Out(ChannelSignature(spec)),
                "local": Out(state, init={"received": NEVER_RECEIVED}),
                "news": Out(news_layout(spec)),
                **flags,
                "leaks": Out(4),
                "violations": Out(4),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        m.submodules.deframer = deframer = Deframer(spec)
        for name in ("beat", "beat_valid", "frames", "lanes"):
            m.d.comb += getattr(deframer, name).eq(getattr(self, name))
        frame = Signal(frame_layout(spec))
        m.d.comb += frame.eq(deframer.frame)

        checked = self._check(m, frame, deframer)
        self._accept(m, checked)
        self._want(m, checked)
        self._hear(m, frame.header, checked)
        self._count_credits(m)
        bad_run = Signal(range(BAD_FRAMES_TO_RETRAIN + 1))
        m.d.comb += [self.bad.eq(checked.bad), self.trouble.eq(bad_run == BAD_FRAMES_TO_RETRAIN)]
        with m.If(checked.good | ~self.frames):
            m.d.sync += bad_run.eq(0)
        with m.Elif(checked.bad & ~self.trouble):
            m.d.sync += bad_run.eq(bad_run + 1)
        return m

    def _check(self, m, frame, deframer):
        """A frame a cycle after it came, with its own sequence, and whether it is right."""
        header, checked = frame.header, Signal(CHECKED)
        upcoming, upcoming_crc = Signal(SEQUENCE_BITS), Signal.like(deframer.error)
        explicit, numbered, valid = Signal(), Signal(), Signal()
        explicit_right, implicit_right, is_implicit, sure = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [explicit.eq(header.code == EXPLICIT), numbered.eq(explicit | (header.type == DATA))]
        m.d.sync += [
            valid.eq(deframer.valid),
            explicit_right.eq(deframer.error == 0),
            implicit_right.eq(deframer.error == upcoming_crc),
            is_implicit.eq(header.implicit[0]),
            sure.eq(header.implicit.all() | ~header.implicit.any()),
            checked.numbered.eq(numbered),
            checked.is_data.eq(header.type == DATA),
            checked.sequence.eq(Mux(explicit, header.sequence, upcoming)),
        ]
        m.d.comb += checked.good.eq(valid & sure & Mux(is_implicit, implicit_right, explicit_right))
        m.d.comb += checked.bad.eq(valid & ~checked.good)
        after_own, after_upcoming = following(header.sequence), following(upcoming)
        with m.If(deframer.valid & numbered):  # also where the frame is wrong: most often its header is not
            m.d.sync += upcoming.eq(Mux(explicit, after_own, after_upcoming))
        if self.spec.beats_per_flit == 1:
            crcs = (implicit_sequence(self.spec, sequence) for sequence in (after_own, after_upcoming))
            with m.If(deframer.valid & numbered):
                m.d.sync += upcoming_crc.eq(Mux(explicit, *crcs))
        else:  # no frame in the next cycle
            m.d.sync += upcoming_crc.eq(implicit_sequence(self.spec, upcoming))
        m.d.sync += [
            self.o.flit.last.eq(header.last),
            self.o.flit.virtual_channel.eq(header.virtual_channel),
            self.o.flit.length_bytes.eq(header.length_bytes),
            self.o.flit.destination.eq(header.destination),
            self.o.flit.source.eq(header.source),
            self.o.flit.payload.eq(frame.payload),
        ]
        return checked

    def _accept(self, m, checked):
        expected = Signal(SEQUENCE_BITS)
        m.d.comb += [
            self.received.eq(checked.good & checked.is_data & (checked.sequence == expected)),
            self.o.valid.eq(self.received),
        ]
        with m.If(self.received):
            m.d.sync += [self.local.received.eq(expected), expected.eq(following(expected))]
        with m.If(self.flush):
            m.d.sync += [self.local.received.eq(NEVER_RECEIVED), expected.eq(0)]

    def _want(self, m, checked):
        """A cycle later, with the frame counted in: whether a flit is missing."""
        was_bad, was_numbered, was = Signal(), Signal(), Signal(SEQUENCE_BITS)
        m.d.sync += [was_bad.eq(checked.bad), was_numbered.eq(checked.good & checked.numbered), was.eq(checked.sequence)]
        # Modulo 256 instead of 255 a sequence up to 127 ahead is 1 to 128 ahead: spares a carry.
        ahead = (was - self.local.received)[:SEQUENCE_BITS]
        is_ahead = ~ahead[-1] | ~ahead[:-1].any()
        with m.If(self.flush | self.received | (was_numbered & (was == self.local.received))):
            m.d.sync += self.local.wanting.eq(0)
        with m.Elif(was_bad | (was_numbered & is_ahead)):
            m.d.sync += self.local.wanting.eq(1)

    def _hear(self, m, header, checked):
        answers, resumed, asks, channel, credits_ = Signal(), Signal(), Signal(), Signal(CHANNEL_BITS), Signal(CREDIT_BITS)
        m.d.sync += [
            answers.eq((header.code == ACK) | (header.code == NAK)),
            asks.eq((header.code == NAK) | self.resume),
            resumed.eq(self.resume),
            channel.eq(header.credit_channel),
            credits_.eq(header.credits),
        ]
        m.d.comb += [
            self.news.sequence.eq(Mux(self.resume, self.resumed.received, header.sequence)),
            self.news.answer.eq((checked.good & answers) | resumed),
            self.news.wanting.eq(asks),
        ]
        for v in range(self.spec.virtual_channels):
            with m.If(self.resume):
                m.d.sync += self.news.limits[v].eq(self.resumed.limits[v])
            with m.Elif(checked.good & (channel == v)):
                m.d.sync += self.news.limits[v].eq(credits_)

    def _count_credits(self, m):
        """The far end's credits: conserved, or found and counted where the client side loses or invents them.

        The ledgers see all a cycle later, for speed.
        """
        leaks, violations = [], []
        for v in range(self.spec.virtual_channels):
            ledger = CreditLedger(self.spec)
            m.submodules[f"ledger_{v}"] = ledger
            m.d.sync += [
                ledger.flit.eq(self.o.valid & (self.o.flit.virtual_channel == v)),
                ledger.credit.eq(self.o.credit[v]),
                ledger.held.eq(self.o.held[v]),
                ledger.restart.eq(self.flush),
            ]
            m.d.comb += self.local.limits[v].eq(ledger.limit)
            leaks.append(ledger.leak)
            violations.append(ledger.violation)
        m.d.comb += [self.leaks.eq(sum(leaks)), self.violations.eq(sum(violations))]


class Link(wiring.Component):
    """One end of a full-duplex link.

    Every flit that enters ``i`` at one end leaves ``o`` of the other end once, in order within its virtual channel and
    unchanged, whatever the line does to its bits and frames, also over a retraining of the line; flits that the far end
    had not acknowledged when it was reset are lost with it. From reset on the line is trained first. Latency and rate
    follow from the slots of the line; what they are is measured by ``lightfabric.sim.characterize``.

    Members
    -------
    i : In(ChannelSignature(spec))
    o : Out(ChannelSignature(spec))
    tx : Out(LineSignature(spec))
    rx : In(LineSignature(spec))
    slip : Out(spec.wavelengths_per_port), one cycle per bit by which a wavelength is to move its blocks
    enable : In(1), 1 unless connected; 0 keeps the link down
    retrain : In(1), train the line again
    status : Out(status_layout(spec))
    events : Out(EVENTS)
    replays : Out(32), replays started by this end
    crc_errors : Out(32), frames that this end dropped
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        super().__init__(
            {
                "i": In(ChannelSignature(spec)),
                "o": Out(ChannelSignature(spec)),
                "tx": Out(LineSignature(spec)),
                "rx": In(LineSignature(spec)),
                "slip": Out(spec.wavelengths_per_port),
                "enable": In(1, init=1),
                "retrain": In(1),
                "status": Out(status_layout(spec)),
                "events": Out(EVENTS),
                "replays": Out(32),
                "crc_errors": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.aligner = aligner = Aligner(self.spec)
        m.submodules.training = training = Training(self.spec)
        m.submodules.transmitter = transmitter = Transmitter(self.spec)
        m.submodules.receiver = receiver = Receiver(self.spec)
        wiring.connect(m, wiring.flipped(self.i), transmitter.i)
        wiring.connect(m, transmitter.line, wiring.flipped(self.tx))
        wiring.connect(m, wiring.flipped(self.rx), aligner.rx)
        wiring.connect(m, receiver.o, wiring.flipped(self.o))
        connect(m, aligner, training)
        m.d.comb += [
            self.slip.eq(aligner.slip),
            receiver.beat.eq(aligner.beat.data),
            receiver.beat_valid.eq(aligner.beat.valid),
            receiver.frames.eq(training.frames_in),
            receiver.lanes.eq(training.lanes_in),
            receiver.resume.eq(training.resume),
            receiver.resumed.received.eq(training.remote.expected),
            receiver.resumed.limits.eq(training.remote.limits),
            receiver.flush.eq(training.flush),
            transmitter.sets.eq(training.sets),
            transmitter.set.eq(training.set),
            transmitter.lanes.eq(training.lanes_out),
            transmitter.resume.eq(training.resume),
            transmitter.flush.eq(training.flush),
            transmitter.local.eq(receiver.local),
            transmitter.news.eq(receiver.news),
            training.beat.eq(transmitter.beat),
            training.local.expected.eq(receiver.local.received),
            training.local.limits.eq(receiver.local.limits),
            training.trouble.eq(transmitter.trouble | receiver.trouble),
            training.retrain.eq(self.retrain),
            training.enable.eq(self.enable),
        ]
        self._report(m, training, aligner, transmitter, receiver)
        return m

    def _report(self, m, training, aligner, transmitter, receiver):
        for name in TRAINING_STATUS:
            m.d.comb += self.status[name].eq(getattr(training, name))
        m.d.comb += [self.status.lanes_locked.eq(aligner.locked), self.status.skew_overflow.eq(aligner.skew_overflow)]
        m.d.comb += self.status.credits.eq(Cat(transmitter.credits))
        for block, names in (
            (transmitter, ("sent", "replay", "timeout")),
            (receiver, ("received", "bad", "leaks", "violations")),
        ):
            m.d.comb += [self.events[name].eq(getattr(block, name)) for name in names]
        m.d.comb += [self.events.retraining.eq(training.retrainings), self.events.peer_reset.eq(training.flush)]
        bad = Signal()
        m.d.sync += [bad.eq(receiver.bad), self.crc_errors.eq(self.crc_errors + bad)]
        m.d.sync += self.replays.eq(self.replays + transmitter.replay)
