"""Collectives along trees and between partners at powers of two.

Sources: Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations in MPICH", IJHPCA 2005;
Sanders, Speck and Traff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan", 2009, as in NCCL.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.collective.sends import Ids, Sends, Step, column, fixed


def strides(members: int) -> list[int]:
    """Powers of two below the number of members, the largest first."""
    return [1 << bit for bit in reversed(range((members - 1).bit_length()))]


def broadcast(members: int) -> Sends:
    """Those that have all bytes send them to as many others, in a binomial tree."""
    return Sends(members, 1, [_binomial(members, stride, 1) for stride in strides(members)])


def scatter(members: int) -> Sends:
    """Along the same tree each subtree gets what is its own."""
    steps = list[Step]()
    for stride in strides(members):
        step = _binomial(members, stride, stride)
        pieces = step.destination[:, None] + np.arange(stride)
        steps.append(replace(step, pieces=fixed(np.where(pieces < members, pieces, -1)), deals=True))
    return Sends(members, members, steps)


def all_gather(members: int) -> Sends:
    """All pieces are gathered at the root, which broadcasts them."""
    spread = [_binomial(members, stride, members) for stride in strides(members)]
    return scatter(members).backwards(reduces=False).then(Sends(members, members, spread))


def _binomial(members: int, stride: int, pieces: int) -> Step:
    receiver = np.arange(stride, members, 2 * stride)
    return Step(receiver - stride, receiver, fixed(np.tile(np.arange(pieces), (len(receiver), 1))))


def doubling(members: int) -> Sends:
    """An all-gather of a power of two of members: partners, 1, 2, 4 ... apart, exchange all that they have.

    Backwards it is the halving of a reduce-scatter.
    """
    place = np.arange(members)
    steps = [
        Step(place, place ^ stride, fixed((place // stride * stride)[:, None] + np.arange(stride)))
        for stride in reversed(strides(members))
    ]
    return Sends(members, members, steps)


def scatter_and_doubling(members: int) -> Sends:
    """A broadcast of large buffers: the root scatters, then all gather."""
    return scatter(members).then(doubling(members))


def double_tree(members: int, chunks: int) -> Sends:
    """A broadcast of half of the bytes down each of two binary trees, in so many chunks one after the other.

    A member that has children in one tree has few or none in the other, so that it sends about as much as it receives. The
    first member sends each chunk of the second tree to the root of that first.
    """
    tree, parent, child, depth = _two_trees(members)
    root = _second(members, np.zeros(1, np.int64))
    source, destination = np.append(parent, 0), np.append(child, root)
    offset = np.append(depth - 1 + tree, 0)
    # The first member is in the second tree too, and has all bytes already.
    sent = destination != 0
    return _piped(members, chunks, source[sent], destination[sent], offset[sent], np.append(tree, 1)[sent])


def double_tree_all_reduce(members: int, chunks: int) -> Sends:
    """A sum of half of the bytes up and down each of two binary trees, in so many chunks one after the other."""
    tree, parent, child, depth = _two_trees(members)
    deepest = int(depth.max())
    offset = np.concatenate([deepest - depth, deepest + depth - 1])
    up = np.arange(len(offset)) < len(depth)
    source, destination = np.concatenate([child, parent]), np.concatenate([parent, child])
    return _piped(members, chunks, source, destination, offset, np.concatenate([tree, tree]), up)


def _piped(
    members: int, chunks: int, source: Ids, destination: Ids, offset: Ids, tree: Ids, up: NDArray[np.bool_] | None = None
) -> Sends:
    """Chunk c of a tree goes along an edge in step ``offset`` + c."""
    steps = list[Step]()
    for turn in range(int(offset.max()) + chunks):
        now = (offset <= turn) & (turn < offset + chunks)
        piece = tree[now] * chunks + turn - offset[now]
        steps.append(Step(source[now], destination[now], column(piece), reduces=False if up is None else up[now]))
    return Sends(members, 2 * chunks, steps)


def _two_trees(members: int) -> tuple[Ids, Ids, Ids, Ids]:
    """Edges of both trees: which tree, parent, child and depth of the child."""
    parent, depth = np.zeros(members, np.int64), np.zeros(members, np.int64)
    for place in sorted(range(1, members), key=lambda place: place & -place, reverse=True):
        lowest = place & -place
        above = (place ^ lowest) | lowest << 1
        # Parents have a higher lowest bit, so that their depth is known.
        parent[place] = above if above < members else place ^ lowest
        depth[place] = depth[parent[place]] + 1
    child = np.arange(1, members)
    both = [(parent[1:], child), (_second(members, parent[1:]), _second(members, child))]
    return (
        np.repeat([0, 1], members - 1),
        np.concatenate([each for each, _ in both]),
        np.concatenate([each for _, each in both]),
        np.tile(depth[1:], 2),
    )


def _second(members: int, place: Ids) -> Ids:
    # The leaves of the first tree have odd numbers, and in the second tree these are to have children.
    return members - 1 - place if members % 2 == 0 else (place + 1) % members
