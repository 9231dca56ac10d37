"""Pseudo-random bit sequences are made and checked a block of any width at a time [ITU-T O.150; PRBS 7 is industry custom].

The words of the checker: it *seeds* its own sequence from the bits received, and *tests* it against those that follow;
without an error it is *locked*, and runs freely from then on, so that each error of the line is one error. Too many errors
in a *window* of blocks drop the lock. A sequence of zeros, which any tap agrees with, never locks.
"""

from collections.abc import Sequence

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

TAPS = {7: 6, 9: 5, 11: 9, 15: 14, 20: 3, 23: 18, 29: 27, 31: 28}
"""PRBS n has the polynomial x^n + x^tap + 1: each bit is the sum of those n and tap places before it."""
ORDERS = tuple(TAPS)
INVERTED = frozenset({15, 23, 29, 31})
"""O.150 sends these sequences inverted."""
HISTORY_BITS = max(ORDERS)
LOCK_BITS = 256
"""So many bits without an error lock; chance agrees with as many once in 2^256 trials."""
WINDOW_BITS, MAX_WINDOW_ERRORS = 4096, 512
"""An eighth of a window wrong drops the lock: a line of 5 % errors keeps it, and a bit slip, half wrong, loses it soon."""


def step_rows(order: int, width: int) -> list[int]:
    """Compute the matrix of a step over GF(2): bit i of the next ``width`` is the parity of row i and the history.

    The oldest of the last ``order`` bits is bit 0 of a row.

    >>> [bin(row) for row in step_rows(7, 3)]
    ['0b11', '0b110', '0b1100']
    """
    rows = [1 << place for place in range(order)]
    while len(rows) < order + width:
        rows.append(rows[-order] ^ rows[-TAPS[order]])
    return rows[order:]


def continued(order: int, history, width: int):
    """Computes the bits after ``history``, whose newest bit is the highest. Combinational, one parity per bit."""
    last = history[-order:]
    return Cat(Cat(last[n] for n in range(order) if row >> n & 1).xor() for row in step_rows(order, width))


