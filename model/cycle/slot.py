"""Slots are the rhythm of the line: when the beats of a link are sent, and which slots are lost by chance.

How a bit error rate becomes a loss of slots: the self-synchronous descrambler, 1 + x^39 + x^58 [IEEE 802.3 49.2.6], makes
three wrong bits of a wrong bit on the line: itself, and those 39 and 58 bits later on the same wavelength. So a slot is
right if all its bits are, ``64 * beats_per_flit`` on each wavelength, and the 58 bits before them; else its CRC is wrong,
for each CRC here finds the three bits and any part of them. What the closed form leaves out:

* Three or more wrong bits may cancel each other; that is of third order in the bit error rate.
* Sync headers count for block lock only. That is lost when 16 of 64 are bad, which happens to a wavelength in one of 3e44
  such windows at ``MAX_BIT_ERROR_RATE``: C(64, 16) * (2 * 1e-4)^16 is 3.2e-45.
* A wrong sequence in a header that says it makes the next flit, which does not say its own, look wrong too. That adds 12
  bits to those of a slot on a busy line, and no time: that flit would be sent again anyway.

With forward error correction all slots of a codeword are lost together if it has more wrong symbols than the code corrects;
its scrambler multiplies no errors. Codewords follow each other from the first beat of frames on.
"""

from dataclasses import dataclass, replace
from math import expm1, lcm, log1p, sqrt

from numba.extending import register_jitable

from lightfabric.model.codec import SCRAMBLER_BITS
from lightfabric.model.spec import ChipletSpec

MAX_SLOT_LOSS_RATE = 0.5
"""Beyond this share of all slots the link trains more often than it sends."""


@register_jitable
def beat_cycle(beat: int, first_beat_cycle: int, num: int, den: int) -> int:
    """Find the cycle of a beat on a line with ``num`` beats in ``den`` cycles, as evenly as whole cycles allow."""
    # It solves the accumulator of the RTL's Pacer: beat n comes in the cycle in which n * den / num is passed.
    return first_beat_cycle + (beat * den + den + num - 1) // num - (den + num - 1) // num


