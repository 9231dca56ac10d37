"""Steering is proven here: claims never meet, and every move ends in time, whatever rings and links do."""

from itertools import combinations

from amaranth import Mux, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import data
from amaranth.lib.wiring import In

from lightfabric.rtl.claims import ClaimTable, claim_layout
from lightfabric.rtl.steering import SETTLE_CYCLES, Goal, Outcome, Steering, Step, StepBounds
from lightfabric.sim.formal.harness import Harness, Inside, latched, was

BOUNDS = StepBounds(claim_cycles=4, drain_cycles=5, park_cycles=4, lock_cycles=6, train_cycles=5)
"""The shortest phases, of lengths that differ."""


class Claims(Harness):
    """Lets circuits ask for any wavelengths on any segments, and adopt, withdraw and leave when they like.

    Members
    -------
    ask, adopt, withdraw, leave : In(circuits)
    wanted : In(claim_layout(wavelengths, segments)).array(circuits)
    """

    CIRCUITS, WAVELENGTHS, SEGMENTS = 3, 2, 3

    def __init__(self, table=ClaimTable):
        self.table = table(self.CIRCUITS, self.WAVELENGTHS, self.SEGMENTS)
        pulses = dict.fromkeys(("ask", "adopt", "withdraw", "leave"), In(self.CIRCUITS))
        claim = claim_layout(self.WAVELENGTHS, self.SEGMENTS)
        super().__init__({**pulses, "wanted": In(claim).array(self.CIRCUITS)})

    def _prove(self, m):
        m.submodules.table = table = self.table
        inside = Inside(table)
        asker, looks = inside["asker"], inside["looks"]
        asked = data.View(table.claim, inside["asked"])
        m.d.comb += [getattr(table, name).eq(getattr(self, name)) for name in ("ask", "adopt", "withdraw", "leave")]
        m.d.comb += [mine.eq(other) for mine, other in zip(table.wanted, self.wanted, strict=True)]

        def meet(one, other):
            return (one.wavelength == other.wavelength) & (one.segments & other.segments).any()

        for a, b in combinations(range(self.CIRCUITS), 2):
            for one in (table.kept[a], table.next[a]):
                for other in (table.kept[b], table.next[b]):
                    m.d.comb += Assert(~meet(one, other), "no two circuits have one wavelength on one segment")
        m.d.comb += [
            Assert(~looks | (asker != 0), "invariant: somebody asked"),
            Assert((asker & (asker - 1)) == 0, "invariant: one asked"),
            Cover(
                table.kept[0].segments.any() & table.next[1].segments.any() & meet(table.kept[0], asked) & looks, "a clash"
            ),
        ]


