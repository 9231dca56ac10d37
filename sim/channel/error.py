"""Errors of a channel are masks of the bits to flip, made by chance at the rates that a description has."""

from collections.abc import Callable

import numpy as np

from lightfabric.sim.channel.fault import LaneFaults

NEVER = 1 << 62

Errors = Callable[[int, int], int]
"""(number of the beat, its bits) -> mask of the bits to flip."""


def _geometric(rate: float, rng: np.random.Generator) -> int:
    """Draw the number of trials until the first success, itself counted."""
    return int(rng.geometric(rate)) if rate > 0 else NEVER


class BitErrors:
    """Makes independent bit errors at rate ``ber`` over the bits of consecutive beats."""

    def __init__(self, ber: float, rng: np.random.Generator):
        self.ber, self.rng = ber, rng
        self._gap = _geometric(ber, rng) - 1
        self.count = 0

    def __call__(self, beat: int, bits: int) -> int:
        """Return the mask of the bits to flip in the next beat of ``bits`` bits."""
        flips = 0
        while self._gap < bits:
            flips |= 1 << self._gap
            self._gap += _geometric(self.ber, self.rng)
            self.count += 1
        self._gap -= bits
        return flips


class GilbertElliott:
    """Makes errors at one of two rates, while the lane is good and while it is bad [Elliott, Bell Syst. Tech. J. 1963]."""

    def __init__(self, faults: LaneFaults, rng: np.random.Generator):
        self._rng = rng
        self._errors = BitErrors(faults.ber, rng), BitErrors(faults.ber_bad, rng)
        self._leaves = faults.worsens, faults.recovers
        self._bad, self._left = 0, _geometric(faults.worsens, rng)

    def __call__(self, beat: int, bits: int) -> int:
        """Return the mask of the bits to flip in the next ``bits`` bits."""
        flips = at = 0
        while at < bits:
            span = min(self._left, bits - at)
            flips |= self._errors[self._bad](beat, span) << at
            at, self._left = at + span, self._left - span
            if self._left == 0:
                self._bad ^= 1
                self._left = _geometric(self._leaves[self._bad], self._rng)
        return flips


class Bursts:
    """Makes bursts of noise, each of which begins anywhere in a block."""

    def __init__(self, rate: float, burst_bits: int, rng: np.random.Generator):
        self._rate, self._burst_bits, self._rng = rate, burst_bits, rng
        self._flips, self._blocks = 0, _geometric(rate, rng)
        self.count = 0

    def __call__(self, beat: int, bits: int) -> int:
        """Return the mask of the bits to flip in the next block of ``bits`` bits."""
        self._blocks -= 1
        if self._blocks == 0:
            noise = int.from_bytes(self._rng.bytes(self._burst_bits // 8 + 1), "little") & (1 << self._burst_bits) - 1
            self._flips |= noise << int(self._rng.integers(bits))
            self._blocks = _geometric(self._rate, self._rng)
            self.count += 1
        flips = self._flips & (1 << bits) - 1
        self._flips >>= bits
        return flips
