"""The credit ledger: credits that a client loses or invents are found, counted and made good."""

import pytest
from amaranth.sim import Simulator

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import LEAK_CYCLES, CreditLedger

SPEC = ChipletSpec(ports=1, wavelengths_per_port=8, flit_bytes=64, buffer_flits=4, reach_m=1.0)
QUIET = (0, 0, 0)


def ledger(cycles: list[tuple[int, int, int]]) -> tuple[list[int], int, int]:
    """(limit in each cycle, leaks, violations) for (flit, credit, held) in each cycle."""
    block, limits, counts = CreditLedger(SPEC), [], [0, 0]

    async def bench(ctx):
        for flit, credit, held in cycles:
            ctx.set(block.flit, flit)
            ctx.set(block.credit, credit)
            ctx.set(block.held, held)
            limits.append(ctx.get(block.limit))
            counts[0] += ctx.get(block.leak)
            counts[1] += ctx.get(block.violation)
            await ctx.tick()

    simulator = Simulator(block)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    return limits, *counts


def test_a_client_that_keeps_the_rules_is_never_accused():
    """A flit that is held for long is no leak."""
    held = [(1, 0, 0), *[(0, 0, 1)] * 100, (0, 1, 1), *[QUIET] * 40]
    limits, leaks, violations = ledger(held)
    assert (limits[0], limits[-1], leaks, violations) == (4, 5, 0, 0)


@pytest.mark.parametrize("lost", [1, 3])
def test_credits_that_are_lost_are_counted_and_given_again(lost):
    limits, leaks, violations = ledger([*[(1, 0, 0)] * lost, *[QUIET] * (LEAK_CYCLES + 8)])
    assert (limits[-1], leaks, violations) == (4 + lost, lost, 0)


def test_a_credit_that_nobody_was_due_is_counted_and_not_given():
    """A level used as a pulse."""
    limits, leaks, violations = ledger([(1, 0, 0), (0, 1, 1), (0, 1, 0), (0, 1, 0), QUIET])
    assert (limits[-1], leaks, violations) == (5, 0, 2)


def test_a_flit_beyond_the_buffer_is_counted():
    limits, leaks, violations = ledger([*[(1, 0, 0)] * 5, QUIET])
    assert (limits[-1], leaks, violations) == (4, 0, 1)


def test_a_credit_that_comes_just_as_one_is_missed_is_not_lost_as_well():
    """Two flits are out and quiet for so long that one counts as lost, in the cycle in which the credit of one comes."""
    limits, leaks, violations = ledger([*[(1, 0, 0)] * 2, *[QUIET] * LEAK_CYCLES, (0, 1, 0), *[QUIET] * (LEAK_CYCLES + 8)])
    assert (limits[-1], leaks, violations) == (4 + 2, 1, 0)
