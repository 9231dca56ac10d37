# amaranth: UnusedElaboratable=no
"""Streams across clock domains: nothing lost, nothing twice, and no reset that is half seen."""

import random
from itertools import pairwise

import pytest
from amaranth.lib import data

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.client import beat_layout
from lightfabric.rtl.crossing import StreamCrossing
from lightfabric.sim.bench.bench import BenchTimeoutError
from lightfabric.sim.bench.crossing import Clock, CrossingBench

LAYOUT = beat_layout(ChipletSpec(wavelengths_per_port=1))
BENCH = CrossingBench(LAYOUT)
CLOCKS = {
    "1:1, a phase apart": (Clock(1000), Clock(1000, 300)),
    "1:1, at once": (Clock(1000), Clock(1000)),
    "3:7": (Clock(3000), Clock(7000, 100)),
    "7:3": (Clock(7000), Clock(3000, 200)),
    "1:4.9": (Clock(1000), Clock(4900)),
    "4.9:1": (Clock(4900), Clock(1000, 70)),
}


@pytest.fixture(params=CLOCKS)
def clocks(request):
    return CLOCKS[request.param]


class Packets:
    """Words of packets of random lengths; ``data`` tells packet and word. A source that was reset begins a new packet."""

    def __init__(self, seed: int, packets: int, most_words: int = 9):
        self.rng, self.packets, self.most_words = random.Random(seed), packets, most_words
        self.number = self.word = self.length = 0

    def __call__(self):
        if self.word == self.length:
            if self.number == self.packets:
                return None
            self.number, self.word, self.length = self.number + 1, 0, self.rng.randint(1, self.most_words)
        self.word += 1
        return {
            "data": self.number << 32 | self.word,
            "keep": 0x0F if self.word == self.length else 0xFF,
            "last": int(self.word == self.length),
            "dest": self.number % 1024,
            "user": self.number % 2,
        }

    def reset(self):
        self.word = self.length

    def ends(self, word) -> bool:
        return word["data"] >> 32 == self.packets and bool(word["last"])


def at_random(seed: int, odds: float):
    rng = random.Random(seed)
    return lambda _: rng.random() < odds


def resets(seed: int, count: int, most_cycle: int, most_cycles: int) -> frozenset[int]:
    """So many resets of 1 or more cycles, some of them close together."""
    rng, cycles, first = random.Random(seed), set(), 0
    for _ in range(count):
        first = rng.randint(1, most_cycle) if rng.random() < 0.6 or not first else first + rng.randint(1, 12)
        cycles |= set(range(first, first + rng.randint(1, most_cycles)))
    return frozenset(cycles)


@pytest.mark.parametrize(("i_odds", "o_odds"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.4, 0.4)])
def test_words_arrive_once_in_order_and_unchanged(clocks, i_odds, o_odds):
    packets = Packets(1, 40)
    run = BENCH.run(packets, *clocks, i_pauses=at_random(2, i_odds), o_pauses=at_random(3, o_odds), end=packets.ends)
    assert [word for _, word in run.received] == [word for _, word in run.sent]
    assert (run.changed, run.cuts) == ([], [])


def test_a_word_passes_in_every_cycle_of_the_slower_clock(clocks):
    packets = Packets(1, 60)
    run = BENCH.run(packets, *clocks, end=packets.ends)
    slower_ps = max(clock.period_ps for clock in clocks)
    times = [time for time, _ in run.received[20:]]
    assert times[-1] - times[0] <= (len(times) - 1 + 2) * slower_ps


def test_a_word_is_offered_in_the_third_or_fourth_cycle_after_it_was_taken(clocks):
    packets = Packets(4, 30, most_words=1)
    run = BENCH.run(packets, *clocks, i_pauses=lambda cycle: cycle % 40, end=packets.ends)
    o_ps = clocks[1].period_ps
    for (taken_ps, _), (given_ps, _) in zip(run.sent, run.received, strict=True):
        assert 3 <= (given_ps - taken_ps) / o_ps <= 4


def whole(words: list[dict[str, int]]) -> bool:
    """These are the words of one packet, all of them."""
    return [w["data"] & 0xFFFFFFFF for w in words] == list(range(1, len(words) + 1)) and words[-1]["last"] == 1


