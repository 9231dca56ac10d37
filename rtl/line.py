"""The line side of a link cuts frames into beats of words, between which training sets go, and joins words to frames."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import CRC_BITS
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.crc import FlitCrc
from lightfabric.rtl.pacer import Pacer
from lightfabric.rtl.training_set import SET_BITS


def block_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out a block of a lane: the sync header is sent first, then bit 0 of ``bits``.

    Codewords of KP4 need blocks of more bits than the 66 of 64b/66b. In training sets these bits repeat the last one of
    ``bits``: two equal bits are no sync header, so that block lock never settles on them.
    """
    more = spec.block_bits_on_line - spec.BLOCK_BITS_ON_LINE
    return data.StructLayout({"sync": 2, "bits": 64, **({"more": more} if more else {})})


class LineSignature(wiring.Signature):
    """Carries one block per lane in each cycle with ``valid``; no back-pressure.

    Members
    -------
    blocks : Out(block_layout(spec)).array(spec.lanes_per_port)
    valid : Out(1)
    """

    def __init__(self, spec: ChipletSpec):
        super().__init__({"blocks": Out(block_layout(spec)).array(spec.lanes_per_port), "valid": Out(1)})


def block_bits(spec: ChipletSpec) -> int:
    """Counts the bits of frames in a block on a lane: a word, or with a code all bits of the block."""
    return spec.block_bits_on_line if spec.code else 64


def sent_layout(spec: ChipletSpec) -> data.StructLayout:
    """Lays out what is sent in a beat of the line: words of frames, first one in the low bits, or a training set.

    ``words`` stay as they are in a beat that needs no new ones, in which ``is_new`` is 0; ``set`` is that of lane 0, in each
    beat.
    """
    return data.StructLayout({"words": spec.beat_bytes * 8, "set": SET_BITS, "is_new": 1, "is_set": 1, "valid": 1})


