"""What joins the ranks of a run in a table: rates of rings by how many NICs of a node they pass."""

import pytest

from lightfabric.flows.format import run_table
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
