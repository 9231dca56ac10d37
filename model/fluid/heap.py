"""Binary heaps of the fluid model: the queues of devices, paths and links, and the calendar of what will happen."""

from lightfabric.model.fluid.world import CALENDAR, NOWHERE, World
from lightfabric.model.kernel.compiled import compiled


@compiled
def push(world: World, queue: int, item: int, key: float) -> None:
    """Put an item into a queue."""
    this = world.queue[queue]
    start, hole = this.start, this.count
    this.count += 1
    world.key[item] = key
    while hole > 0:
        parent = (hole - 1) >> 1
        other = world.item[start + parent]
        # Equal keys go by item number, so the order out of a queue does not hang on the order in.
        if world.key[other] < key or (world.key[other] == key and other < item):
            break
        world.item[start + hole] = other
        hole = parent
    world.item[start + hole] = item


@compiled
def pop(world: World, queue: int) -> int:
    """Take the item with the least (key, item) out of a queue."""
    this = world.queue[queue]
    this.count -= 1
    start, count = this.start, this.count
    # The last item fills the hole at the top and sinks; if it was the only one it stays in its old place.
    least, item = world.item[start], world.item[start + count]
    key = world.key[item]
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= count:
            break
        other = world.item[start + child]
        if child + 1 < count:
            right = world.item[start + child + 1]
            if world.key[right] < world.key[other] or (world.key[right] == world.key[other] and right < other):
                child += 1
                other = right
        if key < world.key[other] or (key == world.key[other] and item < other):
            break
        world.item[start + hole] = other
        hole = child
    world.item[start + hole] = item
    return least


@compiled
def _earlier(world: World, a: int, b: int) -> bool:
    time_a, time_b = world.occasion[a].time_ps, world.occasion[b].time_ps
    return time_a < time_b or (time_a == time_b and a < b)


@compiled
def _seat(world: World, hole: int, item: int) -> None:
    """Find the place of an item in the calendar, from a hole up or down."""
    count = world.size[CALENDAR]
    # A change of rates may move an item either way, and at most one of the two loops does anything.
    while hole > 0:
        parent = (hole - 1) >> 1
        other = world.calendar[parent]
        if _earlier(world, other, item):
            break
        world.calendar[hole] = other
        world.occasion[other].place = hole
        hole = parent
    while True:
        child = 2 * hole + 1
        if child >= count:
            break
        if child + 1 < count and _earlier(world, world.calendar[child + 1], world.calendar[child]):
            child += 1
        other = world.calendar[child]
        if _earlier(world, item, other):
            break
        world.calendar[hole] = other
        world.occasion[other].place = hole
        hole = child
    world.calendar[hole] = item
    world.occasion[item].place = hole


@compiled
def schedule(world: World, item: int, time_ps: int) -> None:
    """Put an item on the calendar, or move it to another time if it is there."""
    this = world.occasion[item]
    this.time_ps = time_ps
    hole = this.place
    if hole == NOWHERE:
        hole = world.size[CALENDAR]
        world.size[CALENDAR] += 1
    _seat(world, hole, item)


@compiled
def take_first(world: World) -> int:
    """Take the first item off the calendar."""
    item = world.calendar[0]
    first = world.occasion[item].place
    world.occasion[item].place = NOWHERE
    world.size[CALENDAR] -= 1
    # An empty calendar has nobody to seat, and its slot 0 still names the item that was taken.
    if world.size[CALENDAR] > 0:
        _seat(world, first, world.calendar[world.size[CALENDAR]])
    return item