class Framer(wiring.Component):
    """Sends frames one after the other without a gap, each as its beats with the CRC in the last one, or training sets.

    In a cycle with ``load`` a frame is decided. If it is a single beat it is taken then, and is at ``o`` 2 cycles later
    at the earliest; else it is taken in the next cycle, and its first beat is at ``o`` 3 cycles after ``load``. There is
    always a frame to take: the transmitter offers link state when it has no data. While ``sets`` is 1 each beat is a
    training set on all wavelengths, and ``load`` stays 0; the frame decided in the beat of the last set is the first one
    sent. On fewer lanes than wavelengths, the words of a frame take more beats of the line than they are beats, and in some
    beats of the line no new words are needed.

    Members
    -------
    frame : In(8 * spec.flit_bytes - 32), header and payload, first byte in the low bits
    implicit : In(spec.sequence_bits), the sequence that the frame does not say, or 0
    load : Out(1)
    sets : In(1)
    set : In(32), information of the set, its wavelength left 0
    width : In(range(W + 1)), lanes that carry frames; changes only while ``sets`` is 1
    beat : Out(1), a beat of the line, for ``sets`` and ``set`` to be looked at
    ready : In(1), of the Pacer, 1 unless connected
    o : Out(sent_layout(spec))
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        super().__init__(
            {
                "ready": In(1, init=1),
                "frame": In(spec.flit_bytes * 8 - CRC_BITS),
                "implicit": In(spec.sequence_bits),
                "load": Out(1),
                "sets": In(1),
                "set": In(SET_BITS),
                "width": In(range(spec.wavelengths_per_port + 1)),
                "beat": Out(1),
                "o": Out(sent_layout(spec)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        m.submodules.pacer = pacer = Pacer(spec)
        beats, now = spec.beats_per_flit, Signal(self._step_layout())
        beat, last, next_last = Signal(range(beats)), Signal(init=beats == 1), Signal(init=beats == 1)
        idle, next_idle, may_load = Signal(), Signal(), Signal()
        m.d.comb += [
            pacer.ready.eq(self.ready),
            self.beat.eq(pacer.beat),
            self.load.eq(may_load & ~self.sets),
            next_last.eq(last),
            next_idle.eq(idle),
        ]
        if spec.wavelengths_per_port > 1:
            # The place of the next beat's first word: it is idle if all of its words were begun before.
            first = Signal(range(spec.wavelengths_per_port))
            with m.If(pacer.beat):
                m.d.sync += first.eq(Mux(self.sets, 0, first) + self.width)
                m.d.comb += next_idle.eq(~self.sets & (first != 0) & (first + self.width <= spec.wavelengths_per_port))
        with m.If(pacer.beat & (self.sets | ~idle)):
            m.d.sync += beat.eq(Mux(self.sets | last, 0, beat + 1))
            if beats > 1:
                m.d.comb += next_last.eq(~self.sets & (beat == beats - 2))
        # A register, one stage ahead of the beat: ``load`` decides a whole frame and comes early in its cycle.
        m.d.sync += [last.eq(next_last), idle.eq(next_idle), may_load.eq(pacer.coming & ~next_idle & next_last)]
        # With several beats the frame is taken a register stage after ``load``; all that happens with it waits as well.
        domain = m.d.comb if beats == 1 else m.d.sync
        domain += [
            now.valid.eq(pacer.beat),
            now.takes.eq(pacer.beat & (self.sets | (~idle & last))),
            now.sends.eq(pacer.beat & ~self.sets & ~idle),
            now.ends.eq(pacer.beat & ~self.sets & ~idle & last),
            now.beat.eq(beat),
            now.is_set.eq(self.sets),
            now.set.eq(self.set),
        ]
        self._serialize(m, now)
        return m

    def _step_layout(self) -> data.StructLayout:
        """Lays out what happens in a beat: a frame is taken; a beat of one is sent, the last one; or a set."""
        flags = dict.fromkeys(("valid", "takes", "sends", "ends", "is_set"), 1)
        return data.StructLayout({**flags, "beat": range(self.spec.beats_per_flit), "set": SET_BITS})

    def _serialize(self, m, now):
        """Beats leave the low end of a shift register; the CRC knows them, where there are several, when they come there."""
        spec, beat_bits = self.spec, self.spec.beat_bytes * 8
        rest, crc = Signal(spec.flit_bytes * 8 - CRC_BITS), FlitCrc(spec, "crc")
        word, field, is_last = Signal(beat_bits), Signal(CRC_BITS), Signal()
        if spec.beats_per_flit == 1:
            shares = crc.shares(m, Cat(rest, Const(0, CRC_BITS)))
        else:  # a beat is the first of its frame or a later one: the shares of the other kind are 0
            first, second = self.frame[:beat_bits], rest[beat_bits:][:beat_bits]
            shares = crc.registered_shares(m, first, now.takes, may_be_last=False, clear=now.sends & ~now.takes)
            shares = shares ^ crc.registered_shares(m, second, now.sends, clear=now.takes)
        with m.If(now.takes):
            m.d.sync += [rest.eq(self.frame), crc.start(self.implicit)]
        with m.Elif(now.sends):
            m.d.sync += [rest.eq(rest >> beat_bits), crc.step(shares, now.beat)]
        m.d.sync += [self.o.valid.eq(now.valid), self.o.is_new.eq(now.sends)]
        with m.If(now.valid):
            m.d.sync += [self.o.is_set.eq(now.is_set), self.o.set.eq(now.set)]
        with m.If(now.sends):
            m.d.sync += [word.eq(rest), field.eq(crc.field(shares)), is_last.eq(now.ends)]
        m.d.comb += self.o.words.eq(Cat(word[:-CRC_BITS], Mux(is_last, field, word[-CRC_BITS:])))


class Deframer(wiring.Component):
    """Cuts the received beats into frames, and gives each out with the error of its CRC field.

    A frame comes a cycle after its last beat if it is a single one, else two cycles.

    The first words with ``frames`` are the first of a frame.

    Members
    -------
    words : In(64 * spec.wavelengths_per_port), of a frame
    words_valid : In(1)
    words_bad : In(1), the error correction has given the words up
    frames : In(1), 1 from the first words of a service to its end
    frame : Out(8 * spec.flit_bytes - 32)
    error : Out(32), received CRC field against the computed one, with 0 for the sequence that a frame does not say
    valid : Out(1), ``frame``, ``error`` and ``bad`` are new in this cycle
    bad : Out(1), some of its words were
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        super().__init__(
            {
                "words": In(spec.beat_bytes * 8),
                "words_valid": In(1),
                "words_bad": In(1),
                "frames": In(1),
                "frame": Out(spec.flit_bytes * 8 - CRC_BITS),
                "error": Out(CRC_BITS),
                "valid": Out(1),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beat_bits, beats = self.spec.beat_bytes * 8, self.spec.beats_per_flit
        beat, crc, bits = Signal(range(beats)), FlitCrc(self.spec, "crc"), Signal(self.spec.flit_bytes * 8)
        word, word_valid, word_bad = Signal(beat_bits), Signal(), Signal()
        # The shares of several beats are registered, and the word goes through a register stage beside them.
        domain = m.d.comb if beats == 1 else m.d.sync
        domain += [word.eq(self.words), word_valid.eq(self.words_valid), word_bad.eq(self.words_bad)]
        shares = crc.shares(m, word) if beats == 1 else crc.registered_shares(m, self.words, self.words_valid)

        m.d.comb += self.frame.eq(bits)
        m.d.sync += self.valid.eq(word_valid & (beat == beats - 1))
        with m.If(word_valid):
            m.d.sync += [bits.eq(Cat(bits, word)[beat_bits:]), self.error.eq(crc.field(shares) ^ word[-CRC_BITS:])]
            m.d.sync += self.bad.eq(word_bad | (self.bad & (beat != 0)))
        with m.If(~self.frames | (word_valid & (beat == beats - 1))):
            m.d.sync += [beat.eq(0), crc.start(Const(0, 8))]
        with m.Elif(word_valid):
            m.d.sync += [beat.eq(beat + 1), crc.step(shares, beat)]
        return m
