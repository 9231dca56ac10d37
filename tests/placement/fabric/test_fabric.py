"""What holds on every kind of fabric: the table in conftest.py has one of each."""

from dataclasses import replace
from typing import get_args

import numpy as np

from lightfabric.model.fluid import engine
from lightfabric.model.spec import ACCELERATORS, ChipletSpec, FabricSpec, JobSpec, ModelSpec, SipOcsSpec
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.job.kind import workload
from lightfabric.placement.place import candidates
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import cases

JOB = JobSpec(ModelSpec(layers=4, hidden=512, heads=8, sequence=256, vocabulary=1024), batch=16)
H100 = ACCELERATORS["h100"]
CHIPLET = ChipletSpec(ports=4, wavelengths_per_port=8)
GPUS = 8


def link_bytes(graph, network):
    """Bytes that the graph's transfers and rings send over each link, route by route."""
    total = np.zeros(len(network.bytes_per_s))
    for (source, destination), size in graph.demand_bytes().items():
        total[network.route(source, destination)] += size
    return total


def test_the_table_has_a_row_for_each_kind(fabric_kinds):
    assert fabric_kinds == set(get_args(FabricSpec))


def test_no_link_carries_more_than_its_rate_and_no_iteration_beats_its_bounds(fabric_spec, invented_timing):
    fabric = fabric_of(fabric_spec, CHIPLET, invented_timing)
    assert 0 < fabric.efficiency < 1
    for placed in candidates(JOB, H100, fabric, GPUS):
        graph = workload(JOB, H100).task_graph(placed.plan).placed(placed.gpu_of_rank)
        network = fabric.network(GPUS, graph.demand_bytes(), placed.circuits)
        makespan_s = engine.run(graph, network).makespan_ps / 1e12
        assert (link_bytes(graph, network) <= network.bytes_per_s * makespan_s * (1 + 1e-9)).all()
        assert makespan_s >= placed.compute_bound_seconds * (1 - 1e-9)
        assert placed.order.seconds >= placed.order.bound_seconds * (1 - 1e-12)
        assert sorted(placed.gpu_of_rank.tolist()) == list(range(GPUS))


def test_traffic_goes_no_faster_than_all_ports_of_a_gpu_send(fabric_spec):
    fabric = fabric_of(fabric_spec, CHIPLET)
    for placed in candidates(JOB, H100, fabric, GPUS):
        for rates, _ in fabric.rate_options(placed.plan, placed.traffic):
            assert all(rate <= fabric.bytes_per_s * (1 + 1e-9) for rate in (rates.tensor, rates.data) if np.isfinite(rate))


def test_the_circuits_of_a_rank_behind_an_ocs_share_all_its_ports():
    """One tensor, two pipeline and one data circuit, with nothing left over."""
    fabric = fabric_of(SipOcsSpec("ocs", "sip-ocs"), CHIPLET)
    rates = fabric.estimated_rates(cases(JOB, [Plan(2, 2, 2, 1), Plan(4, 2, 4, 1)], H100))
    np.testing.assert_allclose(rates.tensor + 2 * rates.pipeline + rates.data, fabric.bytes_per_s)


MOE = ModelSpec(
    layers=4, hidden=1024, heads=8, sequence=1024, vocabulary=1024, gated=True,
    experts=32, experts_per_token=8, expert_ffn=512,
)  # fmt: skip


def test_tokens_are_copied_in_groups_of_ranks_where_that_is_faster(fabric_spec, monkeypatch):
    """A plan is placed with the size of group that is predicted to be fastest, so none is slower than without groups."""
    fabric = fabric_of(fabric_spec, CHIPLET)
    found = candidates(JobSpec(MOE, batch=16), H100, fabric, 16)
    monkeypatch.setattr(Plan, "grouped", property(lambda plan: [plan]))
    alone = {placed.plan: placed.prediction.total for placed in candidates(JobSpec(MOE, batch=16), H100, fabric, 16)}
    # Where groups make plans faster more of them are tried.
    assert alone.keys() <= {replace(placed.plan, expert_group=1) for placed in found}
    for placed in found:
        total = alone.get(replace(placed.plan, expert_group=1), np.inf)
        assert placed.prediction.total < total or (placed.plan.expert_group == 1 and placed.prediction.total == total)
    assert any(placed.plan.expert_group > 1 for placed in found) == (fabric_spec.kind in ("sip-ring", "sip-ocs"))
