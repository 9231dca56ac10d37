"""The error rate of a wavelength follows from its light, and from there the errors of a line in time."""

from collections.abc import Callable
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np

from lightfabric.model.spec.require import require_positive
from lightfabric.sim.channel.error import BitErrors
from lightfabric.sim.plant.ring_bus import Plant


@dataclass(frozen=True)
class Detector:
    """Describes a receiver whose noise is its own: Q is in proportion to the eye, and so to the optical power.

    ``tuned_q`` is the Q of a line at resonance without neighbours; 7.9413 makes a BER of 1e-15.
    """

    tuned_q: float = 7.9413

    def __post_init__(self):
        require_positive(self, "tuned_q")

    def ber(self, signal_mw, others_mw, tuned_mw):
        """Give the BER of a signal beside the light of other lines, for a power ``tuned_mw`` at ``tuned_q``.

        The worst pattern of the others closes the eye by twice their power: a signal P sees P (1 - 2 X). BER is
        erfc(Q / sqrt 2) / 2, and 1/2 where the eye is closed.
        """
        eye = np.maximum(0.0, np.asarray(signal_mw) - 2 * np.asarray(others_mw)) / tuned_mw
        return np.vectorize(lambda q: erfc(q / sqrt(2)) / 2)(self.tuned_q * eye)


def bit_error_rates(plant: Plant, lines, detector: Detector = Detector()) -> np.ndarray:
    """Give the BER of each ring as the plant is now; ``lines`` says which line each ring is there to receive."""
    dropped, rings = plant.dropped_mw(), np.arange(plant.bus.tuner.rings)
    signal = dropped[rings, lines]
    # What the rings of a bus drop with all of them tuned is as the lasers were set.
    tuned = plant.bus.line_mw * plant.bus.drop(0.0)
    return detector.ber(signal, dropped.sum(axis=1) - signal, tuned)


class ChangingErrors:
    """Makes bit errors of a line whose rates change: ``rates(beat)`` are those of its lanes, side by side in a beat.

    An instance is one of ``sim.channel.error.Errors``; ``count`` is of the bits flipped.
    """

    def __init__(self, rates: Callable[[int], np.ndarray], rng: np.random.Generator):
        self._rates, self._rng, self._errors = rates, rng, list[BitErrors]()
        self.count = 0

    def __call__(self, beat: int, bits: int) -> int:
        """Return the mask of the bits to flip in this beat of ``bits`` bits."""
        rates = [float(rate) for rate in self._rates(beat)]
        width, mask = bits // len(rates), 0
        if [errors.ber for errors in self._errors] != rates:
            # Errors have no memory: the gap to the next one may be drawn anew whenever a rate changes.
            self._errors = [BitErrors(rate, self._rng) for rate in rates]
        for lane, errors in enumerate(self._errors):
            mask |= errors(beat, width) << lane * width
        self.count += mask.bit_count()
        return mask
