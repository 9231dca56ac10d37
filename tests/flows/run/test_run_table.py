"""What joins the ranks of a run in a table: rates of rings by how many NICs of a node they pass."""

from dataclasses import replace

import numpy as np
import pytest

from lightfabric.flows.report import InputError
from lightfabric.flows.run import run_table
from lightfabric.flows.run.run_shape import named
from lightfabric.flows.run.run_system import SYSTEMS, accelerator
from lightfabric.model.spec import ACCELERATORS
from lightfabric.placement.cost.calibration import calibration
from lightfabric.placement.cost.step import copies_seconds
from lightfabric.placement.workload.parameter import stage_parameters
from lightfabric.placement.workload.preset import MODELS

FITTED = calibration()
ROW = {
    "layers": "96", "hidden": "12288", "heads": "96", "seq": "2048", "vocab": "51200", "accel": "A100-80GB",
    "precision": "fp16", "recompute": "full", "tp": "8", "pp": "1", "dp": "1", "gbs": "64", "mbs": "1",
}  # fmt: skip


def of(*changes):
    rows = [{key: str(value) for key, value in (ROW | each).items()} for each in changes]
    return run_table.runs([(f"row {number}", row) for number, row in enumerate(rows)])


@pytest.mark.parametrize(
    ("name", "plan", "nics"),
    [
        ("tensor", {"tp": 16, "heads": 96}, 8),
        ("tensor", {"tp": 32, "heads": 96}, 8),
        ("context", {"tp": 4, "cp": 8}, 2),
        ("context", {"tp": 8, "cp": 2}, 1),
        ("context", {"tp": 1, "cp": 16}, 8),
        ("data", {"tp": 2, "dp": 16}, 4),
    ],
)
def test_a_ring_over_nodes_has_the_nics_of_all_its_members_in_a_node(name, plan, nics):
    slow = {"notes": "200 Gb/s per node"}  # so that no count of NICs is faster than the switch in the node
    rate = getattr(run_table.network(of(plan | slow), FITTED), name)[0]
    assert rate == pytest.approx(nics * 200e9 / 8 / 8 * FITTED.network_efficiency)


def test_no_ring_over_nodes_is_faster_than_the_switch_inside():
    inside, over = run_table.network(of({}, {"tp": 16, "notes": "12800 Gb/s per node"}), FITTED).tensor
    assert inside == over


def overlapped(**plan):
    """Seconds in which gradients and weights are on the wire of a slow network, and those of a micro-batch's passes."""
    h100 = {"accel": "H100", "precision": "bf16", "recompute": "none", "pp": 8, "zero": 1, "vocab": 128}
    both = of(*(h100 | {"notes": "200 Gb/s per node"} | plan | each for each in ({}, {"dp": 1, "gbs": 8})))
    # A single replica only sums both copies of the embedding.
    found = run_table.predicted(both, FITTED)
    return found.data[0] - found.data[1], found.compute[1] / 8


def test_interleaved_gradients_and_weights_hide_behind_a_pass_of_each_stage():
    (plain, passes), (interleaved, _) = (overlapped(dp=64, gbs=64 * 16, vp=vp) for vp in (1, 3))
    wire = 12 * 12 * 12288**2 / 8 * (4 + 2) / (200e9 / 8 / 8 * FITTED.network_efficiency) * 63 / 64
    assert plain == pytest.approx(wire - passes, rel=0.01)
    assert interleaved == pytest.approx(wire - 8 * passes, rel=0.01)


def test_of_hidden_gradients_and_weights_a_layer_is_left():
    (many, _), (few, _) = (overlapped(dp=64, gbs=64 * 16, vp=3, notes=f"{rate} Gb/s per node") for rate in (6400, 3200))
    assert few == pytest.approx(2 * many, rel=0.05)


