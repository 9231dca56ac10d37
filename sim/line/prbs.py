"""The bench of test patterns steps a generator of one width, and shows blocks to a checker."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from amaranth import Module

from lightfabric.rtl.prbs import ORDERS, PrbsChecker, PrbsGenerator
from lightfabric.sim.bench.bench import Bench


@dataclass(frozen=True)
class Switches:
    """Says which sequence is sent or expected, and how."""

    order: int = 31
    invert: int = 0
    reverse: int = 0


class _Actor:
    """Feeds blocks, or steps, one a cycle; None is a cycle without."""

    def __init__(self, block, orders: Sequence[int], switches: Switches, fed: Iterable[int | Switches | None]):
        self.block, self.orders, self.switches, self.fed = block, orders, switches, iter(fed)
        self.shown: list[tuple[int, ...]] = []

    def step(self, ctx, cycle: int, *sampled: int) -> None:
        """Drive the switches anew with a restart where ``fed`` has them, else the next block."""
        if cycle:
            self.shown.append(sampled)
        value = next(self.fed, None)
        switches = self.switches if cycle == 0 else value if isinstance(value, Switches) else None
        if switches:
            ctx.set(self.block.select, self.orders.index(switches.order))
            ctx.set(self.block.invert, switches.invert)
            ctx.set(self.block.reverse, switches.reverse)
        ctx.set(self.block.restart, isinstance(value, Switches))
        self._feed(ctx, None if isinstance(value, Switches) else value)


class _Stepper(_Actor):
    def __init__(self, generator: PrbsGenerator, switches: Switches, steps):
        super().__init__(generator, generator.orders, switches, steps)
        self.samples = (generator.step, generator.bits)

    def _feed(self, ctx, value: int | None) -> None:
        ctx.set(self.block.step, value is not None)


class _Feeder(_Actor):
    def __init__(self, checker: PrbsChecker, switches: Switches, blocks):
        super().__init__(checker, checker.orders, switches, blocks)
        self.samples = (checker.locked, checker.checked, checker.errors, checker.lost)

    def _feed(self, ctx, value: int | None) -> None:
        ctx.set(self.block.valid, value is not None)
        ctx.set(self.block.bits, value or 0)


class GeneratorBench:
    """Holds a generator of one width, elaborated once."""

    def __init__(self, width: int, orders: Sequence[int] = ORDERS):
        self._bench, self._generator = _elaborated(PrbsGenerator(width, orders))

    def run(self, steps: Sequence[int | Switches | None], switches: Switches) -> list[int]:
        """Return the block after each step, with one step per cycle but where it is None or the switches change."""
        actor = _Stepper(self._generator, switches, steps)
        self._bench.run([actor], lambda cycle: cycle > len(steps), len(steps) + 2)
        return [bits for (step, _), (_, bits) in zip(actor.shown, actor.shown[1:], strict=False) if step]


@dataclass(frozen=True)
class Check:
    """Holds what a checker showed in each cycle, and sums of it."""

    locked: list[int]
    checked_blocks: int
    errors: int
    losses: int


class CheckerBench:
    """Holds a checker of one width, elaborated once."""

    def __init__(self, width: int, orders: Sequence[int] = ORDERS):
        self._bench, self._checker = _elaborated(PrbsChecker(width, orders))

    def run(self, blocks: Sequence[int | Switches | None], switches: Switches) -> Check:
        """Show a block a cycle, none where it is None, and then as many cycles as the checker needs."""
        actor = _Feeder(self._checker, switches, blocks)
        self._bench.run([actor], lambda cycle: cycle > len(blocks) + 4, len(blocks) + 6)
        locked, checked, errors, losses = zip(*actor.shown, strict=True)
        return Check(list(locked), sum(checked), sum(errors), sum(losses))


def _elaborated(block):
    m = Module()
    m.submodules.block = block
    return Bench(m), block
