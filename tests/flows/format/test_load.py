import json
import re
import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.flows.format.spec_file import MAX_BYTES, load_spec
from lightfabric.flows.report import InputError
from lightfabric.model.chiplet_preset import CHIPLETS
from lightfabric.model.spec import ACCELERATORS, SipRingSpec
from lightfabric.placement.workload.preset import MODELS

SMALL = (files("lightfabric.examples") / "small.toml").read_text()
SAID_MAX = 400

WRONG = [
    # what is replaced, by what, and what is said
    ("ports = 4", "ports = -3", "chiplet.ports must be from 1 to 32, not -3"),
    ("ports = 4", 'ports = "4"', "chiplet.ports must be a whole number, not '4'"),
    ("ports = 4", "ports = 4.0", "chiplet.ports must be a whole number, not 4.0"),
    ("ports = 4", "ports = true", "chiplet.ports must be a whole number, not true"),
    ("ports = 4", "ports = [4]", "chiplet.ports must be a whole number, not an array"),
    ("= 500.0", '= "500 MHz"', "chiplet.core_clock_mhz must be a number, not '500 MHz'"),
    ("= 500.0", "= nan", "chiplet.core_clock_mhz must be a finite number, not nan"),
    ("= 500.0", "= 1e999", "chiplet.core_clock_mhz must be a finite number, not inf"),
    ("ports = 4", "ports = 4\nbuffer_flits = -1", "chiplet.buffer_flits must be from 0 to 32767, not -1"),
    ("ports = 4", 'preset = "oci-gen3"', f"chiplet.preset must be one of {', '.join(CHIPLETS)}, not 'oci-gen3'"),
    ("ports = 4", "ports = 4\nbit_error_rate = 2e-4", "chiplet.bit_error_rate must be from 0 to 0.0001, not 0.0002"),
    ("ports = 4", "ports = 4\nbit_error_rate = -1e-300", "chiplet.bit_error_rate must be from 0 to 0.0001, not -1e-300"),
    (
        "ports = 4",
        "ports = 4\nreplay_flits = 30",
        "chiplet.replay_flits must be 0 or from 62, the flits of a round trip over reach_m, to 32767, not 30",
    ),
    (
        "ports = 4",
        "ports = 4\nreplay_flits = 32768",
        "chiplet.replay_flits must be 0 or from 62, the flits of a round trip over reach_m, to 32767, not 32768",
    ),
    (
        "ports = 4",
        "ports = 4\nreach_m = 20e3",
        "chiplet.reach_m must be at most 1.38e+04, so that a round trip holds at most 32767 flits, not 20000.0",
    ),
    (
        "wavelengths_per_port = 8",
        "wavelengths_per_port = 3",
        "chiplet.wavelengths_per_port must be a divisor of 16, the 64-bit blocks of a flit, not 3",
    ),
    ("ports = 4", "ports = 4\nvirtual_channels = 9", "chiplet.virtual_channels must be from 1 to 8, not 9"),
    ("ports = 4", 'ports = 4\ncrc = "crc8"', "chiplet.crc must be 'crc32c', 'crc24', 'crc16' or 'crc16-umts', not 'crc8'"),
    ("= 800.0", "= 1e200", "accelerator.memory_gbytes_per_s must be from 1e-06 to 1e+12, not 1e+200"),
    (
        "core_clock_mhz",
        "core_clock",
        "chiplet.core_clock must be a known field (did you mean core_clock_mhz?), not an unknown one",
    ),
    ("memory_gib", "memory", "accelerator.memory must be a known field (did you mean memory_gib?), not an unknown one"),
    ("fp16_tflops", "fp16", "accelerator.fp16 must be a known field (did you mean fp16_tflops?), not an unknown one"),
    (
        "gpu_gbps",
        "gpu_gb",
        "fabrics[0].gpu_gb must be a known field (did you mean gpu_gbps?), not an unknown one",
    ),
    ("[chiplet]", "[chiplets]", "chiplets must be a known field (did you mean chiplet?), not an unknown one"),
    ("nic_gbps = 100.0", "", "fabrics[1].nic_gbps must be given, not left out"),
    ("nic_gbps = 100.0", "nic_gbps = 0", "fabrics[1].nic_gbps must be above 0, not 0.0"),
    ("batch = 64", "", "job.batch must be given, not left out"),
    ("[chiplet]", "[plan]\ntp = 0\n[chiplet]", "plan.tp must be from 1 to 1048576, not 0"),
    ("[chiplet]", "[plan]\ntp = 1.5\n[chiplet]", "plan.tp must be a whole number, not 1.5"),
    ("[chiplet]", "[plan]\nzero = 3\n[chiplet]", "plan.zero must be 0 or 1, not 3"),
    (
        "[chiplet]",
        "[plan]\nmicro = 3\n[chiplet]",
        "plan.micro must be a known field (did you mean micro_batch?), not an unknown one",
    ),
    ("[8, 16, 32]", '[8, 16]\nscaling = "some"', "scaling must be 'strong' or 'weak', not 'some'"),
    (
        "[8, 16, 32]",
        '[24, 25]\nscaling = "weak"',
        "scaling must be strong for 25 GPUs, whose part of a batch of 64 on 24 is not whole, not 'weak'",
    ),
    ("heads = 16", "heads = 17", "job.model.heads must be a divisor of hidden (1024), not 17"),
    ("[8, 16, 32]", "[8, 1]", "gpus must be one or more counts from 2 to 262144, not (8, 1)"),
    ("[8, 16, 32]", '[8, "16"]', "gpus[1] must be a whole number, not '16'"),
    ("[8, 16, 32]", "8", "gpus must be an array, not 8"),
    ('"small"', "1979-05-27", "name must be text, not datetime.date(1979, 5, 27)"),
    ('"bf16"', '"bf17"', "job.precision must be 'fp32', 'tf32', 'fp16', 'bf16', 'fp8', 'mxfp8' or 'nvfp4', not 'bf17'"),
    ('"bf16"', '"fp8"', "accelerator.fp8_tflops must be given for a job in fp8, not left out"),
    ('name = "mine"', 'preset = "v100"', f"accelerator.preset must be one of {', '.join(ACCELERATORS)}, not 'v100'"),
    ("heads = 16", "heads = 16\nkv_heads = 3", "job.model.kv_heads must be a divisor of heads (16), not 3"),
    (
        "heads = 16",
        "heads = 16\nkv_head = 3",
        "job.model.kv_head must be a known field (did you mean kv_heads?), not an unknown one",
    ),
    (
        "heads = 16",
        'heads = 16\npositions = "none"',
        "job.model.positions must be 'learned', 'rotary' or 'alibi', not 'none'",
    ),
    ("layers = 24", 'preset = "gpt5"', f"job.model.preset must be one of {', '.join(MODELS)}, not 'gpt5'"),
    ("layers = 24", "preset = 3", f"job.model.preset must be one of {', '.join(MODELS)}, not 3"),
    (
        "layers = 24",
        'preset = "gpt2"\nconfig = "config.json"',
        "job.model.config must be left out beside preset, not 'config.json'",
    ),
    ("layers = 24", "config = 3", "job.model.config must be the path of a config.json, not 3"),
    ("layers = 24", 'config = ""', "job.model.config must be the path of a config.json, not ''"),
    ("layers = 24", 'config = "a\\u0000"', "job.model.config must be the path of a config.json, not 'a\\x00'"),
    ('"islands"', '"SiP-Ring"', "fabrics[2].name must differ from those before, not 'SiP-Ring'"),
    ('"islands"', '""', "fabrics[1].name must be a name of printable characters, not ''"),
    ('"mine"', '" "', "accelerator.name must be a name of printable characters, not ' '"),
    ('"small"', '"a\\u001b[31m"', "name must be a name of printable characters, not 'a\\x1b[31m'"),
    (
        'kind = "sip-ring"',
        "",
        "fabrics[2].kind must be one of electrical-switch, electrical-cluster, fat-tree, rail-optimised, dragonfly, "
        "sip-ring, sip-ocs, photonic-rails, mixnet, topoopt, torus, twisted-torus, cube-torus, custom, not left out",
    ),
    ('name = "small"', 'name = "small"\n"a\\nb" = 1', "'a\\nb' must be a known field"),
    ("[chiplet]", "[chiplet", "must be TOML, not: "),
]


