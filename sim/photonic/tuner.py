"""The native bench of the tuner runs its verilated RTL on the plant in C++, over random corners of the rings."""

from dataclasses import asdict, dataclass
from importlib.resources import files

from lightfabric.model.spec.require import require, require_between
from lightfabric.sim.native.link import header
from lightfabric.sim.plant.ring_bus import RingBus

TOP = "tuner"
"""Name of the Verilog module."""
FAULTS = {"none": 0, "dead line": 1, "stolen line": 2}
"""What happens after the rings are tuned, as the program counts it."""


@dataclass(frozen=True)
class Run:
    """Describes what is done on a number of corners, which are drawn from the seed.

    The resonances deviate with the standard deviations ``local_ghz``, each its own, and ``systematic_ghz``, all alike, the
    defaults of DSENT. When all rings are tuned, or ``bound_frames`` have passed, the ambient becomes warmer by ``warmer_c``
    and is back, then colder by ``colder_c`` and is back, at ``drift_c_per_s``; then a line dies, or the first ring takes the
    line of the last one.
    """

    corners: int
    bound_frames: int
    seed: int = 1
    local_ghz: float = 40.0
    systematic_ghz: float = 200.0
    warmer_c: float = 0.0
    colder_c: float = 0.0
    drift_c_per_s: float = 800.0
    fault: str = "none"

    def __post_init__(self):
        require_between(self, 1, 1 << 20, "corners")
        require_between(self, 0, 1 << 31, "seed")
        require(self, "fault", self.fault in FAULTS, "none, dead line or stolen line")

    def arguments(self) -> list[str]:
        """Return the command line of the program."""
        values = {**asdict(self), "fault": FAULTS[self.fault]}
        return [text for name, value in values.items() for text in (name, f"{value}")]


def sources(bus: RingBus) -> dict[str, str]:
    """Return the C++ by file name, the program first and the header that fits it to the bus."""
    program = (files("lightfabric.sim.photonic") / "tuner.cpp").read_text(encoding="utf-8")
    plant = (files("lightfabric.sim.plant") / "ring_bus.h").read_text(encoding="utf-8")
    numbers = {"RING_BITS": (bus.tuner.rings - 1).bit_length(), "CALM_FRAMES": 4 * bus.tuner.half_frames}
    shape = bus.constants() + header(numbers).removeprefix("#pragma once\n")
    return {"tuner.cpp": program, "ring_bus.h": plant, "ring_bus_shape.h": shape}
