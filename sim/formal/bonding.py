"""Words that are dealt out over any lanes of a line are proven to be collected once, in order and unchanged.

The words are those of :mod:`lightfabric.rtl.bonding`; a *service* is frames between sets, on the lanes chosen for it.
"""

from amaranth import Mux, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib.wiring import In

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.bonding import Collector, Distributor
from lightfabric.sim.formal.harness import Harness, was

CODED = ChipletSpec(ports=1, wavelengths_per_port=4, spare_wavelengths=1, flit_bytes=64, reach_m=1.0, fec="light")
"""With a code units are sent as they are: what the scrambler does is proven by itself."""
SETS = 4
"""So many sets before frames are enough for the pipelines of both ends; the contract promises four times as many."""
MAX_COUNT = 15


class BondedWords(Harness):
    """Sends services one after the other, each over lanes that the solver chooses, and collects their words.

    Beats come when the solver likes, frames after ``SETS`` sets at least, and these end them at any time. New words come
    when the lanes need them. Of each service the beat of words of an arbitrary number is watched. A search as deep as the
    proof's ends within the first service.

    Members
    -------
    valid, is_set : In(1), of the beat in this cycle
    lanes : In(spec.lanes_per_port), taken over with sets
    words : In, those of the next beat that is new
    index : In, of the beat of words that is watched; always the same
    """

    def __init__(self, distributor=Distributor, collector=Collector, spec: ChipletSpec = CODED):
        self.spec, self.distributor, self.collector = spec, distributor(spec), collector(spec)
        bits = len(self.distributor.i.words)
        wishes = dict.fromkeys(("valid", "is_set"), In(1))
        super().__init__({**wishes, "lanes": In(spec.lanes_per_port), "words": In(bits), "index": In(range(MAX_COUNT))})

    def _prove(self, m):
        m.submodules.distributor, m.submodules.collector = self.distributor, self.collector
        begun = was(m, 1, "begun")
        m.d.comb += Assume(~begun | (self.index == was(m, self.index, "index_before")))
        is_set = self._service(m)
        new, words = self._words(m, is_set)
        self._line(m, is_set, words)
        self._compare(m, new, words)

    def _service(self, m):
        """Chooses lanes while there are sets, and lets frames begin when they have stayed for long enough."""
        count, lanes = self.spec.wavelengths_per_port, self.spec.lanes_per_port
        self.chosen, self.width = Signal(lanes, init=1), Signal(range(count + 1))
        self.was_set, sets, is_set, width = Signal(init=1), Signal(range(SETS + 1)), Signal(), Signal(range(lanes + 1))
        m.d.comb += [
            self.width.eq(sum(self.chosen)),
            is_set.eq(self.is_set | (self.was_set & (sets < SETS))),
            width.eq(sum(self.lanes)),
            Assume((width != 0) & (width <= count)),
        ]
        with m.If(self.valid):
            m.d.sync += [self.was_set.eq(is_set), sets.eq(Mux(is_set, sets + (sets != SETS), 0))]
            with m.If(is_set & self.was_set & (self.lanes != self.chosen)):
                m.d.sync += [self.chosen.eq(self.lanes), sets.eq(0)]
        return is_set

    def _words(self, m, is_set):
        """Brings new words in the beats in which a lane needs the first of them, as the framer does."""
        count, first = self.spec.wavelengths_per_port, Signal(range(self.spec.wavelengths_per_port))
        new, held, words = Signal(), Signal.like(self.words), Signal.like(self.words)
        m.d.comb += [
            new.eq(self.valid & ~is_set & ((first == 0) | (first + self.width > count))),
            words.eq(Mux(new, self.words, held)),
        ]
        with m.If(self.valid):
            m.d.sync += [first.eq(Mux(is_set, 0, first + self.width)), held.eq(words)]
        return new, words

    def _line(self, m, is_set, words):
        """Leads the blocks of the distributor to the collector, which knows what the far end has chosen."""
        sent, collector = self.distributor.i, self.collector
        m.d.comb += [
            sent.valid.eq(self.valid),
            sent.is_set.eq(is_set),
            sent.words.eq(words),
            self.distributor.lanes.eq(self.chosen),
            collector.blocks_valid.eq(self.distributor.line.valid),
            collector.use.eq(self.chosen),
            collector.width.eq(self.width),
        ]
        m.d.comb += [
            block.eq(from_.as_value()) for block, from_ in zip(collector.blocks, self.distributor.line.blocks, strict=True)
        ]
        m.d.comb += [rank.eq(sum(self.chosen[:lane])) for lane, rank in enumerate(collector.ranks)]
        line_is_set = Signal(init=1)
        with m.If(self.valid):
            m.d.sync += line_is_set.eq(is_set)
        with m.If(collector.blocks_valid):
            m.d.sync += collector.frames.eq(~line_is_set)

    def _compare(self, m, new, words):
        """Counts what comes and goes in a service, and compares the watched one."""
        given, taken, kept = Signal(range(MAX_COUNT + 1)), Signal(range(MAX_COUNT + 1)), Signal.like(words)
        before = Mux(self.was_set, 0, given)
        with m.If(new):
            m.d.sync += given.eq(before + (before != MAX_COUNT))
            with m.If(before == self.index):
                m.d.sync += kept.eq(words)
        collector = self.collector
        with m.If(~collector.frames):
            m.d.sync += taken.eq(0)
        with m.Elif(collector.words_valid):
            m.d.sync += taken.eq(taken + (taken != MAX_COUNT))
        is_watched = collector.words_valid & (taken == self.index)
        narrow = self.width < self.spec.wavelengths_per_port
        m.d.comb += [
            Assert(~collector.words_valid | (taken < given) | (taken == MAX_COUNT), "no words come that were not sent"),
            Assert(~is_watched | (collector.words == kept), "the k-th words of a service are the k-th that were sent"),
            Assert(~collector.frames | self.was_set | (given - taken <= self.LATE_BEATS), "no words stay behind"),
            Cover(is_watched & narrow & (self.index == 2), "the third words come over fewer lanes"),
            Cover(is_watched & ~narrow & self.chosen[-1], "words come over a spare lane"),
        ]

    LATE_BEATS = 4
    """So many beats of words are on the way at most."""
