"""Faults of a channel are told by one description, which benches under Amaranth and native ones share.

The words: a lane is *good* or *bad* in turn where its errors are those of Gilbert and Elliott; a *burst* is a run of bits
that are noise; a *slip* moves by one bit where the receiver cuts its blocks; the *skew* is by how many blocks a lane lags; a
lane is *lost* for some blocks, in which it brings darkness or noise; the *ppm* are the receiver's clock against the line's.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from lightfabric.model.spec import FEC_CODES, ChipletSpec
from lightfabric.model.spec.require import require, require_between

MAX_SKEW_BLOCKS = 62
"""What a lane may lag: more than any receiver aligns."""
MAX_PPM = 10_000
MAX_BLOCK_BITS = max(ChipletSpec.BLOCK_BITS_ON_LINE, *(code.block_bits for code in FEC_CODES.values()))
"""The widest block that a line has; of a line of narrower ones its fibre refuses the offsets beyond."""


@dataclass(frozen=True)
class LaneFaults:
    """Describes what befalls one lane: as it is at the beginning, and what happens to it by chance.

    Bits are wrong at the rate ``ber``, while the lane is bad at ``ber_bad``; ``worsens`` and ``recovers`` are the chances
    per bit to become bad and good. In each block ``bursts`` begin, of ``burst_bits`` bits each, half of them wrong; a bit is
    slipped at the rate ``slips``; the skew steps by a block up or down, from 0 to ``max_skew_blocks``, at the rate
    ``skew_steps``; and the lane is lost at the rate ``losses`` for ``loss_blocks`` in the mean.
    """

    ber: float = 0.0
    ber_bad: float = 0.5
    worsens: float = 0.0
    recovers: float = 1.0
    bursts: float = 0.0
    burst_bits: int = 33
    slips: float = 0.0
    skew_steps: float = 0.0
    max_skew_blocks: int = 4
    losses: float = 0.0
    loss_blocks: float = 1000.0
    lost: Literal["dark", "noise"] = "dark"
    offset_bits: int = 0
    skew_blocks: int = 0
    inverted: bool = False

    def __post_init__(self):
        rates = ("ber", "ber_bad", "worsens", "recovers", "bursts", "slips", "skew_steps", "losses")
        require_between(self, 0, 1, *rates)
        require(self, "recovers", self.recovers > 0, "above 0")
        require_between(self, 1, 1 << 20, "burst_bits", "loss_blocks")
        require_between(self, 0, MAX_SKEW_BLOCKS, "skew_blocks", "max_skew_blocks")
        require_between(self, 0, MAX_BLOCK_BITS - 1, "offset_bits")
        require(self, "lost", self.lost in ("dark", "noise"), "dark or noise")

    def numbers(self, source: int) -> list[float]:
        """List the fields as numbers, for benches in other languages, and the lane that was sent on."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [float(value == "noise" if isinstance(value, str) else value) for value in values] + [float(source)]

    @property
    def bad_share(self) -> float:
        """Give the share of bits in which the lane is bad, in the long run."""
        return self.worsens / (self.worsens + self.recovers)

    @property
    def mean_ber(self) -> float:
        """Give the share of wrong bits in the long run, without bursts, slips and losses."""
        return self.ber * (1 - self.bad_share) + self.ber_bad * self.bad_share


def eye_ber(jitter_ui: float, phase_ui: float) -> float:
    """Give the rate of errors of a sample ``phase_ui`` away from the middle of a bit, where edges have Gaussian jitter.

    A sample is wrong if one of the two edges has passed it and the bits differ there, which half of them do.
    """
    if jitter_ui == 0:
        return 0.25 * sum(side * phase_ui > 0.5 for side in (1, -1)) * 2
    scale = jitter_ui * math.sqrt(2)
    return 0.25 * sum(math.erfc((0.5 + side * phase_ui) / scale) for side in (1, -1))


@dataclass(frozen=True)
class Channel:
    """Describes one direction of a line: its lanes, and what all of them have in common.

    Received lane n carries what was sent on lane ``order[n]``, in the order sent if it is empty. Blocks take
    ``delay_cycles``, at least 1; by ``ppm`` and by ``wander_ppm``, the height of a sine of ``wander_cycles``, the
    receiver's clock is faster than the line's, so that the delay grows by a cycle now and then, and shrinks to 1 at least
    where it is slower. ``jitter_ui`` is the deviation of the edges between bits, as a share of a bit: see
    :func:`eye_ber`. ``trace`` is a file of errors, see ``sim.channel.trace``.
    """

    lanes: tuple[LaneFaults, ...]
    order: tuple[int, ...] = ()
    delay_cycles: int = 1
    ppm: float = 0.0
    wander_ppm: float = 0.0
    wander_cycles: int = 10_000
    jitter_ui: float = 0.0
    trace: Path | None = None

    def __post_init__(self):
        count = len(self.lanes)
        require(self, "lanes", count > 0, "one lane or more")
        is_order = not self.order or sorted(self.order) == list(range(count))
        require(self, "order", is_order, f"each of the lanes 0 to {count - 1} once")
        require_between(self, 1, 1 << 24, "delay_cycles", "wander_cycles")
        require_between(self, -MAX_PPM, MAX_PPM, "ppm", "wander_ppm")
        require_between(self, 0, 1, "jitter_ui")

    @staticmethod
    def uniform(lanes: int, **faults) -> "Channel":
        """Make a channel of equal lanes: fields of ``LaneFaults`` or of the channel."""
        own = {name: faults.pop(name) for name in [f.name for f in fields(Channel)] if name in faults}
        return Channel((LaneFaults(**faults),) * lanes, **own)

    def text(self) -> str:
        """Write what befalls the lanes as the native bench reads it; delay, clocks and trace are not of the lanes."""
        order = self.order or range(len(self.lanes))
        lanes = zip(self.lanes, order, strict=True)
        return ",".join(f"{number:.17g}" for lane, source in lanes for number in lane.numbers(source))

    def extra_cycles(self, cycle: int) -> int:
        """Compute by how many cycles the delay has grown by then, for the difference of the clocks."""
        turn = 2 * math.pi / self.wander_cycles
        wander = self.wander_ppm * (1 - math.cos(turn * cycle)) / turn
        return math.floor(1e-6 * (self.ppm * cycle + wander))
