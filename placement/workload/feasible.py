"""Which plans can run: every rank has its layers, heads, experts, tokens and micro-batches in whole numbers."""

from collections.abc import Iterator

from lightfabric.model.spec import ModelSpec, SpecError
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import Schedule

Rule = tuple[str, bool, str]
"""A field, whether it is as it must be, and how that is."""


def require_feasible(model: ModelSpec, batch: int, plan: Plan, schedule: Schedule = "1f1b", laid_out: bool = False) -> None:
    """Raise SpecError, owned by ``Plan``, with the first reason why a plan cannot run.

    Layers that are no multiple of pp are dealt out unevenly, heads of keys and values that are fewer than tp are copied. The
    chunks of an interleaved pipeline must be alike [Narayanan 2021, section 2.2]; where they are of one layer, the embedding
    and the output layer may each stand for one [Grattafiori 2024, section 3.3.2: 126 layers in 128 chunks]. Where stages are
    ``laid_out`` chunks have any layers, or both ends alone [NVIDIA, Megatron-Core, ``pipeline_model_parallel_layout``].
    """
    values = vars(plan) | {"batch": batch}
    for field, holds, must_be in _rules(model, batch, plan, schedule, laid_out):
        if not holds:
            raise SpecError("Plan", field, must_be, repr(values[field]))


def _rules(model: ModelSpec, batch: int, plan: Plan, schedule: Schedule, laid_out: bool) -> Iterator[Rule]:
    yield from _tensor(model, plan)
    yield from _pipeline(model, plan, schedule, laid_out)
    yield from _batch(batch, plan, schedule)
    yield from _experts(model, plan)


def _tensor(model: ModelSpec, plan: Plan) -> Iterator[Rule]:
    tp, kv_heads, dense = plan.tp, model.kv_head_count, model.experts == 0 or model.dense_layers > 0
    yield "tp", model.heads % tp == 0, f"a divisor of the heads ({model.heads})"
    yield "tp", kv_heads % tp == 0 or tp % kv_heads == 0, f"a divisor or a multiple of the heads of keys ({kv_heads})"
    yield "tp", not dense or model.ffn_width % tp == 0, f"a divisor of the feed-forward width ({model.ffn_width})"
    yield "tp", not model.experts or model.expert_width % tp == 0, f"a divisor of an expert's width ({model.expert_width})"
    yield "cp", model.sequence % plan.cp == 0, f"a divisor of the sequence ({model.sequence})"
    tokens = model.sequence // plan.cp
    # Sequence parallelism cuts what is outside of the matrices by tokens [Korthikanti 2022, section 4.2.2].
    yield "tp", tokens % tp == 0, f"a divisor of the tokens of a sequence on a rank ({tokens})"


def _pipeline(model: ModelSpec, plan: Plan, schedule: Schedule, laid_out: bool) -> Iterator[Rule]:
    layers, pp, virtual = model.layers, plan.pp, plan.virtual_stages
    yield "pp", pp <= layers, f"at most the layers ({layers})"
    yield "pp", schedule != "dualpipe" or pp == 1 or pp % 2 == 0, "even with DualPipe"
    if virtual > 1:
        yield "virtual_stages", pp > 1, "1 without a pipeline"
        yield "virtual_stages", schedule == "1f1b", f"1 with the schedule {schedule}"
        chunks, must_be = pp * virtual, f"such that pp * it divides the layers ({layers}) or is two more"
        alike = layers % chunks == 0 or layers + 2 == chunks or (laid_out and layers + 2 > chunks)
        yield "virtual_stages", alike, must_be


def _batch(batch: int, plan: Plan, schedule: Schedule) -> Iterator[Rule]:
    each = plan.dp * plan.micro_batch
    yield "batch", batch >= each, f"at least dp * mbs ({each})"
    yield "batch", batch % each == 0, f"a multiple of dp * mbs ({each})"
    turn = each * plan.pp
    yield "batch", plan.virtual_stages == 1 or batch % turn == 0, f"a multiple of dp * mbs * pp ({turn}) with virtual stages"
    # It feeds micro-batches from both ends, as many from either, and at least one for each stage.
    fed = schedule != "dualpipe" or plan.pp == 1 or (batch // each % 2 == 0 and batch >= 2 * turn)
    yield "batch", fed, f"an even multiple of dp * mbs ({each}), at least {2 * turn}, with DualPipe"


def _experts(model: ModelSpec, plan: Plan) -> Iterator[Rule]:
    yield "ep", plan.ep == 1 or model.experts > 0, "1 for a model without experts"
    yield "ep", plan.ep == 1 or model.experts % plan.ep == 0, f"a divisor of the experts ({model.experts})"
