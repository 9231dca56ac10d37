"""Optical fabrics are described here, a spec per kind."""

from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

from lightfabric.model.spec.electrical import ISLAND_PAYLOAD_SHARE, NETWORK_PAYLOAD_SHARE, ElectricalClusterSpec
from lightfabric.model.spec.require import FORBID, require, require_between, require_name, require_positive

DELAYS = ("decision_us", "control_us", "switching_us", "ring_lock_us", "receiver_us")
"""What passes from the last byte in the old circuits to light in the new ones, one after the other."""
MAX_DELAY_US = 1e9


@dataclass(frozen=True, kw_only=True)
class DelaySpec:
    """Says how long ports are dark while circuits change.

    Circuits of a job are looked up, so that by default its ``decision_us`` is 0. ``receiver_us`` is that of a demonstration
    of 24 ports. The training of the line comes on top, as measured on the RTL.
    """

    name: str
    decision_us: float = 0.0
    control_us: float = 0.0
    switching_us: float = 0.0
    ring_lock_us: float = 0.0
    receiver_us: float = 8.7

    def __post_init__(self) -> None:
        require_name(self)
        for name in DELAYS:
            require(self, name, 0 <= getattr(self, name) <= MAX_DELAY_US, f"from 0 to {MAX_DELAY_US:g}")


@dataclass(frozen=True, kw_only=True)
class ReconfigurableSpec(DelaySpec):
    """Says when circuits are chosen anew during an iteration, and how long ports are dark then.

    ``reconfigure`` is "never" for circuits that stay; "phase" for others during the sums of gradients than during passes;
    "collective" for others inside of layers, between stages and between replicas; "inside" for others in each step of an
    exchange, too, where that is faster [ACTINA, 2025]; "periodic" for all of these in turn by the clock, lit for ``duty``
    times as long as ports are dark: 4 as in TopoOpt's baselines.
    """

    reconfigure: Literal["never", "phase", "collective", "inside", "periodic"] = "never"
    duty: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "duty")


@dataclass(frozen=True)
class SipRingSpec(ReconfigurableSpec):
    """Describes GPUs on a bidirectional ring of fibres, half of the ports facing each way [SiP-Ring, SIGCOMM 2021].

    Wavelengths are assigned to pairs of GPUs up to ``max_hops`` apart and reused on disjoint segments; without ``reuse`` one
    is a single pair's all the way round [Mordia, SIGCOMM 2013].

    ``reconfigure`` says when circuits are chosen anew: "never" during a job; "phase" for the sums of gradients and back;
    "collective" between what is sent inside of layers, between stages and between replicas; "inside" between the steps of an
    exchange, too; "periodic" by the clock. Then all traffic ends, and all ports are dark for the sum of the delays:
    micro-rings take up other wavelengths in ``ring_lock_us``, by default the 25 us of add-drop rings, and receivers lock in
    the 8.7 us of a demonstration.

    ``rings`` physical rings share out the wavelengths of a direction evenly, and a circuit is on one of them all its way;
    SiP-ML has 5. Nodes of ``node_gpus`` GPUs also have fibres to those up to ``bypass_hops`` away, by which light goes past
    dead ones [InfiniteHBD, SIGCOMM 2025; its switches in modules take a ``switching_us`` of 60 to 80]; 1 is for none. The
    ring is numbered with ``dead_nodes``, which no GPU of a job is on.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["sip-ring"]
    max_hops: int = 16
    fibre_m: float = 2.0
    reuse: bool = True
    _: KW_ONLY
    ring_lock_us: float = 25.0
    rings: int = 1
    node_gpus: int = 8
    bypass_hops: int = 1
    dead_nodes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(self, 1, 1 << 16, "max_hops", "rings", "node_gpus", "bypass_hops")
        require_positive(self, "fibre_m")
        rising = all(before < after for before, after in pairwise((-1, *self.dead_nodes)))
        require(self, "dead_nodes", rising and max(self.dead_nodes, default=0) < 1 << 20, "rising numbers from 0 to 1048575")
        windows = zip(self.dead_nodes, self.dead_nodes[self.bypass_hops - 1 :], strict=False)
        past = all(last - first >= self.bypass_hops for first, last in windows)
        require(self, "dead_nodes", past, f"fewer than bypass_hops = {self.bypass_hops} in a row")


@dataclass(frozen=True)
class SipOcsSpec(ReconfigurableSpec):
    """Describes GPUs whose ports are shared out among ``ocs`` optical circuit switches [SiP-OCS of SiP-ML, SIGCOMM 2021].

    Each switch has as many ports of every GPU, which it switches together, and holds one permutation of the GPUs, for the
    whole job unless ``reconfigure`` says otherwise: "phase" sets it for the sums of gradients and back; "collective" between
    what is sent inside of layers, between stages and between replicas; "inside" between the steps of an exchange, too;
    "periodic" by the clock. A port whose own traffic has ended is dark for the
    sum of the delays. ``ocs`` of 0 stands for a switch for each port. By default ``switching_us`` is that of MEMS with 320
    ports (10 to 15 ms), ``control_us`` and ``receiver_us`` are those of a demonstration of 24 ports.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["sip-ocs"]
    fibre_m: float = 20.0
    ocs: int = 0
    _: KW_ONLY
    control_us: float = 68.5
    switching_us: float = 15000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(self, 0, 32, "ocs")
        require_positive(self, "fibre_m")


