"""A link carries flits over one fibre: slots of the line, credits and answers in the other direction's headers.

It does what ``lightfabric.rtl.link`` does, in the cycles that ``LinkTiming`` says. On a line without losses the slot of a
flit is known when it is staged, and so are its delivery and its acknowledgement; otherwise
:mod:`lightfabric.model.cycle.replay` goes from slot to slot while flits are kept. The words of the state are explained there
and in :mod:`lightfabric.model.cycle.transmitter`.
"""

from collections.abc import Sequence

import numpy as np

from lightfabric.model.cycle.replay import send_slot_by_slot
from lightfabric.model.cycle.slot import Losses, Slots
from lightfabric.model.cycle.transmitter import arrival_cycle, decided_cycle, decided_from, stage
from lightfabric.model.kernel.block import Block, Inputs, Memory, Outputs
from lightfabric.model.kernel.channel import FLIT, NEVER, NO_FLIT, Channels, Fifo, push_later, wake_at
from lightfabric.model.kernel.compiled import Records, compiled, record
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import LinkTiming


@compiled
def _room_cycle(me: Records, slot: int) -> int:
    """Say when the place in the replay buffer of the flit in ``slot`` is free again."""
    # Every second slot answers: if the first one that could does not, the one after it does.
    answer = decided_from(me, arrival_cycle(me, slot) + me.ack_out_cycles)
    answer += (answer - me.first_answer_slot) % 2
    return arrival_cycle(me, answer) + me.ack_in_cycles


@compiled
def _send_surely(now: int, me: Records, index: int, i: Records, o: Records, memory: Records, channels: Channels) -> None:
    """Stage a flit and deliver it at once: on a line without losses nothing can come in between."""
    room = memory[2]
    taken = stage(now, me, index, i, o, memory, channels)
    if taken == NO_FLIT:
        return
    # The replay buffer is a ring: this flit takes the place of the one sent room_count flits ago, once that is acknowledged.
    oldest = me.room_start + me.sent % me.room_count
    slot = decided_from(me, max(now + me.stage_cycles, room[oldest]))
    valid_cycle = arrival_cycle(me, slot) + me.deliver_cycles
    given = push_later(now, channels, o[index, channels.flit[taken].virtual_channel], valid_cycle + me.consumer_cycles)
    channels.flit[given] = channels.flit[taken]
    room[oldest] = _room_cycle(me, slot)
    me.sent += 1
    me.vacant_cycle = decided_cycle(me, slot) + me.next_cycles - me.stage_cycles
    wake_at(now, channels, me.block, me.vacant_cycle)


