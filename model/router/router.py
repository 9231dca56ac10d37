"""A router moves packets over virtual channels, from input queues through four stages, as BookSim's ``iq_router``.

A head flit is routed in the cycle of its arrival, gets a virtual channel of the next router in the next one, the switch in
the third, and is at the next router ``LATENCY_CYCLES`` after that. Both allocators are iSLIP with one iteration [McKeown,
IEEE/ACM Transactions on Networking 7 (2), 1999]. All cycles are those of BookSim2 with ``routing_delay``,
``vc_alloc_delay``, ``sw_alloc_delay``, ``st_final_delay`` and ``credit_delay`` of 1 [Jiang et al., ISPASS 2013].

The words:

* *queue*: one virtual channel of an input port, or of an output port, at ``port * channels + channel``
* *head*: the first flit of a packet that has just come; *routed*: its output is known, it waits for a virtual channel
* *active*: the packet has a virtual channel of the next router, and keeps it until its last flit has passed
* *granted*: chosen by the other side, which may choose several; of these one is accepted
* *turn*: the number that is asked first, the one after that which was chosen last
* *crosses*: the packet uses the upper half of the virtual channels, because it has crossed a *dateline* or a group
* *requesting*: the list of queues that could pass the switch in this cycle; *glimpse*: see the module ``prefetch``
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from lightfabric.model.kernel.bitset import lowest, one_bit
from lightfabric.model.kernel.block import Block, Inputs, Memory, Outputs
from lightfabric.model.kernel.channel import (
    Channels,
    Fifo,
    arrivals,
    has_space,
    holds_packet,
    peek,
    wake_at,
)
from lightfabric.model.kernel.compiled import Records, compiled, from_, record
from lightfabric.model.router.allocator import give_channels, give_switch
from lightfabric.model.router.prefetch import GLIMPSE, LOOK_AHEAD, MANY, look_ahead
from lightfabric.model.router.route import find_route

Allocator = Literal["islip", "wavefront"]
Switching = Literal["cut-through", "store-and-forward"]
MAX_VIRTUAL_CHANNELS = 32
MAX_PORTS = 1 << 10
"""Of so many ports and virtual channels queues are still counted in 16 bits."""

LATENCY_CYCLES = 3
"""From the cycle in which a flit gets the switch to its arrival: the switch itself, the sender's and the channel's cycle."""
CREDIT_CYCLES = 3
"""From the cycle in which a flit gets the switch until its place can be used by the router before."""

_QUEUE = record(
    allowed="u4", taken="i4", given="i4", output="i2", next_queue="i2", turn="u2", giver_turn="u2", chosen="i2",
    port="i2", channel="i2", crosses="?",
)  # fmt: skip
"""An input queue: the virtual channels that its packet may have, the Fifos from and to which its flits go, its output and
the queue that it has there, and its turn among these. ``giver_turn`` is that of the virtual channel of the same number on
the output side, among input queues, and ``chosen`` the one that it has chosen, -1 between cycles."""
_PORT = record(
    free="u4", chosen="i2", accepted="i2", first="i2", group="i2", output_turn="i2", input_turn="i2", queue_turn="i1",
    raises="i1", split="i1",
)  # fmt: skip
"""Both sides of a port, and the turns of both. In: the queue that it has accepted a grant for. Out: the virtual channels
that are free, the queue that it has chosen. ``first`` begins the list of the diagonal of this number. All three are -1
between cycles. See :class:`Router` for the last three fields."""
_SETS = record(inputs="i8", filled="i8", heads="i8", routed="i8", active="i8")
"""Of 64 queues: those that there are, with a flit, with a head that has just come, with a packet that waits for a virtual
channel, with one that has it."""


@compiled
def _receive(now: int, me: Records, memory: Records, channels: Channels) -> None:
    """Take in which queues have a new flit, and which of these are heads."""
    sets = memory[5]
    for word in range(me.words):
        here = sets[word]
        arrived = arrivals(now, channels, me.first_word + word) & here.inputs
        here.filled |= arrived
        here.heads = arrived & ~(here.routed | here.active)


@compiled
def _want_switch(now: int, me: Records, memory: Records, channels: Channels) -> int:
    """List the queues that have a flit, a virtual channel and a credit, and count them."""
    queues, _, _, _, requesting, sets = memory
    count = 0
    for word in range(me.words):
        left = sets[word].active & sets[word].filled
        while left != 0:
            number = 64 * word + lowest(left)
            left &= left - 1
            if has_space(now, channels, queues[number].given):
                requesting[count] = number
                count += 1
    return count


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
            find_route(me, queue, channels.flit[peek(now, channels, queue.taken)], memory)
    return routed or (passed > 0 and waiting != 0)


@compiled
def _step_router(now: int, awake: Records, state: Records, memories: Records, ports: Records, channels: Channels) -> None:
    """Run the stages of each router from the last to the first, so that no flit goes through two in a cycle."""
    i, o = ports
    queues, sides, route, requests, requesting, sets, glimpses = memories
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
            from_(requesting, me.requesting_start),
            from_(sets, me.sets_start),
        )
        _receive(now, me, memory, channels)
        # Who wants the switch is settled before virtual channels are given: the register stage between the two.
        wishes = _want_switch(now, me, memory, channels)
        asking = give_channels(me, index, o, memory)
        passed = give_switch(now, me, wishes, memory, channels)
        me.flit_hops += passed
        waits = _route_heads(now, me, index, passed, i, memory, channels)
        # Who asked and may be answered next cycle must be stepped again; all others wait for a flit or a credit to come.
        if waits or asking > 0 or passed < wishes:
            wake_at(now, channels, me.block, now + 1)


_STATE = "ports channels words all_channels lower_channels upper_channels is_wavefront waits_for_tail random flit_hops"


class Router(
    Block,
    step=_step_router,
    sees_arrivals=True,
    state=dict.fromkeys(_STATE.split(), "i8"),
):
    """Routes packets between as many inputs as outputs, of ``channels`` virtual channels each.

    ``i`` and ``o`` have one Fifo per port and virtual channel, at ``port * channels + channel``: make them by
    :meth:`output_fifo`. A packet for node d leaves by ``route[d]``, made by :func:`~lightfabric.model.router.route.way` or
    ``either_way``; its flits
    follow its head, one per cycle at most, and no other packet has its virtual channel in between.

    Where a port is ``split``, packets that cross use the upper half of its virtual channels, others the lower. Of an odd
    number both halves have the middle one: each still has another of its own, on which no packet of the other half ever
    waits, so no circle of waiting closes [Duato, IEEE TPDS 4 (12), 1993]. A packet
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
    requesting = Memory("i2")
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
        if not 1 <= ports <= MAX_PORTS:
            raise ValueError(f"Router.ports must be from 1 to {MAX_PORTS}, not {ports}")
        if not 1 <= channels <= MAX_VIRTUAL_CHANNELS:
            raise ValueError(f"Router.channels must be from 1 to {MAX_VIRTUAL_CHANNELS}, not {channels}")
        everything, words = (1 << channels) - 1, -(-ports * channels // 64)
        queues = np.zeros(ports * channels, _QUEUE)
        queues["port"], queues["channel"] = np.divmod(np.arange(ports * channels), channels)
        port = np.zeros(ports, _PORT)
        port["free"], port["group"], port["raises"], port["split"] = everything, group, raises, split
        queues["chosen"] = port["chosen"] = port["accepted"] = port["first"] = -1
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
                "lower_channels": everything >> channels // 2,
                "upper_channels": everything >> channels // 2 << channels // 2,
                "is_wavefront": allocator == "wavefront",
                "waits_for_tail": switching == "store-and-forward",
                "random": seed,
            },
            memory={
                "queues": queues,
                "sides": port,
                "route": route,
                "requests": np.zeros(ports * channels),
                "requesting": np.zeros(ports * channels),
                "sets": sets,
                "glimpses": np.zeros(1, GLIMPSE),
            },
            widths={"i": ports * channels, "o": ports * channels},
        )

    @staticmethod
    def output_fifo(depth: int) -> Fifo:
        """Make the queue of one virtual channel at the next router, or at the client, and the channel to it."""
        return Fifo(depth, LATENCY_CYCLES, CREDIT_CYCLES)
