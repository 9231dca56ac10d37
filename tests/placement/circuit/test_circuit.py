"""Wavelengths and circuits: never more than there are, the best there is, and settings that switches can hold."""

from collections import Counter
from itertools import pairwise, product

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lightfabric.model.circuit import Circuits, Ways
from lightfabric.model.spec import ACCELERATORS, ChipletSpec, JobSpec, ModelSpec, SipOcsSpec, SipRingSpec
from lightfabric.placement.circuit.assign import permutations
from lightfabric.placement.circuit.demand import Demand
from lightfabric.placement.circuit.wavelength import Ring, without_reuse
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.mapping.order import best_order
from lightfabric.placement.mapping.traffic import ring_steps, traffic
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import cases

OCS = SipOcsSpec("ocs", "sip-ocs")
CHIPLET = ChipletSpec()


def ring(max_hops):
    return SipRingSpec("ring", "sip-ring", max_hops=max_hops)


def chiplet(ports, wavelengths):
    return ChipletSpec(ports=ports, wavelengths_per_port=wavelengths, wavelength_gbps=10.0)


def assign(fabric, made, gpus, demand):
    return fabric_of(fabric, made).assign(gpus, demand)


@st.composite
def demands(draw, most_gpus=12, most_pairs=16):
    gpus = draw(st.integers(2, most_gpus))
    pair = st.tuples(st.integers(0, gpus - 1), st.integers(0, gpus - 1)).filter(lambda p: p[0] != p[1])
    return gpus, draw(st.dictionaries(pair, st.integers(1, 1000), min_size=1, max_size=most_pairs))


def covered(source, destination, gpus):
    """Direction and segments of an arc, one by one."""
    steps = int(ring_steps(np.array([source], np.int32), np.array([destination], np.int32), gpus)[0])
    return [(int(steps < 0), (source + k if steps > 0 else source - 1 - k) % gpus) for k in range(abs(steps))]


def leg_demand(circuits, demand):
    load = dict.fromkeys(circuits.lanes, 0)
    for pair, size in demand.items():
        for leg in pairwise(circuits.stops[pair]):
            load[leg] += size
    return load


def least_ratio(circuits, demand):
    return min(circuits.lanes[leg] / size for leg, size in leg_demand(circuits, demand).items())


@given(demands(), st.integers(1, 6), st.sampled_from([(2, 1), (2, 4), (4, 2), (8, 16)]))
def test_no_segment_carries_more_wavelengths_than_it_has(case, max_hops, size):
    gpus, demand = case
    circuits = assign(ring(max_hops), chiplet(*size), gpus, demand)
    used = np.zeros((2, gpus), int)
    for (source, destination), lanes in circuits.lanes.items():
        assert lanes >= 1
        arc = covered(source, destination, gpus)
        assert len(arc) <= max_hops
        for side, segment in arc:
            used[side, segment] += lanes
    assert used.max() <= size[0] // 2 * size[1]


@given(demands(), st.integers(1, 6))
def test_stops_lead_from_source_to_destination_along_circuits(case, max_hops):
    gpus, demand = case
    for fabric, made in ((ring(max_hops), chiplet(4, 4)), (OCS, chiplet(16, 1))):
        circuits = assign(fabric, made, gpus, demand)
        assert set(circuits.stops) == set(demand)
        for pair, path in circuits.stops.items():
            assert (path[0], path[-1]) == pair
            assert all(leg in circuits.lanes for leg in pairwise(path))


@given(demands(), st.integers(1, 6))
def test_a_relayed_pair_goes_the_shorter_way_in_even_legs(case, max_hops):
    gpus, demand = case
    for pair, path in assign(ring(max_hops), CHIPLET, gpus, demand).stops.items():
        lengths = [len(covered(*leg, gpus)) for leg in pairwise(path)]
        assert sum(lengths) == len(covered(*pair, gpus))
        assert max(lengths) - min(lengths) <= 1


@settings(max_examples=40, deadline=None)
@given(demands(most_gpus=6, most_pairs=4))
def test_the_ring_is_shared_as_well_as_brute_force_can(case):
    gpus, demand = case
    capacity = 4
    circuits = assign(ring(3), chiplet(2, capacity), gpus, demand)
    legs = leg_demand(circuits, demand)
    arcs = [covered(*leg, gpus) for leg in legs]
    best = 0.0
    for lanes in product(range(1, capacity + 1), repeat=len(legs)):
        used = {}
        for arc, each in zip(arcs, lanes, strict=True):
            for place in arc:
                used[place] = used.get(place, 0) + each
        if max(used.values()) <= capacity:
            best = max(best, min(each / size for each, size in zip(lanes, legs.values(), strict=True)))
    assert least_ratio(circuits, demand) == pytest.approx(best)


