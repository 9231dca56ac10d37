"""The registers of a port show what its link and its client do, and say what the link is to do."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.client_port import EVENT_BITS
from lightfabric.rtl.link import CODEWORDS, EVENTS, LANE_STATUS, status_layout
from lightfabric.rtl.register import AxiLiteSignature, Registers, control_layout, input_layout
from lightfabric.rtl.register_map import BER_REGISTERS, REGISTERS


class LinkRegisters(wiring.Component):
    """Puts the registers of ``REGISTERS`` between a bus and a link, the bit error tester and the client of its port.

    The bus is that of ``Registers``. A change of the status is an event a cycle after it. What a spec does not have, virtual
    channels, lanes or the tester, reads as 0.

    Members
    -------
    bus : In(AxiLiteSignature())
    status, events, corrected_symbols, uncorrectable_codewords, codewords : In, those of ``Link``
    refused, stalled : In(EVENT_BITS), those of the ``ClientPort``
    tester : In, the ``status`` of ``BerTester``, where the spec has one
    controls : Out(control_layout(REGISTERS))
    enable, retrain : Out(1), for ``Link``
    irq : Out(1)
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        link = {"status": status_layout(spec), "events": EVENTS, "corrected_symbols": 8, "uncorrectable_codewords": 2}
        link["codewords"] = CODEWORDS
        tester = {"tester": In(input_layout(BER_REGISTERS))} if spec.ber_tester else {}
        super().__init__(
            {
                "bus": In(AxiLiteSignature()),
                **{name: In(shape) for name, shape in link.items()},
                "refused": In(EVENT_BITS),
                "stalled": In(EVENT_BITS),
                **tester,
                "controls": Out(control_layout(REGISTERS)),
                **dict.fromkeys(("enable", "retrain", "irq"), Out(1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = Registers()
        wiring.connect(m, wiring.flipped(self.bus), registers.bus)
        controls = registers.controls
        m.d.comb += [
            self.controls.eq(controls),
            self.enable.eq(controls.enable & ~(self.spec.ber_tester & controls.ber_on)),
            self.retrain.eq(controls.retrain),
            self.irq.eq(registers.irq),
        ]
        self._show_changes(m, registers.inputs)
        self._show_events(m, registers.inputs)
        self._show_status(m, registers.inputs)
        if self.spec.ber_tester:
            m.d.comb += [registers.inputs[name].eq(self.tester[name]) for name, _ in self.tester.shape()]
        return m

    def _show_changes(self, m, inputs):
        """Shows events that are changes of the status, each of which needs the status of the cycle before."""
        status = self.status
        was_up, was_fewer, fewer = Signal(), Signal(2), Signal(2)
        m.d.sync += [was_up.eq(status.active), was_fewer.eq(fewer)]
        m.d.comb += [
            # Between trainings it is not known yet how many lanes there will be.
            fewer.eq(Mux(status.active, Cat(status.receives_fewer, status.sends_fewer), was_fewer)),
            inputs.up.eq(status.active),
            inputs.lanes.eq(fewer),
            inputs.went_up.eq(status.active & ~was_up),
            inputs.went_down.eq(~status.active & was_up),
            inputs.lanes_reduced.eq((fewer & ~was_fewer).any()),
        ]

    def _show_events(self, m, inputs):
        events = self.events
        m.d.comb += [
            inputs.retrained.eq(events.retraining),
            inputs.replayed.eq(events.replay),
            inputs.crc_failed.eq(events.bad),
            inputs.credit_failed.eq((events.leaks | events.violations).any()),
            inputs.peer_was_reset.eq(events.peer_reset),
            inputs.flits_sent.eq(events.sent),
            inputs.flits_received.eq(events.received),
            inputs.replays.eq(events.replay),
            inputs.replay_timeouts.eq(events.timeout),
            inputs.crc_errors.eq(events.bad),
            inputs.corrected_symbols.eq(self.corrected_symbols),
            inputs.uncorrectable_codewords.eq(self.uncorrectable_codewords),
            [inputs[f"codewords_{n}"].eq(count) for n, count in enumerate(self.codewords)],
            inputs.frames_checked.eq(events.good | events.bad),
            inputs.retrainings.eq(events.retraining),
            inputs.credit_leaks.eq(events.leaks),
            inputs.credit_violations.eq(events.violations),
            inputs.packets_refused.eq(self.refused),
            inputs.packets_cut.eq(self.stalled),
        ]

    def _show_status(self, m, inputs):
        status = self.status
        same = ("state", "config_mismatch", "peer_reset", *LANE_STATUS)
        for name in (*same, "lock_cycles", "align_cycles", "exchange_cycles", "recovery_cycles"):
            m.d.comb += inputs[name].eq(status[name])
        # The map is the same for every spec: virtual channels and lanes that this one has not read as 0.
        for lane, number in enumerate(status.lane_order):
            m.d.comb += inputs[f"lane_{lane}"].eq(number)
        for v in range(self.spec.virtual_channels):
            m.d.comb += inputs[f"credits_{v}"].eq(status.credits[v])
