"""A topology says which routers are joined, and the routes, as the tables that ``model.router.route`` reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.router.route import either_way, way
from lightfabric.model.router.router import MAX_PORTS

Name = Literal["mesh", "torus", "ring", "crossbar", "fat-tree", "dragonfly"]
NAMES: tuple[Name, ...] = get_args(Name)
MAX_NODES = 1 << 14


@dataclass(frozen=True)
class End:
    """Is one end of an edge: a port of a router, and what :class:`Router` is told about a port."""

    router: int
    port: int
    group: int = -1
    raises: int = 0
    split: int = 0


@dataclass
class Topology:
    """Joins routers by edges that carry both ways, with nodes at routers and a route from each router to each node.

    ``digits`` are the base and the number of digits of a node's number by which traffic patterns go.
    """

    nodes: int
    digits: tuple[int, int]
    ends: list[list[End]] = field(default_factory=list[list[End]])
    edges: list[tuple[End, End]] = field(default_factory=list[tuple[End, End]])
    node_ends: list[End] = field(default_factory=list[End])
    route: NDArray[np.int16] = field(default_factory=lambda: np.zeros((0, 0), np.int16))

    def add_routers(self, count: int) -> None:
        """Add routers that have no ports yet."""
        self.ends += [[] for _ in range(count)]

    def join(self, a: int, b: int, *, group: int = -1, raises: int = 0, split: int = 0) -> tuple[int, int]:
        """Join two routers by an edge and return its port at each."""
        ends = self._end(a, group, raises, split), self._end(b, group, raises, split)
        self.edges.append(ends)
        return ends[0].port, ends[1].port

    def attach(self, router: int) -> int:
        """Attach the next node to a router and return its port there."""
        self.node_ends.append(self._end(router, -1, 0, 0))
        return self.node_ends[-1].port

    def _end(self, router: int, group: int, raises: int, split: int) -> End:
        end = End(router, len(self.ends[router]), group, raises, split)
        self.ends[router].append(end)
        return end


def topology(name: Name, k: int, n: int) -> Topology:
    """Build a network by its name and size.

    * mesh, torus: ``k`` routers in each of ``n`` dimensions, a node at each
    * ring: a torus of one dimension
    * crossbar: one router with ``k`` nodes
    * fat-tree: ``k``-ary ``n``-tree, k^n nodes [Petrini, Vanneschi, IPPS 1997]
    * dragonfly: ``k`` nodes and ``k`` global edges at each router, 2 k routers in a group, all groups that can be joined
      [Kim et al., ISCA 2008]

    ValueError if it would have a router of more than 1024 ports, or more than 16384 nodes.
    """
    least_k = {"mesh": 2, "torus": 3, "ring": 3, "crossbar": 2, "fat-tree": 2, "dragonfly": 1}[name]
    if k < least_k:
        raise ValueError(f"k must be at least {least_k} for a {name}, not {k}")
    if not 1 <= n <= 14:
        raise ValueError(f"n must be from 1 to 14, not {n}")
    sizes = {"mesh": (k**n, 2 * n + 1), "torus": (k**n, 2 * n + 1), "ring": (k, 3), "crossbar": (k, k)}
    sizes |= {"fat-tree": (k**n, 2 * k), "dragonfly": (2 * k * k * (2 * k * k + 1), 4 * k - 1)}
    nodes, ports = sizes[name]
    if nodes > MAX_NODES or ports > MAX_PORTS:
        most = f"at most {MAX_NODES} nodes and {MAX_PORTS} ports"
        raise ValueError(f"k must be such that a {name} has {most}, not {k}: {nodes} nodes and {ports} ports")
    if name == "crossbar":
        return _crossbar(k)
    if name == "fat-tree":
        return _fat_tree(k, n)
    if name == "dragonfly":
        return _dragonfly(k)
    return _grid(k, 1 if name == "ring" else n, wraps=name != "mesh")


def _grid(k: int, n: int, *, wraps: bool) -> Topology:
    """Build a grid with routes in the order of its dimensions, joined at its edges if it ``wraps``.

    On a torus a packet that will cross the edge of a dimension is told so where it enters that: on the upper half of the
    virtual channels it cannot wait for itself around the ring [Dally, Seitz, 1987].
    """
    nodes = k**n
    made = Topology(nodes, (k, n))
    made.add_routers(nodes)
    up, down = np.full((2, nodes, n), -1)
    for d in range(n):
        for router in range(nodes):
            digit, step = router // k**d % k, k**d
            if digit + 1 < k or wraps:
                other = router + step if digit + 1 < k else router - (k - 1) * step
                up[router, d], down[other, d] = made.join(router, other, group=d, split=int(wraps))
    home = [made.attach(router) for router in range(nodes)]
    # A table for each router: 16384 nodes are half a gigabyte in 16 bits, of which the kernel keeps equal pages once.
    made.route = np.empty((nodes, nodes), np.int16)
    digits = [_numbers(nodes) // k**d % k for d in range(n)]
    for router in range(nodes):
        made.route[router] = way(home[router])
        for d in reversed(range(n)):  # the lowest dimension that differs decides, so it is written last
            here = router // k**d % k
            ways = [_direction(here, there, k, int(up[router, d]), int(down[router, d]), wraps) for there in range(k)]
            made.route[router] = np.where(digits[d] != here, np.array(ways, np.int16)[digits[d]], made.route[router])
    return made


def _direction(here: int, there: int, k: int, up: int, down: int, wraps: bool) -> int:
    if here == there:
        return 0
    if not wraps:
        return way(up if there > here else down)
    ahead, upwards, downwards = (there - here) % k, (up, there < here), (down, there > here)
    # Half way round both ways are as short: a fixed choice would load one direction of the ring more than the other.
    if 2 * ahead == k:
        return either_way(upwards, downwards)
    return way(*(upwards if 2 * ahead < k else downwards))


def _crossbar(k: int) -> Topology:
    made = Topology(k, (k, 1))
    made.add_routers(1)
    made.route = np.array([[way(made.attach(0)) for _ in range(k)]], np.int16)
    return made


def _fat_tree(k: int, n: int) -> Topology:
    """Build a fat tree: level 0 has the nodes, and a router differs from those above it in the digit of its level.

    Upwards the destination's digit of that level chooses the port, so that packets for one node meet early.
    """
    nodes, wide = k**n, k ** (n - 1)
    made = Topology(nodes, (k, n))
    made.add_routers(n * wide)
    home = np.array([made.attach(node // k) for node in range(nodes)])
    up, down = np.full((2, n * wide, k), -1)
    for level in range(n - 1):
        for place in range(wide):
            for digit in range(k):
                above = place + (digit - place // k**level % k) * k**level
                router, upper = level * wide + place, (level + 1) * wide + above
                up[router, digit], down[upper, place // k**level % k] = made.join(router, upper)
    node, leaf = _numbers(nodes), _numbers(nodes) // k
    made.route = np.empty((n * wide, nodes), np.int16)
    for level in range(n):
        for place in range(wide):
            router = level * wide + place
            below = leaf // k**level == place // k**level
            downwards = home if level == 0 else down[router, leaf // k ** (level - 1) % k]
            ports = np.where(below, downwards, up[router, node // k**level % k])
            made.route[router] = [way(int(port)) for port in ports]
    return made


def _dragonfly(k: int) -> Topology:
    """Build a dragonfly with minimal routes: to the router with the edge to the group, over it, to that of the node.

    Behind a global edge packets use the upper virtual channels of local edges, so that no circle of waiting closes.
    """
    wide = 2 * k
    groups = wide * k + 1
    made = Topology(groups * wide * k, (groups * wide * k, 1))
    made.add_routers(groups * wide)
    home = np.array([made.attach(node // k) for node in range(made.nodes)])
    local, outwards = np.full((groups * wide, wide), -1), np.full((groups, groups, 2), -1)
    for group in range(groups):
        for a in range(wide):
            for b in range(a + 1, wide):
                one, other = group * wide + a, group * wide + b
                local[one, b], local[other, a] = made.join(one, other, split=1)
    for group in range(groups):
        for number in range(groups - 1):
            other = (group + number + 1) % groups
            # Each pair of groups has one edge: the number-th one of a group is the last but number-th one of the other.
            if group < other:
                a, b = group * wide + number // k, other * wide + (groups - 2 - number) // k
                ports = made.join(a, b, raises=1)
                outwards[group, other], outwards[other, group] = (a, ports[0]), (b, ports[1])
    router_of = _numbers(made.nodes) // k
    made.route = np.empty((groups * wide, made.nodes), np.int16)
    for router in range(groups * wide):
        group, others = router // wide, router_of // wide
        exits, ports = outwards[group, others, 0], outwards[group, others, 1]
        target = np.where(others == group, router_of, exits)
        port = np.where(target != router, local[router, target % wide], np.where(others == group, home, ports))
        made.route[router] = [way(int(number)) for number in port]
    return made


def _numbers(count: int) -> NDArray[np.int64]:
    return np.arange(count, dtype=np.int64)


def port_table(ends: Sequence[End]) -> dict[str, list[int]]:
    """Table what ``Router`` is told about its ports."""
    return {name: [getattr(end, name) for end in ends] for name in ("group", "raises", "split")}
