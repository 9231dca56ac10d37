"""Loads of links in bins, and their figure for many fabrics of many GPUs."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from lightfabric.flows.experiment.fidelity import FILES, Detail
from lightfabric.flows.experiment.link_load import BINS, binned
from lightfabric.flows.figure import panel


def test_bins_have_the_busiest_of_their_links_and_all_places_have_one():
    share = np.zeros(100_000)
    share[[0, 50_000, 99_999]] = 0.25, 0.5, 1.0
    found = binned(share, np.arange(100_000))
    assert len(found) == BINS
    assert {place: found[place] for place in np.flatnonzero(found)} == {0: 0.25, BINS // 2: 0.5, BINS - 1: 1.0}
    assert binned(np.array([0.1, 0.2, 0.3]), np.array([0, 1, 1])).tolist() == [0.1, 0.3]


def test_a_matrix_is_empty_where_no_link_is():
    found = binned(np.array([0.5, 0.25]), np.array([0, 999]), np.array([999, 0]), 1000)
    assert found.shape == (BINS, BINS)
    assert (found[0, -1], found[-1, 0]) == (0.5, 0.25)
    assert np.isfinite(found).sum() == 2


@pytest.mark.parametrize("count", [1, 40])
def test_fabrics_have_a_panel_each_with_matrix_and_strips_and_no_more_than_there_is_room_for(count, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    matrix = np.eye(BINS) / 2
    runs = {
        f"fabric {k}": Detail([str(1000 * k) for k in range(BINS)], matrix, np.zeros(0, np.int64), {"up": np.ones(3) / 4})
        for k in range(count)
    }
    panel.draw(tmp_path, "many", runs, FILES[:1])
    axes = [each for each in drawn[0].axes if each.get_xlabel() == "to GPU"]
    assert len(axes) == min(count, panel.MAX_PANELS)
    assert all(each.get_title(loc="left").endswith("at most 50%") for each in axes)
    assert [text.get_text() for text in axes[0].texts] == ["up", "25%"]
    limits = {image.get_clim() for each in axes for image in each.images}
    assert limits == {(0, 50)}
