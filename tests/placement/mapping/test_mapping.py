"""Orders of ranks: permutations, bounds and the closed forms of their costs; then whole placements of the examples."""

import tomllib
from importlib.resources import files

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightfabric.model.spec import (
    ACCELERATORS,
    AcceleratorSpec,
    ChipletSpec,
    ElectricalClusterSpec,
    ElectricalSwitchSpec,
    FatTreeSpec,
    JobSpec,
    ModelSpec,
    SipOcsSpec,
    SipRingSpec,
    StudySpec,
)
from lightfabric.placement.circuit.assign import permutations
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.graph.iteration import task_graph
from lightfabric.placement.mapping.order import best_order, fold, orders, strides
from lightfabric.placement.mapping.traffic import (
    Traffic,
    ring_steps,
    segment_load,
    traffic,
)
from lightfabric.placement.place import candidates
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.memory import DoesNotFit
from lightfabric.placement.workload.volume import volume

JOB = JobSpec(ModelSpec(layers=8, hidden=256, heads=8, sequence=128, vocabulary=1024), batch=64)
CHIPLET = ChipletSpec()
SWITCH = ElectricalSwitchSpec("switch", "electrical-switch", 4096.0)
CLUSTER = ElectricalClusterSpec("cluster", "electrical-cluster", 3600.0, 400.0)
RING, OCS = SipRingSpec("ring", "sip-ring"), SipOcsSpec("ocs", "sip-ocs")
PLANS = [Plan(4, 2, 4, 1), Plan(8, 4, 1, 2), Plan(1, 8, 4, 1), Plan(16, 1, 1, 1), Plan(1, 1, 8, 1), Plan(2, 8, 2, 2)]
PLANS += [
    Plan(2, 2, 4, 1, first_layers=2, last_layers=1),
    Plan(2, 2, 4, 1, virtual_stages=2),
    Plan(2, 2, 2, 1, zero=1, virtual_stages=4),
]


def at(spec, efficiency, chiplet=CHIPLET):
    """A fabric whose ports carry this share of their line rate as payload."""
    fabric = fabric_of(spec, chiplet)
    vars(fabric)["efficiency"] = efficiency
    return fabric


@pytest.mark.parametrize("plan", PLANS)
def test_every_order_is_a_permutation_and_no_two_have_the_same_name(plan):
    found = list(orders(plan, folds=True))
    assert all(np.array_equal(np.sort(order), np.arange(plan.gpus)) for _, order in found)
    assert len({name for name, _ in found}) == len(found)


def test_three_dimensions_have_six_nestings_times_the_folds():
    assert len(list(orders(Plan(4, 4, 4, 1), folds=False))) == 6
    assert len(list(orders(Plan(4, 4, 4, 1), folds=True))) == 24
    assert len(list(orders(Plan(4, 2, 4, 1), folds=True))) == 12


def test_the_order_of_ranks_is_megatrons_innermost_tp():
    named = dict(orders(Plan(2, 4, 3, 1), folds=False))
    assert named["tp,pp,dp"].tolist() == list(range(24))


@pytest.mark.parametrize("length", range(1, 20))
def test_a_fold_keeps_ring_neighbours_within_two(length):
    places = fold(length)
    assert sorted(places.tolist()) == list(range(length))
    assert np.abs(places - np.roll(places, 1)).max() <= 2


@pytest.mark.parametrize("plan", PLANS)
def test_traffic_is_the_demand_of_the_task_graph(plan):
    flows = traffic(JOB, plan)
    summed = {}
    columns = (flows.source.tolist(), flows.destination.tolist(), flows.size_bytes.tolist())
    for source, destination, size in zip(*columns, strict=True):
        summed[source, destination] = summed.get((source, destination), 0) + size
    assert summed == task_graph(JOB, ACCELERATORS["h100"], plan).demand_bytes()


