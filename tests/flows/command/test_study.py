import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

import pytest
from matplotlib.figure import Figure

from lightfabric.flows.command import place, study
from lightfabric.flows.experiment import cell, grid
from lightfabric.flows.figure import breakdown
from lightfabric.flows.format import timing_store
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.report import InputError
from lightfabric.model.cycle.slot import Losses
from lightfabric.model.fabric.fabric import port_bytes_per_s
from lightfabric.model.fluid import engine as fluid
from lightfabric.model.spec import FIBRE_PS_PER_M, NetworkJobSpec, PlanSpec, SpecError, spec_hash
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.graph.iteration import task_graph
from lightfabric.placement.graph.rings import in_rings
from lightfabric.placement.place import candidates

SMALL = files("lightfabric.examples") / "small.toml"
NAMES = {
    "results.csv", "network-bill.csv", "iteration-time.png", "iteration-time.svg", "time-breakdown.png", "link-load.png",
    "manifest.json",
}  # fmt: skip
COMMAND = [sys.executable, "-c", "from lightfabric.flows.cli import main; main()"]


@pytest.fixture(scope="module")
def invented():
    """Timing as if measured: these tests are not about the RTL."""
    from dataclasses import fields
    from fractions import Fraction

    from lightfabric.model.timing import ClientTiming, LinkTiming, SwitchTiming, Timing
    from lightfabric.sim.characterize import rtl_hash

    def made(kind):
        return kind(**{entry.name: Fraction(9, 8) if entry.type is Fraction else 5 for entry in fields(kind)})

    parts = [made(kind) for kind in (LinkTiming, SwitchTiming, ClientTiming)]
    return lambda chiplet: Timing(*parts, spec_hash(chiplet), rtl_hash(), "invented")


