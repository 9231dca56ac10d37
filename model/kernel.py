"""The cycle kernel: blocks with typed ports, channels between them, time that jumps from event to event.

Blocks declare ports and are bound to channels; ``System`` checks the bindings and lays out all instances of a kind, and
all channels, as flat arrays. A block's behaviour is one compiled function, called once per cycle for the instances that
are awake. Everything a block does in cycle t is seen by others in t + 1 or later, so the order in which blocks run inside
a cycle cannot change a result. With ``NUMBA_DISABLE_JIT=1`` the same code runs under a debugger. See docs/kernel.md.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import numba as _untyped_numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

Records = Any
"""A numpy array in compiled code: the element types are those of the dtype, which type checkers do not see."""
F = TypeVar("F", bound=Callable[..., Any])


numba: Any = _untyped_numba
_SOURCES_STAMP = tuple((path.name, path.stat().st_mtime_ns) for path in sorted(Path(__file__).parent.glob("*.py")))


def compiled(function: F) -> F:
    """A module-level function compiled by numba on its first call and cached on disk; its type stays what it was.

    It must not allocate. That frees it from counting references to each array of ``Channels`` in each call of a helper,
    which makes blocks 20 times as fast.
    """
    in_file = Path(function.__code__.co_filename).exists()
    dispatcher: Any = numba.njit(cache=in_file, error_model="numpy", _nrt=False)(function)
    if in_file and dispatcher is not function:
        # The cached code of a block contains the helpers of this folder, but numba looks only at the block's own file.
        index = dispatcher._cache._cache_file
        index._source_stamp = (index._source_stamp, _SOURCES_STAMP)
    return cast(F, dispatcher)


def _entry_point(function: F, *arguments: object) -> F:
    """The machine code of a compiled function for arguments of these types, 10 times as quick to enter: no type check."""
    compile_for = getattr(function, "compile", None)
    return compile_for(tuple(numba.typeof(argument) for argument in arguments)) if compile_for else function


def record(**fields: Any) -> np.dtype[Any]:
    """An aligned structured dtype whose elements read as ``element.field``, compiled or not."""
    return np.dtype((np.record, np.dtype(list(fields.items()), align=True)))


NEVER = 1 << 62
"""A cycle that does not come: asleep until a channel wakes the block."""
NO_FLIT = -1
"""What ``peek`` answers when nothing can be popped."""
FLIT = record(payload="i8", injected_cycle="i8", packet="i4", source="i4", destination="i4", virtual_channel="i2", last="?")
"""One entry of a Fifo, 32 bytes. ``payload`` belongs to the client: data, or the index of something."""

_FIFO = record(
    tail="i8", returned="i8", head="i8", first_slot="i8", mask="i4", depth="i4",
    latency_cycles="i4", credit_cycles="i4", producer="i4", consumer="i4", starved="?",
)  # fmt: skip
_SIGNAL = record(value="i8", written="i8", written_cycle="i8", first_reader="i4", readers="i4")
_TIMER = record(alarm_cycle="i8", period_cycles="i4", phase_cycles="i4")


class Channels(NamedTuple):
    """All channels and the calendar of one system, as flat arrays: what compiled code works on.

    ``flit`` is for blocks, at the slots that ``peek``, ``pop`` and ``push`` return; the rest is for this module. Per Fifo,
    the producer writes tail and returned, the consumer head; counters only grow and ``counter & mask`` is the slot.
    ``wheel[cycle & mask, block]`` is set for each block to be stepped in that cycle, for cycles less than one turn away;
    what is further away is in ``timer[block].alarm_cycle``, the least of them in ``far_cycle[0]``.
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


