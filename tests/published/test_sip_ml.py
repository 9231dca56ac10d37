"""SiP-ML (SIGCOMM 2021): the closed forms of its data-parallel all-reduces, and the order of its fabrics on its models."""

from dataclasses import replace

import numpy as np
import pytest

from lightfabric.flows.experiment.cell import fastest
from lightfabric.flows.format.spec_file import load_variants
from lightfabric.model.fluid import engine
from lightfabric.model.fluid.network import star
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.fabric.fabric import fabric_of

REPLICAS = 128
FILES = ("sip-ml", "sip-ml-resnet", "sip-ml-transformer")


@pytest.mark.parametrize(("weight_bytes", "ms"), [(250_000_000, 20), (700_000_000, 56), (6_800_000_000, 544)])
@pytest.mark.parametrize("gbps", [200, 400])
def test_an_all_reduce_takes_the_published_time_but_for_the_part_that_a_member_keeps(weight_bytes, ms, gbps):
    """2 x weights x 8 / rate is the limit of large rings; n replicas send (n - 1) / n of it."""
    graph = TaskGraph(
        REPLICAS,
        np.array([Kind.ALL_REDUCE], np.int8),
        np.zeros(1, np.int32),
        np.array([weight_bytes]),
        np.zeros(1, np.int32),
        np.ones(1, np.int32),
        np.zeros(2, np.int64),
        np.zeros(0, np.int32),
        np.array([0, REPLICAS]),
        np.arange(REPLICAS, dtype=np.int32),
    )
    found = engine.run(graph, star(REPLICAS, gbps * 1e9 / 8, graph.demand_bytes())).makespan_ps
    assert abs(found - ms * 200 * 10**9 * (REPLICAS - 1) // (gbps * REPLICAS)) <= 1


@pytest.mark.parametrize("name", FILES)
def test_optical_fabrics_are_between_the_ideal_and_the_electrical_ones(name, invented_timing):
    """At 64 of the 1024 GPUs, with the least and the most wavelengths; latencies are no part of that order."""
    variants = load_variants(None, name)
    assert [variant.spec.chiplet.gbps for variant in variants] == [500, 1000, 2000, 4000, 8000]
    times = list[list[float]]()
    for spec in (variants[0].spec, variants[-1].spec):
        made = [fastest(spec, fabric_of(fabric, spec.chiplet, invented_timing), 64) for fabric in spec.fabrics]
        ideal, slow, fast, *optical = (found[-1].makespan_ps for found in made)
        assert ideal < min(optical) * 1.001
        assert max(optical) < fast < slow
        times.append(optical)
        assert [variant.spec.gpus for variant in variants] == [(1024,)] * 5
    assert max(times[1]) < min(times[0])


def test_the_three_files_differ_in_their_job_alone():
    first, *others = (load_variants(None, name)[0].spec for name in FILES)
    assert all(replace(other, name=first.name, job=first.job) == first for other in others)
