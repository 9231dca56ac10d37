"""The client side cuts AXI4-Stream packets into credited flits, and puts flits together to packets again.

The words of the packing:

* *word*: what a client stream carries in a cycle; *grain*: the largest piece that words and flits are both made of
* *position*: the grain of a flit at which a word begins; *column*: the place of a grain in the words, the same for each
  position modulo the grains of a word
* *crosses*: a word reaches into the next flit; *spills*: the last one of a packet does, so one more flit follows (*flush*)
* *tail*: grains of a flit that belong to a word of which the rest is in the next flit; that word *straddles* them
* *stalls*: a source has begun a packet and offers no word of it; its *patience* over, the packet is *cut*
* *drops*: words are taken and make no flit, because nobody can carry their packet or because it was cut before
"""

from math import gcd

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import ADDRESS_BITS
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import ChannelSignature, Credits, Fifo, Queue, RoundRobin, flit_layout, one_hot_mux

MAX_PACKET_BYTES = 1 << 16
"""Packets up to this length are promised to pass; nothing here counts the bytes of a packet, so longer ones pass as well."""


def user_bits(spec: ChipletSpec) -> int:
    """Counts the bits of the stream's ``user``, which carries the virtual channel."""
    # AXI4-Stream has no signals of no bits.
    return max(1, (spec.virtual_channels - 1).bit_length())


def beat_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out one word of a client stream.

    ``keep`` is contiguous from byte 0 in the last word of a packet and full in the others. ``dest`` and ``user``, the
    virtual channel, are those of the packet's first word.
    """
    return data.StructLayout(
        {
            "data": spec.client_bytes * 8,
            "keep": spec.client_bytes,
            "last": 1,
            "dest": ADDRESS_BITS,
            "user": user_bits(spec),
        }
    )


def delivered_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out a word as it leaves the fabric: ``id`` is the address of its source.

    ``error`` is 1 in the last word of a packet that a reset cut on its way: what came of it is its beginning, its rest is
    lost. In all other words it is 0.
    """
    return data.StructLayout({**{name: field.shape for name, field in beat_layout(spec)}, "id": ADDRESS_BITS, "error": 1})


def enabled_bytes(payload, keep):
    """Puts zeros in place of the bytes of ``payload`` that ``keep`` does not name."""
    return Cat(payload.word_select(i, 8) & keep[i].replicate(8) for i in range(len(keep)))


def length_of(keep):
    """Counts the bytes in a ``keep`` that is contiguous from byte 0. Combinational: an edge, and an OR."""
    edges = [*(keep[i] & ~keep[i + 1] for i in range(len(keep) - 1)), keep[-1]]
    bits = range(len(keep).bit_length())
    return Cat(Cat(edge for length, edge in enumerate(edges, 1) if length >> bit & 1).any() for bit in bits)


class Grid:
    """Tells how the words of a packet lie in its flits, in grains.

    Words follow each other without a gap, so that a word begins at ``position``, a grain of a flit, and the next one
    at ``following(position)``, in the next flit if the word reaches the end of its own. Grain i of a flit goes through
    column i modulo ``word``: a word enters its columns rotated by its position.
    """

    def __init__(self, spec: ChipletSpec):
        self.grain_bytes = gcd(spec.client_bytes, spec.payload_bytes)
        self.word, self.flit = spec.client_bytes // self.grain_bytes, spec.payload_bytes // self.grain_bytes

    def positions(self) -> Signal:
        """Makes a register for a position."""
        return Signal(range(max(2, self.flit)), name="position")

    def following(self, position: int) -> int:
        """Tells where the next word begins."""
        return (position + self.word) % self.flit

    def window(self, position: int) -> int:
        """Masks the grains of a word that begins there."""
        return (1 << self.word) - 1 << position

    def grain(self, value, index: int):
        """Takes one grain out of a flit or word."""
        return value.word_select(index, self.grain_bytes * 8)

    def rotated(self, m, word, amount, *, left: bool):
        """Rotates ``word`` by ``amount`` grains. Combinational: a multiplexer per bit of ``amount``."""
        for stage, bit in enumerate(amount):
            step_bits = self.grain_bytes * 8 << stage
            turned = Signal.like(word, name=f"turned_{stage}")
            m.d.comb += turned.eq(Mux(bit, word.rotate_left(step_bits) if left else word.rotate_right(step_bits), word))
            word = turned
        return word