class Moves(Harness):
    """Lets a circuit move at any time while its rings, its link and the claims answer as they like.

    Members
    -------
    start, granted, drained, active : In(1)
    line : In(range(lines))
    locked, failed : In(2)
    """

    LINES = 3

    def __init__(self, steering=Steering):
        self.steering = steering(self.LINES, BOUNDS)
        switches = dict.fromkeys(("start", "granted", "drained", "active"), In(1))
        super().__init__({**switches, "line": In(range(self.LINES)), **dict.fromkeys(("locked", "failed"), In(2))})

    def _prove(self, m):
        m.submodules.steering = steering = self.steering
        inside = Inside(steering)
        timer, age, goal, old, had_line = (inside[name] for name in ("timer", "age", "goal", "old", "had_line"))
        m.d.comb += [getattr(steering, name).eq(getattr(self, name)) for name in self.signature.members]
        most = BOUNDS.most_cycles
        waited = Signal(range(most + 2))
        m.d.sync += waited.eq(Mux(steering.busy, waited + 1, 0))
        m.d.comb += [
            # The table says what it granted a cycle after it did so.
            Assume(~self.granted | was(m, steering.ask, "asked")),
            Assert(waited <= most, "every move ends within the sum of its bounds"),
            Assert(
                steering.busy | (steering.outcome.as_value() != Outcome.NONE.value) | ~latched(m, steering.busy, "moved"),
                "with an outcome",
            ),
        ]
        self._ends(m, waited, timer, age, goal)
        self._has_claims(m, goal, old, had_line)
        for outcome in (Outcome.MOVED, Outcome.BUSY, Outcome.DARK, Outcome.STUCK):
            m.d.comb += Cover(
                ~steering.busy & (steering.outcome.as_value() == outcome.value), f"a move ends ({outcome.name})"
            )

    def _ends(self, m, waited, timer, age, goal):
        """Asserts what makes the bound inductive: in each phase so much was used at most."""
        step = self.steering.step.as_value()
        phases = [(Step.CLAIM, Goal.NEW), (Step.DRAIN, Goal.NEW)]
        phases += [(each, to) for to in (Goal.NEW, Goal.OLD) for each in (Step.PARK, Step.LOCK, Step.TRAIN)]
        phases.append((Step.PARK, Goal.NONE))
        reached = step == Step.IDLE.value
        for each, to in phases:
            here = (step == each.value) & (goal == to.value)
            reached = reached | here
            used = BOUNDS.most_cycles - BOUNDS.left_cycles(each, to)
            in_phase = BOUNDS.of(each) - timer
            m.d.comb += [
                Assert(~here | (waited <= used + in_phase), "invariant: cycles used"),
                Assert(~here | (timer <= BOUNDS.of(each)), "invariant: the timer is of this phase"),
                Assert(
                    ~here | (age == Mux(in_phase < SETTLE_CYCLES, in_phase, SETTLE_CYCLES)), "invariant: age of the phase"
                ),
            ]
        m.d.comb += [Assert(reached, "invariant: a phase and a goal that belong together")]
        m.d.comb += Assert((step != Step.IDLE.value) | (waited == 0) | (waited <= BOUNDS.most_cycles), "invariant: idle")

    def _has_claims(self, m, goal, old, had_line):
        """Keeps the books of claims, as the table does, and asserts that rings are on lines that are claimed."""
        steering = self.steering
        kept, next_, has_kept, has_next = (Signal.like(old, name="kept"), Signal.like(old, name="next"), Signal(), Signal())
        with m.If(steering.adopt):
            m.d.sync += [kept.eq(next_), has_kept.eq(has_next)]
        with m.Elif(steering.leave):
            m.d.sync += has_kept.eq(0)
        with m.If(steering.adopt | steering.withdraw):
            m.d.sync += has_next.eq(0)
        with m.Elif(self.granted):
            m.d.sync += [next_.eq(steering.wavelength), has_next.eq(1)]
        on_line = (has_kept & (kept == steering.target_line)) | (has_next & (next_ == steering.target_line))
        m.d.comb += Assert(steering.park | on_line, "rings that are not parked are on a line that is claimed")
        step, lit, park, line = steering.step.as_value(), steering.lit, steering.park, steering.target_line
        idle, before = step == Step.IDLE.value, (step == Step.CLAIM.value) | (step == Step.DRAIN.value)
        has_line = Mux(steering.adopt, has_next & (next_ == line), has_kept & (kept == line))
        pulses = steering.adopt | steering.withdraw | steering.leave
        claims = {
            "asks": steering.ask == (step == Step.CLAIM.value),
            "granted": idle | (step == Step.CLAIM.value) | (has_next & (next_ == steering.wavelength)),
            "pulses": ~pulses | idle,
            "left": ~steering.leave | ~lit,
            "lit": ~lit | (has_line & ~park & (idle | before)),
            "dark": lit | park | (step == Step.LOCK.value) | (step == Step.TRAIN.value),
            "old line": idle | ~had_line | (has_kept & (kept == old)),
            "begun": ~before | ((lit == had_line) & (line == old)),
            "unparked": ~park | ((step != Step.LOCK.value) & (step != Step.TRAIN.value)),
            "parked": (step != Step.PARK.value) | park,
            "way back": idle | (goal != Goal.OLD.value) | had_line,
            "tuned": ((step != Step.LOCK.value) & (step != Step.TRAIN.value))
            | (line == Mux(goal == Goal.OLD.value, old, steering.wavelength)),
        }
        m.d.comb += [Assert(claim, f"invariant: {name}") for name, claim in claims.items()]
