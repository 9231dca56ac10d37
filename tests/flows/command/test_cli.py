import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import fields, replace
from fractions import Fraction
from functools import wraps
from importlib.resources import files
from pathlib import Path

import pytest

from lightfabric.flows.format import timing_store
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.report import RunError, written_whole
from lightfabric.flows.tool.pool import ThisProcess, interrupts_blocked
from lightfabric.model.spec import ChipletSpec, spec_hash
from lightfabric.model.timing import ClientTiming, LinkTiming, SwitchTiming, Timing
from lightfabric.sim import characterize

SLOW_IMPORTS = {"amaranth", "matplotlib", "numba", "scipy"}
ROOT = Path(__file__).parents[3]
COMMANDS = {path.stem for path in (ROOT / "flows" / "command").glob("[!_]*.py")}
PROGRAM = Path(sys.executable).with_name("lightfabric")
RUN = """
import sys
from lightfabric.flows import cli
try:
    cli.main()
finally:
    print("loaded:", *(name for name in sys.modules if "." not in name), file=sys.stderr)
"""


def timing(chiplet: ChipletSpec) -> Timing:
    """Not measured, but stored as if: these tests are not about the RTL."""
    parts = [
        kind(**{entry.name: Fraction(33, 32) if entry.type is Fraction else 5 for entry in fields(kind)})
        for kind in (LinkTiming, SwitchTiming, ClientTiming)
    ]
    return Timing(*parts, spec_hash(chiplet), characterize.rtl_hash(), "invented")


def lightfabric(*arguments, code=0, **environment):
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=os.environ | environment)
    messages, _, loaded = done.stderr.partition("loaded:")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in messages
    return done.stdout, messages, set(loaded.split())


def refused(*arguments) -> str:
    """What is said about a wrong input: one line, before anything slow is imported."""
    output, messages, loaded = lightfabric(*arguments, code=2)
    assert output == ""
    assert messages.count("\n") == 1
    assert not loaded & SLOW_IMPORTS
    return messages.removeprefix("lightfabric: ").rstrip("\n")


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def measured(monkeypatch):
    """Names of the chiplets whose RTL was simulated."""
    simulated = []

    def measure(chiplet, progress, _):
        progress("link")
        simulated.append(spec_hash(chiplet))
        return timing(chiplet)

    monkeypatch.setattr(characterize, "characterize", measure)
    return simulated


@pytest.mark.parametrize("command", ["study", "characterize", "place"])
def test_a_wrong_spec_is_refused_before_anything_slow_is_imported(tmp_path, command):
    path = tmp_path / "my.toml"
    small = (files("lightfabric.examples") / "small.toml").read_text()
    path.write_text(small.replace("ports = 4", "ports = -3"))
    assert refused(command, path) == f"{path}: chiplet.ports must be from 1 to 32, not -3"


@pytest.mark.parametrize("command", [("sim", "link"), ("verilog", "link", "-o", "x.v"), ("synth", "link", "--device", "x")])
def test_the_commands_of_a_block_refuse_a_wrong_spec(tmp_path, command):
    assert refused(*command, "--spec", tmp_path).startswith(f"{tmp_path}: must be a TOML file, not a folder")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Missing command"),
        (["studdy"], "No such command 'studdy'"),
        (["study", "--bandwidth", "1"], "No such option: --bandwidth"),
        (["replay", "x.fbuf"], "Missing option '--bandwidth'"),
        (["sim", "link", "--packets", "1e4"], "Invalid value for '--packets': must be a whole number, not '1e4'"),
        (["sim", "link", "--ber", "few"], "Invalid value for '--ber': must be a number, not 'few'"),
        (["place", "--gpus", ""], "Invalid value for '--gpus': must be a whole number, not ''"),
        (
            ["replay", "x.fbuf", "--bandwidth", "1e3Gbps"],
            "--bandwidth must be a rate with unit such as 100Gbps, from 0.001Gbps",
        ),
        (["replay", "x.fbuf", "--bandwidth", "0.001Mbps"], "--bandwidth must be a rate with unit"),
        (["replay", "x.fbuf", "--bandwidth", "\N{ARABIC-INDIC DIGIT THREE}Gbps"], "--bandwidth must be a rate with unit"),
        (["place", "--gpus", "1"], "--gpus must be from 2 to 262144, not 1"),
        (
            ["place", "--fabric", "torus"],
            "--fabric must be one of ideal switch, NVLink islands, fat tree, SiP-Ring, SiP-OCS",
        ),
        (
            ["place", "--objective", "speed"],
            "--objective must be one of predicted-time, simulated-time, bottleneck, byte-hops, wavelengths",
        ),
        (
            ["collective", "--kind", "gossip"],
            "--kind must be one of all-reduce, all-gather, reduce-scatter, all-to-all",
        ),
        (["collective", "--bytes", "64"], "--bytes must be a size with unit such as 64MiB, from 1B to 1024TiB, not '64'"),
        (["collective", "--gpus", "2048"], "--gpus must be from 2 to 1024, not 2048"),
        (["topology", "--shape", "4,4"], "--shape must be lengths such as 4x4x8, not '4,4'"),
        (["topology", "--shape", "4x6"], "--shape must be of 2 or more cubes of edge 4 and at most 2048 GPUs, not 4x6"),
        (
            ["replay", "x.et", "--bandwidth", "1Gbps", "--fabric", "topoopt", "--algorithm", "auto"],
            "--algorithm must be one of",
        ),
        (
            ["bench", "sort"],
            "NAME must be one of fluid, kernel, allreduce, search, mapping, accuracy, agreement, published, fec, not 'sort'",
        ),
    ],
)
def test_a_wrong_use_is_one_line(arguments, says):
    assert refused(*arguments).startswith(says)


