"""Verilog tops give blocks AXI4 names, the clock ``clk`` and the reset ``rst`` (synchronous, active high)."""

from amaranth import Cat, ClockDomain, ClockSignal, Module, Mux, ResetSignal, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.ber_tester import BerTester
from lightfabric.rtl.chiplet import Chiplet
from lightfabric.rtl.client import Egress, Ingress, beat_layout, delivered_layout
from lightfabric.rtl.crossing import StreamCrossing
from lightfabric.rtl.link import LANE_STATUS, Link
from lightfabric.rtl.register import AxiLiteSignature, Registers
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


def _clients(spec: ChipletSpec, ports) -> dict[str, wiring.Member]:
    """Lists the members of the client streams of these ports."""
    members = {}
    for port in ports:
        members |= _flat_stream(f"s{port}_axis", beat_layout(spec), In, Out)
        members |= _flat_stream(f"m{port}_axis", _flat_delivered(spec), Out, In)
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

    The streams belong to the clock ``client_clk`` with the reset ``client_rst``, all else to ``clk`` with ``rst``; any two
    clocks will do. A reset of the client cuts the packets that are on their way through the crossing, and nothing else.
    Whatever is reset at either end, and when: a packet arrives whole, or not at all, or as its beginning, that ends with a
    word of ``m_axis_tlast`` and ``error``, the highest bit of ``m_axis_tuser``; the others are the virtual channel.

    Members
    -------
    s_axis_t* : In, the words of ``rtl.client.beat_layout``
    m_axis_t* : Out, the words of ``rtl.client.delivered_layout``, ``error`` as the highest of ``tuser``
    s_axil_* : the registers of ``rtl.register.REGISTERS``
    client_clk, client_rst : In(1)
    irq : Out(1)
    rx_phase : Out(8), what software asks of a SerDes, as the register of that name says
    tx_data, tx_valid, tx_ready, rx_data, rx_valid, rx_slip : the line
    replays, crc_errors : Out(32)
    """

    def __init__(self, spec: ChipletSpec, address: int = 0):
        self.spec, self.address = spec, address
        bus = {f"s_axil_{name}": member.flip() for name, member in AxiLiteSignature().members.items()}
        clock = {"client_clk": In(1), "client_rst": In(1)}
        super().__init__(_clients(spec, [""]) | _flat_line(spec) | bus | {"irq": Out(1), "rx_phase": Out(8)} | clock)

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        # A domain of this block alone: two links of a design may have clients of different clocks.
        m.domains.client = ClockDomain(local=True)
        m.d.comb += [ClockSignal("client").eq(self.client_clk), ResetSignal("client").eq(self.client_rst)]
        m.submodules.ingress = ingress = Ingress(spec, self.address)
        m.submodules.egress = egress = Egress(spec)
        m.submodules.link = link = Link(spec)
        # The two clocks know nothing of each other, and only these crossings see both.
        m.submodules.inwards = inwards = StreamCrossing(beat_layout(spec), i_domain="client", o_domain="sync")
        m.submodules.outwards = outwards = StreamCrossing(delivered_layout(spec), i_domain="sync", o_domain="client")
        wiring.connect(m, inwards.o, ingress.i)
        m.d.comb += ingress.cut.eq(inwards.cut)
        wiring.connect(m, ingress.o, link.i)
        wiring.connect(m, link.o, egress.i)
        wiring.connect(m, egress.o, outwards.i)
        _take(m, self, "s_axis", inwards.i)
        _give(m, self, "m_axis", outwards.o)
        m.d.comb += [self.replays.eq(link.replays), self.crc_errors.eq(link.crc_errors)]
        registers = self._add_registers(m, link)
        if spec.ber_tester:
            self._add_tester(m, link, registers)
        else:
            _join_line(m, self, "", link.tx, link.tx_ready, link.rx, link.slip)
        return m

    def _add_tester(self, m, link, registers):
        """Puts the bit error tester between the link and its line."""
        m.submodules.ber_tester = tester = BerTester(self.spec)
        wiring.connect(m, link.tx, tester.link_tx)
        wiring.connect(m, tester.link_rx, link.rx)
        _join_line(m, self, "", tester.tx, link.tx_ready, tester.rx, link.slip)
        m.d.comb += [tester.controls[name].eq(registers.controls[name]) for name, _ in tester.controls.shape()]
        m.d.comb += [registers.inputs[name].eq(tester.status[name]) for name, _ in tester.status.shape()]

    def _add_registers(self, m, link):
        """Puts the registers on the bus, which are returned, and shows them what the link tells."""
        m.submodules.registers = registers = Registers()
        for name, member in registers.bus.signature.members.items():
            inside, outside = getattr(registers.bus, name), getattr(self, f"s_axil_{name}")
            m.d.comb += inside.eq(outside) if member.flow is In else outside.eq(inside)
        status, events, inputs = link.status, link.events, registers.inputs
        # Events are changes of the status, so each needs the status of the cycle before.
        was_up, was_fewer, fewer = Signal(), Signal(2), Signal(2)
        m.d.sync += [was_up.eq(status.active), was_fewer.eq(fewer)]
        m.d.comb += [
            self.irq.eq(registers.irq),
            self.rx_phase.eq(registers.controls.rx_phase),
            link.enable.eq(registers.controls.enable & ~(self.spec.ber_tester & registers.controls.ber_on)),
            link.retrain.eq(registers.controls.retrain),
            # Between trainings it is not known yet how many lanes there will be.
            fewer.eq(Mux(status.active, Cat(status.receives_fewer, status.sends_fewer), was_fewer)),
            inputs.up.eq(status.active),
            inputs.lanes.eq(fewer),
            inputs.went_up.eq(status.active & ~was_up),
            inputs.went_down.eq(~status.active & was_up),
            inputs.retrained.eq(events.retraining),
            inputs.replayed.eq(events.replay),
            inputs.crc_failed.eq(events.bad),
            inputs.credit_failed.eq((events.leaks | events.violations).any()),
            inputs.lanes_reduced.eq((fewer & ~was_fewer).any()),
            inputs.peer_was_reset.eq(events.peer_reset),
            inputs.flits_sent.eq(events.sent),
            inputs.flits_received.eq(events.received),
            inputs.replays.eq(events.replay),
            inputs.replay_timeouts.eq(events.timeout),
            inputs.crc_errors.eq(events.bad),
            inputs.corrected_symbols.eq(link.corrected_symbols),
            inputs.uncorrectable_codewords.eq(link.uncorrectable_codewords),
            [inputs[f"codewords_{n}"].eq(count) for n, count in enumerate(link.codewords)],
            inputs.frames_checked.eq(events.good | events.bad),
            inputs.retrainings.eq(events.retraining),
            inputs.credit_leaks.eq(events.leaks),
            inputs.credit_violations.eq(events.violations),
        ]
        same = ("state", "config_mismatch", "peer_reset", *LANE_STATUS)
        for name in (*same, "lock_cycles", "align_cycles", "exchange_cycles", "recovery_cycles"):
            m.d.comb += inputs[name].eq(status[name])
        # The map is the same for every spec: virtual channels and lanes that this one has not read as 0.
        for lane, number in enumerate(status.lane_order):
            m.d.comb += inputs[f"lane_{lane}"].eq(number)
        for v in range(self.spec.virtual_channels):
            m.d.comb += inputs[f"credits_{v}"].eq(status.credits[v])
        return registers


class AxiSwitch(wiring.Component):
    """Joins the switch to a client at every port; port p has the address p.

    Members
    -------
    s0_axis_t*, s1_axis_t*, ... : In, the beats of ``rtl.client.beat_layout``
    m0_axis_t*, m1_axis_t*, ... : Out, the beats of ``rtl.client.delivered_layout``, ``error`` as the highest of ``tuser``
    """

    def __init__(self, spec: ChipletSpec, routes: tuple[int, ...] | None = None):
        self.spec, self.routes = spec, routes
        super().__init__(_clients(spec, range(spec.switch_ports)))

    def elaborate(self, platform):
        m = Module()
        m.submodules.switch = switch = Switch(self.spec, self.routes)
        # Verilog 2005 has no arrays of ports: each port has its number in its name.
        for port in range(self.spec.switch_ports):
            m.submodules[f"ingress_{port}"] = ingress = Ingress(self.spec, port)
            m.submodules[f"egress_{port}"] = egress = Egress(self.spec)
            wiring.connect(m, ingress.o, switch.i[port])
            wiring.connect(m, switch.o[port], egress.i)
            _take(m, self, f"s{port}_axis", ingress.i)
            _give(m, self, f"m{port}_axis", egress.o)
        return m


class AxiChiplet(wiring.Component):
    """Gives the chiplet flat names: ``spec.ports`` client streams each way and as many lines.

    Members
    -------
    s0_axis_t*, ... : In, the beats of ``rtl.client.beat_layout``
    m0_axis_t*, ... : Out, the beats of ``rtl.client.delivered_layout``, ``error`` as the highest of ``tuser``
    tx0_data, tx0_valid, tx0_ready, rx0_data, rx0_valid, rx0_slip, ... : the lines
    replays0, crc_errors0, ... : Out(32)
    """

    def __init__(self, spec: ChipletSpec, address: int = 0, routes: tuple[int, ...] | None = None):
        self.spec, self.address, self.routes = spec, address, routes
        members = _clients(spec, range(spec.ports))
        for port in range(spec.ports):
            members |= _flat_line(spec, str(port))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.chiplet = chiplet = Chiplet(self.spec, self.address, self.routes)
        for port in range(self.spec.ports):
            _take(m, self, f"s{port}_axis", chiplet.i[port])
            _give(m, self, f"m{port}_axis", chiplet.o[port])
            _join_line(m, self, str(port), chiplet.tx[port], chiplet.tx_ready[port], chiplet.rx[port], chiplet.slip[port])
            m.d.comb += getattr(self, f"replays{port}").eq(chiplet.replays[port])
            m.d.comb += getattr(self, f"crc_errors{port}").eq(chiplet.crc_errors[port])
        return m


tops: dict[str, type[wiring.Component]] = {"link": AxiLink, "switch": AxiSwitch, "chiplet": AxiChiplet}
"""Each block that can be written as Verilog has its component here; all are made from a ``ChipletSpec`` alone."""
