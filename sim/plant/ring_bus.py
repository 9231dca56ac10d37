"""A bus of add-drop rings is modelled in time: light, heat and what converters make of them."""

# The words of the plant:
# * *bus*: the waveguide that all laser lines come along; ring 0 meets them first, the last ring last
# * *line*: a wavelength of the comb, at an offset in GHz from the middle of the band
# * *cold*: the resonance of a ring whose heater is off, at the ambient temperature of 0 C above the nominal one
# * *shift*: by how much a heater has moved a resonance down, in GHz
# * *detuning*: the resonance less the line; the nearest of the resonances, which lie an FSR apart, counts

from dataclasses import asdict, dataclass, field

import numpy as np

from lightfabric.model.spec.require import require, require_between, require_positive
from lightfabric.model.spec.tuner import TunerSpec
from lightfabric.sim.native.link import header


@dataclass(frozen=True)
class RingBus:
    """Describes rings, heaters and converters of a bus.

    Losses, variation and responsivity are the defaults of DSENT [Sun, NOCS 2012], the drift is that of silicon rings. Of
    ``line_mw`` a part ``drop_db`` below is dropped at resonance and ``residue`` of it stays on the bus; off resonance each
    ring costs ``through_db``. A heater moves the next rings by ``neighbour`` of its own shift, those n away by the n-th
    power of it. Noise is of the photodiode's current, Gaussian and white.
    """

    tuner: TunerSpec = field(default_factory=TunerSpec)
    spacing_ghz: float = 200.0
    drop_db: float = 1.0
    residue: float = 0.01
    through_db: float = 0.01
    line_mw: float = 0.1
    responsivity_a_per_w: float = 1.1
    noise_ua: float = 0.1
    neighbour: float = 0.01
    drift_ghz_per_c: float = 10.0

    def __post_init__(self):
        require_positive(self, "spacing_ghz", "line_mw", "responsivity_a_per_w", "drift_ghz_per_c")
        require_between(self, 0, 20, "drop_db", "through_db", "noise_ua")
        require_between(self, 0, 0.5, "residue", "neighbour")
        lines_ghz = self.tuner.rings * self.spacing_ghz
        require(self, "spacing_ghz", lines_ghz <= self.tuner.fsr_ghz, "an FSR over the number of rings, or less")

    @property
    def full_scale_ua(self) -> float:
        """Give the current of the converter's highest code: a line at resonance is ``line_share`` of it."""
        line_ua = 1000 * self.line_mw * self.responsivity_a_per_w * 10 ** (-self.drop_db / 10)
        return line_ua / self.tuner.line_share

    def lines_ghz(self) -> np.ndarray:
        """Lay out the comb around the middle of the band, the highest frequency last."""
        return (np.arange(self.tuner.rings) - (self.tuner.rings - 1) / 2) * self.spacing_ghz

    def resonance(self, detuning_ghz):
        """Give the Airy function of a ring, 1 at each of its resonances and half of that half of the FWHM beside them.

        Near a resonance this is the Lorentzian 1 / (1 + (2 d / FWHM)^2); far from it, where the Lorentzian is dB too low, d
        is the chord of the FSR's circle, with the width of the Lorentzian.
        """
        chord = self.tuner.fsr_ghz / np.pi * np.sin(np.pi * np.asarray(detuning_ghz) / self.tuner.fsr_ghz)
        return 1 / (1 + (2 * chord / self.tuner.fwhm_ghz) ** 2)

    def drop(self, detuning_ghz):
        """Give the share of a line's power that comes out of a ring's drop port."""
        return 10 ** (-self.drop_db / 10) * self.resonance(detuning_ghz)

    def through(self, detuning_ghz):
        """Give the share of a line's power that stays on the bus behind a ring."""
        return 10 ** (-self.through_db / 10) * (1 - (1 - self.residue) * self.resonance(detuning_ghz))

    def coupling(self) -> np.ndarray:
        """Give the shift of each ring, by row, that a GHz of the shift of each heater brings."""
        places = np.arange(self.tuner.rings)
        return self.neighbour ** np.abs(places[:, None] - places).astype(float)

    def constants(self) -> str:
        """Write the C++ header that fits ``ring_bus.h`` to this bus; the numbers are those of the fields, in full."""
        spec = self.tuner
        doubles = {
            name: value for owner in (spec, self) for name, value in asdict(owner).items() if isinstance(value, float)
        }
        doubles["full_scale_ua"], doubles["warm_share"] = self.full_scale_ua, spec.warm_share
        lines = [f"inline constexpr double {name.upper()} = {value!r};" for name, value in doubles.items()]
        counts = {"RINGS": spec.rings, "HEATER_BITS": spec.heater_bits, "ADC_BITS": spec.adc_bits}
        return header({**counts, "THRESHOLD": spec.threshold}, *lines)


class Plant:
    """Moves a bus through time, a frame of the converters at a time.

    ``cold_ghz`` are the rings' resonances, ``lines_ghz`` and ``lines_mw`` the comb; these and ``ambient_c`` may be changed
    at any time, for drift, dead and moved lines. ``rng`` makes the noise; without one there is none. In the beginning all
    heaters are cold.
    """

    def __init__(self, bus: RingBus, cold_ghz, rng: np.random.Generator | None = None):
        self.bus, self.rng = bus, rng
        self.cold_ghz = np.array(cold_ghz, dtype=float)
        self.lines_ghz, self.lines_mw = bus.lines_ghz(), np.full(bus.tuner.rings, bus.line_mw)
        self.shift_ghz, self.ambient_c = np.zeros(bus.tuner.rings), 0.0
        self._coupling = bus.coupling()

    def heat(self, codes, time_ns: float) -> None:
        """Let the heaters be at these codes for a time: each shift goes to its end exponentially."""
        spec = self.bus.tuner
        aims = np.asarray(codes) / spec.codes_per_ghz
        self.shift_ghz += (aims - self.shift_ghz) * -np.expm1(-time_ns / spec.heater_ns)

    @property
    def resonances_ghz(self) -> np.ndarray:
        """Give the resonance of each ring as it is now, with the heat of its neighbours and of its surroundings."""
        return self.cold_ghz - self._coupling @ self.shift_ghz - self.bus.drift_ghz_per_c * self.ambient_c

    @property
    def detunings_ghz(self) -> np.ndarray:
        """Give how far each ring, by row, is from each line, by column; from minus to plus half of an FSR."""
        fsr = self.bus.tuner.fsr_ghz
        return (self.resonances_ghz[:, None] - self.lines_ghz + fsr / 2) % fsr - fsr / 2

    def dropped_mw(self) -> np.ndarray:
        """Give the power of each line, by column, at the drop port of each ring, by row."""
        detunings = self.detunings_ghz
        behind = np.cumprod(self.bus.through(detunings), axis=0)
        before = np.vstack([np.ones(len(self.lines_mw)), behind[:-1]])
        return self.lines_mw * before * self.bus.drop(detunings)

    def currents_ua(self) -> np.ndarray:
        """Give the current of each photodiode, with noise."""
        light_ua = 1000 * self.bus.responsivity_a_per_w * self.dropped_mw().sum(axis=1)
        return light_ua if self.rng is None else light_ua + self.rng.normal(0, self.bus.noise_ua, len(light_ua))

    def samples(self) -> np.ndarray:
        """Give the code of each converter."""
        codes = np.floor(self.currents_ua() / self.bus.full_scale_ua * (1 << self.bus.tuner.adc_bits)).astype(int)
        return np.clip(codes, 0, (1 << self.bus.tuner.adc_bits) - 1)
