"""The channel is proven here: its queue, credits, arbiter, and the books of the far end's credits."""

from amaranth import Cat, Mux, Signal, Value
from amaranth.hdl import Assert, Cover
from amaranth.lib.wiring import In

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import CreditLedger, Credits, EarlyRoundRobin, Queue, RoundRobin, flit_layout
from lightfabric.sim.formal.harness import SMALL, Harness, Inside, counts, latched, was


def flags_follow(fifo, full, depth: int):
    """Asserts that a queue's registered flags are those of its level."""
    level = fifo.level
    flags = (full == (level == depth)) & (fifo.r_rdy == (level != 0)) & (fifo.more == (level > 1))
    return Assert(flags & (level <= depth), "invariant: flags")


class CreditLoop(Harness):
    """Joins a sender that respects its credits and a queue that is popped at will by a channel of one cycle each way.

    Members
    -------
    send, channel : In, the sender's wish: a flit of that virtual channel
    pop : In(spec.virtual_channels)
    """

    def __init__(self, queue=Queue, credit_count=Credits, spec: ChipletSpec = SMALL):
        self.spec, self.queue, self.credits = spec, queue(spec), credit_count(spec)
        channels = spec.virtual_channels
        super().__init__({"send": In(1), "channel": In(range(channels)), "pop": In(channels)})

    def _prove(self, m):
        queue, credits_, depth = self.queue, self.credits, self.spec.buffer_flits
        m.submodules.queue, m.submodules.credits = queue, credits_
        fifos, counts = Inside(queue).submodules, Inside(credits_)

        refund = Signal.like(credits_.refund)
        sent = (self.send & credits_.left.bit_select(self.channel, 1))[0]
        m.d.comb += [credits_.spend.bit_select(self.channel, 1).eq(sent), credits_.refund.eq(refund)]
        m.d.comb += queue.pop.eq(self.pop)
        # A register each way, as on a real channel: flits and credits on their way belong to the sum.
        m.d.sync += [queue.i.valid.eq(sent), queue.i.flit.virtual_channel.eq(self.channel), refund.eq(queue.i.credit)]

        for v in range(self.spec.virtual_channels):
            count, level = counts[f"count_{v}"], fifos[f"fifo_{v}"].level
            arrives, spent = Signal(name=f"arrives_{v}"), Signal(name=f"spent_{v}")
            m.d.comb += [
                arrives.eq(queue.i.valid & (queue.i.flit.virtual_channel == v)),
                flags_follow(fifos[f"fifo_{v}"], Inside(fifos[f"fifo_{v}"])["full"], depth),
                Assert(count + arrives + level + refund[v] == depth, "credits are conserved"),
                Assert(count <= depth, "credits never exceed the buffer"),
                Assert(~(arrives & (level == depth)), "the queue never overflows"),
            ]
            with m.If(count == 0):
                m.d.sync += spent.eq(1)
            m.d.comb += Cover(spent & (count == depth), "all credits were spent and came back")


class FlitOrder(Harness):
    """Fills and pops a queue at will, and watches an arbitrary flit of each virtual channel on its way.

    The watched flit must be at the head when as many flits have left as were before it, and the queue must offer a head
    exactly when more flits went in than came out: the k-th flit out is the k-th flit in.

    Members
    -------
    flit, valid : In, what arrives
    pop : In(spec.virtual_channels)
    mark : In(1), watch the flit that arrives
    """

    def __init__(self, queue=Queue, spec: ChipletSpec = SMALL):
        self.spec, self.queue = spec, queue(spec)
        super().__init__({"flit": In(flit_layout(spec)), "valid": In(1), "pop": In(spec.virtual_channels), "mark": In(1)})

    def _prove(self, m):
        m.submodules.queue = self.queue
        fifos = Inside(self.queue).submodules
        m.d.comb += [self.queue.i.flit.eq(self.flit), self.queue.i.valid.eq(self.valid), self.queue.pop.eq(self.pop)]
        for v in range(self.spec.virtual_channels):
            self._watch(m, v, fifos[f"fifo_{v}"])

    def _watch(self, m, v: int, fifo):
        depth, modulo = self.spec.buffer_flits, self.spec.buffer_flits
        inside, ahead = Signal(range(depth + 1), name=f"inside_{v}"), Signal(range(depth), name=f"ahead_{v}")
        watching, watched = Signal(name=f"watching_{v}"), Signal(self.flit.shape(), name=f"watched_{v}")
        enters, leaves = Signal(name=f"enters_{v}"), Signal(name=f"leaves_{v}")
        head = self.queue.heads[v]
        m.d.comb += [
            enters.eq(self.valid & (self.flit.virtual_channel == v) & (inside != depth)),
            leaves.eq(self.pop[v] & (inside != 0)),
            Assert(self.queue.valid[v] == (inside != 0), "a head is offered while a flit is inside"),
            Assert(~(watching & (ahead == 0)) | (head == watched), "the k-th flit out is the k-th flit in"),
            Cover(watching & leaves & (ahead == 0) & (inside == depth), "the watched flit leaves a full queue"),
        ]
        m.d.sync += inside.eq(inside + enters - leaves)
        with m.If(watching & leaves):
            m.d.sync += [watching.eq(ahead != 0), ahead.eq(Mux(ahead == 0, 0, ahead - 1))]
        with m.Elif(~watching & self.mark & enters):
            m.d.sync += [watching.eq(1), ahead.eq(inside - leaves), watched.eq(self.flit)]

        module = Inside(fifo)
        produce, consume, full = (module[name] for name in ("produce", "consume", "full"))
        # A read port of the harness's own: the watched flit is proven to be in its place while it waits.
        probe = module.submodules.storage.read_port(domain="comb")
        m.d.comb += [
            probe.addr.eq((consume + ahead) % modulo),
            Assert(fifo.level == inside, "invariant: level"),
            flags_follow(fifo, full, depth),
            Assert((inside <= depth) & (consume < depth) & (produce == (consume + inside) % modulo), "invariant: pointers"),
            Assert(~watching | ((ahead < inside) & (probe.data == Value.cast(watched))), "invariant: watched flit"),
        ]


