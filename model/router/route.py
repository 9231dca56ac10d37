"""Routes tell a router by which port and in which half of the virtual channels a packet leaves for a node."""

from lightfabric.model.kernel.compiled import Records, compiled, look_up

CROSSES = 1 << 32
"""Bit of a flit's payload: its packet uses the upper half of the virtual channels. The bits below count routers visited."""

WAY_BITS = 7
"""So many has each of two ways in a negative entry, of ports below 64; one way alone has all bits but the sign."""
ANY_WAY = (1 << WAY_BITS) - 1


def way(port: int, crosses: bool = False) -> int:
    """Make the entry of a route: the output port, and whether the packet crosses a dateline in its group."""
    return port << 1 | crosses


def either_way(one: tuple[int, bool], other: tuple[int, bool]) -> int:
    """Make the entry of a route with two ways that are equally likely."""
    return way(*one) | way(*other) << WAY_BITS | -1 << 2 * WAY_BITS


@compiled
def find_route(me: Records, queue: Records, flit: Records, memory: Records) -> None:
    """Find the output port of a packet by its head flit, and the virtual channels that it may have there."""
    _, ports, route, _, _, _ = memory
    port = ports[queue.port]
    # The random number is drawn only where there is a choice: a network without choices is the same for every seed.
    entry = look_up(route, flit.destination)
    if entry < 0:
        entry = (entry >> WAY_BITS if _random(me) & 1 else entry) & ANY_WAY
    queue.output = entry >> 1
    output = ports[queue.output]
    goes_on = port.group >= 0 and port.group == output.group
    queue.crosses = (flit.payload & CROSSES if goes_on else (entry & 1) | port.raises) != 0
    queue.allowed = me.all_channels
    if output.split:
        queue.allowed = me.upper_channels if queue.crosses else me.lower_channels


@compiled
def _random(me: Records) -> int:
    """Draw the next 64 random bits by xorshift64 [Marsaglia, Journal of Statistical Software 8 (14), 2003]."""
    me.random ^= me.random << 13
    # The shift of a signed word repeats its sign: the mask makes it the shift of an unsigned one.
    me.random ^= (me.random >> 7) & ((1 << 57) - 1)
    me.random ^= me.random << 17
    return me.random
