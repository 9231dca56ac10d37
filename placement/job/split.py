"""Networks whose layers are split over groups of GPUs, each group a replica: what that sends, takes and runs.

All layers are split alike, by output channels [Krizhevsky 2014, "One weird trick for parallelizing convolutional neural
networks"; column parallel in Shoeybi 2019, "Megatron-LM"]. A GPU has all inputs of a layer and computes its share of the
outputs, which are then gathered. Backward each has a part of every gradient of the inputs; the sums of these are scattered
to those that have the channel. Outputs of the network stay split, for its loss is a sum of theirs.

It is apart from replicas of one GPU since it has no buckets: as of transformers (docs/why.md), gradients are summed after
the backward pass, whose scattered sums need the same links.
"""

from dataclasses import dataclass

import numpy as np

from lightfabric.model.task import Kind, Part, TaskGraph
from lightfabric.placement.cost.prediction import Prediction, Rates
from lightfabric.placement.graph.builder import Builder, Ids, Kept, picoseconds
from lightfabric.placement.graph.iteration import kept_ranks
from lightfabric.placement.mapping.traffic import DATA, TENSOR, Traffic
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.call import Call, RankKind, rank_kinds
from lightfabric.placement.workload.memory import Memory
from lightfabric.placement.workload.volume import ring_bytes


@dataclass(frozen=True)
class Split:
    """Describes an iteration of ``passes`` micro-batches, seconds and bytes being those of a GPU.

    A pass gathers ``gathered_bytes`` forward, in so many ``gathers``, and scatters sums of as many backward. An all-gather
    and a reduce-scatter send what an all-reduce does, so each is half of one in the task graph.
    """

    plan: Plan
    passes: int
    forward_seconds: float
    backward_seconds: float
    optimiser_seconds: float
    gathers: int
    gathered_bytes: int
    gradient_bytes: int

    def traffic(self) -> Traffic:
        """Rings of the GPUs of each replica, and of those that have the same weights."""
        plan, rank = self.plan, self.plan.by_replica[:, 0]
        rings = [(TENSOR, 1, ring_bytes(self.passes * self.gathered_bytes, plan.tp))]
        if plan.dp > 1:
            rings.append((DATA, 0, ring_bytes(self.gradient_bytes, plan.dp)))
        parts, axes, sizes = zip(*rings, strict=True)
        following = np.concatenate([np.roll(rank, -1, axis).ravel() for axis in axes])
        size, part = np.rint(sizes).astype(np.int64), np.array(parts, np.int8)
        return Traffic(np.tile(rank.ravel(), len(rings)), following, size.repeat(plan.gpus), part.repeat(plan.gpus))

    def prediction(self, rates: Rates, memory: Memory) -> Prediction:
        """Predict the iteration, of which nothing overlaps."""
        plan, steps = self.plan, 2 * (self.plan.tp - 1) * self.gathers
        gathered = ring_bytes(self.gathered_bytes, plan.tp) / rates.tensor + steps * rates.tensor_wait
        return Prediction(
            compute=self.passes * (self.forward_seconds + self.backward_seconds),
            tensor=self.passes * gathered,
            pipeline=0.0,
            bubble=0.0,
            data=ring_bytes(self.gradient_bytes, plan.dp) / rates.data + 2 * (plan.dp - 1) * rates.data_wait,
            optimiser=self.optimiser_seconds,
            memory=memory,
            plan=plan,
        )

    def calls(self) -> list[RankKind]:
        """Count an all-gather and a reduce-scatter of each output of a layer, and one all-reduce of gradients."""
        count, size = self.passes * self.gathers, self.passes * self.gathered_bytes
        each = [
            Call("tensor", "all_gather", count, size // self.plan.tp),
            Call("tensor", "reduce_scatter", count, size),
            Call("data", "all_reduce", int(self.plan.dp > 1), self.gradient_bytes),
        ]
        return rank_kinds([(range(self.plan.gpus), each)])

    def task_graph(self, kept: Kept | None) -> TaskGraph:
        """Build one iteration, or the part of the kept replicas and of the kept GPUs in them.

        One ALL_REDUCE stands for all gathers of a pass, or for all its scattered sums. Groups are the replicas, then the
        GPUs of the same weights. O(passes x GPUs) tasks.
        """
        every, replicas, columns = kept_ranks(self.plan, kept)
        every = every[:, 0]
        rank: Ids = every[replicas][:, columns]
        builder, done = Builder(), list[Ids]()

        def then(kind: Kind, part: Part, device: Ids, work: object, *peer: object) -> None:
            """Add tasks after the last ones."""
            added = builder.add(kind, part, device, work, *peer)
            if done:
                builder.link(done[-1], added)
            done.append(added)

        group, column = np.arange(len(rank))[:, None], len(rank) + np.arange(len(columns))
        # Of an odd number the forward pass has the one more.
        later = self.gathers // 2, self.gathered_bytes // 2
        first = self.gathers - later[0], self.gathered_bytes - later[1]
        for _ in range(self.passes):
            for seconds, (count, size) in ((self.forward_seconds, first), (self.backward_seconds, later)):
                then(Kind.COMPUTE, Part.COMPUTE, rank, picoseconds([seconds]))
                then(Kind.ALL_REDUCE, Part.TENSOR, rank[:, :1], size, group, count)
        if self.plan.dp > 1:
            then(Kind.ALL_REDUCE, Part.DATA, rank[:1], self.gradient_bytes, column)
        then(Kind.COMPUTE, Part.OPTIMISER, rank, picoseconds([self.optimiser_seconds]))
        return builder.graph(self.plan.gpus, [every[replicas], every[:, columns].T])
