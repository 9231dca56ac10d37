"""An ideal electrical switch lets every GPU reach every other at full rate, one switch hop away."""

from collections.abc import Iterable

from lightfabric.model.circuit import Circuits, Pair
from lightfabric.model.cycle.cabling import ElectricalCabling
from lightfabric.model.fabric.electrical.electrical import Electrical, hub
from lightfabric.model.fluid.network import Network, star
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

    def network(self, gpus: int, pairs: Iterable[Pair], circuits: Circuits | None = None) -> Network:
        """Number the links as ``fluid.network.star`` does."""
        up_ps, down_ps = self.hop_ps, self.hop_ps + self.switch_ps
        return star(gpus, self.port_bytes_per_s, pairs, up_latency_ps=up_ps, down_latency_ps=down_ps)

    def cabling(self, gpus: int, circuits: Circuits | None = None) -> ElectricalCabling:
        """Make one hub of all GPUs."""
        return ElectricalCabling((hub(range(gpus), self.port_bytes_per_s, self.hop_ps, self.hop_ps + self.switch_ps),))
