"""The words of frames are dealt out over the usable lanes of a line as scrambled 64b/66b blocks, and collected from them.

The words of this file:

* *carry*: a lane that was chosen carries words; any other brings training sets all the time, by which it is known when it is
  good again
* *rank*: the lanes that carry are numbered in their order, and the words go over them in this order
* *beat of words*: ``wavelengths_per_port`` words, which a *beat of the line* carries on the full number of lanes
* *place*: the number of a word in its beat of words; on all lanes it is the rank, on fewer it moves on from beat to beat
* *first*: the place of the first word of a beat of the line; where it is not 0 the beat goes on with words begun before, and
  if it *wraps* it begins the next ones as well
"""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import SCRAMBLER_BITS, SYNC_CONTROL, SYNC_DATA
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import one_hot_mux
from lightfabric.rtl.fec.sublayer import units_layout
from lightfabric.rtl.line import LineSignature, block_bits, sent_layout
from lightfabric.rtl.scrambler import Scrambler, scrambled
from lightfabric.rtl.training_set import LANE_BITS, PARITY, Phase, parity_of

RANKED_AT_ONCE = 4
"""So many lanes are ranked in a cycle: 32 of them within half a cycle of sets."""


class Distributor(wiring.Component):
    """Puts words or training sets on the lanes of a line, as scrambled blocks, in the next cycle.

    On fewer lanes than wavelengths all words come a beat of the line later, after one beat that means nothing.

    Members
    -------
    i : In(sent_layout(spec)), with a code In(units_layout(spec))
    lanes : In(spec.lanes_per_port), those that carry, at most ``spec.wavelengths_per_port``; stays from 16 sets before
        frames to their end
    width : Out, how many carry, within 8 cycles
    line : Out(LineSignature(spec))
    """

    def __init__(self, spec: ChipletSpec):
        self.spec, self.bits = spec, block_bits(spec)
        lanes, width = In(spec.lanes_per_port), Out(range(spec.wavelengths_per_port + 1))
        layout = units_layout(spec) if spec.code else sent_layout(spec)
        super().__init__({"i": In(layout), "lanes": lanes, "width": width, "line": Out(LineSignature(spec))})

    def elaborate(self, platform):
        m = Module()
        sent, count = self.i, self.spec.wavelengths_per_port
        ranks, is_full = self._ranks(m), Signal(init=1)
        m.d.sync += [is_full.eq(self.width == count), self.line.valid.eq(sent.valid)]
        words = self._late_words(m, ranks)
        for lane, (block, rank, late) in enumerate(zip(self.line.blocks, ranks, words, strict=True)):
            is_set = sent.is_set | ~self.lanes[lane]
            word = Mux(is_full, self._word_at_once(m, lane, rank), late)
            info = self._set_of_lane(m, lane, block, is_set)
            # A set has its complement behind it, by which a receiver knows it.
            scrambler = Scrambler(scrambled, Mux(is_set, Cat(info, ~info), word[-64:]), f"scrambler_{lane}")
            with m.If(sent.valid):
                first = Cat(Mux(is_set, SYNC_CONTROL, SYNC_DATA), scrambler.out)
                more = first[-1].replicate(self.spec.block_bits_on_line - len(first))
                m.d.sync += [scrambler.step(), block.as_value().eq(Cat(first, more))]
            if self.spec.code:  # a unit is sent as it is; the scrambler's history is what the line carries
                unit = data.View(block.shape(), word)
                with m.If(sent.valid & ~is_set):
                    m.d.sync += [block.eq(unit), scrambler.history.eq(unit.bits[-SCRAMBLER_BITS:])]
        return m

    def _ranks(self, m) -> list:
        """Counts the lanes below each lane that carry, a group of lanes a register stage after the one before it."""
        ranks, below = [], Const(0, 1)
        for start in range(0, self.spec.lanes_per_port, RANKED_AT_ONCE):
            group = self.lanes[start : start + RANKED_AT_ONCE]
            ranks.extend(below + sum(group[:n]) for n in range(len(group)))
            above = Signal.like(self.width, name=f"below_{start + len(group)}")
            m.d.sync += above.eq(below + sum(group))
            below = above
        m.d.comb += self.width.eq(below)
        return ranks

    def _word_at_once(self, m, lane: int, rank):
        """Gives a lane the word of its rank; with all wavelengths there, that is as far below it as there are spare ones."""
        near = [lane - skipped for skipped in range(self.spec.spare_wavelengths + 1)]
        near = [place for place in near if 0 <= place < self.spec.wavelengths_per_port]
        if len(near) == 1:
            return self.i.words.word_select(near[0], self.bits)
        chosen = Signal(len(near), name=f"chosen_{lane}")
        m.d.sync += chosen.eq(Cat(rank == place for place in near))
        return one_hot_mux(chosen, [self.i.words.word_select(place, self.bits) for place in near])

    def _late_words(self, m, ranks) -> list:
        """Chooses the words of fewer lanes than wavelengths, a beat of the line before they are sent."""
        sent, count = self.i, self.spec.wavelengths_per_port
        if count == 1:
            return [sent.words] * len(ranks)
        first, held, wraps = Signal(range(count)), Signal.like(sent.words), Signal()
        m.d.comb += wraps.eq((first != 0) & (first + self.width > count))
        with m.If(sent.valid):
            m.d.sync += [held.eq(sent.words), first.eq(Mux(sent.is_set, 0, first + self.width))]
        # Signals, since all lanes choose among them: tools would work out an expression anew for each lane.
        words, late_words = [Signal(self.bits, name=f"waiting_{place}") for place in range(count)], []
        for place, word in enumerate(words):
            beats = [each.word_select(place, self.bits) for each in (held, sent.words)]
            m.d.comb += word.eq(Mux(wraps & (first <= place), *beats))
        for lane, rank in enumerate(ranks):
            place, late = Signal(range(count), name=f"place_{lane}"), Signal(self.bits, name=f"late_{lane}")
            at = Signal(count, name=f"at_{lane}")
            m.d.comb += at.eq(Cat(place == n for n in range(count)))
            with m.If(sent.valid):
                m.d.sync += place.eq(Mux(sent.is_set, rank, place + self.width))
                m.d.sync += late.eq(one_hot_mux(at, words))
            late_words.append(late)
        return late_words

    def _set_of_lane(self, m, lane: int, block, is_set):
        """Numbers the set for its lane, and adds to the counted ones the parity of the lane's blocks since the last."""
        set_, parity, before = self.i.set, Signal(8, name=f"parity_{lane}"), parity_of(block)
        is_counted = set_[LANE_BITS:][:4] >= Phase.COUNTED
        with m.If(self.i.valid):
            m.d.sync += parity.eq(Mux(is_set & is_counted, 0, parity) ^ before)
        told = Mux(is_counted, parity, set_[PARITY])
        return Cat(Const(lane, LANE_BITS), set_[LANE_BITS : PARITY.start], told, set_[PARITY.stop :])


