"""``lightfabric sim line``: frames that are wrong as often as the bits of the line say, a waterfall, and what it refuses."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from lightfabric.flows.command import sim
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.report import InputError, RunError
from lightfabric.flows.tool import line

PROTOTYPE = load_spec(None, "prototype")
SIGMAS = 4


def run(capsys, **options):
    given = {"simulator": "amaranth", "spec": PROTOTYPE, "lanes": 2, "ber": 0.0, "flits": 100, "seed": 1, "as_json": True}
    sim.main("line", **given | options)
    return json.loads(capsys.readouterr().out)


def test_frames_are_wrong_as_often_as_the_bits_of_the_line_say(capsys):
    ber = 3e-4
    seen = run(capsys, ber=ber, flits=150)
    assert seen["frame_error_rate_low"] < seen["closed_form"] < seen["frame_error_rate_high"]
    assert seen["answer_frame_errors"] > 50
    # 512 bits of a frame, and 58 of the one before it on each of two lanes.
    assert seen["closed_form"] == pytest.approx(1 - (1 - ber) ** (512 + 116))
    assert abs(seen["bit_errors"] - ber * seen["bits"]) < SIGMAS * math.sqrt(ber * seen["bits"])
    assert seen["lock_cycles"] >= 64
    assert seen["align_cycles"] > 0
    assert (seen["delivered_flits"], seen["corrected_symbols"], seen["fec"], seen["lanes"]) == (150, 0, "none", 2)


def test_a_code_corrects_what_it_counts_and_loses_codewords_as_often_as_their_symbols_say(capsys):
    """RS(132,128) over bytes: more than 2 of 132 wrong, each with 1 - (1 - BER)^8; a codeword has two frames of 64 bytes."""
    ber = 1e-3
    seen = run(capsys, fec="light", ber=ber, flits=150)
    byte = 1 - (1 - ber) ** 8
    codeword = 1 - sum(math.comb(132, k) * byte**k * (1 - byte) ** (132 - k) for k in range(3))
    assert seen["closed_form"] == pytest.approx(codeword, rel=0.01)
    assert seen["frame_error_rate_low"] < seen["closed_form"] < seen["frame_error_rate_high"]
    assert seen["uncorrectable_codewords"] > 0
    assert 0 < seen["corrected_symbols"] < seen["bit_errors"]
    assert sum(n * count for n, count in enumerate(seen["codewords"])) == seen["corrected_symbols"]
    # Those of no, one and two wrong symbols are to each other as chance has it; more are not corrected.
    share, good = [math.comb(132, k) * byte**k * (1 - byte) ** (132 - k) for k in range(3)], sum(seen["codewords"])
    assert sum(seen["codewords"][3:]) == 0
    for count, chance in zip(seen["codewords"], (part / sum(share) for part in share), strict=False):
        assert abs(count - chance * good) < SIGMAS * math.sqrt(good * chance * (1 - chance))


def test_a_clean_line_carries_its_rate(capsys):
    seen = run(capsys, flits=120)
    assert (seen["frame_errors"], seen["bit_errors"], seen["replays"], seen["retrainings"]) == (0, 0, 0, 0)
    spec = PROTOTYPE.chiplet
    best = 2 * spec.wavelength_gbps * 64 / 66 * spec.payload_bytes / spec.flit_bytes
    assert seen["goodput_gbps"] == pytest.approx(best, rel=0.02)


def test_a_trace_is_replayed_on_both_lines(capsys, tmp_path):
    file = tmp_path / "errors.txt"
    file.write_text("".join(f"{block} {block % 2} {block % 66}\n" for block in range(300, 360, 20)))
    seen = run(capsys, trace=file, flits=60)
    assert seen["bit_errors"] == 6
    assert seen["frame_errors"] >= 4
    assert seen["closed_form"] is None
    file.write_text("1 2 3\n")
    with pytest.raises(InputError, match=r"errors.txt: row 1 must be a block from 0 on, a lane below 2 and a bit below 66"):
        run(capsys, trace=file)


def test_a_sweep_draws_the_waterfall(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(line, "swept_bers", lambda *_: (1e-9, 5e-4))
    file = tmp_path / "waterfall.png"
    seen = run(capsys, sweep=True, figure=file, flits=20)
    assert [point["ber"] for point in seen["points"]] == [1e-9, 5e-4]
    assert [point["answer_frame_errors"] > 0 for point in seen["points"]] == [False, True]
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("fec", ["none", "light", "kr4", "kp4"])
@pytest.mark.parametrize("flits", [20, 2000, 100_000_000])
def test_a_sweep_is_where_so_many_frames_show_the_closed_form(fec, flits):
    spec = replace(PROTOTYPE.chiplet, fec=fec, bit_error_rate=0.0, replay_flits=0)
    bers = line.swept_bers(spec, flits)
    assert len(bers) == 6
    assert bers[-1] == {"none": 1e-3, "light": 1e-3, "kr4": 1e-3, "kp4": 2e-3}[fec]
    rates = [line.frame_error_rate(spec, ber) for ber in bers]
    ratios = [after / before for before, after in pairwise(rates)]
    # Rates are rounded to three digits, which so steep a code as KP4 makes 16 times as much of.
    assert max(ratios) / min(ratios) < 1.2
    assert rates[0] <= rates[-1] / 9
    if flits > 20:
        assert 1 < rates[0] * flits < 3 * 12 * 1.2


def test_a_line_that_carries_nothing_fails_the_run(capsys, monkeypatch):
    monkeypatch.setattr(line, "MAX_SLOTS_PER_FLIT", 1)
    monkeypatch.setattr(line, "MAX_TRAINING_CYCLES", 300)
    with pytest.raises(RunError, match=r"^the line did not carry 3 flits at a bit error rate of 0.1 within \d+ cycles$"):
        run(capsys, ber=0.1, flits=3)


def test_the_band_is_that_of_clopper_and_pearson_for_frames_that_share_errors():
    spec = PROTOTYPE.chiplet
    weight = 1 + 2 * 58 * spec.wavelengths_per_port / (512 + 58 * spec.wavelengths_per_port)
    low, high = line.frame_error_band(spec, 0, 1000)
    assert (low, high) == (0, pytest.approx(1 - 0.025 ** (weight / 1000)))
    low, high = line.frame_error_band(spec, 1000, 1000)
    assert (low, high) == (pytest.approx(0.025 ** (weight / 1000)), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": 7}, "--lanes must be a divisor of 8, the 64-bit blocks of a flit, not 7"),
        ({"lanes": 0}, "--lanes must be from 1 to 32, not 0"),
        ({"fec": "kp5"}, "--fec must be one of none, kr4, kp4, light, not 'kp5'"),
        ({"ber": 0.5}, "--ber must be at least 0 and below 0.5, not 0.5"),
        ({"flits": 0}, "--flits must be from 1 to 100000000, not 0"),
        ({"flits": 1_000_001}, "--flits of a line on amaranth must be from 1 to 1000000, not 1000001"),
        ({"ppm": 10_001.0, "simulator": "verilator"}, "--ppm must be from -10000 to 10000, not 10001.0"),
        ({"ppm": float("nan"), "simulator": "verilator"}, "--ppm must be from -10000 to 10000, not nan"),
        ({"ppm": 200.0}, "--ppm must be 0 but for the line on verilator, not 200.0"),
        ({"simulator": "icarus"}, "--simulator must be one of amaranth, verilator, not 'icarus'"),
        ({"stalls": 0.5}, "--stalls must be left out for the line, not '0.5'"),
        ({"figure": "x.png"}, "--figure must be given with --sweep alone, not 'x.png'"),
        (
            {"trace": "there-is-none"},
            "there-is-none: must be a file of errors that can be read, not: No such file or directory",
        ),
    ],
)
def test_wrong_input_names_the_option(capsys, options, message):
    options = {name: Path(value) if name in ("figure", "trace") else value for name, value in options.items()}
    with pytest.raises(InputError) as caught:
        run(capsys, **options)
    assert str(caught.value) == message


@pytest.mark.slow
def test_natively_frames_are_wrong_as_often_as_the_bits_of_the_line_say(capsys):
    # At 1e-3 the link trains every hundred frames, and beats of sets that come before it is noticed count as wrong frames.
    for ber in (1e-5, 1e-4, 3e-4):
        seen = run(capsys, simulator="verilator", ber=ber, flits=3000)
        assert seen["frame_error_rate_low"] < seen["closed_form"] < seen["frame_error_rate_high"], ber
        # Lanes that were aligned stay locked when the link trains again, so that the last lock took no time there.
        assert seen["lock_cycles"] >= 64 or seen["retrainings"]


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [-300.0, 300.0])
def test_clocks_that_differ_cost_no_frame_and_no_rate(capsys, ppm):
    seen = run(capsys, simulator="verilator", ppm=ppm, flits=100_000)
    assert (seen["ppm"], seen["frame_errors"], seen["retrainings"], seen["delivered_flits"]) == (ppm, 0, 0, 100_000)
    spec = PROTOTYPE.chiplet
    best = 2 * spec.wavelength_gbps * 64 / 66 * spec.payload_bytes / spec.flit_bytes
    assert seen["goodput_gbps"] == pytest.approx(best, rel=0.01)
