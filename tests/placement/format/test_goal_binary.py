"""Binary GOAL programs: what txt2bin of LogGOPSim writes, written here again after its source, is what the text says.

Source: src/LogGOPSim/Parser.hpp of spcl/LogGOPSim, ``Graph::serialize_mmap`` for the bytes, ``txt2bin.re`` for the text.
"""

import re
import struct
from dataclasses import fields

import numpy as np
import pytest

from lightfabric.flows.command import replay
from lightfabric.flows.format import task_graph as exchange
from lightfabric.flows.report import InputError
from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec
from lightfabric.placement.format import goal, goal_binary
from lightfabric.placement.graph.iteration import task_graph
from lightfabric.placement.plan import Plan

TEXT = """num_ranks 3
rank 0 {
l0: calc 9000 cpu 2
l1: send 125000b to 2 tag 7 cpu 0 nic 0
l2: calc 50000 cpu 1
l2 irequires l1
l1 requires l0
}
rank 1 {
send 8b to 2
l: calc 7
}
rank 2 {
a: recv 125000b from -1 tag 7
b: recv 9b from 1 tag -1
c: calc 10
c requires a
c requires b
}
"""


def compiled(text):
    """What ``txt2bin`` makes of a program of one statement a line; the cookie is not counted in the table."""
    ranks, cpus = [], [0]
    for line in text.splitlines()[1:]:
        words = line.split()
        if words[0] == "rank":
            nodes, labels = [], {}
        elif words[0] == "}":
            ranks.append(nodes)
        elif words[1:2] in (["requires"], ["irequires"]):
            after, before = labels[words[0]], labels[words[2]]
            nodes[before]["ended" if words[1] == "requires" else "begun"].append(after)
            nodes[after]["waits"] += 1
        else:
            if words[0].endswith(":"):
                labels[words.pop(0)[:-1]] = len(nodes)
            given = dict(zip(words[::2], words[1::2], strict=True)) if words[0] == "calc" else {}
            given |= dict(zip(words[2::2], words[3::2], strict=True))
            kind = ("send", "recv", "calc").index(words[0]) + 1
            peer, tag = (int(given.get(name, 0)) % 2**32 for name in ("to" if kind == 1 else "from", "tag"))
            cpus.append(int(given.get("cpu", 0)))
            node = (kind, peer, int(words[1].rstrip("b")), tag, cpus[-1], int(given.get("nic", 0)))
            nodes.append({"fields": node, "ended": [], "begun": [], "waits": 0})
    parts = [part(nodes) for nodes in ranks]
    at, table = 6 + 16 * len(parts), b""
    for each in parts:
        table += struct.pack("<QQ", at, at + len(each))
        at += len(each)
    return struct.pack("<QIBB", 4223, len(parts), max(cpus), 0) + table + b"".join(parts)


def part(nodes):
    roots = [number for number, node in enumerate(nodes) if not node["waits"]]
    out, appendix = struct.pack(f"<II{len(roots)}I", len(nodes), len(roots), *roots), []
    for node in nodes:
        out += struct.pack("<IBIQIBB", node["waits"], *node["fields"])
        for name in ("ended", "begun"):
            out += struct.pack("<II", len(node[name]), len(appendix))
            appendix += node[name]
    return out + struct.pack(f"<{len(appendix)}I", *appendix)


def assert_equal(graph, other):
    for each in fields(graph):
        assert np.array_equal(getattr(graph, each.name), getattr(other, each.name)), each.name


def test_a_program_means_the_same_in_both_forms():
    assert_equal(goal.read(compiled(TEXT)), goal.read(TEXT.encode()))
    assert goal.rank_count(compiled(TEXT)) == 3


@pytest.mark.parametrize("plan", [Plan(1, 1, 1, 1), Plan(2, 1, 1, 2), Plan(2, 2, 2, 2), Plan(4, 2, 4, 1, "full")])
def test_an_export_is_byte_by_byte_what_txt2bin_makes_of_the_text(plan, tmp_path):
    model = ModelSpec(layers=8, hidden=256, heads=8, sequence=128, vocabulary=1024)
    graph = task_graph(JobSpec(model, batch=16), ACCELERATORS["h100"], plan)
    for name in ("job.goal", "job.bin"):
        exchange.write(tmp_path / name, graph)
    assert (tmp_path / "job.bin").read_bytes() == compiled((tmp_path / "job.goal").read_text())
    assert_equal(exchange.read(tmp_path / "job.bin")[0], exchange.read(tmp_path / "job.goal")[0])


@pytest.mark.parametrize("name", ["job.goal", "job.bin", "job", "job.goal.out"])
def test_a_binary_program_replays_whatever_its_name(tmp_path, name):
    (tmp_path / name).write_bytes(compiled(TEXT))
    found = replay.replay(tmp_path / name, 100.0)
    assert (found["devices"], found["iteration_ms"]) == (3, pytest.approx(0.059))


