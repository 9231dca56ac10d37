"""A router of packets with virtual channels, input queues and a pipeline of four stages, as BookSim's ``iq_router``.

A head flit is routed in the cycle of its arrival, gets a virtual channel of the next router in the next one, the switch in
the third, and is at the next router ``LATENCY_CYCLES`` after that. Both allocators are iSLIP with one iteration [McKeown,
IEEE/ACM Transactions on Networking 7 (2), 1999]. All cycles are those of BookSim2 with ``routing_delay``,
``vc_alloc_delay``, ``sw_alloc_delay``, ``st_final_delay`` and ``credit_delay`` of 1 [Jiang et al., ISPASS 2013].
"""

import numpy as np
from numpy.typing import ArrayLike

from lightfabric.model.bits import lowest, next_in_turn, one_bit
from lightfabric.model.block import Block, Inputs, Memory, Outputs
from lightfabric.model.channel import NO_FLIT, Channels, Fifo, forward, free_space, is_empty, peek, wake_at
from lightfabric.model.compiled import Records, compiled, record

MOST_VIRTUAL_CHANNELS = 32
MOST_PORTS = 62
"""Bits of a signed word."""

LATENCY_CYCLES = 3
"""From the cycle in which a flit gets the switch to its arrival: the switch itself, the sender's and the channel's cycle."""
CREDIT_CYCLES = 3
"""From the cycle in which a flit gets the switch until its place can be used by the router before."""

CROSSES = 1 << 32
"""Bit of a flit's payload: its packet uses the upper half of the virtual channels. The bits below count routers visited."""

PORT_BITS, WAY_BITS = 6, 8
ANY_PORT, ANY_WAY = (1 << PORT_BITS) - 1, (1 << WAY_BITS) - 1

_QUEUE = record(
    ready_cycle="i8", allowed="i8", granted="i8", crosses="i8", output="i4", next_queue="i4", turn="i4", giver_turn="i4",
    port="i2", channel="i2",
)  # fmt: skip
"""An input queue: from when on its head may go on, the virtual channels of its output that it may have and those granted to
it, the output and the queue there that it has, and its turn among these. ``giver_turn`` is that of the virtual channel of
the same number on the output side, among input queues."""
_PORT = record(
    free="i8", wanted="i8", granted="i8", output_turn="i4", input_turn="i4", queue_turn="i4",
    group="i4", raises="i4", split="i4",
)  # fmt: skip
"""Both sides of a port, and the turns of both. In: the outputs granted to it. Out: the virtual channels that are free, the
inputs that want it. See :class:`Router` for the last three."""


def way(port: int, crosses: bool = False) -> int:
    """Entry of a route: the output port, and whether the packet crosses a dateline in its group."""
    return either_way((port, crosses), (port, crosses))


def either_way(one: tuple[int, bool], other: tuple[int, bool]) -> int:
    """Entry of a route with two ways that are equally likely."""
    first, second = (port | crosses << PORT_BITS for port, crosses in (one, other))
    return first | second << WAY_BITS


@compiled
def _receive(now: int, me: Records, index: int, i: Records, memory: Records, channels: Channels) -> bool:
    """Route the heads that have come to queues without a packet; True if there is one."""
    queues, _, _, _, routed, active = memory
    any_routed = False
    for word in range(me.words):
        arrived = left = channels.arrived[me.arrived_word + word]
        taken: Records = routed[me.routed_start + word] | active[me.active_start + word]
        while left != 0:
            bit = lowest(left)
            left &= left - 1
            number = 64 * word + bit
            slot = peek(now, channels, i[index, number])
            if slot == NO_FLIT:
                continue
            arrived &= ~one_bit(bit)
            if taken >> bit & 1 == 0:
                queue = queues[me.queues_start + number]
                _route(me, queue, channels.flit[slot], memory)
                queue.ready_cycle = now + 1
                routed[me.routed_start + word] |= one_bit(bit)
                any_routed = True
        channels.arrived[me.arrived_word + word] = arrived
    return any_routed


@compiled
def _route(me: Records, queue: Records, flit: Records, memory: Records) -> None:
    """Output and virtual channels of the packet of a head flit."""
    _, ports, route, _, _, _ = memory
    port = ports[me.sides_start + queue.port]
    entry = route[me.route_start + flit.destination]
    if entry >> WAY_BITS != entry & ANY_WAY and _random(me) & 1:
        entry >>= WAY_BITS
    queue.output = entry & ANY_PORT
    output = ports[me.sides_start + queue.output]
    goes_on = port.group >= 0 and port.group == output.group
    queue.crosses = flit.payload & CROSSES if goes_on else CROSSES if (entry >> PORT_BITS & 1) | port.raises else 0
    queue.allowed = me.all_channels
    if output.split:
        queue.allowed = me.upper_channels if queue.crosses else me.all_channels ^ me.upper_channels


