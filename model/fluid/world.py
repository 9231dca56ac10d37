"""State of the fluid model: tasks, paths, links and devices as arrays of records, built from a graph and a network."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fluid.alike import Alike
from lightfabric.model.fluid.network import Network, links_of, ragged, route_latency_ps
from lightfabric.model.kernel.compiled import Records, record
from lightfabric.model.task import Kind, TaskGraph

HORIZON_PS = 1 << 62
"""Schedules must end before this, 53 days, so that no sum of two times overflows."""

NOWHERE = -1

_AT_ONCE = 1 << 12
"""So many records are filled together."""

_TASK = record(
    kind="i1", limit="i4", runs_on="i4", path="i4", next_ready="i4", work_ps="i8", flow_bytes="f8", latency_ps="i8",
    start_ps="i8", finish_ps="i8",
)  # fmt: skip
"""A task. ``path`` is -1 when it occupies none; ``flow_bytes`` is what each route of the path carries. Tasks that can start
form a stack through ``next_ready``."""

_PATH = record(
    rate="f8", bottleneck="i4", rising="i4", run="i8", run_end="i8", flows="i8", settled_flows="i8",
    late="i4", narrowest="i4", next_lifted="i8", served="f8", since_ps="i8", queue="i8", entry="i8", shared_end="i8",
    entry_end="i8", changed="i8", next_changed="i8", light_ps="i8", live_ps="i8", round_ps="i8",
)  # fmt: skip
"""A path. ``flows`` are on it now, ``settled_flows`` when ``rate``, bytes per picosecond to each, was last settled;
``served`` bytes to each until ``since_ps``. Its entries up to ``shared_end`` are of links that may limit it, and the runs
from ``run`` to ``run_end`` have the same links. It serves for ``live_ps`` from ``light_ps`` on in each round of
``round_ps``, always if that is 0. Paths whose flows have ``changed`` form a stack through ``next_changed``.

It is ``rising`` while its rate is looked for. Then it is ``late`` if others rose before it; those to be queued form a stack
through ``next_lifted``, and ``narrowest`` is the link by which it was."""

_ENTRY = record(link="i4", uses="i4", path="i4", after="i4", before="i4")
"""A path on a link, which it occupies ``uses`` times; those of active paths form a list through ``after``, ``before``."""

_RUN = record(first="i4", end="i4", uses="i4")
"""The links from ``first`` to before ``end``, each used so many times by one path: a ring's are in a row, for loops that
the processor takes several links at a time through."""

_LINK = record(first="i4", active="i4", busy_since_ps="i8", busy_ps="i8")
"""A link. Of ``active`` paths on it, ``first`` is an entry, -1 if there is none that it may limit."""

_DEVICE = record(busy="i8", next_awake="i8", left_ps="i8")
"""A device that has ``left_ps`` to compute; those that are idle and have work form a stack through ``next_awake``."""

_QUEUE = record(start="i8", count="i8")
"""A binary heap in ``entrant[start:start + count]``, least (key, item) first."""

_ENTRANT = record(key="f8", who="i8")
"""What is in a queue, and by what it is ordered."""

_OCCASION = record(time_ps="i8", who="i8")
"""When a task finishes or the next flow of a path ends."""

READY, AWAKE, CHANGED, LIFTED, CALENDAR, ROUND, RISING, LATEST = range(8)
"""Places in ``World.size``."""


class World(NamedTuple):
    """All that the compiled engine knows: t tasks, p paths, l links, d devices, as arrays, most of them of records.

    ``waiting`` counts what each task waits for; ``successor[edge[i]:edge[i + 1]]`` are those that wait for task i.
    Queue i below d holds the computations that wait for device i, by the moment they got ready; queue d + i the flows of
    path i, by the bytes served at which they end; the last one paths, items t to t + p, by the level at which the first of
    their links fills up. ``calendar`` is one more binary heap, of tasks and of paths from t on; ``place`` says where in it
    each stands, -1 if it does not.

    By path ``lifted_round`` is the last settlement that looked for its rate. By link known rates leave ``free + free_rest``
    bytes per picosecond to ``rising`` flows; ``share`` is the level at which that fills the link up, ``share_bits`` the same
    memory as whole numbers; the link is the bottleneck of ``held`` paths.

    ``size`` holds the heads of the stacks, the counts of the calendar, of the settlements and of the paths that rise in the
    one under way, and the moment before which everything must end.
    """

    task: Records
    waiting: Records
    edge: Records
    successor: Records
    path: Records
    lifted_round: Records
    entry: Records
    run: Records
    link: Records
    free: Records
    free_rest: Records
    rising: Records
    share: Records
    share_bits: Records
    held: Records
    device: Records
    queue: Records
    entrant: Records
    calendar: Records
    place: Records
    size: Records


def build_world(graph: TaskGraph, network: Network, message_latency_ps: int, alike: Alike | None = None) -> World:
    """Everything at rest at time 0. Paths 0.. are the routes of the network, the rings of the graph's groups follow."""
    task, path, entry = tasks_and_paths(graph, network, message_latency_ps, alike)
    path["queue"] = graph.devices + np.arange(len(path))
    run = _join_runs(path, entry)
    links = len(network.bytes_per_s)
    share = np.full(links, np.inf)
    moves = task["path"] >= 0
    queued = np.concatenate([graph.device[graph.kind == Kind.COMPUTE], graph.devices + task["path"][moves]]).astype(np.int64)
    # Each queue has room for all that can ever be in it, since compiled code does not allocate; the last is of paths.
    queue = _records(_QUEUE, graph.devices + len(path) + 1)
    queue["start"][1:] = np.cumsum(np.bincount(queued, minlength=len(queue) - 1))
    items = len(task) + len(path)
    world = World(
        task, np.bincount(graph.successors, minlength=len(graph)).astype(np.int32), graph.successor_start, graph.successors,
        path, np.zeros(len(path), np.int64), entry, run, _records(_LINK, links, first=NOWHERE),
        # Rates are in bytes per picosecond from here on, so that no event has to convert them.
        network.bytes_per_s * 1e-12, np.zeros(links), np.zeros(links), share, share.view(np.int64),
        np.zeros(links, np.int32), _records(_DEVICE, graph.devices, left_ps=_computed_ps(graph)), queue,
        np.empty(items, _ENTRANT),
        np.empty(items, _OCCASION), np.full(items, NOWHERE), np.zeros(8, np.int64),
    )  # fmt: skip
    world.size[[READY, AWAKE, CHANGED, LIFTED]] = NOWHERE
    world.size[LATEST] = HORIZON_PS
    return world


