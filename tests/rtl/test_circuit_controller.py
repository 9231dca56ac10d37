"""The RTL of the circuit controller: settings are judged, made in time, and cost no flit; what is dark is counted."""

import random

import pytest

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.circuit_controller import LEAD_CYCLES, CircuitController, Phase, PhaseBounds, Refusal
from lightfabric.sim.bench.bench import ClientFlit
from lightfabric.sim.circuit.circuit_controller import ControllerBench, Entry, OcsBench

SPEC = ChipletSpec(
    ports=1, wavelengths_per_port=1, flit_bytes=64, virtual_channels=2, buffer_flits=8, reach_m=1.0, crc="crc16"
)
PORTS = 4
PAIRS = [{0: 1, 1: 0, 2: 3, 3: 2}, {0: 2, 2: 0, 1: 3, 3: 1}, {0: 3, 3: 0, 1: 2, 2: 1}]
BOUNDS = PhaseBounds(settle_cycles=200, lock_cycles=200, train_cycles=2000)
ALL = (1 << PORTS) - 1


@pytest.fixture(scope="module")
def bench() -> ControllerBench:
    return ControllerBench(PORTS, BOUNDS)


@pytest.fixture(scope="module")
def ocs() -> OcsBench:
    return OcsBench(SPEC, PORTS, BOUNDS)


def packets(port: int, count: int, seed: int, begin: int = 0) -> list[tuple[int, ClientFlit]]:
    """Packets of 1 to 4 flits in both channels, each in one piece, that say where they are from and are numbered."""
    rng, flits = random.Random(seed * PORTS + port), []
    for number in range(count):
        channel, length = rng.randrange(2), rng.randint(1, 4)
        for n in range(length):
            payload = bytes([port, number & 255, number >> 8, n])
            flits.append((begin, ClientFlit(payload, virtual_channel=channel, last=int(n == length - 1))))
    return flits


def held(changes, cycles):
    """Intervals in which a port was held, from its rises and falls."""
    ends = [*(cycle for cycle, _ in changes[1:]), cycles]
    return [(begin, end) for (begin, value), end in zip(changes, ends, strict=True) if value]


def oracle(ports: int, outputs: dict[int, int], partial: int) -> Refusal:
    """What is wrong with a setting, by sets of edges."""
    edges = set(outputs.items())
    if any(output >= ports for output in outputs.values()):
        return Refusal.RANGE
    if len(set(outputs.values())) != len(edges):
        return Refusal.CONFLICT
    if edges != {(output, port) for port, output in edges}:
        return Refusal.ONE_WAY
    return Refusal.NONE if partial or len(edges) == ports else Refusal.PARTIAL


@pytest.mark.parametrize("ports", [3, 4, 5])
def test_settings_are_judged_as_sets_of_edges_are(ports):
    rng, bench = random.Random(ports), ControllerBench(ports, BOUNDS)
    settings = []
    for _ in range(300):
        kind = rng.randrange(3)
        lit = rng.sample(range(ports), rng.randint(0, ports))
        if kind == 0:
            outputs = {port: rng.randrange(1 << (ports - 1).bit_length()) for port in lit}
        elif kind == 1:
            outputs = dict(zip(lit, rng.sample(lit, len(lit)), strict=True))
        else:
            outputs = {port: port for port in lit}
            for a, b in zip(lit[::2], lit[1::2], strict=False):
                outputs |= {a: b, b: a}
        settings.append((outputs, rng.randrange(2)))
    entries = [Entry(outputs, guard=20, partial=partial) for outputs, partial in settings]
    run = bench.run(entries, bound_cycles=100_000)
    said = [refusal for _, refusal in run.verdicts]
    assert said == [oracle(ports, *setting) for setting in settings]
    assert set(said) >= {Refusal.NONE, Refusal.CONFLICT, Refusal.ONE_WAY, Refusal.PARTIAL}
    assert run.counts["refused"] == sum(refusal != Refusal.NONE for refusal in said)


