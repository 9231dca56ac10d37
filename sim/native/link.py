"""The native bench of the link consists of its C++, the header that fits it to one spec, and what a run is told.

Two ends of the verilated link, a fibre with faults in each direction and a client at each end, all in one program that
prints one JSON object. The clients send random packets of up to 64 KiB and check what arrives.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.resources import files

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.register_map import MAX_CORRECTED, REGISTERS, WORD_BYTES

TOP = "link"
"""Name of the Verilog module."""
SHAPE = "native_shape.h"
_SOURCES = ("native.cpp", *(f"native_{part}.h" for part in ("beat", "channel", "client", "fibre", "light", "port", "reset")))

REPORTED = (
    *("lock_cycles", "align_cycles", "retrainings", "frames_checked", "crc_errors"),
    *("corrected_symbols", "uncorrectable_codewords", *(f"codewords_{n}" for n in range(MAX_CORRECTED + 1))),
)
"""Registers that a run reads at its end, of those that there are: its result has the values of end a and of
end b by the name of each after ``register_``."""


@dataclass(frozen=True)
class Run:
    """Describes what one run does; rates are probabilities.

    ``packets`` go from end a to end b, ``packets_back`` the other way. On the line from a, bits are inverted at the rate
    ``ber``, on the line from b at ``ber_back``; on both, ``bursts`` begin per beat and replace all bits of one to two
    flits' beats, ``drops`` and ``duplicates`` are per flit of a line without a code, and a beat takes ``delay_cycles``.
    ``stalls`` is the share of cycles in which a source or a sink pauses, in runs of all lengths.

    ``channel`` and ``channel_back`` are the ``text`` of a ``sim.channel.fault.Channel`` for each line, whole if empty.

    ``resets`` is the rate per cycle at which each end is reset, its link, its client or both, or loses its power for longer,
    until seven eighths of the packets have begun. Then packets begin with their number, and those that a reset cut may be
    lost or end with an error; all that were begun long enough after a reset must arrive.

    ``darks`` and ``kills`` are the rates per cycle at which the light of each fibre, or of one of its wavelengths, spare
    ones too, goes for some time, until as late; for the first ``noise_cycles`` there is none. No packet is lost by that. The
    clock of end b is faster than that of end a by ``ppm``.

    With ``window_flits`` the run ends when so many flits' payload has arrived at b after ``warm_up_flits``; sources are
    ``saturated`` if they send long packets of full flits, all on virtual channel 0. Otherwise it ends when all packets
    have come and nothing after them for ``settle_cycles``, or when nothing came for ``patience_cycles``.
    """

    packets: int
    packets_back: int
    seed: int = 1
    ber: float = 0.0
    ber_back: float = 0.0
    bursts: float = 0.0
    drops: float = 0.0
    duplicates: float = 0.0
    stalls: float = 0.0
    delay_cycles: int = 3
    darks: float = 0.0
    kills: float = 0.0
    noise_cycles: int = 0
    ppm: float = 0.0
    channel: str = ""
    channel_back: str = ""
    saturated: bool = False
    resets: float = 0.0
    warm_up_flits: int = 0
    window_flits: int = 0
    settle_cycles: int = 20_000
    patience_cycles: int = 200_000
    bound_cycles: int = 1 << 40

    def arguments(self) -> list[str]:
        """Return the command line of the program."""
        # Adding 0 turns True into 1, which is what the C++ reads.
        values = {name: value if isinstance(value, str) else f"{value + 0}" for name, value in asdict(self).items()}
        return [text for pair in values.items() for text in pair]


def sources() -> dict[str, str]:
    """Return the C++ that is the same for all specs, by file name; the first is the program."""
    return texts(_SOURCES)


def texts(names: Iterable[str], within: str = "native") -> dict[str, str]:
    """Return the text of files of a folder of ``sim``, this one unless it is said, by their names."""
    folder = files(f"lightfabric.sim.{within}")
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}


def header(numbers: dict[str, int], *lines: str) -> str:
    """Return a C++ header that has the numbers as constants and then the lines."""
    constants = (f"inline constexpr std::size_t {name} = {value + 0};" for name, value in numbers.items())
    return "\n".join(["#pragma once", "#include <cstddef>", "#include <cstdint>", *constants, *lines, ""])


def shape(spec: ChipletSpec, link, verilog: str) -> str:
    """Return the header for ``link``, a component with the members of ``rtl.top.AxiLink``, and its ``verilog``.

    All clocks are driven as one, and so are all resets.
    """
    numbers = {
        "LANES": spec.lanes_per_port,
        "BLOCK_BITS": spec.block_bits_on_line,
        "BEATS_PER_FLIT": spec.beats_per_flit,
        "CODED": spec.code is not None,
        "PAYLOAD_BYTES": spec.payload_bytes,
        "CLIENT_BYTES": len(link.s_axis_tkeep),
        "CHANNELS": spec.virtual_channels,
        "USER_BITS": len(link.s_axis_tuser),
        "ADDRESSES": 1 << len(link.s_axis_tdest),
        **status_place(),
    }
    address = f"inline constexpr std::uint32_t ADDRESS = {link.address};"
    offsets = {register.name: WORD_BYTES * number for number, register in enumerate(REGISTERS)}
    reported = [f'{{"{name}", {offsets[name]}}}' for name in REPORTED if name in offsets]
    registers = (
        f'#include "V{TOP}.h"',
        "#include <array>",
        "struct Reported { const char* name; std::uint32_t offset; };",
        f"inline constexpr std::array<Reported, {len(reported)}> REPORTED{{{{{', '.join(reported)}}}}};",
    )
    setters = (_setter(name, _inputs(verilog, kind)) for name, kind in (("set_clock", "clk"), ("set_reset", "rst")))
    return header(numbers, address, *registers, *setters)


def status_place() -> dict[str, int]:
    """Return where the bus has the register ``status``, and where that says whether the link is up and on fewer lanes."""
    number = next(number for number, register in enumerate(REGISTERS) if register.name == "status")
    lowest = {field.name: lowest for lowest, field in REGISTERS[number].placed}
    return {"STATUS_ADDRESS": number * WORD_BYTES, "STATUS_UP": lowest["up"], "STATUS_LANES": lowest["lanes"]}


def _inputs(verilog: str, kind: str) -> list[str]:
    """Return the ports of the top module that are, or end in an underscore and, ``kind``."""
    ports = re.search(rf"^module {TOP}\s*\((.*?)\);", verilog, re.MULTILINE | re.DOTALL)
    assert ports is not None, "the Verilog has no such module"
    return re.findall(rf"\b((?:\w+_)?{kind})\b", ports[1])


def _setter(name: str, ports: list[str]) -> str:
    body = " ".join(f"top.{port} = level;" for port in ports)
    return f"template <class Top> void {name}(Top& top, bool level) {{ {body} }}"
