"""Two Verilog tops are joined by fibres in hardware: that is what cocotb simulates of a block with lines."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec

LINE_NAMES = ("tx", "rx")
DELAY_CYCLES = 3


class Pair(wiring.Component):
    """Joins ends ``a`` and ``b`` of the same block, tx of every line to rx of that line at the other end.

    A beat is on the fibre for ``DELAY_CYCLES``. On arrival at an end the bits of its ``flips`` are inverted and counted;
    ``flips`` has an effect in the cycles with a beat.

    Members
    -------
    a_*, b_* : all members of the block but its lines
    a_rx_flips, ... : In, bits to invert on arrival at an end, by the name of its rx
    a_rx_bit_errors, ... : Out(32), bits inverted
    """

    def __init__(self, spec: ChipletSpec, a: wiring.Component, b: wiring.Component):
        self.ends = {"a": a, "b": b}
        self.bits = spec.lanes_per_port * spec.block_bits_on_line
        self.lines = [name.removeprefix("rx").removesuffix("_valid") for name in a.signature.members if _is_rx_valid(name)]
        members = {
            f"{end}_{name}": wiring.Member(member.flow, member.shape)
            for end, block in self.ends.items()
            for name, member in block.signature.members.items()
            if not name.startswith(LINE_NAMES)
        }
        for end in self.ends:
            for line in self.lines:
                members[f"{end}_rx{line}_flips"] = In(self.bits)
                members[f"{end}_rx{line}_bit_errors"] = Out(32)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        for end, block in self.ends.items():
            m.submodules[end] = block
            for name, member in block.signature.members.items():
                if not name.startswith(LINE_NAMES):
                    inside, outside = getattr(block, name), getattr(self, f"{end}_{name}")
                    m.d.comb += inside.eq(outside) if member.flow is In else outside.eq(inside)
        for line in self.lines:
            self._add_fibre(m, "a", "b", line)
            self._add_fibre(m, "b", "a", line)
        return m

    def _add_fibre(self, m, from_, to, line):
        data, valid = getattr(self.ends[from_], f"tx{line}_data"), getattr(self.ends[from_], f"tx{line}_valid")
        # Each register stage of this chain is a cycle on the fibre.
        for stage in range(DELAY_CYCLES):
            later = Signal(self.bits, name=f"{to}_rx{line}_data_{stage}"), Signal(name=f"{to}_rx{line}_valid_{stage}")
            m.d.sync += [later[0].eq(data), later[1].eq(valid)]
            data, valid = later
        flips, errors = getattr(self, f"{to}_rx{line}_flips"), getattr(self, f"{to}_rx{line}_bit_errors")
        m.d.comb += getattr(self.ends[to], f"rx{line}_data").eq(data ^ flips)
        m.d.comb += getattr(self.ends[to], f"rx{line}_valid").eq(valid)
        with m.If(valid):
            m.d.sync += errors.eq(errors + sum(flips))


def _is_rx_valid(name: str) -> bool:
    return name.startswith("rx") and name.endswith("_valid")
