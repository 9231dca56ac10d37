"""The link in the cycle model: slots of the line, credits that travel in the other direction's headers, replay window.

What it does is that of ``lightfabric.rtl.link`` on a line without errors; when it does it comes from ``LinkTiming``.
"""

from fractions import Fraction
from functools import cache

import numpy as np

from lightfabric.model.block import Block, Inputs, Memory, Module, Outputs, connect
from lightfabric.model.channel import NEVER, NO_FLIT, Channels, Fifo, free_space, peek, pop, push_later, wake_at
from lightfabric.model.compiled import Records, compiled
from lightfabric.model.kernel import System
from lightfabric.model.slot import Slots, beat_cycle, first_beat_from
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.terminal import Sink, Source, flits
from lightfabric.model.timing import LinkTiming


@compiled
def _decided_cycle(me: Records, slot: int) -> int:
    beat = slot * me.beats_per_flit - 1
    return beat_cycle(beat, me.first_beat_cycle, me.beats, me.cycles) - me.line_cycles


@compiled
def _decided_from(me: Records, cycle: int) -> int:
    beat = first_beat_from(cycle + me.line_cycles, me.first_beat_cycle, me.beats, me.cycles)
    return max(1, -(-(beat + 1) // me.beats_per_flit))


@compiled
def _arrival_cycle(me: Records, slot: int) -> int:
    return _decided_cycle(me, slot + 1) + me.line_cycles + me.delay_cycles


@compiled
def _credit_usable_cycle(me: Records, credit_cycle: int, channel: int) -> int:
    """From the credit at the far end over a slot in the other direction whose turn it is to this transmitter."""
    slot = _decided_from(me, credit_cycle + me.credit_out_cycles)
    slot += (channel - (slot - me.first_credit_slot)) % me.channels
    return _arrival_cycle(me, slot) + me.credit_in_cycles


@compiled
def _room_cycle(me: Records, slot: int) -> int:
    """When the replay buffer of the flit in ``slot`` is free again."""
    ack_slot = _decided_from(me, _arrival_cycle(me, slot) + me.ack_out_cycles)
    return _arrival_cycle(me, ack_slot) + me.ack_in_cycles


@compiled
def _credits(now: int, me: Records, channel: int, returned: Records, usable: Records, channels: Channels, fifo: int) -> int:
    """Flits that may be sent now in a virtual channel; takes in the credits that the far end has given back since."""
    state = me.returned_start + channel
    free_space(now, channels, fifo)
    this = channels.fifo[fifo]
    ring = me.usable_start + channel * me.depth
    while returned[state].seen < this.returned:
        popped_cycle = channels.credit_cycle[this.first_slot + (returned[state].seen & this.mask)] - this.credit_cycles
        usable[ring + returned[state].seen % me.depth] = _credit_usable_cycle(me, popped_cycle, channel)
        returned[state].seen += 1
    while returned[state].usable < returned[state].seen and usable[ring + returned[state].usable % me.depth] <= now:
        returned[state].usable += 1
    return me.depth - (this.tail - returned[state].usable)


@compiled
def _choose(now: int, me: Records, index: int, i: Records, o: Records, memory: Records, channels: Channels) -> int:
    """The virtual channel whose turn it is among those with a flit and a credit; -1 if none. Wakes for the next credit."""
    returned, usable, _ = memory
    chosen, least_wait = -1, channels.flit.shape[0]
    for channel in range(me.channels):
        if peek(now, channels, i[index, channel]) == NO_FLIT:
            continue
        if _credits(now, me, channel, returned, usable, channels, o[index, channel]) > 0:
            wait = (channel - me.turn) % me.channels
            if chosen < 0 or wait < least_wait:
                chosen, least_wait = channel, wait
        else:
            state = returned[me.returned_start + channel]
            if state.usable < state.seen:
                wake_at(now, channels, me.block, usable[me.usable_start + channel * me.depth + state.usable % me.depth])
    return chosen


@compiled
def _step_link(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:
    i, o = ports
    _, _, room = memory
    for index in awake:
        me = state[index]
        slot = _decided_from(me, now)
        decided_cycle = _decided_cycle(me, slot)
        if decided_cycle > now:
            for channel in range(me.channels):
                if peek(now, channels, i[index, channel]) != NO_FLIT:
                    wake_at(now, channels, me.block, decided_cycle)
            continue
        oldest = me.room_start + me.sent % me.room_count
        if room[oldest] > now:
            wake_at(now, channels, me.block, room[oldest])
            continue
        channel = _choose(now, me, index, i, o, memory, channels)
        if channel < 0:
            continue
        valid_cycle = _arrival_cycle(me, slot) + me.deliver_cycles
        given = push_later(now, channels, o[index, channel], valid_cycle + me.consumer_cycles)
        channels.flit[given] = channels.flit[pop(now, channels, i[index, channel])]
        room[oldest] = _room_cycle(me, slot) if me.ack_in_cycles < NEVER else 0
        me.sent += 1
        me.turn = (channel + 1) % me.channels
        wake_at(now, channels, me.block, now + 1)


_STATE = (
    "first_beat_cycle line_cycles first_credit_slot beats_per_flit beats cycles delay_cycles deliver_cycles consumer_cycles "
    "credit_out_cycles credit_in_cycles ack_out_cycles ack_in_cycles channels depth turn sent"
)


class Link(
    Block,
    step=_step_link,
    state=dict.fromkeys(_STATE.split(), "i8"),
):
    """One direction of a link, from the channel at one end to the channel at the other.

    ``i`` and ``o`` have one Fifo per virtual channel. A flit in ``i`` stands for one that was valid at the hardware's input
    ``accept_cycles`` before it can be popped, one in ``o`` for one valid at the output ``consumer_cycles`` before: make
    them by :meth:`input_fifo` and :meth:`output_fifo`. Both directions start out of reset in cycle 0.
    """

    i = Inputs(Fifo)
    o = Outputs(Fifo)
    returned = Memory([("seen", "i8"), ("usable", "i8")])
    usable = Memory("i8")
    room = Memory("i8")

    def __init__(self, spec: ChipletSpec, timing: LinkTiming, delay_cycles: int = 0, consumer_cycles: int = 1):
        slots = Slots.of(spec, timing.first_beat_cycle, timing.line_cycles)
        self.spec, self.consumer_cycles = spec, consumer_cycles
        self.longest_cycles = 3 * slots.longest_cycles + delay_cycles + timing.deliver_cycles + consumer_cycles + 1
        channels = spec.virtual_channels
        super().__init__(
            state={
                "first_beat_cycle": slots.first_beat_cycle,
                "line_cycles": slots.line_cycles,
                "first_credit_slot": timing.first_credit_slot,
                "beats_per_flit": slots.beats_per_flit,
                "beats": slots.beats,
                "cycles": slots.cycles,
                "delay_cycles": delay_cycles,
                "deliver_cycles": timing.deliver_cycles,
                "consumer_cycles": consumer_cycles,
                "credit_out_cycles": timing.credit_out_cycles,
                "credit_in_cycles": timing.credit_in_cycles,
                "ack_out_cycles": timing.ack_out_cycles,
                "ack_in_cycles": NEVER if timing.ack_in_cycles is None else timing.ack_in_cycles,
                "channels": channels,
                "depth": spec.buffer_flits,
            },
            memory={
                "returned": np.zeros(channels, [("seen", "i8"), ("usable", "i8")]),
                "usable": np.zeros(channels * spec.buffer_flits, np.int64),
                "room": np.zeros(spec.replay_flits, np.int64),
            },
            widths={"i": channels, "o": channels},
        )

    @staticmethod
    def input_fifo(spec: ChipletSpec, timing: LinkTiming, producer_cycles: int = 0) -> Fifo:
        """A channel into a link from a producer whose flits are valid ``producer_cycles`` after it pushes them."""
        return Fifo(spec.buffer_flits, producer_cycles + timing.accept_cycles)

    def output_fifo(self) -> Fifo:
        """A channel out of this link."""
        return Fifo(self.spec.buffer_flits, self.longest_cycles)


@cache
def sustained_cycles_per_flit(spec: ChipletSpec, timing: LinkTiming, delay_cycles: int) -> Fraction:
    """Cycles per flit of a long stream over all virtual channels, over a fibre of this delay, to a consumer that waits.

    Simulated on this block: the line, the credits or the replay buffer limit it, whichever is slowest.
    """
    channels = spec.virtual_channels
    count = 8 * max(spec.buffer_flits, -(-spec.replay_flits // channels))
    top, sinks = Module(), list[Sink]()
    link = top.add("link", Link(spec, timing, delay_cycles))
    for v in range(channels):
        source = top.add(f"source_{v}", Source(np.zeros(count), flits(count, virtual_channel=v)))
        sinks.append(top.add(f"sink_{v}", Sink(capacity_flits=count)))
        connect(source.o, link.i[v], Link.input_fifo(spec, timing))
        connect(link.o[v], sinks[-1].i, link.output_fifo())
    System(top).run_to_idle(limit_cycle=NEVER)
    cycles = sorted(cycle for sink in sinks for cycle in sink.records["cycle"].tolist())
    half = len(cycles) // 2
    return Fraction(cycles[-1] - cycles[-1 - half], half)
