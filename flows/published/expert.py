"""Tokens on their way to experts, by NCCL and by DeepEP on H800 with a 400 Gb/s NIC per GPU, as ``predict`` times them."""

from dataclasses import replace

import numpy as np

from lightfabric.flows.published.figure import Figure
from lightfabric.flows.run import run_table
from lightfabric.model.spec import DecodeJobSpec, ModelSpec
from lightfabric.placement.cost.calibration import calibration
from lightfabric.placement.cost.output_token import output_token
from lightfabric.placement.cost.step import copies_seconds, different
from lightfabric.placement.plan import Plan

ROW = {
    "model": "deepseek-v3", "system": "DGX-H800", "seq": "4096", "gbs": "15360", "mbs": "1", "dp": "256", "precision": "fp8",
    "next_tokens": "0",
}  # fmt: skip
NCCL = {32: 59, 64: 51, 128: 47}
NORMAL = {8: 153, 16: 43, 32: 58, 64: 51}
"""Counted per node that a token visits, per GPU inside of one."""
SMALL = {16: 118, 32: 155, 64: 173, 128: 192, 256: 194}
SMALL_BEGIN_US, SMALL_BYTES, SMALL_BYTES_PER_S = 42.3, 128 * 7392, 50e9
"""128 tokens in FP8 with scales; the time to begin is fitted to the same five [facts of DeepEP]."""
GROUPS, EXPERTS, NODE_GPUS = 4, 8, 8
DECODE_LAYERS, DECODE_TOKENS, DECODE_HIDDEN, DECODE_COPIES = 61, 32, 7000, 9
"""Each of so many tokens of a GPU goes to 9 others, in a byte per value, and comes back in two [ISCA 2025]."""
DECODE_RATES = {50: (120.96, 14.76), 900: (6.72, 0.82)}
"""GB/s of a GPU: us of a layer's exchanges, ms of a token."""


def _seconds(ranks: int, software: str, bytes_per_s: float = 0.0) -> float:
    """Time of a byte of each token to its experts over so many ranks, on NICs of a rate if it is given."""
    runs = run_table.runs([(f"ep {ranks}", ROW | {"ep": str(ranks), "software": software})])
    network = run_table.network(runs, calibration())
    if bytes_per_s:
        network = replace(network, expert=np.array([bytes_per_s]))
    return float(copies_seconds(runs.cases, network)[0])


def _layer_seconds(gbytes_per_s: float) -> float:
    """Time of one layer's exchanges when a GPU sends all the time: a bound, for it leaves out all else."""
    ranks = 1 + DECODE_COPIES
    model = ModelSpec(
        DECODE_LAYERS, DECODE_HIDDEN, heads=1, sequence=1, vocabulary=1, experts=ranks, experts_per_token=ranks
    )
    job = DecodeJobSpec(model, ranks * DECODE_TOKENS, dispatch_bytes=1, phase="decode", context=1)
    plan = Plan(dp=ranks, tp=1, pp=1, micro_batch=DECODE_TOKENS, ep=ranks)
    return float(output_token(job, plan).exchange_bytes()) / (gbytes_per_s * 1e9)


def _visited(ranks: int) -> float:
    """Mean of the places that a token is counted at: GPUs in a node, else nodes."""
    return different(EXPERTS if ranks == NODE_GPUS else min(ranks // NODE_GPUS, GROUPS), EXPERTS)


def figures() -> list[Figure]:
    """Rates of NCCL's all-to-all and of DeepEP's dispatch, and times of the dispatch of few tokens."""
    return [
        Figure(
            "all-to-all of NCCL over 32, 64, 128 H800, GB/s (DeepSeek-AI, ISCA 2025)",
            "predict, software megatron-core",
            list(NCCL.values()),
            lambda: [EXPERTS / _seconds(ranks, "megatron-core") / 1e9 for ranks in NCCL],
            0.1,
        ),
        Figure(
            "dispatch over 8, 16, 32, 64 H800, GB/s (DeepEP, normal kernels)",
            "predict, software hai-llm",
            list(NORMAL.values()),
            lambda: [_visited(ranks) / _seconds(ranks, "hai-llm") / 1e9 for ranks in NORMAL],
            0.1,
        ),
        Figure(
            "dispatch of 128 tokens over 16, 32, 64, 128, 256 H800, us (DeepEP, low latency)",
            "predict, NICs at 50 GB/s, 42.3 us to begin",
            list(SMALL.values()),
            lambda: [
                SMALL_BEGIN_US + SMALL_BYTES * _seconds(ranks, "megatron-core", SMALL_BYTES_PER_S) * 1e6 for ranks in SMALL
            ],
            0.05,
        ),
        Figure(
            "decode bound of DeepSeek-V3 at 50, 900 GB/s, exchanges of a layer, us (DeepSeek-AI, ISCA 2025)",
            "32 tokens per GPU to 9 others, volume of dispatch and combine",
            [layer for layer, _ in DECODE_RATES.values()],
            lambda: [_layer_seconds(rate) * 1e6 for rate in DECODE_RATES],
            1e-9,
            form=".6g",
        ),
        Figure(
            "the same, per output token of 61 layers in two micro-batches, ms (DeepSeek-AI, ISCA 2025)",
            "twice the layers of the row above; a bound, no prediction",
            [token for _, token in DECODE_RATES.values()],
            lambda: [2 * DECODE_LAYERS * _layer_seconds(rate) * 1e3 for rate in DECODE_RATES],
            1e-3,
        ),
    ]
