"""A job says what is trained: a transformer, or a network that is no stack of equal layers; or what decodes; and its cut."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from lightfabric.model.spec.accelerator import Precision
from lightfabric.model.spec.require import FORBID, require, require_between, require_counts
from lightfabric.model.spec.transformer import ModelSpec

MAX_ITERATIONS = 1 << 40


@dataclass(frozen=True)
class JobSpec:
    """Describes the training of a transformer. ``batch`` is the global batch in sequences.

    The k-th most popular expert gets tokens in proportion to 1 / k ** ``expert_skew``; 0 is even. Experts are in
    ``expert_groups`` equal groups, and those of a token in at most ``max_groups`` of them, 4 of 8 in DeepSeek-V3 [section
    2.1.2]. Tokens go to their experts in values of ``dispatch_bytes``, those of activations if 0, and results come back in
    those of activations. ``sequence_parallel``: norms and dropout are cut by sequence over the tensor-parallel ranks.
    ``overlap_experts``: tokens are exchanged while passes of other micro-batches compute. A job of so many ``iterations``
    has a time to accuracy, ``training_s``.
    """

    MAX_SKEWED: ClassVar[int] = 1 << 20

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    model: ModelSpec
    batch: int
    precision: Precision = "bf16"
    expert_skew: float = 0.0
    expert_groups: int = 1
    max_groups: int = 1
    dispatch_bytes: int = 0
    sequence_parallel: bool = True
    iterations: int = 0
    overlap_experts: bool = False

    def __post_init__(self) -> None:
        require_between(self, 1, 1 << 20, "batch")
        require(self, "overlap_experts", not self.overlap_experts or self.model.experts > 0, "false without experts")
        require_between(self, 0, MAX_ITERATIONS, "iterations")
        require_between(self, 0, 4, "expert_skew")
        require(self, "expert_skew", not self.expert_skew or self.model.experts > 0, "0 for a model without experts")
        self._require_groups()

    def _require_groups(self) -> None:
        experts, chosen = self.model.experts, self.model.experts_per_token
        require_between(self, 1, 256, "expert_groups")
        require_between(self, 1, self.expert_groups, "max_groups")
        require_between(self, 0, 4, "dispatch_bytes")
        require(self, "expert_groups", experts % self.expert_groups == 0, f"a divisor of experts ({experts})")
        for name, default in (("expert_groups", 1), ("dispatch_bytes", 0)):
            require(self, name, getattr(self, name) == default or experts > 0, f"{default} for a model without experts")
        # How popular experts share the few groups of a token is no question of their popularity alone.
        require(self, "expert_groups", self.expert_groups == 1 or not self.expert_skew, "1 beside expert_skew")
        enough = self.max_groups * experts >= chosen * self.expert_groups
        require(self, "max_groups", enough, f"enough for {chosen} experts of a token")
        require(self, "expert_skew", not self.expert_skew or experts * chosen <= self.MAX_SKEWED, "0 for so many experts")


@dataclass(frozen=True, kw_only=True)
class DecodeJobSpec(JobSpec):
    """Describes a transformer that decodes: each of ``batch`` sequences gets one output token after the other.

    A sequence has ``context`` tokens when the first of its ``output_tokens`` is computed. Caches of keys and values, in
    ``cache_bytes`` each, those of activations if 0, have room for all, and a token reads those of the mean. Weights are in
    the values of matrix products: a byte in fp8.
    """

    phase: Literal["decode"]
    context: int
    output_tokens: int = 1
    cache_bytes: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(self, 1, 1 << 24, "context", "output_tokens")
        require_between(self, 0, 4, "cache_bytes")
        require(self, "sequence_parallel", self.sequence_parallel, "left out to decode, where a sequence is one token")
        for name in ("iterations", "overlap_experts"):
            require(self, name, not getattr(self, name), "left out to decode")
        rows = self.model.position_rows or self.model.sequence
        held = self.model.positions != "learned" or self.most_tokens <= rows
        require(self, "context", held, f"at most the positions ({rows}), with the output tokens")

    @property
    def most_tokens(self) -> int:
        """Count the tokens whose keys and values a sequence has when its last output token is computed."""
        return self.context + self.output_tokens - 1


@dataclass(frozen=True)
class PlanSpec:
    """Fixes what is given of the plan by which a transformer is cut over GPUs; what is None is searched for, ``cp`` is 1.

    The fields are those of ``lightfabric.placement.plan.Plan``. A micro-batch that is given need not be a power of two.
    Of a network that is no transformer, and has no tables, ``tp`` alone can be given.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    dp: int | None = None
    tp: int | None = None
    pp: int | None = None
    virtual_stages: int | None = None
    cp: int | None = None
    ep: int | None = None
    expert_group: int | None = None
    micro_batch: int | None = None
    zero: int | None = None
    recompute: Literal["none", "selective", "full"] | None = None

    COUNTS: ClassVar[tuple[str, ...]] = ("dp", "tp", "pp", "virtual_stages", "cp", "ep", "expert_group", "micro_batch")

    def __post_init__(self) -> None:
        for name in self.COUNTS:
            require(self, name, getattr(self, name) is None or 1 <= getattr(self, name) <= 1 << 20, "from 1 to 1048576")
        require(self, "zero", self.zero in (None, 0, 1), "0 or 1")

    @property
    def given(self) -> dict[str, int | str]:
        """Name the fields that are given, and their values."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}


SEARCHED = PlanSpec()
"""Nothing of the plan is given."""


@dataclass(frozen=True)
class NetworkJobSpec:
    """Describes the training of a network that is no stack of equal layers. ``batch`` is the global batch in samples.

    The recommender has a table for each of ``table_rows``, MLPerf's if there are none, of ``table_width`` values a row. Its
    perceptrons are MLPerf's too: ``bottom_widths`` are those from the inputs on, before the last, which is the tables';
    ``top_widths`` those after the inputs, which are the products and the bottom perceptron's outputs. ``weights_bytes`` are
    those of the gradients that are summed over GPUs, the network's own if 0; ``iterations`` are as of a transformer.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    network: Literal["resnet-50", "vgg-16", "transformer-big", "dlrm"]
    batch: int
    precision: Precision = "bf16"
    table_rows: tuple[int, ...] = ()
    table_width: int = 128
    bottom_widths: tuple[int, ...] = (13, 512, 256)
    top_widths: tuple[int, ...] = (1024, 1024, 512, 256, 1)
    weights_bytes: int = 0
    iterations: int = 0

    SPLITS: ClassVar[tuple[int, ...]] = (1, 2, 4, 8)
    MAX_TABLES: ClassVar[int] = 1024
    MAX_WIDTHS: ClassVar[int] = 64

    def __post_init__(self) -> None:
        require_between(self, 1, 1 << 24, "batch")
        require_between(self, 1, 1 << 14, "table_width")
        require_between(self, 0, 1 << 44, "weights_bytes")
        require_between(self, 0, MAX_ITERATIONS, "iterations")
        require_counts(self, "table_rows", 0, self.MAX_TABLES, 1 << 34)
        for name in ("bottom_widths", "top_widths"):
            require_counts(self, name, 1, self.MAX_WIDTHS, 1 << 14)
        for name in ("table_rows", "table_width", "bottom_widths", "top_widths"):
            is_default = getattr(self, name) == self.__dataclass_fields__[name].default
            require(self, name, is_default or self.network == "dlrm", "left out but for dlrm")

    @property
    def splits(self) -> tuple[int, ...]:
        """Numbers of GPUs that can split each layer: those that divide the output channels of all, 1000 classes too."""
        return self.SPLITS[:1] if self.network == "dlrm" else self.SPLITS
