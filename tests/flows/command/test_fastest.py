"""What a study finds on optical fabrics, against plans that are drawn from all that fit."""

from dataclasses import replace

import numpy as np
import pytest

from lightfabric.flows.experiment.cell import fastest
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.model.spec import JobSpec, ModelSpec, SipOcsSpec, SipRingSpec
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.job.transformer import Transformer
from lightfabric.placement.search.search import search

SMALL = load_spec(None, "small")
MOE = ModelSpec(
    layers=8, hidden=2048, heads=16, sequence=1024, vocabulary=32000, gated=True,
    experts=16, experts_per_token=2, expert_ffn=2048,
)  # fmt: skip
SPECS = {"dense": SMALL, "experts": replace(SMALL, job=JobSpec(MOE, batch=64))}
FABRICS = [SipRingSpec("ring", "sip-ring", max_hops=8), SipOcsSpec("ocs", "sip-ocs")]
SAMPLED = 25
SEED = 20261130


def seconds(found):
    return found[-1].makespan_ps / 1e12


@pytest.mark.parametrize("fabric", FABRICS, ids=lambda fabric: fabric.kind)
@pytest.mark.parametrize("job", SPECS)
def test_no_plan_drawn_at_random_is_faster_than_that_of_the_study(job, fabric, invented_timing, monkeypatch):
    """Each plan gets its best order and circuits, as those of the study do."""
    spec, gpus = SPECS[job], 32
    on = fabric_of(fabric, spec.chiplet, invented_timing)
    best = fastest(spec, on, gpus)
    assert best[0].prediction.total == pytest.approx(seconds(best), rel=0.1)
    plans = list(search(spec.job, spec.accelerator, gpus, on.estimated_rates))
    print(f"seed {SEED}")
    for index in np.random.default_rng(SEED).choice(len(plans), SAMPLED, replace=False):
        monkeypatch.setattr(Transformer, "plans", lambda *_, index=index: iter([(plans[index], 0.0)]))
        try:
            drawn = fastest(spec, on, gpus)
        except ValueError:
            continue  # ports are too few for a plan with many partners
        assert seconds(drawn) >= seconds(best), plans[index]


@pytest.mark.parametrize("fabric", FABRICS, ids=lambda fabric: fabric.kind)
@pytest.mark.parametrize("job", SPECS)
def test_more_gpus_are_never_slower(job, fabric, invented_timing):
    spec = SPECS[job]
    on = fabric_of(fabric, spec.chiplet, invented_timing)
    times = [seconds(fastest(spec, on, gpus)) for gpus in (4, 8, 16, 32, 64)]
    assert times == sorted(times, reverse=True)
