"""Circuits that change during an iteration: what MixNet, Opus and ACTINA report that it gains, and what it costs.

Their jobs are described in part only, so that each row has a job of ours of that kind. Lines are those of chiplets whose
stages take a cycle each.
"""

import json
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from lightfabric.flows.format.spec_file import load_variants
from lightfabric.flows.published.figure import Figure
from lightfabric.model.fabric.electrical.electrical import TIMING
from lightfabric.model.fluid import engine
from lightfabric.model.spec import ACCELERATORS, ChipletSpec, FabricSpec, JobSpec, PlanSpec, StudySpec
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.graph.fold import unfolded
from lightfabric.placement.job.kind import workload
from lightfabric.placement.place import candidates
from lightfabric.placement.workload.preset import MODELS

H100 = ACCELERATORS["h100"]
PORT = ChipletSpec(
    wavelength_gbps=25.0, core_clock_mhz=1000.0, flit_bytes=256, buffer_flits=127, replay_flits=127, reach_m=20.0
)
KNEE_S = (1e-3, 10.0)
"""Between these times MixNet's iteration becomes twice as long."""
KNEE_WITHIN = 1.02
OPUS_MS = (15, 100)
ACTINA_GBYTES_PER_S = (100, 1600)


def _fabric(**fields: Any) -> FabricSpec:
    return TypeAdapter(FabricSpec).validate_json(json.dumps(fields))


OPUS = StudySpec(
    "opus", H100, JobSpec(replace(MODELS["llama3-70b"], sequence=4096), batch=256),
    (
        _fabric(name="light", kind="photonic-rails", island_gbps=3600.0, fibre_m=10.0, reconfigure="phase"),
        _fabric(name="switches", kind="rail-optimised", island_gbps=3600.0, nic_gbps=400.0),
    ),
    (64,), replace(PORT, ports=2, wavelengths_per_port=8), PlanSpec(tp=8, pp=2),
)  # fmt: skip
ACTINA = StudySpec(
    "actina", H100, JobSpec(replace(MODELS["qwen3-235b-a22b"], sequence=4096), batch=128),
    (_fabric(name="light", kind="sip-ocs", fibre_m=10.0, control_us=0.0, switching_us=10.0, receiver_us=0.0),),
    (64,), replace(PORT, ports=16), PlanSpec(tp=4, pp=1, ep=16),
)  # fmt: skip
"""An all-to-all, sums inside of layers and sums of gradients, on switches of silicon photonics."""


def seconds(study: StudySpec, fabric: Any) -> float:
    """Simulate an iteration on a fabric of a study, placed as it is predicted to be fastest."""
    at = fabric_of(fabric, study.chiplet, TIMING)
    placed = candidates(study.job, study.accelerator, at, study.gpus[0], pinned=study.plan)[0]
    asked = placed.graphs(workload(study.job, study.accelerator))
    graph = at.reconfigured(unfolded(asked, placed.plan, placed.gpu_of_rank, at), placed.circuits)
    return engine.run(graph, at.network(graph.devices, graph.demand_bytes(), placed.circuits)).makespan_ps / 1e12


def knee_s() -> float:
    """Find how long switching takes when MixNet's iteration is twice as long as without."""
    study = load_variants(None, "mixnet")[0].spec
    light = next(fabric for fabric in study.fabrics if fabric.name == "MixNet")

    def taken(switching_s: float) -> float:
        return seconds(study, replace(light, switching_us=switching_s * 1e6))

    least, (low, high) = taken(0.0), KNEE_S
    while high / low > KNEE_WITHIN:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if taken(middle) < 2 * least else (low, middle)
    return (low * high) ** 0.5


def _opus() -> list[float]:
    light, switches = OPUS.fabrics
    electrical_s = seconds(OPUS, replace(switches, nic_payload_share=fabric_of(light, OPUS.chiplet, TIMING).efficiency))
    return [seconds(OPUS, replace(light, switching_us=1e3 * delay)) / electrical_s for delay in OPUS_MS]


def _actina(gbytes_per_s: int) -> float:
    lanes = round(gbytes_per_s * 8 / (ACTINA.chiplet.ports * ACTINA.chiplet.wavelength_gbps))
    study = replace(ACTINA, chiplet=replace(ACTINA.chiplet, wavelengths_per_port=lanes))
    never, inside = (seconds(study, replace(ACTINA.fabrics[0], reconfigure=policy)) for policy in ("never", "inside"))
    return never / inside


def figures() -> list[Figure]:
    """A knee, an overhead that is published as a bound, and a gain."""
    return [
        Figure(
            "Mixtral on regional OCSs, switching time that doubles an iteration, s (MixNet, SIGCOMM 2025: about)",
            "examples/mixnet.toml",
            [1.0],
            lambda: [knee_s()],
            0.5,
            ".2g",
        ),
        Figure(
            "iteration on rails behind OCSs of 15, 100 ms over one on electrical rails (Opus, 2025: less than)",
            "llama3-70b on 64 H100, dp4 tp8 pp2, 400 Gb/s",
            [1.06] * len(OPUS_MS),
            _opus,
            0.06,
        ),
        Figure(
            "speed-up by circuits inside of layers, 10 us, at 100 and 1600 GB/s per GPU (ACTINA, 2025: up to, and none)",
            "qwen3-235b-a22b on 64 H100, dp16 tp4 ep16",
            [2.3, 1.0],
            lambda: [_actina(rate) for rate in ACTINA_GBYTES_PER_S],
            0.2,
        ),
    ]
