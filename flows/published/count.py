"""Counts that must be the same to the digit: parameters of released weights, codes of standards, bounds of assignment."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from lightfabric.flows.format import qaplib
from lightfabric.flows.published.figure import DATA, Figure
from lightfabric.model import codec
from lightfabric.model.spec import JobSpec
from lightfabric.placement.plan import Plan
from lightfabric.placement.qap.bound import gilmore_lawler, projection
from lightfabric.placement.qap.solve import solve
from lightfabric.placement.workload.call import transformer_calls
from lightfabric.placement.workload.layered import resnet50, total
from lightfabric.placement.workload.parameter import parameters
from lightfabric.placement.workload.preset import MODELS

WEIGHTS = {
    "llama3-405b": 405_853_388_800,
    "mixtral-8x22b": 140_620_634_112,
    "gpt2-xl": 1_557_611_200,
    "deepseek-v3": 671_026_419_200,
}
"""Elements of the tensors in the safetensors files of meta-llama/Llama-3.1-405B, mistral-community/Mixtral-8x22B-v0.1,
openai-community/gpt2-xl, deepseek-ai/DeepSeek-V3 without the module that predicts a second token, on Hugging Face."""
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter")
BOUNDS = {"nug12": (493, 472), "nug30": (4539, 5266)}
QAPLIB = DATA / "qaplib"
QAP_ITERATIONS = 100_000


def _bounds() -> list[int]:
    found = list[int]()
    for name in BOUNDS:
        instance = qaplib.read(QAPLIB / f"{name}.dat")
        a, b = instance.flow.astype(float), instance.distance.astype(float)
        found += [round(gilmore_lawler(b, a)), ceil(projection(a, b))]
    return found


def _solved() -> list[float]:
    instances = [qaplib.read(QAPLIB / f"{name}.dat") for name in BOUNDS]
    return [solve(each.flow, each.distance, iterations=QAP_ITERATIONS).value for each in instances]


def _scrambled() -> Sequence[int]:
    """The second block of two that are scrambled from state 0."""
    state, _ = codec.scramble(0, 0x1E)
    return [codec.scramble(state, 0x0706050403020178)[1]]


def figures() -> list[Figure]:
    """All of them are equal, to the digits published."""
    return [
        Figure(
            "parameters of Llama 3 405B, Mixtral 8x22B, GPT-2 XL, DeepSeek-V3 (released weights)",
            "presets of [job.model]",
            list(WEIGHTS.values()),
            lambda: [parameters(MODELS[name]) for name in WEIGHTS],
            0,
            "d",
        ),
        Figure(
            "Llama-3.1-8B on 8 A100, all-reduce, all-gather, reduce-scatter of rank 0 per step, GB (CCL-Bench 2026)",
            "place --json",
            [13.0192, 2.00777, 16.0621],
            _collectives_gb,
            5e-6,
            ".6g",
        ),
        Figure("ResNet-50, parameters (torchvision)", 'network = "resnet-50"', [25_557_032], _resnet, 0, "d"),
        Figure(
            "Gilmore-Lawler and projection bounds of nug12, nug30 (Hadley, Rendl, Wolkowicz 1992)",
            "placement/qap/bound.py",
            [bound for pair in BOUNDS.values() for bound in pair],
            _bounds,
            0,
            "d",
            QAPLIB,
        ),
        Figure("nug12, nug30, least cost (QAPLIB)", "qap FILE", [578, 6124], _solved, 0, "d", QAPLIB),
        Figure(
            'CRC-32C of "123456789" (RFC 3720)',
            "model/codec.py",
            [0xE3069283],
            lambda: [codec.CRCS["crc32c"].compute(b"123456789")],
            0,
            "X",
        ),
        Figure(
            "64b/66b scrambler, second block from state 0 (IEEE 802.3 clause 49)",
            "model/codec.py",
            [0x6426B90403058178],
            _scrambled,
            0,
            "X",
        ),
    ]


def _collectives_gb() -> list[float]:
    """Of 8 A100 with dp 4 and tp 2: 32 sequences of 1024 tokens, all recomputed, layer norms, the distributed optimiser."""
    model = replace(MODELS["llama3-8b"], sequence=1024, norm="layer")
    kinds = transformer_calls(JobSpec(model, batch=32, sequence_parallel=False), Plan(4, 2, 1, 8, "full", zero=1))
    calls = next(kind.calls for kind in kinds if 0 in kind.ranks)
    return [sum(call.size_bytes for call in calls if call.collective == name) / 1e9 for name in COLLECTIVES]


def _resnet() -> list[int]:
    return [total(resnet50()).parameters]
