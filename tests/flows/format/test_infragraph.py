"""InfraGraph topologies: taken apart as its own service does it, and never faster than what is known of two machines.

What is expected are edges that the service of PyPI's ``infragraph`` 3.1.0 makes of the same file.
"""

import json
import re
from pathlib import Path

import pytest
import yaml

from lightfabric.flows.command import place, replay
from lightfabric.flows.format import infragraph, timing_store
from lightfabric.flows.report import InputError
from lightfabric.model.fabric.fabric import fabric_of
from lightfabric.model.spec import ChipletSpec, ElectricalClusterSpec, ElectricalSwitchSpec

FABRICS = (
    ElectricalSwitchSpec("switch", "electrical-switch", gpu_gbps=1024.0),
    ElectricalClusterSpec("islands", "electrical-cluster", island_gbps=1024.0, nic_gbps=100.0, island_gpus=4),
)


SMALL = Path(__file__).parents[3] / "examples" / "small.toml"


def component(name, count, choice, **given):
    return {"name": name, "count": count, "choice": choice, **given}


def edge(ep1, ep2, link, scheme="one2one"):
    """Ends are components of a device, or (instance, component)."""
    ends = ({"component": end} if isinstance(end, str) else {"instance": end[0], "component": end[1]} for end in (ep1, ep2))
    return dict(zip(("ep1", "ep2"), ends, strict=True)) | {"link": link, "scheme": scheme}


def link(name, gbytes_per_s, us):
    physical = {
        "bandwidth": {"choice": "gigabytes_per_second", "gigabytes_per_second": gbytes_per_s},
        "latency": {"choice": "us", "us": us},
    }
    return {"name": name, "physical": physical}


NIC = {
    "name": "cx5", "components": [component("port", 2, "port"), component("asic", 1, "custom", custom={"type": "asic"})],
    "links": [{"name": "trace"}], "edges": [edge("port", "asic", "trace", "many2many")],
}  # fmt: skip
BOX = {
    "name": "box", "components": [component("xpu", 4, "xpu"), component("cx5", 2, "device")],
    "links": [{"name": "pcie", "physical": {"bandwidth": {"gigabits_per_second": 256}, "latency": {"ns": 70}}}],
    "edges": [edge("xpu[0:2]", "cx5[0].asic[0]", "pcie", "many2many"), edge("xpu[2:]", "cx5[1].asic", "pcie", "many2many")],
}  # fmt: skip
SWITCH = {
    "name": "tor", "components": [component("port", 8, "port"), component("asic", 1, "switch")],
    "links": [{"name": "trace"}], "edges": [edge("asic", "port", "trace", "many2many")],
}  # fmt: skip
TOPOLOGY = {
    "name": "two boxes", "devices": [BOX, SWITCH, NIC], "links": [{"name": "cable", "physical": {"latency": {"us": 1}}}],
    "instances": [{"name": "host", "device": "box", "count": 2}, {"name": "tor", "device": "tor", "count": 1}],
    "edges": [
        edge(("host", "cx5.port"), ("tor[0]", "port"), "cable"),
        edge(("host[-1]", "xpu[1:4:2]"), ("host[0]", "xpu[::-3]"), "cable"),
    ],
}  # fmt: skip


def written(folder, document, name="net.yaml"):
    path = folder / name
    path.write_text(json.dumps(document) if name.endswith("json") else yaml.safe_dump(document))
    return path


def expanded(path):
    graph = infragraph._Annotated.model_validate({"infrastructure": yaml.safe_load(path.read_text())})
    made = infragraph._Expansion(graph.infrastructure)
    made.topology(graph.annotations, 1.0)
    return made


@pytest.mark.parametrize("name", ["net.yaml", "net.json", "net.yml"])
def test_devices_in_devices_and_slices_are_taken_apart(tmp_path, name):
    path = written(tmp_path, TOPOLOGY, name)
    made = infragraph.read(path, 100.0)
    found = expanded(path)
    joined = {frozenset(ends): each.name for ends, each in found.edges.items()}
    expected = {}
    for host in range(2):
        for xpu in range(4):
            expected[frozenset((f"host.{host}.xpu.{xpu}", f"host.{host}.cx5.{xpu // 2}.asic.0"))] = "pcie"
        for nic in range(2):
            for port in range(2):
                expected[frozenset((f"host.{host}.cx5.{nic}.port.{port}", f"host.{host}.cx5.{nic}.asic.0"))] = "trace"
                above = f"tor.0.port.{4 * host + 2 * nic + port}"
                expected[frozenset((f"host.{host}.cx5.{nic}.port.{port}", above))] = "cable"
    expected |= {frozenset(("tor.0.asic.0", f"tor.0.port.{port}")): "trace" for port in range(8)}
    expected |= {frozenset(("host.1.xpu.1", "host.0.xpu.3")): "cable", frozenset(("host.1.xpu.3", "host.0.xpu.0")): "cable"}
    assert joined == expected
    assert [*found.vertices][:6] == [
        *(f"host.0.xpu.{xpu}" for xpu in range(4)), "host.0.cx5.0.port.0", "host.0.cx5.0.port.1",
    ]  # fmt: skip
    assert len(made.ranks) == 8
    assert len(made.source) == 2 * len(expected)
    # Of the first rank to its asic 256 Gbps and 70 ns as told, and of the trace the default.
    first = (made.source == made.ranks[0]).nonzero()[0][0]
    assert (made.bytes_per_s[first], made.latency_ps[first]) == (32e9, 70_000)
    assert made.bytes_per_s.min() == 12.5e9
    assert sorted({*made.latency_ps.tolist()}) == [0, 70_000, 1_000_000]


