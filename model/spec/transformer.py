"""A model spec describes a transformer by the shape of its layers."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lightfabric.model.spec.require import FORBID, require, require_between


@dataclass(frozen=True)
class ModelSpec:
    """Describes a transformer by its shape: it is a GPT unless more is given.

    Attention: ``kv_heads`` heads of keys and values (all heads), each head ``head_width`` wide (hidden / heads). With
    ``kv_rank`` it is multi-head latent attention [DeepSeek-V2, section 2.1]: keys and values come from kv_rank values
    per token, queries from ``query_rank`` (or from hidden), ``rope_width`` more per query and key carry the position, a
    value is ``value_width`` wide (head_width).

    Feed-forward: ``ffn`` wide (4 x hidden), three matrices if ``gated`` (SwiGLU), else two. With ``experts`` it is a
    mixture in every layer but the first ``dense_layers``: each token goes to ``experts_per_token`` of them and to all of
    ``shared_experts``, each ``expert_ffn`` wide (ffn).

    ``tied``: the output layer shares the word embedding. Positions that are rotary or alibi have no parameters.
    ``biases`` of "all" matrices go with layer norms of two vectors; "qkv" (Qwen) and "none" with RMS norms of one.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    layers: int
    hidden: int
    heads: int
    sequence: int
    vocabulary: int
    ffn: int | None = None
    kv_heads: int | None = None
    head_width: int | None = None
    gated: bool = False
    tied: bool = True
    positions: Literal["learned", "rotary", "alibi"] = "learned"
    biases: Literal["all", "qkv", "none"] = "all"
    dropout: bool = True
    experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int | None = None
    shared_experts: int = 0
    dense_layers: int = 0
    query_rank: int | None = None
    kv_rank: int | None = None
    rope_width: int | None = None
    value_width: int | None = None

    def __post_init__(self) -> None:
        require_between(self, 1, 1 << 20, "layers", "hidden", "heads", "sequence", "vocabulary")
        widths = ("ffn", "kv_heads", "head_width", "expert_ffn", "query_rank", "kv_rank", "rope_width", "value_width")
        require_between(self, 1, 1 << 22, *(name for name in widths if getattr(self, name) is not None))
        # Only without a width of its own is a head a part of the hidden width; Gemma and Qwen have wider ones.
        if self.head_width is None:
            require(self, "heads", self.hidden % self.heads == 0, f"a divisor of hidden ({self.hidden})")
        require(self, "kv_heads", self.heads % self.kv_head_count == 0, f"a divisor of heads ({self.heads})")
        self._require_experts()
        self._require_latent()

    def _require_experts(self) -> None:
        require_between(self, 0, 1 << 16, "experts")
        if self.experts:
            require_between(self, 1, self.experts, "experts_per_token")
            require_between(self, 0, 1 << 16, "shared_experts")
            require_between(self, 0, self.layers - 1, "dense_layers")
            return
        for name in ("experts_per_token", "shared_experts", "dense_layers"):
            require(self, name, getattr(self, name) == 0, "0 without experts")
        require(self, "expert_ffn", self.expert_ffn is None, "left out without experts")

    def _require_latent(self) -> None:
        if self.kv_rank is None:
            for name in ("query_rank", "rope_width", "value_width"):
                require(self, name, getattr(self, name) is None, "left out without kv_rank")
            return
        require(self, "kv_heads", self.kv_heads is None, "left out beside kv_rank")
        require(self, "rope_width", self.rope_width is not None, "given beside kv_rank")
        require(self, "positions", self.positions == "rotary", "'rotary' beside kv_rank")
        require(self, "biases", self.biases == "none", "'none' beside kv_rank")

    @property
    def ffn_width(self) -> int:
        """Give the width of the feed-forward layer."""
        return 4 * self.hidden if self.ffn is None else self.ffn

    @property
    def expert_width(self) -> int:
        """Give the width of one expert's feed-forward layer."""
        return self.ffn_width if self.expert_ffn is None else self.expert_ffn

    @property
    def kv_head_count(self) -> int:
        """Count the heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_size(self) -> int:
        """Give the width of a head's query and key without ``rope_width``."""
        return self.hidden // self.heads if self.head_width is None else self.head_width

    @property
    def key_size(self) -> int:
        """Give the width of a head's query and key with ``rope_width``."""
        return self.head_size + (self.rope_width or 0)

    @property
    def value_size(self) -> int:
        """Give the width of a head's value."""
        return self.head_size if self.value_width is None else self.value_width

    @property
    def query_width(self) -> int:
        """Give the width of the queries of all heads."""
        return self.heads * self.key_size

    @property
    def kv_width(self) -> int:
        """Give the width of the keys of all kv heads without ``rope_width``, also of the values but for ``value_width``."""
        return self.kv_head_count * self.head_size

    @property
    def attention_width(self) -> int:
        """Give the width of what attention gives to the output projection: the values of all heads."""
        return self.heads * self.value_size

    @property
    def norm_size(self) -> int:
        """Count the parameters of a norm: scale and shift, or scale alone."""
        # Layer norm has a scale and a shift, RMS norm a scale alone [Zhang, Sennrich, NeurIPS 2019].
        return 2 * self.hidden if self.biases == "all" else self.hidden

    def is_routed(self, layer: int) -> bool:
        """Tell whether a layer is a mixture of experts; it is counted from 0, or from the end if negative."""
        return self.experts > 0 and layer % self.layers >= self.dense_layers
