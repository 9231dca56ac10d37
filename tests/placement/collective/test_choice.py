"""Predicted times of collectives: closed forms, what the fluid model makes of the same sends, and bounds."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lightfabric.flows.command import collective as command
from lightfabric.flows.command import replay
from lightfabric.flows.format import timing_store
from lightfabric.flows.report import InputError
from lightfabric.model.fluid import engine as fluid
from lightfabric.model.fluid.network import star
from lightfabric.model.fluid.shortest import Topology
from lightfabric.model.spec import ChipletSpec, ElectricalClusterSpec, ElectricalSwitchSpec, SipRingSpec
from lightfabric.placement.collective.choice import fastest, predictions
from lightfabric.placement.collective.sends import Collective
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.format import chakra

ALPHA_PS, RATE, S = 2_000_000, 12.5e9, 1 << 24
KINDS = [Collective[name.upper().replace("-", "_")] for name in command.KINDS]


def switch(n):
    return lambda demand: [star(n, RATE, demand)]


def ring(n):
    """Links of one rate to either side."""
    place = np.arange(n)
    source, destination = np.tile(place, 2), np.concatenate([(place + 1) % n, (place - 1) % n])
    topology = Topology(n, place, source, destination, np.full(2 * n, RATE), np.zeros(2 * n, np.int64))
    return lambda demand: [topology.network(n, demand)]


@pytest.mark.parametrize("n", [4, 6, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_switch_the_time_is_the_closed_form(kind, n):
    for one in predictions(kind, range(n), S, switch(n), ALPHA_PS):
        form = one.latencies * ALPHA_PS / 1e12 + one.share * S / RATE
        # Not all members of a tree are busy in a step, but one of them always is.
        assert one.seconds == pytest.approx(form, rel=1e-9), one.algorithm


@pytest.mark.parametrize("n", [4, 6, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_the_fluid_model_takes_as_long_for_the_same_sends(tmp_path, chakra_collective, kind, n):
    chakra_collective(tmp_path, n, int(kind), S)
    for one in predictions(kind, range(n), S, switch(n), ALPHA_PS):
        if one.algorithm != "in-network":
            streams = [(tmp_path / f"job.{rank}.et").read_bytes() for rank in range(n)]
            graph = chakra.read(streams, {}, algorithm=lambda *_, name=one.algorithm: name)
            run = fluid.run(graph, star(n, RATE, graph.demand_bytes()), message_latency_ps=ALPHA_PS)
            # The fluid model lets a member of a tree go on when it can, and rounds pieces up to bytes.
            exact = kind != Collective.BROADCAST and not one.algorithm.startswith(("tree", "double-tree"))
            ratio = run.makespan_ps / 1e12 / one.seconds
            assert (abs(ratio - 1) < 1e-4) if exact else (0.6 < ratio < 1.0001), one.algorithm


@pytest.mark.parametrize("kind", KINDS)
def test_no_algorithm_is_below_the_bound_of_a_ring(kind):
    """What crosses the two links on each side of a cut in the middle, and what a member has to get or give."""
    n = 8
    half = {
        Collective.ALL_GATHER: S / 2, Collective.REDUCE_SCATTER: S / 2, Collective.ALL_REDUCE: S, Collective.BROADCAST: S,
        Collective.ALL_TO_ALL: n / 2 * S / 2,
    }[kind]  # fmt: skip
    found = predictions(kind, range(n), S, ring(n))
    assert min(one.seconds for one in found) >= half / (2 * RATE)
    assert len({one.algorithm for one in found}) == len(found) > 3


def test_each_fabric_has_another_best_all_reduce(invented_timing):
    chiplet = ChipletSpec(ports=4, wavelengths_per_port=4)
    specs = {
        "direct": ElectricalSwitchSpec("switch", "electrical-switch", gpu_gbps=800.0),
        "hierarchical-4": ElectricalClusterSpec(
            "islands", "electrical-cluster", island_gbps=3200.0, nic_gbps=100.0, island_gpus=4
        ),
        "bidirectional-ring": SipRingSpec("ring", "sip-ring", max_hops=4),
    }
    for best, spec in specs.items():
        networks = command.networks(fabric_of(spec, chiplet, invented_timing), 16)
        assert fastest(networks)(Collective.ALL_REDUCE, range(16), 1 << 30) == best


@pytest.mark.parametrize("size", [1 << 10, 1 << 30])
def test_auto_is_as_fast_as_the_best_of_the_others(tmp_path, chakra_collective, size):
    chakra_collective(tmp_path, 8, int(Collective.ALL_REDUCE), size)
    times = {
        name: replay.replay(tmp_path, 100.0, algorithm=name)["iteration_ms"]
        for name in ("auto", "ring", "tree", "direct", "halving-doubling")
    }
    assert times["auto"] == min(times.values()) < max(times.values())


def written(folder):
    """A ring of eight in a file of InfraGraph."""
    ends = [{"instance": f"gpu[{a}]", "component": "xpu"} for a in range(8)]
    links = [{"ep1": ends[a - 1], "ep2": ends[a], "scheme": "one2one", "link": "fibre"} for a in range(8)]
    device = {"name": "gpu", "components": [{"name": "xpu", "count": 1, "choice": "xpu"}]}
    net = {
        "devices": [device], "links": [{"name": "fibre"}], "instances": [{"name": "gpu", "device": "gpu", "count": 8}],
        "edges": links,
    }  # fmt: skip
    path = folder / "net.json"
    path.write_text(json.dumps(net))
    return path


def test_a_barrier_without_latency_has_an_algorithm_too():
    choose = fastest(switch(4))
    assert choose(Collective.BARRIER, range(4), 0) == "direct"
    assert choose(Collective.ALL_REDUCE, [3], 8) == choose(Collective.ALL_REDUCE, range(1 << 16), 8) == "ring"


def test_auto_chooses_on_the_links_of_a_topology(tmp_path, chakra_collective):
    chakra_collective(tmp_path, 8, int(Collective.ALL_GATHER), 1 << 24)
    path = written(tmp_path)
    found = replay.replay(tmp_path, 100.0, algorithm="auto", fabric=str(path), latency_ps=0)
    # Both links of a member bring half of what the seven others have.
    assert found["iteration_ms"] == pytest.approx(1e3 * (1 << 24) * 7 / 8 / (2 * 12.5e9), rel=1e-6)


@pytest.mark.parametrize(
    ("text", "size"), [("1B", 1), ("64MiB", 1 << 26), ("1.5 kB", 1500), ("2GB", 2 * 10**9), ("1KiB", 1024)]
)
def test_sizes_have_a_unit(text, size):
    assert command.bytes_of(text) == size


@pytest.mark.parametrize("text", ["64", "0B", "-1MB", "1e3MB", "2000TiB", "MB", "1 MBit"])
def test_other_sizes_are_refused(text):
    with pytest.raises(InputError, match="--bytes must be a size with unit such as 64MiB, from 1B to 1024TiB, not"):
        command.bytes_of(text)


def test_a_fabric_that_can_serve_no_pairs_is_left_out(invented_timing):
    """A GPU of one port cannot have both neighbours on its ring."""
    chiplet = replace(ChipletSpec(), ports=1)
    networks = command.networks(fabric_of(SipRingSpec("ring", "sip-ring", max_hops=4), chiplet, invented_timing), 4)
    assert networks({(0, 1): 5}) == []


def test_the_command_prints_all_algorithms_of_all_fabrics(invented_timing, monkeypatch, capsys):
    monkeypatch.setattr(timing_store, "measured_timing", lambda *_: invented_timing)
    command.main(gpus=8, kind="all-to-all", size="1MB", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["gpus"], found["bytes"], found["kind"]) == (8, 10**6, "all-to-all")
    for row in found["fabrics"]:
        seconds = [one["seconds"] for one in row["algorithms"]]
        assert seconds == sorted(seconds)
        assert row["best"] == row["algorithms"][0]["algorithm"]
    command.main(gpus=8, fabric="ideal switch")
    assert "in-network" in capsys.readouterr().out


def test_the_command_has_bound_and_schedule_of_a_topology_in_a_file(tmp_path, capsys):
    path = written(tmp_path)
    command.main(fabric=str(path), kind="all-gather", size="8MB", as_json=True)
    (row,) = json.loads(capsys.readouterr().out)["fabrics"]
    seconds = 7e6 / (2 * 12.5e9)
    assert row["best"] == "bidirectional-ring"
    assert (row["bound_s"], row["synthesised_s"], row["algorithms"][0]["seconds"]) == pytest.approx((seconds,) * 3)
    with pytest.raises(InputError, match=r"^--gpus must be from 2 to 8, not 9$"):
        command.main(gpus=9, fabric=str(path))
