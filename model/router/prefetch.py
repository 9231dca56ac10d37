"""Prefetching looks ahead: what the next routers will read comes into the cache while others are stepped.

Of many routers the state does not fit the caches, and each queue leads to a Fifo, that to a place, that to another Fifo:
one after the other the misses would cost more than the work. No result depends on it.
"""

from lightfabric.model.kernel.bitset import lowest
from lightfabric.model.kernel.channel import Channels, arrivals, head_flit, head_slot, tail_slot
from lightfabric.model.kernel.compiled import Records, compiled, page, record, touch

GLIMPSE = record(queue="i4", taken="i4", given="i4", route_start="i4", is_active="?")
"""A queue that is looked at before its router is stepped. Each router has one; those of the first form a ring."""
GLIMPSES, LOOK_AHEAD = 16, 8
"""The ring has so many entries, a power of two, and begins so many routers ahead."""
MANY = 128
"""Routers awake from which the caches near the processor do not hold them. Where they do, to look ahead costs a fifth."""


@compiled
def look_ahead(
    now: int, me: Records, index: int, i: Records, memories: Records, glimpses: Records, channels: Channels, seen: int
) -> int:
    """Fetch what queues with a flit need into the cache, in three steps, as each step tells where the next one reads.

    The later steps are for queues seen a while before, when what they read has come. ``seen`` queues in this cycle.
    """
    queues, sets = memories[0], memories[5]
    for word in range(me.words):
        here = sets[me.sets_start + word]
        left = (here.filled | arrivals(now, channels, me.first_word + word)) & here.inputs
        while left != 0:
            number = lowest(left)
            left &= left - 1
            glimpse = glimpses[seen & GLIMPSES - 1]
            glimpse.queue, glimpse.taken = me.queues_start + 64 * word + number, i[index, 64 * word + number]
            # What is noted now is used later, when the router's own state may have left the cache again.
            glimpse.route_start, glimpse.is_active = me.route_start, here.active >> number & 1
            touch(queues, glimpse.queue)
            touch(channels.fifo, glimpse.taken)
            # Half a ring later the queue has come, and a whole ring later its Fifos, without a wait for either.
            _look_at_fifos(glimpses[seen + GLIMPSES // 2 & GLIMPSES - 1], queues, channels)
            _look_at_places(glimpses[seen + 1 & GLIMPSES - 1], memories[2][0], channels)
            seen += 1
    return seen


@compiled
def _look_at_fifos(glimpse: Records, queues: Records, channels: Channels) -> None:
    """Fetch the place of the flit, and the Fifo that it goes to if that is known."""
    touch(channels.slot, head_slot(channels, glimpse.taken))
    glimpse.given = queues[glimpse.queue].given if glimpse.is_active else glimpse.taken
    touch(channels.fifo, glimpse.given)


@compiled
def _look_at_places(glimpse: Records, route: Records, channels: Channels) -> None:
    """Fetch the place that the flit goes to, or the route of a head."""
    if glimpse.is_active:
        touch(channels.slot, tail_slot(channels, glimpse.given))
    else:
        flit = channels.flit[head_flit(channels, glimpse.taken)]
        touch(route, glimpse.route_start + page(flit.destination))
