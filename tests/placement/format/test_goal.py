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
        ("num_ranks 1\nrank 0 {\nl1: calc 5\nl1 irequires l1\n}", "line 4 must be calc, send, recv, requires"),
        ("num_ranks 1\nrank 0 {\nl1: send 5b from 0 tag 1\n}", "line 3 must be send to or recv from"),
        ("num_ranks 2\nrank 0 {\nl1: send 5b to 1 tag 1\n}", "line 3 must have its receive from 0 at 1 tag 1"),
        ("num_ranks 2\nrank 0 {\nl1: recv 5b from 1 tag 1\n}", "line 3 must have its send from 1 to 0 tag 1"),
        ("num_ranks 1\nrank 0 {\nl1: calc 9999999999999999\n}", "line 3 must have numbers of at most 15 digits"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}[^\n]*$"):
        goal.read(text.encode())


def test_a_rank_of_too_many_statements_is_refused(monkeypatch):
    monkeypatch.setattr(goal, "MAX_STATEMENTS", 1)
    with pytest.raises(ValueError, match=r"^line 4 must be one of at most 1 of a rank, not one more$"):
        goal.read(b"num_ranks 1\nrank 0 {\nl1: calc 5\nl2: calc 5\n}")
