"""Wavelengths on several physical rings: brute force over all ways to lay them, one ring and no reuse as bounds."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.model.spec import ChipletSpec, SipRingSpec, SpecError
from lightfabric.placement.circuit.assign import assign_ring
from lightfabric.placement.circuit.demand import Demand
from lightfabric.placement.circuit.wavelength import Ring, one_way, verify
from lightfabric.placement.fabric.fabric import fabric_of

CHIPLET = ChipletSpec(ports=2, wavelengths_per_port=4, wavelength_gbps=10.0)


def random_case(random, most_gpus=6, most_pairs=4):
    """Pairs less than half the ring apart, which have one shorter way, in segments forward or backward."""
    gpus = int(random.integers(3, most_gpus + 1))
    reach = (gpus - 1) // 2
    pairs = [(a, step) for a in range(gpus) for step in (*range(-reach, 0), *range(1, reach + 1))]
    chosen = random.choice(len(pairs), min(most_pairs, len(pairs)), replace=False)
    return gpus, {pairs[each]: int(random.integers(1, 10)) for each in chosen}


def segments(gpus, source, step):
    return [(step > 0, (source + k if step > 0 else source - 1 - k) % gpus) for k in range(abs(step))]


def brute_force(gpus, sizes, rings, channels):
    """The best least ratio over all whole numbers of wavelengths of each pair on each ring."""
    pairs, best = list(sizes), 0.0

    def serve(index, used, least):
        nonlocal best
        if index == len(pairs):
            best = max(best, least)
            return
        for lanes in product(range(channels + 1), repeat=rings):
            ratio = min(least, sum(lanes) / sizes[pairs[index]])
            after = dict(used)
            for ring, each in enumerate(lanes):
                for segment in segments(gpus, *pairs[index]):
                    after[ring, segment] = after.get((ring, segment), 0) + each
            if ratio > best and max(after.values()) <= channels:
                serve(index + 1, after, ratio)

    serve(0, {}, np.inf)
    return best


def share(gpus, sizes, rings, reuse=True):
    demand = {(source, (source + step) % gpus): size for (source, step), size in sizes.items()}
    circuits = assign_ring(gpus, demand, CHIPLET, gpus, reuse, rings)
    return (
        min(circuits.lanes[pair] / size for pair, size in demand.items()) if demand.keys() == circuits.lanes.keys() else 0.0
    )


def test_rings_are_shared_as_well_as_brute_force_can():
    seed = 11
    random = np.random.default_rng(seed)
    for _ in range(60):
        gpus, sizes = random_case(random)
        best = brute_force(gpus, sizes, 2, 2)
        assert share(gpus, sizes, 2) == pytest.approx(best), f"seed {seed}: {gpus}, {sizes}"


def test_three_circuits_that_pass_each_other_need_a_ring_each():
    # On a ring of 3 any two circuits of 2 segments share one, though no segment carries more than two.
    demand = Demand.of(3, {(0, 2): 1, (1, 0): 1, (2, 1): 1})
    steps = np.full(3, 2)
    assert one_way(Ring(3, 1, 2, 2), demand, steps, 1.0).pair_lanes.tolist() == [1, 1, 1]
    assert one_way(Ring(3, 2, 1, 2), demand, steps, 1.0) is None
    assert one_way(Ring(3, 3, 1, 2), demand, steps, 1.0).pair_lanes.tolist() == [1, 1, 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([2, 4]))
def test_rings_are_within_what_one_has_and_never_worse_than_without_reuse(seed, rings):
    gpus, sizes = random_case(np.random.default_rng(seed), 12, 8)
    demand = Demand.of(gpus, {(source, (source + step) % gpus): size for (source, step), size in sizes.items()})
    steps = np.array(list(sizes).copy())[:, 1]
    found = one_way(Ring(gpus, rings, 4 // rings, gpus), demand, steps, 4.0)
    if found is not None:
        verify(Ring(gpus, rings, 4 // rings, gpus), demand, found)
        assert not (found.lanes[0] * (steps < 0)).any()
        assert not (found.lanes[1] * (steps > 0)).any()
        assert share(gpus, sizes, rings) == pytest.approx(found.value)
        assert found.value <= share(gpus, sizes, 1) * (1 + 1e-12)
    try:
        without = share(gpus, sizes, rings, reuse=False)
    except ValueError:
        return
    assert share(gpus, sizes, rings) >= without * (1 - 1e-12)


def test_wavelengths_that_rings_cannot_share_out_are_said():
    fabric = fabric_of(SipRingSpec("ring", "sip-ring", rings=3), CHIPLET)
    with pytest.raises(SpecError, match=r"^SipRingSpec\.rings must be a divisor of the 4 wavelengths each way, not 3$"):
        fabric.assign(4, {(0, 1): 1})
