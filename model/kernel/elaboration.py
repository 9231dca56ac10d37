"""Elaboration checks who is bound to what, and lays out all instances and channels of a system as flat arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.kernel.block import Block, Port, Step
from lightfabric.model.kernel.channel import FIFO, FLIT, NEVER, SIGNAL, TIMER, Channel, Channels, Fifo, Signal
from lightfabric.model.kernel.compiled import PAGE, Records, record


@dataclass(frozen=True)
class Kind:
    """Holds all instances of one block class, laid out for its step function."""

    step: Step
    awake: NDArray[np.int32]
    arguments: tuple[Records, tuple[Records, ...], tuple[Records, ...]]
    """Its states, memories and tables of ports."""


LEAST_TURN_CYCLES = 64
"""The calendar's wheel has at least so many rows: what is further away is looked for block by block."""
LINE_BYTES = 64
"""A line of the processor's caches has so many bytes."""


def _aligned(*arrays: NDArray[Any]) -> NDArray[Any]:
    """Join arrays to one that begins with a line of the cache, so that no record of that size lies in two.

    What is zero is not written, so that large arrays take no memory before they are used.
    """
    dtype, size = arrays[0].dtype, sum(array.nbytes for array in arrays)
    room = np.zeros(size + LINE_BYTES, np.uint8)
    first = -room.ctypes.data % LINE_BYTES
    joined = room[first : first + size]
    begin = 0
    for array in arrays:
        content = np.ascontiguousarray(array).view(np.uint8)
        if content.any():
            joined[begin : begin + array.nbytes] = content
        begin += array.nbytes
    return joined.view(dtype)


Ends = dict[Channel, tuple[list[Port], list[Port]]]


def _all_ports(blocks: Sequence[Block]) -> Iterator[Port]:
    return (port for block in blocks for ports in block.ports.values() for port in ports)


def find_ends(blocks: Sequence[Block], named: Sequence[Channel]) -> Ends:
    """Find the producer and consumer ports of each channel."""
    ends: Ends = {channel: ([], []) for channel in named}
    for port in _all_ports(blocks):
        for channel in port.bound:
            ends.setdefault(channel, ([], []))[not port.is_output].append(port)
    return ends


def binding_errors(blocks: Sequence[Block], ends: Ends) -> Iterator[str]:
    """Write a line for each port or channel that is not bound as it must be."""
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


def number(channels: Sequence[Channel], ends: Ends) -> None:
    """Give channels of one type their indices, and names to those that have none."""
    for index, channel in enumerate(channels):
        channel.index, channel.path = index, _channel_path(channel, ends[channel])


def lay_out_kind(blocks: Sequence[Block], awake: NDArray[np.int32], start: int) -> Kind:
    """Move the instances' states and memories into shared arrays, and leave views of these with the instances."""
    first = blocks[0]
    state = _aligned(np.array([block.state for block in blocks], first.state_dtype))
    for index, block in enumerate(blocks):
        block.state, block.index = state[index], start + index
        block.state.block = block.index
    memories = tuple(
        (lay_out_pages if memory.is_paged else _lay_out_memory)(name, blocks)
        for name, memory in first.declared_memory.items()
    )
    ports = tuple(
        _port_table([block.ports[name] for block in blocks], first.declared_ports[name].is_array) for name in first.ports
    )
    return Kind(type(first).step, awake, (state, memories, ports))


def _lay_out_memory(name: str, blocks: Sequence[Block]) -> NDArray[Any]:
    array, used = _aligned(*(block.memory[name] for block in blocks)), 0
    for block in blocks:
        size = len(block.memory[name])
        block.state[f"{name}_start"], block.state[f"{name}_count"] = used, size
        block.memory[name] = array[used : used + size]
        used += size
    return array


