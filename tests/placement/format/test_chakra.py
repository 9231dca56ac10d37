"""Chakra execution traces: what is written is what another parser reads, and comes back as it was."""

import random
from dataclasses import replace

import numpy as np
import pytest

from lightfabric.model.fluid import engine as fluid
from lightfabric.model.fluid.network import star
from lightfabric.model.spec import ACCELERATORS, JobSpec, ModelSpec, NetworkJobSpec
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.format import chakra, goal
from lightfabric.placement.graph import assembly
from lightfabric.placement.graph import by_rank as local
from lightfabric.placement.graph.iteration import task_graph
from lightfabric.placement.job.kind import workload
from lightfabric.placement.plan import Plan

JOB = JobSpec(ModelSpec(layers=8, hidden=256, heads=8, sequence=128, vocabulary=1024), batch=16)
PLANS = [Plan(1, 1, 1, 1), Plan(2, 1, 1, 2), Plan(1, 4, 1, 1), Plan(1, 1, 4, 1), Plan(2, 2, 2, 2), Plan(4, 2, 4, 1, "full")]
EXPERTS = JobSpec(
    ModelSpec(layers=8, hidden=256, heads=8, sequence=128, vocabulary=1024, experts=8, experts_per_token=2), batch=16
)
SEND, RECV, COMP, COLL, MEM_LOAD, INVALID = 5, 6, 4, 7, 2, 0


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def fields(data):
    """Number and value of every field of a message; the wire format of protobuf.dev, "Encoding"."""
    at, found = 0, []
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise AssertionError(f"wire type {key & 7}")
        found.append((key >> 3, value))
    return found


def messages(stream):
    at, found = 0, []
    while at < len(stream):
        size, at = varint(stream, at)
        found.append(fields(stream[at : at + size]))
        at += size
    return found


def attributes(node):
    found = {}
    for number, value in node:
        if number == 10:
            (_, name), (slot, content) = fields(value)
            found[name.decode()] = (slot, content)
    return found


def packed(value):
    at, found = 0, []
    while at < len(value):
        item, at = varint(value, at)
        found.append(item)
    return found


def edges(graph):
    before = np.repeat(np.arange(len(graph)), np.diff(graph.successor_start))
    return sorted(zip(before.tolist(), graph.successors.tolist(), strict=True))


def graph_of(plan):
    return task_graph(JOB, ACCELERATORS["h100"], plan)


def assert_equal(graph, other):
    for name in ("devices", "kind", "device", "work", "peer", "operations", "member_start", "members"):
        assert np.array_equal(getattr(graph, name), getattr(other, name)), name
    assert edges(graph) == edges(other)


@pytest.mark.parametrize("plan", PLANS)
def test_what_was_written_comes_back_as_it_was(plan):
    graph = graph_of(plan)
    back = chakra.read(chakra.write(graph), chakra.groups(graph))
    assert_equal(graph, back)
    network = star(plan.gpus, 1e11, graph.demand_bytes())
    assert fluid.run(back, network).finish_ps.tolist() == fluid.run(graph, network).finish_ps.tolist()