def received_packets(run):
    """Packets as the output saw them: (time of the last word, words, whether a reset of the output or an end cut it)."""
    marks = sorted([(t, 0, None) for t in run.o_resets_ps] + [(t, 1, word) for t, word in run.received], key=lambda m: m[:2])
    words, packets = [], []
    for time, is_word, word in marks:
        if not is_word:
            packets.extend([(time, words, True)] if words else [])
            words = []
            continue
        words.append(word)
        if word["last"]:
            packets.append((time, words, time in run.cuts))
            words = []
    return packets, words


def assert_sound(run) -> list[int]:
    """What the contract says of any run with resets. Returns the numbers of the packets that were seen."""
    packets, rest = received_packets(run)
    assert rest == []
    assert run.changed == []
    numbers = []
    for time, words, was_cut in packets:
        if time in run.cuts:
            end = words.pop()
            assert words, "an end of no packet"
            assert end == {**words[-1], "data": 0, "keep": 0, "last": 1}
        assert was_cut or whole(words)
        assert [w["data"] & 0xFFFFFFFF for w in words] == list(range(1, len(words) + 1)), "from the first word on"
        assert len({w["data"] >> 32 for w in words}) == 1
        numbers.append(words[0]["data"] >> 32)
    assert all(a < b for a, b in pairwise(numbers)), "in order, none twice"
    taken_ps = {word["data"]: time for time, word in run.sent}
    for given_ps, word in run.received:
        if word["keep"] == 0:
            continue
        taken = taken_ps[word["data"]]
        assert not any(taken <= reset < given_ps for reset in run.o_resets_ps), "of before the output's reset"
    return numbers


