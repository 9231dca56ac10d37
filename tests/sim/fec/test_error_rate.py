"""Error rates of the codec on verilated hardware, and the closed form that they are compared with."""

import pytest

from lightfabric.flows.command import bench
from lightfabric.flows.tool import codeword_count
from lightfabric.flows.tool.codeword_count import band, measure
from lightfabric.model.reed_solomon import KP4, KR4
from lightfabric.sim.fec.error_rate import Run


@pytest.mark.parametrize(
    ("code", "ber", "rate"), [(KP4, 1e-3, 1.53e-4), (KP4, 5e-4, 2.79e-8), (KR4, 1e-3, 0.161), (KR4, 2.4e-4, 5.2e-5)]
)
def test_the_closed_form_is_that_of_two_other_packages(code, ber, rate):
    low, high = band(code, ber, int(1e4 / rate))
    assert 0.98 * 1e4 < (low + high) / 2 < 1.02 * 1e4
    assert high - low == pytest.approx(2 * 1.96 * (1e4 * (1 - rate)) ** 0.5, rel=0.02)


def test_the_bench_prints_a_line_per_code(monkeypatch, capsys):
    row = {"n": 528, "k": 514, "ber": 1e-3, "codewords": 1000, "wrong": 158, "low": 138, "high": 184, "miscorrected": 1}
    monkeypatch.setattr(codeword_count, "waterfall", lambda: [{**row, "failed": 0}])
    bench.main("fec")
    assert capsys.readouterr().out == (
        "fec, RS(528, 514) at a bit error rate of 0.001: of 1000 codewords 158 are not corrected, "
        "closed form 138 to 184 (95 %); 1 of them unseen; 0 failed that should not\n"
    )


@pytest.mark.slow
def test_as_many_codewords_are_uncorrectable_as_the_closed_form_says():
    """Of KR4: the program for KP4 takes twice as long to make, and `lightfabric bench fec` runs both."""
    run = Run(1000, 1e-3)
    seen = measure(KR4, 1, run)
    low, high = band(KR4, run.ber, run.codewords)
    assert low <= seen["uncorrectable"] + seen["miscorrected"] <= high
    assert low >= 100
    assert (seen["failed"], seen["simulated"]) == (0, run.codewords)
    assert sum(seen["corrected"]) + seen["uncorrectable"] + seen["miscorrected"] == run.codewords
    thinned = measure(KR4, 1, Run(1000, 1e-3, few=7, thinning=1000))
    assert {name: thinned[name] for name in ("uncorrectable", "symbol_errors")} == {
        name: seen[name] for name in ("uncorrectable", "symbol_errors")
    }
    assert thinned["simulated"] == thinned["uncorrectable"] + thinned["miscorrected"] + 1
