"""The sublayer of forward error correction stands between the words of frames and the lanes: units there, words here.

The words of this file:

* *unit*: ``spec.block_bits_on_line`` bits of a codeword, which a lane carries in place of a 64b/66b block
* *codeword*: its message is words in their order, each four after a header bit of 1 where the code is one of 802.3
  [clause 91, 256b/257b transcoding of data alone]; its units follow in the order of the line
* *abreast*: where lanes are more than the words of a codeword, parts of the lanes have codewords of their own
* *step*: a beat of words or units, of which ``spec.codeword_beats`` are a codeword

Codewords begin with the first beat of frames after sets, and follow each other until sets cut the last one off.
"""

from math import ceil

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import SCRAMBLER_BITS
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.fec.decoder import Decoder
from lightfabric.rtl.fec.encoder import Encoder
from lightfabric.rtl.fec.regroup import Regroup
from lightfabric.rtl.fec.shape import Shape
from lightfabric.rtl.line import sent_layout
from lightfabric.rtl.register_map import MAX_CORRECTED
from lightfabric.rtl.scrambler import Scrambler, scrambled
from lightfabric.rtl.training_set import SET_BITS


def seed(lane: int) -> int:
    """Gives the state of a lane's scrambler before its first word of frames: another one for each lane, none of them 0."""
    return ((lane + 1) * 0x9E3779B97F4A7C15 & (1 << SCRAMBLER_BITS) - 1) | 1


