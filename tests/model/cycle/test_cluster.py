"""Task graphs on the cycle model: against closed forms, the fluid model, and by hand."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightfabric.flows.experiment.allreduce import all_reduce, cabling, closed_form_cycles, measure
from lightfabric.model.circuit import Circuits, joined
from lightfabric.model.cycle.cabling import ElectricalCabling, Hub, circuit_switched, ring
from lightfabric.model.cycle.cluster import Cluster
from lightfabric.model.fabric.fabric import fabric_of
from lightfabric.model.fluid import engine as fluid
from lightfabric.model.fluid.network import star
from lightfabric.model.spec import ChipletSpec, ElectricalClusterSpec, MixnetSpec, PhotonicRailsSpec, SipOcsSpec, TopooptSpec
from lightfabric.model.task import Kind, Part, TaskGraph
from lightfabric.model.timing import Timing
from lightfabric.placement.fabric.fabric import fabric_of as placement_fabric
from lightfabric.placement.graph.builder import Builder
from lightfabric.placement.graph.rings import in_rings
from lightfabric.sim.characterize import characterize

SPEC = ChipletSpec(ports=2, wavelengths_per_port=8, flit_bytes=64, buffer_flits=120, reach_m=21.0)
PAYLOAD = SPEC.payload_bytes


@pytest.fixture(scope="module")
def timing() -> Timing:
    return characterize(SPEC)


def graph(gpus: int, *tasks: tuple[Kind, int, int, int], after: tuple[tuple[int, int], ...] = ()) -> TaskGraph:
    """Tasks (kind, device, peer, work), and who comes after whom; one group of all GPUs."""
    kind, device, peer, work = (np.array(column) for column in zip(*tasks, strict=True))
    edges = sorted(after)
    return TaskGraph(
        gpus,
        kind.astype(np.int8),
        device.astype(np.int32),
        work.astype(np.int64),
        peer.astype(np.int32),
        np.ones(len(tasks), np.int32),
        np.searchsorted([before for before, _ in edges], np.arange(len(tasks) + 1)).astype(np.int64),
        np.array([then for _, then in edges], np.int32),
        np.array([0, gpus], np.int64),
        np.arange(gpus, dtype=np.int32),
    )


def cycles(times_ps) -> list[int]:
    return np.rint(np.asarray(times_ps) / SPEC.cycle_ps).astype(int).tolist()


def latency_cycles(timing: Timing, delay_cycles: int) -> int:
    return timing.client.latency_cycles + timing.link.latency_cycles + delay_cycles + 2 * timing.switch.latency_cycles


@pytest.mark.parametrize("fabric", ["ring", "ocs"])
@pytest.mark.parametrize(("gpus", "flits"), [(2, 1), (3, 2), (8, 7), (16, 60)])
def test_a_ring_all_reduce_takes_its_closed_form(fabric, gpus, flits, timing):
    size = gpus * flits * PAYLOAD
    made = replace(cabling(fabric, gpus, SPEC.ports), fibre_m=21.0)
    cluster = Cluster(all_reduce(gpus, size), SPEC, timing, made)
    seen = cluster.run().makespan_ps / SPEC.cycle_ps
    lanes = 1 if fabric == "ring" and gpus > 2 else 2  # of two GPUs the next one is the one before
    wanted = closed_form_cycles(gpus, size, lanes, cluster.delay_cycles, SPEC, timing)
    slots = 2 * (gpus - 1) * 2  # a chunk may wait for a slot of the line at its beginning and at its end
    assert wanted <= seen <= wanted + slots + 2
    assert cluster.flits_per_link().sum() == 2 * (gpus - 1) * gpus * flits


@pytest.mark.parametrize("gpus", [3, 6])
def test_over_a_hub_a_message_takes_two_links_a_switch_and_its_own_latency(gpus, timing):
    flits, more = 7, 50
    size = gpus * flits * PAYLOAD
    cluster = Cluster(
        all_reduce(gpus, size), SPEC, timing, ElectricalCabling((Hub(np.arange(gpus, dtype=np.int32), 5000.0),)), more
    )
    seen = cluster.run().makespan_ps / SPEC.cycle_ps
    step = 2 * (timing.link.latency_cycles + cluster.delay_cycles) + timing.switch.latency_cycles
    step += timing.client.latency_cycles + 1 + more
    wanted = 2 * (gpus - 1) * (step + (flits - 1) * float(timing.link.cycles_per_flit))
    assert wanted <= seen <= wanted + 2 * (gpus - 1) * 2 + 2


def test_a_hub_has_as_many_ports_as_a_switch():
    with pytest.raises(ValueError, match=r"^Hub.gpus must be 1 to 64, not 65$"):
        Hub(np.arange(65, dtype=np.int32), 1.0)


def test_transfers_computations_and_barriers_follow_each_other(timing):
    work_ps = round(100 * SPEC.cycle_ps)
    made = graph(
        3,
        (Kind.COMPUTE, 0, -1, work_ps),
        (Kind.COMPUTE, 0, -1, work_ps),
        (Kind.TRANSFER, 0, 1, PAYLOAD),
        (Kind.BARRIER, -1, -1, 0),
        (Kind.COMPUTE, 1, -1, work_ps),
        (Kind.TRANSFER, 2, 2, 5000),
        after=((0, 2), (2, 3), (1, 3), (3, 4)),
    )
    cluster = Cluster(made, SPEC, timing, ring(3, 2, 1.0))
    schedule = cluster.run()
    arrives = 101 + latency_cycles(timing, cluster.delay_cycles)
    both = max(arrives, 200) + 1
    assert cycles(schedule.start_ps) == [0, 100, 101, both, both + 1, 0]
    assert cycles(schedule.finish_ps) == [100, 200, arrives, both, both + 101, 0]
    assert schedule.limit.tolist() == [-1, -1, 0, -1, -1, -1]


def test_two_transfers_share_their_lanes_which_run_at_the_rate_of_the_line(timing):
    flits = 2000
    made = graph(2, (Kind.TRANSFER, 0, 1, flits * PAYLOAD), (Kind.TRANSFER, 0, 1, flits * PAYLOAD))
    schedule = Cluster(made, SPEC, timing, ring(2, 2, 1.0)).run()  # of two GPUs the next one is the one before: two lanes
    first, last = sorted(cycles(schedule.finish_ps))
    assert last == pytest.approx(flits * float(timing.link.cycles_per_flit), rel=0.02)
    assert last - first < 0.02 * last


def test_the_fluid_model_says_the_same_but_for_flits_and_latency(timing):
    gpus, size = 8, 400_000
    made = graph(
        gpus,
        (Kind.ALL_REDUCE, 0, 0, size),
        (Kind.COMPUTE, 3, -1, 5_000_000),
        (Kind.TRANSFER, 3, 4, size),
        after=((0, 1), (1, 2)),
    )
    rate = PAYLOAD / (float(timing.link.cycles_per_flit) * SPEC.cycle_ps * 1e-12)
    of_fluid = fluid.run(made, star(gpus, rate, made.demand_bytes()))
    of_cycles = Cluster(made, SPEC, timing, ring(gpus, 2, 1.0)).run()
    steps = 2 * (gpus - 1) + 1
    slack_ps = steps * (latency_cycles(timing, 5) + 4) * SPEC.cycle_ps
    assert of_fluid.makespan_ps < of_cycles.makespan_ps < 1.01 * of_fluid.makespan_ps + slack_ps


def test_rings_of_a_cluster_take_the_time_of_the_fluid_model(timing):
    """As long as one in rings of a network card each, to the latency of the steps, which flits hide behind each other."""
    islands = ElectricalClusterSpec(
        "islands", "electrical-cluster", island_gbps=512.0, nic_gbps=128.0, island_gpus=4, nic_latency_us=0.01
    )
    fabric = fabric_of(islands, SPEC, timing)
    made = in_rings(all_reduce(8, 1_600_000), fabric.rings)
    network = fabric.network(8, made.demand_bytes())
    of_fluid = fluid.run(made, network).makespan_ps
    of_cycles = Cluster(made, fabric.cycle_chiplet, fabric.cycle_timing, fabric.cabling(8)).run().makespan_ps
    late_ps = 14 * max(int(network.latency_ps[network.route(*pair)].sum()) for pair in ((0, 1), (3, 4)))
    assert of_fluid - late_ps < of_cycles < 1.02 * of_fluid


def test_rings_that_cross_are_the_same_wherever_they_start(timing):
    """Rotated by any number of GPUs, all that happens is the same: no order of blocks decides."""
    size = 40 * PAYLOAD
    tasks = [(Kind.TRANSFER, n, (n + 1) % 6, (n + 1) * size) for n in range(6)]
    tasks += [(Kind.TRANSFER, (n + 1) % 6, n, size) for n in range(3)] + [(Kind.ALL_REDUCE, 0, 0, 9 * size)]
    made = graph(6, *tasks, after=((0, 7), (1, 9), (2, 8)))
    seen = [
        Cluster(made.placed(((np.arange(6) + shift) % 6).astype(np.int32)), SPEC, timing, ring(6, 2, 2.0)).run()
        for shift in (0, 1, 5)
    ]
    for other in seen[1:]:
        assert other.start_ps.tolist() == seen[0].start_ps.tolist()
        assert other.finish_ps.tolist() == seen[0].finish_ps.tolist()


@pytest.mark.parametrize("until_cycle", [3, 50, 333, 10_000])
def test_flits_sent_are_taken_or_on_the_way(until_cycle, timing):
    cluster = Cluster(all_reduce(5, 90_000), SPEC, timing, cabling("ocs", 5, SPEC.ports))
    cluster.system.run(until_cycle)
    sent, taken = (sum(int(gpu.state[name]) for gpu in cluster.gpus) for name in ("sent", "taken"))
    fifo = cluster.system.channels.fifo
    assert sent - taken == int((fifo["tail"] - fifo["head"]).sum())
    assert sent > 0


def test_a_pair_without_a_circuit_is_named(timing):
    made = graph(4, (Kind.TRANSFER, 0, 2, 1))
    with pytest.raises(ValueError, match=r"^Cabling must have a circuit from GPU 0 to GPU 2, not none$"):
        Cluster(made, SPEC, timing, ring(4, 2, 1.0))


def test_cablings_that_cannot_be_are_named():
    with pytest.raises(ValueError, match=r"^ring.ports must be even and gpus at least 2, not 3 and 4$"):
        ring(4, 3, 1.0)
    with pytest.raises(ValueError, match=r"permutations must have a permutation of 0..2 in each row$"):
        circuit_switched([[0, 1, 1]], 1.0)


def test_without_numba_the_same_happens():
    code = (
        "from lightfabric.flows.experiment.allreduce import all_reduce, cabling; "
        "from lightfabric.model.cycle.cluster import Cluster; "
        "from lightfabric.model.spec import ChipletSpec; from dataclasses import fields; "
        "from lightfabric.model.timing import ClientTiming, LinkTiming, SwitchTiming, Timing; "
        "link = LinkTiming(**{field.name: 3 for field in fields(LinkTiming)}); "
        "timing = Timing(link, SwitchTiming(2, 1, 1, 2), ClientTiming(1, 1, 1, 4), '', '', ''); "
        f"spec = {SPEC!r}; cluster = Cluster(all_reduce(3, 900), spec, timing, cabling('ring', 3, 2)); "
        "print(cluster.run().makespan_ps, cluster.flits_per_link().tolist())"
    )
    seen = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"NUMBA_DISABLE_JIT": off},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for off in "01"
    ]
    assert seen[0] == seen[1]


@pytest.mark.slow
def test_a_thousand_chiplets_reduce_a_megabyte_each_in_the_closed_form_as_the_readme_says():
    result = measure()
    quoted = (", ".join(f"{row[key]:.0f}" for row in result["fabrics"]) for key in ("closed_form_cycles", "cycles"))
    assert f"| {' | '.join(quoted)} |" in (Path(__file__).parents[3] / "README.md").read_text()
    assert result["peak_memory_bytes"] < 2e9
    for row in result["fabrics"]:
        assert row["cycles"] == pytest.approx(row["closed_form_cycles"], rel=0.01)
        assert row["flits"] == 2 * 1023 * 1024 * 9


def both_models(made, circuits, spec, timing):
    """The graph as it runs on circuits that change, its schedules by flits and as fluids, and how long ports are dark."""
    fabric = placement_fabric(spec, SPEC, timing)
    made = fabric.reconfigured(made, circuits)
    flits = Cluster(made, SPEC, timing, fabric.cabling(made.devices, circuits)).run()
    fluids = fluid.run(made, fabric.network(made.devices, made.demand_bytes(), circuits))
    return made, flits, fluids, fabric.dark_ps(4, circuits)


def two_ports_each(*pairings):
    """Circuits both ways between the pairs of each configuration; gradients are in the second one."""
    ways = [[(int(a), int(b)) for a, b in (*pairs, *pairs[:, ::-1])] for pairs in pairings]
    return joined([Circuits(dict.fromkeys(own, 2), {way: way for way in own}) for own in ways], (0, 0, 1, 0), 4)


def late_gpus(builder):
    return builder.add(Kind.COMPUTE, Part.COMPUTE, np.arange(4, dtype=np.int32), np.array([3, 1, 2, 4]) * 10**6)


def test_a_reconfiguration_in_the_middle_takes_as_long_as_in_the_fluid_model(timing):
    """Each GPU sums with one other, and sends it a message over the same circuits, then with another; they begin apart."""
    builder, pairs = Builder(), np.array([[[0, 1], [2, 3]], [[0, 2], [1, 3]]], np.int32)
    late = late_gpus(builder)
    for part, own, first in ((Part.TENSOR, pairs[0], 0), (Part.DATA, pairs[1], 2)):
        builder.link(late[own].T, builder.add(Kind.ALL_REDUCE, part, own[:, 0], 300_000, first + np.arange(2)))
        builder.link(late[own].T, builder.add(Kind.TRANSFER, part, own[:, 0], 200_000, own[:, 1]))
    graph, circuits = builder.graph(4, [*pairs.reshape(4, 1, 2)]), two_ports_each(*pairs)
    spec = SipOcsSpec("ocs", "sip-ocs", fibre_m=2.0, reconfigure="phase", control_us=0.0, switching_us=4.0, receiver_us=1.0)
    made, flits, fluids, dark_ps = both_models(graph, circuits, spec, timing)
    assert 5e6 < dark_ps < 7e6
    np.testing.assert_allclose(flits.finish_ps, fluids.finish_ps, rtol=0.03)
    # Nobody waits for GPUs that it does not talk to, so one pair turns before the other. Later both turn back together.
    turns = fluids.start_ps[made.part == Part.RECONFIGURATION]
    assert (len(turns), len(set(turns.tolist()))) == (8, 3)
    assert flits.makespan_ps > 4e6 + 2 * dark_ps + 2 * 250_000 / 64e9 * 1e12


@pytest.mark.parametrize("policy", ["inside", "periodic"])
def test_an_exchange_over_circuits_of_each_step_takes_as_long_as_in_the_fluid_model(policy, timing):
    """Each GPU has all ports to the next one, then to the one after, and so on; sums of pairs have a turn of their own."""
    builder, pairs = Builder(), np.array([[0, 1], [2, 3]], np.int32)
    gpu, late = np.arange(4, dtype=np.int32), late_gpus(builder)
    source, step = np.divmod(np.arange(12), 3)
    destination = (source + step + 1) % 4
    sent = builder.add(Kind.TRANSFER, Part.EXCHANGE, gpu[source], 300_000, gpu[destination], 2)
    builder.link(late[source], sent)
    end = builder.add(Kind.BARRIER, Part.EXCHANGE, np.full(1, -1, np.int32), 0)
    builder.link(sent, end)
    passes = builder.add(Kind.COMPUTE, Part.COMPUTE, gpu, np.array([2, 5, 3, 4]) * 10**6)
    builder.link(end, passes)
    builder.link(passes[pairs].T, builder.add(Kind.ALL_REDUCE, Part.DATA, pairs[:, 0], 300_000, np.arange(2)))
    graph = builder.graph(4, [pairs])
    ways = [[(a, (a + shift) % 4) for a in range(4)] for shift in (1, 2, 3)]
    ways.insert(0, [tuple(way) for pair in pairs.tolist() for way in (pair, pair[::-1])])
    each = [Circuits(dict.fromkeys(own, 2), {way: way for way in own}) for own in ways]
    steps = {way: number - 1 for number, own in enumerate(ways) if number for way in own}
    circuits = joined(each, (0, 0, 0, 1), 4, steps)
    spec = SipOcsSpec("ocs", "sip-ocs", fibre_m=2.0, reconfigure=policy, control_us=0.0, switching_us=1.0, receiver_us=0.25)
    made, flits, fluids, dark_ps = both_models(graph, circuits, spec, timing)
    np.testing.assert_allclose(flits.finish_ps, fluids.finish_ps, rtol=0.03)
    moving_ps = 3 * 300_000 / 64e9 * 1e12
    if policy == "inside":
        turns = np.bincount(made.device[made.part == Part.RECONFIGURATION], made.work[made.part == Part.RECONFIGURATION])
        # Two turns inside of an exchange, which stands for two; one to the sums, and one back to the first step.
        assert turns[4:8].tolist() == [6 * dark_ps] * 4
        assert fluids.finish_ps[sent].max() > 4e6 + moving_ps + 4 * dark_ps
    else:
        assert made.part.max() < Part.RECONFIGURATION
        assert fluids.finish_ps[sent].max() > 4 / 3 * moving_ps


def test_islands_joined_by_rails_of_light_take_as_long_as_in_the_fluid_model(timing):
    """Sums on islands go on in the dark, while messages and then sums between islands share the circuits of a rail."""
    builder, islands, rails = Builder(), np.array([[0, 1], [2, 3]], np.int32), np.array([[0, 2], [1, 3]], np.int32)
    late = late_gpus(builder)
    builder.link(late[islands].T, builder.add(Kind.ALL_REDUCE, Part.TENSOR, islands[:, 0], 900_000, np.arange(2)))
    for size in (200_000, 300_000):
        builder.link(late[rails].T, builder.add(Kind.TRANSFER, Part.PIPELINE, rails[:, 0], size, rails[:, 1]))
    builder.link(late[rails].T, builder.add(Kind.ALL_REDUCE, Part.DATA, rails[:, 0], 300_000, 2 + np.arange(2)))
    builder.link(late[rails].T, builder.add(Kind.TRANSFER, Part.DATA, rails[:, 1], 250_000, rails[:, 0]))
    graph = builder.graph(4, [*islands[:, None], *rails[:, None]])
    spec = PhotonicRailsSpec(
        "rails", "photonic-rails", island_gbps=512.0, island_gpus=2, fibre_m=2.0,
        reconfigure="phase", control_us=0.0, switching_us=4.0, receiver_us=1.0,
    )  # fmt: skip
    made, flits, fluids, dark_ps = both_models(graph, two_ports_each(rails, rails), spec, timing)
    np.testing.assert_allclose(flits.finish_ps, fluids.finish_ps, rtol=0.03)
    turns = np.flatnonzero(made.part == Part.RECONFIGURATION)
    assert len(turns) == 8
    first = fluids.start_ps[turns].min()
    assert ((fluids.start_ps[4:6] < first) & (fluids.finish_ps[4:6] > first + dark_ps / 4)).any()


def test_an_exchange_by_light_beside_network_cards_takes_as_long_as_in_the_fluid_model(timing):
    """Pairs on different islands have circuits for tokens alone; what else goes between islands has network cards."""
    builder, gpu = Builder(), np.arange(4, dtype=np.int32)
    late, pairs = late_gpus(builder), np.array([[0, 2], [1, 3]], np.int32)
    source, destination = np.array([0, 0, 1, 1, 2, 2, 3, 3]), np.array([1, 2, 0, 3, 3, 0, 2, 1])
    sent = builder.add(Kind.TRANSFER, Part.EXCHANGE, gpu[source], 400_000, gpu[destination], 2)
    builder.link(late[source], sent)
    end = builder.add(Kind.BARRIER, Part.EXCHANGE, np.full(1, -1, np.int32), 0)
    builder.link(sent, end)
    builder.link(end, builder.add(Kind.ALL_REDUCE, Part.DATA, pairs[:, 0], 200_000, np.arange(2)))
    spec = MixnetSpec(
        "mixnet", "mixnet", island_gbps=512.0, nic_gbps=100.0, island_gpus=2, region_gpus=4, fibre_m=2.0,
        control_us=0.0, switching_us=1.0, receiver_us=0.0,
    )  # fmt: skip
    light = dict.fromkeys(((0, 2), (2, 0), (1, 3), (3, 1)), 2)
    circuits = joined([Circuits({}, {}), Circuits(light, {pair: pair for pair in light})], (0, 0, 0, 1), 4)
    made, flits, fluids, dark_ps = both_models(builder.graph(4, [pairs]), circuits, spec, timing)
    np.testing.assert_allclose(flits.finish_ps, fluids.finish_ps, rtol=0.03)
    # There and back on the same circuits: half of a turn during what was computed before, half behind it, in whole ps.
    assert fluids.start_ps[sent[1]] in (3_000_000 + dark_ps // 2, 3_000_000 + dark_ps - dark_ps // 2)
    assert fluids.start_ps[sent[0]] == 3_000_000
    turns = made.part == Part.RECONFIGURATION
    assert np.bincount(made.device[turns], made.work[turns], 8).tolist() == [0] * 4 + [dark_ps] * 4


def test_an_all_reduce_over_rings_of_several_strides_takes_as_long_as_in_the_fluid_model(timing):
    spec = TopooptSpec("links", "topoopt", degree=2, fibre_m=2.0)
    fabric = placement_fabric(spec, SPEC, timing)
    made = in_rings(all_reduce(8, 800_000), fabric.rings)
    # Strides 1 and 7 have a link each, of a port, and what goes two GPUs on is relayed.
    circuits = fabric.assign(8, made.demand_bytes() | {(0, 2): 1})
    assert circuits.lanes == {(gpu, (gpu + step) % 8): 1 for gpu in range(8) for step in (1, 7)}
    assert circuits.stops[0, 2] == (0, 1, 2)
    of_fluid = fluid.run(made, fabric.network(8, made.demand_bytes(), circuits)).makespan_ps
    of_cycles = Cluster(made, SPEC, timing, fabric.cabling(8, circuits)).run().makespan_ps
    assert of_cycles == pytest.approx(of_fluid, rel=0.03)
