"""A client port joins the streams of a client to the network: one stream each way, or one for each virtual channel.

With one stream a client that does not take a packet of one virtual channel takes none of the others either, and a packet
that waits for a credit has those of other channels behind it. A protocol whose answers must pass its requests needs a *lane*
for each: a stream of its own with an ``Ingress`` and an ``Egress`` that know of one virtual channel alone.
"""

from dataclasses import replace

from amaranth import Cat, Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import ADDRESS_BITS
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import ChannelSignature, Credits, Fifo, RoundRobin, one_hot_mux
from lightfabric.rtl.client import Egress, Ingress, beat_layout, delivered_layout

EVENT_BITS = 4
"""So many bits hold the number of virtual channels, each of which may have an event in a cycle."""


def streams_of(spec: ChipletSpec) -> int:
    """Counts the streams of a client in each direction."""
    return spec.virtual_channels if spec.channel_streams else 1


class ChannelMerge(wiring.Component):
    """Sends the flits of channels of one virtual channel each on one channel that has all of them.

    Flits of ``i[v]`` leave on virtual channel v, in order, 2 cycles later if they have a credit and nobody else wants to
    send; the virtual channels take turns, and one without credit keeps none of the others waiting. Rate one flit per cycle.

    Members
    -------
    i : In(ChannelSignature(spec of one virtual channel)).array(spec.virtual_channels)
    o : Out(ChannelSignature(spec))
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        channel = In(ChannelSignature(replace(spec, virtual_channels=1)))
        super().__init__({"i": channel.array(spec.virtual_channels), "o": Out(ChannelSignature(spec))})

    def elaborate(self, platform):
        m = Module()
        flits = []
        m.submodules.credits = credits_ = Credits(self.spec)
        m.submodules.turn = turn = RoundRobin(self.spec.virtual_channels)
        m.d.comb += [turn.taken.eq(turn.grant.any()), credits_.spend.eq(turn.grant), credits_.refund.eq(self.o.credit)]
        for v, channel in enumerate(self.i):
            flit = Value.cast(channel.flit)
            m.submodules[f"fifo_{v}"] = fifo = Fifo(width=len(flit), depth=self.spec.buffer_flits)
            m.d.comb += [
                fifo.w_data.eq(flit),
                fifo.w_en.eq(channel.valid),
                fifo.r_en.eq(turn.grant[v]),
                turn.requests[v].eq(fifo.r_rdy & credits_.left[v]),
                channel.credit.eq(turn.grant[v]),
                channel.held.eq(fifo.r_rdy),
            ]
            flits.append(fifo.r_data)
        m.d.sync += [self.o.valid.eq(turn.grant.any()), Value.cast(self.o.flit).eq(one_hot_mux(turn.grant, flits))]
        m.d.sync += self.o.flit.virtual_channel.eq(one_hot_mux(turn.grant, range(self.spec.virtual_channels)))
        return m


class ClientPort(wiring.Component):
    """Joins the client at ``address`` to the network, with the contract of ``Ingress`` and ``Egress``.

    Without ``spec.channel_streams`` it is these two and takes no cycle of its own. With them stream v is that of virtual
    channel v: its words come with that in ``user``, and whatever they bring in there does not matter; flits of a client
    come 2 cycles later. No stream waits for another one, to or from the client.

    Members
    -------
    i : In(stream.Signature(beat_layout(spec))).array(streams_of(spec))
    cut : In(1).array(streams_of(spec)), beside ``i``, as of ``Ingress``
    o : Out(stream.Signature(delivered_layout(spec))).array(streams_of(spec))
    sent : Out(ChannelSignature(spec)), to the network
    received : In(ChannelSignature(spec)), from the network
    refused, stalled : Out(EVENT_BITS), packets refused, and cut because their source stalls, in this cycle
    """

    def __init__(self, spec: ChipletSpec, address: int, destinations: int = 1 << ADDRESS_BITS):
        self.spec, self.address, self.destinations = spec, address, destinations
        count = streams_of(spec)
        super().__init__(
            {
                "i": In(stream.Signature(beat_layout(spec))).array(count),
                "cut": In(1).array(count),
                "o": Out(stream.Signature(delivered_layout(spec))).array(count),
                "sent": Out(ChannelSignature(spec)),
                "received": In(ChannelSignature(spec)),
                "refused": Out(EVENT_BITS),
                "stalled": Out(EVENT_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        of_lane = replace(self.spec, virtual_channels=1) if self.spec.channel_streams else self.spec
        lanes = [(Ingress(of_lane, self.address, self.destinations), Egress(of_lane)) for _ in self.i]
        for n, (ingress, egress) in enumerate(lanes):
            m.submodules[f"ingress_{n}"], m.submodules[f"egress_{n}"] = ingress, egress
            m.d.comb += ingress.cut.eq(self.cut[n])
        ingresses = [ingress for ingress, _ in lanes]
        m.d.comb += [
            getattr(self, name).eq(sum(getattr(each, name) for each in ingresses)) for name in ("refused", "stalled")
        ]
        if self.spec.channel_streams:
            self._join_lanes(m, lanes)
        else:
            self._join_alone(m, *lanes[0])
        return m

    def _join_alone(self, m, ingress, egress):
        wiring.connect(m, wiring.flipped(self.i[0]), ingress.i)
        wiring.connect(m, ingress.o, wiring.flipped(self.sent))
        wiring.connect(m, wiring.flipped(self.received), egress.i)
        wiring.connect(m, egress.o, wiring.flipped(self.o[0]))

    def _join_lanes(self, m, lanes):
        m.submodules.merge = merge = ChannelMerge(self.spec)
        wiring.connect(m, merge.o, wiring.flipped(self.sent))
        for v, (ingress, egress) in enumerate(lanes):
            wiring.connect(m, ingress.o, merge.i[v])
            m.d.comb += [
                ingress.i.valid.eq(self.i[v].valid),
                self.i[v].ready.eq(ingress.i.ready),
                [field.eq(0 if name == "user" else self.i[v].payload[name]) for name, field in _fields(ingress.i)],
                egress.i.valid.eq(self.received.valid & (self.received.flit.virtual_channel == v)),
                egress.i.flit.eq(self.received.flit),
                egress.i.flit.virtual_channel.eq(0),
                self.o[v].valid.eq(egress.o.valid),
                egress.o.ready.eq(self.o[v].ready),
                [field.eq(v if name == "user" else egress.o.payload[name]) for name, field in _fields(self.o[v])],
            ]
        m.d.comb += [
            self.received.credit.eq(Cat(egress.i.credit for _, egress in lanes)),
            self.received.held.eq(Cat(egress.i.held for _, egress in lanes)),
        ]


def _fields(words):
    """Lists the fields of a stream's word, each with its name."""
    return [(name, words.payload[name]) for name, _ in words.payload.shape()]