def test_ranks_are_those_of_the_annotations(tmp_path):
    nodes = [
        {"name": f"host.{host}.xpu.{xpu}", "attributes": [{"attribute": "rank", "value": str(2 * xpu + host)}]}
        for host in range(2) for xpu in range(4)
    ]  # fmt: skip
    path = written(tmp_path, {"infrastructure": TOPOLOGY, "annotations": {"nodes": nodes}})
    ranks = infragraph.read(path, 100.0).ranks.tolist()
    plain = infragraph.read(written(tmp_path, TOPOLOGY, "plain.yaml"), 100.0).ranks.tolist()
    assert ranks == [plain[4 * host + xpu] for xpu in range(4) for host in range(2)]
    nodes[0]["attributes"][0]["value"] = "8"
    with pytest.raises(InputError, match=r"annotations.nodes must have ranks 0 to 7 on components, not "):
        infragraph.read(written(tmp_path, {"infrastructure": TOPOLOGY, "annotations": {"nodes": nodes}}), 100.0)


def without(*keys, **changes):
    """The topology with a value changed or left out, somewhere inside."""
    document = json.loads(json.dumps(TOPOLOGY))
    inside = document
    for key in keys[:-1]:
        inside = inside[key]
    if changes:
        inside[keys[-1]] = changes["to"]
    else:
        del inside[keys[-1]]
    return json.dumps(document)


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\n"
XPU, NICS, EDGE = ("devices", 0, "components", 0), ("devices", 0, "components", 1), ("devices", 0, "edges", 0)
CABLE = ("links", 0, "physical")
LARGEST = "devices must be of at most 262144 components and 2097152 edges in all, not more"


def end(component):
    return without(*EDGE, "ep1", "component", to=component)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be an object with devices and instances, not "),
        ("[1, 2", "must be YAML, not: while parsing a flow sequence"),
        ("5", "must be an object with devices and instances, not 5"),
        ("[" * 100_000, "must be YAML, not: "), ("[" * 20 + "]" * 20, "line 1 must be at most 16 levels deep, not deeper"),
        (BOMB, "line 2 must have no alias, not *a"), ("\x00", "must be YAML, not: "), ("[]", "must be "),
        (without("devices"), "devices must be given, not left out"),
        (without("instances"), "instances must be given, not left out"),
        (without(*XPU, "count"), "devices.0.components.0.count must be given, not left out"),
        (without(*XPU, "count", to=-1), "devices.0.components.0.count must be greater than or equal to 0, not -1"),
        (without(*XPU, "count", to=10**12), "devices.0.components.0.count must be less than or equal to 262144, not 10"),
        (without(*XPU, "choice", to="gpu"), "devices.0.components.0.choice must be 'custom', "),
        (without(*XPU, "choice", to="nic"), "devices must have a component of choice xpu in an instance, not none"),
        (without(*NICS, "name", to="cx6"), "devices must have one of each name that is used, not none named 'cx6'"),
        (
            without("devices", 2, "components", 0, to=component("cx5", 1, "device")),
            "device 'cx5' must be no part of itself, as it is in box in cx5",
        ),
        (without(*EDGE, "scheme", to="ring"), "devices.0.edges.0.scheme must be 'one2one' or 'many2many', not 'ring'"),
        (without(*EDGE, "link", to="nvlink"), "device 'box': edge 0.link must be one of pcie, not 'nvlink'"),
        (end("xpu[4]"), "device 'box': edge 0 must be of the 4 that there are, not 'xpu[4]'"),
        (end("gpu[1]"), "device 'box': edge 0 must name one of xpu, cx5 with numbers, not 'gpu[1]'"),
        (end("xpu[0:4:0]"), "device 'box': edge 0 must have a step other than 0, not 'xpu[0:4:0]'"),
        (end("xpu[-]"), "device 'box': edge 0 must name one of xpu, cx5 with numbers, not 'xpu[-]'"),
        (end("xpu[a]"), "device 'box': edge 0 must name one of xpu, cx5 with numbers, not 'xpu[a]'"),
        (without("edges", 0, "ep1", "instance"), "edges.0.ep1.instance must be given, not left out"),
        (without("edges", 0, "ep1", "instance", to="rack"), "edge 0 must name one of host, tor with numbers, not 'rack'"),
        (without("edges", 0, "ep1", "component", to="cx5"), "edges must be between components that are no devices"),
        (without("edges", 0, "link", to="trace"), "edge 0.link must be one of cable, not 'trace'"),
        (without("instances", 0, "count", to=200_000), LARGEST),
        (without("devices", 1, "components", 0, "count", to=250_000), LARGEST),
        (
            without(*CABLE, "bandwidth", to={"gigabits_per_second": 1, "gigabytes_per_second": 1}),
            "link 'cable' must have one bandwidth in gigabits_per_second or gigabytes_per_second, not ",
        ),
        (
            without(*CABLE, "bandwidth", to={"gigatransfers_per_second": 16}),
            "link 'cable' must have one bandwidth in gigabits_per_second or gigabytes_per_second, not gigatransfers",
        ),
        (without(*CABLE, "bandwidth", to={"gigabits_per_second": 0}), "gigabits_per_second must be greater than"),
        (without(*CABLE, "latency", to={"us": 1, "ns": 1}), "link 'cable' must have one latency, not ns, us"),
        (without(*CABLE, "latency", to={"us": "soon"}), "links.0.physical.latency.us must be a valid number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path, text, says):
    path = tmp_path / "net.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: [^\n]*{re.escape(says)}[^\n]*$"):
        infragraph.read(path, 100.0)


