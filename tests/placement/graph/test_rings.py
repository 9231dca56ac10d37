"""All-reduces as a ring for each network card of an island, or both ways round a ring, against closed forms."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from lightfabric.model.fabric.fabric import fabric_of
from lightfabric.model.fluid import engine
from lightfabric.model.spec import ACCELERATORS, ChipletSpec, ElectricalClusterSpec, JobSpec, ModelSpec, SipRingSpec
from lightfabric.model.task import Kind, Part, TaskGraph
from lightfabric.placement.fabric.fabric import fabric_of as placement_fabric
from lightfabric.placement.graph.rings import in_rings
from lightfabric.placement.mapping.order import orders
from lightfabric.placement.mapping.traffic import DATA, PIPELINE, Traffic, ring_load, traffic
from lightfabric.placement.mapping.traffic import in_rings as traffic_in_rings
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import case, cases
from lightfabric.placement.workload.volume import sent_bytes

MODEL = ModelSpec(layers=4, hidden=512, heads=16, sequence=256, vocabulary=1024)
CHIPLET = ChipletSpec(ports=2, wavelengths_per_port=8, flit_bytes=64, buffer_flits=120, reach_m=21.0)


def islands(size, nic_gbps=100.0, island_gbps=2000.0):
    return ElectricalClusterSpec(
        "islands", "electrical-cluster", island_gbps=island_gbps, nic_gbps=nic_gbps, island_gpus=size, nic_latency_us=0.001
    )


def all_reduce(members, size_bytes, gpus):
    """A computation, an all-reduce over some GPUs after it, and a computation after that."""
    return TaskGraph(
        gpus,
        np.array([Kind.COMPUTE, Kind.ALL_REDUCE, Kind.COMPUTE], np.int8),
        np.array([0, members[0], 1], np.int32),
        np.array([1000, size_bytes, 1000]),
        np.array([-1, 0, -1], np.int32),
        np.ones(3, np.int32),
        np.array([0, 1, 2, 2]),
        np.array([1, 2], np.int32),
        np.array([0, len(members)]),
        np.array(members, np.int32),
        np.array([Part.COMPUTE, Part.DATA, Part.OPTIMISER], np.int8),
    )


def uplink_bytes(graph, gpus, island):
    sent = np.zeros(gpus)
    for (source, destination), size in graph.demand_bytes().items():
        sent[source] += size * (source // island != destination // island)
    return sent


@pytest.mark.parametrize(("gpus", "island"), [(16, 8), (64, 8), (1024, 8), (12, 4)])
def test_every_network_card_is_equally_busy_and_the_time_is_that_of_one_share(gpus, island, invented_timing):
    """2 (n - 1) / n of the bytes over the m cards of an island together, which send all the time, and one latency."""
    fabric, size = fabric_of(islands(island), CHIPLET, invented_timing), 1 << 30
    one = all_reduce(range(gpus), size, gpus)
    many = in_rings(one, fabric.rings)
    many.verify()
    sent = uplink_bytes(many, gpus, island)
    assert sent == pytest.approx(np.full(gpus, 2 * (gpus - 1) / gpus * size / island), rel=1e-6)
    assert np.count_nonzero(uplink_bytes(one, gpus, island)) == gpus // island
    network = fabric.network(gpus, many.demand_bytes() | one.demand_bytes())
    nic = float(network.bytes_per_s.min())
    late_ps = int(network.latency_ps[network.route(island - 1, island)].sum())
    seconds = 2 * (gpus - 1) / gpus * size / island / nic
    assert engine.run(many, network).makespan_ps - 2000 == pytest.approx(seconds * 1e12 + late_ps, rel=1e-6)
    faster = engine.run(one, network).makespan_ps / engine.run(many, network).makespan_ps
    assert 0.75 * island <= faster <= island


def test_no_byte_is_lost_where_rings_do_not_divide_them_and_none_starts_early(invented_timing):
    fabric = fabric_of(islands(4), CHIPLET, invented_timing)
    many = in_rings(all_reduce(range(8), 1003, 8), fabric.rings)
    assert many.kind.tolist() == [Kind.COMPUTE] + 4 * [Kind.ALL_REDUCE] + [Kind.COMPUTE]
    assert many.work.tolist() == [1000, 251, 251, 251, 250, 1000]
    assert many.part.tolist() == [Part.COMPUTE] + 4 * [Part.DATA] + [Part.OPTIMISER]
    edges = np.repeat(np.arange(6), np.diff(many.successor_start)), many.successors
    assert list(zip(*(edge.tolist() for edge in edges), strict=True)) == [(0, t) for t in range(1, 5)] + [
        (t, 5) for t in range(1, 5)
    ]
    assert [many.group(ring).tolist() for ring in range(2)] == [[0, 1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 0, 5, 6, 7, 4]]
    assert many.device[1:5].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("members", [[0, 1, 2, 3], [0, 4, 8], [5, 0, 1, 2], [3, 0, 6, 9, 4]])
def test_a_group_on_one_island_or_unequally_on_several_stays_one_ring(members, fabric_spec, invented_timing):
    """As does every group on a fabric without islands, unless it goes all round a ring of fibres."""
    if type(fabric_spec).__module__.endswith(".direct"):
        pytest.skip("its links lead both ways")
    graph = all_reduce(members, 1 << 20, 16)
    assert in_rings(graph, fabric_of(fabric_spec, CHIPLET, invented_timing).rings) is graph


def test_rings_of_a_folded_group_visit_each_island_once(invented_timing):
    rings = fabric_of(islands(4), CHIPLET, invented_timing).rings(np.array([0, 8, 4, 5, 9, 1], np.int32), 16)
    assert [ring.tolist() for ring in rings] == [[0, 1, 4, 5, 8, 9], [1, 0, 5, 4, 9, 8]]


def test_traffic_is_what_the_rings_send_and_what_rates_are_of():
    """Pairs of the task graph and of traffic agree to the rounding of a chunk; a chain beside them is left as it is."""
    fabric, gpus, size = placement_fabric(islands(4), CHIPLET), 16, 16 * 4 * 1000
    ring, each = np.arange(gpus, dtype=np.int32), 2 * (gpus - 1) * size // gpus
    chain = Traffic(*(np.array([value], kind) for value, kind in ((3, "i4"), (4, "i4"), (77, "i8"), (PIPELINE, "i1"))))
    flows = Traffic(ring, np.roll(ring, -1), np.full(gpus, each), np.full(gpus, DATA, np.int8))
    both = Traffic(*(np.concatenate(pair) for pair in zip(vars(chain).values(), vars(flows).values(), strict=True)))
    dealt = traffic_in_rings(both, fabric.rings, gpus)
    assert int(dealt.size_bytes.sum()) == int(both.size_bytes.sum())
    sent = {}
    for source, destination, size_bytes, part in zip(*(column.tolist() for column in vars(dealt).values()), strict=True):
        sent[source, destination] = sent.get((source, destination), 0) + size_bytes * (part == DATA)
    wanted = in_rings(all_reduce(range(gpus), size, gpus), fabric.rings).demand_bytes()
    assert {pair: size for pair, size in sent.items() if size} == pytest.approx(wanted, abs=4)
    assert fabric.bottleneck_seconds(flows, gpus) == pytest.approx(float(Fraction(each, 4)) / fabric.nic_bytes_per_s)


@pytest.mark.parametrize("plan", [Plan(32, 1, 1, 1), Plan(16, 2, 1, 1), Plan(8, 1, 4, 1), Plan(2, 16, 1, 1)])
def test_the_estimated_rate_of_rings_over_islands_is_that_of_all_their_cards(plan):
    """A flat ring has the rate of the four cards of an island together, as its traffic has when it is placed."""
    fabric, job = placement_fabric(islands(4), CHIPLET), JobSpec(MODEL, batch=32)
    placed = traffic(job, plan)
    estimated = fabric.estimated_rates(cases(job, [plan], ACCELERATORS["h100"]))
    found = fabric.rate_options(plan, placed)[0][0]
    if plan.dp == plan.gpus:
        assert estimated.data[0] == pytest.approx(found.data, rel=1e-6)
        assert found.data == pytest.approx(4 * fabric.nic_bytes_per_s, rel=1e-6)
    times = [sum(sent / rate for sent, rate in zip(sent_bytes(case(job, plan)), (r.tensor, r.pipeline, r.data), strict=True))
             for r in (estimated, found)]  # fmt: skip
    assert float(np.ravel(times[0])[0]) <= float(times[1]) * (1 + 1e-6)


RING = SipRingSpec("ring", "sip-ring", max_hops=4)


@pytest.mark.parametrize("gpus", [3, 8, 64])
def test_a_ring_round_all_fibres_is_reduced_both_ways_at_the_rate_of_all_ports(gpus, invented_timing):
    """2 (n - 1) / n of half the bytes at the rate of half the ports; an odd port of the three serves neither way."""
    fabric, size = placement_fabric(RING, replace(CHIPLET, ports=3), invented_timing), 1 << 30
    plan, ring = Plan(gpus, 1, 1, 1), np.arange(gpus, dtype=np.int32)
    each = np.full(gpus, 2 * (gpus - 1) * size // gpus)
    flows = Traffic(ring, np.roll(ring, -1), each, np.full(gpus, DATA, np.int8))
    rates, circuits = fabric.rate_options(plan, flows)[0]
    assert rates.data == pytest.approx(fabric.bytes_per_s)
    assert set(circuits.lanes.values()) == {fabric.chiplet.wavelengths_per_port}
    assert len(circuits.lanes) == 2 * gpus
    graph = in_rings(all_reduce(range(gpus), size, gpus), fabric.rings)
    network = fabric.network(gpus, graph.demand_bytes(), circuits)
    late_ps = 2 * (gpus - 1) * int(network.latency_ps.max())
    seconds = 2 * (gpus - 1) / gpus * size / fabric.bytes_per_s
    assert engine.run(graph, network).makespan_ps - 2000 - late_ps == pytest.approx(seconds * 1e12, rel=1e-3)
    assert fabric.bottleneck_seconds(flows, gpus) == pytest.approx(seconds, rel=1e-9)


@pytest.mark.parametrize("plan", [Plan(4, 4, 2, 1), Plan(2, 8, 2, 1), Plan(16, 1, 2, 1), Plan(5, 2, 3, 1), Plan(8, 4, 1, 1)])
def test_the_bottleneck_of_a_ring_is_what_its_dealt_traffic_sends_over_the_fullest_segment(plan):
    """In every structured order: rings that go all round are dealt, and others lose nothing by being so.

    But for rings through opposite GPUs, a few per cent of whose bytes have two shortest ways.
    """
    fabric, job, counts = placement_fabric(RING, CHIPLET), JobSpec(MODEL, batch=80), set()
    for _, gpu_of_rank in orders(plan, folds=True):
        placed = traffic(job, plan).placed(gpu_of_rank)
        dealt = traffic_in_rings(placed, fabric.rings, plan.gpus)
        counts.add(len(dealt.part) > len(placed.part))
        seconds = float(ring_load(dealt, plan.gpus).max()) / (fabric.bytes_per_s / 2)
        opposite = (2 * (placed.source - placed.destination)) % (2 * plan.gpus) == plan.gpus
        assert fabric.bottleneck_seconds(placed, plan.gpus) == pytest.approx(seconds, rel=0.02 if opposite.any() else 1e-6)
    assert counts == {False, True} or plan.dp == 2


def test_the_estimate_of_data_all_round_a_ring_is_what_its_circuits_give():
    fabric, job, plan = placement_fabric(RING, CHIPLET), JobSpec(MODEL, batch=32), Plan(32, 1, 1, 1)
    estimated = fabric.estimated_rates(cases(job, [plan], ACCELERATORS["h100"]))
    assert estimated.data.tolist() == pytest.approx([fabric.bytes_per_s])
    assert fabric.rate_options(plan, traffic(job, plan))[0][0].data == pytest.approx(fabric.bytes_per_s)