HEAD = 8 + 6 + 16 * 3
NODE = HEAD + 8 + 4
"""Where the first node of rank 0 is: it has one root."""


def changed(at, layout, *values):
    data = bytearray(compiled(TEXT))
    struct.pack_into(layout, data, at, *values)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed(0, "<Q", 2342), "cookie must be that of a program, not that of one which a simulation has used up"),
        (changed(8, "<I", 0), "ranks must be from 1 to "), (changed(8, "<I", 2**32 - 1), "ranks must be from 1 to "),
        (compiled(TEXT)[:8], "ranks must be from 1 to "), (compiled(TEXT)[:40], "ranks must be from 1 to "),
        (changed(14, "<Q", 3), "rank 0 must be in bytes 54 to "), (changed(14, "<Q", 2**63), "rank 0 must be in bytes "),
        (changed(22, "<Q", 2**64 - 1), "rank 0 must be in bytes 54 to"),
        (changed(30, "<Q", 54), "rank 1 must be in bytes 191 to"),
        (compiled(TEXT)[:-1], "rank 2 must be in bytes "),
        (changed(HEAD, "<I", 2**32 - 1), "rank 0 must be of the size of its 4294967295 nodes and 1 roots, not of 137 bytes"),
        (changed(HEAD + 4, "<I", 2**32 - 1), "rank 0 must be of the size of its 3 nodes and 4294967295 roots"),
        (changed(NODE, "<I", 1), "rank 0: node 0.waits must be 0, not 1"),
        (changed(NODE + 4, "<B", 4), "rank 0: node 0.type must be 1, 2 or 3, not 4"),
        (changed(NODE + 9, "<Q", 2**64 - 1), "rank 0: node 0.size must be below 1000000000000000, not 18446744073709551615"),
        (changed(NODE + 23, "<I", 2**32 - 1), "rank 0 must have 4294967296 entries in its appendix, not 2"),
        (changed(NODE + 27, "<I", 2**32 - 1), "rank 0: node 0.ended_at must be in the appendix, not 4294967295"),
        (changed(NODE + 3 * 39, "<I", 3), "rank 0 must have nodes below 3 in its appendix, not 3"),
        (changed(NODE + 39 + 5, "<I", 2**32 - 1), "rank 0: node 1 must be to a rank and with a tag, -1 for any is of recv"),
        (changed(NODE + 39 + 5, "<I", 1), "rank 0: node 1 must have its receive from 0 at 1 tag 7, not none"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path, data, says):
    path = tmp_path / "job.bin"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"must be a whole GOAL program: {re.escape(says)}[^\n]*$"):
        replay.replay(path, 100.0)


def test_only_value_errors_escape_from_damaged_programs():
    random = np.random.default_rng(2026)
    said = []
    for _ in range(600):
        damaged = bytearray(compiled(TEXT))
        for _ in range(random.integers(1, 4)):
            damaged[random.integers(8, len(damaged))] = random.integers(256)
        try:
            goal.read(bytes(damaged)).verify()
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 300
    assert not [line for line in said if "\n" in line], "seed 2026"


def test_parts_that_would_grow_beyond_the_file_are_refused(monkeypatch):
    monkeypatch.setattr(goal_binary, "MAX_STATEMENTS", 4)
    with pytest.raises(ValueError, match=r"^rank 0 must be of at most 4 statements, not 5$"):
        goal.read(compiled(TEXT))


RACE = """num_ranks 3
rank 0 {
send 1000000b to 2 tag 1
}
rank 1 {
c: calc 30000
s: send 8b to 2 tag 1
s requires c
}
rank 2 {
r: recv 1000000b from -1 tag 1
c: calc 20000000
c requires r
recv 1000000b from -1 tag 1
}
"""


@pytest.mark.parametrize(
    ("gbps", "latency_ps", "first_us"),
    # Where both are under way they share the link of rank 2.
    [
        (100.0, 2_000_000, 32.00128),
        (400.0, 2_000_000, 22.0),
        (1.0, 0, 30.128),
        (400.0, 20_000_000, 40.0),
        (200.0, 0, 30.00064),
    ],
)
def test_a_receive_from_any_source_gets_what_comes_first_at_the_rates_of_the_replay(tmp_path, gbps, latency_ps, first_us):
    """A megabyte is sent at once, 8 bytes 30 us later; what comes first begins the 20 ms after it."""
    (tmp_path / "job.goal").write_text(RACE)
    found = replay.replay(tmp_path / "job.goal", gbps, latency_ps=latency_ps)["iteration_ms"] * 1000
    assert found == pytest.approx(first_us + 20_000, rel=1e-9)
