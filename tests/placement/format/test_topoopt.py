"""TopoOpt files: published iteration times, and refusal of everything that is not such a file."""

import json
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.flows.command import replay
from lightfabric.flows.report import InputError
from lightfabric.model.task import Kind
from lightfabric.placement.format import topoopt
from lightfabric.placement.format.topoopt import TaskType, read

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "topoopt"
published = pytest.mark.skipif(not DATA.is_dir(), reason="the published task graphs are in ../shared/data/topoopt")


def table(builder, slots, fields):
    """``fields``: slot -> (kind of scalar, value); returns the offset of the table."""
    builder.StartObject(slots)
    for slot, (kind, value) in fields.items():
        getattr(builder, f"Prepend{kind}Slot")(slot, value, 0)
    return builder.EndObject()


def vector(builder, values, prepend, size):
    builder.StartVector(size, len(values), size)
    for value in reversed(values):
        getattr(builder, f"Prepend{prepend}")(value)
    return builder.EndVector()


def file_of(tasks, devices=(), nodes=4, switches=1, wide_type=False):
    """A file with tasks ``(type, id, device, ms, bytes, next)`` and devices ``(id, property)``."""
    builder = flatbuffers.Builder(1024)
    task_offsets = []
    for kind, number, device, run_time_ms, size_bytes, after in tasks:
        following = vector(builder, after, "Uint64", 8)
        fields = {
            0: ("Int16" if wide_type else "Int8", kind), 1: ("Uint64", number), 2: ("Uint64", device),
            3: ("Float32", run_time_ms), 4: ("Uint64", size_bytes), 5: ("UOffsetTRelative", following),
        }  # fmt: skip
        task_offsets.append(table(builder, 6, fields))
    device_offsets = [table(builder, 4, {1: ("Uint64", number), 3: ("Uint64", prop)}) for number, prop in devices]
    task_vector = vector(builder, task_offsets, "UOffsetTRelative", 4)
    device_vector = vector(builder, device_offsets, "UOffsetTRelative", 4)
    root = {
        1: ("Uint32", nodes), 2: ("Uint32", switches),
        8: ("UOffsetTRelative", task_vector), 9: ("UOffsetTRelative", device_vector),
    }  # fmt: skip
    builder.Finish(table(builder, 11, root))
    return bytes(builder.Output())


DEVICES = [(1000, 0), (1001, 1), (2000, 0 * 5 + 1)]
TASKS = [
    (TaskType.FORWARD, 10, 1000, 1.5, 0, [11, 12]),
    (TaskType.COMMUNICATION, 11, 2000, 9.0, 4096, [13]),
    (TaskType.ALL_REDUCE, 12, 0, 0.25, 1 << 20, [2, 0, 3]),
    (TaskType.UPDATE, 13, 1001, 0.0, 0, []),
    (TaskType.BARRIER, 14, 0, 3.0, 5, [13]),
]


def good(task=None, **changes):
    """The file above with one task changed."""
    tasks = list(TASKS)
    if task is not None:
        index, row = task
        tasks[index] = row
    return file_of(tasks, changes.pop("devices", DEVICES), **changes)


@published
def test_too_many_nodes_for_flits_are_refused():
    with pytest.raises(InputError, match=r"^--fidelity must be fluid for more than 536870912 flits or 64 "):
        replay.replay(DATA / "100dlrm_128.fbuf", 100.0, "cycle")


@published
def test_the_largest_file_replays():
    assert replay.replay(DATA / "100dlrm_128.fbuf", 100.0)["devices"] == 128


