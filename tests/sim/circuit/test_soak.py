"""Circuits change a thousand times under full traffic, in native code: nothing is lost, and the dark is accounted for."""

import pytest

from lightfabric.flows.tool import native
from lightfabric.flows.tool.verilog_text import convert
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.circuit_controller import PhaseBounds
from lightfabric.sim.circuit import circuit_soak as soak
from lightfabric.sim.circuit.circuit_controller import SwitchedLinks
from lightfabric.sim.native.link import TOP

PORTS = 4
BOUNDS = PhaseBounds(settle_cycles=1000, lock_cycles=1000, train_cycles=30_000)
SPECS = {
    "eight beats a flit": ChipletSpec(
        ports=1, wavelengths_per_port=1, flit_bytes=64, virtual_channels=2, buffer_flits=8, reach_m=1.0, crc="crc16"
    ),
    "a beat a flit": ChipletSpec(
        ports=1, wavelengths_per_port=8, flit_bytes=64, virtual_channels=2, buffer_flits=16, reach_m=1.0
    ),
}
SEED, BOUND_CYCLES = 7, 20_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("ber", [0.0, 2e-5])
def test_a_thousand_random_changes_lose_nothing_and_their_dark_time_is_the_sum_of_its_parts(name, ber, tmp_path):
    top = SwitchedLinks(SPECS[name], PORTS, BOUNDS)
    program = native.built(TOP, {f"{TOP}.v": convert(top, TOP), **soak.sources(top)}, tmp_path)
    counts = native.counts(program, ["1000", str(SEED), str(ber), str(BOUND_CYCLES)], 280)
    assert counts["changes"] + counts["abandoned"] == 1000
    assert counts["abandoned"] <= (0 if ber == 0 else 20)
    assert counts["sent"] > 100_000
    assert (counts["received"], counts["wrong"]) == (counts["sent"], 0)
    assert counts["sums"] > 300
    assert (counts["wrong_sums"], counts["failed"], counts["out_of_service"]) == (0, 0, 0)
    assert (counts["bit_errors"] > 0) == (ber > 0)
