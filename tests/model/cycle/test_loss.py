"""Slots that bit errors spoil: the closed form against the bits of flits, scrambled, and against what the model draws."""

import random
from dataclasses import replace
from itertools import pairwise
from math import sqrt

import pytest

from lightfabric.model import codec
from lightfabric.model.cycle.slot import MAX_SLOT_LOSS_RATE, Losses
from lightfabric.model.spec import ChipletSpec

SPECS = {
    "eight beats": ChipletSpec(wavelengths_per_port=1, flit_bytes=64, reach_m=1.0),
    "a beat": ChipletSpec(wavelengths_per_port=8, flit_bytes=64, reach_m=1.0, crc="crc24"),
    "four beats": ChipletSpec(wavelengths_per_port=4, flit_bytes=128, reach_m=1.0, crc="crc16"),
    "two beats": ChipletSpec(wavelengths_per_port=16, flit_bytes=256, reach_m=1.0, crc="crc16-umts"),
}
CONFIDENT = 2.73
"""Standard deviations of the band in which all of eight values are with 95 %."""


@pytest.fixture(params=SPECS)
def spec(request) -> ChipletSpec:
    return SPECS[request.param]


Wrong = dict[tuple[int, int], int]
"""(number of the beat, wavelength) -> mask of the wrong ones of the 66 bits of a block, the sync header lowest."""


class Line:
    """Random flits on a line, and which of them arrive when some of its bits are wrong."""

    def __init__(self, spec: ChipletSpec, count: int, seed: int):
        rng = random.Random(seed)
        self.spec, self.states, self.blocks = spec, list[list[int]](), list[list[int]]()
        states = [rng.getrandbits(codec.SCRAMBLER_BITS) for _ in range(spec.wavelengths_per_port)]
        for _ in range(count):
            for beat in codec.beats(spec, codec.Flit(rng.randbytes(spec.payload_bytes), codec.DATA).encode(spec)):
                self.states.append(states)
                states, blocks = zip(*map(codec.scramble, states, beat), strict=True)
                self.blocks.append(list(blocks))

    def is_lost(self, slot: int, wrong: Wrong) -> bool:
        """Whether a receiver drops this flit: it descrambles all that comes from the beat before it on."""
        size, lanes = self.spec.beats_per_flit, range(self.spec.wavelengths_per_port)
        first, beats = slot * size, list[list[int]]()
        states = [self.states[first][lane] ^ (wrong.get((first - 1, lane), 0) >> 8) for lane in lanes]
        for number in range(first, first + size):
            blocks = (self.blocks[number][lane] ^ (wrong.get((number, lane), 0) >> 2) for lane in lanes)
            states, plain = zip(*map(codec.descramble, states, blocks), strict=True)
            beats.append(list(plain))
        return codec.Flit.decode(self.spec, codec.from_beats(self.spec, beats)) is None


def bits_that_matter(spec: ChipletSpec) -> tuple[int, int]:
    """Counted one after the other: the bits of a slot on the line that spoil it, and those that spoil the next one."""
    line, size = Line(spec, 3, seed=1), spec.beats_per_flit
    spoiled = [0, 0, 0]
    for beat in range(size, 2 * size):
        for lane in range(spec.wavelengths_per_port):
            for bit in range(spec.BLOCK_BITS_ON_LINE):
                for slot in range(3):
                    spoiled[slot] += line.is_lost(slot, {(beat, lane): 1 << bit})
    assert spoiled[0] == 0
    return spoiled[1], spoiled[2]


def test_the_loss_of_slots_is_that_of_all_single_bit_errors(spec):
    own, next_ = bits_that_matter(spec)
    for rate in (1e-15, 1e-9, 1e-6):
        losses = Losses.of(chiplet(spec, rate))
        assert losses.own_rate == pytest.approx(own * rate, rel=own * rate)
        assert losses.echo_rate == pytest.approx(next_ * rate, rel=own * rate)
        assert losses.slot_loss_rate == pytest.approx((own + next_) * rate, rel=2 * own * rate)


def chiplet(spec: ChipletSpec, bit_error_rate: float) -> ChipletSpec:
    return replace(spec, bit_error_rate=bit_error_rate)


def band(losses: Losses, slots: int) -> float:
    """Of the share of lost slots: neighbours are lost together more often than by chance."""
    lost, both = losses.slot_loss_rate, both_rate(losses)
    return CONFIDENT * sqrt((lost * (1 - lost) + 2 * (both - lost**2)) / slots)


def both_rate(losses: Losses) -> float:
    """Of a slot and the next one: by an echo of the first, or else by errors of each."""
    own, echo = losses.own_rate, losses.echo_rate
    return echo + (own - echo + (1 - own) * echo) * own


def assert_lost_as_said(losses: Losses, lost: list[bool], seed: int) -> None:
    slots = len(lost)
    assert abs(sum(lost) / slots - losses.slot_loss_rate) < band(losses, slots), f"seed {seed}"
    pairs = sum(a and b for a, b in pairwise(lost)) / slots
    of_pairs = sqrt(2 * both_rate(losses) / slots)  # twice as many as if pairs were on their own, for they come in runs
    assert abs(pairs - both_rate(losses)) < CONFIDENT * of_pairs, f"seed {seed}"


