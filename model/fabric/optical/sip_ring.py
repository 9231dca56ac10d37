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

    @property
    def turns_as_one(self) -> bool:
        """Wavelengths pass the segments of others, which may still use them in the old circuits."""
        return True

    def lengths_m(self, source: NDArray[np.int64], destination: NDArray[np.int64], gpus: int) -> NDArray[np.float64]:
        """Count as many fibres as the pair is apart."""
        apart = np.abs(source - destination)
        return np.minimum(apart, gpus - apart) * self.spec.fibre_m

    def rings(self, members: NDArray[np.int32], gpus: int) -> list[NDArray[np.int32]]:
        """Give the members both ways where their ring goes all round that of the fibres, of which half stay dark else.

        What closes another ring goes back over the segments that its members are on, so that it uses both ways as it is.
        """
        ahead = np.mod(np.roll(members, -1) - members, gpus)
        steps = np.where(2 * ahead > gpus, ahead - gpus, ahead)
        # Opposite GPUs send to each other the same way round, so the ring the other way need not be disjoint.
        return [members, members[::-1]] if steps.sum() and not np.any(2 * ahead == gpus) else [members]
