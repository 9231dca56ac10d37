"""GOAL programs: bytes and times as in the graph, statements as LogGOPSim's grammar has them."""

import re
from dataclasses import replace

import numpy as np
import pytest

from lightfabric.model.fluid import engine as fluid
from lightfabric.model.fluid.network import star
from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec
from lightfabric.model.task import Kind
from lightfabric.placement.format import goal
from lightfabric.placement.graph.iteration import task_graph
from lightfabric.placement.plan import Plan

JOB = JobSpec(ModelSpec(layers=8, hidden=256, heads=8, sequence=128, vocabulary=1024), batch=16)
PLANS = [Plan(1, 1, 1, 1), Plan(2, 1, 1, 2), Plan(1, 4, 1, 1), Plan(1, 1, 4, 1), Plan(2, 2, 2, 2), Plan(4, 2, 4, 1, "full")]


def graph_of(plan):
    """Of whole nanoseconds, as GOAL has them."""
    graph = task_graph(JOB, ACCELERATORS["h100"], plan)
    return replace(graph, work=np.where(graph.kind == Kind.COMPUTE, graph.work // 1000 * 1000, graph.work))


def busy_ps(graph):
    compute = graph.kind == Kind.COMPUTE
    return np.bincount(graph.device[compute], graph.work[compute], graph.devices).tolist()


def program(graph):
    return "".join(goal.write(graph)).encode()


@pytest.mark.parametrize("plan", PLANS)
def test_bytes_between_all_ranks_and_computation_come_back(plan):
    graph = graph_of(plan)
    back = goal.read(program(graph))
    assert back.devices == graph.devices
    assert back.demand_bytes() == graph.demand_bytes()
    assert busy_ps(back) == busy_ps(graph)


@pytest.mark.parametrize("plan", PLANS)
def test_a_ring_step_by_step_takes_as_long_as_the_ring(plan):
    graph = graph_of(plan)
    back = goal.read(program(graph))
    network = star(plan.gpus, 1e10, graph.demand_bytes())
    expected = fluid.run(graph, network).makespan_ps
    assert fluid.run(back, network).makespan_ps == pytest.approx(expected, rel=1e-3)


def test_every_statement_is_of_the_grammar():
    statement = (
        r"l\d+([sr]\d+)?(: calc \d+|: send \d+b to \d+ tag \d+|: recv \d+b from \d+ tag \d+| requires l\d+([sr]\d+)?)"
    )
    for line in program(graph_of(PLANS[4])).decode().splitlines():
        assert re.fullmatch(rf"num_ranks 8|rank \d+ \{{|\}}|{statement}", line), line


def test_a_program_written_by_hand():
    text = b"""num_ranks 2
rank 0 {
  l1: calc 100 cpu 0
  l2: send 1000b to 1 tag 7
  l2 requires l1   // then
}
rank 1 {
  l1: recv 1000b from 0 tag 7 nic 1
  l2: calc 50
  l2 requires l1
}
"""
    graph = goal.read(text)
    assert fluid.run(graph, star(2, 1e9, graph.demand_bytes())).makespan_ps == 100_000 + 1_000_000 + 50_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1 must be num_ranks"),
        ("num_ranks 0", "line 1 must be num_ranks and a number from 1"),
        ("num_ranks 9999999999999999999999", "line 1 must be num_ranks and a number from 1"),
        ("num_ranks 1\nrank 1 {\n}", "line 2 must be a new rank below 1"),
        ("num_ranks 1\nrank 0 {\n}\nrank 0 {\n}", "line 4 must be a new rank below 1"),
        ("num_ranks 1\nrank 0 {\nl1: calc 5", "rank 0 must end with }, not with the file"),
        ("num_ranks 1\nrank 0 {\nl1: calc 5\nl1: calc 6\n}", "line 4: label must be one that no other of rank 0 has"),
        ("num_ranks 1\nrank 0 {\nl1: calc 5\nl1 requires l2\n}", "line 4 must have labels of rank 0"),
        ("num_ranks 1\nrank 0 {\nl1: calc 5\nl1 requires l1\n}", "TaskGraph.successors must form no cycle"),
        ("num_ranks 1\nrank 0 {\nl1: calc 5\nl1 irequires l1\n}", "TaskGraph.successors must form no cycle"),
        (
            "num_ranks 1\nrank 0 {\nl1: calc 5\nl1 xrequires l1\n}",
            "line 4 must be calc, send, recv, requires, irequires or }",
        ),
        ("num_ranks 1\nrank 0 {\nl1: calc 5x\n}", "line 3 must be calc, send, recv, requires, irequires or }"),
        ("num_ranks 1\n/* two\nlines */ rank 0 {\nno\n}", "line 4 must be calc, send, recv, requires"),
        ("num_ranks 1\nrank 0 {\n/* calc 5\n}", "line 3 must be calc, send, recv, requires"),
        ("num_ranks 2\nrank 0 {\nsend 5b to -1 tag 1\n}", "line 3 must be to a rank and with a tag, -1 for any is of recv"),
        ("num_ranks 2\nrank 0 {\nsend 5b to 1 tag -1\n}", "line 3 must be to a rank and with a tag, -1 for any is of recv"),
        ("num_ranks 2\nrank 0 {\nl1: recv 5b from -1 tag 1\n}", "line 3 must have its send from -1 to 0 tag 1, not none"),
        (
            "num_ranks 2\nrank 0 {\nsend 5b to 1\n}\nrank 1 {\nrecv 4b from 0\n}",
            "line 6 must receive at least the 5 bytes that are sent to it, not 4",
        ),
        ("num_ranks 1\nrank 0 {\nl1: calc 5 cpu 9999999999999999\n}", "line 3 must have numbers of at most 15 digits"),
        ("num_ranks 1\nrank 0 {\nl1: send 5b from 0 tag 1\n}", "line 3 must be send to or recv from"),
        ("num_ranks 2\nrank 0 {\nl1: send 5b to 1 tag 1\n}", "line 3 must have its receive from 0 at 1 tag 1"),
        ("num_ranks 2\nrank 0 {\nl1: recv 5b from 1 tag 1\n}", "line 3 must have its send from 1 to 0 tag 1"),
        ("num_ranks 1\nrank 0 {\nl1: calc 9999999999999999\n}", "line 3 must have numbers of at most 15 digits"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}[^\n]*$"):
        goal.read(text.encode())


def test_only_value_errors_escape_from_damaged_programs():
    random = np.random.default_rng(2026)
    text = b"""num_ranks 3
rank 0 { l1: send 8b to 2 tag 7; l2: calc 5 cpu 1; l2 irequires l1 }
rank 1 { send 8b to 2 } /* nothing else */
rank 2 { l1: recv 8b from -1 tag 7 // any
l2: recv 9b from 1 tag -1
l2 requires l1 }
"""
    said = []
    for _ in range(600):
        damaged = bytearray(text)
        for _ in range(random.integers(1, 4)):
            damaged[random.integers(len(damaged))] = random.choice(list(b"0129 -:;{}/*lrb\n\xff"))
        try:
            goal.read(bytes(damaged)).verify()
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 300
    assert not [line for line in said if "\n" in line], "seed 2026"


def test_a_rank_of_too_many_statements_is_refused(monkeypatch):
    monkeypatch.setattr(goal, "MAX_STATEMENTS", 1)
    with pytest.raises(ValueError, match=r"^line 4 must be one of at most 1 of a rank, not one more$"):
        goal.read(b"num_ranks 1\nrank 0 {\nl1: calc 5\nl2: calc 5\n}")


def microseconds(*ranks):
    """Time of a program at 100 Gbps and 2 us for each message, with these ranks."""
    text = f"num_ranks {len(ranks)}\n" + "".join(f"rank {rank} {{\n{text}\n}}\n" for rank, text in enumerate(ranks))
    graph = goal.read(text.encode())
    network = star(graph.devices, 12.5e9, graph.demand_bytes())
    return fluid.run(graph, network, message_latency_ps=2_000_000).makespan_ps / 1e6


RECEIVE = "recv 125000b from 0 tag 7"
"""Of a message of 10 us and its latency."""


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (["send 125000b to 1 tag 7\ncalc 1000", RECEIVE], 12),
        (["/* one\nmessage */ send 125000b to 1 tag 7 // and no more", RECEIVE + ";"], 12),
        (["l1: send 100b to 1 tag 7 nic 1", "recv 4096b from 0 tag 7"], 2.008),
        (["send 0b to 1 tag 7", "l1: recv 0b from 0 tag 7\nl2: calc 1000\nl2 requires l1"], 3),
        (["l1: calc 1000000 cpu 0\nl2: calc 1000000 cpu 1\nl3: calc 400000", "calc 5"], 1400),
        (["calc 1000 cpu 3\ncalc 1000 cpu 3", "calc 1500 nic 1 cpu 3"], 2),
    ],
)
def test_what_logopsim_and_atlahs_write_is_read(ranks, expected):
    assert microseconds(*ranks) == pytest.approx(expected)


