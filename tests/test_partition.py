"""Cuts of a pipeline against every cut there is."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightfabric.placement.search.partition import cuts, end_layers, slowest_stage


def every_cut(layers, stages):
    for inner in combinations(range(1, layers), stages - 1):
        yield np.array([0, *inner, layers])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.data())
def test_no_cut_is_better(times, data):
    seconds, stages = np.array(times, float), data.draw(st.integers(1, len(times)))
    found = cuts(seconds, stages)
    assert found[0] == 0
    assert found[-1] == len(times)
    assert (np.diff(found) > 0).all()
    assert slowest_stage(seconds, found) == min(slowest_stage(seconds, cut) for cut in every_cut(len(times), stages))


@given(st.integers(2, 9), st.integers(1, 40), st.floats(0, 4), st.floats(0, 12))
def test_ends_of_equal_layers_are_as_good_as_the_best_cut(stages, more, first_end, last_end):
    layers = stages + more
    columns = (np.array([value]) for value in (layers, stages, first_end, last_end))
    first, last, slowest = (int(column[0]) if index < 2 else column[0] for index, column in enumerate(end_layers(*columns)))
    between = layers - first - last
    assert min(first, last) >= 1
    assert between >= stages - 2
    assert stages > 2 or between == 0
    seconds = np.ones(layers)
    seconds[0] += first_end
    seconds[-1] += last_end
    found = max(first + first_end, -(-between // max(stages - 2, 1)), last + last_end)
    assert found == pytest.approx(slowest)
    assert found == pytest.approx(slowest_stage(seconds, cuts(seconds, stages)))


@given(st.integers(2, 6), st.integers(1, 14), st.floats(0, 2), st.floats(0, 6))
def test_of_cuts_as_fast_the_fullest_stage_has_fewest_layers(stages, more, first_end, last_end):
    layers = stages + more
    first, last, slowest = (column[0] for column in end_layers(*map(np.atleast_1d, (layers, stages, first_end, last_end))))
    ends = [(a, b) for a in range(1, layers) for b in range(1, layers - a + 1)]
    fullest = {
        (a, b): max(a, between, b)
        for a, b in ends
        if (between := _fullest_between(layers - a - b, stages - 2)) is not None
        and max(a + first_end, between, b + last_end) <= slowest + 1e-9
    }
    assert fullest[first, last] == min(fullest.values())


def _fullest_between(layers, stages):
    """None if they are not enough, or too many for no stages."""
    if layers < stages or (layers and not stages):
        return None
    return -(-layers // stages) if stages else 0


def test_equal_layers_are_dealt_out_evenly():
    assert np.diff(cuts(np.ones(96), 8)).tolist() == [12] * 8


@pytest.mark.parametrize("stages", [0, 4])
def test_a_number_of_stages_that_no_layers_fill_is_refused(stages):
    with pytest.raises(ValueError, match=f"stages must be from 1 to 3, the number of layers, not {stages}"):
        cuts(np.ones(3), stages)
