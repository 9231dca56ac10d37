"""An ideal electrical switch lets every GPU reach every other at full rate, one switch hop away."""

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.fabric.component import Component, Components
from lightfabric.model.fabric.electrical.electrical import Electrical
from lightfabric.model.fluid.network import Links
from lightfabric.model.spec import ElectricalSwitchSpec


class ElectricalSwitch(Electrical):
    """Links each GPU to the switch, then the switch to each; the switch itself never limits."""

    spec: ElectricalSwitchSpec

    @property
    def is_reference(self) -> bool:
        """Tell that an ideal switch is what a study compares other fabrics with."""
        return True

    @property
    def port_gbps(self) -> float:
        """Give the raw rate of the link to the switch."""
        return self.spec.gpu_gbps

    def links(self, gpus: int) -> list[Links]:
        """Number the links as ``fluid.network.star`` does."""
        gpu, switch = np.arange(gpus, dtype=np.int32), np.full(gpus, gpus, np.int32)
        rate, hop_ps = self.port_bytes_per_s, self.hop_ps
        return [
            Links(gpu, switch, rate, hop_ps, "GPU up"),
            Links(switch, gpu, rate, hop_ps + self.switch_ps, "GPU down"),
        ]

    def routes(self, gpus: int, source: NDArray[np.int64], destination: NDArray[np.int64]) -> NDArray[np.int64]:
        """Route all pairs over the switch."""
        return np.stack([source, gpus + destination], axis=1)

    def components(self, gpus: int) -> Components:
        """Count a port for each GPU, as if a switch of so many were made."""
        return Components({Component("island_port", self.spec.gpu_gbps): gpus})
