# amaranth: UnusedElaboratable=no
"""Clients: packets of words become flits and packets of words again, with pauses on both sides."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.client import MAX_PACKET_BYTES, Grid, Ingress
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.client import EgressBench, IngressBench, contiguous, never, words
from lightfabric.sim.bench.packet import Packet, assembled
from lightfabric.sim.characterize import measure_client

ADDRESS = 37


def chiplet(wavelengths: int, flit_bytes: int, buffer_flits: int = 16) -> ChipletSpec:
    return ChipletSpec(
        ports=1,
        wavelengths_per_port=wavelengths,
        wavelength_gbps=10.0,
        core_clock_mhz=156.25,
        flit_bytes=flit_bytes,
        buffer_flits=buffer_flits,
    )


SPEC = chiplet(1, 64, buffer_flits=3)
SPECS = {
    f"{8 * wavelengths} of {flit_bytes}": chiplet(wavelengths, flit_bytes)
    for flit_bytes in (64, 128, 256)
    for wavelengths in (1, 2, 4)
} | {"one beat": chiplet(8, 64), "two beats": chiplet(16, 256)}


@pytest.fixture(scope="module", params=SPECS)
def benches(request):
    return IngressBench(SPECS[request.param], ADDRESS), EgressBench(SPECS[request.param])


@pytest.fixture(scope="module")
def ingress():
    return IngressBench(SPEC, ADDRESS)


@pytest.fixture(scope="module")
def egress():
    return EgressBench(SPEC)


def packet(number: int, length: int, virtual_channel: int = 0) -> Packet:
    content = bytes(1 + (number + n) % 255 for n in range(length))
    return Packet(content, ADDRESS, number % 1024, virtual_channel)


def cut(spec: ChipletSpec, packets: list[Packet]) -> list[ClientFlit]:
    return [flit for p in packets for flit in p.flits(spec)]


def some_packets(spec: ChipletSpec, count: int, seed: int) -> list[Packet]:
    """Of all lengths up to three flits, and around the ends of words and flits."""
    rng = random.Random(seed)
    edges = (1, spec.client_bytes, spec.payload_bytes, 2 * spec.payload_bytes, 2 * spec.client_bytes)
    lengths = [max(1, rng.choice([rng.randint(1, 3 * spec.payload_bytes), rng.choice(edges) + rng.randint(-1, 1)]))]
    lengths += [max(1, rng.choice(edges) + rng.randint(-5, 5)) for _ in range(count - 1)]
    return [
        Packet(rng.randbytes(length), ADDRESS, rng.randrange(1024), rng.randrange(spec.virtual_channels))
        for length in lengths
    ]


def long_packets(spec: ChipletSpec, count: int, seed: int) -> list[Packet]:
    """Of all positions of a word in a flit."""
    rng = random.Random(seed)
    most = (Grid(spec).flit + 1) * spec.client_bytes
    return [Packet(rng.randbytes(rng.randint(most // 2, most)), ADDRESS, n, n % 2) for n in range(count)]


def at_random(seed: int, odds: float):
    rng = random.Random(seed)
    return lambda _: rng.random() < odds


def late(seed: int, most_cycles: int):
    rng = random.Random(seed)
    return lambda _, cycle: cycle + rng.randint(1, most_cycles)


def of_channel(flits, channel: int):
    return [flit for flit in flits if flit.virtual_channel == channel]


def assert_given(spec: ChipletSpec, run, expected: list[ClientFlit]):
    assert (run.changed, run.stale, run.short) == ([], [], [])
    received = [word for _, word in run.received]
    for channel in range(spec.virtual_channels):
        assert of_channel(received, channel) == of_channel(expected, channel)
    for word, following in pairwise(received):
        assert word.last or (following.destination, following.virtual_channel) == (word.destination, word.virtual_channel)


@pytest.mark.parametrize(("odds", "most_cycles"), [(0.0, 1), (0.3, 30)])
def test_packets_are_cut_into_flits_that_are_full_but_for_the_last(benches, odds, most_cycles):
    bench, _ = benches
    flits = cut(bench.spec, some_packets(bench.spec, 20, 1))
    run = bench.run(words(bench.spec, flits), pauses=at_random(2, odds), credit_cycle=late(3, most_cycles))
    assert [flit for _, flit in run.received] == flits
    assert run.stale == []


@pytest.mark.parametrize(("odds", "gap"), [(0.0, 5), (0.4, 0)])
def test_flits_are_put_together_to_words_that_are_full_but_for_the_last(benches, odds, gap):
    _, bench = benches
    flits = cut(bench.spec, some_packets(bench.spec, 20, 4))
    run = bench.run([(n * gap, flit) for n, flit in enumerate(flits)], pauses=at_random(5, odds))
    assert_given(bench.spec, run, words(bench.spec, flits))


def broken_packets(spec: ChipletSpec, count: int, seed: int) -> list[list[ClientFlit]]:
    """Beginnings of packets, cut after any word, each but for its last flit full."""
    rng, packets = random.Random(seed), []
    for number in range(count):
        words_before = rng.randint(1, 2 * Grid(spec).flit)
        flits = Packet(rng.randbytes(words_before * spec.client_bytes), ADDRESS, number, number % 2).flits(spec)
        if len(flits[-1].payload) == spec.payload_bytes:  # the end comes in a flit of its own
            flits = [*(replace(flit, last=0) for flit in flits), replace(flits[-1], payload=b"")]
        packets.append([*flits[:-1], replace(flits[-1], error=1)])
    return packets


def ended_without_bytes(spec: ChipletSpec, flits: list[ClientFlit]) -> list[ClientFlit]:
    """The words before the cut, and the end that a crossing puts in the place of the others."""
    before = words(spec, [replace(flit, error=0) for flit in flits])
    return [*(replace(word, last=0) for word in before if word.payload), replace(before[-1], payload=b"", error=1, last=1)]


@pytest.mark.parametrize("odds", [0.0, 0.3])
def test_a_packet_that_is_cut_ends_with_an_error_and_the_next_is_whole(benches, odds):
    """Into flits and out of them, between packets that are not cut, in every state of the packing."""
    into, out = benches
    spec = into.spec
    offered, expected, given_words = [], [], []
    for whole, broken in zip(some_packets(spec, 12, 21), broken_packets(spec, 12, 22), strict=True):
        offered += [*words(spec, whole.flits(spec)), *ended_without_bytes(spec, broken)]
        expected += [*whole.flits(spec), *broken]
        end = words(spec, broken) if broken[-1].payload else ended_without_bytes(spec, broken)
        given_words += [*words(spec, whole.flits(spec)), *end]
    run = into.run(offered, pauses=at_random(23, odds), credit_cycle=late(24, 20))
    assert [flit for _, flit in run.received] == expected
    given = out.run([(0, flit) for flit in expected], pauses=at_random(25, odds))
    assert_given(spec, given, given_words)
    assert sum(word.error for _, word in given.received) == 12


def test_a_word_is_taken_and_given_in_every_cycle_of_a_long_packet(benches):
    spec = benches[0].spec
    flits = Packet(random.Random(6).randbytes(8 * spec.payload_bytes), ADDRESS).flits(spec)
    offered = words(spec, flits)
    into = benches[0].run(offered)
    assert [cycle for cycle, _ in into.sent] == list(range(len(offered)))
    out = benches[1].run([(0, flit) for flit in flits])
    first = out.received[0][0]
    assert [cycle for cycle, _ in out.received] == list(range(first, first + len(offered)))


def test_every_position_of_a_word_in_a_flit_may_be_waited_at(benches):
    """By the source, the credits and the sink."""
    into, out = benches
    flits = cut(into.spec, long_packets(into.spec, 4, 7))
    run = into.run(words(into.spec, flits), pauses=at_random(8, 0.3), credit_cycle=late(9, 150), bound_cycles=50_000)
    assert [flit for _, flit in run.received] == flits
    assert_given(out.spec, out.run(run.received, pauses=at_random(10, 0.3)), words(into.spec, flits))


def test_a_last_flit_without_bytes_ends_the_words_before_it(egress):
    flits = [replace(packet(1, SPEC.payload_bytes).flits(SPEC)[0], last=0), ClientFlit(b"", 1, ADDRESS, 0)]
    assert_given(SPEC, egress.run([(0, flit) for flit in flits]), words(SPEC, flits))


def test_packets_without_bytes_pass(benches):
    into, out = benches
    nothing = ClientFlit(b"", 9, ADDRESS, 1)
    full = packet(1, into.spec.payload_bytes)
    offered = [*words(into.spec, full.flits(into.spec)), nothing, nothing, *words(into.spec, full.flits(into.spec))]
    flits = [*full.flits(into.spec), nothing, nothing, *full.flits(into.spec)]
    run = into.run(offered)
    assert [flit for _, flit in run.received] == flits
    assert_given(out.spec, out.run([(0, flit) for flit in flits]), offered)


def test_a_last_word_without_bytes_ends_the_packet(benches):
    """After the last full word of exactly one flit's bytes, and after a word that reached into the next flit."""
    into, out = benches
    for count in (Grid(into.spec).flit, 1):
        body = packet(2, count * into.spec.client_bytes)
        full = [replace(word, last=0) for word in words(into.spec, body.flits(into.spec))]
        run = into.run([*full, ClientFlit(b"", 2, ADDRESS, 0)])
        assert assembled(flit for _, flit in run.received) == [body]
        given = out.run([(0, flit) for _, flit in run.received])
        assert assembled(word for _, word in given.received) == [body]
        assert (given.stale, given.short) == ([], [])


