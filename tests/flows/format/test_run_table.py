"""What joins the ranks of a run in a table: rates of rings by how many NICs of a node they pass."""

import pytest

from lightfabric.flows.format import run_table
from lightfabric.flows.format.run_system import SYSTEMS, accelerator
from lightfabric.model.spec import ACCELERATORS
from lightfabric.placement.cost.calibration import calibration

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


def test_few_micro_batches_hide_less():
    few, more, many = (overlapped(dp=64, vp=3, gbs=64 * count)[0] for count in (4, 8, 16))
    assert few > more == many


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


@pytest.mark.parametrize("precision", ["FP8", "FP8-CS", "FP8-MX", "MXFP8", "NVFP4"])
def test_narrow_products_are_faster_and_the_rest_is_not(precision):
    """Attention, logits and all that memory binds take as long as in 16 bits, so passes are less than 2 or 4 times as fast."""
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
    """14400 wide: 96 heads of 150 against 90 of 160."""
    odd, even = run_table.predicted(
        of(*({"hidden": 14400, "heads": heads, "tp": 2, "precision": "bf16/fp16"} for heads in (96, 90))), FITTED
    ).compute
    assert 1.01 < odd / even < 1.2


def test_megatron_deepspeed_pays_for_each_micro_batch_and_each_access():
    """Smaller micro-batches sum gradients more often, by kernels of their own."""
    rows = [{"precision": precision, "mbs": mbs} for precision in ("bf16/fp16", "fp16") for mbs in (1, 8)]
    often, seldom, plain_often, plain_seldom = run_table.predicted(of(*rows), FITTED).compute
    sums = 96 * 12 * 12288**2 / 8 * (FITTED.deepspeed_sum_bytes - 6) / (2039e9 * FITTED.memory_efficiency)
    assert often - plain_often == pytest.approx(seldom - plain_seldom + (64 - 8) * sums, rel=1e-3)
    assert seldom > plain_seldom
