"""The transmitting half of a link chooses a flit in turn among virtual channels with a credit, and knows when slots go.

The words, as those of ``lightfabric.rtl.transmitter``; ``me`` is the state of a :class:`~lightfabric.model.cycle.link.Link`:

* *beat*: one block on each wavelength; beats are counted from reset on, and the first of slot 0 is ``frame_beat``
* *slot*: ``beats_per_flit`` beats that carry one frame; both directions of a link have the same slots
* *decided*: the framer takes what a slot carries in this cycle, ``line_cycles`` before the slot before it has left
* *narrow*: frames go over ``lanes`` of the ``wavelengths``; the words of beats follow each other on the line, one beat later
* *arrived*: the last beat of the slot is at the receiver
* *staged*: a flit has left its queue, has spent its credit, and goes in the next slot unless a replay goes before
* *vacant*: the register for the staged flit is free again
* *seen*, *usable*, *spent*: credits that the far end has given, those of them that a header has brought, those used up
"""

from lightfabric.model.cycle.slot import beat_cycle, first_beat_from, is_lost
from lightfabric.model.kernel.channel import NO_FLIT, Channels, free_space, peek, pop, slot_cycle, wake_at
from lightfabric.model.kernel.compiled import Records, compiled


@compiled
def decided_cycle(me: Records, slot: int) -> int:
    """Say in which cycle the framer takes what a slot carries."""
    # The framer loads a slot into its register while the last beat of the slot before is on its way to the line.
    beat = slot * me.beats_per_flit - 1
    if me.lanes != me.wavelengths:  # the framer goes on with a beat when the first of its words is due
        beat = beat * me.wavelengths // me.lanes
    return beat_cycle(me.frame_beat + beat, me.first_beat_cycle, me.beats, me.cycles) - me.line_cycles


@compiled
def beat_from(me: Records, cycle: int) -> int:
    """Find the first beat that the line takes up in ``cycle`` or later."""
    return first_beat_from(cycle + me.line_cycles, me.first_beat_cycle, me.beats, me.cycles)


@compiled
def decided_from(me: Records, cycle: int) -> int:
    """Find the first slot that is decided in ``cycle`` or later."""
    # Slot 0 is loaded when training ends, before a flit can be staged, so it never carries one.
    beat = beat_from(me, cycle) - me.frame_beat
    if me.lanes != me.wavelengths:
        beat = -(-beat * me.lanes // me.wavelengths)
    return max(1, -(-(beat + 1) // me.beats_per_flit))


@compiled
def arrival_cycle(me: Records, slot: int) -> int:
    """Say in which cycle the last beat of a slot is at the receiver."""
    if me.lanes != me.wavelengths:
        # The first beat of frames means nothing.
        beat = 1 + ((slot + 1) * me.beats_per_flit * me.wavelengths - 1) // me.lanes
        return beat_cycle(me.frame_beat + beat, me.first_beat_cycle, me.beats, me.cycles) + me.delay_cycles
    # Slot + 1 is decided line_cycles before the last beat of this slot is on the line.
    return decided_cycle(me, slot + 1) + me.line_cycles + me.delay_cycles


@compiled
def arrived_by(me: Records, cycle: int) -> int:
    """Find the last slot that has arrived when ``cycle`` ends."""
    beat = beat_from(me, cycle + 1 - me.line_cycles - me.delay_cycles) - me.frame_beat
    if me.lanes != me.wavelengths:
        beat = (beat - 1) * me.lanes // me.wavelengths
    return beat // me.beats_per_flit - 1


@compiled
def loses(me: Records, slot: int, backwards: int) -> bool:
    """Tell whether bit errors destroy a slot of this direction, or of the other one if ``backwards`` is 1."""
    # Losses are drawn by beat, not by slot: slots are counted anew after each training, and would repeat their losses.
    first_beat, stream = me.frame_beat + slot * me.beats_per_flit, me.stream + backwards
    drawn = stream, me.losses, me.echoes
    return me.losses > 0 and is_lost(first_beat, me.frame_beat, *drawn, me.beats_per_flit, me.codeword_beats)


@compiled
def answers(me: Records, slot: int) -> bool:
    """Tell whether a slot of the other direction brings an answer: every second one does, unless it is lost."""
    return slot >= me.first_answer_slot and (slot - me.first_answer_slot) % 2 == 0 and not loses(me, slot, 1)


@compiled
def _credit_usable_cycle(me: Records, credit_cycle: int, channel: int) -> int:
    """Say when a credit given at the far end can be spent here: a header of the other direction brings it."""
    slot = decided_from(me, credit_cycle + me.credit_out_cycles)
    slot += (channel - (slot - me.first_credit_slot)) % me.channels
    # A header says the limit of all credits given, not single credits, so the next one for the channel makes up a loss.
    while loses(me, slot, 1):
        slot += me.channels
    return arrival_cycle(me, slot) + me.credit_in_cycles


@compiled
def _credits(now: int, me: Records, channel: int, credits_: Records, usable: Records, channels: Channels, fifo: int) -> int:
    """Count the flits that may be staged now in a virtual channel, with the credits that the far end has given since."""
    state = credits_[me.credits_start + channel]
    free_space(now, channels, fifo)  # called to bring the Fifo's count of returned places up to date
    this = channels.fifo[fifo]
    ring = me.usable_start + channel * me.depth
    # No more than depth credits are ever on their way, so a ring of that many cycles holds all that matter.
    while state.seen < this.returned:
        popped_cycle = slot_cycle(channels, this, state.seen) - this.credit_cycles
        usable[ring + state.seen % me.depth] = _credit_usable_cycle(me, popped_cycle, channel)
        state.seen += 1
    while state.usable < state.seen and usable[ring + state.usable % me.depth] <= now:
        state.usable += 1
    return me.depth - (state.spent - state.usable)


@compiled
def _choose(now: int, me: Records, index: int, i: Records, o: Records, memory: Records, channels: Channels) -> int:
    """Choose the virtual channel whose turn it is among those with a flit and a credit, -1 if there is none.

    The block is woken for the next credit of those that have none.
    """
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
def _light_cycle(now: int, me: Records) -> int:
    """Say when a circuit that takes its turn by the clock is lit: now, or as its next turn begins."""
    if me.round_cycles == 0:
        return now
    within = (now - me.light_cycle) % me.round_cycles
    return now if within < me.live_cycles else now - within + me.round_cycles


@compiled
def stage(now: int, me: Records, index: int, i: Records, o: Records, memory: Records, channels: Channels) -> int:
    """Stage a flit and return its place in ``channels.flit``; NO_FLIT, and a call when there may be one, if none is due."""
    vacant_cycle = max(me.vacant_cycle, me.linked_cycle, _light_cycle(now, me))
    if now < vacant_cycle:
        wake_at(now, channels, me.block, vacant_cycle)
        return NO_FLIT
    channel = _choose(now, me, index, i, o, memory, channels)
    if channel < 0:
        return NO_FLIT
    me.turn = (channel + 1) % me.channels
    memory[0][me.credits_start + channel].spent += 1
    taken = pop(now, channels, i[index, channel])
    # The cabling may join an output of a switch to another virtual channel of the line, which the flit takes then.
    channels.flit[taken].virtual_channel = channel
    return taken