@pytest.mark.parametrize(
    "name",
    ["32 of 64", *(pytest.param(name, marks=pytest.mark.slow) for name in ("8 of 64", "8 of 256", "one beat", "two beats"))],
)
def test_the_longest_packet_passes(name):
    spec = SPECS[name]
    flits = Packet(random.Random(8).randbytes(MAX_PACKET_BYTES), ADDRESS, 5, 1).flits(spec)
    run = IngressBench(spec, ADDRESS).run(words(spec, flits))
    assert [flit for _, flit in run.received] == flits
    assert run.cycles <= -(-MAX_PACKET_BYTES // spec.client_bytes) + 4
    assert_given(spec, EgressBench(spec).run(run.received), words(spec, flits))


def test_every_length_passes_without_old_bytes(ingress, egress):
    packets = [packet(n, length) for n, length in enumerate(range(1, 2 * SPEC.payload_bytes + SPEC.client_bytes + 1))]
    flits = cut(SPEC, packets)
    run = ingress.run(words(SPEC, flits))
    assert [flit for _, flit in run.received] == flits
    assert run.stale == []
    assert_given(SPEC, egress.run(run.received), words(SPEC, flits))


def test_the_word_that_completes_a_flit_makes_it_one_cycle_later(ingress):
    whole, part = packet(0, SPEC.payload_bytes), packet(1, 3)
    run = ingress.run(words(SPEC, cut(SPEC, [whole, part])))
    lasts = [cycle for cycle, word in run.sent if word.last]
    assert [cycle for cycle, _ in run.received] == [cycle + 1 for cycle in lasts]


def test_a_last_word_that_reaches_into_one_more_flit_costs_a_cycle(ingress):
    spills, follows = packet(0, SPEC.payload_bytes + 1), packet(1, 1)
    run = ingress.run(words(SPEC, cut(SPEC, [spills, follows])))
    *_, last, following = [cycle for cycle, _ in run.sent]
    assert following == last + 2
    assert [cycle for cycle, _ in run.received] == [last + 1, last + 2, following + 1]


def test_a_word_that_begins_a_flit_waits_for_a_credit_of_its_virtual_channel(ingress):
    packets = [packet(n, 1) for n in range(SPEC.buffer_flits + 1)]
    run = ingress.run(words(SPEC, cut(SPEC, packets)), credit_cycle=lambda _, cycle: cycle + 50)
    *free, waited = [cycle for cycle, _ in run.sent]
    assert free == list(range(SPEC.buffer_flits))
    assert waited == free[0] + 1 + 50 + 1


def test_the_rest_of_a_last_word_waits_for_a_credit_as_well(ingress):
    packets = [*(packet(n, 1) for n in range(SPEC.buffer_flits - 1)), packet(9, SPEC.payload_bytes + 1)]
    flits = cut(SPEC, packets)
    run = ingress.run(words(SPEC, flits), credit_cycle=lambda _, cycle: cycle + 50)
    assert [flit for _, flit in run.received] == flits
    assert run.received[-1][0] == run.received[0][0] + 50 + 2


def test_a_virtual_channel_without_credit_does_not_stop_the_other(ingress):
    packets = [*(packet(n, 1) for n in range(SPEC.buffer_flits)), packet(9, 1, 1)]
    run = ingress.run(words(SPEC, cut(SPEC, packets)), credit_cycle=lambda _, cycle: cycle + 50)
    assert [cycle for cycle, _ in run.sent] == list(range(SPEC.buffer_flits + 1))


@pytest.mark.parametrize("odds", [0.0, 0.4])
def test_a_packet_that_nobody_can_carry_is_refused_and_the_next_is_whole(odds):
    """Of an unknown virtual channel or destination, of all lengths, and with no credit left."""
    spec = replace(SPEC, virtual_channels=3)
    bench, rng = IngressBench(spec, ADDRESS, 5), random.Random(31)
    good = [Packet(rng.randbytes(rng.randint(1, 160)), ADDRESS, rng.randrange(5), rng.randrange(3)) for _ in range(30)]
    astray = [(rng.randrange(5), 3) if n % 2 else (rng.choice((5, 6, 1000, 1023)), rng.randrange(4)) for n in range(30)]
    bad = [Packet(rng.randbytes(rng.randint(1, 160)), ADDRESS, *where) for where in astray]
    offered = [p for both in zip(good, bad, strict=True) for p in both]
    run = bench.run(words(spec, cut(spec, offered)), pauses=at_random(32, odds), credit_cycle=late(33, 40))
    assert [flit for _, flit in run.received] == cut(spec, good)
    assert (run.refused, run.stalled) == (len(bad), 0)


@pytest.mark.parametrize("credit_cycles", [1, 60])
def test_a_source_that_stalls_in_a_packet_loses_its_rest_and_nothing_else(benches, credit_cycles):
    """After each number of words up to those of two flits, the packet ends with an error; its rest makes no flit."""
    spec = replace(benches[0].spec, stall_cycles=20)
    bench, rng = IngressBench(spec, ADDRESS), random.Random(41)
    for taken in range(1, 2 * Grid(spec).flit + 1, 3):
        whole = Packet(rng.randbytes((taken + 3) * spec.client_bytes), ADDRESS, 3, 1)
        after = packet(4, 2 * spec.payload_bytes - 1)
        offered = words(spec, cut(spec, [whole, after]))
        stalls = iter([False] * taken + [True] * 40)
        # A word is offered in the cycle after the one before it was taken, so pauses are asked for once per word.
        run = bench.run(offered, pauses=lambda _, it=stalls: next(it, False), credit_cycle=lambda _, c: c + credit_cycles)
        flits = [flit for _, flit in run.received]
        ends = [n for n, flit in enumerate(flits) if flit.last]
        begun, rest = flits[: ends[0] + 1], flits[ends[0] + 1 :]
        assert b"".join(flit.payload for flit in begun) == whole.content[: taken * spec.client_bytes]
        assert [flit.error for flit in begun] == [0] * (len(begun) - 1) + [1]
        assert rest == after.flits(spec)
        assert (run.refused, run.stalled) == (0, 1)


def test_a_source_has_as_many_cycles_for_each_word_as_the_spec_says():
    """And a packet that waits for a credit, or that has not begun, has all time."""
    spec = replace(SPEC, stall_cycles=20)
    bench = IngressBench(spec, ADDRESS)
    for gap, stalled in ((spec.stall_cycles, 0), (spec.stall_cycles + 2, 1)):
        offered = words(spec, cut(spec, [packet(1, 40), packet(2, 40)]))
        run = bench.run(offered, pauses=lambda cycle, gap=gap: cycle % gap != 0, bound_cycles=1000)
        assert min(run.stalled, 1) == stalled
    slow = bench.run(words(spec, cut(spec, [packet(1, 400)])), credit_cycle=lambda _, cycle: cycle + 100)
    rare = bench.run(words(spec, cut(spec, [packet(1, 8), packet(2, 8)])), earliest_cycles=[0, 100])
    assert (slow.stalled, rare.stalled) == (0, 0)


def test_the_number_of_destinations_must_fit():
    with pytest.raises(ValueError, match=r"^Ingress\.destinations must be from 1 to 1024, not 0$"):
        Ingress(SPEC, 1, 0)


def test_an_address_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"^Ingress\.address must be from 0 to 1023, not 1024$"):
        Ingress(SPEC, 1024)


