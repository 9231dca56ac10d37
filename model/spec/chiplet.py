"""A spec of the optical-I/O chiplet says what the RTL is built from, and what follows from that."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any, ClassVar, Literal

from lightfabric.model.spec.fec import FEC_CODES, FecCode, FecName
from lightfabric.model.spec.require import FORBID, require, require_between, require_positive

FIBRE_PS_PER_M = 1.468 / 299_792_458 * 1e12
"""4.897 ns/m: group index 1.468 of standard single-mode fibre at 1310 to 1550 nm (Corning SMF-28 data sheets)."""


SLOWEST_CYCLES_PER_BLOCK = 4
"""A core clock that is faster against the line than this serves nobody, and makes the measurement of the link slow."""


@dataclass(frozen=True)
class ChipletSpec:
    """Describes one optical-I/O chiplet, the hardware that ``lightfabric.rtl`` builds.

    A port is one fibre pair carrying ``wavelengths_per_port`` wavelengths in each direction. The packet interface
    sends a flit of ``flit_bytes`` as beats of one 64b/66b block per wavelength, at ``core_clock_mhz``. A transmitter keeps
    ``replay_flits`` until they are acknowledged; 0 stands for what a round trip over ``reach_m`` of fibre needs. A receiver
    has room for ``buffer_flits`` in each virtual channel; 0 stands for 127, or where the round trip takes more for what one
    virtual channel alone needs to use the whole rate.
    ``spare_wavelengths`` more are there to take the place of dead ones; one may lag ``max_skew_blocks`` behind another.
    A packet whose rest does not come for ``stall_cycles``, because its source stalls or the link on its way is down, ends
    there, marked as broken, so that nobody waits for it longer. With ``channel_streams`` a client has a stream each way for
    each virtual channel, none of which waits for another, in place of one each way.

    ``fec`` is the forward error correction of frames on the line: ``"none"``, 64b/66b blocks as they are; ``"kr4"`` or
    ``"kp4"``, those of IEEE 802.3; ``"light"``, a short code (``FEC_CODES``). ``bit_error_rate`` is that of each wavelength
    as the receiver sees it, before the code corrects it if there is one. With ``ber_tester`` each link can send test
    patterns and count their errors, as its registers say.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID

    ports: int = 8
    wavelengths_per_port: int = 16
    wavelength_gbps: float = 32.0
    core_clock_mhz: float = 500.0
    flit_bytes: int = 128
    crc: Literal["crc32c", "crc24", "crc16", "crc16-umts"] = "crc32c"
    virtual_channels: int = 2
    buffer_flits: int = 0
    reach_m: float = 20.0
    replay_flits: int = 0
    bit_error_rate: float = 0.0
    ber_tester: bool = False
    fec: FecName = "none"
    spare_wavelengths: int = 0
    max_skew_blocks: int = 7
    stall_cycles: int = 65_536
    channel_streams: bool = False

    NOT_BUILT: ClassVar[tuple[str, ...]] = ("bit_error_rate",)
    """Fields that say what happens to the hardware, not what it is: the RTL is the same for all their values."""
    MAX_BIT_ERROR_RATE: ClassVar[float] = 1e-4
    """Without a code; beyond, wide ports lose half of their slots, and the line trains more often than it sends."""
    CRC_BYTES: ClassVar[int] = 4
    BLOCK_BYTES: ClassVar[int] = 8
    BLOCK_BITS_ON_LINE: ClassVar[int] = 66
    """Of 64b/66b, without a code; ``block_bits_on_line`` is that with the code of the spec."""
    UCIE_OUTSTANDING_FLITS: ClassVar[int] = 127
    """Sequences of n bits are counted modulo 2^n - 1, so that one value is none, and tell old flits from new ones while less
    than half of them are outstanding; n is 8 at least, as in UCIe, for so many flits modulo 255 [UCIe 1.1, retry]."""
    MAX_OUTSTANDING_FLITS: ClassVar[int] = 32767
    """So many flits need sequences of 16 bits, the widest."""
    UCIE_TIMEOUT_SLOTS: ClassVar[int] = 375
    """After so many slots without an acknowledgement a transmitter of 127 outstanding flits replays [UCIe 1.1, retry]."""
    MAX_STALL_CYCLES: ClassVar[int] = (1 << 31) - 1
    """Counters of such times have 32 bits, one of which is the sign."""
    MAX_SKEW_BLOCKS: ClassVar[int] = 63
    """Training sets are numbered modulo 256, and lanes twice as far apart must still be told from those in time."""
    LOOP_CYCLES: ClassVar[int] = 20
    """What the pipelines of both ends take of a round trip at most; a test compares it with the measured ones."""
    LOOP_SLOTS: ClassVar[int] = 4
    """Of a round trip: the flit's own slot, the wait for a slot with an acknowledgement, that slot, the wait to send."""
    CONSUMER_CYCLES: ClassVar[int] = 20
    """A consumer that is always ready gives a credit back within so many cycles; crossings of clocks take most of them."""

    def __post_init__(self) -> None:
        require_between(self, 1, 32, "ports")
        require_between(self, 1, 32, "wavelengths_per_port")
        require_between(self, 0, 32 - self.wavelengths_per_port, "spare_wavelengths")
        require_between(self, 1, self.MAX_SKEW_BLOCKS, "max_skew_blocks")
        require_between(self, 1, 8, "virtual_channels")
        require_between(self, 0, self.MAX_OUTSTANDING_FLITS, "buffer_flits")
        require_between(self, 1, self.MAX_STALL_CYCLES, "stall_cycles")
        require_positive(self, "wavelength_gbps", "core_clock_mhz", "reach_m")
        require(self, "fec", self.fec in ("none", *FEC_CODES), f"one of none, {', '.join(FEC_CODES)}")
        most = self.code.max_bit_error_rate if self.code else self.MAX_BIT_ERROR_RATE
        require_between(self, 0, most, "bit_error_rate")
        require(self, "flit_bytes", self.flit_bytes in (64, 128, 256), "64, 128 or 256")
        require(
            self,
            "wavelengths_per_port",
            self.flit_bytes % self.beat_bytes == 0,
            f"a divisor of {self.flit_bytes // self.BLOCK_BYTES}, the 64-bit blocks of a flit",
        )
        self._require_line_rate()
        self._require_replay_depth()

    def _require_line_rate(self) -> None:
        bits = self.block_bits_on_line
        require(
            self,
            "wavelength_gbps",
            self.wavelength_gbps * SLOWEST_CYCLES_PER_BLOCK * 1000 >= bits * self.core_clock_mhz,
            f"at least {bits * self.core_clock_mhz / SLOWEST_CYCLES_PER_BLOCK / 1000:.4g}, "
            f"so that a wavelength sends a {bits}-bit block within {SLOWEST_CYCLES_PER_BLOCK} cycles",
        )
        require(
            self,
            "core_clock_mhz",
            self.blocks_per_cycle <= 1,
            f"at least {self.wavelength_gbps * 1000 / bits:.2f}, "
            f"so that a wavelength needs no more than one {bits}-bit block per cycle",
        )

    def _require_replay_depth(self) -> None:
        most, least = self.MAX_OUTSTANDING_FLITS, self.round_trip_flits
        # The reach at which a round trip takes all flits that sequences can number: the user is told that, not the flits.
        spare_cycles = float((most - self.LOOP_SLOTS) * self.slot_cycles) - self.LOOP_CYCLES - 2 * self.fec_cycles
        reach_m = spare_cycles / 2 * self.cycle_ps / FIBRE_PS_PER_M
        require(self, "reach_m", least <= most, f"at most {reach_m:.4g}, so that a round trip holds at most {most} flits")
        # The spec is frozen, yet 0 stands for a depth that follows from other fields: it is filled in before anyone sees it.
        if self.replay_flits == 0:
            object.__setattr__(self, "replay_flits", least)
        must_be = f"0 or from {least}, the flits of a round trip over reach_m, to {most}"
        require(self, "replay_flits", least <= self.replay_flits <= most, must_be)
        if self.buffer_flits == 0:
            object.__setattr__(self, "buffer_flits", self._needed_buffer_flits)

    @property
    def _needed_buffer_flits(self) -> int:
        """Count the flits that a virtual channel alone needs room for, to use the whole rate over ``reach_m``."""
        if self.round_trip_flits <= self.UCIE_OUTSTANDING_FLITS:
            return self.UCIE_OUTSTANDING_FLITS
        # Each slot tells the limit of one virtual channel.
        needed = self.round_trip_flits + self.virtual_channels + math.ceil(self.CONSUMER_CYCLES / self.slot_cycles)
        return min(needed, self.MAX_OUTSTANDING_FLITS)

    @property
    def sequence_bits(self) -> int:
        """Count the bits of a sequence: 8, or more where more flits are outstanding or buffered than 8 can tell apart."""
        return max(self.UCIE_OUTSTANDING_FLITS, self.replay_flits, self.buffer_flits).bit_length() + 1

    @property
    def credit_bits(self) -> int:
        """Count the bits of a credit limit: as many as of a sequence, so that one number says the format of a header."""
        return self.sequence_bits

    @property
    def sequences(self) -> int:
        """Give the modulus of sequences, 2^n - 1; the last value of their bits is none."""
        return (1 << self.sequence_bits) - 1

    @property
    def header_bytes(self) -> int:
        """Count the bytes of a flit's header: 8 with sequences and limits of 8 bits, else 12."""
        # Whole words of four bytes keep payloads multiples of four: a client's words are cut in no finer grains.
        return 8 if self.sequence_bits == 8 else 12

    @property
    def timeout_slots(self) -> int:
        """Count the slots without an acknowledgement after which the transmitter replays: about three round trips."""
        outstanding = self.UCIE_OUTSTANDING_FLITS
        return self.UCIE_TIMEOUT_SLOTS * max(outstanding, self.replay_flits) // outstanding

    @property
    def payload_bytes(self) -> int:
        """Count the client's bytes in a full flit: all but header and CRC."""
        return self.flit_bytes - self.header_bytes - self.CRC_BYTES

    @property
    def beat_bytes(self) -> int:
        """Count the bytes sent at once over all wavelengths of a port, before 64b/66b coding."""
        return self.wavelengths_per_port * self.BLOCK_BYTES

    @property
    def lanes_per_port(self) -> int:
        """Count the wavelengths of a port in each direction, spare ones and all."""
        return self.wavelengths_per_port + self.spare_wavelengths

    @property
    def beats_per_flit(self) -> int:
        """Count the beats that a flit occupies on the line."""
        return self.flit_bytes // self.beat_bytes

    @property
    def client_bytes(self) -> int:
        """Count the bytes of a word of the client's stream: a beat, or the payload of a flit sent as a single beat."""
        return min(self.beat_bytes, self.payload_bytes)

    @property
    def code(self) -> FecCode | None:
        """Give the code of ``fec``, None without one."""
        return FEC_CODES.get(self.fec)

    @property
    def block_bits_on_line(self) -> int:
        """Count the bits that a 64-bit block has on the line: with its sync header, or with its share of a codeword."""
        return self.code.block_bits if self.code else self.BLOCK_BITS_ON_LINE

    @property
    def codeword_beats(self) -> int:
        """Count the beats of as few codewords as are a whole number of beats, side by side; 0 without a code."""
        return math.lcm(self.code.words, self.wavelengths_per_port) // self.wavelengths_per_port if self.code else 0

    @property
    def codewords_abreast(self) -> int:
        """Count the codewords that ``codeword_beats`` beats carry."""
        return self.codeword_beats * self.wavelengths_per_port // self.code.words if self.code else 0

    @property
    def fec_cycles(self) -> int:
        """Bound the latency of encoder and decoder in one direction; 0 without a code."""
        if self.code is None:
            return 0
        # A decoder collects a codeword, takes as long for its equation, and looks at all of it before the first word goes;
        # the encoder waits for the words whose place the parity pushes back.
        codewords = 3 + self.code.parity_share
        return math.ceil(self.codeword_beats / self.blocks_per_cycle * codewords) + self.code.solve_cycles

    @property
    def blocks_per_cycle(self) -> Fraction:
        """Give the blocks per core clock cycle on each wavelength, at most 1: line rate / block bits / clock, rounded."""
        # A small denominator keeps the rhythm of the line short: the RTL counts it, and benches see all of its phases.
        exact = Fraction(self.wavelength_gbps) * 1000 / (self.block_bits_on_line * Fraction(self.core_clock_mhz))
        return exact if exact > 1 else exact.limit_denominator(128)

    @property
    def clock_headroom_ppm(self) -> float:
        """Bound by how much the far end's clock may be faster: beyond, its blocks come faster than one per cycle.

        Cycles without a block absorb the offset; a line of a block per cycle needs both ends on one reference clock.
        """
        return float(1 / self.blocks_per_cycle - 1) * 1e6

    @property
    def cycle_ps(self) -> float:
        """Give the period of the core clock."""
        return 1e6 / self.core_clock_mhz

    @property
    def switch_ports(self) -> int:
        """Count the ports of the chiplet's switch: one to the client and one to the line for each optical port."""
        return 2 * self.ports

    @property
    def slot_cycles(self) -> Fraction:
        """Give the cycles that a flit occupies on the line, on average."""
        return self.beats_per_flit / self.blocks_per_cycle

    @property
    def reach_cycles(self) -> int:
        """Give the delay of the longest fibre that the replay buffer is made for."""
        return math.ceil(self.reach_m * FIBRE_PS_PER_M / self.cycle_ps)

    @property
    def round_trip_flits(self) -> int:
        """Bound the slots from the sending of a flit over ``reach_m`` to the slot that can use its acknowledgement."""
        cycles = 2 * (self.reach_cycles + self.fec_cycles) + self.LOOP_CYCLES
        return math.ceil(cycles / self.slot_cycles) + self.LOOP_SLOTS

    @property
    def gbps_per_port(self) -> float:
        """Give the raw line rate of a port in each direction."""
        return self.wavelengths_per_port * self.wavelength_gbps

    @property
    def gbps(self) -> float:
        """Give the raw line rate of the chiplet in each direction."""
        return self.ports * self.gbps_per_port


def spec_hash(spec: ChipletSpec) -> str:
    """Hash the fields that the RTL is built from: equal for equal hardware, 16 hexadecimal digits."""
    # The hash names stored timing, so it must not depend on a field that is worked out, nor on the order of fields.
    assert all(f.init for f in fields(spec))
    built = {name: value for name, value in asdict(spec).items() if name not in spec.NOT_BUILT}
    return hashlib.sha256(json.dumps(built, sort_keys=True).encode()).hexdigest()[:16]
