"""The RTL of the switch: order, packets, credits and fairness. Its cycles are compared in test_agreement."""

import random

import pytest

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.switch import Switch
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.switch import SwitchBench

SPEC = ChipletSpec(ports=2, wavelengths_per_port=1, flit_bytes=64, buffer_flits=4, reach_m=1.0)


@pytest.fixture(scope="module")
def bench() -> SwitchBench:
    return SwitchBench(SPEC)


def packets(seed: int) -> dict[int, list[tuple[int, ClientFlit]]]:
    rng = random.Random(seed)
    sent = {}
    for port in range(SPEC.switch_ports):
        flits = []
        for number in range(12):
            to, v, length = rng.randrange(SPEC.switch_ports), rng.randrange(SPEC.virtual_channels), rng.randint(1, 4)
            flits += [ClientFlit(bytes([number + 1, n]), to, port, v, int(n == length - 1)) for n in range(length)]
        sent[port] = list(enumerate(flits))
    return sent


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("late_cycles", [0, 9])
def test_packets_arrive_once_in_order_and_never_mixed(bench, seed, late_cycles):
    sent, rng = packets(seed), random.Random(seed)
    run = bench.run(sent, credit_cycle=lambda _, cycle: cycle + 1 + rng.randint(0, late_cycles))
    for output, received in enumerate(run.received):
        for v in range(SPEC.virtual_channels):
            lane = [flit for _, flit in received if flit.virtual_channel == v]
            inside = None  # the source whose packet holds the virtual channel
            for flit in lane:
                assert inside in (None, flit.source)
                inside = None if flit.last else flit.source
            for port in range(SPEC.switch_ports):
                expected = [f for _, f in sent[port] if (f.destination, f.virtual_channel) == (output, v)]
                assert [flit for flit in lane if flit.source == port] == expected


def test_inputs_that_want_one_output_take_turns(bench):
    sent = {port: [(0, ClientFlit(bytes([n + 1]), 3, port)) for n in range(10)] for port in range(3)}
    run = bench.run(sent)
    order = [flit.source for _, flit in run.received[3]]
    assert order[:9] == [0, 1, 2] * 3
    assert [cycle for cycle, _ in run.received[3]] == list(range(2, 32))


def test_an_output_without_credits_stops_nobody_else(bench):
    sent = {0: [(0, ClientFlit(b"\1", 1, 0, 0))] * 10, 2: [(0, ClientFlit(b"\2", 3, 2))] * 10}
    run = bench.run(sent, credit_cycle=lambda number, cycle: cycle + 1 if cycle > 200 or number > 3 else 200)
    assert len(run.received[1]) == len(run.received[3]) == 10
    assert sum(cycle <= 200 for cycle, _ in run.received[1]) == SPEC.buffer_flits


@pytest.mark.parametrize("routes", [(), (4,), (0, -1)])
def test_routes_to_ports_that_are_not_there_are_refused(routes):
    with pytest.raises(ValueError, match=r"Switch\.routes must be ports from 0 to 3, not"):
        Switch(SPEC, routes)