def holed(word: ClientFlit) -> int:
    return 0b01010110 if word.destination == 1 else contiguous(word)


@pytest.mark.parametrize("odds", [0.0, 0.5])
def test_a_client_that_breaks_the_rules_spoils_its_own_packet_only(ingress, egress, odds):
    """Short words before the last, holes in ``keep``, and a destination and virtual channel that change on the way."""
    good = [packet(8, 70, 1), packet(7, 53, 0)]
    bad = [ClientFlit(bytes([n]) * (n % 9), n, ADDRESS, n % 2, int(n == 30)) for n in range(31)]
    holes = [ClientFlit(bytes(8), 1, ADDRESS, 0, int(n == 12)) for n in range(13)]
    offered = [*words(SPEC, good[0].flits(SPEC)), *bad, *holes, *words(SPEC, good[1].flits(SPEC))]
    run = ingress.run(offered, pauses=at_random(10, odds), keep=holed, credit_cycle=late(11, 5))
    packets = assembled(flit for _, flit in run.received)
    assert [(p.destination, p.virtual_channel) for p in packets] == [(8, 1), (0, 0), (1, 0), (7, 0)]
    assert [packets[0], packets[3]] == good
    given = egress.run(run.received, pauses=at_random(12, odds))
    assert sorted(p.destination for p in assembled(word for _, word in given.received)) == [0, 1, 7, 8]
    assert {packets[0], packets[3]} <= set(assembled(word for _, word in given.received))


