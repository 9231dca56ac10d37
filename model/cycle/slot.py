"""The rhythm of the line: when the beats and slots of a link are sent, and which slots are lost by chance."""

from dataclasses import dataclass

from numba.extending import register_jitable

from lightfabric.model.spec import ChipletSpec

MOST_LOST = 0.5
"""Of all slots: beyond, the link trains more often than it sends."""


@register_jitable
def beat_cycle(beat: int, first_beat_cycle: int, num: int, den: int) -> int:
    """Cycle of a beat on the line that carries ``num`` beats in ``den`` cycles, as evenly as whole cycles allow."""
    return first_beat_cycle + (beat * den + den + num - 1) // num - (den + num - 1) // num


@register_jitable
def first_beat_from(cycle: int, first_beat_cycle: int, num: int, den: int) -> int:
    """The first beat at ``cycle`` or later."""
    beat = max(0, (cycle - first_beat_cycle) * num // den)
    while beat > 0 and beat_cycle(beat - 1, first_beat_cycle, num, den) >= cycle:
        beat -= 1
    while beat_cycle(beat, first_beat_cycle, num, den) < cycle:
        beat += 1
    return beat


@register_jitable
def _mixed(value: int) -> int:
    """32 bits whose every bit depends on every bit of the 32-bit value; one to one."""
    value ^= value >> 16
    value = value * 0x21F0AAAD & 0xFFFFFFFF
    value ^= value >> 15
    value = value * 0x735A2D97 & 0xFFFFFFFF
    return value ^ value >> 15


@register_jitable
def is_lost(first_beat: int, stream: int, losses: int) -> bool:
    """Whether the slot that begins with this beat is one of the ``losses`` of 2^32 slots, by chance.

    Depends on nothing else: whoever knows the stream and the beat knows the answer, in any order.
    """
    return _mixed(_mixed((stream ^ first_beat >> 32) & 0xFFFFFFFF) ^ first_beat & 0xFFFFFFFF) < losses


@dataclass(frozen=True)
class Losses:
    """Slots of a link lost by chance, each with probability ``error_rate`` in steps of 2^-32; others for each seed.

    Called with the first beat of a slot of one of both directions, counted from reset on, it says whether the slot is lost.
    """

    error_rate: float = 0.0
    seed: int = 0
    backwards: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.error_rate <= MOST_LOST:
            raise ValueError(f"Losses.error_rate must be from 0 to {MOST_LOST}, not {self.error_rate}")
        if not 0 <= self.seed < 1 << 31:
            raise ValueError(f"Losses.seed must be from 0 to 2147483647, not {self.seed}")

    @property
    def stream(self) -> int:
        """Which numbers :func:`is_lost` draws."""
        return 2 * self.seed + self.backwards

    @property
    def threshold(self) -> int:
        """Lost slots of 2^32."""
        return round(self.error_rate * (1 << 32))

    def __call__(self, first_beat: int) -> bool:
        """Whether the slot that begins with this beat is lost."""
        return bool(is_lost(first_beat, self.stream, self.threshold))


@dataclass(frozen=True)
class Slots:
    """Slots of one direction of a link, one after the other; the line carries ``beats`` beats in ``cycles`` cycles.

    The line's beats are counted from reset on; ``frame_beat`` is the first one of slot 0, after those of training sets.
    """

    first_beat_cycle: int
    frame_beat: int
    line_cycles: int
    beats_per_flit: int
    beats: int
    cycles: int

    @staticmethod
    def of(spec: ChipletSpec, first_beat_cycle: int = 0, frame_beat: int = 1, line_cycles: int = 0) -> "Slots":
        """Slots of the link of a spec; the cycles are those of ``LinkTiming``."""
        rate = spec.blocks_per_cycle
        return Slots(first_beat_cycle, frame_beat, line_cycles, spec.beats_per_flit, rate.numerator, rate.denominator)

    def decided_cycle(self, slot: int) -> int:
        """Cycle in which it is decided what a slot carries."""
        return self.last_cycle(slot - 1) - self.line_cycles

    def last_cycle(self, slot: int) -> int:
        """Cycle of the last beat of a slot on the line."""
        return beat_cycle(
            self.frame_beat + (slot + 1) * self.beats_per_flit - 1, self.first_beat_cycle, self.beats, self.cycles
        )

    def decided_from(self, cycle: int) -> int:
        """The first slot that is decided in ``cycle`` or later; slot 0 never carries data."""
        beat = first_beat_from(cycle + self.line_cycles, self.first_beat_cycle, self.beats, self.cycles)
        return max(1, -(-(beat + 1 - self.frame_beat) // self.beats_per_flit))

    @property
    def longest_cycles(self) -> int:
        """Cycles of a slot, rounded up."""
        return -(-self.beats_per_flit * self.cycles // self.beats)