@compiled
def _ring_alarms(now: int, channels: Channels) -> None:
    row = now & (channels.wheel.shape[0] - 1)
    next_cycle = NEVER
    for block in range(channels.timer.shape[0]):
        timer = channels.timer[block]
        if timer.alarm_cycle <= now:
            timer.alarm_cycle = NEVER
            channels.wheel[row, block] = 1
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
def _advance(
    now: int,
    limit_cycle: int,
    channels: Channels,
    kind_start: NDArray[np.int64],
    awake: NDArray[np.int32],
    counts: NDArray[np.int64],
) -> int:
    """The next cycle from ``now`` on with something to do; if below ``limit_cycle``, list the awake instances by kind."""
    cycle = _next_cycle(now, channels)
    if cycle >= limit_cycle:
        return cycle
    if channels.far_cycle[0] == cycle:
        _ring_alarms(cycle, channels)
    row = cycle & (channels.wheel.shape[0] - 1)
    channels.row_used[row] = 0
    for kind in range(counts.shape[0]):
        first, found = kind_start[kind], 0
        for word in range(first >> 3, kind_start[kind + 1] >> 3):
            if channels.wheel_words[row, word] == 0:
                continue
            for block in range(word << 3, (word + 1) << 3):
                if channels.wheel[row, block]:
                    awake[first + found] = block - first
                    found += 1
            channels.wheel_words[row, word] = 0
        counts[kind] = found
    return cycle


def _require(owner: object, name: str, holds: bool, must_be: str) -> None:
    if not holds:
        raise ValueError(f"{type(owner).__name__}.{name} must be {must_be}, not {getattr(owner, name)!r}")


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
            _require(self, name, 1 <= getattr(self, name) <= 1 << 20, "from 1 to 1048576")


@dataclass(eq=False)
class Signal(Channel):
    """A 64-bit value with at most one writer and any number of readers: written in cycle t, read from t + 1 on."""

    initial: int = 0


@dataclass(eq=False)
class Port:
    """One port of one block."""

    block: "Block"
    name: str
    channel_type: type[Channel]
    is_output: bool

    def __post_init__(self) -> None:
        self.bound: list[Channel] = []

    @property
    def path(self) -> str:
        """Name in the hierarchy."""
        return f"{self.block.path or type(self.block).__name__}.{self.name}"

    def bind(self, channel: Channel) -> None:
        """Connect to a channel; ``System`` checks that each port was bound once, and to its type of channel."""
        self.bound.append(channel)


C = TypeVar("C", bound=Channel)


def connect(output: Port, input_: Port, channel: C) -> C:
    """Bind both ends of a channel and return it."""
    output.bind(channel)
    input_.bind(channel)
    return channel


class _Declaration:
    is_output: ClassVar[bool] = False
    is_array: ClassVar[bool] = False

    def __init__(self, channel_type: type[Channel]) -> None:
        self.channel_type = channel_type

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name


class Input(_Declaration):
    """Declares an input of a block."""

    def __get__(self, block: "Block", owner: type) -> Port:
        return block.ports[self.name][0]


class Output(Input):
    """Declares an output of a block."""

    is_output = True


class Inputs(_Declaration):
    """Declares an array of inputs; each instance says how many in ``Block(widths=...)``.

    The step function gets a table by instance and element, as wide as the widest instance; others have -1 in the rest.
    """

    is_array = True

    def __get__(self, block: "Block", owner: type) -> list[Port]:
        return block.ports[self.name]


class Outputs(Inputs):
    """Declares an array of outputs."""

    is_output = True


