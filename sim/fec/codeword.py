"""The bench of the Reed-Solomon codec sends codewords through a block and returns those that came out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from amaranth import Module

from lightfabric.model.reed_solomon import ReedSolomon
from lightfabric.sim.bench.bench import BenchTimeoutError
from lightfabric.sim.bench.simulator import Pins, sampler, simulator


@dataclass(frozen=True)
class Beat:
    """Holds a beat of p symbols that goes in, and whether it is marked as the first of a codeword."""

    symbols: tuple[int, ...]
    first: int = 0


@dataclass
class CodecRun:
    """Holds what one run showed: the cycles in which beats went in, and (cycle, outputs) of each beat that came out."""

    in_cycles: list[int] = field(default_factory=list)
    out: list[tuple[int, dict[str, int]]] = field(default_factory=list)


def beats_of(code: ReedSolomon, p: int, codeword: Sequence[int]) -> list[Beat]:
    """Cut a codeword into beats; what is missing of the last one is filled with ones, which nobody must look at."""
    filled = [*codeword, *[code.field.order] * (code.beats(p) * p - len(codeword))]
    return [Beat(tuple(filled[at : at + p]), int(at == 0)) for at in range(0, len(filled), p)]


class CodecBench:
    """Simulates an encoder or decoder, elaborated once, run after run from reset."""

    def __init__(self, block):
        self.block = block
        names = ("last", "corrected", "uncorrectable")
        self._outputs = {"valid": block.o.valid, "first": block.o.first, "data": block.o.data}
        self._outputs |= {name: getattr(block, name) for name in names if hasattr(block, name)}
        m = Module()
        m.submodules.block = block
        self._simulator = simulator(m)
        self._simulator.add_clock(1e-9)
        self._sample = sampler(self._simulator, list(self._outputs.values()))
        self._testbench: Callable | None = None

        async def testbench(ctx):
            await self._testbench(ctx)

        self._simulator.add_testbench(testbench)

    def run(
        self, beats: Sequence[Beat | None], expected_beats: int, *, mode: int = 0, bound_cycles: int = 20_000
    ) -> CodecRun:
        """Send the beats, None for a gap, one per cycle, until so many have come out; BenchTimeoutError if they do not."""
        run, bits = CodecRun(), self.block.code.m

        async def testbench(ctx):
            pins = Pins(self._simulator, ctx)
            if hasattr(self.block, "mode"):
                ctx.set(self.block.mode, mode)
            for cycle in range(bound_cycles):
                beat = beats[cycle] if cycle < len(beats) else None
                pins.set(self.block.i.valid, int(beat is not None))
                if beat is not None:
                    run.in_cycles.append(cycle)
                    pins.set(self.block.i.first, beat.first)
                    pins.set(self.block.i.data, sum(symbol << bits * at for at, symbol in enumerate(beat.symbols)))
                outputs = dict(zip(self._outputs, self._sample(), strict=True))
                if outputs["valid"]:
                    run.out.append((cycle, outputs))
                    if len(run.out) == expected_beats:
                        return
                await ctx.tick()
            raise BenchTimeoutError(f"the bench did not end within {bound_cycles} cycles")

        # A reset makes the coroutine of the next run, which must not be left unused.
        if self._testbench is not None:
            self._simulator.reset()
        self._testbench = testbench
        self._simulator.run()
        return run

    def codewords(self, run: CodecRun) -> list[list[int]]:
        """Put the symbols that came out together to codewords, what fills up their last beats included."""
        bits, p, beats = self.block.code.m, self.block.p, self.block.code.beats(self.block.p)
        mask = (1 << bits) - 1
        symbols = [outputs["data"] >> bits * at & mask for _, outputs in run.out for at in range(p)]
        return [symbols[at : at + beats * p] for at in range(0, len(symbols), beats * p)]
