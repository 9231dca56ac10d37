"""Channels of the cycle kernel: what compiled blocks do with them, and the objects that ports are bound to.

Everything a block does in cycle t is seen by others in t + 1 or later. See docs/kernel.md.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.bits import one_bit
from lightfabric.model.compiled import Records, compiled, record

NEVER = 1 << 62
"""A cycle that does not come: asleep until a channel wakes the block."""
NO_FLIT = -1
"""What ``peek`` answers when nothing can be popped."""
FLIT = record(payload="i8", injected_cycle="i8", packet="i4", source="i4", destination="i4", virtual_channel="i2", last="?")
"""One entry of a Fifo, 32 bytes. ``payload`` belongs to the client: data, or the index of something."""

FIFO = record(
    tail="i8", returned="i8", head="i8", first_slot="i8", mask="i4", depth="i4",
    latency_cycles="i4", credit_cycles="i4", producer="i4", consumer="i4", starved="?", flag="i4",
)  # fmt: skip
"""A Fifo: the producer's counters, the consumer's, the constants."""
SIGNAL = record(value="i8", written="i8", written_cycle="i8", first_reader="i4", readers="i4")
"""A Signal; its readers are ``reader[first_reader:first_reader + readers]``."""
TIMER = record(alarm_cycle="i8", period_cycles="i4", phase_cycles="i4")
"""The clock of a block, and its alarm beyond the calendar's wheel."""


class Channels(NamedTuple):
    """All channels and the calendar of one system, as flat arrays: what compiled code works on.

    ``flit`` is for blocks, at the slots that ``peek``, ``pop`` and ``push`` return; the rest is for this module and the
    kernel. Per Fifo, the producer writes tail and returned, the consumer head; counters only grow and ``counter & mask`` is
    the slot. ``wheel[cycle & mask, block]`` is set for each block to be stepped in that cycle, for cycles less than one turn
    away; what is further away is in ``timer[block].alarm_cycle``, the least of them in ``far_cycle[0]``.
    ``arrived[me.arrived_word + n // 64]`` is for blocks with many inputs: a push sets bit n % 64 for their n-th Fifo input,
    at once, though its flit is visible later; the block clears it.
    """

    fifo: Records
    flit: Records
    visible_cycle: Records
    credit_cycle: Records
    signal: Records
    reader: NDArray[np.int32]
    timer: Records
    wheel: NDArray[np.uint8]
    wheel_words: NDArray[np.int64]
    row_used: NDArray[np.uint8]
    far_cycle: NDArray[np.int64]
    arrived: NDArray[np.int64]


@compiled
def _schedule(now: int, channels: Channels, block: int, cycle: int) -> None:
    timer = channels.timer[block]
    if timer.period_cycles > 1:
        cycle += (timer.phase_cycles - cycle) % timer.period_cycles
    turn_cycles = channels.wheel.shape[0]
    if cycle - now < turn_cycles:
        row = cycle & (turn_cycles - 1)
        channels.wheel[row, block] = 1
        channels.row_used[row] = 1
    else:
        timer.alarm_cycle = min(timer.alarm_cycle, cycle)
        channels.far_cycle[0] = min(channels.far_cycle[0], cycle)


@compiled
def wake_at(now: int, channels: Channels, block: int, cycle: int) -> None:
    """Step ``block`` again at its first clock edge from ``cycle`` on, from ``now + 1`` at the earliest.

    A block asks anew in each step: a step for any other reason may cancel the request. NEVER asks for nothing.
    """
    if cycle < NEVER:
        _schedule(now, channels, block, max(cycle, now + 1))


@compiled
def peek(now: int, channels: Channels, fifo: int) -> int:
    """Slot of the flit that can be popped now, or NO_FLIT."""
    this = channels.fifo[fifo]
    slot = this.first_slot + (this.head & this.mask)
    if this.head < this.tail and channels.visible_cycle[slot] <= now:
        return slot
    return NO_FLIT


@compiled
def is_empty(channels: Channels, fifo: int) -> bool:
    """Whether no flit is in a Fifo, be it one that the consumer cannot see yet."""
    this = channels.fifo[fifo]
    return this.head == this.tail


