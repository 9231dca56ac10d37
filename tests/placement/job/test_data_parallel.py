"""Networks on every GPU: bytes and buckets by closed forms, the prediction against the fluid model."""

from dataclasses import replace

import pytest

from lightfabric.model.fluid import engine as fluid
from lightfabric.model.fluid import network
from lightfabric.model.spec import (
    ACCELERATORS,
    ChipletSpec,
    ElectricalSwitchSpec,
    NetworkJobSpec,
    PlanSpec,
    SipOcsSpec,
    SipRingSpec,
)
from lightfabric.model.task import Kind
from lightfabric.placement.cost.prediction import Rates
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.graph.rings import in_rings
from lightfabric.placement.job.data_parallel import BUCKET_BYTES, DataParallel, layers_of, owned_tables
from lightfabric.placement.mapping.traffic import DATA, EXCHANGE
from lightfabric.placement.place import candidates, options
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.layered import CRITEO_ROWS, dlrm, resnet50, total, vgg16
from lightfabric.placement.workload.memory import DoesNotFit

H100 = ACCELERATORS["h100"]
SMALL = replace(H100, name="small", memory_gib=5.0, memory_reserve_share=0.2)
JOBS = [
    NetworkJobSpec("resnet-50", 1024), NetworkJobSpec("vgg-16", 256), NetworkJobSpec("transformer-big", 128),
    NetworkJobSpec("dlrm", 65536, table_rows=(1_000_000, 3, 70_000, 2_000_000, 500_000), table_width=64),
    NetworkJobSpec("dlrm", 65536, "fp32", (9, 8)),
]  # fmt: skip


@pytest.mark.parametrize("gpus", [1, 2, 8])
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.network)
def test_the_graph_moves_the_bytes_of_the_traffic(job, gpus):
    plan = DataParallel(job, H100).plan(gpus)
    graph = DataParallel(job, H100).task_graph(plan)
    graph.verify()
    flows, summed = DataParallel(job, H100).traffic(plan), {}
    for source, destination, size in zip(
        flows.source.tolist(), flows.destination.tolist(), flows.size_bytes.tolist(), strict=True
    ):
        summed[source, destination] = summed.get((source, destination), 0) + size
    assert {pair: size for pair, size in summed.items() if size and pair[0] != pair[1]} == graph.demand_bytes()


@pytest.mark.parametrize(
    ("network", "given"), [("resnet-50", 250_000_000), ("transformer-big", 700_000_000), ("dlrm", 1001)]
)
def test_given_weights_are_summed_to_the_byte_whatever_the_buckets(network, given):
    """Of SiP-ML's models [SIGCOMM 2021]; its closed form of an all-reduce counts 8 bits of each byte twice."""
    job, own = (DataParallel(NetworkJobSpec(network, 1024, weights_bytes=size), H100) for size in (given, 0))
    plan = Plan(8, 1, 1, 16)
    graph, before = job.task_graph(plan), own.task_graph(plan)
    assert graph.work[graph.kind == Kind.ALL_REDUCE].sum() == given == job.memory(plan).gradients
    summed = job.traffic(plan).of(DATA).size_bytes
    assert (summed == round(2 * 7 * given / 8)).all()
    compute = before.kind == Kind.COMPUTE
    assert graph.work[graph.kind == Kind.COMPUTE].sum() == pytest.approx(before.work[compute].sum(), rel=1e-9)


def test_a_job_of_so_many_iterations_has_a_time_to_accuracy():
    job = NetworkJobSpec("resnet-50", 1024, iterations=8192)
    assert DataParallel(job, H100).figures(Plan(8, 1, 1, 16), 0.25, 1.0) == {"training_s": 2048.0}
    assert DataParallel(replace(job, iterations=0), H100).figures(Plan(8, 1, 1, 16), 0.25, 1.0) == {}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.network)
