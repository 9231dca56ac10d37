"""A folded task graph runs as the unfolded one does, to the picosecond, and is as small as the fabric's symmetry lets it."""

from dataclasses import replace

import numpy as np
import pytest

from lightfabric.flows.experiment.fluid import Ring, collective
from lightfabric.model.fluid import engine
from lightfabric.model.spec import (
    ACCELERATORS,
    ChipletSpec,
    ElectricalClusterSpec,
    ElectricalSwitchSpec,
    JobSpec,
    ModelSpec,
    NetworkJobSpec,
)
from lightfabric.model.task import Kind, Part
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.graph.fold import folded
from lightfabric.placement.graph.message import all_to_all, ring_all_reduce
from lightfabric.placement.graph.rings import in_rings
from lightfabric.placement.job.kind import workload
from lightfabric.placement.plan import Plan

MODEL = ModelSpec(layers=4, hidden=512, heads=8, sequence=128, vocabulary=1024)
EXPERTS = replace(MODEL, experts=4, experts_per_token=2)
CHIPLET = ChipletSpec(ports=8, wavelengths_per_port=8, flit_bytes=64, buffer_flits=120)
SWITCH = ElectricalSwitchSpec("switch", "electrical-switch", gpu_gbps=400.0)
ISLANDS = ElectricalClusterSpec(
    "islands", "electrical-cluster", island_gbps=2000.0, nic_gbps=100.0, island_gpus=8, nic_latency_us=1.0
)
PLANS = (
    (MODEL, Plan(dp=8, tp=2, pp=2, micro_batch=1)),
    (MODEL, Plan(dp=4, tp=1, pp=4, micro_batch=1)),
    (MODEL, Plan(dp=2, tp=4, pp=2, micro_batch=1, virtual_stages=2)),
    (EXPERTS, Plan(dp=8, tp=2, pp=1, micro_batch=1, ep=2)),
    (EXPERTS, Plan(dp=8, tp=1, pp=2, micro_batch=1, ep=4, expert_group=2)),
    (EXPERTS, Plan(dp=4, tp=2, pp=2, micro_batch=1, cp=2, ep=4)),
)


def asked(model):
    return workload(JobSpec(model, batch=16), ACCELERATORS["h100"])


def computations(graph, schedule, gpu):
    own = np.flatnonzero((graph.kind == Kind.COMPUTE) & (graph.device == gpu))
    return np.stack([graph.work[own], schedule.start_ps[own], schedule.finish_ps[own]])


def agreed(job, plan, gpu_of_rank, fabric):
    """Compare every GPU and every link with the unfolded run, which shares no code with folding; the folded graph."""
    return compared(job, plan, gpu_of_rank, fabric, fabric.rate_options(plan, job.traffic(plan).placed(gpu_of_rank))[0][1])


def compared(job, plan, gpu_of_rank, fabric, circuits=None):
    whole = in_rings(job.task_graph(plan).placed(gpu_of_rank), fabric.rings)
    network = fabric.network(plan.gpus, whole.demand_bytes(), circuits)
    expected = engine.run(whole, network)
    graph, own_network, alike = folded(job, plan, gpu_of_rank, fabric, circuits)
    schedule = engine.run(graph, own_network, alike=alike)
    assert schedule.makespan_ps == expected.makespan_ps
    np.testing.assert_array_equal(schedule.link_busy_ps, expected.link_busy_ps)
    for gpu, first in enumerate(alike.device.tolist()):
        np.testing.assert_array_equal(computations(graph, schedule, first), computations(whole, expected, gpu))
    for kind in Kind:
        assert alike.copies(graph)[graph.kind == kind].sum() == np.count_nonzero(whole.kind == kind), kind
    return graph, alike


@pytest.mark.parametrize(("model", "plan"), PLANS)
def test_a_folded_iteration_is_the_unfolded_one_on_every_fabric(model, plan, fabric_spec, invented_timing):
    if fabric_spec.kind == "mixnet" and plan.ep > 1:
        pytest.skip("its circuits change with each exchange, and such iterations run unfolded")
    agreed(asked(model), plan, np.arange(plan.gpus, dtype=np.int32), fabric_of(fabric_spec, CHIPLET, invented_timing))


@pytest.mark.parametrize("seed", range(6))
def test_islands_filled_in_any_order_are_folded_only_where_they_are_alike(seed, invented_timing):
    """Ranks are shuffled, or whole replicas, so that some symmetry is left; the last island may not be full."""
    print("seed", seed)
    random = np.random.default_rng(seed)
    model, plan = PLANS[seed % len(PLANS)]
    order = np.arange(plan.gpus, dtype=np.int32).reshape(plan.gpus if seed % 2 else plan.dp, -1)
    islands = replace(ISLANDS, island_gpus=int(random.integers(2, 13)))
    agreed(asked(model), plan, random.permutation(order).ravel(), fabric_of(islands, CHIPLET, invented_timing))


def test_on_an_ideal_switch_one_rank_of_each_stage_stands_for_all(invented_timing):
    model, plan = PLANS[0]
    _, alike = agreed(asked(model), plan, np.arange(plan.gpus, dtype=np.int32), fabric_of(SWITCH, CHIPLET, invented_timing))
    assert set(alike.device.tolist()) == {0, 2}


