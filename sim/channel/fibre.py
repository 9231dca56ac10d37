"""The lanes of a fibre bring blocks to a receiver as a description of the channel says, or as a script makes them."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lightfabric.model.spec.require import require
from lightfabric.sim.channel.error import BitErrors, Bursts, GilbertElliott
from lightfabric.sim.channel.fault import MAX_SKEW_BLOCKS, Channel, LaneFaults, eye_ber
from lightfabric.sim.channel.trace import Trace

WHOLE = LaneFaults()
# Blocks that are on their way through the SerDes when it is told to slip, and still show the old offset.
SLIP_BLOCKS = 3

Fault = Callable[[np.random.Generator, int], int]
"""(random numbers, block that would come) -> bits received, of which those of a block are taken."""


def light(rng: np.random.Generator, sent: int) -> int:
    """Return what a lane brings while it is whole."""
    return sent


def noise(rng: np.random.Generator, sent: int) -> int:
    """Return random bits in place of the block."""
    return int.from_bytes(rng.bytes(9), "little")


def constant(bits: int) -> Fault:
    """Make a fault that brings the same bits in each block."""
    return lambda rng, sent: bits


def headers(rng: np.random.Generator, sent: int) -> int:
    """Return random bits with valid sync headers, as of a transmitter of another protocol."""
    return noise(rng, sent) & ~3 | int(rng.integers(1, 3))


@dataclass
class Lane:
    """Describes how a lane is now, which a script may change: bit offset of the SerDes, lag in blocks, fault, polarity.

    ``faults`` is what happens to it by chance.
    """

    offset: int = 0
    skew_blocks: int = 0
    fault: Fault = light
    inverted: bool = False
    faults: LaneFaults = WHOLE

    @staticmethod
    def of(faults: LaneFaults) -> "Lane":
        """Make a lane as it is at the beginning of a run."""
        return Lane(faults.offset_bits, faults.skew_blocks, inverted=faults.inverted, faults=faults)


class _LaneRun:
    """Holds what a lane remembers in a run: the last blocks, and its errors and losses by chance."""

    def __init__(self, lane: Lane, block_bits: int, rng: np.random.Generator):
        faults = lane.faults
        self.lane, self._faults, self._bits, self._rng = lane, faults, block_bits, rng
        self._errors = [GilbertElliott(faults, rng), Bursts(faults.bursts, faults.burst_bits, rng), BitErrors(0, rng)]
        self._history, self._lost_blocks = deque[int](maxlen=MAX_SKEW_BLOCKS + 2), 0
        self.bit_errors = self.slips = self.losses = 0

    def receive(self, block: int, sent: int, flips: int) -> int | None:
        """Take a block that was sent, with errors of a trace, and return the one that comes; None before the first one."""
        for errors in self._errors:
            flips ^= errors(block, self._bits)
        self.bit_errors += flips.bit_count()
        self._change()
        came = sent ^ flips ^ (self.lane.inverted * ((1 << self._bits) - 1))
        self._history.append(self._lossy(self.lane.fault(self._rng, came)) & (1 << self._bits) - 1)
        # One block more than the skew: an offset cuts a block out of two neighbours, the newer of which must have come.
        late = 1 + self.lane.skew_blocks
        if late >= len(self._history):
            return None
        two = self._history[-1 - late] | self._history[-late] << self._bits
        return two >> self.lane.offset & (1 << self._bits) - 1

    def sample(self, ber: float) -> None:
        """Make errors at this rate from now on, for where a bit is sampled."""
        self._errors[-1] = BitErrors(ber, self._rng)

    def slip(self) -> None:
        """Cut the blocks one bit later from now on."""
        self.lane.offset = (self.lane.offset + 1) % self._bits

    def _change(self) -> None:
        """Let happen what happens by chance between two blocks."""
        faults = self._faults
        if self._happens(faults.slips):
            self.slips += 1
            self.slip()
        if self._happens(faults.skew_steps):
            skew = self.lane.skew_blocks + int(self._rng.choice((-1, 1)))
            self.lane.skew_blocks = min(max(skew, 0), faults.max_skew_blocks)
        if self._lost_blocks:
            self._lost_blocks -= 1
        elif self._happens(faults.losses):
            self.losses += 1
            self._lost_blocks = int(self._rng.geometric(1 / faults.loss_blocks))

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self._rng.random() < rate

    def _lossy(self, block: int) -> int:
        if not self._lost_blocks:
            return block
        return noise(self._rng, block) if self._faults.lost == "noise" else 0


class Fibre:
    """Carries the beats of one direction; ``lanes`` and ``silent`` may change on the way.

    Nothing arrives while it is silent. The same description and seed make the same run.
    """

    def __init__(self, channel: Channel, block_bits: int, seed: int | Sequence[int], lanes: Sequence[Lane] = ()):
        self.channel, self.silent, self._bits = channel, False, block_bits
        self.lanes = list(lanes) or [Lane.of(faults) for faults in channel.lanes]
        for faults in channel.lanes:
            require(faults, "offset_bits", faults.offset_bits < block_bits, f"below the {block_bits} bits of a block")
        generators = np.random.default_rng(seed).spawn(len(self.lanes))
        self._runs = [_LaneRun(lane, block_bits, rng) for lane, rng in zip(self.lanes, generators, strict=True)]
        self._order = channel.order or range(len(self.lanes))
        self._trace = Trace(channel.trace, len(self.lanes), block_bits) if channel.trace else None
        self._in_flight = deque[tuple[int, int]]()
        self._slips = deque([0] * SLIP_BLOCKS)
        self._cycle = self._block = self._due = 0
        self.sample(0.0)

    def sample(self, phase_ui: float) -> None:
        """Sample all lanes so far from the middle of a bit from now on."""
        for run in self._runs:
            run.sample(eye_ber(self.channel.jitter_ui, phase_ui))

    @property
    def bit_errors(self) -> int:
        """Count the bits that were flipped on all lanes, lost ones aside."""
        return sum(run.bit_errors for run in self._runs)

    def step(self, sent: int | None, slip: int) -> int | None:
        """Take the beat that leaves in this cycle, or None, and the lanes to slip; return the one that arrives, or None."""
        if sent is not None:
            due = self._cycle + self.channel.delay_cycles - 1 + self.channel.extra_cycles(self._cycle)
            # Beats stay in order, one a cycle at most, and none arrives before it was sent.
            self._due = max(due, self._due + 1 if self._in_flight else 0, self._cycle)
            self._in_flight.append((self._due, sent))
        # Slips of the cycles without a beat count for the next one: the SerDes acts between blocks.
        self._slips[-1] |= slip
        arrives = bool(self._in_flight) and self._in_flight[0][0] <= self._cycle
        self._cycle += 1
        return self._received(self._in_flight.popleft()[1]) if arrives else None

    def _received(self, sent: int) -> int | None:
        if self.silent:
            return None
        due = self._slips.popleft()
        self._slips.append(0)
        flips = self._trace.flips(self._block) if self._trace else {}
        received, whole = 0, True
        for n, (run, source) in enumerate(zip(self._runs, self._order, strict=True)):
            if due >> n & 1:
                run.slip()
            block = sent >> self._bits * source & (1 << self._bits) - 1
            came = run.receive(self._block, block, flips.get(n, 0))
            whole &= came is not None
            received |= (came or 0) << self._bits * n
        self._block += 1
        return received if whole else None
