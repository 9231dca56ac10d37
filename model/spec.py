"""The description of a system: chiplet, accelerator, job and fabrics, frozen, with the unit in every name.

Every spec checks itself when it is made and raises ``ValueError("ChipletSpec.ports must be at least 1, not 0")``:
owner and field, what it must be, what it is. Values that follow from others are properties.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from typing import Any, ClassVar, Literal

FORBID: dict[str, Any] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
"""How pydantic reads these classes from a file: no unknown keys, no conversion of types."""

FIBRE_PS_PER_M = 1.468 / 299_792_458 * 1e12
"""4.897 ns/m: group index 1.468 of standard single-mode fibre at 1310 to 1550 nm (Corning SMF-28 data sheets)."""

CABLE_PS_PER_M = 5000.0
"""5 ns/m: copper with solid polyethylene, relative permittivity 2.25, so two thirds of the speed of light."""

SLOWEST_CYCLES_PER_BLOCK = 4
"""A core clock that is faster against the line than this serves nobody, and makes the measurement of the link slow."""

Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp8"]


def _require(owner: object, name: str, holds: bool, must_be: str) -> None:
    if not holds:
        raise ValueError(f"{type(owner).__name__}.{name} must be {must_be}, not {getattr(owner, name)!r}")


def _require_between(owner: object, low: float, high: float, *names: str) -> None:
    for name in names:
        _require(owner, name, low <= getattr(owner, name) <= high, f"from {low} to {high}")


def _require_counts(owner: object, name: str, least: int, most: int, largest: int) -> None:
    counts: tuple[int, ...] = getattr(owner, name)
    holds = least <= len(counts) <= most and all(1 <= count <= largest for count in counts)
    _require(owner, name, holds, f"{least} to {most} counts from 1 to {largest}")


def _require_name(owner: object) -> None:
    name: str = getattr(owner, "name")  # noqa: B009
    _require(owner, "name", bool(name.strip()) and name.isprintable(), "a name of printable characters")


def _require_positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        _require(owner, name, math.isfinite(value) and value > 0, "above 0")


@dataclass(frozen=True)
class ChipletSpec:
    """One optical-I/O chiplet: the hardware that ``lightfabric.rtl`` builds.

    A port is one fibre pair carrying ``wavelengths_per_port`` wavelengths in each direction. The packet interface
    sends a flit of ``flit_bytes`` as beats of one 64b/66b block per wavelength, at ``core_clock_mhz``. A transmitter keeps
    ``replay_flits`` until they are acknowledged; 0 stands for what a round trip over ``reach_m`` of fibre needs.

    ``bit_error_rate`` is that of each wavelength as the receiver sees it, after any forward error correction.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    ports: int = 8
    wavelengths_per_port: int = 16
    wavelength_gbps: float = 32.0
    core_clock_mhz: float = 500.0
    flit_bytes: int = 128
    crc: Literal["crc32c", "crc24", "crc16", "crc16-umts"] = "crc32c"
    virtual_channels: int = 2
    buffer_flits: int = 127
    reach_m: float = 20.0
    replay_flits: int = 0
    bit_error_rate: float = 0.0

    NOT_BUILT: ClassVar[tuple[str, ...]] = ("bit_error_rate",)
    """Fields that say what happens to the hardware, not what it is: the RTL is the same for all their values."""
    MAX_BIT_ERROR_RATE: ClassVar[float] = 1e-4
    """Beyond, wide ports lose half of their slots, and the line trains more often than it sends."""
    HEADER_BYTES: ClassVar[int] = 8
    CRC_BYTES: ClassVar[int] = 4
    BLOCK_BYTES: ClassVar[int] = 8
    BLOCK_BITS_ON_LINE: ClassVar[int] = 66
    MOST_OUTSTANDING_FLITS: ClassVar[int] = 127
    """So that sequences modulo 255 tell old flits from new ones [UCIe 1.1, retry]."""
    LOOP_CYCLES: ClassVar[int] = 20
    """What the pipelines of both ends take of a round trip at most; a test compares it with the measured ones."""
    LOOP_SLOTS: ClassVar[int] = 4
    """Of a round trip: the flit's own slot, the wait for a slot with an acknowledgement, that slot, the wait to send."""

    def __post_init__(self) -> None:
        _require_between(self, 1, 32, "ports")
        _require_between(self, 1, 32, "wavelengths_per_port")
        _require_between(self, 1, 8, "virtual_channels")
        _require_between(self, 1, self.MOST_OUTSTANDING_FLITS, "buffer_flits")
        _require_positive(self, "wavelength_gbps", "core_clock_mhz", "reach_m")
        _require_between(self, 0, self.MAX_BIT_ERROR_RATE, "bit_error_rate")
        _require(self, "flit_bytes", self.flit_bytes in (64, 128, 256), "64, 128 or 256")
        _require(
            self,
            "wavelengths_per_port",
            self.flit_bytes % self.beat_bytes == 0,
            f"a divisor of {self.flit_bytes // self.BLOCK_BYTES}, the 64-bit blocks of a flit",
        )
        _require(
            self,
            "wavelength_gbps",
            self.wavelength_gbps * SLOWEST_CYCLES_PER_BLOCK * 1000 >= self.BLOCK_BITS_ON_LINE * self.core_clock_mhz,
            f"at least {self.BLOCK_BITS_ON_LINE * self.core_clock_mhz / SLOWEST_CYCLES_PER_BLOCK / 1000:.4g}, "
            f"so that a wavelength sends a 66-bit block within {SLOWEST_CYCLES_PER_BLOCK} cycles",
        )
        least_mhz = self.wavelength_gbps * 1000 / self.BLOCK_BITS_ON_LINE
        _require(
            self,
            "core_clock_mhz",
            self.blocks_per_cycle <= 1,
            f"at least {least_mhz:.2f}, so that a wavelength needs no more than one 66-bit block per cycle",
        )
        self._require_replay_depth()

    def _require_replay_depth(self) -> None:
        most, least = self.MOST_OUTSTANDING_FLITS, self.round_trip_flits
        spare_cycles = float((most - self.LOOP_SLOTS) * self.slot_cycles) - self.LOOP_CYCLES
        reach_m = spare_cycles / 2 * self.cycle_ps / FIBRE_PS_PER_M
        _require(self, "reach_m", least <= most, f"at most {reach_m:.4g}, so that a round trip holds at most {most} flits")
        if self.replay_flits == 0:
            object.__setattr__(self, "replay_flits", least)
        must_be = f"0 or from {least}, the flits of a round trip over reach_m, to {most}"
        _require(self, "replay_flits", least <= self.replay_flits <= most, must_be)

    @property
    def payload_bytes(self) -> int:
        """Client bytes in a full flit: all but header and CRC."""
        return self.flit_bytes - self.HEADER_BYTES - self.CRC_BYTES

    @property
    def beat_bytes(self) -> int:
        """Bytes sent at once over all wavelengths of a port, before 64b/66b coding."""
        return self.wavelengths_per_port * self.BLOCK_BYTES

    @property
    def beats_per_flit(self) -> int:
        """Beats that a flit occupies on the line."""
        return self.flit_bytes // self.beat_bytes

    @property
    def client_bytes(self) -> int:
        """Bytes of a word of the client's stream: a beat, or the payload of a flit that is sent as a single beat."""
        return min(self.beat_bytes, self.payload_bytes)

    @property
    def blocks_per_cycle(self) -> Fraction:
        """Blocks per core clock cycle on each wavelength, at most 1: line rate / 66 bits / clock, within 5e-5."""
        exact = Fraction(self.wavelength_gbps) * 1000 / (self.BLOCK_BITS_ON_LINE * Fraction(self.core_clock_mhz))
        return exact if exact > 1 else exact.limit_denominator(128)

    @property
    def cycle_ps(self) -> float:
        """Period of the core clock."""
        return 1e6 / self.core_clock_mhz

    @property
    def switch_ports(self) -> int:
        """Ports of the chiplet's switch: one to the client and one to the line for each optical port."""
        return 2 * self.ports

    @property
    def slot_cycles(self) -> Fraction:
        """Cycles that a flit occupies on the line, on average."""
        return self.beats_per_flit / self.blocks_per_cycle

    @property
    def round_trip_flits(self) -> int:
        """Most slots from the sending of a flit over ``reach_m`` to the slot that can use its acknowledgement."""
        delay_cycles = math.ceil(self.reach_m * FIBRE_PS_PER_M / self.cycle_ps)
        return math.ceil((2 * delay_cycles + self.LOOP_CYCLES) / self.slot_cycles) + self.LOOP_SLOTS

    @property
    def gbps_per_port(self) -> float:
        """Raw line rate of a port in each direction."""
        return self.wavelengths_per_port * self.wavelength_gbps

    @property
    def gbps(self) -> float:
        """Raw line rate of the chiplet in each direction."""
        return self.ports * self.gbps_per_port


