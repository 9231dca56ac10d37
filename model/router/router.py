"""A router of packets with virtual channels, input queues and a pipeline of four stages, as BookSim's ``iq_router``.

A head flit is routed in the cycle of its arrival, gets a virtual channel of the next router in the next one, the switch in
the third, and is at the next router ``LATENCY_CYCLES`` after that. Both allocators are iSLIP with one iteration [McKeown,
IEEE/ACM Transactions on Networking 7 (2), 1999]. All cycles are those of BookSim2 with ``routing_delay``,
``vc_alloc_delay``, ``sw_alloc_delay``, ``st_final_delay`` and ``credit_delay`` of 1 [Jiang et al., ISPASS 2013].
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from lightfabric.model.kernel.bitset import lowest, next_in_turn, one_bit
from lightfabric.model.kernel.block import Block, Inputs, Memory, Outputs
from lightfabric.model.kernel.channel import (
    Channels,
    Fifo,
    arrivals,
    forward,
    has_space,
    holds_packet,
    peek,
    wake_at,
)
from lightfabric.model.kernel.compiled import Records, compiled, from_, look_up, record
from lightfabric.model.router.prefetch import GLIMPSE, LOOK_AHEAD, MANY, look_ahead

Allocator = Literal["islip", "wavefront"]
Switching = Literal["cut-through", "store-and-forward"]
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
    allowed="u4", granted="u4", taken="i4", given="i4", output="i2", next_queue="i2", turn="i2", giver_turn="i2",
    port="i2", channel="i2", crosses="?",
)  # fmt: skip
"""An input queue: the virtual channels that its packet may have and those granted to it, the Fifos from and to which its
flits go, its output and the queue that it has there, and its turn among these. ``giver_turn`` is that of the virtual channel
of the same number on the output side, among input queues."""
_PORT = record(
    wanted="i8", granted="i8", free="u4", group="i2", output_turn="i1", input_turn="i1", queue_turn="i1",
    raises="i1", split="i1",
)  # fmt: skip
"""Both sides of a port, and the turns of both. In: the outputs granted to it. Out: the virtual channels that are free, the
inputs that want it. See :class:`Router` for the last three."""
_SETS = record(inputs="i8", filled="i8", heads="i8", routed="i8", active="i8")
"""Of 64 queues: those that there are, with a flit, with a head that has just come, with a packet that waits for a virtual
channel, with one that has it."""


def way(port: int, crosses: bool = False) -> int:
    """Entry of a route: the output port, and whether the packet crosses a dateline in its group."""
    return either_way((port, crosses), (port, crosses))


def either_way(one: tuple[int, bool], other: tuple[int, bool]) -> int:
    """Entry of a route with two ways that are equally likely."""
    first, second = (port | crosses << PORT_BITS for port, crosses in (one, other))
    return first | second << WAY_BITS


@compiled
def _receive(now: int, me: Records, memory: Records, channels: Channels) -> None:
    sets = memory[5]
    for word in range(me.words):
        here = sets[word]
        arrived = arrivals(now, channels, me.first_word + word) & here.inputs
        here.filled |= arrived
        here.heads = arrived & ~(here.routed | here.active)


@compiled
def _want_switch(now: int, me: Records, memory: Records, channels: Channels) -> int:
    """List the queues that have a flit, a virtual channel and a credit; their number."""
    queues, _, _, _, wanting, sets = memory
    count = 0
    for word in range(me.words):
        left = sets[word].active & sets[word].filled
        while left != 0:
            number = 64 * word + lowest(left)
            left &= left - 1
            if has_space(now, channels, queues[number].given):
                wanting[count] = number
                count += 1
    return count


@compiled
def _give_channels(me: Records, index: int, o: Records, memory: Records) -> int:
    """Virtual channels of their outputs for the packets that were routed; the number of packets that could have one."""
    queues, ports, _, requests, _, sets = memory
    count, outputs, shared = 0, 0, 0
    for word in range(me.words):
        left = sets[word].routed
        while left != 0:
            number = 64 * word + lowest(left)
            left &= left - 1
            queue = queues[number]
            if ports[queue.output].free & queue.allowed != 0:
                requests[count] = number
                count += 1
                shared |= outputs & one_bit(queue.output)
                outputs |= one_bit(queue.output)
    for request in range(count):
        number = requests[request]
        queue = queues[number]
        if shared >> queue.output & 1 == 0:
            _accept(me, number, ports[queue.output].free & queue.allowed, index, o, memory)
    while shared != 0:
        _give_channels_of(me, lowest(shared), count, index, o, memory)
        shared &= shared - 1
    return count


@compiled
def _give_channels_of(me: Records, output: int, count: int, index: int, o: Records, memory: Records) -> None:
    """iSLIP: each free virtual channel chooses an input queue by its turn, each input queue a virtual channel by its own."""
    queues, ports, _, requests, _, _ = memory
    all_queues = me.ports * me.channels
    left = ports[output].free
    while left != 0:
        channel = lowest(left)
        left &= left - 1
        turn = queues[output * me.channels + channel].giver_turn
        chosen, least_wait = -1, all_queues
        for request in range(count):
            number = requests[request]
            queue = queues[number]
            wait = number - turn + (all_queues if number < turn else 0)
            if queue.output == output and queue.allowed >> channel & 1 and wait < least_wait:
                chosen, least_wait = number, wait
        if chosen >= 0:
            queues[chosen].granted |= np.uint32(1 << channel)
    for request in range(count):
        number = requests[request]
        granted = queues[number].granted
        if granted != 0:
            queues[number].granted = 0
            _accept(me, number, granted, index, o, memory)


@compiled
def _accept(me: Records, number: int, granted: int, index: int, o: Records, memory: Records) -> None:
    """An input queue takes the next in turn of the virtual channels of its output that are granted to it."""
    queues, ports, _, _, _, sets = memory
    queue = queues[number]
    turn = queue.turn - queue.output * me.channels
    channel = next_in_turn(granted, turn) if 0 <= turn < me.channels else lowest(granted)
    next_queue = queue.output * me.channels + channel
    queue.next_queue, queue.turn = next_queue, next_queue + 1
    queue.given = o[index, next_queue]
    queues[next_queue].giver_turn = number + 1
    here, bit = sets[number >> 6], one_bit(number & 63)
    here.routed &= ~bit
    here.active |= bit
    ports[queue.output].free &= ~one_bit(channel)


@compiled
def _give_switch(now: int, me: Records, count: int, memory: Records, channels: Channels) -> int:
    """The listed queues pass, or those that iSLIP chooses where they share a port; how many."""
    queues, _, _, _, wanting, _ = memory
    inputs, outputs, shared = 0, 0, 0
    for n in range(count):
        queue = queues[wanting[n]]
        shared |= inputs & one_bit(queue.port) | outputs & one_bit(queue.output)
        inputs |= one_bit(queue.port)
        outputs |= one_bit(queue.output)
    if shared != 0:
        _request_switch(me, count, memory)
        if me.is_wavefront:
            return _pass_wave(now, me, outputs, memory, channels)
        return _pass_chosen(now, me, outputs, memory, channels)
    for n in range(count):
        _pass(now, me, wanting[n], memory, channels)
    return count


@compiled
def _request_switch(me: Records, count: int, memory: Records) -> None:
    """For each input port and output the queue that wants to pass, by the turns of the port's queues."""
    queues, ports, _, requests, wanting, _ = memory
    for n in range(count):
        queue = queues[wanting[n]]
        output = ports[queue.output]
        request = queue.port * me.ports + queue.output
        if output.wanted >> queue.port & 1 == 0:
            output.wanted |= one_bit(queue.port)
            requests[request] = queue.channel
        else:
            turn = ports[queue.port].queue_turn
            if requests[request] < turn <= queue.channel:  # those before it come later, in their order
                requests[request] = queue.channel