def test_fabrics_and_prices_of_the_page_of_the_spec_are_read(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "spec.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "page.toml").write_text(SMALL.partition("[[fabrics]]")[0] + "".join(blocks))
    spec = load_spec(tmp_path / "page.toml")
    fabrics = spec.fabrics
    assert spec.prices.ocs_port.at(1) == (300.0, 0.8)
    assert spec.prices.nic.at(800)[0] == 1900.0
    assert [fabric.kind for fabric in fabrics] == ["fat-tree", "rail-optimised", "dragonfly"]
    assert [fabric.nic_gbps for fabric in fabrics] == [400.0] * 3


def said(path: Path) -> str:
    with pytest.raises(InputError) as error:
        load_spec(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(text) < SAID_MAX + len(str(path))
    return text.removeprefix(f"{path}: ")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "my.toml"


@pytest.mark.parametrize(("old", "new", "says"), WRONG, ids=[says for *_, says in WRONG])
def test_a_wrong_field_is_named_with_what_it_must_be_and_what_it_is(path, old, new, says):
    assert SMALL.count(old) >= 1
    path.write_text(SMALL.replace(old, new, 1))
    text = said(path)
    assert text == says or (text.startswith(says) and old in ("[chiplet]", 'name = "small"'))


NETWORK = (files("lightfabric.examples") / "dlrm.toml").read_text()
WRONG_NETWORKS = [
    # what stands for batch = 65536, and what is said
    ("batch = 0", "job.batch must be from 1 to 16777216, not 0"),
    ("batch = 8\nmodel.layers = 2", "job.model must be left out beside network, not a table"),
    ("batch = 8\ntable_row = [2]", "job.table_row must be a known field (did you mean table_rows?), not an unknown one"),
    ("batch = 8\ntable_rows = 2", "job.table_rows must be an array, not 2"),
    ("batch = 8\ntable_rows = [2, 0]", "job.table_rows must be 0 to 1024 counts from 1 to 17179869184, not (2, 0)"),
    ("batch = 8\ntable_rows = [2, 1.5]", "job.table_rows[1] must be a whole number, not 1.5"),
    ("batch = 8\ntable_width = 16385", "job.table_width must be from 1 to 16384, not 16385"),
    ("batch = 8\nbottom_widths = []", "job.bottom_widths must be 1 to 64 counts from 1 to 16384, not ()"),
    ("batch = 8\ntop_widths = [8, 16385]", "job.top_widths must be 1 to 64 counts from 1 to 16384, not (8, 16385)"),
]


@pytest.mark.parametrize(("new", "says"), WRONG_NETWORKS, ids=[says for *_, says in WRONG_NETWORKS])
def test_a_wrong_field_of_a_network_is_named(path, new, says):
    path.write_text(NETWORK.replace("batch = 65536", new, 1))
    assert said(path) == says


@pytest.mark.parametrize("field", ["table_rows = [3]", "table_width = 3", "bottom_widths = [3]", "top_widths = [3]"])
def test_what_only_a_recommender_has_is_left_out_of_other_networks(path, field):
    path.write_text(NETWORK.replace('network = "dlrm"', f'network = "vgg-16"\n{field}', 1))
    assert said(path).startswith(f"job.{field.split()[0]} must be left out but for dlrm, not ")


def test_a_job_has_a_model_or_a_network(path):
    path.write_text(SMALL.replace(MODEL, ""))
    assert said(path) == "job.model must be given, or network in its place, not left out"
    path.write_text(NETWORK.replace('network = "dlrm"', 'network = "dlmr"', 1))
    assert said(path) == "job.network must be 'resnet-50', 'vgg-16', 'transformer-big' or 'dlrm', not 'dlmr'"


@pytest.mark.parametrize("name", ["small", "prototype", "gpt3-175b", "qwen3-235b-a22b", "llama3-70b-decode", "dlrm"])
def test_the_examples_are_read(name):
    assert load_spec(None, name).name == name


def test_what_is_left_out_has_its_default_and_whole_numbers_are_rates(path):
    path.write_text(SMALL.replace("= 500.0", "= 500"))
    spec = load_spec(path)
    assert spec.chiplet.core_clock_mhz == 500.0
    assert isinstance(spec.chiplet.core_clock_mhz, float)
    assert spec.fabrics[2] == SipRingSpec("SiP-Ring", "sip-ring")
    assert spec.gpus == (8, 16, 32)


def test_keys_beside_a_preset_override_it(path):
    table = SMALL[SMALL.index("[accelerator]") : SMALL.index("[job]")]
    path.write_text(SMALL.replace(table, '[accelerator]\npreset = "h100"\nmemory_gib = 96.0\n'))
    accelerator = load_spec(path).accelerator
    assert accelerator.memory_gib == 96.0
    assert accelerator.fp8_tflops == ACCELERATORS["h100"].fp8_tflops


CHIPLET = SMALL[SMALL.index("[chiplet]") : SMALL.index("[[fabrics]]")]


@pytest.mark.parametrize("name", CHIPLETS)
def test_a_chiplet_preset_stands_for_its_fields(path, name):
    path.write_text(SMALL.replace(CHIPLET, f'[chiplet]\npreset = "{name}"\n'))
    assert load_spec(path).chiplet == CHIPLETS[name].spec


def test_keys_beside_a_chiplet_preset_override_it(path):
    path.write_text(SMALL.replace(CHIPLET, '[chiplet]\npreset = "oci-gen1"\nports = 2\nreach_m = 60.0\n'))
    chiplet = load_spec(path).chiplet
    assert chiplet == replace(CHIPLETS["oci-gen1"].spec, ports=2, reach_m=60.0, replay_flits=0)
    assert chiplet.replay_flits > CHIPLETS["oci-gen1"].spec.replay_flits


MODEL = SMALL[SMALL.index("[job.model]") : SMALL.index("[chiplet]")]
CONFIG = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "vocab_size": 1000,
    "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 2048,
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_model_preset_stands_for_its_fields(path, name):
    path.write_text(SMALL.replace(MODEL, f'[job.model]\npreset = "{name}"\n'))
    assert load_spec(path).job.model == MODELS[name]


def test_keys_beside_a_model_preset_override_it(path):
    path.write_text(SMALL.replace(MODEL, '[job.model]\npreset = "llama3-70b"\nsequence = 4096\ntied = true\n'))
    assert load_spec(path).job.model == replace(MODELS["llama3-70b"], sequence=4096, tied=True)
    path.write_text(SMALL.replace(MODEL, '[job.model]\npreset = "llama3-70b"\nheads = 63\n'))
    assert said(path) == "job.model.heads must be a divisor of hidden (8192), not 63"


def test_a_model_is_imported_from_a_config_beside_the_file(path):
    folder = path.parent / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    path.write_text(SMALL.replace(MODEL, '[job.model]\nconfig = "model/config.json"\nsequence = 512\n'))
    model = load_spec(path).job.model
    assert (model.layers, model.kv_heads, model.sequence) == (4, 2, 512)
    assert (model.gated, model.biases, model.tied) == (True, "none", False)


def test_what_is_wrong_with_an_imported_config_names_that_file(path):
    config = path.parent / "config.json"
    config.write_text(json.dumps(CONFIG | {"hidden_size": "512"}))
    path.write_text(SMALL.replace(MODEL, '[job.model]\nconfig = "config.json"\n'))
    with pytest.raises(InputError) as error:
        load_spec(path)
    assert str(error.value) == f"{config}: hidden_size must be a whole number from 1 to 4194304, not '512'"


def test_a_byte_order_mark_and_carriage_returns_do_not_matter(path):
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert load_spec(path) == load_spec(None, "small")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * MAX_BYTES,
        b"\0" * 100,
        SMALL.encode("utf-16"),
        SMALL.encode()[: len(SMALL) // 2],
        b"a = " + b"[" * 100_000,
        b"a = " + b"[\n" * 100_000,
        b".".join([b"a"] * 190) + b" = 1",
        b"[a]\nb = {c = {d = {e = [[1]]}}}",
        b"ports = " + b"9" * 5000,
        b"\n[chiplet]\nports = " + b"9" * 300,
        b"\x89PNG\r\n\x1a\n\0\0\0",
    ],
    ids=["empty", "zeros", "few zeros", "utf-16", "half", "nested", "nested lines", "dots", "tables", "long", "huge", "png"],
)
def test_what_is_no_spec_is_refused(path, content):
    path.write_bytes(content)
    assert "must be " in said(path)


def test_a_gigabyte_of_zeros_is_refused_unread(path):
    with path.open("wb") as file:
        file.truncate(1 << 30)
    assert said(path) == f"must be a TOML file of at most {MAX_BYTES} bytes, not {1 << 30} bytes"


def test_a_folder_and_an_absent_file_are_refused(tmp_path):
    assert said(tmp_path) == "must be a TOML file, not a folder"
    assert said(tmp_path / "absent") == "must be a TOML file that can be read, not: No such file or directory"


SNIPPETS = st.sampled_from([b"[", b"-", b"1e9", b"."])


def must_be_refused_or_read(path, content):
    path.write_bytes(content)
    message = "it must be read"
    try:
        load_spec(path)
    except InputError as error:
        message = str(error)
    assert " must " in message
    assert "\n" not in message


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_only_input_errors_escape_from_damaged_files(tmp_path_factory, data):
    content = bytearray(SMALL.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=4) | SNIPPETS)
    must_be_refused_or_read(tmp_path_factory.getbasetemp() / "damaged.toml", bytes(content))


VALUES = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.text(max_size=5), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["kind", "name", "x"]), st.integers(), max_size=2), st.integers(10**40, 10**50),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_only_input_errors_escape_when_values_are_exchanged(tmp_path_factory, data):
    tables = tomllib.loads(SMALL)
    for _ in range(data.draw(st.integers(1, 2))):
        where = data.draw(st.sampled_from([t for t in (tables, *tables.values(), *fabrics(tables)) if isinstance(t, dict)]))
        if where:
            where[data.draw(st.sampled_from(sorted(where)))] = data.draw(VALUES)
    must_be_refused_or_read(tmp_path_factory.getbasetemp() / "exchanged.toml", toml(tables).encode())


def fabrics(tables):
    return tables["fabrics"] if isinstance(tables.get("fabrics"), list) else []


def toml(tables) -> str:
    return "".join(f"{name} = {inline(value)}\n" for name, value in tables.items())


def inline(value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {inline(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[\n" + ",\n".join(inline(entry) for entry in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, str) else repr(value)
