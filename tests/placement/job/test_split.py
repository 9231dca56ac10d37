"""Networks whose layers are split over GPUs: bytes and times by closed forms, the prediction against the fluid model."""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from lightfabric.flows.format.spec_file import load_spec
from lightfabric.model.fluid import engine as fluid
from lightfabric.model.spec import (
    ACCELERATORS,
    ChipletSpec,
    ElectricalSwitchSpec,
    NetworkJobSpec,
    PlanSpec,
    SipOcsSpec,
    SipRingSpec,
    SpecError,
)
from lightfabric.model.task import Kind, Part
from lightfabric.placement.cost.calibration import calibration
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.graph.fold import folded, unfolded
from lightfabric.placement.job.data_parallel import DataParallel
from lightfabric.placement.mapping.traffic import DATA, TENSOR
from lightfabric.placement.place import candidates
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.layered import total, transformer_big, vgg16
from lightfabric.placement.workload.memory import DoesNotFit

H100 = ACCELERATORS["h100"]
JOBS = [NetworkJobSpec("resnet-50", 64), NetworkJobSpec("vgg-16", 64), NetworkJobSpec("transformer-big", 32)]
SWITCH, RING, OCS = (
    ElectricalSwitchSpec("switch", "electrical-switch", 800.0),
    SipRingSpec("ring", "sip-ring"),
    SipOcsSpec("ocs", "sip-ocs"),
)
VGG_OUTPUTS = sum(
    count * width * (224 >> stage) ** 2
    for stage, (count, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)])
)