@published
@pytest.mark.parametrize("part", [2, 3, 10, 1000])
def test_a_file_cut_short_is_refused(part):
    data = (DATA / "100vgg_16.fbuf").read_bytes()
    with pytest.raises(ValueError, match=r"must be"):
        read(data[: len(data) // part])


@pytest.mark.parametrize("wide_type", [False, True])
def test_tasks_become_what_they_mean(wide_type):
    graph = read(good(wide_type=wide_type))
    local = 5
    kinds = [Kind.COMPUTE, Kind.TRANSFER, Kind.ALL_REDUCE, Kind.COMPUTE, Kind.BARRIER, Kind.COMPUTE]
    assert graph.kind.tolist() == kinds
    assert graph.device.tolist() == [0, 0, 2, 1, -1, 4]
    assert graph.peer.tolist() == [-1, 1, 0, -1, -1, -1]
    assert graph.work.tolist() == [1_500_000_000, 4096, 1 << 20, 0, 0, 250_000_000]
    assert graph.group(0).tolist() == [2, 0, 3]
    after = [graph.successors[slice(*graph.successor_start[task : task + 2])].tolist() for task in range(len(graph))]
    assert after == [[1, local], [3], [], [], [3], [2]]
    assert (graph.devices, topoopt.nodes(graph)) == (5, 4)


def test_equal_groups_are_one():
    reduces = [(TaskType.ALL_REDUCE, number, 0, 0.0, 8, nodes) for number, nodes in ((1, [0, 1]), (2, [1, 0]), (3, [0, 1]))]
    graph = read(file_of(reduces))
    assert graph.peer[:3].tolist() == [0, 1, 0]
    assert graph.members.tolist() == [0, 1, 1, 0]


def test_a_file_without_tasks_is_an_empty_graph():
    assert len(read(file_of([]))) == 0


NAN = float("nan")


FIELD_BEHIND_ITS_TABLE = b"".join(
    n.to_bytes(size, "little") for n, size in ((12, 4), (8, 2), (4, 2), (0, 2), (4, 2), (8, 4))
)
"""A root of 4 bytes at the end of the file, whose fields say that the nodes are in bytes 4 to 8 of it."""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "file must be a FlatBuffer of at least 8 bytes, not 0"),
        (bytes(100), r"fields must be a list in the file, not 0"),
        (FIELD_BEHIND_ITS_TABLE, "nodes must be inside its table, not 4"),
        (b"\xff" * 100, "offset must be inside 100 bytes, not 4294967295"),
        (good(nodes=0), "nodes must be from 1 to 1048576, not 0"),
        (good(switches=1 << 30), "switches must be from 0 to 1048576, not 1073741824"),
        (good((3, (9, 13, 1001, 0.0, 0, []))), r"tasks\[3\].type must be from 0 to 6, not 9"),
        (good((3, (3, 11, 1001, 0.0, 0, []))), r"tasks\[3\].id must be an id that no other has, not 11"),
        (good((3, (3, 13, 7, 0.0, 0, []))), r"tasks\[3\].device must be the id of a device, not 7"),
        (good((3, (3, 13, 1001, NAN, 0, []))), r"tasks\[3\].run_time must be from 0 to 1e\+09 ms, not nan"),
        (good((3, (3, 13, 1001, -1.0, 0, []))), r"tasks\[3\].run_time must be from 0 to 1e\+09 ms, not -1.0"),
        (good((1, (2, 11, 2000, 1.0, 1 << 63, []))), r"tasks\[1\].transfer_size must be at most .* bytes, not 92233.*"),
        (good((3, (3, 13, 1001, 0.0, 0, [99]))), r"tasks\[3\].next must be ids of tasks, not 99"),
        (good((2, (6, 12, 0, 0.0, 8, [0, 4]))), r"tasks\[2\].next must be nodes below 4 for an all-reduce, not 4"),
        (good((2, (6, 12, 0, 0.0, 8, [0, 1, 0]))), r"tasks\[2\].next must be different nodes, .* not \[0, 1, 0\]"),
        (good((2, (6, 12, 0, 0.0, 8, []))), r"tasks\[2\].next must be different nodes, at least 1, not \[\]"),
        (good((3, (3, 13, 1001, 0.0, 0, [10]))), r"TaskGraph.successors must form no cycle, .*"),
        (good(devices=[(1000, 0), (1000, 1), (2000, 1)]), r"devices\[1\].id must be an id that no other has, not 1000"),
        (good(devices=[(1000, 4), (1001, 1), (2000, 1)]), r"tasks\[0\].device must be .* a node below 4, not 4"),
        (good(devices=[(1000, 0), (1001, 1), (2000, 4)]), r"tasks\[1\].device must be a network device .*, not 4"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(data, message):
    with pytest.raises(ValueError, match=f"^{message}$") as caught:
        read(data)
    assert "\n" not in str(caught.value)


def test_vectors_that_share_bytes_are_refused_before_they_are_read():
    """Thousands of tasks with one and the same long list would be billions of edges."""
    builder = flatbuffers.Builder(1024)
    shared = vector(builder, [1] * 1000, "Uint64", 8)
    tasks = [table(builder, 6, {1: ("Uint64", number), 5: ("UOffsetTRelative", shared)}) for number in range(1, 1001)]
    task_vector = vector(builder, tasks, "UOffsetTRelative", 4)
    builder.Finish(table(builder, 11, {1: ("Uint32", 4), 8: ("UOffsetTRelative", task_vector)}))
    with pytest.raises(ValueError, match=r"^tasks\[0\].device must be the id of a device, not 0$"):
        read(bytes(builder.Output()))
    barriers = flatbuffers.Builder(1024)
    shared = vector(barriers, [1] * 1000, "Uint64", 8)
    fields = {0: ("Int8", TaskType.BARRIER), 5: ("UOffsetTRelative", shared)}
    tasks = [table(barriers, 6, {1: ("Uint64", number), **fields}) for number in range(1, 1001)]
    task_vector = vector(barriers, tasks, "UOffsetTRelative", 4)
    barriers.Finish(table(barriers, 11, {1: ("Uint32", 4), 8: ("UOffsetTRelative", task_vector)}))
    with pytest.raises(
        ValueError, match=r"^tasks\[\d+\].next must be a vector that overlaps no other in \d+ bytes, not 1000$"
    ):
        read(bytes(barriers.Output()))


def test_a_file_of_zeros_is_refused():
    zeros = bytes(256 << 20)
    with pytest.raises(ValueError, match="fields must be"):
        read(zeros)


def must_be_refused_or_read(data):
    message = "it must be read"
    try:
        read(data).verify()
    except ValueError as error:
        message = str(error)
    assert " must " in message
    assert "\n" not in message


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_only_value_errors_escape_from_damaged_files(data):
    content = bytearray(good())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.sampled_from([0, 1, 2, 4, 127, 128, 255, content[at] ^ 1, (content[at] + 4) % 256]))
    must_be_refused_or_read(bytes(content[: data.draw(st.integers(0, 2 * len(content)))]))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_only_value_errors_escape_from_noise(content):
    must_be_refused_or_read(content)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, (1 << 32) - 1))