@compiled
def _pass_chosen(now: int, me: Records, outputs: int, memory: Records, channels: Channels) -> int:
    """iSLIP: each output chooses an input port by its turn, each input port one of these by its own; how many pass."""
    _, ports, _, requests, _, _ = memory
    inputs, count = 0, 0
    while outputs != 0:
        output = lowest(outputs)
        outputs &= outputs - 1
        port = ports[output]
        chosen = next_in_turn(port.wanted, port.output_turn)
        port.wanted = 0
        ports[chosen].granted |= one_bit(output)
        inputs |= one_bit(chosen)
    while inputs != 0:
        chosen = lowest(inputs)
        inputs &= inputs - 1
        port = ports[chosen]
        output = next_in_turn(port.granted, port.input_turn)
        port.granted = 0
        _pass(now, me, chosen * me.channels + requests[chosen * me.ports + output], memory, channels)
        count += 1
    return count


@compiled
def _pass_wave(now: int, me: Records, outputs: int, memory: Records, channels: Channels) -> int:
    """Wavefront: diagonal by diagonal, each cycle from the next one on, all that still can pass; how many do."""
    _, ports, _, requests, _, _ = memory
    inputs, count, diagonal = one_bit(me.ports) - 1, 0, now % me.ports
    for _ in range(me.ports):
        left = inputs
        while left != 0:
            number = lowest(left)
            left &= left - 1
            output = diagonal - number if diagonal >= number else diagonal - number + me.ports
            if outputs >> output & 1 and ports[output].wanted >> number & 1:
                inputs ^= one_bit(number)
                outputs ^= one_bit(output)
                ports[output].wanted = 0
                _pass(now, me, number * me.channels + requests[number * me.ports + output], memory, channels)
                count += 1
        diagonal = diagonal + 1 if diagonal + 1 < me.ports else 0
    while outputs != 0:
        ports[lowest(outputs)].wanted = 0
        outputs &= outputs - 1
    return count


