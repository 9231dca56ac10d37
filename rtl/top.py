"""Verilog tops give blocks AXI4 names, the clock ``clk`` and the reset ``rst`` (synchronous, active high).

The streams of a client belong to a clock of its own, with a reset of its own; any two clocks will do. A reset of the client
cuts the packets that are on their way through the crossing between the two, and nothing else. With ``channel_streams`` of
the spec there is a stream for each virtual channel, of that number after a ``c``: ``s0c1_axis_tdata``.
"""

from typing import Any, NamedTuple

from amaranth import Cat, ClockDomain, ClockSignal, Module, ResetSignal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.ber_tester import BerTester
from lightfabric.rtl.bus_decoder import BusDecoder, bus_address_bits
from lightfabric.rtl.chiplet import Chiplet
from lightfabric.rtl.client import beat_layout, delivered_layout
from lightfabric.rtl.client_port import EVENT_BITS, ClientPort, streams_of
from lightfabric.rtl.crossing import StreamCrossing
from lightfabric.rtl.link import Link
from lightfabric.rtl.link_register import LinkRegisters
from lightfabric.rtl.register import AxiLiteSignature, Registers
from lightfabric.rtl.register_map import BUS_ADDRESS_BITS, SIDES, chiplet_registers
from lightfabric.rtl.switch import Switch


def _flat_stream(prefix: str, layout: data.StructLayout, flow, against) -> dict[str, wiring.Member]:
    """Lists the members of one AXI4-Stream: ``flow`` is the direction of the data, ``against`` that of ``tready``."""
    members = {f"{prefix}_t{name}": flow(field.shape) for name, field in layout}
    return {**members, f"{prefix}_tvalid": flow(1), f"{prefix}_tready": against(1)}


def _flat_delivered(spec: ChipletSpec) -> data.StructLayout:
    """Lays out a delivered word with ``error`` as the highest bit of ``user``: AXI4-Stream has no other place for it."""
    fields = {name: field.shape for name, field in delivered_layout(spec) if name != "error"}
    return data.StructLayout({**fields, "user": fields["user"] + 1})


def _flat_line(spec: ChipletSpec, port: str = "") -> dict[str, wiring.Member]:
    """Lists the members of one line; the block of wavelength 0 is in the low bits, and in each block its sync header."""
    bits = spec.lanes_per_port * spec.block_bits_on_line
    return {
        f"tx{port}_data": Out(bits),
        f"tx{port}_valid": Out(1),
        f"tx{port}_ready": In(1, init=1),
        f"rx{port}_data": In(bits),
        f"rx{port}_valid": In(1),
        f"rx{port}_slip": Out(spec.lanes_per_port),
        f"replays{port}": Out(32),
        f"crc_errors{port}": Out(32),
    }


def _stream_names(spec: ChipletSpec, port) -> list[str]:
    """Names the streams of a port: by its number, and with several by that of the virtual channel."""
    return [f"{port}c{v}" for v in range(spec.virtual_channels)] if spec.channel_streams else [str(port)]


def _clients(spec: ChipletSpec, ports) -> dict[str, wiring.Member]:
    """Lists the members of the client streams of these ports, each port with its clock and reset."""
    members = {}
    for port in ports:
        members |= {f"client{port}_clk": In(1), f"client{port}_rst": In(1)}
        for name in _stream_names(spec, port):
            members |= _flat_stream(f"s{name}_axis", beat_layout(spec), In, Out)
            members |= _flat_stream(f"m{name}_axis", _flat_delivered(spec), Out, In)
    return members


def _take(m, top, prefix: str, into):
    """Connects the stream that enters ``top`` under ``prefix``."""
    m.d.comb += [into.payload[name].eq(getattr(top, f"{prefix}_t{name}")) for name, _ in into.payload.shape()]
    m.d.comb += [into.valid.eq(getattr(top, f"{prefix}_tvalid")), getattr(top, f"{prefix}_tready").eq(into.ready)]


