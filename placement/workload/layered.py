"""Models that are no stack of equal layers: convolutional networks, an encoder-decoder, a recommender, layer by layer.

Each is a list of ``Layer`` built from its architecture. A multiplication and an addition are two flops; norms,
activations and pooling count no flops. ``value_bytes`` is the size of an activation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Layer:
    """A layer per sample: ``activation_bytes`` are the outputs of its products, which the backward pass reads.

    ``exchange_bytes`` go from the owner of an embedding table to the owner of the sample, in an all-to-all if tables are
    spread over GPUs. Where GPUs split each product by output channels, all but ``split_bytes`` of the outputs are needed
    whole, and are gathered in so many ``gathers``.
    """

    name: str
    parameters: int
    forward_flops: int
    activation_bytes: int
    exchange_bytes: int = 0
    split_bytes: int = 0
    gathers: int = 1

    @property
    def gathered_bytes(self) -> int:
        """Outputs that the GPUs of a layer gather."""
        return self.activation_bytes - self.split_bytes


def _convolution(name: str, size: int, channels: tuple[int, int], kernel: int, vectors: int, value_bytes: int) -> Layer:
    """A kernel x kernel convolution to ``size`` x ``size`` outputs; ``vectors`` per channel: a bias, or a norm's two."""
    weights = kernel**2 * channels[0] * channels[1]
    outputs = size**2 * channels[1]
    return Layer(name, weights + vectors * channels[1], 2 * size**2 * weights, outputs * value_bytes)


def _linear(name: str, width: int, outputs: int, value_bytes: int) -> Layer:
    return Layer(name, (width + 1) * outputs, 2 * width * outputs, outputs * value_bytes)


def _linears(name: str, widths: Sequence[int], value_bytes: int) -> list[Layer]:
    return [_linear(f"{name}.{index}", *pair, value_bytes) for index, pair in enumerate(pairwise(widths))]


def resnet50(value_bytes: int = 4) -> list[Layer]:
    """ResNet-50 on images of 224 x 224 [He 2015, table 1], the stride in a bottleneck's 3 x 3 (torchvision's, "v1.5")."""
    stem = _convolution("stem", 112, (3, 64), 7, 2, value_bytes)
    body = _bottlenecks(value_bytes)
    return [stem, *body, _linear("classifier", 2048, 1000, value_bytes)]


def _bottlenecks(value_bytes: int) -> Iterator[Layer]:
    size, channels = 56, 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(blocks):
            name, before = f"stage{stage + 1}.{block}", size
            # Only the 3 x 3 convolution of a stage's first block halves the image; the product before it has the larger one.
            size = size // 2 if stage > 0 and block == 0 else size
            yield _convolution(f"{name}.reduce", before, (channels, width), 1, 2, value_bytes)
            yield _convolution(f"{name}.conv", size, (width, width), 3, 2, value_bytes)
            yield _convolution(f"{name}.expand", size, (width, 4 * width), 1, 2, value_bytes)
            if block == 0:
                yield _convolution(f"{name}.shortcut", size, (channels, 4 * width), 1, 2, value_bytes)
            channels = 4 * width


def vgg16(value_bytes: int = 4) -> list[Layer]:
    """VGG-16 on images of 224 x 224 [Simonyan 2014, table 1, D]."""
    layers: list[Layer] = []
    channels = 3
    for stage, (count, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))):
        for index in range(count):
            name = f"stage{stage + 1}.{index}"
            layers.append(_convolution(name, 224 >> stage, (channels, width), 3, 1, value_bytes))
            channels = width
    return layers + _linears("classifier", (7 * 7 * 512, 4096, 4096, 1000), value_bytes)


def transformer_big(tokens: int = 256, value_bytes: int = 4) -> list[Layer]:
    """The big encoder-decoder [Vaswani 2017, table 3], ``tokens`` on either side; one embedding for both and the output.

    As in the authors' code attention has no biases; positions are sinusoids.
    """
    h, f, heads, vocabulary = 1024, 4096, 16, 37000
    # An embedding split by words, as the output's needs, sums rows in place of gathering them: as many bytes.
    words = Layer("embedding", vocabulary * h, 0, 2 * tokens * h * value_bytes, gathers=2)
    # Heads stay where they are: the core's result is the first that is needed whole, the output the second.
    inside = tokens * (3 * h + heads * tokens) * value_bytes
    outputs = inside + 2 * tokens * h * value_bytes
    attention = (4 * h * h + 2 * h, 8 * tokens * h * h + 4 * tokens**2 * h, outputs, 0, inside, 2)
    ffn = (2 * h * f + f + 3 * h, 4 * tokens * h * f, tokens * (f + h) * value_bytes, 0, 0, 2)
    logits = Layer("output", 0, 2 * tokens * h * vocabulary, tokens * vocabulary * value_bytes)
    encoder = [("attention", attention), ("ffn", ffn)]
    decoder = [("attention", attention), ("cross", attention), ("ffn", ffn)]
    stacks = [
        Layer(f"{side}.{index}.{name}", *shape)
        for side, blocks in (("encoder", encoder), ("decoder", decoder))
        for index in range(6)
        for name, shape in blocks
    ]
    return [words, *stacks, logits]


CRITEO_ROWS = (
    39884406, 39043, 17289, 7420, 20263, 3, 7120, 1543, 63, 38532951, 2953546, 403346, 10, 2208, 11938, 155, 4, 976, 14,
    39979771, 25641295, 39664984, 585935, 12972, 108, 36,
)  # fmt: skip
"""Rows of the 26 tables of Criteo 1TB, indices taken modulo 40 million [MLPerf training v0.7, DLRM reference]."""


def dlrm(
    rows: Sequence[int] = CRITEO_ROWS,
    width: int = 128,
    bottom: Sequence[int] = (13, 512, 256),
    top: Sequence[int] = (1024, 1024, 512, 256, 1),
    value_bytes: int = 4,
) -> list[Layer]:
    """A recommender [Naumov 2019], MLPerf's by default: tables of ``width`` values, one row of each per sample.

    The vectors of all tables and of the bottom perceptron are multiplied pairwise; the products and the latter go into
    the top perceptron.
    """
    looked_up = width * value_bytes
    tables = [Layer(f"table.{index}", count * width, 0, looked_up, looked_up) for index, count in enumerate(rows)]
    # The vector of the bottom perceptron is one more beside those of the tables.
    pairs = (len(rows) + 1) * len(rows) // 2
    interaction = Layer("interaction", 0, 2 * pairs * width, (pairs + width) * value_bytes)
    below = _linears("bottom", (*bottom, width), value_bytes)
    return [*tables, *below, interaction, *_linears("top", (pairs + width, *top), value_bytes)]


def total(layers: Sequence[Layer]) -> Layer:
    """All layers as one, named "total".

    Examples:
        >>> total(vgg16()).parameters
        138357544

    """
    names = ("parameters", "forward_flops", "activation_bytes", "exchange_bytes", "split_bytes", "gathers")
    return Layer("total", *(sum(getattr(layer, name) for layer in layers) for name in names))
