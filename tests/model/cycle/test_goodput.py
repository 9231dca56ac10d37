"""What a link loses and carries over a line with bit errors: the RTL against closed forms and against the cycle model."""

from dataclasses import replace
from math import sqrt

import pytest

from lightfabric.flows.tool import native as flow
from lightfabric.model.cycle.slot import Losses, Slots
from lightfabric.model.cycle.sustained import sustained_cycles_per_flit
from lightfabric.model.spec import FIBRE_PS_PER_M, ChipletSpec
from lightfabric.model.timing import LinkTiming
from lightfabric.sim.link_timing import measure_link
from lightfabric.sim.native import link as native

DELAYS_CYCLES = (10, 100, 1000)
ERROR_RATES = (1e-7, 1e-6, 1e-5)
WINDOW_FLITS = 30_000
CONFIDENT = 1.96
"""Standard deviations of the 95 % band."""


def spec_of(delay_cycles: int, flit_bytes: int = 256) -> ChipletSpec:
    """A link of one wavelength whose replay buffer is made for a fibre of this delay."""
    reach_m = 0.999 * delay_cycles * ChipletSpec().cycle_ps / FIBRE_PS_PER_M
    return ChipletSpec(ports=1, wavelengths_per_port=1, flit_bytes=flit_bytes, virtual_channels=1, reach_m=reach_m)


def lost_slots(spec: ChipletSpec, timing: LinkTiming, delay_cycles: int) -> float:
    """Slots from a wrong flit to its replay, on average over the phases of slots against clock and answers."""
    slots = Slots.of(spec, timing.first_beat_cycle, line_cycles=timing.line_cycles)

    def arrival_cycle(slot: int) -> int:
        return slots.decided_cycle(slot + 1) + slots.line_cycles + delay_cycles

    lost, phases = 0, range(1000, 1000 + 2 * slots.beats)
    for slot in phases:
        answer = slots.decided_from(arrival_cycle(slot) + timing.nak_out_cycles)
        answer += (answer - timing.first_answer_slot) % 2
        lost += slots.decided_from(arrival_cycle(answer) + timing.nak_in_cycles) - slot
    return lost / len(phases)


@pytest.mark.slow
@pytest.mark.parametrize("delay_cycles", DELAYS_CYCLES)
def test_goodput_is_that_of_go_back_n(delay_cycles, narrow_timing, tmp_path):
    """Each flit is wrong with probability p and then costs W slots: 1 + W p / (1 - p) slots per flit [Lin, Costello, Miller,
    IEEE Communications Magazine 22 (12), 1984, go-back-N]. Errors are geometric, so their number in a window is known but
    for its standard deviation.
    """
    spec, seed = spec_of(delay_cycles), 1
    program, lost = flow.build(spec, tmp_path), lost_slots(spec, narrow_timing, delay_cycles)
    window = {"warm_up_flits": 1_000, "window_flits": WINDOW_FLITS}
    run = {"saturated": True, "delay_cycles": delay_cycles, "seed": seed, **window}
    for ber in (0.0, *ERROR_RATES):
        seen = flow.run(program, native.Run(1 << 40, 1 << 40, ber=ber, **run))
        wrong = 1 - (1 - ber) ** (8 * spec.flit_bytes)
        flits = seen["window_payload_bytes"] / spec.payload_bytes
        expected, deviation = 1 + lost * wrong / (1 - wrong), lost * sqrt(wrong / flits) / (1 - wrong)
        band = CONFIDENT * deviation + 2 / flits  # the window begins and ends with a whole word
        assert abs(seen["window_slots"] / flits - expected) < band, f"seed {seed}, BER {ber}"
        if ber == 0:
            line_bits = seen["window_cycles"] * spec.wavelength_gbps * 1e3 / spec.core_clock_mhz
            best = spec.payload_bytes / (spec.flit_bytes * spec.BLOCK_BITS_ON_LINE / (8 * spec.BLOCK_BYTES))
            assert 8 * seen["window_payload_bytes"] / line_bits == pytest.approx(best, rel=0.005)


def test_a_long_fibre_is_as_fast_as_a_short_one_but_for_its_longer_headers(invented_timing):
    """The line is the limit from one end of a hall to the other, also for a virtual channel alone."""
    for reach_m, channels in ((20, 2), (100, 2), (500, 1), (2000, 2)):
        spec = ChipletSpec(ports=1, reach_m=reach_m, virtual_channels=channels)
        cycles = sustained_cycles_per_flit(spec, invented_timing.link, spec.reach_cycles)
        assert cycles == spec.slot_cycles


