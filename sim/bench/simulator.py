"""Amaranth's simulator is made to run the designs of a link in less than a third of the time.

It writes each expression of a design out as Python, again wherever it occurs: a beat of 1024 bits once for every bit of its
CRC. Here a part of an expression that has been computed is kept in a variable for the lines after it, a repeated bit is a
product, a parity counts bits, many parities of a few bits are looked up, and masks that mask nothing are left out. Only what
has changed is looked at: see :class:`_Engine`. The values are those of Amaranth's own simulator, which the tests compare.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

from amaranth import Module
from amaranth.hdl._ast import Concat, Const, Operator, Part, Signal, Slice, SwitchValue, Value, ValueLike
from amaranth.hdl._xfrm import ValueVisitor
from amaranth.sim import Simulator, _pyrtl, pysim

_UPDATE = re.compile(r"(slots\[(\d+)\])\.update\((\w+), (-?\d+)\)")
_SLOT = re.compile(r"slots\[(\d+)\]")
_CURRENT = re.compile(r"slots\[(\d+)\]\.curr")
_NAME = r"(?:kept_\d+|rhs_switch_\d+|slots\[\d+\]\.curr)"
_MASKED_TWICE = re.compile(r"(0x[0-9a-f]+) & \((?=\1 & )")
_REDUNDANT = (
    (re.compile(rf"(0x[0-9a-f]+) & ({_NAME})(?=\)|$)"), r"\2"),
    (re.compile(rf"(0x[0-9a-f]+) & \(~\(({_NAME})\)\)"), r"\1 ^ \2"),
)
"""Masks of a variable and what stands for them where the variable has no other bits."""
_TABLE_BITS = 4
"""A table of so many bits has 16 entries; larger ones save less time than it takes to make them."""
_SHORT = 40
"""A shorter expression costs less to compute again than to keep."""


def simulator(design: Module) -> Simulator:
    """Elaborate a design and make a simulator of it. Takes seconds for a wide design."""
    ours = {
        (_pyrtl, "_RHSValueCompiler"): _Expressions,
        (_pyrtl, "_PythonEmitter"): _Lines,
        (_pyrtl, "comb_waker"): lambda process: (process, None),
        (_pyrtl, "memory_waker"): lambda process: (process, None),
        (_pyrtl, "edge_waker"): lambda process, polarity: (process, polarity),
        (pysim, "_PyEngineState"): _State,
    }
    stock = {place: getattr(*place) for place in ours}
    try:
        for place, value in ours.items():
            setattr(*place, value)
        return Simulator(design, engine=_Engine)
    finally:
        for place, value in stock.items():
            setattr(*place, value)


class Pins:
    """Sets signals of a design for a process, where they change, and gets what they were when it woke up."""

    def __init__(self, simulator: Simulator, ctx):
        self._engine, self._ctx = simulator._engine, ctx
        self._driven = dict[int, tuple]()

    def set(self, signal, value) -> None:
        """Set a signal; the design sees it together with the registers of this cycle."""
        if self._driven.get(id(signal), (None, None))[1] != value:
            self._ctx.set(signal, value)
            # With the signal, whose id would else be another's once it is gone.
            self._driven[id(signal)] = signal, value

    def get(self, signal) -> int:
        """Get the value that a signal had in the cycle before."""
        return self._engine.get_value(signal)


def sampler(simulator: Simulator, values: Sequence[ValueLike]) -> Callable[[], tuple]:
    """Compile what returns the current values of all these: of views as constants of their layouts."""
    emitter = _Lines()
    emitter.append("def sample():")
    with emitter.indent():
        compiler = _Expressions(simulator._engine.state, emitter, mode="curr")
        codes = [f"{_mask(len(value)):#x} & {compiler(value)}" for value in map(Value.cast, values)]
        made = (f"make_{n}({code})" if hasattr(values[n].shape(), "from_bits") else code for n, code in enumerate(codes))
        emitter.append(f"return ({''.join(f'{code}, ' for code in made)})")
    names = {f"make_{n}": value.shape().from_bits for n, value in enumerate(values) if hasattr(value.shape(), "from_bits")}
    names |= {"slots": simulator._engine.state.slots, **compiler.helpers}
    exec(compile(emitter.flush(), "<sampler>", "exec"), names)
    return names["sample"]


class _Signal(pysim._PySignalState):
    """Knows the processes that read it, and those that it clocks when it becomes 0 or 1, as masks."""

    __slots__ = ("clocks", "wakes")

    def __init__(self, signal, pending):
        super().__init__(signal, pending)
        self.wakes, self.clocks = 0, None


class _Memory(pysim._PyMemoryState):
    __slots__ = ("wakes",)

    def __init__(self, memory, pending):
        super().__init__(memory, pending)
        self.wakes = 0


class _State(pysim._PyEngineState):
    def _get(self, kind, indices, key) -> int:
        if key not in indices:
            indices[key] = len(self.slots)
            self.slots.append(kind(key, self.pending))
        return indices[key]

    def get_signal(self, signal) -> int:
        return self._get(_Signal, self.signals, signal)

    def get_memory(self, memory) -> int:
        return self._get(_Memory, self.memories, memory)


class _Engine(pysim.PySimEngine):
    """Runs the processes of a design whose inputs have changed, in an order in which few run twice in a cycle.

    Amaranth's own engine asks every process in every step, runs all registers in every cycle, and wakes by a call for each
    process that reads a signal. A process has a bit in masks here: combinational ones first, from inputs to outputs. Clocks
    may not come from logic.
    """

    def __init__(self, design):
        super().__init__(design)
        # What remains in the list of the processes are clocks and processes that are not part of the design.
        processes, self._processes = self._processes, set()
        logic = _in_order([process for process in processes if process.is_comb])
        registers = [process for process in processes if not process.is_comb]
        self._runs = [process.run for process in logic + registers]
        self._all, self._logic = (1 << len(self._runs)) - 1, (1 << len(logic)) - 1
        bits = {process: 1 << n for n, process in enumerate(logic + registers)}
        for slot in self._state.slots:
            for process, polarity in slot.wakers:
                if polarity is None:
                    slot.wakes |= bits[process]
                else:
                    slot.clocks = slot.clocks or [0, 0]
                    slot.clocks[polarity] |= bits[process]
            slot.wakers.clear()
        for process in registers:
            # Its own registers, too: when they have changed, it may want to change them again.
            for index in process.run.__globals__["touched"]:
                self._state.slots[index].wakes |= bits[process]
        self._changed, self._clocked = self._all, 0

    def reset(self) -> None:
        super().reset()
        self._changed, self._clocked = self._all, 0

    def step_design(self) -> None:
        state = self._state
        while True:
            for trigger in self._active_triggers:
                trigger.run()
            self._active_triggers.clear()
            due, self._clocked = self._changed & self._clocked, 0
            self._changed ^= due
            while due:
                first = due & -due
                due ^= first
                self._runs[first.bit_length() - 1]()
            for process in self._processes:
                if process.runnable:
                    process.runnable = False
                    process.run()
            if not state.pending and not self._changed & self._logic:
                return
            self._commit()
            while due := self._changed & self._logic:
                first = due & -due
                self._changed ^= first
                self._runs[first.bit_length() - 1]()
                if state.pending:
                    self._commit()
            self._delta_cycles += 1

    def _commit(self) -> None:
        pending, changed = self._state.pending, self._changed
        if self._vcd_writers:
            shown = [(slot, tuple(slot.write_queue) if type(slot) is _Memory else ()) for slot in pending]
        for slot in pending:
            if type(slot) is _Memory:
                slot.commit()
                changed |= slot.wakes
            elif slot.curr != slot.next:
                changed |= slot.wakes
                if slot.clocks:
                    self._clocked |= slot.clocks[slot.next]
                if slot.wakers:
                    pysim._run_wakers(slot.wakers, slot.curr, slot.next)
                slot.curr = slot.next
        pending.clear()
        self._changed = changed
        for writer in self._vcd_writers:
            now = self._now_plus_deltas(writer.fs_per_delta)
            for slot, addresses in shown:
                for address in addresses:
                    writer.update_memory(now, slot.memory, address)
                if type(slot) is _Signal:
                    writer.update_signal(now, slot.signal)


def _in_order(processes: list) -> list:
    """Sort combinational processes so that, loops apart, each comes after those whose outputs it reads."""
    reads, writes = ([process.run.__globals__[name] for process in processes] for name in ("read", "written"))
    drivers = {index: n for n, outputs in enumerate(writes) for index in outputs}
    order, opened, waiting = dict[int, None](), set[int](), list(range(len(processes)))
    while waiting:
        if (n := waiting[-1]) in opened:
            order.setdefault(waiting.pop())
        else:
            opened.add(n)
            waiting += {drivers[index] for index in reads[n] if index in drivers} - opened
    return [processes[n] for n in order]


class _Lines(_pyrtl._PythonEmitter):
    """Writes lines of Python and knows which variables hold which expression at the place it has come to."""

    def __init__(self):
        super().__init__()
        self._kept = dict[str, str]()
        self.codes = dict[int, tuple[Value, str]]()
        self.most = dict[str, int]()

    def append(self, code: str) -> None:
        """Write a line, without masks that mask nothing; a signal takes its next value over only if that is another one."""
        code = _MASKED_TWICE.sub("(", code)
        for redundant, short in _REDUNDANT:
            code = redundant.sub(
                lambda match, short=short: match.expand(short) if self._is_within(match) else match[0], code
            )
        if match := _UPDATE.match(code):
            slot, index, value, mask = match.groups()
            # All bits of a signal need not be merged with others.
            whole = int(mask) in (-1, _mask(len(self.slots[int(index)].signal)))
            code = f"if {slot}.next != {value}: {f'{slot}.next = {value}; {slot}.pending.add({slot})' if whole else code}"
        super().append(code)

    def _is_within(self, match: re.Match[str]) -> bool:
        """Tell whether the variable is known to have no bits but those of the mask before it."""
        mask, name = match.groups()
        return name in self.most and not self.most[name] & ~int(mask, 16)

    def flush(self) -> str:
        """Return the code, and in it the indices of the signals and memories that it touches, reads and writes."""
        code = super().flush()
        for name, use in (("touched", ""), ("read", r"\.(?:curr|read)"), ("written", r"\.(?:pending|update)")):
            code += f"{name} = {{{', '.join(re.findall(_SLOT.pattern + use, code))}}}\n"
        head, rest = code.split("\n", 1)
        often = {index: times for index, times in Counter(_CURRENT.findall(rest)).items() if times > 2}
        rest = _CURRENT.sub(lambda match: f"now_{match[1]}" if match[1] in often else match[0], rest)
        return "\n".join([head, *(f"    now_{index} = slots[{index}].curr" for index in often), rest])

    @contextmanager
    def indent(self) -> Iterator[None]:
        # What a branch computes is not known after it: another one may have been taken.
        before = self._kept, self.codes
        self._kept, self.codes = map(dict, before)
        with super().indent():
            yield
        self._kept, self.codes = before

    def keep(self, code: str) -> str:
        """Return the variable that holds this expression, which is computed here if it was not before."""
        if code not in self._kept:
            self._kept[code] = self.def_var("kept", code)
        return self._kept[code]


class _Expressions(_pyrtl._RHSValueCompiler):
    """Compiles an expression to Python, with variables for its longer parts."""

    def __init__(self, state, emitter, **options):
        super().__init__(state, emitter, **options)
        emitter.slots = state.slots

    def on_value(self, value):
        # Only the current values of signals stay as they are while a process runs.
        if self.mode != "curr":
            return super().on_value(value)
        if id(value) not in self.emitter.codes:
            code = ValueVisitor.on_value(self, value)
            code = code if len(code) < _SHORT else self.emitter.keep(code)
            if _is_masked(value):
                self.emitter.most[code] = _mask(len(value))
            # With the value, whose id would else be another's once it is gone.
            self.emitter.codes[id(value)] = value, code
        return self.emitter.codes[id(value)][1]

    def on_Operator(self, value):  # noqa: N802
        if value.operator != "r^":
            return super().on_Operator(value)
        (operand,) = value.operands
        return f"({_mask(len(operand)):#x} & {self(operand)}).bit_count()"

    def on_Concat(self, value):  # noqa: N802
        if masks := _masks(value.parts):
            # Equal expressions are other objects in a design that was elaborated, but their code is the same.
            operands = {self(operand): operand for operand in (part.operands[0].operands[0] for part in value.parts)}
            (code, operand), *others = operands.items()
            if not others and not operand.shape().signed and len(operand) < _TABLE_BITS * len(masks):
                return _looked_up(code, len(operand), masks)
        terms, offset = list[str](), 0
        for (code, width), same in groupby((self(part), len(part)) for part in value.parts):
            count = len(list(same))
            # Factor with a 1 where each of the equal parts begins.
            ones = sum(1 << width * n for n in range(count))
            terms.append(f"(({_mask(width):#x} & {code}) * {ones << offset:#x})")
            offset += width * count
        return f"({' | '.join(terms)})" if terms else "0"


def _is_masked(value: Value) -> bool:
    """Tell whether the code of a value has no bits but those of the value; that of others is masked where it is used."""
    if isinstance(value, Operator):
        # A difference and an inversion are negative, the others interpret an operand's bits anew.
        return value.operator not in ("-", "~", "r^", "u", "s") and not any(part.shape().signed for part in value.operands)
    return isinstance(value, Signal | Slice | Part | Concat | SwitchValue) and not value.shape().signed


def _masks(parts: Sequence[Value]) -> list[int]:
    """Return the masks if all parts are parities of something under a constant mask."""
    masks = list[int]()
    for part in parts:
        match part:
            case Operator(operator="r^", operands=[Operator(operator="&", operands=[_, Const(value=mask)])]):
                masks.append(mask)
            case _:
                return []
    return masks


def _looked_up(code: str, bits: int, masks: list[int]) -> str:
    """Write parities under many masks as tables of a few bits each, whose entries are XORed: a parity is linear."""
    columns = [sum((mask >> bit & 1) << row for row, mask in enumerate(masks)) for bit in range(bits)]
    terms = list[str]()
    for at in range(0, bits, _TABLE_BITS):
        table = [0]
        for column in columns[at : at + _TABLE_BITS]:
            table += [entry ^ column for entry in table]
        terms.append(f"{tuple(table)}[{len(table) - 1} & {code} >> {at}]")
    return f"({' ^ '.join(terms)})"


def _mask(width: int) -> int:
    return (1 << width) - 1
