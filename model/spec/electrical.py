"""Electrical fabrics are described here, a spec per kind."""

from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar, Literal

from lightfabric.model.spec.require import FORBID, require, require_between, require_name, require_positive

CABLE_PS_PER_M = 5000.0
"""5 ns/m: copper with solid polyethylene, relative permittivity 2.25, so two thirds of the speed of light."""
ISLAND_PAYLOAD_SHARE = 256 / 272
"""A packet of NVLink has at most 16 flits of data behind a header, of 16 bytes each [Foley, Danskin, IEEE Micro 37, 2017].
What DeepSeek-V3 measures, 160 of 200 GB/s, is less by what the software takes."""
NETWORK_PAYLOAD_SHARE = 4096 / 4178
"""RoCEv2 adds to 4096 bytes a preamble of 8, Ethernet 14, IPv4 20, UDP 8, BTH 12, ICRC 4, FCS 4 and a gap of 12."""


@dataclass(frozen=True)
class ElectricalLinks:
    """Describes what all links of an electrical fabric have: latencies and a cable, whatever the chiplets of the study.

    ``link_latency_ns`` is that of a link without propagation, both ends together: PAM4 with KP4 takes 100 to 200 ns per hop.
    ``switch_latency_ns`` is that of a switch from port to port: UALink 200G allows 150 to 250 ns by the size of the switch.
    ``cable_m`` is the length of each cable. A share of payload, 0 to 1, is what headers leave of the raw rate beside it, and
    ``nic_latency_us`` is what both network cards of a route take together.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    _: KW_ONLY
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

    kind: Literal["electrical-switch"]
    gpu_gbps: float
    payload_share: float = ISLAND_PAYLOAD_SHARE


@dataclass(frozen=True)
class ElectricalClusterSpec(ElectricalLinks):
    """Describes islands of ``island_gpus`` GPUs behind a fast switch each, one slower NIC per GPU, and an ideal core.

    The core has no latency of its own: ``nic_latency_us`` covers it. The shares of payload are those of NVLink and of RoCEv2
    unless they are given.
    """

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


@dataclass(frozen=True)
class FatTreeSpec(ElectricalLinks):
    """Describes a fat tree: GPUs with a NIC each on leaf switches, these on spines, with 3 ``levels`` in pods on a core.

    Of the ``radix`` ports of a leaf as many lead down that GPUs have ``oversubscription`` times the rate of its uplinks.
    Switches above are not oversubscribed: with 2 levels there are up to ``radix`` leaves, with 3 pods of half as many, and
    up to ``radix`` pods.
    """

    kind: Literal["fat-tree"]
    nic_gbps: float
    radix: int = 64
    levels: int = 2
    oversubscription: float = 1.0
    nic_latency_us: float = 2.0
    payload_share: float = NETWORK_PAYLOAD_SHARE

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(self, 2, 1 << 16, "radix")
        require_between(self, 2, 3, "levels")
        require_between(self, 1, 1 << 16, "oversubscription")

    @property
    def leaf_gpus(self) -> int:
        """Count the GPUs of a leaf."""
        return int(self.radix * self.oversubscription / (1 + self.oversubscription))

    @property
    def pod_leaves(self) -> int:
        """Count the leaves that reach each other without the core."""
        return self.radix if self.levels == 2 else self.radix // 2


@dataclass(frozen=True)
class RailOptimisedSpec(ElectricalLinks):
    """Describes islands of GPUs behind a fast switch each, whose network cards of the same number are on a rail switch.

    A rail switch joins ``rail_islands`` islands; spines join those of a rail, with 1 / ``oversubscription`` of the rate of
    the network cards on each. Latency and shares of payload are as those of ``electrical-cluster``.
    """

    kind: Literal["rail-optimised"]
    island_gbps: float
    nic_gbps: float
    island_gpus: int = 8
    rail_islands: int = 32
    oversubscription: float = 1.0
    nic_latency_us: float = 2.0
    island_payload_share: float = ISLAND_PAYLOAD_SHARE
    nic_payload_share: float = NETWORK_PAYLOAD_SHARE

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(self, 1, 1 << 16, "island_gpus", "rail_islands", "oversubscription")


@dataclass(frozen=True)
class DragonflySpec(ElectricalLinks):
    """Describes groups of routers, all joined in a group, and all groups by ``global_links`` of each router [Kim 2008].

    Links between routers have ``link_gbps``. Two groups share as many links as divide evenly among all of them, so there are
    at most ``routers_per_group * global_links + 1`` groups.
    """

    kind: Literal["dragonfly"]
    nic_gbps: float
    link_gbps: float
    gpus_per_router: int = 4
    routers_per_group: int = 8
    global_links: int = 4
    nic_latency_us: float = 2.0
    payload_share: float = NETWORK_PAYLOAD_SHARE

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(self, 1, 1 << 16, "gpus_per_router", "routers_per_group", "global_links")
