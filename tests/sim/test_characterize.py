"""A block is built from the fields, and by the sources, under whose hashes its timing is kept."""

import os
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from lightfabric.model.spec import ChipletSpec
from lightfabric.sim import characterize
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.link import LinkBench
from lightfabric.sim.characterize import BLOCKS, MEASURED_BY

TINY = ChipletSpec(ports=1, wavelengths_per_port=2, flit_bytes=64, virtual_channels=2, buffer_flits=4, reach_m=1.0)
OTHER = {
    "link": {"ports": 3, "wavelength_gbps": 16.0, "core_clock_mhz": 250.0, "reach_m": 2.0, "bit_error_rate": 1e-6},
    "switch": {"wavelengths_per_port": 4, "wavelength_gbps": 16.0, "crc": "crc16", "reach_m": 5.0, "replay_flits": 60},
    "client": {"ports": 2, "wavelength_gbps": 16.0, "crc": "crc24", "reach_m": 5.0, "replay_flits": 60},
}
"""What may change of a spec and leave the block as it is."""


class Only:
    """A spec of which some fields and properties alone can be read, and what follows from them."""

    def __init__(self, spec, names):
        self._spec, self._names = spec, names

    def __getattr__(self, name):
        if name in self._names:
            return getattr(self._spec, name)
        value = vars(ChipletSpec)[name]
        if isinstance(value, property):
            return value.fget(self)
        if name in {field.name for field in fields(ChipletSpec)}:
            raise AssertionError(f"{name} was read")
        return value


def built(name, spec):
    """What is measured, or for the link, which takes long to measure, what a run shows."""
    if name != "link":
        return BLOCKS[name].measure(spec)
    run = LinkBench(spec).run([(0, ClientFlit(b"\1"))], delay_cycles=spec.reach_cycles, settle_cycles=50, decode=True)
    return run.received, run.credits_back, run.training, run.a_slots, run.b_slots


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_reads_only_what_its_key_hashes(name):
    known = built(name, TINY)
    assert built(name, Only(TINY, BLOCKS[name].reads)) == known
    with pytest.raises((AssertionError, KeyError)):
        built(name, Only(TINY, BLOCKS[name].reads[1:]))


@pytest.mark.parametrize("name", BLOCKS)
def test_the_key_of_a_block_is_that_of_all_chiplets_that_have_it(name):
    key = BLOCKS[name].key(TINY)
    assert BLOCKS[name].key(replace(TINY, **OTHER[name])) == key
    more = {"virtual_channels": 1, "buffer_flits": 5, "flit_bytes": 128}
    others = [BLOCKS[name].key(replace(TINY, replay_flits=0, **{field: value})) for field, value in more.items()]
    assert len({key, *others}) == 4


@pytest.mark.parametrize("name", BLOCKS)
def test_the_sources_of_a_block_are_the_modules_that_its_measurement_loads(name):
    module = BLOCKS[name].measure.__module__
    script = f"import sys, {module}; print(*(n for n in sys.modules if getattr(sys.modules[n], '__file__', None)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    loaded = {each.removeprefix("lightfabric.") for each in done.stdout.split() if each.startswith("lightfabric.")}
    decide = {each for each in loaded if any(f"{each}.".startswith(f"{prefix}.") for prefix in MEASURED_BY)}
    packages = {"rtl", "rtl.fec", "sim", "sim.bench", "sim.channel", "sim.fec"}
    assert set(characterize._sources(module.removeprefix("lightfabric."))) == decide - packages
