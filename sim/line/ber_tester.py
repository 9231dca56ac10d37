"""The bench of the bit error tester has two testers on a line, which a script sets and reads as software would."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from amaranth import Cat, Module, Signal

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.ber_tester import BerTester
from lightfabric.rtl.line import Pacer
from lightfabric.sim.bench.bench import Bench
from lightfabric.sim.bench.link import Fibre, clean, kept
from lightfabric.sim.channel.error import Errors
from lightfabric.sim.channel.fibre import Fibre as ChannelFibre

PULSES = ("ber_clear", "ber_snapshot", "ber_error_once")


@dataclass(frozen=True)
class Reading:
    """Holds what a tester tells of a lane."""

    errors: int
    blocks: int


class End:
    """Holds a tester and numbered blocks in place of its link; ``passed`` are the blocks that the link would get."""

    def __init__(self, m: Module, name: str, spec: ChipletSpec):
        part, self._lanes = Module(), spec.wavelengths_per_port
        part.submodules.tester = self.tester = tester = BerTester(spec)
        part.submodules.pacer = pacer = Pacer(spec)
        number = Signal(32)
        part.d.comb += tester.link_tx.valid.eq(pacer.beat)
        part.d.sync += number.eq(number + pacer.beat)
        for lane, block in enumerate(tester.link_tx.blocks):
            part.d.comb += [block.sync.eq(1), block.bits.eq(number << 8 | lane)]
        m.submodules[name] = part
        arrived = Cat(block.as_value() for block in tester.link_rx.blocks)
        self.samples = (tester.status, tester.link_rx.valid, arrived)

    def start(self) -> None:
        """Forget what the last run showed."""
        self.status, self.passed = None, list[int]()
        self._controls = dict[str, int]()

    def write(self, **controls: int) -> None:
        """Set controls of the registers by their names; a pulse lasts for a cycle."""
        self._controls |= controls

    def step(self, ctx, cycle: int, status, valid: int | None, arrived: int | None) -> None:
        """Take what the cycle before showed, and drive the controls; those of a pulse fall again."""
        self.status = status
        if valid:
            self.passed.append(arrived)
        ctx.set(self.tester.controls, dict(self._controls))
        self._controls |= dict.fromkeys(PULSES, 0)

    def snapshot(self, **controls: int) -> Generator[None, None, list[Reading]]:
        """Make a script take a snapshot and read all lanes, by ``yield from``."""
        self.write(ber_snapshot=1, **controls)
        yield
        readings = []
        for lane in range(self._lanes):
            self.write(ber_lane=lane)
            yield from (None for _ in range(3))
            readings.append(Reading(self.status.ber_errors, self.status.ber_blocks | self.status.ber_blocks_high << 32))
        return readings


Script = Callable[[End, End], Iterator[None]]
"""From both ends a generator that is resumed in each cycle until it ends."""


class _Keeper:
    samples = ()

    def __init__(self, script: Iterator[None]):
        self.script, self.done = script, False

    def step(self, ctx, cycle: int) -> None:
        self.done = next(self.script, True) is not None


class BerBench:
    """Holds two testers and the fibres between them, elaborated once."""

    def __init__(self, spec: ChipletSpec):
        m = Module()
        self.spec = spec
        self.a, self.b = End(m, "a", spec), End(m, "b", spec)
        self._there = Fibre(m, spec, self.a.tester.tx, self.b.tester.rx)
        self._back = Fibre(m, spec, self.b.tester.tx, self.a.tester.rx)
        self._bench = Bench(m)

    def run(
        self,
        script: Script,
        *,
        there: Errors = clean,
        back: Errors = clean,
        channel: ChannelFibre | None = None,
        bound_cycles: int = 20_000,
    ) -> int:
        """Run the script and return its cycles; the fibres flip the bits that ``there`` and ``back`` say.

        A ``channel`` stands in place of the fibre from end a.
        """
        self._there.start(2, there, kept, frozenset(), channel)
        self._back.start(2, back, kept, frozenset())
        for end in (self.a, self.b):
            end.start()
        keeper = _Keeper(script(self.a, self.b))
        # The script comes first: what it writes is driven in the same cycle.
        return self._bench.run([keeper, self.a, self.b, self._there, self._back], lambda _: keeper.done, bound_cycles)