def test_a_program_may_stand_in_one_line_and_begin_with_the_mark_of_utf8():
    text = b"\xef\xbb\xbfnum_ranks 2; rank 0 { l1: calc 10; l2: calc 20; l2 requires l1 } rank 1 { calc 5 }"
    assert fluid.run(goal.read(text), star(2, 1.0, {})).makespan_ps == 30_000
    assert goal.rank_count(text) == 2


def test_cpus_are_devices_after_those_of_all_ranks():
    text = b"num_ranks 2\nrank 0 {\ncalc 5 cpu 2\n}\nrank 1 {\ncalc 6 cpu 0\ncalc 7 cpu 2\n}"
    graph = goal.read(text)
    assert (graph.devices, goal.rank_count(text)) == (4, 2)
    assert dict(zip(graph.work.tolist(), graph.device.tolist(), strict=True)) == {5000: 2, 6000: 1, 7000: 3}


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("l1: send 125000b to 1 tag 7\nl2: calc 50000\nl2 irequires l1", 50),
        ("l0: calc 9000\nl1: send 125000b to 1 tag 7\nl2: calc 50000\nl2 irequires l1\nl1 requires l0", 59),
        ("l0: calc 9000\nl1: calc 5000 cpu 1\nl2: calc 30000 cpu 2\nl3: calc 40000 cpu 3\nsend 125000b to 1 tag 7\n"
         "l1 requires l0\nl2 irequires l1\nl3 irequires l2", 49),
        # A calculation begins when its CPU is free, and what begins with it begins no sooner.
        ("calc 100000\nl2: calc 50000\nl3: calc 90000 cpu 1\nl3 irequires l2\nsend 125000b to 1 tag 7", 190),
        ("calc 100000\nl2: calc 50000\ncalc 5000\ns: send 125000b to 1 tag 7\nc: calc 200000 cpu 2\n"
         "s irequires l2\nc requires s", 312),
        ("l2: calc 50000\nl1: calc 40000\nl2 irequires l1\nsend 125000b to 1 tag 7", 90),
        ("l1: calc 7000\nl2: calc 50000\nl3: calc 30000 cpu 1\nl3 irequires l2\nl2 requires l1\n"
         "send 125000b to 1 tag 7", 57),
    ],
)  # fmt: skip
def test_what_irequires_another_begins_with_it(program, expected):
    assert microseconds(program, RECEIVE) == pytest.approx(expected)


