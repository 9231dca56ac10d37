"""The link: credited flits from one chiplet to the next over a line with bit errors, by go-back-N replay."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import HEADER_FIELDS, SEQUENCE_BITS
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import ChannelSignature, Queue, RoundRobin, flit_layout, one_hot_mux
from lightfabric.rtl.line import Deframer, Framer, LineSignature

HEADER = data.StructLayout(HEADER_FIELDS)


def frame_layout(spec: ChipletSpec) -> data.StructLayout:
    """What the CRC covers: header and payload."""
    return data.StructLayout({"header": HEADER, "payload": spec.payload_bytes * 8})


def link_state_layout(spec: ChipletSpec) -> data.StructLayout:
    """What a receiver tells the other end's transmitter.

    ``expected`` is the next sequence in order, ``nak`` flips with each request to replay from there, ``freed`` counts the
    buffers given back.
    """
    freed = data.ArrayLayout(SEQUENCE_BITS, spec.virtual_channels)
    return data.StructLayout({"expected": SEQUENCE_BITS, "nak": 1, "freed": freed})


class Transmitter(wiring.Component):
    """Queues flits, numbers them, keeps them until they are acknowledged, and sends one frame per slot of the line.

    A slot carries, in this order: the next flit of a replay; a new flit, the virtual channels that have a remote buffer
    taking turns; link state alone. Every header tells ``local``, our receiver's state, of which the credits of one
    virtual channel after the other. A replay starts at the sequence that the other side expects when its ``nak`` flips,
    or when nothing was acknowledged for ``spec.replay_timeout_slots`` slots.

    Members
    -------
    i : In(ChannelSignature(spec))
    line : Out(LineSignature(spec))
    local : In(link_state_layout(spec))
    remote : In(link_state_layout(spec))
    replays : Out(32)
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        state = link_state_layout(spec)
        super().__init__(
            {
                "i": In(ChannelSignature(spec)),
                "line": Out(LineSignature(spec)),
                "local": In(state),
                "remote": In(state),
                "replays": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        channels = range(spec.virtual_channels)
        m.submodules.queue = queue = Queue(spec)
        m.submodules.framer = framer = Framer(spec)
        m.submodules.turn = turn = RoundRobin(spec.virtual_channels)
        m.submodules.kept = kept = Memory(shape=flit_layout(spec), depth=spec.replay_flits, init=[])
        wiring.connect(m, wiring.flipped(self.i), queue.i)
        wiring.connect(m, framer.line, wiring.flipped(self.line))

        # Sequences: [oldest, new) are kept for replay, [send, new) of these are still to be sent again.
        oldest, send, new = (Signal(SEQUENCE_BITS, name=name) for name in ("oldest", "send", "new"))
        unacknowledged, replaying, take = Signal(SEQUENCE_BITS), Signal(), Signal()
        m.d.comb += [unacknowledged.eq(new - oldest), replaying.eq(send != new)]

        # The credits of the other side: flits sent but not yet freed there.
        sent = [Signal(SEQUENCE_BITS, name=f"sent_{v}") for v in channels]
        room = unacknowledged < spec.replay_flits
        for v in channels:
            in_use = (sent[v] - self.remote.freed[v])[:SEQUENCE_BITS]
            m.d.comb += turn.requests[v].eq(queue.valid[v] & (in_use != spec.buffer_flits))
        m.d.comb += [take.eq(framer.load & ~replaying & room & turn.requests.any()), turn.taken.eq(take)]
        m.d.comb += queue.pop.eq(turn.grant & take.replicate(len(turn.grant)))
        for v in channels:
            m.d.sync += sent[v].eq(sent[v] + queue.pop[v])

        acknowledged, fresh_ack = self.remote.expected, Signal()
        answered_nak = Signal()
        timeout, idle_slots = Signal(), Signal(range(spec.replay_timeout_slots + 1))
        start_replay, send_next = Signal(), Signal(SEQUENCE_BITS)
        m.d.comb += [
            fresh_ack.eq(acknowledged != oldest),
            timeout.eq(idle_slots == spec.replay_timeout_slots),
            start_replay.eq(((self.remote.nak != answered_nak) | timeout) & (acknowledged != new)),
        ]
        behind = (send - acknowledged)[:SEQUENCE_BITS] > (new - acknowledged)[:SEQUENCE_BITS]
        with m.If(start_replay | behind):
            m.d.comb += send_next.eq(acknowledged)
        with m.Else():
            m.d.comb += send_next.eq(send + (framer.load & (replaying | take)))
        m.d.sync += [oldest.eq(acknowledged), send.eq(send_next), new.eq(new + take)]
        m.d.sync += [answered_nak.eq(self.remote.nak), self.replays.eq(self.replays + start_replay)]
        with m.If(fresh_ack | start_replay | (unacknowledged == 0)):
            m.d.sync += idle_slots.eq(0)
        with m.Elif(framer.load & ~timeout):
            m.d.sync += idle_slots.eq(idle_slots + 1)

        fresh = Signal(flit_layout(spec))
        write, read = kept.write_port(), kept.read_port()
        m.d.comb += [
            fresh.as_value().eq(one_hot_mux(turn.grant, queue.heads)),
            write.addr.eq(new),
            write.data.eq(fresh),
            write.en.eq(take),
            read.addr.eq(send_next),
        ]

        credit_channel = Signal(range(spec.virtual_channels))
        with m.If(framer.load):
            m.d.sync += credit_channel.eq(Mux(credit_channel == spec.virtual_channels - 1, 0, credit_channel + 1))

        frame, flit = Signal(frame_layout(spec)), Signal(flit_layout(spec))
        m.d.comb += [flit.eq(Mux(replaying, read.data.as_value(), fresh.as_value())), framer.frame.eq(frame)]
        m.d.comb += [
            frame.header.sequence.eq(send),
            frame.header.ack.eq(self.local.expected),
            frame.header.nak.eq(self.local.nak),
            frame.header.credit_channel.eq(credit_channel),
            frame.header.credits.eq(self.local.freed[credit_channel]),
        ]
        with m.If(replaying | take):
            m.d.comb += [
                frame.header.data.eq(1),
                frame.header.last.eq(flit.last),
                frame.header.virtual_channel.eq(flit.virtual_channel),
                frame.header.length_bytes.eq(flit.length_bytes),
                frame.header.destination.eq(flit.destination),
                frame.header.source.eq(flit.source),
                frame.payload.eq(flit.payload),
            ]
        return m


class Receiver(wiring.Component):
    """Accepts each flit once and in order, and keeps the state that both ends' transmitters need.

    A good frame ahead of the expected sequence shows a gap, and the receiver asks for a replay. It asks again when the
    sequences step back without the expected one: the replay has come and lost its first flit. Frames that were seen before
    are dropped; frames with a wrong CRC are as if they had never been sent.

    Members
    -------
    line : In(LineSignature(spec))
    o : Out(ChannelSignature(spec))
    local : Out(link_state_layout(spec))
    remote : Out(link_state_layout(spec))
    crc_errors : Out(32)
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        state = link_state_layout(spec)
        super().__init__(
            {
                "line": In(LineSignature(spec)),
                "o": Out(ChannelSignature(spec)),
                "local": Out(state),
                "remote": Out(state),
                "crc_errors": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        m.submodules.deframer = deframer = Deframer(spec)
        wiring.connect(m, wiring.flipped(self.line), deframer.line)

        frame = Signal(frame_layout(spec))
        header = frame.header
        m.d.comb += frame.eq(deframer.frame)
        ahead, asked, furthest = (header.sequence - self.local.expected)[:SEQUENCE_BITS], Signal(), Signal(SEQUENCE_BITS)
        wanted = deframer.good & header.data & (ahead == 0)
        gap = deframer.good & (ahead != 0) & (ahead <= spec.replay_flits)
        stepped_back = ahead < furthest

        m.d.sync += self.crc_errors.eq(self.crc_errors + deframer.bad)
        m.d.sync += self.o.valid.eq(wanted)
        m.d.sync += [
            self.o.flit.last.eq(header.last),
            self.o.flit.virtual_channel.eq(header.virtual_channel),
            self.o.flit.length_bytes.eq(header.length_bytes),
            self.o.flit.destination.eq(header.destination),
            self.o.flit.source.eq(header.source),
            self.o.flit.payload.eq(frame.payload),
        ]
        with m.If(wanted):
            m.d.sync += [self.local.expected.eq(self.local.expected + 1), asked.eq(0)]
        with m.Elif(gap):
            m.d.sync += [asked.eq(1), furthest.eq(ahead + header.data)]
            m.d.sync += self.local.nak.eq(self.local.nak ^ (~asked | stepped_back))

        with m.If(deframer.good):
            m.d.sync += [self.remote.expected.eq(header.ack), self.remote.nak.eq(header.nak)]
        for v in range(spec.virtual_channels):
            m.d.sync += self.local.freed[v].eq(self.local.freed[v] + self.o.credit[v])
            with m.If(deframer.good & (header.credit_channel == v)):
                m.d.sync += self.remote.freed[v].eq(header.credits)
        return m


class Link(wiring.Component):
    """One end of a full-duplex link.

    Every flit that enters ``i`` at one end leaves ``o`` of the other end once, in order and unchanged, whatever bits the
    line flips, as long as it does not flip all. Latency and rate follow from the slots of the line; what they are is
    measured by ``lightfabric.sim.characterize``.

    Members
    -------
    i : In(ChannelSignature(spec))
    o : Out(ChannelSignature(spec))
    tx : Out(LineSignature(spec))
    rx : In(LineSignature(spec))
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
                "replays": Out(32),
                "crc_errors": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.transmitter = transmitter = Transmitter(self.spec)
        m.submodules.receiver = receiver = Receiver(self.spec)
        wiring.connect(m, wiring.flipped(self.i), transmitter.i)
        wiring.connect(m, transmitter.line, wiring.flipped(self.tx))
        wiring.connect(m, wiring.flipped(self.rx), receiver.line)
        wiring.connect(m, receiver.o, wiring.flipped(self.o))
        m.d.comb += [
            transmitter.local.eq(receiver.local),
            transmitter.remote.eq(receiver.remote),
            self.replays.eq(transmitter.replays),
            self.crc_errors.eq(receiver.crc_errors),
        ]
        return m
