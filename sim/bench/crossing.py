"""The bench of a crossing between clock domains has any two clocks, a reset of either domain at any time."""

from collections.abc import Callable, Container
from dataclasses import dataclass, field

from amaranth import ClockDomain, Module

from lightfabric.rtl.crossing import StreamCrossing
from lightfabric.sim.bench.bench import BenchTimeoutError
from lightfabric.sim.bench.client import Pauses, never
from lightfabric.sim.bench.simulator import simulator

Values = dict[str, int]
"""Of the fields of a word."""


@dataclass(frozen=True)
class Clock:
    """Describes period and phase, and the cycles in which the reset of the domain is active."""

    period_ps: int = 1000
    phase_ps: int = 0
    resets: Container[int] = frozenset()


@dataclass
class CrossingRun:
    """Holds what one run showed: (time in ps, what), by rising time.

    ``changed`` are times at which a word that had not been taken was no longer offered unchanged, but for a reset of the
    output; ``cuts`` those at which the end of a cut packet was taken.
    """

    sent: list[tuple[int, Values]] = field(default_factory=list)
    received: list[tuple[int, Values]] = field(default_factory=list)
    i_resets_ps: list[int] = field(default_factory=list)
    o_resets_ps: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)


class CrossingBench:
    """Puts a crossing from domain ``near`` to domain ``far`` under a source and a sink that are reset with their domains."""

    def __init__(self, layout, depth: int = 16):
        self.layout, self.depth = layout, depth

    def run(
        self,
        word: Callable[[], Values | None],
        i_clock: Clock,
        o_clock: Clock,
        *,
        i_reset: Callable[[], None] = lambda: None,
        i_pauses: Pauses = never,
        o_pauses: Pauses = never,
        end: Callable[[Values], bool],
        bound_cycles: int = 20_000,
    ) -> CrossingRun:
        """Send what ``word()`` gives, word after word, until ``end(word)`` holds for one that was received.

        The source asks for a word when the one before was taken; None is a pause. ``i_reset()`` is called when it was
        reset and has forgotten the word that it offered. BenchTimeoutError after ``bound_cycles`` of the input's clock.
        """
        m, run = Module(), CrossingRun()
        m.domains.near, m.domains.far = near, far = ClockDomain("near"), ClockDomain("far")
        m.submodules.crossing = crossing = StreamCrossing(self.layout, i_domain="near", o_domain="far", depth=self.depth)
        simulation = simulator(m)
        ended = False

        async def source(ctx):
            cycle, offered = 0, None
            while not ended:
                resets = cycle in i_clock.resets
                ctx.set(near.rst, resets)
                if offered is None and not i_pauses(cycle) and (offered := word()):
                    ctx.set(crossing.i.payload, offered)
                ctx.set(crossing.i.valid, offered is not None)
                _, _, ready = await ctx.tick("near").sample(crossing.i.ready)
                cycle, now_ps = cycle + 1, i_clock.phase_ps + cycle * i_clock.period_ps
                if ready and offered is not None:
                    run.sent.append((now_ps, offered))
                    offered = None
                if resets:
                    run.i_resets_ps.append(now_ps)
                    i_reset()
                    offered = None
                if cycle > bound_cycles:
                    raise BenchTimeoutError(f"the bench did not end within {bound_cycles} cycles")

        async def sink(ctx):
            nonlocal ended
            cycle, waiting = 0, None
            while not ended:
                resets, ready = cycle in o_clock.resets, not o_pauses(cycle)
                ctx.set(far.rst, resets)
                ctx.set(crossing.o.ready, ready)
                samples = ctx.tick("far").sample(crossing.o.valid, crossing.o.payload, crossing.cut)
                _, _, valid, payload, cut = await samples
                cycle, now_ps = cycle + 1, o_clock.phase_ps + cycle * o_clock.period_ps
                offered = (payload.as_bits(), cut) if valid else None
                if waiting is not None and offered != waiting:
                    run.changed.append(now_ps)
                # A reset of the output takes a waiting word away by right.
                waiting = None if ready or resets else offered
                if resets:
                    run.o_resets_ps.append(now_ps)
                elif valid and ready:
                    received = {name: getattr(payload, name) for name, _ in self.layout}
                    run.received.append((now_ps, received))
                    run.cuts.extend([now_ps] * cut)
                    ended = end(received)

        for domain, clock, testbench in (("near", i_clock, source), ("far", o_clock, sink)):
            simulation.add_clock(clock.period_ps * 1e-12, phase=clock.phase_ps * 1e-12, domain=domain)
            simulation.add_testbench(testbench)
        simulation.run()
        return run
