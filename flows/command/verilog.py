"""``lightfabric verilog`` writes a block as one file of Verilog."""

from pathlib import Path
from typing import Annotated

import typer

from lightfabric.flows.option import Block, LoadedSpec
from lightfabric.flows.report import require_one_of, say, written_whole
from lightfabric.flows.tool.verilog_text import convert
from lightfabric.model.spec import ChipletSpec

BLOCKS = ("link", "switch", "chiplet")
TUNER = "tuner"
"""Of the light beside the chiplet: it has no lines and clients, and no bench of packets."""


def text(block: str, spec: ChipletSpec) -> str:
    """Return the Verilog 2005 of a block, the same for the same spec and versions; the top module has the name of the block.

    Icarus must read it as such (``-g2005``): in SystemVerilog mode it never starts some of the ``always @*``.
    """
    from lightfabric.model.spec.tuner import tuner_for
    from lightfabric.rtl.top import tops
    from lightfabric.rtl.tuner import Tuner

    if block == TUNER:
        return convert(Tuner(tuner_for(spec.wavelengths_per_port)), block)
    return convert(tops[block](spec), block)


def main(
    block: Block,
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the Verilog.")],
    spec: LoadedSpec = None,
) -> None:
    """Write the block to the file, whole or not at all."""
    require_one_of("BLOCK", (*BLOCKS, TUNER), block)
    with written_whole(output) as beside:
        beside.write_text(text(block, spec.chiplet), encoding="utf-8")
    say(f"{output}: Verilog of the {block} of {spec.name}")
