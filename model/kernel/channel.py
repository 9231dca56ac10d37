"""Channels carry flits and signals between blocks: what compiled blocks do with them, and what ports are bound to.

Everything a block does in cycle t is seen by others in t + 1 or later. See docs/kernel.md. The words:

* *place*: where a flit lies in ``channels.flit``, from its first push to its last pop
* *slot*: an entry of a Fifo's ring: a place and a cycle
* *tail*, *head*, *returned*: flits ever pushed, popped, and popped with the credit back at the producer
* *visible*: from that cycle on a flit can be popped; *credit*: the room of a popped flit, on its way to the producer
* *starved*: the producer found no room and no credit under way, so the next pop is to wake it
* *edge*: a cycle in which a block with a clock of its own may be stepped
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.kernel.compiled import Records, compiled, record

NEVER = 1 << 62
"""A cycle that does not come: asleep until a channel wakes the block."""
MAX_FIFO = 1 << 20
"""A Fifo has at most so many flits of depth, and so many cycles of latency."""
NO_FLIT = -1
"""What ``peek`` answers when nothing can be popped."""
FLIT = record(payload="i8", injected_cycle="i8", packet="i4", source="i4", destination="i4", virtual_channel="i2", last="?")
"""One entry of a Fifo, 32 bytes. ``payload`` belongs to the client: data, or the index of something."""

FIFO = record(
    tail="i8", returned="i8", head="i8", first_slot="i4", mask="i4", depth="i4", latency_cycles="i4", credit_cycles="i4",
    producer="i4", consumer="i4", flag="i4", starved="?", is_clocked="?", flit_bits="i1",
)  # fmt: skip
"""A Fifo: the producer's counters, the consumer's, the constants. ``flag`` is the consumer's for its flits in a row of the
calendar; ``is_clocked`` says that the consumer is not stepped in every cycle; ``flit_bits`` is the same for all."""
SIGNAL = record(value="i8", written="i8", written_cycle="i8", first_reader="i4", readers="i4")
"""A Signal; its readers are ``reader[first_reader:first_reader + readers]``."""
TIMER = record(alarm_cycle="i8", period_cycles="i4", phase_cycles="i4", flag="i4")
"""The clock of a block, its alarm beyond the calendar's wheel, and its flag in a row of that."""


class Channels(NamedTuple):
    """Holds all channels and the calendar of one system as flat arrays, which compiled code works on.

    ``flit`` is for blocks, at the places that ``peek``, ``pop`` and ``push`` return; the rest is for this module and the
    kernel. Per Fifo, the producer writes tail and returned, the consumer head; counters only grow and ``counter & mask`` is
    the slot: a cycle above ``flit_bits`` bits for a flit, that in which the flit is visible or, once it is popped, in which
    the slot is free again. Flits stay where they are from their first push to their last pop; places not in use are
    ``unused[:unused_count[0]]``, the last used on top, so that those in use are few and near.

    ``wheel[cycle & mask]`` is the row of a cycle less than one turn away: a flag, a bit, for each block to be stepped, and
    for each Fifo input of a block that ``sees_arrivals``; ``wheel_words`` are the same bits. What is further away is in
    ``timer[block].alarm_cycle``, the least of them in ``far_cycle[0]``.
    """

    fifo: Records
    slot: NDArray[np.int64]
    flit: Records
    unused: Records
    unused_count: NDArray[np.int64]
    signal: Records
    reader: NDArray[np.int32]
    timer: Records
    wheel: NDArray[np.uint8]
    wheel_words: NDArray[np.int64]
    row_used: NDArray[np.uint8]
    far_cycle: NDArray[np.int64]


def end_cycle(channels: Channels) -> int:
    """Find the first cycle in which what a block pushes or pops may no longer fit a slot."""
    flit_bits = int(channels.fifo["flit_bits"].max(initial=0))
    return (1 << 62 - flit_bits) - MAX_FIFO


@compiled
def _mark(channels: Channels, cycle: int, flag: int) -> None:
    row = cycle & (channels.wheel.shape[0] - 1)
    channels.wheel[row, flag >> 3] |= np.uint8(1 << (flag & 7))
    channels.row_used[row] = 1


@compiled
def _edge_cycle(timer: Records, cycle: int) -> int:
    """Find the first clock edge of a block from ``cycle`` on."""
    if timer.period_cycles > 1:
        return cycle + (timer.phase_cycles - cycle) % timer.period_cycles
    return cycle


@compiled
def _schedule(now: int, channels: Channels, block: int, cycle: int) -> None:
    timer = channels.timer[block]
    edge_cycle = _edge_cycle(timer, cycle)
    if edge_cycle - now < channels.wheel.shape[0]:
        _mark(channels, edge_cycle, timer.flag)
    else:
        timer.alarm_cycle = min(timer.alarm_cycle, edge_cycle)
        channels.far_cycle[0] = min(channels.far_cycle[0], edge_cycle)


