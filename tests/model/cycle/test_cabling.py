"""Fabrics on the cycle model: every flit on its way, at the rate of its circuits, and never in a circle of waiting."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightfabric.model.circuit import Circuits
from lightfabric.model.cycle import cabling
from lightfabric.model.cycle.cabling import Cabling, ElectricalCabling, Hub, layers, line
from lightfabric.model.cycle.cluster import Cluster
from lightfabric.model.fluid import engine as fluid
from lightfabric.model.kernel.system import DeadlockError
from lightfabric.model.spec import ChipletSpec, ElectricalClusterSpec, ElectricalSwitchSpec, SipOcsSpec, SipRingSpec
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.model.timing import ClientTiming, LinkTiming, SwitchTiming, Timing
from lightfabric.placement.fabric.fabric import fabric_of

SPEC = ChipletSpec(ports=4, wavelengths_per_port=8, flit_bytes=128, buffer_flits=60, reach_m=20.0)
PAYLOAD = SPEC.payload_bytes
TIMING = Timing(
    LinkTiming(
        first_beat_cycle=5,
        line_cycles=3,
        first_credit_slot=1,
        first_answer_slot=2,
        start_cycles=3,
        accept_cycles=2,
        stage_cycles=1,
        next_cycles=2,
        deliver_cycles=5,
        credit_out_cycles=2,
        credit_in_cycles=8,
        ack_out_cycles=6,
        ack_in_cycles=8,
        nak_out_cycles=7,
        halt_in_cycles=8,
        nak_in_cycles=10,
        cut_cycles=2,
        retrain_cycles=107,
        retrain_cycles_per_delay=Fraction(194, 49),
        latency_cycles=13,
        cycles_per_flit=Fraction(33, 16),
        credit_loop_cycles=30,
        replay_loop_cycles=31,
        pointer_loop_cycles=24,
        lock_cycles=69,
        align_cycles=44,
        exchange_cycles=74,
        recovery_cycles=146,
    ),
    SwitchTiming(latency_cycles=2, cycles_per_flit=Fraction(1), credit_cycles=1, credit_loop_cycles=2),
    ClientTiming(ingress_cycles=2, ingress_cycles_per_flit=2, ingress_credit_cycles=1, egress_cycles=5),
    *("", "", ""),
)
"""As the RTL of such a chiplet was measured once."""
LATENCY_CYCLES = 70
"""More than any of these paths takes."""


def transfers(gpus, flits, payload=PAYLOAD):
    """A graph that sends so many flits for each pair, all at once."""
    pairs = np.array(list(flits)).reshape(-1, 2)
    return TaskGraph(
        gpus,
        np.full(len(pairs), Kind.TRANSFER, np.int8),
        pairs[:, 0].astype(np.int32),
        np.array(list(flits.values()), np.int64) * payload,
        pairs[:, 1].astype(np.int32),
        np.ones(len(pairs), np.int32),
        np.zeros(len(pairs) + 1, np.int64),
        np.zeros(0, np.int32),
        np.zeros(1, np.int64),
        np.zeros(0, np.int32),
    )


def flits_by_hop(cluster):
    seen = {}
    for (node, _), far, count in zip(cluster.links, cluster.far_node.values(), cluster.flits_per_link(), strict=True):
        seen[node, far] = seen.get((node, far), 0) + int(count)
    return {hop: count for hop, count in seen.items() if count}


def all_pairs(gpus, most):
    random = np.random.default_rng(7)
    return {(a, b): int(random.integers(1, most)) for a in range(gpus) for b in range(gpus) if a != b}


@pytest.mark.parametrize("fabric", [SipRingSpec("ring", "sip-ring", max_hops=2), SipOcsSpec("ocs", "sip-ocs")])
@pytest.mark.parametrize("virtual_channels", [4, 8])
def test_every_flit_takes_every_circuit_of_its_path(fabric, virtual_channels):
    spec = replace(SPEC, virtual_channels=virtual_channels, buffer_flits=8)
    flits = all_pairs(7, 300)
    circuits = fabric_of(fabric, spec).assign(7, flits)
    cluster = Cluster(transfers(7, flits), spec, TIMING, fabric_of(fabric, spec).cabling(7, circuits))
    cluster.run()
    wanted = dict.fromkeys(circuits.lanes, 0)
    for pair, path in circuits.stops.items():
        for hop in pairwise(path):
            wanted[hop] += flits[pair]
    assert any(len(path) > 2 for path in circuits.stops.values())
    assert flits_by_hop(cluster) == wanted


def test_over_hubs_every_flit_goes_up_and_down():
    flits = all_pairs(5, 90)
    islands = ElectricalClusterSpec("islands", "electrical-cluster", 300.0, 70.0, island_gpus=2, nic_latency_us=0.1)
    fabric = fabric_of(islands, SPEC)
    graph = transfers(5, flits, fabric.cycle_chiplet.payload_bytes)
    cluster = Cluster(graph, fabric.cycle_chiplet, fabric.cycle_timing, fabric.cabling(5))
    cluster.run()
    wanted = {}
    for (a, b), count in flits.items():
        hub = 5 + a // 2 if a // 2 == b // 2 else 8
        for hop in ((a, hub), (hub, b)):
            wanted[hop] = wanted.get(hop, 0) + count
    assert flits_by_hop(cluster) == wanted


FABRICS = [
    (ElectricalSwitchSpec("switch", "electrical-switch", 512.0), None),
    (ElectricalSwitchSpec("switch", "electrical-switch", 75.0), None),
    (ElectricalClusterSpec("islands", "electrical-cluster", 256.0, 100.0, island_gpus=2, nic_latency_us=0.1), None),
    (SipOcsSpec("ocs", "sip-ocs", fibre_m=5.0), {(0, 1): 3, (1, 2): 1, (2, 3): 2}),
    *[
        (SipRingSpec("ring", "sip-ring"), {(0, 1): lanes, (1, 2): lanes, (2, 3): lanes})
        for lanes in (1, 2, 3, 8, 12, 13, 16)
    ],
]


@pytest.mark.parametrize(("fabric", "lanes"), FABRICS)
@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (0, 3)])
def test_a_long_transfer_takes_what_the_fluid_model_says(fabric, lanes, pair):
    on = fabric_of(fabric, SPEC, TIMING)
    chiplet = on.cycle_chiplet
    graph = transfers(4, {pair: 20_000}, chiplet.payload_bytes)
    circuits = None
    if lanes:
        path = tuple(range(pair[0], pair[1] + 1))
        circuits = Circuits(lanes, {pair: path})
    seen_ps = Cluster(graph, chiplet, on.cycle_timing, on.cabling(4, circuits)).run().makespan_ps
    wanted_ps = fluid.run(graph, on.network(4, [pair], circuits)).makespan_ps
    assert wanted_ps * 0.9999 <= seen_ps <= wanted_ps * 1.0001 + LATENCY_CYCLES * SPEC.cycle_ps


@pytest.mark.parametrize("link_ns", [60.0, 1000.0])
@pytest.mark.parametrize("gbps", [40.0, 100.0, 1600.0])
def test_a_flit_on_an_electrical_fabric_takes_what_its_spec_says_to_a_slot(gbps, link_ns):
    """Two links and a switch, and the flit at the rate of its payload; at each link it may wait for half a slot more."""
    spec = ElectricalSwitchSpec(
        "switch", "electrical-switch", gbps, payload_share=0.8, link_latency_ns=link_ns, switch_latency_ns=150.0, cable_m=4.0
    )
    on = fabric_of(spec, SPEC)
    cluster = Cluster(transfers(2, {(0, 1): 1}, 244), on.cycle_chiplet, on.cycle_timing, on.cabling(2))
    slot_ns = 244 * 8 / (0.8 * gbps)
    slot_ns *= np.ceil(0.8 * gbps / 976)  # of as many ports of 976 Gb/s as the rate takes
    wanted_ns = 2 * (link_ns + 4 * 5) + 150 + slot_ns
    assert abs(cluster.run().makespan_ps / 1000 - wanted_ns) <= slot_ns + 4


def test_a_link_too_slow_for_the_cycle_model_is_named():
    slow = ElectricalSwitchSpec("switch", "electrical-switch", 10.0, payload_share=0.8)
    with pytest.raises(ValueError, match=r"^a link must carry 15.3 Gb/s of payload at cycle fidelity, not 8 Gb/s$"):
        fabric_of(slow, SPEC).cabling(4)


def round_and_round(gpus):
    """Everyone to the one after the next, over the next: each path waits for the one that begins at its relay."""
    stops = {(n, (n + 2) % gpus): (n, (n + 1) % gpus, (n + 2) % gpus) for n in range(gpus)}
    return Circuits({path[:2]: SPEC.ports for path in stops.values()}, stops)


def test_relays_all_on_one_virtual_channel_wait_for_each_other_for_ever(monkeypatch):
    spec, gpus = replace(SPEC, buffer_flits=4), 4
    graph = transfers(gpus, dict.fromkeys(round_and_round(gpus).stops, 2000))
    ocs = SipOcsSpec("ocs", "sip-ocs")
    Cluster(graph, spec, TIMING, fabric_of(ocs, spec).cabling(gpus, round_and_round(gpus))).run()
    monkeypatch.setattr(cabling, "layers", lambda paths, _: [0] * len(paths))
    cabled = fabric_of(ocs, spec).cabling(gpus, round_and_round(gpus))
    with pytest.raises(
        ValueError, match=r"^Cabling\.relays must close no circle of waiting, not 0\.1 vc 0 -> 1\.2 vc 0 -> "
    ):
        Cluster(graph, spec, TIMING, cabled)
    # A dateline breaks the circle.
    Cluster(graph, spec, TIMING, replace(cabled, renames={(gpus - 1, 0): (*range(1, spec.virtual_channels), 0)})).run()
    monkeypatch.setattr(Cabling, "verify", lambda *_: None)
    cluster = Cluster(graph, spec, TIMING, cabled)
    with pytest.raises(DeadlockError, match="deadlock in cycle"):
        cluster.run()
    sent, taken = (sum(int(gpu.state[name]) for gpu in cluster.gpus) for name in ("sent", "taken"))
    fifo = cluster.system.channels.fifo
    assert sent - taken == int((fifo["tail"] - fifo["head"]).sum()) > 0


def test_too_few_virtual_channels_for_relays_are_named():
    spec = replace(SPEC, virtual_channels=1)
    with pytest.raises(ValueError, match=r"^ChipletSpec.virtual_channels must be enough for layers of relays .*, not 1$"):
        fabric_of(SipOcsSpec("ocs", "sip-ocs"), spec).cabling(4, round_and_round(4))


@given(st.lists(st.permutations(range(6)).map(lambda p: tuple(p[:4])), max_size=30))
def test_no_layer_has_a_circle_of_circuits_that_wait(paths):
    graphs = [nx.DiGraph() for _ in range(len(paths) + 1)]
    for path, layer in zip(paths, layers(paths, len(paths) + 1), strict=True):
        graphs[layer].add_edges_from(pairwise(pairwise(path)))
    assert all(nx.is_directed_acyclic_graph(graph) for graph in graphs)


@given(st.sampled_from([SPEC, ChipletSpec(), replace(SPEC, core_clock_mhz=1500.0)]), st.integers(50, 400))
def test_a_line_has_its_share_of_the_rate(spec, part_of_400):
    made = line(spec, part_of_400 / 400)
    assert made.gbps_per_port == pytest.approx(spec.gbps_per_port * part_of_400 / 400)
    assert made.blocks_per_cycle <= 1
    assert made.wavelengths_per_port <= spec.wavelengths_per_port


def test_circuits_share_no_port_and_idle_ones_are_dark():
    circuits = Circuits({(0, 1): 12, (0, 2): 3, (3, 1): 8}, {})
    made = fabric_of(SipRingSpec("ring", "sip-ring"), SPEC).cabling(4, circuits)
    assert isinstance(made, Cabling)
    ends = {(int(gpu), int(port)) for gpu, port in zip(made.gpu.flat, made.port.flat, strict=True)}
    assert len(ends) == made.gpu.size
    lit = {(g, int(made.gpu[g, p])): float(made.share[g, p]) for g, p in np.argwhere(made.share > 0)}
    assert lit == {(0, 1): 6 / 8, (0, 2): 3 / 8, (3, 1): 1.0}
    assert [made.lanes(0, 1), made.lanes(0, 2), made.lanes(3, 1)] == [0b11, 0b100, 0b1]


def test_gpus_at_no_common_hub_and_too_many_ports_are_named():
    hubs = ElectricalCabling((Hub(np.array([0, 2], np.int32), 1.0),))
    with pytest.raises(ValueError, match=r"^ElectricalCabling must have one for GPU 0 and GPU 1, not none$"):
        Cluster(transfers(3, {(0, 1): 1}), SPEC, TIMING, hubs)
    circuits = Circuits({(0, n): 1 for n in range(1, 40)}, {})
    spec = replace(SPEC, virtual_channels=1)
    with pytest.raises(ValueError, match=r"^Cabling.gpu must be of 1 to 32 ports for each GPU, not 39$"):
        Cluster(
            transfers(40, {(0, 1): 1}), spec, TIMING, fabric_of(SipRingSpec("r", "sip-ring"), spec).cabling(40, circuits)
        )
