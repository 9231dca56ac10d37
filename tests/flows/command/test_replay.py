"""``replay`` on small files that once went wrong, and its options; ``qap`` on files written by other tools."""

from pathlib import Path

import pytest

from lightfabric.flows.command import replay
from lightfabric.flows.format import qaplib
from lightfabric.flows.report import InputError

CASES = Path(__file__).resolve().parents[4] / "shared" / "data" / "cases"
shared = pytest.mark.skipif(not CASES.is_dir(), reason="the small files are in ../shared/data/cases")
GATHERED_US = 2**20 * 8 / 100e3
"""Time of a member's whole buffer of the files' collectives."""

RIGHT_MS = {
    "chakra-world-allreduce": 0.13782912, "chakra-named-allreduce": 0.13782912, "chakra-empty-group": 0.13782912,
    "chakra-pg-int": 0.13782912, "chakra-uint64-size": 0.13782912, "chakra-overlap": 0.13782912,
    "chakra-allgather": 0.06891456, "chakra-reducescatter": 0.06891456, "chakra-alltoall": (2 + 0.75 * GATHERED_US) / 1000,
    "chakra-broadcast": (6 + GATHERED_US) / 1000, "chakra-barrier": 0.012, "chakra-cpu-coll": 0.14782912,
    "chakra-invalid-node": 0.005, "chakra-deep": 100.0, "chakra-hybrid": 0.17177216, "chakra-send-then-comp": 0.112,
    "chakra-straggler": 0.23782912, "chakra-subgroups": 0.08788608, "chakra-two-kernels": 0.2, "chakra-two-untagged": 0.032,
    "chakra-unordered": 0.012, "chakra-zero-bytes": 0.005, "goal-any-source.goal": 0.022, "goal-irequires.goal": 0.050,
    "goal-unlabelled.goal": 0.012, "goal-block-comment.goal": 0.012, "goal-twocpu.goal": 1.0, "goal-twocalc.goal": 2.0,
    "goal-zero-bytes.goal": 0.003, "goal-bigbuffer.goal": 0.002008, "goal-crlf.goal": 0.012,
}  # fmt: skip
WRONG = {
    "chakra-num-ops": "rank 0: node 0.duration_micros must be given, or --accelerator for its num_ops and tensor_size",
    "chakra-mem-load": "rank 0: node 0.duration_micros must be given, or --accelerator for its tensor_size, not left out",
    "chakra-crossed": "must form no cycle", "chakra-cycle": "must form no cycle",
    "goal-headtohead.goal": "must form no cycle",
    "chakra-dangling": "rank 0: node 0.data_deps must be ids of nodes of rank 0, not 4",
    "chakra-recv-alone": "rank 1: node 0 must have its send from 0 to 1 tag 0, not none",
    "chakra-sizes-differ": "rank 1: node 0.comm_size must be 1048576 as at the other members, not 2097152",
}  # fmt: skip


@shared
@pytest.mark.parametrize(("name", "expected"), RIGHT_MS.items())
def test_a_file_that_is_right_replays_in_its_time(name, expected):
    assert replay.replay(CASES / name, 100.0)["iteration_ms"] == pytest.approx(expected, rel=1e-9)


@shared
@pytest.mark.parametrize(("name", "says"), WRONG.items())
def test_a_file_that_is_wrong_is_one_line(name, says):
    with pytest.raises(InputError) as error:
        replay.replay(CASES / name, 100.0)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@shared
def test_every_file_of_a_task_graph_is_tried():
    there = {path.name for path in CASES.iterdir() if path.name.startswith(("chakra-", "goal-"))}
    assert there == {*RIGHT_MS, *WRONG}


@shared
def test_the_accelerator_does_the_work_that_has_no_duration():
    assert replay.replay(CASES / "chakra-num-ops", 100.0, accelerator="h100")["iteration_ms"] == pytest.approx(
        1e12 / 989.4e9
    )
    with_load = replay.replay(CASES / "chakra-mem-load", 100.0, accelerator="a100")["iteration_ms"]
    assert with_load == pytest.approx(1e9 / 2039e6 + 0.005)


@shared
def test_the_algorithm_and_the_latency_are_options():
    found = replay.replay(CASES / "chakra-allgather", 100.0, algorithm="halving-doubling", latency_ps=0)
    assert found["iteration_ms"] == pytest.approx(0.75 * GATHERED_US / 1000)
    # Between the two rounds of four messages each member waits for the two that are its own.
    assert (found["devices"], found["tasks"]) == (4, 2 + 4 + 4 + 4)


def program(folder, text):
    path = folder / "job.goal"
    path.write_text(text)
    return path


PAIR = "num_ranks 2\nrank 0 {\nsend 125000b to 1\ncalc 5 cpu 1\n}\nrank 1 {\nrecv 125000b from 0\n}\n"


@pytest.mark.parametrize(("latency", "expected"), [("2us", 12), ("0s", 10), ("500ns", 10.5), ("0.25 ms", 260)])
def test_a_message_has_the_latency_that_is_given(tmp_path, capsys, latency, expected):
    replay.main(program(tmp_path, PAIR), "100Gbps", latency=latency)
    assert capsys.readouterr().out.startswith(f"{expected / 1000:.3f} ms per iteration of job.goal: 2 tasks, 2 devices on")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"latency": "2"}, "--latency must be a time with unit such as 500ns, from 0s to 1s, not '2'"),
        ({"latency": "2 s"}, "--latency must be a time with unit such as 500ns, from 0s to 1s, not '2 s'"),
        ({"algorithm": "bruck"}, "--algorithm must be one of ring, tree, direct, halving-doubling, auto, not 'bruck'"),
        ({"accelerator": "tpu"}, "--accelerator must be one of a100, a100-40gb, h100, "),
        ({"algorithm": "ring"}, "--algorithm must be left out unless the file is a Chakra trace, not 'ring' for "),
        ({"accelerator": "a100"}, "--accelerator must be left out unless the file is a Chakra trace, not 'a100' for "),
    ],
)
def test_an_option_that_does_not_fit_is_refused_in_one_line(tmp_path, given, says):
    with pytest.raises(InputError) as error:
        replay.main(program(tmp_path, PAIR), "100Gbps", **given)
    assert str(error.value).startswith(says)


def test_a_solved_problem_may_begin_with_the_mark_of_utf8(tmp_path):
    for name, mark in (("plain.dat", b""), ("marked.dat", b"\xef\xbb\xbf")):
        (tmp_path / name).write_bytes(mark + b"2\n0 1\n2 0\n0 3\n4 0\n")
    plain, marked = (qaplib.read(tmp_path / name) for name in ("plain.dat", "marked.dat"))
    assert plain.flow.tolist() == marked.flow.tolist() == [[0, 1], [2, 0]]
    assert marked.distance.tolist() == [[0, 3], [4, 0]]