def test_dark_time_is_the_sum_of_its_parts_to_the_cycle(bench):
    rng = random.Random(5)
    for _ in range(20):
        times = [{port: rng.randint(0, 60) for port in range(PORTS)} for _ in range(3)]
        run = bench.run(
            [Entry(rng.choice(PAIRS), guard=100), Entry(rng.choice(PAIRS), guard=100, at=400)],
            **dict(zip(("drain_cycles", "train_cycles", "settle_cycles"), (each.get for each in times), strict=True)),
        )
        # From reset on all are held: what is counted begins with the first drain.
        first = next(cycle for cycle, phase in run.phases if phase == Phase.DRAIN)
        dark = set()
        for changes in run.holds:
            for begin, end in held(changes, run.cycles):
                dark |= set(range(max(begin, first), end))
        assert sum(run.parts.values()) == len(dark)
        for name, phase in (("drain", Phase.DRAIN), ("switching", Phase.SWITCH), ("training", Phase.TRAIN)):
            spans = [b[0] - a[0] for a, b in zip(run.phases, run.phases[1:], strict=False) if a[1] == phase]
            assert run.parts[name] == sum(spans)


def test_ports_whose_circuits_stay_are_not_disturbed(bench):
    entries = [Entry({0: 1, 1: 0}, guard=50, partial=1), Entry(PAIRS[0], guard=50, at=300)]
    run = bench.run(entries)
    assert [len(changes) for changes in run.holds] == [2, 2, 2, 2]
    assert [mask for _, mask in run.turns] == [0b0011, 0b1100]


def test_a_setting_that_is_in_force_costs_no_dark(bench):
    run = bench.run([Entry(PAIRS[1], guard=50), Entry(PAIRS[1], guard=50, at=300)])
    assert run.counts["changes"] == 2
    assert len(run.turns) == 1
    assert all(len(changes) == 2 for changes in run.holds)


@pytest.mark.parametrize("guard", [50, 200])
def test_a_scheduled_change_drains_from_its_guard_on_and_turns_at_its_start_at_the_latest(bench, guard):
    entries = [Entry(PAIRS[0], guard=50), Entry(PAIRS[1], guard=guard, at=200, start=900)]
    run = bench.run(entries, drain_cycles=lambda port: guard - LEAD_CYCLES - 1 if port == 2 else 5)
    assert run.counts["changes"] == 2
    rises = {changes[2][0] for changes in run.holds}
    assert rises == {900 - guard - 1}
    assert run.turns[-1][0] <= 900
    late = bench.run(entries, drain_cycles=lambda port: guard + 10 if port == 2 else 5)
    assert (late.counts["changes"], late.counts["abandoned"], late.counts["blocking"]) == (1, 1, 0b0100)


def test_a_port_that_does_not_drain_keeps_all_in_their_old_circuits(bench):
    begun = Entry(PAIRS[0], guard=50)
    run = bench.run([begun, Entry(PAIRS[1], guard=60, at=300)], drain_cycles=lambda port: None if port == 1 else 4)
    # After reset no link has anything to drain.
    assert (run.counts["changes"], run.counts["abandoned"], run.counts["blocking"]) == (1, 1, 0b0010)
    assert len(run.turns) == 1
    assert all(changes[-1][1] == 0 for changes in run.holds)
    assert run.parts["drain"] >= 60


def test_an_entry_that_comes_too_late_is_refused_and_one_that_becomes_so_is_abandoned(bench):
    late = bench.run([Entry(PAIRS[0], guard=100, at=300, start=350)])
    assert [refusal for _, refusal in late.verdicts] == [Refusal.LATE]
    first = Entry(PAIRS[0], guard=100, start=400)
    run = bench.run([first, Entry(PAIRS[1], guard=100, start=420)])
    assert (run.counts["changes"], run.counts["abandoned"]) == (1, 1)


def test_a_mirror_that_does_not_settle_is_taken_out_and_stops_nobody_else(bench):
    settle = {0: None}
    entries = [Entry(PAIRS[0], guard=50), Entry(PAIRS[1], guard=50, at=2600), Entry({1: 3, 3: 1}, 50, 2610, partial=1)]
    run = bench.run(
        entries, settle_cycles=lambda port: settle.get(port, 20), train_cycles=lambda port: None if port == 1 else 30
    )
    # The links of 1 and 3 stand for themselves: that of 1 never trains.
    assert run.counts["out_of_service"] == 0b0001
    assert [refusal for _, refusal in run.verdicts] == [Refusal.NONE, Refusal.OUT, Refusal.NONE]
    # The others resume while the bound of the partner runs.
    turn = run.turns[0][0]
    assert all(run.holds[port][1][0] < turn + BOUNDS.settle_cycles + 60 for port in (2, 3))
    assert [changes[-1][1] for changes in run.holds] == [1, 1, 1, 0]


