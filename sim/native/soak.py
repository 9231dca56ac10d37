"""The native soak resets, darkens and stalls chiplets, links and clients at random, and judges every packet that arrives.

Chiplets and the fibres between are one verilated ``Fabric``; clients, the master of each register bus and the random harm
are C++, in one program that prints one JSON object.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product

from amaranth import ClockSignal, Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import ADDRESS_BITS
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.client import user_bits
from lightfabric.rtl.register_map import BUS_ADDRESS_BITS, REGISTERS, WORD_BYTES
from lightfabric.rtl.top import AxiChiplet
from lightfabric.sim.native.cluster import accessor
from lightfabric.sim.native.link import header, status_place, texts

TOP = "soak"
"""Name of the Verilog module."""
SHAPE = "native_shape.h"
DELAY_CYCLES = 3
_SOURCES = ("soak.cpp", "native_port.h", "soak_client.h", "soak_bus.h")

End = tuple[int, int]
"""(chiplet, line)"""

_BUS = {
    **dict.fromkeys(("awvalid", "awaddr", "wvalid", "wdata", "wstrb", "bready", "arvalid", "araddr", "rready"), In),
    **dict.fromkeys(("awready", "wready", "bvalid", "bresp", "arready", "rvalid", "rdata", "rresp"), Out),
}
_SOURCE, _SINK = ("tvalid", "tready", "tdata", "tkeep", "tlast", "tdest", "tuser"), ("tid",)
_STREAMS = (*(("s", name) for name in _SOURCE), *(("m", name) for name in (*_SOURCE, *_SINK)))


@dataclass(frozen=True)
class Run:
    """Describes a run: so many ``rounds`` of harm, each with ``harms`` of a random kind, then of calm.

    In the calm all links must come up, every virtual channel of every client move within 1000 cycles of that, and every
    packet that was begun arrive whole. ``stalls`` is the share of cycles in which a source or sink pauses.
    """

    rounds: int
    harms: int = 40
    seed: int = 1
    stalls: float = 0.2

    def arguments(self) -> list[str]:
        """Return the command line of the program."""
        return [str(value) for value in asdict(self).values()]


class Fabric(wiring.Component):
    """Joins chiplets of addresses 0, ``spec.ports``, ... by fibres of ``DELAY_CYCLES`` registers, all on one clock.

    ``routes`` are those of each chiplet, ``fibres`` join two ends, each a chiplet and a line of it, in both directions.

    Members
    -------
    chiplet0_rst, ... : In(1)
    client0_rst, ... : In(1), by address
    s0_axis_t*, m0_axis_t*, ... : the streams of each client, by address
    bus0_*, ... : the register bus of each chiplet
    dark0, ... : In(1), nothing arrives on the fibre of that number, in both directions
    """

    def __init__(self, spec: ChipletSpec, routes: Sequence[tuple[int, ...]], fibres: Sequence[tuple[End, End]]):
        self.spec, self.fibres = spec, fibres
        self.chiplets = [AxiChiplet(spec, n * spec.ports, of_chiplet) for n, of_chiplet in enumerate(routes)]
        members = {f"chiplet{n}_rst": In(1) for n, _ in enumerate(self.chiplets)}
        members |= {f"dark{n}": In(1) for n, _ in enumerate(fibres)}
        given = self.chiplets[0].signature.members
        for n, name in product(range(len(self.chiplets)), _BUS):
            members[f"bus{n}_{name}"] = wiring.Member(_BUS[name], given[f"s_axil_{name}"].shape)
        for address in range(len(self.chiplets) * spec.ports):
            members[f"client{address}_rst"] = In(1)
            for side, name in _STREAMS:
                like = given[f"{side}0_axis_{name}"]
                members[f"{side}{address}_axis_{name}"] = wiring.Member(like.flow, like.shape)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        for n, chiplet in enumerate(self.chiplets):
            m.submodules[f"chiplet_{n}"] = ResetInserter(getattr(self, f"chiplet{n}_rst"))(chiplet)
            self._join(m, chiplet, f"bus{n}_", "s_axil_", _BUS)
            for port in range(self.spec.ports):
                address = n * self.spec.ports + port
                m.d.comb += [
                    getattr(chiplet, f"client{port}_clk").eq(ClockSignal()),
                    getattr(chiplet, f"client{port}_rst").eq(getattr(self, f"client{address}_rst")),
                ]
                for side in "sm":
                    names = [name for each, name in _STREAMS if each == side]
                    self._join(m, chiplet, f"{side}{address}_axis_", f"{side}{port}_axis_", names)
        for number, (here, there) in enumerate(self.fibres):
            for sender, receiver in ((here, there), (there, here)):
                self._add_fibre(m, number, sender, receiver)
        return m

    def _join(self, m, chiplet, outer: str, inner: str, names):
        for name in names:
            outside, inside = getattr(self, outer + name), getattr(chiplet, inner + name)
            flow = chiplet.signature.members[inner + name].flow
            m.d.comb += inside.eq(outside) if flow is In else outside.eq(inside)

    def _add_fibre(self, m, number, sender, receiver):
        (a, line_a), (b, line_b) = sender, receiver
        data, valid = getattr(self.chiplets[a], f"tx{line_a}_data"), getattr(self.chiplets[a], f"tx{line_a}_valid")
        for stage in range(DELAY_CYCLES):
            later = Signal.like(data, name=f"data_{a}_{line_a}_{stage}"), Signal(name=f"valid_{a}_{line_a}_{stage}")
            m.d.sync += [later[0].eq(data), later[1].eq(valid)]
            data, valid = later
        is_dark = getattr(self, f"dark{number}")
        m.d.comb += [
            getattr(self.chiplets[b], f"rx{line_b}_data").eq(data & (~is_dark).replicate(len(data))),
            getattr(self.chiplets[b], f"rx{line_b}_valid").eq(valid),
        ]


def files(top: Fabric, verilog: str) -> dict[str, str]:
    """Return the Verilog and the C++ of a fabric, by file name; the C++ that comes first is the program."""
    return {f"{TOP}.v": verilog, **texts(_SOURCES), SHAPE: shape(top)}


def shape(top: Fabric) -> str:
    """Return the header that fits the C++ to a fabric."""
    spec, clients = top.spec, range(len(top.chiplets) * top.spec.ports)
    numbers = {
        "CHIPLETS": len(top.chiplets),
        "PORTS": spec.ports,
        "FIBRES": len(top.fibres),
        "CHANNELS": spec.virtual_channels,
        "PAYLOAD_BYTES": spec.payload_bytes,
        "CLIENT_BYTES": spec.client_bytes,
        "USER_BITS": user_bits(spec),
        "ADDRESS_BITS": ADDRESS_BITS,
        "STALL_CYCLES": spec.stall_cycles,
        "PAGE_BYTES": 1 << BUS_ADDRESS_BITS,
        "CONTROL_ADDRESS": WORD_BYTES * [register.name for register in REGISTERS].index("control"),
        **status_place(),
    }
    ends = [end for fibre in top.fibres for end in fibre]
    masks = ", ".join(str(_used(ends, n)) for n, _ in enumerate(top.chiplets))
    used = f"inline constexpr std::uint32_t USED_LINES[CHIPLETS] = {{{masks}}};"
    by_client = [accessor(f"{side}_{name}", [f"{side}{n}_axis_{name}" for n in clients]) for side, name in _STREAMS]
    by_chiplet = [accessor(f"bus_{name}", [f"bus{n}_{name}" for n, _ in enumerate(top.chiplets)]) for name in _BUS]
    counts = {"chiplet": len(top.chiplets), "client": len(clients)}
    resets = [accessor(f"{what}_rst", [f"{what}{n}_rst" for n in range(count)]) for what, count in counts.items()]
    darks = accessor("dark", [f"dark{n}" for n, _ in enumerate(top.fibres)])
    return header(numbers, f'#include "V{TOP}.h"', used, *by_client, *by_chiplet, *resets, darks)


def _used(ends, chiplet: int) -> int:
    """Mask the lines of a chiplet that have a fibre."""
    return sum(1 << line for at, line in ends if at == chiplet)
