"""Cuts of a pipeline against every cut there is."""

from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightfabric.placement.search.partition import end_layers


def fastest_cut(seconds, stages):
    """Slowest stage of the best cut, by dynamic programming over where the last stage begins."""
    total = np.concatenate(([0.0], np.cumsum(seconds)))

    @cache
    def slowest(end, count):
        if count == 1:
            return total[end]
        return min(max(slowest(begin, count - 1), total[end] - total[begin]) for begin in range(count - 1, end))

    return slowest(len(seconds), stages)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.data())
def test_the_oracle_knows_the_best_of_all_cuts(times, data):
    stages = data.draw(st.integers(1, len(times)))
    every = ([0, *inner] for inner in combinations(range(1, len(times)), stages - 1))
    assert fastest_cut(times, stages) == min(np.add.reduceat(times, cut).max() for cut in every)


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
    assert found == pytest.approx(fastest_cut(seconds, stages))


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
