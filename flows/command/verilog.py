"""``lightfabric verilog`` writes a block as one file of Verilog."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lightfabric.flows.option import LoadedSpec, count
from lightfabric.flows.report import require_between, require_one_of, say, written_whole
from lightfabric.flows.tool.verilog_text import convert
from lightfabric.model.spec import ChipletSpec

if TYPE_CHECKING:
    from lightfabric.rtl.circuit_controller import CircuitController

BLOCKS = ("link", "switch", "chiplet")
TUNER = "tuner"
"""Of the light beside the chiplet: it has no lines and clients, and no bench of packets."""
CIRCUIT = "circuit"
"""The controller of an optical circuit switch, which has ports of its own number, and no spec."""
CIRCUIT_PORTS = 16


def controller(ports: int) -> "CircuitController":
    """Make the controller of a switch of so many ports; InputError if there is none such."""
    from lightfabric.rtl import circuit_controller as rtl

    require_between("--ports", rtl.MIN_PORTS, rtl.MAX_PORTS, ports)
    return rtl.CircuitController(ports, rtl.LONGEST)


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
    block: Annotated[str, typer.Argument(help="link, switch, chiplet, tuner or circuit.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the Verilog.")],
    spec: LoadedSpec = None,
    ports: Annotated[int, count("Ports of the optical switch that the circuit controller sets.")] = CIRCUIT_PORTS,
) -> None:
    """Write the block to the file, whole or not at all."""
    require_one_of("BLOCK", (*BLOCKS, TUNER, CIRCUIT), block)
    with written_whole(output) as beside:
        written = convert(controller(ports), "circuit_controller") if block == CIRCUIT else text(block, spec.chiplet)
        beside.write_text(written, encoding="utf-8")
    say(f"{output}: Verilog of the {block} of {f'{ports} ports' if block == CIRCUIT else spec.name}")
