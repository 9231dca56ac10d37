"""``lightfabric registers`` writes the register map of a link as SystemRDL, as a Markdown page and as a C header."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from lightfabric.flows.report import require_one_of, say, written_whole
from lightfabric.rtl.register_map import (
    BUS_ADDRESS_BITS,
    REGISTERS,
    WORD_BYTES,
    Field,
    Kind,
    Register,
    Table,
    chiplet_registers,
)

# These words are names only after a backslash [SystemRDL 2.0, 4.4].
SYSTEMRDL_KEYWORDS = {
    "abstract", "accesstype", "addressingtype", "addrmap", "alias", "all", "alternate", "bit", "boolean",
    "bothedge", "byte", "compact", "component", "componentwidth", "constraint", "default", "encode", "enum",
    "external", "false", "field", "fullalign", "hw", "inside", "int", "internal", "level", "longint", "mem", "na",
    "negedge", "nonsticky", "number", "onreadtype", "onwritetype", "posedge", "precedencetype", "property", "r",
    "rclr", "real", "ref", "reg", "regalign", "regfile", "rset", "ruser", "rw", "rw1", "shortint", "shortreal",
    "signal", "signed", "string", "struct", "sw", "this", "true", "type", "unsigned", "w", "w1", "wclr", "with",
    "within", "woclr", "woset", "wot", "wr", "wset", "wuser", "wzc", "wzs", "wzt",
}  # fmt: skip

# SystemRDL can say this much of each kind; that a count can be frozen stands in its description alone.
_SYSTEMRDL: dict[Kind, str] = {
    "constant": "sw = r; hw = na;",
    "status": "sw = r; hw = w;",
    "count": "sw = r; hw = r; counter; hwclr;",
    "high": "sw = r; hw = w;",
    "control": "sw = rw; hw = r;",
    "enable": "sw = rw; hw = r;",
    "pulse": "sw = w; hw = r; singlepulse;",
    "event": "sw = rw; hw = rw; onwrite = woclr; precedence = hw;",
}

_ACCESS: dict[Kind, str] = {
    "constant": "read",
    "status": "read",
    "count": "read, cleared by `control.clear_counters`, frozen by `control.freeze`",
    "high": "read",
    "control": "read and write",
    "enable": "read and write",
    "pulse": "write 1 to act, reads 0",
    "event": "read, write 1 to clear",
}

_PAGE = """\
# Registers of a link

Written by `lightfabric registers --format markdown` from the table in `rtl/register_map.py`; a test compares the two.

An AXI4-Lite slave of {size_bytes} bytes with registers of 32 bits. An address past the last one is answered with SLVERR,
reads as 0 and changes nothing. Bytes are written by their strobes. A write of what can only be read changes nothing; bits
that are not listed read as 0. Every access is answered: a read 3 cycles after its address, a write 2 cycles after the later
of its address and its data.

* A **counter** adds up modulo 2^32: the difference of two readings is right if fewer than 2^32 events lie between them.
  {long} add up modulo 2^64: the register is the low half, and a read of
  it keeps the high half of the same cycle in `count_high`, until another one of these is read.
  While `control.freeze` is 1 all counters read as they were in one and the same cycle, and go on counting. A single write
  that raises `freeze` and sets `clear_counters` shows the sums until then and begins new ones: no event is missed, none is
  counted twice.
