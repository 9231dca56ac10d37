"""Blocks have typed ports, modules group them, and ports are bound to channels. See docs/kernel.md."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from lightfabric.model.kernel.channel import Channel, Channels
from lightfabric.model.kernel.compiled import Records, record


@dataclass(eq=False, slots=True)
class Port:
    """Is one port of one block; ``number`` is its place in an array of ports, else -1."""

    block: "Block"
    declaration: "_Declaration"
    number: int
    bound: list[Channel] = field(default_factory=list[Channel])

    @property
    def channel_type(self) -> type[Channel]:
        """Give the type of channel that the port must be bound to."""
        return self.declaration.channel_type

    @property
    def is_output(self) -> bool:
        """Tell whether the block is the producer."""
        return self.declaration.is_output

    @property
    def path(self) -> str:
        """Give the name of the port in the hierarchy."""
        element = f"[{self.number}]" if self.number >= 0 else ""
        return f"{self.block.path or type(self.block).__name__}.{self.declaration.name}{element}"

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
    """Declares an input among the class attributes of a block."""

    def __get__(self, block: "Block", owner: type) -> Port:
        return block.ports[self.name][0]


class Output(Input):
    """Declares an output among the class attributes of a block."""

    is_output = True


class Inputs(_Declaration):
    """Declares an array of inputs; each instance says how many in ``Block(widths=...)``.

    The step function gets a table by instance and element, as wide as the widest instance; others have -1 in the rest.
    """

    is_array = True

    def __get__(self, block: "Block", owner: type) -> list[Port]:
        return block.ports[self.name]


class Outputs(Inputs):
    """Declares an array of outputs, otherwise as :class:`Inputs`."""

    is_output = True


class Memory:
    """Declares an array of a block, of a size that each instance chooses by its initial content.

    Compiled code gets one array for all instances of the kind; an instance's own elements are
    ``[me.name_start : me.name_start + me.name_count]``. On the instance it reads as an array.

    Of large tables that are only read and much alike, say ``is_paged``: pages of ``PAGE`` entries that are equal are kept
    once. Compiled code gets a pair for ``look_up``, ``me.name_start`` is the first page.
    """

    def __init__(self, dtype: Any, is_paged: bool = False) -> None:
        self.dtype, self.is_paged = np.dtype(dtype), is_paged

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, block: "Block", owner: type) -> Records:
        return block.memory[self.name]


Step = Callable[[int, Records, Records, Records, Records, Channels], None]
"""``step(now, awake, state, memory, ports, channels)``: one call per cycle for the ``awake`` instances of a kind."""


class Block:
    """Is one instance of a kind of block: ``class Delay(Block, step=_step_delay, state={"sent": "i8"})``.

    The class attributes of type Input, Output, Inputs, Outputs and Memory are its ports and arrays, and are handed to
    ``step`` in the order of their declaration. The state record has the given fields, ``block`` (for ``wake_at``),
    ``first_word`` (for ``arrivals``, in a class that ``sees_arrivals``), and ``_start`` and ``_count`` of each memory. Each
    instance is stepped once at cycle 0 (or its first clock edge), then when a flit arrives, a missing credit returns, a
    signal changes, or at the cycle it asked for; at times without need.

    ``period_cycles`` and ``phase_cycles`` are the clock of the instance: it is stepped only in the cycles
    ``phase + n * period``.
    """

    declared_ports: ClassVar[Mapping[str, _Declaration]] = {}
    declared_memory: ClassVar[Mapping[str, Memory]] = {}
    state_dtype: ClassVar[np.dtype[Any]]
    step: ClassVar[Step]
    sees_arrivals: ClassVar[bool]
    path: str = ""
    index: int = -1

    def __init_subclass__(cls, step: Step, state: Mapping[str, Any] | None = None, sees_arrivals: bool = False) -> None:
        # A class body keeps the order of its attributes, and that is the order in which ``step`` gets them.
        cls.declared_ports = {name: item for name, item in vars(cls).items() if isinstance(item, _Declaration)}
        cls.declared_memory = {name: item for name, item in vars(cls).items() if isinstance(item, Memory)}
        bounds = {f"{name}_{bound}": "i4" for name in cls.declared_memory for bound in ("start", "count")}
        cls.state_dtype = record(**(state or {}), **bounds, block="i4", first_word="i4")
        cls.sees_arrivals = sees_arrivals
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
        kind = type(self).__name__
        if not 1 <= period_cycles <= 1 << 20:
            raise ValueError(f"{kind}.period_cycles must be from 1 to 1048576, not {period_cycles}")
        if not 0 <= phase_cycles < period_cycles:
            raise ValueError(f"{kind}.phase_cycles must be from 0 to {period_cycles - 1}, not {phase_cycles}")
        # A record of its own until elaboration moves it into the array of its kind: a test may look at a lone block.
        self.state: Any = np.zeros(1, self.state_dtype)[0]
        for name, value in (state or {}).items():
            self.state[name] = value
        given = memory or {}
        self.memory = {name: np.asarray(given[name], item.dtype) for name, item in self.declared_memory.items()}
        self.ports = {name: self._make_ports(item, (widths or {}).get(name)) for name, item in self.declared_ports.items()}

    def _make_ports(self, item: _Declaration, width: int | None) -> list[Port]:
        return [Port(self, item, number) for number in (range(width or 0) if item.is_array else [-1])]

    def line_trace(self) -> str:
        """Show the block in a few characters after a cycle; a kind overrides it. Empty: not in the trace."""
        return ""


Child = TypeVar("Child", bound="Module | Block | Channel")


class Module:
    """Groups blocks, channels and modules under names; ports of a module are the ports of the blocks in it."""

    def __init__(self) -> None:
        self.path = ""
        self.children: dict[str, Module | Block | Channel] = {}

    def add(self, name: str, child: Child) -> Child:
        """Put ``child`` under ``name`` and return the child."""
        if name in self.children:
            raise ValueError(f"{type(self).__name__}.{name} must be added once, not again")
        self.children[name] = child
        return child
