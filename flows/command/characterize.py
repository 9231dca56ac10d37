"""``lightfabric characterize``: the timing that the models run on, measured on the RTL."""

from dataclasses import fields
from fractions import Fraction

from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.option import AsJson, SpecFile
from lightfabric.flows.report import print_json, say
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import Timing


def main(path: SpecFile = None, as_json: AsJson = False) -> None:
    """The command: measures, or reads what was measured before, and prints it."""
    spec = load_spec(path)
    from lightfabric.flows.format.timing_store import measured_timing

    timing = measured_timing(spec.chiplet, lambda block: say(f"simulating the RTL of the {block}"))
    if as_json:
        print_json({"spec": spec.name} | timing.to_dict())
    else:
        _print_table(spec.name, spec.chiplet, timing)


def _print_table(name: str, chiplet: ChipletSpec, timing: Timing) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{name}: measured at {chiplet.core_clock_mhz:g} MHz by {timing.simulator}"))
    for header in ("block", "value", "cycles", "ns"):
        table.add_column(header, justify="right" if header in ("cycles", "ns") else "left")
    for block, part in (("link", timing.link), ("switch", timing.switch), ("client", timing.client)):
        for entry in fields(part):
            value: int | Fraction | None = getattr(part, entry.name)
            nanoseconds = "" if value is None or "slot" in entry.name else f"{float(value) * chiplet.cycle_ps / 1000:.3f}"
            table.add_row(block, entry.name, "never" if value is None else str(value), nanoseconds)
        table.add_section()
    Console().print(table)
    print(f"spec {timing.spec_hash}, RTL {timing.rtl_hash}")