class Memory:
    """Declares an array of a block, of a size that each instance chooses by its initial content.

    Compiled code gets one array for all instances of the kind; an instance's own elements are
    ``[me.name_start : me.name_start + me.name_count]``. On the instance it reads as an array.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, block: "Block", owner: type) -> Records:
        return block.memory[self.name]


Step = Callable[[int, Records, Records, Records, Records, Channels], None]
"""``step(now, awake, state, memory, ports, channels)``: one call per cycle for the ``awake`` instances of a kind."""


class Block:
    """One instance of a kind of block: ``class Delay(Block, step=_step_delay, state={"sent": "i8"})``.

    The class attributes of type Input, Output, Inputs, Outputs and Memory are its ports and arrays, and are handed to
    ``step`` in the order of their declaration. The state record has the given fields, ``block`` (for ``wake_at``), and
    ``_start`` and ``_count`` of each memory. Each instance is stepped once at cycle 0 (or its first clock edge), then
    when a flit arrives, a missing credit returns, a signal changes, or at the cycle it asked for; at times without need.

    ``period_cycles`` and ``phase_cycles`` are the clock of the instance: it is stepped only in the cycles
    ``phase + n * period``.
    """

    declared_ports: ClassVar[Mapping[str, _Declaration]] = {}
    declared_memory: ClassVar[Mapping[str, Memory]] = {}
    state_dtype: ClassVar[np.dtype[Any]]
    step: ClassVar[Step]
    path: str = ""
    index: int = -1

    def __init_subclass__(cls, step: Step, state: Mapping[str, Any] | None = None) -> None:
        cls.declared_ports = {name: item for name, item in vars(cls).items() if isinstance(item, _Declaration)}
        cls.declared_memory = {name: item for name, item in vars(cls).items() if isinstance(item, Memory)}
        bounds = {f"{name}_{bound}": "i8" for name in cls.declared_memory for bound in ("start", "count")}
        cls.state_dtype = record(**(state or {}), **bounds, block="i4")
        cls.step = staticmethod(step)

    def __init__(
        self,
        *,
        state: Mapping[str, Any] | None = None,
        memory: Mapping[str, ArrayLike] | None = None,
        widths: Mapping[str, int] | None = None,
        period_cycles: int = 1,
        phase_cycles: int = 0,
    ) -> None:
        self.period_cycles, self.phase_cycles = period_cycles, phase_cycles
        _require(self, "period_cycles", 1 <= period_cycles <= 1 << 20, "from 1 to 1048576")
        _require(self, "phase_cycles", 0 <= phase_cycles < period_cycles, f"from 0 to {period_cycles - 1}")
        self.state: Any = np.zeros(1, self.state_dtype)[0]
        for name, value in (state or {}).items():
            self.state[name] = value
        given = memory or {}
        self.memory = {name: np.array(given[name], item.dtype) for name, item in self.declared_memory.items()}
        self.ports = {name: self._make_ports(item, (widths or {}).get(name)) for name, item in self.declared_ports.items()}

    def _make_ports(self, item: _Declaration, width: int | None) -> list[Port]:
        names = [f"{item.name}[{n}]" for n in range(width or 0)] if item.is_array else [item.name]
        return [Port(self, name, item.channel_type, item.is_output) for name in names]

    def line_trace(self) -> str:
        """A few characters for one cycle; a kind overrides it. Empty: not in the trace."""
        return ""


Child = TypeVar("Child", bound="Module | Block | Channel")


class Module:
    """A named group of blocks, channels and modules; ports of a module are the ports of the blocks in it."""

    def __init__(self) -> None:
        self.path = ""
        self.children: dict[str, Module | Block | Channel] = {}

    def add(self, name: str, child: Child) -> Child:
        """Put ``child`` under ``name`` and return it."""
        if name in self.children:
            raise ValueError(f"{type(self).__name__}.{name} must be added once, not again")
        self.children[name] = child
        return child


class DeadlockError(RuntimeError):
    """Nothing will ever happen again while flits are buffered. ``waiting`` has the paths of the blocks that hold them up."""

    def __init__(self, cycle: int, waiting: Sequence[str]) -> None:
        super().__init__(f"deadlock in cycle {cycle}: flits wait for {', '.join(waiting)}")
        self.waiting = list(waiting)


@dataclass
class Statistics:
    """What a run cost: calls of blocks, cycles in which a block ran, cycles that were jumped over."""

    steps: int = 0
    active_cycles: int = 0
    jumped_cycles: int = 0


@dataclass(frozen=True)
class _Kind:
    """All instances of one block class, laid out for its step function."""

    step: Step
    awake: NDArray[np.int32]
    state: Records
    memory: tuple[Records, ...]
    ports: tuple[Records, ...]

    def compiled_for(self, channels: Channels) -> "_Kind":
        """The same with the machine code of its step function."""
        step = _entry_point(self.step, 0, self.awake, self.state, self.memory, self.ports, channels)
        return replace(self, step=step)


class System:
    """An elaborated hierarchy: ``ValueError`` with one line for each port or channel that is not bound as it must be.

    ``now`` is the next cycle to run. A hierarchy is elaborated once. That takes time and memory in proportion to blocks,
    ports and Fifo slots, and compiles each kind of block that is not in the cache.
    """

    def __init__(self, top: Module, name: str = "top") -> None:
        self.now = 0
        self.statistics = Statistics()
        self.blocks: list[Block] = []
        self._named: list[Channel] = []
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._agenda_order = count()
        self._observers: list[Callable[[int], None]] = []
        errors = list(self._walk(top, name))
        ends = _ends(self.blocks, self._named)
        errors += _binding_errors(self.blocks, ends)
        if errors:
            raise ValueError("\n".join(errors))
        self.fifos = [channel for channel in ends if isinstance(channel, Fifo)]
        self.signals = [channel for channel in ends if isinstance(channel, Signal)]
        for channels in (self.fifos, self.signals):
            _number(channels, ends)
        kinds: dict[type[Block], list[Block]] = defaultdict(list)
        for block in self.blocks:
            kinds[type(block)].append(block)
        starts = np.cumsum([0, *(len(blocks) + 7 & ~7 for blocks in kinds.values())], dtype=np.int64)
        counts, awake = np.zeros(len(kinds), np.int64), np.zeros(starts[-1], np.int32)
        laid_out = [
            _lay_out_kind(blocks, awake[start:], start)
            for blocks, start in zip(kinds.values(), starts.tolist(), strict=False)
        ]
        self.channels = _lay_out(self.blocks, self.fifos, self.signals, ends, len(awake))
        self._calendar = (self.channels, starts, awake, counts)
        self._counts = counts
        self._advance = _entry_point(_advance, 0, 0, *self._calendar)
        self._kinds = [kind.compiled_for(self.channels) for kind in laid_out]
        for block in self.blocks:
            _schedule(-1, self.channels, block.index, 0)

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
        """Flits pushed and not yet popped, those in flight included."""
        this = self.channels.fifo[fifo.index]
        return int(this.tail - this.head)

    def read(self, signal: Signal) -> int:
        """Value of a signal in the next cycle to run."""
        return int(read(self.now, self.channels, signal.index))

    def write(self, signal: Signal, value: int) -> None:
        """Write a signal without a writer, from a callback or between runs: as a block would do it in cycle ``now``."""
        write(self.now, self.channels, signal.index, value)

    def run(self, until_cycle: int) -> Statistics:
        """Run all cycles before ``until_cycle``, idle or not; returns the totals since cycle 0."""
        self._run(until_cycle)
        self.statistics.jumped_cycles += until_cycle - self.now if until_cycle > self.now else 0
        self.now = max(self.now, until_cycle)
        return self.statistics

    def run_to_idle(self, limit_cycle: int = 1_000_000) -> Statistics:
        """Run until nothing is left to do.

        DeadlockError if flits are left then, TimeoutError if there is still something to do in ``limit_cycle``.
        """
        if not self._run(limit_cycle):
            raise TimeoutError(f"System.run_to_idle must end before cycle {limit_cycle}; flits wait for {self.waiting()}")
        if waiting := self.waiting():
            raise DeadlockError(self.now, waiting)
        return self.statistics

    def _run(self, limit_cycle: int) -> bool:
        """Run the cycles before ``limit_cycle``; True if nothing is left to do at any time."""
        while True:
            host_cycle = self._agenda[0][0] if self._agenda else NEVER
            bound_cycle = min(limit_cycle, host_cycle)
            cycle = int(self._advance(self.now, bound_cycle, *self._calendar))
            if cycle < bound_cycle:
                self._step(cycle)
            elif host_cycle < limit_cycle:
                self._call_host(host_cycle)
            else:
                return min(cycle, host_cycle) >= NEVER

    def _step(self, cycle: int) -> None:
        statistics = self.statistics
        statistics.jumped_cycles += cycle - self.now
        statistics.active_cycles += 1
        self.now = cycle
        for kind, awake in zip(self._kinds, self._counts.tolist(), strict=True):
            if awake:
                kind.step(cycle, kind.awake[:awake], kind.state, kind.memory, kind.ports, self.channels)
                statistics.steps += awake
        self.now = cycle + 1
        for observer in self._observers:
            observer(cycle)

    def _call_host(self, cycle: int) -> None:
        self.statistics.jumped_cycles += cycle - self.now
        self.now = cycle
        while self._agenda and self._agenda[0][0] == cycle:
            heapq.heappop(self._agenda)[2]()

    def waiting(self) -> list[str]:
        """Paths of the blocks whose inputs hold flits, each with the Fifos that do."""
        fifo = self.channels.fifo
        held: dict[str, list[str]] = defaultdict(list)
        path_of = {block.index: block.path for block in self.blocks}
        for index in np.flatnonzero(fifo["head"] < fifo["tail"]).tolist():
            flits = int(fifo["tail"][index] - fifo["head"][index])
            held[path_of[int(fifo["consumer"][index])]].append(f"{flits} in {self.fifos[index].path}")
        return [f"{path} ({', '.join(fifos)})" for path, fifos in sorted(held.items())]

    def line_trace(self) -> str:
        """The blocks' own short texts after the last cycle, in one line: ``system.observe(lambda _: print(...))``."""
        return f"{self.now - 1:6}: " + " | ".join(text for block in self.blocks if (text := block.line_trace()))


