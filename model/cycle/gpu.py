"""A GPU with its DMA engines computes, sends, takes part in rings and waits, as a task graph says, flit by flit.

All times are whole cycles. An operation starts in the cycle after the last one that it waits for has finished, wherever
that ran. A computation has finished after its cycles; a GPU computes one after the other, in the order they became ready,
the lower number first. A transfer has finished when its last flit is taken by the other GPU. In a ring all-reduce of n
members each sends 2 (n - 1) chunks to the next one, and each chunk but the first only after the chunk with which the member
before it has brought it is whole, from the next cycle on; a member has finished when it has all chunks.

The words of the state:

* *operation*: what a GPU does at one go: a computation, a transfer, its part in a ring, or a *join*, which only waits
* *waiting*: an operation waits for so many others; *ready*: it waits for none, and may start from ``ready_cycle`` on
* *list*: ``ready``, ``computation`` and ``transfer`` are the heads of three linked lists through ``operation.next``
* *target*: the operation of the far GPU that counts the flits of this one
* *lane*: a port of the chiplet; it is *free* again ``flit_cycles`` after its client has taken a flit
* *served*, *kept*: transfers that have sent a flit in this cycle, and those that have not
"""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike

from lightfabric.model.kernel.bitset import lowest, one_bit
from lightfabric.model.kernel.block import Block, Inputs, Memory, Outputs
from lightfabric.model.kernel.channel import NEVER, Channels, Fifo, arrivals, has_space, pop, push, wake_at
from lightfabric.model.kernel.compiled import Records, compiled, from_, record

MAX_QUEUES = 63
"""Lanes times virtual channels: bits of a signed word."""
NONE = -1


class Does(IntEnum):
    """Says what an operation of a GPU does."""

    COMPUTE = 0
    SEND = 1
    RING = 2
    JOIN = 3


OPERATION = record(
    cycles="i8", flits="i8", sent="i8", received="i8", start_cycle="i8", finish_cycle="i8", lanes="i8",
    successor="i4", successor_end="i4", chunk_flits="i4", waiting="i4", ready_cycle="i8", target="i4", next="i4",
    gpu="i4", does="i4", address="i4", channel="i4", turns="i4", width="i4",
)  # fmt: skip
"""One operation of one GPU. ``flits`` are to be sent on ``lanes``, a set of ports, to ``address``, on a virtual ``channel``
or, if that is negative, on all in turn, and counted by the operation ``target``; as many arrive. Each of the ``width`` lanes
sends to ``turns`` addresses in turn, ``width`` apart. ``waiting`` is the number of operations it waits for, ``next`` the one
after it in its GPU's list."""
_LANE = record(far_port="i4", channel="i4", free_cycle="i8")
"""What a port leads to, the virtual channel of its next flit, and the cycle in which its client takes that."""

_COMPUTE, _SEND, _RING, _JOIN = (int(does) for does in Does)


@compiled
def _make_ready(now: int, state: Records, operation: Records, number: int, channels: Channels) -> None:
    """Let an operation start from the next cycle on."""
    # The list's order has no meaning, since a GPU takes the lowest number first: so the order of steps cannot change it.
    gpu = state[operation.gpu]
    operation.ready_cycle = now + 1
    operation.next, gpu.ready = gpu.ready, number
    wake_at(now, channels, gpu.block, now + 1)


@compiled
def _finish(now: int, state: Records, number: int, operations: Records, successors: Records, channels: Channels) -> None:
    operation = operations[number]
    operation.finish_cycle = now
    for place in range(operation.successor, operation.successor_end):
        after = operations[successors[place]]
        after.waiting -= 1
        if after.waiting == 0:
            _make_ready(now, state, after, successors[place], channels)


@compiled
def _next_ready(now: int, me: Records, operations: Records) -> int:
    """Take the operation with the lowest number out of those that are ready now; NONE if there is none."""
    # A GPU that is stepped before this one may have put an operation here in this very cycle, which counts from the next on.
    best, best_before, before, number = NONE, NONE, NONE, me.ready
    while number != NONE:
        if operations[number].ready_cycle <= now and (best == NONE or number < best):
            best, best_before = number, before
        before, number = number, operations[number].next
    if best == NONE:
        return NONE
    if best_before == NONE:
        me.ready = operations[best].next
    else:
        operations[best_before].next = operations[best].next
    return best


