"""Every figure of ``lightfabric bench published``: near what was published, and quoted by the README as it comes out."""

import math
from pathlib import Path

import pytest

from lightfabric.flows.command import bench
from lightfabric.flows.published import table, training
from lightfabric.flows.published.figure import Figure

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
