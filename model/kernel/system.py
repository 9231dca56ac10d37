"""A system runs blocks with typed ports and the channels between them, in time that jumps from event to event.

Blocks declare ports and are bound to channels; ``System`` checks the bindings and lays out all instances of a kind, and
all channels, as flat arrays. A block's behaviour is one compiled function, called once per cycle for the instances that
are awake. Everything a block does in cycle t is seen by others in t + 1 or later, so the order in which blocks run inside
a cycle cannot change a result. With ``NUMBA_DISABLE_JIT=1`` the same code runs under a debugger. See docs/kernel.md.

The words:

* *calendar*: which blocks are to be stepped when: the *wheel* for cycles less than one *turn* ahead, *alarms* for the rest
* *row*: a cycle's place on the wheel, a *flag* for each block, or one for each of its inputs
* *far cycle*: the least of all alarms; *agenda*: what Python is called for, and when
* *kind*: all instances of one class of blocks, which one call of its step function steps
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.kernel.block import Block, Module
from lightfabric.model.kernel.channel import NEVER, Channel, Channels, Fifo, Signal, end_cycle, read, wake_at, write
from lightfabric.model.kernel.compiled import Records, compiled, record
from lightfabric.model.kernel.dispatch import Calls, call, entry_point
from lightfabric.model.kernel.elaboration import binding_errors, find_ends, lay_out, lay_out_kind, lay_out_rows, number

CYCLES_AT_ONCE = 1024
"""After so many cycles of compiled code Python gets to hear an interrupt."""
_TOTALS = record(now="i8", steps="i8", active_cycles="i8", jumped_cycles="i8")


@compiled
def _ring_alarms(now: int, channels: Channels) -> None:
    # Alarms ring seldom: to look through all blocks then is cheaper than to keep the alarms in order.
    row = now & (channels.wheel.shape[0] - 1)
    next_cycle = NEVER
    for block in range(channels.timer.shape[0]):
        timer = channels.timer[block]
        if timer.alarm_cycle <= now:
            timer.alarm_cycle = NEVER
            channels.wheel[row, timer.flag >> 3] |= np.uint8(1 << (timer.flag & 7))
        next_cycle = min(next_cycle, timer.alarm_cycle)
    channels.far_cycle[0] = next_cycle


@compiled
def _next_cycle(now: int, channels: Channels) -> int:
    far_cycle = channels.far_cycle[0]
    turn_cycles = channels.wheel.shape[0]
    for cycle in range(now, min(now + turn_cycles, far_cycle)):
        if channels.row_used[cycle & (turn_cycles - 1)]:
            return cycle
    return far_cycle


@compiled
def _list_awake(row: int, kind: Records, channels: Channels, awake: NDArray[np.int32]) -> int:
    """List the instances of a kind whose flags in a row of the wheel are not all 0, and count them."""
    found = 0
    if kind.words == 0:  # a byte each
        for word in range(kind.first_word, kind.first_word + (kind.instances + 7 >> 3)):
            if channels.wheel_words[row, word] == 0:
                continue
            for byte in range(word << 3, (word + 1) << 3):
                if channels.wheel[row, byte]:
                    awake[kind.start + found] = byte - (kind.first_word << 3)
                    found += 1
        return found
    # One flag anywhere among its inputs is enough; the step reads in the same words which input it was.
    for instance in range(kind.instances):
        for word in range(kind.words):
            if channels.wheel_words[row, kind.first_word + instance * kind.words + word] != 0:
                awake[kind.start + found] = instance
                found += 1
                break
    return found


@compiled
def _advance(
    now: int,
    limit_cycle: int,
    channels: Channels,
    kinds: Records,
    awake: NDArray[np.int32],
    counts: NDArray[np.int64],
    listed: NDArray[np.int64],
) -> int:
    """Find the next cycle from ``now`` on with something to do; below ``limit_cycle``, list the awake instances by kind.

    Their flags stay for them to read until the next call; ``listed[0]`` is their row, -1 for none.
    """
    # Steps of the last cycle wrote to other rows only, since the least delay is 1 and the longest is less than a turn.
    if listed[0] >= 0:
        channels.row_used[listed[0]] = 0
        channels.wheel_words[listed[0]] = 0
        listed[0] = -1
    cycle = _next_cycle(now, channels)
    if cycle >= limit_cycle:
        return cycle
    if channels.far_cycle[0] == cycle:
        _ring_alarms(cycle, channels)
    row = cycle & (channels.wheel.shape[0] - 1)
    listed[0] = row
    for kind in range(counts.shape[0]):
        counts[kind] = _list_awake(row, kinds[kind], channels, awake)
    return cycle


@compiled
def _drive(
    now: int,
    limit_cycle: int,
    most_cycles: int,
    addresses: NDArray[np.int64],
    totals: Records,
    channels: Channels,
    kinds: Records,
    awake: NDArray[np.int32],
    counts: NDArray[np.int64],
    listed: NDArray[np.int64],
) -> int:
    """Run the cycles before ``limit_cycle``; returns the next one with something to do, or -1 after ``most_cycles``."""
    for _ in range(most_cycles):
        cycle = _advance(now, limit_cycle, channels, kinds, awake, counts, listed)
        if cycle >= limit_cycle:
            return cycle
        for kind in range(counts.shape[0]):
            if counts[kind]:
                call(addresses[kind], cycle, counts[kind])
                totals[0].steps += counts[kind]
        totals[0].active_cycles += 1
        totals[0].jumped_cycles += cycle - now
        now = cycle + 1
        totals[0].now = now
    return -1


class DeadlockError(RuntimeError):
    """Says that nothing will ever happen again although flits are buffered.

    ``waiting`` has the paths of the blocks that hold them up. ``ring`` has those that wait for room, each in a Fifo to the
    next, the last in one to the first; none if the blocks wait for one that does not take what it could.
    """

    def __init__(self, cycle: int, waiting: Sequence[str], ring: Sequence[str]) -> None:
        why = f"{' -> '.join([*ring, ring[0]])}; " if ring else ""
        super().__init__(f"deadlock in cycle {cycle}: {why}flits wait for {', '.join(waiting)}")
        self.waiting, self.ring = list(waiting), list(ring)


@dataclass
class Statistics:
    """Tells what a run cost: calls of blocks, cycles in which a block ran, cycles that were jumped over."""

    steps: int = 0
    active_cycles: int = 0
    jumped_cycles: int = 0


class System:
    """Elaborates and runs a hierarchy; ValueError has one line for each port or channel not bound as it must be.

    A run raises OverflowError in a cycle that does not fit the slots of Fifos any more: 2^42 with a million of them.

    A hierarchy is elaborated once. That takes time and memory in proportion to blocks,
    ports and Fifo slots, and compiles each kind of block that is not in the cache.
    """

    def __init__(self, top: Module) -> None:
        self._totals: Records = np.zeros(1, _TOTALS)
        self.blocks: list[Block] = []
        self._named: list[Channel] = []
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._agenda_order = count()
        self._observers: list[Callable[[int], None]] = []
        errors = list(self._walk(top, "top"))
        ends = find_ends(self.blocks, self._named)
        errors += binding_errors(self.blocks, ends)
        if errors:
            raise ValueError("\n".join(errors))
        self.fifos = [channel for channel in ends if isinstance(channel, Fifo)]
        self.signals = [channel for channel in ends if isinstance(channel, Signal)]
        for channels in (self.fifos, self.signals):
            number(channels, ends)
        kinds: dict[type[Block], list[Block]] = defaultdict(list)
        for block in self.blocks:
            kinds[type(block)].append(block)
        rows = lay_out_rows(list(kinds.values()))
        counts, awake = np.zeros(len(kinds), np.int64), np.zeros(len(self.blocks), np.int32)
        laid_out = [
            lay_out_kind(blocks, awake[start:], start)
            for blocks, start in zip(kinds.values(), rows["start"].tolist(), strict=True)
        ]
        self.channels = lay_out(list(kinds.values()), rows, self.fifos, self.signals, ends)
        self._end_cycle = end_cycle(self.channels)
        self._calls = Calls([(kind.step, kind.awake, (*kind.arguments, self.channels)) for kind in laid_out])
        self._calendar = (self._calls.address, self._totals, self.channels, rows, awake, counts, np.full(1, -1, np.int64))
        self._drive = entry_point(_drive, 0, 0, 0, *self._calendar)
        for block in self.blocks:
            wake_at(-1, self.channels, block.index, 0)

    def _walk(self, item: "Module | Block | Channel", path: str) -> Iterator[str]:
        if item.path:
            yield f"{path} must be in the hierarchy once, not also as {item.path}"
            return
        item.path = path
        if isinstance(item, Module):
            for name, child in item.children.items():
                yield from self._walk(child, f"{path}.{name}")
        elif isinstance(item, Block):
            self.blocks.append(item)
        else:
            self._named.append(item)

    @property
    def now(self) -> int:
        """Give the number of the next cycle to run."""
        return int(self._totals[0].now)

    @property
    def statistics(self) -> Statistics:
        """Tell what all runs cost until now."""
        totals = self._totals[0]
        return Statistics(int(totals.steps), int(totals.active_cycles), int(totals.jumped_cycles))

    def at(self, cycle: int, callback: Callable[[], None]) -> None:
        """Call ``callback()`` in ``cycle``, before the blocks; callbacks of one cycle in the order they were given."""
        if cycle < self.now:
            raise ValueError(f"System.at.cycle must be at least {self.now}, the next cycle, not {cycle}")
        heapq.heappush(self._agenda, (cycle, next(self._agenda_order), callback))

    def start(self, process: Generator[int, None, None]) -> None:
        """Run a Python process from this cycle on: a generator that yields how many cycles it waits, at least 1."""

        def resume() -> None:
            for wait_cycles in process:
                self.at(self.now + max(1, wait_cycles), resume)
                return

        self.at(self.now, resume)

    def observe(self, observer: Callable[[int], None]) -> Callable[[], None]:
        """Call ``observer(cycle)`` after each cycle in which a block ran; the returned function ends that."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def occupancy(self, fifo: Fifo) -> int:
        """Count the flits pushed and not yet popped, those in flight included."""
        this = self.channels.fifo[fifo.index]
        return int(this.tail - this.head)

    def read(self, signal: Signal) -> int:
        """Read the value that a signal has in the next cycle to run."""
        return int(read(self.now, self.channels, signal.index))

    def write(self, signal: Signal, value: int) -> None:
        """Write a signal without a writer, from a callback or between runs: as a block would do it in cycle ``now``."""
        write(self.now, self.channels, signal.index, value)

    def run(self, until_cycle: int) -> Statistics:
        """Run all cycles before ``until_cycle``, idle or not; returns the totals since cycle 0."""
        self._run(until_cycle)
        self._jump(max(self.now, until_cycle))
        return self.statistics

    def run_to_idle(self, limit_cycle: int = 1_000_000) -> Statistics:
        """Run until nothing is left to do at any time.

        DeadlockError if flits are left then, TimeoutError if there is still something to do in ``limit_cycle``.
        """
        if not self._run(limit_cycle):
            raise TimeoutError(f"System.run_to_idle must end before cycle {limit_cycle}; flits wait for {self.waiting()}")
        self.require_no_deadlock()
        return self.statistics

    def require_no_deadlock(self) -> None:
        """Raise DeadlockError if flits are buffered, for when nothing is left to do."""
        if waiting := self.waiting():
            raise DeadlockError(self.now, waiting, self._ring())

    def _run(self, limit_cycle: int) -> bool:
        """Run the cycles before ``limit_cycle``; True if nothing is left to do at any time."""
        while True:
            host_cycle = self._agenda[0][0] if self._agenda else NEVER
            bound_cycle = min(limit_cycle, host_cycle, self._end_cycle)
            # An observer must see every cycle, so compiled code returns after each one.
            most_cycles = 1 if self._observers else CYCLES_AT_ONCE
            cycle = int(self._drive(self.now, bound_cycle, most_cycles, *self._calendar))
            if cycle < 0:
                for observer in self._observers:
                    observer(self.now - 1)
            elif self._end_cycle <= cycle < min(limit_cycle, host_cycle):
                raise OverflowError(f"System must have nothing to do from cycle {self._end_cycle} on, not in cycle {cycle}")
            elif host_cycle < limit_cycle:
                self._call_host(host_cycle)
            else:
                return min(cycle, host_cycle) >= NEVER

    def _jump(self, cycle: int) -> None:
        totals = self._totals[0]
        totals.jumped_cycles += cycle - totals.now
        totals.now = cycle

    def _call_host(self, cycle: int) -> None:
        self._jump(cycle)
        while self._agenda and self._agenda[0][0] == cycle:
            heapq.heappop(self._agenda)[2]()

    def waiting(self) -> list[str]:
        """List the paths of the blocks whose inputs hold flits, each with the Fifos that do."""
        fifo = self.channels.fifo
        held: dict[str, list[str]] = defaultdict(list)
        path_of = {block.index: block.path for block in self.blocks}
        for index in np.flatnonzero(fifo["head"] < fifo["tail"]).tolist():
            flits = int(fifo["tail"][index] - fifo["head"][index])
            held[path_of[int(fifo["consumer"][index])]].append(f"{flits} in {self.fifos[index].path}")
        return [f"{path} ({', '.join(fifos)})" for path, fifos in sorted(held.items())]

    def _ring(self) -> list[str]:
        """Find blocks that wait for each other in a ring: their paths from the lowest index on, none without a ring."""
        stuck = self.channels.fifo[self.channels.fifo["starved"]]
        waits_for = dict(zip(stuck["producer"].tolist(), [set[int]() for _ in stuck], strict=True))
        for producer, consumer in zip(stuck["producer"].tolist(), stuck["consumer"].tolist(), strict=True):
            waits_for[producer].add(consumer)
        # A block that waits for none that waits is no part of a ring: without those, rings are left and the ways into them.
        while ended := [block for block, others in waits_for.items() if not others & waits_for.keys()]:
            for block in ended:
                del waits_for[block]
        if not waits_for:
            return []
        trail = [min(waits_for)]
        while (after := min(waits_for[trail[-1]] & waits_for.keys())) not in trail:
            trail.append(after)
        ring = trail[trail.index(after) :]
        first = ring.index(min(ring))
        path_of = {block.index: block.path for block in self.blocks}
        return [path_of[block] for block in ring[first:] + ring[:first]]

    def line_trace(self) -> str:
        """Join the blocks' own short texts after the last cycle to one line, for an observer to print."""
        return f"{self.now - 1:6}: " + " | ".join(text for block in self.blocks if (text := block.line_trace()))
