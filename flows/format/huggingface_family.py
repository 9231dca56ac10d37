"""What the code of each ``model_type`` of Hugging Face builds from its config, as fields of a ``ModelSpec``.

Facts and defaults are those of the classes of Transformers 5, and of the code beside the weights for baichuan, chatglm,
deepseek, internlm, internlm2, kimi_k2, minicpm and qwen. Three entries are no fields: ``qkv``, ``output`` and
``ffn_biases`` say which matrices have biases. ``ONLY`` has keys whose value must be the one given, for with another the
code builds what is no ModelSpec.
"""

from typing import Any

from lightfabric.flows.format.huggingface_key import Count, Flag, Inside, Leading, Quotient, Rate, Sum

Family = dict[str, Any]
ONLY = "only"


def _biases(qkv: Any, output: Any, ffn: Any = False) -> Family:
    return {"qkv": qkv, "output": output, "ffn_biases": ffn}


def _kv(default: int | None) -> Family:
    return {"kv_heads": Count("num_key_value_heads", default)}


def _head(default: int) -> Family:
    return {"head_width": Count("head_dim", default)}


def _experts(key: str, default: int, per_token: int) -> Family:
    return {"experts": Count(key, default), "experts_per_token": Count("num_experts_per_tok", per_token)}


_UNTIED, _TIED = ({"tied": Flag("tie_word_embeddings", tied)} for tied in (False, True))
_SEQUENCE = Count("max_position_embeddings")

_USUAL: Family = {
    "layers": Count("num_hidden_layers"),
    "hidden": Count("hidden_size"),
    "heads": Count("num_attention_heads"),
    "vocabulary": Count("vocab_size"),
    "sequence": _SEQUENCE,
    "ffn": Count("intermediate_size"),
}
_GPT: Family = {
    "layers": Count("n_layer"),
    "hidden": Count("n_embd"),
    "heads": Count("n_head"),
    "vocabulary": Count("vocab_size"),
    "sequence": Count("n_positions"),
    "ffn": Count("n_inner", None),
    "norm": "layer",
}
_MOSAIC: Family = {
    "layers": Count("n_layers"),
    "hidden": Count("d_model"),
    "heads": Count("n_heads"),
    "vocabulary": Count("vocab_size"),
    "sequence": Count("max_seq_len"),
    "norm": "rms",
}
_ATTENTION, _MLP = Flag("attention_bias", False), Flag("mlp_bias", False)
_ROTARY, _ALIBI = ({"positions": positions, "dropout": False} for positions in ("rotary", "alibi"))
_NONE, _OF_ATTENTION, _BOTH = _biases(False, False), _biases(_ATTENTION, _ATTENTION), _biases(_ATTENTION, _ATTENTION, _MLP)
_ALL: Family = _biases(True, True, True) | {"norm": "layer"}
_NO_CROSS: Family = {ONLY: {"add_cross_attention": False}}