@given(st.integers(2, 40), st.data())
def test_ring_steps_lead_the_shortest_way(gpus, data):
    source, destination = (np.array([data.draw(st.integers(0, gpus - 1))], np.int32) for _ in range(2))
    steps = ring_steps(source, destination, gpus)
    assert (source + steps - destination) % gpus == 0
    assert abs(int(steps[0])) == nx.shortest_path_length(nx.cycle_graph(gpus), int(source[0]), int(destination[0]))


@given(st.integers(2, 20), st.data())
def test_segment_load_is_the_sum_over_arcs(gpus, data):
    pair = st.tuples(st.integers(0, gpus - 1), st.integers(0, gpus - 1), st.integers(0, 100))
    pairs = data.draw(st.lists(pair.filter(lambda p: p[0] != p[1]), min_size=1, max_size=12))
    source, destination, amount = np.array(pairs, np.int32).T
    steps = ring_steps(source, destination, gpus)
    expected = np.zeros((2, gpus), int)
    for start, step, size in zip(source.tolist(), steps.tolist(), amount.tolist(), strict=True):
        for k in range(abs(step)):
            expected[int(step < 0), (start + k if step > 0 else start - 1 - k) % gpus] += size
    assert np.array_equal(segment_load(source, steps, amount.astype(np.int64), gpus), expected)


@pytest.mark.parametrize("fabric", [SWITCH, CLUSTER, RING, OCS], ids=lambda fabric: fabric.kind)
@pytest.mark.parametrize("plan", PLANS)
def test_the_best_order_beats_all_structured_orders_and_none_beats_the_bound(plan, fabric):
    flows = traffic(JOB, plan)
    best = best_order(at(fabric, 0.8), plan, flows)
    costs = [
        at(fabric, 0.8).bottleneck_seconds(flows.placed(order), plan.gpus) for _, order in orders(plan, folds=fabric is RING)
    ]
    assert best.seconds == min(costs)
    assert best.bound_seconds <= best.seconds * (1 + 1e-12)


def test_a_nesting_loads_every_ring_segment_by_stride_times_bytes():
    """The outermost ring closes around and loads one direction only; inner rings close on their own way back."""
    plan = Plan(4, 2, 4, 1)
    sizes = dict(zip(("tp", "pp", "dp"), volume(JOB, plan).neighbour_bytes(0), strict=False))
    for step, (_, order) in zip(strides(plan), orders(plan, folds=False), strict=True):
        flows = traffic(JOB, plan).placed(order)
        steps = ring_steps(flows.source, flows.destination, plan.gpus)
        closed_form = sum(step[name] * sizes[name] for name in step)
        assert segment_load(flows.source, steps, flows.size_bytes, plan.gpus).max() <= closed_form


