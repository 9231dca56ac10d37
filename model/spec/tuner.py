"""A tuner is described by what its heaters and converters reach, and by the shape of the rings that it steers."""

from dataclasses import dataclass
from math import ceil, exp, log2

from lightfabric.model.spec.require import require, require_between, require_positive


@dataclass(frozen=True)
class TunerSpec:
    """Describes the tuner of the rings on one bus; what follows from other fields is a property.

    A heater's code is proportional to its power, and so to the frequency by which it moves the resonance down, 4.4 uW/GHz in
    DSENT. A *frame* is a sample of each ring. The range must hold an FSR and, on both sides, a reserve for drift. A tuner of
    fewer than four rings would have to forward what it has not written yet. SpecError names what does not fit.
    """

    rings: int = 8
    heater_bits: int = 12
    range_ghz: float = 2048.0
    """By which the highest code moves a resonance."""
    adc_bits: int = 10
    line_share: float = 0.6
    """Of the converter's full scale, a line at resonance."""
    fsr_ghz: float = 1600.0
    """Free spectral range: the grid's lines times their spacing, 8 at 200 GHz [CW-WDM MSA]."""
    fwhm_ghz: float = 25.0
    """Width of the resonance, a Q of 7700 at 193 THz."""
    heater_ns: float = 5000.0
    """Time constant: rings are retuned in 20 to 25 us, four or five of it."""
    frame_ns: float = 1000.0
    """Between two samples of a ring."""

    def __post_init__(self) -> None:
        require_between(self, 4, 64, "rings")
        require_between(self, 6, 16, "heater_bits")
        require_between(self, 6, 16, "adc_bits")
        require_between(self, 0.3, 0.9, "line_share")
        require_positive(self, "range_ghz", "fsr_ghz", "fwhm_ghz", "heater_ns", "frame_ns")
        require(self, "range_ghz", self.range_ghz > 1.05 * self.fsr_ghz, "1.05 times fsr_ghz or more")
        require(self, "heater_bits", self.codes_per_fwhm >= 8, "enough for 8 codes in fwhm_ghz")
        require(self, "heater_ns", self.half_frames <= 64, "at most 40 frames")

    @property
    def codes_per_ghz(self) -> float:
        """Convert a shift of the resonance to codes of the heater."""
        return (1 << self.heater_bits) / self.range_ghz

    @property
    def codes_per_fwhm(self) -> int:
        """Count the codes that move a resonance by its width."""
        return int(self.fwhm_ghz * self.codes_per_ghz)

    @property
    def step_codes(self) -> int:
        """Count the codes of a sweep from a frame to the next, three to a width of the resonance."""
        return self.codes_per_fwhm // 3

    @property
    def dither_codes(self) -> int:
        """Count the codes by which the dither moves a ring to each side."""
        return max(1, self.codes_per_fwhm // 8)

    @property
    def floor_code(self) -> int:
        """Give the lowest code at which a line is taken: below, as above an FSR from here on, is the reserve for drift."""
        return int((self.range_ghz - self.fsr_ghz) / 2 * self.codes_per_ghz)

    @property
    def threshold(self) -> int:
        """Give the sample from which on a ring is said to have light: two fifths of a line's."""
        return int(0.4 * self.line_share * (1 << self.adc_bits))

    @property
    def warm_share(self) -> float:
        """Give the share of its way that a heater goes in a frame."""
        return 1 - exp(-self.frame_ns / self.heater_ns)

    @property
    def half_frames(self) -> int:
        """Count the frames of each half of the dither, after which four fifths of it have come through the heater."""
        return ceil(1.6 * self.heater_ns / self.frame_ns)

    @property
    def settle_frames(self) -> int:
        """Count the frames after a jump of a heater until it is warm, five time constants."""
        return ceil(5 * self.heater_ns / self.frame_ns)

    @property
    def gain_shift(self) -> int:
        """Give by how many bits an error of the dither is shifted to the right, as codes, so that half of it is mended.

        At a small detuning d the two samples differ by 16 a d / FWHM^2 of the line's, a being the dither's way.
        """
        way_ghz = 0.8 * self.dither_codes / self.codes_per_ghz
        counts_per_ghz = self.line_share * (1 << self.adc_bits) * 16 * way_ghz / self.fwhm_ghz**2
        return round(log2(counts_per_ghz / (0.5 * self.codes_per_ghz)))

    @property
    def rest_codes(self) -> int:
        """Give the code up to which a ring that is not tuned may rest, where it takes no line's light: four widths."""
        return 4 * self.codes_per_fwhm

    @property
    def acquire_frames(self) -> int:
        """Bound the frames from a ring's turn to its lock or its failure, if the first line that it tries holds it.

        It approaches the floor, settles, sweeps, settles on the line and is confirmed, each for as long as that can take.
        """
        approach, sweep = (-(-codes // self.step_codes) for codes in (1 << self.heater_bits, self.swept_codes))
        return approach + sweep + 2 * (self.settle_frames + 1) + 2 * (CONFIRM_PERIODS + 1) * self.half_frames + 2

    @property
    def swept_codes(self) -> int:
        """Count the codes from the floor to the highest one."""
        return (1 << self.heater_bits) - 1 - self.floor_code


CONFIRM_PERIODS = 4
"""So many periods of the dither in a row with light make a lock, and so many without it make it lost."""


def tuner_for(wavelengths: int) -> TunerSpec:
    """Describe the tuner of as many rings, four at least, on a grid of the CW-WDM MSA: 200 GHz, above 16 lines 100 GHz.

    The FSR is that of the whole grid, the heaters reach 1.28 of it.
    """
    rings = max(4, wavelengths)
    fsr_ghz = rings * (200.0 if rings <= 16 else 100.0)
    return TunerSpec(rings=rings, range_ghz=1.28 * fsr_ghz, fsr_ghz=fsr_ghz)
