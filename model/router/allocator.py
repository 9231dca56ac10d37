"""Allocators give virtual channels to packets and the switch to flits.

Each of the two is an iSLIP of one iteration [McKeown, IEEE/ACM Transactions on Networking 7 (2), 1999]: those that give
choose among requests in turn, then those that asked choose among what they got, in turn, too. The switch has a wavefront
allocator as well. The words are those of :mod:`lightfabric.model.router.router`.
"""

import numpy as np

from lightfabric.model.kernel.bitset import lowest, next_in_turn, one_bit
from lightfabric.model.kernel.channel import Channels, forward
from lightfabric.model.kernel.compiled import Records, compiled
from lightfabric.model.router.route import CROSSES


@compiled
def give_channels(me: Records, index: int, o: Records, memory: Records) -> int:
    """Give the packets that were routed virtual channels of their outputs; returns how many could have one."""
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
    # A queue that is alone at its output gets what it asks for without the two rounds of choice: the common case.
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
    """Let each free virtual channel of an output choose an input queue in turn, then each queue a virtual channel."""
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
    """Let an input queue take the next in turn of the virtual channels of its output that are granted to it."""
    queues, ports, _, _, _, sets = memory
    queue = queues[number]
    # The turn goes over the queues of all outputs: after one of another output it begins with the lowest here.
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
def give_switch(now: int, me: Records, count: int, memory: Records, channels: Channels) -> int:
    """Let the listed queues pass, or those that are chosen where they share a port; returns how many."""
    queues, _, _, _, requesting, _ = memory
    inputs, outputs, shared = 0, 0, 0
    for n in range(count):
        queue = queues[requesting[n]]
        shared |= inputs & one_bit(queue.port) | outputs & one_bit(queue.output)
        inputs |= one_bit(queue.port)
        outputs |= one_bit(queue.output)
    if shared != 0:
        _request_switch(me, count, memory)
        if me.is_wavefront:
            return _pass_wave(now, me, outputs, memory, channels)
        return _pass_chosen(now, me, outputs, memory, channels)
    for n in range(count):
        _pass(now, me, requesting[n], memory, channels)
    return count


@compiled
def _request_switch(me: Records, count: int, memory: Records) -> None:
    """Note for each input port and output the queue that wants to pass, by the turns of the port's queues."""
    queues, ports, _, requests, requesting, _ = memory
    for n in range(count):
        queue = queues[requesting[n]]
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
    """Let each output choose an input port in turn, then each input port an output; returns how many flits pass."""
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
    """Let all flits pass that still can, diagonal by diagonal, and each cycle from the next one on; returns how many."""
    # No two crossings of a diagonal share a row or a column, so all of a diagonal can pass at once.
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
    # Outputs that gave nothing keep no requests: next cycle others may ask, and these anew.
    while outputs != 0:
        ports[lowest(outputs)].wanted = 0
        outputs &= outputs - 1
    return count


@compiled
def _pass(now: int, me: Records, number: int, memory: Records, channels: Channels) -> None:
    """Send the flit of an input queue through the switch."""
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
    # The tail frees the virtual channel at once: its flits cannot be overtaken, for the Fifo keeps their order.
    if flit.last:
        here.active &= others
        output.free |= one_bit(flit.virtual_channel)