def test_several_micro_batches_move_as_many_bytes(job):
    accumulated = Plan(8, 1, 1, job.batch // 32)
    graph = DataParallel(job, H100).task_graph(accumulated)
    graph.verify()
    assert graph.demand_bytes() == DataParallel(job, H100).task_graph(Plan(8, 1, 1, job.batch // 8)).demand_bytes()


def test_gradients_go_in_buckets_of_25_mib_the_last_layers_first():
    """VGG-16: the classifier's layers, 4 bytes a parameter, have 411, 67 and 16 MB; PyTorch closes a bucket when full."""
    graph = DataParallel(JOBS[1], H100).task_graph(Plan(8, 1, 1, 32))
    buckets = graph.work[graph.kind == Kind.ALL_REDUCE].tolist()
    assert sum(buckets) == 4 * total(vgg16()).parameters
    assert all(size > BUCKET_BYTES - 8 for size in buckets[:-1])
    last, middle, first = (4 * layer.parameters for layer in vgg16()[:-4:-1])
    assert buckets[:2] == [pytest.approx(last + middle, abs=8), pytest.approx(first, abs=8)]


@pytest.mark.parametrize("gpus", [8, 16, 64])
@pytest.mark.parametrize("gbps", [100, 4096])
@pytest.mark.parametrize("job", [*JOBS, NetworkJobSpec("dlrm", 65536)], ids=lambda job: job.network)
def test_the_prediction_is_the_simulated_iteration(job, gbps, gpus):
    fabric = ElectricalSwitchSpec("switch", "electrical-switch", gbps, payload_share=1.0)
    placed = candidates(job, H100, fabric_of(fabric, ChipletSpec()), gpus)[0]
    graph = DataParallel(job, H100).task_graph(placed.plan)
    star = network.star(gpus, gbps * 1e9 / 8, graph.demand_bytes())
    assert placed.prediction.total == pytest.approx(fluid.run(graph, star).makespan_ps / 1e12, rel=0.05)
    assert options(job, H100, fabric_of(fabric, ChipletSpec()), gpus) == ([], [])


@pytest.mark.parametrize("fabric", [SipRingSpec("ring", "sip-ring"), SipOcsSpec("ocs", "sip-ocs")], ids=lambda f: f.kind)
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.network)
def test_networks_are_placed_on_optical_fabrics(job, fabric):
    made = fabric_of(fabric, ChipletSpec(ports=4))
    placed = candidates(job, H100, made, 8)[0]
    assert sorted(placed.gpu_of_rank.tolist()) == list(range(8))
    assert placed.circuits is not None
    graph = in_rings(DataParallel(job, H100).task_graph(placed.plan).placed(placed.gpu_of_rank), made.rings)
    assert set(placed.circuits.stops) == set(graph.demand_bytes())


def test_hidden_gradients_cost_no_more_than_the_wire_and_no_less_than_their_last_bucket():
    job, plan = JOBS[0], Plan(8, 1, 1, 128)
    slow, fast, free = (DataParallel(job, H100).prediction(plan, Rates(1, 1, rate, 1)) for rate in (1e8, 1e11, 1e30))
    reduced_bytes = 2 * 7 / 8 * 4 * total(resnet50()).parameters
    assert free.data == pytest.approx(0, abs=1e-9)
    assert 0 < fast.data < reduced_bytes / 1e11
    assert slow.data == pytest.approx(reduced_bytes / 1e8, rel=0.05)


def test_the_largest_micro_batch_that_fits_is_taken():
    job = NetworkJobSpec("vgg-16", 8 * 96)
    plan = DataParallel(job, SMALL).plan(8)
    assert DataParallel(job, H100).memory(plan).total <= 4 << 30
    larger = min(size for size in (24, 32, 48, 96) if size > plan.micro_batch)
    assert DataParallel(job, H100).memory(replace(plan, micro_batch=larger)).total > 4 << 30


def test_memory_is_state_tables_and_outputs():
    """18 bytes a parameter in mixed precision [Narayanan 2021]; rows in half precision without state."""
    vgg = DataParallel(JOBS[1], H100).memory(Plan(8, 1, 1, 32))
    assert vgg.weights + vgg.gradients + vgg.optimiser == 18 * total(vgg16()).parameters
    assert vgg.activations == 2 * 32 * total(vgg16(2)).activation_bytes
    tables = DataParallel(NetworkJobSpec("dlrm", 1024), H100).memory(Plan(1, 1, 1, 1024)).weights
    dense = sum(layer.parameters for layer in dlrm() if not layer.exchange_bytes)
    assert tables == 2 * (128 * sum(CRITEO_ROWS) + dense)


def test_a_recommender_has_the_perceptrons_that_its_job_gives():
    """Inputs of the top: a product of each pair of the 2 tables and the bottom perceptron, and its outputs."""
    job = NetworkJobSpec("dlrm", 8, table_rows=(10, 20), table_width=4, bottom_widths=(3, 5), top_widths=(6, 1))
    shapes = {layer.name: layer.parameters for layer in layers_of(job) if layer.parameters}
    bottom = {"bottom.0": (3 + 1) * 5, "bottom.1": (5 + 1) * 4}
    assert shapes == {"table.0": 40, "table.1": 80, "top.0": (3 + 4 + 1) * 6, "top.1": (6 + 1) * 1} | bottom


@pytest.mark.parametrize(
    ("job", "accelerator", "gpus"),
    [
        (NetworkJobSpec("dlrm", 1 << 24, table_rows=(9,) * 1024), H100, 1 << 17),
        (NetworkJobSpec("transformer-big", 1 << 24), replace(H100, memory_gib=4.2), 2),
    ],
    ids=["all to all", "passes"],
)
def test_a_job_of_too_many_tasks_is_refused_at_once(job, accelerator, gpus):
    with pytest.raises(DoesNotFit, match=r"take \d+ computations and transfers, more than the 2097152 there can be"):
        DataParallel(job, accelerator).plan(gpus)


def test_tables_send_every_row_to_its_sample():
    job, gpus = NetworkJobSpec("dlrm", 65536, "fp32"), 16
    flows = DataParallel(job, H100).traffic(Plan(gpus, 1, 1, 1)).of(EXCHANGE)
    rows = sum(layer.exchange_bytes for layer in dlrm()) * job.batch
    assert flows.size_bytes.sum() == 2 * rows * (gpus - 1) / gpus


@pytest.mark.parametrize("gpus", [1, 3, 26, 40])
def test_tables_are_dealt_out_so_that_no_gpu_sends_two_rows_more(gpus):
    held, row_bytes = owned_tables(dlrm(), gpus)
    assert sum(held) == 128 * sum(CRITEO_ROWS)
    assert max(row_bytes) - min(row_bytes) <= 128 * 4
    assert max(held) <= 128 * (sum(CRITEO_ROWS) / gpus + max(CRITEO_ROWS))


@pytest.mark.parametrize(
    ("job", "gpus", "said", "fits"),
    [
        (
            NetworkJobSpec("dlrm", 1 << 16),
            2,
            "memory on 2 GPUs is short by 21.0 GiB per GPU: the job needs 25.0, small has 4.0 for it",
            None,
        ),
        (NetworkJobSpec("dlrm", 1 << 16, table_rows=(10_000_000,) * 16), 2, "16 GPUs are enough", 16),
        (NetworkJobSpec("resnet-50", 100), 8, "a batch of 100 samples is no multiple of 8 GPUs", None),
    ],
)
def test_what_does_not_fit_says_what_is_short(job, gpus, said, fits):
    with pytest.raises(DoesNotFit, match=said) as caught:
        DataParallel(job, SMALL).plan(gpus)
    assert caught.value.fits_gpus == fits


def test_the_prediction_has_the_latencies_of_each_fabric(fabric_spec, invented_timing):
    """Of an iteration so short that steps round rings are 2 to 30 % of it."""
    job = NetworkJobSpec("resnet-50", 16)
    fabric = fabric_of(fabric_spec, ChipletSpec(ports=8, wavelengths_per_port=16), invented_timing)
    placed = candidates(job, H100, fabric, 16, PlanSpec(tp=1))[0]
    graph = in_rings(DataParallel(job, H100).task_graph(placed.plan).placed(placed.gpu_of_rank), fabric.rings)
    simulated_ps = fluid.run(graph, fabric.network(16, graph.demand_bytes(), placed.circuits)).makespan_ps
    assert placed.prediction.total == pytest.approx(simulated_ps / 1e12, rel=0.01)