@pytest.mark.parametrize("arguments", [("verilog", "link", "-o"), ("sim", "link", "--waves")])
@pytest.mark.parametrize("kind", ["folder", "device"])
def test_what_no_file_may_replace_is_refused_before_the_work(tmp_path, arguments, kind):
    path = tmp_path / "there"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    assert refused(*arguments, path) == f"{path}: must be a file that can be written, not a {kind}"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_a_file_stays_a_link(tmp_path):
    link, file = tmp_path / "link", tmp_path / "file"
    file.write_text("before")
    link.symlink_to(file)
    with written_whole(link) as beside:
        beside.write_text("after")
    assert link.is_symlink()
    assert file.read_text() == "after"


def small_in(folder, old="", new=""):
    path = folder / "my.toml"
    path.write_text((files("lightfabric.examples") / "small.toml").read_text().replace(old, new))
    return path


@pytest.mark.parametrize("out", ["my.toml", "new/" + "x" * 300, "/sys/kernel"])
def test_results_that_cannot_be_written_are_refused_before_the_study(tmp_path, out):
    path = small_in(tmp_path)
    _, messages, _ = lightfabric("study", path, "--out", tmp_path / out, code=2)
    assert messages.startswith("lightfabric: --out must be a folder that can be written, not ")
    assert messages.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_place_of_a_result_is_refused_before_the_study(tmp_path):
    taken = tmp_path / "manifest.json"
    taken.mkdir()
    _, messages, _ = lightfabric("study", "--out", tmp_path, code=2)
    assert messages == f"lightfabric: {taken}: must be a file that can be written, not a folder\n"
    assert list(tmp_path.iterdir()) == [taken]


def test_a_fabric_too_small_for_the_placed_count_is_refused_before_the_rtl_is_measured(tmp_path):
    path = tmp_path / "my.toml"
    pair = '\n[[fabrics]]\nname = "a pair"\nkind = "custom"\ngpus = 2\nlinks = [[0, 1]]\n'
    path.write_text((files("lightfabric.examples") / "gpt3-175b.toml").read_text() + pair)
    said = refused("place", path, "--fabric", "a pair")
    assert said.startswith(f"{path}: fabric 'a pair' must serve 1024 GPUs, but gpus must be at most the 2 of ")


def test_a_file_that_is_no_task_graph_is_said_to_be_none(tmp_path):
    path = small_in(tmp_path)
    said = refused("replay", path, "--bandwidth", "1Gbps")
    assert said.startswith(f"{path}: must be a whole TopoOpt task graph: ")