def _computed_ps(graph: TaskGraph) -> NDArray[np.int64]:
    """Add up the computations of each device, to the horizon at most."""
    computes = graph.kind == Kind.COMPUTE
    total_ps = np.zeros(graph.devices, np.int64)
    np.add.at(total_ps, graph.device[computes], graph.work[computes])
    # Sums of whole numbers may overflow, those of floats tell where.
    beyond = np.bincount(graph.device[computes], graph.work[computes], graph.devices) >= HORIZON_PS
    return np.where(beyond, HORIZON_PS, total_ps)


def tasks_and_paths(
    graph: TaskGraph, network: Network, message_latency_ps: int, alike: Alike | None = None
) -> tuple[Records, Records, Records]:
    """Tasks with their latency and the path of their bytes, paths, and the entries of paths, a link with its uses each.

    Where links are ``alike`` the one that stands for others is entered, used as often as by all copies of the path.
    """
    task = _tasks(graph, network, message_latency_ps)
    moves = task["path"] >= 0
    path, entry = _paths(graph, network, task["path"][moves], alike)
    if alike is None:
        return task, path, entry
    copies = np.zeros(len(path), np.int64)
    copies[task["path"][moves]] = alike.copies(graph)[moves]
    entry["uses"] = entry["uses"] * copies[entry["path"]] // alike.link_copies()[entry["link"]]
    return task, path, entry


