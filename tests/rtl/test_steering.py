"""The RTL of steering and claims: a wavelength moves within a bound, and is never on a segment with another of its line."""

from itertools import combinations

import pytest

from lightfabric.rtl.claims import ClaimTable
from lightfabric.rtl.steering import Outcome, Steering, StepBounds
from lightfabric.sim.circuit.steering import SteeringBench

# Circuits from node to node on a ring of four, as masks of the fibres behind nodes; some share one.
SEGMENTS = {0: 0b0011, 1: 0b0110, 2: 0b1000, 3: 0b1111}
LINES, NODES = 3, 4
BOUNDS = StepBounds(claim_cycles=20, drain_cycles=20, park_cycles=20, lock_cycles=20, train_cycles=20)


@pytest.fixture(scope="module")
def bench() -> SteeringBench:
    return SteeringBench(SEGMENTS, LINES, NODES, BOUNDS)


def outcomes(run):
    return {outcome: sum(move.outcome == outcome for move in run.moves) for outcome in Outcome}


@pytest.mark.parametrize("fail_rate", [0.0, 0.03, 0.15])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_two_circuits_have_one_line_on_one_segment_and_every_move_ends(bench, fail_rate, seed):
    run = bench.run(40, fail_rate=fail_rate, seed=seed)
    for light in run.light:
        for (one, line), (other, same) in combinations(light.items(), 2):
            assert line != same or not SEGMENTS[one] & SEGMENTS[other]
    assert all(0 < move.end - move.begin <= BOUNDS.most_cycles + 2 for move in run.moves)
    assert Outcome.NONE not in {move.outcome for move in run.moves}
    assert max(len(light) for light in run.light) >= 2
    if not fail_rate:
        assert {outcome for outcome, count in outcomes(run).items() if count} == {Outcome.MOVED, Outcome.BUSY}


def test_every_way_to_end_is_seen(bench):
    seen = {}
    for seed in range(6):
        for outcome, count in outcomes(bench.run(40, fail_rate=0.06, seed=10 + seed)).items():
            seen[outcome] = seen.get(outcome, 0) + count
    assert all(seen[outcome] for outcome in Outcome if outcome != Outcome.NONE)


def test_dark_time_of_moves_is_that_for_which_links_are_held(bench):
    # A circuit that is dark before its move is held before the move drains it, which is not counted.
    run = bench.run(30, fail_rate=0.0, seed=3)
    first = {}
    for move in run.moves:
        if move.outcome == Outcome.MOVED:
            first.setdefault(move.circuit, move)
    for circuit, counted in run.counted.items():
        assert 0 < counted <= run.dark[circuit]
        claims = sum(
            BOUNDS.claim_cycles + 1 for move in run.moves if move.circuit == circuit and move.begin <= first[circuit].begin
        )
        assert run.dark[circuit] - counted <= claims


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match=r"Steering.lines must be at least 2, not 1"):
        Steering(1, BOUNDS)
    with pytest.raises(ValueError, match=r"StepBounds.park_cycles must be from 4 to 1073741824, not 2"):
        StepBounds(20, 20, 2, 20, 20)
    with pytest.raises(ValueError, match=r"ClaimTable.segments must be at least 2, not 0"):
        ClaimTable(2, 2, 0)
