"""The bench of steering has circuits on a ring that move at random between lines, and rings and links that may fail."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from amaranth import Module

from lightfabric.rtl.claims import ClaimTable
from lightfabric.rtl.steering import Outcome, Steering, StepBounds
from lightfabric.sim.bench.bench import Bench

Segments = Mapping[int, int]
"""Number of a circuit -> the mask of the segments that it is on."""


@dataclass
class Move:
    """Holds what was seen of a move: its circuit, its line, when it began and ended, and how."""

    circuit: int
    line: int
    begin: int
    end: int = 0
    outcome: Outcome = Outcome.NONE


@dataclass
class SteeringRun:
    """Holds what a run showed.

    ``light`` has, for each cycle, the lines of the circuits whose rings were not parked or not yet off them; ``dark`` the
    cycles in which each circuit's link was held within a move, as seen from outside, ``counted`` those that the hardware
    counted.
    """

    moves: list[Move] = field(default_factory=list)
    light: list[dict[int, int]] = field(default_factory=list)
    dark: dict[int, int] = field(default_factory=dict)
    counted: dict[int, int] = field(default_factory=dict)


class _Devices:
    """Stands for the rings and link of one circuit, each of which answers after a random time, or not."""

    def __init__(self, circuit: int, steering: Steering, rng: random.Random, fail_rate: float, moves: int, run: SteeringRun):
        self._circuit, self._steering, self._rng, self._fail_rate = circuit, steering, rng, fail_rate
        self._run, self._left, self._rest = run, moves, 0
        self._answer_at = dict[str, float]()
        self._locked = 0
        names = ("busy", "hold", "enable", "park", "tune", "target_line", "outcome", "dark_cycles")
        self.samples = tuple(getattr(steering, name) for name in names)
        self._was_busy, self._moves = 0, False

    def _answers(self, name: str, cycle: int, asked) -> int:
        if not asked:
            self._answer_at.pop(name, None)
            return 0
        fails = self._rng.random() < self._fail_rate
        at = self._answer_at.setdefault(name, float("inf") if fails else cycle + self._rng.randint(0, 12))
        return int(cycle >= at)

    def step(self, ctx, cycle, busy=0, hold=1, enable=0, park=1, tune=0, line=0, outcome=0, counted=0) -> None:
        steering = self._steering
        if cycle and (self._locked or not park):
            self._run.light[-1][self._circuit] = line
        self._run.dark[self._circuit] = self._run.dark.get(self._circuit, 0) + (1 if busy and hold else 0)
        self._run.counted[self._circuit] = counted
        ctx.set(steering.drained, self._answers("drained", cycle, hold))
        ctx.set(steering.active, self._answers("active", cycle, enable))
        if tune:
            self._answer_at.pop("lock", None)
        # A ring keeps its lock for some cycles after it is told to park.
        lets_go = self._answers("park", cycle, park)
        locks = self._answers("lock", cycle, not park)
        self._locked = 1 if locks else 0 if park and lets_go else self._locked
        ctx.set(steering.locked, 0b11 * self._locked)
        if self._was_busy and not busy:
            self._run.moves[self._current].end, self._run.moves[self._current].outcome = cycle - 1, Outcome(outcome)
            self._rest, self._moves = self._rng.randint(0, 40), False
        self._was_busy = busy
        self._rest -= 1
        starts = not (self._moves or self._stuck) and self._left > 0 and self._rest < 0
        ctx.set(steering.start, int(starts))
        self._moves |= starts
        if starts:
            self._left -= 1
            wanted = self._rng.randrange(steering.lines)
            ctx.set(steering.line, wanted)
            self._current = len(self._run.moves)
            self._run.moves.append(Move(self._circuit, wanted, cycle))

    @property
    def done(self) -> bool:
        """Tell whether all moves of this circuit have ended."""
        return not self._moves and (self._left == 0 or self._stuck)

    @property
    def _stuck(self) -> bool:
        return any(move.circuit == self._circuit and move.outcome == Outcome.STUCK for move in self._run.moves)


class _Clock:
    """Opens the record of the light of each cycle."""

    samples = ()

    def __init__(self, run: SteeringRun):
        self._run = run

    def step(self, _ctx, _cycle: int) -> None:
        self._run.light.append({})


class SteeringBench:
    """Holds a claim table and the steering of each circuit, elaborated once."""

    def __init__(self, segments: Segments, lines: int, nodes: int, bounds: StepBounds):
        m, count = Module(), len(segments)
        self._steerings = [Steering(lines, bounds) for _ in segments]
        m.submodules.table = table = ClaimTable(count, lines, nodes)
        for circuit, steering in enumerate(self._steerings):
            m.submodules[f"steering_{circuit}"] = steering
            m.d.comb += [
                *(
                    getattr(table, name)[circuit].eq(getattr(steering, name))
                    for name in ("ask", "adopt", "withdraw", "leave")
                ),
                table.wanted[circuit].wavelength.eq(steering.wavelength),
                table.wanted[circuit].segments.eq(segments[circuit]),
                steering.granted.eq(table.granted[circuit]),
            ]
        self._bench = Bench(m)

    def run(self, moves: int, *, fail_rate: float, seed: int, bound_cycles: int = 100_000) -> SteeringRun:
        """Let each circuit make so many random moves; a device does not answer at ``fail_rate``."""
        run = SteeringRun()
        devices = [
            _Devices(n, steering, random.Random(f"{seed} {n}"), fail_rate, moves, run)
            for n, steering in enumerate(self._steerings)
        ]
        self._bench.run([_Clock(run), *devices], lambda _: all(each.done for each in devices), bound_cycles)
        return run
