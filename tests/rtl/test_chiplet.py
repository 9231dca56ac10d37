# amaranth: UnusedElaboratable=no
"""Chiplets joined by fibres: every packet arrives once, in order, unchanged."""

from dataclasses import replace

import numpy as np
import pytest

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.chiplet import Chiplet, paired_routes
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.chiplet import ChipletBench, chain, dateline_ring, pair
from lightfabric.sim.bench.packet import Packet, Tally, assembled, random_packets
from lightfabric.sim.channel.error import BitErrors

SPEC = ChipletSpec(
    ports=2,
    wavelengths_per_port=1,
    wavelength_gbps=10.0,
    core_clock_mhz=156.25,
    flit_bytes=64,
    buffer_flits=8,
    replay_flits=16,
)


@pytest.fixture(scope="module", params=[lambda: pair(SPEC), lambda: chain(SPEC, 3)], ids=["pair", "chain of 3"])
def bench(request):
    return ChipletBench(SPEC, request.param())


def exchange(bench: ChipletBench, count: int, ber: float, seed: int, pauses: float):
    rng = np.random.default_rng(seed)
    packets = random_packets(SPEC, count, rng, bench.addresses, bench.addresses)
    flits = {at: [f for p in packets if p.source == at for f in p.flits(SPEC)] for at in bench.addresses}
    run = bench.run(
        flits,
        delay_cycles=3,
        errors=BitErrors(ber, rng),
        source_pauses=lambda _: rng.random() < pauses,
        sink_pauses=lambda _: rng.random() < pauses,
    )
    arrived = {at: assembled(flit for _, flit in run.received[at]) for at in bench.addresses}
    return packets, arrived, run


@pytest.mark.parametrize("pauses", [0.0, 0.4])
def test_packets_arrive_once_in_order_and_unchanged(bench, pauses):
    packets, arrived, run = exchange(bench, 60, 0.0, 1, pauses)
    assert Tally.of(packets, [p for at in arrived.values() for p in at]).clean
    assert all(packet.destination == at for at, delivered in arrived.items() for packet in delivered)
    assert not any(run.changed.values())
    assert (run.replays, run.crc_errors) == (0, 0)


def test_packets_arrive_once_in_order_and_unchanged_despite_bit_errors(bench):
    packets, arrived, run = exchange(bench, 40, 3e-4, 2, 0.2)
    assert Tally.of(packets, [p for at in arrived.values() for p in at]).clean
    assert run.replays > 0
    assert run.crc_errors > 0


def test_a_packet_to_its_own_chiplet_crosses_no_line():
    bench = ChipletBench(SPEC)
    flit = Packet(b"12345678", source=0, destination=1).flits(SPEC)[0]
    run = bench.run({0: [flit]})
    assert [(cycle - run.sent[0][0][0], got) for cycle, got in run.received[1]] == [(7, flit)]


def ended(run, at: int) -> list[tuple[int, int, int, int]]:
    """Source, channel, error and cycle of the last word of each packet that came to a client."""
    return [(word.source, word.virtual_channel, word.error, cycle) for cycle, word in run.received[at] if word.last]


def endless(flits: int, **fields) -> list:
    """A packet whose source stalls for ever before its last word."""
    return Packet(bytes(range(100)) * flits, **fields).flits(SPEC)[:flits]


WATCHED = replace(SPEC, stall_cycles=300)


@pytest.fixture(scope="module")
def watched():
    return ChipletBench(WATCHED)


@pytest.mark.parametrize("stalled", [0, 1], ids=["own chiplet", "over the line"])
def test_a_source_that_stalls_for_ever_keeps_others_waiting_for_a_bounded_time(watched, stalled):
    """On its own virtual channel and on the other, to the same client, whose stream its packet holds."""
    at = 2 * stalled
    others = [Packet(bytes(9), source=s, destination=at, virtual_channel=v) for s in (1, 3) for v in (0, 1)]
    flits = {s: [f for p in others if p.source == s for f in p.flits(SPEC)] for s in (1, 3)}
    late = {s: [1000] * 2 for s in (1, 3)}  # the lines are up by then, and the packet has the stream
    run = watched.run({0: endless(3, source=0, destination=at), **flits}, packets=5, earliest_cycles=late)
    ends = ended(run, at)
    assert sorted(end[:3] for end in ends) == [(0, 0, 1), *((s, v, 0) for s in (1, 3) for v in (0, 1))]
    assert max(cycle for *_, cycle in ends) < max(cycle for cycle, _ in run.sent[0]) + WATCHED.stall_cycles + 1000
    content = b"".join(word.payload for _, word in run.received[at] if word.source == 0)
    assert content == b"".join(word.payload for _, word in run.sent[0])


