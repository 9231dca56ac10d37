"""What holds on every kind of fabric: the table in conftest.py has one of each."""

from dataclasses import replace
from itertools import islice
from typing import get_args

import numpy as np
import pytest

from lightfabric.model.fluid import engine
from lightfabric.model.spec import ACCELERATORS, ChipletSpec, FabricSpec, JobSpec, ModelSpec, SipOcsSpec
from lightfabric.model.task import Part
from lightfabric.placement.fabric.fabric import fabric_of, most_moved
from lightfabric.placement.graph.rings import in_rings
from lightfabric.placement.job.kind import workload
from lightfabric.placement.mapping.order import orders
from lightfabric.placement.mapping.traffic import traffic
from lightfabric.placement.place import candidates, ranked
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
        graph = in_rings(workload(JOB, H100).task_graph(placed.plan).placed(placed.gpu_of_rank), fabric.rings)
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
    job = JobSpec(replace(MOE, experts_per_token=4), batch=16)
    found = [*islice(ranked(job, H100, fabric, 16), 10)]
    monkeypatch.setattr(Plan, "grouped", property(lambda plan: [plan]))
    alone = {placed.plan: placed.prediction.total for placed in candidates(job, H100, fabric, 16)}
    assert found[0].prediction.total <= min(alone.values())
    for placed in found:
        total = alone.get(replace(placed.plan, expert_group=1), np.inf)
        assert placed.prediction.total < total or (placed.plan.expert_group == 1 and placed.prediction.total == total)
    grouped = any(placed.plan.expert_group > 1 for placed in found)
    # A copy more gains nothing where all are equally near, and on islands if they hold none or all of the ranks.
    assert grouped == (fabric_spec.kind != "electrical-switch") or fabric_spec.kind in ("electrical-cluster", "mixnet")


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize(("dp", "tp", "ep"), [(8, 1, 8), (16, 1, 8), (8, 2, 8), (2, 8, 2), (16, 4, 16)])
def test_the_estimated_rate_of_an_exchange_is_that_of_its_traffic(dp, tp, ep, group, fabric_spec):
    """At one of the nestings; to a tenth where a ring is closed, and no more than all ports where an OCS shares them."""
    if ep % group or group == ep:
        return
    plan = Plan(dp, tp, 1, 1, ep=ep, expert_group=group)
    fabric = fabric_of(fabric_spec, ChipletSpec(ports=32, wavelengths_per_port=8))
    estimated = np.ravel(fabric.estimated_rates(cases(JobSpec(MOE, batch=16), [plan], H100)).expert)[0]
    flows, seen = traffic(JobSpec(MOE, batch=16), plan).at_once(Part.EXCHANGE), []
    for _, order in orders(plan, folds=False):
        placed = flows.placed(order)
        seen.append(most_moved(placed, Part.EXCHANGE) / fabric.bottleneck_seconds(placed, plan.gpus))
    if fabric_spec.kind in ("sip-ocs", "topoopt"):
        assert estimated <= max(seen) * (1 + 1e-4)
    else:
        assert min(abs(estimated / rate - 1) for rate in seen) < (0.1 if fabric_spec.kind == "sip-ring" else 1e-4)


def test_with_whole_ports_a_rank_behind_an_ocs_uses_no_more_than_it_has():
    """Eight ranks exchange over a circuit each, and the port that is left goes to the only other part, gradients."""
    fabric = fabric_of(SipOcsSpec("ocs", "sip-ocs"), ChipletSpec(ports=16, wavelengths_per_port=8))
    port = fabric.bytes_per_s / 16
    rates = fabric.estimated_rates(cases(JobSpec(MOE, batch=16), [Plan(16, 1, 1, 1, ep=8)], H100))
    assert rates.expert[0] in (7 * port, 14 * port)
    assert rates.data[0] == 16 * port - rates.expert[0]


def test_fewer_bytes_to_experts_are_never_slower(fabric_spec):
    """Neither in fewer groups nor in values of one byte do tokens lead to a slower placement."""
    fabric = fabric_of(fabric_spec, CHIPLET)
    whole = JobSpec(MOE, batch=16)
    limited = JobSpec(MOE, batch=16, expert_groups=8, max_groups=2)
    jobs = replace(limited, dispatch_bytes=1), limited, whole
    times = [candidates(job, H100, fabric, 16)[0].prediction.total for job in jobs]
    assert times == sorted(times)
