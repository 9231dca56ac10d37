"""An accelerator is a GPU as the cost model sees it; some have a name."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lightfabric.model.spec.require import FORBID, SpecError, require, require_between, require_name, require_positive

Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp8"]


@dataclass(frozen=True)
class AcceleratorSpec:
    """Describes a GPU as the cost model sees it: dense peak rates, memory and memory bandwidth.

    ``matmul_fraction`` of a peak is the highest rate that large matrix products were seen to reach. Each of
    ``multiprocessors`` works off one tile of a product at a time; 0 stands for so many that none is ever idle.
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

    def __post_init__(self) -> None:
        require_name(self)
        require_positive(self, "memory_gib", "memory_gbytes_per_s", "fp16_tflops", "bf16_tflops", "fp32_tflops")
        require(self, "matmul_fraction", 0 < self.matmul_fraction <= 1, "above 0 and at most 1")
        require_between(self, 0, 1 << 16, "multiprocessors")
        for name in ("tf32_tflops", "fp8_tflops"):
            if getattr(self, name) is not None:
                require_positive(self, name)

    def peak_flops(self, precision: Precision) -> float:
        """Give the peak rate in flop/s; SpecError if the accelerator does not have that precision."""
        tflops = getattr(self, f"{precision}_tflops")
        if tflops is None:
            raise SpecError("AcceleratorSpec", f"{precision}_tflops", f"given for a job in {precision}", "left out")
        return tflops * 1e12


ACCELERATORS = {
    # NVIDIA A100 80GB SXM and H100 SXM data sheets, dense rates. Of these an A100 reached 271.2 Tflop/s in bf16 [Bekman,
    # Machine Learning Engineering Open Book, "Maximum Achievable Matmul FLOPS comparison table"]. The H100's 794.5 there are
    # of one shape and a cool chip; under load, on normal values in the shapes of language models, its power limit leaves 720
    # [Patel et al., "MI300X vs H100 vs H200 Benchmark Part 1: Training", SemiAnalysis 2024].
    "a100": AcceleratorSpec("a100", 80.0, 2039.0, 312.0, 312.0, 19.5, 156.0, matmul_fraction=0.869, multiprocessors=108),
    "h100": AcceleratorSpec(
        "h100", 80.0, 3350.0, 989.4, 989.4, 66.9, 494.7, 1978.9, matmul_fraction=0.728, multiprocessors=132
    ),
}
