"""Published models by name, each with where its shape is from. Tests compare their parameters with the published counts."""

from dataclasses import replace

from lightfabric.model.spec import ModelSpec


def _llama3(layers: int, hidden: int, heads: int, ffn: int) -> ModelSpec:
    """Shape of a Llama 3 with the sequence of its pre-training [Grattafiori 2024, table 3, section 3.4.1]."""
    return ModelSpec(
        layers, hidden, heads, sequence=8192, vocabulary=128256, ffn=ffn, kv_heads=8,
        gated=True, tied=False, positions="rotary", biases="none", dropout=False,
    )  # fmt: skip


def _mixtral(layers: int, hidden: int, heads: int, ffn: int, sequence: int) -> ModelSpec:
    return ModelSpec(
        layers, hidden, heads, sequence=sequence, vocabulary=32000, ffn=ffn, kv_heads=8,
        gated=True, tied=False, positions="rotary", biases="none", dropout=False, experts=8, experts_per_token=2,
    )  # fmt: skip


_DEEPSEEK_V3 = ModelSpec(
    layers=61, hidden=7168, heads=128, sequence=4096, vocabulary=129280, ffn=18432, head_width=128,
    gated=True, tied=False, positions="rotary", biases="none", dropout=False,
    experts=256, experts_per_token=8, expert_ffn=2048, shared_experts=1, dense_layers=3,
    query_rank=1536, kv_rank=512, rope_width=64, value_width=128, router_biases=True,
)  # fmt: skip


# Moonshot AI, "Kimi K2" (2025), table 2, and its config.json: DeepSeek-V3's shape with more experts and fewer heads.
_KIMI_K2 = replace(_DEEPSEEK_V3, heads=64, vocabulary=163840, experts=384, dense_layers=1)


def _qwen3(layers: int, hidden: int, heads: int, ffn: int, expert_ffn: int) -> ModelSpec:
    """Shape of a Qwen3 mixture of experts [Yang 2025, "Qwen3 Technical Report", table 2, and the config.json of each]."""
    return ModelSpec(
        layers, hidden, heads, sequence=4096, vocabulary=151936, ffn=ffn, kv_heads=4, head_width=128,
        gated=True, tied=False, positions="rotary", biases="none", dropout=False, qk_norm="head",
        experts=128, experts_per_token=8, expert_ffn=expert_ffn,
    )  # fmt: skip


def _gpt_oss(layers: int, experts: int) -> ModelSpec:
    """Shape of a gpt-oss [OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card" (2025), and the config.json of each]."""
    return ModelSpec(
        layers, 2880, 64, sequence=4096, vocabulary=201088, ffn=2880, kv_heads=8, head_width=64,
        gated=True, tied=False, positions="rotary", biases="all", norm="rms", dropout=False, sinks=True, router_biases=True,
        experts=experts, experts_per_token=4, expert_ffn=2880,
    )  # fmt: skip


def _nemotron4(layers: int, hidden: int, heads: int) -> ModelSpec:
    """Shape of a Nemotron-4 [Parmar 2024, table 1; Adler 2024, "Nemotron-4 340B", table 1], squared ReLUs, not gated."""
    return ModelSpec(
        layers, hidden, heads, sequence=4096, vocabulary=256000, kv_heads=8,
        tied=False, positions="rotary", biases="none", norm="layer", dropout=False,
    )  # fmt: skip


def _bert(layers: int, hidden: int, heads: int) -> ModelSpec:
    return ModelSpec(
        layers, hidden, heads, sequence=512, vocabulary=30522,
        embedding_norm=True, final_norm=False, token_types=2, pooler=True,
    )  # fmt: skip


MODELS = {
    # A. Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), table 2; the paper's counts are
    # wrong and the released weights right.
    "gpt2": ModelSpec(12, 768, 12, 1024, 50257),
    "gpt2-medium": ModelSpec(24, 1024, 16, 1024, 50257),
    "gpt2-large": ModelSpec(36, 1280, 20, 1024, 50257),
    "gpt2-xl": ModelSpec(48, 1600, 25, 1024, 50257),
    # D. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM" (SC 2021),
    # table 1: GPT-3 with Megatron's vocabulary, padded to 51200.
    "gpt3-175b": ModelSpec(96, 12288, 96, 2048, 51200),
    "megatron-1t": ModelSpec(128, 25600, 160, 2048, 51200),
    # S. Smith et al., "Using DeepSpeed and Megatron to Train Megatron-Turing NLG 530B" (2022), section 2.3.
    "turing-530b": ModelSpec(105, 20480, 128, 2048, 51200),
    # BigScience, "BLOOM: A 176B-Parameter Open-Access Multilingual Language Model" (2022), table 3; ALiBi has no parameters.
    "bloom-176b": ModelSpec(70, 14336, 112, 2048, 250880, positions="alibi", dropout=False, embedding_norm=True),
    "llama3-8b": _llama3(32, 4096, 32, 14336),
    "llama3-70b": _llama3(80, 8192, 64, 28672),
    "llama3-405b": _llama3(126, 16384, 128, 53248),
    # A. Jiang et al., "Mixtral of Experts" (2024), table 1, and Mistral's config.json of Mixtral-8x22B-v0.1.
    "mixtral-8x7b": _mixtral(32, 4096, 32, 14336, sequence=32768),
    "mixtral-8x22b": _mixtral(56, 6144, 48, 16384, sequence=65536),
    # DeepSeek-AI, "DeepSeek-V3 Technical Report" (2024), section 4.2; without the module that predicts a second token.
    "deepseek-v3": _DEEPSEEK_V3,
    "kimi-k2": _KIMI_K2,
    "qwen3-30b-a3b": _qwen3(48, 2048, 32, 6144, 768),
    "qwen3-235b-a22b": _qwen3(94, 4096, 64, 12288, 1536),
    "gpt-oss-20b": _gpt_oss(24, 32),
    "gpt-oss-120b": _gpt_oss(36, 128),
    "nemotron-4-15b": _nemotron4(32, 6144, 48),
    "nemotron-4-340b": _nemotron4(96, 18432, 96),
    # J. Devlin et al., "BERT" (2018), section 3: encoders have a decoder's shape. Without the heads of pre-training.
    "bert-base": _bert(12, 768, 12),
    "bert-large": _bert(24, 1024, 16),
}  # fmt: skip
