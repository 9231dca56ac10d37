# amaranth: UnusedElaboratable=no
"""256b/257b transcoding against a reference that moves characters: groups of all kinds, there and back, and invalid ones."""

import random
from itertools import product

import pytest
from amaranth.sim import Simulator

from lightfabric.rtl.fec.transcoder import ReverseTranscoder, Transcoder

SEED = 3
TYPES = list(bytes.fromhex("1E 2D 33 66 55 78 4B 87 99 AA B4 CC D2 E1 FF"))
"""Of figure 49-7."""


def line(value, bits):
    """Bits in the order of the line."""
    return f"{value:0{bits}b}"[::-1]


def value_of(text):
    return int(text[::-1], 2)


def data_block(rng):
    return "01" + line(rng.getrandbits(64), 64)


def control_block(rng, block_type=None):
    block_type = rng.choice(TYPES) if block_type is None else block_type
    return "10" + line(block_type, 8) + line(rng.getrandbits(56), 56)


def grouped(blocks):
    """The bits of the group of four blocks, of which all are valid."""
    if all(block.startswith("01") for block in blocks):
        return "1" + "".join(block[2:] for block in blocks)
    payloads = [block[2:] for block in blocks]
    first = next(at for at, block in enumerate(blocks) if block.startswith("10"))
    payloads[first] = payloads[first][:4] + payloads[first][8:]
    return "0" + "".join(block[1] for block in blocks) + "".join(payloads)


def simulated(block, given, outputs):
    """The outputs for each value of the input, a step of time apart."""
    seen = []

    async def testbench(ctx):
        for value in given:
            ctx.set(block.blocks if isinstance(block, Transcoder) else block.group, value)
            await ctx.delay(1e-9)
            seen.append(tuple(ctx.get(output) for output in outputs))

    simulation = Simulator(block)
    simulation.add_testbench(testbench)
    simulation.run()
    return seen


def encoded(groups):
    block = Transcoder()
    return simulated(block, [value_of("".join(blocks)) for blocks in groups], (block.group, block.invalid))


def decoded(groups):
    block = ReverseTranscoder()
    return simulated(block, groups, (block.blocks, block.invalid))


def test_groups_of_every_pattern_and_type_go_there_and_back():
    rng = random.Random(SEED)
    groups = [[rng.choice((data_block, control_block))(rng) for _ in range(4)] for _ in range(50)]
    groups += [[kind(rng) for kind in kinds] for kinds in product((data_block, control_block), repeat=4)]
    groups += [
        [data_block(rng)] * at + [control_block(rng, block_type)] + [control_block(rng)] * (3 - at)
        for at, block_type in product(range(4), TYPES)
    ]
    coded = encoded(groups)
    assert coded == [(value_of(grouped(blocks)), 0) for blocks in groups]
    assert decoded([group for group, _ in coded]) == [(value_of("".join(blocks)), 0) for blocks in groups]


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("spoilt", ["00", "11", "type"])
def test_an_invalid_block_makes_all_four_invalid_at_the_other_end(place, spoilt):
    rng = random.Random(SEED)
    unknown = [block_type for block_type in range(256) if block_type not in TYPES]
    groups = []
    for _ in range(10):
        blocks = [rng.choice((data_block, control_block))(rng) for _ in range(4)]
        whole = blocks[place]
        blocks[place] = control_block(rng, rng.choice(unknown)) if spoilt == "type" else spoilt + whole[2:]
        groups.append(blocks)
    coded = encoded(groups)
    assert all(invalid and line(group, 257).startswith("01111") for group, invalid in coded)
    for blocks, invalid in decoded([group for group, _ in coded]):
        assert invalid
        assert [line(blocks, 264)[at : at + 2] for at in range(0, 264, 66)] == ["11"] * 4


@pytest.mark.parametrize("first", range(4))
def test_a_nibble_of_no_type_is_told(first):
    rng = random.Random(SEED)
    blocks = [data_block(rng)] * first + [control_block(rng)] * (4 - first)
    group = grouped(blocks)
    at = 5 + 64 * first
    ((_, whole), (_, spoilt)) = decoded([value_of(group), value_of(group[:at] + "0000" + group[at + 4 :])])
    assert (whole, spoilt) == (0, 1)
