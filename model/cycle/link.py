"""The link in the cycle model: slots of the line, credits and answers in the other direction's headers, replay, retraining.

What it does is that of ``lightfabric.rtl.link``; when it does it comes from ``LinkTiming``. On a line without losses each
flit's slot follows when it is staged; otherwise the block goes from slot to slot while it keeps flits.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.cycle.slot import Losses, Slots, beat_cycle, first_beat_from, is_lost
from lightfabric.model.cycle.terminal import Sink, Source, flits
from lightfabric.model.kernel.block import Block, Inputs, Memory, Module, Outputs, connect
from lightfabric.model.kernel.channel import (
    FLIT,
    NEVER,
    NO_FLIT,
    Channels,
    Fifo,
    free_space,
    peek,
    pop,
    push_later,
    slot_cycle,
    wake_at,
)
from lightfabric.model.kernel.compiled import Records, compiled, record
from lightfabric.model.kernel.system import System
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import LinkTiming

TIMEOUT_SLOTS = 375
REPLAYS_TO_RETRAIN = 3
BAD_SLOTS_TO_RETRAIN = 16
SETS = 16
"""Training sets in a cycle; a training ends with a whole one."""
LOSS_SPACING = 8
"""Round trips from loss to loss when the cost of one is measured: their replays hardly meet."""
MEASURED_LOSSES = 256
"""So many show all phases of slots against clock and answers."""


@compiled
def _decided_cycle(me: Records, slot: int) -> int:
    beat = me.frame_beat + slot * me.beats_per_flit - 1
    return beat_cycle(beat, me.first_beat_cycle, me.beats, me.cycles) - me.line_cycles


@compiled
def _beat_from(me: Records, cycle: int) -> int:
    """The first beat that the line takes up in ``cycle`` or later."""
    return first_beat_from(cycle + me.line_cycles, me.first_beat_cycle, me.beats, me.cycles)


@compiled
def _decided_from(me: Records, cycle: int) -> int:
    return max(1, -(-(_beat_from(me, cycle) + 1 - me.frame_beat) // me.beats_per_flit))


@compiled
def _arrival_cycle(me: Records, slot: int) -> int:
    return _decided_cycle(me, slot + 1) + me.line_cycles + me.delay_cycles


@compiled
def _arrived_by(me: Records, cycle: int) -> int:
    """The last slot that arrives in ``cycle`` or before."""
    return (_beat_from(me, cycle + 1 - me.line_cycles - me.delay_cycles) - me.frame_beat) // me.beats_per_flit - 1


@compiled
def _loses(me: Records, slot: int, backwards: int) -> bool:
    first_beat, stream = me.frame_beat + slot * me.beats_per_flit, me.stream + backwards
    return me.losses > 0 and is_lost(first_beat, stream, me.losses, me.echoes, me.beats_per_flit)


@compiled
def _answers(me: Records, slot: int) -> bool:
    """Whether a slot of the other direction answers and is not lost."""
    return slot >= me.first_answer_slot and (slot - me.first_answer_slot) % 2 == 0 and not _loses(me, slot, 1)


@compiled
def _credit_usable_cycle(me: Records, credit_cycle: int, channel: int) -> int:
    """From the credit at the far end over a slot in the other direction whose turn it is to this transmitter."""
    slot = _decided_from(me, credit_cycle + me.credit_out_cycles)
    slot += (channel - (slot - me.first_credit_slot)) % me.channels
    while _loses(me, slot, 1):
        slot += me.channels
    return _arrival_cycle(me, slot) + me.credit_in_cycles


@compiled
def _room_cycle(me: Records, slot: int) -> int:
    """When the replay buffer of the flit in ``slot`` is free again."""
    answer = _decided_from(me, _arrival_cycle(me, slot) + me.ack_out_cycles)
    answer += (answer - me.first_answer_slot) % 2
    return _arrival_cycle(me, answer) + me.ack_in_cycles


@compiled
def _credits(now: int, me: Records, channel: int, credits_: Records, usable: Records, channels: Channels, fifo: int) -> int:
    """Flits that may be staged now in a virtual channel; takes in the credits that the far end has given back since."""
    state = credits_[me.credits_start + channel]
    free_space(now, channels, fifo)
    this = channels.fifo[fifo]
    ring = me.usable_start + channel * me.depth
    while state.seen < this.returned:
        popped_cycle = slot_cycle(channels, this, state.seen) - this.credit_cycles
        usable[ring + state.seen % me.depth] = _credit_usable_cycle(me, popped_cycle, channel)
        state.seen += 1
    while state.usable < state.seen and usable[ring + state.usable % me.depth] <= now:
        state.usable += 1
    return me.depth - (state.spent - state.usable)


@compiled
def _choose(now: int, me: Records, index: int, i: Records, o: Records, memory: Records, channels: Channels) -> int:
    """The virtual channel whose turn it is among those with a flit and a credit; -1 if none. Wakes for the next credit."""
    credits_, usable, _, _, _, _ = memory
    chosen, least_wait = -1, channels.flit.shape[0]
    for channel in range(me.channels):
        if peek(now, channels, i[index, channel]) == NO_FLIT:
            continue
        if _credits(now, me, channel, credits_, usable, channels, o[index, channel]) > 0:
            wait = (channel - me.turn) % me.channels
            if chosen < 0 or wait < least_wait:
                chosen, least_wait = channel, wait
        else:
            state = credits_[me.credits_start + channel]
            if state.usable < state.seen:
                wake_at(now, channels, me.block, usable[me.usable_start + channel * me.depth + state.usable % me.depth])
    return chosen


@compiled
def _stage(now: int, me: Records, index: int, i: Records, o: Records, memory: Records, channels: Channels) -> int:
    """The place in ``channels.flit`` of the flit that is staged now; NO_FLIT, and a call in time, if it is not time yet."""
    vacant_cycle = max(me.vacant_cycle, me.linked_cycle)
    if now < vacant_cycle:
        wake_at(now, channels, me.block, vacant_cycle)
        return NO_FLIT
    channel = _choose(now, me, index, i, o, memory, channels)
    if channel < 0:
        return NO_FLIT
    me.turn = (channel + 1) % me.channels
    memory[0][me.credits_start + channel].spent += 1
    return pop(now, channels, i[index, channel])


@compiled
def _send_surely(now: int, me: Records, index: int, i: Records, o: Records, memory: Records, channels: Channels) -> None:
    """Stage a flit and deliver it: on a line without losses all follows from that."""
    room = memory[2]
    taken = _stage(now, me, index, i, o, memory, channels)
    if taken == NO_FLIT:
        return
    oldest = me.room_start + me.sent % me.room_count
    slot = _decided_from(me, max(now + me.stage_cycles, room[oldest]))
    valid_cycle = _arrival_cycle(me, slot) + me.deliver_cycles
    given = push_later(now, channels, o[index, channels.flit[taken].virtual_channel], valid_cycle + me.consumer_cycles)
    channels.flit[given] = channels.flit[taken]
    room[oldest] = _room_cycle(me, slot)
    me.sent += 1
    me.vacant_cycle = _decided_cycle(me, slot) + me.next_cycles - me.stage_cycles
    wake_at(now, channels, me.block, me.vacant_cycle)


@compiled
def _rewind(me: Records, cycle: int, received: int) -> None:
    """Send again all that is kept, from the flit after the one received."""
    me.left = me.place if me.busy and me.replay_cycle <= cycle else NO_FLIT
    me.busy, me.jumps, me.place = 1, 1, received + 1
    me.replay_cycle = cycle + me.nak_in_cycles - me.halt_in_cycles
    me.answered, me.replay_slot, me.idle_slots = received, me.slot, 0
    if me.tries == REPLAYS_TO_RETRAIN:
        me.trouble_cycle = min(me.trouble_cycle, cycle)
    else:
        me.tries += 1


@compiled
def _hear(me: Records, decided_cycle: int, flight: Records) -> None:
    """What answers of the other direction have told until a slot is decided."""
    while _arrival_cycle(me, me.acks_heard) + me.ack_in_cycles <= decided_cycle:
        if _answers(me, me.acks_heard):
            slot = _arrived_by(me, _decided_cycle(me, me.acks_heard) - me.ack_out_cycles)
            received = flight[me.flight_start + slot % me.flight_count].received
            if received > me.acked:
                me.acked, me.idle_slots, me.tries = received, 0, 0
                _skip_acknowledged(me, _arrival_cycle(me, me.acks_heard) + me.ack_in_cycles)
        me.acks_heard += 1
    while _arrival_cycle(me, me.naks_heard) + me.halt_in_cycles <= decided_cycle:
        if _answers(me, me.naks_heard):
            _hear_request(me, flight)
        me.naks_heard += 1


@compiled
def _skip_acknowledged(me: Records, cycle: int) -> None:
    """A replay goes on after what was acknowledged meanwhile. A flit sent again in the cycle before is not counted yet."""
    if me.busy and me.place - (me.again_cycle == cycle - 1) <= me.acked:
        me.place, me.jumps = me.acked + 1, 1
        read_cycles = me.nak_in_cycles - me.halt_in_cycles if me.place <= me.newest else 1
        me.replay_cycle = max(me.replay_cycle, cycle + read_cycles)


@compiled
def _hear_request(me: Records, flight: Records) -> None:
    """If a replay is asked for it starts, unless it is the one under way. What happens a cycle before comes too late."""
    decided_cycle = _decided_cycle(me, me.naks_heard)
    slot = _arrived_by(me, decided_cycle - me.ack_out_cycles)
    received = flight[me.flight_start + slot % me.flight_count].received
    slot = _arrived_by(me, decided_cycle - me.nak_out_cycles)
    then = flight[me.flight_start + slot % me.flight_count]
    if not then.wanting or received > then.received:  # a flit in order ends the wanting at once
        return
    cycle = _arrival_cycle(me, me.naks_heard) + me.halt_in_cycles
    is_late = _decided_cycle(me, me.slot - 1) == cycle - 1
    waits = me.slot - is_late - me.replay_slot < me.replay_flits
    kept = me.newest - max(me.acked, received) - (me.put_cycle == cycle - 1)
    if kept > 0 and not (waits and me.answered == received):
        _rewind(me, cycle, received)


@compiled
def _carried(me: Records, decided_cycle: int) -> int:
    """The number of the flit that the next slot carries, -1 for none."""
    left, me.left = me.left, NO_FLIT
    if left != NO_FLIT and decided_cycle == me.replay_cycle - me.nak_in_cycles + me.halt_in_cycles:
        return left
    if me.busy and decided_cycle < me.replay_cycle:
        return -1
    if me.busy and me.place <= me.newest:
        me.place += 1
        me.busy, me.again_cycle = me.place <= me.newest, decided_cycle
        return me.place - 1
    me.busy = 0
    waits = me.staged == 0 or me.staged_cycle + me.stage_cycles > decided_cycle
    if waits or me.newest - me.acked >= me.replay_flits:
        return -1
    me.newest += 1
    me.staged, me.put_cycle = 0, decided_cycle
    me.vacant_cycle = decided_cycle + me.next_cycles - me.stage_cycles
    return me.newest


@compiled
def _decide(now: int, me: Records, decided_cycle: int, index: int, o: Records, memory: Records, channels: Channels) -> None:
    """What a slot carries and what becomes of it at the far end."""
    _, _, _, flight, kept, _ = memory
    slot = me.slot
    if me.idle_slots >= TIMEOUT_SLOTS:
        _rewind(me, decided_cycle, me.acked)
    _hear(me, decided_cycle, flight)
    is_left = me.left
    number = _carried(me, decided_cycle)
    explicit = me.explicit_turn
    if number >= 0 and me.jumps and number != is_left:
        explicit, me.jumps = 1, 0
    me.explicit_turn = 1 - explicit
    me.idle_slots = me.idle_slots + 1 if me.newest > me.acked else 0
    is_whole = min(me.trouble_cycle, me.retrain_cycle) + me.cut_cycles > _decided_cycle(me, slot + 1)
    if is_whole and _receive(me, slot, number, explicit):
        valid_cycle = _arrival_cycle(me, slot) + me.deliver_cycles
        flit = kept[me.kept_start + number % me.kept_count]
        given = push_later(now, channels, o[index, flit.virtual_channel], valid_cycle + me.consumer_cycles)
        channels.flit[given] = flit
    here = flight[me.flight_start + slot % me.flight_count]
    here.received, here.wanting = me.received, me.wanting
    me.slot += 1


@compiled
def _receive(me: Records, slot: int, number: int, explicit: int) -> bool:
    """The far end's receiver at the arrival of a slot; True if it accepts a flit."""
    if _loses(me, slot, 0):
        me.wanting = 1
        me.missed += number == me.received + 1
        me.bad_slots += 1
        if me.bad_slots == BAD_SLOTS_TO_RETRAIN:
            me.trouble_cycle = min(me.trouble_cycle, _arrival_cycle(me, slot) + me.deliver_cycles)
        return False
    me.bad_slots = 0
    accepts = number == me.received + 1
    me.received += accepts
    told = number if number >= 0 else me.newest
    if number >= 0 or explicit:
        me.wanting = 0 if told == me.received else 1 if told > me.received else me.wanting
    return accepts


