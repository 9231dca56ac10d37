"""The config.json of published models, written here from their pages on Hugging Face, and of none."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.flows.format.huggingface import MAX_BYTES, load_model
from lightfabric.flows.format.huggingface_family import FAMILIES
from lightfabric.flows.report import InputError
from lightfabric.placement.workload.parameter import parameters
from lightfabric.placement.workload.preset import MODELS

LLAMA3_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "attention_dropout": 0.0,
    "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 8192,
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_scaling": None, "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}  # fmt: skip
MIXTRAL_8X7B = {
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "attention_dropout": 0.0, "hidden_size": 4096,
    "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32, "num_experts_per_tok": 2,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "sliding_window": None,
    "tie_word_embeddings": False, "vocab_size": 32000,
}  # fmt: skip
DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "attention_bias": False,
    "first_k_dense_replace": 3, "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512,
    "max_position_embeddings": 163840, "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8,
    "n_routed_experts": 256, "n_shared_experts": 1, "num_attention_heads": 128, "num_experts_per_tok": 8,
    "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "quantization_config": {"fmt": "e4m3", "quant_method": "fp8"},
    "tie_word_embeddings": False, "v_head_dim": 128, "vocab_size": 129280,
}  # fmt: skip
GPT2 = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new", "attn_pdrop": 0.1,
    "embd_pdrop": 0.1, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
    "resid_pdrop": 0.1, "vocab_size": 50257,
}  # fmt: skip
BLOOM = {
    "architectures": ["BloomForCausalLM"], "model_type": "bloom", "attention_dropout": 0.0, "hidden_dropout": 0.0,
    "n_embed": 14336, "n_layer": 70, "num_attention_heads": 112, "seq_length": 2048, "vocab_size": 250880,
}  # fmt: skip
BERT_LARGE = {
    "model_type": "bert", "attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1, "hidden_size": 1024,
    "intermediate_size": 4096, "max_position_embeddings": 512, "num_attention_heads": 16, "num_hidden_layers": 24,
    "type_vocab_size": 2, "vocab_size": 30522,
}  # fmt: skip
QWEN2_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 131072,
    "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "tie_word_embeddings": False,
    "vocab_size": 152064,
}  # fmt: skip
GPT_NEOX_20B = {
    "model_type": "gpt_neox", "hidden_size": 6144, "intermediate_size": 24576, "max_position_embeddings": 2048,
    "num_attention_heads": 64, "num_hidden_layers": 44, "rotary_pct": 0.25, "tie_word_embeddings": False,
    "vocab_size": 50432,
}  # fmt: skip
MISTRAL_7B = {
    "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "sliding_window": 4096,
    "tie_word_embeddings": False, "vocab_size": 32000,
}  # fmt: skip
MISTRAL_NEMO = MISTRAL_7B | {"hidden_size": 5120, "head_dim": 128, "num_hidden_layers": 40, "vocab_size": 131072}
OPT_6_7B = {
    "model_type": "opt", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "ffn_dim": 16384,
    "vocab_size": 50272, "max_position_embeddings": 2048, "word_embed_proj_dim": 4096, "do_layer_norm_before": True,
}  # fmt: skip
FALCON_7B = {
    "model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "vocab_size": 65024,
    "multi_query": True, "parallel_attn": True, "bias": False, "alibi": False, "new_decoder_architecture": False,
    "max_position_embeddings": 2048,
}  # fmt: skip
GPTJ_6B = {"model_type": "gptj", "n_embd": 4096, "n_layer": 28, "n_head": 16, "n_positions": 2048, "vocab_size": 50400}
ROBERTA = BERT_LARGE | {
    "model_type": "roberta", "hidden_size": 768, "intermediate_size": 3072, "max_position_embeddings": 514,
    "num_attention_heads": 12, "num_hidden_layers": 12, "type_vocab_size": 1, "vocab_size": 50265,
}  # fmt: skip
DEEPSEEK_V2 = DEEPSEEK_V3 | {
    "model_type": "deepseek_v2", "first_k_dense_replace": 1, "hidden_size": 5120, "intermediate_size": 12288,
    "moe_intermediate_size": 1536, "n_routed_experts": 160, "n_shared_experts": 2, "num_experts_per_tok": 6,
    "num_hidden_layers": 60, "vocab_size": 102400,
}  # fmt: skip
DEEPSEEK_MOE = {
    "model_type": "deepseek", "first_k_dense_replace": 1, "hidden_size": 2048, "intermediate_size": 10944,
    "max_position_embeddings": 4096, "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_routed_experts": 64,
    "n_shared_experts": 2, "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 28,
    "num_key_value_heads": 16, "vocab_size": 102400,
}  # fmt: skip
QWEN_MOE = {
    "model_type": "qwen2_moe", "decoder_sparse_step": 1, "hidden_size": 2048, "intermediate_size": 5632,
    "max_position_embeddings": 8192, "mlp_only_layers": [], "moe_intermediate_size": 1408, "num_attention_heads": 16,
    "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16,
    "shared_expert_intermediate_size": 5632, "vocab_size": 151936,
}  # fmt: skip
DBRX = {
    "model_type": "dbrx", "d_model": 6144, "n_heads": 48, "n_layers": 40, "max_seq_len": 32768, "vocab_size": 100352,
    "attn_config": {"kv_n_heads": 8}, "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
}  # fmt: skip
QWEN_7B = {
    "model_type": "qwen", "hidden_size": 4096, "intermediate_size": 22016, "kv_channels": 128, "no_bias": True,
    "num_attention_heads": 32, "num_hidden_layers": 32, "seq_length": 8192, "vocab_size": 151936,
}  # fmt: skip
CHATGLM3_6B = {
    "model_type": "chatglm", "add_bias_linear": False, "add_qkv_bias": True, "ffn_hidden_size": 13696, "hidden_size": 4096,
    "kv_channels": 128, "multi_query_attention": True, "multi_query_group_num": 2, "num_attention_heads": 32,
    "num_layers": 28, "padded_vocab_size": 65024, "seq_length": 8192,
}  # fmt: skip
INTERNLM2_7B = {
    "model_type": "internlm2", "bias": False, "hidden_size": 4096, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "vocab_size": 92544,
}  # fmt: skip
MINICPM_2B = {
    "model_type": "minicpm", "hidden_size": 2304, "intermediate_size": 5760, "max_position_embeddings": 2048,
    "num_attention_heads": 36, "num_hidden_layers": 40, "vocab_size": 122753,
}  # fmt: skip
BAICHUAN_7B = {
    "model_type": "baichuan", "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096,
    "num_attention_heads": 32, "num_hidden_layers": 32, "vocab_size": 64000,
}  # fmt: skip
HYBRID = {"model_type": "jamba", "hidden_size": 4096, "num_hidden_layers": 32, "attn_layer_period": 8}
COUNTED = json.loads((Path(__file__).parent / "huggingface_counts.json").read_text())
"""Small configs with values at random, and the parameters of what Transformers 5.24 builds from them, counted on its meta
device: causal language models, and encoders with their pooler; with the corrections of routers."""
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "cases" / "hf"
shared = pytest.mark.skipif(not SHARED.exists(), reason="the configs of released models are in ../shared/data/cases")
CONTRADICTION = {"glm-4-9b-0414": 40 * (4096 + 2 * 2 * 128)}
"""Biases of queries, keys and values that the released weights have, while the config there says that there are none."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config.json"


