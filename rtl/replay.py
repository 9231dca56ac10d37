"""The replay buffer keeps what a transmitter has sent until the far end has acknowledged it."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import flit_layout
from lightfabric.rtl.frame import distance, following, never_received


class ReplayBuffer(wiring.Component):
    """Keeps the flits that were sent and not yet acknowledged, and the place of a replay among them.

    ``put`` keeps a flit as the newest, under the sequence ``upcoming``. ``acknowledge``, a cycle after the sequence, frees
    its flit and all before it; one for a sequence that is not kept changes nothing.
    After ``rewind`` all that are kept then are to be sent again: while ``again`` is 1, ``head`` and ``sequence`` are the
    next of them, and ``take`` goes on to the one after. ``busy`` is 1 from the cycle after ``rewind`` until nothing is to be
    sent again; nothing may be put in a cycle with ``rewind`` or ``busy``. What is acknowledged is not sent again.

    The words of the state: flits lie in a ring of memory from ``first`` up to ``end``, the place of the next one put; a
    replay is at ``place`` and has ``to_send`` flits to go. ``oldest`` is the sequence *freed* last, that of the flit before
    ``first``, and an answer is ``ahead`` of it by so many flits. A replay is ``behind`` when an answer has freed the flit at
    its place: it then jumps to ``first``. ``fetched`` is 0 while the memory reads the first flit of a replay.

    Members
    -------
    put : In(1)
    flit : In(flit_layout(spec))
    acknowledged : In(spec.sequence_bits), a sequence
    acknowledge : In(1), it was acknowledged, in the next cycle
    rewind : In(1)
    take : In(1)
    clear : In(1), forget all
    again, busy : Out(1)
    jumps : Out(1), the next flit sent, new or again, does not follow the one sent last
    head : Out(flit_layout(spec))
    sequence : Out(spec.sequence_bits), of ``head``
    upcoming : Out(spec.sequence_bits), of the flit put next
    newest : Out(spec.sequence_bits), of the flit put last
    count : Out(spec.sequence_bits), flits kept
    room : Out(1), another may be put
    progress : Out(1), flits were freed in the cycle before
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        flit, bits = flit_layout(spec), spec.sequence_bits
        switches = dict.fromkeys(("put", "acknowledge", "rewind", "take", "clear"), In(1))
        flags = dict.fromkeys(("again", "busy", "jumps", "room", "progress"), Out(1))
        numbers = dict.fromkeys(("sequence", "upcoming", "count"), Out(bits))
        values = {"flit": In(flit), "acknowledged": In(bits), "head": Out(flit)}
        newest = Out(bits, init=never_received(spec))
        super().__init__({**switches, **flags, **numbers, **values, "newest": newest})

    def elaborate(self, platform):
        m = Module()
        bits, never = self.spec.sequence_bits, never_received(self.spec)
        # More places than flits are kept, so that the place written ahead is none of a replay's.
        depth = 1 << self.spec.replay_flits.bit_length()
        m.submodules.kept = kept = Memory(shape=flit_layout(self.spec), depth=depth, init=[])
        write, read = kept.write_port(), kept.read_port()
        oldest = Signal(bits, init=never)  # the sequence last freed
        first, end, place = (Signal(range(depth), name=name) for name in ("first", "end", "place"))
        after_place = (place + 1)[: len(place)]
        # The place of the next flit is written in every cycle until a flit is put there: ``put`` comes late, and need not
        # reach the write enable of a wide memory.
        m.d.comb += [write.addr.eq(end), write.data.eq(self.flit), write.en.eq(self.room)]
        # With one beat to a flit the next slot is decided in the cycle after a take: its flit must be read with the take.
        one_beat = self.spec.beats_per_flit == 1
        m.d.comb += [read.addr.eq(Mux(self.take, after_place, place) if one_beat else place), self.head.eq(read.data)]

        ahead, acknowledged, frees = Signal(bits), Signal(bits), Signal()
        # ``less`` is ahead - 1, made from oldest + 1: with it a put in the cycle of an answer takes one carry, not two.
        less, after_oldest = Signal(bits), Signal(bits, init=never + 1)
        wraps = (self.acknowledged - oldest)[bits]
        # ``ahead`` was registered a cycle before it is used. In the cycle after one that frees flits it still counts from
        # the sequence freed before, so an answer in that cycle is not taken; another one follows.
        stale = Signal()
        m.d.sync += stale.eq(frees)
        m.d.comb += frees.eq(self.acknowledge & ~stale & (ahead <= self.count))
        m.d.sync += [ahead.eq(distance(oldest, self.acknowledged)), acknowledged.eq(self.acknowledged)]
        m.d.sync += less.eq(Mux(wraps, self.acknowledged + ~after_oldest, self.acknowledged - after_oldest))
        m.d.sync += self.progress.eq(frees & (ahead != 0))
        with m.If(frees):
            m.d.sync += [oldest.eq(acknowledged), after_oldest.eq(acknowledged + 1)]

        most = self.spec.replay_flits
        # All outcomes are ready when it is known which one it is.
        left, left_after_put = self.count - ahead, self.count - less
        m.d.sync += self.count.eq(Mux(frees, Mux(self.put, left_after_put, left), Mux(self.put, self.count + 1, self.count)))
        m.d.sync += [first.eq(Mux(frees, first + ahead, first)), end.eq(end + self.put)]
        # ``room`` is a register: it must hold for the count after this cycle's put, and does not see what it frees.
        m.d.sync += self.room.eq(Mux(self.put, self.count < most - 1, self.count < most))
        with m.If(self.put):
            m.d.sync += [self.newest.eq(self.upcoming), self.upcoming.eq(following(self.upcoming))]

        to_send, fetched, behind = Signal(bits), Signal(), Signal()
        self.state = {"ahead": ahead, "acknowledged": acknowledged, "stale": stale, "oldest": oldest}
        self.state |= {"less": less, "after_oldest": after_oldest}
        self.state |= {"first": first, "end": end, "place": place, "to_send": to_send, "behind": behind}
        m.d.comb += [self.again.eq(self.busy & fetched & ~behind), self.jumps.eq(self.rewind | behind)]
        m.d.sync += [fetched.eq(1), behind.eq((to_send > self.count) & ~behind & ~self.rewind)]
        with m.If(self.take):
            m.d.sync += [place.eq(after_place), to_send.eq(to_send - 1), self.sequence.eq(following(self.sequence))]
            m.d.sync += self.busy.eq(to_send != 1)
        with m.If(self.jumps):
            m.d.sync += [to_send.eq(self.count), place.eq(first), self.sequence.eq(following(oldest)), fetched.eq(0)]
            m.d.sync += self.busy.eq(self.count != 0)
        with m.If(self.clear):
            m.d.sync += [self.count.eq(0), to_send.eq(0), self.busy.eq(0), first.eq(0), end.eq(0)]
            m.d.sync += [self.newest.eq(never), oldest.eq(never), self.upcoming.eq(0)]
            m.d.sync += after_oldest.eq(never + 1)
        return m
