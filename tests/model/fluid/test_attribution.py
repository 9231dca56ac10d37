"""Where the time of an iteration goes: by hand on small graphs, and as a sum on real ones."""

from dataclasses import replace

import numpy as np
import pytest

from lightfabric.model.fluid import engine
from lightfabric.model.fluid.attribution import attribution
from lightfabric.model.fluid.network import star
from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec
from lightfabric.model.task import SHARES, Kind, Part
from lightfabric.placement.graph.builder import Builder
from lightfabric.placement.graph.iteration import task_graph
from lightfabric.placement.plan import Plan

RATE, HOP_PS = 1e9, 250_000
"""A byte takes 1000 ps, a message two hops."""
ALL = [(a, b) for a in range(4) for b in range(4) if a != b]
STAR = star(4, RATE, ALL, up_latency_ps=HOP_PS, down_latency_ps=HOP_PS)
JOB = JobSpec(ModelSpec(layers=8, hidden=256, heads=8, sequence=128, vocabulary=1024), batch=16)


def spent(builder, groups=((0, 1, 2, 3),)):
    graph = builder.graph(4, [np.array([group], np.int32) for group in groups])
    schedule = engine.run(graph, STAR)
    found = attribution(graph, STAR, schedule)
    assert sum(found.values()) == schedule.makespan_ps
    return {name: value for name, value in found.items() if value}


def at(*devices):
    return np.array(devices, np.int32)


def test_a_chain_is_what_its_tasks_are_for():
    builder = Builder()
    first = builder.add(Kind.COMPUTE, Part.COMPUTE, at(0), 5_000_000)
    sent = builder.add(Kind.TRANSFER, Part.PIPELINE, at(0), 2_000, at(1))
    second = builder.add(Kind.COMPUTE, Part.COMPUTE, at(1), 3_000_000)
    reduced = builder.add(Kind.ALL_REDUCE, Part.DATA, at(0), 4_000, 0)
    step = builder.add(Kind.COMPUTE, Part.OPTIMISER, at(1), 1_000_000)
    for before, after in ((first, sent), (sent, second), (second, reduced), (reduced, step)):
        builder.link(before, after)
    # The second pass waits on a device of its own, which the busiest one would have done meanwhile.
    assert spent(builder) == {
        "compute": 5_000_000, "bubble": 3_000_000, "optimiser": 1_000_000,
        "pipeline": 2_000_000, "data": 6_000_000, "latency": 7 * 2 * HOP_PS,
    }  # fmt: skip


def test_what_a_message_shares_its_link_with_is_contention():
    builder = Builder()
    begin = builder.add(Kind.COMPUTE, Part.COMPUTE, at(0), 1_000)
    builder.link(begin, builder.add(Kind.TRANSFER, Part.PIPELINE, at(0), 4_000, at(1)))
    builder.link(begin, builder.add(Kind.TRANSFER, Part.PIPELINE, at(0), 8_000, at(2)))
    assert spent(builder) == {
        "compute": 1_000, "pipeline": 8_000_000, "contention": 4_000_000, "latency": 2 * HOP_PS
    }  # fmt: skip


def test_messages_of_one_exchange_are_no_contention_of_each_other():
    builder, source, destination = Builder(), *np.array(ALL, np.int32).T
    sent = builder.add(Kind.TRANSFER, Part.EXCHANGE, source, 1_000, destination)
    builder.link(sent, builder.add(Kind.BARRIER, Part.EXCHANGE, at(-1), 0))
    assert spent(builder) == {"exchange": 3_000_000, "latency": 2 * HOP_PS}


def test_a_computation_that_waits_for_its_device_follows_the_one_there():
    builder = Builder()
    first = builder.add(Kind.COMPUTE, Part.COMPUTE, at(0), 7_000)
    other = builder.add(Kind.COMPUTE, Part.COMPUTE, at(1), 1_000)
    last = builder.add(Kind.COMPUTE, Part.COMPUTE, at(0), 2_000)
    builder.link(other, last)
    assert spent(builder) == {"compute": 9_000}
    assert len(first)


def test_a_graph_of_no_parts_is_refused():
    graph = replace(task_graph(JOB, ACCELERATORS["h100"], Plan(4, 1, 1, 1)), part=None)
    with pytest.raises(ValueError, match=r"^TaskGraph\.part must be given, not None$"):
        attribution(graph, STAR, engine.run(graph, STAR))


@pytest.mark.parametrize("plan", [Plan(2, 2, 1, 2), Plan(1, 2, 2, 1), Plan(1, 1, 4, 1, virtual_stages=2), Plan(4, 1, 1, 1)])
def test_parts_of_an_iteration_add_up_and_are_those_of_its_plan(plan):
    graph = task_graph(JOB, ACCELERATORS["h100"], plan)
    schedule = engine.run(graph, STAR)
    found = attribution(graph, STAR, schedule)
    assert tuple(found) == SHARES
    assert sum(found.values()) == schedule.makespan_ps
    assert min(found.values()) >= 0
    used = {"tensor": plan.tp > 1, "pipeline": plan.pp > 1, "data": plan.dp > 1, "exchange": False, "bubble": plan.pp > 1}
    assert {name: found[name] > 0 for name in used} == used
