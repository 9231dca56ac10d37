"""Configurations as columns: one entry per configuration, so that the cost model works on all of them at once."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import AcceleratorSpec, JobSpec, ModelSpec
from lightfabric.placement.workload.transformer import Plan, Recompute, busiest_load, value_bytes

Column = NDArray[Any]
RECOMPUTATIONS: tuple[Recompute, ...] = ("none", "selective", "full")
NONE, SELECTIVE, FULL = range(3)
Schedule = Literal["1f1b", "gpipe", "zero-bubble", "dualpipe"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
"""Of a pipeline's passes; 1F1B is interleaved where there are virtual stages."""
ONE_F_ONE_B, GPIPE, ZERO_BUBBLE, DUALPIPE = range(4)


@dataclass(frozen=True)
class Cases:
    """Model, accelerator and plan of each configuration; every field is an array ``[case]``.

    Where ``kv_rank`` is 0 attention is not latent. ``flash`` says whether attention is one kernel or several, ``sharded``
    whether norms and dropout are cut by sequence, ``overlaps`` whether gradients are reduced behind the backward pass,
    ``sums_embedding`` whether those of a shared embedding are summed over both ends of the pipeline, ``deepspeed`` whether
    Megatron-DeepSpeed of 2022 ran it. ``recompute`` and ``schedule`` are indices into ``RECOMPUTATIONS`` and ``SCHEDULES``;
    ``peak_flops`` is what large products were seen to reach. ``expert_load`` are the tokens of the busiest rank's experts
    over those of even routing.
    """

    layers: Column
    hidden: Column
    heads: Column
    kv_heads: Column
    head_width: Column
    query_rank: Column
    kv_rank: Column
    rope_width: Column
    value_width: Column
    ffn: Column
    gated: Column
    sequence: Column
    vocabulary: Column
    tied: Column
    experts: Column
    experts_per_token: Column
    expert_ffn: Column
    shared_experts: Column
    dense_layers: Column
    batch: Column
    value_bytes: Column
    flash: Column
    sharded: Column
    overlaps: Column
    sums_embedding: Column
    deepspeed: Column
    schedule: Column
    peak_flops: Column
    memory_bytes_per_s: Column
    multiprocessors: Column
    dp: Column
    tp: Column
    pp: Column
    virtual_stages: Column
    cp: Column
    ep: Column
    micro_batch: Column
    recompute: Column
    zero: Column
    first_layers: Column
    last_layers: Column
    expert_load: Column

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, chosen: Any) -> "Cases":
        return Cases(**{entry.name: getattr(self, entry.name)[chosen] for entry in fields(self)})

    @property
    def tokens(self) -> Column:
        """Tokens of a micro-batch on one rank."""
        return self.micro_batch * self.sequence // self.cp

    @property
    def micro_batches(self) -> Column:
        """Micro-batches that one replica works off per iteration, the mean if they do not divide."""
        return self.batch / (self.dp * self.micro_batch)

    @property
    def layers_at(self) -> tuple[Column, Column, Column]:
        """Layers of the first stage, of the fullest between, 0 if there is none, and of the last."""
        each, left = np.divmod(self.layers, self.pp)
        given = self.first_layers > 0
        first = np.where(given, self.first_layers, each + (left > 0))
        last = np.where(given, self.last_layers, each)
        return first, -(-(self.layers - first - last) // np.maximum(self.pp - 2, 1)) * (self.pp > 2), last

    @property
    def second_stage(self) -> tuple[Column, Column]:
        """Layers of the second stage, 0 if it is the last, and which one is the first of the fullest between."""
        first, fullest, last = self.layers_at
        between = np.maximum(self.pp - 2, 1)
        layers, left = np.divmod(self.layers - first - last, between)
        given = (self.first_layers > 0) & (left > 0)
        return np.where(given, layers, fullest), np.where(given, -(-between // np.maximum(left, 1)), 1)

    @property
    def stage_layers(self) -> Column:
        """Layers of the fullest stage."""
        return np.maximum.reduce(self.layers_at)

    @property
    def sparse_share(self) -> Column:
        """Share of the layers that are a mixture of experts."""
        return np.where(self.experts > 0, (self.layers - self.dense_layers) / self.layers, 0.0)

    @property
    def routed_per_token(self) -> Column:
        """Tokens that pass the experts of the busiest rank, over the tokens of a rank."""
        return self.experts_per_token * self.expert_load

    @property
    def qkv_width(self) -> Column:
        """Outputs of the projection to queries, keys and values."""
        return (self.heads + 2 * self.kv_heads) * self.head_width

    @property
    def vocabulary_shard(self) -> Column:
        """Words per tensor-parallel rank, padded to a multiple of 128 as Megatron does."""
        return -(-self.vocabulary // (128 * self.tp)) * 128


OF_PLAN = (
    "dp", "tp", "pp", "virtual_stages", "cp", "ep", "micro_batch", "zero", "first_layers", "last_layers", "recompute",
)  # fmt: skip
"""The columns that a plan decides."""


def cases(job: JobSpec, accelerator: AcceleratorSpec, plans: Sequence[Plan]) -> Cases:
    """One job on one accelerator, cut by each of the plans; communication at the end is that of the task graph."""
    columns = {name: np.array([getattr(plan, name) for plan in plans], np.int64) for name in OF_PLAN[:-1]}
    columns["recompute"] = np.array([RECOMPUTATIONS.index(plan.recompute) for plan in plans], np.int64)
    return cut(job, accelerator, columns)


def cut(job: JobSpec, accelerator: AcceleratorSpec, plans: dict[str, Column]) -> Cases:
    """One job on one accelerator, cut by plans given as columns named as in ``OF_PLAN``."""
    count = len(plans["dp"])
    constants = model_values(job.model) | accelerator_values(accelerator, job.precision)
    constants |= {
        "batch": job.batch,
        "flash": True,
        "sharded": True,
        "overlaps": False,
        "sums_embedding": False,
        "deepspeed": False,
        "schedule": ONE_F_ONE_B,
    }
    others = {name: np.broadcast_to(value, count) for name, value in constants.items()}
    return Cases(**plans, **others, expert_load=_busiest(job, plans["ep"]))


def _busiest(job: JobSpec, ep: Column) -> Column:
    degrees, of_plan = np.unique(ep, return_inverse=True)
    return np.array([busiest_load(job, degree) for degree in degrees.tolist()])[of_plan]


def plan_of(cases: Cases, index: int) -> Plan:
    """The plan of one configuration."""
    values: dict[str, int] = {name: int(getattr(cases, name)[index]) for name in OF_PLAN}
    return Plan(recompute=RECOMPUTATIONS[values.pop("recompute")], **values)


def model_values(model: ModelSpec) -> dict[str, int | bool]:
    """The columns that a model decides."""
    return {
        "layers": model.layers,
        "hidden": model.hidden,
        "heads": model.heads,
        "kv_heads": model.kv_head_count,
        "head_width": model.head_size,
        "query_rank": model.query_rank or 0,
        "kv_rank": model.kv_rank or 0,
        "rope_width": model.rope_width or 0,
        "value_width": model.value_size,
        "ffn": model.ffn_width,
        "gated": model.gated,
        "sequence": model.sequence,
        "vocabulary": model.vocabulary,
        "tied": model.tied,
        "experts": model.experts,
        "experts_per_token": model.experts_per_token,
        "expert_ffn": model.expert_width,
        "shared_experts": model.shared_experts,
        "dense_layers": model.dense_layers,
    }


def accelerator_values(accelerator: AcceleratorSpec, precision: Any) -> dict[str, float]:
    """The columns that an accelerator decides; ValueError if it does not have that precision."""
    return {
        "value_bytes": value_bytes(precision),
        "peak_flops": accelerator.peak_flops(precision) * accelerator.matmul_fraction,
        "memory_bytes_per_s": accelerator.memory_gbytes_per_s * 1e9,
        "multiprocessors": accelerator.multiprocessors,
    }
