"""``lightfabric topology``: what it writes is a spec whose fabric can be built, and what it prints is in order."""

import json

import pytest

from lightfabric.flows.command import topology
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.report import InputError
from lightfabric.placement.fabric.fabric import fabric_of


def test_the_fabric_that_is_found_is_added_to_a_spec(tmp_path, capsys):
    path = tmp_path / "net.toml"
    topology.main(shape="4x8", cube_edge=2, steps=50, output=path, as_json=True)
    told = json.loads(capsys.readouterr().out)
    spec = load_spec(path)
    assert [fabric.name for fabric in spec.fabrics[:-1]] == [fabric.name for fabric in load_spec(None).fabrics]
    fabric = fabric_of(spec.fabrics[-1], spec.chiplet)
    assert (fabric.name, told["permutations"]) == ("synthesised 4x8", [[*each] for each in fabric.spec.permutations])
    assert len(fabric.wires(32).source) == 32 * 4
    loads = {row["cabling"]: row for row in told["loads"]}
    assert loads["torus"]["split"] == 32  # of the 16 in each half to the 16 in the other, over 8 links
    assert loads["twisted-torus"]["bound"] == loads["twisted-torus"]["split"] == pytest.approx(21)
    assert loads["any"]["bound"] <= loads["synthesised"]["bound"] <= loads["synthesised"]["split"]
    with pytest.raises(InputError, match=r"net.toml: fabrics must be of names other than 'synthesised 4x8', which is"):
        topology.main(path, shape="4x8", cube_edge=2, steps=50, output=path)


def test_the_table_has_bounds_beside_what_was_found(capsys):
    topology.main(shape="4x8", cube_edge=2, steps=50)
    output = capsys.readouterr().out
    assert [line.split()[1] for line in output.splitlines() if line.startswith("│")] == [
        "torus", "twisted-torus", "synthesised", "any",
    ]  # fmt: skip
    assert "for any cabling the least that there can be" in output
