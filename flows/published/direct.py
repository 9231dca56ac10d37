"""A direct all-to-all on a torus of cubes, straight or twisted, whose links serve first come, first served [TONS, 2026]."""

import json
from collections.abc import Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from lightfabric.flows.published.figure import Figure
from lightfabric.model.fabric.direct.cubes import Cubes
from lightfabric.model.fabric.direct.lattice import Lattice
from lightfabric.model.fabric.fabric import fabric_of
from lightfabric.model.fluid import engine
from lightfabric.model.fluid.forwarding import stored_and_forwarded
from lightfabric.model.fluid.network import Network
from lightfabric.model.spec import ChipletSpec, FabricSpec
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.synthesis.cube_cabling import CubeCabling, least_load, synthesised_cabling

SHAPE, INJECTION_PS, CHUNKS = (4, 4, 8), 25_000, 8
RANKS = prod(SHAPE)
SIZES_MIB = (1, 16, 256)
"""What each rank has; it sends as many parts of it as there are ranks, one to each other."""
ALL_TO_ALL_NS = {"torus": (9609, 131756, 2103596), "twisted-torus": (6104, 77878, 1233971)}
WITHIN = 0.02
BEST_LOAD, STEPS = 72, 1000
"""Units on the fullest link of the best cabling known of 4x4x8, one for each pair, and how far ours is searched for."""
LOADS = {
    "4x4x8 and 4x8x8 torus": ([Lattice((4, 4, 8)), Lattice((4, 8, 8))], (128, 256)),
    "4x4x8 and 4x8x8 twisted torus": ([Lattice((4, 4, 8), True), Lattice((4, 8, 8), True)], (220 / 3, 184)),
}
"""Units on the fullest link where each pair splits one over all its shortest ways; the twisted ones meet a bound."""


def network(cabling: str, permutations: Sequence[Sequence[int]] = ()) -> Network:
    """Make the links of 128 GB/s of two cubes of 64, 75 ns long inside a cube and 50 ns between cubes and round the axes."""
    fields: dict[str, Any] = {"name": cabling, "kind": "cube-torus", "cabling": cabling, "shape": SHAPE, "link_gbps": 1024.0}
    fields["permutations"] = permutations
    fields |= {"electrical_latency_ns": 75.0, "optical_latency_ns": 50.0}
    spec = TypeAdapter(FabricSpec).validate_json(json.dumps(fields))
    gpus = range(RANKS)
    return fabric_of(spec, ChipletSpec()).network(RANKS, [(a, b) for a in gpus for b in gpus])


def all_to_all(size_mib: int) -> TaskGraph:
    """Let every rank send its parts together after the injection, the next rank's first, each chunk after chunk."""
    here = np.repeat(np.arange(RANKS), RANKS - 1)
    there = (here + np.tile(np.arange(1, RANKS), RANKS)) % RANKS
    ones = np.ones(RANKS, np.int64)
    return TaskGraph(
        RANKS,
        np.repeat([Kind.COMPUTE, Kind.TRANSFER], [RANKS, len(here)]).astype(np.int8),
        np.concatenate([np.arange(RANKS), here]).astype(np.int32),
        np.concatenate([INJECTION_PS * ones, np.full(len(here), (size_mib << 20) // RANKS)]),
        np.concatenate([-ones, there]).astype(np.int32),
        np.repeat([1, CHUNKS], [RANKS, len(here)]).astype(np.int32),
        np.minimum(np.arange(RANKS + len(here) + 1) * (RANKS - 1), len(here)).astype(np.int64),
        (RANKS + np.arange(len(here))).astype(np.int32),
        np.zeros(1, np.int64),
        np.zeros(0, np.int32),
    )


def bounds_ns(cabling: str) -> list[float]:
    """Bound the times from below by what the fullest link carries, at its rate."""
    links = network(cabling)
    parts = np.bincount(links.route_links, minlength=len(links.bytes_per_s))
    seconds_per_byte = float((parts / links.bytes_per_s).max()) / RANKS
    return [seconds_per_byte * (size_mib << 20) * 1e9 for size_mib in SIZES_MIB]


def _times_ns(cabling: str) -> list[float]:
    links = network(cabling)
    return [engine.run(*stored_and_forwarded(all_to_all(size_mib), links, 0)).makespan_ps / 1e3 for size_mib in SIZES_MIB]


@cache
def synthesised() -> CubeCabling:
    """Find a cabling of the two cubes."""
    return synthesised_cabling(Cubes(SHAPE, 4), 1, STEPS)


def figures() -> list[Figure]:
    """Loads of links, and all-to-alls of three sizes."""
    sizes = ", ".join(map(str, SIZES_MIB))
    found = [
        Figure(
            f"messages over the fullest link in an all-to-all on a {what}, split evenly (TPUv4, ISCA 2023)",
            "all pairs, all shortest ways",
            published,
            lambda lattices=lattices: [float(max(lattice.split_loads())) for lattice in lattices],
            0,
        )
        for what, (lattices, published) in LOADS.items()
    ]
    found.append(
        Figure(
            "messages over the fullest link in an all-to-all on a 4x4x8 topology found, split, on one way (TONS, 2026)",
            f"lightfabric topology --shape 4x4x8 --steps {STEPS}; no cabling is below {least_load(Cubes(SHAPE, 4)):.2f}",
            (BEST_LOAD, BEST_LOAD),
            lambda: [synthesised().split_load, synthesised().single_load],
            WITHIN,
        )
    )
    return found + [
        Figure(
            f"all-to-all of {sizes} MiB per rank on a 4x4x8 {cabling.replace('-', ' ')}, ns (TONS, 2026)",
            f"cube-torus, chunks stored and forwarded; at least {', '.join(f'{ns:.0f}' for ns in bounds_ns(cabling))}",
            published_ns,
            lambda cabling=cabling: _times_ns(cabling),
            WITHIN,
            ".0f",
        )
        for cabling, published_ns in ALL_TO_ALL_NS.items()
    ]
