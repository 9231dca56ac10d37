"""The registers of a link as one table: hardware, documents and drivers are made from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

WORD_BITS = 32
WORD_BYTES = WORD_BITS // 8
BUS_ADDRESS_BITS = 12
"""Each link has a page of 4 KiB: no two links need to share one."""
MAX_VIRTUAL_CHANNELS = 8
MAX_LANES = 32
LANES_PER_WORD = 4
MAX_CORRECTED = 15
"""So many symbols of a codeword are corrected at most, by KP4."""

Kind = Literal["constant", "status", "count", "high", "control", "enable", "pulse", "event"]


@dataclass(frozen=True)
class Field:
    """Describes bits of a register, which do by their kind what follows.

    * ``constant`` reads as ``reset``.
    * ``status`` reads as the input of the same name; its reset is whatever the input shows.
    * ``count`` reads as the sum of the input of the same name, ``step_bits`` wide, over the cycles since
      ``clear_counters``, modulo 2 ** 32; one that ``is_long`` as the low half of a sum modulo 2 ** 64.
      While ``freeze`` is 1 it reads as it was when ``freeze`` became 1, and counting goes on. A write of both bits shows all
      that was counted until then and begins anew: no event is missed between two such intervals, and none is counted in
      both.
    * ``high`` reads as the high half that the long count read last had then, so that both halves are of one cycle.
    * ``control`` reads as written and is the output of the same name.
    * ``enable`` reads as written: while it is 1, the event of the same name makes the interrupt.
    * ``pulse`` reads as 0; a written 1 makes the output of the same name 1 for one cycle.
    * ``event`` reads as 1 from the cycle after the input of the same name was 1, until a 1 is written; an input of 1 in the
      cycle of the write wins. Every bit is an event of its own.

    ``values`` are the names of the values that have one, lowest first.
    """

    name: str
    bits: int
    kind: Kind
    description: str
    reset: int = 0
    values: tuple[tuple[int, str], ...] = ()
    step_bits: int = 1
    is_long: bool = False

    def __post_init__(self):
        _require(self, "name", self.name.isidentifier() and self.name == self.name.lower(), "a lower-case identifier")
        _require(self, "kind", self.kind in get_args(Kind), f"one of {', '.join(get_args(Kind))}")
        _require(self, "bits", 1 <= self.bits <= WORD_BITS, f"from 1 to {WORD_BITS}")
        _require(self, "bits", self.kind not in ("count", "high") or self.bits == WORD_BITS, f"{WORD_BITS} in a {self.kind}")
        _require(self, "bits", self.kind not in ("pulse", "enable") or self.bits == 1, f"1 in a field of kind {self.kind}")
        # A reset of what is not stored would be a promise about an input, or about a counter that starts at 0.
        stored = self.kind in ("constant", "control", "enable")
        _require(self, "reset", 0 <= self.reset < 1 << self.bits, f"from 0 to {(1 << self.bits) - 1}")
        _require(self, "reset", stored or self.reset == 0, f"0 in a field of kind {self.kind}")
        _require(self, "step_bits", 1 <= self.step_bits <= WORD_BITS, f"from 1 to {WORD_BITS}")
        _require(self, "is_long", self.kind == "count" or not self.is_long, f"False in a field of kind {self.kind}")
        numbers = [number for number, _ in self.values]
        fits = all(0 <= number < 1 << self.bits for number in numbers)
        _require(self, "values", fits and numbers == sorted(set(numbers)), f"rising numbers of {self.bits} bits")

    @property
    def mask(self) -> int:
        """Masks the bits of the field, shifted to bit 0."""
        return (1 << self.bits) - 1

    @property
    def input_bits(self) -> int:
        """Gives the width of the input of the same name, 0 if there is none."""
        return {"status": self.bits, "event": self.bits, "count": self.step_bits}.get(self.kind, 0)

    @property
    def output_bits(self) -> int:
        """Gives the width of the output of the same name, 0 if there is none."""
        return self.bits if self.kind in ("control", "pulse") else 0


@dataclass(frozen=True)
class Register:
    """Packs fields into a word of 32 bits, from bit 0 on in their order; bits of no field read as 0."""

    name: str
    fields: tuple[Field, ...]
    description: str

    def __post_init__(self):
        _require(self, "name", self.name.isidentifier() and self.name == self.name.lower(), "a lower-case identifier")
        names = [field.name for field in self.fields]
        _require(self, "fields", 0 < len(names) == len(set(names)), "at least one, each with a name of its own")
        bits = sum(field.bits for field in self.fields)
        if bits > WORD_BITS:
            raise ValueError(f"Register.fields must have at most {WORD_BITS} bits in all, not {bits}: {self.name}")

    @property
    def placed(self) -> Iterator[tuple[int, Field]]:
        """Gives the fields, each with the number of its lowest bit."""
        lowest = 0
        for field in self.fields:
            yield lowest, field
            lowest += field.bits

    @property
    def reset(self) -> int:
        """Gives the word after reset, with 0 for the inputs."""
        return sum(field.reset << lowest for lowest, field in self.placed)


Table = tuple[Register, ...]
"""A table gives register n the offset 4 n."""


def verify(table: Table) -> None:
    """Raises ValueError unless the registers of the table can be one block."""
    fields = [field for register in table for field in register.fields]
    names = {"register": [register.name for register in table]}
    names["input"] = [field.name for field in fields if field.input_bits]
    names["output"] = [field.name for field in fields if field.output_bits]
    names["enable"] = [field.name for field in fields if field.kind == "enable"]
    for what, given in names.items():
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            raise ValueError(f"Table must have one {what} of each name, not two of {', '.join(twice)}")
    size_bytes = WORD_BYTES * len(table)
    if not 0 < size_bytes <= 1 << BUS_ADDRESS_BITS:
        raise ValueError(f"Table must have from 1 to {(1 << BUS_ADDRESS_BITS) // WORD_BYTES} registers, not {len(table)}")
    highs = [field.name for field in fields if field.kind == "high"]
    if len(highs) > 1:
        raise ValueError(f"Table must have at most one field of kind high, not {', '.join(highs)}")
    if not highs and (long := [field.name for field in fields if field.is_long]):
        raise ValueError(f"Table must have a field of kind high for {', '.join(long)}")
    # An interrupt of several bits would need an enable for each of them.
    events = {field.name for field in fields if field.kind == "event" and field.bits == 1}
    if unknown := sorted(set(names["enable"]) - events):
        raise ValueError(f"Table must have an event of one bit for each enable, not none for {', '.join(unknown)}")
    # Counts read as the block's own controls say, so these must be there.
    wanted = {"freeze": "control", "clear_counters": "pulse"} if any(field.kind == "count" for field in fields) else {}
    for name, kind in wanted.items():
        if (name, kind, 1) not in {(field.name, field.kind, field.bits) for field in fields}:
            raise ValueError(f"Table must have the {kind} {name} of one bit, because it has counts")


def _require(owner, name: str, holds: bool, must_be: str) -> None:
    """Raises ValueError, with what the field must be and is, unless it holds."""
    if not holds:
        raise ValueError(f"{type(owner).__name__}.{name} must be {must_be}, not {getattr(owner, name)!r}: {owner.name}")


def _alone(name: str, kind: Kind, description: str, *, bits: int = WORD_BITS, **options: int) -> Register:
    """Describes a register that has a field of the same name and nothing else."""
    return Register(name, (Field(name, bits, kind, description, **options),), description)


_HIGH = _alone("count_high", "high", "The high half of the long counter that was read last, as it was then.")


def _named(*names: str) -> tuple[tuple[int, str], ...]:
    """Numbers the names of values from 0 on."""
    return tuple(enumerate(names))


EVENTS = (
    ("went_up", "The link became active."),
    ("went_down", "The link left the active state."),
    ("retrained", "A retraining came to its end."),
    ("replayed", "A replay began."),
    ("crc_failed", "A flit with a wrong CRC was dropped."),
    ("credit_failed", "A credit leaked, or a flit came without a credit."),
    ("lanes_reduced", "The link goes on with fewer lanes."),
    ("peer_was_reset", "The other end was reset, or the link was down for so long that its packets were cut."),
)

BER_REGISTERS: Table = (
    Register(
        "ber_control",
        (
            Field("ber_on", 1, "control", "Patterns take the place of the link's blocks, and the link is held in reset."),
            Field(
                "ber_pattern", 3, "control", "What is sent and expected.",
                values=_named("prbs7", "prbs9", "prbs11", "prbs15", "prbs20", "prbs23", "prbs29", "prbs31"),
            ),
            Field("ber_invert", 1, "control", "Invert the pattern, as O.150 does with 15, 23, 29 and 31."),
            Field("ber_reverse", 1, "control", "The first bit of the pattern is the last one of a block, and so on."),
            Field("ber_near_loop", 1, "control", "This end receives what it sends."),
            Field("ber_far_loop", 1, "control", "This end sends what it receives."),
            Field("ber_clear", 1, "pulse", "All lanes count from 0 again; the snapshot stays."),
            Field("ber_snapshot", 1, "pulse", "Take the counts of all lanes in one cycle; with ber_clear, without a gap."),
            Field("ber_error_once", 1, "pulse", "Invert a bit of the next block on the lanes of ber_error_lanes."),
            Field("ber_present", 1, "status", "The link has a tester; without one these registers do nothing."),
        ),
        "The bit error tester.",
    ),
    _alone("ber_error_lanes", "control", "A bit per lane: it gets the errors that are made on purpose."),
    _alone("ber_error_blocks", "control", "A bit is inverted in one of so many blocks; 0 for none."),
    _alone("ber_locked", "status", "A bit per lane: the pattern is found, and errors and blocks are counted."),
    _alone("ber_lock_lost", "event", "A bit per lane: one bit in eight was wrong, and the pattern is searched anew."),
    _alone("ber_lane", "control", "The lane of which the next three tell.", bits=5),
    _alone("ber_errors", "status", "Wrong bits of the snapshot; the highest value stands for more."),
    _alone("ber_blocks", "status", "Blocks of the snapshot, the low bits."),
    _alone("ber_blocks_high", "status", "Blocks of the snapshot, the high bits.", bits=16),
)  # fmt: skip
"""The bit error tester has these registers."""

# New registers go to the end: software knows the others by their offsets.
REGISTERS: Table = (
    _alone("id", "constant", "'LF' in the high half, the version of this map in the low half.", reset=0x4C46_0001),
    Register(
        "status",
        (
            Field(
                "state", 4, "status", "Where the training is.",
                values=_named("reset", "lock", "align", "exchange", "confirm", "start", "active", "down"),
            ),
            Field("up", 1, "status", "The link carries packets."),
            Field(
                "lanes", 2, "status", "Which way there are fewer lanes than wavelengths.",
                values=_named("none", "receiving", "sending", "both"),
            ),
            Field("config_mismatch", 1, "status", "The two ends were built or set up differently and cannot talk."),
            Field("peer_reset", 1, "status", "The other end is in reset or begins anew."),
        ),
        "The link now.",
    ),
    _alone("lanes_locked", "status", "A bit per lane: its blocks are found."),
    _alone("skew_overflow", "event", "A bit per lane: the skew was more than the deskew buffer holds."),
    Register(
        "control",
        (
            Field("enable", 1, "control", "The link trains and stays up; at 0 it is held in reset.", reset=1),
            Field("retrain", 1, "pulse", "Train again."),
            Field("freeze", 1, "control", "The counters read as they were when this bit became 1; counting goes on."),
            Field("clear_counters", 1, "pulse", "The counters begin again at 0; frozen values stay."),
        ),
        "What the link is to do.",
    ),
    Register(
        "interrupt_status",
        tuple(Field(name, 1, "event", description) for name, description in EVENTS),
        "What has happened since a 1 was last written.",
    ),
    Register(
        "interrupt_enable",
        tuple(Field(name, 1, "enable", f"Interrupt while interrupt_status.{name} is 1.") for name, _ in EVENTS),
        "Which events make the interrupt.",
    ),
    _alone("flits_sent", "count", "Data flits sent for the first time.", is_long=True),
    _alone("flits_received", "count", "Data flits accepted in order.", is_long=True),
    _alone("replays", "count", "Replays that this end began."),
    _alone("replay_timeouts", "count", "Replays that began because no acknowledgement came in time."),
    _alone("crc_errors", "count", "Flits dropped because their CRC was wrong."),
    _alone("corrected_symbols", "count", "Symbols that the forward error correction set right.", step_bits=8, is_long=True),
    _alone("retrainings", "count", "Trainings after the first one."),
    _alone("credit_leaks", "count", "Credits found missing by the conservation check.", step_bits=8),
    _alone("credit_violations", "count", "Flits that came without a credit.", step_bits=4),
    _alone("lock_cycles", "status", "Cycles from enable to lock of all lanes, in the last training."),
    _alone("align_cycles", "status", "Cycles from lock to aligned lanes, in the last training."),
    _alone("exchange_cycles", "status", "Cycles from aligned lanes to agreed parameters, in the last training."),
    _alone("recovery_cycles", "status", "Cycles from the loss of the link to active, in the last recovery."),
    *(
        _alone(f"credits_{v}", "status", f"Flits that may be sent now in virtual channel {v}; 0 if there is none.", bits=16)
        for v in range(MAX_VIRTUAL_CHANNELS)
    ),
    *BER_REGISTERS,
    _alone("lanes_in", "status", "A bit per lane of the other end: it carries packets to this end."),
    _alone("lanes_out", "status", "A bit per lane: it carries packets to the other end."),
    _alone("lanes_good", "status", "A bit per lane: it is locked, and its training sets came well."),
    _alone("lanes_inverted", "status", "A bit per lane: it came inverted, and is inverted back."),
    _alone("lanes_doubled", "status", "A bit per lane: it has the number of another lane, and is not used."),
    _alone("lane_errors", "event", "A bit per lane: the parity of its blocks was wrong."),
    *(
        Register(
            f"lane_order_{first // LANES_PER_WORD}",
            tuple(
                Field(f"lane_{lane}", 8, "status", f"What lane {lane} receives is this lane of the other end.")
                for lane in range(first, first + LANES_PER_WORD)
            ),
            f"Where the lanes from {first} on come from.",
        )
        for first in range(0, MAX_LANES, LANES_PER_WORD)
    ),
    _alone("frames_checked", "count", "Frames whose CRC was checked: crc_errors of them were wrong.", is_long=True),
    _alone("rx_phase", "control", "Where the SerDes samples a bit: signed, in 1/256 of a bit from its middle.", bits=8),
    _alone("uncorrectable_codewords", "count", "Codewords that the forward error correction gave up.", step_bits=2),
    *(
        _alone(f"codewords_{n}", "count", f"Codewords by how many symbols the error correction changed: {n}.", step_bits=2)
        for n in range(MAX_CORRECTED + 1)
    ),
    _alone("packets_refused", "count", "Packets of the client for an unknown channel or destination.", step_bits=4),
    _alone("packets_cut", "count", "Packets whose end the client did not send in time.", step_bits=4),
    _HIGH,
)  # fmt: skip
"""Every link has these registers, whatever its spec."""


def chiplet_registers(ports: int) -> Table:
    """Lists the registers that a chiplet has beside those of its ports; each port has a client and a line."""
    counts = (
        (f"flits_to_{side}_{port}", f"Flits that the switch gave to {side} {port}.")
        for side in SIDES
        for port in range(ports)
    )
    return (
        _alone("id", "constant", "'LC' in the high half, the version of this map in the low half.", reset=0x4C43_0001),
        _alone("ports", "constant", "So many pages of registers of links come before this one.", bits=6, reset=ports),
        Register(
            "control",
            (
                Field("freeze", 1, "control", "The counters read as they were when this bit became 1; counting goes on."),
                Field("clear_counters", 1, "pulse", "The counters begin again at 0; frozen values stay."),
            ),
            "What the counters are to do.",
        ),
        _alone("interrupt_ports", "status", "A bit per port: its registers make the interrupt.", bits=ports),
        _HIGH,
        *(_alone(name, "count", description, is_long=True) for name, description in counts),
    )


SIDES = ("client", "line")
"""The switch of a chiplet has first the ports of the clients, then those of the lines."""
