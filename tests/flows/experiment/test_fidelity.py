"""Studies and replays at cycle fidelity: close to the fluid model, with figures, and refused where they are too large."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightfabric.flows.command import replay, study
from lightfabric.flows.experiment import cell, fidelity
from lightfabric.flows.figure import panel
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.format.timing_store import measured_timing
from lightfabric.flows.report import InputError
from lightfabric.model.cycle.cabling import ring
from lightfabric.model.spec import JobSpec, ModelSpec, PlanSpec, SipOcsSpec, SipRingSpec, TopooptSpec
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.fabric.fabric import fabric_of

COMMAND = [sys.executable, "-c", "from lightfabric.flows.cli import main; main()"]
TOPOOPT = Path(__file__).parents[4] / "shared" / "data" / "topoopt"
JOB = JobSpec(ModelSpec(layers=2, hidden=256, heads=4, sequence=128, vocabulary=512), batch=16)
TINY_CHANGES = {
    "layers = 24": "layers = 2",
    "hidden = 1024": "hidden = 256",
    "heads = 16": "heads = 4",
    "sequence = 1024": "sequence = 128",
    "vocabulary = 51200": "vocabulary = 512",
    "batch = 64": "batch = 16",
    "memory_gib = 16.0": "memory_gib = 0.05",
    "[8, 16, 32]": "[4, 8]",
}


@pytest.fixture(scope="module")
def tiny():
    """The small example with a job of a million flits at most."""
    spec = load_spec(None, "small")
    return replace(spec, job=JOB, accelerator=replace(spec.accelerator, memory_gib=0.05), gpus=(4, 8))


@pytest.fixture(scope="module")
def timing(tiny):
    return measured_timing(tiny.chiplet)


def run(*arguments, code=0):
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize("gpus", [4, 8])
def test_an_iteration_takes_about_as_long_flit_by_flit_as_in_the_fluid_model(tiny, timing, gpus):
    """To a percent on circuits of their own; where rings share circuits fluids keep to one rate, and flits fill the gaps."""
    for fabric in tiny.fabrics:
        on = fabric_of(fabric, tiny.chiplet, timing)
        rows = [cell.simulate(cell.Job(tiny, gpus, on, name, ""))[0]["iteration_s"] for name in fidelity.FIDELITIES]
        assert rows[1] == pytest.approx(rows[0], rel=0.1 if fabric.kind == "sip-ocs" else 0.02), fabric.name


@pytest.mark.slow
def test_bit_errors_take_about_as_long_flit_by_flit_as_in_the_fluid_model(tiny, timing):
    """Each link loses other slots; a job of so few flits sees few losses, and a ring waits for the slowest of its links."""
    fabric = next(fabric for fabric in tiny.fabrics if fabric.kind == "sip-ocs")
    seconds = {}
    for rate in (0.0, 1e-7, 1e-5):
        spec = replace(tiny, chiplet=replace(tiny.chiplet, bit_error_rate=rate))
        on = fabric_of(fabric, spec.chiplet, timing)
        for name in fidelity.FIDELITIES:
            runs = [cell.simulate(cell.Job(spec, 4, on, name, ""))[0]["iteration_s"] for _ in range(2)]
            assert runs[0] == runs[1]
            seconds[name, rate] = runs[0]
    for name in fidelity.FIDELITIES:
        assert seconds[name, 0.0] < seconds[name, 1e-7] < seconds[name, 1e-5]
    lost = [seconds[name, 1e-5] - seconds[name, 0.0] for name in fidelity.FIDELITIES]
    assert lost[1] == pytest.approx(lost[0], rel=0.15)


def test_a_study_flit_by_flit_leaves_figures_of_links_and_messages(tmp_path):
    from importlib.resources import files

    text = (files("lightfabric.examples") / "small.toml").read_text()
    for old, new in TINY_CHANGES.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "tiny.toml").write_text(text)
    out = tmp_path / "out"
    result = json.loads(run("study", tmp_path / "tiny.toml", "--out", out, "--fidelity", "cycle", "--json").stdout)
    assert {path.name for path in out.iterdir()} == set(result["files"])
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in fidelity.FILES)
    assert json.loads((out / "manifest.json").read_text())["fidelity"] == "cycle"
    assert [row["gpus"] for row in result["rows"]] == [4] * 4 + [8] * 4
    assert all(0 < row["busiest_link_share"] <= 1 for row in result["rows"])


def test_a_study_with_too_many_flits_is_refused_with_their_number(tmp_path):
    done = run("study", "--out", tmp_path / "out", "--fidelity", "cycle", code=2)
    assert done.stderr.startswith("lightfabric: --fidelity must be fluid for gpt3-175b: 64 GPUs, ideal switch, whose ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_flits_are_counted_over_all_links_that_relay_them(tiny, monkeypatch):
    """On links one way round a pipeline of four sends forward over one and back over the three others."""
    links, switch = TopooptSpec("links", "topoopt", degree=1), SipOcsSpec("switch", "sip-ocs")
    monkeypatch.setattr(fidelity, "MAX_FLITS", 0)
    counts, job = list[int](), replace(JOB, model=replace(JOB.model, layers=4))
    for fabric in (links, switch):
        spec = replace(tiny, job=job, fabrics=(fabric,), plan=PlanSpec(dp=1, tp=1, pp=4))
        with pytest.raises(InputError) as refused:
            study.check_flits(spec, "x", {4: ""})
        counts.append(int(re.search(r"whose (\d+) flits", str(refused.value))[1]))
    assert counts[0] == pytest.approx(2 * counts[1], abs=1)


def test_a_study_that_the_cycle_model_cannot_build_is_refused_with_the_reason(tiny):
    says = "^--fidelity must be fluid for x: "
    spec = replace(tiny, job=replace(JOB, batch=128))
    with pytest.raises(
        InputError, match=says + "128 GPUs, ideal switch, not cycle: SwitchedCabling.ports .* 64 at a switch, not 128$"
    ):
        study.check_flits(spec, "x", {128: ""})
    hops = SipRingSpec("r", "sip-ring", max_hops=1)
    one = replace(tiny, chiplet=replace(tiny.chiplet, virtual_channels=1), fabrics=(hops,), plan=PlanSpec(dp=2, tp=2, pp=2))
    with pytest.raises(InputError, match=says + "8 GPUs, r, not cycle: ChipletSpec.virtual_channels must be enough"):
        study.check_flits(one, "x", {8: ""})


def test_an_unknown_fidelity_and_figures_of_fluids_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"^--fidelity must be one of fluid, cycle, not 'rtl'$"):
        study.main(None, tmp_path, "rtl", as_json=False)
    with pytest.raises(InputError, match=r"^--out must be left out unless --fidelity is cycle, not .*out$"):
        replay.main(tmp_path, "100Gbps", "ideal-switch", "fluid", tmp_path / "out", as_json=False)


def test_loads_and_latencies_are_those_of_the_flits(tiny, timing):
    """Two messages on a ring of three; GPU 2 talks to nobody."""
    payload = tiny.chiplet.payload_bytes
    graph = TaskGraph(
        3,
        np.full(2, Kind.TRANSFER, np.int8),
        np.array([0, 1], np.int32),
        np.array([1, 1000]) * payload,
        np.array([1, 0], np.int32),
        np.ones(2, np.int32),
        np.zeros(3, np.int64),
        np.zeros(0, np.int32),
        np.zeros(1, np.int64),
        np.zeros(0, np.int32),
    )
    schedule, seen = fidelity.run(graph, tiny.chiplet, timing, ring(3, tiny.chiplet.ports, 2.0))
    slot_ps = float(tiny.chiplet.slot_cycles) * tiny.chiplet.cycle_ps
    two_lanes = np.array([1, 1000]) * slot_ps / 2 / schedule.makespan_ps
    assert [seen.load[0, 1], seen.load[1, 0]] == pytest.approx(two_lanes, rel=1e-3)
    assert seen.load[2, 0] == seen.load[1, 2] == 0
    assert np.isnan(seen.load.diagonal()).all()
    assert seen.nodes == ["0", "1", "2"]
    edges_ns = 2 ** (np.flatnonzero(seen.messages) / fidelity.BINS_PER_OCTAVE)
    assert (edges_ns * 1000 <= schedule.finish_ps).all()
    assert (schedule.finish_ps < edges_ns * 1000 * 2 ** (1 / fidelity.BINS_PER_OCTAVE)).all()


def test_a_study_in_which_no_fabric_served_has_empty_figures(tmp_path):
    panel.draw(tmp_path, "of $nothing$", {})
    panel.draw(tmp_path, "silent", {"one": fidelity.Detail(["0", "1"], np.full((2, 2), np.nan), np.zeros(0, np.int64))})
    assert {path.name for path in tmp_path.iterdir()} == set(fidelity.FILES)


@pytest.mark.slow
@pytest.mark.skipif(not TOPOOPT.exists(), reason="the published task graphs are in ../shared/data/topoopt")
def test_a_replay_flit_by_flit_takes_the_published_time_as_the_readme_says_and_draws_links_and_messages(tmp_path):
    """28 million flits over two links each, with the timing of the RTL; 63.969 ms by the authors' simulator of packets."""
    path = TOPOOPT / "100transformer_16.fbuf"
    done = run("replay", path, "--bandwidth", "100Gbps", "--fidelity", "cycle", "--out", tmp_path / "out", "--json")
    seen_ms = json.loads(done.stdout)["iteration_ms"]
    assert seen_ms == pytest.approx(63.969, rel=0.005)
    assert seen_ms == pytest.approx(replay.replay(path, 100.0)["iteration_ms"], rel=0.002)
    assert f"| 63.969 | {seen_ms:.3f} |" in (Path(__file__).parents[3] / "README.md").read_text()
    assert {found.name for found in (tmp_path / "out").iterdir()} == set(fidelity.FILES)