@pytest.mark.parametrize(("island_gpus", "first"), [(8, {0, 2, 4, 6}), (32, {0, 2})])
def test_on_islands_the_replicas_of_one_stand_for_those_of_all(island_gpus, first, invented_timing):
    """A replica is 4 GPUs next to each other; the rings of gradients leave an island of 8 from one of its two replicas."""
    model, plan = PLANS[0]
    islands = fabric_of(replace(ISLANDS, island_gpus=island_gpus), CHIPLET, invented_timing)
    _, alike = agreed(asked(model), plan, np.arange(plan.gpus, dtype=np.int32), islands)
    assert set(alike.device.tolist()) == first


class OneSlowLink:
    """A fabric one of whose links has half of its rate."""

    def __init__(self, fabric, link):
        self.rings, self._network, self._link = fabric.rings, fabric.network, link

    def network(self, *arguments):
        made = self._network(*arguments)
        rate = made.bytes_per_s.copy()
        rate[self._link] /= 2
        return replace(made, bytes_per_s=rate)


@pytest.mark.parametrize(("spec", "link"), [(SWITCH, 5), (replace(ISLANDS, island_gpus=2), 2 * 32 + 5)])
def test_a_replica_with_a_slower_link_is_run_by_itself(spec, link, invented_timing):
    """Of islands it is a network card, which what the tensor ranks of the replica send to each other never crosses."""
    model, plan = PLANS[0]
    fabric = OneSlowLink(fabric_of(spec, CHIPLET, invented_timing), link)
    _, alike = compared(asked(model), plan, np.arange(plan.gpus, dtype=np.int32), fabric)
    # GPU 5 is in replica 1, whose two tensor ranks differ then, so those of all do.
    assert set(alike.device.tolist()) == {0, 1, 2, 3, 4, 5, 6, 7}


@pytest.mark.parametrize(("network", "ranks"), [("resnet-50", 1), ("dlrm", 16)])
def test_gpus_with_a_replica_each_are_alike_unless_some_own_tables(network, ranks, invented_timing):
    job = workload(NetworkJobSpec(network, batch=64), ACCELERATORS["h100"])
    order = np.arange(16, dtype=np.int32)
    graph, _ = agreed(job, job.plan(16), order, fabric_of(SWITCH, CHIPLET, invented_timing))
    assert len(np.unique(graph.device[graph.kind == Kind.COMPUTE])) == ranks


@pytest.mark.parametrize("program", [ring_all_reduce, all_to_all])
@pytest.mark.parametrize("ranks", [2, 5, 8])
def test_one_rank_of_a_ring_sends_for_all_unless_a_link_is_slower(program, ranks):
    job, plan, order = program(ranks, 1 << 20), Plan(ranks, 1, 1, 1), np.arange(ranks, dtype=np.int32)
    _, alike = compared(job, plan, order, Ring())
    assert set(alike.device.tolist()) == {0}
    _, alike = compared(job, plan, order, OneSlowLink(Ring(), 1))
    assert len(set(alike.device.tolist())) == ranks


def test_collectives_on_a_ring_take_the_times_of_their_closed_forms():
    """2 (n - 1) messages one after the other; or the links forward, which every pair up to half the ring apart crosses."""
    steps, direct = collective("", ring_all_reduce, 64, 1 << 26, 1, 1), collective("", all_to_all, 64, 1 << 30, 1, 1)
    assert steps["seconds"] == pytest.approx(2 * 63 * (500e-9 + (1 << 20) / (50 << 30)), rel=1e-9)
    assert direct["seconds"] == pytest.approx(sum(range(1, 33)) * (1 << 24) / (50 << 30) + 32 * 500e-9, rel=1e-9)
    assert (steps["messages"], direct["messages"]) == (2 * 63 * 64, 63 * 64)


def test_two_hundred_thousand_gpus_take_the_time_of_eight_and_of_the_longer_ring(invented_timing):
    """Of n replicas a ring sends 2 (n - 1) / n of the gradients in 2 (n - 1) messages [Patarasuk and Yuan, JPDC 2009]."""
    fabric, finish_ps = fabric_of(SWITCH, CHIPLET, invented_timing), list[int]()
    for replicas in (2, 50_000):
        job, plan = workload(JobSpec(MODEL, batch=replicas), ACCELERATORS["h100"]), Plan(replicas, 2, 2, 1)
        graph, network, alike = folded(job, plan, np.arange(plan.gpus, dtype=np.int32), fabric)
        finish_ps.append(engine.run(graph, network, alike=alike).makespan_ps)
    size = graph.work[graph.part == Part.DATA].max()
    hops_ps, ps_per_byte = int(network.latency_ps[network.route(0, 4)].sum()), 1e12 / network.bytes_per_s[0]
    more_ps = (2 * 49_999 / 50_000 - 1) * size * ps_per_byte + 2 * 49_998 * hops_ps
    assert finish_ps[1] - finish_ps[0] == pytest.approx(more_ps, abs=2)
