"""Files of task graphs through the commands: export, replay, and the trace of a schedule."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lightfabric.flows.command import place, replay
from lightfabric.flows.format import perfetto as trace
from lightfabric.flows.format import task_graph as exchange
from lightfabric.flows.report import InputError
from lightfabric.model.fluid import engine as fluid
from lightfabric.model.fluid.network import star
from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec
from lightfabric.model.task import Kind
from lightfabric.placement.graph.iteration import task_graph
from lightfabric.placement.plan import Plan

JOB = JobSpec(ModelSpec(layers=8, hidden=256, heads=8, sequence=128, vocabulary=1024), batch=16)
GRAPH = task_graph(JOB, ACCELERATORS["h100"], Plan(2, 2, 2, 2))


def replayed(path, capsys, **given):
    replay.main(path, "100Gbps", "ideal-switch", "fluid", None, True, **given)
    return json.loads(capsys.readouterr().out)


def test_a_chakra_folder_replays_as_the_graph_it_was_written_from(tmp_path, capsys):
    exchange.write(tmp_path / "job", GRAPH)
    assert len(list((tmp_path / "job").iterdir())) == GRAPH.devices + 1
    network = star(GRAPH.devices, 100e9 / 8, GRAPH.demand_bytes())
    expected = fluid.run(GRAPH, network, message_latency_ps=replay.MESSAGE_LATENCY_PS).makespan_ps / 1e9
    for path in (tmp_path / "job", tmp_path / "job" / "lightfabric.3.et"):
        result = replayed(path, capsys)
        assert (result["iteration_ms"], result["devices"], result["tasks"]) == (expected, 8, len(GRAPH))


def test_a_goal_file_replays(tmp_path, capsys):
    exchange.write(tmp_path / "job.goal", GRAPH)
    assert replayed(tmp_path / "job.goal", capsys)["devices"] == 8


def test_an_export_replaces_one_of_more_ranks(tmp_path, capsys):
    exchange.write(tmp_path, GRAPH)
    exchange.write(tmp_path, task_graph(JOB, ACCELERATORS["h100"], Plan(1, 2, 2, 2)))
    assert replayed(tmp_path, capsys)["devices"] == 4


def damaged(folder, name, content):
    exchange.write(folder, GRAPH)
    path = folder / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("lightfabric.3.et", None, "must be files of at most 65536 ranks from 0 on, not without rank 3"),
        ("other.0.et", b"", r"must be the files NAME.RANK.et of one job, not of 2"),
        ("lightfabric.3.et", b"\x09ab", "must be whole Chakra traces: rank 3: length must be at most the 2 bytes"),
        ("comm_groups.json", b"[", "comm_groups.json: must be JSON, not something else"),
        ("comm_groups.json", b"[" * 100_000, "comm_groups.json: must be JSON, not something else"),
        ("comm_groups.json", b'{"0": [true]}', "comm_groups.json: must be an object of names with lists of ranks"),
        ("comm_groups.json", b'{"0": [0, 99]}', "must be whole Chakra traces: rank 0: node 24.pg_name must be"),
        ("comm_groups.json", None, "must be whole Chakra traces: rank 0: node 8.pg_name must be a communicator group"),
    ],
)
def test_what_is_wrong_in_a_folder_is_one_line(tmp_path, name, content, says):
    damaged(tmp_path, name, content)
    with pytest.raises(InputError, match=says):
        exchange.read(tmp_path)


def test_an_empty_folder_is_no_job(tmp_path):
    with pytest.raises(InputError, match=r"must be the files NAME\.RANK\.et of one job, not of 0$"):
        exchange.read(tmp_path)


def test_an_export_is_of_one_fabric(tmp_path):
    with pytest.raises(InputError, match=r"^--export must be with one --fabric of .*, not none$"):
        place.main(None, None, None, False, tmp_path)


@pytest.mark.parametrize(("name", "must_be"), [("file", "a folder"), ("folder.goal", "a file")])
def test_what_no_export_may_replace_is_refused_before_the_work(tmp_path, name, must_be):
    path = tmp_path / name
    if must_be == "a folder":
        path.write_text("")
    else:
        path.mkdir()
    with pytest.raises(InputError, match=f"must be {must_be} that can be written"):
        place.main(None, None, "SiP-OCS", False, path)


def test_a_trace_has_every_task_once_where_and_when_it_was(tmp_path, capsys):
    exchange.write(tmp_path / "job", GRAPH)
    result = replayed(tmp_path / "job", capsys, trace=tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    tasks = sorted((event for event in events if event["ph"] == "X"), key=lambda event: event["args"]["task"])
    assert [event["args"]["task"] for event in tasks] == list(range(len(GRAPH)))
    assert [event["pid"] for event in tasks] == GRAPH.device.tolist()
    assert max(event["ts"] + event["dur"] for event in tasks) == pytest.approx(result["iteration_ms"] * 1000)
    moved = sum(event["args"].get("bytes", 0) for event in tasks)
    assert moved == GRAPH.work[GRAPH.kind != Kind.COMPUTE].sum()
    names = {(event["name"], event["pid"], event["tid"]) for event in events if event["ph"] == "M"}
    assert {("process_name", device, 0) for device in range(8)} <= names
    for event in tasks:
        assert set(event) == {"ph", "name", "cat", "pid", "tid", "ts", "dur", "args"}
        assert ("thread_name", event["pid"], event["tid"]) in names
        assert (event["tid"] == 0) == (event["name"] == "compute")


def test_events_of_one_thread_of_a_trace_do_not_overlap(tmp_path):
    """Perfetto nests events of a thread that overlap, and drops those that do so in part."""
    network = star(GRAPH.devices, 1e7, GRAPH.demand_bytes())
    schedule = fluid.run(GRAPH, network)
    trace.write(tmp_path / "trace.json", GRAPH, schedule)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    ended = {}
    for event in sorted((e for e in events if e["ph"] == "X"), key=lambda e: (e["ts"], e["dur"])):
        thread = event["pid"], event["tid"]
        assert event["ts"] >= ended.get(thread, 0.0) - 1e-6
        ended[thread] = event["ts"] + event["dur"]


def test_the_trace_of_an_empty_graph_is_json(tmp_path):
    none = np.zeros(0, np.int32)
    empty = replace(
        GRAPH, kind=none.astype(np.int8), device=none, work=none.astype(np.int64), peer=none, operations=none,
        successor_start=np.zeros(1, np.int64), successors=none,
    )  # fmt: skip
    trace.write(tmp_path / "trace.json", empty, fluid.run(empty, star(8, 1e9, {})))
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"] == []
