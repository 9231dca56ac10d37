"""Electrical fabrics are described here, a spec per kind."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lightfabric.model.spec.require import FORBID, require_between, require_name, require_positive

CABLE_PS_PER_M = 5000.0
"""5 ns/m: copper with solid polyethylene, relative permittivity 2.25, so two thirds of the speed of light."""


@dataclass(frozen=True)
class ElectricalSwitchSpec:
    """Describes an ideal electrical switch: every GPU reaches every other at full rate, one switch hop away."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["electrical-switch"]
    gpu_gbps: float
    cable_m: float = 5.0

    def __post_init__(self) -> None:
        require_name(self)
        require_positive(self, "gpu_gbps", "cable_m")


@dataclass(frozen=True)
class ElectricalClusterSpec:
    """Describes islands of ``island_gpus`` GPUs behind a fast switch each, one slower NIC per GPU, and an ideal core."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["electrical-cluster"]
    island_gbps: float
    nic_gbps: float
    island_gpus: int = 8
    nic_latency_us: float = 2.0
    cable_m: float = 5.0

    def __post_init__(self) -> None:
        require_name(self)
        require_positive(self, "island_gbps", "nic_gbps", "nic_latency_us", "cable_m")
        require_between(self, 1, 1 << 16, "island_gpus")