@pytest.mark.parametrize("name", ["net.yaml", "net.json"])
@pytest.mark.parametrize("spec", FABRICS, ids=lambda spec: spec.kind)
def test_a_fabric_that_is_written_comes_back_as_it_was(tmp_path, invented_timing, spec, name):
    pairs = [(a, b) for a in range(6) for b in range(6) if a != b]
    before = fabric_of(spec, ChipletSpec(), invented_timing).network(6, pairs)
    infragraph.write(tmp_path / name, before)
    after = infragraph.read(tmp_path / name, 1.0).network(6, pairs)
    for a, b in pairs:
        ways = [(network, network.route(a, b)) for network in (before, after)]
        rates, latencies = ([getattr(network, of)[way] for network, way in ways] for of in ("bytes_per_s", "latency_ps"))
        assert rates[1] == pytest.approx(rates[0], rel=1e-12)
        # The switch's latency is a half on each side of it now, and a half of a picosecond is rounded.
        assert latencies[1].sum() == pytest.approx(latencies[0].sum(), abs=len(latencies[0]) / 2)


def test_place_writes_the_fabric_that_it_placed_on(tmp_path, capsys, monkeypatch, invented_timing):
    monkeypatch.setattr(timing_store, "measured_timing", lambda *_: invented_timing)
    path = tmp_path / "net.yaml"
    place.main(SMALL, 16, "ideal switch", as_json=True, topology=path)
    assert len(infragraph.read(path, 1.0).ranks) == json.loads(capsys.readouterr().out)["gpus"]
    with pytest.raises(InputError, match=r"^--topology must be of a fabric that InfraGraph can describe, but of SiP-OCS: "):
        place.main(SMALL, 16, "SiP-OCS", as_json=True, topology=path)
    with pytest.raises(InputError, match=r"^--topology must be with one --fabric of .*, not none$"):
        place.main(SMALL, 16, None, as_json=True, topology=path)


def ring(ranks):
    """A program in which each rank sends 125 000 bytes to the next."""
    lines = [f"num_ranks {ranks}"]
    for rank in range(ranks):
        ends = (rank + 1) % ranks, (rank - 1) % ranks
        lines.append(f"rank {rank} {{\nsend 125000b to {ends[0]}\nrecv 125000b from {ends[1]}\n}}")
    return "\n".join(lines)


