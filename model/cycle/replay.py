"""Replay sends again what a lossy line has lost: the transmitter and the far end's receiver, slot by slot.

It is the behaviour of ``transmitter``, ``receiver`` and ``replay`` in ``lightfabric.rtl``, where a block that keeps no flit
skips the slots until the next one. The words of the state, beside those of :mod:`lightfabric.model.cycle.transmitter`:

* *number*: that of a flit, counted from 0 without end; the RTL sends it modulo 255 or more as its sequence
* *newest*, *acked*, *received*: the numbers of the flit sent last for the first time, the last one acknowledged, and the
  last one that the far end has accepted; ``newest - acked`` flits are kept for a replay
* *answer*: what every second header of the other direction says: the number received, and whether a *NAK* is pending,
  which asks for all that comes after it. The ring ``flight`` holds both for each slot until their answer has come
* *busy*, *place*: a replay is under way; the number that it sends next, from *replay_cycle* on
* *left*: the flit of a replay under way that is in the framer's register already and goes although another one begins
* *explicit*, *jumps*: a header says its sequence, which the next flit must if it does not follow the one before it
* *idle_slots*, *tries*: slots and replays since the last acknowledgement; too many begin a replay, or *trouble*
* *trouble*, *retrain*: the line is to be trained because frames do not come through, or because it is told to
"""

from lightfabric.model.cycle.transmitter import (
    answers,
    arrival_cycle,
    arrived_by,
    beat_from,
    decided_cycle,
    decided_from,
    loses,
    stage,
)
from lightfabric.model.kernel.channel import NEVER, NO_FLIT, Channels, push_later, wake_at
from lightfabric.model.kernel.compiled import Records, compiled

REPLAYS_TO_RETRAIN = 3
"""After so many replays without an acknowledgement the link trains again [UCIe 1.1, retry]."""
BAD_SLOTS_TO_RETRAIN = 16
"""After so many bad slots in a row the receiver takes the line for lost."""
SETS = 16
"""Training sets in a round of training; a training ends with a whole one."""


@compiled
def _rewind(me: Records, cycle: int, received: int) -> None:
    """Begin to send again all that is kept, from the flit after the one received."""
    # A rewind overtakes what the running replay has put into the framer's register a stage before.
    me.left = me.place if me.busy and me.replay_cycle <= cycle else NO_FLIT
    me.busy, me.jumps, me.place = 1, 1, received + 1
    # The difference of both is the stage in which the replay buffer reads its memory.
    me.replay_cycle = cycle + me.nak_in_cycles - me.halt_in_cycles
    me.answered, me.replay_slot, me.idle_slots = received, me.slot, 0
    if me.tries == REPLAYS_TO_RETRAIN:
        me.trouble_cycle = min(me.trouble_cycle, cycle)
    else:
        me.tries += 1


@compiled
def _take_answers(me: Records, decision_cycle: int, flight: Records) -> None:
    """Take in the answers that have come from the far end until a slot is decided."""
    while arrival_cycle(me, me.acks_read) + me.ack_in_cycles <= decision_cycle:
        if answers(me, me.acks_read):
            # What the far end answers is what it knew when it decided its slot, not when that slot comes here.
            slot = arrived_by(me, decided_cycle(me, me.acks_read) - me.ack_out_cycles)
            received = flight[me.flight_start + slot % me.flight_count].received
            if received > me.acked:
                me.acked, me.idle_slots, me.tries = received, 0, 0
                _skip_acknowledged(me, arrival_cycle(me, me.acks_read) + me.ack_in_cycles)
        me.acks_read += 1
    # The same headers a second time: a NAK takes effect after another number of register stages than an acknowledgement.
    while arrival_cycle(me, me.naks_read) + me.halt_in_cycles <= decision_cycle:
        if answers(me, me.naks_read):
            _take_nak(me, flight)
        me.naks_read += 1


