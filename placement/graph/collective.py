"""Collectives as rounds of messages between the members of a group, by the algorithms of the libraries that run them.

S is the whole buffer of a member: what an all-reduce sums, what an all-gather ends with, what a reduce-scatter or an
all-to-all begins with; of n members each has a part of S / n. The root of those that have one is the first member.
Sources: Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations in MPICH", IJHPCA 2005;
Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 2009, for the ring.
"""

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple


class Collective(IntEnum):
    """Names the collectives, by the numbers of Chakra's schema."""

    ALL_REDUCE = 0
    REDUCE = 1
    ALL_GATHER = 2
    GATHER = 3
    SCATTER = 4
    BROADCAST = 5
    ALL_TO_ALL = 6
    REDUCE_SCATTER = 7
    REDUCE_SCATTER_BLOCK = 8
    BARRIER = 9


class Message(NamedTuple):
    """Moves ``size`` bytes between two places of a group, as so many equal messages one after the other."""

    source: int
    destination: int
    size: int
    operations: int = 1


Round = Iterator[Message]
"""Messages that need not wait for each other; a member sends when its part in the rounds before is over."""


class _Algorithm(NamedTuple):
    """The three collectives that spread data; those that reduce or collect it are the same backwards."""

    all_gather: Callable[[int, int], list[Round]]
    broadcast: Callable[[int, int], list[Round]]
    scatter: Callable[[int, int], list[Round]]
    in_parts: bool = True
    """An all-reduce is a reduce-scatter and an all-gather; if not, a reduce and a broadcast."""


def rounds(collective: Collective, algorithm: str, members: int, size: int) -> list[Round]:
    """Give the rounds of a collective of ``size`` bytes; none for one member, or for no bytes but at a barrier.

    A barrier is an all-reduce of no bytes, and an all-to-all sends directly by every algorithm. ValueError if
    halving-doubling has another number of members than a power of two.
    """
    barrier = collective == Collective.BARRIER
    if members == 1 or not (size or barrier):
        return []
    if algorithm == "halving-doubling" and members & (members - 1):
        raise ValueError(f"must have a power of two of members for halving-doubling, not {members}")
    does, size = _ALGORITHMS[algorithm], 0 if barrier else size
    spreads = {
        Collective.ALL_GATHER: does.all_gather, Collective.BROADCAST: does.broadcast, Collective.SCATTER: does.scatter,
        Collective.ALL_TO_ALL: _each_to_all,
    }  # fmt: skip
    if collective in spreads:
        return spreads[collective](members, size)
    gathers = {
        Collective.REDUCE_SCATTER: does.all_gather, Collective.REDUCE_SCATTER_BLOCK: does.all_gather,
        Collective.REDUCE: does.broadcast, Collective.GATHER: does.scatter,
    }  # fmt: skip
    if collective in gathers:
        return _backwards(gathers[collective](members, size))
    spread = does.all_gather if does.in_parts else does.broadcast
    return _backwards(spread(members, size)) + spread(members, size)


def _backwards(forwards: list[Round]) -> list[Round]:
    return [_turned(messages) for messages in reversed(forwards)]


def _one(messages: Round) -> list[Round]:
    return [messages]


def _turned(messages: Round) -> Round:
    return (message._replace(source=message.destination, destination=message.source) for message in messages)


def _parts(size: int, members: int, count: int) -> int:
    """Bytes of ``count`` parts, up: where parts differ by a byte the largest ends last."""
    return -(-size * count // members)


def _ring_pass(members: int, size: int) -> list[Round]:
    # All members send a part and pass on what they get, n - 1 times, which is one long message cut into n - 1.
    sent = _parts(size, members, members - 1)
    return _one(Message(place, (place + 1) % members, sent, members - 1) for place in range(members))


def _chain(members: int, size: int) -> list[Round]:
    # Chunks follow each other so closely that all members receive at once, the last one n - 1 latencies behind the root.
    return _one(Message(place, place + 1, size, members - 1) for place in range(members - 1))


def _root_to_all(members: int, size: int) -> list[Round]:
    return _one(Message(0, place, size) for place in range(1, members))


def _root_to_each(members: int, size: int) -> list[Round]:
    return _root_to_all(members, _parts(size, members, 1))


def _each_to_all(members: int, size: int) -> list[Round]:
    part = _parts(size, members, 1)
    # All begin with the next member, not all with the first, so that no receiver is wanted by all at once.
    return _one(Message(a, (a + step) % members, part) for a in range(members) for step in range(1, members))


def _strides(members: int) -> list[int]:
    """Powers of two below the number of members, the largest first."""
    return [1 << bit for bit in reversed(range((members - 1).bit_length()))]


def _binomial_broadcast(members: int, size: int) -> list[Round]:
    return [_binomial(members, stride, lambda _: size) for stride in _strides(members)]


def _binomial_scatter(members: int, size: int) -> list[Round]:
    def subtree(stride: int) -> Callable[[int], int]:
        return lambda place: _parts(size, members, min(stride, members - place))

    return [_binomial(members, stride, subtree(stride)) for stride in _strides(members)]


def _binomial(members: int, stride: int, size_of: Callable[[int], int]) -> Round:
    receivers = range(stride, members, 2 * stride)
    return (Message(place - stride, place, size_of(place)) for place in receivers)


def _tree_all_gather(members: int, size: int) -> list[Round]:
    return _backwards(_binomial_scatter(members, size)) + _binomial_broadcast(members, size)


def _doubling(members: int, size: int) -> list[Round]:
    return [_pairs(members, stride, _parts(size, members, stride)) for stride in reversed(_strides(members))]


def _pairs(members: int, stride: int, size: int) -> Round:
    return (Message(place, place ^ stride, size) for place in range(members))


def _scatter_and_doubling(members: int, size: int) -> list[Round]:
    return _binomial_scatter(members, size) + _doubling(members, size)


_ALGORITHMS = {
    "ring": _Algorithm(_ring_pass, _chain, _root_to_each),
    "tree": _Algorithm(_tree_all_gather, _binomial_broadcast, _binomial_scatter, in_parts=False),
    "direct": _Algorithm(_each_to_all, _root_to_all, _root_to_each),
    "halving-doubling": _Algorithm(_doubling, _scatter_and_doubling, _binomial_scatter),
}
ALGORITHMS = tuple(_ALGORITHMS)
"""Algorithms of collectives; a ring of members is what libraries do with large buffers."""
