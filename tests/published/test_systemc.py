"""The ring on the cycle kernel against its twin in SystemC (IEEE 1666), which shares no code with it."""

from dataclasses import replace

import pytest

from lightfabric.flows.command import bench
from lightfabric.flows.experiment import systemc
from lightfabric.flows.experiment.systemc import Ring
from lightfabric.flows.report import RunError

COUNTS = ("delivered", "hops", "arrival_cycles", "check")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    built = systemc.build(tmp_path_factory.mktemp("ring"))
    if built is None:
        pytest.skip(systemc.MISSING)
    return built


def _counts(run):
    return {name: run[name] for name in COUNTS}


@pytest.mark.parametrize(
    "ring",
    [
        Ring(nodes=4, cycles=300, reach=1, load=0.9, depth_flits=2, link_cycles=3),
        Ring(nodes=5, cycles=1000, reach=2, load=0.3, depth_flits=3, seed=2),
        Ring(nodes=16, cycles=2000, load=0.25, link_cycles=21, seed=3),
        Ring(nodes=16, cycles=2000, load=0.002, seed=4),
    ],
    ids=["contended", "shallow", "long", "sparse"],
)
def test_both_deliver_each_flit_in_the_same_cycle(ring, program):
    assert _counts(systemc.ours(ring)) == _counts(systemc.theirs(ring, program))


def test_a_difference_of_one_cycle_is_seen(program):
    ring = Ring(nodes=4, cycles=300)
    other = _counts(systemc.theirs(replace(ring, link_cycles=9), program))
    mine = _counts(systemc.ours(ring))
    assert mine != other
    assert mine["check"] != other["check"]


def test_counts_that_differ_give_no_ratio(program, monkeypatch):
    ring = Ring(nodes=4, cycles=300)
    wrong = systemc.theirs(ring, program)
    monkeypatch.setattr(systemc, "theirs", lambda *_: {**wrong, "check": wrong["check"] + 1})
    with pytest.raises(RunError, match=f"^check must be the same in SystemC, {wrong['check'] + 1}, not {wrong['check']}$"):
        systemc.compare([ring])


def test_where_systemc_is_missing_the_bench_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(systemc, "build", lambda _: None)
    result = systemc.compare([Ring()])
    assert result == {"systemc": None, "systemc_missing": systemc.MISSING}
    bench._print({"bench": "kernel", "rate": 1.0, "unit": "u", "ratio": 1.0, "reference": "r", **result})
    assert "apt install libsystemc-dev" in capsys.readouterr().out
