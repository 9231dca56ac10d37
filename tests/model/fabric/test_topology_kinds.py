"""Fat trees, rails and dragonflies: routes link by link, loads and times in closed form."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.model.cycle.cluster import Cluster
from lightfabric.model.fabric.fabric import fabric_of
from lightfabric.model.fluid import engine
from lightfabric.model.spec import (
    ChipletSpec,
    DragonflySpec,
    ElectricalClusterSpec,
    ElectricalSwitchSpec,
    FatTreeSpec,
    RailOptimisedSpec,
)
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.fabric.fabric import fabric_of as placement_fabric
from lightfabric.placement.mapping.traffic import EXCHANGE, Traffic

HOP_PS, ON_PS, NIC_PS = 100_000 + 5 * 5000, 100_000 + 5 * 5000 + 200_000, 2_000_000
NIC = 400e9 / 8 * 4096 / 4178
ISLAND = 1600e9 / 8 * 16 / 17

TREE = FatTreeSpec("tree", "fat-tree", nic_gbps=400.0, radix=8, oversubscription=3.0)
TALL = FatTreeSpec("tall", "fat-tree", nic_gbps=400.0, radix=4, levels=3)
RAILS = RailOptimisedSpec("rails", "rail-optimised", 1600.0, 400.0, island_gpus=4, rail_islands=2, oversubscription=4.0)
FULL = DragonflySpec("full", "dragonfly", 400.0, 200.0, gpus_per_router=2, routers_per_group=4, global_links=2)


def network(spec, gpus, pairs=None):
    every = itertools.permutations(range(gpus), 2)
    return fabric_of(spec, ChipletSpec()).network(gpus, every if pairs is None else pairs)


def way(made, source, destination):
    """The nodes on a route and its latency."""
    links = made.route(source, destination)
    assert (made.link_destination[links[:-1]] == made.link_source[links[1:]]).all()
    return [source, *made.link_destination[links].tolist()], int(made.latency_ps[links].sum())


def loads(made):
    """Pairs that take each link."""
    return np.bincount(made.route_links, minlength=len(made.bytes_per_s))


def transfers(gpus, sizes):
    """A graph of transfers that begin together."""
    pairs = np.array(list(sizes))
    return TaskGraph(
        gpus,
        np.full(len(pairs), Kind.TRANSFER, np.int8),
        pairs[:, 0].astype(np.int32),
        np.array(list(sizes.values()), np.int64),
        pairs[:, 1].astype(np.int32),
        np.ones(len(pairs), np.int32),
        np.zeros(len(pairs) + 1, np.int64),
        np.zeros(0, np.int32),
        np.zeros(1, np.int64),
        np.zeros(0, np.int32),
    )


def seconds(spec, gpus, sizes):
    """The time of transfers that begin together, in the fluid model."""
    return engine.run(transfers(gpus, sizes), network(spec, gpus, sizes)).makespan_ps / 1e12


@pytest.mark.parametrize(("spec", "gpus"), [(TREE, 20), (TALL, 15), (RAILS, 30), (RAILS, 6), (FULL, 72), (FULL, 21)])
def test_routes_lead_over_links_that_join_from_the_source_to_the_destination(spec, gpus):
    made = network(spec, gpus)
    for source, destination in itertools.permutations(range(gpus), 2):
        nodes, _ = way(made, source, destination)
        assert nodes[-1] == destination
        assert len(set(nodes)) == len(nodes)


def test_a_leaf_of_a_fat_tree_has_its_gpus_and_uplinks_of_a_third_of_their_rate():
    """Of 8 ports 6 lead down; leaves are nodes from 20 on, the spine is 24."""
    made = network(TREE, 20)
    assert way(made, 0, 5) == ([0, 20, 5], HOP_PS + NIC_PS + ON_PS)
    assert way(made, 5, 6) == ([5, 20, 24, 21, 6], HOP_PS + NIC_PS + 3 * ON_PS)
    assert made.bytes_per_s[made.route(5, 6)] == pytest.approx([NIC, 2 * NIC, 2 * NIC, NIC])


def test_a_fat_tree_of_three_levels_goes_no_higher_than_it_must():
    """Leaves of 2, pods of 2 leaves: 16 GPUs have leaves from 16 on, pods from 24 on, and the core 28."""
    made = network(TALL, 16)
    assert [way(made, 0, to)[0] for to in (1, 2, 4)] == [[0, 16, 1], [0, 16, 24, 17, 2], [0, 16, 24, 28, 25, 18, 4]]
    assert way(made, 0, 15)[1] == HOP_PS + NIC_PS + 5 * ON_PS
    assert made.bytes_per_s[made.route(0, 4)] == pytest.approx(np.array([1, 2, 4, 4, 2, 1]) * NIC)


@pytest.mark.parametrize(("senders", "rate"), [(1, 1.0), (2, 2.0), (6, 2.0)])
def test_flows_out_of_a_leaf_have_a_network_card_each_and_share_the_uplinks(senders, rate):
    sizes = {(gpu, 6 + gpu): 10**9 for gpu in range(senders)}
    wanted = senders * 1e9 / (rate * NIC) + (HOP_PS + NIC_PS + 3 * ON_PS) / 1e12
    assert seconds(TREE, 12, sizes) == pytest.approx(wanted, rel=1e-9)


def test_a_pair_on_another_rail_goes_by_the_gpu_of_its_own_island_that_is_there():
    """Islands of 4 and two of them on a rail: switches of islands are nodes from 16 on, rails from 20, and a spine 28."""
    made = network(RAILS, 16)
    assert way(made, 0, 3) == ([0, 16, 3], HOP_PS + ON_PS)
    assert way(made, 1, 5) == ([1, 21, 5], HOP_PS + NIC_PS + ON_PS)
    assert way(made, 1, 6) == ([1, 16, 2, 22, 6], 2 * (HOP_PS + ON_PS) + NIC_PS)
    assert way(made, 1, 9) == ([1, 21, 28, 25, 9], HOP_PS + NIC_PS + 3 * ON_PS)
    assert made.bytes_per_s[made.route(1, 10)] == pytest.approx([ISLAND, ISLAND, NIC, NIC / 2, NIC / 2, NIC])


def test_a_last_island_without_that_rail_keeps_to_its_own_and_changes_behind():
    made = network(RAILS, 6)
    assert way(made, 4, 3)[0] == [4, 8, 0, 6, 3]
    assert way(made, 3, 4)[0] == [3, 6, 0, 8, 4]


@pytest.mark.parametrize("islands", [2, 4, 6])
def test_rings_over_rails_keep_every_network_card_busy_and_change_no_rail(islands):
    gpus = 4 * islands
    rings = fabric_of(RAILS, ChipletSpec()).rings(np.arange(gpus, dtype=np.int32), gpus)
    pairs = [pair for ring in rings for pair in zip(ring.tolist(), np.roll(ring, -1).tolist(), strict=True)]
    assert [sorted(ring.tolist()) for ring in rings] == [list(range(gpus))] * 4
    crossing = [(a, b) for a, b in pairs if a // 4 != b // 4]
    assert all(a % 4 == b % 4 for a, b in crossing)
    for end in zip(*crossing, strict=True):
        assert sorted(end) == list(range(gpus))


def test_all_to_all_loads_the_links_of_a_full_dragonfly_alike():
    """9 groups of 4 routers with 2 GPUs each, a link for every two groups.

    It carries what 8 GPUs send to 8. One between routers x and y of a group carries what x has for the 2 groups behind y and
    what is for y from those behind x, 2 x 16 each, and 2 x 2 pairs of its own.
    """
    load = loads(network(FULL, 72))
    assert load[:144].tolist() == [71] * 144
    assert load[144 : 144 + 9 * 12].tolist() == [2 * 2 * 16 + 4] * (9 * 12)
    assert load[144 + 9 * 12 :].tolist() == [64] * 72


@pytest.mark.parametrize("gpus", [16, 24, 40])
def test_groups_of_a_small_dragonfly_share_as_many_links_as_their_routers_have(gpus):
    made, groups = network(FULL, gpus), gpus // 8
    shared = 8 // (groups - 1)
    group = (made.link_source[2 * gpus :] - gpus) // 4, (made.link_destination[2 * gpus :] - gpus) // 4
    between = group[0] != group[1]
    assert between.sum() == groups * (groups - 1) * shared
    ends = made.link_source[2 * gpus :][between]
    assert np.bincount(ends - gpus, minlength=4 * groups).max() <= 2
    load = loads(made)[2 * gpus :][between]
    assert load.sum() == groups * (groups - 1) * 64
    # A pair takes a link of its router's own, so what the links of two groups carry differs where routers have none.
    assert load.max() <= 1.5 * 64 / shared
    assert (made.route_start[1:] - made.route_start[:-1]).max() <= 5


def test_a_dragonfly_has_the_rate_of_its_router_links_between_groups():
    """One GPU to the next group, over a link of half a network card's rate, and over a router that has it."""
    wanted = 1e9 / (NIC / 2) + (HOP_PS + NIC_PS + 3 * ON_PS) / 1e12
    assert seconds(FULL, 72, {(0, 8): 10**9}) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("spec", "gpus", "message"),
    [
        (TREE, 49, "a fat tree of 2 levels and radix 8 has room for 48 GPUs, not 49"),
        (TALL, 17, "a fat tree of 3 levels and radix 4 has room for 16 GPUs, not 17"),
        (FULL, 73, "a dragonfly of groups with 8 global links has room for 72 GPUs, not 73"),
    ],
)
def test_more_gpus_than_there_is_room_for_are_named(spec, gpus, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        network(spec, gpus, [])


CABLED = [
    ElectricalSwitchSpec("switch", "electrical-switch", 1600.0),
    ElectricalClusterSpec("islands", "electrical-cluster", 1600.0, 400.0, island_gpus=4),
    replace(TREE, radix=6, oversubscription=2.0),
    TALL,
    RAILS,
    FULL,
]
"""Of 16 GPUs: one switch, several planes, two and three stages, GPUs that change rails for others, and a circle."""


@pytest.mark.parametrize("spec", CABLED, ids=lambda spec: spec.name)
def test_all_to_all_takes_as_long_flit_by_flit_as_in_the_fluid_model(spec):
    """All pairs at once, 160 kB each."""
    fabric, found = fabric_of(spec, ChipletSpec()), dict.fromkeys(itertools.permutations(range(16), 2), 160_000)
    cluster = Cluster(transfers(16, found), fabric.cycle_chiplet, fabric.cycle_timing, fabric.cabling(16))
    seen = cluster.run().makespan_ps / 1e12
    print(spec.kind, seen / seconds(spec, 16, found))
    assert seen == pytest.approx(seconds(spec, 16, found), rel=0.01)


@pytest.mark.parametrize("spec", CABLED, ids=lambda spec: spec.name)
def test_flits_take_the_links_of_the_routes_and_share_their_ports_evenly(spec):
    """A prime number of flits for each pair, counted on every port of every link."""
    fabric, made, count = fabric_of(spec, ChipletSpec()), network(spec, 16), 61
    sizes = dict.fromkeys(itertools.permutations(range(16), 2), count * fabric.cycle_chiplet.payload_bytes)
    cluster = Cluster(transfers(16, sizes), fabric.cycle_chiplet, fabric.cycle_timing, fabric.cabling(16))
    cluster.run()
    ports, wanted = {}, {}
    for (node, _), far, flits in zip(cluster.links, cluster.far_node.values(), cluster.flits_per_link(), strict=True):
        ports.setdefault((node, far), []).append(int(flits))
    for link, pairs in enumerate(loads(made)):
        ends = int(made.link_source[link]), int(made.link_destination[link])
        wanted[ends] = wanted.get(ends, 0) + int(pairs) * count
    assert {ends: sum(each) for ends, each in ports.items()} == {ends: each for ends, each in wanted.items() if each}
    assert all(max(each) - min(each) <= 0.02 * sum(each) for each in ports.values())


def test_a_switch_with_too_many_ports_for_the_cycle_model_is_named():
    wide = fabric_of(ElectricalSwitchSpec("switch", "electrical-switch", 400.0), ChipletSpec())
    with pytest.raises(ValueError, match=r"^SwitchedCabling.ports must be at most 64 at a switch, not 65$"):
        wide.cabling(65)


FLOWS = st.dictionaries(
    st.tuples(st.integers(0, 15), st.integers(0, 15)).filter(lambda pair: pair[0] != pair[1]),
    st.integers(1, 1 << 30),
    min_size=1,
)


@settings(max_examples=30)
@given(st.sampled_from([TREE, TALL, RAILS, FULL]), FLOWS, st.floats(1, 8), st.data())
def test_more_bandwidth_is_never_slower(spec, sizes, factor, data):
    """Of a single kind of link, for the bottleneck of any traffic."""
    name = data.draw(st.sampled_from([name for name in vars(spec) if name.endswith(("_gbps", "payload_share"))]))
    more = min(1.0, vars(spec)[name] * factor) if name.endswith("share") else vars(spec)[name] * factor
    source, destination = np.array(list(sizes), np.int32).T
    flows = Traffic(source, destination, np.array(list(sizes.values())), np.full(len(sizes), EXCHANGE, np.int8))
    slow, fast = (
        placement_fabric(each, ChipletSpec()).bottleneck_seconds(flows, 16)
        for each in (spec, type(spec)(**vars(spec) | {name: more}))
    )
    assert fast <= slow
