"""Electrical fabrics are described here, a spec per kind."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from lightfabric.model.spec.require import FORBID, require, require_between, require_name, require_positive

CABLE_PS_PER_M = 5000.0
"""5 ns/m: copper with solid polyethylene, relative permittivity 2.25, so two thirds of the speed of light."""
ISLAND_PAYLOAD_SHARE = 256 / 272
"""A packet of NVLink has at most 16 flits of data after its header, of 16 bytes each [Pascal white paper; Foley, IEEE Micro
2017]. What DeepSeek-V3 measures, 160 of 200 GB/s, is less by what the software takes."""
NETWORK_PAYLOAD_SHARE = 4096 / 4178
"""RoCEv2 adds to 4096 bytes a preamble of 8, Ethernet 14, IPv4 20, UDP 8, BTH 12, ICRC 4, FCS 4 and a gap of 12."""


@dataclass(frozen=True, kw_only=True)
class ElectricalLinks:
    """Describes what all links of an electrical fabric have: latencies and a cable, whatever the chiplets of the study.

    ``link_latency_ns`` is that of a link without propagation, both ends together: PAM4 with KP4 takes 100 to 200 ns per hop.
    ``switch_latency_ns`` is that of a switch from port to port: UALink 200G allows 150 to 250 ns by the size of the switch.
    ``cable_m`` is the length of each cable. A share of payload, 0 to 1, is what headers leave of the raw rate beside it.
    """

    link_latency_ns: float = 100.0
    switch_latency_ns: float = 200.0
    cable_m: float = 5.0

    def __post_init__(self) -> None:
        require_name(self)
        positive = (f.name for f in fields(self) if f.name.endswith(("_gbps", "_us", "_m")))
        require_positive(self, *positive)
        require_between(self, 0, 1e6, "link_latency_ns", "switch_latency_ns")
        for share in (f.name for f in fields(self) if f.name.endswith("payload_share")):
            require(self, share, 0 < getattr(self, share) <= 1, "above 0 and at most 1")


@dataclass(frozen=True)
class ElectricalSwitchSpec(ElectricalLinks):
    """Describes an ideal electrical switch: every GPU reaches every other at full rate, one switch hop away.

    ``payload_share`` is that of NVLink unless it is given.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["electrical-switch"]
    gpu_gbps: float
    payload_share: float = ISLAND_PAYLOAD_SHARE


@dataclass(frozen=True)
class ElectricalClusterSpec(ElectricalLinks):
    """Describes islands of ``island_gpus`` GPUs behind a fast switch each, one slower NIC per GPU, and an ideal core.

    The core has no latency of its own; ``nic_latency_us``, once per route, covers network cards and core. The shares of
    payload are those of NVLink and of RoCEv2 unless they are given.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["electrical-cluster"]
    island_gbps: float
    nic_gbps: float
    island_gpus: int = 8
    nic_latency_us: float = 2.0
    island_payload_share: float = ISLAND_PAYLOAD_SHARE
    nic_payload_share: float = NETWORK_PAYLOAD_SHARE

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(self, 1, 1 << 16, "island_gpus")