* An **event** stays 1 until a 1 is written to it. An event that comes in the cycle of the write is kept.
* The **interrupt**, the output `irq`, is 1 while a bit is 1 both in `interrupt_status` and in `interrupt_enable`.
* **Reset** values of `status` fields are not given: they show the link as it is.
"""

_CHIPLET = """\
**In a chiplet** one AXI4-Lite slave has a page of {page_bytes} bytes with these registers for each port: page p has those of
link p and client p. After the last port comes one page of the chiplet, here of two ports; an address beyond it is answered
with DECERR and reads as 0. Accesses take 4 cycles longer. The interrupt is that of any port.
"""
_CHIPLET_PORTS = 2


def systemrdl(table: Table = REGISTERS) -> str:
    """Return the map in SystemRDL 2.0 [Accellera]: one ``addrmap`` named ``lightfabric_link``."""
    enables = [(register, field) for register in table for field in register.fields if field.kind == "enable"]
    events = {field.name: register for register in table for field in register.fields if field.kind == "event"}
    lines = [
        "addrmap lightfabric_link {",
        '    name = "Registers of a link";',
        f"    default regwidth = {8 * WORD_BYTES};",
        f"    default accesswidth = {8 * WORD_BYTES};",
    ]
    for number, register in enumerate(table):
        lines += ["", *_rdl_register(register, WORD_BYTES * number, {field.name for _, field in enables})]
    if enables:
        lines.append("")
    for register, field in enables:
        name = _rdl_name(field.name)
        lines.append(f"    {_rdl_name(events[field.name].name)}.{name}->enable = {_rdl_name(register.name)}.{name};")
    return "\n".join([*lines, "};", ""])


def _rdl_register(register: Register, offset: int, enabled: set[str]) -> Iterator[str]:
    yield "    reg {"
    yield f"        desc = {_quoted(register.description)};"
    for lowest, field in register.placed:
        if field.values:
            yield f"        enum {field.name}_values {{"
            yield from (f"            {_rdl_name(name)} = {field.bits}'d{number};" for number, name in field.values)
            yield "        };"
        yield "        field {"
        yield f"            desc = {_quoted(field.description)};"
        yield f"            {' '.join(_rdl_properties(field, field.name in enabled))}"
        # A status shows the link as it is: it has no value that a reset gives it.
        reset = "" if field.kind == "status" else f" = {field.bits}'h{field.reset:x}"
        yield f"        }} {_rdl_name(field.name)}[{lowest + field.bits - 1}:{lowest}]{reset};"
    yield f"    }} {_rdl_name(register.name)} @ {offset:#x};"


def _rdl_properties(field: Field, makes_interrupt: bool) -> Iterator[str]:
    yield _SYSTEMRDL[field.kind]
    if field.kind == "count":
        yield f"incrwidth = {field.step_bits};"
    if field.kind == "event":
        yield "intr; stickybit;" if makes_interrupt else "stickybit;"
    if field.values:
        yield f"encode = {field.name}_values;"


def _rdl_name(name: str) -> str:
    return f"\\{name}" if name in SYSTEMRDL_KEYWORDS else name


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def markdown() -> str:
    """Return the map as a page: what holds for all registers, all of them at a glance, and the fields of each."""
    long = ", ".join(f"`{field.name}`" for register in REGISTERS for field in register.fields if field.is_long)
    lines = [_PAGE.format(size_bytes=1 << BUS_ADDRESS_BITS, long=long), "| offset | register | reset | what |", _rule(4)]
    for number, register in enumerate(REGISTERS):
        link = f"[`{register.name}`](#{register.name})"
        lines.append(f"| {_offset(number)} | {link} | {register.reset:#010x} | {register.description} |")
    lines += ["", _CHIPLET.format(page_bytes=1 << BUS_ADDRESS_BITS), "| offset | register | reset | what |", _rule(4)]
    for number, register in enumerate(chiplet_registers(_CHIPLET_PORTS)):
        lines.append(f"| {_offset(number)} | `{register.name}` | {register.reset:#010x} | {register.description} |")
    for number, register in enumerate(REGISTERS):
        lines += ["", f"## {register.name}", "", f"{_offset(number)}. {register.description}", ""]
        lines += ["| bits | field | access | reset | what |", _rule(5)]
        lines += [_row(lowest, field) for lowest, field in register.placed]
    return "\n".join([*lines, ""])


def _rule(columns: int) -> str:
    return "|---" * columns + "|"


def _offset(number: int) -> str:
    return f"`{WORD_BYTES * number:#04x}`"


def _row(lowest: int, field: Field) -> str:
    bits = f"{lowest + field.bits - 1}:{lowest}" if field.bits > 1 else f"{lowest}"
    reset = "" if field.kind == "status" else f"{field.reset:#x}"
    values = ", ".join(f"{number} {name}" for number, name in field.values)
    what = f"{field.description} Values: {values}." if values else field.description
    return f"| {bits} | `{field.name}` | {_ACCESS[field.kind]} | {reset} | {what} |"


def c_header() -> str:
    """Return a C header with offset and reset value of each register, shift and mask (in place) of each field, values."""
    lines = [
        "/* Registers of a link. Written by `lightfabric registers --format c`. */",
        "#ifndef LIGHTFABRIC_REGISTERS_H",
        "#define LIGHTFABRIC_REGISTERS_H",
    ]
    for number, register in enumerate(REGISTERS):
        name = f"LIGHTFABRIC_{register.name.upper()}"
        lines += ["", f"/* {register.description} */"]
        lines += [f"#define {name}_OFFSET 0x{WORD_BYTES * number:02x}u", f"#define {name}_RESET {_c_word(register.reset)}"]
        for lowest, field in register.placed:
            lines += _c_field(name, register, lowest, field)
    return "\n".join([*lines, "", "#endif", ""])


def _c_field(prefix: str, register: Register, lowest: int, field: Field) -> Iterator[str]:
    """Yield a field's lines; one that is the whole of a register and has its name is not named twice."""
    name = prefix if field.name == register.name else f"{prefix}_{field.name.upper()}"
    yield f"#define {name}_SHIFT {lowest}"
    yield f"#define {name}_MASK {_c_word(field.mask << lowest)}"
    if field.values:
        names = (f"    LIGHTFABRIC_{field.name.upper()}_{value.upper()} = {number}," for number, value in field.values)
        yield "\n".join([f"enum lightfabric_{field.name} {{", *names, "};"])


def _c_word(value: int) -> str:
    return f"0x{value:08x}u"


FORMATS: dict[str, Callable[[], str]] = {"systemrdl": systemrdl, "markdown": markdown, "c": c_header}
"""By the names that the command line gives them."""


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the map.")],
    language: Annotated[str, typer.Option("--format", help="systemrdl, markdown or c.")] = "markdown",
) -> None:
    """Write the map to the file, whole or not at all; ``language`` is one of ``FORMATS``."""
    require_one_of("--format", FORMATS, language)
    with written_whole(output) as beside:
        beside.write_text(FORMATS[language](), encoding="utf-8")
    say(f"{output}: {len(REGISTERS)} registers of a link as {language}")
