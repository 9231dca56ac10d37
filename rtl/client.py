"""The client side: AXI4-Stream-like streams to credited flits, and back."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import ADDRESS_BITS
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import ChannelSignature, Credits, Queue, RoundRobin, one_hot_mux


def user_bits(spec: ChipletSpec) -> int:
    """Width of the stream's ``user``, which carries the virtual channel."""
    return max(1, (spec.virtual_channels - 1).bit_length())


def beat_layout(spec: ChipletSpec) -> data.StructLayout:
    """One beat of a client stream: the payload of one flit.

    ``keep`` is contiguous from byte 0; ``dest`` and ``user``, the virtual channel, are those of the packet and do not
    change before the beat after ``last``.
    """
    return data.StructLayout(
        {
            "data": spec.payload_bytes * 8,
            "keep": spec.payload_bytes,
            "last": 1,
            "dest": ADDRESS_BITS,
            "user": user_bits(spec),
        }
    )


def delivered_layout(spec: ChipletSpec) -> data.StructLayout:
    """A beat as it leaves the fabric: ``id`` is the address of its source."""
    return data.StructLayout({**{name: field.shape for name, field in beat_layout(spec)}, "id": ADDRESS_BITS})


def enabled_bytes(payload, keep):
    """``payload`` with zeros in place of the bytes that ``keep`` does not name."""
    return Cat(payload.word_select(i, 8) & keep[i].replicate(8) for i in range(len(keep)))


def length_of(keep):
    """Number of bytes in a ``keep`` that is contiguous from byte 0. Combinational: an edge, and an OR."""
    length = 0
    for i, ends in enumerate(keep & ~(keep >> 1)):
        length = length | Mux(ends, i + 1, 0)
    return length


class Ingress(wiring.Component):
    """Gives each beat of a stream to the network as one flit from ``address``.

    A beat taken in cycle t is the flit of cycle t + 1, at up to one per cycle, in order. A beat waits while its virtual
    channel has no credit; one of a virtual channel that the spec does not have waits for ever. Bytes outside ``keep`` are
    sent as zeros. From reset on it offers no flit and has all credits.

    Members
    -------
    i : In(stream.Signature(beat_layout(spec)))
    o : Out(ChannelSignature(spec))
    """

    def __init__(self, spec: ChipletSpec, address: int):
        if not 0 <= address < 1 << ADDRESS_BITS:
            raise ValueError(f"Ingress.address must be from 0 to {(1 << ADDRESS_BITS) - 1}, not {address!r}")
        self.spec, self.address = spec, address
        super().__init__({"i": In(stream.Signature(beat_layout(spec))), "o": Out(ChannelSignature(spec))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.credits = credits_ = Credits(self.spec)
        beat, taken = self.i.payload, Signal()
        wanted = Cat(beat.user == v for v in range(self.spec.virtual_channels))
        m.d.comb += [
            self.i.ready.eq((credits_.left & wanted).any()),
            taken.eq(self.i.valid & self.i.ready),
            credits_.spend.eq(wanted & taken.replicate(len(wanted))),
            credits_.refund.eq(self.o.credit),
        ]
        m.d.sync += self.o.valid.eq(taken)
        with m.If(taken):
            m.d.sync += [
                self.o.flit.last.eq(beat.last),
                self.o.flit.virtual_channel.eq(beat.user),
                self.o.flit.length_bytes.eq(length_of(beat.keep)),
                self.o.flit.destination.eq(beat.dest),
                self.o.flit.source.eq(self.address),
                self.o.flit.payload.eq(enabled_bytes(beat.data, beat.keep)),
            ]
        return m


class Egress(wiring.Component):
    """Gives the flits of the network to a stream, a whole packet at a time.

    A flit of cycle t is offered from cycle t + 1 on, at up to one per cycle without a bubble, and stays unchanged until
    it is taken. The virtual channels take turns, each for one packet: once a packet has begun, its virtual channel keeps
    the stream until ``last``. Order is kept within a virtual channel. A stream that is not ready fills the queue and
    withholds its credits.

    Members
    -------
    i : In(ChannelSignature(spec))
    o : Out(stream.Signature(delivered_layout(spec)))
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        super().__init__({"i": In(ChannelSignature(spec)), "o": Out(stream.Signature(delivered_layout(spec)))})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        m.submodules.queue = queue = Queue(spec)
        m.submodules.turn = turn = RoundRobin(spec.virtual_channels)
        wiring.connect(m, wiring.flipped(self.i), queue.i)

        held, holder, serving = Signal(), Signal(spec.virtual_channels), Signal(spec.virtual_channels)
        flit, taken = Signal.like(queue.heads[0]), Signal()
        m.d.comb += [
            turn.requests.eq(queue.valid),
            turn.taken.eq(self.o.valid & ~held),
            serving.eq(Mux(held, holder, turn.grant)),
            flit.eq(one_hot_mux(serving, queue.heads)),
            self.o.valid.eq((serving & queue.valid).any()),
            taken.eq(self.o.valid & self.o.ready),
            queue.pop.eq(serving & taken.replicate(len(serving))),
        ]
        with m.If(self.o.valid):  # also before it is ready: what is offered must not change
            m.d.sync += [held.eq(~(taken & flit.last)), holder.eq(serving)]
        beat = self.o.payload
        m.d.comb += [
            beat.data.eq(flit.payload),
            beat.keep.eq(Cat(flit.length_bytes > i for i in range(spec.payload_bytes))),
            beat.last.eq(flit.last),
            beat.dest.eq(flit.destination),
            beat.user.eq(flit.virtual_channel),
            beat.id.eq(flit.source),
        ]
        return m
