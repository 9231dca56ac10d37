"""The table of fabrics: a kind has one row here, and is asked what all kinds are asked."""

from dataclasses import fields
from fractions import Fraction

import pytest

from lightfabric.model.spec import (
    CubeTorusSpec,
    CustomSpec,
    DragonflySpec,
    ElectricalClusterSpec,
    ElectricalSwitchSpec,
    FatTreeSpec,
    MixnetSpec,
    PhotonicRailsSpec,
    RailOptimisedSpec,
    SipOcsSpec,
    SipRingSpec,
    TopooptSpec,
    TorusSpec,
    TwistedTorusSpec,
)
from lightfabric.model.timing import ClientTiming, LinkTiming, SwitchTiming, Timing

FABRICS = (
    ElectricalSwitchSpec("switch", "electrical-switch", gpu_gbps=1024.0),
    ElectricalClusterSpec("islands", "electrical-cluster", island_gbps=1024.0, nic_gbps=100.0, island_gpus=4),
    FatTreeSpec("tree", "fat-tree", nic_gbps=200.0, radix=6, levels=3, oversubscription=2.0),
    RailOptimisedSpec(
        "rails", "rail-optimised", island_gbps=1024.0, nic_gbps=100.0, island_gpus=4, rail_islands=2, oversubscription=2.0
    ),
    DragonflySpec("dragonfly", "dragonfly", 400.0, 400.0, gpus_per_router=2, routers_per_group=4, global_links=2),
    SipRingSpec("ring", "sip-ring", max_hops=4),
    SipOcsSpec("ocs", "sip-ocs", fibre_m=5.0),
    PhotonicRailsSpec("photonic rails", "photonic-rails", island_gbps=2048.0, island_gpus=4),
    MixnetSpec("mixnet", "mixnet", island_gbps=1024.0, nic_gbps=100.0, island_gpus=4, region_gpus=16),
    TopooptSpec("topoopt", "topoopt", degree=4),
    TorusSpec("torus", "torus", dimensions=2),
    TwistedTorusSpec("twisted", "twisted-torus", dimensions=2),
    CubeTorusSpec("cubes", "cube-torus", dimensions=2, cube_edge=2),
    CustomSpec("chords", "custom", 64, tuple((gpu, (gpu + step) % 64) for gpu in range(64) for step in (1, 8))),
)


def pytest_addoption(parser):
    parser.addoption("--mutants", action="store_true", help="break the blocks of rtl/ one by one and see their tests fail")


@pytest.fixture(params=FABRICS, ids=lambda spec: spec.kind)
def fabric_spec(request):
    return request.param


@pytest.fixture(scope="session")
def fabric_kinds():
    return {type(spec) for spec in FABRICS}


@pytest.fixture(scope="session")
def invented_timing():
    """Timing that no RTL has, with every value 1 but those that fluid networks read."""
    link, switch = ({field.name: 1 for field in fields(kind)} for kind in (LinkTiming, SwitchTiming))
    link |= {"latency_cycles": 20, "cycles_per_flit": Fraction(33, 16)}
    switch |= {"latency_cycles": 3, "cycles_per_flit": Fraction(1)}
    return Timing(LinkTiming(**link), SwitchTiming(**switch), ClientTiming(1, 1, 1, 1), "", "", "none")


@pytest.fixture(scope="session")
def chakra_collective():
    """What writes the Chakra traces of one collective of all ranks, byte by byte: it shares no code with the reader."""

    def varint(value):
        out = bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes([*out, value])

    def written(folder, ranks, kind, size):
        node = b"\x08\x01\x18\x07"
        for name, value in (("comm_type", kind), ("comm_size", size)):
            attribute = b"\x0a" + varint(len(name)) + name.encode() + b"\x48" + varint(value)
            node += b"\x52" + varint(len(attribute)) + attribute
        for rank in range(ranks):
            (folder / f"job.{rank}.et").write_bytes(b"\x00" + varint(len(node)) + node)

    return written
