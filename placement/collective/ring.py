"""Collectives along rings and chains: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", JPDC 2009."""

from collections.abc import Sequence
from math import gcd

import numpy as np

from lightfabric.placement.collective.sends import Ids, Sends, Step, column

MAX_RINGS = 4


def all_gather(members: int) -> Sends:
    """Each member sends its piece to the next, then passes on what it gets, n - 1 times."""
    return in_rings([np.arange(members)])


def in_rings(orders: Sequence[Ids]) -> Sends:
    """An all-gather of an equal share of the bytes over each of several orders of all members at once."""
    ring, members = np.stack(orders), len(orders[0])
    base = np.arange(len(orders))[:, None] * members

    def pieces(turn: int) -> Ids:
        return (base + np.roll(ring, turn, axis=1)).reshape(-1, 1)

    step = Step(ring.ravel(), np.roll(ring, -1, axis=1).ravel(), pieces, times=members - 1)
    return Sends(members, ring.size, [step])


def multi_ring(members: int) -> Sends:
    """Rings of the least strides coprime to n, both ways [TotientPerms: TopoOpt, NSDI 2023]."""
    strides = [stride for stride in range(1, members // 2 + 1) if gcd(stride, members) == 1]
    near = [way for stride in strides for way in dict.fromkeys((stride, members - stride))][:MAX_RINGS]
    return in_rings([np.arange(members) * stride % members for stride in near])


def both_ways(members: int) -> Sends:
    """Each piece goes half round in either direction, its halves apart on the last step if n is even: n // 2 steps."""
    place, half = np.arange(members), (members - 1) // 2
    source = np.concatenate([place, place])
    destination = np.concatenate([(place + 1) % members, (place - 1) % members])

    def pieces(turn: int) -> Ids:
        owner = np.concatenate([(place - turn) % members, (place + turn) % members])
        return owner[:, None] + [0, members]

    steps = [Step(source, destination, pieces, times=half)] if half else []
    if members % 2 == 0:
        last = np.concatenate([(place - half) % members, (place + half) % members + members])
        steps.append(Step(source, destination, column(last)))
    return Sends(members, 2 * members, steps)


def chain(members: int) -> Sends:
    """The root's bytes go from member to member so closely that all receive at once, the last one n - 1 latencies later."""
    place = np.arange(members - 1)
    return Sends(members, 1, [Step(place, place + 1, column(0 * place), hops=members - 1)])


def pipelined(members: int, chunks: int) -> Sends:
    """The root's bytes go from member to member in so many chunks: a member sends one while it gets the next."""
    steps = list[Step]()
    for turn in range(chunks + members - 2):
        place = np.arange(max(0, turn - chunks + 1), min(turn + 1, members - 1))
        steps.append(Step(place, place + 1, column(turn - place)))
    return Sends(members, chunks, steps)