class Turns(Harness):
    """Lets requesters come and go, and a user take the grant or not.

    Members
    -------
    requests : In(count)
    taken : In(1), where there is a grant to take
    """

    def __init__(self, arbiter=RoundRobin, count: int = 4):
        self.arbiter, self.count = arbiter(count), count
        super().__init__({"requests": In(count), "taken": In(1)})

    def _prove(self, m):
        m.submodules.arbiter = arbiter = self.arbiter
        above, count = Inside(arbiter)["above"], self.count
        grant, everyone = arbiter.grant, (1 << self.count) - 1
        m.d.comb += [
            arbiter.requests.eq(self.requests),
            arbiter.taken.eq(self.taken & self.requests.any()),
            Assert((grant & (grant - 1)) == 0, "at most one is granted"),
            Assert((grant & ~self.requests) == 0, "only who requests is granted"),
            Assert(grant.any() == self.requests.any(), "somebody is granted if somebody requests"),
        ]
        # The register masks whom the turn comes to next: it is that of each requester as the last one, and none other.
        last = [above == everyone & ~((2 << p) - 1) for p in range(count)]
        m.d.comb += Assert(Cat(last).any(), "invariant: a turn")
        for i in range(count):
            waits = Signal(range(count + 1), name=f"waits_{i}")
            with m.If(~self.requests[i] | (arbiter.taken & grant[i])):
                m.d.sync += waits.eq(0)
            with m.Elif(arbiter.taken):
                m.d.sync += waits.eq(waits + 1)
            m.d.comb += Assert(waits < count, f"nobody waits for {count} grants")
            for p in range(count):
                between = (i - p - 1) % count
                m.d.comb += Assert(~last[p] | (waits + between < count), "invariant: who is next")
            m.d.comb += Cover((waits == count - 1) & grant[i], "the last in turn is granted")


class EarlyTurns(Harness):
    """Lets an arbiter that hears of the requests a cycle ahead grant beside one that does not.

    Members
    -------
    requests : In(count), those of the next cycle
    taken : In(1), where there is a grant to take
    """

    def __init__(self, early=EarlyRoundRobin, count: int = 4):
        self.early, self.arbiter = early(count), RoundRobin(count)
        super().__init__({"requests": In(count), "taken": In(1)})

    def _prove(self, m):
        early, arbiter = self.early, self.arbiter
        m.submodules += [early, arbiter]
        above, same_above = Inside(early)["above"], Inside(arbiter)["above"]
        m.d.comb += [
            early.requests.eq(self.requests),
            arbiter.requests.eq(was(m, self.requests, "requested")),
            early.taken.eq(self.taken & arbiter.requests.any()),
            arbiter.taken.eq(early.taken),
            Assert(early.grant == arbiter.grant, "an early grant is the one that would be given now"),
            Assert(above == same_above, "invariant: the same turn"),
            Cover(early.grant[-1] & above[-1], "the turn moves on"),
        ]