def test_more_micro_batches_than_stages_hide_no_more():
    few, many = (overlapped(dp=64, vp=3, gbs=64 * count)[0] for count in (8, 16))
    assert few == many


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("DGX A100-80GB", "a100"),
        ("A100-40GB", "a100-40gb"),
        ("DGX-GB200", "gb200"),
        ("DGX-B200", "b200"),
        ("TPU v5p-2048", "tpu-v5p"),
    ],
)
def test_an_accelerator_is_the_longest_that_a_name_has_in_it(name, found):
    assert accelerator(name).name == found


@pytest.mark.parametrize("precision", ["FP8", "FP8-CS", "FP8_SC", "fp8-ds", "FP8-MX", "MXFP8", "NVFP4"])
def test_narrow_products_are_faster_and_the_rest_is_not(precision):
    """Attention, logits and what memory binds take as long as in 16 bits: passes are less than 2 or 4 times as fast."""
    chip = {"accel": "GB200", "recompute": "none", "tp": 1}
    narrow, half = run_table.predicted(of(chip | {"precision": precision}, chip | {"precision": "bf16"}), FITTED).compute
    assert 1.3 < half / narrow < (4 if precision == "NVFP4" else 2)


def test_every_accelerator_has_a_system():
    assert SYSTEMS.keys() == ACCELERATORS.keys()
    assert all(chip.matmul_flops("bf16") <= chip.peak_flops("bf16") for chip in ACCELERATORS.values())


def test_an_island_is_as_large_as_the_system_has_it():
    """Tensor parallelism over 16 GPUs stays in a rack of GB200, and leaves a node of B200."""
    rack, node = run_table.network(of({"tp": 16, "accel": "GB200"}, {"tp": 16, "accel": "B200"}), FITTED).tensor
    assert rack == pytest.approx(900e9 * FITTED.island_efficiency)
    assert node == pytest.approx(8 * 50e9 * FITTED.network_efficiency)


def test_heads_of_a_width_that_8_does_not_divide_slow_attention_down():
    """14400 wide: 96 heads of 150, 100 of 144."""
    runs = of(*({"hidden": 14400, "heads": heads, "tp": 2, "precision": "bf16/fp16"} for heads in (96, 100)))
    alike = replace(FITTED, odd_heads=1.0)
    odd, even = run_table.predicted(runs, FITTED).compute / run_table.predicted(runs, alike).compute
    assert 1.01 < odd < 1.2
    assert even == 1


def test_megatron_deepspeed_pays_for_each_micro_batch_and_each_access():
    """Smaller micro-batches sum gradients more often, by kernels of their own."""
    rows = [{"precision": precision, "mbs": mbs} for precision in ("bf16/fp16", "fp16") for mbs in (1, 8)]
    often, seldom, plain_often, plain_seldom = run_table.predicted(of(*rows), FITTED).compute
    sums = 96 * 12 * 12288**2 / 8 * (FITTED.deepspeed_sum_bytes - 6) / (2039e9 * FITTED.memory_efficiency)
    assert often - plain_often == pytest.approx(seldom - plain_seldom + (64 - 8) * sums, rel=1e-3)
    assert seldom > plain_seldom


def test_megatron_deepspeed_sums_gradients_over_replicas_at_a_share_of_the_nics_rate():
    """A ring of four over nodes, gradients of 16 bits and then weights, none of it hidden."""
    row = {"software": "deepspeed", "dp": 4, "vocab": 128, "gbs": 256}
    fast, slow = run_table.predicted(of(row, row | {"notes": "100 Gb/s per node"}), FITTED).data
    size = 12 * 96 * 12288**2 / 8 * (2 + 2) * 3 / 4
    assert slow - fast == pytest.approx(size / FITTED.deepspeed_reduced_share * (8 / 12.5e9 - 1 / 25e9), rel=0.01)


def predicted(*changes):
    return run_table.predicted(of(*changes), FITTED)