@pytest.mark.parametrize("plan", PLANS)
def test_another_parser_finds_every_task(plan):
    graph, groups = graph_of(plan), chakra.groups(graph_of(plan))
    kinds = {COMP: 0, SEND: 0, RECV: 0, COLL: 0}
    sent, received = {}, {}
    for rank, stream in enumerate(chakra.write(graph)):
        metadata, *nodes = messages(stream)
        assert metadata == [(1, b"0.0.4")]
        known = set()
        for node in nodes:
            plain = dict(node)
            known.add(plain.get(1, 0))
            kinds[plain[3]] += 1
            found = attributes(node)
            assert found["is_cpu_op"] == (27, 0)
            if plain[3] == COLL:
                assert found["comm_type"] == (9, 0)
                assert rank in groups[found["pg_name"][1].decode()]
            elif plain[3] == COMP:
                assert plain.get(7, 0) == round(found["duration_ps"][1] / 1e6)
            else:
                assert {found[name][0] for name in ("comm_src", "comm_dst", "comm_tag")} == {7}
                ends = tuple(found[name][1] for name in ("comm_src", "comm_dst", "comm_tag"))
                (sent if plain[3] == SEND else received)[ends] = found["comm_size"]
                assert ends[plain[3] == RECV] == rank
        for node in nodes:
            assert set(packed(dict(node).get(5, b""))) <= known
    assert sent == received
    assert sum(size for _, size in sent.values()) == graph.work[graph.kind == Kind.TRANSFER].sum()
    members = np.diff(graph.member_start)
    assert kinds[COLL] == members[graph.peer[graph.kind == Kind.ALL_REDUCE]].sum()
    assert kinds[COMP] == np.count_nonzero(graph.kind == Kind.COMPUTE)
    assert kinds[SEND] == kinds[RECV] == np.count_nonzero(graph.kind == Kind.TRANSFER)


def encoded(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number, value):
    if isinstance(value, int):
        return encoded(number << 3) + encoded(value)
    return encoded(number << 3 | 2) + encoded(len(value)) + value


def node(identity, kind, waits=(), micros=0, **given):
    """A node; without a duration if ``micros`` is None."""
    content = field(1, identity) + field(3, kind) + b"".join(field(5, wait) for wait in waits)
    content += b"" if micros is None else field(7, micros)
    for name, value in given.items():
        slot = 29 if isinstance(value, bytes) else 27 if isinstance(value, bool) else 9
        content += field(10, field(1, name.encode()) + field(slot, value))
    return content


def stream(*nodes):
    return b"".join(encoded(len(content)) + content for content in (b"", *nodes))


def exchange(rank, other):
    """Computes, sends, receives, one after the other, as real traces are; both ranks at once."""
    return stream(
        node(7, COMP, micros=3),
        node(8, SEND, [7], comm_src=rank, comm_dst=other, comm_tag=1, comm_size=1000),
        node(9, RECV, [8], comm_src=other, comm_dst=rank, comm_tag=1, comm_size=1000),
        node(10, COMP, [9], micros=5),
    )


def test_an_exchange_in_program_order_is_no_deadlock():
    graph = chakra.read([exchange(0, 1), exchange(1, 0)], {})
    assert fluid.run(graph, star(2, 1e9, graph.demand_bytes())).makespan_ps == 3_000_000 + 1_000_000 + 5_000_000


