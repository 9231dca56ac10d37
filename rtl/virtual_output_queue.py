"""The flits of one input wait in virtual output queues: nobody waits behind a flit that goes elsewhere.

The words:

* *queue*: the flits of one virtual channel for one output, in order; all queues of an input share its buffer
* *place*: where in the buffer a flit lies; the places of a queue are linked, each knows the *next* one
* *taken*: a flit was chosen in the cycle before; it *leaves* its place in this one, and is at ``flit`` in the next
* *first*, *newest*: the place of the flit that is to leave first, and that of the one which came last
* *sink*: a queue whose flits are dropped, one beyond those for the outputs
"""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import ChannelSignature, flit_layout, one_hot_mux


class VirtualOutputQueues(wiring.Component):
    """Keeps the flits of one input, of ``spec.buffer_flits`` per virtual channel in all, in a queue for each output.

    A flit that comes in cycle t is in ``some`` from t + 1 on. One that is taken in cycle t is at ``flit`` in t + 2, and its
    credit goes back in t + 1. Every queue gives a flit per cycle. A flit of a virtual channel that the spec does not have,
    for which nobody has a credit, is dropped.

    Members
    -------
    i : In(ChannelSignature(spec))
    queue : In(spec.switch_ports + 1), one-hot: the output of the flit that comes, the last of them the sink
    some : Out(spec.switch_ports + 1).array(spec.virtual_channels), queues with flits that are not taken
    ends : Out(spec.switch_ports + 1).array(spec.virtual_channels), queues whose first flit is the last of its packet
    take : In(spec.switch_ports + 1).array(spec.virtual_channels), one-hot or zero over all
    flit : Out(flit_layout(spec))
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        queues = spec.switch_ports + 1
        super().__init__(
            {
                "i": In(ChannelSignature(spec)),
                "queue": In(queues),
                "some": Out(queues).array(spec.virtual_channels),
                "ends": Out(queues).array(spec.virtual_channels),
                "take": In(queues).array(spec.virtual_channels),
                "flit": Out(flit_layout(spec)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec, queues = self.spec, range(self.spec.switch_ports + 1)
        channels, places = range(spec.virtual_channels), spec.virtual_channels * spec.buffer_flits
        taken = [Signal(len(queues), name=f"taken_{v}") for v in channels]
        comes = [Signal(len(queues), name=f"comes_{v}") for v in channels]
        free, leaves, place_bits = Signal(range(places)), Signal(), range(places)
        leaving, leaving_next = Signal(place_bits), Signal(place_bits)
        next_ends = Signal()
        m.d.sync += [now.eq(take) for now, take in zip(taken, self.take, strict=True)]
        m.d.comb += leaves.eq(Cat(taken).any())
        for v in channels:
            is_own = self.i.valid & (self.i.flit.virtual_channel == v)
            m.d.comb += comes[v].eq(self.queue & is_own.replicate(len(queues)))

        first, newest = [], []
        for v in channels:
            some, several = self.some[v], Signal(len(queues), name=f"several_{v}")
            for q in queues:
                name = f"{v}_{q}"
                count = Signal(range(spec.buffer_flits + 1), name=f"count_{name}")
                # Its flags are registers beside the count, as those of a Fifo.
                with m.If(comes[v][q] & ~self.take[v][q]):
                    m.d.sync += [count.eq(count + 1), some[q].eq(1), several[q].eq(count != 0)]
                with m.Elif(self.take[v][q] & ~comes[v][q]):
                    m.d.sync += [count.eq(count - 1), some[q].eq(several[q]), several[q].eq(count > 2)]
                own_first, own_newest = (Signal(place_bits, name=f"{which}_{name}") for which in ("first", "newest"))
                own_ends = Signal(name=f"ends_{name}")
                # With none left but one that leaves, the flit that comes is the first.
                with m.If(comes[v][q] & ~some[q]):
                    m.d.sync += [own_first.eq(free), own_ends.eq(self.i.flit.last)]
                with m.Elif(taken[v][q]):
                    m.d.sync += [own_first.eq(leaving_next), own_ends.eq(next_ends)]
                with m.If(comes[v][q]):
                    m.d.sync += own_newest.eq(free)
                # Of a queue whose first flit is leaving, the next one is the first.
                m.d.comb += self.ends[v][q].eq(Mux(taken[v][q], next_ends, own_ends))
                first.append(own_first)
                newest.append(own_newest)
        m.d.comb += leaving.eq(one_hot_mux(Cat(taken), first))
        self._keep(m, free, leaving)
        # The newest place of an empty queue may be another queue's by now.
        links = (Cat(comes) & Cat(self.some)).any()
        self._link(m, links, one_hot_mux(Cat(comes), newest), free, leaving, leaving_next, next_ends)
        self._free(m, free, leaving, leaves)
        for v in channels:
            m.d.comb += self.i.credit[v].eq(taken[v].any())
            m.d.comb += self.i.held[v].eq((self.some[v] | taken[v]).any())
        return m

    def _keep(self, m, free, leaving):
        """Keeps flits in a memory with a registered read, which a block RAM has."""
        places = self.spec.virtual_channels * self.spec.buffer_flits
        m.submodules.flits = flits = Memory(shape=len(Value.cast(self.flit)), depth=places, init=[])
        write, read = flits.write_port(), flits.read_port()
        m.d.comb += [
            write.addr.eq(free),
            write.data.eq(self.i.flit),
            write.en.eq(self.i.valid),
            read.addr.eq(leaving),
            Value.cast(self.flit).eq(read.data),
        ]

    def _link(self, m, links, newest, free, leaving, leaving_next, next_ends):
        """Links a flit that comes behind the newest one of its queue, and tells what is behind the one that leaves."""
        places = self.spec.virtual_channels * self.spec.buffer_flits
        m.submodules.links = memory = Memory(shape=len(free) + 1, depth=places, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(newest),
            write.data.eq(Cat(free, self.i.flit.last)),
            write.en.eq(links),
            read.addr.eq(leaving),
            Cat(leaving_next, next_ends).eq(read.data),
        ]

    def _free(self, m, free, leaving, leaves):
        """Hands out the places that have been free longest; there are as many as credits, so there always is one."""
        places = self.spec.virtual_channels * self.spec.buffer_flits
        m.submodules.places = free_places = Memory(shape=len(free), depth=places, init=range(places))
        write, read = free_places.write_port(), free_places.read_port(domain="comb")
        given, returned = Signal(range(places)), Signal(range(places))
        accepted = self.i.valid & (self.i.flit.virtual_channel < self.spec.virtual_channels)
        m.d.comb += [
            read.addr.eq(given),
            free.eq(read.data),
            write.addr.eq(returned),
            write.data.eq(leaving),
            write.en.eq(leaves),
        ]
        with m.If(accepted):
            m.d.sync += given.eq(Mux(given == places - 1, 0, given + 1))
        with m.If(leaves):
            m.d.sync += returned.eq(Mux(returned == places - 1, 0, returned + 1))
