"""The plant: spectra against SAX and a transfer matrix, heat and drift against closed forms, its C++ against its Python."""

import math
import subprocess
from importlib.resources import files

import numpy as np
import pytest

from lightfabric.model.spec import SpecError
from lightfabric.model.spec.tuner import TunerSpec
from lightfabric.sim.plant.ring_bus import Plant, RingBus

BUS = RingBus()
BESIDE = RingBus(through_db=0.0)

# By SAX 0.18.2: an add-drop ring of two ``coupler_ideal`` and two ``straight``, 1.55 um, ng 4.2, FSR 1600 GHz, amplitudes
# kept by the couplers 0.97816 and 0.97857 and by a round 0.99468, which make D0 -1 dB, T0 -20 dB and a FWHM of 25 GHz.
SAX = (
    (0, -1.0000, -20.0000),
    (3, -1.2433, -11.9431),
    (6.25, -1.9692, -6.8189),
    (12.5, -4.0103, -2.9671),
    (25, -7.9876, -0.9588),
    (50, -13.2922, -0.2613),
    (100, -19.0750, -0.0675),
    (200, -24.8767, -0.0176),
    (400, -30.1970, -0.0052),
    (600, -32.5174, -0.0030),
    (800, -33.2047, -0.0026),
    (1000, -32.5174, -0.0030),
    (1587.5, -4.0103, -2.9671),
    (1600, -1.0000, -20.0000),
)
T1, T2, ROUND = 0.9781574350337582, 0.9785741396881171, 0.9946800414744555


def decibels(share):
    return 10 * np.log10(share)


@pytest.mark.parametrize(("detuning_ghz", "drop_db", "through_db"), SAX)
def test_spectra_are_those_of_sax_within_a_tenth_of_a_decibel(detuning_ghz, drop_db, through_db):
    assert decibels(BESIDE.drop(detuning_ghz)) == pytest.approx(drop_db, abs=0.1)
    assert decibels(BESIDE.through(detuning_ghz)) == pytest.approx(through_db, abs=0.1)


def test_spectra_are_those_of_the_transfer_matrix():
    """Fields around a ring, summed over its rounds: Bogaerts, Silicon microring resonators, 2012, equations 3 and 4."""
    detunings = np.linspace(-2000, 2000, 4001)
    back = ROUND * np.exp(2j * np.pi * detunings / BESIDE.tuner.fsr_ghz)
    through = abs((T1 - T2 * back) / (1 - T1 * T2 * back)) ** 2
    drop = abs(np.sqrt((1 - T1**2) * (1 - T2**2) * back) / (1 - T1 * T2 * back)) ** 2
    assert decibels(BESIDE.drop(detunings)) == pytest.approx(decibels(drop), abs=0.1)
    assert decibels(BESIDE.through(detunings)) == pytest.approx(decibels(through), abs=0.1)


def test_near_a_resonance_the_spectrum_is_a_lorentzian():
    detunings = np.linspace(-60, 60, 121)
    lorentzian = 1 / (1 + (2 * detunings / 25) ** 2)
    assert decibels(BUS.resonance(detunings)) == pytest.approx(decibels(lorentzian), abs=0.03)


def test_a_heater_warms_exponentially_however_time_is_cut():
    plant = Plant(BUS, np.zeros(8))
    for time_ns in (1000, 250, 3750, 700):
        plant.heat([1000] + [0] * 7, time_ns)
    expected = 500 * (1 - math.exp(-5700 / 5000))
    assert plant.shift_ghz == pytest.approx([expected] + [0] * 7)
    plant.heat([0] * 8, 10_000)
    assert plant.shift_ghz[0] == pytest.approx(expected * math.exp(-2))


def test_heat_reaches_neighbours_and_ambient_reaches_all():
    plant = Plant(RingBus(neighbour=0.1), np.zeros(8))
    plant.heat([0, 0, 2000, 0, 0, 0, 0, 0], 1e9)
    plant.ambient_c = 2.5
    expected = -1000 * 0.1 ** np.array([2, 1, 0, 1, 2, 3, 4, 5.0]) - 25
    assert plant.resonances_ghz == pytest.approx(expected)


def test_light_that_a_ring_dropped_is_missing_behind_it():
    plant = Plant(RingBus(through_db=0.0), np.full(8, 1300.0))
    plant.cold_ghz[[1, 5]] = plant.lines_ghz[3]
    dropped = plant.dropped_mw()[:, 3]
    passed = BESIDE.through(1300 - plant.lines_ghz[3])
    assert dropped[1] == pytest.approx(0.1 * 10**-0.1 * passed)
    assert dropped[5] == pytest.approx(0.01 * dropped[1] * passed**3)


