"""Steering moves a circuit of a ring to another wavelength: claim, drain, park, tune, lock, train, resume.

The words of its state machine:

* *lines*: wavelengths by their number; *old* is that of the circuit as it is, *new* that to which it is to move
* *rings*: those that add and drop the circuit, at its two ends; a *parked* ring touches no line
* *lit*: the circuit carries light; otherwise it is *dark*, its rings are parked, and it has no claim
* *goal*: the line that the rings are on their way to; the old one after the new one did not come up, and none after that
* *stuck*: a ring did not let go of its line, which therefore stays claimed; no move begins any more
"""

from dataclasses import dataclass

from amaranth import Module, Mux, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

SETTLE_CYCLES = 3
"""What the link and the rings answer to a new phase is looked at after so many cycles."""
MAX_BOUND_CYCLES = 1 << 30
COUNT_BITS = 48


class Step(enum.Enum, shape=3):
    """Names the phases of a move in their order; PARK to TRAIN come again for the old line, and PARK to be dark."""

    IDLE = 0
    CLAIM = 1
    DRAIN = 2
    PARK = 3
    LOCK = 4
    TRAIN = 5


class Goal(enum.Enum, shape=2):
    """Says where the rings are to go."""

    NEW = 0
    OLD = 1
    NONE = 2


class Outcome(enum.Enum, shape=3):
    """Says how a move ended."""

    NONE = 0
    MOVED = 1
    """The circuit is on the new line."""
    BUSY = 2
    """The new line was not granted: all is as before."""
    UNDRAINED = 3
    """The link did not drain: all is as before."""
    RESTORED = 4
    """The new line did not come up: the circuit is on the old one again."""
    DARK = 5
    """No line came up: the rings are parked, the link is held and disabled, and nothing is claimed."""
    STUCK = 6
    """A ring did not let go of its line: the circuit is dark, and what it claimed stays claimed until reset."""


@dataclass(frozen=True)
class StepBounds:
    """Says within how many cycles each phase of a move must be over."""

    claim_cycles: int
    drain_cycles: int
    park_cycles: int
    lock_cycles: int
    train_cycles: int

    def __post_init__(self) -> None:
        for name, cycles in vars(self).items():
            if not SETTLE_CYCLES < cycles <= MAX_BOUND_CYCLES:
                raise ValueError(f"StepBounds.{name} must be from {SETTLE_CYCLES + 1} to {MAX_BOUND_CYCLES}, not {cycles}")

    def of(self, step: Step) -> int:
        """Returns the bound of a phase that has one."""
        return vars(self)[f"{step.name.lower()}_cycles"]

    @property
    def most_cycles(self) -> int:
        """Adds up the longest move: to a line that does not come up, and back to one that does not, either."""
        return self.left_cycles(Step.CLAIM, Goal.NEW)

    def left_cycles(self, step: Step, goal: Goal) -> int:
        """Adds up what a move may still take from the beginning of a phase on."""
        tries = [(Step.PARK, Step.LOCK, Step.TRAIN)] * 2 + [(Step.PARK,)]
        way = [(Goal.NEW, Step.CLAIM), (Goal.NEW, Step.DRAIN)]
        way += [(Goal(number), each) for number, steps in enumerate(tries) for each in steps]
        return sum(self.of(each) + 1 for _, each in way[way.index((goal, step)) :])


