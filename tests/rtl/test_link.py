"""The RTL of the link: every flit once, in order, unchanged, whatever the line does to its bits."""

import random
from itertools import pairwise

import numpy as np
import pytest

from lightfabric.model.codec import ACK, DATA, EXPLICIT
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.receiver import BAD_FRAMES_TO_RETRAIN
from lightfabric.rtl.transmitter import REPLAYS_TO_RETRAIN
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.bench.link import LinkBench, clean
from lightfabric.sim.channel.error import BitErrors

SPECS = {
    "one wavelength": ChipletSpec(ports=1, wavelengths_per_port=1, flit_bytes=64, buffer_flits=8, reach_m=1.0, crc="crc16"),
    "a beat per flit": ChipletSpec(ports=1, wavelengths_per_port=4, flit_bytes=64, buffer_flits=16, reach_m=1.0),
    "three channels": ChipletSpec(
        ports=1, wavelengths_per_port=2, virtual_channels=3, buffer_flits=4, reach_m=1.0, crc="crc24"
    ),
}


@pytest.fixture(scope="module", params=SPECS)
def bench(request) -> LinkBench:
    return LinkBench(SPECS[request.param])


@pytest.fixture(scope="module")
def slot_zero_beat(bench) -> int:
    """The number of the first beat of a frame, after the training."""
    return bench.run([(0, ClientFlit(b"\1"))]).frame_beat


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


def corrupting_slots(bench, slot_zero_beat, slots):
    """Flips a bit in each of these slots, counted from the training on."""
    return corrupting({slot_zero_beat + slot * bench.spec.beats_per_flit for slot in slots})


def test_a_lost_flit_is_replayed_with_all_that_follow(bench, slot_zero_beat):
    sent = [(0, ClientFlit(bytes([n + 1]))) for n in range(20)]
    first = next(n for n, slot in enumerate(bench.run(sent, decode=True).a_slots) if slot.flit.type == DATA)
    run = bench.run(sent, errors_a=corrupting_slots(bench, slot_zero_beat, {first + 2}), decode=True)
    assert_delivered(bench.spec, sent, run)
    assert run.replays == 1
    assert run.crc_errors >= 1
    payloads = [slot.flit.payload[0] for slot in run.a_slots if slot.flit.type == DATA]
    again = next(n for n, (one, other) in enumerate(pairwise(payloads), 1) if other <= one)
    assert payloads[again:] == list(range(3, 21)), "go back to the lost flit, then on without a gap"
    replayed = [slot.flit for slot in run.a_slots if slot.flit.type == DATA][again]
    assert (replayed.code, replayed.sequence) == (EXPLICIT, 2)


def test_flits_that_say_their_sequence_alternate_with_answers(bench):
    run = bench.run([(0, ClientFlit(b"\1"))] * 12, decode=True)
    codes = [slot.flit.code for slot in run.a_slots[1:]]  # the first is chosen while sets are sent
    assert codes == [(EXPLICIT, ACK)[n % 2] for n in range(len(codes))]


def test_sequences_are_counted_modulo_255(bench):
    """[UCIe 1.1, retry]"""
    run = bench.run([(0, ClientFlit(b"\1"))] * 300, decode=True)
    numbers = [slot.flit.sequence for slot in run.a_slots if slot.flit.type == DATA and slot.flit.code == EXPLICIT]
    assert max(numbers) <= 254
    assert numbers[-1] < 60
    assert_delivered(bench.spec, run.sent, run)


@pytest.mark.parametrize("slots", [range(8, 20), range(8, 60)], ids=["replayed", "trained again"])
def test_a_burst_that_hides_many_flits_is_survived(bench, slot_zero_beat, slots):
    """More than 16 bad frames in a row make the link train again; none of its flits is lost by that."""
    sent = traffic(bench.spec, 60, 5)
    run = bench.run(sent, errors_a=corrupting_slots(bench, slot_zero_beat, slots), bound_cycles=50_000)
    assert_delivered(bench.spec, sent, run)
    assert run.crc_errors >= min(len(slots), 16) - 1
    assert bool(run.recoveries) == (len(slots) > 16)