def _records(dtype: np.dtype[Any], count: int, **values: Any) -> Records:
    """Records with the given fields and zeros elsewhere."""
    records = np.zeros(count, dtype)
    # Field after field of records that the processor's cache holds: each would else pass all of the memory again.
    for first in range(0, count, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        for name, value in values.items():
            records[name][part] = value[part] if np.ndim(value) else value
    return records


def _tasks(graph: TaskGraph, network: Network, message_latency_ps: int) -> Records:
    routes = len(network.pair_key)
    transfer, reduce_ = graph.kind == Kind.TRANSFER, graph.kind == Kind.ALL_REDUCE
    members = np.ones(len(graph), np.int64)
    members[reduce_] = np.diff(graph.member_start)[graph.peer[reduce_]]
    sent = transfer & (graph.device != graph.peer)
    pairs = sent & (graph.work > 0)
    rings = reduce_ & (graph.work > 0) & (members > 1)
    path, steps = np.full(len(graph), NOWHERE, np.int64), np.zeros(len(graph))
    path[pairs] = _routes_of(network, graph.device[pairs], graph.peer[pairs])
    path[rings] = routes + graph.peer[rings]
    # What has no bytes occupies no route, but is a message and pays for it.
    steps[sent] = 1
    path_ps = np.zeros(routes + len(graph.member_start), np.int64)
    single = np.flatnonzero(np.bincount(path[pairs], minlength=routes))
    path_ps[single] = route_latency_ps(network, single)
    latency_ps = steps * graph.operations * (path_ps[path] + message_latency_ps)
    latency_ps[rings] = _ring_latencies_ps(graph, network, np.flatnonzero(rings), message_latency_ps)
    if len(graph) and latency_ps.max() >= HORIZON_PS:
        raise ValueError(f"TaskGraph.operations must have latencies below {HORIZON_PS} ps, not {latency_ps.max():.3g} ps")
    return _records(
        _TASK, len(graph), kind=graph.kind, limit=NOWHERE, runs_on=graph.device, path=path, work_ps=graph.work,
        latency_ps=latency_ps,
        flow_bytes=np.where(rings, 2 * (members - 1) / np.maximum(members, 1), 1) * graph.work,
    )  # fmt: skip


def _ring_latencies_ps(
    graph: TaskGraph, network: Network, task: NDArray[Any], message_latency_ps: int
) -> NDArray[np.float64]:
    """How much longer ring all-reduces take than their bytes over the slowest edge of the ring.

    A chunk takes a time over each edge, and later it is behind chunks before it at the slowest. So it goes round twice but
    for two edges, and loses latency at each, less what it gains at edges that are faster; or it waits all the time.
    """
    if not len(task):
        return np.zeros(0)
    used, own = np.unique(graph.peer[task], return_inverse=True)
    group, route = _ring_routes(graph, network, used)
    edges = np.diff(graph.member_start)[used]
    first = np.cumsum(edges) - edges
    row, link = links_of(network, route)
    _, place, uses = np.unique(group[row] * len(network.bytes_per_s) + link, return_inverse=True, return_counts=True)
    slow = np.zeros(len(route))
    np.maximum.at(slow, row, uses[place] / network.bytes_per_s[link] * 1e12)
    slowest = np.maximum.reduceat(slow, first)
    late_ps = route_latency_ps(network, route) + message_latency_ps
    # Tasks of one ring and of chunks of one size are alike, and a job has many of them.
    operations = graph.operations[task]
    sizes, size = np.unique(graph.work[task] / operations / edges[own], return_inverse=True)
    alike, which = np.unique(own * len(sizes) + size, return_inverse=True)
    ring, chunk_bytes = alike // len(sizes), sizes[alike % len(sizes)]
    owner, step = ragged(edges[ring])
    edge, start = first[ring][owner] + step, np.cumsum(edges[ring]) - edges[ring]
    lost = late_ps[edge] - chunk_bytes[owner] * (slowest[ring][owner] - slow[edge])
    two = lost + lost[start[owner] + (step + 1) % edges[ring][owner]]
    round_twice = 2 * np.add.reduceat(lost, start) - np.minimum.reduceat(two, start)
    waits = np.maximum.reduceat(np.where(slow == np.repeat(slowest, edges), late_ps, 0), first)
    longest_ps = np.rint(np.maximum(round_twice, waits[ring]))[which]
    return longest_ps * operations.astype(np.float64)


def _routes_of(network: Network, source: NDArray[np.int32], destination: NDArray[np.int32]) -> NDArray[np.int64]:
    """Position of each pair's route in ``pair_key``."""
    key = source.astype(np.int64) * network.devices + destination
    place = np.searchsorted(network.pair_key, key)
    found = place < len(network.pair_key)
    found[found] = network.pair_key[place[found]] == key[found]
    found[found] = np.diff(network.route_start)[place[found]] > 0
    if not found.all():
        pair = int(np.flatnonzero(~found)[0])
        raise ValueError(f"Network must have a route from GPU {source[pair]} to GPU {destination[pair]}, not none")
    return place


def _ring_routes(graph: TaskGraph, network: Network, used: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every edge of the rings of the groups ``used``: the group, the route."""
    row, step = ragged(np.diff(graph.member_start)[used])
    group = used.astype(np.int64)[row]
    start, size = graph.member_start[group], np.diff(graph.member_start)[group]
    source, destination = graph.members[start + step], graph.members[start + (step + 1) % size]
    return group, _routes_of(network, source, destination)


def _paths(graph: TaskGraph, network: Network, used: Records, alike: Alike | None) -> tuple[Records, Records]:
    """Paths, and entries of those used; a link that several routes of a ring share is entered once, used several times."""
    routes, links = len(network.pair_key), max(len(network.bytes_per_s), 1)
    count = routes + len(graph.member_start) - 1
    used = np.flatnonzero(np.bincount(used, minlength=count))
    single, rings = used[used < routes], used[used >= routes] - routes
    group, edge_route = _ring_routes(graph, network, rings)
    owner, route = np.concatenate([single, routes + group]), np.concatenate([single, edge_route])
    row, link = links_of(network, route)
    ample = _ample(network)
    link = link if alike is None else alike.link[link]
    # Ample links sort behind the others of a path, which is what ``shared_end`` divides.
    key, uses = np.unique((owner[row] * 2 + ample[link]) * links + link, return_counts=True)
    entry = _records(_ENTRY, len(key), link=key % links, path=key // (2 * links), uses=uses)
    ends = np.cumsum(np.bincount(entry["path"], minlength=count))
    starts = np.concatenate([[0], ends[:-1]])
    shared = np.bincount(entry["path"][~ample[entry["link"]]], minlength=count)
    path = _records(_PATH, count, entry=starts, shared_end=starts + shared, entry_end=ends, bottleneck=NOWHERE)
    if network.rotation is not None:
        _light(network, path, entry)
    return path, entry


def _light(network: Network, path: Records, entry: Records) -> None:
    """Say when paths are lit whose links are not always; ValueError if these are not lit together."""
    rotation, configuration = network.rotation, network.configuration
    assert rotation is not None, "links rotate"
    assert configuration is not None, "links rotate"
    light_ps = rotation.light_ps(configuration)[entry["link"]]
    path["light_ps"] = NOWHERE
    np.maximum.at(path["light_ps"], entry["path"], light_ps)
    if ((light_ps >= 0) & (light_ps != path["light_ps"][entry["path"]])).any():
        raise ValueError("Network.configuration must be one for all links of a way, not several")
    turns = path["light_ps"] >= 0
    path["live_ps"], path["round_ps"] = rotation.live_ps, np.where(turns, rotation.round_ps, 0)


def _join_runs(path: Records, entry: Records) -> Records:
    """Runs of the entries that may limit their paths, and where each path has its own."""
    owner, step = ragged(path["shared_end"] - path["entry"])
    shared = entry[path["entry"][owner] + step]
    link, uses = shared["link"], shared["uses"]
    begins = np.ones(len(shared), bool)
    begins[1:] = (np.diff(owner) != 0) | (np.diff(link) != 1) | (np.diff(uses) != 0)
    first = np.flatnonzero(begins)
    path["run_end"] = np.cumsum(np.bincount(owner[first], minlength=len(path)))
    path["run"][1:] = path["run_end"][:-1]
    size = np.diff(np.append(first, len(shared)))
    return _records(_RUN, len(first), first=link[first], end=link[first] + size, uses=uses[first])


def _ample(network: Network) -> NDArray[np.bool_]:
    """Links that never limit a rate: they carry more than all links before them on any route together, as a switch may."""
    rate, links, brought = network.bytes_per_s, network.route_links, np.zeros(len(network.bytes_per_s))
    brought[links[network.route_start[:-1][np.diff(network.route_start) > 0]]] = np.inf
    later = 1 + np.flatnonzero(brought[links[1:]] == 0)
    steps = np.unique(links[later - 1].astype(np.int64) * len(rate) + links[later])
    np.add.at(brought, steps % len(rate), rate[steps // len(rate)])
    return brought < rate