@dataclass(frozen=True)
class AcceleratorSpec:
    """A GPU as the cost model sees it: dense peak rates, memory and memory bandwidth.

    ``matmul_fraction`` of a peak is the highest rate that large matrix products were seen to reach. Each of
    ``multiprocessors`` works off one tile of a product at a time; 0 stands for so many that none is ever idle.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    memory_gib: float
    memory_gbytes_per_s: float
    fp16_tflops: float
    bf16_tflops: float
    fp32_tflops: float
    tf32_tflops: float | None = None
    fp8_tflops: float | None = None
    matmul_fraction: float = 1.0
    multiprocessors: int = 0

    def __post_init__(self) -> None:
        _require_name(self)
        _require_positive(self, "memory_gib", "memory_gbytes_per_s", "fp16_tflops", "bf16_tflops", "fp32_tflops")
        _require(self, "matmul_fraction", 0 < self.matmul_fraction <= 1, "above 0 and at most 1")
        _require_between(self, 0, 1 << 16, "multiprocessors")
        for name in ("tf32_tflops", "fp8_tflops"):
            if getattr(self, name) is not None:
                _require_positive(self, name)

    def peak_flops(self, precision: Precision) -> float:
        """Peak rate in flop/s; ValueError if the accelerator does not have that precision."""
        tflops = getattr(self, f"{precision}_tflops")
        if tflops is None:
            raise ValueError(f"AcceleratorSpec.{precision}_tflops must be given for a job in {precision}, not left out")
        return tflops * 1e12


ACCELERATORS = {
    # NVIDIA A100 80GB SXM and H100 SXM data sheets, dense rates. Of these 271.2 and 794.5 Tflop/s were reached in bf16
    # [Bekman, Machine Learning Engineering Open Book, "Maximum Achievable Matmul FLOPS Comparison Table", 2024].
    "a100": AcceleratorSpec("a100", 80.0, 2039.0, 312.0, 312.0, 19.5, 156.0, matmul_fraction=0.869, multiprocessors=108),
    "h100": AcceleratorSpec(
        "h100", 80.0, 3350.0, 989.4, 989.4, 66.9, 494.7, 1978.9, matmul_fraction=0.803, multiprocessors=132
    ),
}


@dataclass(frozen=True)
class ModelSpec:
    """A transformer by its shape: a GPT unless more is given.

    Attention: ``kv_heads`` heads of keys and values (all heads), each head ``head_width`` wide (hidden / heads). With
    ``kv_rank`` it is multi-head latent attention [DeepSeek-V2, section 2.1]: keys and values come from kv_rank values
    per token, queries from ``query_rank`` (or from hidden), ``rope_width`` more per query and key carry the position, a
    value is ``value_width`` wide (head_width).

    Feed-forward: ``ffn`` wide (4 x hidden), three matrices if ``gated`` (SwiGLU), else two. With ``experts`` it is a
    mixture in every layer but the first ``dense_layers``: each token goes to ``experts_per_token`` of them and to all of
    ``shared_experts``, each ``expert_ffn`` wide (ffn).

    ``tied``: the output layer shares the word embedding. Positions that are rotary or alibi have no parameters.
    ``biases`` of "all" matrices go with layer norms of two vectors; "qkv" (Qwen) and "none" with RMS norms of one.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    layers: int
    hidden: int
    heads: int
    sequence: int
    vocabulary: int
    ffn: int | None = None
    kv_heads: int | None = None
    head_width: int | None = None
    gated: bool = False
    tied: bool = True
    positions: Literal["learned", "rotary", "alibi"] = "learned"
    biases: Literal["all", "qkv", "none"] = "all"
    dropout: bool = True
    experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int | None = None
    shared_experts: int = 0
    dense_layers: int = 0
    query_rank: int | None = None
    kv_rank: int | None = None
    rope_width: int | None = None
    value_width: int | None = None

    def __post_init__(self) -> None:
        _require_between(self, 1, 1 << 20, "layers", "hidden", "heads", "sequence", "vocabulary")
        widths = ("ffn", "kv_heads", "head_width", "expert_ffn", "query_rank", "kv_rank", "rope_width", "value_width")
        _require_between(self, 1, 1 << 22, *(name for name in widths if getattr(self, name) is not None))
        if self.head_width is None:
            _require(self, "heads", self.hidden % self.heads == 0, f"a divisor of hidden ({self.hidden})")
        _require(self, "kv_heads", self.heads % self.kv_head_count == 0, f"a divisor of heads ({self.heads})")
        self._require_experts()
        self._require_latent()

    def _require_experts(self) -> None:
        _require_between(self, 0, 1 << 16, "experts")
        if self.experts:
            _require_between(self, 1, self.experts, "experts_per_token")
            _require_between(self, 0, 1 << 16, "shared_experts")
            _require_between(self, 0, self.layers - 1, "dense_layers")
            return
        for name in ("experts_per_token", "shared_experts", "dense_layers"):
            _require(self, name, getattr(self, name) == 0, "0 without experts")
        _require(self, "expert_ffn", self.expert_ffn is None, "left out without experts")

    def _require_latent(self) -> None:
        if self.kv_rank is None:
            for name in ("query_rank", "rope_width", "value_width"):
                _require(self, name, getattr(self, name) is None, "left out without kv_rank")
            return
        _require(self, "kv_heads", self.kv_heads is None, "left out beside kv_rank")
        _require(self, "rope_width", self.rope_width is not None, "given beside kv_rank")
        _require(self, "positions", self.positions == "rotary", "'rotary' beside kv_rank")
        _require(self, "biases", self.biases == "none", "'none' beside kv_rank")

    @property
    def ffn_width(self) -> int:
        """Width of the feed-forward layer."""
        return 4 * self.hidden if self.ffn is None else self.ffn

    @property
    def expert_width(self) -> int:
        """Width of one expert."""
        return self.ffn_width if self.expert_ffn is None else self.expert_ffn

    @property
    def kv_head_count(self) -> int:
        """Heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_size(self) -> int:
        """Width of a head's query and key without ``rope_width``."""
        return self.hidden // self.heads if self.head_width is None else self.head_width

    @property
    def key_size(self) -> int:
        """Width of a head's query and key."""
        return self.head_size + (self.rope_width or 0)

    @property
    def value_size(self) -> int:
        """Width of a head's value."""
        return self.head_size if self.value_width is None else self.value_width

    @property
    def query_width(self) -> int:
        """Width of the queries of all heads."""
        return self.heads * self.key_size

    @property
    def kv_width(self) -> int:
        """Width of the keys of all kv heads, without ``rope_width``; of the values too, unless ``value_width`` is given."""
        return self.kv_head_count * self.head_size

    @property
    def attention_width(self) -> int:
        """Width of what attention gives to the output projection: the values of all heads."""
        return self.heads * self.value_size

    @property
    def norm_size(self) -> int:
        """Parameters of a norm: scale and shift, or scale alone."""
        return 2 * self.hidden if self.biases == "all" else self.hidden

    def is_routed(self, layer: int) -> bool:
        """Whether the layer, counted from 0 or from the end if negative, is a mixture of experts."""
        return self.experts > 0 and layer % self.layers >= self.dense_layers