def test_software_decides_kernels_cuts_and_what_is_hidden():
    names = ("megatron-2021", "megatron-lm", "megatron-core", "deepspeed", "fsdp", "maxtext")
    cases = of(*({"software": name, "dp": 8} for name in names)).cases
    assert cases.flash.tolist() == [False, True, True, False, True, True]
    assert cases.overlaps.tolist() == [False, False, True, False, True, True]
    assert cases.zero.tolist() == [0, 1, 1, 1, 3, 3]
    assert cases.deepspeed.tolist() == [name == "deepspeed" for name in names]


def test_sequence_parallelism_may_be_stated_with_the_recomputation():
    """Norms are cut tp ways, also by software that would not, and what is recomputed stays."""
    rows = [{"software": "megatron-2021", "recompute": each} for each in ("full", "full+sp", "Selective+SP", "none+sp")]
    cases = of(*rows).cases
    assert cases.sharded.tolist() == [False, True, True, True]
    assert (
        cases.recompute.tolist()
        == of(*({"recompute": each} for each in ("full", "full", "selective", "none"))).cases.recompute.tolist()
    )
    assert predicted(*rows).compute[1] < predicted(*rows).compute[0]


def test_what_is_hidden_is_what_the_column_says():
    rows = [{"accel": "H100", "precision": "bf16", "dp": 8, "overlap": how} for how in ("none", "data", "tensor", "all")]
    found = predicted(*rows)
    none, data, tensor, both = found.total
    assert none > data > both
    assert none > tensor > both
    assert found.tensor[2] == pytest.approx(found.tensor[0] / 8)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("software", "excel", "software must be 'megatron-2021', 'megatron-lm', "),
        ("overlap", "data+luck", "overlap must be none, all, or of data, tensor, experts some joined by +, not 'data+luck'"),
        ("fsdp", "3", "fsdp must be 0 or a divisor of dp * cp (8), not 3"),
        ("gradient_precision", "int8", "gradient_precision must be 'fp32', 'bf16' or 'fp16', not 'int8'"),
        ("max_nodes", "many", "max_nodes must be a number, not 'many'"),
        ("precision", "fp4", "precision must be 'fp32', 'tf32', "),
    ],
)
def test_a_wrong_word_is_one_line(name, value, said):
    with pytest.raises(InputError) as caught:
        of({"dp": 8, name: value})
    assert str(caught.value).startswith(f"row 0: {said}")
    assert "\n" not in str(caught.value)


def test_gradients_in_16_bits_are_half_as_long_on_the_wire():
    rows = [{"dp": 8, "vocab": 128, "overlap": "none", "gradient_precision": each} for each in ("fp32", "bf16")]
    whole, half = predicted(*rows).data
    assert half / whole == pytest.approx(0.5, rel=0.05)


def test_fully_sharded_weights_are_cut_over_the_group_that_the_column_names():
    rows = [{"accel": "H100", "precision": "bf16", "tp": 1, "dp": 64, "fsdp": fsdp, "gbs": 128} for fsdp in (0, 8, 64)]
    runs = of(*rows)
    assert runs.cases.zero.tolist() == [0, 3, 3]
    weights = run_table.predicted(runs, FITTED).memory.weights
    assert weights[0] == pytest.approx(8 * weights[1]) == pytest.approx(64 * weights[2])


def test_an_empty_micro_batch_is_the_fastest_that_fits():
    row = {"accel": "H100", "precision": "bf16", "recompute": "none", "pp": 16, "gbs": 512, "vocab": 512}
    each = of(*(row | {"mbs": 1 << power} for power in range(7)))
    found = run_table.predicted(each, FITTED)
    fits = run_table.memory_gib(each, found, FITTED) <= 80
    chosen = of(row | {"mbs": ""})
    assert fits[0]
    assert not fits.all()
    assert run_table.predicted(chosen, FITTED).total[0] == found.total[fits].min()


