"""Store-and-forward against ASTRA-sim's closed forms and a slow simulation of first come, first served."""

import heapq
import itertools
import json

import numpy as np
import pytest

from lightfabric.flows.command import replay
from lightfabric.flows.report import InputError
from lightfabric.model.fluid import engine as fluid
from lightfabric.model.fluid import forwarding
from lightfabric.model.fluid.forwarding import pairs, stored_and_forwarded
from lightfabric.model.fluid.network import star
from lightfabric.model.fluid.shortest import Topology
from lightfabric.model.task import Kind, TaskGraph

BYTES_PER_NS = 50 * 2**30 / 1e9
GBPS = BYTES_PER_NS * 8


def transfers(devices, messages, edges=()):
    """A job of transfers (source, destination, bytes, operations)."""
    source, destination, size, operations = np.array(messages, np.int64).reshape(-1, 4).T
    edges = sorted(edges)
    return TaskGraph(
        devices, np.full(len(size), Kind.TRANSFER, np.int8), source.astype(np.int32), size, destination.astype(np.int32),
        operations.astype(np.int32), np.searchsorted([a for a, _ in edges], np.arange(len(size) + 1)),
        np.array([b for _, b in edges], np.int32), np.zeros(1, np.int64), np.zeros(0, np.int32),
    )  # fmt: skip


def chain(bytes_per_s, latency_ps):
    """Two ranks with a vertex between each of so many links."""
    hops = len(bytes_per_s)
    path = [0, *range(2, hops + 1), 1]
    ends = [*itertools.pairwise(path), *zip(path[::-1], path[::-1][1:], strict=False)]
    a, b = np.array(ends, np.int64).T
    rates, latencies = ([*each, *each[::-1]] for each in (bytes_per_s, latency_ps))
    return Topology(hops + 1, np.arange(2), a, b, np.array(rates, np.float64), np.array(latencies, np.int64))


@pytest.mark.parametrize("size", [0, 1, 10**6])
def test_a_message_is_whole_at_each_end_of_a_link(size):
    graph = transfers(2, [(0, 1, size, 1)])
    network = chain([1e9, 2e9, 5e8], [7, 11, 13]).network(2, pairs(graph))
    expected = sum(round(size / rate * 1e12) for rate in (1e9, 2e9, 5e8)) + 31 + 3 * 1000
    assert fluid.run(*stored_and_forwarded(graph, network, 1000)).makespan_ps == expected


def test_operations_are_messages_one_after_the_other():
    graph = transfers(2, [(0, 1, 3000, 3)])
    network = chain([1e9, 1e9], [0, 0]).network(2, pairs(graph))
    assert fluid.run(*stored_and_forwarded(graph, network, 50)).makespan_ps == 3 * 2 * (10**6 + 50)


def slow(graph, network, latency_ps):
    """When each message of a job has arrived: an event is a message that comes to a link, the earliest first."""
    before = dict.fromkeys(range(len(graph)), 0)
    after = [graph.successors[graph.successor_start[t] : graph.successor_start[t + 1]].tolist() for t in range(len(graph))]
    for each in after:
        for task in each:
            before[task] += 1
    free, arrived, events = {}, {}, [(0, task, 0) for task in before if not before[task]]
    while events:
        now, task, hop = heapq.heappop(events)
        route = network.route(int(graph.device[task]), int(graph.peer[task])).tolist()
        if hop == len(route):
            arrived[task] = now
            for other in after[task]:
                before[other] -= 1
                if not before[other]:
                    heapq.heappush(events, (now, other, 0))
            continue
        link = route[hop]
        free[link] = max(free.get(link, 0), now) + round(int(graph.work[task]) / network.bytes_per_s[link] * 1e12)
        heapq.heappush(events, (int(free[link] + network.latency_ps[link] + latency_ps), task, hop + 1))
    return max(arrived.values())


def test_links_serve_in_the_order_in_which_messages_come():
    rng = np.random.default_rng(2026)
    for _ in range(60):
        ranks = int(rng.integers(3, 7))
        messages = []
        for _ in range(int(rng.integers(1, 20))):
            a, b = rng.choice(ranks, 2, replace=False).tolist()
            # Odd sizes, so that no two messages come to a link in one picosecond.
            messages.append((a, b, int(rng.integers(1, 10**6)) * 2 + 1, 1))
        edges = [(a, b) for b in range(len(messages)) for a in range(b) if rng.random() < 0.1]
        graph = transfers(ranks, messages, edges)
        network = star(ranks, 1.7e9, pairs(graph), up_latency_ps=17, down_latency_ps=5)
        found = fluid.run(*stored_and_forwarded(graph, network, 100)).makespan_ps
        assert found == slow(graph, network, 100), "seed 2026"
        # Never below what each link has to carry.
        moved = {}
        for a, b, size, _ in messages:
            for link in network.route(a, b).tolist():
                moved[link] = moved.get(link, 0) + size
        assert found >= max(size / 1.7e9 * 1e12 for size in moved.values())