# Norms by the root mean square, a gated feed-forward block, rotary positions, heads cut out of the width if not told.
_RMS: Family = (
    _USUAL | _ROTARY | _UNTIED | _NONE | {"norm": "rms", "gated": True} | _kv(None) | {"head_width": Count("head_dim", None)}
)
_LLAMA: Family = _RMS | _BOTH
_MISTRAL: Family = _RMS | _kv(8)
_GEMMA: Family = _RMS | _OF_ATTENTION | _TIED | _head(256)
_GLM: Family = _RMS | _biases(Flag("attention_bias", True), False) | _kv(2) | _head(128)
_COHERE: Family = _RMS | _OF_ATTENTION | _TIED | {"layer_norms": 1}
_OLMO2: Family = _RMS | _OF_ATTENTION | {"qk_norm": "heads"}
_OF_EXPERTS: Family = {"expert_ffn": Count("moe_intermediate_size")}
_SPARSE: Family = _OF_EXPERTS | {
    ONLY: {"decoder_sparse_step": 1},
    "dense_layers": Leading("mlp_only_layers"),
}
_DENSE_FIRST: Family = _OF_EXPERTS | {
    ONLY: {"moe_layer_freq": 1},
    "experts": Count("n_routed_experts"),
    "experts_per_token": Count("num_experts_per_tok"),
    "shared_experts": Count("n_shared_experts"),
    "dense_layers": Count("first_k_dense_replace"),
}
_LATENT: Family = _RMS | {
    "kv_heads": None,
    "head_width": Count("qk_nope_head_dim"),
    "query_rank": Count("q_lora_rank", None),
    "kv_rank": Count("kv_lora_rank"),
    "rope_width": Count("qk_rope_head_dim"),
    "value_width": Count("v_head_dim"),
    ONLY: {"attention_bias": False, "mlp_bias": False},
}
_DEEPSEEK: Family = _LATENT | _DENSE_FIRST | {ONLY: _LATENT[ONLY] | _DENSE_FIRST[ONLY]}
_BERT: Family = _USUAL | _ALL | _TIED | _NO_CROSS | {
    "embedding_norm": True,
    "final_norm": False,
    "pooler": True,
    "token_types": Count("type_vocab_size", 2),
    "dropout": Rate("hidden_dropout_prob", 0.1),
}  # fmt: skip
# Two rows of the table of positions are before the first token's.
_ROBERTA: Family = _BERT | {"position_rows": _SEQUENCE, "sequence": Sum(_SEQUENCE, -2)}
_GPTJ: Family = _GPT | _ROTARY | _UNTIED | _biases(False, False, True) | {"layer_norms": 1, "output_biases": True}
_BIAS = Flag("bias", False)

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "arcee": _LLAMA | {"gated": False},
    "baichuan": _RMS | {"sequence": Count("max_position_embeddings|model_max_length")},
    "bert": _BERT,
    "bloom": _ALL | _ALIBI | _TIED | {
        "layers": Count("n_layer|num_hidden_layers"),
        "hidden": Count("hidden_size|n_embed"),
        "heads": Count("n_head|num_attention_heads"),
        "vocabulary": Count("vocab_size"),
        "sequence": Count("seq_length", 2048),
        "embedding_norm": True,
        "dropout": Rate("hidden_dropout", 0.0),
    },
    "camembert": _ROBERTA,
    "chatglm": _RMS | {
        "layers": Count("num_layers"),
        "vocabulary": Count("padded_vocab_size"),
        "sequence": Count("seq_length"),
        "ffn": Count("ffn_hidden_size"),
        "head_width": Count("kv_channels"),
        "kv_heads": Flag("multi_query_attention", False, Count("multi_query_group_num")),
        "qkv": Flag("add_qkv_bias", False),
        ONLY: {"add_bias_linear": False, "rmsnorm": True, "post_layer_norm": True},
    },
    "codegen": _GPTJ,
    "cohere": _COHERE | {"qk_norm": Flag("use_qk_norm", False, "heads", "none")},
    "cohere2": _COHERE,
    "cwm": _RMS | _kv(8) | _head(128),
    "dbrx": _MOSAIC | _ROTARY | _UNTIED | _NONE | {
        "gated": True,
        "kv_heads": Inside("attn_config", Count("kv_n_heads")),
        "ffn": Inside("ffn_config", Count("ffn_hidden_size")),
        "experts": Inside("ffn_config", Count("moe_num_experts")),
        "experts_per_token": Inside("ffn_config", Count("moe_top_k")),
    },
    "deepseek": _RMS | _OF_ATTENTION | _DENSE_FIRST,
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK | {"router_biases": True},
    "distilbert": _BERT | {
        "layers": Count("n_layers"),
        "hidden": Count("dim"),
        "heads": Count("n_heads"),
        "ffn": Count("hidden_dim"),
        "pooler": False,
        "token_types": 0,
        "dropout": Rate("dropout", 0.1),
        ONLY: {"sinusoidal_pos_embds": False},
    },
    "dots1": _RMS | _OF_ATTENTION | _DENSE_FIRST | {"qk_norm": "head", "router_biases": True},
    "ernie4_5": _RMS | _TIED | _kv(2) | _head(128) | _biases(*3 * [Flag("use_bias", False)]),
    "exaone": _LLAMA | _kv(8) | {"layers": Count("num_hidden_layers|num_layers")},
    "exaone4": _RMS | _kv(32) | {"qk_norm": "head"},
    "falcon": _USUAL | _ROTARY | _TIED | _biases(_BIAS, _BIAS, _BIAS) | {
        "norm": "layer",
        "ffn": Count("ffn_hidden_size", None),
        "kv_heads": Flag("new_decoder_architecture", False, Count("num_kv_heads", None), Flag("multi_query", True, 1, None)),
        "layer_norms": Flag(
            "parallel_attn", True, Count("num_ln_in_parallel_attn", Flag("new_decoder_architecture", False, 2, 1)), 2
        ),
    },
    "flex_olmo": _OLMO2 | _experts("num_experts|num_local_experts", 7, 5),
    "gemma": _GEMMA | _kv(16),
    "gemma2": _GEMMA | _kv(4) | {"layer_norms": 4},
    "gemma3_text": _GEMMA | _kv(4) | {"layer_norms": 4, "qk_norm": "head"},
    "glm": _GLM,
    "glm4": _GLM | {"layer_norms": 4},
    "glm4_moe": _RMS | _biases(_ATTENTION, False) | _kv(8) | _DENSE_FIRST | {
        "qk_norm": Flag("use_qk_norm", False, "head", "none"),
        "router_biases": True,
    },
    "gpt2": _GPT | _ALL | _TIED | _NO_CROSS | {"dropout": Rate("resid_pdrop", 0.1)},
    "gpt_bigcode": _GPT | _ALL | _TIED | _NO_CROSS | {
        "kv_heads": Flag("multi_query", True, 1, None),
        "dropout": Rate("resid_pdrop", 0.1),
    },
    "gpt_neo": _USUAL | _TIED | _biases(False, True, True) | {
        "layers": Count("num_layers"),
        "heads": Count("num_heads"),
        "ffn": Count("intermediate_size", None),
        "norm": "layer",
        "dropout": Rate("resid_dropout", 0.0),
    },
    "gpt_neox": _USUAL | _ROTARY | _UNTIED | _ALL | {
        "qkv": Flag("attention_bias", True),
        "output": Flag("attention_bias", True),
        "dropout": Rate("hidden_dropout", 0.0),
    },
    "gpt_oss": _RMS | _kv(8) | _head(64) | _experts("num_local_experts|num_experts", 128, 4) | {
        "qkv": Flag("attention_bias", True),
        "output": Flag("attention_bias", True),
        "ffn_biases": True,
        "sinks": True,
        "router_biases": True,
    },
    "gptj": _GPTJ,
    "granite": _LLAMA,
    "granitemoe": _RMS | _OF_ATTENTION | _experts("num_local_experts", 8, 2),
    "granitemoeshared": _RMS | _OF_ATTENTION | _experts("num_local_experts", 8, 2) | {
        "shared_experts": Quotient(Count("shared_intermediate_size", 0), Count("intermediate_size")),
    },
    "hunyuan_v1_dense": _RMS | _OF_ATTENTION | {"qk_norm": "head"},
    "internlm": _RMS | _biases(Flag("bias", True), Flag("bias", True)),
    "internlm2": _RMS | _biases(Flag("bias", True), Flag("bias", True)),
    "kimi_k2": _DEEPSEEK | {"router_biases": True},
    "llama4_text": _RMS | _OF_ATTENTION | _kv(8) | _head(128) | _experts("num_local_experts", 16, 1) | {
        "ffn": Count("intermediate_size_mlp"),
        "expert_ffn": Count("intermediate_size"),
        "shared_experts": 1,
        ONLY: {"interleave_moe_layer_step": 1},
    },
    "minicpm": _RMS | _TIED,
    "minicpm3": _LATENT | _TIED,
    "minimax_m2": _RMS | _kv(8) | _head(128) | _experts("num_local_experts|num_experts", 256, 8) | {
        "qk_norm": "heads",
        "router_biases": True,
    },
    "ministral": _MISTRAL,
    "mistral": _MISTRAL,
    "mixtral": _MISTRAL | _experts("num_local_experts", 8, 2),
    "mpt": _MOSAIC | _ALIBI | _TIED | _NONE | {
        ONLY: {"expansion_ratio": 4, "no_bias": True},
    },
    "nemotron": _LLAMA | {"gated": False, "norm": "layer"},
    "olmo": _RMS | _OF_ATTENTION | {"norm": "none"},
    "olmo2": _OLMO2,
    "olmo3": _OLMO2,
    "olmoe": _OLMO2 | _experts("num_experts|num_local_experts", 64, 8),
    "opt": _USUAL | _TIED | _biases(*3 * [Flag("enable_bias", True)]) | {
        "ffn": Count("ffn_dim"),
        "position_rows": Sum(_SEQUENCE, 2),
        "norm": Flag("layer_norm_elementwise_affine", True, "layer", "none"),
        "final_norm": Flag("do_layer_norm_before", True, Flag("_remove_final_layer_norm", False, False, True), False),
        "dropout": Rate("dropout", 0.1),
        ONLY: {"word_embed_proj_dim": Count("hidden_size")},
    },
    "persimmon": _USUAL | _ROTARY | _UNTIED | _ALL | {"qk_norm": Flag("qk_layernorm", True, "head", "none")},
    "phi": _USUAL | _ROTARY | _UNTIED | _ALL | _kv(None) | {
        "layer_norms": 1,
        "qk_norm": Flag("qk_layernorm", False, "head", "none"),
        "output_biases": True,
    },
    "phi3": _RMS,
    "phimoe": _RMS | _OF_ATTENTION | _kv(8) | _experts("num_local_experts", 16, 2) | {
        "norm": "layer",
        "output_biases": Flag("lm_head_bias", False),
    },
    # Its width counts both matrices of the gate.
    "qwen": _RMS | {
        "sequence": Count("seq_length"),
        "head_width": Count("kv_channels"),
        "ffn": Quotient(Count("intermediate_size"), 2),
        "qkv": True,
        ONLY: {"no_bias": True},
    },
    "qwen2": _RMS | _kv(32) | {"qkv": True},
    "qwen2_moe": _RMS | _kv(16) | _SPARSE | _experts("num_experts|num_local_experts", 60, 4) | {
        "qkv": Flag("qkv_bias", True),
        "shared_experts": Quotient(Count("shared_expert_intermediate_size"), Count("moe_intermediate_size")),
        "shared_gate": True,
    },
    "qwen3": _RMS | _OF_ATTENTION | _kv(32) | _head(128) | {"qk_norm": "head"},
    "qwen3_moe": _RMS | _OF_ATTENTION | _kv(4) | _SPARSE | _experts("num_experts|num_local_experts", 128, 8) | {
        "qk_norm": "head",
    },
    "roberta": _ROBERTA,
    "seed_oss": _RMS | _kv(8) | _head(128) | _biases(Flag("attention_bias", True), Flag("attention_out_bias", False), _MLP),
    "smollm3": _LLAMA | _TIED | _kv(4),
    "stablelm": _USUAL | _ROTARY | _UNTIED | _kv(32) | _biases(Flag("use_qkv_bias", False), False) | {
        "gated": True,
        "norm": "layer",
        "layer_norms": Flag("use_parallel_residual", False, 1, 2),
        "qk_norm": Flag("qk_layernorm", False, "heads", "none"),
    },
    "starcoder2": _USUAL | _ROTARY | _TIED | _kv(2) | _biases(*3 * [Flag("use_bias", True)]) | {
        "norm": "layer",
        "dropout": Rate("residual_dropout", 0.0),
    },
    "vaultgemma": _GEMMA | _kv(4),
    "xlm-roberta": _ROBERTA,
    "youtu": _LATENT | _TIED,
}  # fmt: skip
