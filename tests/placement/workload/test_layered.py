"""Published sizes of networks that are no stack of equal layers."""

import pytest

from lightfabric.placement.workload.layered import CRITEO_ROWS, dlrm, resnet50, total, transformer_big, vgg16


def test_resnet_50_has_the_weights_and_products_of_torchvision():
    """torchvision.models.ResNet50_Weights.IMAGENET1K_V1: 25 557 032 parameters, 4.089 G multiplications."""
    assert total(resnet50()).parameters == 25_557_032
    assert total(resnet50()).forward_flops / 2e9 == pytest.approx(4.089, abs=0.0005)


def test_resnet_50_has_the_activations_of_radosavovic_2020():
    """Designing Network Design Spaces, table 4: 11.1 M outputs of convolutions."""
    convolutions = [layer for layer in resnet50(value_bytes=2) if layer.name != "classifier"]
    assert total(convolutions).activation_bytes / 2e6 == pytest.approx(11.1, abs=0.05)
    assert len(convolutions) == 53


def test_vgg_16_has_the_weights_and_products_of_torchvision():
    """torchvision.models.VGG16_Weights.IMAGENET1K_V1: 138 357 544 parameters, 15.47 G multiplications."""
    assert total(vgg16()).parameters == 138_357_544
    assert total(vgg16()).forward_flops / 2e9 == pytest.approx(15.47, abs=0.005)
    assert len(vgg16()) == 16


def test_transformer_big_has_the_weights_of_vaswani_2017():
    """Table 3: 213 M; the vocabulary is "about 37000"."""
    assert total(transformer_big()).parameters == pytest.approx(213e6, rel=0.01)


def test_flops_of_transformer_big_are_two_per_parameter_and_token_and_the_attention_core():
    h, s = 1024, 256
    cross_and_self = 18 * 4 * s * s * h
    weights = 37000 * h + 6 * (4 * h * h + 8 * h * h) + 6 * (8 * h * h + 8 * h * h)
    assert total(transformer_big(s)).forward_flops == 2 * s * weights + cross_and_self


def test_the_tables_of_mlperf_s_dlrm_take_100_gigabytes():
    """Desai 2022, abstract: 100 GB of embeddings in fp32."""
    tables = [layer for layer in dlrm() if layer.name.startswith("table")]
    assert 4 * total(tables).parameters / 1e9 == pytest.approx(100, rel=0.05)
    assert len(tables) == 26


def test_the_top_perceptron_of_mlperf_s_dlrm_takes_479_values():
    """MLPerf's reference names its widths 479-1024-1024-512-256-1, the bottom's 13-512-256-128."""
    layers = {layer.name: layer for layer in dlrm()}
    assert layers["top.0"].parameters == 480 * 1024
    perceptrons = [layer.parameters for name, layer in layers.items() if name.startswith(("top", "bottom"))]
    widths = [(13, 512), (512, 256), (256, 128), (479, 1024), (1024, 1024), (1024, 512), (512, 256), (256, 1)]
    assert perceptrons == [(inputs + 1) * outputs for inputs, outputs in widths]


def test_a_sample_exchanges_a_vector_per_table():
    assert total(dlrm(value_bytes=2)).exchange_bytes == len(CRITEO_ROWS) * 128 * 2
