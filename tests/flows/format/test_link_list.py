"""A custom fabric in a spec file: its links inline or from an InfraGraph topology, and refusals in one line."""

import pytest

from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.report import InputError
from lightfabric.model.fabric.fabric import fabric_of

SPEC = """
name = "mine"
gpus = [2]
[accelerator]
preset = "h100"
[job]
batch = 8
[job.model]
preset = "gpt2-xl"
[[fabrics]]
name = "chords"
kind = "custom"
"""
NET = """
devices:
  - {name: host, components: [{name: sw, count: 1, choice: switch}, {name: gpu, count: 1, choice: xpu}],
     links: [{name: l, physical: {PHYSICAL}}],
     edges: [{ep1: {component: "gpu[0]"}, ep2: {component: "sw[0]"}, scheme: one2one, link: l}]}
links: [{name: w, physical: {bandwidth: {gigabits_per_second: 100}}}]
instances: [{name: h, device: host, count: 2}]
edges: [{ep1: {instance: "h[0]", component: "sw[0]"}, ep2: {instance: "h[1]", component: "sw[0]"}, scheme: one2one, link: w}]
"""
FAST = "{bandwidth: {gigabytes_per_second: 50}, latency: {ns: 75}}"


def loaded(folder, text, physical=FAST):
    (folder / "net.yaml").write_text(NET.replace("{PHYSICAL}", physical))
    (folder / "my.toml").write_text(SPEC + text)
    return load_spec(folder / "my.toml")


def test_links_of_a_file_are_those_written_inline(tmp_path):
    spec = loaded(tmp_path, 'file = "net.yaml"')
    inline = loaded(tmp_path, "gpus = 2\nlinks = [[2, 0, 400, 75], [3, 1, 400, 75], [2, 3, 100, 0]]")
    ways = [fabric_of(each.fabrics[0], each.chiplet).network(2, [(0, 1)]) for each in (spec, inline)]
    for network in ways:
        route = network.route(0, 1)
        assert network.bytes_per_s[route].tolist() == [50e9, 12.5e9, 50e9]
        assert network.latency_ps[route].tolist() == [75_000, 0, 75_000]


@pytest.mark.parametrize(
    ("text", "physical", "message"),
    [
        ("file = 3", FAST, r"fabrics\[0\].file must be the path of an InfraGraph topology, not 3"),
        ('file = "net.yaml"\ngpus = 2', FAST, r"fabrics\[0\].file must be left out beside gpus, not 'net.yaml'"),
        ('file = "net.yaml"', "{}", r"fabrics\[0\].file must say the bandwidth of each link in use, not leave one out"),
        ('file = "none.yaml"', FAST, "none.yaml"),
        ("gpus = 2", FAST, r"fabrics\[0\].links must be given, not left out"),
        (
            "gpus = 2\nlinks = [[0, 0]]",
            FAST,
            r"fabrics\[0\].links must be between different vertices from 0 to 2047, a pair",
        ),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, text, physical, message):
    with pytest.raises(InputError, match=message) as error:
        loaded(tmp_path, text, physical)
    assert "\n" not in str(error.value)