def test_a_cluster_keeps_the_larger_traffic_on_the_island():
    """GPT-3 with tp = 8 on islands of 8: the tensor ring must not cross the NIC."""
    plan = Plan(2, 8, 2, 1)
    order = best_order(at(CLUSTER, 1.0), plan, traffic(JOB, plan)).gpu_of_rank.reshape(-1, 8)
    assert (order // 8 == order[:, :1] // 8).all()


def test_one_pair_on_a_ring_takes_bytes_over_half_the_ports():
    flows = Traffic(*(np.array([value]) for value in (0, 1, 256_000_000_000, 0)))
    assert at(RING, 1.0).bottleneck_seconds(flows, 8) == pytest.approx(256e9 / (2048e9 / 8))
    assert at(OCS, 0.5).bottleneck_seconds(flows, 8) == pytest.approx(256e9 / (4096e9 / 8) / 0.5)


FABRICS = {
    "electrical-switch": ElectricalSwitchSpec,
    "electrical-cluster": ElectricalClusterSpec,
    "fat-tree": FatTreeSpec,
    "sip-ring": SipRingSpec,
    "sip-ocs": SipOcsSpec,
}
EXAMPLES = ["gpt3-175b", "small", "prototype"]


def example(name):
    table = tomllib.loads(files("lightfabric.examples").joinpath(f"{name}.toml").read_text())
    given = table.pop("accelerator")
    accelerator = ACCELERATORS[given["preset"]] if "preset" in given else AcceleratorSpec(**given)
    job = table.pop("job")
    fabrics = tuple(FABRICS[fabric["kind"]](**fabric) for fabric in table.pop("fabrics"))
    chiplet, gpus = ChipletSpec(**table.pop("chiplet")), tuple(table.pop("gpus"))
    job["model"] = ModelSpec(**job["model"])
    return StudySpec(accelerator=accelerator, job=JobSpec(**job), fabrics=fabrics, chiplet=chiplet, gpus=gpus, **table)


def cases():
    for name in EXAMPLES:
        spec = example(name)
        for fabric in spec.fabrics:
            for gpus in spec.gpus:
                yield pytest.param(spec, fabric, gpus, id=f"{name}-{fabric.kind}-{gpus}")


@pytest.mark.parametrize(("spec", "fabric", "gpus"), list(cases()))
def test_every_row_of_every_example_is_placed_or_refused(spec, fabric, gpus):
    arguments = spec.job, spec.accelerator, at(fabric, 0.85, spec.chiplet), gpus
    if spec.name == "gpt3-175b" and gpus < 64:
        with pytest.raises(DoesNotFit, match="64 GPUs are enough"):
            candidates(*arguments)[0]
        return
    placement = candidates(*arguments)[0]
    assert np.array_equal(np.sort(placement.gpu_of_rank), np.arange(gpus))
    assert placement.prediction.memory.total <= spec.accelerator.memory_gib * 2**30
    assert placement.prediction.total >= placement.compute_bound_seconds
    assert placement.order.seconds >= placement.order.bound_seconds * (1 - 1e-12)
    assert placement.gpus_by_degree.sum() == gpus
    assert (placement.bytes_by_distance * np.arange(gpus // 2 + 1)).sum() == placement.order.byte_hops
    assert (placement.circuits is not None) == fabric.kind.startswith("sip")


@pytest.mark.parametrize("gpus", [64, 256])
def test_no_fabric_beats_the_ideal_switch_of_the_same_rate(gpus):
    spec = example("gpt3-175b")
    totals = [
        candidates(spec.job, spec.accelerator, at(fabric, 0.85, spec.chiplet), gpus)[0].prediction.total
        for fabric in spec.fabrics
    ]
    assert min(totals) == totals[0]


def test_circuits_through_switches_can_be_set():
    spec = example("small")
    ports = spec.chiplet.ports
    placement = candidates(spec.job, spec.accelerator, at(spec.fabrics[3], 0.85, spec.chiplet), 16)[0]
    assert permutations(placement.circuits, 16, ports).shape == (ports, 16)


def test_the_order_is_one_of_the_structured_ones():
    spec = example("small")
    placement = candidates(spec.job, spec.accelerator, at(spec.fabrics[2], 0.85, spec.chiplet), 32)[0]
    named = dict(orders(placement.plan, folds=True))
    assert np.array_equal(named[placement.order.name], placement.gpu_of_rank)


def test_twice_the_efficiency_is_never_slower():
    spec = example("small")
    for fabric in spec.fabrics:
        slow, fast = (
            candidates(spec.job, spec.accelerator, at(fabric, efficiency, spec.chiplet), 16)[0].prediction.total
            for efficiency in (0.4, 0.8)
        )
        assert fast <= slow


def test_a_ring_of_one_port_is_refused_in_one_line():
    spec = example("small")
    chiplet = ChipletSpec(ports=1)
    with pytest.raises(ValueError, match=r"ChipletSpec.ports must be at least 2 on a sip-ring, not 1") as caught:
        candidates(spec.job, spec.accelerator, at(spec.fabrics[2], 0.85, chiplet), 8)[0]
    assert "\n" not in str(caught.value)