def imported(path, config):
    path.write_text(json.dumps(config))
    return load_model(path)


def said(path, content) -> str:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(InputError) as error:
        load_model(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("config", "preset"),
    [(LLAMA3_8B, "llama3-8b"), (MIXTRAL_8X7B, "mixtral-8x7b"), (GPT2, "gpt2"), (BLOOM, "bloom-176b")],
    ids=["llama", "mixtral", "gpt2", "bloom"],
)
def test_a_config_is_its_preset(path, config, preset):
    model, wanted = imported(path, config), MODELS[preset]
    heads = {"ffn": wanted.ffn, "kv_heads": wanted.kv_heads}
    assert model == wanted
    assert heads == {"ffn": model.ffn, "kv_heads": model.kv_heads}


@pytest.mark.parametrize(("config", "preset"), [(DEEPSEEK_V3, "deepseek-v3"), (BERT_LARGE, "bert-large")])
def test_a_config_has_the_parameters_of_its_preset(path, config, preset):
    model = imported(path, config)
    assert parameters(model) == parameters(MODELS[preset])
    assert model.sequence == config["max_position_embeddings"]


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (QWEN2_7B, 7_615_616_512),  # elements of the safetensors files of Qwen/Qwen2-7B
        (GPT_NEOX_20B, 20_554_567_680),  # Black 2022, section 3
        (MISTRAL_7B, 7_241_732_096),  # of mistralai/Mistral-7B-v0.1
        (MISTRAL_NEMO, 12_247_782_400),  # of mistralai/Mistral-Nemo-Base-2407
        (OPT_6_7B, 6_658_473_984),  # of facebook/opt-6.7b, as all below of the files of the model of that name
        (FALCON_7B, 6_921_720_704),
        (GPTJ_6B, 6_050_882_784),
        (ROBERTA, 124_645_632),
        (DEEPSEEK_V2, 235_741_434_880),
        (DEEPSEEK_MOE, 16_375_728_128),
        (QWEN_MOE, 14_315_784_192),
        (DBRX, 131_596_523_520),
        (QWEN_7B, 7_721_324_544),
        (CHATGLM3_6B, 6_243_584_000),
        (INTERNLM2_7B, 7_737_708_544),
        (MINICPM_2B, 2_724_880_896),
        (BAICHUAN_7B, 7_000_559_616),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_parameters_are_those_of_the_released_weights(path, config, count):
    assert parameters(imported(path, config)) == count


