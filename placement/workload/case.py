"""Configurations as columns: an entry per configuration, or a number that all share, so that every formula is written once.

``case`` is one plan, all numbers; ``cases`` are many plans of a job, arrays. Formulas of the cost model, of memory and of
``volume`` work on both.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.spec import AcceleratorSpec, JobSpec, ModelSpec, Precision
from lightfabric.placement.plan import Plan, Recompute
from lightfabric.placement.workload.routing import busiest_copies, busiest_crossing, busiest_load

Column = NDArray[Any]
RECOMPUTATIONS: tuple[Recompute, ...] = ("none", "selective", "full")
NONE, SELECTIVE, FULL = range(3)
MAX_DEGREE = 1 << 20
"""Above any degree of parallelism."""
Schedule = Literal["1f1b", "gpipe", "zero-bubble", "dualpipe"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
"""Schedules of a pipeline's passes; 1F1B is interleaved where there are virtual stages."""
ONE_F_ONE_B, GPIPE, ZERO_BUBBLE, DUALPIPE = range(4)
PER_EXPERT, PER_ISLAND, PER_RANK = range(3)
where: Callable[[Any, Any, Any], Any] = np.where
"""Choice by a condition, of numbers or columns alike."""


@dataclass(frozen=True)
class Cases:
    """Model, plan, software and accelerator of each configuration; a field is an array ``[case]``, or one value of all.

    Where ``kv_rank`` is 0 attention is not latent. A size counts parameters of small tensors, as in ``ModelSpec``. ``flash``
    says whether attention is one kernel or several, ``sharded`` whether norms and dropout are cut by sequence, ``overlaps``
    whether gradients are reduced behind the backward pass, ``sums_embedding`` whether those of a shared embedding are summed
    over both ends of the pipeline, ``deepspeed`` whether Megatron-DeepSpeed of 2022 ran it, ``fused`` whether the loss is
    one kernel, ``lean`` whether norms and what comes from latents are computed again, ``hides_tensor`` and ``hides_experts``
    whether their communication is overlapped, ``paired`` whether by the next pass in the order of the task graph.
    ZeRO 3 cuts weights over ``shards`` of the replicas, all if 0. A token goes to
    experts on ``max_nodes`` islands at most, any if 0, in values of ``dispatch_bytes``, those of activations if 0. On the
    way to experts the busiest rank sends or gets ``copies`` per token of a rank, ``crossing`` of them between groups of
    ``expert_group`` ranks; 0 where they are counted by island.
    ``expert_tp`` ranks share an expert, tp if 0; if they are fewer, ep ranks are those of tensor parallelism, too. A token
    goes to each of its experts, or once to each island of them or to each rank, as ``dispatch`` says; hidden exchanges take
    ``exchange_multiprocessors`` from the passes. ``graphs`` are passes that the host does not launch kernel by kernel.
    ``next_tokens`` are predicted besides, each by a layer and an output layer after the last. Chunks that are ``filled`` are
    alike but for the last ones, which have what is left.
    ``recompute`` and ``schedule`` are indices into ``RECOMPUTATIONS`` and ``SCHEDULES``. ``expert_load`` are the tokens of
    the busiest rank's experts over those of even routing. ``peak_flops`` is what large products were seen to reach, whose
    operands are of ``operand_bytes``, and ``half_flops`` those that stay in 16 bits: of attention, the router and the output
    layer.

    ``exact`` is the convention of counts, one for all: what a rank of the task graph holds, in whole bytes. Otherwise, as
    kernels see it and for runs in tables: norms, biases and positions, second copies of heads that ranks share, and what
    experts take in and give are left out; the vocabulary is padded to a multiple of 128 on each rank; there is dropout,
    and flash attention never keeps its core.
    """

    layers: Any
    hidden: Any
    heads: Any
    kv_head_count: Any
    head_size: Any
    query_rank: Any
    kv_rank: Any
    rope_width: Any
    value_size: Any
    ffn_width: Any
    gated: Any
    sequence: Any
    vocabulary: Any
    tied: Any
    qkv_biases: Any
    attention_output_biases: Any
    ffn_biases: Any
    output_biases: Any
    norm_size: Any
    layer_norms: Any
    head_norm_size: Any
    heads_norm: Any
    sinks: Any
    router_size: Any
    first_size: Any
    last_size: Any
    dropout: Any
    experts: Any
    experts_per_token: Any
    expert_width: Any
    shared_experts: Any
    dense_layers: Any
    batch: Any
    value_bytes: Any
    gradient_bytes: Any
    optimiser_bytes: Any
    dp: Any
    tp: Any
    pp: Any
    virtual_stages: Any
    cp: Any
    ep: Any
    micro_batch: Any
    recompute: Any
    zero: Any
    first_layers: Any = 0
    last_layers: Any = 0
    expert_load: Any = 1.0
    flash: Any = True
    sharded: Any = True
    overlaps: Any = False
    sums_embedding: Any = False
    deepspeed: Any = False
    fused: Any = False
    lean: Any = False
    hides_tensor: Any = False
    hides_experts: Any = False
    paired: Any = False
    shards: Any = 0
    max_nodes: Any = 0
    dispatch_bytes: Any = 0
    copies: Any = 0
    crossing: Any = 0
    expert_group: Any = 1
    schedule: Any = ONE_F_ONE_B
    expert_tp: Any = 0
    dispatch: Any = PER_ISLAND
    graphs: Any = False
    exchange_multiprocessors: Any = 20
    next_tokens: Any = 0
    filled: Any = False
    peak_flops: Any = 0.0
    half_flops: Any = 0.0
    operand_bytes: Any = 2
    memory_bytes_per_s: Any = 0.0
    multiprocessors: Any = 0
    exact: bool = False

    def __len__(self) -> int:
        return len(self.dp)

    def __getitem__(self, chosen: Any) -> "Cases":
        columns = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return Cases(**{name: value[chosen] if np.ndim(value) else value for name, value in columns.items()})

    def joined(self, others: "Cases") -> "Cases":
        """These cases and then others of the same job."""
        columns = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        arrays = {name: np.concatenate((value, getattr(others, name))) for name, value in columns.items() if np.ndim(value)}
        return replace(self, **arrays)

    @cached_property
    def exactly(self) -> "Cases":
        """The same cases, counted as the task graph's ranks hold and send."""
        return replace(self, exact=True)

    @cached_property
    def tokens(self) -> Any:
        """Tokens of a micro-batch on one rank."""
        return self.micro_batch * self.sequence // self.cp

    @property
    def micro_batches(self) -> Any:
        """Micro-batches that one replica works off per iteration, the mean if they do not divide."""
        return self.batch / (self.dp * self.micro_batch)

    @property
    def replicas(self) -> Any:
        """Ranks that hold the same matrices, experts apart, and sum their gradients."""
        return self.dp * self.cp

    @property
    def hidden_experts(self) -> Any:
        """Whether tokens go to their experts while others are computed."""
        return self.hides_experts | (self.schedule == DUALPIPE)

    @property
    def stage_copies(self) -> Any:
        """Stages that a GPU holds: two of DualPipe, which feeds both ends [DeepSeek-V3, table 2]."""
        return where((self.schedule == DUALPIPE) & (self.pp > 1), 2, 1)

    @property
    def sharing(self) -> Any:
        """Replicas over which ZeRO cuts."""
        return where((self.shards > 0) & (self.zero == 3), self.shards, self.replicas)

    @property
    def expert_cut(self) -> Any:
        """Ranks that share an expert."""
        return where(self.expert_tp > 0, self.expert_tp, self.tp)

    @property
    def expert_replicas(self) -> Any:
        """How many of the replicas hold the same experts."""
        return np.maximum(self.replicas * self.tp // (self.ep * self.expert_cut), 1)

    @property
    def key_width(self) -> Any:
        """Width of a head's query and key."""
        return self.head_size + self.rope_width

    @property
    def matrices(self) -> Any:
        """Matrices of a feed-forward block."""
        return 2 + self.gated

    @property
    def sparse_share(self) -> Any:
        """Share of the layers that are a mixture of experts."""
        return where(self.experts > 0, (self.layers - self.dense_layers) / self.layers, 0.0)

    @property
    def routed_per_token(self) -> Any:
        """Tokens that pass the experts of the busiest rank, over the tokens of a rank."""
        return self.experts_per_token * self.expert_load

    @property
    def qkv_width(self) -> Any:
        """Outputs of the projection to queries, keys and values."""
        return (self.heads + 2 * self.kv_head_count) * self.head_size

    @cached_property
    def vocabulary_shard(self) -> Any:
        """Words per tensor-parallel rank, padded: to whole words, or a multiple of 128 as Megatron does."""
        unit = 1 if self.exact else 128
        return -(-self.vocabulary // (unit * self.tp)) * unit

    @property
    def filled_chunk(self) -> Any:
        """Layers of a chunk that is filled."""
        return -(-self.layers // (self.pp * self.virtual_stages))

    def layers_before(self, chunk: Any) -> Any:
        """Layers in the chunks before one; a stage has ``virtual_stages`` chunks of layers, pp chunks apart."""
        each, left = np.divmod(self.layers, self.pp * self.virtual_stages)
        even = chunk * each + np.minimum(chunk, left)
        even = where(self.filled, np.minimum(chunk * self.filled_chunk, self.layers), even)
        # Few cases have uneven first and last stages, and the others skip the formula for them.
        if not np.any(self.first_layers):
            return even
        between = self.layers - self.first_layers - self.last_layers
        inside = (self.first_layers > 0) & (chunk > 0) & (chunk < self.pp)
        # A pipeline of two stages has none between, hence the maximum: numpy computes both branches whichever is chosen.
        return where(inside, self.first_layers + between * (chunk - 1) // np.maximum(self.pp - 2, 1), even)

    def stage_layers(self, stage: Any) -> Any:
        """How many layers a stage has."""
        each, left = np.divmod(self.layers, self.pp * self.virtual_stages)
        # The first ``left`` chunks have one layer more, and the clip counts the stage's own, which are pp apart.
        even = self.virtual_stages * each + np.clip(-((stage - left) // self.pp), 0, self.virtual_stages)
        if np.any(self.filled):
            full, rest = np.divmod(self.layers, self.filled_chunk)
            chunks = np.clip(-((stage - full) // self.pp), 0, self.virtual_stages)
            even = where(self.filled, chunks * self.filled_chunk + rest * (full % self.pp == stage), even)
        if not np.any(self.first_layers):
            return even
        return where(self.first_layers > 0, self.layers_before(stage + 1) - self.layers_before(stage), even)

    def routed_layers(self, stage: Any) -> Any:
        """Layers of a stage that are mixtures of experts: all but the leading dense ones."""
        if not np.any(self.experts):
            return 0
        layers = where(self.experts > 0, self.stage_layers(stage), 0)
        # Chunks lie around the pipeline, so several chunks of a stage may have leading dense layers.
        for turn in range(int(np.max(self.virtual_stages, initial=1)) if np.any(self.dense_layers) else 0):
            chunk = stage + turn * self.pp
            begin, end = self.layers_before(chunk), self.layers_before(chunk + 1)
            dense = np.clip(self.dense_layers - begin, 0, end - begin)
            layers = layers - where(turn < self.virtual_stages, dense, 0)
        return layers

    def fuller_stage(self, after: Any) -> Any:
        """The first stage after one that has as many layers as any later one but the last."""
        if not np.any(self.first_layers):
            return after + 1
        between = np.maximum(self.pp - 2, 1)
        left = (self.layers - self.first_layers - self.last_layers) % between
        uneven = (self.first_layers > 0) & (left > 0)
        # Stages where ``stage * left / between`` passes a whole number have one layer more, as in Bresenham's lines.
        return where(uneven, -(-(after * left // between + 1) * between // np.maximum(left, 1)), after + 1)

    def fullest_stages(self) -> Iterator[Any]:
        """Stages one of which is fullest, whatever a layer of each kind takes.

        The first has most micro-batches in flight, the last logits. Between, of those with as many layers of each kind the
        first is fullest: where layers are few or many, and before, around and after the end of leading dense layers.
        """
        last, found = self.pp - 1, [0]
        if np.any(self.first_layers):
            found += [1, self.fuller_stage(0)]
        if np.any(self.dense_layers):
            mixed = self._first_routed_stage()
            found += [mixed, mixed + 1, self.fuller_stage(mixed)]
        yield from (np.minimum(stage, last) for stage in found)
        yield last

    def _first_routed_stage(self) -> Any:
        """The stage of the chunk in which the leading dense layers end."""
        each, left = np.divmod(self.layers, self.pp * self.virtual_stages)
        dense, longer = self.dense_layers, left * (each + 1)
        chunk = where(dense < longer, dense // (each + 1), left + (dense - longer) // np.maximum(each, 1))
        chunk = where(self.filled, dense // self.filled_chunk, chunk)
        if np.any(self.first_layers):
            between = np.maximum(self.layers - self.first_layers - self.last_layers, 1)
            ahead = (dense - self.first_layers + 1) * np.maximum(self.pp - 2, 1)
            inside = np.clip(1 + (ahead - 1) // between, 0, self.pp - 1)
            chunk = where(self.first_layers > 0, inside, chunk)
        return chunk % self.pp

    @cached_property
    def layers_at(self) -> tuple[Any, Any, Any]:
        """Layers of the first stage, of the fullest between, 0 if there is none, and of the last."""
        between = where(self.pp > 2, self.stage_layers(self.fuller_stage(0)), 0)
        return self.stage_layers(0), between, self.stage_layers(self.pp - 1)

    @cached_property
    def fullest_layers(self) -> Any:
        """Layers of the fullest stage."""
        return np.maximum.reduce(np.broadcast_arrays(*self.layers_at))


OF_PLAN = (
    "dp", "tp", "pp", "virtual_stages", "cp", "ep", "micro_batch", "zero", "first_layers", "last_layers", "expert_group",
    "recompute",
)  # fmt: skip
"""The columns that a plan decides."""


def case(job: JobSpec, plan: Plan, accelerator: AcceleratorSpec | None = None) -> Cases:
    """One plan, every column a number; times are asked of an accelerator only."""
    columns = {name: getattr(plan, name) for name in OF_PLAN}
    return cut(job, columns | {"recompute": RECOMPUTATIONS.index(plan.recompute)}, accelerator)


def cases(job: JobSpec, plans: Sequence[Plan], accelerator: AcceleratorSpec | None = None) -> Cases:
    """Many plans of a job, every column of a plan an array."""
    columns = {name: np.array([getattr(plan, name) for plan in plans], np.int64) for name in OF_PLAN[:-1]}
    columns["recompute"] = np.array([RECOMPUTATIONS.index(plan.recompute) for plan in plans], np.int64)
    return cut(job, columns, accelerator)


def cut(job: JobSpec, plans: dict[str, Any], accelerator: AcceleratorSpec | None = None) -> Cases:
    """One job, cut by plans given as columns named as in ``OF_PLAN``; communication at the end is that of the task graph."""
    values = model_values(job.model) | precision_values(job.precision)
    if accelerator is not None:
        values |= accelerator_values(accelerator, job.precision)
    group = plans.get("expert_group", 1)
    return Cases(
        **plans, **values, batch=job.batch, dispatch_bytes=job.dispatch_bytes, sharded=job.sequence_parallel,
        hides_experts=job.overlap_experts, paired=job.overlap_experts,
        expert_load=_busiest(job, plans["ep"]),
        copies=_copies(busiest_copies, job, plans["ep"], group), crossing=_copies(busiest_crossing, job, plans["ep"], group),
    )  # fmt: skip


def _busiest(job: JobSpec, ep: Any) -> Any:
    if not job.expert_skew:
        return 1.0
    return _of_each(lambda degree: busiest_load(job.model.experts, job.expert_skew, degree), ep)


def _copies(count: Callable[[JobSpec, int, int], float], job: JobSpec, ep: Any, expert_group: Any) -> Any:
    if not job.model.experts:
        return 0
    # A degree and a size are one number while many plans share few of them.
    both = ep * MAX_DEGREE + expert_group
    return _of_each(lambda pair: count(job, *divmod(pair, MAX_DEGREE)), both)


def _of_each(known: Callable[[int], float], column: Any) -> Any:
    """What is known of each number in a column, computed once for those that are equal."""
    numbers, of_plan = np.unique(column, return_inverse=True)
    return np.array([known(number) for number in numbers.tolist()])[of_plan.reshape(np.shape(column))]


def plan_of(cases: Cases, index: int) -> Plan:
    """The plan of one configuration."""
    values: dict[str, int] = {name: int(getattr(cases, name)[index]) for name in OF_PLAN}
    return Plan(recompute=RECOMPUTATIONS[values.pop("recompute")], **values)


OF_MODEL = (
    "layers", "hidden", "heads", "kv_head_count", "head_size", "query_rank", "kv_rank", "rope_width", "value_size",
    "ffn_width", "gated", "sequence", "vocabulary", "tied", "dropout", "experts", "experts_per_token", "expert_width",
    "shared_experts", "dense_layers", "qkv_biases", "attention_output_biases", "ffn_biases", "output_biases", "norm_size",
    "layer_norms", "head_norm_size", "sinks", "router_size", "first_size", "last_size",
)  # fmt: skip


def model_values(model: ModelSpec) -> dict[str, Any]:
    """The columns that a model decides; 0 stands for None."""
    return {name: getattr(model, name) or 0 for name in OF_MODEL} | {"heads_norm": model.qk_norm == "heads"}


def value_bytes(precision: Precision) -> int:
    """Bytes of a weight or an activation in memory and on the wire: fp8 holds for matrix products only."""
    return 4 if precision in ("fp32", "tf32") else 2


def operand_bytes(precision: Precision) -> float:
    """Bytes of a value that goes into a matrix product; of blocks of 32 or 16 the scale of a byte is left out."""
    return {"fp8": 1.0, "mxfp8": 1.0, "nvfp4": 0.5}.get(precision, float(value_bytes(precision)))


def state_bytes(precision: Precision) -> tuple[int, int, int]:
    """Bytes per parameter of weight, gradient and Adam state.

    Mixed precision 2 + 4 + 12 = 18 [Narayanan 2021]: gradients are summed in fp32, Adam keeps a master copy and two
    moments. Full precision 4 + 4 + 8 = 16.
    """
    return (4, 4, 8) if value_bytes(precision) == 4 else (2, 4, 12)


def precision_values(precision: Precision) -> dict[str, Any]:
    """The columns that a precision decides."""
    return dict(zip(("value_bytes", "gradient_bytes", "optimiser_bytes"), state_bytes(precision), strict=True))


def accelerator_values(accelerator: AcceleratorSpec, precision: Precision) -> dict[str, Any]:
    """The columns that an accelerator decides; ValueError if it does not have that precision."""
    return {
        "peak_flops": accelerator.matmul_flops(precision),
        "half_flops": accelerator.matmul_flops("bf16" if operand_bytes(precision) < value_bytes(precision) else precision),
        "operand_bytes": operand_bytes(precision),
        "memory_bytes_per_s": accelerator.memory_gbytes_per_s * 1e9,
        "multiprocessors": accelerator.multiprocessors,
    }