@compiled
def _pass(now: int, me: Records, number: int, memory: Records, channels: Channels) -> None:
    """The flit of an input queue leaves."""
    queues, ports, _, _, _, sets = memory
    queue = queues[number]
    port, output = ports[queue.port], ports[queue.output]
    port.input_turn, output.output_turn = queue.output + 1, queue.port + 1
    port.queue_turn = queue.channel + 1 if queue.channel + 1 < me.channels else 0
    here, others = sets[number >> 6], ~one_bit(number & 63)
    here.filled &= others  # the Fifo tells when the next flit can be popped
    flit = channels.flit[forward(now, channels, queue.taken, queue.given)]
    flit.virtual_channel = queue.next_queue - queue.output * me.channels
    flit.payload = (flit.payload & ~CROSSES | (CROSSES if queue.crosses else 0)) + 1
    if flit.last:
        here.active &= others
        output.free |= one_bit(flit.virtual_channel)


@compiled
def _route_heads(now: int, me: Records, index: int, passed: int, i: Records, memory: Records, channels: Channels) -> bool:
    """Route the heads that have come; True if a packet waits for a virtual channel that may be free now."""
    queues, _, _, _, _, sets = memory
    waiting, routed = 0, False
    for word in range(me.words):
        here = sets[word]
        waiting |= here.routed
        here.routed |= here.heads
        left = here.heads
        while left != 0:
            number = 64 * word + lowest(left)
            left &= left - 1
            queue = queues[number]
            queue.taken = i[index, number]
            if me.waits_for_tail and not holds_packet(now, channels, queue.taken):
                here.routed ^= one_bit(number & 63)  # each flit that comes brings it here again
                continue
            routed = True
            _route(me, queue, channels.flit[peek(now, channels, queue.taken)], memory)
    return routed or (passed > 0 and waiting != 0)


