"""A switch takes flits from input queues to outputs, by round-robin arbiters and credits."""

from collections.abc import Sequence

from amaranth import Const, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import CHANNEL_BITS
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import ChannelSignature, Credits, Queue, RoundRobin, flit_layout

CANDIDATE = data.StructLayout({"last": 1, "virtual_channel": CHANNEL_BITS})
"""An output needs to know so much of the flit that an input offers."""

Routes = Sequence[int] | data.View
"""Routes give the output for each destination; they are constant or a signal."""


def route_bits(spec: ChipletSpec) -> int:
    """Counts the bits of the number of an output."""
    return (spec.switch_ports - 1).bit_length()


class InputPort(wiring.Component):
    """Queues the flits of one input and offers one head per cycle to its output, the virtual channels taking turns.

    Members
    -------
    i : In(ChannelSignature(spec))
    open : In(spec.switch_ports).array(spec.virtual_channels), outputs that would take a flit of the virtual channel
    request : Out(spec.switch_ports), one-hot output or zero
    flit : Out(flit_layout(spec))
    granted : In(1), the output takes the flit
    """

    def __init__(self, spec: ChipletSpec, routes: Value):
        self.spec, self.routes = spec, routes
        super().__init__(
            {
                "i": In(ChannelSignature(spec)),
                "open": In(spec.switch_ports).array(spec.virtual_channels),
                "request": Out(spec.switch_ports),
                "flit": Out(flit_layout(spec)),
                "granted": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        channels = self.spec.virtual_channels
        port_bits = route_bits(self.spec)
        m.submodules.queue = queue = Queue(self.spec)
        m.submodules.turn = turn = RoundRobin(channels)
        wiring.connect(m, wiring.flipped(self.i), queue.i)
        m.d.comb += turn.taken.eq(self.granted)
        # A head asks for the turn only if its output would take it: a blocked virtual channel does not hold up the others.
        for v in range(channels):
            wanted = Signal(self.spec.switch_ports, name=f"wanted_{v}")
            m.d.comb += [
                wanted.eq(1 << self.routes.word_select(queue.heads[v].destination, port_bits)),
                turn.requests[v].eq(queue.valid[v] & (wanted & self.open[v]).any()),
                queue.pop[v].eq(turn.grant[v] & self.granted),
            ]
            with m.If(turn.grant[v]):
                m.d.comb += [self.request.eq(wanted), self.flit.eq(queue.heads[v])]
        return m


class OutputPort(wiring.Component):
    """Grants one output to its inputs in turn; a packet keeps its virtual channel until its last flit.

    Members
    -------
    requests : In(spec.switch_ports), inputs that offer a flit
    candidates : In(CANDIDATE).array(spec.switch_ports)
    flits : In(flit_layout(spec)).array(spec.switch_ports)
    grant : Out(spec.switch_ports), one-hot input or zero
    open : Out(spec.switch_ports).array(spec.virtual_channels), inputs that may offer a flit of the virtual channel
    o : Out(ChannelSignature(spec))
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        ports = spec.switch_ports
        super().__init__(
            {
                "requests": In(ports),
                "candidates": In(CANDIDATE).array(ports),
                "flits": In(flit_layout(spec)).array(ports),
                "grant": Out(ports),
                "open": Out(ports).array(spec.virtual_channels),
                "o": Out(ChannelSignature(spec)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        ports = self.spec.switch_ports
        m.submodules.turn = turn = RoundRobin(ports)
        m.submodules.credits = credits_ = Credits(self.spec)
        taken, winner = Signal(), Signal(CANDIDATE)
        m.d.comb += [turn.requests.eq(self.requests), self.grant.eq(turn.grant), credits_.refund.eq(self.o.credit)]
        m.d.comb += [taken.eq(turn.grant.any()), turn.taken.eq(taken)]
        m.d.sync += self.o.valid.eq(taken)
        # The header of the winner is needed in this cycle, for credits and packets; its payload only at the output register.
        with m.Switch(turn.grant):
            for p in range(ports):
                with m.Case(1 << p):
                    m.d.comb += winner.eq(self.candidates[p])
                    m.d.sync += self.o.flit.eq(self.flits[p])
        for v in range(self.spec.virtual_channels):
            held, holder = Signal(name=f"held_{v}"), Signal(ports, name=f"holder_{v}")
            spends = credits_.spend[v]
            # Between packets a virtual channel is open to every input, within one to its holder alone.
            m.d.comb += spends.eq(taken & (winner.virtual_channel == v))
            with m.If(credits_.left[v]):
                m.d.comb += self.open[v].eq(holder | (~held).replicate(ports))
            with m.If(spends):
                m.d.sync += [held.eq(~winner.last), holder.eq(turn.grant)]
        return m


class Switch(wiring.Component):
    """Takes each flit from its input to the output of its destination, as wormhole packets in virtual channels.

    Latency 2 cycles from input to output when nobody else wants it: one in the queue, one in the output register. Rate
    one flit per cycle per input and per output. A packet keeps its virtual channel of its output from its first to its
    last flit; between packets the inputs take turns, and so do the virtual channels of an input. Order is kept from
    input to output within a virtual channel.

    A flit for ``destination`` d leaves by output ``routes[d]``, by default d; destinations must be below ``len(routes)``.
    In place of numbers ``routes`` may be a signal, an array of ``route_bits(spec)`` each, that changes only while no flit
    for such a destination is in a queue.

    Members
    -------
    i : In(ChannelSignature(spec)).array(spec.switch_ports)
    o : Out(ChannelSignature(spec)).array(spec.switch_ports)
    """

    def __init__(self, spec: ChipletSpec, routes: Routes | None = None):
        self.spec = spec
        self.routes = range(spec.switch_ports) if routes is None else routes
        constant = not isinstance(self.routes, data.View)
        if constant and not (self.routes and all(0 <= port < spec.switch_ports for port in self.routes)):
            raise ValueError(f"Switch.routes must be ports from 0 to {spec.switch_ports - 1}, not {self.routes!r}")
        ports = spec.switch_ports
        super().__init__({"i": In(ChannelSignature(spec)).array(ports), "o": Out(ChannelSignature(spec)).array(ports)})

    def elaborate(self, platform):
        m = Module()
        ports = range(self.spec.switch_ports)
        table = Value.cast(self.routes) if isinstance(self.routes, data.View) else self._constant_table()
        inputs = [InputPort(self.spec, table) for _ in ports]
        outputs = [OutputPort(self.spec) for _ in ports]
        grants = [Signal(len(ports), name=f"grants_{p}") for p in ports]
        for p in ports:
            m.submodules[f"input_{p}"], m.submodules[f"output_{p}"] = inputs[p], outputs[p]
            wiring.connect(m, wiring.flipped(self.i[p]), inputs[p].i)
            wiring.connect(m, outputs[p].o, wiring.flipped(self.o[p]))
            m.d.comb += inputs[p].granted.eq(grants[p].any())
            for o in ports:
                m.d.comb += [
                    outputs[o].requests[p].eq(inputs[p].request[o]),
                    outputs[o].candidates[p].last.eq(inputs[p].flit.last),
                    outputs[o].candidates[p].virtual_channel.eq(inputs[p].flit.virtual_channel),
                    outputs[o].flits[p].eq(inputs[p].flit),
                    grants[p][o].eq(outputs[o].grant[p]),
                ]
                # What is open depends on registers alone, so the way from there to the grant and back is no loop.
                m.d.comb += [inputs[p].open[v][o].eq(outputs[o].open[v][p]) for v in range(self.spec.virtual_channels)]
        return m

    def _constant_table(self) -> Value:
        """Packs the routes into one constant, from destination 0 on."""
        bits = route_bits(self.spec)
        return Const(sum(port << bits * d for d, port in enumerate(self.routes)), bits * len(self.routes))