def test_a_token_goes_once_to_each_island_of_its_experts():
    """The mean of how many islands are visited, counted on random tokens."""
    seed = 7
    draw = np.random.default_rng(seed)
    moe = {"model": "deepseek-v3", "layers": 61, "hidden": 7168, "heads": 128, "ffn": 18432, "seq": 4096, "vocab": 129280}
    moe |= {"accel": "H800", "precision": "bf16", "tp": 1, "dp": 64, "ep": 64, "recompute": "none", "overlap": "none"}
    islands, ways = 8, 8
    for limit in (0, 4):
        runs = of(moe | {"max_nodes": limit, "next_tokens": 0})
        chosen = [draw.integers(0, limit or islands, ways) for _ in range(20_000)]
        visited = np.mean([len(set(token)) for token in chosen]) * (islands - 1) / islands
        wire = visited * 4096 * 7168 * 4 / (50e9 * FITTED.exchange_efficiency)
        inside = ways * 7 / 8 * 4096 * 7168 * 4 / (200e9 * FITTED.island_efficiency)
        waits = 2 * (FITTED.collective_seconds + FITTED.exchange_seconds)
        expected = 2 * 58 * (max(wire, inside) + waits)
        assert run_table.predicted(runs, FITTED).tensor[0] == pytest.approx(expected, rel=0.01), f"seed {seed}"


def test_hidden_exchanges_cost_multiprocessors_instead():
    """20 of an H800's 132 [DeepSeek-V3, 3.2.2]."""
    moe = {"model": "deepseek-v3", "layers": 61, "hidden": 7168, "heads": 128, "ffn": 18432, "seq": 4096, "vocab": 129280}
    moe |= {"accel": "H800", "precision": "bf16", "tp": 1, "dp": 64, "ep": 64, "recompute": "none"}
    found = predicted(moe | {"overlap": "none"}, moe | {"overlap": "experts"})
    assert found.tensor[1] < found.tensor[0] / 10
    assert found.compute[1] / found.compute[0] == pytest.approx(132 / 112, rel=0.05)


DEEPSEEK = {
    "model": "deepseek-v3", "layers": 61, "hidden": 7168, "heads": 128, "ffn": 18432, "seq": 4096, "vocab": 129280, "tp": 1,
    "accel": "H800", "precision": "fp8", "ep": 64, "recompute": "none", "pp": 16, "dp": 128, "gbs": 15360, "zero": 1,
}  # fmt: skip


def test_the_training_step_of_deepseek_v3_is_predicted():
    """19.93 s on 2048 H800, of which 0.29 s reduce gradients and step the optimiser.

    [DeepSeek-AI, "Insights into DeepSeek-V3" (ISCA 2025), table 4]. Routing that is not even is no part of the prediction.
    """
    found = predicted(DEEPSEEK | {"schedule": "dualpipe"})
    assert found.total[0] == pytest.approx(19.93, rel=0.12)
    assert (found.data + found.optimiser)[0] == pytest.approx(0.29, rel=0.1)


def test_a_second_token_costs_a_layer_an_output_layer_and_a_product_of_both_embeddings():
    """[DeepSeek-V3, 2.2, equations 21 to 23]: a sixth of the products of a layer of 12 h^2."""
    h100 = {"accel": "H100", "precision": "bf16", "recompute": "none"}
    plain, further, deeper, wordier = predicted(
        *(h100 | each for each in ({}, {"next_tokens": 1}, {"layers": 97}, {"vocab": 102400}))
    ).compute
    assert further - plain == pytest.approx((deeper - plain) * 7 / 6 + wordier - plain, rel=0.05)


def test_copies_by_nccl_stay_in_a_node_only_for_experts_there():
    """Of 16 ranks in two nodes seven others are near: 8 x 7 / 16 copies of a token that goes to 8 experts."""
    runs = of(DEEPSEEK | {"pp": 1, "ep": 16, "software": "megatron-core"})
    network = replace(run_table.network(runs, FITTED), expert=np.array([1e15]))
    inside = 8 * 7 / 16 / (200e9 * FITTED.island_efficiency)
    assert copies_seconds(runs.cases, network)[0] == pytest.approx(inside)


