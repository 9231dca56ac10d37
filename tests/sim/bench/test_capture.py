"""Captures, read back by scapy, which shares no code with what writes them."""

import pytest
from scapy.utils import RawPcapNgReader

from lightfabric.flows.command import sim
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.report import InputError
from lightfabric.model.codec import DATA, Flit
from lightfabric.model.spec import ChipletSpec
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.capture import LINKTYPE_USER0, Captured, flits, pcapng
from lightfabric.sim.bench.link import LinkBench

SPEC = ChipletSpec(ports=1, wavelengths_per_port=4, flit_bytes=64, buffer_flits=8, reach_m=1.0)


def read_back(path, content: bytes):
    path.write_bytes(content)
    with RawPcapNgReader(str(path)) as reader:
        return [(bytes(packet), meta) for packet, meta in reader]


@pytest.mark.parametrize("size", [0, 1, 4, 255])
def test_contents_and_times_come_back(tmp_path, size):
    packets = [Captured(5_000_000_000_001, 1, b"x" * size), Captured(7, 0, b"first")]
    (first, first_meta), (second, meta) = read_back(tmp_path / "c.pcapng", pcapng(["a", "b"], packets))
    assert (first, second) == (b"first", b"x" * size)
    assert (first_meta.linktype, meta.linktype) == (LINKTYPE_USER0, LINKTYPE_USER0)
    assert (meta.tshigh << 32 | meta.tslow, meta.tsresol) == (5_000_000_000_001, 10**12)


def test_an_empty_capture_is_one(tmp_path):
    assert read_back(tmp_path / "c.pcapng", pcapng(["a"], [])) == []


def test_the_flits_of_a_line_are_captured_as_they_were_sent(tmp_path):
    sent = [bytes([n] * (n + 1)) for n in range(12)]
    run = LinkBench(SPEC).run([(0, ClientFlit(content, 3, 5)) for content in sent], decode=True)
    packets = flits(SPEC, run.a_slots, 0) + flits(SPEC, run.b_slots, 1)
    seen = read_back(tmp_path / "c.pcapng", pcapng(["a to b", "b to a"], packets))
    assert len(seen) == len(run.a_slots) + len(run.b_slots)
    assert all(len(content) == SPEC.flit_bytes for content, _ in seen)
    upcoming, carried = 0, []
    for content, meta in seen:
        flit = Flit.decode(SPEC, content, upcoming)
        if flit is not None and flit.type == DATA:
            carried.append(flit.payload)
            upcoming += 1
            assert meta.linktype == LINKTYPE_USER0
    assert carried == sent


def test_the_command_writes_the_flits_of_both_lines(tmp_path):
    spec = load_spec(None, "prototype")
    sim.main("link", "amaranth", spec, None, 1e-4, 5, 1, True, capture=tmp_path / "c.pcapng")
    with RawPcapNgReader(str(tmp_path / "c.pcapng")) as reader:
        contents = [bytes(packet) for packet, _ in reader]
        assert [dict(interface[2])["name"] for interface in reader.interfaces] == [name.encode() for name in sim.LINES]
    assert {len(content) for content in contents} == {spec.chiplet.flit_bytes}


@pytest.mark.parametrize(("block", "simulator"), [("link", "verilator"), ("switch", "amaranth")])
def test_a_capture_that_nobody_writes_is_refused(tmp_path, block, simulator):
    with pytest.raises(InputError, match=rf"^--capture must be .*, not of the {block} on {simulator}$"):
        sim.main(block, simulator, load_spec(None, "prototype"), None, 0.0, 5, 1, True, capture=tmp_path / "c.pcapng")
    assert not list(tmp_path.iterdir())
