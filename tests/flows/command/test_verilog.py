"""The Verilog of the blocks: names, lint, the same bytes each time."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lightfabric.flows.command import verilog
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.report import InputError
from lightfabric.flows.tool.executable import verilator_environment
from lightfabric.flows.tool.verilog_text import WAIVERS
from lightfabric.rtl.register import AxiLiteSignature
from lightfabric.rtl.top import tops

PROTOTYPE = load_spec(None, "prototype")
STREAM = ("tdata", "tkeep", "tlast", "tdest", "tuser", "tvalid", "tready")


@pytest.fixture(scope="module", params=verilog.BLOCKS)
def written(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("verilog") / f"{request.param}.v"
    verilog.main(request.param, path, PROTOTYPE)
    return path


def ports(path: Path) -> set[str]:
    top = re.search(rf"^module {path.stem}\((.*?)\);", path.read_text(), re.DOTALL | re.MULTILINE)
    return {name.strip() for name in top[1].split(",")}


def lint(path: Path, waived: list[str]) -> str:
    arguments = ["verilator", "--lint-only", "-Wall", *(f"-Wno-{rule}" for rule in waived), str(path)]
    with verilator_environment():
        return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False).stderr


def test_verilator_finds_nothing_but_what_is_waived(written):
    assert lint(written, list(WAIVERS)) == ""


def test_verilator_finds_nothing_in_the_tuner(tmp_path):
    path = tmp_path / "tuner.v"
    verilog.main("tuner", path, PROTOTYPE)
    assert lint(path, list(WAIVERS)) == ""
    assert ports(path) == {
        *("clk", "rst", "enable", "i", "i_valid", "o", "o_valid", "peak", "peak_valid", "locked", "failed", "alarm")
    }


@pytest.mark.parametrize("count", [3, 16])
def test_verilator_finds_nothing_in_the_controller_of_circuits_either(count, tmp_path):
    path = tmp_path / "circuit_controller.v"
    verilog.main("circuit", path, PROTOTYPE, count)
    assert lint(path, list(WAIVERS)) == ""


def test_a_switch_of_too_many_ports_is_refused(tmp_path):
    with pytest.raises(InputError, match="--ports must be"):
        verilog.main("circuit", tmp_path / "circuit.v", PROTOTYPE, 65)


@pytest.mark.slow
def test_every_waiver_is_needed(tmp_path):
    path = tmp_path / "chiplet.v"
    path.write_text(verilog.text("chiplet", replace(PROTOTYPE.chiplet, ports=1)))
    found = lint(path, [])
    assert {rule for rule in WAIVERS if f"%Warning-{rule}" in found} == set(WAIVERS)


def test_streams_have_axi_names(written):
    count = {"link": [""], "switch": ["0", "1", "2", "3"], "chiplet": ["0", "1"]}[written.stem]
    expected = {f"s{n}_axis_{name}" for n in count for name in STREAM}
    expected |= {f"m{n}_axis_{name}" for n in count for name in (*STREAM, "tid")} | {"clk", "rst"}
    lines = [] if written.stem == "switch" else count
    expected |= {f"{side}{n}_{name}" for n in lines for side in ("tx", "rx") for name in ("data", "valid")}
    expected |= {f"{name}{n}" for n in lines for name in ("replays", "crc_errors")} | {f"rx{n}_slip" for n in lines}
    expected |= {f"tx{n}_ready" for n in lines} | {f"rx{n}_phase" if n else "rx_phase" for n in lines}
    expected |= {f"client{n}_{name}" for n in count for name in ("clk", "rst")}
    if written.stem == "switch":
        expected |= {f"{name}{n}" for n in count for name in ("refused", "stalled")}
    else:
        expected |= {f"s_axil_{name}" for name in AxiLiteSignature().members} | {"irq"}
    assert ports(written) == expected


@pytest.mark.slow
def test_the_verilog_does_not_depend_on_the_run_or_the_place():
    code = (
        "import sys; from lightfabric.flows.format import spec_file as load; from lightfabric.flows.command import verilog; "
        "sys.stdout.write(verilog.text('link', load.load_spec(None, 'prototype').chiplet))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    again = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True, timeout=120
    )
    assert again.stdout == verilog.text("link", PROTOTYPE.chiplet)
    assert str(Path(__file__).parents[3]) not in again.stdout


def test_an_unknown_block_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(InputError, match=r"^BLOCK must be one of link, switch, chiplet, tuner, circuit, not 'router'$"):
        verilog.main("router", tmp_path / "router.v", PROTOTYPE)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="must be a file that can be written"):
        verilog.main("link", tmp_path / "absent" / "link.v", PROTOTYPE)


def test_every_block_has_a_top():
    assert tuple(tops) == verilog.BLOCKS