@pytest.mark.parametrize(
    ("streams", "groups", "says"),
    [
        ([stream(node(1, SEND, comm_dst=1, comm_size=5)), stream()], {}, "rank 0: node 0 must have its receive"),
        ([stream(), stream(node(1, RECV, comm_src=0, comm_size=5))], {}, "rank 1: node 0 must have its send"),
        ([stream(node(1, SEND, comm_dst=1))], {}, "rank 0: node 0.comm_size must be from 0"),
        ([stream(node(1, SEND, comm_src=3, comm_dst=1, comm_size=1))], {}, "rank 0: node 0.comm_src must be 0, not 3"),
        (
            [stream(node(1, SEND, comm_dst=1, comm_size=5)), stream(node(1, RECV, comm_src=0, comm_size=6))],
            {}, "rank 1: node 0.comm_size must be 5 as sent, not 6",
        ),
        ([stream(node(1, COMP, [2]))], {}, "rank 0: node 0.data_deps must be ids of nodes of rank 0, not 2"),
        ([stream(node(1, COMP, [1]))], {}, "TaskGraph.successors must form no cycle"),
        ([stream(node(1, COMP), node(1, COMP))], {}, "rank 0: node 1.id must be one that no other has, not 1"),
        ([stream(node(1, 9))], {}, "rank 0: node 0.type must be from 0 to 7, not 9"),
        ([stream(node(1, COLL, comm_type=10, comm_size=1))], {}, "rank 0: node 0.comm_type must be from 0 to 9, not 10"),
        ([stream(node(1, COLL, comm_size=1))], {}, "rank 0: node 0.comm_type must be from 0 to 9, not left out"),
        ([stream(node(1, COLL, comm_type=2))], {}, "rank 0: node 0.comm_size must be from 0 to"),
        (
            [stream(node(1, COLL, comm_type=0, comm_size=1, pg_name=b"a"))],
            {}, "rank 0: node 0.pg_name must be a communicator group, not 'a'",
        ),
        (
            [stream(node(1, COLL, comm_type=5, comm_size=1)), stream()],
            {}, "group of all ranks: broadcast 0 must be at rank 1, not missing",
        ),
        (
            [stream(node(1, COLL, comm_type=kind, comm_size=1)) for kind in (2, 7)],
            {}, "rank 1: node 0.comm_type must be 2 as at the other members, not 7",
        ),
        (
            [stream(node(1, COLL, comm_type=6, comm_size=size)) for size in (8, 9)],
            {}, "rank 1: node 0.comm_size must be 8 as at the other members, not 9",
        ),
        (
            [stream(node(1, COLL, comm_type=2, comm_size=1, operations=1 << 30))] * 3,
            {}, "rank 0: node 0.operations must be at most 1073741824 in all its steps, not 2147483648",
        ),
        ([stream(node(1, COMP, micros=None))], {}, "rank 0: node 0.duration_micros must be given, or num_ops"),
        (
            [stream(node(1, COMP, num_ops=5))],
            {}, "rank 0: node 0.duration_micros must be given, or --accelerator for its num_ops, not left out",
        ),
        (
            [stream(node(1, MEM_LOAD, micros=None, tensor_size=5))],
            {}, "rank 0: node 0.duration_micros must be given, or --accelerator for its tensor_size, not left out",
        ),
        (
            [stream(node(1, COMP, micros=None, num_ops=5, is_cpu_op=True))],
            {}, "rank 0: node 0.duration_micros must be given, not left out",
        ),
        (
            [stream(node(1, COLL, comm_type=0, comm_size=1, pg_name=b"a")), stream()],
            {"a": [0, 1]}, "group 'a': all-reduce 0 must be at rank 1, not missing",
        ),
        ([stream()], {"a": [0, 1]}, "group 'a' must be different ranks below 1"),
        ([b"\x05ab"], {}, "rank 0: length must be at most the 2 bytes that follow, not 5"),
        ([b"\xff" * 9], {}, "rank 0: length must be a varint"),
        ([b"\x02\xff\xff"], {}, "rank 0: metadata must be a protobuf GlobalMetadata"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_in_one_line(streams, groups, says):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        chakra.read(streams, groups)
    assert str(error.value).startswith(says)


S, RATE = 1 << 20, 12.5e9


def microseconds(streams, groups=None, **given):
    """Time of an iteration at 100 Gbps and 2 us for each message."""
    graph = chakra.read(streams, groups or {}, **given)
    network = star(graph.devices, RATE, graph.demand_bytes())
    return fluid.run(graph, network, message_latency_ps=2_000_000).makespan_ps / 1e6


def collective(identity, kind, waits=(), **given):
    return node(identity, COLL, waits, None, **({"comm_type": kind, "comm_size": S} | given))


def whole(members):
    """Time of S bytes on a link."""
    return S / RATE * 1e6 * members


@pytest.mark.parametrize("groups", [{"0": [0, 1, 2, 3]}, {"0": []}, {}])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (0, 12 + whole(6 / 4)), (1, 6 + whole(1)), (2, 6 + whole(3 / 4)), (3, 2 + whole(3 / 4)), (4, 2 + whole(3 / 4)),
        (5, 6 + whole(1)), (6, 2 + whole(3 / 4)), (7, 6 + whole(3 / 4)), (8, 6 + whole(3 / 4)), (9, 12),
    ],
)  # fmt: skip
def test_a_collective_takes_as_long_as_its_closed_form(kind, expected, groups):
    """Of all ranks in each way in which that is said; rings, and directly where a ring does not help."""
    name = {"pg_name": b"0"} if groups else {}
    assert microseconds([stream(collective(0, kind, **name))] * 4, groups) == pytest.approx(expected, rel=1e-9)


def test_a_barrier_needs_no_size_and_no_collective_of_no_bytes_takes_time():
    barrier = node(0, COLL, comm_type=9)
    assert microseconds([stream(barrier)] * 2) == 4
    assert microseconds([stream(*(collective(kind, kind, comm_size=0) for kind in range(9)))] * 3) == 0
    assert microseconds([stream(*(collective(kind, kind) for kind in range(10)))]) == 0


def test_collectives_of_groups_wait_for_their_last_member_and_hold_up_what_waits_for_them():
    """Ranks 0 and 1 come late to an all-gather of 8 us + 2 us, and compute after it; the other group is not held up."""
    late = [node(0, COMP, micros=micros) for micros in (7, 30, 1, 1)]
    groups = {"a": [1, 0], "b": [2, 3]}

    def rank(number):
        name = b"a" if number < 2 else b"b"
        return stream(late[number], collective(1, 2, [0], comm_size=200_000, pg_name=name), node(2, COMP, [1], 5))

    graph = chakra.read(map(rank, range(4)), groups)
    schedule = fluid.run(graph, star(4, RATE, graph.demand_bytes()), message_latency_ps=2_000_000)
    last = [schedule.finish_ps[(graph.kind == 0) & (graph.device == number)].max() for number in range(4)]
    assert last == [45_000_000, 45_000_000, 16_000_000, 16_000_000]


def test_every_algorithm_is_exact_where_nothing_but_the_links_limits():
    """Thakur, Rabenseifner and Gropp 2005, sections 4 and 5, on 8 ranks; a link moves one message or several at a time."""
    forms = {
        ("tree", 0): 6 * 2 + whole(6), ("tree", 5): 3 * 2 + whole(3), ("tree", 4): 3 * 2 + whole(7 / 8),
        ("tree", 3): 3 * 2 + whole(7 / 8), ("tree", 2): 6 * 2 + whole(7 / 8 + 3), ("tree", 9): 6 * 2,
        ("direct", 0): 2 * 2 + whole(14 / 8), ("direct", 2): 2 + whole(7 / 8), ("direct", 5): 2 + whole(7),
        ("direct", 1): 2 + whole(7), ("direct", 9): 2 * 2,
        ("halving-doubling", 0): 6 * 2 + whole(14 / 8), ("halving-doubling", 7): 3 * 2 + whole(7 / 8),
        ("halving-doubling", 5): 6 * 2 + whole(14 / 8), ("halving-doubling", 1): 6 * 2 + whole(14 / 8),
        ("halving-doubling", 6): 2 + whole(7 / 8), ("ring", 0): 14 * 2 + whole(14 / 8),
    }  # fmt: skip
    for (algorithm, kind), expected in forms.items():
        found = microseconds([stream(collective(0, kind))] * 8, algorithm=algorithm)
        assert found == pytest.approx(expected, rel=1e-9), (algorithm, kind)


def test_halving_doubling_needs_a_power_of_two_of_members():
    with pytest.raises(ValueError, match=r"^rank 0: node 0.pg_name must have a power of two of members for .*, not 3$"):
        microseconds([stream(collective(0, 2))] * 3, algorithm="halving-doubling")


def test_a_launch_on_the_cpu_is_no_collective_and_runs_beside_the_gpu():
    launch = node(0, COLL, micros=10, is_cpu_op=True)
    assert microseconds([stream(launch, collective(1, 0, [0], is_cpu_op=False))] * 4) == pytest.approx(22 + whole(6 / 4))
    assert microseconds([stream(launch, node(1, COLL, [0], comm_type=9, is_cpu_op=True))] * 2) == 10 + 4
    sends = node(5, SEND, micros=3, is_cpu_op=True)
    assert microseconds([stream(launch, sends, node(1, COMP, micros=12, is_cpu_op=False))]) == 13
    assert microseconds([stream(node(0, COMP, micros=None, is_cpu_op=True), node(1, COMP, [0], 4))]) == 4


def test_an_operator_of_the_cpu_runs_at_once_with_one_of_the_gpu_of_its_rank():
    operators = [node(0, COMP, micros=10, is_cpu_op=True), node(1, COMP, micros=8, is_cpu_op=False), node(2, COMP, micros=8)]
    graph = chakra.read([stream(*operators), stream(*operators)], {})
    schedule = fluid.run(graph, star(graph.devices, RATE, {}))
    assert schedule.makespan_ps == 16_000_000
    assert graph.devices == 4
    assert schedule.finish_ps[graph.device >= 2].tolist() == [10_000_000] * 2


def test_an_invalid_node_hands_on_what_it_waits_for():
    assert microseconds([stream(node(0, COMP, micros=6), node(1, INVALID, [0], None), node(2, COMP, [1], 5))]) == 11


def test_work_without_a_duration_is_on_the_roofline_of_the_accelerator():
    h100 = ACCELERATORS["h100"]
    for given, expected in (
        ({"num_ops": 10**12, "tensor_size": 10**9}, 10**12 / 989.4e6), ({"tensor_size": 10**9}, 10**9 / 3350e3),
        ({"num_ops": 10**12, "tensor_size": 10**10}, 10**10 / 3350e3), ({"num_ops": 0}, 0),
    ):  # fmt: skip
        found = microseconds([stream(node(0, COMP, micros=None, **given))], accelerator=h100)
        assert found == pytest.approx(expected, abs=1e-6)
        assert microseconds([stream(node(0, COMP, micros=9, **given))], accelerator=h100) == 9
    assert microseconds([stream(node(0, MEM_LOAD, micros=0, tensor_size=10**9))], accelerator=h100) == pytest.approx(
        10**9 / 3350e3, abs=1e-6
    )
    with pytest.raises(ValueError, match=r"^rank 0: node 0.tensor_size must be given for a memory access, not left out$"):
        microseconds([stream(node(0, MEM_LOAD, micros=None, num_ops=5))], accelerator=h100)


def test_durations_below_the_microsecond_of_a_profiler_are_zero():
    assert microseconds([stream(node(0, COMP, micros=None, tid=7), node(1, COMP, [0], None, runtime=4))]) == 4


def test_only_value_errors_escape_from_damaged_streams():
    rng = random.Random(2026)
    graph = graph_of(PLANS[4])
    streams, groups = list(chakra.write(graph)), chakra.groups(graph)
    said = []
    for _ in range(150):
        damaged = [bytearray(content) for content in streams]
        for _ in range(rng.randint(1, 4)):
            victim = rng.choice(damaged)
            victim[rng.randrange(len(victim))] = rng.randrange(256)
        try:
            chakra.read(map(bytes, damaged), groups).verify()
        except ValueError as error:
            said.append(str(error))
    assert said
    assert not [text for text in said if "\n" in text], "seed 2026"


def test_what_would_take_too_much_memory_is_refused(monkeypatch):
    monkeypatch.setattr(assembly, "MAX_PARTS", 3)
    monkeypatch.setattr(assembly, "MAX_WAITS", 4)
    nodes = [node(number, COMP) for number in range(4)]
    with pytest.raises(ValueError, match=r"^rank 0: node 3 must be one of at most 3 of all ranks, not one more$"):
        chakra.read([stream(*nodes)], {})
    with pytest.raises(ValueError, match=r"^rank 0: node 1 must wait as one of at most 4 times in all, not more$"):
        chakra.read([stream(node(0, COMP), node(1, COMP, [0] * 5))], {})
    monkeypatch.setattr(assembly, "MAX_WAITS", 400)
    monkeypatch.setattr(assembly, "MAX_MESSAGES", 5)
    with pytest.raises(ValueError, match=r"^rank 0: node 0 must be of collectives of at most 5 messages in all, not more$"):
        chakra.read([stream(collective(0, 6))] * 3, {})
    with pytest.raises(ValueError, match=r"^rank 0: length must be at most 1048576, not 1048577$"):
        chakra.read([stream(bytes(chakra.MAX_NODE_BYTES + 1))], {})


ALL_TO_ALLS = [
    (EXPERTS, Plan(4, 1, 1, 1, ep=4)), (EXPERTS, Plan(4, 2, 2, 1, ep=2, virtual_stages=2)),
    (replace(EXPERTS, expert_skew=1.0), Plan(8, 1, 2, 1, "full", ep=4)), (EXPERTS, Plan(8, 1, 1, 1, ep=8, expert_group=4)),
    (NetworkJobSpec("dlrm", 512, table_rows=(50, 40, 30), table_width=16), Plan(8, 1, 1, 32)),
]  # fmt: skip


def through_chakra(graph):
    return chakra.read(chakra.write(graph), chakra.groups(graph))


def through_goal(graph):
    return goal.read("".join(goal.write(graph)).encode())


@pytest.mark.parametrize("written", [through_chakra, through_goal])
@pytest.mark.parametrize(("job", "plan"), ALL_TO_ALLS)
def test_all_to_alls_are_exported_without_their_barriers(job, plan, written):
    """A rank goes on when it has what is its own, so an iteration is a little faster at most."""
    graph = workload(job, ACCELERATORS["h100"]).task_graph(plan)
    assert (graph.kind == Kind.BARRIER).any()
    back = written(graph)
    assert back.demand_bytes() == graph.demand_bytes()
    network = star(plan.gpus, 1e10, graph.demand_bytes())
    before, after = (fluid.run(each, network).makespan_ps for each in (graph, back))
    assert 0.9 * before < after < 1.001 * before


@pytest.mark.parametrize(("job", "plan"), ALL_TO_ALLS)
def test_a_rank_waits_through_a_barrier_for_its_own_transfers_alone(job, plan):
    """Edge by edge: what waits for a barrier starts at one rank, and meets there what the barrier waits for."""
    graph = workload(job, ACCELERATORS["h100"]).task_graph(plan)

    def parts(task):
        if graph.kind[task] == Kind.ALL_REDUCE:
            return set(graph.group(int(graph.peer[task])).tolist())
        return {int(graph.device[task])} | ({int(graph.peer[task])} if graph.kind[task] == Kind.TRANSFER else set())

    pairs = edges(graph)
    of_barrier = {task: [a for a, b in pairs if b == task] for task in np.flatnonzero(graph.kind == Kind.BARRIER).tolist()}
    expected = set()
    for before, after in pairs:
        starts = parts(after) if graph.kind[after] == Kind.ALL_REDUCE else {int(graph.device[after])}
        if graph.kind[after] != Kind.BARRIER:
            for real in of_barrier.get(before, [before]):
                expected |= {(rank, after, real) for rank in starts & parts(real)}
    found = {(rank, *pair) for rank, here in enumerate(local.ranks(graph)) for pair in here.waits.tolist()}
    assert found == {(rank, after, before) for rank, after, before in expected}


def test_a_barrier_after_a_barrier_is_refused():
    one, two = np.full(2, 3, np.int8), np.full(2, -1, np.int32)
    empty = np.array([], np.int32)
    graph = TaskGraph(
        1, one, two, np.zeros(2, np.int64), two, -two, np.array([0, 1, 1]), np.array([1], np.int32), np.array([0]), empty
    )
    graph.verify()
    with pytest.raises(ValueError, match=r"TaskGraph.kind\[0\] must be no BARRIER before another to be exported"):
        list(chakra.write(graph))


def test_a_graph_with_tasks_that_meet_nowhere_is_refused():
    graph = graph_of(PLANS[3])
    moved = graph.device.copy()
    moved[0] = 2
    with pytest.raises(ValueError, match="must join tasks that meet at a device to be exported, not 0 and 1"):
        list(chakra.write(type(graph)(**{**vars(graph), "device": moved})))
