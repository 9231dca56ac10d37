"""The replay buffer is proven here: it sends again what was kept and not acknowledged, in order and unchanged."""

from amaranth import Mux, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib.wiring import In

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import flit_layout
from lightfabric.rtl.frame import distance, following
from lightfabric.rtl.replay import ReplayBuffer
from lightfabric.sim.formal.harness import SMALL, Harness, Inside, latched, was


class ReplayWindow(Harness):
    """Fills, acknowledges, rewinds, reads and clears a replay buffer at will, as far as its contract allows.

    A reference keeps the sequence last freed and the number of flits kept by what the contract says. An arbitrary flit is
    watched from its ``put`` until it is freed: every replay of its sequence must carry it unchanged, and the sequences of a
    replay must follow one another from the one after the last freed to the newest.

    Members
    -------
    flit : In(flit_layout(spec))
    put, acknowledge, rewind, take, clear : In(1), wishes
    acknowledged : In(spec.sequence_bits)
    mark : In(1), watch the flit that is put
    """

    def __init__(self, buffer=ReplayBuffer, spec: ChipletSpec = SMALL):
        self.spec, self.buffer = spec, buffer(spec)
        wishes = dict.fromkeys(("put", "acknowledge", "rewind", "take", "clear", "mark"), In(1))
        super().__init__({**wishes, "flit": In(flit_layout(spec)), "acknowledged": In(spec.sequence_bits)})

    def _prove(self, m):
        m.submodules.buffer = buffer = self.buffer
        self.inside = Inside(buffer)
        after_take, after_clear = was(m, buffer.take, "after_take"), was(m, buffer.clear, "after_clear", init=1)
        self.ready = Signal()  # the head has been read
        # The memory takes a cycle to read: with several beats no slot comes before it has.
        slow = self.spec.beats_per_flit > 1
        m.d.comb += [
            self.ready.eq(buffer.again & (~after_take if slow else 1)),
            buffer.flit.eq(self.flit),
            buffer.clear.eq(self.clear),
            buffer.rewind.eq(self.rewind & ~self.clear),
            buffer.put.eq(self.put & buffer.room & ~buffer.busy & ~buffer.rewind & ~self.clear),
            buffer.take.eq(self.take & self.ready),
            buffer.acknowledge.eq(self.acknowledge & ~after_clear),
            buffer.acknowledged.eq(self.acknowledged),
            Assume(self.acknowledged < self.spec.sequences),
        ]
        self._reference(m, after_clear)
        self._watch(m)
        self._invariants(m)
        self._jumps(m)

    def _reference(self, m, after_clear):
        """Keeps by the contract what the buffer must keep, and asserts that the buffer says so."""
        buffer, most, sequences = self.buffer, self.spec.replay_flits, self.spec.sequences
        freed, kept = Signal(self.spec.sequence_bits, init=sequences - 1), Signal(range(most + 1))
        frees, heeded = Signal(), Signal()
        answer = was(m, self.acknowledged, "answer")
        counted, less, acknowledged, stale = (self.inside[name] for name in ("ahead", "less", "acknowledged", "stale"))
        oldest, after_oldest = self.inside["oldest"], self.inside["after_oldest"]
        ahead, ahead_before = distance(freed, answer), was(m, distance(freed, self.acknowledged), "ahead_before")
        m.d.comb += frees.eq(buffer.acknowledge & (ahead <= kept) & ~heeded)
        m.d.sync += [kept.eq(kept - Mux(frees, ahead, 0) + buffer.put), heeded.eq(frees)]
        with m.If(frees):
            m.d.sync += freed.eq(answer)
        with m.If(buffer.clear):
            m.d.sync += [kept.eq(0), freed.eq(sequences - 1)]
        m.d.comb += [
            Assert(buffer.count == kept, "an answer frees its flit and all before it, or nothing"),
            Assert(kept <= most, "never more than the replay buffer holds"),
            Assert(~buffer.room | (kept < most), "room is room"),
            Assert(distance(freed, buffer.newest) == kept, "the newest flit is the last one put"),
            Assert(buffer.upcoming == following(buffer.newest), "sequences follow one another"),
            Assert(after_clear | (counted == ahead_before), "invariant: how far an answer is ahead"),
            Assert(after_clear | (less == (counted - 1)[: len(less)]), "invariant: one less"),
            Assert(after_oldest == oldest + 1, "invariant: after the oldest"),
            Assert(acknowledged == answer, "invariant: the answer"),
            Assert(stale == heeded, "invariant: an answer in the cycle after one that is heeded is not"),
            Assert(
                (freed < sequences) & (buffer.newest < sequences) & (buffer.sequence < sequences), "invariant: sequences"
            ),
            Cover(frees & (ahead == most), "all of a full buffer are acknowledged at once"),
        ]
        self.freed, self.kept = freed, kept

    def _watch(self, m):
        """Watches a flit from its ``put`` until it is freed, and compares each replay of its sequence with it."""
        buffer = self.buffer
        watching, watched, sequence = Signal(), Signal(flit_layout(self.spec)), Signal(self.spec.sequence_bits)
        back = distance(sequence, buffer.newest)
        with m.If(buffer.clear):
            m.d.sync += watching.eq(0)
        with m.Elif(watching):
            m.d.sync += watching.eq((back < self.kept) | buffer.busy)
        with m.Elif(self.mark & buffer.put):
            m.d.sync += [watching.eq(1), watched.eq(self.flit), sequence.eq(buffer.upcoming)]
        shown = self.ready & watching & (buffer.sequence == sequence)
        again = latched(m, shown & buffer.take, "again")
        memory, end = self.inside.submodules.kept, self.inside["end"]
        # A read port of the harness's own: the flit is proven to be kept also while no replay shows it.
        probe = memory.read_port(domain="comb")
        m.d.comb += [
            probe.addr.eq(end - back - 1),
            Assert(~shown | (buffer.head == watched), "a replay carries the flit first sent"),
            Assert(~watching | (probe.data == watched), "invariant: the buffer keeps the watched flit"),
            Assert(~watching | (back < self.spec.replay_flits), "invariant: watched while it is kept"),
            Cover(shown & buffer.take & again, "a flit is replayed twice"),
        ]

    def _invariants(self, m):
        """Asserts which flits a replay shows, and what the registers have to do with it."""
        buffer, inside, most = self.buffer, self.inside, self.spec.replay_flits
        first, end, place, oldest = (inside[name] for name in ("first", "end", "place", "oldest"))
        to_send, behind = inside["to_send"], inside["behind"]
        memory = inside.submodules.kept
        read, probe = memory.read_ports[0], memory.read_port(domain="comb")
        left = distance(buffer.sequence, buffer.newest) + 1
        took, next_in_turn, rewound = Signal(), Signal(self.spec.sequence_bits), was(m, buffer.rewind, "rewound")
        with m.If(self.ready | rewound):
            m.d.sync += [took.eq(buffer.take), next_in_turn.eq(following(buffer.sequence))]
        with m.If(buffer.rewind | behind | self.clear):
            m.d.sync += took.eq(0)
        freed_before = was(m, self.freed, "freed_before")
        # An answer that frees a flit reaches the place of the replay a register stage later.
        freed_now = freed_before != self.freed
        m.d.comb += [
            probe.addr.eq(place),
            Assert(~self.ready | (left <= self.kept) | freed_now, "what was acknowledged is not sent again"),
            Assert(~(self.ready & took) | (buffer.sequence == next_in_turn), "a replay goes on with the next"),
            Assert(
                ~rewound | (~buffer.again & (buffer.sequence == following(freed_before))), "it begins after the last freed"
            ),
            Assert(
                ~rewound | (buffer.busy == was(m, self.kept != 0, "kept_any")), "a replay is busy from the next cycle on"
            ),
            Assert(~buffer.busy | (left == to_send), "invariant: sequence of the head"),
            Assert(~buffer.busy | (place == (end - to_send)[: len(place)]), "invariant: place of the head"),
            Assert((to_send <= most) & (buffer.busy == (to_send != 0)), "invariant: to send"),
            Assert(~buffer.busy | (to_send <= self.kept) | behind | freed_now, "invariant: behind"),
            Assert((oldest == self.freed) & (end == (first + self.kept)[: len(end)]), "invariant: pointers"),
            Assert(~self.ready | (read.data == probe.data), "invariant: read ahead"),
            Cover(buffer.take & took & (self.kept == most) & (to_send == 1), "all that is kept is sent again"),
        ]

    def _jumps(self, m):
        """Asserts that ``jumps`` is shown wherever the next flit sent does not follow the one sent last."""
        buffer, last, jumped = self.buffer, Signal(self.spec.sequence_bits, init=self.spec.sequences - 1), Signal()
        coming = Mux(buffer.busy, buffer.sequence, buffer.upcoming)
        with m.If(buffer.take | buffer.put):
            m.d.sync += [last.eq(coming), jumped.eq(0)]
        with m.If(buffer.jumps | buffer.clear):
            m.d.sync += jumped.eq(1)
        m.d.comb += Assert(jumped | (coming == following(last)), "a flit follows the one sent last unless a jump is shown")