def lay_out_pages(name: str, blocks: Sequence[Block]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Tell where the pages of all instances begin, and keep equal ones once. The instances keep their arrays."""
    starts, begins = dict[bytes, int](), list[int]()
    # Routers of a torus have tables that differ at few nodes: most pages are there already.
    for block in blocks:
        content = block.memory[name]
        block.state[f"{name}_start"], block.state[f"{name}_count"] = len(begins), len(content)
        for begin in range(0, len(content), PAGE):
            begins.append(starts.setdefault(content[begin : begin + PAGE].tobytes(), PAGE * len(starts)))
    entries = np.zeros(PAGE * len(starts), blocks[0].memory[name].dtype)
    for content, begin in starts.items():
        held = np.frombuffer(content, entries.dtype)
        entries[begin : begin + len(held)] = held
    return np.array(begins, np.int32), entries


def _port_table(ports: Sequence[Sequence[Port]], is_array: bool) -> NDArray[np.int32]:
    """Table the channels by instance, for arrays of ports also by element; -1 where one has fewer than the widest."""
    table = np.full((len(ports), max(len(row) for row in ports)), -1, np.int32)
    for index, row in enumerate(ports):
        table[index, : len(row)] = [port.bound[0].index for port in row]
    return table if is_array else table[:, 0].copy()


ROW = record(start="i4", instances="i4", first_word="i4", words="i4")
"""A kind in the rows of the calendar: the index of its first block, its first word, and the words of each instance; 0 where
they have a byte each."""


def lay_out_rows(kinds: Sequence[Sequence[Block]]) -> Records:
    """Lay out where each kind has its flags in a row of the calendar."""
    rows = np.zeros(len(kinds), ROW)
    start = first_word = 0
    for row, blocks in zip(rows, kinds, strict=True):
        row.start, row.instances, row.first_word = start, len(blocks), first_word
        if type(blocks[0]).sees_arrivals:
            # One flag more than inputs: the last is the block's own, for its alarms and credits.
            row.words = max(len(_fifo_inputs(block)) for block in blocks) // 64 + 1
        start += len(blocks)
        first_word += _row_words(row)
    return rows


def _row_words(row: Records) -> int:
    return int(row.instances) * int(row.words) or int(row.instances) + 7 >> 3


def lay_out(
    kinds: Sequence[Sequence[Block]], rows: Records, fifos: Sequence[Fifo], signals: Sequence[Signal], ends: Ends
) -> Channels:
    """Lay out all channels empty and all alarms off."""
    fifo, slots = _lay_out_fifos(fifos, ends)
    signal, reader = _lay_out_signals(signals, ends)
    timer = _lay_out_flags(kinds, rows, fifo)
    fifo["is_clocked"] = timer["period_cycles"][fifo["consumer"]] > 1
    # A channel wakes no further ahead than its latency, rounded up to an edge: the wheel holds all of these.
    ahead_cycles = int(max(fifo["latency_cycles"].max(initial=1), fifo["credit_cycles"].max(initial=1)))
    turn_cycles = max(LEAST_TURN_CYCLES, 1 << (ahead_cycles + int(timer["period_cycles"].max(initial=1))).bit_length())
    words = int(rows["first_word"][-1] + _row_words(rows[-1])) if len(rows) else 0
    wheel = np.zeros((turn_cycles, 8 * words), np.uint8)
    return Channels(
        _aligned(fifo),
        _aligned(np.zeros(slots, np.int64)),
        _aligned(np.zeros(slots, FLIT)),
        np.arange(slots, dtype=np.int32)[::-1].copy(),
        np.full(1, slots, np.int64),
        signal,
        reader,
        timer,
        wheel,
        wheel.view(np.int64),
        np.zeros(turn_cycles, np.uint8),
        np.full(1, NEVER, np.int64),
    )


def _lay_out_flags(kinds: Sequence[Sequence[Block]], rows: Records, fifo: Records) -> Records:
    """Lay out the clocks of all blocks, and the flags of these and of their Fifo inputs."""
    timer = np.zeros(sum(len(blocks) for blocks in kinds), TIMER)
    for row, blocks in zip(rows, kinds, strict=True):
        for number, block in enumerate(blocks):
            inputs = [channel.index for channel in _fifo_inputs(block)]
            first = 64 * row.first_word + (64 * row.words or 8) * number
            flag = first + (len(inputs) if row.words else 0)
            timer[block.index] = (NEVER, block.period_cycles, block.phase_cycles, flag)
            fifo["flag"][inputs] = first + np.arange(len(inputs)) if row.words else first
            block.state.first_word = row.first_word + row.words * number
    return timer


def _fifo_inputs(block: Block) -> list[Channel]:
    """List the Fifos whose flits a block takes, in the order of its ports."""
    return [
        port.bound[0]
        for ports in block.ports.values()
        for port in ports
        if not port.is_output and issubclass(port.channel_type, Fifo)
    ]


def _lay_out_fifos(fifos: Sequence[Fifo], ends: Ends) -> tuple[Records, int]:
    fifo = np.zeros(len(fifos), FIFO)
    for name in ("depth", "latency_cycles", "credit_cycles"):
        fifo[name] = [getattr(channel, name) for channel in fifos]
    for side, name in enumerate(("producer", "consumer")):
        fifo[name] = [ends[channel][side][0].block.index for channel in fifos]
    # Rings of a power of two: a mask finds the slot of a counter that only grows.
    sizes = np.array([1 << (channel.depth - 1).bit_length() for channel in fifos], np.int64)
    fifo["mask"], fifo["first_slot"] = sizes - 1, np.cumsum(sizes) - sizes
    fifo["flit_bits"] = (int(sizes.sum()) - 1).bit_length() if fifos else 0
    return fifo, int(sizes.sum())


def _lay_out_signals(signals: Sequence[Signal], ends: Ends) -> tuple[Records, NDArray[np.int32]]:
    signal = np.zeros(len(signals), SIGNAL)
    readers: list[int] = []
    for this, channel in zip(signal, signals, strict=True):
        blocks = [port.block.index for port in ends[channel][1]]
        this.value = this.written = channel.initial
        this.written_cycle, this.first_reader, this.readers = -1, len(readers), len(blocks)
        readers += blocks
    return signal, np.array(readers, np.int32)