@pytest.mark.parametrize("count", [BAD_FRAMES_TO_RETRAIN - 1, BAD_FRAMES_TO_RETRAIN])
def test_wrong_frames_in_a_row_train_the_line_again(bench, slot_zero_beat, count):
    """They carry no flits: only the receiver has anything to notice."""
    errors = corrupting_slots(bench, slot_zero_beat, range(20, 20 + count))
    run = bench.run([(0, ClientFlit(b"\1"))], errors_a=errors, settle_cycles=int(80 * bench.spec.slot_cycles) + 600)
    assert run.crc_errors == count
    assert len(run.recoveries) == (count == BAD_FRAMES_TO_RETRAIN)


def test_a_replay_that_loses_its_first_flit_comes_again_without_a_timeout(bench, slot_zero_beat):
    """The first two sends of a flit are corrupted: the receiver goes on wanting it."""
    sent = [(0, ClientFlit(bytes([n + 1]))) for n in range(bench.spec.buffer_flits)]
    slots: set[int] = set()
    for _ in range(2):
        errors = corrupting_slots(bench, slot_zero_beat, slots)
        run = bench.run(sent, errors_a=errors, settle_cycles=200, bound_cycles=50_000, decode=True)
        sends = [n for n, slot in enumerate(run.a_slots) if slot.flit.type == DATA and slot.flit.payload == b"\2"]
        slots.add(sends[len(slots)])
    run = bench.run(sent, errors_a=corrupting_slots(bench, slot_zero_beat, slots), bound_cycles=50_000)
    assert_delivered(bench.spec, sent, run)
    assert run.replays == 2
    assert run.received[-1][0] < bench.spec.timeout_slots * bench.spec.slot_cycles


def test_a_last_flit_that_is_lost_with_every_answer_comes_back_after_the_timeout(bench, slot_zero_beat):
    """Nothing follows the flit, and all answers of the far end are lost until the transmitter's clock strikes."""
    deaf = [n for n in range(1, 900) if n % 16 != 1]  # all in a row would make the link train again
    sent = [(0, ClientFlit(b"\1"))]
    errors = corrupting_slots(bench, slot_zero_beat, deaf)
    run = bench.run(sent, errors_b=errors, settle_cycles=bench.spec.timeout_slots * 10, bound_cycles=50_000)
    assert_delivered(bench.spec, sent, run)
    assert run.replays > 0


def test_replays_that_help_never_make_the_link_train_again(bench, slot_zero_beat):
    """Lost slots so far apart that flits are acknowledged between them: tries are counted anew each time."""
    spec, apart = bench.spec, 60
    lost = corrupting_slots(bench, slot_zero_beat, range(20, 20 + 8 * apart, apart))
    channels = [n % spec.virtual_channels for n in range(9 * apart)]
    sent = [(int(n * spec.slot_cycles), ClientFlit(b"\1", virtual_channel=v)) for n, v in enumerate(channels)]
    run = bench.run(sent, errors_a=lost, bound_cycles=50_000)
    assert_delivered(spec, sent, run)
    assert run.replays > REPLAYS_TO_RETRAIN + 2
    assert run.cut == run.recoveries == []


def test_the_line_never_stops_and_carries_control_blocks_in_training_only(bench):
    run = bench.run([(0, ClientFlit(b"\1"))], settle_cycles=300, decode=True)
    befores = [slot.before_cycle for slot in run.a_slots[1:]]
    assert all(abs(b - a - bench.spec.slot_cycles) < 1 for a, b in pairwise(befores))


def test_no_errors_flip_nothing():
    assert clean(0, 66) == 0
    assert BitErrors(0.0, np.random.default_rng(0))(0, 10_000) == 0


def test_bit_errors_come_at_the_asked_rate():
    """Binomial: 10 standard deviations around the mean of 2e6 bits at 1e-3."""
    errors = BitErrors(1e-3, np.random.default_rng(6))
    flipped = sum(errors(n, 66).bit_count() for n in range(2_000_000 // 66))
    assert errors.count >= flipped
    assert abs(flipped - 2000) < 10 * 2000**0.5
