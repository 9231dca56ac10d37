"""Verilog of any component, and what a linter may say of it."""

WAIVERS = {
    "DECLFILENAME": "one file holds the block and all that it is made of",
    "UNUSEDSIGNAL": "the generator names every field of every interface, also where only the whole is used",
    "PROCASSINIT": "registers have their reset value from power-up on, as FPGAs and Amaranth do",
    "WIDTHEXPAND": "the generator writes constants as short as they can be; Verilog extends them with zeros",
    "WIDTHTRUNC": "the generator writes !value for value == 0, and shifts in the width of what is shifted",
    "CASEINCOMPLETE": "the generator gives every case its default value before the case",
}
"""Rules of ``verilator -Wall`` that the Verilog of the blocks may break, each with its reason."""


def convert(component, name: str) -> str:
    """Verilog of a component, without anything that depends on where it was made."""
    from amaranth.back import verilog

    return verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)


def convert_for_verilator(component, name: str) -> str:
    """Verilog of a component of which Verilator makes the fastest program, and the soonest: masks stay whole.

    In :func:`convert` Yosys cuts each mask of a parity into slices, and Verilator makes a line of C++ of each of them.
    """
    from amaranth._toolchain.yosys import find_yosys
    from amaranth.back import rtlil

    text = rtlil.convert(component, name=name, emit_src=False)
    script = f"read_rtlil <<rtlil\n{text}\nrtlil\nproc -nomux -norom -noopt\nmemory_collect\nwrite_verilog -norename -noattr"
    return find_yosys(lambda version: version >= (0, 40)).run(["-q", "-"], script, ignore_warnings=True)