@dataclass(frozen=True)
class PhotonicRailsSpec(ReconfigurableSpec):
    """Describes islands of ``island_gpus`` GPUs behind an electrical switch each, joined by rails of light [Opus, 2025].

    A rail has the GPUs of one place on all islands: their ports p all go to the same optical circuit switch. What is for
    another place goes over the island to the GPU there first, as with PXN of NCCL. The delays are those of a SiP-OCS, and
    what stays on an island does not wait for light. Links and switches of islands are those of an electrical cluster.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["photonic-rails"]
    island_gbps: float
    island_gpus: int = 8
    cable_m: float = 1.0
    fibre_m: float = 20.0
    _: KW_ONLY
    control_us: float = 68.5
    switching_us: float = 15000.0
    island_payload_share: float = ISLAND_PAYLOAD_SHARE
    link_latency_ns: float = 100.0
    switch_latency_ns: float = 200.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "island_gbps", "cable_m", "fibre_m")
        require_between(self, 1, 1 << 16, "island_gpus")
        self.islands(1.0, 1.0)  # which checks what islands have

    def islands(self, rail_gbps: float, rail_payload_share: float) -> ElectricalClusterSpec:
        """Describe the same islands with network cards as fast as rails."""
        return ElectricalClusterSpec(
            self.name, "electrical-cluster", self.island_gbps, rail_gbps, self.island_gpus,
            island_payload_share=self.island_payload_share, nic_payload_share=rail_payload_share,
            link_latency_ns=self.link_latency_ns, switch_latency_ns=self.switch_latency_ns, cable_m=self.cable_m,
        )  # fmt: skip


@dataclass(frozen=True)
class MixnetSpec(DelaySpec):
    """Describes an electrical cluster in whose regions GPUs also have circuits to each other's experts [MixNet, 2025].

    All ports of a GPU go to the optical circuit switches of its region of ``region_gpus``. What GPUs on different islands of
    a region send to experts goes over circuits of the largest demands; all else, and what has no circuit, over islands and
    network cards, on a fat tree that is not oversubscribed. Circuits are set anew for each layer of experts, and serve what
    goes there and what comes back. A ``hidden_share`` is known in time to be set during computation: those of backward
    passes, so that three of the four all-to-alls of a layer wait for nothing. The delays are those of a SiP-OCS, all that is
    electrical is as in an electrical cluster.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["mixnet"]
    island_gbps: float
    nic_gbps: float
    island_gpus: int = 8
    region_gpus: int = 64
    cable_m: float = 5.0
    fibre_m: float = 20.0
    _: KW_ONLY
    hidden_share: float = 0.5
    control_us: float = 68.5
    switching_us: float = 15000.0
    nic_latency_us: float = 2.0
    island_payload_share: float = ISLAND_PAYLOAD_SHARE
    nic_payload_share: float = NETWORK_PAYLOAD_SHARE
    link_latency_ns: float = 100.0
    switch_latency_ns: float = 200.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "fibre_m")
        require_between(self, 1, 1 << 16, "region_gpus", "island_gpus")
        islands = f"a multiple of the {self.island_gpus} GPUs of an island"
        require(self, "region_gpus", self.region_gpus % self.island_gpus == 0, islands)
        require(self, "hidden_share", 0 <= self.hidden_share <= 1, "from 0 to 1")
        _ = self.cluster  # which checks what is electrical

    @property
    def cluster(self) -> ElectricalClusterSpec:
        """Describe the same islands and network cards without light."""
        return ElectricalClusterSpec(
            self.name, "electrical-cluster", self.island_gbps, self.nic_gbps, self.island_gpus, self.nic_latency_us,
            self.island_payload_share, self.nic_payload_share,
            link_latency_ns=self.link_latency_ns, switch_latency_ns=self.switch_latency_ns, cable_m=self.cable_m,
        )  # fmt: skip


@dataclass(frozen=True)
class TopooptSpec:
    """Describes GPUs joined straight to others by ``degree`` links each, chosen once for a job [TopoOpt, NSDI 2023].

    The ports of a chiplet are shared out evenly among the links, which lead over a patch panel, by two fibres of
    ``fibre_m``. What all GPUs reduce goes over rings of several strides [TotientPerms]. A ring of all GPUs is always there,
    and other links join those that send most to each other, by matchings; the rest is relayed over the fewest links.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID
    reconfigure: ClassVar[str] = "never"

    name: str
    kind: Literal["topoopt"]
    degree: int = 4
    fibre_m: float = 20.0

    def __post_init__(self) -> None:
        require_name(self)
        require_between(self, 1, 32, "degree")
        require_positive(self, "fibre_m")