def ring_of(folder, ranks):
    edges = [
        {
            "ep1": {"instance": f"npu[{rank}]", "component": "xpu"}, "scheme": "one2one", "link": "wire",
            "ep2": {"instance": f"npu[{(rank + 1) % ranks}]", "component": "xpu"},
        }
        for rank in range(ranks)
    ]  # fmt: skip
    physical = {"bandwidth": {"gigabits_per_second": GBPS}, "latency": {"ns": 500}}
    device = {"name": "npu", "components": [{"name": "xpu", "count": 1, "choice": "xpu"}], "links": [], "edges": []}
    path = folder / "ring.json"
    instances = [{"name": "npu", "device": "npu", "count": ranks}]
    links = [{"name": "wire", "physical": physical}]
    path.write_text(json.dumps({"devices": [device], "links": links, "instances": instances, "edges": edges}))
    return str(path)


def nanoseconds(folder, **given):
    return replay.replay(folder, GBPS, forwarding="store-and-forward", **given)["iteration_ms"] * 1e6


@pytest.mark.parametrize(("ranks", "published_ns"), [(16, 2_477_005), (64, 2_648_971)])
def test_a_ring_all_reduce_takes_what_astra_sim_says_without_its_memory(tmp_path, chakra_collective, ranks, published_ns):
    """At 50 GiB/s and 500 ns; it adds 3 |c / 1600| + 20 ns to a sum of c bytes, and 10 ns at the end."""
    chakra_collective(tmp_path, ranks, 0, 64 << 20)
    chunk = (64 << 20) // ranks
    memory_ns = (ranks - 1) * (3 * (chunk // 1600) + 20) + 10
    found = nanoseconds(tmp_path, fabric=ring_of(tmp_path, ranks), latency_ps=0)
    assert found == pytest.approx(published_ns - memory_ns, abs=2 * ranks)
    on_switch = nanoseconds(tmp_path, latency_ps=500_000)
    assert on_switch == pytest.approx(2 * found, rel=1e-9)


def test_an_all_to_all_on_a_switch_takes_what_astra_sim_says(tmp_path, chakra_collective):
    """A GiB on 16: one message after the other out, one after the other in; it adds 10 ns at each end."""
    chakra_collective(tmp_path, 16, 6, 1 << 30)
    assert nanoseconds(tmp_path, latency_ps=500_000) == pytest.approx(20_001_020 - 20, abs=2)


def test_an_all_to_all_on_a_ring_is_not_below_its_bound(tmp_path, chakra_collective):
    """Which ASTRA-sim's 45 001 020 ns, that take one way round for all that is half-way, are not at."""
    chakra_collective(tmp_path, 16, 6, 1 << 30)
    found = nanoseconds(tmp_path, fabric=ring_of(tmp_path, 16), latency_ps=0)
    bound = 64 / 2 * ((1 << 30) / 16 / BYTES_PER_NS)
    assert bound <= found <= 45_001_020


def test_an_all_reduce_that_is_a_ring_is_its_messages():
    """Of members 2, 0, 1 in turn: 4 messages of a third each over two links."""
    graph = TaskGraph(
        3, np.array([Kind.ALL_REDUCE, Kind.COMPUTE], np.int8), np.array([2, 0], np.int32), np.array([3000, 10]),
        np.array([0, -1], np.int32), np.ones(2, np.int32), np.array([0, 1, 1]), np.array([1], np.int32), np.array([0, 3]),
        np.array([2, 0, 1], np.int32),
    )  # fmt: skip
    assert pairs(graph) == {(2, 0), (0, 1), (1, 2)}
    job, links = stored_and_forwarded(graph, star(3, 1e9, pairs(graph)), 7)
    job.verify()
    assert fluid.run(job, links).makespan_ps == 4 * 2 * (10**6 + 7) + 10


def test_what_has_nothing_to_send_is_as_it_was():
    graph = transfers(2, [(1, 1, 50, 1)])
    assert pairs(graph) == set()
    assert fluid.run(*stored_and_forwarded(graph, star(2, 1e9, ()), 7)).makespan_ps == 0


def test_too_many_messages_are_refused(monkeypatch):
    monkeypatch.setattr(forwarding, "MAX_TASKS", 20)
    graph = transfers(2, [(0, 1, 5, 9)])
    with pytest.raises(ValueError, match=r"^messages must be at most 10 over all hops to be stored there, not 19$"):
        stored_and_forwarded(graph, star(2, 1e9, pairs(graph)), 0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"forwarding": "wormhole"}, "--forwarding must be one of cut-through, store-and-forward, not 'wormhole'"),
        ({"fidelity": "cycle"}, "--fidelity must be left out with --forwarding store-and-forward, not cycle"),
        ({"trace": "t.json"}, "--trace must be left out with --forwarding store-and-forward, not t.json"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(tmp_path, chakra_collective, given, says):
    chakra_collective(tmp_path, 2, 0, 100)
    with pytest.raises(InputError) as error:
        replay.main(tmp_path, "100Gbps", **{"forwarding": "store-and-forward"} | given)
    assert str(error.value) == says