def units_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out what is sent in a beat of the line with a code: units, first one in the low bits, or a training set."""
    bits = spec.block_bits_on_line * spec.wavelengths_per_port
    return data.StructLayout({"words": bits, "set": SET_BITS, "is_set": 1, "valid": 1})


class _Sequence:
    """Holds the scramblers of some lanes, whose ``out`` is added to their words [x^58 + x^39 + 1, of zeros]."""

    def __init__(self, lanes: range, name: str):
        self.lanes = lanes
        self.scramblers = [Scrambler(scrambled, Const(0, 64), f"{name}_{lane}") for lane in lanes]
        self.out = Cat(scrambler.out for scrambler in self.scramblers)

    def restart(self):
        """Makes the statements that begin the sequences anew."""
        return [scrambler.history.eq(seed(lane)) for lane, scrambler in zip(self.lanes, self.scramblers, strict=True)]

    def step(self):
        """Makes the statements that go on by a word of each lane."""
        return [scrambler.step() for scrambler in self.scramblers]


class _CodewordEncoder(wiring.Component):
    """Makes units of the words of some lanes: unit ``number - lag`` comes ``latency_clocks`` after word ``number``.

    Members
    -------
    words : In(64 * lanes)
    valid, is_set : In(1)
    number : In(range(steps)), of the beat of frames
    units : Out(unit_bits * lanes)
    """

    def __init__(self, shape: Shape, lanes: range):
        self.shape, self.lanes = shape, lanes
        self.gather = Regroup(64 * len(lanes), shape.words_to_symbols())
        self.spread = Regroup(shape.symbols * shape.code.m, shape.symbols_to_units())
        self.lag = self.gather.lag
        self.latency_clocks = 2 + self.gather.latency_clocks + self.spread.latency_clocks
        inputs = {"words": In(64 * len(lanes)), "valid": In(1), "is_set": In(1), "number": In(range(shape.steps))}
        super().__init__({**inputs, "units": Out(shape.unit_bits * len(lanes))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.gather, m.submodules.spread = gather, spread = self.gather, self.spread
        m.submodules.encoder = encoder = Encoder(self.shape.code, self.shape.symbols)
        sequence = _Sequence(self.lanes, "sequence")
        with m.If(self.valid & self.is_set):
            m.d.sync += sequence.restart()
        with m.Elif(self.valid):
            m.d.sync += sequence.step()
        m.d.sync += [
            gather.i.eq(self.words ^ sequence.out),
            gather.valid.eq(self.valid),
            gather.number.eq(self.number),
            # The encoder takes a clock, also for the steps in which it has nothing to do.
            spread.valid.eq(gather.o_valid),
            spread.number.eq(gather.o_number),
        ]
        m.d.comb += [
            encoder.i.valid.eq(gather.o_valid & (gather.o_number < self.shape.beats)),
            encoder.i.first.eq(gather.o_number == 0),
            encoder.i.data.eq(gather.o),
            spread.i.eq(encoder.o.data),
            self.units.eq(spread.o),
        ]
        return m


class _Queue(wiring.Component):
    """Keeps a few beats; what is put can be taken from the next cycle on, and is at ``o`` in the cycle of ``take``.

    Members
    -------
    i, o : In, Out(bits)
    put, take, clear : In(1)
    ready : Out(1), there is something to take
    skip : In(range(depth)), so many of the oldest are given up, beside the one that is taken
    """

    def __init__(self, bits: int, depth: int):
        self.depth = 1 << (depth - 1).bit_length()
        inputs = dict.fromkeys(("put", "take", "clear"), In(1))
        super().__init__({"i": In(bits), "o": Out(bits), "ready": Out(1), "skip": In(range(self.depth)), **inputs})

    def elaborate(self, platform):
        m = Module()
        m.submodules.kept = kept = Memory(shape=len(self.i), depth=self.depth, init=[])
        write, read = kept.write_port(), kept.read_port(domain="comb")
        m.d.comb += [write.data.eq(self.i), write.en.eq(self.put), self.o.eq(read.data)]
        first, end = Signal.like(read.addr), Signal.like(write.addr)
        m.d.comb += [read.addr.eq(first), write.addr.eq(end), self.ready.eq(first != end)]
        m.d.sync += [first.eq(first + self.take + self.skip), end.eq(end + self.put)]
        with m.If(self.clear):
            m.d.sync += [first.eq(0), end.eq(0)]
        return m


def _taken(m, due, ready):
    """Lets each beat that is due go as soon as it is ready: where the beats behind it are held back, it goes later."""
    owed, taken = Signal(8), Signal()
    m.d.comb += taken.eq((due | (owed != 0)) & ready)
    m.d.sync += owed.eq(owed + due - taken)
    return owed, taken


def _late(m, signal, cycles: int, name: str):
    """Delays a signal by register stages."""
    for cycle in range(cycles):
        late = Signal.like(signal, name=f"{name}_{cycle}")
        m.d.sync += late.eq(signal)
        signal = late
    return signal


class FecEncoder(wiring.Component):
    """Makes units of the words of frames, ``latency_cycles`` later, and passes training sets on with the same delay.

    Beats keep their distances. ``latency_cycles`` has the register stages, and the beats after a word which are needed
    before its unit is known, for the parity pushes the words behind the first ones back. On fewer lanes than wavelengths
    new words are rarer, so that units are later by as many beats, and those behind them follow one in each cycle. If any are
    late when the first set comes, the words are cut off there, and that set comes after ``latency_cycles`` again.

    Members
    -------
    i : In(sent_layout(spec)); in a beat without new words the units stay, too
    o : Out(units_layout(spec))
    """

    def __init__(self, spec: ChipletSpec):
        self.spec, self.shape = spec, Shape.of(spec)
        lanes = range(spec.wavelengths_per_port)
        parts = (lanes[at : at + self.shape.lanes] for at in range(0, len(lanes), self.shape.lanes))
        self.codewords = [_CodewordEncoder(self.shape, part) for part in parts]
        lag, clocks = self.codewords[0].lag, self.codewords[0].latency_clocks
        # A step of lag takes a whole number of cycles, sometimes the next lower one: until then its units wait in a queue.
        self.latency_cycles = clocks + ceil(lag / spec.blocks_per_cycle) + 1
        super().__init__({"i": In(sent_layout(spec)), "o": Out(units_layout(spec))})

    def elaborate(self, platform):
        m = Module()
        sent, number, lag = self.i, Signal(range(self.shape.steps)), self.codewords[0].lag
        # Sets push out the units of the words before them, and have units of their own that mean nothing.
        steps = sent.is_set | sent.is_new
        with m.If(sent.valid & steps):
            m.d.sync += number.eq(Mux(sent.is_set | (number == self.shape.steps - 1), 0, number + 1))
        for n, codeword in enumerate(self.codewords):
            m.submodules[f"codeword_{n}"] = codeword
            bits = 64 * self.shape.lanes
            m.d.comb += [
                codeword.words.eq(sent.words[n * bits : (n + 1) * bits]),
                codeword.valid.eq(sent.valid & steps),
                codeword.is_set.eq(sent.is_set),
                codeword.number.eq(number),
            ]
        # Units of sets mean nothing and would fill the queue. Those of words are kept, which come as late as the lag is.
        is_word = sent.is_new & ~sent.is_set
        late_word = is_word
        for step in range(lag):
            before = Signal(name=f"was_word_{step}")
            with m.If(sent.valid & steps):
                m.d.sync += before.eq(late_word)
            late_word = before
        m.submodules.units = units = _Queue(len(self.o.words), 8)
        # On one lane alone a step takes as many beats as there are wavelengths.
        room = self.latency_cycles + lag * (self.spec.wavelengths_per_port - 1) + 8
        m.submodules.told = told = _Queue(len(sent.set) + 2, room)
        has_units = told.o[-1]
        was_set, cuts, cutting = Signal(init=1), Signal(), Signal()
        with m.If(sent.valid):
            m.d.sync += was_set.eq(sent.is_set)
        m.d.comb += cuts.eq(sent.valid & sent.is_set & ~was_set)
        due = _late(m, sent.valid, self.latency_cycles, "due")
        owed, valid = _taken(m, due, told.ready & (units.ready | ~has_units | cutting))
        with m.If(cuts):
            m.d.sync += [owed.eq(0), cutting.eq(told.skip != 0)]
        with m.Elif(valid & told.o[-2]):  # the first set leaves, and all units of words before it have come
            m.d.sync += cutting.eq(0)
        m.d.comb += [
            units.i.eq(Cat(codeword.units for codeword in self.codewords)),
            units.put.eq(_late(m, sent.valid & steps & late_word, self.codewords[0].latency_clocks, "keeps")),
            units.take.eq(valid & has_units),
            units.clear.eq(cutting),
            told.i.eq(Cat(sent.set, sent.is_set, is_word)),
            told.put.eq(sent.valid),
            told.take.eq(valid),
            told.skip.eq(Mux(cuts, owed + due - valid, 0)),
        ]
        held = Signal.like(self.o.words)
        with m.If(units.take):
            m.d.sync += held.eq(units.o)
        m.d.comb += [
            self.o.words.eq(Mux(has_units, units.o, held)),
            Cat(self.o.set, self.o.is_set).eq(told.o[:-1]),
            self.o.valid.eq(valid),
        ]
        return m


class _CodewordDecoder(wiring.Component):
    """Makes words of the units of some lanes, still scrambled, and tells of each codeword what was found.

    The words of a codeword come one after the other from ``latency_clocks`` after its last unit on; ``last`` comes with its
    last beat of symbols, ``beats - 1`` clocks after the first words at the latest.

    Members
    -------
    units : In(unit_bits * lanes)
    valid, frames : In(1)
    words : Out(64 * lanes)
    words_valid : Out(1)
    last, uncorrectable : Out(1)
    corrected : Out(range(t + 1))
    """

    def __init__(self, shape: Shape):
        self.shape = shape
        self.gather = Regroup(shape.unit_bits * shape.lanes, shape.units_to_symbols())
        self.decoder = Decoder(shape.code, shape.symbols)
        self.spread = Regroup(shape.symbols * shape.code.m, shape.symbols_to_words())
        self.latency_clocks = self.gather.latency_clocks + self.decoder.latency_clocks + self.spread.latency_clocks
        outputs = {"words": Out(64 * shape.lanes), **dict.fromkeys(("words_valid", "last", "uncorrectable"), Out(1))}
        inputs = {"units": In(shape.unit_bits * shape.lanes), "valid": In(1), "frames": In(1)}
        super().__init__({**inputs, **outputs, "corrected": Out(range(shape.code.t + 1))})

    def elaborate(self, platform):
        m = Module()
        shape, steps = self.shape, self.shape.steps
        m.submodules.gather, m.submodules.spread = gather, spread = self.gather, self.spread
        m.submodules.decoder = decoder = self.decoder
        number, valid = Signal(range(steps)), self.valid & self.frames
        with m.If(~self.frames):
            m.d.sync += number.eq(0)
        with m.Elif(self.valid):
            m.d.sync += number.eq(Mux(number == steps - 1, 0, number + 1))
        # Before the first beat of symbols there may be some of a codeword that was not.
        begun, first = Signal(), gather.o_number == 0
        m.d.sync += begun.eq((begun | (gather.o_valid & first)) & self.frames)
        m.d.comb += [
            gather.i.eq(self.units),
            gather.valid.eq(valid),
            gather.number.eq(number),
            decoder.i.valid.eq(gather.o_valid & (gather.o_number < shape.beats) & (begun | first)),
            decoder.i.first.eq(first),
            decoder.i.data.eq(gather.o),
        ]
        ends = decoder.i.valid & (gather.o_number == shape.beats - 1)
        stale = self._stale(m, ends, decoder)
        # The symbols come in a row; the last words are made when they have come.
        step, running = Signal(range(steps)), Signal()
        now = Mux(decoder.o.first, 0, step)
        begins = decoder.o.valid & decoder.o.first & ~stale
        m.d.comb += [
            spread.i.eq(decoder.o.data),
            spread.number.eq(now),
            spread.valid.eq((begins | running) & self.frames),
            self.words.eq(spread.o),
            self.words_valid.eq(spread.o_valid & self.frames),
            self.last.eq(decoder.last & ~stale & self.frames),
            self.corrected.eq(decoder.corrected),
            self.uncorrectable.eq(decoder.uncorrectable),
        ]
        with m.If(begins | running):
            m.d.sync += [step.eq(Mux(now == steps - 1, 0, now + 1)), running.eq((now != steps - 1) & self.frames)]
        return m

    def _stale(self, m, ends, decoder):
        """Tells whether what leaves the decoder is from before the last training."""
        inside = Signal(range(self.decoder.latency_clocks + self.shape.beats + 2))
        ignored = Signal.like(inside)
        following = inside + ends - decoder.last
        m.d.sync += inside.eq(following)
        with m.If(~self.frames):
            m.d.sync += ignored.eq(following)
        with m.Elif(decoder.last & (ignored != 0)):
            m.d.sync += ignored.eq(ignored - 1)
        return ignored != 0


class FecDecoder(wiring.Component):
    """Makes words of the units of frames, ``latency_cycles`` later, and says of which codeword they cannot be trusted.

    Beats keep their distances. All words wait until the whole codeword has been looked at, so that ``bad`` is known with the
    first of them. A training gives up what is in the decoder.

    Members
    -------
    units : In(units), as the encoder sent them, with errors
    units_valid : In(1)
    frames : In(1), 1 from the first units of a service to its end
    words : Out(64 * spec.wavelengths_per_port)
    words_valid : Out(1)
    bad : Out(1), the words are of a codeword that could not be corrected
    corrected : Out(8), symbols corrected in the codewords that end in this cycle
    uncorrectable : Out(2), codewords that could not be, in this cycle
    codewords : Out(2).array(MAX_CORRECTED + 1), codewords with as many corrected symbols, in this cycle
    """

    def __init__(self, spec: ChipletSpec):
        self.spec, self.shape = spec, Shape.of(spec)
        self.codecs = [_CodewordDecoder(self.shape) for _ in range(spec.codewords_abreast)]
        collected = ceil((self.shape.beats - 1 + self.codecs[0].gather.lag) / spec.blocks_per_cycle)
        # One cycle more, so that a line that pauses for a cycle within a codeword delays nothing.
        self.latency_cycles = collected + self.codecs[0].latency_clocks + self.shape.beats + 2
        words = spec.beat_bytes * 8
        super().__init__(
            {
                "units": In(spec.block_bits_on_line * spec.wavelengths_per_port),
                "units_valid": In(1),
                "frames": In(1),
                "words": Out(words),
                "words_valid": Out(1),
                "bad": Out(1),
                "corrected": Out(8),
                "uncorrectable": Out(2),
                "codewords": Out(2).array(MAX_CORRECTED + 1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        shape, first = self.shape, self.codecs[0]
        for n, codeword in enumerate(self.codecs):
            m.submodules[f"codeword_{n}"] = codeword
            bits = shape.unit_bits * shape.lanes
            m.d.comb += [
                codeword.units.eq(self.units[n * bits : (n + 1) * bits]),
                codeword.valid.eq(self.units_valid),
                codeword.frames.eq(self.frames),
            ]
        # Codewords abreast are in step, so the first one tells when.
        found = Cat(codeword.uncorrectable for codeword in self.codecs)
        counted = [Mux(codeword.last, codeword.corrected, 0) for codeword in self.codecs]
        m.d.sync += self.corrected.eq(sum(counted))
        m.d.sync += self.uncorrectable.eq(Mux(first.last, sum(found), 0))
        for n, count in enumerate(self.codewords):
            seen = [each.last & ~each.uncorrectable & (each.corrected == n) for each in self.codecs]
            m.d.sync += count.eq(sum(seen))
        # Words of a codeword wait while the next one is collected, some cycles more where the line is slow.
        m.submodules.queue = queue = _Queue(self.spec.beat_bytes * 8, 2 * shape.steps + 4)
        m.submodules.findings = findings = _Queue(1, 4)
        valid = self.units_valid & self.frames
        for cycle in range(self.latency_cycles):
            late = Signal(name=f"valid_{cycle}")
            m.d.sync += late.eq(valid & self.frames)
            valid = late
        owed, valid = _taken(m, valid & self.frames, queue.ready & findings.ready)
        with m.If(~self.frames):
            m.d.sync += owed.eq(0)
        number, sequence = Signal(range(shape.steps)), _Sequence(range(self.spec.wavelengths_per_port), "sequence")
        m.d.comb += [
            queue.i.eq(Cat(codeword.words for codeword in self.codecs)),
            queue.put.eq(first.words_valid),
            queue.take.eq(valid),
            queue.clear.eq(~self.frames),
            findings.i.eq(found.any()),
            findings.put.eq(first.last),
            findings.take.eq(valid & (number == shape.steps - 1)),
            findings.clear.eq(~self.frames),
            self.words.eq(queue.o ^ sequence.out),
            self.words_valid.eq(valid),
            self.bad.eq(findings.o),
        ]
        with m.If(~self.frames):
            m.d.sync += [number.eq(0), *sequence.restart()]
        with m.Elif(valid):
            m.d.sync += [number.eq(Mux(number == shape.steps - 1, 0, number + 1)), *sequence.step()]
        return m
