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
    """Make the Verilog of a component, without anything that depends on where it was made.

    Amaranth's own conversion lets Yosys cut the masks of parities into slices. With whole masks the text is less than half
    as long, and programs that Verilator makes of it run three times as fast.
    """
    from amaranth._toolchain.yosys import find_yosys
    from amaranth.back import rtlil

    text = rtlil.convert(component, name=name, emit_src=False)
    script = f"read_rtlil <<rtlil\n{text}\nrtlil\nproc -nomux -norom -noopt\nmemory_collect\nwrite_verilog -norename -noattr"
    return find_yosys(lambda version: version >= (0, 40)).run(["-q", "-"], script, ignore_warnings=True)