@dataclass(frozen=True)
class JobSpec:
    """One training job. ``batch`` is the global batch in sequences.

    The k-th most popular expert gets tokens in proportion to 1 / k ** ``expert_skew``; 0 is even.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    model: ModelSpec
    batch: int
    precision: Precision = "bf16"
    expert_skew: float = 0.0

    def __post_init__(self) -> None:
        _require_between(self, 1, 1 << 20, "batch")
        _require_between(self, 0, 4, "expert_skew")
        _require(self, "expert_skew", not self.expert_skew or self.model.experts > 0, "0 for a model without experts")


@dataclass(frozen=True)
class NetworkJobSpec:
    """One training job of a network that is no stack of equal layers. ``batch`` is the global batch in samples.

    The recommender has a table for each of ``table_rows``, MLPerf's if there are none, of ``table_width`` values a row. Its
    perceptrons are MLPerf's too: ``bottom_widths`` are those from the inputs on, before the last, which is the tables';
    ``top_widths`` those after the inputs, which are the products and the bottom perceptron's outputs.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    network: Literal["resnet-50", "vgg-16", "transformer-big", "dlrm"]
    batch: int
    precision: Precision = "bf16"
    table_rows: tuple[int, ...] = ()
    table_width: int = 128
    bottom_widths: tuple[int, ...] = (13, 512, 256)
    top_widths: tuple[int, ...] = (1024, 1024, 512, 256, 1)

    MOST_TABLES: ClassVar[int] = 1024
    MOST_WIDTHS: ClassVar[int] = 64

    def __post_init__(self) -> None:
        _require_between(self, 1, 1 << 24, "batch")
        _require_between(self, 1, 1 << 14, "table_width")
        _require_counts(self, "table_rows", 0, self.MOST_TABLES, 1 << 34)
        for name in ("bottom_widths", "top_widths"):
            _require_counts(self, name, 1, self.MOST_WIDTHS, 1 << 14)
        for name in ("table_rows", "table_width", "bottom_widths", "top_widths"):
            is_default = getattr(self, name) == self.__dataclass_fields__[name].default
            _require(self, name, is_default or self.network == "dlrm", "left out but for dlrm")


