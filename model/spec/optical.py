"""Optical fabrics are described here, a spec per kind."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lightfabric.model.spec.require import FORBID, require_between, require_name, require_positive


@dataclass(frozen=True)
class SipRingSpec:
    """Describes GPUs on a bidirectional ring of fibres, half of the ports facing each way [SiP-Ring, SIGCOMM 2021].

    Wavelengths are assigned to pairs of GPUs up to ``max_hops`` apart and reused on disjoint segments.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["sip-ring"]
    max_hops: int = 16
    fibre_m: float = 2.0

    def __post_init__(self) -> None:
        require_name(self)
        require_between(self, 1, 1 << 16, "max_hops")
        require_positive(self, "fibre_m")


@dataclass(frozen=True)
class SipOcsSpec:
    """Describes GPUs whose ports p all go to optical circuit switch p [SiP-OCS of SiP-ML, SIGCOMM 2021].

    Each switch holds one permutation of the GPUs for the whole job.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["sip-ocs"]
    fibre_m: float = 20.0

    def __post_init__(self) -> None:
        require_name(self)
        require_positive(self, "fibre_m")
