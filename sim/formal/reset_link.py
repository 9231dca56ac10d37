"""Packets are proven to stay whole, or to end with an error, while either end of a link is reset."""

from amaranth import Cat, Mux, ResetInserter, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib.wiring import In

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.crc import implicit_sequence
from lightfabric.rtl.frame import frame_layout
from lightfabric.rtl.receiver import Receiver
from lightfabric.rtl.transmitter import Transmitter
from lightfabric.sim.formal.harness import TIGHT, Harness, Inside, latched, replaced, was

SERIAL_BITS = 5


class ResetLink(Harness):
    """Joins a transmitter and a receiver whose ends are reset whenever the solver likes, with the clients at them.

    A frame arrives in the cycle after its slot. A reset of either end, which takes its client along, empties the line for
    ``DOWN_CYCLES``, the training: the other end hears of it by ``flush``, and the transmitter of the receiver's state at the
    end. The payload of a flit says whether it begins its packet, and counts the flits of its virtual channel.

    Members
    -------
    valid, channel, last : In, the client's wish to send a flit of that virtual channel, and the flit ends its packet
    load : In(1), a slot of the line
    hear : In(1), the transmitter hears of the receiver's state
    give : In(spec.virtual_channels), the far client's wish to give a credit
    near, far : In(1), reset the transmitter's end, the receiver's
    """

    DOWN_CYCLES = 5
    END_CYCLES = 6
    """A packet that a reset cut is ended so many cycles after the flush, if the client has room."""

    def __init__(self, transmitter=Transmitter, receiver=Receiver, spec: ChipletSpec = TIGHT):
        self.spec, self.transmitter, self.receiver = spec, transmitter(spec), receiver(spec)
        choices = dict.fromkeys(("valid", "last", "load", "hear", "near", "far"), In(1))
        channels = spec.virtual_channels
        super().__init__({"channel": In(range(max(2, channels))), "give": In(channels), **choices})

    def _prove(self, m):
        inside, checks = Inside(self.transmitter).submodules, Inside(self.receiver).submodules
        m.submodules.transmitter = ResetInserter(self.near)(self.transmitter)
        m.submodules.receiver = ResetInserter(self.far)(self.receiver)
        up = self._line(m, inside.framer, checks.deframer)
        self._way_back(m, up)
        m.d.comb += Assert(self.receiver.violations == 0, "no flit comes without a credit")
        for v in range(self.spec.virtual_channels):
            self._source(m, v)
            self._sink(m, v)

    def _line(self, m, framer, deframer):
        """Keeps a frame for a cycle, and the line down after a reset; gives the signal that the line is up."""
        frame, full, up = Signal(frame_layout(self.spec)), Signal(), Signal()
        self.down = Signal(range(self.DOWN_CYCLES + 1))
        m.d.comb += up.eq((self.down == 0) & ~self.near & ~self.far)
        with m.If(self.near | self.far):
            m.d.sync += self.down.eq(self.DOWN_CYCLES)
        with m.Elif(self.down != 0):
            m.d.sync += self.down.eq(self.down - 1)
        replaced(framer, framer.load.eq(self.load & up))
        implicit = Signal.like(framer.implicit)
        # In place of a CRC: each frame has the error that its sequence makes in it, and so is right.
        error = implicit_sequence(self.spec, implicit)
        replaced(deframer, [deframer.frame.eq(frame), deframer.error.eq(error), deframer.valid.eq(full & up)])
        m.d.comb += [self.receiver.frames.eq(up), self.transmitter.sets.eq(~up)]
        m.d.sync += [full.eq(framer.load), frame.eq(framer.frame), implicit.eq(framer.implicit)]
        m.d.comb += [
            self.transmitter.flush.eq(was(m, self.far & ~self.near, "far_was_reset")),
            self.receiver.flush.eq(was(m, self.near & ~self.far, "near_was_reset")),
        ]
        return up

    def _way_back(self, m, up):
        """Brings the transmitter the receiver's state, at will and at the end of each training."""
        local, news, hears = self.receiver.local, self.transmitter.news, Signal()
        m.d.comb += [hears.eq((self.hear & up) | (self.down == 1)), news.sequence.eq(local.received)]
        m.d.sync += [news.answer.eq(hears & ~self.near & ~self.far), news.wanting.eq(local.wanting)]
        with m.If(hears):
            m.d.sync += [limit.eq(known) for limit, known in zip(news.limits, local.limits, strict=True)]

    def _source(self, m, v: int):
        """Sends flits as far as the queue has room; after a reset with the beginning of a packet."""
        source, depth = self.transmitter.i, self.spec.buffer_flits
        queued, sending = Signal(range(depth + 1), name=f"queued_{v}"), Signal(name=f"sending_{v}")
        serial, enters = Signal(SERIAL_BITS, name=f"serial_{v}"), Signal(name=f"enters_{v}")
        m.d.comb += enters.eq(self.valid & (self.channel == v) & (queued != depth) & ~self.near)
        with m.If(enters):
            m.d.comb += [source.valid.eq(1), source.flit.last.eq(self.last), source.flit.virtual_channel.eq(v)]
            m.d.comb += [source.flit.payload.eq(Cat(~sending, serial)), source.flit.length_bytes.eq(1)]
            m.d.sync += [serial.eq(serial + 1), sending.eq(~self.last)]
        m.d.sync += queued.eq(queued + enters - source.credit[v])
        with m.If(self.near):
            m.d.sync += [queued.eq(0), sending.eq(0)]

    def _sink(self, m, v: int):
        """Holds flits and gives credits, and checks that packets are whole or broken with an error."""
        sink, depth = self.receiver.o, self.spec.buffer_flits
        held, inside = Signal(range(depth + 1), name=f"held_{v}"), Signal(name=f"inside_{v}")
        upcoming, taken = Signal(SERIAL_BITS, name=f"upcoming_{v}"), Signal(name=f"taken_{v}")
        flit, begins, serial = sink.flit, sink.flit.payload[0], sink.flit.payload[1 : 1 + SERIAL_BITS]
        m.d.comb += [
            taken.eq(sink.valid & (flit.virtual_channel == v) & ~self.far),
            sink.held[v].eq(held != 0),
            sink.credit[v].eq(self.give[v] & (held != 0)),
            Assert(~taken | (held != depth), "the far buffer never overflows"),
            Assert(~taken | ~flit.error | (flit.last & inside), "only a packet that has begun ends with an error"),
            Assert(~taken | flit.error | ~begins | ~inside, "no packet begins in another one"),
            Assert(~taken | flit.error | begins | inside, "no packet begins in the middle"),
            Assert(~taken | flit.error | begins | (serial == upcoming), "no packet misses a flit"),
        ]
        m.d.sync += held.eq(held + taken - sink.credit[v])
        with m.If(taken):
            m.d.sync += [inside.eq(~flit.last), upcoming.eq(serial + 1)]
        with m.If(self.far):
            m.d.sync += [held.eq(0), inside.eq(0)]
        self._soon(m, v, inside & (held != depth), taken)
        broke = latched(m, taken & flit.error, f"broke_{v}")
        m.d.comb += Cover(broke & taken & ~flit.error & flit.last, "a packet comes whole after a broken one")

    def _soon(self, m, v: int, may_end, taken):
        """Asserts that a packet in which the far end was reset is ended soon."""
        cut, waited = Signal(name=f"cut_{v}"), Signal(range(self.END_CYCLES + 2), name=f"waited_{v}")
        m.d.sync += waited.eq(Mux(cut & may_end & ~taken & ~self.receiver.flush, waited + 1, 0))
        with m.If(taken | self.far):
            m.d.sync += cut.eq(0)
        with m.Elif(self.receiver.flush):
            m.d.sync += cut.eq(may_end)
        m.d.comb += Assert(waited <= self.END_CYCLES, "a packet that is cut is ended soon")