@compiled
def _append(operations: Records, last: int, number: int) -> None:
    operations[number].next = NONE
    if last != NONE:
        operations[last].next = number


@compiled
def _start(now: int, state: Records, me: Records, operations: Records, successors: Records, channels: Channels) -> None:
    """Begin what is ready: computations wait in line, transfers share the lanes, a join is done at once."""
    while True:
        number = _next_ready(now, me, operations)
        if number == NONE:
            return
        operation = operations[number]
        if operation.does == _COMPUTE:
            _append(operations, me.last_computation, number)
            me.last_computation = number
            me.computation = number if me.computation == NONE else me.computation
            continue
        operation.start_cycle = now
        if operation.does == _JOIN or operation.flits == 0:
            _finish(now, state, number, operations, successors, channels)
        else:
            _append(operations, me.last_transfer, number)
            me.last_transfer = number
            me.transfer = number if me.transfer == NONE else me.transfer


@compiled
def _compute(now: int, state: Records, me: Records, operations: Records, successors: Records, channels: Channels) -> None:
    """End the computation whose time has come, and begin the next in line."""
    while me.computation != NONE:
        operation = operations[me.computation]
        if operation.start_cycle == NEVER:
            operation.start_cycle = now
        if operation.start_cycle + operation.cycles > now:
            wake_at(now, channels, me.block, operation.start_cycle + operation.cycles)
            return
        done, me.computation = me.computation, operation.next
        if me.computation == NONE:
            me.last_computation = NONE
        _finish(now, state, done, operations, successors, channels)


@compiled
def _take(
    now: int,
    state: Records,
    me: Records,
    index: int,
    i: Records,
    operations: Records,
    successors: Records,
    channels: Channels,
) -> bool:
    """Take the flits that have come and tell whether there was one; what they allow is done from the next cycle on."""
    # It is the receiver that finishes a transfer, so its step writes into the lists of the sender and of whoever waits.
    came = left = arrivals(now, channels, me.first_word) & one_bit(me.lanes * me.channels) - 1
    while left != 0:
        flit = channels.flit[pop(now, channels, i[index, lowest(left)])]
        left &= left - 1
        me.latency_cycles += now - flit.injected_cycle
        me.taken += 1
        operation = operations[flit.packet]
        operation.received += 1
        if operation.received == operation.flits:
            _finish(now, state, flit.packet, operations, successors, channels)
    return came != 0


