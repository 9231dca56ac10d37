"""Bytes, memory and time of an output token of a transformer that decodes, for all plans at once or for one.

A *pass* takes a micro-batch, one token of each of its sequences, through a stage: weights and the cache of keys and values
are read from memory, which bounds it where sequences are few. A *loop* is a micro-batch's way through all stages and back to
the first one. There are at most as many micro-batches as stages, so that each stage reads its weights least often.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lightfabric.model.spec import AcceleratorSpec, DecodeJobSpec, JobSpec
from lightfabric.placement.cost.calibration import calibration
from lightfabric.placement.cost.layer import Shapes, attention_shapes, dense_shapes, elementwise
from lightfabric.placement.cost.prediction import Prediction, Rates
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import Cases, case, operand_bytes, where
from lightfabric.placement.workload.memory import Memory
from lightfabric.placement.workload.parameter import kv_values, rank_parameters
from lightfabric.placement.workload.volume import Volume, ring_bytes

TOKEN_BYTES = 4
"""What comes back from the last stage to the first: the number of a word."""


class Kernel(NamedTuple):
    """What a kernel needs: operations of products in the job's precision and in 16 bits, and bytes of memory."""

    flops: Any
    half_flops: Any
    size_bytes: Any


def one_token(job: DecodeJobSpec) -> JobSpec:
    """The job whose sequences are of the one token that is computed, as formulas for passes want it."""
    rows = (job.model.position_rows or job.model.sequence) if job.model.positions == "learned" else None
    values: dict[str, Any] = {field.name: getattr(job, field.name) for field in fields(JobSpec)}
    values |= {"model": replace(job.model, sequence=1, position_rows=rows), "sequence_parallel": False}
    return JobSpec(**values)


