"""The channel: rates and lengths of errors against closed forms, what each fault does to blocks, and traces of errors."""

import math
import re
from itertools import groupby

import numpy as np
import pytest

from lightfabric.sim.channel.error import BitErrors, Bursts, GilbertElliott
from lightfabric.sim.channel.fault import Channel, LaneFaults
from lightfabric.sim.channel.fibre import Fibre, Lane, constant
from lightfabric.sim.channel.trace import Trace

BITS = 66
MASK = (1 << BITS) - 1
SIGMAS = 4
"""One good run in 16 000 is outside of such a band; the seeds are fixed, so that none is by chance."""


def flips_of(errors, blocks, bits=BITS):
    """Whether each bit was flipped, in the order of the line."""
    masks = (errors(block, bits) for block in range(blocks))
    return np.concatenate([np.array(list(f"{mask:0{bits}b}"[::-1]), dtype=np.uint8) for mask in masks])


def runs_of(flips, value):
    """Lengths of the runs of a value; the first and the last run are cut by the ends, and are left out."""
    runs = [(bit, len(list(run))) for bit, run in groupby(flips)][1:-1]
    return [length for bit, length in runs if bit == value]


def assert_geometric(lengths, rate):
    """The mean of geometric lengths is 1 / rate, with a standard deviation of sqrt(1 - rate) / rate each."""
    deviation = math.sqrt(1 - rate) / rate / math.sqrt(len(lengths))
    assert abs(np.mean(lengths) - 1 / rate) < SIGMAS * deviation, (np.mean(lengths), 1 / rate, deviation)


def sent(block, lanes=2):
    """Blocks of which each bit pattern is of its own, one per lane."""
    return sum((0x1_0000_0001 * (block + 1) + (lane << 60)) % (1 << 65) << BITS * lane for lane in range(lanes))


