"""``lightfabric verilog``: a block as Verilog."""

from pathlib import Path
from typing import Annotated

import typer

from lightfabric.flows.option import Block, LoadedSpec
from lightfabric.flows.report import InputError, say, written_whole
from lightfabric.model.spec import ChipletSpec

BLOCKS = ("link", "switch", "chiplet")

WAIVERS = {
    "DECLFILENAME": "one file holds the block and all that it is made of",
    "UNUSEDSIGNAL": "the generator names every field of every interface, also where only the whole is used",
    "PROCASSINIT": "registers have their reset value from power-up on, as FPGAs and Amaranth do",
    "WIDTHEXPAND": "the generator writes constants as short as they can be; Verilog extends them with zeros",
    "WIDTHTRUNC": "the generator writes !value for value == 0, and shifts in the width of what is shifted",
    "CASEINCOMPLETE": "the generator gives every case its default value before the case",
}
"""Rules of ``verilator -Wall`` that the Verilog of the blocks may break, each with its reason."""


def require_block(block: str) -> None:
    """InputError if there is no such block."""
    if block not in BLOCKS:
        raise InputError(f"BLOCK must be one of {', '.join(BLOCKS)}, not {block!r}")


def text(block: str, spec: ChipletSpec) -> str:
    """Verilog 2005 of a block, the same for the same spec and versions; the top module has the name of the block.

    Icarus must read it as such (``-g2005``): in SystemVerilog mode it never starts some of the ``always @*``.
    """
    from lightfabric.rtl.top import tops

    return convert(tops[block](spec), block)


def convert(component, name: str) -> str:
    """Verilog of a component, without anything that depends on where it was made."""
    from amaranth.back import verilog

    return verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)


def main(
    block: Block,
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the Verilog.")],
    spec: LoadedSpec = None,
) -> None:
    """The command: writes the file, whole or not at all."""
    require_block(block)
    with written_whole(output) as beside:
        beside.write_text(text(block, spec.chiplet), encoding="utf-8")
    say(f"{output}: Verilog of the {block} of {spec.name}")
