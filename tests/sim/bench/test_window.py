# amaranth: UnusedElaboratable=no
"""A window of an iteration on the RTL: the bytes of the graph, at their time, over a pair of chiplets."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from lightfabric.model.fluid import engine as fluid
from lightfabric.model.fluid.network import star
from lightfabric.model.spec import ACCELERATORS, ChipletSpec, JobSpec, ModelSpec
from lightfabric.model.task import Kind
from lightfabric.placement.graph.iteration import task_graph
from lightfabric.placement.plan import Plan
from lightfabric.sim.bench.chiplet import ChipletBench
from lightfabric.sim.bench.packet import Tally, assembled
from lightfabric.sim.bench.window import Message, messages, stimulus

SPEC = ChipletSpec(
    ports=2, wavelengths_per_port=1, wavelength_gbps=10.0, core_clock_mhz=156.25, flit_bytes=64, buffer_flits=8,
    replay_flits=16,
)  # fmt: skip
JOB = JobSpec(ModelSpec(layers=2, hidden=16, heads=2, sequence=8, vocabulary=64), batch=2)
EVER = 1 << 62


def run(plan, job=JOB):
    """The job with passes of 2 us: a real GPU's launches alone take a thousand, in which the RTL would idle."""
    graph = task_graph(job, ACCELERATORS["h100"], plan)
    graph = replace(graph, work=np.where(graph.kind == Kind.COMPUTE, 2_000_000, graph.work))
    return graph, fluid.run(graph, star(plan.gpus, 1e9, graph.demand_bytes()))


@pytest.mark.parametrize("plan", [Plan(1, 1, 2, 1), Plan(1, 2, 1, 1), Plan(2, 2, 2, 1), Plan(1, 4, 2, 1)])
def test_the_messages_of_all_gpus_are_the_bytes_of_the_graph(plan):
    graph, schedule = run(plan)
    sent = {}
    for gpu in range(plan.gpus):
        for message in messages(graph, schedule, gpu, 0, EVER):
            sent[gpu, message.destination] = sent.get((gpu, message.destination), 0) + message.bytes
    assert sent == pytest.approx(graph.demand_bytes(), rel=1e-3)


def test_windows_side_by_side_have_each_message_once():
    graph, schedule = run(Plan(2, 2, 2, 1))
    edges = np.linspace(0, schedule.makespan_ps + 1, 6).astype(int).tolist()
    cut = [m for start, end in pairwise(edges) for m in messages(graph, schedule, 0, start, end)]
    assert cut == messages(graph, schedule, 0, 0, EVER)
    assert cut


def test_packets_are_due_when_their_message_begins():
    sends = [Message(1_000_000, 1, 300), Message(1_000_000 + 64_000, 1, 3)]
    given = stimulus(SPEC, sends, 0, {0: 0, 1: 2}, start_ps=1_000_000, packet_bytes=128)
    assert given.earliest_cycles == [0, 0, 0, 10]
    assert [len(packet.content) for packet in given.packets] == [100, 100, 100, 4]
    assert {(packet.source, packet.destination) for packet in given.packets} == {(0, 2)}
    with pytest.raises(ValueError, match="packet_bytes must be at least 8, not 7"):
        stimulus(SPEC, sends, 0, {0: 0, 1: 2}, start_ps=0, packet_bytes=7)


@pytest.mark.parametrize(
    "plan",
    [pytest.param(Plan(1, 1, 2, 1), id="pipeline"), pytest.param(Plan(1, 2, 1, 1), id="tensor", marks=pytest.mark.slow)],
)
def test_a_window_crosses_a_pair_of_chiplets(plan):
    graph, schedule = run(plan)
    first = int(schedule.start_ps[graph.kind != Kind.COMPUTE].min())
    end = first + (schedule.makespan_ps - first) * 2 // 3
    address = {0: 0, 1: SPEC.ports}
    given = {
        address[gpu]: stimulus(
            SPEC, messages(graph, schedule, gpu, first, end), gpu, address, start_ps=first, packet_bytes=128
        )
        for gpu in address
    }
    packets = {at: client.packets for at, client in given.items()}
    seen = ChipletBench(SPEC).run(
        {at: [flit for packet in sent for flit in packet.flits(SPEC)] for at, sent in packets.items()},
        earliest_cycles={at: client.earliest_cycles for at, client in given.items()},
    )
    arrived = [packet for at in packets for packet in assembled(word for _, word in seen.received[at])]
    assert all(packets.values())
    assert Tally.of([packet for sent in packets.values() for packet in sent], arrived).clean
    for at, client in given.items():
        ends = [cycle for cycle, word in seen.sent[at] if word.last]
        assert all(cycle >= due for cycle, due in zip(ends, client.earliest_cycles, strict=True))
    assert max(max(client.earliest_cycles) for client in given.values()) > 0
