"""``lightfabric sim``: what it prints, and what it refuses."""

import json
from dataclasses import replace

import pytest

from lightfabric.flows.command import sim
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.report import InputError, RunError

PROTOTYPE = load_spec(None, "prototype")


def run(capsys, block="link", simulator="amaranth", waves=None, ber=0.0, packets=20, seed=1):
    sim.main(block, simulator, PROTOTYPE, waves, ber, packets, seed, True)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("block", "ber"), [("link", 0.0), ("link", 5e-4), ("switch", 0.0), ("chiplet", 2e-4)])
def test_all_packets_are_delivered(capsys, block, ber):
    seen = run(capsys, block, ber=ber)
    assert (seen["delivered"], seen["lost"], seen["corrupted"], seen["duplicated"], seen["reordered"]) == (20, 0, 0, 0, 0)
    assert (seen["replays"] > 0) == (ber > 0)
    assert {"cycles", "crc_errors", "bit_errors", "seed", "simulator", "ber", "packets", "cycles_per_s"} <= seen.keys()


def test_the_lines_have_the_bit_error_rate_of_the_spec_unless_the_option_says_another(capsys):
    spec = replace(PROTOTYPE, chiplet=replace(PROTOTYPE.chiplet, bit_error_rate=1e-4))
    seen = {}
    for block, ber in (("link", None), ("link", 1e-4), ("link", 0.0), ("switch", None)):
        sim.main(block, "amaranth", spec, None, ber, 20, 1, True)
        seen[block, ber] = {**json.loads(capsys.readouterr().out), "cycles_per_s": 0}
    assert seen["link", None] == seen["link", 1e-4]
    assert seen["link", None]["bit_errors"] > 0
    assert [seen[key]["ber"] for key in (("link", 0.0), ("switch", None))] == [0, 0]


def test_the_same_seed_gives_the_same_run(capsys):
    first, again, other = (run(capsys, ber=5e-4, packets=8, seed=seed) for seed in (3, 3, 4))
    del first["cycles_per_s"], again["cycles_per_s"], other["cycles_per_s"]
    assert first == again != other


def test_a_line_that_destroys_all_fails_the_run(capsys, monkeypatch):
    monkeypatch.setattr("lightfabric.sim.bench.packet.STALL_TIMEOUTS", 1)
    with pytest.raises(RunError, match=r"^amaranth: \d+ of \d+ flits are lost: none arrived for \d+ cycles$"):
        run(capsys, ber=0.4, packets=2)


def test_waves_are_written(capsys, tmp_path):
    run(capsys, packets=2, waves=tmp_path / "waves.vcd")
    assert "$enddefinitions" in (tmp_path / "waves.vcd").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "router"}, "BLOCK must be one of link, switch, chiplet, line, not 'router'"),
        ({"simulator": "vcs"}, "--simulator must be one of amaranth, icarus, verilator, not 'vcs'"),
        ({"ber": -1e-9}, "--ber must be at least 0 and below 0.5, not -1e-09"),
        ({"ber": 0.5}, "--ber must be at least 0 and below 0.5, not 0.5"),
        ({"ber": float("nan")}, "--ber must be at least 0 and below 0.5, not nan"),
        ({"ber": 0.1, "block": "switch"}, "--ber must be 0 for the switch, which has no line, not 0.1"),
        ({"packets": 0}, "--packets must be from 1 to 1000000, not 0"),
        ({"seed": -1}, "--seed must be from 0 to 9223372036854775807, not -1"),
    ],
)
def test_wrong_input_names_the_option(capsys, options, message):
    with pytest.raises(InputError) as caught:
        run(capsys, **options)
    assert str(caught.value) == message


@pytest.mark.slow
@pytest.mark.parametrize(("ber", "packets"), [(1e-4, 2_000), (1e-5, 4_000)])
def test_thousands_of_packets_arrive_once_in_order_and_unchanged(capsys, ber, packets):
    """A million with every fault: tests/sim/native/test_native.py."""
    seen = run(capsys, ber=ber, packets=packets)
    assert (seen["delivered"], seen["lost"], seen["corrupted"], seen["duplicated"], seen["reordered"]) == (
        packets,
        0,
        0,
        0,
        0,
    )
    assert seen["replays"] > 0