@pytest.mark.parametrize("plan", [Plan(8, 2, 1, 4), Plan(2, 8, 1, 16), Plan(1, 4, 1, 8)], ids=lambda plan: str(plan.degrees))
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.network)
def test_graph_traffic_and_calls_agree(job, plan):
    asked = DataParallel(job, H100)
    graph, flows = asked.task_graph(plan), asked.traffic(plan)
    graph.verify()
    pairs = zip(flows.source.tolist(), flows.destination.tolist(), strict=True)
    assert dict(zip(pairs, flows.size_bytes.tolist(), strict=True)) == graph.demand_bytes()
    (kind,) = asked.calls(plan)
    assert kind.ranks == list(range(plan.gpus))
    called = {call.collective: call[2:] for call in kind.calls}
    inside = (graph.part == Part.TENSOR) & (graph.device == 0)
    count, size = graph.operations[inside].sum(), graph.work[inside].sum()
    assert called["reduce_scatter"] == (count, size)
    assert called["all_gather"] == (count, size // plan.tp)
    summed = graph.work[(graph.part == Part.DATA) & (graph.device == 0)].tolist()
    assert [called[name][1] for name in called if name == "all_reduce"] == summed


@pytest.mark.parametrize("tp", [2, 4, 8])
@pytest.mark.parametrize(
    ("job", "values"),
    [(JOBS[1], VGG_OUTPUTS + 2 * 4096), (JOBS[2], 256 * 1024 * (2 + 6 * (2 + 4 + 1) + 6 * (2 * 2 + 4 + 1)))],
    ids=["vgg-16", "transformer-big"],
)
def test_a_gpu_sends_every_output_of_a_layer_once_each_way_and_its_share_of_gradients(job, values, tp):
    """Of attention what its core gives, and its outputs: heads stay where they are, and so does what the loss is made of."""
    flows = DataParallel(job, H100).traffic(Plan(16 // tp, tp, 1, 4))
    samples, weights = job.batch * tp // 16, total(vgg16() if job is JOBS[1] else transformer_big()).parameters
    assert set(flows.of(TENSOR).size_bytes.tolist()) == {2 * (tp - 1) * 2 * values * samples // tp}
    replicas = 16 // tp
    assert set(flows.of(DATA).size_bytes.tolist()) == {round(2 * (replicas - 1) * (4 * weights // tp) / replicas)}
    assert not (flows.of(TENSOR).source // tp - flows.of(TENSOR).destination // tp).any()
    assert not ((flows.of(DATA).source - flows.of(DATA).destination) % tp).any()


def test_a_gpu_has_its_share_of_products_and_state_and_whole_inputs():
    """18 bytes a parameter in mixed precision [Narayanan 2021]; a memory without limits leaves the products' time alone."""
    job, endless = JOBS[1], Rates(1e30, 1e30, 1e30)
    asked = DataParallel(job, replace(H100, memory_gbytes_per_s=1e9))
    flops = 3 * total(vgg16()).forward_flops * 4
    rate = H100.matmul_flops(job.precision) * calibration().gemm_efficiency
    for tp in (2, 8):
        predicted = asked.prediction(Plan(2, tp, 1, 4), endless)
        seconds = 8 * (flops / tp / rate + 3 * 16 * calibration().kernel_seconds)
        assert predicted.compute == pytest.approx(seconds, rel=1e-4)
        memory = asked.memory(Plan(2, tp, 1, 4))
        assert memory.weights + memory.gradients + memory.optimiser == 18 * total(vgg16()).parameters // tp
        whole, classes = VGG_OUTPUTS + 2 * 4096, 1000
        assert memory.activations == 4 * 2 * (whole + (whole + 2 * classes) // tp)


@pytest.mark.parametrize("tp", [2, 4])
@pytest.mark.parametrize("spec", [SWITCH, RING, OCS], ids=lambda spec: spec.kind)
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.network)
def test_the_prediction_is_the_simulated_iteration_and_beats_no_bound(job, spec, tp, invented_timing):
    fabric = fabric_of(spec, ChipletSpec(ports=8, wavelengths_per_port=16), invented_timing)
    asked, (placed,) = DataParallel(job, H100), candidates(job, H100, fabric, 16, PlanSpec(tp=tp))
    assert placed.plan == Plan(16 // tp, tp, 1, job.batch * tp // 16)
    graph = unfolded(asked, placed.plan, placed.gpu_of_rank, fabric)
    network = fabric.network(16, graph.demand_bytes(), placed.circuits)
    simulated = fluid.run(graph, network).makespan_ps / 1e12
    assert placed.prediction.total == pytest.approx(simulated, rel=0.005)
    assert simulated >= placed.compute_bound_seconds + placed.order.bound_seconds
    part = folded(asked, placed.plan, placed.gpu_of_rank, fabric, placed.circuits)
    assert fluid.run(part.graph, part.network, alike=part.alike).makespan_ps / 1e12 == pytest.approx(simulated, rel=1e-9)
    if spec is SWITCH:
        assert set(part.graph.device[part.graph.kind == Kind.COMPUTE].tolist()) == {placed.gpu_of_rank[0]}


def test_a_thousand_gpus_train_on_fewer_samples_than_they_are():
    """With a GPU for each of 256 samples, and with four: on fast links the others help."""
    job = NetworkJobSpec("transformer-big", 256)
    fabric = fabric_of(replace(SWITCH, gpu_gbps=8192.0, link_latency_ns=0.0, switch_latency_ns=0.0), ChipletSpec())
    with pytest.raises(DoesNotFit, match="a batch of 256 samples is no multiple of 512 replicas of 2 GPUs"):
        next(DataParallel(job, H100, PlanSpec(tp=2)).plans(1024, fabric.estimated_rates))
    many, few = candidates(job, H100, fabric, 1024), candidates(job, H100, fabric, 256, PlanSpec(tp=1))
    assert sorted(placed.plan.degrees for placed in many) == [(128, 8, 1), (256, 4, 1)]
    assert many[0].prediction.total < few[0].prediction.total


def test_what_is_estimated_of_a_plan_bounds_its_prediction():
    asked = DataParallel(JOBS[2], H100)
    found = list(asked.plans(16, lambda _: Rates(1.0, 1.0, 1.0)))
    assert sorted(plan.tp for plan, _ in found) == [1, 2, 4, 8]
    assert [seconds for _, seconds in found] == sorted(seconds for _, seconds in found)
    for plan, seconds in found:
        assert 0 < seconds < asked.prediction(plan, Rates(1e12, 1e12, 1e12)).total


def test_what_does_not_fit_one_gpu_is_split():
    """VGG-16 has 2.32 GiB of state, and the most GPUs that split it, 8, have an eighth each."""
    small = replace(H100, name="small", memory_gib=2.8, memory_reserve_share=0.2)
    asked = DataParallel(NetworkJobSpec("vgg-16", 64), small)
    ((plan, _),) = asked.plans(2, lambda _: Rates(1.0, 1.0, 1.0))
    assert plan.tp == 2
    asked = replace(asked, accelerator=replace(small, memory_gib=0.5))
    with pytest.raises(DoesNotFit, match=r"on 2 GPUs is short by .*; 8 GPUs are enough"):
        asked.require(2)
    with pytest.raises(DoesNotFit, match="no power of two that divides the batch is enough"):
        replace(asked, pinned=PlanSpec(tp=4)).require(4)


@pytest.mark.parametrize("plan", [PlanSpec(tp=3), PlanSpec(tp=2, micro_batch=1), PlanSpec(dp=8)])
def test_only_numbers_of_gpus_that_divide_all_channels_can_be_given(plan):
    spec = replace(load_spec(None, "small"), job=JOBS[0], gpus=(16,))
    assert replace(spec, plan=PlanSpec(tp=8)).plan.given == {"tp": 8}
    with pytest.raises(SpecError, match=r"StudySpec.plan must be left out .*, or a tp of 1, 2, 4 or 8 of a network"):
        replace(spec, plan=plan)
    with pytest.raises(SpecError, match=r"StudySpec.plan must be left out .* without tables"):
        replace(load_spec(None, "dlrm"), plan=PlanSpec(tp=2))
    with pytest.raises(DoesNotFit, match="a tp of 3 does not divide 12 GPUs and all output channels"):
        DataParallel(JOBS[0], H100, PlanSpec(tp=3)).require(12)


@pytest.mark.parametrize(
    ("job", "recorded"),
    [(NetworkJobSpec("resnet-50", 1024), 0xAF21F355), (NetworkJobSpec("transformer-big", 128), 0x7D7F0595)],
)
def test_replicas_of_a_gpu_are_as_they_were_before_layers_could_be_split(job, recorded):
    """The sum over all tasks, edges and flows of 8 GPUs, and the prediction's bits, at the revision before."""
    asked = DataParallel(job, H100)
    plan, graph = asked.plan(8), asked.task_graph(asked.plan(8))
    flows, predicted = asked.traffic(plan), asked.prediction(plan, Rates(1e10, 1e9, 2.3e10, data_wait=1.7e-6))
    arrays = [graph.kind, graph.work, graph.peer, graph.operations, graph.successors, graph.members, graph.part]
    arrays += [flows.source, flows.destination, flows.size_bytes, flows.part, np.array(predicted.total)]
    assert zlib.crc32(b"".join(each.tobytes() for each in arrays)) == recorded
