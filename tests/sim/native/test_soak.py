"""Chiplets with clients and switches: whatever is reset, darkened or stalled, a packet is whole, or marked, or lost."""

from dataclasses import replace

import pytest

from lightfabric.flows.tool import native as flow
from lightfabric.model.spec import ChipletSpec
from lightfabric.sim.bench.chiplet import Plan, chain, pair
from lightfabric.sim.native import soak

SPEC = ChipletSpec(
    ports=1,
    wavelengths_per_port=1,
    wavelength_gbps=10.0,
    core_clock_mhz=156.25,
    flit_bytes=64,
    virtual_channels=3,
    buffer_flits=8,
    replay_flits=16,
    stall_cycles=1500,
)
FAULTS = (
    *("headless", "glued", "truncated", "astray", "disordered", "lost"),
    *("never_up", "not_moved", "protocol_errors", "bus_errors"),
)
RESETS = ("client_resets", "chiplet_resets", "link_resets")
MOVE_CYCLES = 1000


def harmed(tmp_path, spec: ChipletSpec, plan: Plan, run: soak.Run) -> dict[str, int]:
    """Run the soak, and find nothing wrong in it but what is told."""
    counts = flow.counts(flow.build_soak(spec, plan, tmp_path), run.arguments())
    assert {name: counts[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0), counts
    assert counts["rounds"] == run.rounds
    assert counts["slowest_cycles"] <= MOVE_CYCLES
    assert counts["whole"] > 50 * run.rounds
    assert counts["broken"] > run.rounds
    return counts


def test_no_packet_is_glued_truncated_or_headless_between_two_chiplets(tmp_path):
    counts = harmed(tmp_path, SPEC, pair(SPEC), soak.Run(rounds=20, seed=1))
    assert sum(counts[name] for name in RESETS) > 300
    assert min(counts[name] for name in (*RESETS, "darks", "stalls")) > 20


@pytest.mark.slow
def test_ten_thousand_resets_of_a_chain_leave_no_packet_that_is_not_what_it_says(tmp_path):
    """The chiplet in the middle passes the packets of the others: its switch holds some when any of the three is reset."""
    spec = replace(SPEC, ports=2)
    counts = harmed(tmp_path, spec, chain(spec, 3), soak.Run(rounds=225, harms=60, seed=2))
    assert sum(counts[name] for name in RESETS) >= 10_000