def popcount(bits):
    """Counts the ones of a value by a balanced tree."""
    return bits if len(bits) == 1 else popcount(bits[: len(bits) // 2]) + popcount(bits[len(bits) // 2 :])


def _next_bits(m, orders: Sequence[int], select, history, width: int):
    """Chooses the bits that follow ``history`` in the sequence of the order selected."""
    bits = Signal(width, name="next_bits")
    with m.Switch(select):
        for n, order in enumerate(orders):
            with m.Case(n):
                m.d.comb += bits.eq(continued(order, history, width))
    return bits


def _turned(block, bits):
    """Inverts and reverses a block as the switches say: for sending and for receiving alike."""
    ordered = Mux(block.reverse, Cat(reversed(bits)), bits)
    return ordered ^ block.invert.replicate(len(bits))


def _switches(orders: Sequence[int]) -> dict[str, wiring.Member]:
    return {"select": In(range(len(orders))), "invert": In(1), "reverse": In(1), "restart": In(1)}


class PrbsGenerator(wiring.Component):
    """Gives the next ``width`` bits of a sequence, which begins after as many ones as its order, a cycle after ``step``.

    Members
    -------
    select : In, place of the sequence in ``orders``; changes only together with ``restart``
    invert : In(1), all bits
    reverse : In(1), the first bit of a block is the highest, not the lowest
    restart : In(1), begin anew
    step : In(1)
    bits : Out(width)
    """

    def __init__(self, width: int, orders: Sequence[int] = ORDERS):
        self.orders = orders
        super().__init__({**_switches(orders), "step": In(1), "bits": Out(width)})

    def elaborate(self, platform):
        m = Module()
        ones = (1 << HISTORY_BITS) - 1
        history = Signal(HISTORY_BITS, init=ones)
        bits = _next_bits(m, self.orders, self.select, history, len(self.bits))
        with m.If(self.step):
            m.d.sync += [history.eq(Cat(history, bits)[-HISTORY_BITS:]), self.bits.eq(_turned(self, bits))]
        # The end of one sequence may be the zeros from which another one never leaves.
        with m.If(self.restart):
            m.d.sync += history.eq(ones)
        return m


class PrbsChecker(wiring.Component):
    """Finds a sequence in the blocks received, whatever its phase, and counts the bits that differ from it.

    Members
    -------
    select, invert, reverse : In, as of the generator
    restart : In(1), drop the lock
    bits : In(width)
    valid : In(1)
    locked : Out(1)
    checked : Out(1), for one cycle: a block was checked with the lock held, 3 cycles after it came
    errors : Out(range(width + 1)), of that block, else 0
    lost : Out(1), for one cycle: too many errors dropped the lock
    """

    def __init__(self, width: int, orders: Sequence[int] = ORDERS):
        self.orders, self.width = orders, width
        inputs = {**_switches(orders), "bits": In(width), "valid": In(1)}
        outputs = {"locked": Out(1), "checked": Out(1), "errors": Out(range(width + 1)), "lost": Out(1)}
        super().__init__({**inputs, **outputs})

    def elaborate(self, platform):
        m = Module()
        width, seed_blocks = self.width, -(-max(self.orders) // self.width)
        history, seeds_left = Signal(HISTORY_BITS), Signal(range(seed_blocks + 1), init=seed_blocks)
        expected = _next_bits(m, self.orders, self.select, history, width)
        received = _turned(self, self.bits)
        seeding, reseed = seeds_left != 0, Signal()
        with m.If(self.valid):
            m.d.sync += history.eq(Cat(history, Mux(seeding, received, expected))[-HISTORY_BITS:])
            m.d.sync += seeds_left.eq(seeds_left - seeding)
        # Three register stages, for speed: the bits that differ, their number, and what follows from it.
        wrong, wrong_valid, count, count_valid, ones = Signal(width), Signal(), Signal.like(self.errors), Signal(), Signal(2)
        m.d.sync += [
            wrong.eq(received ^ expected),
            wrong_valid.eq(self.valid & ~seeding),
            count.eq(popcount(wrong)),
            count_valid.eq(wrong_valid),
            ones.eq(Cat(received.any(), ones)),
        ]
        with m.If(reseed):
            # What is on its way through the stages was checked against the old seed.
            m.d.sync += [seeds_left.eq(seed_blocks), wrong_valid.eq(0), count_valid.eq(0)]
        m.d.sync += [
            self.checked.eq(count_valid & self.locked),
            self.errors.eq(Mux(count_valid & self.locked, count, 0)),
        ]
        self._lock(m, count, count_valid, ones[1], reseed)
        return m

    def _lock(self, m, count, valid, has_one, reseed):
        """Decides when the lock is won and lost, from the errors of a block; ``has_one`` is 1 if it is not all zeros."""
        lock_blocks, window_blocks = (-(-bits // self.width) for bits in (LOCK_BITS, WINDOW_BITS))
        block, one_seen = Signal(range(max(lock_blocks, window_blocks))), Signal()
        errors, total = Signal(range(MAX_WINDOW_ERRORS)), Signal(range(MAX_WINDOW_ERRORS + self.width))
        m.d.comb += total.eq(errors + count)
        m.d.sync += self.lost.eq(0)
        with m.If(valid & self.locked):
            ends = block == window_blocks - 1
            m.d.sync += [block.eq(Mux(ends, 0, block + 1)), errors.eq(Mux(ends, 0, total))]
            with m.If(total >= MAX_WINDOW_ERRORS):
                m.d.comb += reseed.eq(1)
                m.d.sync += self.lost.eq(1)
        with m.Elif(valid):
            m.d.sync += [block.eq(block + 1), one_seen.eq(one_seen | has_one)]
            with m.If(count != 0):
                m.d.comb += reseed.eq(1)
            with m.Elif(block == lock_blocks - 1):
                m.d.sync += [self.locked.eq(1), block.eq(0)]
                m.d.comb += reseed.eq(~one_seen & ~has_one)
        with m.If(self.restart):
            m.d.comb += reseed.eq(1)
        with m.If(reseed):
            m.d.sync += [self.locked.eq(0), block.eq(0), one_seen.eq(0), errors.eq(0)]