def _give(m, top, prefix: str, from_):
    """Connects the stream of delivered words that leaves ``top`` under ``prefix``."""
    fields = {name: from_.payload[name] for name, _ in from_.payload.shape()}
    fields["user"] = Cat(fields["user"], fields.pop("error"))
    m.d.comb += [getattr(top, f"{prefix}_t{name}").eq(value) for name, value in fields.items()]
    m.d.comb += [getattr(top, f"{prefix}_tvalid").eq(from_.valid), from_.ready.eq(getattr(top, f"{prefix}_tready"))]


def _join_client(m, top, port, into, cut, from_):
    """Connects the client of a port: ``into`` takes its words, with ``cut`` beside, and ``from_`` gives those for it.

    These are lists, with an entry per stream. The two clocks know nothing of each other, and only the crossings here see
    both.
    """
    # A domain of this top alone: two of them in a design may have clients of different clocks.
    client = f"client{port}"
    m.domains += ClockDomain(client, local=True)
    m.d.comb += [
        ClockSignal(client).eq(getattr(top, f"{client}_clk")),
        ResetSignal(client).eq(getattr(top, f"{client}_rst")),
    ]
    for n, name in enumerate(_stream_names(top.spec, port)):
        inwards = StreamCrossing(beat_layout(top.spec), i_domain=client, o_domain="sync")
        outwards = StreamCrossing(delivered_layout(top.spec), i_domain="sync", o_domain=client)
        m.submodules[f"inwards{name}"], m.submodules[f"outwards{name}"] = inwards, outwards
        wiring.connect(m, inwards.o, into[n])
        m.d.comb += cut[n].eq(inwards.cut)
        wiring.connect(m, from_[n], outwards.i)
        _take(m, top, f"s{name}_axis", inwards.i)
        _give(m, top, f"m{name}_axis", outwards.o)


def _flat_bus(address_bits: int) -> dict[str, wiring.Member]:
    """Lists the members of the register bus and its interrupt."""
    bus = AxiLiteSignature(address_bits).members.items()
    return {**{f"s_axil_{name}": member.flip() for name, member in bus}, "irq": Out(1)}


def _join_bus(m, top, bus):
    """Connects a slave to the register bus of ``top``."""
    for name, member in bus.signature.members.items():
        inside, outside = getattr(bus, name), getattr(top, f"s_axil_{name}")
        m.d.comb += inside.eq(outside) if member.flow is In else outside.eq(inside)


class _LinkEnd(NamedTuple):
    """Names the signals of a link on its line."""

    tx: Any
    tx_ready: Any
    rx: Any
    slip: Any


def _join_tested_line(m, top, port, end: _LinkEnd, registers: LinkRegisters):
    """Connects a line to the members of ``top``, through the bit error tester where the spec has one."""
    if not top.spec.ber_tester:
        _join_line(m, top, port, *end)
        return
    m.submodules[f"ber_tester{port}"] = tester = BerTester(top.spec)
    wiring.connect(m, end.tx, tester.link_tx)
    wiring.connect(m, tester.link_rx, end.rx)
    _join_line(m, top, port, tester.tx, end.tx_ready, tester.rx, end.slip)
    m.d.comb += [tester.controls[name].eq(registers.controls[name]) for name, _ in tester.controls.shape()]
    m.d.comb += registers.tester.eq(tester.status)


LINK_TELLS = ("status", "events", "corrected_symbols", "uncorrectable_codewords", "codewords")
"""A link shows these to its registers."""


def _join_line(m, top, port: str, tx, tx_ready, rx, slip):
    """Connects both directions of a line to the members of ``top``."""
    m.d.comb += [
        getattr(top, f"tx{port}_data").eq(Cat(block.as_value() for block in tx.blocks)),
        getattr(top, f"tx{port}_valid").eq(tx.valid),
        tx_ready.eq(getattr(top, f"tx{port}_ready")),
        Cat(block.as_value() for block in rx.blocks).eq(getattr(top, f"rx{port}_data")),
        rx.valid.eq(getattr(top, f"rx{port}_valid")),
        getattr(top, f"rx{port}_slip").eq(slip),
    ]


