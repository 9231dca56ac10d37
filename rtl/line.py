"""The line side of a link: frames to scrambled 64b/66b beats at the line's pace, and back."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import CRC_BITS, CRC_INIT, CRC_RESIDUE, CRC_XOROUT, SYNC_DATA
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.crc import crc_update
from lightfabric.rtl.scrambler import Scrambler, descrambled, scrambled

BLOCK = data.StructLayout({"sync": 2, "bits": 64})
"""One 66-bit block: the sync header is sent first, then bit 0 of ``bits``."""

BAD_FRAMES_TO_HUNT = 4


class LineSignature(wiring.Signature):
    """One 64b/66b block per wavelength in each cycle with ``valid``; no back-pressure.

    Members
    -------
    blocks : Out(BLOCK).array(spec.wavelengths_per_port)
    valid : Out(1)
    """

    def __init__(self, spec: ChipletSpec):
        super().__init__({"blocks": Out(BLOCK).array(spec.wavelengths_per_port), "valid": Out(1)})


class Pacer(wiring.Component):
    """``beat`` is 1 in ``spec.blocks_per_cycle`` of the cycles, as evenly as whole cycles allow: the gearbox's rhythm.

    Members
    -------
    beat : Out(1)
    """

    def __init__(self, spec: ChipletSpec):
        self.rate = spec.blocks_per_cycle
        super().__init__({"beat": Out(1)})

    def elaborate(self, platform):
        m = Module()
        beats, cycles = self.rate.numerator, self.rate.denominator
        owed = Signal(range(cycles))
        total = Signal(range(cycles + beats))
        m.d.comb += [total.eq(owed + beats), self.beat.eq(total >= cycles)]
        m.d.sync += owed.eq(Mux(self.beat, total - cycles, total))
        return m


class Framer(wiring.Component):
    """Sends frames one after the other without a gap, each as its beats with the CRC in the last one.

    In a cycle with ``load`` the frame is taken; its first beat is on the line 3 cycles later at the earliest. There is
    always a frame to take: the transmitter offers link state when it has no data.

    Members
    -------
    frame : In(8 * spec.flit_bytes - 32), header and payload, first byte in the low bits
    load : Out(1)
    line : Out(LineSignature(spec))
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        super().__init__({"frame": In(spec.flit_bytes * 8 - CRC_BITS), "load": Out(1), "line": Out(LineSignature(spec))})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        beat_bits, beats = spec.beat_bytes * 8, spec.beats_per_flit
        m.submodules.pacer = pacer = Pacer(spec)

        # Beats leave the low end of a shift register.
        rest, beat, last = Signal(spec.flit_bytes * 8 - CRC_BITS), Signal(range(beats)), Signal()
        m.d.comb += [last.eq(beat == beats - 1), self.load.eq(pacer.beat & last)]
        with m.If(pacer.beat):
            m.d.sync += [beat.eq(Mux(last, 0, beat + 1)), rest.eq(Mux(last, self.frame, rest >> beat_bits))]

        crc, word, word_valid = Signal(CRC_BITS, init=CRC_INIT), Signal(beat_bits), Signal()
        tail = rest[: beat_bits - CRC_BITS]
        m.d.sync += word_valid.eq(pacer.beat)
        with m.If(pacer.beat):
            with m.If(last):
                m.d.sync += [crc.eq(CRC_INIT), word.eq(Cat(tail, crc_update(crc, tail) ^ CRC_XOROUT))]
            if beats > 1:
                with m.Else():
                    m.d.sync += [crc.eq(crc_update(crc, rest[:beat_bits])), word.eq(rest)]

        m.d.sync += self.line.valid.eq(word_valid)
        for lane, block in enumerate(self.line.blocks):
            scrambler = Scrambler(scrambled, word[64 * lane : 64 * lane + 64], f"scrambler_{lane}")
            with m.If(word_valid):
                m.d.sync += [scrambler.step(), block.bits.eq(scrambler.out), block.sync.eq(SYNC_DATA)]
        return m


class Deframer(wiring.Component):
    """Finds the frames in the beats by their CRC and gives out the good ones, 3 cycles after their last beat.

    In lock it takes every ``spec.beats_per_flit`` beats as a frame. After four bad frames in a row it hunts: it slips
    one beat after each bad frame until one is good [the delineation of ITU-T I.432 4.5, with the CRC of the frame].

    Members
    -------
    line : In(LineSignature(spec))
    frame : Out(8 * spec.flit_bytes - 32)
    good : Out(1), ``frame`` is new and right in this cycle
    bad : Out(1), a frame was dropped in this cycle
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        super().__init__(
            {
                "line": In(LineSignature(spec)),
                "frame": Out(spec.flit_bytes * 8 - CRC_BITS),
                "good": Out(1),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        beat_bits, beats = spec.beat_bytes * 8, spec.beats_per_flit

        word, word_valid = Signal(beat_bits), Signal()
        m.d.sync += word_valid.eq(self.line.valid)
        for lane, block in enumerate(self.line.blocks):
            descrambler = Scrambler(descrambled, block.bits, f"descrambler_{lane}")
            with m.If(self.line.valid):
                m.d.sync += [descrambler.step(), word[64 * lane : 64 * lane + 64].eq(descrambler.out)]

        beat, bad_run, slip = Signal(range(beats)), Signal(range(BAD_FRAMES_TO_HUNT + 1)), Signal()
        crc, bits = Signal(CRC_BITS, init=CRC_INIT), Signal(spec.flit_bytes * 8)
        ends, matches, following = Signal(), Signal(), Signal(CRC_BITS)
        m.d.comb += [
            ends.eq(word_valid & (beat == beats - 1) & ~slip),
            following.eq(crc_update(crc, word)),
            matches.eq(following == CRC_RESIDUE),
            self.frame.eq(bits),
        ]
        m.d.sync += [self.good.eq(ends & matches), self.bad.eq(ends & ~matches)]
        with m.If(word_valid):
            m.d.sync += [bits.eq(Cat(bits, word)[beat_bits:]), slip.eq(0)]
        with m.If(ends):
            m.d.sync += [beat.eq(0), crc.eq(CRC_INIT)]
            with m.If(matches):
                m.d.sync += bad_run.eq(0)
            with m.Elif(bad_run != BAD_FRAMES_TO_HUNT):
                m.d.sync += bad_run.eq(bad_run + 1)
            with m.Else():
                m.d.sync += slip.eq(beats > 1)
        if beats > 1:
            with m.Elif(word_valid & ~slip):
                m.d.sync += [beat.eq(beat + 1), crc.eq(following)]
        return m
