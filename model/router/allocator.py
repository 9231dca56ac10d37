"""Allocators give virtual channels to packets and the switch to flits.

Each of the two is an iSLIP of one iteration [McKeown, IEEE/ACM Transactions on Networking 7 (2), 1999]: those that give
choose among requests in turn, then those that asked choose among what they got, in turn, too. The switch has a wavefront
allocator as well. The words are those of :mod:`lightfabric.model.router.router`.
"""

from typing import Any

import numpy as np

from lightfabric.model.kernel.bitset import is_sooner, lowest, next_in_turn, one_bit
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
                bit = one_bit(queue.output & 63)
                shared |= outputs & bit
                outputs |= bit
    # A queue that is alone at its output gets what it asks for without the two rounds of choice: the common case. Where
    # ports are more than a word has bits, some share a bit, and the two rounds give them the same.
    for request in range(count):
        number = requests[request]
        queue = queues[number]
        free = np.int64(ports[queue.output].free & queue.allowed)
        if shared >> (queue.output & 63) & 1 == 0:
            _accept(me, number, free, index, o, memory)
        else:
            _choose_queues(me, number, free, memory)
    if shared != 0:
        for request in range(count):
            number = requests[request]
            granted = _granted(me, number, shared, memory)
            if granted != 0:
                _accept(me, number, granted, index, o, memory)
    return count


@compiled
def _choose_queues(me: Records, number: int, free: Any, memory: Records) -> None:
    """Let free virtual channels of an output choose this input queue if its turn is before that of their choice."""
    queues = memory[0]
    first = queues[number].output * me.channels
    while free != 0:
        giver = queues[first + lowest(free)]
        free &= free - 1
        if giver.chosen < 0 or is_sooner(number, giver.chosen, giver.giver_turn):
            giver.chosen = number


@compiled
def _granted(me: Records, number: int, shared: int, memory: Records) -> int:
    """Find the virtual channels that have chosen an input queue, which are free to choose again."""
    queues, ports = memory[0], memory[1]
    queue, granted = queues[number], 0
    if shared >> (queue.output & 63) & 1:
        left = np.int64(ports[queue.output].free & queue.allowed)
        while left != 0:
            channel = lowest(left)
            left &= left - 1
            giver = queues[queue.output * me.channels + channel]
            if giver.chosen == number:
                giver.chosen = -1
                granted |= one_bit(channel)
    return granted


@compiled
def _accept(me: Records, number: int, granted: Any, index: int, o: Records, memory: Records) -> None:
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
        # Ports that share a bit, where they are more than a word has, are chosen among as if they shared a port.
        input_bit, output_bit = one_bit(queue.port & 63), one_bit(queue.output & 63)
        shared |= inputs & input_bit | outputs & output_bit
        inputs |= input_bit
        outputs |= output_bit
    if shared != 0:
        if me.is_wavefront:
            return _pass_wave(now, me, count, memory, channels)
        return _pass_chosen(now, me, count, memory, channels)
    for n in range(count):
        _pass(now, me, requesting[n], memory, channels)
    return count


@compiled
def _pass_chosen(now: int, me: Records, count: int, memory: Records, channels: Channels) -> int:
    """Let each output choose an input queue in turn, then each input port an output; returns how many flits pass."""
    queues, ports, _, _, requesting, _ = memory
    for n in range(count):
        number = requesting[n]
        queue = queues[number]
        output = ports[queue.output]
        if output.chosen < 0 or _asks_sooner(queue, queues[output.chosen], output, ports[queue.port]):
            output.chosen = number
    for n in range(count):
        number = requesting[n]
        queue = queues[number]
        port, output = ports[queue.port], ports[queue.output]
        if output.chosen == number:
            output.chosen = -1
            if port.accepted < 0 or is_sooner(queue.output, queues[port.accepted].output, port.input_turn):
                port.accepted = number
    passed = 0
    for n in range(count):
        number = requesting[n]
        port = ports[queues[number].port]
        if port.accepted == number:
            port.accepted = -1
            _pass(now, me, number, memory, channels)
            passed += 1
    return passed


@compiled
def _asks_sooner(queue: Records, other: Records, output: Records, port: Records) -> bool:
    """Tell whether the output prefers a queue to another one: the ports go by its turn, the queues of one by theirs."""
    if queue.port == other.port:
        return is_sooner(queue.channel, other.channel, port.queue_turn)
    return is_sooner(queue.port, other.port, output.output_turn)


@compiled
def _pass_wave(now: int, me: Records, count: int, memory: Records, channels: Channels) -> int:
    """Let all flits pass that still can, diagonal by diagonal, and each cycle from the next one on; returns how many."""
    # No two crossings of a diagonal share a row or a column, so all of a diagonal can pass at once.
    queues, ports, _, later, requesting, _ = memory
    for n in range(count):
        number = requesting[n]
        queue = queues[number]
        diagonal = ports[(queue.port + queue.output + me.ports - now % me.ports) % me.ports]
        first = diagonal.first
        # Queues come port by port, and a port has one crossing in a diagonal: another queue there can only be the last one.
        if first >= 0 and queues[requesting[first]].port == queue.port:
            if is_sooner(queue.channel, queues[requesting[first]].channel, ports[queue.port].queue_turn):
                requesting[first] = number
        else:
            later[n], diagonal.first = first, n
    passed = 0
    for diagonal in range(me.ports):
        n = ports[diagonal].first
        ports[diagonal].first = -1
        while n >= 0:
            number = requesting[n]
            port, output = ports[queues[number].port], ports[queues[number].output]
            if port.accepted < 0 and output.chosen < 0:
                port.accepted = output.chosen = number
                _pass(now, me, number, memory, channels)
                passed += 1
            n = later[n]
    for n in range(count):
        queue = queues[requesting[n]]
        ports[queue.port].accepted = ports[queue.output].chosen = -1
    return passed


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
