"""The lock holds a ring on its line: it dithers the heater and follows the slope of the light: a PI of the heater's speed.

A *period* of the dither is two halves, a *plus* one in which the heater is warmer and a *minus* one. A ring is *lit* while
its sample reaches the threshold, *dark* otherwise, and *lost* after dark periods or at the end of its heater's range.
"""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec.tuner import CONFIRM_PERIODS, TunerSpec

FRACTION_BITS = 8
"""Of a code: drift moves a ring by less than a code in a period."""
SPEED_BITS = 12
"""Of the speed, a signed number of fractions of a code per period: up to eight codes."""
SPEED_SHIFT = 3
"""The speed takes up an eighth of what the code does, which with half of an error mended is critical damping."""


def ring_layout(spec: TunerSpec) -> data.StructLayout:
    """Lays out what the tuner keeps of a ring: heater, its speed, the sample of the plus half, dark periods, last light.

    ``rested`` is of a ring that is not tuned: it has come down to where it rests.
    """
    return data.StructLayout(
        {
            "code": spec.heater_bits + FRACTION_BITS,
            "speed": signed(SPEED_BITS),
            "plus": spec.adc_bits,
            "dark": range(CONFIRM_PERIODS + 1),
            "lit": 1,
            "rested": 1,
        }
    )


class RingLock(wiring.Component):
    """Works out the next state of a ring from its sample, of which all outputs are a cycle later.

    With the sample at the end of a minus half the code moves by half of the detuning that the two samples tell, and by the
    speed, which takes up an eighth of that: so a drift of constant speed is followed without a rest. In a dark period
    neither changes, that a ring which passes by takes no line away.

    Members
    -------
    ring : In(ring_layout(spec))
    power : In(spec.adc_bits), the sample
    plus, minus : In(1), the sample is the last one of that half
    known : Out(ring_layout(spec)), the ring as it was
    following : Out(ring_layout(spec))
    lit : Out(1), both halves of the period that ends are lit; a cycle after ``minus`` only
    lost : Out(1), the ring has been dark for so many periods, or the heater is at an end of its range; as ``lit``
    """

    def __init__(self, spec: TunerSpec):
        self.spec, layout = spec, ring_layout(spec)
        inputs = {"ring": In(layout), "power": In(spec.adc_bits), "plus": In(1), "minus": In(1)}
        super().__init__({**inputs, "known": Out(layout), "following": Out(layout), "lit": Out(1), "lost": Out(1)})

    def elaborate(self, platform):
        m = Module()
        spec, ring, following = self.spec, self.known, self.following
        lit_now, at_end, gone, plus, minus = (Signal() for _ in range(5))
        power = Signal(spec.adc_bits)
        error, code = Signal(signed(spec.adc_bits + 1)), Signal(signed(spec.heater_bits + FRACTION_BITS + 2))
        step = Signal(signed(spec.adc_bits + FRACTION_BITS + 1 - spec.gain_shift))
        faster = Signal(signed(len(step) + 1))
        lowest, highest = spec.dither_codes, (1 << spec.heater_bits) - 1 - spec.dither_codes
        most = (1 << SPEED_BITS - 1) - 1
        m.d.comb += [
            error.eq(self.ring.plus - self.power),
            code.eq(ring.code + step + ring.speed),
            faster.eq(ring.speed + (step >> SPEED_SHIFT)),
            at_end.eq((code < lowest << FRACTION_BITS) | (code >= highest << FRACTION_BITS)),
            gone.eq(ring.dark == CONFIRM_PERIODS - 1),
            self.lost.eq(minus & Mux(self.lit, at_end, gone)),
            following.eq(ring),
            following.lit.eq(lit_now),
        ]
        m.d.sync += [
            ring.eq(self.ring),
            Cat(power, plus, minus).eq(Cat(self.power, self.plus, self.minus)),
            step.eq((error << FRACTION_BITS) >> spec.gain_shift),
            lit_now.eq(self.power >= spec.threshold),
            self.lit.eq((self.power >= spec.threshold) & (self.ring.plus >= spec.threshold)),
        ]
        with m.If(plus):
            m.d.comb += following.plus.eq(power)
        with m.If(minus & self.lit & ~at_end):
            m.d.comb += [
                following.code.eq(code),
                following.speed.eq(Mux(faster > most, most, Mux(faster < -most, -most, faster))),
                following.dark.eq(0),
            ]
        with m.Elif(minus & ~self.lit):
            m.d.comb += following.dark.eq(ring.dark + 1)
        return m
