"""The tuner is proven here: one ring at a time looks for a line, so that no two hold the same one."""

from amaranth import Mux, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib.wiring import In

from lightfabric.model.spec.tuner import TunerSpec
from lightfabric.rtl.ring_sweep import RingSweep, Stage
from lightfabric.rtl.tuner import Tuner
from lightfabric.sim.formal.harness import Harness, Inside, was

FEW = TunerSpec(
    rings=4, heater_bits=6, adc_bits=6, range_ghz=128.0, fsr_ghz=100.0, fwhm_ghz=25.0, heater_ns=1000.0, frame_ns=1000.0
)
"""Its heaters have few codes and its dither few frames; the arbitration does not depend on either."""


class OneRingPerLine(Harness):
    """Lets samples come in any order and rings be parked at will, and keeps the line that each ring holds.

    Which line a ring locks to is the solver's choice among those that the light leaves: none that a locked ring holds, be it
    before this one on the bus, which leaves it dark, or behind it, whose loss of light the sweep knows; for that see
    ``TakenPeaks``. That two rings never hold one line then is because no two look for one at a time.

    Members
    -------
    enable, ring, power, valid : In, of the tuner
    line : In(2), what a ring locks to
    """

    def __init__(self, tuner=Tuner, spec: TunerSpec = FEW):
        self.spec, self.tuner = spec, tuner(spec)
        rings = range(spec.rings)
        super().__init__(
            {"enable": In(spec.rings), "ring": In(rings), "power": In(spec.adc_bits), "valid": In(1), "line": In(rings)}
        )

    def _prove(self, m):
        m.submodules.tuner, tuner = self.tuner, self.tuner
        inside = Inside(tuner)
        waiting, turn, here = inside["waiting"], inside["turn"], inside["here"]
        busy = inside.submodules.sweep.busy
        m.d.comb += [
            tuner.enable.eq(self.enable),
            tuner.i_valid.eq(self.valid),
            tuner.i.ring.eq(self.ring),
            tuner.i.power.eq(self.power),
        ]
        acquiring = turn & busy.replicate(self.spec.rings)
        states = (waiting, acquiring, tuner.locked, tuner.failed)
        turn_before, busy_before = was(m, turn, "turn_before"), was(m, busy, "busy_before")
        m.d.comb += [
            Assert((here & (here - 1)) == 0, "invariant: one sample in a cycle"),
            Assert((turn & (turn - 1)) == 0, "one ring has the turn"),
            Assert(~busy | (turn != 0), "invariant: whoever acquires has the turn"),
            Assert(~busy_before | (turn == turn_before), "nobody takes the turn from another"),
            *(
                Assert((state & other) == 0, "a ring waits, acquires, holds a line or has failed")
                for n, state in enumerate(states)
                for other in states[:n]
            ),
        ]
        m.d.comb += [Cover(busy, "a ring acquires"), Cover(waiting.all(), "all wait")]
        self._lines(m)

    def _lines(self, m):
        """Notes what each ring locks to, which is a line that no locked ring holds, and compares all."""
        locked, rings = self.tuner.locked, range(self.spec.rings)
        locked_before, line = was(m, locked, "locked_before"), was(m, self.line, "line_before")
        noted = [Signal(range(self.spec.rings), name=f"noted_{ring}") for ring in rings]
        held = [Mux(locked_before[ring], noted[ring], line) for ring in rings]
        for ring in rings:
            m.d.sync += noted[ring].eq(held[ring])
            with m.If(locked[ring] & ~locked_before[ring]):
                m.d.comb += [
                    Assume(~(locked_before[other] & locked[other] & (noted[other] == line)))
                    for other in rings
                    if other != ring
                ]
        m.d.comb += [
            Assert(~(locked[one] & locked[other]) | (held[one] != held[other]), "no two rings hold one line")
            for one in rings
            for other in rings[:one]
        ]


class TakenPeaks(Harness):
    """Lets light, falls of light further down and the ends of periods come at will to a sweep.

    Members
    -------
    start, abort, step, falls, aligned, lit, lost, power : In, of the sweep
    """

    def __init__(self, sweep=RingSweep, spec: TunerSpec = FEW):
        self.spec, self.sweep = spec, sweep(spec)
        wishes = dict.fromkeys(("start", "abort", "step", "falls", "aligned", "lit", "lost"), In(1))
        super().__init__({**wishes, "power": In(spec.adc_bits)})

    def _prove(self, m):
        m.submodules.sweep = sweep = self.sweep
        stage, code = Inside(sweep)["stage"], Signal(self.spec.heater_bits)
        m.d.comb += [
            getattr(sweep, name).eq(getattr(self, name))
            for name in ("abort", "step", "falls", "aligned", "lit", "lost", "power")
        ]
        m.d.comb += [sweep.start.eq(self.start & ~sweep.busy), sweep.code.eq(code)]
        with m.If(sweep.step):
            m.d.sync += code.eq(sweep.following)
        # The frames of a peak, and those since a ring further down has lost its light, this one included.
        bright = self.power >= self.spec.threshold
        length, age = Signal(5), Signal(5, init=31)
        with m.If(self.step):
            m.d.sync += [
                length.eq(Mux(bright & (stage == Stage.SWEEP.value), length + (length != 31), 0)),
                age.eq(age + (age != 31)),
            ]
        with m.If(self.falls):
            m.d.sync += age.eq(0)
        captures = self.step & ~self.abort & (stage == Stage.SWEEP.value) & sweep.peak & ~sweep.taken
        captured = was(m, captures, "captured")
        m.d.comb += [
            Assert(~captures | (age == 31) | (age > length), "a peak in which a ring lost its light is left to it"),
            Assert(~captured | (stage == Stage.CAPTURE.value), "any other is captured"),
            Assert(~(sweep.locks & sweep.fails), "an acquisition ends in one way"),
            Assert(~self.step | ~sweep.locks | (stage == Stage.CONFIRM.value), "a lock is confirmed"),
            Cover(self.step & sweep.peak & sweep.taken, "a taken peak"),
            Cover(captures, "a free peak"),
        ]
