"""A switch takes flits from virtual output queues to outputs, matched by iSLIP, for credits.

The words: a packet *holds* its virtual channel of an output from its first flit to its last; that is *open* to an input which
may send a flit there now; the *sink* stands behind the outputs and takes what is to be dropped.
"""

from collections.abc import Sequence

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import ChannelSignature, Credits, above_of, in_turn, one_hot_mux
from lightfabric.rtl.matching import Matching
from lightfabric.rtl.virtual_output_queue import VirtualOutputQueues

Routes = Sequence[int] | data.View
"""Routes give the output for each destination; they are constant or a signal."""


def route_bits(spec: ChipletSpec) -> int:
    """Counts the bits of the number of an output."""
    return (spec.switch_ports - 1).bit_length()


class Switch(wiring.Component):
    """Takes each flit from its input to the output of its destination, as wormhole packets in virtual channels.

    Latency 3 cycles from input to output when nobody else wants it: one in the queue, one to read it out of its memory, one
    on the way. Rate one flit per cycle per input and per output. A packet keeps its virtual channel of its output from its
    first to its last flit; packets of other virtual channels go between. Inputs, outputs and virtual channels take turns.
    A flit waits for its own output and the flits before it of its virtual channel there, for nobody else. Order is kept from
    input to output within a virtual channel.

    A flit for ``destination`` d leaves by output ``routes[d]``, by default d. In place of numbers ``routes`` may be a signal,
    an array of ``route_bits(spec)`` each, that changes only while no flit for such a destination is in a queue. Packets for
    destinations from ``len(routes)`` on, of a virtual channel that the spec does not have, and for an output that is
    ``dead``, are dropped and counted. An output that is dead stays so until reset, so that no packet leaves it without its
    beginning.

    Members
    -------
    i : In(ChannelSignature(spec)).array(spec.switch_ports)
    o : Out(ChannelSignature(spec)).array(spec.switch_ports)
    dead : In(spec.switch_ports), outputs of which nothing comes any more
    dropped : Out(spec.switch_ports), inputs of which a packet was dropped in this cycle
    """

    def __init__(self, spec: ChipletSpec, routes: Routes | None = None, iterations: int = 1):
        self.spec, self.iterations = spec, iterations
        self.routes = range(spec.switch_ports) if routes is None else routes
        constant = not isinstance(self.routes, data.View)
        if constant and not (self.routes and all(0 <= port < spec.switch_ports for port in self.routes)):
            raise ValueError(f"Switch.routes must be ports from 0 to {spec.switch_ports - 1}, not {self.routes!r}")
        ports = spec.switch_ports
        super().__init__(
            {
                "i": In(ChannelSignature(spec)).array(ports),
                "o": Out(ChannelSignature(spec)).array(ports),
                "dead": In(ports),
                "dropped": Out(ports),
            }
        )

    def elaborate(self, platform):
        m = Module()
        ports, channels = range(self.spec.switch_ports), range(self.spec.virtual_channels)
        queues = [VirtualOutputQueues(self.spec) for _ in ports]
        m.submodules.matching = matching = Matching(len(ports), len(ports) + 1, self.iterations)
        dead = Signal(len(ports))
        m.d.sync += dead.eq(dead | self.dead)
        m.d.comb += matching.open_to_all.eq(Cat(dead, 1))
        chosen = [
            [[Signal(name=f"chosen_{p}_{o}_{v}") for v in channels] for o in range(len(ports) + 1)] for p in ports
        ]
        for p in ports:
            m.submodules[f"queues_{p}"] = queues[p]
            wiring.connect(m, wiring.flipped(self.i[p]), queues[p].i)
            m.d.comb += queues[p].queue.eq(1 << self._output(queues[p].i.flit.destination))
            m.d.comb += [
                queues[p].take[v][o].eq(matching.accepts[p][o] & chosen[p][o][v]) for o in range(len(ports) + 1) for v in channels
            ]
            self._count_drops(m, queues[p], dead, self.dropped[p])
        for o in range(len(ports) + 1):
            is_dead = dead[o] if o < len(ports) else Const(1)
            mine = [[taken.take[v][o] for taken in queues] for v in channels]
            self._choose(m, o, is_dead, queues, [chosen[p][o] for p in ports], mine, matching)
        return m

    def _output(self, destination) -> Value:
        """Gives the output of a destination, or the number of the sink."""
        sink = self.spec.switch_ports
        if isinstance(self.routes, data.View):
            found = Value.cast(self.routes).word_select(destination, route_bits(self.spec))
        else:
            bits = route_bits(self.spec)
            table = Const(sum(port << bits * d for d, port in enumerate(self.routes)), bits * len(self.routes))
            found = table.word_select(destination, bits)
        return Mux(destination < len(self.routes), found, sink) if len(self.routes) < 1 << len(destination) else found

    def _choose(self, m, o, is_dead, queues, chosen, taken, matching):
        """Lets each input choose a virtual channel for an output, and sends what it takes of the one that is matched."""
        ports, channels = range(self.spec.switch_ports), range(self.spec.virtual_channels)
        is_sink = o == len(ports)
        above, sent = Signal(len(channels), name=f"above_{o}"), Signal(len(channels), name=f"sent_{o}")
        m.d.comb += sent.eq(Cat(Cat(taken[v]).any() for v in channels))
        open_ = [Const(-1, len(ports))] * len(channels) if is_sink else self._hold(m, o, is_dead, queues, taken, sent)
        for p in ports:
            ready = Signal(len(channels), name=f"ready_{o}_{p}")
            m.d.comb += [
                ready.eq(Cat(queues[p].some[v][o] & open_[v][p] for v in channels)),
                matching.requests[p][o].eq(ready.any()),
                Cat(chosen[p]).eq(in_turn(ready, above)),
            ]
        if is_sink:
            return
        with m.If(sent.any() & ~is_dead):
            m.d.sync += above.eq(above_of(sent))
        # The flit comes out of its memory in the cycle after it left its place.
        selects, leaving = Signal(len(ports), name=f"selects_{o}"), Signal(len(ports), name=f"leaving_{o}")
        m.d.sync += [
            leaving.eq(Cat(Cat(taken[v][p] for v in channels).any() for p in ports) & ~is_dead.replicate(len(ports))),
            selects.eq(leaving),
            self.o[o].valid.eq(leaving.any()),
        ]
        m.d.comb += Value.cast(self.o[o].flit).eq(one_hot_mux(selects, [queue.flit for queue in queues]))

    def _hold(self, m, o, is_dead, queues, taken, sent):
        """Keeps the credits of an output and the packets that hold it; returns the inputs to which each channel is open."""
        ports, open_ = range(self.spec.switch_ports), []
        m.submodules[f"credits_{o}"] = credits_ = Credits(self.spec)
        m.d.comb += [credits_.refund.eq(self.o[o].credit), credits_.spend.eq(sent & ~is_dead.replicate(len(sent)))]
        for v in range(self.spec.virtual_channels):
            held, holder = Signal(name=f"held_{o}_{v}"), Signal(len(ports), name=f"holder_{o}_{v}")
            mine = Signal(len(ports), name=f"open_{o}_{v}")
            # Between packets a virtual channel is open to every input, within one to its holder alone.
            may_send = credits_.left[v].replicate(len(ports)) & (holder | (~held).replicate(len(ports)))
            m.d.comb += mine.eq(may_send | is_dead.replicate(len(ports)))
            ends = Cat(taken[v][p] & queues[p].ends[v][o] for p in ports).any()
            with m.If(sent[v]):
                m.d.sync += [held.eq(~ends), holder.eq(Cat(taken[v]))]
            open_.append(mine)
        return open_

    def _count_drops(self, m, queues, dead, dropped):
        """Tells when the last flit of a packet is dropped: one that nobody can send, or that goes to a dead output."""
        channels, drops = range(self.spec.virtual_channels), Cat(dead, 1)
        ended = [(queues.take[v] & queues.ends[v] & drops).any() for v in channels]
        is_unknown = queues.i.flit.virtual_channel >= len(channels)
        m.d.sync += dropped.eq(Cat(ended).any() | (queues.i.valid & queues.i.flit.last & is_unknown))