def test_a_packet_over_a_line_that_goes_dark_for_ever_ends_with_an_error(watched):
    """The client that it holds is free for others again."""
    rng = np.random.default_rng(5)

    def noise(beat, bits):
        return int.from_bytes(rng.bytes(16)) % (1 << bits) if beat > 800 else 0

    flits = {
        0: list(Packet(bytes(60_000), source=0, destination=2).flits(SPEC)),
        3: Packet(b"from here", source=3, destination=2, virtual_channel=1).flits(SPEC),
    }
    run = watched.run(flits, packets=2, errors=noise, earliest_cycles={3: [1500]})
    assert [end[:3] for end in ended(run, 2)] == [(0, 0, 1), (3, 1, 0)]


def test_packets_for_nobody_are_refused_and_the_port_goes_on():
    """A destination that no route leads to, and a virtual channel that the spec does not have."""
    spec = replace(SPEC, virtual_channels=3)
    lengths = (1, 40, 200)
    good = [Packet(bytes([n + 1]) * n, source=0, destination=d, virtual_channel=2) for n in lengths for d in (1, 2)]
    bad = [Packet(b"!" * n, source=0, destination=d, virtual_channel=v) for n in lengths for d, v in ((1000, 1), (2, 3))]
    flits = [f for pair_ in zip(bad, good, strict=True) for p in pair_ for f in p.flits(spec)]
    run = ChipletBench(spec).run({0: flits}, packets=len(good))
    arrived = [p for at in (1, 2) for p in assembled(flit for _, flit in run.received[at])]
    assert Tally.of(good, arrived).clean
    assert not run.received[0] + run.received[3]


def test_the_routes_of_a_pair_lead_to_the_clients_and_across():
    assert paired_routes(SPEC, 0) == (0, 1, 2, 3)
    assert paired_routes(SPEC, 2) == (2, 3, 0, 1)


def test_an_address_without_room_for_all_clients_is_refused():
    with pytest.raises(ValueError, match=r"^Chiplet\.address must be from 0 to 1022, not 1023$"):
        Chiplet(SPEC, 1023)


SENT = [Packet(n.to_bytes(4, "little") + b"content") for n in range(4)]


@pytest.mark.parametrize(
    ("received", "tally"),
    [
        (SENT, (4, 0, 0, 0, 0)),
        (SENT[:3], (3, 1, 0, 0, 0)),
        ([*SENT, SENT[1]], (4, 0, 0, 1, 0)),
        ([SENT[1], SENT[0], *SENT[2:]], (4, 0, 0, 0, 1)),
        ([Packet(SENT[0].content + b"!"), *SENT[1:]], (3, 1, 1, 0, 0)),
        ([Packet(SENT[0].content, destination=1), *SENT[1:]], (3, 1, 1, 0, 0)),
        ([], (0, 4, 0, 0, 0)),
    ],
    ids=["all", "one lost", "one twice", "two swapped", "one longer", "one astray", "none"],
)
def test_a_tally_tells_what_became_of_packets(received, tally):
    found = Tally.of(SENT, received)
    assert (found.delivered, found.lost, found.corrupted, found.duplicated, found.reordered) == tally
    assert found.clean == (received == SENT)


def test_packets_are_assembled_from_alternating_flits():
    long = [Packet(bytes(SPEC.payload_bytes + 9), source=s, virtual_channel=v) for s in (0, 1) for v in (0, 1)]
    flits = [packet.flits(SPEC) for packet in long]
    assert assembled(flit for pair_ in zip(*flits, strict=True) for flit in pair_) == long


RING_SPEC = replace(SPEC, ports=2, buffer_flits=4)


def test_two_hops_round_a_ring_of_chiplets_all_arrive_behind_the_dateline():
    bench, packet_flits = ChipletBench(RING_SPEC, dateline_ring(RING_SPEC, 4)), 8
    # Packets of both clients of each chiplet are longer than the buffers, so that they hold lines while they wait.
    size = RING_SPEC.payload_bytes
    sent = {
        at: [
            ClientFlit(bytes([n] * size), (at + 4) % 8, at, 0, int(n % packet_flits == packet_flits - 1))
            for n in range(3 * packet_flits)
        ]
        for at in bench.addresses
    }
    run = bench.run(sent, bound_cycles=6000)
    for at in bench.addresses:
        assert b"".join(word.payload for _, word in run.received[at]) == b"".join(f.payload for f in sent[(at + 4) % 8])
        # Chiplets 2 and 3 send over the dateline.
        assert {word.virtual_channel for _, word in run.received[at]} == {int(at < 4)}


@pytest.mark.parametrize("change", [{"renames": {}}, {"starts": ()}])
def test_a_ring_of_chiplets_that_may_deadlock_is_refused(change):
    with pytest.raises(ValueError, match=r"^Plan.routes must close no circle of waiting, not \d\.2 vc \d -> "):
        ChipletBench(RING_SPEC, replace(dateline_ring(RING_SPEC, 4), **change))


def test_renames_that_mix_virtual_channels_are_refused():
    with pytest.raises(ValueError, match=r"^Chiplet\.renames must be permutations of 0\.\.1, not \(0, 0\)$"):
        Chiplet(SPEC, renames={0: (0, 0)})