@compiled
def _train(me: Records, cycle: int, memory: Records) -> None:
    """Training sets instead of slots from ``cycle`` on; then slots anew, and all that the far end has not received."""
    credits_, usable, _, flight, _, retrains = memory
    ready_cycle = cycle + me.train_cycles
    first_set = _beat_from(me, cycle + me.cut_cycles)
    cycles_of_sets = (_beat_from(me, ready_cycle) - first_set) // SETS + 2
    me.frame_beat = first_set + SETS * cycles_of_sets
    me.slot = me.acks_heard = me.naks_heard = me.explicit_turn = 1
    for n in range(me.flight_start, me.flight_start + me.flight_count):
        flight[n].received, flight[n].wanting = me.received, me.wanting
    me.acked, me.tries, me.bad_slots, me.idle_slots, me.busy = me.received, 0, 0, 0, 0
    if me.newest > me.acked:
        _rewind(me, ready_cycle, me.acked)
    me.tries, me.trouble_cycle = 0, NEVER
    for channel in range(me.channels):
        state = credits_[me.credits_start + channel]
        for n in range(state.usable, state.seen):
            place = me.usable_start + channel * me.depth + n % me.depth
            usable[place] = min(usable[place], ready_cycle + me.start_cycles)
    while me.retrained < me.retrains_count and retrains[me.retrains_start + me.retrained] <= ready_cycle:
        me.retrained += 1
    more = me.retrained < me.retrains_count
    me.retrain_cycle = retrains[me.retrains_start + me.retrained] if more else NEVER