@pytest.fixture(scope="module")
def environment(tmp_path_factory, invented):
    """A cache in which the timing of the examples is found."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "lightfabric").mkdir()
    for name in ("small", "gpt3-175b", "dlrm"):
        timing = invented(load_spec(None, name).chiplet)
        path = folder / "lightfabric" / f"timing-{timing.spec_hash}-{timing.rtl_hash}.json"
        path.write_text(json.dumps(timing.to_dict()))
    return os.environ | {"XDG_CACHE_HOME": str(folder)}


def run(environment, *arguments, code=0):
    command = [*COMMAND, "study", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def finished(environment, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "new" / "out"
    return out, run(environment, SMALL, "--out", out, "--json")


@pytest.fixture(scope="module")
def rows(finished):
    with (finished[0] / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def changed(tmp_path, *changes):
    """The small example with some text replaced."""
    text = SMALL.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "my.toml"
    path.write_text(text)
    return path


def test_a_study_leaves_its_files_and_nothing_else(finished):
    out, done = finished
    assert {path.name for path in out.iterdir()} == NAMES
    assert (out / "iteration-time.png").read_bytes().startswith(b"\x89PNG")
    assert b"</svg>" in (out / "iteration-time.svg").read_bytes()
    assert "12/12" in done.stderr
    assert "simulating" not in done.stderr


def test_the_bars_of_the_breakdown_add_up_to_the_iterations_of_the_largest_count(finished, tmp_path, monkeypatch):
    rows, drawn = json.loads(finished[1].stdout)["rows"], []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.extend(figure.axes))
    breakdown.draw("small", rows, tmp_path / "x.png")
    (axes,) = drawn
    assert [text.get_text() for text in axes.get_yticklabels()] == [row["fabric"] for row in rows[-4:]]
    right = [max(bar[place].get_x() + bar[place].get_width() for bar in axes.containers) for place in range(4)]
    assert right == pytest.approx([row["iteration_s"] for row in rows[-4:]])
    assert {bars.get_label() for bars in axes.containers} >= {"compute", "data"}


def test_the_bill_adds_up_to_the_columns_of_each_network_and_costs_compare_with_the_baseline(finished, rows):
    with (finished[0] / "network-bill.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for row in rows:
        own = [line for line in lines if (line["gpus"], line["fabric"]) == (row["gpus"], row["fabric"])]
        for unit in ("usd", "w"):
            total = sum(int(line["count"]) * float(line[f"{unit}_each"]) for line in own)
            assert total == pytest.approx(float(row[f"network_{unit}"]))
            assert total == pytest.approx(float(row[f"network_{unit}_per_gpu"]) * int(row["gpus"]))
    largest = {
        row["fabric"]: {name: float(row[name]) for name in row if "usd" in name or "speed" in name} for row in rows[-4:]
    }
    ideal, ring = largest["ideal switch"], largest["SiP-Ring"]
    assert ideal["speed_per_usd_over_baseline"] == 1
    for name, own_usd in (("usd", 32 * 25_000), ("network_usd", 0)):
        dearer = (ring["network_usd"] + own_usd) / (ideal["network_usd"] + own_usd)
        assert ring[f"speed_per_{name}_over_baseline"] == pytest.approx(ring["speed_over_baseline"] / dearer)


def test_a_table_of_prices_replaces_a_default_as_a_whole(tmp_path):
    dear = changed(tmp_path, ('name = "small"', 'name = "small"\nprices.ocs_port = { usd = [9.5], w = [1] }'))
    prices = load_spec(dear).prices
    assert prices.ocs_port.at(1) == (9.5, 1.0)
    assert prices.nic == load_spec(SMALL).prices.nic
    for text, sentence in (
        ("ocs_port = { usd = [9.5] }", "prices.ocs_port.w must be given, not left out"),
        (
            "nic = { usd = [1, 2], w = [1] }",
            "prices.nic.usd must be 1 values of at least 0, one for each rate, not (1.0, 2.0)",
        ),
        ("nics = { usd = [1], w = [1] }", "prices.nics must be a known field (did you mean nic?), not an unknown one"),
        (
            "nic = { usd = [1], watts = [1] }",
            "prices.nic.watts must be a known field (usd, w, gbps, source), not an unknown one",
        ),
    ):
        with pytest.raises(InputError) as error:
            load_spec(changed(tmp_path, ('name = "small"', f'name = "small"\nprices.{text}')))
        assert sentence in str(error.value)


def test_json_is_one_object_with_a_row_per_count_and_fabric(finished):
    result = json.loads(finished[1].stdout)
    assert set(result) == {"spec", "rows", "files"}
    fabrics = ["ideal switch", "islands", "SiP-Ring", "SiP-OCS"]
    expected = [(gpus, fabric) for gpus in (8, 16, 32) for fabric in fabrics]
    assert [(row["gpus"], row["fabric"]) for row in result["rows"]] == expected
    assert all(tuple(row) == study.COLUMNS for row in result["rows"])


def test_a_recommender_is_simulated_as_it_is_predicted(environment, tmp_path):
    example = files("lightfabric.examples") / "dlrm.toml"
    done = run(environment, example, "--out", tmp_path / "out", "--json")
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 4 * 4
    assert all(row["fits"] and row["tokens_per_s"] is None for row in rows)
    for row in rows:
        assert row["samples_per_s"] == pytest.approx(65536 / row["iteration_s"])
        if row["fabric"] == "ideal switch":
            assert row["iteration_s"] == pytest.approx(row["predicted_total_s"], rel=0.05)
    seconds = {(row["gpus"], row["fabric"]): row["iteration_s"] for row in rows}
    # The invented timing takes rate from light alone.
    port_gbps = {row["fabric"]: row["port_payload_gbps"] for row in rows}
    of_light = port_gbps["SiP-OCS"] * load_spec(example).chiplet.ports / port_gbps["ideal switch"]
    assert seconds[32, "SiP-OCS"] < 4 * seconds[32, "ideal switch"] / of_light


def test_the_table_of_results_is_tidy(finished, rows):
    assert tuple(rows[0]) == study.COLUMNS
    values = json.loads(finished[1].stdout)["rows"]
    assert len(rows) == len(values)
    for row, value in zip(rows, values, strict=True):
        assert float(row["iteration_s"]) == pytest.approx(value["iteration_s"], rel=1e-8)
        assert int(row["dp"]) * int(row["tp"]) * int(row["pp"]) == int(row["gpus"])
        assert float(row["iteration_s"]) >= float(row["compute_bound_s"])
        parts = [float(row[f"memory_{name}_gib"]) for name in ("weights", "gradients", "optimiser", "activations")]
        assert sum(parts) == pytest.approx(float(row["memory_total_gib"]), rel=1e-6)
        assert float(row["memory_total_gib"]) <= 16
        assert float(row["tokens_per_s"]) == pytest.approx(64 * 1024 / float(row["iteration_s"]), rel=1e-6)
        assert 0 < float(row["busiest_link_share"]) <= 1
        assert row["fits"] == "true"


def test_speeds_are_relative_to_the_ideal_switch(rows):
    ideal = {row["gpus"]: float(row["iteration_s"]) for row in rows if row["fabric"] == "ideal switch"}
    for row in rows:
        expected = ideal[row["gpus"]] / float(row["iteration_s"])
        assert float(row["speed_over_baseline"]) == pytest.approx(expected, rel=1e-6)


def test_speeds_are_relative_to_the_baseline_that_the_spec_names(environment, tmp_path):
    path = changed(tmp_path, ('name = "small"', 'name = "small"\nbaseline = "islands"'))
    result = json.loads(run(environment, path, "--out", tmp_path / "out", "--json").stdout)
    known = {row["gpus"]: row["iteration_s"] for row in result["rows"] if row["fabric"] == "islands"}
    assert all(row["speed_over_baseline"] == known[row["gpus"]] / row["iteration_s"] for row in result["rows"])


SWEEP = '[sweep]\n"fabrics.SiP-Ring.max_hops" = [2, 4]\n"job.batch" = [64, 128]\n\n[[fabrics]]\nname = "ideal'


def test_a_sweep_has_the_rows_of_each_of_its_specs(finished, environment, tmp_path):
    path = changed(tmp_path, ('[[fabrics]]\nname = "ideal', SWEEP), ("[8, 16, 32]", "[8]"))
    rows = json.loads(run(environment, path, "--out", tmp_path / "out", "--json").stdout)["rows"]
    swept = [(row["fabrics.SiP-Ring.max_hops"], row["job.batch"]) for row in rows]
    assert swept == [(hops, batch) for hops in (2, 4) for batch in (64, 128) for _ in range(4)]
    alone = json.loads(finished[1].stdout)["rows"][:4]
    for at in (0, 8):
        assert [row["iteration_s"] for row in rows[at : at + 2]] == [row["iteration_s"] for row in alone[:2]]
        assert rows[at + 5]["tokens_per_s"] == pytest.approx(128 * 1024 / rows[at + 5]["iteration_s"])
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["fabrics.SiP-Ring.max_hops", "job.batch", *study.COLUMNS]
    variants = json.loads((tmp_path / "out" / "manifest.json").read_text())["variants"]
    assert [each["spec"]["job"]["batch"] for each in variants] == [64, 128, 64, 128]
    table = run(environment, path, "--out", tmp_path / "out").stdout
    assert all(text in table for text in ("max_hops", "batch", "128"))


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ("[sweep]\n'chiplet.ports' = [2, 99]", "chiplet.ports must be from 1 to 32, not 99"),
        ("[sweep]\n'chiplet.port' = [2]", "chiplet.port must be a known field (did you mean ports?)"),
        ("[sweep]\n'chiplet.ports' = 4", "sweep.'chiplet.ports' must be an array of values, not 4"),
        ("[sweep]\n'chiplet.ports' = []", "sweep.'chiplet.ports' must be an array of values, not an array"),
        (
            "[sweep]\n'fabrics.none.max_hops' = [2]",
            "sweep.'fabrics.none.max_hops' must be the path of a",
        ),
        ("[sweep]\n'fabrics.kind' = [2]", "sweep.'fabrics.kind' must be the path of a field, not of a list of tables"),
        ("[sweep]\n'name.x' = [2]", "sweep.'name.x' must be the path of a field, not one through 'name'"),
        (f"[sweep]\n'job.batch' = {[1] * 30}\n'job.x' = {[1] * 10}", "sweep must be of at most 256 variants, not 300"),
        ("sweep = 3", "sweep must be a table, not 3"),
    ],
)
def test_a_wrong_sweep_is_one_line(environment, tmp_path, sweep, says):
    at = 'name = "small"' if sweep.startswith("sweep") else "[[fabrics]]"
    text = SMALL.read_text().replace(at, f"{sweep}\n\n{at}", 1)
    (tmp_path / "my.toml").write_text(text)
    done = run(environment, tmp_path / "my.toml", "--out", tmp_path / "out", code=2)
    assert done.stderr.startswith(f"lightfabric: {tmp_path / 'my.toml'}: {says}")
    assert done.stderr.count("\n") == 1


def test_a_sweep_is_for_studies_only(tmp_path):
    path = changed(tmp_path, ('[[fabrics]]\nname = "ideal', SWEEP))
    with pytest.raises(InputError, match=r": sweep must be left out but for study, not 4 variants$"):
        load_spec(path)


def test_the_times_are_those_of_the_fluid_model_on_the_measured_timing(rows, invented):
    spec = load_spec(None, "small")
    timing = invented(spec.chiplet)
    payload = 8 * port_bytes_per_s(spec.chiplet, timing)
    for row in rows[::3]:
        fabric = next(fabric for fabric in spec.fabrics if fabric.name == row["fabric"])
        on = fabric_of(fabric, spec.chiplet, timing)
        # All electrical links of the example that are not of a network card have 1024 Gb/s, and NVLink's headers.
        of_port = payload / 1e9 if fabric.kind.startswith("sip") else 1024 * 16 / 17
        assert on.efficiency == pytest.approx(of_port / on.port_gbps)
        assert float(row["port_payload_gbps"]) == pytest.approx(of_port)
        gpus = int(row["gpus"])
        simulated = {}
        for placed in candidates(spec.job, spec.accelerator, on, gpus):
            graph = task_graph(spec.job, spec.accelerator, placed.plan).placed(placed.gpu_of_rank)
            graph = in_rings(graph, on.rings)
            graph.verify()
            built = on.network(gpus, graph.demand_bytes(), placed.circuits)
            simulated[f"{placed.prediction.total:.9g}"] = fluid.run(graph, built).makespan_ps / 1e12
        found = float(row["iteration_s"])
        assert found == pytest.approx(simulated[f"{float(row['predicted_total_s']):.9g}"], rel=1e-8)
        assert all(float(predicted) >= found for predicted, seconds in simulated.items() if seconds < found * (1 - 1e-8))


def test_the_manifest_says_what_was_run_and_where_it_was_measured(finished, invented):
    manifest = json.loads((finished[0] / "manifest.json").read_text())
    spec = load_spec(None, "small")
    assert manifest["spec"]["chiplet"]["ports"] == spec.chiplet.ports
    assert timing_store.from_json(json.dumps(manifest["timing"])) == invented(spec.chiplet)
    assert set(manifest["versions"]) == {"python", "lightfabric", "numpy", "numba", "amaranth"}
    assert manifest["seeds"] == []
    assert len(manifest["results_sha256"]) == len(manifest["spec_sha256"]) == 64


def test_the_same_study_gives_the_same_bytes_and_a_table(finished, environment, tmp_path):
    done = run(environment, SMALL, "--out", tmp_path)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes(), name
    assert all(text in done.stdout for text in ("SiP-OCS", "dp x tp x pp", "results.csv", "100.0%"))


def test_counts_that_do_not_fit_are_rows_with_a_reason(environment, tmp_path):
    path = changed(tmp_path, ("memory_gib = 16.0", "memory_gib = 1.6"), ("[8, 16, 32]", "[32, 2]"))
    done = run(environment, path, "--out", tmp_path / "out", "--json")
    rows = json.loads(done.stdout)["rows"]
    assert [row["fits"] for row in rows] == [False] * 4 + [True] * 4
    assert rows[0]["reason"].startswith("memory on 2 GPUs is short by ")
    assert rows[0]["iteration_s"] is None
    assert rows[4]["gpus"] == 32


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ([("memory_gib = 16.0", "memory_gib = 0.05")], "gpus must be counts that hold the job, not 32: memory on 32 GPUs"),
        ([("[8, 16, 32]", "[29]")], "gpus must be counts that hold the job, not 29: no dp * tp * pp = 29 divides"),
        ([('name = "small"', 'name = "small"\nbaseline = "none"')], "baseline must be the name of a fabric, one of ideal"),
        ([("ports = 4", "ports = 1")], "chiplet.ports must be at least 2 on a sip-ring, not 1"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_written(environment, tmp_path, changes, says):
    path = changed(tmp_path, *changes)
    done = run(environment, path, "--out", tmp_path / "a" / "b", code=2)
    assert done.stderr.startswith(f"lightfabric: {path}: {says}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_check_imports_nothing_slow():
    program = (
        "import sys; from lightfabric.flows.format import spec_file; from lightfabric.flows.command import study; "
        "study.check(spec_file.load_spec(None), 'x'); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not {"numba", "amaranth", "matplotlib", "scipy"} & set(done.stdout.split())


@pytest.mark.parametrize("out", ["/proc/none/out", "file", "file/out"])
def test_a_folder_that_cannot_be_written_is_refused_at_once(environment, tmp_path, out):
    (tmp_path / "file").write_text("")
    done = run(environment, SMALL, "--out", tmp_path / out, code=2)
    assert done.stderr.startswith("lightfabric: --out must be a folder that can be written, not ")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("said", ["simulating the RTL", "1/25"])
def test_an_interrupted_study_leaves_what_is_finished_and_no_process(environment, tmp_path, number, code, said):
    command = [*COMMAND, "study", "--out", str(tmp_path / "a" / "out")]
    cache = {} if said == "1/25" else {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment | cache, start_new_session=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(said)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        output, messages = process.communicate(timeout=30)
    assert process.returncode == code
    assert (output, "Traceback" in messages) == ("", False)
    left = [path.name for path in tmp_path.glob("a/out/*")]
    assert left == (["unfinished.jsonl"] if said == "1/25" else [])
    assert [path.name for path in tmp_path.iterdir()] == (["a"] if left else [])
    assert_gone(process.pid)


def test_a_study_goes_on_where_a_killed_one_was(finished, environment, tmp_path):
    """What the journal has is not run again; lines that a kill has cut off are passed over."""
    with subprocess.Popen(
        [*COMMAND, "study", SMALL, "--out", tmp_path], stderr=subprocess.PIPE, text=True, env=environment
    ) as killed:
        assert killed.stderr is not None
        while "5/12" not in killed.stderr.readline():
            pass
        killed.kill()
    journal = tmp_path / "unfinished.jsonl"
    lines = [line for line in journal.read_text().splitlines() if line]
    assert 5 <= len(lines) < 12
    journal.write_text("\n".join([*lines, lines[0][:50], "no JSON", "[]", ""]))
    done = run(environment, SMALL, "--out", tmp_path)
    assert done.stderr.splitlines()[0] == f"{len(lines)}/12 kept of an earlier run"
    assert len(done.stderr.splitlines()) == 1 + 12 - len(lines)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes(), name
    assert {path.name for path in tmp_path.iterdir()} == NAMES


def test_cells_of_other_jobs_have_other_keys(invented):
    spec = load_spec(None, "small")
    one, other = (
        study.jobs(each, {8: ""}, invented(spec.chiplet), "fluid")[0]
        for each in (spec, replace(spec, job=replace(spec.job, batch=2 * spec.job.batch)))
    )
    keys = [grid.key(job) for job in (one, other, replace(one, gpus=16), replace(one, fidelity="cycle"))]
    assert len(set(keys)) == 4
    assert grid.key(replace(one)) == keys[0]


def test_a_pinned_plan_is_that_of_every_row(invented):
    spec = replace(load_spec(None, "small"), plan=PlanSpec(tp=2, micro_batch=1), gpus=(8, 106))
    reasons = study.check(spec, "x")
    found = [cell.simulate(job)[0] for job in study.jobs(spec, reasons, invented(spec.chiplet), "fluid")]
    assert [(row["gpus"], row["tp"], row["micro_batch_sequences"]) for row in found[:4]] == [(8, 2, 1)] * 4
    assert [row["fits"] for row in found] == [True] * 4 + [False] * 4
    assert found[-1]["reason"].startswith("no dp * tp * pp = 106 with tp 2, micro_batch 1 divides")
    free, pinned = (
        grid.key(study.jobs(each, {8: ""}, invented(spec.chiplet), "fluid")[0]) for each in (load_spec(None, "small"), spec)
    )
    assert free != pinned
    with pytest.raises(InputError, match=r"gpus must be counts that hold the job, not 8: no dp .* with tp 3"):
        study.check(replace(spec, plan=PlanSpec(tp=3), gpus=(8,)), "x")
    with pytest.raises(SpecError, match=r"StudySpec.plan must be left out but for a transformer"):
        replace(load_spec(None, "dlrm"), plan=PlanSpec(dp=2))


def test_weak_scaling_gives_each_gpu_the_work_of_the_smallest_count(invented):
    spec = replace(load_spec(None, "small"), scaling="weak", gpus=(16, 8))
    rows = [cell.simulate(job)[0] for job in study.jobs(spec, study.check(spec, "x"), invented(spec.chiplet), "fluid")]
    assert [row["batch"] for row in rows] == [64] * 4 + [128] * 4
    assert rows[4]["samples_per_s"] == pytest.approx(128 / rows[4]["iteration_s"])
    alone = replace(spec, scaling="strong", gpus=(16,), job=replace(spec.job, batch=128))
    (same, *_) = study.jobs(alone, {16: ""}, invented(spec.chiplet), "fluid")
    assert cell.simulate(same)[0] == rows[4]
    assert place.chosen(spec, 32, None).job.batch == 256


def test_a_cell_that_needs_more_memory_than_there_is_is_a_row_that_says_so(monkeypatch, invented):
    spec = load_spec(None, "small")
    (job, *_) = study.jobs(spec, {8: ""}, invented(spec.chiplet), "fluid")

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(cell, "simulated", full)
    row, _ = cell.simulate(job)
    assert not row["fits"]
    assert row["reason"].startswith("to simulate it takes more than the ")


def assert_gone(group):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("processes of the study are still there")


def test_training_takes_longer_by_what_bit_errors_cost_the_fibre(invented):
    """Over links so slow that communication is all that takes time, by the port's rate over that length."""
    spec, timing = load_spec(None, "small"), invented(load_spec(None, "small").chiplet)
    slow = replace(spec.chiplet, wavelength_gbps=0.0032, core_clock_mhz=0.05)
    spec = replace(spec, chiplet=slow, job=NetworkJobSpec("resnet-50", batch=64))
    ocs, seconds, rates = spec.fabrics[3], [], []
    for bit_error_rate in (0.0, 1e-12, 1e-7, 1e-6, 1e-5, 1e-4):
        chiplet = replace(spec.chiplet, bit_error_rate=bit_error_rate)
        mine = replace(spec, chiplet=chiplet)
        row, _ = cell.simulate(cell.Job(mine, 8, fabric_of(ocs, chiplet, timing), "fluid", ""))
        assert row["slot_loss_rate"] == Losses.of(chiplet).slot_loss_rate
        seconds.append(row["iteration_s"])
        rates.append(port_bytes_per_s(chiplet, timing, 2 * ocs.fibre_m * FIBRE_PS_PER_M))
        reached = port_bytes_per_s(chiplet, timing, chiplet.reach_m * FIBRE_PS_PER_M)
        clean = port_bytes_per_s(spec.chiplet, timing, chiplet.reach_m * FIBRE_PS_PER_M)
        assert row["goodput_share"] == reached / clean
    assert all(a >= b for a, b in pairwise(rates)), rates
    assert all(a <= b for a, b in pairwise(seconds)), seconds
    assert rates[0] > 1.001 * rates[3] > 1.1 * rates[-1]
    for rate, each in zip(rates, seconds, strict=True):
        assert each / seconds[0] == pytest.approx(rates[0] / rate, rel=0.002)


def test_without_bit_errors_the_columns_say_so(rows):
    assert {(row["slot_loss_rate"], row["goodput_share"]) for row in rows} == {("0", "1")}