class Steering(wiring.Component):
    """Moves the circuit of one link from line to line, or out of the dark, and no flit is lost.

    ``start`` begins a move to ``line``; ``busy`` is 1 until it has ended, with ``outcome``, after at most
    ``bounds.most_cycles``. The new line is claimed beside the old one, so that a move that fails can go back. The link is
    held and drained, and both rings are parked until they say that they are no longer locked; only then are they tuned. The
    link is trained again with what it had: its far end is the same. From reset on the circuit is dark.

    The link must be drained within the bound or the move is given up, so that nothing is under way when the light goes.
    Rings are parked whenever the circuit is dark, and tuned to no line but one that the circuit has a claim to; a claim is
    given back when they have let go of it.

    ``dark_cycles`` counts the cycles since reset in which a move held the link.

    Members
    -------
    start : In(1), pulse while not ``busy``; without effect when stuck
    line : In(range(lines)), with ``start``
    busy : Out(1)
    outcome : Out(Outcome), of the last move, from when ``busy`` falls on
    ask, adopt, withdraw, leave : Out(1), of ClaimTable
    granted : In(1), of ClaimTable
    wavelength : Out(range(lines)), asked for
    target_line : Out(range(lines)), of both rings
    tune : Out(1), pulse: go to ``target_line``
    park : Out(1)
    locked, failed : In(rings), of each ring, from the fourth cycle after ``park`` or ``tune`` on
    hold, enable : Out(1), of the link
    drained, active : In(1), of the link
    lit : Out(1)
    step : Out(Step)
    dark_cycles : Out(48)
    """

    def __init__(self, lines: int, bounds: StepBounds, rings: int = 2):
        if lines < 2:
            raise ValueError(f"Steering.lines must be at least 2, not {lines}")
        self.lines, self.bounds = lines, bounds
        ins = dict.fromkeys(("start", "granted", "drained", "active"), In(1))
        outs = dict.fromkeys(("busy", "ask", "adopt", "withdraw", "leave", "tune", "enable", "lit"), Out(1))
        numbers = {"line": In(range(lines)), **dict.fromkeys(("wavelength", "target_line"), Out(range(lines)))}
        levels = dict.fromkeys(("park", "hold"), Out(1, init=1))
        codes = {"outcome": Out(Outcome), "step": Out(Step), "dark_cycles": Out(COUNT_BITS)}
        super().__init__({**ins, **outs, **numbers, **levels, **dict.fromkeys(("locked", "failed"), In(rings)), **codes})

    def elaborate(self, platform):
        m = Module()
        steps = (Step.CLAIM, Step.DRAIN, Step.PARK, Step.LOCK, Step.TRAIN)
        timer = Signal(range(max(map(self.bounds.of, steps)) + 1))
        self._age, self._goal, self._old = Signal(range(SETTLE_CYCLES + 1)), Signal(Goal), Signal.like(self.target_line)
        self._timer, self._expired, answers, stuck, had_line = timer, Signal(), Signal(), Signal(), Signal()
        self.state = {
            "timer": timer,
            "age": self._age,
            "goal": self._goal.as_value(),
            "old": self._old,
            "had_line": had_line,
        }
        m.d.comb += [answers.eq(self._age == SETTLE_CYCLES), self._expired.eq(timer == 0)]
        m.d.comb += self.busy.eq(self.step != Step.IDLE)
        m.d.sync += [timer.eq(timer - (timer != 0)), self._age.eq(self._age + ~answers)]
        m.d.sync += [signal.eq(0) for signal in (self.tune, self.adopt, self.withdraw, self.leave)]
        with m.If(self.busy & self.hold & (self.step != Step.CLAIM)):
            m.d.sync += self.dark_cycles.eq(self.dark_cycles + 1)
        with m.Switch(self.step):
            with m.Case(Step.IDLE):
                with m.If(self.start & ~stuck):
                    m.d.sync += [*self._enter(Step.CLAIM), self.ask.eq(1), self.wavelength.eq(self.line)]
                    m.d.sync += [self._goal.eq(Goal.NEW), self._old.eq(self.target_line), had_line.eq(self.lit)]
            with m.Case(Step.CLAIM):
                with m.If(self.granted):
                    m.d.sync += [*self._enter(Step.DRAIN), self.ask.eq(0), self.hold.eq(1)]
                with m.Elif(self._expired):
                    m.d.sync += [*self._end(Outcome.BUSY), self.ask.eq(0), self.withdraw.eq(1)]
            with m.Case(Step.DRAIN):
                with m.If(answers & (self.drained | ~self.lit)):
                    m.d.sync += [*self._enter(Step.PARK), self.park.eq(1), self.enable.eq(0), self.lit.eq(0)]
                with m.Elif(self._expired):
                    m.d.sync += [*self._end(Outcome.UNDRAINED), self.withdraw.eq(1), self.hold.eq(~self.lit)]
            with m.Case(Step.PARK):
                with m.If(answers & ~self.locked.any() & (self._goal == Goal.NONE)):
                    m.d.sync += [*self._end(Outcome.DARK), self.withdraw.eq(1), self.leave.eq(1)]
                with m.Elif(answers & ~self.locked.any()):
                    m.d.sync += [*self._enter(Step.LOCK), self.park.eq(0), self.tune.eq(1)]
                    m.d.sync += self.target_line.eq(Mux(self._goal == Goal.OLD, self._old, self.wavelength))
                with m.Elif(self._expired):
                    # A ring that does not let go of its line must not be told of another one.
                    m.d.sync += [*self._end(Outcome.STUCK), stuck.eq(1)]
            with m.Case(Step.LOCK):
                with m.If(answers & self.locked.all() & ~self.failed.any()):
                    m.d.sync += [*self._enter(Step.TRAIN), self.enable.eq(1)]
                with m.Elif((answers & self.failed.any()) | self._expired):
                    m.d.sync += self._go_back(had_line)
            with m.Case(Step.TRAIN):
                restored = self._goal == Goal.OLD
                with m.If(answers & self.active):
                    m.d.sync += [*self._end(Mux(restored, Outcome.RESTORED, Outcome.MOVED)), self.hold.eq(0)]
                    m.d.sync += [self.lit.eq(1), self.withdraw.eq(restored), self.adopt.eq(~restored)]
                with m.Elif(self._expired):
                    m.d.sync += self._go_back(had_line)
        return m

    def _enter(self, step: Step):
        return [self.step.eq(step), self._age.eq(0), self._timer.eq(self.bounds.of(step))]

    def _end(self, outcome):
        return [self.step.eq(Step.IDLE), self.outcome.eq(outcome)]

    def _go_back(self, had_line):
        """Parks the rings for the old line, or for good if there is none."""
        goal = Mux((self._goal == Goal.NEW) & had_line, Goal.OLD, Goal.NONE)
        return [*self._enter(Step.PARK), self._goal.eq(goal), self.park.eq(1), self.enable.eq(0)]
