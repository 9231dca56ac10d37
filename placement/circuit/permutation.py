"""One setting of optical circuit switches for the pairs that talk: exact for one-way circuits, bounded for two-way ones.

SiP-ML (SIGCOMM 2021, OCS, one-shot): each switch holds one permutation of the nodes; maximise the least circuits / demand.
One-way circuits are a bipartite multigraph, which splits into as many permutations as its largest degree (Koenig, 1916):
so many circuits per pair can be had exactly if no node needs more than there are switches, and bisection over the ratios
of whole circuits is exact in polynomial time. A link of the hardware takes a way back for its credits and acknowledgements
(``model.cycle.cabling.Cabling.is_duplex``). Two-way circuits are a multigraph, which may need up to 3/2 times its largest
degree (Shannon, 1949) and is hard to colour (Holyer, 1981).
"""

from dataclasses import dataclass
from functools import partial
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.circuit import Circuits
from lightfabric.placement.circuit.assign import permutations
from lightfabric.placement.circuit.demand import Demand, Lanes, hand_out, most_even
from lightfabric.placement.circuit.programme import Rows, solve

Settings = NDArray[np.int32]
"""``[switch, node]``: where the output of each node leads. A node whose output leads to itself is idle."""


@dataclass(frozen=True)
class Switching:
    """``to[switch, node]``; ``value`` is the least circuits / byte of all pairs, and no setting has more than ``bound``."""

    to: Settings
    value: float
    bound: float


def circuits(demand: Demand, to: Settings) -> Lanes:
    """How many circuits each pair of a demand has."""
    return np.asarray((to[:, demand.source] == demand.destination).sum(axis=0), np.int64)


def one_shot(demand: Demand, switches: int, *, duplex: bool = False, time_limit_s: float = 10.0) -> Switching:
    """The setting with the most even circuits / demand; idle ports then go to the poorest pairs that both have one.

    One-way circuits: value == bound, O(pairs log(pairs x switches)) and the colouring. With ``duplex`` every circuit has
    one back in the same switch: colouring with alternating paths, and an integer programme where that fails; the bound is
    met unless the programmes together took ``time_limit_s``.
    ValueError if a node talks to more nodes than there are switches.
    """
    return _both_ways(demand, switches, time_limit_s) if duplex else _one_way(demand, switches)


def _require_ports(demand: Demand, switches: int) -> None:
    for degree, verb in zip(demand.degrees(), ("sends to", "receives from"), strict=True):
        if len(demand) and degree.max() > switches:
            node = int(degree.argmax())
            raise ValueError(f"switches must be at least {degree[node]}, for node {node} {verb} so many, not {switches}")


def best_share(demand: Demand, switches: int) -> float:
    """The value of the best one-way setting, without the setting; 0 if there are too few switches for some node."""
    return _shared(demand, switches)[1]


def _used(demand: Demand, lanes: Lanes) -> tuple[Lanes, Lanes]:
    """Circuits from and to each node."""
    out, into = np.zeros(demand.nodes, np.int64), np.zeros(demand.nodes, np.int64)
    np.add.at(out, demand.source, lanes)
    np.add.at(into, demand.destination, lanes)
    return out, into


def _shared(demand: Demand, switches: int) -> tuple[Lanes | None, float]:
    def serve(needed: Lanes) -> Lanes | None:
        return needed if max(int(side.max()) for side in _used(demand, needed)) <= switches else None

    busiest = max(float(side.max(initial=1)) for side in demand.node_bytes())
    return most_even(demand, switches / busiest, serve)


def _one_way(demand: Demand, switches: int) -> Switching:
    _require_ports(demand, switches)
    lanes, bound = _shared(demand, switches)
    lanes = np.zeros(len(demand), np.int64) if lanes is None else lanes
    out, into = _used(demand, lanes)
    source, destination = demand.source.tolist(), demand.destination.tolist()

    def take(pair: int) -> bool:
        if out[source[pair]] == switches or into[destination[pair]] == switches:
            return False
        out[source[pair]] += 1
        into[destination[pair]] += 1
        return True

    hand_out(lanes, demand.size_bytes.astype(float), take)
    pairs = zip(source, destination, strict=True)
    to = permutations(Circuits(dict(zip(pairs, lanes.tolist(), strict=True)), {}), demand.nodes, switches)
    return Switching(to, demand.least_ratio(lanes), max(bound, demand.least_ratio(lanes)))