def test_random_bit_errors_spoil_so_many_slots(spec):
    """Monte Carlo over the bits on the line, at the highest rate: a slot alone, and together with the next one."""
    losses, rng, slots = Losses.of(chiplet(spec, spec.MAX_BIT_ERROR_RATE)), random.Random(2), 4000
    line, wrong = Line(spec, slots, seed=2), Wrong()
    bits, at = spec.BLOCK_BITS_ON_LINE, -1
    end = len(line.blocks) * spec.wavelengths_per_port * bits
    while (at := at + 1 + int(rng.expovariate(spec.MAX_BIT_ERROR_RATE))) < end:
        block, bit = divmod(at, bits)
        place = divmod(block, spec.wavelengths_per_port)
        wrong[place] = wrong.get(place, 0) | 1 << bit
    assert_lost_as_said(losses, [line.is_lost(slot, wrong) for slot in range(slots)], seed=2)


@pytest.mark.parametrize("backwards", [False, True])
def test_the_model_draws_losses_as_the_closed_form_says(spec, backwards):
    losses = replace(Losses.of(chiplet(spec, 1e-5), seed=1), backwards=backwards)
    lost = [losses(7 + slot * spec.beats_per_flit) for slot in range(100_000)]
    assert_lost_as_said(losses, lost, seed=1)


def test_without_bit_errors_no_slot_is_lost(spec):
    losses = Losses.of(spec)
    assert (losses.slot_loss_rate, losses.echo_rate, losses.threshold, losses.echo_threshold) == (0, 0, 0, 0)


def test_the_widest_port_loses_less_than_half_of_its_slots_at_the_highest_rate():
    wide = ChipletSpec(wavelengths_per_port=32, flit_bytes=256, reach_m=1.0, bit_error_rate=ChipletSpec.MAX_BIT_ERROR_RATE)
    assert 0.3 < Losses.of(wide).slot_loss_rate < MAX_SLOT_LOSS_RATE


CODED = {
    "ten slots a codeword": ChipletSpec(wavelengths_per_port=1, flit_bytes=64, reach_m=1.0, fec="kp4"),
    "a slot cut in two": ChipletSpec(wavelengths_per_port=4, flit_bytes=256, reach_m=1.0, fec="kr4"),
    "two codewords abreast": ChipletSpec(wavelengths_per_port=32, flit_bytes=256, reach_m=1.0, fec="kr4"),
    "two codewords a slot": ChipletSpec(wavelengths_per_port=8, flit_bytes=256, reach_m=1.0, fec="light"),
    "a slot a codeword": ChipletSpec(wavelengths_per_port=16, flit_bytes=128, reach_m=1.0, fec="light"),
}


@pytest.mark.parametrize("case", CODED)
def test_the_slots_of_a_codeword_are_lost_together(case):
    """Counted in words: a codeword has 80 or 16, and each one, or each pair of those abreast, is lost by itself."""
    spec, frame_beat, seed = chiplet(CODED[case], 1e-3), 37, 3
    losses, slots, words = Losses.of(spec, seed), range(8000), spec.flit_bytes // 8
    group = spec.code.words * (2 if case == "two codewords abreast" else 1)
    lost = [losses(frame_beat + slot * words // spec.wavelengths_per_port, frame_beat) for slot in slots]
    alone = dict[int, set[bool]]()
    for slot in slots:
        if slot * words // group == (slot * words + words - 1) // group:
            alone.setdefault(slot * words // group, set()).add(lost[slot])
    assert all(len(fates) == 1 for fates in alone.values())
    rate = 1 - (1 - spec.code.codeword_loss_rate(1e-3)) ** (group // spec.code.words)
    cut = [slot for slot in slots if slot * words // group != (slot * words + words - 1) // group]
    expected = len(slots) * rate + len(cut) * rate * (1 - rate)
    deviation = sqrt(expected * max(1, group / words))
    assert abs(sum(lost) - expected) < 3 * deviation, f"seed {seed}"
    assert losses.slot_loss_rate == pytest.approx(expected / len(slots), rel=1e-6)
    first_of_run = sum(b and not a for a, b in pairwise(lost))
    assert abs(first_of_run - losses.next_rate * lost.count(False)) < 3 * sqrt(first_of_run), f"seed {seed}"


@pytest.mark.parametrize("case", CODED)
def test_the_loss_of_codewords_follows_from_that_of_slots(case):
    for rate in (1e-5, 1e-4, 1e-3):
        spec = chiplet(CODED[case], rate)
        one = spec.code.codeword_loss_rate(rate)
        abreast = 2 if case == "two codewords abreast" else 1
        assert Losses.of(spec).own_rate == pytest.approx(1 - (1 - one) ** abreast, rel=1e-9)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"slot_loss_rate": 0.6}, r"^Losses.slot_loss_rate must be from 0 to 0.5, not 0.6$"),
        ({"slot_loss_rate": 0.1, "echo_rate": 0.06}, r"^Losses.echo_rate must be from 0 to half of the losses, not 0.06$"),
        ({"seed": -1}, r"^Losses.seed must be from 0 to 2147483647, not -1$"),
    ],
)
def test_wrong_losses_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Losses(**wrong)