def test_crosstalk_is_that_of_the_facts():
    """8 channels, FWHM 40 GHz: -15.6 dB at 200 GHz spacing for the worst one; shared facts, computed there by hand."""
    bus = RingBus(TunerSpec(fwhm_ghz=40.0, fsr_ghz=1e5, range_ghz=2e5, heater_bits=16), through_db=0.0, drop_db=0.0)
    lines = bus.lines_ghz()
    sums = [sum(bus.drop(line - other) for other in lines if other != line) for line in lines]
    assert decibels(max(sums)) == pytest.approx(-15.6, abs=0.1)


def test_noise_is_as_large_as_it_is_said():
    plant = Plant(RingBus(noise_ua=2.0), np.zeros(8), np.random.default_rng(5))
    seen = np.array([plant.currents_ua() for _ in range(4000)])
    assert seen.std(axis=0) == pytest.approx(np.full(8, 2.0), rel=0.06)


def test_a_converter_ends_at_its_scale():
    plant = Plant(BUS, BUS.lines_ghz())
    assert plant.samples()[0] == pytest.approx(0.6 * 1024, rel=0.03)
    plant.lines_mw *= 10
    assert plant.samples()[0] == 1023


PROBE = """
#include <cstdio>
#include "ring_bus.h"
int main() {
    RingBus bus(1);
    bus.noise_ua = 0;
    bus.ambient_c = 0.7;
    bus.lines_mw[2] = 0.03;
    RingBus::Codes codes{};
    for (size_t ring = 0; ring < RINGS; ring++) bus.cold_ghz[ring] = 40.0 * ring * ring - 900;
    for (size_t frame = 0; frame < 200; frame++) {
        for (size_t ring = 0; ring < RINGS; ring++) codes[ring] = (frame * (ring + 3) * 7) % (1u << HEATER_BITS);
        bus.heat(codes);
        bus.shine();
        for (size_t ring = 0; ring < RINGS; ring++)
            std::printf("%.12g %.12g %u\\n", bus.resonance_ghz[ring], bus.light_ua[ring], bus.sample(ring));
    }
}
"""


def test_the_plant_in_cpp_is_the_plant_in_python(tmp_path):
    bus = RingBus(neighbour=0.03)
    (tmp_path / "probe.cpp").write_text(PROBE)
    (tmp_path / "ring_bus.h").write_text((files("lightfabric.sim.plant") / "ring_bus.h").read_text())
    (tmp_path / "ring_bus_shape.h").write_text(bus.constants())
    subprocess.run(["g++", "-std=c++17", "-O1", "-o", "probe", "probe.cpp"], cwd=tmp_path, check=True, timeout=120)
    printed = subprocess.run([tmp_path / "probe"], check=True, capture_output=True, text=True, timeout=60).stdout
    theirs = np.array([line.split() for line in printed.splitlines()], dtype=float).reshape(200, 8, 3)
    plant, rings = Plant(bus, 40.0 * np.arange(8) ** 2 - 900), np.arange(8)
    plant.ambient_c = 0.7
    plant.lines_mw[2] = 0.03
    for frame in range(200):
        plant.heat(frame * (rings + 3) * 7 % 4096, bus.tuner.frame_ns)
        assert theirs[frame, :, 0] == pytest.approx(plant.resonances_ghz, rel=1e-9)
        assert theirs[frame, :, 1] == pytest.approx(plant.currents_ua(), rel=1e-8)
        # A current at the border between two codes may be rounded to either.
        assert abs(theirs[frame, :, 2] - plant.samples()).max() <= 1


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"spacing_ghz": 300.0}, r"RingBus.spacing_ghz must be an FSR over the number of rings, or less, not 300.0"),
        ({"residue": 1.0}, r"RingBus.residue must be from 0 to 0.5, not 1.0"),
        ({"line_mw": 0.0}, r"RingBus.line_mw must be above 0, not 0.0"),
    ],
)
def test_a_bus_that_cannot_be_is_refused(fields, error):
    with pytest.raises(SpecError, match=error):
        RingBus(**fields)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"rings": 3}, r"TunerSpec.rings must be from 4 to 64, not 3"),
        ({"range_ghz": 1600.0}, r"TunerSpec.range_ghz must be 1.05 times fsr_ghz or more, not 1600.0"),
        ({"heater_bits": 8}, r"TunerSpec.heater_bits must be enough for 8 codes in fwhm_ghz, not 8"),
        ({"heater_ns": 1e6}, r"TunerSpec.heater_ns must be at most 40 frames, not 1000000.0"),
    ],
)
def test_a_tuner_that_cannot_be_is_refused(fields, error):
    with pytest.raises(SpecError, match=error):
        TunerSpec(**fields)
