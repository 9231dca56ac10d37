"""Circuits that change during an iteration: what traffic waits for, in the fluid and in the cycle model."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from lightfabric.model.circuit import Circuits
from lightfabric.model.fluid import engine
from lightfabric.model.fluid.attribution import attribution
from lightfabric.model.spec import (
    ACCELERATORS,
    ChipletSpec,
    JobSpec,
    ModelSpec,
    NetworkJobSpec,
    PhotonicRailsSpec,
    PlanSpec,
    SipOcsSpec,
    SipRingSpec,
)
from lightfabric.model.task import Kind, Part
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.graph.fold import unfolded
from lightfabric.placement.graph.iteration import task_graph
from lightfabric.placement.job.kind import workload
from lightfabric.placement.mapping.traffic import traffic
from lightfabric.placement.place import candidates
from lightfabric.placement.plan import Plan

CHIPLET = ChipletSpec(ports=4, wavelengths_per_port=8)
JOB = JobSpec(
    ModelSpec(layers=4, hidden=512, heads=8, sequence=256, vocabulary=1024, experts=4, experts_per_token=2), batch=16
)
PLAN = Plan(4, 2, 2, 2, ep=2)
H100 = ACCELERATORS["h100"]
OCS = SipOcsSpec("ocs", "sip-ocs", reconfigure="collective", control_us=1.0, switching_us=2.0, receiver_us=0.5)
RING = SipRingSpec("ring", "sip-ring", reconfigure="collective", ring_lock_us=3.0)


def placed_on(spec, timing, plan=PLAN, chiplet=CHIPLET):
    """The graph of a plan as it is, and as it runs on the fabric with the last of the circuits that placement considers."""
    fabric, graph = fabric_of(spec, chiplet, timing), task_graph(JOB, H100, plan)
    circuits = fabric.rate_options(plan, traffic(JOB, plan))[-1][1]
    return fabric, circuits, graph, fabric.reconfigured(graph, circuits)


def passed(graph, circuits, gpus):
    """GPUs, configuration and number of each task that sends bytes, one after the other."""
    for task in np.flatnonzero((graph.work > 0) & np.isin(graph.kind, (Kind.TRANSFER, Kind.ALL_REDUCE))).tolist():
        ring = graph.kind[task] == Kind.ALL_REDUCE
        ends = graph.group(graph.peer[task]).tolist() if ring else [int(graph.device[task]), int(graph.peer[task])]
        ways = zip(ends, ends[1:] + ends[:1], strict=True) if ring else [ends]
        nodes = {stop for way in ways for stop in circuits.stops[tuple(way)]}
        yield {node % gpus for node in nodes}, min(nodes) // gpus, task


@pytest.mark.parametrize("spec", [OCS, RING, replace(OCS, reconfigure="phase"), replace(RING, reconfigure="phase")])
def test_ports_are_dark_between_traffic_of_different_circuits(spec, invented_timing):
    """At each GPU that tasks of different configurations pass, on a ring at any; and dark no longer than they must be."""
    fabric, circuits, graph, made = placed_on(spec, invented_timing)
    gpus, dark_ps = graph.devices, fabric.dark_ps(graph.devices, circuits)
    made.verify()
    schedule = engine.run(made, fabric.network(made.devices, made.demand_bytes(), circuits))
    start, finish = schedule.start_ps, schedule.finish_ps
    found = list(passed(made, circuits, gpus))
    seen = 0
    for (here, one, a), (there, other, b) in combinations(found, 2):
        if one != other and (here & there or spec is RING):
            seen += 1
            assert start[b] >= finish[a] + dark_ps or start[a] >= finish[b] + dark_ps
    assert seen > 0
    turns = np.flatnonzero(made.part == Part.RECONFIGURATION)
    assert (finish[turns] - start[turns] == dark_ps).all()
    ends = {int(finish[task]) for _, _, task in found}
    assert {int(start[turn]) for turn in turns} <= ends


@pytest.mark.parametrize("spec", [OCS, RING])
def test_no_byte_is_lost_and_all_ports_are_back_where_they_began(spec, invented_timing):
    _, circuits, graph, made = placed_on(spec, invented_timing)
    sent = {}
    for (source, destination), size in made.demand_bytes().items():
        pair = source % graph.devices, destination % graph.devices
        sent[pair] = sent.get(pair, 0) + size
    wanted = graph.demand_bytes()
    assert sum(sent.values()) == sum(wanted.values())
    assert sent == wanted
    turns = np.bincount(made.device[made.part == Part.RECONFIGURATION], minlength=made.devices)
    # One between any two runs, and one more if the last run is of other circuits than the first.
    assert turns.sum() > (graph.devices if spec is OCS else 2)
    assert turns[: graph.devices].sum() == 0
    kept = made.kind[: len(graph)]
    assert np.array_equal(kept, graph.kind)
    assert np.array_equal(made.work[: len(graph)], graph.work)
    assert circuits.configurations == 3


def test_circuits_that_stay_leave_the_graph_as_it_is(invented_timing):
    for spec in (OCS, RING):
        ports = replace(CHIPLET, ports=8)
        _, circuits, graph, made = placed_on(replace(spec, reconfigure="never"), invented_timing, chiplet=ports)
        assert made is graph
        assert circuits.configurations == 1
    # One kind of traffic needs no other circuits.
    _, circuits, graph, made = placed_on(OCS, invented_timing, Plan(16, 1, 1, 1))
    assert made is graph


def test_circuits_of_a_configuration_are_those_of_its_traffic_alone(invented_timing):
    """Gradients have all ports when nothing else is under way, and so has what goes between stages."""
    fabric, circuits, _, _ = placed_on(OCS, invented_timing)
    flows, gpus = traffic(JOB, PLAN), PLAN.gpus
    for number, parts in enumerate([(Part.TENSOR, Part.EXCHANGE), (Part.PIPELINE,), (Part.DATA,)]):
        own = circuits.only(number, gpus)
        mine = np.isin(flows.part, parts)
        pairs = set(zip(flows.source[mine].tolist(), flows.destination[mine].tolist(), strict=True))
        assert set(own.stops) == pairs
        assert max(np.bincount([a for a, _ in own.lanes], [*own.lanes.values()])) <= CHIPLET.ports
    rates = fabric.rate_options(PLAN, flows)[0][0]
    assert rates.pipeline == pytest.approx(fabric.bytes_per_s)


def test_dark_time_is_the_sum_of_the_delays_and_of_the_training_of_the_line(invented_timing):
    """Training takes a cycle, a cycle to the first flit, and one for each cycle of delay over two fibres of 20 m."""
    circuits = Circuits({(0, 1): 1}, {(0, 1): (0, 1)})
    fabric, cycle_ps = fabric_of(OCS, CHIPLET, invented_timing), CHIPLET.cycle_ps
    assert fabric.dark_ps(2, circuits) == pytest.approx(3.5e6 + 2 * cycle_ps + 40 * 4900, rel=0.01)
    assert fabric_of(OCS, CHIPLET).dark_ps(2, circuits) == 3_500_000


@pytest.mark.parametrize("switching_us", [100.0, 500.0])
def test_the_dark_is_part_of_the_time_of_an_iteration(switching_us, invented_timing):
    """After the passes once, and back in the place of the optimiser if it takes longer."""
    plan, spec = Plan(4, 2, 1, 2), replace(OCS, reconfigure="phase", switching_us=switching_us)
    fabric, circuits, graph, made = placed_on(spec, invented_timing, plan)
    network = fabric.network(made.devices, made.demand_bytes(), circuits)
    schedule = engine.run(made, network)
    found, dark_ps = attribution(made, network, schedule), fabric.dark_ps(plan.gpus, circuits)
    assert sum(found.values()) == schedule.makespan_ps
    optimiser_ps = int(graph.work[graph.part == Part.OPTIMISER].max())
    assert (dark_ps > optimiser_ps) == (switching_us == 500.0)
    assert found["reconfiguration"] == (2 if dark_ps > optimiser_ps else 1) * dark_ps
    assert found["optimiser"] == (0 if dark_ps > optimiser_ps else optimiser_ps)


@pytest.mark.parametrize("spec", [OCS, replace(OCS, reconfigure="phase"), replace(RING, reconfigure="phase")])
def test_what_is_predicted_to_wait_for_light_is_at_most_what_is_simulated(spec, invented_timing):
    fabric, predicted = fabric_of(replace(spec, receiver_us=50.0), CHIPLET, invented_timing), list[float]()
    for placed in candidates(JOB, H100, fabric, 16):
        made = fabric.reconfigured(task_graph(JOB, H100, placed.plan).placed(placed.gpu_of_rank), placed.circuits)
        at_once = replace(made, work=np.where(made.part == Part.RECONFIGURATION, 0, made.work))
        network = fabric.network(made.devices, made.demand_bytes(), placed.circuits)
        dark_ps, light_ps = (engine.run(each, network).makespan_ps for each in (made, at_once))
        predicted.append(placed.prediction.reconfiguration)
        assert predicted[-1] * 1e12 <= (dark_ps - light_ps) * (1 + 1e-6) + 1
    assert max(predicted) > 50e-6


@pytest.mark.parametrize("policy", ["never", "phase", "collective"])
def test_groups_of_experts_are_joined_where_the_largest_demands_alone_would_part_them(policy, invented_timing):
    """Each GPU has as many peers in its group as ports, and sends less to its peers in the others."""
    job = replace(JOB, model=replace(JOB.model, experts=16), batch=64)
    fabric, plan = (
        fabric_of(replace(OCS, reconfigure=policy), replace(CHIPLET, ports=3), invented_timing),
        Plan(16, 1, 1, 1, ep=16),
    )
    plan = replace(plan, expert_group=4)
    flows = traffic(job, plan)
    wanted = set(zip(flows.source.tolist(), flows.destination.tolist(), strict=True))
    for rates, circuits in fabric.rate_options(plan, flows):
        assert {(a % 16, b % 16) for a, b in circuits.stops} == wanted
        assert min(rates.tensor, rates.data, rates.expert) > 0


@pytest.mark.parametrize(
    "spec", [OCS, RING, PhotonicRailsSpec("rails", "photonic-rails", island_gbps=2048.0, island_gpus=4)]
)
def test_a_recommender_is_predicted_to_wait_for_light_behind_its_last_exchange(spec, invented_timing):
    """Tables are updated meanwhile, which takes 4 us, and the optimiser 0.12 ms while ports turn back."""
    job, spec = NetworkJobSpec("dlrm", 8192), replace(spec, reconfigure="phase", receiver_us=400.0)
    fabric = fabric_of(spec, replace(CHIPLET, ports=8), invented_timing)
    placed = candidates(job, H100, fabric, 16)[0]
    made = fabric.reconfigured(unfolded(workload(job, H100), placed.plan, placed.gpu_of_rank, fabric), placed.circuits)
    network, light_ps = fabric.network(made.devices, made.demand_bytes(), placed.circuits), made.part != Part.RECONFIGURATION
    waits_ps = (
        engine.run(made, network).makespan_ps - engine.run(replace(made, work=made.work * light_ps), network).makespan_ps
    )
    assert waits_ps > 6e8
    assert waits_ps - 5e6 <= placed.prediction.reconfiguration * 1e12 <= waits_ps


def best_of(policy, switching_us, timing):
    """Where the time of an iteration goes of 16 GPUs that exchange with all others, and how long it is predicted to take."""
    model = ModelSpec(layers=4, hidden=1024, heads=8, sequence=1024, vocabulary=1024, experts=16, experts_per_token=4)
    job, spec = JobSpec(model, batch=64), replace(OCS, reconfigure=policy, switching_us=switching_us)
    fabric = fabric_of(spec, ChipletSpec(ports=8, wavelengths_per_port=8), timing)
    placed = candidates(job, H100, fabric, 16, pinned=PlanSpec(tp=1, pp=1, ep=16))[0]
    made = fabric.reconfigured(task_graph(job, H100, placed.plan).placed(placed.gpu_of_rank), placed.circuits)
    network = fabric.network(made.devices, made.demand_bytes(), placed.circuits)
    found = attribution(made, network, engine.run(made, network))
    assert sum(found.values()) == pytest.approx(placed.prediction.total * 1e12, rel=0.03)
    return found


def test_an_exchange_in_steps_has_all_ports_in_each_of_them(invented_timing):
    """All together 15 partners share 8 ports, and relay; in 15 steps each has 8, in two they have one each."""
    bytes_alone = {policy: best_of(policy, 0.0, invented_timing) for policy in ("collective", "inside")}
    assert bytes_alone["inside"]["exchange"] == pytest.approx(
        15 / 16 * 2 / 3 * bytes_alone["collective"]["exchange"], rel=0.02
    )
    # Four layers, forward and back, there and back: 16 exchanges. The last turn is that to gradients.
    slower = best_of("inside", 40.0, invented_timing)
    dark_ps = pytest.approx(41.5e6 + 0.2e6, rel=0.01)
    assert slower["reconfiguration"] / 17 == dark_ps
    assert slower["exchange"] == pytest.approx(2 / 3 * bytes_alone["collective"]["exchange"], rel=0.02)
    assert best_of("inside", 4000.0, invented_timing) == best_of("collective", 4000.0, invented_timing)


def test_circuits_by_the_clock_are_lit_for_their_share_of_the_time(invented_timing):
    """Three configurations in turn, lit for four fifths: two steps of the exchange, then gradients."""
    found = best_of("periodic", 10.0, invented_timing)
    moved = found["exchange"] + found["data"]
    assert moved + found["reconfiguration"] == pytest.approx(3 * 5 / 4 * moved, rel=0.05)
    assert found["contention"] < 0.01 * moved