@compiled
def _announce(channels: Channels, this: Records, cycle: int) -> None:
    """Tell the consumer of a Fifo that the flit at its head can be popped from ``cycle`` on."""
    if this.is_clocked:
        cycle = _edge_cycle(channels.timer[this.consumer], cycle)
    _mark(channels, cycle, this.flag)


@compiled
def arrivals(now: int, channels: Channels, first_word: int) -> int:
    """Read which inputs of a block that ``sees_arrivals`` have a new flit: bit n % 64 of word ``first_word + n // 64``.

    ``first_word`` is ``me.first_word`` and on, n counts the Fifo inputs. A bit is 1 in the step in which a flit comes to be
    at the head of the Fifo and can be popped. Bits beyond the last input
    have no meaning.
    """
    return channels.wheel_words[now & (channels.wheel.shape[0] - 1), first_word]


@compiled
def wake_at(now: int, channels: Channels, block: int, cycle: int) -> None:
    """Step ``block`` again at its first clock edge from ``cycle`` on, from ``now + 1`` at the earliest.

    A block asks anew in each step: a step for any other reason may cancel the request. NEVER asks for nothing.
    """
    if cycle < NEVER:
        _schedule(now, channels, block, max(cycle, now + 1))


@compiled
def _slot(this: Records, count: int) -> int:
    return this.first_slot + (count & this.mask)


@compiled
def slot_cycle(channels: Channels, this: Records, count: int) -> int:
    """Read the cycle in the slot of the ``count``-th flit of a Fifo: visible from, or credit back."""
    return channels.slot[_slot(this, count)] >> this.flit_bits


@compiled
def _slot_flit(channels: Channels, this: Records, count: int) -> int:
    return channels.slot[_slot(this, count)] & (np.int64(1) << np.int64(this.flit_bits)) - 1


@compiled
def _fill_slot(channels: Channels, this: Records, count: int, cycle: int, flit: int) -> None:
    channels.slot[_slot(this, count)] = np.int64(cycle) << np.int64(this.flit_bits) | flit


@compiled
def peek(now: int, channels: Channels, fifo: int) -> int:
    """Find the place of the flit that can be popped now, or NO_FLIT."""
    this = channels.fifo[fifo]
    if this.head < this.tail and slot_cycle(channels, this, this.head) <= now:
        return _slot_flit(channels, this, this.head)
    return NO_FLIT


@compiled
def head_slot(channels: Channels, fifo: int) -> int:
    """Find where in ``channels.slot`` the next flit to be popped is, for ``touch``."""
    this = channels.fifo[fifo]
    return _slot(this, this.head)


@compiled
def tail_slot(channels: Channels, fifo: int) -> int:
    """Find where in ``channels.slot`` the next flit will be pushed, for ``touch``."""
    this = channels.fifo[fifo]
    return _slot(this, this.tail)


@compiled
def head_flit(channels: Channels, fifo: int) -> int:
    """Find the place of the next flit to be popped, visible or not; of any flit if there is none."""
    this = channels.fifo[fifo]
    return _slot_flit(channels, this, this.head)


@compiled
def holds_packet(now: int, channels: Channels, fifo: int) -> bool:
    """Tell whether the last flit of the packet at the head can be seen, too."""
    this = channels.fifo[fifo]
    for place in range(this.head, this.tail):
        if slot_cycle(channels, this, place) > now:
            return False
        if channels.flit[_slot_flit(channels, this, place)].last:
            return True
    return False


@compiled
def _take(now: int, channels: Channels, fifo: int) -> int:
    """Take the flit that ``peek`` found out of a Fifo, not out of its place."""
    this = channels.fifo[fifo]
    flit = _slot_flit(channels, this, this.head)
    # The slot serves twice: until the credit is back, it tells the producer the cycle of that.
    _fill_slot(channels, this, this.head, now + this.credit_cycles, 0)
    this.head += 1
    if this.starved:
        this.starved = False
        _schedule(now, channels, this.producer, now + this.credit_cycles)
    if this.head < this.tail and slot_cycle(channels, this, this.head) <= now:
        _announce(channels, this, now + 1)  # one that is not yet visible was announced when it was pushed
    return flit


@compiled
def pop(now: int, channels: Channels, fifo: int) -> int:
    """Take the flit that ``peek`` found and return its place, which stays readable until the block pushes a flit.

    Its space is the producer's again in ``now + credit_cycles``. The consumer is stepped again when there is a next flit.
    """
    flit = _take(now, channels, fifo)
    channels.unused[channels.unused_count[0]] = flit
    channels.unused_count[0] += 1
    return flit