class Unclean(ClientFlit):
    """A flit with ones past its length."""

    def fields(self) -> dict[str, int]:
        fields = super().fields()
        ones = (1 << 8 * (SPEC.payload_bytes - len(self.payload))) - 1
        return {**fields, "payload": fields["payload"] | ones << 8 * len(self.payload)}


def test_nothing_past_the_length_of_a_flit_is_shown(egress):
    flits = cut(SPEC, some_packets(SPEC, 30, 13))
    unclean = [Unclean(f.payload, f.destination, f.source, f.virtual_channel, f.last) for f in flits]
    assert_given(SPEC, egress.run([(0, flit) for flit in unclean]), words(SPEC, flits))


def test_a_packet_is_offered_four_cycles_after_its_flit(egress):
    run = egress.run([(0, flit) for flit in packet(0, 3).flits(SPEC)])
    assert [(cycle + 4, flit) for cycle, flit in run.sent] == run.received


def test_packets_follow_each_other_without_a_bubble(egress):
    packets = [packet(n, length, n % 2) for n, length in enumerate((8, 3, 60, 104, 1, 1, 16, 55))]
    run = egress.run([(0, flit) for flit in cut(SPEC, packets)], pauses=lambda cycle: cycle < 20)
    cycles = [cycle for cycle, _ in run.received]
    assert cycles == list(range(cycles[0], cycles[0] + len(cycles)))


