"""Volume of a transformer's training: who sends how many bytes to whom in which phase, of one plan or of all at once.

Training is Megatron's: tensor parallelism with sequence parallelism inside a stage, a 1F1B pipeline of stages, data
parallel replicas. Traffic between ranks, tasks of the task graph, rates and times of the cost model all read this.

Sources: M. Shoeybi et al., "Megatron-LM" (2019); D. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU
Clusters Using Megatron-LM" (SC 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import JobSpec
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import FULL, Cases, case, where
from lightfabric.placement.workload.parameter import fullest_parameters, kv_values, rank_parameters
from lightfabric.placement.workload.routing import copies


@dataclass(frozen=True)
class Volume:
    """Bytes and counts of communication of one plan, or columns of them; ``layers`` are those of a stage.

    ``copies`` are those of ``routing.copies`` between the ranks of an ep group, of one plan.
    """

    of: Cases
    copies: NDArray[np.float64] = field(default_factory=lambda: np.zeros((1, 1)))

    @property
    def micro_batches(self) -> Any:
        """Micro-batches that one replica works off per iteration."""
        return self.of.batch // (self.of.dp * self.of.micro_batch)

    @property
    def backward_passes(self) -> Any:
        """How often the backward pass sends what the forward pass does: twice if all is computed again."""
        return where(self.of.recompute == FULL, 2, 1)

    @property
    def reduce_bytes(self) -> Any:
        """Bytes per member of one tensor-parallel all-reduce: the activations of a micro-batch, s b h / cp values."""
        return self.of.tokens * self.of.hidden * self.of.value_bytes

    @property
    def transfer_bytes(self) -> Any:
        """Bytes from a rank to its peer in the next or previous stage: its 1/tp of the activations."""
        return self.reduce_bytes // self.of.tp

    @property
    def key_bytes(self) -> Any:
        """Bytes of the keys and values of a micro-batch in one layer, of the tokens that a rank has."""
        return self.of.tokens * kv_values(self.of.exactly) * self.of.value_bytes

    @property
    def gathers(self) -> tuple[Any, Any]:
        """How often a layer gathers keys and values over cp ranks: in the forward and in the backward pass.

        The backward pass also scatters their gradients once, which takes as many bytes the other way.
        """
        return 1, self.backward_passes

    @property
    def dispatched_bytes(self) -> NDArray[np.int64]:
        """``[source, destination]``: bytes between ranks of an ep group in one all-to-all that sends tokens to experts."""
        return self._copied_bytes(self.of.dispatch_bytes or self.of.value_bytes)

    @property
    def combined_bytes(self) -> NDArray[np.int64]:
        """``[source, destination]``: bytes between ranks of an ep group in one all-to-all that brings results back.

        What a rank copied to others it sums before it sends it on, so the ways are those of the tokens, the other way.
        """
        return self._copied_bytes(self.of.value_bytes).T

    def _copied_bytes(self, value_bytes: int) -> NDArray[np.int64]:
        size = np.rint(self.of.tokens * self.of.hidden * value_bytes * self.copies / self.of.tp).astype(np.int64)
        # Ways without bytes are left out of traffic, and one that is used both ways must be there both ways.
        return np.maximum(size, self.copies > 0)

    def reduces(self, layers: Any) -> Any:
        """Tensor-parallel all-reduces per forward pass: two per layer [Shoeybi 2019].

        A reduce-scatter and an all-gather of sequence parallelism count as one all-reduce: the same bytes. Those of the
        embedding and the loss, one per iteration end, are left out.
        """
        return 2 * layers

    def exchanges(self, routed_layers: Any) -> Any:
        """All-to-alls per forward pass: tokens to their experts and back in each routed layer; none if ep is 1."""
        # Each chunk has a whole number of operations in the task graph, so the count is rounded for a chunk first.
        return 2 * (routed_layers // self.of.virtual_stages) * self.of.virtual_stages * (self.of.ep > 1)

    def tensor_bytes(self, layers: Any) -> Any:
        """Bytes per member of all tensor-parallel all-reduces of an iteration."""
        return self.micro_batches * self.reduces(layers) * (1 + self.backward_passes) * self.reduce_bytes

    @property
    def pipeline_bytes(self) -> Any:
        """Bytes of an iteration from a rank to its peer in the next stage, and as many back."""
        return self.micro_batches * self.of.virtual_stages * self.transfer_bytes * (self.of.pp > 1)

    @property
    def parameter_bytes(self) -> Any:
        """Bytes per parameter in the all-reduce of gradients.

        With ZeRO gradients are scattered and weights gathered: as many bytes as an all-reduce of the mean of both.
        """
        zero = (self.of.gradient_bytes + self.of.value_bytes) // 2
        return where(self.of.zero > 0, zero, self.of.gradient_bytes)

    def gradient_bytes(self, stage: Any) -> tuple[Any, Any]:
        """Bytes per member of a stage's all-reduces: among dp x cp ranks, and of experts among those that hold the same.

        The sum over the two copies of the word embedding, at the first and the last stage, is left out.
        """
        shared, experts = (count * self.parameter_bytes for count in rank_parameters(self.of, stage))
        return shared * (self.of.replicas > 1), experts * (self.of.replicas > self.of.ep)

    def neighbour_bytes(self, stage: Any) -> tuple[Any, Any, Any, Any]:
        """Bytes of an iteration from a rank to its next neighbour: tensor, pipeline, data, experts dealt out."""
        shared, experts = self.gradient_bytes(stage)
        tensor = ring_bytes(self.tensor_bytes(self.of.stage_layers(stage)), self.of.tp)
        return (
            tensor,
            self.pipeline_bytes,
            ring_bytes(shared, self.of.replicas),
            ring_bytes(experts, self.of.expert_replicas),
        )


def volume(job: JobSpec, plan: Plan, loads: Sequence[float] = ()) -> Volume:
    """The volume of one plan, as ranks of the task graph send it; ``loads`` of experts are those of the job if left out."""
    if plan.ep == 1:
        return Volume(case(job, plan).exactly)
    return Volume(case(job, plan).exactly, copies(job, plan.ep, plan.expert_group, tuple(loads)))


def ring_bytes(total: Any, members: Any) -> Any:
    """Bytes on each link of a ring all-reduce of ``total`` bytes per member, 2 (n - 1) / n of them."""
    return 2 * (members - 1) * total / members


def sent_bytes(c: Cases) -> tuple[Any, Any, Any]:
    """Bytes of one iteration from a rank to its next neighbour in the fullest stage: tensor, pipeline, data.

    With data go keys and values that cp gathers, and tokens that go to experts.
    """
    known, replicas = Volume(c), c.replicas
    reduced = known.tensor_bytes(c.fullest_layers)
    gradients = ring_bytes(sum(fullest_parameters(c)) * known.parameter_bytes, replicas)
    keys = (c.cp - 1) * reduced / c.hidden * 2 * c.kv_head_count * c.head_size / c.tp
    return ring_bytes(reduced, c.tp), known.pipeline_bytes, gradients + 0.75 * keys + routed_bytes(c)


def routed_bytes(c: Cases) -> Any:
    """Bytes of one iteration from a rank to experts, or back to it, of the mean stage as long as the fullest."""
    known = Volume(c)
    there = where(c.dispatch_bytes > 0, c.dispatch_bytes / c.value_bytes, 1.0)
    return known.tensor_bytes(c.fullest_layers) * c.sparse_share * c.copies * (1 + there) / (2 * c.tp)
