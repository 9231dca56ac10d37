"""Tables of plans: what is read, what is refused and how, and what ``lightfabric predict`` and ``place`` print."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightfabric.flows.command import place, predict
from lightfabric.flows.format import timing_store
from lightfabric.flows.report import InputError
from lightfabric.flows.run import run_table as measurement
from lightfabric.model.fabric.fabric import Fabric
from lightfabric.model.spec import ACCELERATORS, JobSpec
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.search.search import pareto, whole_space
from lightfabric.placement.workload.preset import MODELS

HEADER = "layers,params_b,hidden,heads,ffn,seq,vocab,accel,tp,pp,dp,gbs,mbs,recompute,zero,n_acc,step_s,notes"
GOOD = "24,,1024,16,4096,1024,50257,A100-80GB,2,2,2,32,4,full,0,8,0.22,"


def table(tmp_path, *rows, header=HEADER):
    path = tmp_path / "runs.csv"
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def changed(name, value):
    cells = dict(zip(HEADER.split(","), GOOD.split(","), strict=True)) | {name: value}
    return ",".join(cells.values())


def test_rows_are_predicted_in_their_order(tmp_path, capsys):
    path = table(tmp_path, GOOD, changed("gbs", "64"), changed("step_s", ""))
    predict.main(path, as_json=True)
    entries = json.loads(capsys.readouterr().out)
    assert [entry["measured_step_s"] for entry in entries] == [0.22, 0.22, None]
    assert entries[1]["step_s"] > entries[0]["step_s"] == entries[2]["step_s"]
    for entry in entries:
        parts = (entry[f"{part}_s"] for part in ("compute", "tensor", "pipeline", "bubble", "data", "optimiser"))
        assert entry["step_s"] == pytest.approx(sum(parts))
        assert 0 < entry["memory_gib"] < 80


def test_a_table_is_printed_for_people(tmp_path, capsys):
    predict.main(table(tmp_path, GOOD), as_json=False)
    assert "optimiser" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("tp", "0", "tp must be greater than or equal to 1, not '0'"),
        ("tp", "2.5", "tp must be a whole number, not '2.5'"),
        ("tp", "3", "tp must be a divisor of the heads (16), not 3"),
        ("hidden", "", "hidden must be a number, not ''"),
        ("hidden", "nan", "hidden must be a number, not 'nan'"),
        ("heads", "15", "ModelSpec.heads must be a divisor of hidden (1024), not 15"),
        ("accel", "V100", f"accel must have one of {', '.join(ACCELERATORS)} in its name, not 'V100'"),
        (
            "recompute",
            "some",
            "recompute must be 'none', 'selective', 'full', 'none+sp', 'selective+sp' or 'full+sp', not 'some'",
        ),
        ("zero", "4", "zero must be less than or equal to 3, not '4'"),
        ("gbs", "4", "gbs must be at least dp * mbs (8), not 4"),
        ("n_acc", "16", "n_acc must be dp * tp * pp * cp (8), not 16"),
        ("step_s", "fast", "step_s must be a number, not 'fast'"),
        ("layers", "", "params_b must be a number, not ''"),
        ("pp", "25", "pp must be at most the layers (24), not 25"),
        ("gbs", "36", "gbs must be a multiple of dp * mbs (8), not 36"),
        ("zero", "0.5", "zero must be a whole number, not '0.5'"),
    ],
)
def test_what_is_wrong_is_one_line_with_row_and_column(tmp_path, name, value, said):
    path = table(tmp_path, GOOD, changed(name, value))
    with pytest.raises(InputError) as caught:
        measurement.read(path)
    assert str(caught.value) == f"{path}: row 2: {said}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must have the columns hidden, seq,"),
        (b"hidden,seq\n1,2\n", "not be without vocab, accel, tp, pp, dp, gbs, mbs"),
        (HEADER.encode() + b"\n", "must have from 1 to 131072 rows, not none"),
        (b"\xff\xfe\n", "must be CSV in UTF-8, not:"),
        (HEADER.encode() + b'\n"24,', "must be CSV in UTF-8, not:"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, said):
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"runs\.csv") as caught:
        measurement.read(path)
    assert said in str(caught.value)


SHAPE_COLUMNS = ["config", "gated", "experts", "experts_per_token", "expert_ffn", "qk_norm", "biases", "kv_rank", "kv_heads"]


@given(st.text(st.characters(codec="utf-8"), max_size=60), st.sampled_from(HEADER.split(",") + SHAPE_COLUMNS))
def test_no_text_in_a_cell_is_more_than_an_input_error(text, name):
    row = dict(zip(HEADER.split(","), GOOD.split(","), strict=True)) | {name: text}
    with contextlib.suppress(InputError):
        assert len(measurement.runs([("row", row)]).cases) == 1


def test_rows_that_cannot_run_have_a_line_each_and_the_others_a_time(tmp_path, capsys):
    path = table(tmp_path, GOOD, changed("pp", "25"), changed("gbs", "64"), changed("gbs", "36"))
    with pytest.raises(InputError) as caught:
        predict.main(path, as_json=True)
    shown = capsys.readouterr()
    assert [entry["id"] for entry in json.loads(shown.out)] == ["1", "3"]
    assert shown.err == f"lightfabric: {path}: row 2: pp must be at most the layers (24), not 25\n"
    assert str(caught.value) == f"{path}: row 4: gbs must be a multiple of dp * mbs (8), not 36"


SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "cases"
shared = pytest.mark.skipif(not SHARED.exists(), reason="the cases are in ../shared/data/cases")


@shared
def test_the_rows_of_the_shared_cases_that_cannot_run_have_no_time():
    runs, refused = measurement.read_apart(SHARED / "predict-infeasible.csv")
    fine = ["b64v1", "b64v2", "b64v4", "g99", "g102", "l28", "l30", "l32", "z3", "z2", "z1", "z0", "kv8tp16", "kv8tp8"]
    assert [row["id"] for row in runs.rows] == fine
    assert [line.split(": ")[1] for line in refused] == [f"row {number}" for number in (4, 5, 6, 8, 13, 14, 15, 16)]


LLAMA = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131072,
    "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "tie_word_embeddings": True,
    "vocab_size": 128256,
}  # fmt: skip
ROW = {"config": "llama.json", "seq": "8192", "accel": "H100", "tp": "2", "pp": "2", "dp": "2", "gbs": "32", "mbs": "1"}
SHAPE = {
    "layers": "16", "hidden": "2048", "heads": "32", "kv_heads": "8", "ffn": "8192", "vocab": "128256", "gated": "1",
    "tied": "true",
}  # fmt: skip


def predicted(tmp_path, *rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    (tmp_path / "llama.json").write_text(json.dumps(LLAMA))
    path = table(tmp_path, *(",".join(row.get(name, "") for name in names) for row in rows), header=",".join(names))
    return predict.predictions(measurement.read(path))


def test_a_shape_by_config_is_that_by_columns(tmp_path):
    """With the parameters of meta-llama/Llama-3.2-1B."""
    by_config, by_columns = predicted(tmp_path, ROW | {"id": "x"}, ROW | SHAPE | {"config": "", "id": "x"})
    assert by_config == by_columns
    assert by_config["parameters"] == 1_235_814_400


def test_a_shorter_sequence_keeps_the_learned_positions(tmp_path):
    gpt2 = {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257}
    (tmp_path / "gpt2.json").write_text(json.dumps(gpt2))
    [short] = predicted(tmp_path, ROW | {"config": "gpt2.json", "seq": "512"})
    assert short["parameters"] == 124_439_808
    with pytest.raises(InputError, match=r"row 1: seq must be at most 1024, the positions of the model, not 2048$"):
        predicted(tmp_path, ROW | {"config": "gpt2.json", "seq": "2048"})


def test_experts_and_norms_by_columns_are_a_model(tmp_path):
    """Qwen/Qwen3-235B-A22B and mistralai/Mixtral-8x7B-v0.1 by their shapes."""
    qwen = {
        "layers": "94", "hidden": "4096", "heads": "64", "kv_heads": "4", "ffn": "", "vocab": "151936", "head_width": "128",
        "gated": "True", "experts": "128", "experts_per_token": "8", "expert_ffn": "1536", "shared_experts": "0",
        "qk_norm": "True",
    }  # fmt: skip
    mixtral = {
        "layers": "32", "hidden": "4096", "heads": "32", "kv_heads": "8", "ffn": "14336", "vocab": "32000", "gated": "yes",
        "experts": "8", "experts_per_token": "2", "qk_norm": "0",
    }  # fmt: skip
    found = predicted(tmp_path, *(ROW | {"config": ""} | shape for shape in (qwen, mixtral)))
    assert [entry["parameters"] for entry in found] == [235_093_634_560, 46_702_792_704]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"hidden": "4096"}, "hidden must be 2048, as in the config, not 4096"),
        ({"kv_heads": "4"}, "kv_heads must be 8, as in the config, not 4"),
        ({"qk_norm": "1"}, "qk_norm must be 'none', as in the config, not 'head'"),
        ({"vocab": "1000"}, "vocab must be at least 128256, as in the config, not 1000"),
        ({"seq": ""}, "seq must be a number, not ''"),
        ({"config": ""}, "hidden must be a number, not ''"),
        ({"config": "a\0b"}, "config must be the path of a config.json, not 'a\\x00b'"),
        ({"config": ""} | SHAPE | {"heads": ""}, "heads must be given beside gated, not left out"),
        ({"config": ""} | SHAPE | {"experts": "8"}, "experts_per_token must be given beside experts, not left out"),
        ({"config": ""} | SHAPE | {"experts": "8", "experts_per_token": "9"},
         "ModelSpec.experts_per_token must be from 1 to 8, not 9"),
        ({"config": ""} | SHAPE | {"gated": "perhaps"}, "gated must be true or false, not 'perhaps'"),
        ({"config": ""} | SHAPE | {"qk_norm": "2"}, "qk_norm must be 'none' or 'head' or 'heads', not '2'"),
        ({"config": ""} | SHAPE | {"experts": "8.5"}, "experts must be a whole number, not '8.5'"),
        ({"config": ""} | SHAPE | {"kv_heads": "7"}, "ModelSpec.kv_heads must be a divisor of heads (32), not 7"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_shape_that_contradicts_or_lacks_is_one_line(tmp_path, cells, said):
    with pytest.raises(InputError) as caught:
        predicted(tmp_path, ROW | cells)
    assert str(caught.value) == f"{tmp_path / 'runs.csv'}: row 1: {said}"


def test_a_wrong_config_is_one_line_with_row_file_and_key(tmp_path):
    with pytest.raises(InputError) as caught:
        predicted(tmp_path, ROW, ROW | {"config": "none.json"})
    says = "must be a config.json that can be read, not: No such file or directory"
    assert str(caught.value) == f"{tmp_path / 'runs.csv'}: row 2: {tmp_path / 'none.json'}: {says}"


def test_a_precision_that_the_accelerator_lacks_is_one_line():
    row = dict(zip(HEADER.split(","), GOOD.split(","), strict=True)) | {"precision": "FP8"}
    with pytest.raises(InputError, match=r"^row: AcceleratorSpec\.fp8_tflops must be given for a job in fp8, not left out$"):
        measurement.runs([("row", row)])


def test_a_row_of_a_published_shape_is_that_model():
    row = dict(zip(HEADER.split(","), GOOD.split(","), strict=True))
    row |= {"layers": "80", "hidden": "8192", "heads": "", "ffn": "28672", "accel": "H100 SXM"}
    cases = measurement.runs([("row", row)]).cases
    assert (cases.heads[0], cases.kv_head_count[0], bool(cases.gated[0]), bool(cases.flash[0])) == (64, 8, True, True)


def test_of_models_of_one_shape_the_name_or_the_experts_decide():
    row = dict(zip(HEADER.split(","), GOOD.split(","), strict=True))
    row |= {"layers": "32", "hidden": "4096", "heads": "32", "ffn": "14336", "accel": "DGX H100", "vocab": "32000"}
    rows = [row | {"model": name, "ep": ep} for name, ep in (("Llama-3 8B", "1"), ("Mixtral 8x7B", "1"), ("", "2"))]
    assert measurement.runs([("row", entry) for entry in rows]).cases.experts.tolist() == [0, 8, 8]


def test_depth_follows_from_parameters_in_multiples_of_the_stages():
    """The 200B model of BigScience's sweep has 80 layers of 14400 [chronicles-prequel.md]."""
    row = dict(zip(HEADER.split(","), GOOD.split(","), strict=True))
    row |= {"layers": "", "params_b": "200", "hidden": "14400", "heads": "", "ffn": "57600", "vocab": "250880", "tp": "8"}
    row |= {"pp": "10", "dp": "4", "n_acc": "320", "gbs": "2048"}
    cases = measurement.runs([("row", row)]).cases
    assert (cases.layers[0], cases.heads[0]) == (80, 120)


