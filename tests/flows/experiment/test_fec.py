"""Error correction in a study: what a code costs and saves of a link's rate, and so of the training time."""

from dataclasses import replace
from importlib.resources import files

import pytest

from lightfabric.flows.experiment import cell
from lightfabric.flows.format.spec_file import load_variants
from lightfabric.model.cycle.link import Link
from lightfabric.model.cycle.sustained import _stream, sustained_cycles_per_flit
from lightfabric.model.spec import ChipletSpec, NetworkJobSpec
from lightfabric.placement.fabric.fabric import fabric_of

SWEEP = """
[sweep]
"chiplet.bit_error_rate" = [0.0, 1e-6, 1e-4]
"chiplet.fec" = ["none", "light", "kp4"]
"""


@pytest.fixture(scope="module")
def seconds(invented_timing, tmp_path_factory):
    """(bit error rate, code) -> training time over links so slow that communication is all that takes time."""
    path = tmp_path_factory.mktemp("fec") / "fec.toml"
    path.write_text((files("lightfabric.examples") / "small.toml").read_text() + SWEEP)
    found = {}
    for variant in load_variants(path):
        # Buffers are those that the slow line needs: sequences stay as narrow, and headers as short.
        chiplet = replace(variant.spec.chiplet, wavelength_gbps=0.0032, core_clock_mhz=0.05, replay_flits=0, buffer_flits=0)
        spec = replace(variant.spec, chiplet=chiplet, job=NetworkJobSpec("resnet-50", batch=64))
        row, _ = cell.simulate(cell.Job(spec, 8, fabric_of(spec.fabrics[3], chiplet, invented_timing), "fluid", ""))
        found[chiplet.bit_error_rate, chiplet.fec] = row["iteration_s"]
    return found


def test_on_a_clean_line_the_longer_blocks_of_kp4_cost_their_share(seconds):
    assert seconds[0.0, "kp4"] / seconds[0.0, "none"] == pytest.approx(68 / 66, rel=0.002)
    assert seconds[0.0, "light"] == pytest.approx(seconds[0.0, "none"], rel=0.002)


def test_the_noisier_the_line_the_more_a_code_saves(seconds):
    assert seconds[1e-6, "light"] < seconds[1e-6, "none"] < seconds[1e-6, "kp4"]
    assert seconds[1e-4, "light"] < seconds[1e-4, "kp4"] < 0.7 * seconds[1e-4, "none"]


def test_a_code_keeps_the_rate_of_the_clean_line_as_far_as_it_corrects(seconds):
    assert seconds[1e-4, "kp4"] == pytest.approx(seconds[0.0, "kp4"], rel=1e-9)
    assert 1 < seconds[1e-4, "light"] / seconds[0.0, "light"] < 1.01


@pytest.mark.parametrize(("fec", "ber"), [("kp4", 1.6e-3), ("light", 3e-4)])
def test_a_link_carries_what_is_left_between_lost_codewords(fec, ber, invented_timing):
    """A stream in the cycle model with its losses, against the rate that follows from the cost of one."""
    spec = ChipletSpec(wavelengths_per_port=8, flit_bytes=128, virtual_channels=1, reach_m=5.0, fec=fec, bit_error_rate=ber)
    count = 100_000
    cycles, missed = _stream(Link(spec, invented_timing.link, spec.reach_cycles), invented_timing.link, count)
    sustained = float(sustained_cycles_per_flit(spec, invented_timing.link, spec.reach_cycles))
    clean = float(sustained_cycles_per_flit(replace(spec, bit_error_rate=0.0), invented_timing.link, spec.reach_cycles))
    cost = sustained - clean
    assert cost > 0.01
    assert cycles[-1] / count - clean == pytest.approx(cost, rel=3 / missed**0.5)