_Ends = dict[Channel, tuple[list[Port], list[Port]]]


def _all_ports(blocks: Sequence[Block]) -> Iterator[Port]:
    return (port for block in blocks for ports in block.ports.values() for port in ports)


def _ends(blocks: Sequence[Block], named: Sequence[Channel]) -> _Ends:
    """Producer and consumer ports of each channel."""
    ends: _Ends = {channel: ([], []) for channel in named}
    for port in _all_ports(blocks):
        for channel in port.bound:
            ends.setdefault(channel, ([], []))[not port.is_output].append(port)
    return ends


def _binding_errors(blocks: Sequence[Block], ends: _Ends) -> Iterator[str]:
    for port in _all_ports(blocks):
        must_be = f"{port.path} must be bound to one {port.channel_type.__name__}, not"
        if not port.bound:
            yield f"{must_be} left open"
        elif len(port.bound) > 1:
            yield f"{must_be} to {len(port.bound)} channels"
        elif not isinstance(port.bound[0], port.channel_type):
            yield f"{must_be} to a {type(port.bound[0]).__name__}"
    for channel, sides in ends.items():
        for side, ports in zip(("producer", "consumer"), sides, strict=True):
            many = len(ports) > 1 and not (isinstance(channel, Signal) and side == "consumer")
            none = not ports and isinstance(channel, Fifo)
            if many or none:
                found = ", ".join(port.path for port in ports) or "none"
                yield f"{_channel_path(channel, sides)} must have one {side}, not {len(ports)}: {found}"