class Ingress(wiring.Component):
    """Cuts the packets of a stream into flits from ``address``, and gives them to the network.

    A packet begins a new flit; all its flits are full but the last. The word that completes a flit, or its packet, taken
    in cycle t, makes it the flit of cycle t + 1; a last word that reaches into one more flit is followed by a cycle in
    which no word is taken, and by that flit. Otherwise a word is taken per cycle, in order. A word that begins a flit waits
    for a credit of its virtual channel, which it spends. From reset on it offers no flit and has all credits.

    A packet for a destination from ``destinations`` on, or of a virtual channel that the spec does not have, is taken to its
    end, makes no flit and is ``refused``. A packet whose next word does not come for ``spec.stall_cycles``, while the
    network would take it, is cut: it ends with a flit of ``last`` and ``error``, and what comes up to its own last word is
    taken and dropped.

    Bytes outside ``keep`` are sent as zeros. A packet without bytes is a flit of length 0. Destination and virtual
    channel are those of the first word, and a word before the last counts as full: a client that breaks the rules of
    ``beat_layout`` spoils its own packet and nothing else. A last word that is ``cut`` marks its packet as broken.

    Members
    -------
    i : In(stream.Signature(beat_layout(spec)))
    cut : In(1), beside ``i``: the word ends its packet, whose rest is lost; it has no bytes
    o : Out(ChannelSignature(spec))
    refused, stalled : Out(1), in one cycle for each packet that is refused, and that is cut because its source stalls
    """

    def __init__(self, spec: ChipletSpec, address: int, destinations: int = 1 << ADDRESS_BITS):
        if not 0 <= address < 1 << ADDRESS_BITS:
            raise ValueError(f"Ingress.address must be from 0 to {(1 << ADDRESS_BITS) - 1}, not {address!r}")
        if not 1 <= destinations <= 1 << ADDRESS_BITS:
            raise ValueError(f"Ingress.destinations must be from 1 to {1 << ADDRESS_BITS}, not {destinations!r}")
        self.spec, self.address, self.destinations = spec, address, destinations
        streams = {"i": In(stream.Signature(beat_layout(spec))), "cut": In(1), "o": Out(ChannelSignature(spec))}
        super().__init__({**streams, "refused": Out(1), "stalled": Out(1)})

    def elaborate(self, platform):
        m = Module()
        grid, word, flit = Grid(self.spec), Signal.like(self.i.payload), self.o.flit
        position, opens, flush, cuts = grid.positions(), Signal(init=1), Signal(), Signal()
        m.d.comb += word.eq(self.i.payload)
        with m.If(cuts):
            m.d.comb += [word.last.eq(1), word.keep.eq(0)]
        begins, completes, crosses, spills = Signal(), Signal(), Signal(), Signal()
        following, step, ends = Signal.like(position), Signal(), Signal()
        with m.Switch(position):
            for p in range(grid.flit):
                with m.Case(p):
                    m.d.comb += [
                        begins.eq(p < grid.word),
                        completes.eq(p + grid.word >= grid.flit),
                        following.eq(grid.following(p)),
                    ]
                    if p + grid.word > grid.flit:
                        m.d.comb += [
                            crosses.eq(step if p < grid.word else 1),
                            spills.eq(word.last & word.keep[(grid.flit - p) * grid.grain_bytes]),
                        ]

        # The rest of a last word that spills goes out like one more last word, without bytes of its own.
        unknown, rest, drops, may_go = Signal(), Signal(), Signal(), Signal()
        spent = step & begins & ~drops
        has_credit = self._credit(m, Mux(opens, word.user, flit.virtual_channel), spent)
        m.d.comb += [
            unknown.eq((word.dest >= self.destinations) | (word.user >= self.spec.virtual_channels)),
            drops.eq(Mux(opens, unknown, rest)),
            # The destination, which takes longest to look at, only keeps back what was taken.
            may_go.eq(has_credit | ~begins | Mux(opens, word.user >= self.spec.virtual_channels, rest)),
            self.i.ready.eq(may_go & ~flush & ~cuts),
            step.eq(may_go & (self.i.valid | flush | cuts)),
            ends.eq(flush | (word.last & ~spills)),
        ]
        m.d.sync += [
            self.o.valid.eq(step & (completes | ends) & ~drops),
            self.refused.eq(step & opens & unknown),
            self.stalled.eq(step & cuts),
        ]
        with m.If(step):
            m.d.sync += [position.eq(Mux(ends, 0, following)), opens.eq(ends & ~cuts), flush.eq(word.last & spills & ~flush)]
            m.d.sync += rest.eq(Mux(ends, cuts, drops))
        self._watch(m, ~(opens | flush | rest), step, cuts)

        payload_bytes = self.spec.payload_bytes
        total_bytes = Signal(range(payload_bytes + self.spec.client_bytes))
        rest_bytes = Signal.like(flit.length_bytes)
        m.d.comb += total_bytes.eq(position * grid.grain_bytes + length_of(word.keep))
        # The flit of the flush comes a cycle after its word: its length is kept.
        with m.If(crosses):
            m.d.sync += rest_bytes.eq(total_bytes - payload_bytes)
        m.d.sync += [
            flit.last.eq(ends),
            # In a flush the word at the input is that of the next packet.
            flit.error.eq((self.cut & ~flush) | cuts),
            flit.length_bytes.eq(Mux(flush, rest_bytes, Mux(ends, total_bytes, payload_bytes))),
            flit.source.eq(self.address),
        ]
        # Clients may change both within a packet; the first word decides.
        with m.If(opens):
            m.d.sync += [flit.destination.eq(word.dest), flit.virtual_channel.eq(word.user)]
        keep, kept = Signal.like(word.keep), Signal.like(word.data)
        m.d.comb += [keep.eq(Mux(flush, 0, word.keep)), kept.eq(enabled_bytes(word.data, keep))]
        self._add_bytes(m, grid, position, begins, crosses, kept)
        return m

    def _watch(self, m, inside, step, cuts):
        """Raises ``cuts`` until the packet is cut when its source has offered no word of it for too long."""
        # Cycles to go, less one: they end at -1, which the sign shows.
        patience = Signal(range(-1, self.spec.stall_cycles), init=self.spec.stall_cycles - 1)
        with m.If(self.i.valid | ~inside):
            m.d.sync += patience.eq(self.spec.stall_cycles - 1)
        with m.Elif(~patience[-1]):
            m.d.sync += patience.eq(patience - 1)
        m.d.sync += cuts.eq((cuts & ~step) | (patience[-1] & inside & ~self.i.valid & ~cuts))

    def _credit(self, m, virtual_channel, spent):
        """Tells whether the virtual channel has a credit, which goes when ``spent``."""
        m.submodules.credits = credits_ = Credits(self.spec)
        wanted = Cat(virtual_channel == v for v in range(self.spec.virtual_channels))
        m.d.comb += [
            credits_.spend.eq(wanted & spent.replicate(len(wanted))),
            credits_.refund.eq(self.o.credit),
        ]
        return (credits_.left & wanted).any()

    def _add_bytes(self, m, grid, position, begins, crosses, word):
        """Writes the word at its position in every cycle until it is taken, so that no credit is in the way of the bytes.

        Around the first word of a flit goes what the flit before it had no room for, and zeros.
        """
        covered, rotation = Signal(grid.flit), Signal(range(grid.word))
        with m.Switch(position):
            for p in range(grid.flit):
                with m.Case(p):
                    m.d.comb += [covered.eq(grid.window(p)), rotation.eq(p % grid.word)]
        columns, grain_bits = grid.rotated(m, word, rotation, left=True), grid.grain_bytes * 8
        grains = [Signal(grain_bits, name=f"grain_{i}") for i in range(grid.flit)]
        for i, grain in enumerate(grains):
            after = Signal(grain_bits, name=f"after_{i}")
            m.d.comb += after.eq(grid.grain(columns, i % grid.word) & covered[i].replicate(grain_bits))
            # At most all grains of a word but one reach into the next flit, where they are the first ones.
            if i < grid.word - 1:
                spilled = Signal(grain_bits, name=f"spilled_{i}")
                with m.If(crosses):
                    m.d.sync += spilled.eq(grid.grain(columns, (grid.flit + i) % grid.word))
                with m.If(begins & (position > i)):
                    m.d.comb += after.eq(spilled)
            with m.If(begins | covered[i]):
                m.d.sync += grain.eq(after)
        m.d.comb += self.o.flit.payload.eq(Cat(grains))