@pytest.mark.parametrize("counted", COUNTED, ids=lambda counted: counted["model_type"])
def test_parameters_are_those_of_what_transformers_builds(path, counted):
    config = {key: counted[key] for key in counted if key != "parameters"}
    assert parameters(imported(path, config)) == counted["parameters"]


@shared
def test_parameters_are_those_of_the_released_models_of_the_shared_cases():
    counts = {name: count for name, count in json.loads((SHARED / "parameters.json").read_text()).items() if count}
    found = {name: parameters(load_model(SHARED / f"{name}.json")) + CONTRADICTION.get(name, 0) for name in counts}
    assert found == counts


def test_keys_that_may_be_left_out_have_the_value_of_the_family(path):
    llama = imported(
        path, {key: LLAMA3_8B[key] for key in LLAMA3_8B if key not in ("num_key_value_heads", "tie_word_embeddings")}
    )
    assert llama.kv_head_count == 32
    assert not llama.tied
    assert imported(path, LLAMA3_8B | {"tie_word_embeddings": True}).tied
    assert imported(path, GPT2 | {"n_inner": None}).ffn_width == 4 * 768
    assert imported(path, GPT2 | {"n_inner": 1000}).ffn_width == 1000
    assert imported(path, GPT2).dropout
    assert not imported(path, GPT2 | {"resid_pdrop": 0}).dropout
    assert imported(path, {key: BLOOM[key] for key in BLOOM if key != "seq_length"}).sequence == 2048
    assert imported(path, DEEPSEEK_V3 | {"q_lora_rank": None}).query_rank is None
    mistral = {key: MISTRAL_7B[key] for key in MISTRAL_7B if key != "num_key_value_heads"}
    assert imported(path, mistral).kv_head_count == 8
    assert imported(path, mistral | {"num_key_value_heads": None}).kv_head_count == 32


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (LLAMA3_8B | {"num_hidden_layers": "32"}, "num_hidden_layers must be a whole number from 1 to 4194304, not '32'"),
        (LLAMA3_8B | {"num_hidden_layers": None}, "num_hidden_layers must be a whole number from 1 to 4194304, not null"),
        (LLAMA3_8B | {"num_hidden_layers": True}, "num_hidden_layers must be a whole number from 1 to 4194304, not true"),
        (LLAMA3_8B | {"num_hidden_layers": 4194304}, "num_hidden_layers must be from 1 to 1048576, not 4194304"),
        (LLAMA3_8B | {"vocab_size": 0}, "vocab_size must be a whole number from 1 to 4194304, not 0"),
        (LLAMA3_8B | {"hidden_size": 4096.0}, "hidden_size must be a whole number from 1 to 4194304, not 4096.0"),
        (LLAMA3_8B | {"num_attention_heads": 33}, "num_attention_heads must be a divisor of hidden (4096), not 33"),
        (LLAMA3_8B | {"num_key_value_heads": 7}, "num_key_value_heads must be a divisor of heads (32), not 7"),
        (LLAMA3_8B | {"tie_word_embeddings": 0}, "tie_word_embeddings must be true or false, not 0"),
        (LLAMA3_8B | {"attention_bias": 1}, "attention_bias must be true or false, not 1"),
        (DEEPSEEK_V3 | {"attention_bias": True}, "attention_bias must be false, not true"),
        (QWEN_MOE | {"shared_expert_intermediate_size": 5000},
         "shared_expert_intermediate_size must be a multiple of moe_intermediate_size (1408), not 5000"),
        (QWEN_MOE | {"mlp_only_layers": [1]}, "mlp_only_layers must be the first layers, [0, 1, ...], not an array"),
        (DBRX | {"ffn_config": {}},
         "ffn_config.ffn_hidden_size must be a whole number from 1 to 4194304, not left out"),
        (DBRX | {"ffn_config": 3}, "ffn_config must be a table, not 3"),
        (QWEN_7B | {"intermediate_size": 22015}, "intermediate_size must be a multiple of 2, not 22015"),
        (OPT_6_7B | {"word_embed_proj_dim": 512}, "word_embed_proj_dim must be 4096, not 512"),
        (
            {"model_type": "gpt2"},
            "n_layer must be a whole number from 1 to 4194304, not left out",
        ),
        (GPT2 | {"resid_pdrop": "no"}, "resid_pdrop must be a number from 0 to 1, not 'no'"),
        (BLOOM | {"n_embed": 14337}, "num_attention_heads must be a divisor of hidden (14337), not 112"),
        (BLOOM | {"seq_length": None}, "seq_length must be a whole number, not null"),
        (MIXTRAL_8X7B | {"num_experts_per_tok": 9}, "num_experts_per_tok must be from 1 to 8, not 9"),
        (DEEPSEEK_V3 | {"first_k_dense_replace": 61}, "first_k_dense_replace must be from 0 to 60, not 61"),
        (DEEPSEEK_V3 | {"moe_layer_freq": 2}, "moe_layer_freq must be 1, not 2"),
        (HYBRID, f"model_type must be one of {', '.join(FAMILIES)}, not 'jamba'"),
        ({"model_type": ["llama"]}, f"model_type must be one of {', '.join(FAMILIES)}, not an array"),
        ({}, f"model_type must be one of {', '.join(FAMILIES)}, not left out"),
        ([], "must be a JSON object, not an array"),
        (b"", "must be JSON, not: Expecting value: line 1 column 1 (char 0)"),
        (b"[" * 100_000, "must be JSON of a few levels, not deeply nested"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_wrong_config_is_refused_in_one_line(path, config, says):
    assert said(path, config) == says


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{", b"\0" * 1000, b'{"model_type": ' + b"9" * 5000 + b"}", b'{"a": "' + b"\n" * 9],
    ids=["utf-16", "zeros", "huge", "lines"],
)  # fmt: skip
def test_what_is_no_json_is_refused(path, content):
    assert "must be " in said(path, content)


