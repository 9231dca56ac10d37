"""SiP-OCS shares out the ports of every GPU among optical circuit switches [SiP-ML, SIGCOMM 2021]."""

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.optical.optical import Optical
from lightfabric.model.spec import SipOcsSpec


class SipOcs(Optical):
    """Makes a circuit of some ports of a pair, through as many switches."""

    spec: SipOcsSpec

    @property
    def lanes_per_port(self) -> int:
        """A lane is a port with all its wavelengths."""
        return 1

    @property
    def turns_as_one(self) -> bool:
        """A switch of light joins two of its ports, whatever the others do."""
        return False

    def lengths_m(self, source: NDArray[np.int64], destination: NDArray[np.int64], gpus: int) -> NDArray[np.float64]:
        """Count two fibres: one to the switch and one from it."""
        return np.full(len(source), 2 * self.spec.fibre_m)