def _channel_path(channel: Channel, sides: tuple[list[Port], list[Port]]) -> str:
    return channel.path or " -> ".join("+".join(port.path for port in ports) or "?" for ports in sides)


def _number(channels: Sequence[Channel], ends: _Ends) -> None:
    for index, channel in enumerate(channels):
        channel.index, channel.path = index, _channel_path(channel, ends[channel])


def _lay_out_kind(blocks: Sequence[Block], awake: NDArray[np.int32], start: int) -> _Kind:
    """Move the instances' states and memories into shared arrays, and leave views of these with the instances."""
    first = blocks[0]
    state = np.array([block.state for block in blocks], first.state_dtype)
    memory = {name: np.concatenate([block.memory[name] for block in blocks]) for name in first.declared_memory}
    used = dict.fromkeys(memory, 0)
    for index, block in enumerate(blocks):
        block.state, block.index = state[index], start + index
        block.state.block = block.index
        for name, array in memory.items():
            size = len(block.memory[name])
            block.state[f"{name}_start"], block.state[f"{name}_count"] = used[name], size
            block.memory[name] = array[used[name] : used[name] + size]
            used[name] += size
    ports = tuple(_port_table([block.ports[name] for block in blocks], first.declared_ports[name]) for name in first.ports)
    return _Kind(type(first).step, awake, state, tuple(memory.values()), ports)