@compiled
def _skip_acknowledged(me: Records, cycle: int) -> None:
    """Let a replay go on after what was acknowledged meanwhile."""
    # A flit sent again one cycle before is still in the register between buffer and framer, which the buffer does not count.
    if me.busy and me.place - (me.again_cycle == cycle - 1) <= me.acked:
        me.place, me.jumps = me.acked + 1, 1
        # With nothing left to send the buffer reads no memory; it needs the one cycle in which it finds that out.
        read_cycles = me.nak_in_cycles - me.halt_in_cycles if me.place <= me.newest else 1
        me.replay_cycle = max(me.replay_cycle, cycle + read_cycles)


@compiled
def _take_nak(me: Records, flight: Records) -> None:
    """Start the replay that an answer asks for, unless it is the one under way."""
    decision_cycle = decided_cycle(me, me.naks_read)
    slot = arrived_by(me, decision_cycle - me.ack_out_cycles)
    received = flight[me.flight_start + slot % me.flight_count].received
    slot = arrived_by(me, decision_cycle - me.nak_out_cycles)
    then = flight[me.flight_start + slot % me.flight_count]
    if not then.nak_pending or received > then.received:  # a flit in order ends a NAK at once
        return
    cycle = arrival_cycle(me, me.naks_read) + me.halt_in_cycles
    # A slot decided, or a flit put, in the cycle before has not passed the register that these counts are read from.
    is_late = decided_cycle(me, me.slot - 1) == cycle - 1
    waits = me.slot - is_late - me.replay_slot < me.replay_flits
    kept = me.newest - max(me.acked, received) - (me.put_cycle == cycle - 1)
    # The far end repeats its NAK until the replay comes; only after a round trip does the same NAK ask for another one.
    if kept > 0 and not (waits and me.answered == received):
        _rewind(me, cycle, received)


@compiled
def _next_number(me: Records, decision_cycle: int) -> int:
    """Choose the number of the flit that the next slot carries, -1 for none."""
    left, me.left = me.left, NO_FLIT
    if left != NO_FLIT and decision_cycle == me.replay_cycle - me.nak_in_cycles + me.halt_in_cycles:
        return left
    if me.busy and decision_cycle < me.replay_cycle:
        return -1
    if me.busy and me.place <= me.newest:
        me.place += 1
        me.busy, me.again_cycle = me.place <= me.newest, decision_cycle
        return me.place - 1
    me.busy = 0
    waits = me.staged == 0 or me.staged_cycle + me.stage_cycles > decision_cycle
    if waits or me.newest - me.acked >= me.replay_flits:
        return -1
    me.newest += 1
    me.staged, me.put_cycle = 0, decision_cycle
    me.vacant_cycle = decision_cycle + me.next_cycles - me.stage_cycles
    return me.newest


@compiled
def _decide(now: int, me: Records, decision_cycle: int, index: int, o: Records, memory: Records, channels: Channels) -> None:
    """Decide what a slot carries, and at once what becomes of it at the far end."""
    _, _, _, flight, kept, _ = memory
    slot = me.slot
    if me.idle_slots >= me.timeout_slots:
        _rewind(me, decision_cycle, me.acked)
    _take_answers(me, decision_cycle, flight)
    is_left = me.left  # it was framed before the rewind, with the sequence that it had then
    number = _next_number(me, decision_cycle)
    explicit = me.explicit_turn
    if number >= 0 and me.jumps and number != is_left:
        explicit, me.jumps = 1, 0
    me.explicit_turn = 1 - explicit
    me.idle_slots = me.idle_slots + 1 if me.newest > me.acked else 0
    # A training that begins before the next slot is decided cuts the last beats of this one off.
    is_whole = min(me.trouble_cycle, me.retrain_cycle) + me.cut_cycles > decided_cycle(me, slot + 1)
    if is_whole and _receive(me, slot, number, explicit):
        valid_cycle = arrival_cycle(me, slot) + me.deliver_cycles
        flit = kept[me.kept_start + number % me.kept_count]
        given = push_later(now, channels, o[index, flit.virtual_channel], valid_cycle + me.consumer_cycles)
        channels.flit[given] = flit
    here = flight[me.flight_start + slot % me.flight_count]
    here.received, here.nak_pending = me.received, me.nak_pending
    me.slot += 1


