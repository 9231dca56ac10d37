"""The receiving half of a link accepts each flit once and in order, and books the credits of the far end.

The words of its state machines:

* *good*, *bad*: a frame whose CRC is right, or not; *numbered*: a frame from whose sequence something follows, because it
  says it or has a flit
* *upcoming*: the sequence of the next flit, if none is lost between; *expected*: the next one in order, not yet received
* *ahead*: a sequence after the expected one; it shows that a flit is missing
* *open*: a packet of a virtual channel began and its last flit has not come; *closing*: the far end was reset in it, so that
  an end is to be put in the place of its rest; *reserved*: a place at the client is kept for that end
* *peer state*: what good frames tell of the other end's receiver
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import ACK, ADDRESS_BITS, CHANNEL_BITS, EXPLICIT, NAK
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import ChannelSignature, CreditLedger, lowest, one_hot_mux
from lightfabric.rtl.crc import implicit_sequence
from lightfabric.rtl.frame import following, frame_layout, never_received, peer_state_layout, state_layout
from lightfabric.rtl.line import Deframer

BAD_FRAMES_TO_RETRAIN = 16
"""So many frames with a wrong CRC in a row mean that the beginnings of the frames are lost, or the line is."""


def checked_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out what is known of a received frame.

    It is good or bad; a numbered one has its own sequence or, without a flit, that of the flit before it.
    """
    flags = dict.fromkeys(("good", "bad", "numbered", "is_data"), 1)
    return data.StructLayout({**flags, "sequence": spec.sequence_bits})


