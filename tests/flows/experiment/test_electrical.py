"""Electrical fabrics in a study: whatever the chiplet is, and flit by flit as long as in the fluid model."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightfabric.flows.experiment import cell
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.model.spec import ChipletSpec, JobSpec, ModelSpec
from lightfabric.model.spec.electrical import ElectricalLinks
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.place import candidates

JOB = JobSpec(ModelSpec(layers=2, hidden=256, heads=4, sequence=128, vocabulary=512), batch=16)
CHIPLETS = (
    ChipletSpec(),
    ChipletSpec(ports=1, wavelengths_per_port=8, wavelength_gbps=20.0, core_clock_mhz=1000.0, flit_bytes=64),
    ChipletSpec(flit_bytes=256, bit_error_rate=1e-5),
)


@pytest.fixture
def tiny():
    """The small example with a job of few flits, which takes half of its time to communicate."""
    spec = load_spec(None, "small")
    return replace(spec, job=JOB, accelerator=replace(spec.accelerator, memory_gib=0.05), gpus=(8,))


@pytest.fixture
def electrical_spec(fabric_spec):
    if not isinstance(fabric_spec, ElectricalLinks):
        pytest.skip("not an electrical fabric")
    return fabric_spec


def row(spec, fabric, timing, fidelity="fluid", gpus=8):
    return cell.simulate(cell.Job(spec, gpus, fabric_of(fabric, spec.chiplet, timing), fidelity, ""))[0]


def test_neither_chiplet_nor_bit_errors_nor_timing_move_an_electrical_fabric(tiny, electrical_spec, invented_timing):
    slower = replace(invented_timing, link=replace(invented_timing.link, latency_cycles=99, credit_in_cycles=2000))
    rows = [row(replace(tiny, chiplet=chiplet), electrical_spec, invented_timing) for chiplet in CHIPLETS]
    rows.append(row(tiny, electrical_spec, slower))
    assert all(other == rows[0] for other in rows[1:])
    assert rows[0]["fits"]
    assert (rows[0]["link_latency_ns"], rows[0]["switch_latency_ns"]) == (100.0, 200.0)
    assert (rows[0]["slot_loss_rate"], rows[0]["goodput_share"]) == (0.0, 1.0)
    assert 0.9 < rows[0]["port_payload_gbps"] / max(
        value for name, value in vars(electrical_spec).items() if name.endswith("_gbps")
    ) < 1  # fmt: skip


def test_an_electrical_fabric_is_predicted_to_a_tenth_of_what_is_simulated(electrical_spec, invented_timing):
    found = row(load_spec(None, "small"), electrical_spec, invented_timing, gpus=32)
    print(electrical_spec.kind, found["predicted_total_s"] / found["iteration_s"])
    assert found["predicted_total_s"] == pytest.approx(found["iteration_s"], rel=0.1)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(factor=st.floats(1, 10))
def test_a_faster_electrical_fabric_is_never_predicted_to_be_slower(factor, electrical_spec):
    rates = {name: value * factor for name, value in vars(electrical_spec).items() if name.endswith("_gbps")}
    spec, totals = load_spec(None, "small"), list[float]()
    for fabric in (electrical_spec, replace(electrical_spec, **rates)):
        on = fabric_of(fabric, spec.chiplet)
        totals.append(candidates(JOB, spec.accelerator, on, 16)[0].prediction.total)
    assert totals[1] <= totals[0]


def test_an_electrical_fabric_takes_as_long_flit_by_flit_as_in_the_fluid_model(tiny, electrical_spec, invented_timing):
    fluid, cycle = (row(tiny, electrical_spec, invented_timing, name)["iteration_s"] for name in ("fluid", "cycle"))
    print(electrical_spec.kind, cycle / fluid)
    assert cycle == pytest.approx(fluid, rel=0.03)