@compiled
def _receive(me: Records, slot: int, number: int, explicit: int) -> bool:
    """Do what the far end's receiver does when a slot arrives; True if it accepts a flit."""
    if loses(me, slot, 0):
        me.nak_pending = 1
        me.missed += number == me.received + 1
        me.bad_slots += 1
        if me.bad_slots == BAD_SLOTS_TO_RETRAIN:
            me.trouble_cycle = min(me.trouble_cycle, arrival_cycle(me, slot) + me.deliver_cycles)
        return False
    me.bad_slots = 0
    accepts = number == me.received + 1
    me.received += accepts
    # A header without a flit says the newest sequence instead: so the loss of the last flit of a burst is found out.
    told = number if number >= 0 else me.newest
    if number >= 0 or explicit:
        me.nak_pending = 0 if told == me.received else 1 if told > me.received else me.nak_pending
    return accepts


@compiled
def _train(me: Records, cycle: int, memory: Records) -> None:
    """Train the line from ``cycle`` on, count its slots anew and send again all that the far end has not received."""
    credits_, usable, _, flight, _, retrains = memory
    ready_cycle = cycle + me.train_cycles
    first_set = beat_from(me, cycle + me.cut_cycles)
    # The round of sets under way ends, then one whole round says that frames follow: the far end may hear any set of it.
    cycles_of_sets = (beat_from(me, ready_cycle) - first_set) // SETS + 2
    me.frame_beat = first_set + SETS * cycles_of_sets
    me.slot = me.acks_read = me.naks_read = me.explicit_turn = 1
    for n in range(me.flight_start, me.flight_start + me.flight_count):
        flight[n].received, flight[n].nak_pending = me.received, me.nak_pending
    me.acked, me.tries, me.bad_slots, me.idle_slots, me.busy = me.received, 0, 0, 0, 0
    if me.newest > me.acked:
        _rewind(me, ready_cycle, me.acked)
    me.tries, me.trouble_cycle = 0, NEVER
    # The exchange of parameters at the end tells all credits at once, also those that were on their way.
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
    """Leave out the slots that no flit depends on: where nothing is kept, losses before the last few leave no trace."""
    flight = memory[3]
    first = decided_from(me, now) - me.flight_count
    if me.newest > me.acked or me.staged or first <= me.slot or min(me.trouble_cycle, me.retrain_cycle) <= now:
        return
    me.explicit_turn ^= (first - me.slot) & 1  # idle headers say their sequence in turn with an answer
    me.nak_pending = me.bad_slots = me.busy = me.idle_slots = 0
    me.slot = first
    me.acks_read = max(me.acks_read, first - me.flight_count)
    me.naks_read = max(me.naks_read, first - me.flight_count)
    for n in range(me.flight_start, me.flight_start + me.flight_count):
        flight[n].received, flight[n].nak_pending = me.received, 0


@compiled
def send_slot_by_slot(
    now: int, me: Records, index: int, i: Records, o: Records, memory: Records, channels: Channels
) -> None:
    """Decide all slots until this cycle, then stage a flit if there is room for one."""
    kept = memory[4]
    _skip_quiet_slots(now, me, memory)
    while True:
        decision_cycle, training_cycle = decided_cycle(me, me.slot), min(me.trouble_cycle, me.retrain_cycle)
        if training_cycle + me.cut_cycles <= decision_cycle and training_cycle <= now:
            _train(me, training_cycle, memory)
        elif decision_cycle <= now:
            _decide(now, me, decision_cycle, index, o, memory, channels)
        else:
            break
    if not me.staged:
        taken = stage(now, me, index, i, o, memory, channels)
        if taken != NO_FLIT:
            kept[me.kept_start + (me.newest + 1) % me.kept_count] = channels.flit[taken]
            me.staged, me.staged_cycle = 1, now
    if me.staged or me.newest > me.acked:
        wake_at(now, channels, me.block, min(decided_cycle(me, me.slot), training_cycle))
