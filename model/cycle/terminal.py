"""Terminals are the ends of a system: blocks that send given flits at given cycles, or record what arrives."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightfabric.model.kernel.block import Block, Input, Memory, Output
from lightfabric.model.kernel.channel import FLIT, NEVER, NO_FLIT, Channels, Fifo, free_space, peek, pop, push, wake_at
from lightfabric.model.kernel.compiled import Records, compiled


def flits(count_flits: int, **fields: ArrayLike) -> Records:
    """Make an array of flits with the given fields, the others 0: ``flits(3, packet=range(3), last=True)``."""
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
        """Show how many flits were sent so far."""
        return f"{self.path} {self.state.sent}"


@compiled
def _open_cycle(now: int, pauses: Records, first: int, length: int) -> int:
    """Find the first cycle from ``now`` on that a repeated pause pattern leaves open, or NEVER."""
    if length == 0:
        return now
    # A pattern that pauses always never opens: one turn of it tells.
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
        # Compiled code must not allocate: what exceeds the capacity is counted, and refused when it is asked for.
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
        """Give the flits popped so far, as RECEIVED; ValueError if there were more than ``capacity_flits``."""
        taken = int(self.state.taken)
        if taken > len(self.cycles):
            raise ValueError(f"Sink.capacity_flits must be at least {taken}, not {len(self.cycles)}")
        records = np.zeros(taken, RECEIVED)
        records["cycle"] = self.cycles[:taken]
        for name in FLIT.names or ():
            records[name] = self.received[name][:taken]
        return records

    def line_trace(self) -> str:
        """Show how many flits were taken so far."""
        return f"{self.path} {self.state.taken}"
