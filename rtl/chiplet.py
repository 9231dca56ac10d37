"""A chiplet joins its clients, a switch, and a link for each optical port."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from amaranth import Cat, Const, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import ADDRESS_BITS
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.client import beat_layout, delivered_layout
from lightfabric.rtl.client_port import EVENT_BITS, ClientPort, streams_of
from lightfabric.rtl.line import LineSignature
from lightfabric.rtl.link import CODEWORDS, EVENTS, Link, status_layout
from lightfabric.rtl.switch import Routes, Switch

LINK_COUNTS = {
    "replays": 32,
    "crc_errors": 32,
    "corrected_symbols": 8,
    "uncorrectable_codewords": 2,
    "codewords": CODEWORDS,
}
"""A link gives these numbers, of so many bits."""


def paired_routes(spec: ChipletSpec, address: int) -> tuple[int, ...]:
    """Lists the routes of one of two chiplets, at addresses 0 and ``spec.ports``, with a fibre from port p to port p.

    >>> paired_routes(ChipletSpec(ports=2), 0)
    (0, 1, 2, 3)
    >>> paired_routes(ChipletSpec(ports=2), 2)
    (2, 3, 0, 1)
    """
    ports = spec.ports
    # Each far client has a line of its own: those with different numbers never share one.
    here = range(address, address + ports)
    return tuple(d - address if d in here else ports + d % ports for d in range(max(here.stop, 2 * ports)))


class Chiplet(wiring.Component):
    """Joins ``spec.ports`` clients and as many lines by one switch.

    Client p has the address ``address + p`` and switch port p; line p has switch port ``spec.ports + p``. A flit for
    destination d leaves by switch port ``routes[d]``, by default as in :func:`paired_routes`; see ``Switch``. A packet
    arrives once, in order among those of its source, destination and virtual channel, unchanged, whatever bits the lines
    flip. One that its source, a reset or a dead line cuts ends with a word of ``error`` after ``spec.stall_cycles`` and the
    time on its way, and keeps no other one waiting for longer. One for a destination that has no route is refused.

    What leaves the switch for line p on virtual channel v is sent on ``renames[p][v]``, a permutation, by default on v: a
    ring of chiplets is free of deadlock if one line of it renames and clients send on virtual channel 0. It takes no cycle.

    Members
    -------
    i : In(stream.Signature(beat_layout(spec))).array(spec.ports * streams_of(spec)), those of client 0 first
    o : Out(stream.Signature(delivered_layout(spec))).array(spec.ports * streams_of(spec))
    cut : In(1).array(spec.ports * streams_of(spec)), beside ``i``, as of ``Ingress``
    refused, stalled : Out(EVENT_BITS).array(spec.ports), as of ``ClientPort``
    switched : Out(spec.switch_ports), ports to which the switch gives a flit in this cycle
    tx : Out(LineSignature(spec)).array(spec.ports)
    tx_ready : In(1).array(spec.ports), as of ``Link``
    rx : In(LineSignature(spec)).array(spec.ports)
    slip : Out(spec.lanes_per_port).array(spec.ports)
    enable : In(1).array(spec.ports), as of ``Link``
    retrain : In(1).array(spec.ports), as of ``Link``
    status : Out(status_layout(spec)).array(spec.ports), as of ``Link``
    events : Out(EVENTS).array(spec.ports), as of ``Link``
    replays : Out(32).array(spec.ports)
    crc_errors : Out(32).array(spec.ports)
    corrected_symbols : Out(8).array(spec.ports), as of ``Link``
    uncorrectable_codewords : Out(2).array(spec.ports), as of ``Link``
    codewords : Out(CODEWORDS).array(spec.ports), as of ``Link``
    """

    def __init__(
        self,
        spec: ChipletSpec,
        address: int = 0,
        routes: Routes | None = None,
        renames: Mapping[int, Sequence[int]] = MappingProxyType({}),
    ):
        # The last client of the chiplet needs an address, too.
        last = (1 << ADDRESS_BITS) - spec.ports
        if not 0 <= address <= last:
            raise ValueError(f"Chiplet.address must be from 0 to {last}, not {address!r}")
        for rename in renames.values():
            if sorted(rename) != list(range(spec.virtual_channels)):
                raise ValueError(
                    f"Chiplet.renames must be permutations of 0..{spec.virtual_channels - 1}, not {tuple(rename)}"
                )
        self.spec, self.address, self.renames = spec, address, renames
        streams = spec.ports * streams_of(spec)
        self.routes = paired_routes(spec, address) if routes is None else routes
        super().__init__(
            {
                "i": In(stream.Signature(beat_layout(spec))).array(streams),
                "o": Out(stream.Signature(delivered_layout(spec))).array(streams),
                "cut": In(1).array(streams),
                "refused": Out(EVENT_BITS).array(spec.ports),
                "stalled": Out(EVENT_BITS).array(spec.ports),
                "switched": Out(spec.switch_ports),
                "tx": Out(LineSignature(spec)).array(spec.ports),
                "tx_ready": In(1, init=1).array(spec.ports),
                "rx": In(LineSignature(spec)).array(spec.ports),
                "slip": Out(spec.lanes_per_port).array(spec.ports),
                "enable": In(1, init=1).array(spec.ports),
                "retrain": In(1).array(spec.ports),
                "status": Out(status_layout(spec)).array(spec.ports),
                "events": Out(EVENTS).array(spec.ports),
                **{name: Out(bits).array(spec.ports) for name, bits in LINK_COUNTS.items()},
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.switch = switch = Switch(self.spec, self.routes)
        m.d.comb += self.switched.eq(Cat(o.valid for o in switch.o))
        for port in range(self.spec.ports):
            self._add_client(m, switch, port)
            self._add_line(m, switch, port)
        return m

    def _add_client(self, m, switch, port):
        m.submodules[f"client_{port}"] = client = ClientPort(self.spec, self.address + port, len(self.routes))
        wiring.connect(m, client.sent, switch.i[port])
        wiring.connect(m, switch.o[port], client.received)
        for n, stream_ in enumerate(range(port * len(client.i), (port + 1) * len(client.i))):
            wiring.connect(m, wiring.flipped(self.i[stream_]), client.i[n])
            wiring.connect(m, client.o[n], wiring.flipped(self.o[stream_]))
            m.d.comb += client.cut[n].eq(self.cut[stream_])
        m.d.comb += [self.refused[port].eq(client.refused), self.stalled[port].eq(client.stalled)]

    def _add_line(self, m, switch, port):
        m.submodules[f"link_{port}"] = link = Link(self.spec)
        self._connect_renamed(m, switch.o[self.spec.ports + port], link.i, self.renames.get(port))
        wiring.connect(m, link.o, switch.i[self.spec.ports + port])
        wiring.connect(m, link.tx, wiring.flipped(self.tx[port]))
        wiring.connect(m, wiring.flipped(self.rx[port]), link.rx)
        for name in ("tx_ready", "enable", "retrain"):
            m.d.comb += getattr(link, name).eq(getattr(self, name)[port])
        for name in ("slip", "status", "events", *LINK_COUNTS):
            m.d.comb += getattr(self, name)[port].eq(getattr(link, name))

    def _connect_renamed(self, m, output, input_, rename):
        if rename is None:
            wiring.connect(m, output, input_)
            return
        old = output.flit.virtual_channel
        table = Const(sum(new << len(old) * v for v, new in enumerate(rename)), len(old) * len(rename))
        m.d.comb += [input_.valid.eq(output.valid), input_.flit.eq(output.flit)]
        m.d.comb += input_.flit.virtual_channel.eq(table.word_select(old, len(old)))
        # A permutation keeps queues apart, so credits go back to where the flit came from.
        for v, new in enumerate(rename):
            m.d.comb += [output.credit[v].eq(input_.credit[new]), output.held[v].eq(input_.held[new])]
