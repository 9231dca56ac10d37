"""The tuner on verilated hardware and the plant in C++: random corners, drift, dead and stolen lines, least power."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from lightfabric.flows.tool.tuner_run import measure
from lightfabric.model.spec import SpecError
from lightfabric.model.spec.tuner import tuner_for
from lightfabric.sim.photonic.tuner import Run
from lightfabric.sim.plant.ring_bus import RingBus

# Grids of the CW-WDM MSA: 8 and 16 lines at 200 GHz, 32 at 100 GHz.
EIGHT = RingBus()
SIXTEEN = RingBus(tuner_for(16))
MANY = RingBus(tuner_for(32), spacing_ghz=100.0)


def tuned(bus, corners, **job):
    """What a run showed, with all rings of all corners locked, each on a line of its own and near it, within the bound."""
    bound_frames = bus.tuner.rings * bus.tuner.acquire_frames
    seen = measure(bus, Run(corners, bound_frames, **job))
    assert (seen["unlocked"], seen["collisions"], seen["astray"]) == (0, 0, 0)
    assert 0 < min(seen["lock_frames"]) <= max(seen["lock_frames"]) <= bound_frames
    assert max(seen["worst_ghz"]) < bus.tuner.fwhm_ghz / 4
    return seen


def held(seen, part):
    assert (seen[f"{part}_collisions"], seen[f"{part}_astray"]) == (0, 0)


def test_all_rings_of_random_corners_lock_alone_and_a_dead_line_is_noticed():
    seen = tuned(EIGHT, 50, fault="dead line")
    held(seen, "fault")
    assert seen["fault_unsettled"] == 0
    # Of eight rings on seven lines one must fail, whichever lost its line.
    assert (set(seen["fault_locked"]), set(seen["fault_failed"])) == ({7}, {1})
    assert max(seen["noticed_frames"]) <= 5 * 2 * EIGHT.tuner.half_frames


def test_a_stolen_line_is_noticed_and_its_ring_takes_the_one_left():
    seen = tuned(EIGHT, 50, fault="stolen line")
    held(seen, "fault")
    assert (set(seen["fault_locked"]), seen["fault_unsettled"]) == ({8}, 0)
    # The broken heater is on its way for some time constants before the light is gone.
    assert max(seen["noticed_frames"]) <= 5 * 2 * EIGHT.tuner.half_frames + 5 * EIGHT.tuner.settle_frames


@pytest.mark.slow
def test_rings_follow_800_degrees_a_second_over_their_heaters_range():
    """All rings alike, so that none is at an end of its range before the others: 1600 GHz, an FSR."""
    seen = tuned(EIGHT, 1, local_ghz=0.0, systematic_ghz=20.0, warmer_c=20.0, colder_c=140.0)
    held(seen, "drift")
    assert (seen["drift_unlocked"], seen["drift_alarms"]) == (0, 0)
    assert seen["drift_worst_ghz"][0] < EIGHT.tuner.fwhm_ghz / 4


@pytest.mark.slow
def test_rings_at_an_end_of_their_heaters_range_come_back_an_fsr_away():
    seen = tuned(EIGHT, 2, warmer_c=100.0, colder_c=150.0)
    held(seen, "drift")
    assert seen["drift_unlocked"] == 0
    assert seen["drift_alarms"] > 0


def least_ghz(bus, cold_ghz, floor_ghz):
    """The least sum of shifts from a floor on, by the Hungarian method."""
    ways = (cold_ghz[:, None] - bus.lines_ghz() - floor_ghz) % bus.tuner.fsr_ghz + floor_ghz
    return ways[linear_sum_assignment(ways)].sum()


@pytest.mark.slow
@pytest.mark.parametrize("bus", [EIGHT, MANY], ids=["8", "32"])
def test_the_heaters_of_a_bus_take_the_least_power_there_is(bus):
    """Without heat from neighbours, which moves the floor. A line just below the floor may be taken: that is less."""
    bus, corners = replace(bus, neighbour=0.0), 30
    seen, spec = tuned(bus, corners, seed=3), bus.tuner
    shifts, cold = (np.reshape(seen[name], (corners, spec.rings)) for name in ("shift_ghz", "cold_ghz"))
    floor_ghz, dither_ghz = (codes / spec.codes_per_ghz for codes in (spec.floor_code, spec.dither_codes))
    most = np.array([least_ghz(bus, each, floor_ghz) for each in cold])
    least = np.array([least_ghz(bus, each, floor_ghz - spec.fwhm_ghz) for each in cold])
    slack_ghz = spec.rings * dither_ghz
    assert np.all(shifts.sum(axis=1) <= most + slack_ghz)
    assert np.all(shifts.sum(axis=1) >= least - slack_ghz)
    assert np.mean(abs(shifts.sum(axis=1) - most) <= slack_ghz) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("bus", "corners"), [(EIGHT, 1000), (SIXTEEN, 150), (MANY, 60)], ids=["8", "16", "32"])
def test_buses_of_all_grids_lock_from_random_corners(bus, corners):
    tuned(bus, corners, seed=2)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"corners": 0}, r"Run.corners must be from 1 to 1048576, not 0"),
        ({"fault": "a storm"}, r"Run.fault must be none, dead line or stolen line, not 'a storm'"),
    ],
)
def test_a_run_that_cannot_be_is_refused(fields, error):
    with pytest.raises(SpecError, match=error):
        Run(**{"corners": 1, "bound_frames": 1, **fields})