def test_a_packet_is_not_interleaved_with_another(egress):
    first, second = packet(0, 60, 0).flits(SPEC), packet(1, 3, 1).flits(SPEC)
    run = egress.run([(0, first[0]), (1, second[0]), (20, first[1])])
    assert [word for _, word in run.received] == words(SPEC, [*first, *second])


def test_the_virtual_channels_take_turns(egress):
    """The first three are chosen before another virtual channel has anything."""
    queued = [packet(n, 1, channel) for n, channel in enumerate((0, 0, 0, 1, 1, 1, 0, 0))]
    run = egress.run([(0, flit) for flit in cut(SPEC, queued)], pauses=lambda cycle: cycle < 20)
    assert [word.virtual_channel for _, word in run.received] == [0, 0, 0, 1, 0, 1, 0, 1]


def test_a_client_that_is_not_ready_withholds_credits(egress):
    """The queue, the flit whose words are given and the word that is offered hold what the client does not take."""
    flits = [(0, flit) for flit in cut(SPEC, [packet(n, 1) for n in range(SPEC.buffer_flits + 5)])]
    run = egress.run(flits, pauses=lambda cycle: cycle < 30)
    assert [cycle < 30 for cycle, _ in run.sent] == [True] * (SPEC.buffer_flits + 2) + [False] * 3


LENGTHS = st.one_of(st.integers(1, 3 * SPEC.payload_bytes), st.sampled_from([8, 52, 53, 56, 104, 105]))
PACKETS = st.lists(st.tuples(LENGTHS, st.integers(0, 1)), min_size=1, max_size=8).map(
    lambda drawn: [packet(n, length, channel) for n, (length, channel) in enumerate(drawn)]
)
PATTERNS = st.lists(st.booleans(), min_size=1, max_size=7).filter(lambda pattern: not all(pattern))


def repeated(pattern: list[bool]):
    return lambda cycle: pattern[cycle % len(pattern)]


@settings(deadline=None, max_examples=25)
@given(packets=PACKETS, pauses=PATTERNS, takes=PATTERNS, hold=st.integers(1, 9))
def test_a_stream_is_the_same_behind_both(ingress, egress, packets, pauses, takes, hold):
    flits = cut(SPEC, packets)
    run = ingress.run(words(SPEC, flits), pauses=repeated(pauses), credit_cycle=lambda _, cycle: cycle + hold)
    assert [flit for _, flit in run.received] == flits
    assert run.stale == []
    assert_given(SPEC, egress.run(run.received, pauses=repeated(takes)), words(SPEC, flits))


def test_never_pauses():
    assert not any(map(never, range(5)))


@pytest.mark.parametrize("buffer_flits", [2, 3, 16])
def test_the_rate_of_clients_is_measured_before_credits_run_out(buffer_flits):
    """A flit of one beat goes in every cycle, also where two buffers could not keep it up."""
    assert measure_client(chiplet(8, 64, buffer_flits)).ingress_cycles_per_flit == 1