@compiled
def _skip_quiet_slots(now: int, me: Records, memory: Records) -> None:
    """Where nothing is kept, only the last few slots matter: losses before them have left no trace."""
    flight = memory[3]
    first = _decided_from(me, now) - me.flight_count
    if me.newest > me.acked or me.staged or first <= me.slot or min(me.trouble_cycle, me.retrain_cycle) <= now:
        return
    me.explicit_turn ^= (first - me.slot) & 1
    me.wanting = me.bad_slots = me.busy = me.idle_slots = 0
    me.slot = first
    me.acks_heard = max(me.acks_heard, first - me.flight_count)
    me.naks_heard = max(me.naks_heard, first - me.flight_count)
    for n in range(me.flight_start, me.flight_start + me.flight_count):
        flight[n].received, flight[n].wanting = me.received, 0


@compiled
def _send_slot_by_slot(
    now: int, me: Records, index: int, i: Records, o: Records, memory: Records, channels: Channels
) -> None:
    """Go on to this cycle, then stage a flit."""
    kept = memory[4]
    _skip_quiet_slots(now, me, memory)
    while True:
        decided_cycle, training_cycle = _decided_cycle(me, me.slot), min(me.trouble_cycle, me.retrain_cycle)
        if training_cycle + me.cut_cycles <= decided_cycle and training_cycle <= now:
            _train(me, training_cycle, memory)
        elif decided_cycle <= now:
            _decide(now, me, decided_cycle, index, o, memory, channels)
        else:
            break
    if not me.staged:
        taken = _stage(now, me, index, i, o, memory, channels)
        if taken != NO_FLIT:
            kept[me.kept_start + (me.newest + 1) % me.kept_count] = channels.flit[taken]
            me.staged, me.staged_cycle = 1, now
    if me.staged or me.newest > me.acked:
        wake_at(now, channels, me.block, min(_decided_cycle(me, me.slot), training_cycle))


