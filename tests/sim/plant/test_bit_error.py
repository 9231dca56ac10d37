"""The error rate of a wavelength: points of Q, detuning and neighbours, and a detuned ring in the bench of a link."""

import numpy as np
import pytest

from lightfabric.model.spec import ChipletSpec
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.link import LinkBench
from lightfabric.sim.plant.bit_error import ChangingErrors, Detector, bit_error_rates
from lightfabric.sim.plant.ring_bus import Plant, RingBus

BUS = RingBus()


@pytest.mark.parametrize(
    ("q", "ber"), [(3.4917, 2.4e-4), (4.2649, 1e-5), (4.7534, 1e-6), (5.9978, 1e-9), (7.0345, 1e-12), (7.9413, 1e-15)]
)
def test_the_rate_of_a_q_is_that_of_the_tables(q, ber):
    """Agrawal, Fiber-Optic Communication Systems, section 4.6, has Q 6 at 1e-9 and 7 at 1e-12."""
    assert Detector(q).ber(1.0, 0.0, 1.0) == pytest.approx(ber, rel=2e-3)


@pytest.mark.parametrize(("decibels", "ber"), [(-3.04 - 0.53, 2.4e-4), (-1.70 - 0.53, 1e-6), (-0.69 - 0.53, 1e-9)])
def test_thermal_noise_makes_optical_decibels_those_of_q(decibels, ber):
    assert Detector().ber(10 ** (decibels / 10), 0.0, 1.0) == pytest.approx(ber, rel=0.06)


def test_an_eye_that_neighbours_close_guesses():
    assert Detector().ber(1.0, 0.5, 1.0) == 0.5


def test_a_detuned_ring_has_the_rate_of_its_power_and_crosstalk():
    plant = Plant(BUS, BUS.lines_ghz())
    tuned = bit_error_rates(plant, np.arange(8))
    assert tuned.max() < 1e-13
    plant.cold_ghz[3] += 6.25
    rates = bit_error_rates(plant, np.arange(8))
    # A quarter of the FWHM off, 0.8 of the power are left, and so is 0.8 of Q: less some of the eye, about 6.1.
    assert 3e-10 < rates[3] < 3e-9
    assert rates[[0, 1, 2, 4, 5, 6, 7]] == pytest.approx(tuned[[0, 1, 2, 4, 5, 6, 7]], rel=0.1, abs=1e-15)


def test_changing_errors_follow_their_rates_lane_by_lane():
    errors = ChangingErrors(lambda beat: [0.0, 1e-2 if beat < 500 else 0.1], np.random.default_rng(3))
    masks = [errors(beat, 2 * 66) for beat in range(1000)]
    assert not any(mask & (1 << 66) - 1 for mask in masks)
    for part, rate in ((masks[:500], 1e-2), (masks[500:], 0.1)):
        flips, bits = sum(mask.bit_count() for mask in part), 500 * 66
        assert abs(flips - rate * bits) < 4 * (bits * rate * (1 - rate)) ** 0.5
    assert errors.count == sum(mask.bit_count() for mask in masks)


SPEC = ChipletSpec(ports=1, wavelengths_per_port=1, flit_bytes=64)
FLITS = 120


def goodput(bench, detuning_ghz):
    """The run of the link on the wavelength of ring 3, which drifts in eight steps to a detuning, where it stays."""
    plant, drifted = Plant(BUS, BUS.lines_ghz()), []
    for share in np.linspace(0, 1, 9):
        plant.cold_ghz[3] = plant.lines_ghz[3] + detuning_ghz * share
        drifted.append(bit_error_rates(plant, np.arange(8))[[3]])
    errors = ChangingErrors(lambda beat: drifted[min(beat // 60, 8)], np.random.default_rng(11))
    flits = [(0, ClientFlit(bytes([n % 256, n // 256]))) for n in range(FLITS)]
    run = bench.run(flits, delay_cycles=3, errors_a=errors, bound_cycles=40_000)
    assert [flit.payload[:2] for _, flit in run.received] == [flit.payload for _, flit in flits]
    return run


def test_a_ring_that_drifts_from_its_line_shows_as_replays_and_goodput():
    bench = LinkBench(SPEC)
    tuned, near, far = (goodput(bench, detuning) for detuning in (0.0, 7.0, 15.0))
    assert (tuned.replays, tuned.crc_errors, tuned.bit_errors) == (0, 0, 0)
    assert near.cycles <= 1.02 * tuned.cycles
    assert far.bit_errors > 0
    assert far.crc_errors > 0
    assert far.replays > 0
    assert far.cycles > 1.05 * tuned.cycles
