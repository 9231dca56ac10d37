"""The lanes of a line in any cyclic order and polarity, and any of them dead, natively: the rate that those left allow."""

import random

import pytest

from lightfabric.flows.tool import native as flow
from lightfabric.model.spec import ChipletSpec
from lightfabric.sim.channel.fault import Channel, LaneFaults
from lightfabric.sim.native.link import Run

SEED = 16
DEAD = LaneFaults(losses=1.0, loss_blocks=1 << 20, lost="noise")
WIDTHS = {8: 64, 16: 128}
"""Flits of one size at least the beat of so many wavelengths."""


def slots_per_cycle(program, spec, channel, seed):
    """The rate of full flits from end a to end b, whose line is the channel, over that of the slots of the full width."""
    bounds = {"warm_up_flits": 100, "window_flits": 400, "bound_cycles": 60_000}
    seen = flow.run(program, Run(1 << 40, 0, seed=seed, saturated=True, channel=channel.text(), **bounds))
    return seen["window_payload_bytes"] / spec.payload_bytes / seen["window_cycles"] * float(spec.slot_cycles)


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_every_cyclic_order_has_the_full_rate_and_any_lanes_that_are_left_have_their_share(width, tmp_path):
    spec = ChipletSpec(ports=1, wavelengths_per_port=width, flit_bytes=WIDTHS[width])
    program, rng = flow.build(spec, tmp_path), random.Random(SEED + width)
    for shift in range(width):
        order = tuple((lane + shift) % width for lane in range(width))
        lanes = tuple(LaneFaults(skew_blocks=rng.randrange(8), inverted=rng.random() < 0.5) for _ in order)
        assert slots_per_cycle(program, spec, Channel(lanes, order=order), shift) == pytest.approx(1, rel=0.01), shift
    for dead in range(1, width):
        gone = set(rng.sample(range(width), dead))
        lanes = tuple(DEAD if lane in gone else LaneFaults() for lane in range(width))
        share = slots_per_cycle(program, spec, Channel(lanes), dead)
        assert share == pytest.approx((width - dead) / width, rel=0.05), (gone, SEED)