@compiled
def _route(me: Records, queue: Records, flit: Records, memory: Records) -> None:
    """Output and virtual channels of the packet of a head flit."""
    _, ports, route, _, _, _ = memory
    port = ports[queue.port]
    entry = look_up(route, flit.destination)
    if entry >> WAY_BITS != entry & ANY_WAY and _random(me) & 1:
        entry >>= WAY_BITS
    queue.output = entry & ANY_PORT
    output = ports[queue.output]
    goes_on = port.group >= 0 and port.group == output.group
    queue.crosses = (flit.payload & CROSSES if goes_on else (entry >> PORT_BITS & 1) | port.raises) != 0
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
def _step_router(now: int, awake: Records, state: Records, memories: Records, ports: Records, channels: Channels) -> None:
    """The stages from the last to the first: no flit goes through two in a cycle."""
    i, o = ports
    queues, sides, route, requests, wanting, sets, glimpses = memories
    seen, ahead = 0, LOOK_AHEAD if awake.shape[0] >= MANY else awake.shape[0]
    for turn in range(awake.shape[0]):
        index = awake[turn]
        if turn + ahead < awake.shape[0]:
            other = awake[turn + ahead]
            seen = look_ahead(now, state[other], other, i, memories, glimpses, channels, seen)
        me = state[index]
        memory = (
            from_(queues, me.queues_start),
            from_(sides, me.sides_start),
            (from_(route[0], me.route_start), route[1]),
            from_(requests, me.requests_start),
            from_(wanting, me.wanting_start),
            from_(sets, me.sets_start),
        )
        _receive(now, me, memory, channels)
        wishes = _want_switch(now, me, memory, channels)
        asking = _give_channels(me, index, o, memory)
        passed = _give_switch(now, me, wishes, memory, channels)
        me.flit_hops += passed
        waits = _route_heads(now, me, index, passed, i, memory, channels)
        if waits or asking > 0 or passed < wishes:
            wake_at(now, channels, me.block, now + 1)


_STATE = "ports channels words all_channels upper_channels is_wavefront waits_for_tail random flit_hops"


class Router(
    Block,
    step=_step_router,
    sees_arrivals=True,
    state=dict.fromkeys(_STATE.split(), "i8"),
):
    """A router with as many inputs as outputs, ``channels`` virtual channels each.

    ``i`` and ``o`` have one Fifo per port and virtual channel, at ``port * channels + channel``: make them by
    :meth:`output_fifo`. A packet for node d leaves by ``route[d]``, made by :func:`way` or :func:`either_way`; its flits
    follow its head, one per cycle at most, and no other packet has its virtual channel in between.

    Where a port is ``split``, packets that cross use the upper half of its virtual channels, others the lower. A packet
    keeps whether it crosses when it goes on in the same ``group`` of ports, as between the two ports of a dimension;
    otherwise its way says so, or the port by which it came, if that ``raises``. All three are by port; group -1 is none.

    ``allocator`` is that of the switch; "wavefront" [Tamir, Chi, IEEE TPDS 4 (1), 1993] leaves no input idle that has a flit
    for an idle output. With "store-and-forward" a packet is routed when its last flit has come; the queue must hold it.
    """

    i = Inputs(Fifo)
    o = Outputs(Fifo)
    queues = Memory(_QUEUE)
    sides = Memory(_PORT)
    route = Memory("i2", is_paged=True)
    requests = Memory("i2")
    wanting = Memory("i2")
    sets = Memory(_SETS)
    glimpses = Memory(GLIMPSE)

    def __init__(
        self,
        ports: int,
        channels: int,
        route: ArrayLike,
        *,
        group: ArrayLike = -1,
        raises: ArrayLike = 0,
        split: ArrayLike = 0,
        allocator: Allocator = "islip",
        switching: Switching = "cut-through",
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
        sets = np.zeros(words, _SETS)
        sets["inputs"] = -1
        if ports * channels % 64:
            sets["inputs"][-1] = (1 << ports * channels % 64) - 1
        super().__init__(
            state={
                "ports": ports,
                "channels": channels,
                "words": words,
                "all_channels": everything,
                "upper_channels": everything >> channels // 2 << channels // 2,
                "is_wavefront": allocator == "wavefront",
                "waits_for_tail": switching == "store-and-forward",
                "random": seed,
            },
            memory={
                "queues": queues,
                "sides": port,
                "route": route,
                "requests": np.zeros(max(ports * ports, ports * channels)),
                "wanting": np.zeros(ports * channels),
                "sets": sets,
                "glimpses": np.zeros(1, GLIMPSE),
            },
            widths={"i": ports * channels, "o": ports * channels},
        )

    @staticmethod
    def output_fifo(depth: int) -> Fifo:
        """The queue of one virtual channel at the next router, or at the client, and the channel to it."""
        return Fifo(depth, LATENCY_CYCLES, CREDIT_CYCLES)
