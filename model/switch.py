"""The switch in the cycle model: input queues, round-robin arbiters, wormhole packets, credits.

What it does is that of ``lightfabric.rtl.switch``, arbiter by arbiter; when it does it comes from ``SwitchTiming``.
"""

import numpy as np

from lightfabric.model.block import Block, Inputs, Memory, Outputs
from lightfabric.model.channel import NO_FLIT, Channels, Fifo, forward, free_space, peek, wake_at
from lightfabric.model.compiled import Records, compiled
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import SwitchTiming


@compiled
def _offers(now: int, me: Records, index: int, i: Records, o: Records, memory: Records, channels: Channels) -> int:
    """For each input the virtual channel it offers, and the output that wants it; the number of heads seen."""
    route, input_turn, _, holder, offer, request = memory
    heads = 0
    for port in range(me.ports):
        request[me.request_start + port] = -1
        for step in range(me.channels):
            channel = (input_turn[me.input_turn_start + port] + step) % me.channels
            slot = peek(now, channels, i[index, port * me.channels + channel])
            if slot == NO_FLIT:
                continue
            heads += 1
            output = route[me.route_start + channels.flit[slot].destination]
            queue = output * me.channels + channel
            owner = holder[me.holder_start + queue]
            may_enter = owner < 0 or owner == port
            if request[me.request_start + port] < 0 and may_enter and free_space(now, channels, o[index, queue]) > 0:
                request[me.request_start + port] = output
                offer[me.offer_start + port] = channel
    return heads


@compiled
def _winner(me: Records, output: int, output_turn: Records, request: Records) -> int:
    for step in range(me.ports):
        port = (output_turn[me.output_turn_start + output] + step) % me.ports
        if request[me.request_start + port] == output:
            return port
    return -1


@compiled
def _step_switch(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:
    i, o = ports
    _, input_turn, output_turn, holder, offer, request = memory
    for index in awake:
        me = state[index]
        waiting = _offers(now, me, index, i, o, memory, channels)
        if waiting == 0:
            continue
        sent = 0
        for output in range(me.ports):
            port = _winner(me, output, output_turn, request)
            if port < 0:
                continue
            channel = offer[me.offer_start + port]
            queue = output * me.channels + channel
            slot = forward(now, channels, i[index, port * me.channels + channel], o[index, queue])
            holder[me.holder_start + queue] = -1 if channels.flit[slot].last else port
            output_turn[me.output_turn_start + output] = (port + 1) % me.ports
            input_turn[me.input_turn_start + port] = (channel + 1) % me.channels
            sent += 1
        if 0 < sent < waiting:
            wake_at(now, channels, me.block, now + 1)


class Switch(Block, step=_step_switch, state={"ports": "i8", "channels": "i8"}):
    """Input-queued switch; a flit for destination d leaves by output ``routes[d]``.

    ``i`` and ``o`` have one Fifo per port and virtual channel, at ``port * virtual_channels + channel``: make them by
    :meth:`input_fifo` and :meth:`output_fifo`. Latency and credit loop are those of ``SwitchTiming``.
    """

    i = Inputs(Fifo)
    o = Outputs(Fifo)
    route = Memory("i4")
    input_turn = Memory("i4")
    output_turn = Memory("i4")
    holder = Memory("i4")
    offer = Memory("i4")
    request = Memory("i4")

    def __init__(self, spec: ChipletSpec, timing: SwitchTiming, routes: tuple[int, ...] | None = None):
        ports, channels = spec.switch_ports, spec.virtual_channels
        self.spec, self.timing = spec, timing
        super().__init__(
            state={"ports": ports, "channels": channels},
            memory={
                "route": np.arange(ports) if routes is None else np.array(routes),
                "input_turn": np.zeros(ports),
                "output_turn": np.zeros(ports),
                "holder": np.full(ports * channels, -1),
                "offer": np.zeros(ports),
                "request": np.zeros(ports),
            },
            widths={"i": ports * channels, "o": ports * channels},
        )

    @staticmethod
    def input_fifo(spec: ChipletSpec, timing: SwitchTiming, producer_cycles: int = 0) -> Fifo:
        """A channel into a switch from a producer whose flits are valid ``producer_cycles`` after it pushes them."""
        return Fifo(spec.buffer_flits, producer_cycles + timing.credit_cycles)

    def output_fifo(self, consumer_cycles: int = 1) -> Fifo:
        """A channel out of this switch to a consumer that can pop a flit ``consumer_cycles`` after it is valid."""
        register_cycles = self.timing.latency_cycles - self.timing.credit_cycles
        credit_cycles = self.timing.credit_loop_cycles - register_cycles
        return Fifo(self.spec.buffer_flits, register_cycles + consumer_cycles, credit_cycles)
