"""Every figure of ``lightfabric bench published``: near what was published, and quoted by the README as it comes out."""

import math
from pathlib import Path

import numpy as np
import pytest

from lightfabric.flows.command import bench
from lightfabric.flows.published import direct, schedule, table, training
from lightfabric.flows.published.figure import Figure
from lightfabric.model.fluid import engine
from lightfabric.model.fluid.forwarding import stored_and_forwarded

BOUND_US_AT_1_GB = {
    ("DGX-2", schedule.GATHER): 7750, ("DGX-2", schedule.EXCHANGE): 80_000, ("NDv2", schedule.GATHER): 40_000,
}  # fmt: skip
"""Of TE-CCL's set-ups: the slowest cut at its full rate."""

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def rows():
    return table.rows()


def test_every_figure_is_as_near_to_the_published_one_as_it_says(rows):
    measured = [row for row in rows if row["ours"] is not None]
    assert len(measured) > len(rows) // 2
    for row in measured:
        assert len(row["ours"]) == len(row["published"]), row["what"]
        assert max(abs(ratio - 1) for ratio in row["ratio"]) <= row["within"], row["line"]
        assert row["within"] or row["ours"] == row["published"], row["line"]


def test_the_readme_quotes_the_table(rows):
    text = README.read_text()
    for row in rows:
        # Without the files beside the repository their rows cannot be compared.
        if row["ours"] is not None:
            assert f"| {row['line']} |" in text


def test_no_all_to_all_beats_its_fullest_link(rows):
    for cabling in direct.ALL_TO_ALL_NS:
        (row,) = [row for row in rows if row["what"].endswith(f"4x4x8 {cabling.replace('-', ' ')}, ns (TONS, 2026)")]
        links = direct.network(cabling)
        fullest = np.unique(links.route_links, return_counts=True)[1].max()
        bounds_ns = [fullest * size_mib * 2**20 / 128 / 128 for size_mib in (1, 16, 256)]
        assert bounds_ns == pytest.approx(direct.bounds_ns(cabling))
        assert all(ours >= bound for ours, bound in zip(row["ours"], bounds_ns, strict=True))


def test_a_cabling_that_is_found_is_faster_than_the_twisted_torus_in_proportion():
    networks = [direct.network("twisted-torus"), direct.network("torus", direct.synthesised().permutations.tolist())]
    fullest = [np.bincount(links.route_links).max() for links in networks]
    ps = [engine.run(*stored_and_forwarded(direct.all_to_all(16), links, 0)).makespan_ps for links in networks]
    assert fullest == [74, 72]
    assert ps[1] / ps[0] == pytest.approx(72 / 74, rel=5e-3)


def test_what_is_not_there_is_said_to_be_not_measured(tmp_path):
    figure = Figure("x, s", "none", [2.0], lambda: [1 / 0], 0.1, needs=tmp_path / "absent")
    assert figure.row()["line"] == "x, s | 2 | not measured | -"
    assert (figure.row()["ours"], figure.row()["ratio"]) == (None, None)


def test_a_ratio_is_ours_over_the_published():
    row = Figure("x, s", "none", [2.0, 4.0], lambda: [1.0, 6.0], 0.5).row()
    assert (row["ratio"], row["line"]) == ([0.5, 1.5], "x, s | 2, 4 | 1, 6 | 0.500 to 1.500")


def test_the_command_prints_the_table_that_markdown_shows(rows, capsys, monkeypatch):
    monkeypatch.setattr(table, "rows", lambda: rows)
    bench.main("published", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows) + 2
    assert len({line.count("|") for line in lines}) == 1


def test_every_step_of_the_table_has_a_source_and_a_time():
    runs = training.TABLE.read_text().splitlines()
    assert len(runs) - 1 == sum(len(figure.published) for figure in training.figures())
    for row in training._runs().rows:
        assert row["source"]
        assert row["what"]
        assert math.isfinite(float(row["step_s"]))


@pytest.mark.parametrize("case", schedule.PUBLISHED, ids=str)
def test_a_synthesised_schedule_is_between_its_bound_and_what_a_solver_found(case):
    published = zip(schedule.SIZES, schedule.solved(*case), schedule.PUBLISHED[case], strict=True)
    for size, found, published_us in published:
        bound_us, ours_us = 1e6 * found.bound_seconds, 1e6 * found.seconds
        assert bound_us >= BOUND_US_AT_1_GB[case] * size / 1e9 * (1 - 1e-9)
        # In the all-gathers whose published finish is that of the bytes alone there are also two links of a first piece.
        alone = published_us == BOUND_US_AT_1_GB[case] * size / 1e9
        first_us = 2 * (0.35 + 1e6 * found.timed.size / 125e9) if alone else 0
        assert bound_us <= ours_us <= published_us + first_us
        assert ours_us <= published_us or ours_us <= 1.0005 * bound_us


def test_the_machines_are_as_they_were_published():
    dgx2, ndv2 = (schedule.links_of_two(machine) for machine in ("DGX-2", "NDv2"))
    for links, switches, between in ((dgx2, 2, 8), (ndv2, 0, 1)):
        half = links.ranks // 2
        box = np.concatenate([np.arange(links.ranks) // half, np.arange(switches)])
        crosses = box[links.source] != box[links.destination]
        assert [int((crosses & (box[links.source] == side)).sum()) for side in range(2)] == [between, between]
        assert set(links.bytes_per_s[crosses]) == {12.5e9}
        assert links.vertices == links.ranks + switches
    own = ndv2.bytes_per_s >= 25e9
    assert (np.bincount(ndv2.source[own], ndv2.bytes_per_s[own]) == 150e9).all()
