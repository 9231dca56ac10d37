"""Bytes over links: folded as unfolded, and together bytes times hops."""

import numpy as np
import pytest

from lightfabric.model.fluid import engine
from lightfabric.model.fluid.alike import Alike
from lightfabric.model.fluid.load import link_bytes
from lightfabric.model.spec import ACCELERATORS, ChipletSpec, JobSpec, ModelSpec
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.graph.fold import folded, unfolded
from lightfabric.placement.job.kind import workload
from lightfabric.placement.place import candidates

MODEL = ModelSpec(
    layers=4, hidden=1024, heads=16, sequence=256, vocabulary=1024, experts=8, experts_per_token=2, expert_ffn=512
)
FOLDED = ("electrical-switch", "electrical-cluster", "fat-tree", "torus")
CHIPLET = ChipletSpec(ports=8, wavelengths_per_port=8)


def walked(graph, network):
    """Bytes of each link, pair by pair along its route."""
    found = np.zeros(len(network.bytes_per_s))
    for pair, size in graph.demand_bytes().items():
        for link in network.route(*pair):
            found[link] += size
    return found


def test_links_of_a_folded_run_carry_what_they_carry_unfolded(fabric_spec, invented_timing):
    fabric = fabric_of(fabric_spec, CHIPLET, invented_timing)
    spec = JobSpec(MODEL, batch=64)
    job = workload(spec, ACCELERATORS["h100"])
    gpus = 64 if fabric_spec.kind == "custom" else 16
    placed = candidates(spec, ACCELERATORS["h100"], fabric, gpus)[0]
    run = folded(job, placed.plan, placed.gpu_of_rank, fabric, placed.circuits)
    whole = unfolded(job, placed.plan, placed.gpu_of_rank, fabric)
    expected = walked(whole, run.network)
    found = link_bytes(run.graph, run.network, run.alike)
    if fabric_spec.kind in FOLDED:
        assert len(run.graph) < len(whole)
    # Demand is in whole bytes, one too many or too few for each pair.
    assert found == pytest.approx(expected, abs=len(run.network.pair_key))
    assert link_bytes(whole, run.network, Alike.nothing(run.network)) == pytest.approx(
        expected, abs=len(run.network.pair_key)
    )
    hops = sum(size * len(run.network.route(*pair)) for pair, size in whole.demand_bytes().items())
    assert found.sum() == pytest.approx(hops, rel=1e-6)
    assert found.sum() > 0
    # No link can carry more than its rate times the time.
    seconds = engine.run(run.graph, run.network, alike=run.alike).makespan_ps / 1e12
    assert (found <= run.network.bytes_per_s * seconds * (1 + 1e-9)).all()
    groups = fabric.link_groups(run.network, gpus, found)
    if fabric_spec.kind == "sip-ring":
        over_segments = np.zeros((2, gpus))
        for link in range(len(found)):
            here, there = int(run.network.link_source[link]), int(run.network.link_destination[link])
            ahead = (there - here) % gpus
            back = 2 * ahead > gpus or (2 * ahead == gpus and here % 2)
            for step in range(gpus - ahead if back else ahead):
                over_segments[int(back), ((there if back else here) + step) % gpus] += found[link]
        assert np.stack([group.size_bytes for group in groups[:2]]) == pytest.approx(over_segments, rel=1e-9)
    assert sum(group.size_bytes.sum() for group in groups if "segment" not in group.name) == pytest.approx(found.sum())
