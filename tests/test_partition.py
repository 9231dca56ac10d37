"""Cuts of a pipeline against every cut there is."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightfabric.placement.partition import cuts, slowest_stage


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


def test_equal_layers_are_dealt_out_evenly():
    assert np.diff(cuts(np.ones(96), 8)).tolist() == [12] * 8


@pytest.mark.parametrize("stages", [0, 4])
def test_a_number_of_stages_that_no_layers_fill_is_refused(stages):
    with pytest.raises(ValueError, match=f"stages must be from 1 to 3, the number of layers, not {stages}"):
        cuts(np.ones(3), stages)
