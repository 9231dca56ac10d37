"""The sweep finds a line for a ring: it moves the ring's heater up until a line is seen that nobody has, and locks there.

A ring *approaches* the code from which it *sweeps*, *settles* there, and each *peak* of its light is a line. A peak is
*taken* if rings further down the bus lose their light while it is passed. The first peak that is free is *captured*: the
heater goes back to it, settles, and the lock is *confirmed* by periods of the dither with light. If it is not, the sweep
goes on.
"""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec.tuner import CONFIRM_PERIODS, TunerSpec
from lightfabric.rtl.ring_lock import FRACTION_BITS

SHARE_BITS = 6
"""Of the share of its way that a heater goes in a frame, which is what the sweep believes of a heater."""
RECENT_FRAMES = 4
"""So many frames ago a ring further down may have lost its light to a peak: its line may be weak, its threshold late."""


class Stage(enum.Enum, shape=3):
    """Names the stages of an acquisition, in their order."""

    IDLE = 0
    APPROACH = 1
    SETTLE = 2
    SWEEP = 3
    CAPTURE = 4
    CONFIRM = 5


class RingSweep(wiring.Component):
    """Acquires a line for one ring at a time; a sample moves it on by a frame.

    All peaks passed are told, the taken ones too. Each of the stages is bounded, so that an acquisition ends with ``locks``
    or ``fails``. Outputs other than ``busy`` and ``confirms`` are of the cycle of the sample.

    Members
    -------
    start : In(1), begin with another ring; while idle only
    abort : In(1), be idle from the next cycle on
    step : In(1), the sample of the ring is here
    power : In(spec.adc_bits), the sample
    code : In(spec.heater_bits), what the heater has been at since the sample before
    falls : In(1), a ring further down has lost its light; in any cycle
    aligned : In(1), a period of the dither begins with this sample
    lit, lost : In(1), what the lock says of the period that ends; with ``aligned``
    busy : Out(1)
    confirms : Out(1), the lock moves the ring
    following : Out(spec.heater_bits), the code to go to, where the lock does not move the ring
    peak, taken : Out(1), a peak has been passed, and that it is of another ring
    peak_code, peak_power : Out, where it is highest: the heat of the ring as a code, and the sample
    locks, fails : Out(1), the end
    """

    def __init__(self, spec: TunerSpec):
        self.spec = spec
        code, power = spec.heater_bits, spec.adc_bits
        flags = ("start", "abort", "step", "falls", "aligned", "lit", "lost")
        told = ("busy", "confirms", "peak", "taken", "locks", "fails")
        super().__init__(
            {name: In(1) for name in flags}
            | {name: Out(1) for name in told}
            | {"power": In(power), "code": In(code)}
            | {"following": Out(code), "peak_code": Out(code), "peak_power": Out(power)}
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        stage, goal, inside = Signal(Stage), Signal(spec.heater_bits), Signal()
        timer, good = Signal(range(spec.settle_frames + 1)), Signal(range(CONFIRM_PERIODS + 1))
        heat, recent = self._heat(m, stage), self._recent(m)
        place, marked = Signal(spec.heater_bits), Signal()
        m.d.sync += marked.eq(0)
        with m.If(marked):
            m.d.sync += place.eq(heat)
        self.state = {"stage": stage.as_value()}
        m.d.comb += [
            self.busy.eq(stage != Stage.IDLE),
            self.confirms.eq(stage == Stage.CONFIRM),
            self.following.eq(self.code),
        ]
        with m.If(self.start):
            m.d.sync += [stage.eq(Stage.APPROACH), goal.eq(spec.floor_code), inside.eq(0)]
        with m.If(self.step):
            with m.Switch(stage):
                with m.Case(Stage.APPROACH):
                    self._approach(m, stage, goal, timer)
                with m.Case(Stage.SETTLE):
                    m.d.sync += timer.eq(timer - 1)
                    with m.If(timer == 0):
                        m.d.sync += stage.eq(Stage.SWEEP)
                with m.Case(Stage.SWEEP):
                    self._sweep(m, stage, goal, timer, inside, place, marked, recent)
                with m.Case(Stage.CAPTURE):
                    with m.If(timer != 0):
                        m.d.sync += timer.eq(timer - 1)
                    with m.Elif(self.aligned):
                        m.d.sync += [stage.eq(Stage.CONFIRM), good.eq(0)]
                with m.Case(Stage.CONFIRM):
                    with m.If(self.aligned & (~self.lit | self.lost)):
                        m.d.sync += stage.eq(Stage.APPROACH)
                    with m.Elif(self.aligned):
                        m.d.sync += good.eq(good + 1)
                        with m.If(good == CONFIRM_PERIODS - 1):
                            m.d.comb += self.locks.eq(1)
                            m.d.sync += stage.eq(Stage.IDLE)
        with m.If(self.abort):
            m.d.sync += stage.eq(Stage.IDLE)
        return m

    def _approach(self, m, stage, goal, timer):
        """Goes to the goal as fast as a sweep and no faster: the neighbours' locks have to follow the heat."""
        step = self.spec.step_codes
        with m.If(self.code + step < goal):
            m.d.comb += self.following.eq(self.code + step)
        with m.Elif(self.code > goal + step):
            m.d.comb += self.following.eq(self.code - step)
        with m.Else():
            m.d.comb += self.following.eq(goal)
            m.d.sync += [stage.eq(Stage.SETTLE), timer.eq(self.spec.settle_frames)]

    def _sweep(self, m, stage, goal, timer, inside, place, marked, recent):
        """Moves up by a step, keeps the highest sample of a peak, and judges the peak when it has been passed."""
        spec, above = self.spec, self.code + self.spec.step_codes
        # Beyond, there would be no room for the dither.
        highest = (1 << spec.heater_bits) - 1 - spec.dither_codes
        lit, seen_taken = Signal(), Signal()
        best = Signal(spec.adc_bits)
        m.d.comb += [
            lit.eq(self.power >= spec.threshold),
            self.peak.eq(inside & ~lit),
            self.taken.eq(seen_taken | recent),
            self.peak_code.eq(place),
            self.peak_power.eq(best),
        ]
        m.d.sync += [inside.eq(lit), seen_taken.eq(lit & (recent | (inside & seen_taken)))]
        # By the next cycle the heat is that of this sample.
        with m.If(lit & (~inside | (self.power > best))):
            m.d.sync += [best.eq(self.power), marked.eq(1)]
        with m.If(self.peak & ~self.taken):
            m.d.comb += self.following.eq(place)
            # Where the sweep goes on should the lock not be confirmed: behind this peak.
            m.d.sync += [stage.eq(Stage.CAPTURE), timer.eq(spec.settle_frames), goal.eq(self.code)]
        with m.Elif(above > highest):
            m.d.comb += self.fails.eq(1)
            m.d.sync += stage.eq(Stage.IDLE)
        with m.Else():
            m.d.comb += self.following.eq(above)

    def _heat(self, m, stage):
        """Gives the heat of the ring as a code: it lags behind the heater's, in a sweep by some widths of a resonance."""
        share = max(1, round(self.spec.warm_share * (1 << SHARE_BITS)))
        heat, warm = Signal(self.spec.heater_bits + FRACTION_BITS), Signal(self.spec.heater_bits + FRACTION_BITS)
        ahead = Signal(signed(len(heat) + 1))
        m.d.comb += [
            ahead.eq((self.code << FRACTION_BITS) - heat),
            warm.eq(heat + ((ahead * share) >> SHARE_BITS)),
        ]
        with m.If(self.step):
            m.d.sync += heat.eq(Mux(stage == Stage.SWEEP, warm, self.code << FRACTION_BITS))
        return heat[FRACTION_BITS:]

    def _recent(self, m):
        """Tells whether a ring further down lost its light in the last frames."""
        since = Signal(range(RECENT_FRAMES + 1))
        with m.If(self.step & (since != 0)):
            m.d.sync += since.eq(since - 1)
        with m.If(self.falls):
            m.d.sync += since.eq(RECENT_FRAMES)
        return since != 0