def test_copies_are_sorted_by_expert_unless_they_come_so():
    """Read and written once more on the way there and back, forward and backward: 8 times 8 copies of a token."""
    qwen = BRIDGE | {"software": "megatron-core", "precision": "bf16", "overlap": "none", "release": ""}
    runs = run_table.runs([("row", qwen | {"software": each}) for each in ("megatron-core", "hai-llm")])
    sorted_there, sorted_before = run_table.predicted(runs, FITTED).compute
    moved_bytes = 2 * 2 * 8 * 4096 * 512 / 8 * 2048 * 2
    assert sorted_there - sorted_before == pytest.approx(48 * moved_bytes / (8e12 * FITTED.memory_efficiency))


def test_gathered_weights_slow_passes_down_only_while_they_are_on_the_wire():
    row = {"accel": "GB300", "precision": "bf16", "recompute": "none", "tp": 1, "dp": 64, "gbs": 1024, "vocab": 128}
    rows = [row | {"mbs": mbs, "fsdp": fsdp} for mbs in (1, 16) for fsdp in (0, 64)]
    plain, gathered, plain_of_many, gathered_of_many = predicted(*rows).compute
    assert 1 < gathered_of_many / plain_of_many < 1.02
    assert 1.05 < gathered / plain <= FITTED.sharded_slowdown


def test_dualpipe_hides_exchanges_but_of_as_many_passes_as_there_are_stages():
    row = DEEPSEEK | {"software": "hai-llm", "overlap": "none", "next_tokens": 0}
    plain, hidden = predicted(*(row | {"schedule": each} for each in ("1f1b", "dualpipe"))).tensor
    assert hidden / plain == pytest.approx(16 / 120)


def test_lean_software_computes_norms_and_latents_again_and_keeps_less():
    row = DEEPSEEK | {"overlap": "data", "pp": 1}
    found = predicted(*(row | {"software": each} for each in ("hai-llm", "megatron-core")))
    assert found.compute[0] > 1.03 * found.compute[1]
    assert found.memory.activations[0] < 0.8 * found.memory.activations[1]


BRIDGE = {
    "model": "Qwen3_30B_a3B", "system": "DGX-GB200", "n_acc": "8", "precision": "MXFP8", "seq": "4096", "gbs": "512",
    "mbs": "4", "tp": "1", "pp": "1", "vp": "1", "cp": "1", "ep": "8", "dp": "8", "fsdp": "", "release": "26.04",
}  # fmt: skip


def bridge(*changes):
    return run_table.runs([(f"row {number}", BRIDGE | each) for number, each in enumerate(changes)])


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("LLAMA3_8B", "llama3-8b"),
        ("LLAMA3-70B", "llama3-70b"),
        ("Llama 3.1 405B", "llama3-405b"),
        ("Llama3.3 70B Instruct", "llama3-70b"),
        ("Qwen3_30B_a3B", "qwen3-30b-a3b"),
        ("qwen3 235B A22B", "qwen3-235b-a22b"),
        ("DeepSeek V3", "deepseek-v3"),
        ("GPT OSS 120B", "gpt-oss-120b"),
        ("Kimi_K2", "kimi-k2"),
        ("GPT3 175B", "gpt3-175b"),
        ("Nemotron4-340B", "nemotron-4-340b"),
        ("gpt2-xl", "gpt2-xl"),
    ],
)
def test_a_model_is_known_by_its_name_however_it_is_spelt(name, known):
    assert named(name) == MODELS[known]


