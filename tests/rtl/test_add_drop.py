"""The RTL of the add-drop node: light goes where its circuit leads and nowhere else, also past a dead node."""

import random

import pytest

from lightfabric.model.cycle.photonic import Circuit
from lightfabric.rtl.add_drop import AddDropNode
from lightfabric.sim.circuit.add_drop import Place, RingBench

NODES, WAVELENGTHS, CONFIRM_CYCLES, SETTLE_CYCLES = 6, 3, 4, 5


@pytest.fixture(scope="module")
def bench() -> RingBench:
    return RingBench(NODES, WAVELENGTHS, CONFIRM_CYCLES, SETTLE_CYCLES)


def disjoint(rng: random.Random) -> list[Circuit]:
    """As many circuits as random tries find of which no two have a wavelength on one fibre, by sets of fibres."""
    circuits, lit = [], set()
    for _ in range(40):
        source, destination = rng.sample(range(NODES), 2)
        circuit = Circuit(source, destination, rng.randrange(WAVELENGTHS))
        fibres = {(circuit.wavelength, node) for node in circuit.hops(NODES)}
        if not fibres & lit:
            lit |= fibres
            circuits.append(circuit)
    return circuits


def places(circuits: list[Circuit]) -> list[Place]:
    """The map of each node, drops first, told one wavelength a cycle."""
    adds = {(c.source, c.wavelength) for c in circuits}
    drops = {(c.destination, c.wavelength) for c in circuits}
    return [
        Place(
            wavelength,
            n,
            wavelength,
            *(((n, wavelength) in adds), ((n, wavelength) in drops), (((n + 1) % NODES, wavelength) in drops)),
        )
        for n in range(NODES)
        for wavelength in range(WAVELENGTHS)
    ]


def dropped(circuits: list[Circuit]):
    return {(c.destination, c.wavelength): {c.source} for c in circuits}


@pytest.mark.parametrize("seed", range(6))
def test_each_circuit_and_nothing_else_is_dropped_where_it_ends(bench, seed):
    circuits = disjoint(random.Random(seed))
    run = bench.run(places(circuits), lambda _cycle, _node: False, 30)
    assert len(circuits) > WAVELENGTHS
    assert run.dropped[-1] == dropped(circuits)
    assert (run.refused, run.collided) == ([], 0)
    assert all(len(sources) == 1 for light in run.light for sources in light.values())


@pytest.mark.parametrize("seed", range(6))
def test_light_goes_past_a_dead_node_and_back_when_that_is_alive(bench, seed):
    rng = random.Random(100 + seed)
    circuits, ill = disjoint(rng), rng.randrange(NODES)
    run = bench.run(places(circuits), lambda cycle, node: node == ill and 30 <= cycle < 70, 120)
    others = [c for c in circuits if ill not in (c.source, c.destination)]
    turned = 30 + CONFIRM_CYCLES + SETTLE_CYCLES + NODES
    assert all(light == dropped(others) for light in run.dropped[turned + 2 : 70])
    assert run.dropped[-1] == dropped(circuits)
    assert run.collided == 0
    assert all(len(sources) == 1 for light in run.light for sources in light.values())


def test_a_node_that_is_dead_for_a_moment_is_not_gone_past(bench):
    circuits = disjoint(random.Random(1))
    run = bench.run(places(circuits), lambda cycle, node: node == 2 and 30 <= cycle < 30 + CONFIRM_CYCLES - 1, 60)
    ends = {key: sources for key, sources in dropped(circuits).items() if key[0] != 2}
    passing = [c for c in circuits if 2 in c.hops(NODES)[1:] or 2 in (c.source, c.destination)]
    for light in run.dropped[20:]:
        for c in set(circuits) - set(passing):
            assert light[c.destination, c.wavelength] == ends[c.destination, c.wavelength]
    assert run.dropped[-1] == dropped(circuits)


def test_a_wavelength_that_passes_is_not_added_too(bench):
    circuit = [Circuit(0, 3, 1)]
    wrong = [Place(20, 1, 1, adds=1), Place(24, 1, 1, adds=1, drops=1), Place(28, 1, 3, adds=1)]
    run = bench.run(places(circuit) + wrong, lambda _cycle, _node: False, 40)
    assert run.refused == [(21, 1), (29, 1)]
    assert run.dropped[-1] == {(1, 1): {0}, (3, 1): {1}}
    assert run.collided == 0


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match=r"AddDropNode.wavelengths must be at least 2, not 1"):
        AddDropNode(1, 1, 1)
    with pytest.raises(ValueError, match=r"AddDropNode.settle_cycles must be from 1 to 1073741824, not 0"):
        AddDropNode(2, 1, 0)
