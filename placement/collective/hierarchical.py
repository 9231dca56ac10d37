"""Collectives in layers: inside of groups of members and between them, or by a switch that reduces."""

import numpy as np

from lightfabric.placement.collective.personal import each_to_all
from lightfabric.placement.collective.ring import all_gather as ring
from lightfabric.placement.collective.sends import Sends, Step, column
from lightfabric.placement.collective.tree import doubling


def hierarchical(members: int, group: int) -> Sends:
    """An all-gather among the members of one place in their groups, then directly inside of each group.

    Backwards it is the reduce-scatter inside of groups, then between them, of NCCL and BlueConnect [Cho, MLSys 2019].
    """
    everyone = np.arange(members).reshape(-1, group)
    groups = len(everyone)
    between = doubling(groups) if groups & (groups - 1) == 0 else ring(groups)
    # Piece i of those of one place is that of the member there in group i; inside, piece j is all that came to place j.
    outer = [step.among(everyone.T, everyone.T[:, :, None]) for step in between.steps]
    of_place = np.broadcast_to(everyone.T, (groups, group, groups))
    inner = [step.among(everyone, of_place) for step in each_to_all(group).steps]
    return Sends(members, members, [*outer, *inner])


def in_network(members: int) -> Sends:
    """A switch adds up what all members send and sends each the sum, while it comes: an ideal that nothing holds up."""
    place, switch = np.arange(members), np.full(members, members)
    ways = Step(
        np.concatenate([place, switch]),
        np.concatenate([switch, place]),
        column(np.zeros(2 * members, np.int64)),
        hops=2,
        reduces=np.arange(2 * members) < members,
    )
    return Sends(members, 1, [ways])
