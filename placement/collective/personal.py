"""All-to-alls, and what goes straight to each: directly, by strides, by groups, or once per group and copied there.

Sources: Bruck et al., "Efficient algorithms for all-to-all communications in multiport message-passing systems", TPDS 1997;
DeepSeek-AI, "DeepSeek-V3 technical report", 2024, 3.2.2, for tokens that cross to each group of ranks once.
"""

import numpy as np
from numpy.typing import NDArray

from lightfabric.placement.collective.sends import Ids, Sends, Step, column, fixed


def root_to_all(members: int) -> Sends:
    """The root sends all bytes to each."""
    place = np.arange(1, members)
    return Sends(members, 1, [Step(0 * place, place, column(0 * place))])


def root_to_each(members: int) -> Sends:
    """The root sends each its piece."""
    place = np.arange(1, members)
    return Sends(members, members, [Step(0 * place, place, column(place))])


def each_to_all(members: int) -> Sends:
    """An all-gather in which each sends its piece to all others."""
    source, destination = _others(members)
    return Sends(members, members, [Step(source, destination, column(source))])


def all_to_all(members: int) -> Sends:
    """Each sends to each other what is for it."""
    source, destination = _others(members)
    return Sends(members, members, [Step(source, destination, column(source * members + destination))])


def _others(members: int) -> tuple[Ids, Ids]:
    # All begin with the next member, not all with the first, so that no receiver is wanted by all at once.
    source, step = np.divmod(np.arange(members * (members - 1)), members - 1) if members > 1 else (np.arange(0),) * 2
    return source, (source + step + 1) % members


def staged(members: int) -> Sends:
    """All pieces whose way has a bit set go as many places on, bit by bit: fewest steps, log2(n) / 2 times the bytes."""
    place, steps = np.arange(members), list[Step]()
    for bit in range((members - 1).bit_length()):
        way = np.flatnonzero(place >> bit & 1)
        source = (place[:, None] - way % (1 << bit)) % members
        pieces = source * members + (source + way) % members
        steps.append(Step(place, (place + (1 << bit)) % members, fixed(pieces)))
    return Sends(members, members, steps)


def by_groups(members: int, group: int) -> Sends:
    """In a group all goes to the member at the place of the receiver in its own, then from there to the other groups."""
    first, place = np.divmod(np.arange(members), group)
    everyone, groups = np.arange(members).reshape(-1, group), members // group
    a, b = np.nonzero(~np.eye(group, dtype=bool))
    source, via = everyone[:, a].ravel(), everyone[:, b].ravel()
    inside = Step(source, via, fixed(source[:, None] * members + everyone[:, place[via]].T))
    c, d = np.nonzero(~np.eye(groups, dtype=bool))
    via, destination = everyone[c].ravel(), everyone[d].ravel()
    across = Step(via, destination, fixed(everyone[first[via]] * members + destination[:, None]))
    return Sends(members, members, [inside, across])


def dispatch(owner: Ids, wanted: NDArray[np.bool_], group: int) -> Sends:
    """Bring piece p from its owner to all members for which ``wanted[p, member]``, over each way between groups once.

    A piece goes to the member at the owner's place in each other group that wants it, and is copied there. Without groups,
    which are of one member then, each is sent what it wants by the owner itself. Pieces are of one size, and S is all.
    """
    pieces, members = wanted.shape
    by_group = wanted.reshape(pieces, members // group, group).any(axis=2)
    piece, goal = np.nonzero(by_group)
    landing = goal * group + owner[piece] % group
    far = owner[piece] != landing
    across = Step(owner[piece[far]], landing[far], column(piece[far]))
    piece, destination = np.nonzero(wanted)
    holder = destination // group * group + owner[piece] % group
    copied = holder != destination
    inside = Step(holder[copied], destination[copied], column(piece[copied]))
    return Sends(members, pieces, [step for step in (across, inside) if len(step.source)])