@compiled
def has_space(now: int, channels: Channels, fifo: int) -> bool:
    """Tell whether the producer can push now. One that cannot is stepped again when the next credit returns."""
    # Credits are counted only when those counted before do not suffice: that spares reading slots in most cycles.
    this = channels.fifo[fifo]
    return this.tail - this.returned < this.depth or free_space(now, channels, fifo) > 0


@compiled
def free_space(now: int, channels: Channels, fifo: int) -> int:
    """Count the flits that the producer can push now. One that finds 0 is stepped when the next credit returns."""
    this = channels.fifo[fifo]
    while this.returned < this.head and slot_cycle(channels, this, this.returned) <= now:
        this.returned += 1
    free_flits = this.depth - (this.tail - this.returned)
    if free_flits == 0:
        # The consumer may run before or after this in the same cycle: its credit is either under way or still to come.
        if this.returned < this.head:
            _schedule(now, channels, this.producer, slot_cycle(channels, this, this.returned))
        else:
            this.starved = True
    return free_flits


@compiled
def _put(channels: Channels, fifo: int, visible_cycle: int, flit: int) -> None:
    this = channels.fifo[fifo]
    _fill_slot(channels, this, this.tail, visible_cycle, flit)
    this.tail += 1
    _announce(channels, this, visible_cycle)


@compiled
def push_later(now: int, channels: Channels, fifo: int, visible_cycle: int) -> int:  # noqa: ARG001
    """Append a flit that the consumer sees in ``visible_cycle``: for producers whose latency is not a constant.

    ``visible_cycle`` is from ``now + 1`` to ``now + latency_cycles`` and not before that of the flit ahead. The flit takes
    its space now. Otherwise as :func:`push`.
    """
    # There are as many places as slots, so an empty slot means an unused place: no check is needed.
    channels.unused_count[0] -= 1
    flit = channels.unused[channels.unused_count[0]]
    _put(channels, fifo, visible_cycle, flit)
    return flit


@compiled
def push(now: int, channels: Channels, fifo: int) -> int:
    """Append a flit where ``free_space`` found room; return its place in ``channels.flit``, for the caller to fill.

    The consumer sees the flit, and is stepped, in ``now + latency_cycles``. The place holds an old flit: write all of it.
    """
    return push_later(now, channels, fifo, now + channels.fifo[fifo].latency_cycles)


@compiled
def forward(now: int, channels: Channels, taken: int, given: int) -> int:
    """Pop from one Fifo, push the same flit to another, return its place, which is the same."""
    # The flit itself is not moved: that halves the memory traffic of switches and routers.
    flit = _take(now, channels, taken)
    _put(channels, given, now + channels.fifo[given].latency_cycles, flit)
    return flit


@compiled
def read(now: int, channels: Channels, signal: int) -> int:
    """Read a Signal: the last value written before this cycle."""
    this = channels.signal[signal]
    if this.written_cycle < now:
        return this.written
    return this.value


@compiled
def write(now: int, channels: Channels, signal: int, value: int) -> None:
    """Give a Signal a value from ``now + 1`` on; the last write of a cycle holds. A change wakes the readers."""
    # The first write of a cycle keeps what readers of this cycle still see, whether they are stepped before or after.
    this = channels.signal[signal]
    if this.written_cycle < now:
        this.value = this.written
        this.written_cycle = now
    this.written = value
    if value != this.value:
        for reader in range(this.first_reader, this.first_reader + this.readers):
            _schedule(now, channels, channels.reader[reader], now + 1)


@dataclass(eq=False, slots=True)
class Channel:
    """Joins the ports bound to it. ``path`` is its name in the hierarchy, or the names of its ends."""

    path: str = field(default="", init=False)
    index: int = field(default=-1, init=False)


@dataclass(eq=False, slots=True)
class Fifo(Channel):
    """Queues flits from one producer to one consumer, with credits.

    A push in cycle t can be popped from ``t + latency_cycles`` on; a pop in cycle t gives its space back to the producer in
    ``t + credit_cycles``. Flits in flight occupy space, so the rate is at most
    ``depth / (latency_cycles + credit_cycles)`` flits per cycle.
    """

    depth: int
    latency_cycles: int = 1
    credit_cycles: int = 1

    def __post_init__(self) -> None:
        for name in ("depth", "latency_cycles", "credit_cycles"):
            if not 1 <= getattr(self, name) <= MAX_FIFO:
                raise ValueError(f"Fifo.{name} must be from 1 to {MAX_FIFO}, not {getattr(self, name)}")


@dataclass(eq=False, slots=True)
class Signal(Channel):
    """Carries a 64-bit value from at most one writer to any number of readers: written in t, read from t + 1 on."""

    initial: int = 0