def test_an_interrupt_during_the_start_of_processes_comes_after_it():
    steps = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with interrupts_blocked():
            signal.getsignal(signal.SIGINT)(signal.SIGINT, None)  # as when another thread hears it
            steps.append("started")
        steps.append("never")
    assert steps == ["started"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_help_names_the_files_of_the_commands_and_no_others():
    output, _, loaded = lightfabric("--help")
    assert set(re.findall(r"^  ([a-z]+) ", output.partition("Commands:")[2], re.MULTILINE)) == COMMANDS
    assert not loaded & (SLOW_IMPORTS | {"numpy", "pydantic"})


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_its_options(command):
    output, messages, loaded = lightfabric(command, "--help")
    assert output.startswith("Usage: ")
    assert "--help" in output
    assert messages == ""
    assert not loaded & {"matplotlib", "numba", "scipy"}


def test_the_version_is_that_of_the_package():
    output, _, loaded = lightfabric("--version")
    assert output == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] + "\n"
    assert not loaded & SLOW_IMPORTS


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["st"], ["study"]),
        (["qap", "--se"], ["--seconds", "--seed"]),
        (["place", "--fabric", "ring", "--o"], ["--out", "--objective"]),
    ],
)
def test_a_shell_completes_commands_and_options_once_completion_is_installed(tmp_path, typed, offered):
    environment = os.environ | {"HOME": str(tmp_path), "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    words = " ".join(["lightfabric", *typed])
    script = f"""
        lightfabric --install-completion >&2
        . "$HOME/.bashrc"
        COMP_WORDS=({words}) COMP_CWORD={len(typed)}
        "$(complete -p lightfabric | grep -o '_[a-z_]*')" lightfabric
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.stdout.split() == offered, done.stderr


def test_a_reader_that_leaves_early_is_not_an_error():
    command = f'exec 3>&1; "{sys.executable}" -m lightfabric.flows.cli --help | true; echo "${{PIPESTATUS[0]}}" >&3'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "1", "141")  # click itself ends with 1


def test_timing_that_was_measured_is_kept(cached, measured, capsys):
    chiplet = load_spec(None, "small").chiplet
    said = []
    first = timing_store.measured_timing(chiplet, said.append)
    second = timing_store.measured_timing(chiplet, said.append)
    assert first == second == timing(chiplet)
    assert measured == [spec_hash(chiplet)]
    assert said == ["link"]
    assert len(list((cached / "lightfabric").iterdir())) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("cached")
def test_a_sweep_of_bit_error_rates_is_of_one_chiplet_whose_rtl_is_measured_once(measured):
    chiplet = replace(load_spec(None, "small").chiplet, replay_flits=90)  # so many that each of the others has enough
    timings = {timing_store.measured_timing(replace(chiplet, bit_error_rate=rate)) for rate in (0.0, 1e-12, 1e-6, 1e-5)}
    assert timings == {timing(chiplet)}
    assert measured == [spec_hash(chiplet)]
    other = {
        "ports": 2, "wavelengths_per_port": 4, "wavelength_gbps": 16.25, "core_clock_mhz": 512.5, "flit_bytes": 256,
        "crc": "crc24", "virtual_channels": 1, "buffer_flits": 5, "reach_m": 3.0, "replay_flits": 100, "fec": "light",
        "ber_tester": True, "spare_wavelengths": 1, "max_skew_blocks": 3, "stall_cycles": 99, "channel_streams": True,
    }  # fmt: skip
    assert {*other, *ChipletSpec.NOT_BUILT} == {entry.name for entry in fields(chiplet)}
    others = [replace(chiplet, **{name: value}) for name, value in other.items()]
    assert len({spec_hash(each) for each in (chiplet, *others)}) == 1 + len(other)


def test_another_chiplet_or_another_rtl_is_measured_anew(cached, measured, monkeypatch):
    timing_store.measured_timing(ChipletSpec())
    timing_store.measured_timing(ChipletSpec(ports=4))
    monkeypatch.setattr(characterize, "rtl_hash", lambda: "0" * 16)
    timing_store.measured_timing(ChipletSpec())
    assert len(measured) == 3
    assert len(list((cached / "lightfabric").iterdir())) == 3


def damages():
    good = timing(ChipletSpec()).to_dict()
    link = good["link"]
    yield "empty", ""
    yield "half", json.dumps(good)[:200]
    yield "noise", "\0\1\2"
    yield "array", "[]"
    yield "deep", "[" * 10_000
    yield "another", json.dumps(good | {"spec_hash": "0" * 16})
    yield "field missing", json.dumps(good | {"link": {name: link[name] for name in list(link)[1:]}})
    yield "text for cycles", json.dumps(good | {"link": link | {"latency_cycles": "5"}})
    yield "no fraction", json.dumps(good | {"link": link | {"cycles_per_flit": "1/0"}})
    yield "null", json.dumps(good | {"switch": None})


@pytest.mark.parametrize(("name", "content"), list(damages()), ids=[name for name, _ in damages()])
def test_a_damaged_cache_is_said_once_and_replaced(cached, measured, capsys, name, content):
    expected = timing_store.measured_timing(ChipletSpec())
    (kept,) = (cached / "lightfabric").iterdir()
    kept.write_text(content)
    assert timing_store.measured_timing(ChipletSpec()) == expected
    assert capsys.readouterr().err.count("\n") == 1, name
    assert timing_store.measured_timing(ChipletSpec()) == expected
    assert capsys.readouterr().err == ""
    assert len(measured) == 2


@pytest.mark.parametrize("obstacle", ["file", "folder"])
def test_a_cache_that_cannot_be_used_does_not_matter(cached, measured, capsys, obstacle):
    if obstacle == "file":
        cached.write_text("")
    else:
        timing_store.measured_timing(ChipletSpec())
        (kept,) = (cached / "lightfabric").iterdir()
        kept.unlink()
        kept.mkdir()
    assert timing_store.measured_timing(ChipletSpec()) == timing(ChipletSpec())
    assert "\n" in capsys.readouterr().err
    assert measured


@pytest.fixture
def blocks(monkeypatch):
    """Names of the blocks that were simulated, in place of which they get invented timing."""
    simulated = []

    def stub(name, block):
        @wraps(block.measure)
        def measure(spec, *_):
            simulated.append(name)
            return getattr(timing(spec), name)

        return replace(block, measure=measure)

    monkeypatch.setattr(characterize, "BLOCKS", {name: stub(name, each) for name, each in characterize.BLOCKS.items()})
    return simulated


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("workers", [None, ThisProcess()])
def test_a_sweep_measures_only_the_blocks_that_differ(blocks, workers):
    chiplets = [ChipletSpec(flit_bytes=256, wavelengths_per_port=count) for count in (8, 16, 32, 8)]
    said = []
    found = timing_store.measured_timings(chiplets, said.append, workers)
    assert [each.spec_hash for each in found] == [spec_hash(each) for each in chiplets]
    assert [found[0].to_dict() | {"simulator": ""}] == [timing(chiplets[0]).to_dict() | {"simulator": ""}]
    assert sorted(blocks) == ["client"] * 3 + ["link"] * 3 + ["switch"]
    assert sorted(said) == sorted(blocks)
    more = [ChipletSpec(flit_bytes=256, ports=4), ChipletSpec(flit_bytes=256, wavelengths_per_port=4)]
    timing_store.measured_timings([chiplets[0], *more], said.append, workers)
    assert sorted(blocks[7:]) == ["client", "link", "switch"]


@pytest.mark.parametrize("content", ["", "[]", "0" * 16, '"1/0"', "null"])
def test_a_damaged_block_is_said_once_and_replaced(cached, blocks, capsys, content):
    timing_store.measured_timing(ChipletSpec())
    (kept,) = (cached / "lightfabric").glob("switch-*")
    good = kept.read_text()
    damage = {
        "0" * 16: ('"spec_hash": "', '"spec_hash": "0'),
        '"1/0"': ('"cycles_per_flit": "33/32"', '"cycles_per_flit": "1/0"'),
    }
    kept.write_text(good.replace(*damage[content]) if content in damage else content)
    assert kept.read_text() != good
    timing_store.measured_timing(ChipletSpec(wavelengths_per_port=8))
    assert capsys.readouterr().err.count("\n") == 1
    assert kept.read_text() == good
    assert sorted(blocks[3:]) == ["client", "link", "switch"]


@pytest.mark.usefixtures("cached")
def test_rtl_that_cannot_be_measured_is_a_failed_run(monkeypatch):
    def fail(*_):
        raise RuntimeError("no flit arrived")

    monkeypatch.setattr(characterize, "characterize", fail)
    with pytest.raises(RunError, match=r"^the RTL of this chiplet could not be measured: no flit arrived$"):
        timing_store.measured_timing(ChipletSpec())


@pytest.mark.usefixtures("cached")
def test_characterize_prints_cycles_as_measured(tmp_path):
    path = tmp_path / "quick.toml"
    small = (files("lightfabric.examples") / "small.toml").read_text()
    path.write_text(small.replace("flit_bytes = 128", "flit_bytes = 64\nbuffer_flits = 24\nreach_m = 1.0"))
    output, messages, _ = lightfabric("characterize", path, "--json")
    result = json.loads(output)
    chiplet = load_spec(path).chiplet
    assert result["spec_hash"] == spec_hash(chiplet)
    assert Fraction(result["link"]["cycles_per_flit"]) >= chiplet.beats_per_flit
    assert set(result["link"]) == {entry.name for entry in fields(LinkTiming)}
    assert "simulating" in messages
    again, messages, _ = lightfabric("characterize", path)
    assert messages == ""
    assert "latency_cycles" in again


@pytest.mark.parametrize(("named", "folder"), [("cache", "home/.cache"), ("", "home/.cache"), ("/kept", "/kept")])
def test_timing_is_kept_by_xdg_where_a_relative_folder_is_ignored(tmp_path, monkeypatch, named, folder):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    assert timing_store.path("a", "b") == tmp_path / folder / "lightfabric" / "timing-a-b.json"


def test_without_a_home_timing_is_measured_each_time(measured, monkeypatch, capsys):
    def no_home(*_, **__):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(timing_store, "user_cache_path", no_home)
    assert [timing_store.measured_timing(ChipletSpec()) for _ in range(2)] == [timing(ChipletSpec())] * 2
    assert len(measured) == 2
    assert capsys.readouterr().err.count("cannot be kept") == 2