def run_with_resets(clocks, seed: int, i_count: int, o_count: int, o_odds: float = 0.2):
    packets = Packets(seed, 1 << 30)
    i_clock, o_clock = clocks
    slowest_ps = max(i_clock.period_ps, o_clock.period_ps)
    cycles = [300 * slowest_ps // clock.period_ps for clock in clocks]
    i_clock = Clock(i_clock.period_ps, i_clock.phase_ps, resets(seed + 1, i_count, cycles[0], 3))
    o_clock = Clock(o_clock.period_ps, o_clock.phase_ps, resets(seed + 2, o_count, cycles[1], 3))
    quiet_from = max([0, *i_clock.resets]) * i_clock.period_ps, max([0, *o_clock.resets]) * o_clock.period_ps
    settled_ps = max(quiet_from) + 40 * slowest_ps
    after = Later(packets, i_clock, settled_ps)
    run = BENCH.run(
        after, i_clock, o_clock, i_reset=packets.reset, i_pauses=after.pausing(at_random(seed + 3, 0.2)),
        o_pauses=at_random(seed + 4, o_odds), end=after.ends, bound_cycles=60_000,
    )  # fmt: skip
    return run, after


class Later:
    """Packets without end until all resets have passed, then the last ones, which must all arrive."""

    def __init__(self, packets: Packets, clock: Clock, settled_ps: int, count: int = 5):
        self.packets, self.clock, self.settled_ps, self.count = packets, clock, settled_ps, count
        self.cycle, self.first = 0, None

    def pausing(self, pauses):
        def pausing(cycle: int) -> bool:
            self.cycle = cycle
            return pauses(cycle)

        return pausing

    def __call__(self):
        between = self.packets.word == self.packets.length
        if between and self.first is None and self.cycle * self.clock.period_ps > self.settled_ps:
            self.first = self.packets.number + 1
            self.packets.packets = self.packets.number + self.count
        return self.packets()

    def ends(self, word) -> bool:
        return self.first is not None and self.packets.ends(word)


@pytest.mark.parametrize(("i_count", "o_count"), [(6, 0), (0, 6), (5, 5)], ids=["input", "output", "both"])
@pytest.mark.parametrize("seed", range(0, 400, 100))
def test_a_reset_in_mid_packet_leaves_whole_packets_or_marked_ends(clocks, i_count, o_count, seed):
    run, after = run_with_resets(clocks, seed, i_count, o_count)
    numbers = assert_sound(run)
    assert numbers[-after.count :] == list(range(after.first, after.first + after.count)), "all is well after the resets"


@pytest.mark.parametrize("seed", [34, 305, 380, 503, 865])
def test_resets_in_the_wake_of_resets_do_no_harm(clocks, seed):
    """So many that some come while another is still on its way across."""
    run, after = run_with_resets(clocks, seed, 20, 20)
    numbers = assert_sound(run)
    assert numbers[-after.count :] == list(range(after.first, after.first + after.count))


@pytest.mark.parametrize("seed", range(0, 200, 100))
def test_nothing_of_before_is_given_once_the_output_has_heard_of_the_reset(clocks, seed):
    run, _ = run_with_resets(clocks, seed, 6, 0, o_odds=0.0)
    assert run.i_resets_ps
    taken_ps = {word["data"]: time for time, word in run.sent}
    heard_ps = clocks[0].period_ps + 4 * clocks[1].period_ps
    for given_ps, word in run.received:
        assert word["keep"] == 0 or not any(taken_ps[word["data"]] <= r < given_ps - heard_ps for r in run.i_resets_ps)


def test_the_rest_of_a_packet_that_the_output_has_lost_is_dropped():
    """A packet of 30 words is at its tenth when the output is reset: the next that is given begins the next packet."""
    words = [{"data": n, "keep": 0xFF, "last": int(n in (29, 31)), "dest": 1, "user": 0} for n in range(32)]
    source = iter(words)
    run = BENCH.run(lambda: next(source, None), Clock(), Clock(1000, 300, {20}), end=lambda word: word["data"] == 31)
    given = [word["data"] for time, word in run.received if time > 20_300]
    assert given == [30, 31]
    assert [word for _, word in run.sent] == words


def test_a_packet_that_the_input_has_lost_is_ended():
    """The word already offered is given before the end, however long that takes; the next packet comes after."""
    lost = [{"data": 7 + n, "keep": 0xFF, "last": 0, "dest": 513, "user": 1} for n in range(4)]
    next_packet = {"data": 99, "keep": 1, "last": 1, "dest": 2, "user": 0}
    source = iter([*lost, *[None] * 60, next_packet])
    run = BENCH.run(
        lambda: next(source, None), Clock(1000, 0, {25}), Clock(1000, 300),
        o_pauses=lambda cycle: 10 < cycle < 90, end=lambda word: word["data"] == 99,
    )  # fmt: skip
    end = {"data": 0, "keep": 0, "last": 1, "dest": 513, "user": 1}
    assert [word for _, word in run.received] == [lost[0], end, next_packet]
    assert run.cuts == [run.received[1][0]]
    assert run.changed == []


def test_a_reset_between_packets_cuts_nothing():
    packets = Packets(5, 8, most_words=3)
    run = BENCH.run(
        packets, Clock(1000, 0, {150}), Clock(1300, 0, {118}), i_pauses=lambda c: 90 < c < 190, end=packets.ends
    )  # fmt: skip
    assert [word for _, word in run.received] == [word for _, word in run.sent]
    assert run.cuts == []


def test_words_without_last_are_packets_each():
    layout = data.StructLayout({"address": 8, "value": 32})
    words = iter([{"address": n, "value": 3 * n} for n in range(60)])
    run = CrossingBench(layout, depth=4).run(
        lambda: next(words, None), Clock(1000, 0, {30}), Clock(700, 0, {50}), end=lambda word: word["address"] == 59
    )
    given = [word["address"] for _, word in run.received]
    assert given == sorted(set(given))
    assert run.cuts == []
    assert all(word["value"] == 3 * word["address"] for _, word in run.received)


def test_a_crossing_without_a_reset_of_its_own_clock_waits_for_it():
    with pytest.raises(BenchTimeoutError):
        BENCH.run(Packets(6, 1), Clock(), Clock(resets=range(1 << 20)), end=lambda _: True, bound_cycles=100)


@pytest.mark.parametrize("depth", [2, 12])
def test_a_depth_that_gray_code_cannot_count_is_refused(depth):
    with pytest.raises(ValueError, match=rf"^StreamCrossing\.depth must be a power of two from 4 on, not {depth}$"):
        StreamCrossing(LAYOUT, i_domain="near", o_domain="far", depth=depth)