def test_a_port_that_is_put_back_gets_light_again(bench):
    entries = [Entry(PAIRS[0], guard=50), Entry(PAIRS[0], guard=50, at=400), Entry(PAIRS[0], guard=50, at=500)]
    pulses = {300: ("take_out", 0b0001), 450: ("put_back", 0b0001)}
    run = bench.run(entries, pulses=pulses)
    assert [refusal for _, refusal in run.verdicts] == [Refusal.NONE, Refusal.OUT, Refusal.NONE]
    assert run.holds[0][2] == (301, 1)
    assert [mask for _, mask in run.turns] == [ALL, 0b0011]
    assert [changes[-1][1] for changes in run.holds] == [0, 0, 0, 0]
    assert (run.counts["failed"], run.counts["out_of_service"]) == (0, 0)


def test_rings_that_do_not_lock_leave_their_port_dark_until_the_next_change(bench):
    tries = []

    def locked(_, relock):
        tries.extend([relock] if relock else [])
        return ALL & ~0b0100 if len(tries) < 2 else ALL

    entries = [Entry(PAIRS[0], guard=50), Entry(PAIRS[0], guard=50, at=3000)]
    run = bench.run(entries, locked=locked, train_cycles=lambda port: None if port == 3 and len(tries) < 2 else 30)
    assert tries == [ALL, 0b1100]
    assert run.parts["lock"] > BOUNDS.lock_cycles
    assert run.counts["failed"] == 0
    assert [changes[-1][1] for changes in run.holds] == [0, 0, 0, 0]


def test_changes_under_traffic_cost_no_flit(ocs):
    flits = {port: packets(port, 45, seed=1) for port in range(PORTS)}
    entries = [Entry(PAIRS[n % 3], guard=500, at=1 + 700 * n) for n in range(3)]
    run = ocs.run(flits, entries, bound_cycles=12_000)
    assert (run.counts["changes"], run.counts["abandoned"]) == (3, 0)
    came = {(port, channel): [] for port in range(PORTS) for channel in range(2)}
    for port, received in enumerate(run.received):
        begun = {}
        for cycle, flit in received:
            came[flit.payload[0], flit.virtual_channel].append((cycle, flit))
            # All flits of a packet come to one port, that of the circuit, and each packet in one piece.
            assert begun.setdefault(flit.virtual_channel, flit.payload[0]) == flit.payload[0]
            if flit.last:
                del begun[flit.virtual_channel]
            assert not flit.error
            setting = PAIRS[max(0, sum(turn < cycle for turn, _ in run.turns) - 1) % 3]
            assert setting[flit.payload[0]] == port
        assert not begun
    for port in range(PORTS):
        for channel in range(2):
            of_channel = [flit for _, flit in flits[port] if flit.virtual_channel == channel]
            assert [flit for _, flit in sorted(came[port, channel], key=lambda entry: entry[0])] == of_channel


def test_a_source_that_stops_inside_a_packet_keeps_its_circuit(ocs):
    stuck = [(0, ClientFlit(b"\0" * 4, last=0)), (0, ClientFlit(b"\0\0\0\1", last=0))]
    entries = [Entry(PAIRS[0], guard=500), Entry(PAIRS[1], guard=300, at=900)]
    run = ocs.run({0: stuck, 1: packets(1, 10, seed=2)}, entries, bound_cycles=4000)
    assert (run.counts["changes"], run.counts["abandoned"], run.counts["blocking"]) == (1, 1, 0b0001)


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match=r"CircuitController.ports must be from 2 to 64, not 65"):
        CircuitController(65, BOUNDS)
    with pytest.raises(ValueError, match=r"PhaseBounds.lock_cycles must be from 4 to 1073741824, not 3"):
        PhaseBounds(100, 3, 100)