@compiled
def _step_link(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:
    i, o = ports
    for index in awake:
        me = state[index]
        if me.is_sure:
            _send_surely(now, me, index, i, o, memory, channels)
        else:
            _send_slot_by_slot(now, me, index, i, o, memory, channels)


_CREDITS = record(seen="i8", usable="i8", spent="i8")
_FLIGHT = record(received="i8", wanting="i8")
"""What the far end's receiver has to answer after a slot."""
_STATE = (
    "first_beat_cycle line_cycles first_credit_slot first_answer_slot beats_per_flit beats cycles delay_cycles "
    "deliver_cycles stage_cycles next_cycles consumer_cycles credit_out_cycles credit_in_cycles ack_out_cycles "
    "ack_in_cycles nak_out_cycles halt_in_cycles nak_in_cycles start_cycles cut_cycles train_cycles channels depth "
    "replay_flits is_sure losses echoes stream missed frame_beat linked_cycle turn sent vacant_cycle slot newest acked "
    "received wanting explicit_turn staged staged_cycle put_cycle busy place replay_cycle jumps left again_cycle answered "
    "replay_slot idle_slots tries acks_heard naks_heard bad_slots trouble_cycle retrain_cycle retrained"
)


class Link(
    Block,
    step=_step_link,
    state=dict.fromkeys(_STATE.split(), "i8"),
):
    """One direction of a link, from the channel at one end to the channel at the other.

    ``i`` and ``o`` have one Fifo per virtual channel. A flit in ``i`` stands for one that was valid at the hardware's input
    ``accept_cycles`` before it can be popped, one in ``o`` for one valid at the output ``consumer_cycles`` before: make
    them by :meth:`input_fifo` and :meth:`output_fifo`.

    The line is trained when the system starts: ``frame_beat`` is the first beat of a slot, and flits are taken from
    ``linked_cycle`` on. Slots of both directions are lost as ``losses`` say, by default those of the spec's bit error rate,
    headers never being what is wrong; in the cycles ``retrain_at`` the line is told to train again. ``state.missed`` is the
    number of slots lost that carried the flit whose turn it was at the far end.
    """

    i = Inputs(Fifo)
    o = Outputs(Fifo)
    credits = Memory(_CREDITS)
    usable = Memory("i8")
    room = Memory("i8")
    flight = Memory(_FLIGHT)
    kept = Memory(FLIT)
    retrains = Memory("i8")

    def __init__(
        self,
        spec: ChipletSpec,
        timing: LinkTiming,
        delay_cycles: int = 0,
        consumer_cycles: int = 1,
        *,
        frame_beat: int = 1,
        linked_cycle: int = 0,
        losses: Losses | None = None,
        retrain_at: Sequence[int] = (),
    ):
        slots = Slots.of(spec, timing.first_beat_cycle, frame_beat, timing.line_cycles)
        losses = Losses.of(spec) if losses is None else losses
        self.spec, self.consumer_cycles = spec, consumer_cycles
        ins = (timing.credit_in_cycles, timing.nak_in_cycles, timing.ack_in_cycles)
        outs = (timing.credit_out_cycles, timing.ack_out_cycles, timing.nak_out_cycles)
        loop_cycles = 2 * delay_cycles + 6 * slots.longest_cycles + max(ins) + max(outs) + timing.line_cycles
        self.longest_cycles = loop_cycles + delay_cycles + timing.deliver_cycles + consumer_cycles + timing.stage_cycles
        channels, ahead_slots = spec.virtual_channels, 4 + loop_cycles * slots.beats // (slots.cycles * slots.beats_per_flit)
        retrains = np.array(sorted(retrain_at), np.int64)
        super().__init__(
            state={
                "first_beat_cycle": slots.first_beat_cycle,
                "line_cycles": slots.line_cycles,
                "first_credit_slot": timing.first_credit_slot,
                "first_answer_slot": timing.first_answer_slot,
                "beats_per_flit": slots.beats_per_flit,
                "beats": slots.beats,
                "cycles": slots.cycles,
                "delay_cycles": delay_cycles,
                "deliver_cycles": timing.deliver_cycles,
                "stage_cycles": timing.stage_cycles,
                "next_cycles": timing.next_cycles,
                "consumer_cycles": consumer_cycles,
                "credit_out_cycles": timing.credit_out_cycles,
                "credit_in_cycles": timing.credit_in_cycles,
                "ack_out_cycles": timing.ack_out_cycles,
                "ack_in_cycles": timing.ack_in_cycles,
                "nak_out_cycles": timing.nak_out_cycles,
                "halt_in_cycles": timing.halt_in_cycles,
                "nak_in_cycles": timing.nak_in_cycles,
                "start_cycles": timing.start_cycles,
                "cut_cycles": timing.cut_cycles,
                "train_cycles": timing.retrain_cycles + round(timing.retrain_cycles_per_delay * delay_cycles),
                "channels": channels,
                "depth": spec.buffer_flits,
                "replay_flits": spec.replay_flits,
                "is_sure": losses.threshold == 0 and len(retrains) == 0,
                "losses": losses.threshold,
                "echoes": losses.echo_threshold,
                "stream": losses.stream,
                "frame_beat": frame_beat,
                "linked_cycle": linked_cycle,
                "slot": 1,
                "newest": -1,
                "acked": -1,
                "received": -1,
                "explicit_turn": 1,
                "answered": -2,
                "left": NO_FLIT,
                "put_cycle": -1,
                "acks_heard": 1,
                "naks_heard": 1,
                "trouble_cycle": NEVER,
                "retrain_cycle": retrains[0] if len(retrains) else NEVER,
            },
            memory={
                "credits": np.zeros(channels, _CREDITS),
                "usable": np.zeros(channels * spec.buffer_flits, np.int64),
                "room": np.zeros(spec.replay_flits, np.int64),
                "flight": np.array([(-1, 0)] * ahead_slots, _FLIGHT),
                "kept": np.zeros(spec.replay_flits + 1, FLIT),
                "retrains": retrains,
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

    Simulated on this block: the line, the credits or the replay buffer limit it, whichever is slowest. Bit errors cost more:
    what a lost flit costs is simulated too, how many are lost per flit follows from ``Losses``. So a rate that is too low to
    see in a simulation counts for what it is, and a higher one never helps.
    """
    clean = replace(spec, bit_error_rate=0.0)
    if spec != clean:
        return sustained_cycles_per_flit(clean, timing, delay_cycles) + Fraction(
            _cycles_lost_per_flit(spec, timing, delay_cycles)
        )
    beats = spec.blocks_per_cycle.numerator
    period_flits = beats // gcd(beats, spec.beats_per_flit)  # slots against clock
    count = 8 * period_flits * -(-max(spec.buffer_flits, spec.replay_flits) // period_flits)
    cycles, _ = _stream(Link(spec, timing, delay_cycles), timing, count)
    half = len(cycles) // 2
    return Fraction(int(cycles[-1] - cycles[-1 - half]), half)


def _cycles_lost_per_flit(spec: ChipletSpec, timing: LinkTiming, delay_cycles: int) -> float:
    """What bit errors add to the cycles of a flit.

    A miss is the loss of a slot with the flit whose turn it is. Its cost is measured at the losses of the spec, or where
    they are rare at one in ``LOSS_SPACING`` round trips. A flit in the slot after that of the flit before it has no echo of
    an earlier error to fear; one after an idle slot, or sent again, has.
    """
    losses, clean = Losses.of(spec), Link(spec, timing, delay_cycles, losses=Losses())
    spacing_slots = LOSS_SPACING * max(spec.replay_flits, ceil(clean.longest_cycles / spec.slot_cycles))
    rate = max(losses.slot_loss_rate, 1 / spacing_slots)
    seen = replace(losses, slot_loss_rate=rate, echo_rate=rate * (losses.echo_rate / losses.slot_loss_rate))
    count = MEASURED_LOSSES * spacing_slots // spec.virtual_channels
    lossy_cycles, missed = _stream(Link(spec, timing, delay_cycles, losses=seen), timing, count)
    clean_cycles, _ = _stream(clean, timing, count)
    gaps = np.count_nonzero(np.diff(lossy_cycles) > Slots.of(spec).longest_cycles)
    after_idle = max(0, gaps - missed) / len(lossy_cycles)
    first_rate = losses.own_rate + (1 - losses.own_rate) * losses.echo_rate * after_idle
    misses_per_flit = first_rate / (1 - losses.slot_loss_rate)
    return misses_per_flit * float(lossy_cycles[-1] - clean_cycles[-1]) / missed


def _stream(link: Link, timing: LinkTiming, count: int) -> tuple[NDArray[np.int64], int]:
    """Cycles in which ``count`` flits of each virtual channel arrive, offered at once, and the misses among their slots."""
    spec, top, sinks = link.spec, Module(), list[Sink]()
    top.add("link", link)
    for v in range(spec.virtual_channels):
        source = top.add(f"source_{v}", Source(np.zeros(count), flits(count, virtual_channel=v)))
        sinks.append(top.add(f"sink_{v}", Sink(capacity_flits=count)))
        connect(source.o, link.i[v], Link.input_fifo(spec, timing))
        connect(link.o[v], sinks[-1].i, link.output_fifo())
    System(top).run_to_idle(limit_cycle=NEVER)
    return np.sort(np.concatenate([sink.cycles for sink in sinks])), int(link.state["missed"])
