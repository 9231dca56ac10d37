"""An accelerator is a GPU as the cost model sees it; some have a name."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lightfabric.model.spec.require import FORBID, SpecError, require, require_between, require_name, require_positive

Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4"]
_NARROW: dict[str, str] = {"fp8": "fp8", "mxfp8": "fp8", "nvfp4": "nvfp4"}
"""Precisions below 16 bits hold for matrix products only: by whose rate those go. MX blocks are as fast as plain FP8."""


@dataclass(frozen=True)
class AcceleratorSpec:
    """Describes a GPU as the cost model sees it: dense peak rates, memory and memory bandwidth.

    ``matmul_fraction`` of a peak is the highest rate that large matrix products were seen to reach, ``fp8_matmul_fraction``
    that of products of 8 bits, ``nvfp4_matmul_fraction`` of 4, the same as of more bits if left out. Each of
    ``multiprocessors`` works off one tile of a product at a time; 0 stands for so many that none is ever idle.
    ``memory_reserve_share`` of the memory is kept for what is there beside the job's tensors, CUDA's context, buffers of
    NCCL's groups and fragments: some 3 of 80 GiB.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    memory_gib: float
    memory_gbytes_per_s: float
    fp16_tflops: float
    bf16_tflops: float
    fp32_tflops: float
    tf32_tflops: float | None = None
    fp8_tflops: float | None = None
    matmul_fraction: float = 1.0
    multiprocessors: int = 0
    nvfp4_tflops: float | None = None
    fp8_matmul_fraction: float | None = None
    nvfp4_matmul_fraction: float | None = None
    memory_reserve_share: float = 0.04

    def __post_init__(self) -> None:
        require_name(self)
        require_positive(self, "memory_gib", "memory_gbytes_per_s", "fp16_tflops", "bf16_tflops", "fp32_tflops")
        for name in ("matmul_fraction", "fp8_matmul_fraction", "nvfp4_matmul_fraction"):
            fraction = getattr(self, name)
            require(self, name, fraction is None or 0 < fraction <= 1, "above 0 and at most 1")
        require(self, "memory_reserve_share", 0 <= self.memory_reserve_share < 1, "at least 0 and below 1")
        require_between(self, 0, 1 << 16, "multiprocessors")
        for name in ("tf32_tflops", "fp8_tflops", "nvfp4_tflops"):
            if getattr(self, name) is not None:
                require_positive(self, name)

    def peak_flops(self, precision: Precision) -> float:
        """Give the peak rate in flop/s; SpecError if the accelerator does not have that precision."""
        name = f"{_NARROW.get(precision, precision)}_tflops"
        tflops = getattr(self, name)
        if tflops is None:
            raise SpecError("AcceleratorSpec", name, f"given for a job in {precision}", "left out")
        return tflops * 1e12

    def matmul_flops(self, precision: Precision) -> float:
        """Give the highest rate in flop/s that large products reach; SpecError as ``peak_flops``."""
        fp8 = self.fp8_matmul_fraction or self.matmul_fraction
        fractions = {"fp8": fp8, "nvfp4": self.nvfp4_matmul_fraction or fp8}
        return self.peak_flops(precision) * fractions.get(_NARROW.get(precision, precision), self.matmul_fraction)


def _nvidia(name: str, sheet: tuple[float, ...], reached: tuple[float, ...], multiprocessors: int) -> AcceleratorSpec:
    """GiB, GB/s, and Tflop/s in fp16 or bf16, fp32, fp8 and nvfp4, of which 16, 8 and 4 bits ``reached`` so many."""
    memory_gib, memory_gbytes_per_s, half, single, *narrow = sheet
    fp8, nvfp4 = (*narrow, None, None)[:2]
    pairs = zip((half, fp8, nvfp4), (*reached, 0.0)[:3], strict=True)
    fractions = [round(rate / peak, 3) if peak and rate else None for peak, rate in pairs]
    return AcceleratorSpec(
        name, memory_gib, memory_gbytes_per_s, half, half, single, half / 2, fp8,
        fractions[0] or 1.0, multiprocessors, nvfp4, fractions[1], fractions[2],
    )  # fmt: skip