def test_only_value_errors_escape_when_a_word_is_wrong(at, word):
    content = bytearray(good())
    at = at % (len(content) // 4) * 4
    content[at : at + 4] = word.to_bytes(4, "little")
    must_be_refused_or_read(bytes(content))


def test_the_command_prints_json(tmp_path, capsys):
    path = tmp_path / "job.fbuf"
    path.write_bytes(good((4, (TaskType.BARRIER, 14, 0, 0.0, 0, []))))
    replay.main(path, "0.8Gbps", "ideal-switch", "fluid", None, True)
    result = json.loads(capsys.readouterr().out)
    # 1.5 ms, then 0.25 ms and 4/3 of a MiB at 0.1 GB/s with four messages of 2 us.
    assert result["iteration_ms"] == pytest.approx(1.75 + (1 << 20) * 4 / 3 * 1e-5 + 0.008, rel=1e-9)
    assert (result["bandwidth_gbps"], result["fabric"]) == (0.8, "ideal-switch")
    assert (result["devices"], result["tasks"]) == (4, 6)


def test_the_command_prints_one_line(tmp_path, capsys):
    path = tmp_path / "job.fbuf"
    path.write_bytes(good())
    replay.main(path, "1.6 Tbps", "ideal-switch", "fluid", None, False)
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize(
    "bandwidth", ["100", "100GBps", "0Gbps", "-1Gbps", "nanGbps", "1e3Gbps", "", "9" * 400 + "Gbps", "1001Tbps"]
)
def test_a_bandwidth_without_sense_is_refused(bandwidth):
    with pytest.raises(InputError, match=r"^--bandwidth must be a rate with unit such as 100Gbps, .*, not '"):
        replay.main(Path("none"), bandwidth, "ideal-switch", "fluid", None, True)


def test_what_is_wrong_with_a_replay_is_one_line(tmp_path):
    with pytest.raises(
        InputError, match=r"^--fabric must be one of ideal-switch, topoopt, a file .yaml or .json, not 'torus'$"
    ):
        replay.main(Path("none"), "1Gbps", "torus", "fluid", None, True)
    with pytest.raises(InputError, match=r"^--fidelity must be one of fluid, cycle, not 'rtl'$"):
        replay.main(Path("none"), "1Gbps", "ideal-switch", "rtl", None, True)
    path = tmp_path / "zeros"
    path.write_bytes(np.zeros(64, np.uint8).tobytes())
    with pytest.raises(InputError, match=r"zeros: must be a whole TopoOpt task graph: fields must be"):
        replay.main(path, "1Gbps", "ideal-switch", "fluid", None, True)
    with pytest.raises(InputError, match=r"must be a TopoOpt task graph that can be read"):
        replay.main(tmp_path / "absent", "1Gbps", "ideal-switch", "fluid", None, True)