@dataclass(frozen=True)
class OutputToken:
    """An output token of each sequence, by plans: ``of`` are cases of ``one_token``."""

    job: DecodeJobSpec
    of: Cases

    @property
    def micro_batches(self) -> Any:
        """Micro-batches of a replica, each in another stage."""
        return Volume(self.of).micro_batches

    @property
    def length(self) -> float:
        """Tokens of a sequence whose keys and values are read, the mean over its output tokens."""
        return self.job.context + (self.job.output_tokens - 1) / 2

    @property
    def weight_bytes(self) -> float:
        """Bytes of a weight, which may be half of one."""
        return operand_bytes(self.job.precision)

    @property
    def cached_bytes(self) -> Any:
        """Bytes of keys and values of a token and layer on one rank.

        Latent attention keeps one vector for all heads and the rotary part of keys [DeepSeek-V2, 2.1], on each tensor rank.
        """
        model = self.job.model
        values = model.kv_rank + (model.rope_width or 0) if model.kv_rank else kv_values(self.of.exactly)
        return values * (self.job.cache_bytes or self.of.value_bytes)

    def cache_bytes(self, stage: Any) -> Any:
        """Bytes that the caches of all sequences of a rank have room for."""
        return self.of.stage_layers(stage) * self.cached_bytes * self.job.most_tokens * (self.of.batch // self.of.dp)

    def memory(self, stage: Any) -> Memory:
        """Memory on each rank of a stage; activations are the caches, and the widest layer of a micro-batch."""
        c = self.of.exactly
        weights = np.ceil(sum(rank_parameters(c, stage)) * self.weight_bytes).astype(np.int64)
        wide = c.matrices * np.maximum(c.ffn_width, c.expert_width * c.experts_per_token) // c.tp
        inside = c.value_bytes * (2 * (2 + c.experts_per_token) * c.hidden + c.heads * c.key_width // c.tp + wide)
        logits = 4 * c.vocabulary_shard * (stage == c.pp - 1)
        return Memory(weights, 0, 0, self.cache_bytes(stage) + c.tokens * (inside + logits))

    @cached_property
    def fullest(self) -> Memory:
        """Memory of the fullest rank."""
        found = [self.memory(stage) for stage in self.of.fullest_stages()]
        fullest = np.argmax(np.stack(np.broadcast_arrays(*(memory.total for memory in found))), axis=0)
        columns = zip(*(vars(memory).values() for memory in found), strict=True)
        return Memory(*(np.choose(fullest, np.broadcast_arrays(*column)) for column in columns))

    def _products(self, shapes: Shapes) -> Iterable[Kernel]:
        for m, n, k, count in shapes:
            size = n * k * count * self.weight_bytes + (m * k + m * n) * count * self.of.value_bytes
            yield Kernel(2 * m * n * k * count, 0, size)

    def _attention(self) -> Iterable[Kernel]:
        """Projections, and the core, which reads the cache once; of latent attention all heads read the same vector.

        Its products from latents up are taken to the queries and the outputs instead [DeepSeek-V2, 2.1.2].
        """
        c, model = self.of, self.job.model
        yield from self._products(attention_shapes(c))
        width = 2 * model.kv_rank + (model.rope_width or 0) if model.kv_rank else c.key_width + c.value_size
        tokens = c.tokens * self.length
        yield Kernel(0, 2 * tokens * c.heads / c.tp * width, tokens * self.cached_bytes)

    def _experts(self) -> Iterable[Kernel]:
        """Experts of the busiest rank, of which those are read that a token of the ep group goes to, and what is beside."""
        c = self.of
        local = c.experts // c.ep
        read = local * (1 - (1 - c.experts_per_token / c.experts) ** (c.tokens * c.ep))
        rows, wide = c.tokens * c.routed_per_token, c.expert_width // c.tp
        for n, k in (((1 + c.gated) * wide, c.hidden), (c.hidden, wide)):
            yield Kernel(2 * rows * n * k, 0, read * n * k * self.weight_bytes + rows * (n + k) * c.value_bytes)
        yield from self._products([*dense_shapes(c, c.shared_experts * c.expert_width), (c.tokens, c.experts, c.hidden, 1)])

    def _logits(self) -> Iterable[Kernel]:
        return self._products([(self.of.tokens, self.of.vocabulary_shard, self.of.hidden, 1)])

    @cached_property
    def _layers(self) -> tuple[list[Kernel], list[Kernel]]:
        """Kernels of a dense layer, and of one with experts."""
        attention = list(self._attention())
        dense = attention + list(self._products(dense_shapes(self.of, self.of.ffn_width)))
        return dense, attention + list(self._experts() if self.job.model.experts else ())

    def _seconds(self, kernels: Iterable[Kernel]) -> Any:
        """No kernel is faster than its products or its memory."""
        c, fitted = self.of, calibration()
        found: Any = 0.0
        for each in kernels:
            busy = (each.flops / c.peak_flops + each.half_flops / c.half_flops) / fitted.gemm_efficiency
            read = each.size_bytes / (c.memory_bytes_per_s * fitted.memory_efficiency)
            found = found + np.maximum(busy, read) + fitted.kernel_seconds
        return found

    def pass_seconds(self, stage: Any) -> Any:
        """Computation of a micro-batch on a rank of a stage, or of all stages together if it is None."""
        between = elementwise(self.of, calibration())[0]
        dense, routed = (self._seconds(kernels) + between for kernels in self._layers)
        return self._through(stage, dense, routed, self._seconds(self._logits()))

    def _through(self, stage: Any, dense: Any, routed: Any, logits: Any = 0.0) -> Any:
        """The sum over the layers of a stage, or of all if it is None, each of its kind."""
        c, model = self.of, self.job.model
        if stage is None:
            experts = (model.layers - model.dense_layers) * (model.experts > 0)
            return (model.layers - experts) * dense + experts * routed + logits
        experts = c.routed_layers(stage)
        return (c.stage_layers(stage) - experts) * dense + experts * routed + logits * (stage == c.pp - 1)

    def read_bytes(self, stage: Any) -> Any:
        """Bytes that a rank of a stage moves to and from memory in all passes of an output token."""
        dense, routed = (sum(each.size_bytes for each in kernels) for kernels in self._layers)
        return self.micro_batches * self._through(stage, dense, routed, sum(each.size_bytes for each in self._logits()))

    @property
    def transfer_bytes(self) -> Any:
        """Bytes from a rank to its peer in the next stage: all tensor ranks have the whole activations."""
        return Volume(self.of).reduce_bytes

    def exchange_bytes(self) -> Any:
        """Bytes that the busiest rank sends, or gets, in a layer with experts: to these and back."""
        c = self.of
        each = (c.dispatch_bytes or c.value_bytes) + c.value_bytes
        return c.copies * c.tokens * c.hidden * each / c.tp * (c.ep > 1)

    def bound_seconds(self, bytes_per_s: float) -> Any:
        """What no output token is below: bytes over the memory's peak rate, or a GPU's exchanges over its whole rate."""
        c = self.of
        sent = self.micro_batches * self.exchange_bytes() / bytes_per_s
        each = ((self.read_bytes(s) / c.memory_bytes_per_s, c.routed_layers(s) * sent) for s in c.fullest_stages())
        return np.maximum.reduce([np.maximum(*bounds) for bounds in each])

    def _tensor_seconds(self, stage: Any, rates: Rates) -> Any:
        """All-reduces and exchanges of a pass, with what their messages wait."""
        c, sent = self.of, Volume(self.of)
        steps = 2 * (c.tp - 1)
        reduced = sent.reduces(1) * (ring_bytes(sent.reduce_bytes, c.tp) / rates.tensor + steps * rates.tensor_wait)
        expert = rates.data if rates.expert is None else rates.expert
        exchanged = where(c.ep > 1, self.exchange_bytes() / expert + 2 * rates.expert_wait, 0.0)
        return self._through(stage, reduced, reduced + exchanged)

    def prediction(self, rates: Rates) -> Prediction:
        """Predict an output token of all sequences: the longer of a loop and of the slowest stage's passes.

        All formulas are linear in the layers of either kind, so the slowest stage is one of the ``fullest_stages``.
        """
        c = self.of
        computes, tensors = zip(
            *((self.pass_seconds(stage), self._tensor_seconds(stage, rates)) for stage in c.fullest_stages()), strict=True
        )
        slowest = np.argmax(np.stack([np.add(*both) for both in zip(computes, tensors, strict=True)]), axis=0)
        compute, tensor = np.choose(slowest, computes), np.choose(slowest, tensors)
        moved = (c.pp - 1) * self.transfer_bytes + c.tokens * TOKEN_BYTES
        hops = where(c.pp > 1, moved / rates.pipeline + c.pp * rates.pipeline_wait, 0.0)
        loop = self.pass_seconds(None) + self._tensor_seconds(None, rates) + hops
        left = np.maximum(loop - self.micro_batches * (compute + tensor), 0.0)
        waits = np.minimum(hops, left)
        sent = self.micro_batches * (c.stage_layers(0) * 2 * ring_bytes(self.transfer_bytes, c.tp) + self.transfer_bytes)
        sent = sent + self.micro_batches * c.routed_layers(0) * self.exchange_bytes()
        return Prediction(
            self.micro_batches * compute, self.micro_batches * tensor, waits, left - waits, 0.0, 0.0,
            memory=self.fullest, sent_bytes=sent,
        )  # fmt: skip


def output_token(job: DecodeJobSpec, plan: Plan, accelerator: AcceleratorSpec | None = None) -> OutputToken:
    """An output token by one plan, all numbers; times are asked of an accelerator only."""
    return OutputToken(job, case(one_token(job), plan, accelerator))
