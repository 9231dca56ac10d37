"""Photonic rails by hand: islands of four GPUs, and circuits between GPUs of one place."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from lightfabric.model.circuit import Circuits, joined
from lightfabric.model.fabric.fabric import fabric_of
from lightfabric.model.fluid import engine
from lightfabric.model.spec import ChipletSpec, PhotonicRailsSpec, SpecError
from lightfabric.model.task import Kind, Part
from lightfabric.placement.fabric.fabric import fabric_of as placement_fabric
from lightfabric.placement.graph.builder import Builder

CHIPLET = ChipletSpec(ports=2, wavelengths_per_port=8)
SPEC = PhotonicRailsSpec(
    "rails", "photonic-rails", island_gbps=2048.0, island_gpus=4, cable_m=2.0, fibre_m=10.0,
    reconfigure="phase", control_us=1.0, switching_us=2.0, receiver_us=0.0,
)  # fmt: skip
PORT_BYTES_PER_S = CHIPLET.payload_bytes * CHIPLET.core_clock_mhz * 1e6 * 16 / 33
ISLAND_BYTES_PER_S = 2048e9 / 8 * 256 / 272
CABLE_PS, SWITCH_PS = 100_000 + 2 * 5000, 200_000


@pytest.fixture
def fabric(invented_timing):
    return placement_fabric(SPEC, CHIPLET, invented_timing)


def test_a_pair_takes_its_island_its_rail_or_first_the_one_and_then_the_other(fabric):
    circuits = fabric.assign(8, {(0, 4): 10, (1, 4): 10, (4, 0): 10})
    assert circuits.stops == {(0, 4): (0, 4), (4, 0): (4, 0), (1, 4): (1, 0, 4)}
    assert circuits.lanes == {(0, 4): 2, (4, 0): 2}
    network = fabric.network(8, [(0, 1), (0, 4), (1, 4)], circuits)
    ends = [list(zip(network.link_source[way].tolist(), network.link_destination[way].tolist(), strict=True))
            for way in (network.route(0, 1), network.route(0, 4), network.route(1, 4))]  # fmt: skip
    assert ends == [[(0, 8), (8, 1)], [(0, 4)], [(1, 8), (8, 0), (0, 4)]]
    rates = network.bytes_per_s[network.route(1, 4)]
    assert rates == pytest.approx([ISLAND_BYTES_PER_S, ISLAND_BYTES_PER_S, 2 * PORT_BYTES_PER_S])
    light_ps = network.latency_ps[network.route(0, 4)].sum()
    assert network.latency_ps[network.route(0, 1)].sum() == 2 * CABLE_PS + SWITCH_PS
    assert network.latency_ps[network.route(1, 4)].sum() == light_ps + 2 * CABLE_PS + SWITCH_PS


@pytest.mark.parametrize(("islands", "own"), [(2, 4), (4, 4), (4, 2), (3, 4)])
def test_rings_go_from_island_to_island_on_all_rails_alike(islands, own, invented_timing):
    members = np.array([4 * island + place for place in range(own) for island in range(islands)], np.int32)
    rings = fabric_of(SPEC, CHIPLET, invented_timing).rings(members, 4 * islands)
    assert len(rings) == own
    hops = [hop for ring in rings for hop in pairwise([*ring.tolist(), int(ring[0])])]
    assert all(sorted(ring.tolist()) == sorted(members.tolist()) for ring in rings)
    crossing = [(a, b) for a, b in hops if a // 4 != b // 4]
    assert len(crossing) == islands * own
    assert set(Counter(a for a, _ in crossing).values()) == {1}
    # Of an odd number of islands the last hop of each ring is to another place.
    assert sum(a % 4 != b % 4 for a, b in crossing) == (islands % 2) * own


def test_islands_must_be_whole(fabric):
    with pytest.raises(SpecError, match=r"^PhotonicRailsSpec\.island_gpus must be a divisor of the 6 GPUs, not 4$"):
        fabric.assign(6, {(0, 4): 1})
    assert fabric.assign(3, {(0, 2): 1}) == Circuits({}, {})


def test_what_stays_on_an_island_does_not_wait_for_light_and_shares_its_links(fabric):
    """Ports turn between the messages over the rail, of which each takes 2 us, while others go over the island."""
    builder, gpu = Builder(), np.array([0], np.int32)
    size = round(2e-6 * 2 * PORT_BYTES_PER_S)
    for part, peer in ((Part.PIPELINE, 4), (Part.DATA, 4), (Part.TENSOR, 1), (Part.DATA, 1)):
        builder.add(Kind.TRANSFER, part, gpu, size, peer)
    builder.link(gpu, gpu + 1)
    graph = builder.graph(8, [np.zeros((1, 1), np.int32)])
    one = Circuits({(0, 4): 2}, {(0, 4): (0, 4)})
    circuits = joined([one, one], (0, 0, 1, 0), 8)
    made = fabric.reconfigured(graph, circuits)
    assert made.device[:4].tolist() == [0, 8, 0, 0]
    network = fabric.network(made.devices, made.demand_bytes(), circuits)
    schedule, dark_ps = engine.run(made, network), fabric.dark_ps(8, circuits)
    assert schedule.start_ps[2:4].tolist() == [0, 0]
    island_ps = schedule.finish_ps[3] - 2 * CABLE_PS - SWITCH_PS
    assert island_ps == pytest.approx(2 * size / ISLAND_BYTES_PER_S * 1e12, rel=1e-6)
    assert schedule.start_ps[1] == schedule.finish_ps[0] + dark_ps
    turns = made.part == Part.RECONFIGURATION
    assert sorted(made.device[turns].tolist()) == [8, 8, 12, 12]


def test_flits_that_change_the_rail_are_refused(fabric):
    with pytest.raises(ValueError, match=r"^flits go between islands on one rail only, which GPU 1 and GPU 4 do not share$"):
        fabric.cabling(8, fabric.assign(8, {(1, 4): 10}))