@dataclass(frozen=True)
class ElectricalSwitchSpec:
    """An ideal electrical switch: every GPU reaches every other at full rate, one switch hop away."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["electrical-switch"]
    gpu_gbps: float
    cable_m: float = 5.0

    def __post_init__(self) -> None:
        _require_name(self)
        _require_positive(self, "gpu_gbps", "cable_m")


@dataclass(frozen=True)
class ElectricalClusterSpec:
    """Islands of ``island_gpus`` GPUs behind a fast switch each, joined by one slower NIC per GPU and an ideal core."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["electrical-cluster"]
    island_gbps: float
    nic_gbps: float
    island_gpus: int = 8
    nic_latency_us: float = 2.0
    cable_m: float = 5.0

    def __post_init__(self) -> None:
        _require_name(self)
        _require_positive(self, "island_gbps", "nic_gbps", "nic_latency_us", "cable_m")
        _require_between(self, 1, 1 << 16, "island_gpus")


@dataclass(frozen=True)
class SipRingSpec:
    """SiP-Ring (SiP-ML, SIGCOMM 2021): GPUs on a bidirectional ring of fibres, half of the ports facing each way.

    Wavelengths are assigned to pairs of GPUs up to ``max_hops`` apart and reused on disjoint segments.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["sip-ring"]
    max_hops: int = 16
    fibre_m: float = 2.0

    def __post_init__(self) -> None:
        _require_name(self)
        _require_between(self, 1, 1 << 16, "max_hops")
        _require_positive(self, "fibre_m")


@dataclass(frozen=True)
class SipOcsSpec:
    """SiP-OCS (SiP-ML, SIGCOMM 2021): port p of every GPU goes to optical circuit switch p.

    Each switch holds one permutation of the GPUs for the whole job.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    kind: Literal["sip-ocs"]
    fibre_m: float = 20.0

    def __post_init__(self) -> None:
        _require_name(self)
        _require_positive(self, "fibre_m")


FabricSpec = ElectricalSwitchSpec | ElectricalClusterSpec | SipRingSpec | SipOcsSpec


@dataclass(frozen=True)
class Spec:
    """Everything that one study needs."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    name: str
    accelerator: AcceleratorSpec
    job: JobSpec | NetworkJobSpec
    fabrics: tuple[FabricSpec, ...]
    gpus: tuple[int, ...]
    chiplet: ChipletSpec = field(default_factory=ChipletSpec)

    def __post_init__(self) -> None:
        _require_name(self)
        in_range = len(self.gpus) > 0 and all(2 <= n <= 1 << 17 for n in self.gpus)
        _require(self, "gpus", in_range, "one or more counts from 2 to 131072")
        names = [fabric.name for fabric in self.fabrics]
        _require(self, "fabrics", 0 < len(names) == len(set(names)), "one or more fabrics of different names")


def spec_hash(spec: ChipletSpec) -> str:
    """Hash of the fields that the RTL is built from: equal for equal hardware, 16 hexadecimal digits."""
    assert all(f.init for f in fields(spec))
    built = {name: value for name, value in asdict(spec).items() if name not in spec.NOT_BUILT}
    return hashlib.sha256(json.dumps(built, sort_keys=True).encode()).hexdigest()[:16]
