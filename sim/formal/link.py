"""Both halves of a link are proven together, with a line between them that loses and spoils what it likes."""

from amaranth import Cat, Const, Mux, Signal, Value
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import data
from amaranth.lib.wiring import In

from lightfabric.model.codec import CRC_BITS, crc_field, header_fields
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import flit_layout
from lightfabric.rtl.crc import implicit_sequence
from lightfabric.rtl.frame import frame_layout
from lightfabric.rtl.receiver import Receiver
from lightfabric.rtl.transmitter import Transmitter
from lightfabric.sim.formal.harness import TIGHT, Harness, Inside, counts, latched, replaced, was

NOISE = ("type", "code", "sequence")
"""A receiver looks at these fields in the header of a wrong frame."""


class LossyLine(Harness):
    """Joins a transmitter and a receiver by a line that does to each frame what it likes.

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

    MAX_FLITS = 15
    CHOICES = ("valid", "load", "arrive", "stay", "right", "lost", "report", "hear")

    def __init__(self, transmitter=Transmitter, receiver=Receiver, spec: ChipletSpec = TIGHT):
        self.spec, self.transmitter, self.receiver = spec, transmitter(spec), receiver(spec)
        choices = dict.fromkeys(self.CHOICES, In(1))
        channels, noise = spec.virtual_channels, data.StructLayout({name: header_fields(spec)[name] for name in NOISE})
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
        """Keeps one frame on the line, in the place of framer, line and deframer."""
        frame, implicit, full = Signal(frame_layout(self.spec)), Signal(self.spec.sequence_bits), Signal()
        arrives, leaves = Signal(), Signal()
        self.is_dropped, self.is_again = Signal(), Signal()  # of the frame on the line: it is lost, it is of a replay
        wrong = Signal(frame_layout(self.spec))
        m.d.comb += [
            arrives.eq(full & self.arrive),
            leaves.eq(arrives & ~self.stay),
            self.is_dropped.eq(leaves & self.lost),
            [wrong.header[name].eq(self.noise[name]) for name in NOISE],
        ]
        # In place of a CRC: the error that a right frame has is that of its sequence, and noise has one that is none.
        error = Mux(self.right, implicit_sequence(self.spec, implicit), no_sequence(self.spec))
        shown = Mux(self.right, frame.as_value(), wrong.as_value())
        replaced(framer, framer.load.eq(self.load & (~full | leaves)))
        replaced(deframer, [deframer.frame.eq(shown), deframer.error.eq(error), deframer.valid.eq(arrives & ~self.lost)])
        m.d.comb += self.receiver.frames.eq(1)
        m.d.sync += full.eq(framer.load | (full & ~leaves))
        with m.If(framer.load):
            m.d.sync += [frame.eq(framer.frame), implicit.eq(framer.implicit), self.is_again.eq(again)]

    def _way_back(self, m):
        """Brings the transmitter the receiver's state as it once was; the limits come with it."""
        local, news = self.receiver.local, self.transmitter.news
        # One state on its way is enough: the line may keep it for as long as it likes.
        told = Signal(local.shape(), init={"received": self.spec.sequences - 1})
        with m.If(self.report):
            m.d.sync += told.eq(local)
        m.d.comb += news.sequence.eq(told.received)
        m.d.sync += [news.answer.eq(self.hear), news.wanting.eq(told.wanting)]
        with m.If(self.hear):
            m.d.sync += [limit.eq(known) for limit, known in zip(news.limits, told.limits, strict=True)]

    def _clients(self, m):
        """Sends numbered flits as far as the queues have room, and holds them at the far end and gives credits."""
        source, sink, depth = self.transmitter.i, self.receiver.o, self.spec.buffer_flits
        self.waiting = Signal()
        waiting = []
        for v in range(self.spec.virtual_channels):
            enters = Signal(name=f"enters_{v}")
            taken = sink.valid & (sink.flit.virtual_channel == v)
            sent = counts(m, enters, 0, f"sent_{v}", self.MAX_FLITS)
            delivered = counts(m, taken, 0, f"delivered_{v}", self.MAX_FLITS)
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
        """Makes the flit with so many before it in virtual channel ``v``; every field changes with the number."""
        flit = Signal(flit_layout(self.spec))
        values = {"last": number[0], "error": number[1], "virtual_channel": v, "payload": number, "length_bytes": ~number}
        values |= {"destination": Cat(number, v), "source": ~Cat(number, v)}
        parts = []
        for name, field in flit.shape():
            value = Value.cast(values[name])
            parts.append(
                value[: field.width] if len(value) >= field.width else Cat(value, Const(0, field.width - len(value)))
            )
        return Cat(parts)


class Calm(LossyLine):
    """Lets the line lose and spoil frames for some cycles, then become calm and stay so.

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
    """Finds an error of a CRC field that no sequence makes."""
    nothing = crc_field(spec, bytes(spec.flit_bytes - spec.CRC_BYTES))
    body = bytes(spec.flit_bytes - spec.CRC_BYTES)
    made = {crc_field(spec, body, sequence) ^ nothing for sequence in range(1 << spec.sequence_bits)}
    return next(error for error in range(1 << CRC_BITS) if error not in made)
