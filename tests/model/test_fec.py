"""Codes of forward error correction: what they put on the line, and which specs have room for them."""

from dataclasses import replace
from fractions import Fraction

import pytest
from scipy.stats import binom

from lightfabric.model.spec import FEC_CODES, ChipletSpec

NARROW = ChipletSpec(wavelengths_per_port=4)
BITS = {"none": 66, "kr4": 66, "kp4": 68, "light": 66}


@pytest.mark.parametrize("name", FEC_CODES)
def test_a_codeword_fills_the_blocks_of_its_words(name):
    """The message has the bits of the words, and a header bit for every four of them in the codes of 802.3."""
    code = FEC_CODES[name]
    assert code.codeword_symbols * code.symbol_bits == code.words * code.block_bits
    assert code.message_symbols * code.symbol_bits == code.words * 64 + (0 if name == "light" else code.words // 4)
    assert code.correctable_symbols == {"kr4": 7, "kp4": 15, "light": 2}[name]


@pytest.mark.parametrize("name", BITS)
def test_the_rate_of_a_line_follows_from_the_bits_of_its_blocks(name):
    spec = replace(NARROW, fec=name, replay_flits=0)
    assert spec.blocks_per_cycle == Fraction(32_000, 500 * BITS[name])
    assert spec.slot_cycles == 4 / spec.blocks_per_cycle


def test_a_clock_that_is_enough_for_shorter_blocks_is_too_fast_a_line_for_none():
    with pytest.raises(
        ValueError, match=r"^ChipletSpec.core_clock_mhz must be at least 484.85, so that .* one 66-bit block"
    ):
        replace(NARROW, core_clock_mhz=480.0)
    assert replace(NARROW, core_clock_mhz=480.0, fec="kp4", replay_flits=0).blocks_per_cycle < 1


@pytest.mark.parametrize(
    ("wavelengths", "beats"),
    [(1, (80, 16)), (2, (40, 8)), (4, (20, 4)), (8, (10, 2)), (16, (5, 1)), (32, (5, 1))],
)
def test_codewords_are_whole_numbers_of_beats(wavelengths, beats):
    """On 32 wavelengths two lie side by side."""
    wide = ChipletSpec(wavelengths_per_port=wavelengths, flit_bytes=256, reach_m=1.0, core_clock_mhz=600.0)
    for name, count in zip(("kr4", "light"), beats, strict=True):
        spec = replace(wide, fec=name, replay_flits=0)
        assert (spec.codeword_beats, spec.codewords_abreast) == (count, 2 if wavelengths == 32 else 1)


def test_the_replay_buffer_holds_what_encoder_and_decoder_delay():
    depths = {name: replace(NARROW, fec=name, replay_flits=0).round_trip_flits for name in BITS}
    assert depths["none"] < depths["light"] < depths["kr4"] < depths["kp4"]


@pytest.mark.parametrize(("name", "most"), [("none", 1e-4), ("light", 1e-3), ("kr4", 1e-3), ("kp4", 2e-3)])
def test_the_errors_that_a_spec_may_have_are_those_that_its_code_carries(name, most):
    spec = replace(NARROW, fec=name, replay_flits=0)
    assert replace(spec, bit_error_rate=most).bit_error_rate == most
    with pytest.raises(ValueError, match=rf"^ChipletSpec.bit_error_rate must be from 0 to {most}, not 0.0025$"):
        replace(spec, bit_error_rate=2.5e-3)


def test_an_unknown_code_is_refused():
    with pytest.raises(ValueError, match=r"^ChipletSpec.fec must be one of none, kr4, kp4, light, not 'kr5'$"):
        replace(NARROW, fec="kr5")


@pytest.mark.parametrize(
    ("name", "bit_error_rate", "published"),
    [
        ("kp4", 1e-3, 1.53e-4), ("kp4", 5e-4, 2.79e-8), ("kp4", 2.4e-4, 8.2e-13), ("kp4", 1e-4, 1.4e-18),
        ("kr4", 1e-3, 0.161), ("kr4", 2.4e-4, 5.2e-5), ("kr4", 1e-4, 8.9e-8), ("kr4", 3e-5, 8.1e-12),
    ],
)  # fmt: skip
def test_codewords_are_lost_as_published(name, bit_error_rate, published):
    """Of RS(544,514) at 1e-3 and 2.4e-4: UALink 200G and IEEE 802.3; the others were computed by two packages."""
    assert FEC_CODES[name].codeword_loss_rate(bit_error_rate) == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize("name", FEC_CODES)
def test_codewords_are_lost_by_more_wrong_symbols_than_are_corrected(name):
    code, rates = FEC_CODES[name], [0.0, 1e-300, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 2e-3, 0.5]
    lost = [code.codeword_loss_rate(rate) for rate in rates]
    assert lost[:2] == [0, 0]
    assert lost == sorted(lost)
    for rate, mine in zip(rates[4:], lost[4:], strict=True):
        wrong = 1 - (1 - rate) ** code.symbol_bits
        assert mine == pytest.approx(binom.sf(code.correctable_symbols, code.codeword_symbols, wrong), rel=1e-7)


def test_a_stronger_code_loses_fewer_bits_of_a_line():
    for rate in (1e-6, 1e-5, 1e-4, 2e-4):
        lost = [FEC_CODES[name].codeword_loss_rate(rate) / FEC_CODES[name].words for name in ("light", "kr4", "kp4")]
        assert lost == sorted(lost, reverse=True)