def test_a_receive_from_any_source_gets_what_comes_first():
    """Rank 0 serves the two others one after the other; the one that comes later is served later."""
    serves = (
        "r1: recv 8b from -1\nc1: calc 5000\nr2: recv 8b from -1 tag -1\nc2: calc 9000\nc1 requires r1\nc2 requires r2\n"
    )
    client = "c: calc {}\ns: send 8b to 0\ns requires c"
    expected = 30 + 2 + 8 / 12.5e3 + 9
    assert microseconds(serves, client.format(3000), client.format(30000)) == pytest.approx(expected)
    assert microseconds(serves, client.format(30000), client.format(3000)) == pytest.approx(expected)


def test_a_message_goes_to_the_receive_that_was_posted_first():
    """The receive of any tag comes first in the program but waits, so the other one gets the only message of tag 7."""
    late = "w: calc 90000\nany: recv 8b from 0 tag -1\nany requires w\nseven: recv 8b from -1 tag 7"
    assert microseconds("send 8b to 1 tag 7\nl: calc 20000\ns: send 8b to 1 tag 8\ns requires l", late) == pytest.approx(90)


def test_a_message_that_fits_two_posted_receives_goes_to_the_first():
    """Rank 1 computes after the receive of anything: that gets the first message, though the other one names its source."""
    sends = "a: send 0b to 1 tag 7\nw: calc 30000\nb: send 0b to 1 tag 8\nb requires w"
    assert microseconds(sends, "x: recv 0b from -1 tag -1\ny: recv 0b from 0 tag -1\nc: calc 50000\nc requires x") == 2 + 50
    assert microseconds(sends, "y: recv 0b from 0 tag -1\nx: recv 0b from -1 tag -1\nc: calc 50000\nc requires x") == 32 + 50


def test_a_circle_through_receives_from_any_source_is_reported_as_one():
    with pytest.raises(ValueError, match=r"^TaskGraph.successors must form no cycle"):
        microseconds(*(f"r: recv 8b from -1\ns: send 8b to {other}\ns requires r" for other in (1, 0)))


@pytest.mark.parametrize("seed", range(8))
def test_messages_of_unique_tags_are_matched_alike_from_any_source(seed):
    """Random programs, of which each receive can get one message only, however much of that is left open."""
    random = np.random.default_rng(seed)
    ranks = int(random.integers(2, 6))
    exact, opened = [[] for _ in range(ranks)], [[] for _ in range(ranks)]
    for tag in range(40):
        source, destination = random.choice(ranks, 2, replace=False).tolist()
        size = int(random.integers(0, 10**6))
        lines = {source: f"s{tag}: send {size}b to {destination} tag {tag}"}
        for program, other in ((exact, source), (opened, -1 if random.random() < 0.5 else source)):
            lines[destination] = f"r{tag}: recv {size + 3}b from {other} tag {tag}"
            for rank, line in lines.items():
                label = line.partition(":")[0]
                program[rank] += [line, f"c{tag}: calc {tag * 997}", f"c{tag} requires {label}"]
                # Messages are numbered in an order in which they can come, so there is no circle.
                program[rank] += [
                    f"{label} requires c{before}" for before in range(tag) if f"c{before}: " in str(program[rank])
                ][-1:]
    assert microseconds(*map("\n".join, exact)) == microseconds(*map("\n".join, opened)), f"seed {seed}"
