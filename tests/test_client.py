# amaranth: UnusedElaboratable=no
"""Clients: a stream is a channel and back, with pauses on both sides."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.client import Ingress
from lightfabric.sim.bench import BenchTimeoutError, ClientFlit
from lightfabric.sim.client import EgressBench, IngressBench, never

SPEC = ChipletSpec(
    ports=2,
    wavelengths_per_port=1,
    wavelength_gbps=10.0,
    core_clock_mhz=156.25,
    flit_bytes=64,
    buffer_flits=3,
    replay_flits=4,
)
ADDRESS = 37


@pytest.fixture(scope="module")
def ingress():
    return IngressBench(SPEC, ADDRESS)


@pytest.fixture(scope="module")
def egress():
    return EgressBench(SPEC)


def packet(number: int, lengths: list[int], virtual_channel: int = 0) -> list[ClientFlit]:
    last = len(lengths) - 1
    return [
        ClientFlit(bytes([number + n + 1]) * length, 5 + number, ADDRESS, virtual_channel, int(n == last))
        for n, length in enumerate(lengths)
    ]


PACKETS = st.lists(
    st.tuples(st.lists(st.integers(1, SPEC.payload_bytes), min_size=1, max_size=3), st.integers(0, 1)),
    min_size=1,
    max_size=8,
).map(lambda drawn: [packet(n, lengths, channel) for n, (lengths, channel) in enumerate(drawn)])
PATTERNS = st.lists(st.booleans(), min_size=1, max_size=7).filter(lambda pattern: not all(pattern))


def repeated(pattern: list[bool]):
    return lambda cycle: pattern[cycle % len(pattern)]


def test_a_beat_is_a_flit_one_cycle_later(ingress):
    flits = packet(0, [SPEC.payload_bytes, 1])
    run = ingress.run(flits)
    assert [(cycle + 1, flit) for cycle, flit in run.sent] == run.received
    assert [flit for _, flit in run.received] == flits


def test_an_ingress_takes_a_beat_per_cycle(ingress):
    run = ingress.run(packet(0, [1, 2, 3, 4, 5, 6]))
    assert [cycle for cycle, _ in run.sent] == list(range(6))


@pytest.mark.parametrize("length", range(1, SPEC.payload_bytes + 1))
def test_every_length_arrives_without_old_bytes(ingress, length):
    run = ingress.run(packet(0, [length]))
    assert [flit for _, flit in run.received] == packet(0, [length])
    assert run.stale == []


def test_a_beat_waits_for_a_credit_of_its_virtual_channel(ingress):
    flits = [f for n in range(SPEC.buffer_flits + 1) for f in packet(n, [1])]
    run = ingress.run(flits, credit_cycle=lambda _, cycle: cycle + 50)
    *free, waited = [cycle for cycle, _ in run.sent]
    assert free == list(range(SPEC.buffer_flits))
    assert waited == free[0] + 1 + 50 + 1


def test_a_virtual_channel_without_credit_does_not_stop_the_other(ingress):
    flits = [f for n in range(SPEC.buffer_flits) for f in packet(n, [1], 0)] + packet(9, [1], 1)
    run = ingress.run(flits, credit_cycle=lambda _, cycle: cycle + 50)
    assert [cycle for cycle, _ in run.sent] == list(range(SPEC.buffer_flits + 1))


def test_a_beat_of_an_unknown_virtual_channel_waits_for_ever():
    spec = ChipletSpec(ports=2, wavelengths_per_port=1, flit_bytes=64, virtual_channels=3, buffer_flits=2, replay_flits=4)
    with pytest.raises(BenchTimeoutError):
        IngressBench(spec, 0).run([ClientFlit(b"\1", virtual_channel=3)], bound_cycles=50)


def test_an_address_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"^Ingress\.address must be from 0 to 1023, not 1024$"):
        Ingress(SPEC, 1024)


@settings(deadline=None, max_examples=25)
@given(packets=PACKETS, pauses=PATTERNS, hold=st.integers(1, 9))
def test_an_ingress_keeps_order_and_content(ingress, packets, pauses, hold):
    flits = [flit for p in packets for flit in p]
    run = ingress.run(flits, pauses=repeated(pauses), credit_cycle=lambda _, cycle: cycle + hold)
    assert [flit for _, flit in run.received] == flits
    assert [cycle for cycle, _ in run.received] == [cycle + 1 for cycle, _ in run.sent]
    assert run.stale == []


def test_a_flit_is_offered_one_cycle_later(egress):
    run = egress.run([(0, flit) for flit in packet(0, [1, 2, 3])])
    assert [(cycle + 1, flit) for cycle, flit in run.sent] == run.received


def test_packets_follow_each_other_without_a_bubble(egress):
    flits = [(0, flit) for n in range(4) for flit in packet(n, [1, 2], n % 2)]
    run = egress.run(flits)
    cycles = [cycle for cycle, _ in run.received]
    assert cycles == list(range(cycles[0], cycles[0] + len(cycles)))


def test_a_packet_is_not_interleaved_with_another(egress):
    first, second = packet(0, [1, 2], 0), packet(1, [3], 1)
    run = egress.run([(0, first[0]), (1, second[0]), (20, first[1])])
    assert [flit for _, flit in run.received] == [*first, *second]


def test_the_virtual_channels_take_turns(egress):
    queued = [packet(n, [1], int(n >= 2))[0] for n in range(4)]
    run = egress.run([(0, flit) for flit in queued], pauses=lambda cycle: cycle < 10)
    assert [flit.virtual_channel for _, flit in run.received] == [0, 1, 0, 1]


@settings(deadline=None, max_examples=25)
@given(packets=PACKETS, pauses=PATTERNS, gaps=st.integers(0, 3))
def test_an_egress_gives_whole_packets_unchanged(egress, packets, pauses, gaps):
    flits = [flit for p in packets for flit in p]
    run = egress.run([(n * gaps, flit) for n, flit in enumerate(flits)], pauses=repeated(pauses))
    assert run.changed == []
    assert run.stale == []
    received = [flit for _, flit in run.received]
    for channel in range(SPEC.virtual_channels):
        assert [f for f in received if f.virtual_channel == channel] == [f for f in flits if f.virtual_channel == channel]
    for flit, following in pairwise(received):
        assert flit.last or following.destination == flit.destination


def test_a_client_that_is_not_ready_withholds_credits(egress):
    flits = [(0, packet(n, [1])[0]) for n in range(SPEC.buffer_flits + 2)]
    run = egress.run(flits, pauses=lambda cycle: cycle < 30)
    assert [cycle for cycle, _ in run.sent][: SPEC.buffer_flits] == list(range(SPEC.buffer_flits))
    assert run.sent[SPEC.buffer_flits][0] > 30


def test_never_pauses():
    assert not any(map(never, range(5)))