def test_a_name_and_a_system_stand_for_shape_accelerator_and_software():
    columns = {"layers": "48", "hidden": "2048", "heads": "32", "kv_heads": "4", "ffn": "6144", "vocab": "151936"}
    told = BRIDGE | columns | {"accel": "GB200", "software": "megatron-bridge", "release": ""}
    by_name, by_columns = bridge({}).cases, run_table.runs([("row", told)]).cases
    assert {key: value.tolist() for key, value in vars(by_name).items() if np.ndim(value)} == {
        key: value.tolist() for key, value in vars(by_columns).items() if np.ndim(value)
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "Mamba 3"}, f"model must have one of {', '.join(MODELS)} in its name, not 'Mamba 3'"),
        ({"system": "DGX-1"}, f"system must have one of {', '.join(ACCELERATORS)} in its name, not 'DGX-1'"),
        ({"model": ""}, "hidden must be a number, not ''"),
        ({"vocab": "1000"}, "vocab must be at least 151936, as in the config, not 1000"),
        ({"ep": "7"}, "ep must be a divisor of the experts and of dp * cp * tp (8), not 7"),
        ({"ep": "16"}, "ep must be a divisor of the experts and of dp * cp * tp (8), not 16"),
    ],
)
def test_an_unknown_name_is_one_line(change, said):
    with pytest.raises(InputError) as caught:
        bridge(change)
    assert str(caught.value) == f"row 0: {said}"


def test_whole_experts_are_dealt_to_ranks_of_tensor_parallelism_too():
    """Kimi-K2 on 1024 H100: tp 8, dp 8, ep 64. As many weights a rank, and wider products of fewer rows."""
    kimi = {
        "model": "Kimi K2",
        "system": "DGX-H100",
        "n_acc": "1024",
        "precision": "FP8",
        "gbs": "8192",
        "mbs": "1",
        "tp": "8",
    }
    kimi |= {"pp": "16", "vp": "2", "ep": "64", "dp": "8"}
    whole = bridge(kimi).cases
    cut = run_table.runs([("row", BRIDGE | kimi | {"ep": "8", "vp": "1", "software": "megatron-core"})]).cases
    stage = whole.pp[0] // 2
    assert stage_parameters(whole, stage)[1] == 4 * 6 * 3 * 7168 * 2048
    assert stage_parameters(cut, stage)[1] == 4 * 48 * 3 * 7168 * 2048 // 8
    assert (whole.expert_replicas[0], cut.expert_replicas[0]) == (1, 1)
    assert bridge(kimi | {"ep": "16"}).cases.expert_replicas[0] == 4
    assert run_table.network(bridge(kimi), FITTED).islands[0] == 8


def test_a_table_of_megatron_bridge_is_read_as_it_is(tmp_path):
    path = tmp_path / "bridge.csv"
    path.write_text(",".join(BRIDGE) + "\n" + ",".join(BRIDGE.values()) + "\n")
    runs = run_table.read(path)
    assert (runs.cases.zero[0], runs.cases.gradient_bytes[0], runs.island_gpus[0]) == (1, 2, 72)


def test_host_and_exchanges_are_as_the_release_has_them():
    """Launches bind small micro-batches until whole iterations are captured; then exchanges are hidden, too."""
    early, late, newest = (bridge({"release": each, "mbs": "1"}) for each in ("26.04", "26.06", ""))
    old, new = (run_table.predicted(each, FITTED) for each in (early, late))
    launches = 48 * 64 * (FITTED.forward_launch_seconds + FITTED.backward_launch_seconds + FITTED.expert_launch_seconds)
    assert launches < old.compute[0] < 1.2 * launches
    assert new.compute[0] < 0.8 * launches
    assert new.tensor[0] == 0 < old.tensor[0]
    assert run_table.predicted(newest, FITTED).total[0] == new.total[0]
    with pytest.raises(InputError, match=r"^row 0: release must be as 26.04 or 26.04.01, not 'soon'$"):
        bridge({"release": "soon"})


def test_a_run_takes_a_context_and_groups_besides_and_megatron_deepspeed_its_buckets():
    runs = of({"software": "megatron-core"}, {"software": "deepspeed"})
    found = run_table.predicted(runs, FITTED)
    besides = run_table.memory_gib(runs, found, FITTED) - found.memory.total / run_table.GIB
    assert besides == pytest.approx([3.0, FITTED.reserved_gib])