@settings(max_examples=40, deadline=None)
@given(demands(most_gpus=5, most_pairs=5))
def test_ports_are_shared_as_well_as_brute_force_can(case):
    gpus, demand = case
    ports = 5
    circuits = assign(OCS, chiplet(ports, 1), gpus, demand)
    best = 0.0
    for lanes in product(range(1, ports + 1), repeat=len(demand)):
        out, into = np.zeros(gpus, int), np.zeros(gpus, int)
        for (source, destination), each in zip(demand, lanes, strict=True):
            out[source] += each
            into[destination] += each
        if max(out.max(), into.max()) <= ports:
            best = max(best, min(each / size for each, size in zip(lanes, demand.values(), strict=True)))
    assert least_ratio(circuits, demand) == pytest.approx(best)


@settings(deadline=None)
@given(demands(most_gpus=8, most_pairs=8))
@example((4, {(0, 1): 1, (0, 2): 126, (0, 3): 1, (2, 0): 1}))
def test_reuse_on_disjoint_segments_is_never_worse_than_none(case):
    """Without reuse (Mordia) all circuits of a direction share one fibre's wavelengths: the best is total / demand."""
    gpus, demand = case
    capacity = 64
    circuits = assign(ring(gpus), CHIPLET, gpus, demand)
    without = []
    for side in (0, 1):
        sizes = [size for pair, size in demand.items() if covered(*pair, gpus)[0][0] == side]
        shares = [max(1, capacity * size // sum(sizes)) for size in sizes]
        # Without reuse a direction that its pairs overfill can serve none of them, and there is nothing to compare.
        assume(sum(shares) <= capacity)
        without += [share / size for share, size in zip(shares, sizes, strict=True)]
    assert least_ratio(circuits, demand) >= min(without, default=0) * (1 - 1e-12)


def test_neighbours_reuse_all_wavelengths_on_every_segment():
    demand = {(g, (g + 1) % 8): 100 for g in range(8)}
    assert set(assign(ring(16), CHIPLET, 8, demand).lanes.values()) == {64}


def test_a_ring_without_a_fibre_each_way_says_so():
    with pytest.raises(ValueError, match=r"needs 1 wavelengths each way .* not the 0 that 1 ports give"):
        assign(ring(4), chiplet(1, 4), 4, {(0, 1): 1})


def test_circuits_are_shortened_when_wavelengths_run_out():
    demand = {(g, (g + 3) % 12): 5 for g in range(12)}
    circuits = assign(ring(3), chiplet(2, 1), 12, demand)
    assert all((destination - source) % 12 == 1 for source, destination in circuits.lanes)
    assert circuits.stops[0, 3] == (0, 1, 2, 3)


def test_a_pair_without_a_port_is_relayed_along_the_fewest_circuits():
    demand = {(g, (g + 1) % 6): 100 for g in range(6)} | {(0, 2): 1}
    circuits = assign(OCS, chiplet(1, 1), 6, demand)
    assert circuits.stops[0, 2] == (0, 1, 2)
    assert circuits.lanes == {(g, (g + 1) % 6): 1 for g in range(6)}


def test_a_pair_that_no_circuits_reach_says_how_many_ports_it_takes():
    demand = {(0, 1): 9, (1, 0): 9, (0, 2): 1}
    with pytest.raises(ValueError, match="GPU 0 cannot reach GPU 2: 2 ports would give every pair its circuit, not the 1"):
        assign(OCS, chiplet(1, 1), 4, demand)


@pytest.mark.parametrize(("gpus", "ports"), [(6, 1), (12, 4), (16, 8), (30, 4), (64, 8), (101, 4), (256, 8)])
def test_an_all_to_all_beyond_the_ports_is_relayed_over_few_circuits(gpus, ports):
    """Moore 1958: at most ports^k GPUs are k circuits away, so that some paths are as long, and circuits carry so much."""
    demand = {(a, b): 5 for a in range(gpus) for b in range(gpus) if a != b}
    circuits = assign(OCS, chiplet(ports, 1), gpus, demand)
    for side in (0, 1):
        assert max(Counter(pair[side] for pair, lanes in circuits.lanes.items() for _ in range(lanes)).values()) <= ports
    near = [hops for hops in range(1, gpus) for _ in range(min(ports**hops, gpus))][: gpus - 1]
    longest = max(len(path) - 1 for path in circuits.stops.values())
    assert longest <= 2 * max(near)
    load = leg_demand(circuits, demand)
    assert max(load[leg] / lanes for leg, lanes in circuits.lanes.items()) <= 2 * 5 * sum(near) / ports


def test_owners_of_tables_reach_all_and_are_reached():
    """Only two of twelve GPUs send to all others."""
    demand = {(a, b): 1 + a for a in range(12) for b in range(12) if a != b and (a < 2 or b < 2)}
    circuits = assign(OCS, chiplet(3, 1), 12, demand)
    assert set(circuits.stops) == set(demand)
    assert all(leg in circuits.lanes for path in circuits.stops.values() for leg in pairwise(path))
    assert max(len(path) - 1 for path in circuits.stops.values()) <= 4


def test_nothing_to_send_needs_nothing():
    assert assign(ring(4), CHIPLET, 4, {(0, 0): 5, (1, 2): 0}) == Circuits({}, {})


@given(demands(most_gpus=10, most_pairs=30), st.integers(10, 16))
def test_permutations_hold_every_circuit_once(case, ports):
    gpus, demand = case
    circuits = assign(OCS, chiplet(ports, 1), gpus, demand)
    settings_ = permutations(circuits, gpus, ports)
    assert settings_.shape == (ports, gpus)
    assert (np.sort(settings_, axis=1) == np.arange(gpus)).all()
    for (source, destination), lanes in circuits.lanes.items():
        assert (settings_[:, source] == destination).sum() >= lanes


@given(st.integers(2, 9), st.integers(1, 6), st.randoms(use_true_random=False))
def test_any_regular_multigraph_is_coloured_with_as_many_switches_as_ports(gpus, ports, random):
    lanes = {}
    for _ in range(ports):
        to = random.sample(range(gpus), gpus)
        for source, destination in enumerate(to):
            lanes[source, destination] = lanes.get((source, destination), 0) + 1
    order = random.sample(sorted(lanes), len(lanes))
    settings_ = permutations(Circuits({pair: lanes[pair] for pair in order}, {}), gpus, ports)
    graph = nx.MultiDiGraph([(g, int(to)) for row in settings_ for g, to in enumerate(row)])
    assert {pair: graph.number_of_edges(*pair) for pair in lanes} == lanes


def test_more_circuits_than_ports_name_the_gpu():
    with pytest.raises(ValueError, match="more circuits from GPU 3 than the 2 ports"):
        permutations(Circuits({(3, 0): 2, (3, 1): 1}, {}), 4, 2)
    with pytest.raises(ValueError, match="more circuits to GPU 0 than the 2 ports"):
        permutations(Circuits({(3, 0): 2, (1, 0): 1}, {}), 4, 2)


@pytest.mark.parametrize("fabric", [ring(16), OCS], ids=lambda fabric: fabric.kind)
def test_every_pair_of_a_thousand_gpus_is_served(fabric):
    job = JobSpec(ModelSpec(layers=96, hidden=12288, heads=96, sequence=2048, vocabulary=51200), batch=1536)
    plan = Plan(8, 4, 32, 1)
    flows = traffic(job, plan)
    flows = flows.placed(best_order(fabric_of(fabric, CHIPLET), plan, flows).gpu_of_rank)
    pairs = zip(flows.source.tolist(), flows.destination.tolist(), strict=True)
    demand = dict(zip(pairs, flows.size_bytes.tolist(), strict=True))
    circuits = assign(fabric, CHIPLET, 1024, demand)
    assert len(circuits.stops) == len(demand)


def test_an_all_to_all_has_the_rate_of_its_busiest_gpu_one_way():
    """Popular experts on circuits of a port each: what goes to the first GPU comes by as many lanes as there are others."""
    model = ModelSpec(layers=4, hidden=256, heads=8, sequence=128, vocabulary=1024, experts=8, experts_per_token=2)
    job, plan = JobSpec(model, batch=16, expert_skew=1.0), Plan(4, 1, 1, 1, ep=4)
    three_ports = chiplet(3, 8)
    for rates, circuits in fabric_of(OCS, three_ports).rate_options(plan, traffic(job, plan)):
        assert set(circuits.lanes.values()) == {1}
        assert rates.expert == pytest.approx(3 * three_ports.gbps_per_port * 1e9 / 8)


def test_peers_of_an_exchange_are_relayed_by_each_other_as_evenly_as_those_of_a_ring():
    """Circuits to the next four of seven peers, and two each for the other three; no circuit has more than four pairs."""
    peers = [(a, b) for a, b in product(range(16), repeat=2) if a != b and a // 8 == b // 8]
    circuits = assign(OCS, chiplet(4, 8), 16, dict.fromkeys(peers, 1000))
    load = Counter(leg for path in circuits.stops.values() for leg in pairwise(path))
    assert set(load) == {(a, b) for a, b in peers if 1 <= (b - a) % 8 <= 4}
    assert Counter(len(path) - 1 for path in circuits.stops.values()) == {1: 64, 2: 48}
    assert max(load.values()) <= 4


def test_gradients_reach_other_groups_of_experts_where_the_ports_are_too_few_for_all_peers():
    """Each group of eight peers would use all four ports, and the ring through all groups could go nowhere."""
    model = ModelSpec(layers=4, hidden=512, heads=8, sequence=1024, vocabulary=1024, experts=8, experts_per_token=2)
    job, plan = JobSpec(model, batch=2048), Plan(32, 1, 1, 1, ep=8)
    made = fabric_of(OCS, chiplet(4, 8))
    options = made.rate_options(plan, traffic(job, plan))
    assert options
    for rates, circuits in options:
        assert 0 < rates.data < np.inf
        assert 0 < rates.expert < np.inf
        assert np.bincount([a for a, _ in circuits.lanes], list(circuits.lanes.values())).max() <= 4


@given(demands())
@settings(max_examples=60)
def test_without_reuse_a_wavelength_is_of_one_pair_all_the_way_round(case):
    """Never more lanes each way than there are, and the least lanes / bytes of the formulation that tries all ratios."""
    gpus, demand = case
    assume(gpus > 2)
    max_hops = (gpus - 1) // 2
    steps = {pair: int(ring_steps(*(np.array([end], np.int32) for end in pair), gpus)[0]) for pair in demand}
    assume(all(abs(step) <= max_hops for step in steps.values()))
    spec = SipRingSpec("ring", "sip-ring", max_hops=max_hops, reuse=False)
    pairs = list(demand)
    rows = Demand(gpus, *(np.array(side) for side in zip(*pairs, strict=True)), np.array(list(demand.values())))
    best = without_reuse(Ring(gpus, 2, 8, max_hops), rows).value
    try:
        circuits = assign(spec, chiplet(4, 8), gpus, demand)
    except ValueError:
        assert best == 0
        return
    for way in (1, -1):
        assert sum(lanes for pair, lanes in circuits.lanes.items() if steps[pair] * way > 0) <= 16
    assert min(circuits.lanes[pair] / size for pair, size in demand.items()) == pytest.approx(best)


def test_the_rates_estimated_without_reuse_are_those_of_a_ring_of_all_gpus():
    """Each of the pairs has an equal part of the wavelengths of both ways together."""
    job, plan = JobSpec(ModelSpec(layers=4, hidden=512, heads=8, sequence=256, vocabulary=1024), batch=64), Plan(16, 1, 1, 1)
    made = fabric_of(SipRingSpec("ring", "sip-ring", reuse=False), chiplet(4, 16))
    estimated = made.estimated_rates(cases(job, [plan], ACCELERATORS["h100"]))
    assert estimated.data.tolist() == pytest.approx([made.bytes_per_s / 16])
    placed = traffic(job, plan)
    assert made.rate_options(plan, placed)[0][0].data == pytest.approx(made.bytes_per_s / 16)
    assert made.bottleneck_seconds(placed, 16) == pytest.approx(placed.size_bytes.sum() / made.bytes_per_s)


@pytest.mark.parametrize("ocs", [1, 2, 4, 8])
def test_fewer_switches_have_wider_circuits(ocs):
    """A ring has all ports however many switches there are; two partners share them if there are two switches or more."""
    made = fabric_of(SipOcsSpec("ocs", "sip-ocs", ocs=ocs), chiplet(8, 8))
    ring_of_all = {(a, (a + 1) % 6): 1000 for a in range(6)}
    assert set(made.assign(6, ring_of_all).lanes.values()) == {8}
    both = ring_of_all | {(a, (a - 1) % 6): 1000 for a in range(6)}
    if ocs == 1:
        assert max(map(len, made.assign(6, both).stops.values())) == 6
    else:
        assert set(made.assign(6, both).lanes.values()) == {4}


def test_ports_that_switches_cannot_share_out_are_said():
    made = fabric_of(SipOcsSpec("ocs", "sip-ocs", ocs=3), chiplet(8, 8))
    with pytest.raises(ValueError, match=r"^ChipletSpec.ports must be a multiple of the 3 switches of ocs, not 8$"):
        _ = made.bytes_per_s


def test_ways_read_as_the_dictionary_that_they_are_of():
    stops = {(3, 1): (3, 0, 2, 1), (0, 1): (0, 1), (1, 3): (1, 2, 3)}
    ways = Ways.of(stops)
    assert ways == stops
    assert (list(ways), len(ways)) == (list(stops), 3)
    assert (3, 0) not in ways
    assert ways.among(np.array([1, 3]), np.array([3, 1])) == {(1, 3): (1, 2, 3), (3, 1): (3, 0, 2, 1)}
    assert list(ways.among(np.array([1, 3]), np.array([3, 1]))) == [(1, 3), (3, 1)]
    with pytest.raises(KeyError, match=r"\(2, 3\)"):
        ways.among(np.array([3, 2]), np.array([1, 3]))
