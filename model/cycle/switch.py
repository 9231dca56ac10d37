"""The switch moves packets from input queues to outputs, flit by flit, as round-robin arbiters choose.

It does what ``lightfabric.rtl.switch`` does, arbiter by arbiter, in the cycles that ``SwitchTiming`` says. Its words:

* *queue*: one virtual channel of a port, of an input or of an output, at ``port * channels + channel``
* *offer*: the virtual channel whose flit an input puts forward; *wanted*: the inputs that offer one to an output
* *holder*: the input whose packet has an output queue; no other packet enters until its last flit has passed [wormhole]
* *turn*: the virtual channel of an input, or the input of an output, that is asked first in the next cycle
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
    """Let each input offer a virtual channel to an output; returns the heads seen and the outputs wanted, as bits."""
    route, input_turn, _, holder, offer, wanted = memory
    heads, outputs = 0, 0
    for port in range(me.ports):
        wants = False
        channel = input_turn[port]
        for _ in range(me.channels):
            slot = peek(now, channels, i[index, port * me.channels + channel])
            if slot != NO_FLIT:
                heads += 1  # of all virtual channels: those not offered now must be looked at again
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
    """Send the flit of the next input in turn by an output."""
    _, input_turn, output_turn, holder, offer, wanted = memory
    port = next_in_turn(wanted[output], output_turn[output])
    wanted[output] = 0
    channel = offer[port]
    queue = output * me.channels + channel
    slot = forward(now, channels, i[index, port * me.channels + channel], o[index, queue])
    holder[queue] = -1 if channels.flit[slot].last else port
    output_turn[output] = port + 1 if port + 1 < me.ports else 0
    # The turn of an input goes on only when its offer is taken, as the RTL's arbiter is told by the grant.
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
        # With no output wanted every head waits for a credit, of which its Fifo tells.
        if waits and heads > 0:
            wake_at(now, channels, me.block, now + 1)


class Switch(Block, step=_step_switch, state={"ports": "i8", "channels": "i8"}):
    """Moves flits from input queues to outputs; a flit for destination d leaves by output ``routes[d]``.

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
        """Make a channel into a switch from a producer whose flits are valid ``producer_cycles`` after it pushes them."""
        return Fifo(spec.buffer_flits, producer_cycles + timing.credit_cycles)

    def output_fifo(self, consumer_cycles: int = 1) -> Fifo:
        """Make a channel out of this switch to a consumer that pops a flit ``consumer_cycles`` after it is valid."""
        # The latency of the RTL is split: its queue lies in front of this block, its output register behind it.
        register_cycles = self.timing.latency_cycles - self.timing.credit_cycles
        credit_cycles = self.timing.credit_loop_cycles - register_cycles
        return Fifo(self.spec.buffer_flits, register_cycles + consumer_cycles, credit_cycles)