def test_notes_say_what_joins_the_nodes():
    row = dict(zip(HEADER.split(","), GOOD.split(","), strict=True))
    default, slow = measurement.runs(
        [("row", row), ("row", row | {"notes": "inter-node 800 Gb/s per node"})]
    ).nic_bytes_per_s
    assert (default, slow) == (25e9, 12.5e9)


def test_the_whole_space_starts_with_its_fastest_plan():
    """And no plan of the front beats another in every way."""
    job, accelerator = JobSpec(MODELS["gpt3-175b"], 1536), ACCELERATORS["h100"]
    fastest, front = whole_space(job, accelerator, 1024, lambda _: Rates(4e11, 5e10, 5e10))
    assert fastest[0] == front[0]
    assert [option.total for option in fastest] == sorted(option.total for option in fastest)
    costs = np.array([(option.total, option.memory.total, option.sent_bytes) for option in front])
    for index, cost in enumerate(costs):
        assert not (np.delete(costs, index, axis=0) <= cost).all(axis=1).any()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_the_front_is_what_nothing_dominates(points):
    table = np.array(points)
    found = {tuple(table[index]) for index in pareto(*table.T)}
    dominated = {p for p in points for q in points if q != p and all(a <= b for a, b in zip(q, p, strict=True))}
    assert found == set(points) - dominated


def test_place_says_what_it_chose_and_what_else_there_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(timing_store, "measured_timing", lambda *_: None)
    monkeypatch.setattr(Fabric, "efficiency", 0.9)
    place.main(None, 64, "SiP-Ring", as_json=True, out=tmp_path / "figures")
    (placement,) = json.loads(capsys.readouterr().out)["placements"]
    assert placement["dp"] * placement["tp"] * placement["pp"] == 64
    assert placement["byte_hops"] >= placement["byte_hops_bound"]
    assert placement["lane_bytes"] >= placement["lane_bytes_bound"]
    assert [option["predicted_s"] for option in placement["fastest"]] == sorted(
        o["predicted_s"] for o in placement["fastest"]
    )
    assert placement["pareto"][0] == placement["fastest"][0]
    assert sorted(rank for alike in placement["communication"] for rank in alike["ranks"]) == list(range(64))
    for alike in placement["communication"]:
        assert sum(alike["bytes"].values()) == sum(call["size_bytes"] for call in alike["calls"]) > 0
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["traffic-SiP-Ring.png"]
    place.main(None, 64, "SiP-Ring", as_json=False)
    assert "no other beats" in capsys.readouterr().out