@register_jitable
def first_beat_from(cycle: int, first_beat_cycle: int, num: int, den: int) -> int:
    """Find the first beat at ``cycle`` or later."""
    # The division comes near, but rounds otherwise than beat_cycle does: the loops mend what is left.
    beat = max(0, (cycle - first_beat_cycle) * num // den)
    while beat > 0 and beat_cycle(beat - 1, first_beat_cycle, num, den) >= cycle:
        beat -= 1
    while beat_cycle(beat, first_beat_cycle, num, den) < cycle:
        beat += 1
    return beat


@register_jitable
def _mixed(value: int) -> int:
    """Mix 32 bits one to one, so that every bit depends on every bit of the value."""
    # A hash needs no state: any slot can be asked about in any order, and skipping slots costs nothing.
    value ^= value >> 16
    value = value * 0x21F0AAAD & 0xFFFFFFFF
    value ^= value >> 15
    value = value * 0x735A2D97 & 0xFFFFFFFF
    return value ^ value >> 15


@register_jitable
def _drawn(first_beat: int, stream: int) -> int:
    """Draw 32 bits by chance for the slot that begins with this beat."""
    return _mixed(_mixed((stream ^ first_beat >> 32) & 0xFFFFFFFF) ^ first_beat & 0xFFFFFFFF)


@register_jitable
def is_lost(
    first_beat: int, frame_beat: int, stream: int, losses: int, echoes: int, beats_per_flit: int, codeword_beats: int
) -> bool:
    """Tell whether the slot that begins with this beat is lost: one of ``losses`` of 2^32 slots is, or one after an echo.

    ``echoes`` of the ``losses`` take the next slot along. Whoever knows the stream and the beat knows the answer, in any
    order. With ``codeword_beats``, the first of which is ``frame_beat``, codewords are lost in place of slots, and with
    them all slots that have beats in them: at most two codewords have a part in a slot.
    """
    if codeword_beats > 0:
        start = first_beat - (first_beat - frame_beat) % codeword_beats
        following = start + codeword_beats
        is_cut = following < first_beat + beats_per_flit
        return _drawn(start, stream) < losses or (is_cut and _drawn(following, stream) < losses)
    is_echo = echoes > 0 and _drawn(first_beat - beats_per_flit, stream) < echoes
    return is_echo or _drawn(first_beat, stream) < losses


def _any_wrong(count: float, rate: float) -> float:
    return -expm1(count * log1p(-rate))


@dataclass(frozen=True)
class Losses:
    """Loses slots of a link by chance, a share ``slot_loss_rate`` of all, in steps of 2^-32; others for each seed.

    Some are lost together with the slot before them, of ``beats_per_flit``: a share ``echo_rate`` of all slots. Where there
    are codewords of ``codeword_beats``, slots are lost with their codewords instead. Called with the first beat of a slot of
    one of both directions, counted from reset on, it says whether the slot is lost.
    """

    slot_loss_rate: float = 0.0
    seed: int = 0
    backwards: bool = False
    echo_rate: float = 0.0
    beats_per_flit: int = 1
    codeword_beats: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.slot_loss_rate <= MAX_SLOT_LOSS_RATE:
            raise ValueError(f"Losses.slot_loss_rate must be from 0 to {MAX_SLOT_LOSS_RATE}, not {self.slot_loss_rate}")
        if not 0 <= self.seed < 1 << 31:
            raise ValueError(f"Losses.seed must be from 0 to 2147483647, not {self.seed}")
        if not 0 <= self.echo_rate <= self.own_rate:
            raise ValueError(f"Losses.echo_rate must be from 0 to half of the losses, not {self.echo_rate}")

    @staticmethod
    def of(spec: ChipletSpec, seed: int = 0) -> "Losses":
        """Derive the losses from the bit errors of a spec's line: exact to second order, see the head of this module."""
        beats, wavelengths = spec.beats_per_flit, spec.wavelengths_per_port
        if spec.code:
            codeword = Losses(0.0, seed, False, 0.0, beats, spec.codeword_beats)
            lost = _any_wrong(spec.codewords_abreast, spec.code.codeword_loss_rate(spec.bit_error_rate))
            return replace(codeword, slot_loss_rate=(1 + codeword.cut_share * (1 - lost)) * lost)
        echo_bits = SCRAMBLER_BITS * wavelengths
        slot_loss_rate = _any_wrong(8 * spec.flit_bytes + echo_bits, spec.bit_error_rate)
        return Losses(slot_loss_rate, seed, False, _any_wrong(echo_bits, spec.bit_error_rate), beats)

    @property
    def own_rate(self) -> float:
        """Give the probability that a slot is lost whatever becomes of the slot before it, or that a codeword is."""
        if self.codeword_beats:
            # The root of (1 + cut) q - cut q^2 = slot_loss_rate, in the form that loses no digits where it is small.
            cut, lost = self.cut_share, self.slot_loss_rate
            return 2 * lost / (1 + cut + sqrt((1 + cut) ** 2 - 4 * cut * lost))
        return (self.slot_loss_rate - self.echo_rate) / (1 - self.echo_rate)

    @property
    def next_rate(self) -> float:
        """Give the probability that a slot is lost if the slot before it was not."""
        # The codeword that brought the slot before is right, so only those that begin in this slot can be lost.
        begun = self.beats_per_flit / self.codeword_beats if self.codeword_beats else 1
        return begun * self.own_rate if begun <= 1 else _any_wrong(begun, self.own_rate)

    @property
    def cut_share(self) -> float:
        """Give the share of slots that lie in two codewords."""
        # Until both begin together again, each codeword but one begins inside a slot.
        period = lcm(self.beats_per_flit, self.codeword_beats)
        return (period // self.codeword_beats - 1) * self.beats_per_flit / period

    @property
    def stream(self) -> int:
        """Number the stream of chance that :func:`is_lost` draws from."""
        return 2 * self.seed + self.backwards

    @property
    def threshold(self) -> int:
        """Count the slots of 2^32 that are lost by themselves, or codewords."""
        return round(self.own_rate * (1 << 32))

    @property
    def echo_threshold(self) -> int:
        """Count those of them that take the next slot along."""
        return round(self.echo_rate * (1 << 32))

    def __call__(self, first_beat: int, frame_beat: int = 0) -> bool:
        """Tell whether the slot that begins with this beat is lost; the first codeword begins with ``frame_beat``."""
        drawn = self.stream, self.threshold, self.echo_threshold
        return bool(is_lost(first_beat, frame_beat, *drawn, self.beats_per_flit, self.codeword_beats))


@dataclass(frozen=True)
class Slots:
    """Times the slots of one direction of a link, whose line carries ``beats`` beats in ``cycles`` cycles.

    The line's beats are counted from reset on; ``frame_beat`` is the first one of slot 0, after those of training sets.
    """

    first_beat_cycle: int
    frame_beat: int
    line_cycles: int
    beats_per_flit: int
    beats: int
    cycles: int

    @staticmethod
    def of(spec: ChipletSpec, first_beat_cycle: int = 0, frame_beat: int = 1, line_cycles: int = 0) -> "Slots":
        """Make the slots of the link of a spec; the cycles are those of ``LinkTiming``."""
        rate = spec.blocks_per_cycle
        return Slots(first_beat_cycle, frame_beat, line_cycles, spec.beats_per_flit, rate.numerator, rate.denominator)

    def decided_cycle(self, slot: int) -> int:
        """Find the cycle in which it is decided what a slot carries."""
        return self.last_cycle(slot - 1) - self.line_cycles

    def last_cycle(self, slot: int) -> int:
        """Find the cycle of the last beat of a slot on the line."""
        return beat_cycle(
            self.frame_beat + (slot + 1) * self.beats_per_flit - 1, self.first_beat_cycle, self.beats, self.cycles
        )

    def decided_from(self, cycle: int) -> int:
        """Find the first slot that is decided in ``cycle`` or later; slot 0 never carries data."""
        beat = first_beat_from(cycle + self.line_cycles, self.first_beat_cycle, self.beats, self.cycles)
        return max(1, -(-(beat + 1 - self.frame_beat) // self.beats_per_flit))

    @property
    def longest_cycles(self) -> int:
        """Give the cycles of a slot, rounded up."""
        return -(-self.beats_per_flit * self.cycles // self.beats)
