"""SiP-Ring joins GPUs by a ring of fibres, half of the ports facing each way [SiP-ML, SIGCOMM 2021]."""

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.optical.optical import Optical
from lightfabric.model.spec import SipRingSpec


class SipRing(Optical):
    """Makes a circuit of some wavelengths of a pair, as long as the shorter way round the ring."""

    spec: SipRingSpec

    @property
    def lanes_per_port(self) -> int:
        """A lane is one wavelength."""
        return self.chiplet.wavelengths_per_port

    def lengths_m(self, source: NDArray[np.int64], destination: NDArray[np.int64], gpus: int) -> NDArray[np.float64]:
        """Count as many fibres as the pair is apart."""
        apart = np.abs(source - destination)
        return np.minimum(apart, gpus - apart) * self.spec.fibre_m