def _port_table(ports: Sequence[Sequence[Port]], item: _Declaration) -> NDArray[np.int32]:
    """Channel indices by instance, and by element for arrays of ports; -1 where an instance has fewer than the widest."""
    table = np.full((len(ports), max(len(row) for row in ports)), -1, np.int32)
    for index, row in enumerate(ports):
        table[index, : len(row)] = [port.bound[0].index for port in row]
    return table if item.is_array else table[:, 0].copy()


def _lay_out(
    blocks: Sequence[Block], fifos: Sequence[Fifo], signals: Sequence[Signal], ends: _Ends, block_slots: int
) -> Channels:
    fifo, slots = _lay_out_fifos(fifos, ends)
    signal, reader = _lay_out_signals(signals, ends)
    timer = np.zeros(block_slots, _TIMER)
    timer["period_cycles"], timer["alarm_cycle"] = 1, NEVER
    for block in blocks:
        timer[block.index] = (NEVER, block.period_cycles, block.phase_cycles)
    # A channel wakes no further ahead than its latency, rounded up to an edge: the wheel holds all of these.
    ahead_cycles = int(max(fifo["latency_cycles"].max(initial=1), fifo["credit_cycles"].max(initial=1)))
    turn_cycles = max(256, 1 << (ahead_cycles + int(timer["period_cycles"].max(initial=1))).bit_length())
    wheel = np.zeros((turn_cycles, block_slots), np.uint8)
    return Channels(
        fifo,
        np.zeros(slots, FLIT),
        np.zeros(slots, np.int64),
        np.zeros(slots, np.int64),
        signal,
        reader,
        timer,
        wheel,
        wheel.view(np.int64),
        np.zeros(turn_cycles, np.uint8),
        np.full(1, NEVER, np.int64),
    )


def _lay_out_fifos(fifos: Sequence[Fifo], ends: _Ends) -> tuple[Records, int]:
    fifo = np.zeros(len(fifos), _FIFO)
    slots = 0
    for this, channel in zip(fifo, fifos, strict=True):
        (output,), (input_,) = ends[channel]
        size = 1 << (channel.depth - 1).bit_length()
        this.first_slot, this.mask, this.depth = slots, size - 1, channel.depth
        this.latency_cycles, this.credit_cycles = channel.latency_cycles, channel.credit_cycles
        this.producer, this.consumer = output.block.index, input_.block.index
        slots += size
    return fifo, slots


def _lay_out_signals(signals: Sequence[Signal], ends: _Ends) -> tuple[Records, NDArray[np.int32]]:
    signal = np.zeros(len(signals), _SIGNAL)
    readers: list[int] = []
    for this, channel in zip(signal, signals, strict=True):
        blocks = [port.block.index for port in ends[channel][1]]
        this.value = this.written = channel.initial
        this.written_cycle, this.first_reader, this.readers = -1, len(readers), len(blocks)
        readers += blocks
    return signal, np.array(readers, np.int32)


def flits(count_flits: int, **fields: ArrayLike) -> Records:
    """An array of flits with the given fields, the others 0: ``flits(3, packet=range(3), last=True)``."""
    array = np.zeros(count_flits, FLIT)
    for name, values in fields.items():
        array[name] = values
    return array


