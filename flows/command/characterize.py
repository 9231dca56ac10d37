"""``lightfabric characterize`` prints the timing that the models run on, measured on the RTL."""

from collections.abc import Iterator
from dataclasses import fields
from fractions import Fraction
from typing import Any

from lightfabric.flows.format.spec_file import load_spec
from lightfabric.flows.option import AsJson, SpecFile
from lightfabric.flows.report import print_json, print_table, say
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import Timing


def main(path: SpecFile = None, as_json: AsJson = False) -> None:
    """Measure the timing, or read what was measured before, and print it."""
    spec = load_spec(path)
    from lightfabric.flows.format.timing_store import measured_timing

    timing = measured_timing(spec.chiplet, lambda block: say(f"simulating the RTL of the {block}"))
    if as_json:
        print_json({"spec": spec.name} | timing.to_dict())
    else:
        _print_table(spec.name, spec.chiplet, timing)


def _print_table(name: str, chiplet: ChipletSpec, timing: Timing) -> None:
    from rich.text import Text

    title = Text(f"{name}: measured at {chiplet.core_clock_mhz:g} MHz by {timing.simulator}")
    sections = (_rows(block, getattr(timing, block), chiplet.cycle_ps) for block in ("link", "switch", "client"))
    print_table(("block", "value", "cycles", "ns"), sections, title, ("cycles", "ns"))
    print(f"spec {timing.spec_hash}, RTL {timing.rtl_hash}")


def _rows(block: str, part: Any, cycle_ps: float) -> Iterator[tuple[str, ...]]:
    for entry in fields(part):
        value: int | Fraction | None = getattr(part, entry.name)
        # A number of a slot is no duration.
        nanoseconds = "" if value is None or "slot" in entry.name else f"{float(value) * cycle_ps / 1000:.3f}"
        yield block, entry.name, "never" if value is None else str(value), nanoseconds
