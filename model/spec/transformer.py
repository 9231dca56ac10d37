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

    ``tied``: the output layer shares the word embedding. Positions that are rotary or alibi have no parameters, learned ones
    a table of ``position_rows`` (sequence). All matrices have ``biases``, or those of attention, of its queries, keys and
    values ("qkv", Qwen), of its "output", of the feed-forward block ("ffn", GPT-J), of two ("output-ffn", GPT-Neo), or none.

    A ``norm`` has a scale and a shift ("layer", as goes with biases of "all"), a scale alone ("rms", as goes with others, or
    layer norm without biases) or no parameters ("none"). A layer has ``layer_norms`` of the hidden width, and ``qk_norm``
    of queries and keys: of a "head", one for all heads, or of all "heads" at once.

    Small tensors: a bias per expert in the router (``router_biases``), a gate of the shared experts (``shared_gate``), a
    ``sinks`` value per head, a bias per word (``output_biases``), norms after the embedding and the last layer
    (``embedding_norm``, ``final_norm``), ``token_types`` and the ``pooler`` of BERT.
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
    biases: Literal["all", "attention", "qkv", "output", "ffn", "qkv-ffn", "output-ffn", "none"] = "all"
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
    position_rows: int | None = None
    norm: Literal["layer", "rms", "none"] | None = None
    layer_norms: int = 2
    qk_norm: Literal["none", "head", "heads"] = "none"
    router_biases: bool = False
    shared_gate: bool = False
    sinks: bool = False
    output_biases: bool = False
    embedding_norm: bool = False
    final_norm: bool = True
    token_types: int = 0
    pooler: bool = False

    def __post_init__(self) -> None:
        require_between(self, 1, 1 << 20, "layers", "hidden", "heads", "sequence", "vocabulary")
        widths = ("ffn", "kv_heads", "head_width", "expert_ffn", "query_rank", "kv_rank", "rope_width", "value_width")
        require_between(self, 1, 1 << 22, *(name for name in widths if getattr(self, name) is not None))
        # Only without a width of its own is a head a part of the hidden width; Gemma and Qwen have wider ones.
        if self.head_width is None:
            require(self, "heads", self.hidden % self.heads == 0, f"a divisor of hidden ({self.hidden})")
        require(self, "kv_heads", self.heads % self.kv_head_count == 0, f"a divisor of heads ({self.heads})")
        require_between(self, 0, 8, "layer_norms")
        require_between(self, 0, 1 << 20, "token_types")
        if self.position_rows is not None:
            require(self, "position_rows", self.positions == "learned", "left out unless positions are learned")
            require_between(self, self.sequence, 1 << 21, "position_rows")
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
        for name in ("router_biases", "shared_gate"):
            require(self, name, not getattr(self, name), "false without experts")
        require(self, "expert_ffn", self.expert_ffn is None, "left out without experts")

    def _require_latent(self) -> None:
        if self.kv_rank is None:
            for name in ("query_rank", "rope_width", "value_width"):
                require(self, name, getattr(self, name) is None, "left out without kv_rank")
            return
        require(self, "kv_heads", self.kv_heads is None, "left out beside kv_rank")
        require(self, "rope_width", self.rope_width is not None, "given beside kv_rank")
        require(self, "positions", self.positions == "rotary", "'rotary' beside kv_rank")
        for name in ("biases", "qk_norm"):
            require(self, name, getattr(self, name) == "none", "'none' beside kv_rank")

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
    def qkv_biases(self) -> bool:
        """Tell whether the projections to queries, keys and values have biases."""
        return self.biases in ("all", "attention", "qkv", "qkv-ffn")

    @property
    def attention_output_biases(self) -> bool:
        """Tell whether the projection of what attention gives has biases."""
        return self.biases in ("all", "attention", "output", "output-ffn")

    @property
    def ffn_biases(self) -> bool:
        """Tell whether the matrices of the feed-forward block have biases."""
        return self.biases in ("all", "ffn", "qkv-ffn", "output-ffn")

    @property
    def norm_vectors(self) -> int:
        """Count the vectors of a norm: scale and shift, scale alone, or none."""
        # Layer norm has a scale and a shift, RMS norm a scale alone [Zhang, Sennrich, NeurIPS 2019].
        return {"layer": 2, "rms": 1, "none": 0}[self.norm or ("layer" if self.biases == "all" else "rms")]

    @property
    def norm_size(self) -> int:
        """Count the parameters of a norm of the hidden width."""
        return self.norm_vectors * self.hidden

    @property
    def head_norm_size(self) -> int:
        """Count the parameters of the norms of a query's and a key's head that all heads share."""
        return 2 * self.norm_vectors * self.key_size if self.qk_norm == "head" else 0

    @property
    def router_size(self) -> int:
        """Count the parameters of a layer's router, with the gate of the shared experts."""
        return self.experts * (self.hidden + self.router_biases) + self.shared_gate * self.hidden

    @property
    def first_size(self) -> int:
        """Count the parameters of what is added to a word's embedding, and of its norm."""
        rows = (self.position_rows or self.sequence) if self.positions == "learned" else 0
        return (rows + self.token_types) * self.hidden + self.embedding_norm * self.norm_size

    @property
    def last_size(self) -> int:
        """Count the parameters between the last layer and the output layer."""
        return self.final_norm * self.norm_size + self.pooler * (self.hidden + 1) * self.hidden

    def is_routed(self, layer: int) -> bool:
        """Tell whether a layer is a mixture of experts; it is counted from 0, or from the end if negative."""
        return self.experts > 0 and layer % self.layers >= self.dense_layers