def _both_ways(demand: Demand, switches: int, time_limit_s: float) -> Switching:
    edges = demand.both_ways()
    _require_edges(edges, switches)
    out, into = edges.node_bytes()
    until = monotonic() + time_limit_s
    partners, bound = most_even(
        edges, switches / float((out + into).max(initial=1)), partial(_coloured, edges, switches, until)
    )
    if partners is None:
        partners = np.full((edges.nodes, switches), -1)
    # A programme may give an edge more circuits than it needs, so they are counted anew.
    lanes = np.zeros(len(edges), np.int64)
    ends = list(zip(edges.source.tolist(), edges.destination.tolist(), strict=True))
    for i, (a, b) in enumerate(ends):
        lanes[i] = (partners[a] == b).sum()
    hand_out(lanes, edges.size_bytes.astype(float), lambda i: _join(partners, *ends[i]))
    to = np.where(partners < 0, np.arange(edges.nodes)[:, None], partners).T.astype(np.int32)
    value = demand.least_ratio(circuits(demand, to))
    return Switching(to, value, max(bound, value))


def _require_edges(edges: Demand, switches: int) -> None:
    out, into = edges.degrees()
    degree = out + into
    if len(edges) and degree.max() > switches:
        node = int(degree.argmax())
        raise ValueError(f"switches must be at least {degree[node]}, for node {node} talks to so many, not {switches}")


def _coloured(edges: Demand, switches: int, until: float, needed: Lanes) -> Lanes | None:
    """``partner[node, switch]``, -1 if idle, with so many circuits for each edge; None if there is none."""
    out, into = _used(edges, needed)
    # A switch joins nodes in pairs, so it has at most half as many circuits as nodes.
    if (out + into).max() > switches or needed.sum() > edges.nodes // 2 * switches:
        return None
    partner = np.full((edges.nodes, switches), -1)
    ends = zip(edges.source.tolist(), edges.destination.tolist(), needed.tolist(), strict=True)
    # Alternating paths are quick, but may fail where a colouring exists, so a programme decides what they leave.
    if all(_join(partner, a, b) for a, b, count in ends for _ in range(count)):
        return partner
    return _programme(edges, switches, until, needed)


def _join(partner: Lanes, a: int, b: int) -> bool:
    """One more circuit between two nodes, after swaps along an alternating path if need be; False if none helps."""
    free_a, free_b = np.flatnonzero(partner[a] < 0), np.flatnonzero(partner[b] < 0)
    both = np.intersect1d(free_a, free_b)
    for switch in both[:1].tolist():
        partner[a, switch], partner[b, switch] = b, a
        return True
    for i in free_a.tolist():
        for j in free_b.tolist():
            path = _alternating(partner, b, i, j)
            # A path that ends at a would take the very port that a has free.
            if path[-1] != a:
                for node in path:
                    partner[node, [i, j]] = partner[node, [j, i]]
                partner[a, i], partner[b, i] = b, a
                return True
    return False


def _alternating(partner: Lanes, start: int, i: int, j: int) -> list[int]:
    """Nodes along the circuits of switches i, j, i, ... from one that j is free at."""
    path, switch = [start], i
    while (following := int(partner[path[-1], switch])) >= 0:
        path.append(following)
        switch = i + j - switch
    return path


def _programme(edges: Demand, switches: int, until: float, needed: Lanes) -> Lanes | None:
    """Find such partners by an integer programme; Undecided if the time is over."""
    count = len(edges)
    edge, switch = np.tile(np.arange(count), switches), np.repeat(np.arange(switches), count)
    variable = np.arange(count * switches)
    rows = Rows(count * switches)
    rows.add(edge, variable, 1.0, needed.astype(float), np.full(count, np.inf))
    place = np.concatenate([end[edge].astype(np.int64) * switches + switch for end in (edges.source, edges.destination)])
    ports = edges.nodes * switches
    rows.add(place, np.tile(variable, 2), 1.0, np.zeros(ports), np.ones(ports))
    found = solve(rows, np.zeros(len(variable)), np.ones(len(variable)), integer=True, until=until)
    if found is None:
        return None
    partner = np.full((edges.nodes, switches), -1)
    chosen = found > 0
    a, b, at = edges.source[edge[chosen]], edges.destination[edge[chosen]], switch[chosen]
    partner[a, at], partner[b, at] = b, a
    return partner
