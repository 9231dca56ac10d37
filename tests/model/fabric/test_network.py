"""Networks: every rate and latency follows from the specs and the measured timing."""

from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest

from lightfabric.model.circuit import Circuits
from lightfabric.model.fabric.fabric import fabric_of, port_bytes_per_s
from lightfabric.model.fluid.network import star
from lightfabric.model.spec import (
    FIBRE_PS_PER_M,
    ChipletSpec,
    ElectricalClusterSpec,
    ElectricalSwitchSpec,
    SipOcsSpec,
    SipRingSpec,
)
from lightfabric.model.timing import ClientTiming, LinkTiming, SwitchTiming, Timing

CHIPLET = ChipletSpec(flit_bytes=256, reach_m=40.0)


def link_timing(latency_cycles, cycles_per_flit):
    """What networks use of the measured link; the other values are for the cycle model."""
    others = {field.name: 1 for field in fields(LinkTiming)}
    return LinkTiming(**others | {"latency_cycles": latency_cycles, "cycles_per_flit": cycles_per_flit})


LINK = link_timing(20, Fraction(33, 16))
SWITCH = SwitchTiming(
    **{field.name: 1 for field in fields(SwitchTiming)} | {"latency_cycles": 3, "cycles_per_flit": Fraction(1)}
)
TIMING = Timing(LINK, SWITCH, ClientTiming(1, 1, 1, 1), "spec", "rtl", "none")
CYCLE_PS = 2000  # of a 500 MHz core clock
PORT_BYTES_PER_S = 244 * 500e6 * 16 / 33  # 256 byte flits with 12 bytes of header and CRC
PER_GBIT = 1e9 / 8 * 16 / 17  # 16 flits of data after a header on NVLink
PER_NIC_GBIT = 1e9 / 8 * 4096 / (4096 + 82)  # with the headers of RoCEv2

SWITCHED = ElectricalSwitchSpec("switch", "electrical-switch", gpu_gbps=1024.0, cable_m=3.0)
CLUSTER = ElectricalClusterSpec(
    "cluster", "electrical-cluster", island_gbps=2048.0, nic_gbps=400.0, island_gpus=4, cable_m=3.0
)
RING = SipRingSpec("ring", "sip-ring", fibre_m=2.0)
OCS = SipOcsSpec("ocs", "sip-ocs", fibre_m=20.0)
HOP_PS, SWITCH_PS = 100_000 + 3 * 5000, 200_000


def latency_ps(network, source, destination):
    return int(network.latency_ps[network.route(source, destination)].sum())


def rates(network, source, destination):
    return network.bytes_per_s[network.route(source, destination)].tolist()


def test_a_port_carries_a_payload_per_measured_flit_time():
    assert port_bytes_per_s(CHIPLET, TIMING) == pytest.approx(PORT_BYTES_PER_S, rel=1e-12)
    assert port_bytes_per_s(CHIPLET, TIMING) * 8 < CHIPLET.gbps_per_port * 1e9


def test_fibre_takes_4_897_ns_per_metre():
    assert pytest.approx(4897, abs=0.5) == FIBRE_PS_PER_M


def test_a_switch_is_two_links_and_one_switch_away():
    network = fabric_of(SWITCHED, CHIPLET, TIMING).network(4, [(0, 3), (3, 0), (0, 3), (2, 2)])
    assert network.route(0, 3).tolist() == [0, 4 + 3]
    assert rates(network, 0, 3) == pytest.approx([1024 * PER_GBIT] * 2)
    assert latency_ps(network, 0, 3) == latency_ps(network, 3, 0) == 2 * HOP_PS + SWITCH_PS
    assert len(network.pair_key) == 2
    assert network.link_destination[0] == network.link_source[7] == 4


def test_a_cluster_keeps_islands_fast_and_crosses_by_nic():
    network = fabric_of(CLUSTER, CHIPLET, TIMING).network(8, [(0, 3), (3, 4)])
    assert rates(network, 0, 3) == pytest.approx([2048 * PER_GBIT] * 2)
    assert latency_ps(network, 0, 3) == 2 * HOP_PS + SWITCH_PS
    assert rates(network, 3, 4) == pytest.approx([400 * PER_NIC_GBIT] * 2)
    assert latency_ps(network, 3, 4) == 2 * HOP_PS + 2_000_000
    inside, across = network.route(0, 3), network.route(3, 4)
    assert network.link_destination[inside[0]] == network.link_source[inside[1]] == 8
    assert network.link_destination[across[0]] == network.link_source[across[1]] == 10


def test_a_ring_circuit_has_its_wavelengths_and_the_shorter_way_round():
    circuits = Circuits({(0, 1): 3, (1, 7): 5}, {(0, 1): (0, 1), (1, 7): (1, 7), (0, 7): (0, 1, 7)})
    network = fabric_of(RING, CHIPLET, TIMING).network(8, [(0, 1), (1, 7), (0, 7)], circuits)
    assert rates(network, 0, 1) == pytest.approx([3 * PORT_BYTES_PER_S / 16])
    assert rates(network, 1, 7) == pytest.approx([5 * PORT_BYTES_PER_S / 16])
    assert latency_ps(network, 0, 1) == round(20 * CYCLE_PS + 2 * FIBRE_PS_PER_M)
    assert latency_ps(network, 1, 7) == round(20 * CYCLE_PS + 4 * FIBRE_PS_PER_M)


