"""An ideal electrical switch lets every GPU reach every other at full rate, one switch hop away."""

from collections.abc import Iterable

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.cycle.cabling import ElectricalCabling, hub
from lightfabric.model.fabric.fabric import Fabric
from lightfabric.model.fluid.network import Network, star
from lightfabric.model.spec import CABLE_PS_PER_M, ElectricalSwitchSpec


class ElectricalSwitch(Fabric):
    """Links each GPU to the switch, then the switch to each; the switch itself never limits."""

    spec: ElectricalSwitchSpec

    @property
    def is_reference(self) -> bool:
        """Tell that an ideal switch is what a study compares other fabrics with."""
        return True

    def network(self, gpus: int, pairs: Iterable[Pair], circuits: Circuits | None = None) -> Network:
        """Number the links as ``fluid.network.star`` does."""
        hop_ps = self.crossing_ps(self.spec.cable_m * CABLE_PS_PER_M)
        rate = self.cable_bytes_per_s(self.spec.gpu_gbps, self.spec.cable_m)
        return star(gpus, rate, pairs, up_latency_ps=hop_ps, down_latency_ps=hop_ps + self.switch_ps)

    def cabling(self, gpus: int, circuits: Circuits | None = None) -> ElectricalCabling:
        """Make one hub, of as many planes as it takes ports of the chiplet to reach the rate of a GPU."""
        return ElectricalCabling((hub(range(gpus), self.spec.gpu_gbps, self.spec.cable_m, self.chiplet),))