def test_bit_errors_cost_more_the_longer_the_fibre_is(invented_timing):
    """A wrong flit costs a round trip; those of the flit before it cost no more."""
    ber = 1e-8
    specs = [ChipletSpec(ports=1, reach_m=reach_m, bit_error_rate=ber) for reach_m in (20, 100, 500)]
    cycles = [float(sustained_cycles_per_flit(spec, invented_timing.link, spec.reach_cycles)) for spec in specs]
    costs = [each / float(spec.slot_cycles) - 1 for each, spec in zip(cycles, specs, strict=True)]
    for spec, cost in zip(specs, costs, strict=True):
        assert cost == pytest.approx(8 * spec.flit_bytes * ber * 2 * spec.reach_cycles / float(spec.slot_cycles), rel=0.15)
    assert costs == sorted(costs)


WIDE = ChipletSpec(ports=1, wavelengths_per_port=8, flit_bytes=64, virtual_channels=1, reach_m=20.0)
"""A slot is a beat: of the bits before it nearly as many spoil it as of its own."""
NARROW = spec_of(50, flit_bytes=64)
BUSY_FLITS = 100_000


@pytest.fixture(scope="module")
def narrow_timing() -> LinkTiming:
    """How many cycles the pipelines take has nothing to do with the size of flits or the reach, so it is measured once."""
    return measure_link(NARROW)


@pytest.fixture(scope="module", params=[WIDE, NARROW], ids=["a beat per flit", "eight beats"])
def built(request, narrow_timing, tmp_path_factory):
    spec = request.param
    timing = narrow_timing if spec is NARROW else measure_link(spec)
    return spec, timing, flow.build(spec, tmp_path_factory.mktemp("built"))


def run_of_rtl(program, delay_cycles: int, **rates: float):
    window = {"warm_up_flits": 1_000, "window_flits": BUSY_FLITS}
    job = native.Run(1 << 40, 0, saturated=True, delay_cycles=delay_cycles, seed=1, **window, **rates)
    return flow.run(program, job)


@pytest.mark.slow
@pytest.mark.parametrize("ber", [1e-6, 1e-5])
def test_the_rtl_loses_the_slots_that_the_bits_of_the_line_say(built, ber):
    """Within the 95 % band, on the line of an end that sends nothing but answers, so that no lost header spoils others.

    Counted apart from the model: 8 * flit_bytes bits of the slot and 58 of the slot before it on each wavelength.
    """
    spec, _, program = built
    seen = run_of_rtl(program, delay_cycles=10, ber_back=ber)
    slots, own, before = seen["slots"] / 2, 8 * spec.flit_bytes, 58 * spec.wavelengths_per_port
    lost = 1 - (1 - ber) ** (own + before)
    assert lost == pytest.approx(Losses.of(replace(spec, bit_error_rate=ber)).slot_loss_rate, rel=1e-9)
    neither = (1 - ber) ** (2 * own + before)
    deviation = sqrt(slots * (lost * (1 - lost) + 2 * (neither - (1 - lost) ** 2)))
    assert abs(seen["crc_errors"] - slots * lost) < CONFIDENT * deviation, f"seed 1, BER {ber}"


@pytest.mark.slow
@pytest.mark.parametrize("delay_cycles", [10, 45])
@pytest.mark.parametrize("ber", [1e-6, 1e-5])
def test_the_rtl_carries_what_the_cycle_model_says(built, ber, delay_cycles):
    """Within the 95 % band of errors in both directions: the number of flits that are lost when it is their turn."""
    spec, timing, program = built
    seen = run_of_rtl(program, delay_cycles, ber=ber, ber_back=ber)
    clean, lossy = (
        float(sustained_cycles_per_flit(each, timing, delay_cycles)) for each in (spec, replace(spec, bit_error_rate=ber))
    )
    flits = seen["window_payload_bytes"] / spec.payload_bytes
    misses = flits * (1 - (1 - ber) ** (8 * spec.flit_bytes))
    band = CONFIDENT * (lossy - clean) / sqrt(misses) + 2 * spec.slot_cycles / flits
    assert abs(seen["window_cycles"] / flits - lossy) < band, f"seed 1, BER {ber}"