# Dense rates and memory are those of data sheets: NVIDIA A100 40GB and 80GB SXM, H100 SXM, H200 SXM, HGX B200 and B300,
# GB200 and GB300 NVL72; an H800 is an H100 with fewer NVLinks [DeepSeek-AI, "Insights into DeepSeek-V3" (ISCA 2025), 4.1];
# AMD MI300X; Google Cloud, "TPU v4", "v5p", "v6e". Reached: "Maximum Achievable Matmul FLOPS comparison table" [Bekman,
# Machine Learning Engineering Open Book], of GB300 that of GB200. The H100's 794.5 in bf16 there are of one shape and a cool
# chip; under load, on normal values in the shapes of language models, its power limit leaves 720; an MI300X reaches 620, and
# 990 in fp8 [Patel et al., "MI300X vs H100 vs H200 Benchmark Part 1: Training", SemiAnalysis 2024].
# Of a B200 and a GB200 0.8 of the best shape's rate is left under load, of 0.7 to 1 that power limits leave: what Llama 3 8B
# and 70B in fp8 and mxfp8 reach on them [NVIDIA, Megatron-Bridge at 067f987]; a GB300, of more power, reaches all of it.
# In nvfp4 layers of a 5B model on a B300 run 3.48 times as fast as in bf16, casts apart, 3.55 in a later version [NVIDIA,
# "How to Optimize Transformer-Based Models for Low-Precision Training"; Transformer Engine, "GEMM Speedups Across
# Precisions"]; a GB300 reaches that share of its peak, too, and a B200 and a GB200 that multiple of their bf16.
_LOADED, _NVFP4 = 0.8, 3.5
_HOPPER = (989.4, 66.9, 1978.9), (720.0, 1402.6), 132
_NAMED = (
    _nvidia("a100", (80.0, 2039.0, 312.0, 19.5), (271.2, 0.0), 108),
    _nvidia("a100-40gb", (40.0, 1555.0, 312.0, 19.5), (271.2, 0.0), 108),
    _nvidia("h100", (80.0, 3350.0, *_HOPPER[0]), *_HOPPER[1:]),
    _nvidia("h800", (80.0, 3350.0, *_HOPPER[0]), *_HOPPER[1:]),
    _nvidia("h200", (141.0, 4800.0, *_HOPPER[0]), *_HOPPER[1:]),
    _nvidia(
        "b200",
        (180.0, 8000.0, 2250.0, 80.0, 4500.0, 9000.0),
        (_LOADED * 1745.0, _LOADED * 3432.5, _LOADED * _NVFP4 * 1745.0),
        148,
    ),
    _nvidia(
        "gb200",
        (186.0, 8000.0, 2500.0, 80.0, 5000.0, 10000.0),
        (_LOADED * 1822.0, _LOADED * 3615.6, _LOADED * _NVFP4 * 1822.0),
        152,
    ),
    _nvidia("b300", (270.0, 8000.0, 2250.0, 80.0, 4500.0, 13500.0), (1769.0, 3353.3, _NVFP4 * 1769.0), 148),
    _nvidia("gb300", (279.0, 8000.0, 2500.0, 80.0, 5000.0, 15000.0), (1822.0, 3615.6, _NVFP4 * 1769.0 / 13.5 * 15.0), 152),
    AcceleratorSpec("mi300x", 192.0, 5300.0, 1307.4, 1307.4, 163.4, 653.7, 2614.9, 0.474, 304, fp8_matmul_fraction=0.379),
    # Systolic arrays have no tiles in waves, and multiply in fp32 as six products in bf16 [JAX, ``lax.Precision``].
    AcceleratorSpec("tpu-v4", 32.0, 1228.0, 275.0, 275.0, 275.0 / 6),
    AcceleratorSpec("tpu-v5p", 95.0, 2765.0, 459.0, 459.0, 459.0 / 6),
    AcceleratorSpec("tpu-v6e", 32.0, 1640.0, 918.0, 918.0, 918.0 / 6),
)
ACCELERATORS = {accelerator.name: accelerator for accelerator in _NAMED}
