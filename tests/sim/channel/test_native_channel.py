"""The channel in C++ does to blocks what the one in Python does, as both are told by the same description."""

import math
import shutil
import subprocess
from importlib.resources import files

import numpy as np
import pytest

from lightfabric.sim.channel.fault import Channel, LaneFaults
from lightfabric.sim.channel.fibre import Fibre
from lightfabric.sim.native.link import header

BITS, LANES, SIGMAS = 66, 3, 4
MASK = (1 << BITS) - 1
PROGRAM = r"""
#include <cinttypes>
#include <cstdio>
#include "native_channel.h"

// For each block of all lanes its number and, where one arrives, the bits of each lane in two halves.
int main(int, char** words) {
    lightfabric::Channel channel(words[1], std::strtoull(words[2], nullptr, 10), 7);
    const uint64_t count = std::strtoull(words[3], nullptr, 10);
    for (uint64_t number = 0; number < count; ++number) {
        std::array<lightfabric::uint128_t, lightfabric::LANES> blocks;
        for (size_t lane = 0; lane < lightfabric::LANES; ++lane)
            blocks[lane] = (number + 1) * (lane + 0x100000001u) & lightfabric::BLOCK_MASK;
        if (!channel.step(blocks)) continue;
        for (auto block : blocks)
            std::printf("%" PRIx64 " %" PRIx64 " ", static_cast<uint64_t>(block >> 64), static_cast<uint64_t>(block));
        std::printf("\n");
    }
    std::printf("%" PRIu64 "\n", channel.bit_errors());
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    folder = tmp_path_factory.mktemp("channel")
    (folder / "main.cpp").write_text(PROGRAM)
    (folder / "native_shape.h").write_text(
        header({"LANES": LANES, "BLOCK_BITS": BITS}, "namespace lightfabric { using ::LANES; }")
    )
    native = files("lightfabric.sim.native")
    command = ["g++", "-std=gnu++17", "-O1", "-Wall", "-Wextra", f"-I{folder}", f"-I{native}", "main.cpp", "-o", "main"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "main"


def sent(number):
    return [(number + 1) * (lane + 0x100000001) & MASK for lane in range(LANES)]


def native(program, channel, blocks, seed=1):
    """Blocks that arrive, lane by lane, and the bits that were flipped."""
    words = [program, channel.text(), str(seed), str(blocks)]
    *lines, errors = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    halves = [[int(word, 16) for word in line.split()] for line in lines]
    return [[row[2 * n] << 64 | row[2 * n + 1] for n in range(LANES)] for row in halves], int(errors)


def flips(program, faults, blocks):
    """Whether each bit of lane 0 was flipped."""
    arrived, errors = native(program, Channel((faults,) * LANES), blocks)
    masks = [row[0] ^ sent(number)[0] for number, row in enumerate(arrived)]
    bits = np.concatenate([np.array(list(f"{mask:066b}"[::-1]), dtype=np.uint8) for mask in masks])
    # Of the last block the errors are counted, but it has not come out of the window.
    assert errors >= bits.sum()
    return bits


def test_what_is_not_by_chance_is_the_same_block_by_block(program):
    lanes = (LaneFaults(offset_bits=13), LaneFaults(skew_blocks=5, inverted=True), LaneFaults(offset_bits=65, skew_blocks=1))
    channel = Channel(lanes, order=(2, 0, 1))
    fibre = Fibre(channel, BITS, 1)
    whole = (sum(block << BITS * lane for lane, block in enumerate(sent(number))) for number in range(50))
    expected = [came for beat in whole if (came := fibre.step(beat, 0)) is not None]
    arrived, errors = native(program, channel, 50)
    assert [sum(block << BITS * lane for lane, block in enumerate(row)) for row in arrived] == expected
    assert errors == 0


def test_an_offset_is_within_a_block(program):
    words = [program, Channel((LaneFaults(), LaneFaults(), LaneFaults(offset_bits=BITS))).text(), "1", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "a channel must be 16 numbers for each of 3 lanes, its offset below 66\n")


def test_errors_and_their_bursts_have_the_rates_of_the_description(program):
    ber = 0.01
    bits = flips(program, LaneFaults(ber=ber), 4000)
    assert abs(bits.sum() - ber * len(bits)) < SIGMAS * math.sqrt(len(bits) * ber)
    bits = flips(program, LaneFaults(ber=0, ber_bad=1, worsens=5e-3, recovers=0.05), 4000)
    edges = np.flatnonzero(np.diff(bits))
    lengths = np.diff(edges)
    bad = lengths[(0 if bits[edges[0] + 1] else 1) :: 2]
    good = lengths[(1 if bits[edges[0] + 1] else 0) :: 2]
    for seen, rate in ((bad, 0.05), (good, 5e-3)):
        assert abs(seen.mean() - 1 / rate) < SIGMAS * math.sqrt(1 - rate) / rate / math.sqrt(len(seen))
    bursts = flips(program, LaneFaults(bursts=0.01, burst_bits=100), 4000)
    assert abs(bursts.sum() - 40 * 50) < SIGMAS * math.sqrt(40) * 50


def test_losses_slips_and_skew_steps_come_and_go(program):
    lost = LaneFaults(losses=0.02, loss_blocks=10, lost="dark")
    arrived, _ = native(program, Channel((lost, LaneFaults(), LaneFaults())), 4000)
    gone = np.array([row[0] == 0 for row in arrived])
    share = 0.02 * 10 / (1 + 0.02 * 10)
    assert abs(gone.mean() - share) < 0.04
    assert [row[1] for row in arrived] == [sent(number)[1] for number in range(len(arrived))]
    stepping = LaneFaults(skew_steps=0.5, max_skew_blocks=2)
    arrived, _ = native(program, Channel((stepping, LaneFaults(skew_blocks=2), LaneFaults())), 300)
    lags = {number for row in arrived for number in range(300) if row[0] == sent(number)[0]}
    assert len(lags) > 200
    slipping, _ = native(program, Channel((LaneFaults(slips=0.01), LaneFaults(), LaneFaults())), 2000)
    assert slipping[0][0] == sent(0)[0]
    assert slipping[-1][0] != sent(len(slipping) - 1)[0]


def test_the_same_seed_makes_the_same_run_and_each_lane_its_own(program):
    channel = Channel.uniform(LANES, ber=0.05)
    first, again, other = (native(program, channel, 50, seed) for seed in (1, 1, 2))
    assert first == again != other
    masks = [[block ^ plain for block, plain in zip(row, sent(number), strict=True)] for number, row in enumerate(first[0])]
    assert masks[0][0] != masks[0][1] != masks[0][2]