def test_a_program_replays_on_a_topology(tmp_path, capsys):
    (tmp_path / "job.goal").write_text(ring(8))
    path = written(tmp_path, TOPOLOGY)
    replay.main(tmp_path / "job.goal", "100Gbps", str(path), as_json=True, latency="0s")
    found = json.loads(capsys.readouterr().out)
    # From rank 0 to 1 over their asic at 32 GB/s, from 1 to 2 over trace, cable and switch at the default of 12.5 GB/s.
    assert found["iteration_ms"] == pytest.approx((10 + 2 * 0.07 + 2 * 1) / 1000)
    assert (found["fabric"], found["devices"]) == (str(path), 8)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"fabric": "torus"}, "--fabric must be one of "),
        ({"fabric": "absent.yaml"}, "absent.yaml: must be an InfraGraph topology that can be read, not: No such file"),
        ({"fabric": "net.yaml", "fidelity": "cycle"}, "--fidelity must be fluid unless --fabric is ideal-switch, not cycle"),
        ({"fabric": "net.yaml"}, "net.yaml: must have an xpu for each of 9 ranks, not 8"),
        ({"fabric": "apart.yaml"}, "apart.yaml: links must join rank "),
    ],
)  # fmt: skip
def test_a_topology_that_does_not_fit_is_one_line(tmp_path, monkeypatch, given, says):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, TOPOLOGY)
    apart = written(
        tmp_path, TOPOLOGY | {"edges": [], "instances": [{"name": "host", "device": "box", "count": 3}]}, "apart.yaml"
    )
    assert apart.is_file()
    (tmp_path / "job.goal").write_text(ring(9))
    with pytest.raises(InputError) as error:
        replay.main(tmp_path / "job.goal", "100Gbps", **given)
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


DGX2 = {
    "devices": [
        {
            "name": "dgx2",
            "components": [component("xpu", 16, "xpu"), component("nvswitch", 1, "switch"), component("port", 8, "port")],
            "links": [link("nvlink", 125, 0.35), link("inside", 12.5, 0)],
            "edges": [edge("xpu", "nvswitch", "nvlink", "many2many"), edge("port", "nvswitch", "inside", "many2many")],
        }
    ],
    "links": [link("cable", 12.5, 2.6)], "instances": [{"name": "box", "device": "dgx2", "count": 2}],
    "edges": [edge(("box[0]", "port"), ("box[1]", "port"), "cable")],
}  # fmt: skip
NVLINKS = {
    25: ["01", "02", "13", "26", "37", "45", "46", "57"], 50: ["03", "04", "12", "15", "23", "47", "56", "67"],
}  # fmt: skip
"""Of a DGX-1 with V100s: one link or two of 25 GB/s between some GPUs, 6 at each ("NVIDIA DGX-1", white paper, figure 4)."""
NDV2 = {
    "devices": [
        {
            "name": "ndv2", "components": [component("xpu", 8, "xpu")],
            "links": [link(f"nvlink{rate}", rate, 0.7) for rate in NVLINKS],
            "edges": [
                edge(f"xpu[{a}]", f"xpu[{b}]", f"nvlink{rate}") for rate, pairs in NVLINKS.items() for a, b in pairs
            ],
        }
    ],
    "links": [link("cable", 12.5, 1.3)], "instances": [{"name": "box", "device": "ndv2", "count": 2}],
    "edges": [edge(("box[0]", "xpu[0]"), ("box[1]", "xpu[0]"), "cable")],
}  # fmt: skip
ALL_GATHER, ALL_TO_ALL = 2, 6
BOUND_US_AT_1_GB = {("dgx2", ALL_GATHER): 7750, ("dgx2", ALL_TO_ALL): 80_000, ("ndv2", ALL_GATHER): 40_000}
"""Bounds of TE-CCL's set-ups (SIGCOMM 2024) for an output buffer of a gigabyte: the slowest cut at its full rate."""


@pytest.mark.parametrize("size", [64 * 10**3, 10**6, 16 * 10**6, 10**9])
@pytest.mark.parametrize("algorithm", ["ring", "tree", "direct", "halving-doubling"])
@pytest.mark.parametrize(("machine", "kind"), BOUND_US_AT_1_GB)
def test_no_collective_is_faster_than_its_bound(tmp_path, chakra_collective, machine, kind, algorithm, size):
    path = written(tmp_path, {"dgx2": DGX2, "ndv2": NDV2}[machine])
    chakra_collective(tmp_path, {"dgx2": 32, "ndv2": 16}[machine], kind, size)
    found_us = replay.replay(tmp_path, 100.0, latency_ps=0, algorithm=algorithm, fabric=str(path))["iteration_ms"] * 1000
    across_us = {"dgx2": 2.6 + 2 * 0.35, "ndv2": 1.3}[machine]
    assert found_us >= max(BOUND_US_AT_1_GB[machine, kind] * size / 1e9, across_us)


def test_an_all_to_all_shares_out_the_links_between_the_boxes(tmp_path, chakra_collective):
    """So it is at its bound but for the latency."""
    path = written(tmp_path, DGX2)
    chakra_collective(tmp_path, 32, ALL_TO_ALL, 10**9)
    found_us = replay.replay(tmp_path, 100.0, latency_ps=0, fabric=str(path))["iteration_ms"] * 1000
    assert found_us == pytest.approx(80_000 + 2.6 + 2 * 0.35, abs=0.01)
