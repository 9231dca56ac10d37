"""A fabric is described by one spec per kind; the file of a spec names its family, the folder of what the kind does."""

from lightfabric.model.spec.direct import CubeTorusSpec, CustomSpec, TorusSpec, TwistedTorusSpec
from lightfabric.model.spec.electrical import (
    DragonflySpec,
    ElectricalClusterSpec,
    ElectricalSwitchSpec,
    FatTreeSpec,
    RailOptimisedSpec,
)
from lightfabric.model.spec.optical import MixnetSpec, PhotonicRailsSpec, SipOcsSpec, SipRingSpec, TopooptSpec

FabricSpec = (
    ElectricalSwitchSpec | ElectricalClusterSpec | FatTreeSpec | RailOptimisedSpec | DragonflySpec
    | SipRingSpec | SipOcsSpec | PhotonicRailsSpec | MixnetSpec | TopooptSpec
    | TorusSpec | TwistedTorusSpec | CubeTorusSpec | CustomSpec
)  # fmt: skip
