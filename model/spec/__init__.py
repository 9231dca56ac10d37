"""Specs describe a system: chiplet, accelerator, job and fabrics, frozen, with the unit in every name.

Every spec checks itself when it is made and raises ``SpecError``: owner and field, what it must be, what it is. Values that
follow from others are properties.
"""

from lightfabric.model.spec.accelerator import ACCELERATORS, AcceleratorSpec, Precision
from lightfabric.model.spec.chiplet import FIBRE_PS_PER_M, ChipletSpec, spec_hash
from lightfabric.model.spec.direct import CubeTorusSpec, CustomSpec, TorusSpec, TwistedTorusSpec
from lightfabric.model.spec.electrical import (
    CABLE_PS_PER_M,
    DragonflySpec,
    ElectricalClusterSpec,
    ElectricalSwitchSpec,
    FatTreeSpec,
    RailOptimisedSpec,
)
from lightfabric.model.spec.fabric import FabricSpec
from lightfabric.model.spec.fec import FEC_CODES, FecCode
from lightfabric.model.spec.job import SEARCHED, DecodeJobSpec, JobSpec, NetworkJobSpec, PlanSpec
from lightfabric.model.spec.optical import MixnetSpec, PhotonicRailsSpec, SipOcsSpec, SipRingSpec, TopooptSpec
from lightfabric.model.spec.price import COMPONENTS, PriceSpec, PricesSpec
from lightfabric.model.spec.require import SpecError
from lightfabric.model.spec.study import StudySpec
from lightfabric.model.spec.transformer import ModelSpec

__all__ = [
    "ACCELERATORS",
    "CABLE_PS_PER_M",
    "COMPONENTS",
    "FEC_CODES",
    "FIBRE_PS_PER_M",
    "SEARCHED",
    "AcceleratorSpec",
    "ChipletSpec",
    "CubeTorusSpec",
    "CustomSpec",
    "DecodeJobSpec",
    "DragonflySpec",
    "ElectricalClusterSpec",
    "ElectricalSwitchSpec",
    "FabricSpec",
    "FatTreeSpec",
    "FecCode",
    "JobSpec",
    "MixnetSpec",
    "ModelSpec",
    "NetworkJobSpec",
    "PhotonicRailsSpec",
    "PlanSpec",
    "Precision",
    "PriceSpec",
    "PricesSpec",
    "RailOptimisedSpec",
    "SipOcsSpec",
    "SipRingSpec",
    "SpecError",
    "StudySpec",
    "TopooptSpec",
    "TorusSpec",
    "TwistedTorusSpec",
    "spec_hash",
]