@compiled
def _random(me: Records) -> int:
    """64 bits, xorshift64 [Marsaglia, Journal of Statistical Software 8 (14), 2003]."""
    me.random ^= me.random << 13
    me.random ^= (me.random >> 7) & ((1 << 57) - 1)
    me.random ^= me.random << 17
    return me.random


@compiled
def _give_channels(now: int, me: Records, memory: Records) -> bool:
    """Virtual channels of their outputs for the packets that were routed; True if one got one."""
    queues, ports, _, requests, routed, _ = memory
    count, outputs = 0, 0
    for word in range(me.words):
        left = routed[me.routed_start + word]
        while left != 0:
            number = 64 * word + lowest(left)
            left &= left - 1
            queue = queues[me.queues_start + number]
            if queue.ready_cycle <= now and ports[me.sides_start + queue.output].free & queue.allowed != 0:
                requests[me.requests_start + count] = number
                count += 1
                outputs |= one_bit(queue.output)
    if count == 1:
        number = requests[me.requests_start]
        queue = queues[me.queues_start + number]
        _accept(now, me, number, ports[me.sides_start + queue.output].free & queue.allowed, memory)
    elif count > 1:
        while outputs != 0:
            _give_channels_of(now, me, lowest(outputs), count, memory)
            outputs &= outputs - 1
    return count > 0


@compiled
def _give_channels_of(now: int, me: Records, output: int, count: int, memory: Records) -> None:
    """iSLIP: each free virtual channel chooses an input queue by its turn, each input queue a virtual channel by its own."""
    queues, ports, _, requests, _, _ = memory
    all_queues = me.ports * me.channels
    left = ports[me.sides_start + output].free
    while left != 0:
        channel = lowest(left)
        left &= left - 1
        turn = queues[me.queues_start + output * me.channels + channel].giver_turn
        chosen, least_wait = -1, all_queues
        for request in range(count):
            number = requests[me.requests_start + request]
            queue = queues[me.queues_start + number]
            wait = number - turn + (all_queues if number < turn else 0)
            if queue.output == output and queue.allowed >> channel & 1 and wait < least_wait:
                chosen, least_wait = number, wait
        if chosen >= 0:
            queues[me.queues_start + chosen].granted |= one_bit(channel)
    for request in range(count):
        number = requests[me.requests_start + request]
        granted = queues[me.queues_start + number].granted
        if granted != 0:
            queues[me.queues_start + number].granted = 0
            _accept(now, me, number, granted, memory)


@compiled
def _accept(now: int, me: Records, number: int, granted: int, memory: Records) -> None:
    """An input queue takes the next in turn of the virtual channels of its output that are granted to it."""
    queues, ports, _, _, routed, active = memory
    queue = queues[me.queues_start + number]
    turn = queue.turn - queue.output * me.channels
    channel = next_in_turn(granted, turn) if 0 <= turn < me.channels else lowest(granted)
    queue.next_queue = queue.output * me.channels + channel
    queue.turn = queue.next_queue + 1
    queues[me.queues_start + queue.next_queue].giver_turn = number + 1
    queue.ready_cycle = now + 1
    word, bit = number >> 6, one_bit(number & 63)
    routed[me.routed_start + word] &= ~bit
    active[me.active_start + word] |= bit
    ports[me.sides_start + queue.output].free &= ~one_bit(channel)


@compiled
def _want_switch(now: int, me: Records, index: int, i: Records, o: Records, memory: Records, channels: Channels) -> int:
    """For each input port and output the queue that wants to pass, by the turns of the port's queues; the outputs wanted."""
    queues, ports, _, requests, _, active = memory
    outputs = 0
    for word in range(me.words):
        left = active[me.active_start + word]
        while left != 0:
            number = 64 * word + lowest(left)
            left &= left - 1
            queue = queues[me.queues_start + number]
            ready = queue.ready_cycle <= now and peek(now, channels, i[index, number]) != NO_FLIT
            if not ready or free_space(now, channels, o[index, queue.next_queue]) == 0:
                continue
            output, channel = ports[me.sides_start + queue.output], queue.channel
            request = me.requests_start + queue.port * me.ports + queue.output
            if output.wanted >> queue.port & 1 == 0:
                output.wanted |= one_bit(queue.port)
                outputs |= one_bit(queue.output)
                requests[request] = channel
            else:
                turn = ports[me.sides_start + queue.port].queue_turn
                if requests[request] < turn <= channel:  # those before it come later, in their order
                    requests[request] = channel
    return outputs


@compiled
def _give_switch(me: Records, outputs: int, memory: Records) -> int:
    """iSLIP: each output chooses an input port by its turn; the input ports that were chosen."""
    _, ports, _, _, _, _ = memory
    inputs = 0
    while outputs != 0:
        output = lowest(outputs)
        outputs &= outputs - 1
        port = ports[me.sides_start + output]
        chosen = next_in_turn(port.wanted, port.output_turn)
        port.wanted = 0
        ports[me.sides_start + chosen].granted |= one_bit(output)
        inputs |= one_bit(chosen)
    return inputs