def test_dualpipe_holds_two_stages_and_a_micro_batch_more_than_stages():
    """[DeepSeek-V3, table 2]: parameters twice, activations pp + 1, of 1F1B once and pp."""
    plan = {"pp": 8, "gbs": 64, "vocab": 128, "zero": 0, "software": "megatron-core", "recompute": "none"}
    memory = predicted(*(plan | {"schedule": each} for each in ("1f1b", "dualpipe"))).memory
    assert memory.weights[1] == 2 * memory.weights[0]
    assert memory.activations[1] / memory.activations[0] == pytest.approx(9 / 8, rel=0.03)


@pytest.mark.parametrize(("gpus", "dp", "batch"), [(512, 16, 2048), (4096, 128, 2048), (11616, 363, 2904)])
def test_gpt3_in_fp8_on_many_h100_has_the_bubble_of_its_schedule_and_hides_most_of_the_rest(gpus, dp, batch):
    """Interleaved by 12 in 8 stages: (p - 1) / (v m) of the passes [Narayanan 2021, 2.2]; of a ring's pieces one is seen."""
    plan = {"tp": 4, "pp": 8, "vp": 12, "dp": dp, "gbs": batch, "n_acc": gpus, "precision": "fp8", "recompute": "none"}
    rows = [plan | {"accel": "H100", "overlap": each} for each in ("", "none")]
    found = predicted(*rows)
    micro_batches = batch / dp
    assert found.bubble[0] / (found.compute + found.tensor)[0] == pytest.approx(7 / (12 * micro_batches), rel=0.1)
    assert found.tensor[0] == pytest.approx(found.tensor[1] / 4)
    assert found.data[0] < 0.1 * found.total[0] < found.total[1]


@pytest.mark.parametrize(
    ("name", "pp", "virtual", "layout"),
    [
        ("deepseek-v3", 2, 8, [4] * 15 + [1]),
        ("deepseek-v3", 16, 1, [4] * 15 + [1]),
        ("deepseek-v3", 8, 4, [2] * 30 + [1, 0]),  # a layer with the embedding there, and the rest in pairs
        ("qwen3-235b-a22b", 8, 3, [4] * 23 + [2]),
        ("llama3-70b", 4, 5, [4] * 20),
    ],
)
def test_laid_out_stages_leave_the_last_what_is_left(name, pp, virtual, layout):
    """Et*4|(t*4|)*14tmL [NVIDIA, Megatron-Bridge, ``scripts/performance/configs``, DeepSeek-V3 on GB300]."""
    ep = 1 if "llama" in name else 8
    plan = {"model": name, "pp": str(pp), "vp": str(virtual), "ep": str(ep), "mbs": "1", "gbs": "1024"}
    cases = bridge(plan | {"n_acc": str(8 * pp)}).cases
    before = [int(cases.layers_before(chunk)[0]) for chunk in range(pp * virtual + 1)]
    assert np.diff(before).tolist() == layout
    assert [int(cases.stage_layers(stage)[0]) for stage in range(pp)] == [sum(layout[stage::pp]) for stage in range(pp)]


@pytest.mark.parametrize(
    ("name", "release", "hidden"),
    [("Qwen3 235B A22B", "26.04", True), ("DeepSeek V3", "25.11", True), ("DeepSeek V3", "26.04", False)],
)
def test_exchanges_over_nodes_of_h100_are_hidden_as_recipes_have_it(name, release, hidden):
    plan = {"model": name, "release": release, "system": "DGX-H100", "precision": "FP8-SC", "n_acc": "1024", "tp": "2"}
    plan |= {"pp": "8", "vp": "4", "ep": "64", "dp": "64", "mbs": "1", "gbs": "8192"}
    cases = bridge(plan, plan | {"overlap": "data"}).cases
    assert cases.hides_experts.tolist() == [hidden, False]
    assert not bridge(plan | {"ep": "8"}).cases.hides_experts[0]
