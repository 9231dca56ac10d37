"""Wavelengths that die and return under load cost no packet, with spare ones, on few of them, and under a code."""

import secrets

import pytest

from lightfabric.flows.tool import native as flow
from lightfabric.model.spec import ChipletSpec
from lightfabric.sim.native.link import Run

DAMAGE = ("lost", "corrupted", "duplicated", "reordered", "protocol_errors")
SPECS = {
    "a spare one": ChipletSpec(ports=1, wavelengths_per_port=4, spare_wavelengths=1, flit_bytes=64),
    "one and two spare": ChipletSpec(ports=1, wavelengths_per_port=1, spare_wavelengths=2, flit_bytes=64),
    "light, a beat is a flit": ChipletSpec(ports=1, wavelengths_per_port=8, flit_bytes=64, fec="light"),
    "kp4, a spare one": ChipletSpec(ports=1, wavelengths_per_port=4, spare_wavelengths=1, flit_bytes=64, fec="kp4"),
    "kr4, a block in each cycle": ChipletSpec(
        ports=1, wavelengths_per_port=8, spare_wavelengths=1, wavelength_gbps=33.0, flit_bytes=64, fec="kr4"
    ),
}
FAULTS = {"stalls": 0.2, "darks": 3e-5, "bursts": 1e-5}


@pytest.mark.slow
@pytest.mark.parametrize("case", SPECS)
def test_a_thousand_wavelengths_that_die_and_return_cost_no_packet(case, tmp_path):
    """A fixed seed, and one that is new each time; two directions, at times without light, with bit errors."""
    spec = SPECS[case]
    built = flow.build(spec, tmp_path)
    rates = {"kills": 2e-4 * spec.lanes_per_port, "ber": 1e-5, "ber_back": 1e-5} | FAULTS
    kills = narrow_cycles = 0
    for seed in (1, secrets.randbits(32)):
        print(f"seed {seed}")
        seen = flow.run(built, Run(40_000, 40_000, seed=seed, **rates))
        assert (seen["delivered"], {name: seen[name] for name in DAMAGE if seen[name]}) == (80_000, {}), seed
        assert seen["darks"] > 5
        kills, narrow_cycles = kills + seen["kills"], narrow_cycles + seen["narrow_cycles"]
        if spec.code:
            assert min(seen["register_uncorrectable_codewords"]) > 0
    assert kills > 1000
    # One wavelength alone has no fewer; of several, more die at times than there are spare ones.
    assert (narrow_cycles > 1000) == (spec.wavelengths_per_port > 1)