@compiled
def _pass(
    now: int, me: Records, index: int, number: int, i: Records, o: Records, memory: Records, channels: Channels
) -> None:
    """An input port takes one of the outputs granted to it, and the flit leaves."""
    queues, ports, _, requests, _, active = memory
    port = ports[me.sides_start + number]
    output = next_in_turn(port.granted, port.input_turn)
    port.granted = 0
    port.input_turn = output + 1
    ports[me.sides_start + output].output_turn = number + 1
    channel = requests[me.requests_start + number * me.ports + output]
    port.queue_turn = channel + 1 if channel + 1 < me.channels else 0
    place = number * me.channels + channel
    queue = queues[me.queues_start + place]
    slot = forward(now, channels, i[index, place], o[index, queue.next_queue])
    flit = channels.flit[slot]
    flit.virtual_channel = queue.next_queue - output * me.channels
    flit.payload = (flit.payload & ~CROSSES | queue.crosses) + 1
    if flit.last:
        active[me.active_start + (place >> 6)] &= ~one_bit(place & 63)
        ports[me.sides_start + output].free |= one_bit(flit.virtual_channel)
        if not is_empty(channels, i[index, place]):
            channels.arrived[me.arrived_word + (place >> 6)] |= one_bit(place & 63)


@compiled
def _step_router(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:
    i, o = ports
    for index in awake:
        me = state[index]
        goes_on = _receive(now, me, index, i, memory, channels)
        goes_on |= _give_channels(now, me, memory)
        inputs = _give_switch(me, _want_switch(now, me, index, i, o, memory, channels), memory)
        goes_on |= inputs != 0
        while inputs != 0:
            _pass(now, me, index, lowest(inputs), i, o, memory, channels)
            me.flit_hops += 1
            inputs &= inputs - 1
        if goes_on:
            wake_at(now, channels, me.block, now + 1)


class Router(
    Block,
    step=_step_router,
    state=dict.fromkeys(["ports", "channels", "words", "all_channels", "upper_channels", "random", "flit_hops"], "i8"),
):
    """A router with as many inputs as outputs, ``channels`` virtual channels each.

    ``i`` and ``o`` have one Fifo per port and virtual channel, at ``port * channels + channel``: make them by
    :meth:`output_fifo`. A packet for node d leaves by ``route[d]``, made by :func:`way` or :func:`either_way`; its flits
    follow its head, one per cycle at most, and no other packet has its virtual channel in between.

    Where a port is ``split``, packets that cross use the upper half of its virtual channels, others the lower. A packet
    keeps whether it crosses when it goes on in the same ``group`` of ports, as between the two ports of a dimension;
    otherwise its way says so, or the port by which it came, if that ``raises``. All three are by port; group -1 is none.
    """

    i = Inputs(Fifo)
    o = Outputs(Fifo)
    queues = Memory(_QUEUE)
    sides = Memory(_PORT)
    route = Memory("i4")
    requests = Memory("i4")
    routed = Memory("i8")
    active = Memory("i8")

    def __init__(
        self,
        ports: int,
        channels: int,
        route: ArrayLike,
        *,
        group: ArrayLike = -1,
        raises: ArrayLike = 0,
        split: ArrayLike = 0,
        seed: int = 1,
    ) -> None:
        if not 1 <= ports <= MOST_PORTS:
            raise ValueError(f"Router.ports must be from 1 to {MOST_PORTS}, not {ports}")
        if not 1 <= channels <= MOST_VIRTUAL_CHANNELS:
            raise ValueError(f"Router.channels must be from 1 to {MOST_VIRTUAL_CHANNELS}, not {channels}")
        everything, words = (1 << channels) - 1, -(-ports * channels // 64)
        queues = np.zeros(ports * channels, _QUEUE)
        queues["port"], queues["channel"] = np.divmod(np.arange(ports * channels), channels)
        port = np.zeros(ports, _PORT)
        port["free"], port["group"], port["raises"], port["split"] = everything, group, raises, split
        super().__init__(
            state={
                "ports": ports,
                "channels": channels,
                "words": words,
                "all_channels": everything,
                "upper_channels": everything >> channels // 2 << channels // 2,
                "random": seed,
            },
            memory={
                "queues": queues,
                "sides": port,
                "route": route,
                "requests": np.zeros(max(ports * ports, ports * channels)),
                "routed": np.zeros(words),
                "active": np.zeros(words),
            },
            widths={"i": ports * channels, "o": ports * channels},
        )

    @staticmethod
    def output_fifo(depth: int) -> Fifo:
        """The queue of one virtual channel at the next router, or at the client, and the channel to it."""
        return Fifo(depth, LATENCY_CYCLES, CREDIT_CYCLES)