class AxiLink(wiring.Component):
    """Joins one end of a link to its registers and a client stream each way; ``tdest`` and ``tuser`` arrive as sent.

    Whatever is reset at either end, and when: a packet arrives whole, or not at all, or as its beginning, that ends with a
    word of ``m_axis_tlast`` and ``error``, the highest bit of ``m_axis_tuser``; the others are the virtual channel.

    Members
    -------
    s_axis_t* : In, the words of ``rtl.client.beat_layout``
    m_axis_t* : Out, the words of ``rtl.client.delivered_layout``, ``error`` as the highest of ``tuser``
    s_axil_* : the registers of ``rtl.register_map.REGISTERS``
    client_clk, client_rst : In(1)
    irq : Out(1)
    rx_phase : Out(8), what software asks of a SerDes, as the register of that name says
    tx_data, tx_valid, tx_ready, rx_data, rx_valid, rx_slip : the line
    replays, crc_errors : Out(32)
    """

    def __init__(self, spec: ChipletSpec, address: int = 0):
        self.spec, self.address = spec, address
        bus = _flat_bus(BUS_ADDRESS_BITS)
        super().__init__({**_clients(spec, [""]), **_flat_line(spec), **bus, "rx_phase": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.client = client = ClientPort(self.spec, self.address)
        m.submodules.link = link = Link(self.spec)
        m.submodules.registers = registers = LinkRegisters(self.spec)
        wiring.connect(m, client.sent, link.i)
        wiring.connect(m, link.o, client.received)
        _join_client(m, self, "", client.i, client.cut, client.o)
        _join_bus(m, self, registers.bus)
        m.d.comb += [getattr(registers, name).eq(getattr(link, name)) for name in LINK_TELLS]
        m.d.comb += [getattr(registers, name).eq(getattr(client, name)) for name in ("refused", "stalled")]
        m.d.comb += [
            link.enable.eq(registers.enable),
            link.retrain.eq(registers.retrain),
            self.irq.eq(registers.irq),
            self.rx_phase.eq(registers.controls.rx_phase),
            self.replays.eq(link.replays),
            self.crc_errors.eq(link.crc_errors),
        ]
        _join_tested_line(m, self, "", _LinkEnd(link.tx, link.tx_ready, link.rx, link.slip), registers)
        return m


class AxiSwitch(wiring.Component):
    """Joins the switch to a client at every port; port p has the address p.

    Whatever client is reset, stalls or sends what nobody can carry, the packets of the others pass.

    Members
    -------
    s0_axis_t*, s1_axis_t*, ... : In, the words of ``rtl.client.beat_layout``
    m0_axis_t*, m1_axis_t*, ... : Out, the words of ``rtl.client.delivered_layout``, ``error`` as the highest of ``tuser``
    client0_clk, client0_rst, ... : In(1)
    refused0, stalled0, ... : Out(EVENT_BITS), as of ``ClientPort``
    """

    def __init__(self, spec: ChipletSpec, routes: tuple[int, ...] | None = None):
        self.spec, self.routes = spec, routes
        ports = range(spec.switch_ports)
        events = {f"{name}{port}": Out(EVENT_BITS) for name in ("refused", "stalled") for port in ports}
        super().__init__(_clients(spec, ports) | events)

    def elaborate(self, platform):
        m = Module()
        m.submodules.switch = switch = Switch(self.spec, self.routes)
        # Verilog 2005 has no arrays of ports: each port has its number in its name.
        for port in range(self.spec.switch_ports):
            m.submodules[f"client_{port}"] = client = ClientPort(self.spec, port, len(switch.routes))
            wiring.connect(m, client.sent, switch.i[port])
            wiring.connect(m, switch.o[port], client.received)
            _join_client(m, self, port, client.i, client.cut, client.o)
            m.d.comb += getattr(self, f"refused{port}").eq(client.refused)
            m.d.comb += getattr(self, f"stalled{port}").eq(client.stalled)
        return m


class AxiChiplet(wiring.Component):
    """Gives the chiplet flat names: ``spec.ports`` client streams each way, as many lines, and one bus for all registers.

    The bus has a page of registers for each port, those of its link and its client, and after them one of the chiplet, as
    :func:`~lightfabric.rtl.register_map.chiplet_registers` lists them. The interrupt is that of any of them.

    Whatever is reset, clients, chiplets or their peers, and when: a packet arrives whole, or not at all, or as its
    beginning, that ends with a word of ``error``; the others pass.

    Members
    -------
    s0_axis_t*, ... : In, the words of ``rtl.client.beat_layout``
    m0_axis_t*, ... : Out, the words of ``rtl.client.delivered_layout``, ``error`` as the highest of ``tuser``
    client0_clk, client0_rst, ... : In(1)
    s_axil_* : the registers, as of ``BusDecoder``
    irq : Out(1)
    rx0_phase, ... : Out(8), what software asks of a SerDes, as the register ``rx_phase`` says
    tx0_data, tx0_valid, tx0_ready, rx0_data, rx0_valid, rx0_slip, ... : the lines
    replays0, crc_errors0, ... : Out(32)
    """

    def __init__(self, spec: ChipletSpec, address: int = 0, routes: tuple[int, ...] | None = None):
        self.spec, self.address, self.routes = spec, address, routes
        members = _clients(spec, range(spec.ports)) | _flat_bus(bus_address_bits(spec.ports + 1))
        for port in range(spec.ports):
            members |= {**_flat_line(spec, str(port)), f"rx{port}_phase": Out(8)}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.chiplet = chiplet = Chiplet(self.spec, self.address, self.routes)
        m.submodules.decoder = decoder = BusDecoder(self.spec.ports + 1)
        _join_bus(m, self, decoder.bus)
        interrupts = [self._add_port(m, chiplet, decoder.pages[port], port) for port in range(self.spec.ports)]
        m.submodules.registers = registers = Registers(chiplet_registers(self.spec.ports))
        wiring.connect(m, decoder.pages[self.spec.ports], registers.bus)
        m.d.comb += [self.irq.eq(Cat(interrupts).any()), registers.inputs.interrupt_ports.eq(Cat(interrupts))]
        for number, flits in enumerate(chiplet.switched):
            side, port = divmod(number, self.spec.ports)
            m.d.comb += registers.inputs[f"flits_to_{SIDES[side]}_{port}"].eq(flits)
        return m

    def _add_port(self, m, chiplet, page, port: int):
        """Connects the client and the line of a port, and their registers, whose interrupt is returned."""
        m.submodules[f"registers_{port}"] = registers = LinkRegisters(self.spec)
        wiring.connect(m, page, registers.bus)
        count = streams_of(self.spec)
        own = slice(port * count, (port + 1) * count)
        _join_client(m, self, port, chiplet.i[own], chiplet.cut[own], chiplet.o[own])
        m.d.comb += [
            getattr(registers, name).eq(getattr(chiplet, name)[port]) for name in (*LINK_TELLS, "refused", "stalled")
        ]
        m.d.comb += [
            chiplet.enable[port].eq(registers.enable),
            chiplet.retrain[port].eq(registers.retrain),
            getattr(self, f"rx{port}_phase").eq(registers.controls.rx_phase),
            getattr(self, f"replays{port}").eq(chiplet.replays[port]),
            getattr(self, f"crc_errors{port}").eq(chiplet.crc_errors[port]),
        ]
        end = _LinkEnd(chiplet.tx[port], chiplet.tx_ready[port], chiplet.rx[port], chiplet.slip[port])
        _join_tested_line(m, self, str(port), end, registers)
        return registers.irq


tops: dict[str, type[wiring.Component]] = {"link": AxiLink, "switch": AxiSwitch, "chiplet": AxiChiplet}
"""Each block that can be written as Verilog has its component here; all are made from a ``ChipletSpec`` alone."""