class Receiver(wiring.Component):
    """Accepts each flit once and in order, and keeps the state that both ends' transmitters need.

    A flit that does not say its sequence is taken for the one after the flit before it; its CRC shows whether it is. A bad
    frame and a sequence ahead of the expected one mean that a flit is missing: a NAK is pending, ``local.wanting`` is 1,
    until the expected flit has come or a frame shows that nothing is missing. What was received before is dropped. A packet
    in which the far end was reset is ended by a flit of ``last`` and ``error`` without bytes, before any other flit of its
    virtual channel.

    Members
    -------
    words : In(64 * spec.wavelengths_per_port)
    words_valid, words_bad : In(1)
    frames : In(1), 1 from the first words of a service to its end
    resume : In(1)
    resumed : In(state_layout(spec)), the far end's, at ``resume``
    flush : In(1), the far end was reset: its sequences and limits begin anew
    o : Out(ChannelSignature(spec))
    local : Out(state_layout(spec))
    news : Out(peer_state_layout(spec))
    trouble : Out(1), no good frame for too long
    received, good, bad : Out(1), in one cycle for each flit accepted, each frame with a right CRC and each dropped for it
    leaks, violations : Out(4), credits found missing, and credits or flits that nobody was due, in this cycle
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        state, flags = state_layout(spec), dict.fromkeys(("trouble", "received", "good", "bad"), Out(1))
        super().__init__(
            {
                "words": In(spec.beat_bytes * 8),
                "words_valid": In(1),
                "words_bad": In(1),
                "frames": In(1),
                "resume": In(1),
                "resumed": In(state),
                "flush": In(1),
                "o": Out(ChannelSignature(spec)),
                "local": Out(state, init={"received": never_received(spec)}),
                "news": Out(peer_state_layout(spec)),
                **flags,
                "leaks": Out(4),
                "violations": Out(4),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        m.submodules.deframer = deframer = Deframer(spec)
        for name in ("words", "words_valid", "words_bad", "frames"):
            m.d.comb += getattr(deframer, name).eq(getattr(self, name))
        frame = Signal(frame_layout(spec))
        m.d.comb += frame.eq(deframer.frame)

        checked, sequence = self._check(m, frame, deframer)
        closed, was_received = Signal(), Signal()
        m.d.sync += was_received.eq(self.received)
        self._accept(m, checked, sequence, closed, was_received)
        self._keep_nak_pending(m, checked, was_received)
        self._take_peer_state(m, frame.header, checked)
        ledgers, reserved = self._count_credits(m)
        self._close_packets(m, ledgers, reserved, closed)
        bad_run = Signal(range(BAD_FRAMES_TO_RETRAIN + 1))
        m.d.comb += [self.good.eq(checked.good), self.bad.eq(checked.bad), self.trouble.eq(bad_run == BAD_FRAMES_TO_RETRAIN)]
        with m.If(checked.good | ~self.frames):
            m.d.sync += bad_run.eq(0)
        with m.Elif(checked.bad & ~self.trouble):
            m.d.sync += bad_run.eq(bad_run + 1)
        return m

    def _check(self, m, frame, deframer):
        """Tells a register stage after a frame came which sequence it has, and whether it is good.

        Returns that, and the sequence without the register stage.
        """
        header, checked, bits = frame.header, Signal(checked_layout(self.spec)), self.spec.sequence_bits
        upcoming, upcoming_crc, sequence = Signal(bits), Signal.like(deframer.error), Signal(bits)
        explicit, numbered, valid, given_up = Signal(), Signal(), Signal(), Signal()
        explicit_right, implicit_right, is_implicit, sure = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            explicit.eq(header.code == EXPLICIT),
            numbered.eq(explicit | header.type[0]),
            sequence.eq(Mux(explicit, header.sequence, upcoming)),
        ]
        m.d.sync += [
            valid.eq(deframer.valid),
            given_up.eq(deframer.bad),
            explicit_right.eq(deframer.error == 0),
            implicit_right.eq(deframer.error == upcoming_crc),
            is_implicit.eq(header.implicit[0]),
            sure.eq(header.implicit.all() | ~header.implicit.any()),
            checked.numbered.eq(numbered),
            checked.is_data.eq(header.type[0]),
            checked.sequence.eq(sequence),
        ]
        # The bit that says whether a frame is implicit chooses its CRC, so it is sent several times, all equal.
        m.d.comb += checked.good.eq(valid & sure & ~given_up & Mux(is_implicit, implicit_right, explicit_right))
        m.d.comb += checked.bad.eq(valid & ~checked.good)
        after_own, after_upcoming = following(header.sequence), following(upcoming)
        # Also where the frame is bad: most often its header is right.
        with m.If(deframer.valid & numbered):
            m.d.sync += upcoming.eq(Mux(explicit, after_own, after_upcoming))
        if self.spec.beats_per_flit == 1:
            crcs = (implicit_sequence(self.spec, sequence) for sequence in (after_own, after_upcoming))
            with m.If(deframer.valid & numbered):
                m.d.sync += upcoming_crc.eq(Mux(explicit, *crcs))
        else:  # no frame comes in the next cycle, so the trees may begin at a register
            m.d.sync += upcoming_crc.eq(implicit_sequence(self.spec, upcoming))
        m.d.sync += [
            self.o.flit.last.eq(header.last),
            self.o.flit.error.eq(header.type[1]),
            self.o.flit.virtual_channel.eq(header.virtual_channel),
            self.o.flit.length_bytes.eq(header.length_bytes),
            self.o.flit.destination.eq(header.destination),
            self.o.flit.source.eq(header.source),
            self.o.flit.payload.eq(frame.payload),
        ]
        return checked, sequence

    def _accept(self, m, checked, sequence, closed, was_received):
        """Gives out a flit if it is the next one in order and no end of a packet goes out in its place."""
        expected, next_expected = Signal.like(sequence), Signal.like(sequence, init=1)
        is_expected, is_next = Signal(), Signal()
        # The comparison is made a register stage ahead, in which the frame before may yet be received.
        m.d.sync += [is_expected.eq(sequence == expected), is_next.eq(sequence == next_expected)]
        # A flit that came with an end of a packet is asked for again, as if it had been lost.
        m.d.comb += [
            self.received.eq(checked.good & checked.is_data & Mux(was_received, is_next, is_expected) & ~closed),
            self.o.valid.eq(self.received | closed),
        ]
        with m.If(self.received):
            m.d.sync += [self.local.received.eq(expected), expected.eq(next_expected)]
            m.d.sync += next_expected.eq(following(next_expected))
        with m.If(self.flush):
            m.d.sync += [self.local.received.eq(never_received(self.spec)), expected.eq(0), next_expected.eq(1)]

    def _keep_nak_pending(self, m, checked, was_received):
        """Decides whether a flit is missing, a register stage later, when ``local.received`` counts the frame in."""
        was_bad, was_numbered, ahead = Signal(), Signal(), Signal(self.spec.sequence_bits)
        # Where ``local.received`` changes in between, it is to the sequence of this very frame.
        m.d.sync += [
            was_bad.eq(checked.bad),
            was_numbered.eq(checked.good & checked.numbered),
            ahead.eq(checked.sequence - self.local.received),
        ]
        # Taken modulo 256, not 255, a sequence that is 1 to 127 ahead looks 1 to 128 ahead: that spares a carry. It is the
        # same with more bits.
        is_ahead = ~ahead[-1] | ~ahead[:-1].any()
        cleared = self.flush | self.received | was_received | (was_numbered & (ahead == 0))
        missing = was_bad | (was_numbered & is_ahead)
        m.d.sync += self.local.wanting.eq((self.local.wanting | missing) & ~cleared)

    def _take_peer_state(self, m, header, checked):
        """Takes the state of the other end's receiver from good frames, or from its training at ``resume``."""
        # All but the sequence waits for the register stage in which the CRC is checked.
        answers, resumed, is_nak, channel = Signal(), Signal(), Signal(), Signal(CHANNEL_BITS)
        credits_ = Signal.like(header.credits)
        m.d.sync += [
            answers.eq((header.code == ACK) | (header.code == NAK)),
            is_nak.eq((header.code == NAK) | self.resume),
            resumed.eq(self.resume),
            channel.eq(header.credit_channel),
            credits_.eq(header.credits),
        ]
        m.d.comb += [
            self.news.sequence.eq(Mux(self.resume, self.resumed.received, header.sequence)),
            self.news.answer.eq((checked.good & answers) | resumed),
            self.news.wanting.eq(is_nak),
        ]
        for v in range(self.spec.virtual_channels):
            with m.If(self.resume):
                m.d.sync += self.news.limits[v].eq(self.resumed.limits[v])
            with m.Elif(checked.good & (channel == v)):
                m.d.sync += self.news.limits[v].eq(credits_)

    def _count_credits(self, m):
        """Keeps the books of the far end's credits, and counts those that the client side loses or invents.

        The ledgers see all of it a register stage later, for speed. Returns them, and the register of reserved places.
        """
        leaks, violations, ledgers = [], [], []
        reserved = Signal(self.spec.virtual_channels)
        for v in range(self.spec.virtual_channels):
            ledger = CreditLedger(self.spec)
            m.submodules[f"ledger_{v}"] = ledger
            m.d.sync += [
                ledger.flit.eq(self.received & (self.o.flit.virtual_channel == v)),
                ledger.credit.eq(self.o.credit[v]),
                ledger.held.eq(self.o.held[v] | reserved[v]),
                ledger.restart.eq(self.flush),
            ]
            m.d.comb += self.local.limits[v].eq(ledger.limit)
            leaks.append(ledger.leak)
            violations.append(ledger.violation)
            ledgers.append(ledger)
        m.d.comb += [self.leaks.eq(sum(leaks)), self.violations.eq(sum(violations))]
        return ledgers, reserved

    def _close_packets(self, m, ledgers, reserved, closed):
        """Ends the packets in which the far end was reset, one after the other, each as soon as the client has room.

        Until then the far end has no credit for a flit behind the missing end.
        """
        channels, flit = range(self.spec.virtual_channels), self.o.flit
        is_open, closing = Signal(len(channels)), Signal(len(channels))
        ends = data.StructLayout({"destination": ADDRESS_BITS, "source": ADDRESS_BITS})
        packets, end, now = [Signal(ends, name=f"packet_{v}") for v in channels], Signal(ends), Signal(len(channels))
        # A flit opens and ends its packet a register stage later, with the ledger's.
        was, was_last, is_now_open = Signal(ends), Signal(), Signal(len(channels))
        m.d.sync += [was.destination.eq(flit.destination), was.source.eq(flit.source), was_last.eq(flit.last)]
        m.d.comb += [now.eq(lowest(reserved)), end.eq(one_hot_mux(now, packets))]
        m.d.sync += closed.eq(now.any())
        for v in channels:
            m.d.comb += ledgers[v].insert.eq(closing[v])
            m.d.comb += is_now_open[v].eq(Mux(ledgers[v].flit, ~was_last, is_open[v]))
            with m.If(ledgers[v].flit):
                m.d.sync += packets[v].eq(was)
            m.d.sync += [
                is_open[v].eq(is_now_open[v] & ~self.flush),
                closing[v].eq((closing[v] & ~ledgers[v].inserted) | (self.flush & is_now_open[v])),
                reserved[v].eq((reserved[v] & ~now[v]) | ledgers[v].inserted),
            ]
            with m.If(now[v]):
                m.d.sync += flit.virtual_channel.eq(v)
        with m.If(now.any()):
            m.d.sync += [flit.last.eq(1), flit.error.eq(1), flit.length_bytes.eq(0)]
            m.d.sync += [flit.destination.eq(end.destination), flit.source.eq(end.source)]
