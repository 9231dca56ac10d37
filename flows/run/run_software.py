"""Software that training runs in tables ran: what it fuses, cuts, hides behind computation and sums in."""

from dataclasses import dataclass, replace

from lightfabric.placement.workload.case import PER_EXPERT, PER_ISLAND, PER_RANK

HIDDEN = ("data", "tensor", "experts")
"""Communication that software may hide: of gradients and weights, of tensor parallelism, of tokens to their experts."""


@dataclass(frozen=True)
class Software:
    """Describes software by what it does: ``hides`` names communication that it overlaps with computation.

    Attention is one ``flash`` kernel or several, norms and dropout are ``sharded`` by sequence or not, the loss is ``fused``
    or kernel by kernel; ``apart`` stands for kernels and sums of gradients as in Megatron-DeepSpeed of 2022. ``zero`` is the
    stage where a row states none. ``narrow_dispatch`` sends tokens to experts in the precision of their products,
    ``lean`` computes norms and what latent attention makes of its latents again. ``half_gradients`` are summed in 16 bits
    over replicas. ``whole_experts`` are not cut by tensor parallelism, whose ranks are dealt experts instead, and pipelines
    that are ``laid_out`` have stages of any layers. Tokens go to experts as ``dispatch`` says, in ``Cases``; exchanges that
    are hidden take so many ``exchange_multiprocessors``; with ``graphs`` the host launches no kernels.
    """

    flash: bool = True
    sharded: bool = True
    fused: bool = True
    apart: bool = False
    hides: frozenset[str] = frozenset()
    zero: int = 0
    narrow_dispatch: bool = False
    lean: bool = False
    half_gradients: bool = False
    whole_experts: bool = False
    laid_out: bool = False
    dispatch: int = PER_ISLAND
    exchange_multiprocessors: int = 20
    graphs: bool = False


_DATA, _ALL = frozenset(("data",)), frozenset(HIDDEN)
_NVIDIA = Software(
    hides=frozenset(("data", "tensor")), zero=1, lean=True, half_gradients=True, whole_experts=True, laid_out=True,
    exchange_multiprocessors=32,
)  # fmt: skip
"""The recipes of Megatron-Bridge [``scripts/performance``]: ``overlap_grad_reduce``, ``tp_comm_overlap``, a distributed
optimiser, ``grad_reduce_in_fp32=False``, ``expert_tensor_parallel_size=1``, ``pipeline_model_parallel_layout``,
``recompute_modules=["mla_up_proj"]`` of latent attention, and ``moe_hybridep_num_sms=32``."""
GRAPHS_SINCE = [26, 6]
"""Release of Megatron-Bridge whose recipes capture iterations with experts in ``full_iteration`` CUDA graphs."""
_WITH_GRAPHS = ("b300", "gb200", "gb300")
SOFTWARE = {
    # Narayanan 2021; Korthikanti 2022 with flash attention; Megatron-Core; that in NVIDIA's recipes, with user buffers.
    "megatron-2021": Software(flash=False, sharded=False, fused=False),
    "megatron-lm": Software(fused=False, zero=1, dispatch=PER_EXPERT),
    "megatron-core": Software(hides=_DATA, zero=1, dispatch=PER_EXPERT),
    "megatron-bridge": _NVIDIA,
    "nemo": _NVIDIA,
    "deepspeed": Software(flash=False, sharded=False, fused=False, apart=True, zero=1),
    # PyTorch's fully sharded data parallelism, as in torchtitan, and XLA's, which overlaps what it can in one program.
    "fsdp": Software(hides=_DATA, zero=3),
    "maxtext": Software(hides=_ALL, zero=3, graphs=True),
    # DeepSeek's own, whose pipeline hides experts [DeepSeek-V3, 3.2]; a step ends with 0.29 s of gradients and optimiser
    # [DeepSeek-AI, "Insights into DeepSeek-V3" (ISCA 2025), table 4].
    "hai-llm": Software(
        hides=frozenset(("experts",)), zero=1, narrow_dispatch=True, lean=True, dispatch=PER_RANK, laid_out=True
    ),
}
"""By name; a column of ``overlap`` beside replaces what it hides."""


def bridge(release: str, accelerator: str, precision: str, latent: bool, spread: bool) -> Software:
    """Megatron-Bridge of a release, the latest if empty; ValueError if it is none.

    Since 26.06 recipes in mxfp8 and nvfp4 on Blackwell capture whole iterations, tokens go by HybridEP, and in mxfp8
    exchanges are hidden (``moe_a2a_overlap``). On H100, where experts are ``spread`` over nodes and the pipeline is
    interleaved, they are hidden for Qwen3, and until 25.11 for DeepSeek-V3, whose attention is ``latent``, too; DeepEP takes
    20 multiprocessors there [NVIDIA, Megatron-Bridge, ``scripts/performance/configs``].
    """
    parts = release.split(".")
    if release and not all(part.isdecimal() and len(part) < 5 for part in parts):
        raise ValueError(f"release must be as 26.04 or 26.04.01, not {release[:60]!r}")
    number = [int(part) for part in parts] if release else GRAPHS_SINCE
    if number >= GRAPHS_SINCE and accelerator in _WITH_GRAPHS and precision in ("mxfp8", "nvfp4"):
        hides = _NVIDIA.hides | {"experts"} if precision == "mxfp8" else _NVIDIA.hides
        return replace(_NVIDIA, hides=hides, dispatch=PER_RANK, graphs=True)
    if accelerator == "h100" and spread and (not latent or number <= [25, 11]):
        return replace(_NVIDIA, hides=_NVIDIA.hides | {"experts"}, exchange_multiprocessors=20)
    return _NVIDIA


def guessed(accelerator: str, precision: str | None, recompute: str) -> Software:
    """Guess the software of a row that names none: on an A100 in fp16 attention was plain until nothing was recomputed.

    Eight bits and less are NVIDIA's: Transformer Engine, in the recipes of NeMo and of its entries to MLPerf.
    """
    if precision and precision.startswith(("fp8", "mxfp8", "nvfp4")):
        return SOFTWARE["nemo"]
    recent = not accelerator.startswith("a100") or precision in ("bf16", "fp8")
    sharded = recent or recompute != "full"
    apart, hides = precision == "bf16/fp16", _DATA if sharded else frozenset[str]()
    return Software(recent or recompute == "none", sharded, recent, apart, hides)


def overlapping(software: Software, overlap: str) -> Software:
    """The software with what a cell of ``overlap`` says it hides: ``none``, ``all``, or names joined by +."""
    if not overlap:
        return software
    named = {"none": frozenset[str](), "all": _ALL}.get(overlap, frozenset(overlap.split("+")))
    if not named <= _ALL:
        raise ValueError(f"overlap must be none, all, or of {', '.join(HIDDEN)} some joined by +, not {overlap[:60]!r}")
    return replace(software, hides=named)
