"""The RTL of the link: every flit once, in order, unchanged, whatever the line does to its bits."""

import random
from itertools import pairwise

import numpy as np
import pytest

from lightfabric.model.spec import ChipletSpec
from lightfabric.sim.bench import ClientFlit
from lightfabric.sim.link import BitErrors, LinkBench, clean

SPECS = {
    "one wavelength": ChipletSpec(ports=1, wavelengths_per_port=1, flit_bytes=64, buffer_flits=8, replay_flits=8),
    "a beat per flit": ChipletSpec(ports=1, wavelengths_per_port=8, flit_bytes=64, buffer_flits=16, replay_flits=16),
    "three channels": ChipletSpec(ports=1, wavelengths_per_port=4, virtual_channels=3, buffer_flits=4, replay_flits=4),
}


@pytest.fixture(scope="module", params=SPECS)
def bench(request) -> LinkBench:
    return LinkBench(SPECS[request.param])


def traffic(spec: ChipletSpec, count: int, seed: int, most_apart_cycles: int = 1) -> list[tuple[int, ClientFlit]]:
    rng = random.Random(seed)
    cycle, flits = 0, []
    for _ in range(count):
        payload = rng.randbytes(rng.randint(1, spec.payload_bytes))
        addresses = rng.randrange(1024), rng.randrange(1024)
        flits.append((cycle, ClientFlit(payload, *addresses, rng.randrange(spec.virtual_channels), rng.randrange(2))))
        cycle += rng.randint(0, most_apart_cycles)
    return flits


def by_channel(spec, flits):
    return [[flit for _, flit in flits if flit.virtual_channel == v] for v in range(spec.virtual_channels)]


def assert_delivered(spec, sent, run):
    assert by_channel(spec, run.received) == by_channel(spec, sent)


def corrupting(beats):
    """Flips a bit in each of these beats."""
    return lambda beat, _: 0b100 if beat in beats else 0


def pausing(seed: int):
    """A consumer that gives each buffer back up to 30 cycles late."""
    rng = random.Random(seed)
    return lambda _, cycle: cycle + rng.randint(1, 30)


@pytest.mark.parametrize("most_apart_cycles", [0, 12])
@pytest.mark.parametrize("credit_cycle", [lambda _, cycle: cycle + 1, pausing(7)], ids=["ready", "pausing"])
def test_flits_arrive_once_in_order_and_unchanged(bench, most_apart_cycles, credit_cycle):
    sent = traffic(bench.spec, 60, 1, most_apart_cycles)
    run = bench.run(sent, credit_cycle=credit_cycle)
    assert_delivered(bench.spec, sent, run)
    assert (run.replays, run.crc_errors) == (0, 0)


@pytest.mark.parametrize("delay_cycles", [0, 30])
@pytest.mark.parametrize("ber", [4e-4, 1e-4])
def test_flits_survive_bit_errors_in_both_directions(bench, delay_cycles, ber):
    sent, rng = traffic(bench.spec, 40, 2), np.random.default_rng(3)
    errors = [BitErrors(ber, rng), BitErrors(ber, rng)]
    run = bench.run(
        sent,
        delay_cycles=delay_cycles,
        errors_a=errors[0],
        errors_b=errors[1],
        credit_cycle=pausing(4),
        bound_cycles=100_000,
    )
    assert_delivered(bench.spec, sent, run)
    assert run.bit_errors > 0
    assert ber < 4e-4 or (run.crc_errors > 0 and run.replays > 0)


def test_a_lost_flit_is_replayed_with_all_that_follow(bench):
    lost_slot = 3 + 2 * bench.spec.virtual_channels
    beats = {lost_slot * bench.spec.beats_per_flit}
    sent = [(0, ClientFlit(bytes([n + 1]))) for n in range(20)]
    run = bench.run(sent, errors_a=corrupting(beats), decode=True)
    assert_delivered(bench.spec, sent, run)
    assert (run.replays, run.crc_errors) == (1, 1)
    numbers = [slot.flit.sequence for slot in run.a_slots if slot.flit.data]
    lost = next(n for n, number in enumerate(numbers[1:], 1) if number <= numbers[n - 1])
    assert numbers[lost:] == list(range(numbers[lost], 20)), "go back to the lost flit, then on without a gap"


def test_a_burst_that_hides_many_flits_is_survived(bench):
    """More bad frames in a row than it takes to lose the frames' alignment."""
    beats = range(8 * bench.spec.beats_per_flit, 40 * bench.spec.beats_per_flit)
    sent = traffic(bench.spec, 40, 5)
    run = bench.run(sent, errors_a=corrupting(beats), bound_cycles=50_000)
    assert_delivered(bench.spec, sent, run)
    assert run.crc_errors > 4


def test_a_replay_that_loses_its_first_flit_is_asked_for_again_without_a_timeout(bench):
    """The first two sends of a flit are corrupted: the receiver sees the sequences step back and asks once more."""
    sent = [(0, ClientFlit(bytes([n + 1]))) for n in range(bench.spec.buffer_flits)]
    beats: set[int] = set()
    errors = corrupting(beats)
    for _ in range(2):
        run = bench.run(sent, errors_a=errors, settle_cycles=200, bound_cycles=50_000, decode=True)
        sends = [n for n, slot in enumerate(run.a_slots) if slot.flit.data and slot.flit.sequence == 1]
        beats.add(sends[len(beats)] * bench.spec.beats_per_flit)
    run = bench.run(sent, errors_a=errors, bound_cycles=50_000)
    assert_delivered(bench.spec, sent, run)
    slot_cycles = bench.spec.beats_per_flit / bench.spec.blocks_per_cycle
    assert run.replays == 2
    assert run.received[-1][0] < bench.spec.replay_timeout_slots * slot_cycles


def test_a_last_flit_that_is_lost_with_every_answer_comes_back_after_the_timeout(bench):
    """Nothing follows the flit and the way back is deaf for long: only the transmitter's clock can save it."""
    deaf = range(150 * bench.spec.beats_per_flit)
    sent = [(0, ClientFlit(b"\1"))]
    run = bench.run(sent, errors_b=corrupting(deaf), settle_cycles=1000, bound_cycles=50_000)
    assert_delivered(bench.spec, sent, run)
    assert run.replays > 0


def test_the_line_carries_data_blocks_only_and_never_stops(bench):
    run = bench.run([(0, ClientFlit(b"\1"))], settle_cycles=300, decode=True)
    befores = [slot.before_cycle for slot in run.a_slots[1:]]
    slot_cycles = bench.spec.beats_per_flit / bench.spec.blocks_per_cycle
    assert all(abs(b - a - slot_cycles) < 1 for a, b in pairwise(befores))


def test_no_errors_flip_nothing():
    assert clean(0, 66) == 0
    assert BitErrors(0.0, np.random.default_rng(0))(0, 10_000) == 0


def test_bit_errors_come_at_the_asked_rate():
    """Binomial: 10 standard deviations around the mean of 2e6 bits at 1e-3."""
    errors = BitErrors(1e-3, np.random.default_rng(6))
    flipped = sum(errors(n, 66).bit_count() for n in range(2_000_000 // 66))
    assert errors.count >= flipped
    assert abs(flipped - 2000) < 10 * 2000**0.5
