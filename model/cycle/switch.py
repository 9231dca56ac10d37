"""The switch in the cycle model: input queues, round-robin arbiters, wormhole packets, credits.

What it does is that of ``lightfabric.rtl.switch``, arbiter by arbiter; when it does it comes from ``SwitchTiming``.
"""

import numpy as np
from numpy.typing import ArrayLike

from lightfabric.model.kernel.bitset import lowest, next_in_turn, one_bit
from lightfabric.model.kernel.block import Block, Inputs, Memory, Outputs
from lightfabric.model.kernel.channel import NO_FLIT, Channels, Fifo, forward, has_space, peek, wake_at
from lightfabric.model.kernel.compiled import Records, compiled, from_
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import SwitchTiming


@compiled
def _offers(now: int, me: Records, index: int, i: Records, o: Records, memory: Records, channels: Channels) -> Records:
    """For each input the virtual channel it offers, for each output the inputs that want it; heads seen, outputs wanted."""
    route, input_turn, _, holder, offer, wanted = memory
    heads, outputs = 0, 0
    for port in range(me.ports):
        wants = False
        channel = input_turn[port]
        for _ in range(me.channels):
            slot = peek(now, channels, i[index, port * me.channels + channel])
            if slot != NO_FLIT:
                heads += 1
                output = route[channels.flit[slot].destination]
                queue = output * me.channels + channel
                may_enter = holder[queue] < 0 or holder[queue] == port
                if not wants and may_enter and has_space(now, channels, o[index, queue]):
                    wants = True
                    wanted[output] |= one_bit(port)
                    outputs |= one_bit(output)
                    offer[port] = channel
            channel = channel + 1 if channel + 1 < me.channels else 0
    return heads, outputs


@compiled
def _send(
    now: int, me: Records, index: int, output: int, i: Records, o: Records, memory: Records, channels: Channels
) -> None:
    """The flit of the next input in turn leaves by an output."""
    _, input_turn, output_turn, holder, offer, wanted = memory
    port = next_in_turn(wanted[output], output_turn[output])
    wanted[output] = 0
    channel = offer[port]
    queue = output * me.channels + channel
    slot = forward(now, channels, i[index, port * me.channels + channel], o[index, queue])
    holder[queue] = -1 if channels.flit[slot].last else port
    output_turn[output] = port + 1 if port + 1 < me.ports else 0
    input_turn[port] = channel + 1 if channel + 1 < me.channels else 0


@compiled
def _step_switch(now: int, awake: Records, state: Records, memories: Records, ports: Records, channels: Channels) -> None:
    i, o = ports
    route, input_turn, output_turn, holder, offer, wanted = memories
    for index in awake:
        me = state[index]
        memory = (
            from_(route, me.route_start),
            from_(input_turn, me.input_turn_start),
            from_(output_turn, me.output_turn_start),
            from_(holder, me.holder_start),
            from_(offer, me.offer_start),
            from_(wanted, me.wanted_start),
        )
        heads, outputs = _offers(now, me, index, i, o, memory, channels)
        waits = outputs != 0
        while outputs != 0:
            _send(now, me, index, lowest(outputs), i, o, memory, channels)
            outputs &= outputs - 1
            heads -= 1
        if waits and heads > 0:
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
    wanted = Memory("i8")

    def __init__(self, spec: ChipletSpec, timing: SwitchTiming, routes: ArrayLike | None = None):
        ports, channels = spec.switch_ports, spec.virtual_channels
        self.spec, self.timing = spec, timing
        super().__init__(
            state={"ports": ports, "channels": channels},
            memory={
                "route": np.arange(ports) if routes is None else routes,
                "input_turn": np.zeros(ports),
                "output_turn": np.zeros(ports),
                "holder": np.full(ports * channels, -1),
                "offer": np.zeros(ports),
                "wanted": np.zeros(ports),
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
