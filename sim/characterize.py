"""The RTL built from a spec is measured here, for the ``Timing`` that the models run on.

Link, switch and client side are *blocks*, each measured by itself: ``BLOCKS`` says which fields of a spec a block is built
from, so that a sweep over a field measures only the blocks that read it.
"""

import ast
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from lightfabric.model.spec import ChipletSpec, spec_hash
from lightfabric.model.timing import Timing
from lightfabric.sim.client_timing import measure_client
from lightfabric.sim.link_timing import measure_link
from lightfabric.sim.switch_timing import measure_switch

MEASURED_BY = ("rtl", "sim", "model.codec", "model.cycle.slot", "model.reed_solomon")
"""Modules of these names decide what is measured; ``model.spec`` does so by the values that ``key`` has."""


@dataclass(frozen=True)
class Block:
    """Says how a block is measured and which fields and properties of a spec it is built from."""

    measure: Callable[[ChipletSpec], Any]
    reads: tuple[str, ...]

    def key(self, spec: ChipletSpec) -> str:
        """Hash the values that the block is built from: equal for equal hardware, 16 hexadecimal digits."""
        built = {name: str(getattr(spec, name)) for name in self.reads}
        return hashlib.sha256(json.dumps(built, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def source_hash(self) -> str:
        """Hash the sources that decide the timing and the simulator's version into 16 hexadecimal digits."""
        return _hash_of(self.measure.__module__)


_CHANNEL = ("virtual_channels", "buffer_flits", "payload_bytes")
_LANES = ("wavelengths_per_port", "spare_wavelengths", "max_skew_blocks")
BLOCKS: Mapping[str, Block] = {
    "link": Block(
        measure_link,
        (*_CHANNEL, *_LANES, "flit_bytes", "crc", "replay_flits", "blocks_per_cycle", "reach_cycles", "fec", "stall_cycles"),
    ),
    "switch": Block(measure_switch, (*_CHANNEL, "switch_ports")),
    "client": Block(measure_client, (*_CHANNEL, "client_bytes", "stall_cycles", "channel_streams")),
}

Progress = Callable[[str], None]
"""Hears the name of the block that is waited for."""
Begin = Callable[[str, ChipletSpec, Progress], Callable[[], Any]]
"""Begins to measure a block of a spec, and returns what waits for its timing and tells ``Progress`` if that takes long."""


def rtl_hash() -> str:
    """Hash the sources of all blocks and of what measures them into 16 hexadecimal digits."""
    return _hash_of(__name__)


def later(name: str, spec: ChipletSpec, progress: Progress) -> Callable[[], Any]:
    """Measure a block in this process when its timing is waited for."""

    def wait() -> Any:
        progress(name)
        return BLOCKS[name].measure(spec)

    return wait


def characterize(spec: ChipletSpec, progress: Progress = lambda _: None, begin: Begin = later) -> Timing:
    """Simulate link, switch and client side of this spec and return their timing. Takes seconds to a minute by its width.

    ``begin`` may hand blocks to other processes, or know their timing.
    """
    waits = {name: begin(name, spec, progress) for name in BLOCKS}
    timings = {name: wait() for name, wait in waits.items()}
    return Timing(**timings, spec_hash=spec_hash(spec), rtl_hash=rtl_hash(), simulator=f"amaranth.sim {version('amaranth')}")


@cache
def _hash_of(module: str) -> str:
    digest = hashlib.sha256(version("amaranth").encode())
    for name, source in sorted(_sources(module.removeprefix("lightfabric.")).items()):
        digest.update(name.encode() + source)
    return digest.hexdigest()[:16]


def _sources(name: str) -> dict[str, bytes]:
    """Read the source of a module and of all that it imports, by name, as far as ``MEASURED_BY`` goes."""
    found, waiting = dict[str, bytes](), [name]
    while waiting:
        name = waiting.pop()
        decides = any(f"{name}.".startswith(f"{each}.") for each in MEASURED_BY)
        if name in found or not decides:
            continue
        top, _, below = name.partition(".")
        path = files(f"lightfabric.{top}").joinpath(*f"{below.replace('.', '/')}.py".split("/"))
        # What is imported may also be a folder, or a name in a module.
        if not path.is_file():
            continue
        found[name] = path.read_bytes()
        for node in ast.walk(ast.parse(found[name])):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lightfabric."):
                module = node.module.removeprefix("lightfabric.")
                waiting += [module, *(f"{module}.{each.name}" for each in node.names)]
    return found
