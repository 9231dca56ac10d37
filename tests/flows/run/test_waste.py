"""Waste under a trace of faults: hour by hour, by a slow walk, and what is refused of a trace."""

import json
from importlib.resources import files

import numpy as np
import pytest

from lightfabric.flows.command import faults
from lightfabric.flows.format.fault_trace import read
from lightfabric.flows.report import InputError
from lightfabric.flows.run import waste
from lightfabric.model.fabric.fabric import fabric_of
from lightfabric.model.spec import ChipletSpec, ElectricalClusterSpec, ElectricalSwitchSpec, SipRingSpec

SEED = 3
HOURS, NODES, NODE_GPUS = 60, 12, 4
FABRICS = [
    fabric_of(spec, ChipletSpec())
    for spec in (
        ElectricalSwitchSpec("switch", "electrical-switch", 100.0),
        ElectricalClusterSpec("islands", "electrical-cluster", 100.0, 10.0, island_gpus=20),
        SipRingSpec("static", "sip-ring", node_gpus=NODE_GPUS),
        SipRingSpec("bypass", "sip-ring", node_gpus=NODE_GPUS, bypass_hops=2),
    )
]


def written(tmp_path, lines, header="time_days,node,event"):
    path = tmp_path / "trace.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture
def faults_by_hour():
    """Faults from hour to hour, some of a node at once, some of no length."""
    random = np.random.default_rng(SEED)
    begin = random.integers(0, HOURS - 8, 40)
    end = begin + random.integers(0, 9, 40)
    end[0] = HOURS
    return list(zip(begin.tolist(), end.tolist(), random.integers(0, NODES, 40).tolist(), strict=True))


@pytest.fixture
def trace(tmp_path, faults_by_hour):
    rows = [
        f"{hour / 24},{node},{event},x"
        for begin, end, node in faults_by_hour
        for hour, event in ((end, "end"), (begin, "start"))
    ]
    return read(written(tmp_path, rows, "time_days,node,event,why"), NODES)


def down(faults_by_hour, hour):
    return {node for begin, end, node in faults_by_hour if begin <= hour < end}


def of_use(dead, group):
    """GPUs that groups can use on each of FABRICS, counted node by node."""
    works = [node not in dead for node in range(NODES)]
    islands = [sum(works[first : first + 5]) for first in range(0, NODES, 5)]
    size = group // NODE_GPUS
    blocks = [all(works[first : first + size]) for first in range(0, NODES, size)]
    rows = "".join("x" if each else "." for each in works)
    gap = rows.find("..")
    rows = rows if gap < 0 and not rows[0] == rows[-1] == "." else rows[gap + 2 :] + rows[: gap + 2]
    runs = [run.count("x") for run in rows.replace("..", " ").split()]
    return [
        sum(works) // size * group,
        sum(own // size * group for own in islands),
        sum(blocks) * group,
        sum(run // size * group for run in runs),
    ]


def test_waste_is_what_is_counted_hour_by_hour(trace, faults_by_hour):
    groups, places, seed = (8, 16), 3, 5
    found = waste.waste(trace, NODES, NODE_GPUS, FABRICS, groups, places, seed)
    random = np.random.default_rng(seed)
    for which in range(places):
        place = random.permutation(NODES)
        for column, group in enumerate(groups):
            lost = np.zeros(len(FABRICS))
            for hour in range(HOURS):
                dead = {int(place[node]) for node in down(faults_by_hour, hour)}
                lost += NODES * NODE_GPUS - len(dead) * NODE_GPUS - np.array(of_use(dead, group))
            assert found[:, column, which] == pytest.approx(lost / HOURS / NODES / NODE_GPUS), f"seed {SEED}"


def test_times_drawn_from_many_are_near_all_of_them(trace, monkeypatch):
    whole = waste.waste(trace, NODES, NODE_GPUS, FABRICS, (8,), 2, 1)
    monkeypatch.setattr(waste, "MAX_STATES", 30)
    drawn = waste.waste(trace, NODES, NODE_GPUS, FABRICS, (8,), 2, 1)
    assert not np.array_equal(drawn, whole)
    assert drawn == pytest.approx(whole, abs=0.04)


def test_nodes_that_are_down_have_their_mean_and_quantiles(trace, faults_by_hour):
    each = sorted(100 * len(down(faults_by_hour, hour)) / NODES for hour in range(HOURS))
    found = waste.down_percent(trace, NODES)
    assert found["mean"] == pytest.approx(sum(each) / HOURS)
    # The 30th of 60 hours is the first until which half of the time is over.
    assert [found["median"], found["p90"], found["most"]] == [each[29], each[53], each[-1]]


def test_the_band_is_that_of_the_mean():
    assert waste.band(np.array([0.01, 0.03])) == pytest.approx(
        {"waste_percent": 2.0, "low_percent": 0.04, "high_percent": 3.96}
    )
    assert waste.band(np.array([0.01])) == {"waste_percent": 1.0, "low_percent": None, "high_percent": None}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "must have an event after day 0, not none"),
        (["0,1,start"], "must have an event after day 0, not none"),
        (["1,1,start", "soon,1,end"], "line 3: time_days must be from 0 to 1e+06, not 'soon'"),
        (["nan,1,start"], "line 2: time_days must be from 0 to 1e+06, not 'nan'"),
        (["1,12,start"], "line 2: node must be a whole number from 0 to 11, not '12'"),
        (["1,1.0,start"], "line 2: node must be a whole number from 0 to 11, not '1.0'"),
        (["1,1,begin"], "line 2: event must be start or end, not 'begin'"),
        (["1"], "line 2: node must be a whole number from 0 to 11, not ''"),
        (["1,1,start", "2,2,end"], "node 2 must have a start for each end until day 2, not fewer"),
        (["1,1,start", "2,1,end", "3,1,end", "3,1,end", "4,1,start"], "node 1 must have a start for each end until day 3"),
        (["x" * 200_000], "must be a CSV file, not: field larger than field limit (131072)"),
    ],
)
def test_a_wrong_trace_is_refused_in_a_line(tmp_path, lines, says):
    path = written(tmp_path, lines)
    with pytest.raises(InputError) as caught:
        read(path, NODES)
    assert str(caught.value).startswith(f"{path}: {says}")


def test_a_trace_needs_its_columns(tmp_path):
    path = written(tmp_path, ["1,2"], "time_days,node")
    with pytest.raises(InputError) as caught:
        read(path, NODES)
    assert str(caught.value) == f"{path}: must have the columns time_days, node, event, not without event"


def test_the_command_prints_what_it_says_in_json(capsys):
    trace = files("lightfabric.examples") / "node_faults.csv"
    faults.main(trace, None, [32], 400, 8, 2, 1, as_json=True)
    result = json.loads(capsys.readouterr().out)
    assert (result["faults"], result["gpus"]) == (584, 3200)
    waste_of = {entry["fabric"]: entry["waste_percent"] for entry in result["waste"]}
    # At most three others of a group of four nodes are lost with a dead one, on the rings of a group most of them are.
    assert 2.5 < waste_of["static rings"] / result["nodes_down_percent"]["mean"] < 3
    assert waste_of["one big switch"] <= waste_of["ring with bypass of 3"] <= waste_of["ring with bypass of 2"] < 1
    faults._print(result, [32])
    assert f"{waste_of['static rings']:.2f} ±" in capsys.readouterr().out