@compiled
def pop(now: int, channels: Channels, fifo: int) -> int:
    """Take the flit that ``peek`` found and return its slot, which stays readable until the end of the cycle.

    Its space is the producer's again in ``now + credit_cycles``. The consumer is stepped again when there is a next flit.
    """
    this = channels.fifo[fifo]
    slot = this.first_slot + (this.head & this.mask)
    credit_cycle = now + this.credit_cycles
    channels.credit_cycle[slot] = credit_cycle
    this.head += 1
    if this.starved:
        this.starved = False
        _schedule(now, channels, this.producer, credit_cycle)
    if peek(now, channels, fifo) != NO_FLIT:  # a flit not yet visible has woken the consumer when it was pushed
        _schedule(now, channels, this.consumer, now + 1)
    return slot


@compiled
def free_space(now: int, channels: Channels, fifo: int) -> int:
    """Flits that the producer can push now. One that finds 0 is stepped again when the next credit returns."""
    this = channels.fifo[fifo]
    while this.returned < this.head and channels.credit_cycle[this.first_slot + (this.returned & this.mask)] <= now:
        this.returned += 1
    free_flits = this.depth - (this.tail - this.returned)
    if free_flits == 0:
        # The consumer may run before or after this in the same cycle: its credit is either under way or still to come.
        if this.returned < this.head:
            slot = this.first_slot + (this.returned & this.mask)
            _schedule(now, channels, this.producer, channels.credit_cycle[slot])
        else:
            this.starved = True
    return free_flits


@compiled
def push_later(now: int, channels: Channels, fifo: int, visible_cycle: int) -> int:
    """Append a flit that the consumer sees in ``visible_cycle``: for producers whose latency is not a constant.

    ``visible_cycle`` is from ``now + 1`` to ``now + latency_cycles`` and not before that of the flit ahead. The flit takes
    its space now. Otherwise as :func:`push`.
    """
    this = channels.fifo[fifo]
    slot = this.first_slot + (this.tail & this.mask)
    channels.visible_cycle[slot] = visible_cycle
    this.tail += 1
    channels.arrived[this.flag >> 6] |= one_bit(this.flag & 63)
    _schedule(now, channels, this.consumer, visible_cycle)
    return slot


@compiled
def push(now: int, channels: Channels, fifo: int) -> int:
    """Append a flit where ``free_space`` found room; return its slot in ``channels.flit``, for the caller to fill.

    The consumer sees the flit, and is stepped, in ``now + latency_cycles``. The slot holds an old flit: write all of it.
    """
    return push_later(now, channels, fifo, now + channels.fifo[fifo].latency_cycles)


@compiled
def forward(now: int, channels: Channels, taken: int, given: int) -> int:
    """Pop from one Fifo, push the same flit to another, return its new slot."""
    slot = push(now, channels, given)
    channels.flit[slot] = channels.flit[pop(now, channels, taken)]
    return slot


@compiled
def read(now: int, channels: Channels, signal: int) -> int:
    """Value of a Signal: the last one written before this cycle."""
    this = channels.signal[signal]
    if this.written_cycle < now:
        return this.written
    return this.value


@compiled
def write(now: int, channels: Channels, signal: int, value: int) -> None:
    """Give a Signal a value from ``now + 1`` on; the last write of a cycle holds. A change wakes the readers."""
    this = channels.signal[signal]
    if this.written_cycle < now:
        this.value = this.written
        this.written_cycle = now
    this.written = value
    if value != this.value:
        for reader in range(this.first_reader, this.first_reader + this.readers):
            _schedule(now, channels, channels.reader[reader], now + 1)


class Channel:
    """What ports are bound to. ``path`` is its name in the hierarchy, or the names of its ends."""

    path: str = ""
    index: int = -1


@dataclass(eq=False)
class Fifo(Channel):
    """A queue of flits with one producer and one consumer, and credits.

    A push in cycle t can be popped from ``t + latency_cycles`` on; a pop in cycle t gives its space back to the producer in
    ``t + credit_cycles``. Flits in flight occupy space, so the rate is at most
    ``depth / (latency_cycles + credit_cycles)`` flits per cycle.
    """

    depth: int
    latency_cycles: int = 1
    credit_cycles: int = 1

    def __post_init__(self) -> None:
        for name in ("depth", "latency_cycles", "credit_cycles"):
            if not 1 <= getattr(self, name) <= 1 << 20:
                raise ValueError(f"Fifo.{name} must be from 1 to 1048576, not {getattr(self, name)}")


@dataclass(eq=False)
class Signal(Channel):
    """A 64-bit value with at most one writer and any number of readers: written in cycle t, read from t + 1 on."""

    initial: int = 0