def carried(channel, beats=100, *, seed=1, lanes=(), slips=None, every=1):
    """Blocks that arrive, each with its cycle, of a beat in each of so many cycles."""
    fibre, arrived = Fibre(channel, BITS, seed, lanes), []
    for cycle in range(beats * every + 200):
        beat = sent(cycle // every, len(channel.lanes)) if cycle % every == 0 and cycle < beats * every else None
        if (came := fibre.step(beat, (slips or {}).get(cycle, 0))) is not None:
            arrived.append((cycle, came))
    return arrived


def lane_of(beats, lane):
    return [beat >> BITS * lane & MASK for _, beat in beats]


WHOLE = Channel.uniform(2)
PLAIN = carried(WHOLE)


@pytest.mark.parametrize("ber", [0.3, 1e-2, 1e-3])
def test_random_errors_are_independent_and_as_frequent_as_their_rate(ber):
    flips = flips_of(BitErrors(ber, np.random.default_rng(1)), 4000)
    assert abs(flips.sum() - ber * len(flips)) < SIGMAS * math.sqrt(len(flips) * ber * (1 - ber))
    assert_geometric(np.diff(np.flatnonzero(flips)), ber)


@pytest.mark.parametrize(("worsens", "recovers"), [(1e-3, 0.05), (0.02, 0.1)])
def test_good_and_bad_times_of_gilbert_and_elliott_last_as_long_as_their_rates_say(worsens, recovers):
    faults = LaneFaults(ber=0.0, ber_bad=1.0, worsens=worsens, recovers=recovers)
    flips = flips_of(GilbertElliott(faults, np.random.default_rng(2)), 6000)
    assert_geometric(runs_of(flips, 1), recovers)
    assert_geometric(runs_of(flips, 0), worsens)


def test_the_rate_of_gilbert_and_elliott_is_the_mean_of_both():
    faults = LaneFaults(ber=1e-3, ber_bad=0.2, worsens=1e-3, recovers=1e-2)
    counts = [flips_of(GilbertElliott(faults, np.random.default_rng((3, n))), 500).sum() for n in range(40)]
    rates = np.array(counts) / (500 * BITS)
    # 40 runs from the good state, each many times as long as a good time.
    assert faults.mean_ber == pytest.approx((1e-2 * 1e-3 + 1e-3 * 0.2) / 1.1e-2)
    assert abs(rates.mean() - faults.mean_ber) < SIGMAS * rates.std(ddof=1) / math.sqrt(len(rates))


def test_bursts_are_as_many_as_their_rate_and_half_of_their_bits_are_wrong():
    bursts = Bursts(0.02, 40, np.random.default_rng(4))
    flips = flips_of(bursts, 10_000)
    assert abs(bursts.count - 200) < SIGMAS * math.sqrt(200)
    assert abs(flips.sum() - 20 * bursts.count) < SIGMAS * math.sqrt(bursts.count * 40 / 4)


def test_the_same_seed_makes_the_same_run_and_another_one_another():
    channel = Channel.uniform(2, ber=0.01, slips=0.01, losses=0.01, loss_blocks=5, lost="noise", skew_steps=0.05)
    assert carried(channel, seed=7) == carried(channel, seed=7) != carried(channel, seed=8)
    lane = lane_of(carried(Channel.uniform(2, ber=0.05)), 0), lane_of(carried(Channel.uniform(2, ber=0.05)), 1)
    assert [a ^ b for a, b in zip(*lane, strict=True)] != [
        a ^ b for a, b in zip(*(lane_of(PLAIN, n) for n in (0, 1)), strict=True)
    ]


def test_a_whole_channel_brings_what_was_sent_after_its_delay():
    assert [beat for _, beat in PLAIN] == [sent(block) for block in range(99)]
    # The window of a lane shows a block when the next one has come.
    assert [cycle for cycle, _ in PLAIN] == list(range(1, 100))
    late = carried(Channel.uniform(2, delay_cycles=8))
    assert late == [(cycle + 7, beat) for cycle, beat in PLAIN]


def test_lanes_are_swapped_and_inverted_as_described():
    swapped = carried(Channel.uniform(3, order=(2, 0, 1)))
    assert [lane_of(swapped, lane) for lane in range(3)] == [
        lane_of(carried(Channel.uniform(3)), lane) for lane in (2, 0, 1)
    ]
    inverted = carried(Channel((LaneFaults(), LaneFaults(inverted=True))))
    assert lane_of(inverted, 0) == lane_of(PLAIN, 0)
    assert lane_of(inverted, 1) == [block ^ MASK for block in lane_of(PLAIN, 1)]


def test_offset_and_skew_cut_later_blocks_and_a_slip_is_one_bit_of_offset():
    skewed = carried(Channel((LaneFaults(), LaneFaults(skew_blocks=3))))
    assert lane_of(skewed, 0)[:90] == lane_of(PLAIN, 0)[3:93]
    assert lane_of(skewed, 1)[:90] == lane_of(PLAIN, 1)[:90]
    offset = carried(Channel((LaneFaults(offset_bits=5), LaneFaults())))
    slipped = carried(WHOLE, slips=dict.fromkeys(range(5), 0b01))
    line = sum(block << BITS * n for n, block in enumerate(lane_of(PLAIN, 0)))
    assert lane_of(offset, 0)[:90] == [line >> BITS * n + 5 & MASK for n in range(90)]
    assert slipped[20:] == offset[20:]
    # Three beats come from the slip's own cycle on until it shows, and the first of them brings no block yet.
    assert slipped[:1] == PLAIN[:1]
    assert slipped[1] != PLAIN[1]


def test_slips_and_skew_steps_come_at_their_rates_and_skew_stays_within_its_bound():
    fibre = Fibre(Channel.uniform(1, slips=0.1, skew_steps=0.5, max_skew_blocks=3), BITS, 5)
    skews = set()
    for block in range(1000):
        fibre.step(block, 0)
        skews.add(fibre.lanes[0].skew_blocks)
    assert skews == {0, 1, 2, 3}
    (run,) = fibre._runs
    assert abs(run.slips - 100) < SIGMAS * math.sqrt(90)
    assert fibre.lanes[0].offset == run.slips % BITS


@pytest.mark.parametrize("lost", ["dark", "noise"])
def test_a_lost_lane_is_dark_or_noise_and_returns(lost):
    channel = Channel((LaneFaults(losses=0.02, loss_blocks=10, lost=lost), LaneFaults()))
    seen = carried(channel, 4000, seed=3)
    plain = carried(WHOLE, 4000)
    gone = np.array([a != b for a, b in zip(lane_of(seen, 0), lane_of(plain, 0), strict=True)])
    assert lane_of(seen, 1) == lane_of(plain, 1)
    assert {block == 0 for block, out in zip(lane_of(seen, 0), gone, strict=True) if out} == {lost == "dark"}
    assert_geometric(runs_of(gone, 1), 0.1)
    assert_geometric(runs_of(gone, 0), 0.02)


def test_clocks_that_differ_move_the_delay_by_a_cycle_now_and_then():
    for ppm in (2000, 10_000):
        growing = carried(Channel.uniform(1, ppm=ppm), 2000, every=2)
        plain = carried(Channel.uniform(1), 2000, every=2)
        late = [now - then for (now, _), (then, _) in zip(growing, plain, strict=True)]
        assert late == sorted(late)
        assert late[-1] == math.floor(ppm * 1e-6 * (plain[-1][0]))
        shrinking = carried(Channel.uniform(1, ppm=-ppm, delay_cycles=5), 2000, every=2)
        assert [beat for _, beat in shrinking] == [beat for _, beat in plain]
        # From a delay of 5 cycles down to 1, and no further.
        assert shrinking[-1][0] == plain[-1][0] + max(4 - math.ceil(ppm * 1e-6 * plain[-1][0]), 0)
    wander = Channel.uniform(1, wander_ppm=1000, wander_cycles=20_000)
    assert wander.extra_cycles(10_000) == math.floor(1e-3 * 2 * 20_000 / (2 * math.pi))
    assert wander.extra_cycles(20_000) == 0


def test_a_trace_flips_the_bits_that_it_names(tmp_path):
    file = tmp_path / "errors.txt"
    file.write_text("# block lane bit\n0 0 0\n3 1 65\n\n3 1 2\n3 0 7\n90 1 1\n")
    seen = carried(Channel.uniform(2, trace=file))
    masks = {block: a ^ b for block, ((_, a), (_, b)) in enumerate(zip(seen, PLAIN, strict=True)) if a != b}
    assert masks == {0: 1, 3: 1 << BITS + 65 | 1 << BITS + 2 | 1 << 7, 90: 1 << BITS + 1}


def replayed(file):
    trace = Trace(file, 2, BITS)
    return [trace.flips(block) for block in range(10)]


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        ("1 0", 1),
        ("0 0 0\n1 2 0", 2),
        ("1 0 66", 1),
        ("5 0 0\n4 0 0", 2),
        ("0 0 x", 1),
        ("-1 0 0", 1),
        ("0 0 " + "0" * 99, 1),
    ],
)
def test_a_wrong_row_of_a_trace_is_named_in_one_line(tmp_path, rows, row):
    file = tmp_path / "errors.txt"
    file.write_text(rows)
    with pytest.raises(
        ValueError,
        match=rf"errors.txt: row {row} must be a block from \d+ on, a lane below 2 and a bit below 66, not '[^\n]*'$",
    ):
        replayed(file)


