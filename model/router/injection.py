"""Clients inject synthetic traffic: they send packets by chance and keep account of those that arrive."""

from dataclasses import dataclass
from math import log, log1p
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.kernel.bitset import lowest, one_bit
from lightfabric.model.kernel.block import Block, Inputs, Memory, Outputs
from lightfabric.model.kernel.channel import Channels, Fifo, arrivals, has_space, pop, push, wake_at
from lightfabric.model.kernel.compiled import Records, compiled, record
from lightfabric.model.router.route import CROSSES

Pattern = Literal["uniform", "transpose", "neighbour", "tornado", "bit-complement", "hot-spot"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)
HOT_SHARE = 0.1
"""This share of the packets of hot-spot traffic goes to node 0; the others are uniform."""

INJECTION_CYCLES = 2
"""A flit takes so long from a client to its router, and its place there to be the client's again: as in BookSim2."""
BINS = 2048
"""The histogram of latencies has so many bins, a cycle each; the last one has all that took longer."""

_BATCH = record(packets="i8", latency="i8", hops="i8", accepted="i8")
"""Packets created in a part of the measurement that have arrived, and their sums; flits that arrived in that part."""


def destinations(pattern: Pattern, k: int, n: int, nodes: int) -> NDArray[np.int64] | None:
    """Tell where each node sends to; None if by chance. ValueError if the pattern needs other numbers of nodes.

    Neighbour and tornado are digit by digit in base ``k``, transpose and bit complement on the bits of the node's number
    [Dally, Towles, Principles and Practices of Interconnection Networks, table 3.1].

    >>> destinations("tornado", 8, 1, 8).tolist()
    [3, 4, 5, 6, 7, 0, 1, 2]
    """
    source, bits = np.arange(nodes), (nodes - 1).bit_length()
    must_be = {"neighbour": k**n, "tornado": k**n, "transpose": 4 ** (bits // 2), "bit-complement": 1 << bits}.get(
        pattern, nodes
    )
    if nodes != must_be:
        raise ValueError(f"traffic must be uniform or hot-spot on {nodes} nodes, not {pattern}")
    if pattern in ("neighbour", "tornado"):
        step = 1 if pattern == "neighbour" else (k + 1) // 2 - 1
        return sum(((source // k**d + step) % k * k**d for d in range(n)), np.zeros(nodes, np.int64))
    if pattern == "bit-complement":
        return source ^ nodes - 1
    if pattern == "transpose":
        half = bits // 2
        return source >> half | (source & (1 << half) - 1) << half
    return None


@compiled
def _random(me: Records) -> float:
    """Draw a number between 0 and 1, never 0, by xorshift64 [Marsaglia, Journal of Statistical Software 8 (14), 2003]."""
    me.random ^= me.random << 13
    # The shift of a signed word repeats its sign: the mask makes it the shift of an unsigned one.
    me.random ^= (me.random >> 7) & ((1 << 57) - 1)
    me.random ^= me.random << 17
    return ((me.random >> 11 & (1 << 53) - 1) + 0.5) * 2.0**-53


@compiled
def _create_next(me: Records) -> None:
    """Decide when the next packet is created: geometric gaps are Bernoulli trials, one per cycle."""
    # One logarithm per packet instead of a trial per cycle lets the block sleep in between.
    gap_cycles = 0.0 if me.log_miss == 0 else log(_random(me)) / me.log_miss
    me.created_cycle += 1 + int(min(gap_cycles, 1e15))


@compiled
def _begin(me: Records, fixed: Records) -> None:
    """Choose destination and virtual channel of the next packet."""
    if me.fixed_count > 0:
        me.destination = fixed[me.fixed_start]
    elif me.hot_share > 0 and _random(me) < me.hot_share:
        me.destination = 0
    else:
        me.destination = int(_random(me) * me.nodes)
    me.channel = me.channel + 1 if me.channel + 1 < me.channels else 0
    me.left = me.packet_flits


@compiled
def _send(now: int, me: Records, index: int, o: Records, memory: Records, channels: Channels) -> None:
    """Send a flit, if it is time and there is room."""
    fixed, _, _ = memory
    # The first packet is created here and not in the constructor: chance is drawn in compiled code only.
    if me.created_cycle < 0:
        _create_next(me)
    if me.left == 0:
        if me.created_cycle > now:
            wake_at(now, channels, me.block, me.created_cycle)
            return
        _begin(me, fixed)
        me.measured += me.first_cycle <= me.created_cycle < me.end_cycle
    # The queue of packets has no end: the creation goes on in time while this one waits, so latency counts the wait.
    if not has_space(now, channels, o[index, me.channel]):
        return
    flit = channels.flit[push(now, channels, o[index, me.channel])]
    me.left -= 1
    flit.payload, flit.injected_cycle, flit.packet = 0, me.created_cycle, me.sent
    flit.source, flit.destination = me.number, me.destination
    flit.virtual_channel, flit.last = me.channel, me.left == 0
    if me.left == 0:
        me.sent += 1
        _create_next(me)
    wake_at(now, channels, me.block, now + 1 if me.left > 0 else me.created_cycle)


@compiled
def _take(now: int, me: Records, index: int, i: Records, memory: Records, channels: Channels) -> None:
    _, batches, bins = memory
    left = arrivals(now, channels, me.first_word) & one_bit(me.channels) - 1
    while left != 0:
        channel = lowest(left)
        left &= left - 1
        # Accepted flits are counted by their arrival, latencies by their creation: saturation must show in both.
        flit = channels.flit[pop(now, channels, i[index, channel])]
        if me.first_cycle <= now < me.end_cycle:
            batches[me.batches_start + (now - me.first_cycle) // me.batch_cycles].accepted += 1
        if flit.last and me.first_cycle <= flit.injected_cycle < me.end_cycle:
            batch = batches[me.batches_start + (flit.injected_cycle - me.first_cycle) // me.batch_cycles]
            batch.packets += 1
            batch.latency += now - flit.injected_cycle
            batch.hops += flit.payload & (CROSSES - 1)
            bins[me.bins_start + min(now - flit.injected_cycle, me.bins_count - 1)] += 1


@compiled
def _step_client(now: int, awake: Records, state: Records, memory: Records, ports: Records, channels: Channels) -> None:
    i, o = ports
    for index in awake:
        me = state[index]
        _take(now, me, index, i, memory, channels)
        _send(now, me, index, o, memory, channels)


@dataclass(frozen=True)
class Traffic:
    """Says what the clients send, and when it is measured.

    ``load`` is in flits per node and cycle. Packets created in ``batches`` times ``batch_cycles`` after ``warm_up_cycles``
    are measured; the clients go on sending after that.
    """

    load: float
    packet_flits: int = 1
    pattern: Pattern = "uniform"
    warm_up_cycles: int = 2_000
    batch_cycles: int = 2_000
    batches: int = 10

    @property
    def end_cycle(self) -> int:
        """Give the first cycle that is not measured any more."""
        return self.warm_up_cycles + self.batches * self.batch_cycles


_COUNTS = (
    "number nodes channels packet_flits first_cycle end_cycle batch_cycles created_cycle left channel destination sent "
    "measured random"
)
_STATE = {**dict.fromkeys(_COUNTS.split(), "i8"), "log_miss": "f8", "hot_share": "f8"}


class Client(Block, step=_step_client, sees_arrivals=True, state=_STATE):
    """Sends packets, made by Bernoulli trials, from an endless queue, a flit per cycle at most; takes all that comes.

    Latency is from the creation of a packet to its last flit. ``i`` and ``o`` have one Fifo per virtual channel, which
    packets take in turn. ``measured`` counts the packets created while it was measured.
    """

    i = Inputs(Fifo)
    o = Outputs(Fifo)
    fixed = Memory("i4")
    batches = Memory(_BATCH)
    bins = Memory("i4")

    def __init__(self, number: int, nodes: int, channels: int, traffic: Traffic, fixed: int | None, seed: int) -> None:
        chance = traffic.load / traffic.packet_flits
        super().__init__(
            state={
                "number": number,
                "nodes": nodes,
                "channels": channels,
                "packet_flits": traffic.packet_flits,
                "first_cycle": traffic.warm_up_cycles,
                "end_cycle": traffic.end_cycle,
                "batch_cycles": traffic.batch_cycles,
                "created_cycle": -1,
                "channel": channels - 1,
                "random": seed,
                "log_miss": 0.0 if chance >= 1 else log1p(-chance),
                "hot_share": HOT_SHARE if traffic.pattern == "hot-spot" else 0.0,
            },
            memory={
                "fixed": [] if fixed is None else [fixed],
                "batches": np.zeros(traffic.batches, _BATCH),
                "bins": np.zeros(BINS),
            },
            widths={"i": channels, "o": channels},
        )

    @staticmethod
    def output_fifo(depth: int) -> Fifo:
        """Make the queue of one virtual channel at the router of a client, and the channel to it."""
        return Fifo(depth, INJECTION_CYCLES, INJECTION_CYCLES)