class Egress(wiring.Component):
    """Gives the flits of the network to a stream, as whole packets in words that are full but for the last.

    The first word of a packet whose flit comes in cycle t is offered from cycle t + 4 on; words follow at up to one per
    cycle without a bubble, each as soon as the flits that it lies in are there, and stay unchanged until they are taken.
    The virtual channels take turns, each for one packet: once a packet has begun, its virtual channel keeps the stream
    until ``last``. Order is kept within a virtual channel. A stream that is not ready fills the queue and withholds its
    credits, but for those of the flit and the word at hand.

    Bytes outside ``keep`` are zeros whatever the flits hold past their length. All flits of a packet but the last count
    as full. A packet without bytes is a word with ``keep`` 0. One that a reset has cut ends with a word of ``error``, whose
    ``keep`` may be 0.

    Members
    -------
    i : In(ChannelSignature(spec))
    o : Out(stream.Signature(delivered_layout(spec)))
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        super().__init__({"i": In(ChannelSignature(spec)), "o": Out(stream.Signature(delivered_layout(spec)))})

    def elaborate(self, platform):
        m = Module()
        grid, flit, now = Grid(self.spec), Signal(flit_layout(self.spec)), Signal(self._progress)
        free, leaves, tail, word = Signal(), Signal(), Signal(range(grid.word)), Signal.like(self.o.payload)
        m.d.comb += [free.eq(~self.o.valid | self.o.ready), leaves.eq(now.words == 1)]
        self._add_turns(m, grid, flit, now, ~now.present | (free & leaves), tail)
        self._add_words(m, grid, flit, now, now.present & free, tail, word)
        m.d.comb += [
            word.last.eq(flit.last & leaves),
            word.error.eq(flit.last & flit.error & leaves),
            word.dest.eq(flit.destination),
            word.user.eq(flit.virtual_channel),
            word.id.eq(flit.source),
        ]
        with m.If(free):
            m.d.sync += [self.o.valid.eq(now.present), self.o.payload.eq(word)]
        with m.If(now.present & free & ~leaves):
            m.d.sync += now.words.eq(now.words - 1)
        return m

    @property
    def _measures(self):
        """Lays out what is measured of a flit.

        ``words`` end in it, for each number of grains that the first of them has in the flit before; it is ``bare`` if it
        has no bytes.
        """
        grid = Grid(self.spec)
        words = range((grid.flit + 2 * grid.word - 1) // grid.word + 1)
        return data.StructLayout({"words": data.ArrayLayout(words, grid.word), "bare": 1})

    @property
    def _progress(self):
        """Lays out how much of a flit is still to be given.

        ``words`` are to go; the last one of a packet has ``rest_bytes``, where 0 means all bytes unless it is ``bare``.
        """
        words, rest_bits = self._measures["words"].shape.elem_shape, (self.spec.client_bytes - 1).bit_length()
        return data.StructLayout({"present": 1, "words": words, "rest_bytes": rest_bits, "bare": 1})

    def _add_turns(self, m, grid, flit, now, room, tail):
        """Fills ``flit`` when there is room: with the next of the packet, else of the virtual channel whose turn it is.

        Its first word begins with ``tail`` grains of the flit before. The virtual channel is ``chosen`` a cycle ahead, for
        the time that it takes; the flit that goes in that cycle is not counted as one that waits.
        """
        channels = self.spec.virtual_channels
        m.submodules.queue = queue = Queue(self.spec)
        m.submodules.turn = turn = RoundRobin(channels)
        wiring.connect(m, wiring.flipped(self.i), queue.i)
        chosen, load = Signal(channels), Signal()
        head, measures = Signal.like(flit), Signal(self._measures)
        m.d.comb += [
            head.eq(one_hot_mux(chosen, queue.heads)),
            measures.eq(one_hot_mux(chosen, [self._measured(m, grid, queue, v) for v in range(channels)])),
            load.eq(room & (chosen & queue.valid).any()),
            queue.pop.eq(chosen & load.replicate(channels)),
            turn.requests.eq(queue.valid & (~chosen | queue.more)),
        ]
        # A packet keeps the stream: the choice moves on with its last flit, or when there was none to choose.
        with m.If((load & head.last) | (chosen == 0)):
            m.d.comb += turn.taken.eq(turn.grant.any())
            m.d.sync += chosen.eq(turn.grant)
        with m.If(room):
            m.d.sync += [
                flit.eq(head),
                now.present.eq(load),
                now.words.eq(measures.words[tail]),
                now.rest_bytes.eq(head.length_bytes + tail * grid.grain_bytes),
                now.bare.eq(measures.bare & (tail == 0)),
            ]

    def _measured(self, m, grid, queue, channel):
        """Queues the measures of each flit beside it; taken on arrival, for want of time behind the queue."""
        arriving, measured = self.i.flit, Signal(self._measures)
        m.d.comb += measured.bare.eq(arriving.length_bytes == 0)
        for n, words in enumerate(measured.words):
            with m.If(arriving.last):
                m.d.comb += words.eq(self._words_to_end(grid, n * grid.grain_bytes + arriving.length_bytes))
            with m.Else():
                m.d.comb += words.eq((grid.flit + n) // grid.word)
        m.submodules[f"measures_{channel}"] = fifo = Fifo(width=len(measured.as_value()), depth=self.spec.buffer_flits)
        m.d.comb += [
            fifo.w_data.eq(measured),
            fifo.w_en.eq(self.i.valid & (arriving.virtual_channel == channel)),
            fifo.r_en.eq(queue.pop[channel]),
        ]
        return fifo.r_data

    def _words_to_end(self, grid, length_bytes):
        """Counts the words that hold so many bytes, at least one; of more than one grain, they are a power of two wide."""
        if grid.word == 1:
            return 1
        client_bytes = self.spec.client_bytes
        return Mux(length_bytes == 0, 1, (length_bytes + client_bytes - 1) >> (client_bytes - 1).bit_length())

    def _add_words(self, m, grid, flit, now, step, tail, word):
        """Makes the word that begins at ``position``.

        A flit that ends within the next word is left at once, with the grains from there on kept, at their places; the next
        word begins in these, and ``straddles`` into the next flit.
        """
        client_bytes = self.spec.client_bytes
        position, following = grid.positions(), Signal.like(grid.positions())
        covered, rotation = Signal(grid.flit + grid.word - 1), Signal(range(grid.word))
        kept, left, straddles = Signal.like(tail), Signal.like(tail), Signal()
        with m.Switch(position):
            for p in range(grid.flit):
                with m.Case(p):
                    m.d.comb += [
                        covered.eq(grid.window(p)),
                        rotation.eq(p % grid.word),
                        following.eq(grid.following(p)),
                        kept.eq(-p % grid.flit),
                        left.eq(-grid.following(p) % grid.flit),
                    ]
        m.d.comb += tail.eq(Mux(now.present, Mux(flit.last, 0, left), kept))
        with m.If(step):
            m.d.sync += [position.eq(Mux(word.last, 0, following)), straddles.eq((now.words == 1) & (tail != 0))]

        columns, grain_bits = Signal(client_bytes * 8), grid.grain_bytes * 8
        sources = [0] * grid.word
        for i in range(grid.flit + grid.word - 1):
            grain = Signal(grain_bits, name=f"grain_{i}")
            m.d.comb += grain.eq(grid.grain(flit.payload, i % grid.flit))
            # Only grains at the end of a flit can be those of a word that goes on in the next one.
            if grid.flit - grid.word < i < grid.flit:
                rest = Signal(grain_bits, name=f"rest_{i}")
                with m.If(step):
                    m.d.sync += rest.eq(grid.grain(flit.payload, i))
                with m.If(straddles):
                    m.d.comb += grain.eq(rest)
            chosen = covered[i] & (straddles if i >= grid.flit else 1)
            sources[i % grid.word] |= grain & chosen.replicate(grain_bits)
        m.d.comb += columns.eq(Cat(sources))
        rotated = grid.rotated(m, columns, rotation, left=False)
        # A comparison for each byte: they are ready side by side, where a shift would come after the length.
        beyond = Cat(now.rest_bytes > i for i in range((1 << len(now.rest_bytes)) - 1))[:client_bytes]
        whole = ~word.last | ((now.rest_bytes == 0) & ~now.bare)
        m.d.comb += [
            word.keep.eq(beyond | whole.replicate(client_bytes)),
            word.data.eq(enabled_bytes(rotated, word.keep)),
        ]