@compiled
def _step_link(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:
    i, o = ports
    for index in awake:
        me = state[index]
        if me.is_sure:
            _send_surely(now, me, index, i, o, memory, channels)
        else:
            send_slot_by_slot(now, me, index, i, o, memory, channels)


_CREDITS = record(seen="i8", usable="i8", spent="i8")
_FLIGHT = record(received="i8", nak_pending="i8")
"""What the far end's receiver answers once a slot has arrived."""
_STATE = (
    "first_beat_cycle line_cycles first_credit_slot first_answer_slot beats_per_flit beats cycles delay_cycles "
    "deliver_cycles stage_cycles next_cycles consumer_cycles credit_out_cycles credit_in_cycles ack_out_cycles "
    "ack_in_cycles nak_out_cycles halt_in_cycles nak_in_cycles start_cycles cut_cycles train_cycles channels depth "
    "replay_flits timeout_slots is_sure losses echoes stream missed frame_beat linked_cycle turn sent vacant_cycle slot "
    "newest acked received nak_pending explicit_turn staged staged_cycle put_cycle busy place replay_cycle jumps left "
    "again_cycle answered replay_slot idle_slots tries acks_read naks_read bad_slots trouble_cycle retrain_cycle retrained "
    "light_cycle live_cycles round_cycles codeword_beats lanes wavelengths"
)


class Link(
    Block,
    step=_step_link,
    state=dict.fromkeys(_STATE.split(), "i8"),
):
    """Carries flits in one direction of a link, from the channel at one end to the channel at the other.

    ``i`` and ``o`` have one Fifo per virtual channel. A flit in ``i`` stands for one that was valid at the hardware's input
    ``accept_cycles`` before it can be popped, one in ``o`` for one valid at the output ``consumer_cycles`` before: make
    them by :meth:`input_fifo` and :meth:`output_fifo`.

    The line is trained when the system starts: ``frame_beat`` is the first beat of a slot, and flits are taken from
    ``linked_cycle`` on. Slots of both directions are lost as ``losses`` say, by default those of the spec's bit error rate,
    headers never being what is wrong; in the cycles ``retrain_at`` the line is told to train again. ``state.missed`` is the
    number of slots lost that carried the flit whose turn it was at the far end.

    Of the wavelengths so many ``lanes`` carry frames, all unless given, in both directions and on a line without losses and
    trainings.

    ``light`` are the first cycle of light, the cycles that it lasts, and those after which it is back: flits are staged only
    then, and the dark covers their way. By default it is never dark.
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
        light: tuple[int, int, int] = (0, 0, 0),
        lanes: int | None = None,
    ):
        wavelengths = spec.wavelengths_per_port
        lanes = wavelengths if lanes is None else lanes
        slots = Slots.of(spec, timing.first_beat_cycle, frame_beat, timing.line_cycles)
        losses = Losses.of(spec) if losses is None else losses
        self.spec, self.consumer_cycles = spec, consumer_cycles
        if not 1 <= lanes <= wavelengths:
            raise ValueError(f"Link.lanes must be from 1 to {wavelengths}, not {lanes}")
        if lanes < wavelengths and (losses.threshold or retrain_at):
            raise ValueError(f"Link.lanes must be {wavelengths} on a line with losses or trainings, not {lanes}")
        # A beat more on fewer lanes, and a fraction of one at the end.
        slot_cycles = -(-slots.longest_cycles * wavelengths // lanes) + 2 * (lanes < wavelengths) * -(
            -slots.cycles // slots.beats
        )
        ins = (timing.credit_in_cycles, timing.nak_in_cycles, timing.ack_in_cycles)
        outs = (timing.credit_out_cycles, timing.ack_out_cycles, timing.nak_out_cycles)
        loop_cycles = 2 * delay_cycles + 6 * slot_cycles + max(ins) + max(outs) + timing.line_cycles
        self.longest_cycles = loop_cycles + delay_cycles + timing.deliver_cycles + consumer_cycles + timing.stage_cycles
        # An answer tells of a slot at most a loop ago; four more slots cover rounding at both ends of both directions.
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
                "timeout_slots": spec.timeout_slots,
                "is_sure": losses.threshold == 0 and len(retrains) == 0,
                "losses": losses.threshold,
                "echoes": losses.echo_threshold,
                "stream": losses.stream,
                "codeword_beats": losses.codeword_beats,
                "lanes": lanes,
                "wavelengths": wavelengths,
                "frame_beat": frame_beat,
                "linked_cycle": linked_cycle,
                "slot": 1,
                "newest": -1,
                "acked": -1,
                "received": -1,
                "explicit_turn": 1,
                "answered": -2,  # no NAK says so: the first one of all starts a replay
                "left": NO_FLIT,
                "put_cycle": -1,
                "acks_read": 1,
                "naks_read": 1,
                "trouble_cycle": NEVER,
                "retrain_cycle": retrains[0] if len(retrains) else NEVER,
                **dict(zip(("light_cycle", "live_cycles", "round_cycles"), light, strict=True)),
            },
            memory={
                "credits": np.zeros(channels, _CREDITS),
                "usable": np.zeros(channels * spec.buffer_flits, np.int64),
                "room": np.zeros(spec.replay_flits, np.int64),
                "flight": np.array([(-1, 0)] * ahead_slots, _FLIGHT),
                # One more than the replay buffer: the staged flit waits there, too.
                "kept": np.zeros(spec.replay_flits + 1, FLIT),
                "retrains": retrains,
            },
            widths={"i": channels, "o": channels},
        )

    @staticmethod
    def input_fifo(spec: ChipletSpec, timing: LinkTiming, producer_cycles: int = 0) -> Fifo:
        """Make a channel into a link, from a producer whose flits are valid ``producer_cycles`` after it pushes them."""
        return Fifo(spec.buffer_flits, producer_cycles + timing.accept_cycles)

    def output_fifo(self) -> Fifo:
        """Make a channel out of this link to its consumer."""
        return Fifo(self.spec.buffer_flits, self.longest_cycles)
