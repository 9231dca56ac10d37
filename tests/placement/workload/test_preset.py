"""Parameters of published models: the counts are of the released weights, as the model hubs and papers give them."""

from dataclasses import replace

import pytest

from lightfabric.placement.workload.parameter import parameters
from lightfabric.placement.workload.preset import MODELS

EXACT = {
    # Elements of the tensors in the safetensors files of openai-community/gpt2*, meta-llama/Meta-Llama-3-*,
    # meta-llama/Llama-3.1-405B, mistralai/Mixtral-8x7B-v0.1, mistral-community/Mixtral-8x22B-v0.1 on Hugging Face.
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3-405b": 405_853_388_800,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_620_634_112,
    # The same of bigscience/bloom, deepseek-ai/DeepSeek-V3 without the module that predicts a second token, and
    # google-bert/bert-*-uncased without the heads of pre-training.
    "bloom-176b": 176_247_271_424,
    "deepseek-v3": 671_026_419_200,
    # The same of moonshotai/Kimi-K2-Base, Qwen/Qwen3-30B-A3B and -235B-A22B, openai/gpt-oss-20b and -120b in 16 bits.
    "kimi-k2": 1_026_408_232_448,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
}


@pytest.mark.parametrize("name", EXACT)
def test_parameters_are_those_of_the_released_weights(name):
    assert parameters(MODELS[name]) == EXACT[name]


@pytest.mark.parametrize(
    ("name", "billions", "within"),
    [
        ("gpt3-175b", 174.6, 0.05),  # Narayanan 2021, table 1
        ("megatron-1t", 1008.0, 0.05),  # the same
        ("turing-530b", 529.6, 0.05),  # Narayanan 2021, table 2
        ("nemotron-4-15b", 15.6, 0.05),  # Parmar 2024, section 2: 3.2 of embeddings, 12.5 others
        ("nemotron-4-340b", 341.0, 0.05),  # Adler 2024, section 2.1: 9.4 of embeddings, 331.6 others
        ("bert-large", 0.340, 0.007),  # Devlin 2018, section 3
        ("bert-base", 0.110, 0.002),  # the same
    ],
)
def test_parameters_are_those_of_the_papers(name, billions, within):
    assert parameters(MODELS[name]) / 1e9 == pytest.approx(billions, abs=within)


def active_parameters(model):
    """Of a model with as many experts as a token goes to, and the router's rows of the others."""
    if not model.experts:
        return parameters(model)
    rows = (model.layers - model.dense_layers) * (model.experts - model.experts_per_token)
    return parameters(replace(model, experts=model.experts_per_token)) + rows * model.hidden


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("mixtral-8x7b", 12.88),  # Mistral's "12.9B": mistral.ai/news/mixtral-of-experts
        ("mixtral-8x22b", 39.15),  # Mistral's "39B": mistral.ai/news/mixtral-8x22b
        ("gpt-oss-120b", 5.71),  # model card: 5.13, the embedding's 0.58 left out
        ("gpt-oss-20b", 4.19),  # the same, 3.61
        ("deepseek-v3", 37.55),  # "37B" of the report, section 1
        ("llama3-8b", 8.03),
    ],
)
def test_active_parameters_are_those_of_the_papers(name, billions):
    assert active_parameters(MODELS[name]) / 1e9 == pytest.approx(billions, abs=0.005)


def test_active_parameters_of_deepseek_v3_without_the_input_embedding_are_those_of_its_weight_notes():
    """README_WEIGHTS.md says 36.7 B, with 0.9 B of the output layer."""
    model = MODELS["deepseek-v3"]
    assert (active_parameters(model) - model.vocabulary * model.hidden) / 1e9 == pytest.approx(36.7, abs=0.1)
