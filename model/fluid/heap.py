"""Binary heaps of the fluid model: the queues of devices, paths and links, and the calendar of what will happen."""

from lightfabric.model.fluid.world import CALENDAR, NOWHERE, World
from lightfabric.model.kernel.compiled import compiled


@compiled
def _fill_hole(world: World, place: int, key: float, item: int) -> None:
    world.entrant[place].key = key
    world.entrant[place].who = item


@compiled
def _before(world: World, place: int, key: float, item: int) -> bool:
    """Equal keys go by item number, so the order out of a queue does not hang on the order in."""
    other = world.entrant[place]
    return other.key < key or (other.key == key and other.who < item)


@compiled
def push(world: World, queue: int, item: int, key: float) -> None:
    """Put an item into a queue."""
    this = world.queue[queue]
    start, hole = this.start, this.count
    this.count += 1
    while hole > 0:
        parent = (hole - 1) >> 1
        if _before(world, start + parent, key, item):
            break
        _fill_hole(world, start + hole, world.entrant[start + parent].key, world.entrant[start + parent].who)
        hole = parent
    _fill_hole(world, start + hole, key, item)


@compiled
def pop(world: World, queue: int) -> int:
    """Take the item with the least (key, item) out of a queue."""
    this = world.queue[queue]
    this.count -= 1
    start, count = this.start, this.count
    # The last item fills the hole at the top and sinks; if it was the only one it stays in its old place.
    least, key, item = world.entrant[start].who, world.entrant[start + count].key, world.entrant[start + count].who
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= count:
            break
        other = world.entrant[start + child]
        if child + 1 < count and _before(world, start + child + 1, other.key, other.who):
            child += 1
        if not _before(world, start + child, key, item):
            break
        _fill_hole(world, start + hole, world.entrant[start + child].key, world.entrant[start + child].who)
        hole = child
    _fill_hole(world, start + hole, key, item)
    return least


@compiled
def _earlier(world: World, a: int, time_ps: int, item: int) -> bool:
    """Tell whether place a of the calendar has an earlier time, or the same and a lower item."""
    other = world.calendar[a]
    return other.time_ps < time_ps or (other.time_ps == time_ps and other.who < item)


@compiled
def _put(world: World, hole: int, time_ps: int, item: int) -> None:
    world.calendar[hole].time_ps = time_ps
    world.calendar[hole].who = item
    world.place[item] = hole


@compiled
def _seat(world: World, hole: int, time_ps: int, item: int) -> None:
    """Find the place of an item in the calendar, from a hole up or down."""
    count = world.size[CALENDAR]
    # A change of rates may move an item either way, and at most one of the two loops does anything.
    while hole > 0:
        parent = (hole - 1) >> 1
        if _earlier(world, parent, time_ps, item):
            break
        _put(world, hole, world.calendar[parent].time_ps, world.calendar[parent].who)
        hole = parent
    while True:
        child = 2 * hole + 1
        if child >= count:
            break
        other = world.calendar[child]
        if child + 1 < count and _earlier(world, child + 1, other.time_ps, other.who):
            child += 1
        if not _earlier(world, child, time_ps, item):
            break
        _put(world, hole, world.calendar[child].time_ps, world.calendar[child].who)
        hole = child
    _put(world, hole, time_ps, item)


@compiled
def schedule(world: World, item: int, time_ps: int) -> None:
    """Put an item on the calendar, or move it to another time if it is there."""
    hole = world.place[item]
    if hole == NOWHERE:
        hole = world.size[CALENDAR]
        world.size[CALENDAR] += 1
    _seat(world, hole, time_ps, item)


@compiled
def take_first(world: World) -> int:
    """Take the first item off the calendar."""
    item = world.calendar[0].who
    world.place[item] = NOWHERE
    world.size[CALENDAR] -= 1
    # An empty calendar has nobody to seat, and its place 0 still names the item that was taken.
    last = world.calendar[world.size[CALENDAR]]
    if world.size[CALENDAR] > 0:
        _seat(world, 0, last.time_ps, last.who)
    return item
