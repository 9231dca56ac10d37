"""What a rank holds of models of any shape, against a list of its tensors; published cuts of memory."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.model.spec import JobSpec, ModelSpec
from lightfabric.placement.plan import Plan
from lightfabric.placement.workload.case import FULL, NONE, SELECTIVE, case
from lightfabric.placement.workload.memory import layer_activation_bytes, peak_memory, stage_activation_bytes, stage_memory
from lightfabric.placement.workload.parameter import parameters, stage_parameters
from lightfabric.placement.workload.preset import MODELS
from lightfabric.placement.workload.volume import volume

LLAMA, MIXTRAL, DEEPSEEK = (MODELS[name] for name in ("llama3-70b", "mixtral-8x7b", "deepseek-v3"))


def exact(job: JobSpec | ModelSpec, plan: Plan):
    return case(job if isinstance(job, JobSpec) else JobSpec(job, batch=64), plan).exactly


def held(model: ModelSpec, plan: Plan, stage: int = 0) -> int:
    return sum(stage_parameters(exact(model, plan), stage))


def kept(job: JobSpec, plan: Plan, recompute: int = SELECTIVE, routed: bool = True) -> int:
    """Bytes that a rank keeps of a layer and micro-batch, the last or, if not ``routed``, a dense one."""
    one = replace(exact(job, plan), recompute=recompute)
    return layer_activation_bytes(one, routed and job.model.experts > 0)[0]


def tensors(m: ModelSpec, layer: int, tp: int, ep: int):
    """Shapes of a layer's tensors on one rank, as the models' authors write them down."""
    bias, qkv_bias, h = m.biases == "all", m.biases != "none", m.hidden
    width = m.head_width or h // m.heads
    heads, value = m.heads // tp, m.value_width or width
    if m.kv_rank:
        query = width + m.rope_width
        if m.query_rank:
            yield from [(h, m.query_rank), (m.query_rank,), (m.query_rank, heads * query)]
        else:
            yield (h, heads * query)
        yield from [(h, m.kv_rank + m.rope_width), (m.kv_rank,), (m.kv_rank, heads * (width + value))]
    else:
        kv_heads = max(1, (m.kv_heads or m.heads) // tp)
        for outputs in (heads * width, kv_heads * width, kv_heads * width):
            yield from [(h, outputs)] + [(outputs,)] * qkv_bias
    yield from [(heads * value, h)] + [(h,)] * bias
    yield from [(h,)] * (4 if bias else 2)
    if m.experts and layer >= m.dense_layers:
        yield (h, m.experts)
        for _ in range(m.experts // ep + m.shared_experts):
            yield from mlp(m, (m.expert_ffn or m.ffn or 4 * h) // tp)
    else:
        yield from mlp(m, (m.ffn or 4 * h) // tp)


def mlp(m: ModelSpec, width: int):
    ins = 2 if m.gated else 1
    yield from [(m.hidden, width)] * ins + [(width, m.hidden)]
    if m.biases == "all":
        yield from [(width,)] * ins + [(m.hidden,)]


def elements(shapes) -> int:
    return sum(shape[0] * (shape[1] if len(shape) == 2 else 1) for shape in shapes)


@st.composite
def models(draw) -> ModelSpec:
    heads = draw(st.sampled_from([4, 8, 12]))
    latent, routed, layers = draw(st.booleans()), draw(st.booleans()), draw(st.integers(2, 13))
    shape = {"layers": layers, "hidden": 16 * heads, "heads": heads, "sequence": 32, "vocabulary": 96}
    shape |= {"ffn": draw(st.sampled_from([None, 256])), "head_width": draw(st.sampled_from([None, 24]))}
    shape |= {"gated": draw(st.booleans()), "tied": draw(st.booleans()), "dropout": draw(st.booleans())}
    if latent:
        shape |= {"positions": "rotary", "biases": "none", "kv_rank": 20, "rope_width": 8}
        shape |= {"query_rank": draw(st.sampled_from([None, 28])), "value_width": draw(st.sampled_from([None, 12]))}
    else:
        shape |= {"positions": draw(st.sampled_from(["learned", "rotary", "alibi"]))}
        shape |= {
            "biases": draw(st.sampled_from(["all", "qkv", "none"])),
            "kv_heads": draw(st.sampled_from([None, 1, 2, 4])),
        }
    if routed:
        shape |= {
            "experts": 8,
            "experts_per_token": draw(st.integers(1, 8)),
            "expert_ffn": draw(st.sampled_from([None, 64])),
        }
        shape |= {"shared_experts": draw(st.integers(0, 2)), "dense_layers": draw(st.integers(0, layers - 1))}
    return ModelSpec(**shape)


@settings(max_examples=200, deadline=None)
@given(models(), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4, 8]), st.data())
def test_a_layer_on_a_rank_has_the_elements_of_its_tensors(model, tp, ep, data):
    """A stage for each layer; at both ends also what is outside layers, words cut by the tensor-parallel ranks."""
    layer = data.draw(st.integers(0, model.layers - 1))
    words, positions, norm = outside_layers(model)
    ends = (layer == 0) * (words // tp + positions) + (layer == model.layers - 1) * (words // tp + norm)
    plan = Plan(ep, tp, model.layers, 1, ep=ep)
    assert held(model, plan, layer) == elements(tensors(model, layer, tp, ep)) + ends


def outside_layers(m: ModelSpec) -> tuple[int, int, int]:
    positions = m.sequence * m.hidden if m.positions == "learned" else 0
    return m.vocabulary * m.hidden, positions, m.hidden * (2 if m.biases == "all" else 1)


@settings(max_examples=100, deadline=None)
@given(models())
def test_a_model_has_the_elements_of_its_layers(model):
    layers = sum(elements(tensors(model, layer, 1, 1)) for layer in range(model.layers))
    words, positions, norm = outside_layers(model)
    assert parameters(model) == layers + words * (1 if model.tied else 2) + positions + norm
    assert held(model, Plan(1, 1, 1, 1)) == parameters(model)


@settings(max_examples=100, deadline=None)
@given(models(), st.integers(1, 5), st.integers(1, 3))
def test_every_layer_is_in_one_stage(model, pp, virtual_stages):
    plan = Plan(1, 1, pp, 1, virtual_stages=virtual_stages)
    one = exact(model, plan)
    counts = [one.stage_layers(stage) for stage in range(pp)]
    assert sum(counts) == model.layers
    assert max(counts) == counts[0] == one.fullest_layers
    routed = sum(one.routed_layers(stage) for stage in range(pp))
    assert routed == (model.layers - model.dense_layers if model.experts else 0)
    every = sum(held(model, plan, stage) for stage in range(pp))
    assert every == parameters(model) + (model.vocabulary * model.hidden if model.tied and pp > 1 else 0)


def test_the_leading_dense_layers_are_in_the_first_chunks():
    """DeepSeek-V3 on 16 stages: 61 layers, 3 of them dense; 4 in all stages but the last three."""
    plan = Plan(1, 1, 16, 1)
    one, stages = exact(DEEPSEEK, plan), np.arange(16)
    assert one.stage_layers(stages).tolist() == [4] * 13 + [3] * 3
    assert one.routed_layers(stages).tolist() == [1] + [4] * 12 + [3] * 3
    interleaved = Plan(1, 1, 2, 1, virtual_stages=30)
    assert exact(DEEPSEEK, interleaved).routed_layers(stages[:2]).tolist() == [31 - 2, 30 - 1]


def test_expert_parallelism_deals_out_experts_only():
    whole, dealt = Plan(8, 1, 1, 1), Plan(8, 1, 1, 1, ep=8)
    experts = 32 * 8 * 3 * 4096 * 14336
    assert held(MIXTRAL, whole) - held(MIXTRAL, dealt) == experts - experts // 8


def test_gradients_of_experts_are_summed_among_those_that_hold_them():
    job = JobSpec(MIXTRAL, batch=64)
    plans = {ep: Plan(16, 1, 1, 1, ep=ep) for ep in (1, 8)}
    experts = 32 * 3 * 4096 * 14336
    assert volume(job, plans[1]).gradient_bytes(0) == (4 * parameters(MIXTRAL), 0)
    assert volume(job, plans[8]).gradient_bytes(0) == (4 * (parameters(MIXTRAL) - 8 * experts), 4 * experts)
    assert volume(job, Plan(8, 1, 1, 1, ep=8)).gradient_bytes(0)[1] == 0


def test_an_all_to_all_sends_each_token_to_its_experts():
    job, h = JobSpec(MIXTRAL, batch=64), 4096
    sent = volume(job, Plan(8, 2, 1, 1, ep=8)).dispatched_bytes
    assert sent[0, 1:].sum() * 8 * 2 == 7 * MIXTRAL.sequence * 2 * h * 2
    assert not volume(job, Plan(8, 2, 1, 1)).dispatched_bytes.any()


def test_zero_cuts_memory_as_rajbhandari_2020_says():
    """Figure 1: 7.5 B parameters on 64 GPUs take 120, 31.4, 16.6, 1.9 GB with gradients of 2 bytes; ours have 4."""
    job = JobSpec(ModelSpec(layers=36, hidden=4096, heads=32, sequence=1024, vocabulary=51200), batch=64)
    per_billion = 7.5e9 / parameters(job.model)
    gigabytes = []
    for zero in range(4):
        memory = stage_memory(exact(job, Plan(64, 1, 1, 1, "full", zero=zero)), 0)
        gigabytes.append((memory.weights + memory.gradients / 2 + memory.optimiser) * per_billion / 1e9)
    assert gigabytes == pytest.approx([120, 31.4, 16.6, 1.9], abs=0.05)


def test_zero_cuts_experts_among_those_that_hold_them():
    job = JobSpec(MIXTRAL, batch=64)
    experts, others = 32 * 8 * 3 * 4096 * 14336, parameters(MIXTRAL) - 32 * 8 * 3 * 4096 * 14336
    for ep in (1, 2, 8):
        memory = stage_memory(exact(job, Plan(16, 1, 1, 1, "full", ep=ep, zero=1)), 0)
        assert memory.optimiser == 12 * (others + experts) // 16
        assert memory.weights == 2 * (others + experts // ep)


def test_interleaved_stages_keep_what_korthikanti_2022_says():
    """Section 4.2.3: 1 + (p - 1) / (p m) times as much on the first stage, with m chunks per stage."""
    job, p, m = JobSpec(MODELS["gpt3-175b"], batch=512), 8, 3
    plain, interleaved = (Plan(1, 8, p, 1, virtual_stages=chunks) for chunks in (1, m))
    both = [stage_activation_bytes(exact(job, plan), 0) for plan in (plain, interleaved)]
    assert both[1] / both[0] == pytest.approx(1 + (p - 1) / (p * m), rel=1e-9)


def test_a_replica_of_few_micro_batches_keeps_no_more_than_those():
    job = JobSpec(MODELS["gpt3-175b"], batch=2)
    for virtual_stages in (1, 3):
        plan = Plan(1, 8, 8, 1, virtual_stages=virtual_stages)
        assert stage_activation_bytes(exact(job, plan), 0) == 2 * 12 * kept(job, plan, NONE)


def test_a_llama_keeps_the_inputs_of_its_norms_and_products():
    job, h, f, kv = JobSpec(LLAMA, batch=8), 8192, 28672, 1024
    norms, attention, gate_up_product = 2 * h, [h, h, kv, kv, h], [h, f, f, f]
    values = norms + sum(attention) + sum(gate_up_product)
    assert kept(job, Plan(1, 1, 1, 1)) == 8192 * 2 * values
    assert kept(job, Plan(1, 8, 1, 1)) == 8192 * 2 * values // 8
    probabilities = 64 * 8192 * 8192
    assert kept(job, Plan(1, 1, 1, 1), NONE) == 8192 * 2 * values + 2 * probabilities


def test_a_mixture_keeps_the_inputs_of_each_expert_that_a_token_goes_to():
    """Input, gate, up, product and output of two experts; probabilities of all eight."""
    h, f, kv = 4096, 14336, 1024
    values = 2 * h + (h + h + kv + kv + h) + h + 8 + 2 * (h + 3 * f + h)
    assert kept(JobSpec(MIXTRAL, batch=8), Plan(1, 1, 1, 1)) == 32768 * 2 * values


def test_latent_attention_keeps_its_latents_and_what_comes_of_them():
    """A latent before and after its norm; heads of 128 + 64 and 128; dense layers of 18432."""
    h, queries, values = 7168, 128 * 192, 128 * 128
    attention = h + 2 * 1536 + 2 * 512 + queries + queries + values + values
    values = 2 * h + attention + h + 3 * 18432
    assert kept(JobSpec(DEEPSEEK, batch=8), Plan(1, 1, 1, 1), routed=False) == 4096 * 2 * values


def test_ranks_that_share_a_kv_head_each_keep_it():
    job = JobSpec(LLAMA, batch=8)
    eight, sixteen = (kept(job, Plan(1, tp, 1, 1)) * tp for tp in (8, 16))
    assert sixteen - eight == 8192 * 2 * 2 * 1024
    both = [tp * held(LLAMA, Plan(1, tp, 80, 1), 40) for tp in (8, 16)]
    assert both[1] - both[0] == 2 * 8192 * 1024 + 8 * 2 * 8192


def test_context_parallelism_cuts_the_tokens_of_a_sequence():
    job = JobSpec(LLAMA, batch=8)
    for recompute in (NONE, SELECTIVE, FULL):
        whole, cut = (kept(job, Plan(1, 8, 1, 1, cp=cp), recompute) for cp in (1, 4))
        assert whole == 4 * cut
    assert Plan(2, 8, 4, 1, cp=4).gpus == 256


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_no_stage_of_a_mixture_needs_more_than_the_peak(recompute):
    job = JobSpec(DEEPSEEK, batch=64)
    plan = Plan(dp=4, tp=1, pp=16, micro_batch=1, recompute=recompute, ep=4)
    assert peak_memory(exact(job, plan)).total == max(stage_memory(exact(job, plan), stage).total for stage in range(16))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kv_heads": 7}, "ModelSpec.kv_heads must be a divisor of heads (64), not 7"),
        ({"kv_heads": 0}, "ModelSpec.kv_heads must be from 1 to 4194304, not 0"),
        ({"heads": 63}, "ModelSpec.heads must be a divisor of hidden (8192), not 63"),
        ({"experts_per_token": 2}, "ModelSpec.experts_per_token must be 0 without experts, not 2"),
        ({"dense_layers": 2}, "ModelSpec.dense_layers must be 0 without experts, not 2"),
        ({"expert_ffn": 2}, "ModelSpec.expert_ffn must be left out without experts, not 2"),
        ({"experts": -1}, "ModelSpec.experts must be from 0 to 65536, not -1"),
        ({"experts": 8}, "ModelSpec.experts_per_token must be from 1 to 8, not 0"),
        ({"experts": 8, "experts_per_token": 9}, "ModelSpec.experts_per_token must be from 1 to 8, not 9"),
        (
            {"experts": 8, "experts_per_token": 2, "dense_layers": 80},
            "ModelSpec.dense_layers must be from 0 to 79, not 80",
        ),
        ({"rope_width": 64}, "ModelSpec.rope_width must be left out without kv_rank, not 64"),
        ({"kv_rank": 512, "kv_heads": 8}, "ModelSpec.kv_heads must be left out beside kv_rank, not 8"),
        ({"kv_rank": 512}, "ModelSpec.rope_width must be given beside kv_rank, not None"),
        ({"kv_rank": 512, "rope_width": 64}, "ModelSpec.positions must be 'rotary' beside kv_rank, not 'learned'"),
        (
            {"kv_rank": 512, "rope_width": 64, "positions": "rotary"},
            "ModelSpec.biases must be 'none' beside kv_rank, not 'all'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_shape_that_is_none_is_refused(fields, says):
    with pytest.raises(ValueError, match="must be") as error:
        ModelSpec(**({"layers": 80, "hidden": 8192, "heads": 64, "sequence": 8192, "vocabulary": 128256} | fields))
    assert str(error.value) == says


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"zero": 4}, "Plan.zero must be from 0 to 3, not 4"),
        ({"ep": 3}, "Plan.ep must be a divisor of dp * cp (8), not 3"),
    ],
)
def test_a_plan_that_is_none_is_refused(fields, says):
    with pytest.raises(ValueError, match="must be") as error:
        Plan(4, 1, 1, 1, cp=2, **fields)
    assert str(error.value) == says
