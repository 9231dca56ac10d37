"""Collectives on two DGX-2 and two NDv2 as TE-CCL's solver had them (SIGCOMM 2024, its committed outputs), and ours."""

from functools import cache

import numpy as np

from lightfabric.flows.published.figure import Figure
from lightfabric.model.fluid.shortest import Topology
from lightfabric.placement.collective.sends import Collective
from lightfabric.placement.synthesis.links import Links, links_of
from lightfabric.placement.synthesis.synthesis import Synthesised, synthesised

Way = tuple[int, int, float, float]
"""From, to, GB/s and us."""
SIZES = (64_000, 1_000_000, 16_000_000, 1_000_000_000)
"""Bytes of the whole buffer of a member."""
GATHER, EXCHANGE = Collective.ALL_GATHER, Collective.ALL_TO_ALL
PUBLISHED = {
    ("DGX-2", GATHER): (4.32, 10.75, 124, 7750),
    ("DGX-2", EXCHANGE): (8.46, 84.25, 1292, 80_500),
    ("NDv2", GATHER): (6.08, 48.75, 700, 43_750),
}
"""Finish in us. At 16 MB and 1 GB on DGX-2 it is that of the bytes alone: latencies are less than the solver's epochs, and
no schedule that waits for them is so fast. The set-up says what none is below."""
WITHIN = 0.25
"""Ours may finish so much sooner; ``tests/published`` says how little later."""
NVLINKS = {50: ("01", "04", "13", "23", "26", "45", "57", "67"), 25: ("02", "03", "12", "15", "37", "46", "47", "56")}
"""Pairs of the eight GPUs of an NDv2 by GB/s."""


def links_of_two(machine: str) -> Links:
    """Build the links of two machines, DGX-2 or NDv2; GPUs come first, then the switches inside."""
    gpus, ways = (32, _dgx2()) if machine == "DGX-2" else (16, _ndv2())
    source, destination, rate, latency_us = (np.array(column) for column in zip(*ways, strict=True))
    vertices, latency_ps = int(source.max()) + 1, np.rint(latency_us * 1e6).astype(np.int64)
    return links_of(Topology(vertices, np.arange(gpus), source, destination, rate * 1e9, latency_ps))


def _dgx2() -> list[Way]:
    """GPUs at the switch of their machine; each second one also at its neighbour in the other machine."""
    ends = [(gpu, 32 + gpu // 16) for gpu in range(32)]
    ways = [(a, b, 125.0, 0.35) for there in ends for a, b in (there, there[::-1])]
    return ways + [(gpu, (gpu + 15) % 32, 12.5, 2.6) for gpu in range(1, 32, 2)]


def _ndv2() -> list[Way]:
    ends = [(int(a), int(b), rate) for rate, pairs in NVLINKS.items() for a, b in pairs]
    ways = [(8 * box + x, 8 * box + y, rate, 0.7) for box in range(2) for a, b, rate in ends for x, y in ((a, b), (b, a))]
    return [*ways, (0, 9, 12.5, 1.3), (8, 1, 12.5, 1.3)]


@cache
def solved(machine: str, kind: Collective) -> list[Synthesised]:
    """Synthesise a collective of each size."""
    links = links_of_two(machine)
    return [synthesised(kind, links, size) for size in SIZES]


def _finish_us(machine: str, kind: Collective) -> list[float]:
    return [1e6 * (found.seconds or 0.0) for found in solved(machine, kind)]


def _bounds_us(machine: str, kind: Collective) -> str:
    return ", ".join(f"{1e6 * found.bound_seconds:.5g}" for found in solved(machine, kind))


def figures() -> list[Figure]:
    """Finish of all-gathers and all-to-alls of four sizes."""
    return [
        Figure(
            f"{kind.name.lower().replace('_', '-')} of 64 KB, 1 MB, 16 MB, 1 GB on two {machine}, us (TE-CCL, SIGCOMM 2024)",
            f"placement/synthesis; no schedule is below {_bounds_us(machine, kind)}",
            finish_us,
            lambda machine=machine, kind=kind: _finish_us(machine, kind),
            WITHIN,
            ".5g",
        )
        for (machine, kind), finish_us in PUBLISHED.items()
    ]
