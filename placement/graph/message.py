"""Collectives message by message: every rank sends the same to the ranks at the same distances after it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.task import Kind, Part, TaskGraph
from lightfabric.placement.graph.builder import Builder, Kept
from lightfabric.placement.plan import Plan


@dataclass(frozen=True)
class Rounds:
    """Moves ``size_bytes`` from each rank to the one ``after[round, message]`` ranks on, the last of all before the first.

    A rank begins a round when it has sent and got all of the one before. It is ``Foldable``.
    """

    size_bytes: int
    after: NDArray[np.int64]

    def repeats(self, plan: Plan) -> tuple[int, int]:
        """Count all ranks as alike."""
        return plan.gpus, 1

    def task_graph(self, plan: Plan, kept: Kept | None = None) -> TaskGraph:
        """Build the messages of all ranks, or of those kept. O(messages), and in rounds O(messages of a rank) times more."""
        stands = np.arange(plan.gpus) if kept is None else kept.blocks
        rank, place = np.unique(stands, return_inverse=True)
        builder = Builder()
        from_rank = np.broadcast_to(rank.astype(np.int32)[:, None, None], (len(rank), *self.after.shape))
        to_rank = (from_rank + self.after) % plan.gpus
        sent = builder.add(Kind.TRANSFER, Part.EXCHANGE, from_rank, self.size_bytes, to_rank)
        if len(self.after) > 1:
            sender = place[(from_rank - self.after) % plan.gpus]
            step, message = np.indices(self.after.shape)
            got = sent[sender, step, message]
            for before in (sent, got):
                builder.link(before[:, :-1, :, None], sent[:, 1:, None])
        return builder.graph(plan.gpus, [])


def ring_all_reduce(ranks: int, size_bytes: int) -> Rounds:
    """Cut the buffer of a rank in as many parts as ranks, of which each is passed on 2 (n - 1) times [Patarasuk 2009]."""
    return Rounds(-(-size_bytes // ranks), np.ones((2 * (ranks - 1), 1), np.int64))


def all_to_all(ranks: int, size_bytes: int) -> Rounds:
    """Send a part of the buffer of each rank to each other rank, all at once."""
    return Rounds(-(-size_bytes // ranks), np.arange(1, ranks)[None])