def test_a_trace_is_read_as_far_as_it_is_needed(tmp_path):
    file = tmp_path / "errors.txt"
    file.write_text("0 0 0\n7 0 0\nwrong\n")
    trace = Trace(file, 2, BITS)
    assert trace.flips(5) == {}
    with pytest.raises(ValueError, match="row 3"):
        trace.flips(7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LaneFaults(ber=1.5), "LaneFaults.ber must be from 0 to 1, not 1.5"),
        (lambda: LaneFaults(recovers=0.0), "LaneFaults.recovers must be above 0, not 0.0"),
        (lambda: LaneFaults(lost="black"), "LaneFaults.lost must be dark or noise, not 'black'"),
        (lambda: LaneFaults(skew_blocks=63), "LaneFaults.skew_blocks must be from 0 to 62, not 63"),
        (lambda: LaneFaults(offset_bits=68), "LaneFaults.offset_bits must be from 0 to 67, not 68"),
        (
            lambda: Fibre(Channel.uniform(1, offset_bits=66), 66, 1),
            "LaneFaults.offset_bits must be below the 66 bits of a block, not 66",
        ),
        (lambda: Channel(()), "Channel.lanes must be one lane or more, not ()"),
        (lambda: Channel.uniform(2, order=(0, 0)), "Channel.order must be each of the lanes 0 to 1 once, not (0, 0)"),
        (lambda: Channel.uniform(2, delay_cycles=0), "Channel.delay_cycles must be from 1 to 16777216, not 0"),
    ],
)
def test_a_wrong_description_names_its_field(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_a_script_changes_a_lane_on_the_way():
    lanes = [Lane(), Lane()]
    fibre = Fibre(WHOLE, BITS, 1, lanes)
    fibre.step(sent(0), 0)
    assert fibre.step(sent(1), 0) == sent(0)
    fibre.lanes[1].fault = constant(0)
    assert fibre.step(sent(2), 0) == sent(1)
    assert fibre.step(sent(3), 0) == sent(2) & MASK
    fibre.silent = True
    assert fibre.step(sent(4), 0) is None