def test_a_large_or_absent_file_and_a_folder_are_refused(path):
    with path.open("wb") as file:
        file.truncate(1 << 30)
    for at, says in (
        (path, f"must be a config.json of at most {MAX_BYTES} bytes, not {1 << 30} bytes"),
        (path.parent, "must be a config.json, not a folder"),
        (path.parent / "absent", "must be a config.json that can be read, not: No such file or directory"),
    ):
        with pytest.raises(InputError) as error:
            load_model(at)
        assert str(error.value) == f"{at}: {says}"


VALUES = st.none() | st.booleans() | st.integers(-2, 200) | st.integers() | st.floats() | st.text(max_size=3) | st.just([1])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([LLAMA3_8B, MIXTRAL_8X7B, DEEPSEEK_V3, GPT2, BLOOM, QWEN_MOE, DBRX, FALCON_7B, OPT_6_7B]), st.data())
def test_only_input_errors_escape_when_values_are_exchanged(tmp_path_factory, config, data):
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(config)), VALUES, min_size=1, max_size=3))
    path = tmp_path_factory.getbasetemp() / "exchanged.json"
    path.write_text(json.dumps(config | changed))
    message = "it must be right"
    try:
        assert parameters(load_model(path)) > 0
    except InputError as error:
        message = str(error)
    assert " must be " in message
    assert "\n" not in message