@compiled
def _may_send(operation: Records) -> bool:
    """Tell whether a transfer has a flit left, or a ring one of a chunk that has come."""
    if operation.does == _SEND:
        return operation.sent < operation.flits
    return operation.sent < min(operation.flits, (1 + operation.received // operation.chunk_flits) * operation.chunk_flits)


@compiled
def _free_lanes(now: int, me: Records, lanes: Records) -> int:
    free = 0
    for lane in range(me.lanes):
        if lanes[lane].free_cycle <= now:
            free |= one_bit(lane)
    return free


@compiled
def _next_free_cycle(now: int, left: int, lanes: Records) -> int:
    """Find when the first busy lane of a set is free again; lanes with a full Fifo wake the block themselves."""
    cycle = NEVER
    while left != 0:
        free_cycle = lanes[lowest(left)].free_cycle
        left &= left - 1
        if free_cycle > now:
            cycle = min(cycle, free_cycle)
    return cycle


@compiled
def _send(now: int, me: Records, index: int, o: Records, operations: Records, lanes: Records, channels: Channels) -> int:
    """Send at most a flit on each free lane, and find when a lane is free for more.

    Transfers that have sent queue up behind the others, so that all have their turn.
    """
    free, number, again_cycle = _free_lanes(now, me, lanes), me.transfer, NEVER
    first_kept = last_kept = first_served = last_served = NONE
    while number != NONE:
        operation = operations[number]
        following, sent, left = operation.next, operation.sent, operation.lanes & free
        while left != 0 and _may_send(operation):
            lane = lowest(left)
            left &= left - 1
            channel = lanes[lane].channel if operation.channel < 0 else operation.channel
            output = o[index, lane * me.channels + channel]
            if has_space(now, channels, output):
                _send_flit(now, me, number, operation, output, lanes[lane], channel, channels)
                free ^= one_bit(lane)
        if _may_send(operation):
            again_cycle = min(again_cycle, _next_free_cycle(now, operation.lanes, lanes))
        if sent < operation.sent < operation.flits:
            _append(operations, last_served, number)
            first_served, last_served = number if first_served == NONE else first_served, number
        elif operation.sent < operation.flits:
            _append(operations, last_kept, number)
            first_kept, last_kept = number if first_kept == NONE else first_kept, number
        number = following
    if last_kept != NONE:
        operations[last_kept].next = first_served
    me.transfer = first_served if first_kept == NONE else first_kept
    me.last_transfer = last_kept if last_served == NONE else last_served
    return again_cycle


@compiled
def _send_flit(
    now: int, me: Records, number: int, operation: Records, output: int, lane: Records, channel: int, channels: Channels
) -> None:
    flit = channels.flit[push(now, channels, output)]
    flit.payload, flit.injected_cycle, flit.packet = number, now, operation.target
    flit.source, flit.destination = me.number, operation.address + lane.far_port
    if operation.turns > 1:
        # GPUs begin with different ways, so that short messages of all do not meet on the first.
        flit.destination += (me.number + operation.sent // operation.width) % operation.turns * operation.width
    flit.virtual_channel, flit.last = channel, True  # each flit is a packet, so flits of transfers mix in every switch
    lane.channel = channel + 1 if channel + 1 < me.channels else 0
    lane.free_cycle = now + me.flit_cycles
    operation.sent += 1
    me.sent += 1


@compiled
def _step_gpu(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:
    operations, successors, lanes = memory
    i, o = ports
    for index in awake:
        me = state[index]
        _start(now, state, me, operations, successors, channels)
        _compute(now, state, me, operations, successors, channels)
        again_cycle = _send(now, me, index, o, operations, from_(lanes, me.lanes_start), channels)
        has_taken = _take(now, state, me, index, i, operations, successors, channels)
        # What _take has allowed comes after _start and _send of this cycle: it is for the next one.
        if me.ready != NONE or (has_taken and me.transfer != NONE):
            again_cycle = now + 1
        wake_at(now, channels, me.block, again_cycle)


_STATE = (
    "number lanes channels flit_cycles ready computation last_computation transfer last_transfer sent taken latency_cycles"
)


class Gpu(Block, step=_step_gpu, sees_arrivals=True, state=dict.fromkeys(_STATE.split(), "i8")):
    """Runs the operations of one GPU, with a Fifo in ``i`` and ``o`` at ``lane * channels + channel``.

    The GPUs of a system are added to it by rising ``number`` from 0 on. ``operations`` are those of this GPU; operations
    name each other by their place in those of all GPUs, one after the other, and so do ``successor`` and
    ``successor_end`` those in ``successors``. A flit on lane n is for the operation's address plus ``far_ports[n]``; the
    lane's client takes a flit in ``flit_cycles``. ``sent`` and ``taken`` count flits, ``latency_cycles`` is the sum of those
    from being sent to being taken.
    """

    i = Inputs(Fifo)
    o = Outputs(Fifo)
    operations = Memory(OPERATION)
    successors = Memory("i4")
    lanes = Memory(_LANE)

    def __init__(
        self,
        number: int,
        first_operation: int,
        operations: Records,
        successors: ArrayLike,
        far_ports: ArrayLike,
        channels: int,
        flit_cycles: int,
    ) -> None:
        lanes = np.zeros(np.size(far_ports), _LANE)
        if len(lanes) * channels > MAX_QUEUES:
            raise ValueError(f"Gpu.far_ports must be at most {MAX_QUEUES // channels}, not {len(lanes)}")
        lanes["far_port"] = far_ports
        own: Records = np.array(operations, OPERATION)
        first = np.flatnonzero(own["waiting"] == 0) + first_operation
        own["next"][first - first_operation] = [*first[1:], NONE][: len(first)]
        own["start_cycle"] = own["finish_cycle"] = NEVER
        super().__init__(
            state={
                "number": number,
                "lanes": len(lanes),
                "channels": channels,
                "flit_cycles": flit_cycles,
                "ready": first[0] if len(first) else NONE,
                **dict.fromkeys(["computation", "last_computation", "transfer", "last_transfer"], NONE),
            },
            memory={"operations": own, "successors": successors, "lanes": lanes},
            widths=dict.fromkeys("io", len(lanes) * channels),
        )
