"""The Verilog under foreign simulators, with foreign AXI4-Stream clients that pause on both sides."""

import shutil

import pytest
from scapy.utils import RawPcapNgReader

from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.report import RunError
from lightfabric.flows.tool import cocotb
from lightfabric.flows.tool import executable as tools

SPEC = load_spec(None, "prototype").chiplet
PACKETS = 40
BER = {"link": 3e-4, "switch": 0.0, "chiplet": 3e-4}
no_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed: apt install iverilog")
SIMULATORS = [pytest.param("icarus", marks=no_icarus), "verilator"]


@pytest.mark.slow
@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("block", BER)
def test_every_packet_arrives_once_in_order_and_unchanged(block, simulator, tmp_path):
    capture = tmp_path / "arrived.pcapng"
    seen = cocotb.run(block, simulator, SPEC, tmp_path, packets=PACKETS, ber=BER[block], capture=capture)
    assert {name: seen[name] for name in ("delivered", "lost", "corrupted", "duplicated", "reordered")} == {
        "delivered": PACKETS, "lost": 0, "corrupted": 0, "duplicated": 0, "reordered": 0,
    }  # fmt: skip
    with RawPcapNgReader(str(capture)) as reader:
        contents = [bytes(packet) for packet, _ in reader]
    assert {int.from_bytes(content[:4], "little") for content in contents} == set(range(PACKETS))
    assert len(contents) == PACKETS
    assert (seen["bit_errors"] > 0) == (BER[block] > 0)
    assert (seen["replays"] > 0) == (BER[block] > 0)
    assert seen["crc_errors"] <= 1.5 * seen["bit_errors"]  # an error reaches 58 bits on, now and then into the next frame


@no_icarus
def test_the_link_delivers_on_icarus(tmp_path):
    seen = cocotb.run("link", "icarus", SPEC, tmp_path, packets=6, ber=1e-3, waves=tmp_path / "waves.fst")
    assert (seen["delivered"], seen["lost"], seen["corrupted"], seen["reordered"]) == (6, 0, 0, 0)
    assert (tmp_path / "waves.fst").stat().st_size > 0


@no_icarus
@pytest.mark.slow
def test_packets_that_do_not_arrive_are_counted_as_lost(tmp_path):
    seen = cocotb.run("link", "icarus", SPEC, tmp_path, packets=2, ber=0.4, bound_s=200, stall_timeouts=1)
    assert (seen["delivered"], seen["lost"]) == (0, 2)


@no_icarus
def test_a_run_without_a_test_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("COCOTB_TEST_FILTER", "no such test")
    with pytest.raises(RunError, match="icarus"):
        cocotb.run("switch", "icarus", SPEC, tmp_path, packets=1)


@no_icarus
def test_a_simulator_that_hangs_is_killed(tmp_path):
    with pytest.raises(RunError, match="did not end"):
        cocotb.run("link", "icarus", SPEC, tmp_path, packets=100_000, bound_s=3)


def test_a_missing_simulator_is_named_with_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tools.shutil, "which", lambda _: None)
    with pytest.raises(RunError, match=r"^iverilog was not found: apt install iverilog$"):
        cocotb.run("link", "icarus", SPEC, tmp_path)


def test_a_missing_package_is_named_with_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RunError, match=r"^the Python package cocotb was not found: pip install 'lightfabric\[sim\]'$"):
        cocotb.run("link", "verilator", SPEC, tmp_path)
