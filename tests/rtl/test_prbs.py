# amaranth: UnusedElaboratable=no
"""Test patterns: every sequence at every width against another package, and a checker that counts each error once."""

import galois
import numpy as np
import pytest

from lightfabric.rtl.prbs import INVERTED, LOCK_BITS, MAX_WINDOW_ERRORS, ORDERS, TAPS
from lightfabric.sim.line.prbs import CheckerBench, GeneratorBench, Switches

VECTORS = {
    7: 0x020C28F22CEA7D0E,
    9: 0x07BE2E64129DA3CF,
    11: 0x00603C198FF605C2,
    15: 0x0002000C002800F0,
    20: 0x1C71C8DC8D28D282,
    23: 0x00003E000FFC03E0,
    29: 0x00000018000003C0,
    31: 0x0000000E000000FC,
}
"""The 64 bits after a seed of ones, the first bit as the highest, not inverted."""
ORDERS_OF_WIDTH = dict.fromkeys((1, 2, 7, 8, 32, 64, 66, 68), ORDERS) | {1024: (9, 31)}
"""A test of all sequences at once; the widest is slow to elaborate."""


def sequence(order, bits):
    """Bits after a seed of ones, as galois makes them: it gives its state out first."""
    register = galois.FLFSR(galois.Poly.Degrees([order, TAPS[order], 0]), state=[1] * order)
    return np.asarray(register.step(order + bits), dtype=np.uint8)[order:]


SEQUENCES = {order: sequence(order, 12 * 1024) for order in ORDERS}


def cut(bits, width):
    """Blocks of a sequence of bits, the first bit as the lowest."""
    usable = bits[: len(bits) // width * width].reshape(-1, width)
    return [int.from_bytes(np.packbits(block, bitorder="little").tobytes(), "little") for block in usable]


@pytest.fixture(scope="module")
def checker():
    return CheckerBench(66)


@pytest.mark.parametrize("order", ORDERS)
def test_the_other_package_makes_the_published_vectors(order):
    assert int("".join(map(str, SEQUENCES[order][:64])), 2) == VECTORS[order]


def test_o150_inverts_four_of_the_sequences():
    assert set(ORDERS) >= INVERTED == {15, 23, 29, 31}


@pytest.mark.parametrize(("width", "orders"), ORDERS_OF_WIDTH.items())
def test_every_sequence_is_generated_at_every_width(width, orders):
    bench, steps = GeneratorBench(width, orders), min(200, 9 * 1024 // width)
    for order in orders:
        blocks = bench.run([1] * steps, Switches(order))
        assert blocks == cut(SEQUENCES[order], width)[:steps], order


def test_a_generator_waits_and_begins_anew_with_other_switches():
    bench = GeneratorBench(8)
    plain = cut(SEQUENCES[7], 8)
    assert bench.run([1, None, None, 1, None, 1], Switches(7)) == plain[:3]
    turned = [int(f"{255 ^ block:08b}"[::-1], 2) for block in cut(SEQUENCES[15], 8)]
    assert bench.run([1, 1, Switches(15, invert=1, reverse=1), 1, 1], Switches(7)) == plain[:2] + turned[:2]


@pytest.mark.parametrize(("width", "orders"), ORDERS_OF_WIDTH.items())
def test_a_checker_of_every_width_locks_on_any_phase_and_counts_single_errors_once(width, orders):
    bench = CheckerBench(width, orders)
    for order in orders:
        phase = 13 * order
        bits = SEQUENCES[order][phase:][: max(width * 12, 700)].copy()
        blocks = cut(bits, width)
        clean = bench.run(blocks, Switches(order))
        unchecked = -(-max(orders) // width) - (-LOCK_BITS // width)
        # Two of the three stages of the checker lie before the lock.
        assert (clean.locked.index(1), clean.errors, clean.losses) == (unchecked + 2, 0, 0), order
        assert clean.checked_blocks == len(blocks) - unchecked
        wrong = [len(bits) // width * width - 1 - 3 * n for n in range(5)]
        bits[wrong] ^= 1
        assert bench.run(cut(bits, width), Switches(order)).errors == 5, order


@pytest.mark.parametrize("switches", [Switches(7, invert=1), Switches(23, reverse=1), Switches(31, 1, 1)])
def test_the_switches_of_both_ends_agree(checker, switches):
    blocks = GeneratorBench(66).run([1] * 20, switches)
    assert checker.run(blocks, switches).locked[-1]
    for other in (Switches(switches.order, 1 - switches.invert, switches.reverse), Switches(9), Switches(20)):
        assert not any(checker.run(blocks, other).locked)


@pytest.mark.parametrize("order", ORDERS)
def test_a_dead_line_never_locks(checker, order):
    ones = (1 << 66) - 1
    for bits in (0, ones, int("01" * 33, 2)):
        for invert in (0, 1):
            assert not any(checker.run([bits] * 100, Switches(order, invert)).locked)


def test_noise_never_locks(checker):
    seed = 5
    rng = np.random.default_rng(seed)
    assert not any(checker.run(cut(rng.integers(0, 2, 66 * 3000, dtype=np.uint8), 66), Switches(7)).locked), seed


def test_the_lock_survives_errors_and_each_is_counted(checker):
    seed, bits = 3, np.resize(SEQUENCES[15], 66 * 150).copy()
    first = checker.run(cut(bits, 66), Switches(15)).locked.index(1) * 66
    flips = np.flatnonzero(np.random.default_rng(seed).random(len(bits) - first) < 0.05) + first
    bits[flips] ^= 1
    seen = checker.run(cut(bits, 66), Switches(15))
    assert (seen.errors, seen.losses, seen.locked[-1]) == (len(flips), 0, 1), seed


def test_a_slip_drops_the_lock_and_the_checker_finds_it_again(checker):
    bits = np.delete(SEQUENCES[23], 66 * 20)
    seen = checker.run(cut(bits, 66)[:80], Switches(23))
    assert (seen.losses, seen.locked[-1]) == (1, 1)
    # Half of the bits are wrong until an eighth of a window is.
    assert MAX_WINDOW_ERRORS <= seen.errors < MAX_WINDOW_ERRORS + 66
    lost = seen.locked.index(0, seen.locked.index(1))
    # A block of seed, four of the test, and two stages, one of which the fall of the lock had passed.
    assert seen.locked.index(1, lost) - lost == 7


def test_a_cycle_without_a_block_changes_nothing(checker):
    blocks = cut(SEQUENCES[9], 66)[:30]
    spread = [block for pair in zip(blocks, [None] * 30, strict=True) for block in pair]
    assert checker.run(spread, Switches(9)).checked_blocks == checker.run(blocks, Switches(9)).checked_blocks