def test_a_relay_adds_its_switch_and_a_second_link():
    circuits = Circuits({(0, 1): 3, (1, 7): 5}, {(0, 1): (0, 1), (1, 7): (1, 7), (0, 7): (0, 1, 7)})
    network = fabric_of(RING, CHIPLET, TIMING).network(8, [(0, 1), (1, 7), (0, 7)], circuits)
    route = network.route(0, 7).tolist()
    assert [route[0], route[2]] == [*network.route(0, 1), *network.route(1, 7)]
    assert network.link_source[route[1]] == network.link_destination[route[1]] == 1
    assert network.bytes_per_s[route[1]] == pytest.approx(8 * 244 * 500e6)  # a flit per cycle and port
    assert latency_ps(network, 0, 7) == latency_ps(network, 0, 1) + 3 * CYCLE_PS + latency_ps(network, 1, 7)


def test_an_ocs_circuit_has_its_ports_and_passes_two_fibres():
    network = fabric_of(OCS, CHIPLET, TIMING).network(4, [(0, 2)], Circuits({(0, 2): 3}, {(0, 2): (0, 2)}))
    assert rates(network, 0, 2) == pytest.approx([3 * PORT_BYTES_PER_S])
    assert latency_ps(network, 0, 2) == round(20 * CYCLE_PS + 40 * FIBRE_PS_PER_M)


def test_slower_measured_links_slow_every_optical_fabric():
    slow = replace(TIMING, link=replace(LINK, latency_cycles=40, credit_in_cycles=2560))
    circuits = Circuits({(0, 1): 2}, {(0, 1): (0, 1)})
    for fabric in (RING, OCS):
        fast, slower = (fabric_of(fabric, CHIPLET, timing).network(2, [(0, 1)], circuits) for timing in (TIMING, slow))
        # The two virtual channels' 254 buffers go round once in the 2560 cycles and the ways there and back.
        most = [rate * 33 / 16 * 254 / 2560 for rate in rates(fast, 0, 1)]
        assert rates(slower, 0, 1) == pytest.approx(most, rel=0.11)
        assert rates(slower, 0, 1) < most
        assert latency_ps(slower, 0, 1) - latency_ps(fast, 0, 1) == 20 * CYCLE_PS * len(fast.route(0, 1))


def test_a_pair_that_was_not_asked_for_has_no_route():
    with pytest.raises(KeyError, match="no route from GPU 1 to GPU 0"):
        star(2, 1.0, [(0, 1)]).route(1, 0)


@pytest.mark.parametrize(
    ("circuits", "message"),
    [
        (None, "circuits must be given for a sip-ring fabric, not None"),
        (Circuits({}, {}), r"Circuits.stops must have a path for the pair \(0, 2\), not none"),
        (Circuits({(0, 1): 1}, {(0, 2): (0, 1, 2)}), r"Circuits.stops\[\(0, 2\)\] must follow circuits, not 1 -> 2"),
        (Circuits({(0, 1): 1}, {(0, 2): (0, 1)}), r"Circuits.stops\[\(0, 2\)\] must lead from 0 to 2, not along \(0, 1\)"),
        (Circuits({(0, 1): 1}, {(0, 2): (0, 1, 1, 2)}), r"Circuits.stops\[\(0, 2\)\] must follow circuits, not 1 -> 1"),
        (Circuits({(0, 2): 0}, {(0, 2): (0, 2)}), r"Circuits.lanes\[\(0, 2\)\] must be at least 1, not 0"),
        (Circuits({(0, 9): 1}, {(0, 2): (0, 2)}), r"Circuits.lanes must join two GPUs from 0 to 3, not \(0, 9\)"),
        (Circuits({(1, 1): 1}, {(0, 2): (0, 2)}), r"Circuits.lanes must join two GPUs from 0 to 3, not \(1, 1\)"),
    ],
)
def test_circuits_that_do_not_fit_are_named(circuits, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        fabric_of(RING, CHIPLET, TIMING).network(4, [(0, 2)], circuits)


def test_pairs_outside_the_fabric_are_named():
    with pytest.raises(ValueError, match=r"^pairs must be of GPUs from 0 to 3, not \(1, 4\)$"):
        fabric_of(SWITCHED, CHIPLET, TIMING).network(4, [(0, 1), (1, 4)])
    with pytest.raises(ValueError, match=r"^gpus must be at least 1, not 0$"):
        fabric_of(SWITCHED, CHIPLET, TIMING).network(0, [])


@pytest.mark.parametrize("fabric", [SWITCHED, CLUSTER, RING, OCS])
def test_a_fabric_without_traffic_has_no_routes(fabric):
    network = fabric_of(fabric, CHIPLET, TIMING).network(4, [], Circuits({}, {}))
    assert network.route_start.tolist() == [0]
    assert len(network.pair_key) == len(network.route_links) == 0


@pytest.mark.parametrize("fabric", [SWITCHED, CLUSTER, RING, OCS])
def test_1024_gpus_have_a_route_for_every_pair(fabric):
    pairs = [(a, (a + step) % 1024) for a in range(1024) for step in (1, 2, 8, 64, 128, 512, 1016, 1022)]
    lanes = {pair: 2 for pair in pairs if (pair[1] - pair[0]) % 1024 != 2}
    stops = {(a, b): (a, b) if (a, b) in lanes else (a, (a + 1) % 1024, b) for a, b in pairs}
    circuits = Circuits(lanes, stops)
    network = fabric_of(fabric, CHIPLET, TIMING).network(1024, pairs, circuits)
    assert len(network.pair_key) == len(set(pairs))
    assert np.all(np.diff(network.pair_key) > 0)