class Collector(wiring.Component):
    """Collects the words of each beat from the lanes that carry, in any order of the lanes.

    With several lanes, words that complete their beat come a cycle after the last of them; a single lane is passed through.

    Members
    -------
    blocks : In(block_bits(spec)).array(spec.lanes_per_port), all that were sent together
    blocks_valid : In(1)
    frames : In(1), the blocks that come with the next ``words_valid`` would be those of frames
    use : In(spec.lanes_per_port), lanes that carry
    ranks : In(range(W)).array(spec.lanes_per_port), and the rank of each
    width : In(range(W + 1)), how many carry
    words : Out(block_bits(spec) * W)
    words_valid : Out(1)
    """

    def __init__(self, spec: ChipletSpec):
        self.spec, self.bits = spec, block_bits(spec)
        count, lanes = spec.wavelengths_per_port, spec.lanes_per_port
        super().__init__(
            {
                "blocks": In(self.bits).array(lanes),
                **dict.fromkeys(("blocks_valid", "frames"), In(1)),
                "use": In(lanes),
                "ranks": In(range(max(count, 2))).array(lanes),
                "width": In(range(count + 1)),
                "words": Out(self.bits * count),
                "words_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if self.spec.lanes_per_port == 1:
            m.d.comb += [self.words.eq(self.blocks[0]), self.words_valid.eq(self.blocks_valid & self.frames)]
            return m
        count, valid, begun, moves = self.spec.wavelengths_per_port, Signal(), Signal(), Signal()
        is_full, first, ends = Signal(init=1), Signal(range(count)), Signal()
        m.d.sync += [valid.eq(self.blocks_valid), is_full.eq(self.width == count), begun.eq(self.frames & (begun | valid))]
        # The blocks that come now are the second or later ones of frames: on fewer lanes the first beat means nothing.
        m.d.comb += moves.eq(self.frames & (begun | valid))
        with m.If(self.blocks_valid):
            m.d.sync += [first.eq(Mux(moves, first + self.width, 0)), ends.eq(moves & (first + self.width >= count))]
        chosen = self._choices(m, moves)
        words = []
        for place in range(count):
            of_lanes = Signal(len(chosen), name=f"of_lanes_{place}")
            m.d.comb += of_lanes.eq(Cat(choice[place] for choice in chosen))
            word, kept = Signal(self.bits, name=f"word_{place}"), Signal(self.bits, name=f"kept_{place}")
            comes, is_kept = Signal(name=f"comes_{place}"), Signal(name=f"is_kept_{place}")
            with m.If(self.blocks_valid):
                m.d.sync += [word.eq(one_hot_mux(of_lanes, self.blocks)), comes.eq(of_lanes.any())]
                m.d.sync += is_kept.eq((place < first) & ~is_full)
            with m.If(valid & comes):
                m.d.sync += kept.eq(word)
            words.append(Mux(is_kept, kept, word))
        m.d.comb += [self.words.eq(Cat(words)), self.words_valid.eq(valid & self.frames & (is_full | ends))]
        return m

    def _choices(self, m, moves) -> list:
        """Keeps for each lane the place of its next word, one bit of so many, and moves it on from beat to beat."""
        count, chosen = self.spec.wavelengths_per_port, []
        for lane, rank in enumerate(self.ranks):
            place, following = Signal(range(count), name=f"place_{lane}"), Signal(range(count), name=f"next_{lane}")
            choice = Signal(count, name=f"choice_{lane}")
            m.d.comb += following.eq(Mux(moves, place + self.width, rank))
            with m.If(self.blocks_valid):
                bits = Cat(self.use[lane] & (following == n) for n in range(count))
                m.d.sync += [place.eq(following), choice.eq(bits)]
            chosen.append(choice)
        return chosen
