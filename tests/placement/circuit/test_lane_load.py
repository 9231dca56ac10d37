"""Bytes per lane beside the least there can be, on circuits as ``assign`` makes them, and what the command says of them."""

from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightfabric.flows.command.place import columns
from lightfabric.flows.format.spec_file import load_spec
from lightfabric.model.circuit import Circuits
from lightfabric.model.spec import ChipletSpec, SipOcsSpec, SipRingSpec
from lightfabric.placement.circuit.demand import Demand
from lightfabric.placement.circuit.permutation import one_shot
from lightfabric.placement.fabric.fabric import fabric_of
from lightfabric.placement.mapping.traffic import DATA, Traffic
from lightfabric.placement.place import candidates

OCS = SipOcsSpec("ocs", "sip-ocs")


def ring(max_hops):
    return SipRingSpec("ring", "sip-ring", max_hops=max_hops)


def placed(demand):
    source, destination = np.array(list(demand), np.int32).T
    return Traffic(source, destination, np.array(list(demand.values())), np.full(len(demand), DATA, np.int8))


@st.composite
def demands(draw, most_gpus=10, most_pairs=12):
    gpus = draw(st.integers(2, most_gpus))
    pair = st.tuples(st.integers(0, gpus - 1), st.integers(0, gpus - 1)).filter(lambda p: p[0] != p[1])
    return gpus, draw(st.dictionaries(pair, st.integers(1, 1000), min_size=1, max_size=most_pairs))


@settings(max_examples=80, deadline=None)
@given(demands(), st.sampled_from([ring(2), ring(16), OCS]))
def test_circuits_in_proportion_to_the_bytes_meet_the_bound_of_their_lanes(case, fabric):
    """``assign`` bisects the same shares by code of its own."""
    gpus, demand = case
    chiplet = ChipletSpec(ports=16, wavelengths_per_port=4)
    circuits = fabric_of(fabric, chiplet).assign(gpus, demand)
    load = fabric_of(fabric, chiplet).lane_load(gpus, circuits, placed(demand))
    carried = dict.fromkeys(circuits.lanes, 0)
    for pair, size in demand.items():
        for leg in pairwise(circuits.stops[pair]):
            carried[leg] += size
    lanes = [carried[leg] / count for leg, count in circuits.lanes.items()]
    assert (load.most_bytes, load.mean_bytes) == (max(lanes), pytest.approx(sum(lanes) / len(lanes)))
    assert load.bound_bytes == pytest.approx(load.most_bytes)


@settings(max_examples=40, deadline=None)
@given(demands())
def test_other_circuits_carry_no_less_per_lane_than_the_bound(case):
    gpus, demand = case
    chiplet = ChipletSpec(ports=16, wavelengths_per_port=4)
    for fabric in (ring(16), OCS):
        even = fabric_of(fabric, chiplet).assign(gpus, dict.fromkeys(demand, 1))
        load = fabric_of(fabric, chiplet).lane_load(gpus, even, placed(demand))
        assert load.bound_bytes <= load.most_bytes * (1 + 1e-9)


def test_the_bound_of_an_ocs_is_the_setting_of_its_switches():
    demand = {(g, (g + k) % 8): size for g in range(8) for k, size in ((1, 700), (3, 90))}
    ocs = fabric_of(OCS, ChipletSpec(ports=8))
    load = ocs.lane_load(8, ocs.assign(8, demand), placed(demand))
    assert 1 / load.bound_bytes == one_shot(Demand.of(8, demand), 8).value == 7 / 700
    assert load.colouring is None


def test_pairs_that_are_relayed_still_count_their_own_wavelengths():
    demand = {(g, (g + k) % 12): 5 for g in range(12) for k in (1, 3)}
    chiplet = ChipletSpec(ports=2, wavelengths_per_port=1)
    circuits = fabric_of(ring(3), chiplet).assign(12, demand)
    assert len(circuits.lanes) == 12
    load = fabric_of(ring(3), chiplet).lane_load(12, circuits, placed(demand))
    assert (load.colouring.count, load.colouring.bound) == (4, 4)
    assert fabric_of(ring(1), chiplet).lane_load(12, circuits, placed(demand)).colouring.count == 4
    assert load.most_bytes == load.bound_bytes == 5 + 3 * 5


def test_no_traffic_loads_no_lane():
    nothing = Traffic(*(np.zeros(0, kind) for kind in (np.int32, np.int32, np.int64, np.int8)))
    assert fabric_of(OCS, ChipletSpec()).lane_load(4, Circuits({}, {}), nothing).most_bytes == 0


def test_the_command_says_what_lanes_carry_and_what_they_could():
    spec = load_spec(files("lightfabric.examples") / "small.toml")
    names = ("lane_bytes", "mean_lane_bytes", "lane_bytes_bound", "wavelengths", "wavelengths_bound")
    said = {}
    for fabric in (fabric_of(each, spec.chiplet) for each in spec.fabrics):
        found = candidates(spec.job, spec.accelerator, fabric, 16)[0]
        row = columns(fabric, found)
        said[fabric.spec.kind] = [row[name] for name in names]
    for kind in ("sip-ring", "sip-ocs"):
        lane, mean, bound, *_ = said[kind]
        assert 0 < mean <= lane
        assert bound <= lane * (1 + 1e-9)
    assert 1 <= said["sip-ring"][4] <= said["sip-ring"][3]
    assert said["sip-ocs"][3:] == [None, None]
    assert said["electrical-switch"] == [None] * 5