@compiled
def _step_source(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:
    cycles, offered = memory
    (output,) = ports
    for index in awake:
        me = state[index]
        if me.sent == me.cycles_count:
            continue
        entry = me.cycles_start + me.sent
        if cycles[entry] > now:
            wake_at(now, channels, me.block, cycles[entry])
        elif free_space(now, channels, output[index]) > 0:
            slot = push(now, channels, output[index])
            channels.flit[slot] = offered[entry]
            channels.flit[slot].injected_cycle = now
            me.sent += 1
            wake_at(now, channels, me.block, now + 1)


class Source(Block, step=_step_source, state={"sent": "i8"}):
    """Pushes ``offered[n]`` in ``cycles[n]`` or as soon after as there is room, in order, at most one per clock edge.

    It writes the cycle of the push into ``injected_cycle``. ``state.sent`` is the number of flits pushed so far.
    """

    o = Output(Fifo)
    cycles = Memory("i8")
    offered = Memory(FLIT)

    def __init__(self, cycles: ArrayLike, offered: Records, *, period_cycles: int = 1, phase_cycles: int = 0) -> None:
        memory = {"cycles": np.asarray(cycles, np.int64), "offered": offered}
        super().__init__(memory=memory, period_cycles=period_cycles, phase_cycles=phase_cycles)
        if len(self.cycles) != len(self.offered):
            raise ValueError(f"Source.cycles must have {len(self.offered)} entries, as offered has, not {len(self.cycles)}")

    def line_trace(self) -> str:
        """Flits sent so far."""
        return f"{self.path} {self.state.sent}"


@compiled
def _open_cycle(now: int, pauses: Records, first: int, length: int) -> int:
    """First cycle from ``now`` on that a repeated pause pattern leaves open, or NEVER."""
    if length == 0:
        return now
    for cycle in range(now, now + length):
        if not pauses[first + cycle % length]:
            return cycle
    return NEVER


@compiled
def _step_sink(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:
    pauses, cycles, received = memory
    (input_,) = ports
    for index in awake:
        me = state[index]
        if peek(now, channels, input_[index]) == NO_FLIT:
            continue
        open_cycle = _open_cycle(now, pauses, me.pauses_start, me.pauses_count)
        if open_cycle > now:
            wake_at(now, channels, me.block, open_cycle)
            continue
        slot = pop(now, channels, input_[index])
        if me.taken < me.cycles_count:
            cycles[me.cycles_start + me.taken] = now
            received[me.received_start + me.taken] = channels.flit[slot]
        me.taken += 1


RECEIVED = np.dtype([("cycle", "i8"), *((name, FLIT[name]) for name in FLIT.names or ())])
"""What a Sink saw: the cycle of the pop and the fields of the flit."""


class Sink(Block, step=_step_sink, state={"taken": "i8"}):
    """Pops at most one flit per clock edge and records it; not in cycles t with ``pauses[t % len(pauses)]``."""

    i = Input(Fifo)
    pauses = Memory("?")
    cycles = Memory("i8")
    received = Memory(FLIT)

    def __init__(
        self,
        pauses: Sequence[bool] | NDArray[np.bool_] = (),
        *,
        capacity_flits: int = 4096,
        period_cycles: int = 1,
        phase_cycles: int = 0,
    ) -> None:
        memory = {
            "pauses": np.asarray(pauses, np.bool_),
            "cycles": np.zeros(capacity_flits, np.int64),
            "received": np.zeros(capacity_flits, FLIT),
        }
        super().__init__(memory=memory, period_cycles=period_cycles, phase_cycles=phase_cycles)

    @property
    def records(self) -> Records:
        """Flits popped so far, as RECEIVED; ValueError if there were more than ``capacity_flits``."""
        taken = int(self.state.taken)
        if taken > len(self.cycles):
            raise ValueError(f"Sink.capacity_flits must be at least {taken}, not {len(self.cycles)}")
        records = np.zeros(taken, RECEIVED)
        records["cycle"] = self.cycles[:taken]
        for name in FLIT.names or ():
            records[name] = self.received[name][:taken]
        return records

    def line_trace(self) -> str:
        """Flits taken so far."""
        return f"{self.path} {self.state.taken}"