class Ledger(Harness):
    """Keeps the books between a far sender that respects its limit and a client that keeps the rules.

    The sender hears of the limit late. The client holds flits and gives a credit for each, or loses one without. After a
    restart the sender counts from 0 again and may send nothing until it hears of a limit. Leaks are found after a few cycles
    of silence instead of many, which spares the solver the others. A restart may ask for a flit to be inserted; the sender
    hears of no limit in the cycle after a restart, when that is done if there is room.

    Members
    -------
    send : In(1), the sender's wish
    hear : In(1), the sender hears of the limit
    give, lose : In(1), the client's wish
    restart : In(1)
    insert : In(1), with a restart, a flit is to be inserted
    """

    LEAK_CYCLES = 4

    def __init__(self, ledger=CreditLedger, spec: ChipletSpec = SMALL):
        self.spec, self.ledger = spec, ledger(spec, self.LEAK_CYCLES)
        super().__init__(dict.fromkeys(("send", "hear", "give", "lose", "restart", "insert"), In(1)))

    def _prove(self, m):
        m.submodules.ledger = ledger = self.ledger
        self.inside, depth = Inside(ledger), self.spec.buffer_flits
        room, quiet, empty, full = (self.inside[name] for name in ("room", "quiet_cycles", "empty", "full"))
        entered, heard = Signal(self.spec.credit_bits), Signal(self.spec.credit_bits)
        gives, loses = Signal(), Signal()
        held = counts(m, ledger.flit + ledger.inserted, gives + loses, "held", depth)
        lost = counts(m, loses, ledger.leak, "lost", depth)
        m.d.comb += [
            ledger.flit.eq(self.send & (entered != heard)),
            gives.eq(self.give & (held != 0)),
            loses.eq(self.lose & ~gives & (held != 0)),
            ledger.credit.eq(gives),
            ledger.held.eq(held != 0),
            ledger.restart.eq(self.restart),
        ]
        was_restart = was(m, self.restart, "was_restart")
        m.d.sync += ledger.insert.eq((ledger.insert & ~ledger.inserted) | (self.restart & self.insert))
        # The sender counts for itself: a limit that jumps back would let it send what there is no room for.
        m.d.sync += entered.eq(Mux(self.restart, 0, entered + ledger.flit))
        with m.If(self.restart):
            m.d.sync += heard.eq(0)
        with m.Elif(self.hear & ~was_restart):
            m.d.sync += heard.eq(ledger.limit)
        may_enter, knows = ((limit - entered)[: len(limit)] for limit in (ledger.limit, heard))
        was_full, was_lost = latched(m, held == depth, "was_full"), latched(m, lost == depth, "was_lost")
        m.d.comb += [
            Assert(may_enter == depth - held - lost, "the limit is the buffer and what was freed"),
            Assert(room == depth - held - lost, "what is out is what entered and did not leave"),
            Assert(empty == (room == depth), "invariant: the flag of an empty buffer"),
            Assert(full == (room == 0), "invariant: the flag of a full buffer"),
            Assert(held + lost <= depth, "the buffer never overflows"),
            Assert(~ledger.insert | was_restart | (room == 0), "what is inserted waits for room only"),
            Assert(~was_restart | ((heard == 0) & (entered == 0)), "invariant: a sender that begins again"),
            Assert(~ledger.violation, "who keeps the rules is never reported"),
            Assert(~ledger.leak | (lost != 0), "only what is missing is given again"),
            Assert((quiet == 0) | (held == 0), "invariant: quiet while nothing is held"),
            Assert(knows <= may_enter, "invariant: limits are late, never early"),
            Assert(quiet <= self.LEAK_CYCLES, "invariant: quiet cycles"),
            Cover(was_full & (held == 0) & (lost == 0) & (entered == depth + 1), "a full buffer is emptied and used again"),
            Cover(was_full & ledger.inserted & (room == 0), "a flit is inserted into a full buffer as a place is freed"),
            Cover(was_lost & (lost == 0), "all credits were lost and are given again"),
        ]
        self._soon(m, lost, held)

    def _soon(self, m, lost, held):
        """Asserts that what is missing is given again soon after the client has become quiet."""
        quiet, ledger = Signal(range(self.LEAK_CYCLES + 3)), self.ledger
        with m.If(ledger.flit | ledger.inserted | (held != 0) | (lost == 0) | ledger.leak):
            m.d.sync += quiet.eq(0)
        with m.Else():
            m.d.sync += quiet.eq(quiet + 1)
        known = self.inside["quiet_cycles"]
        m.d.comb += [
            Assert(quiet <= self.LEAK_CYCLES, "what is missing is given again soon"),
            Assert((quiet <= known) | (known == self.LEAK_CYCLES), "invariant: quiet cycles are counted"),
        ]
