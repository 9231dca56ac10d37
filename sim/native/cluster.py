"""The native bench of a system has chiplets joined by fibres, each with a GPU, that run a task graph in RTL.

All chiplets are instances of one verilated ``Node``; the GPUs and fibres are C++. Cables, routes and operations are told to
the program as a text of numbers.
"""

from itertools import product

import numpy as np
from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import ADDRESS_BITS
from lightfabric.model.cycle.cabling import Cabling, fibre_cycles
from lightfabric.model.cycle.program import Program
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.chiplet import Chiplet
from lightfabric.rtl.client import beat_layout, delivered_layout, user_bits
from lightfabric.rtl.line import LineSignature
from lightfabric.rtl.switch import route_bits
from lightfabric.sim.native.link import header, texts

TOP = "node"
"""Name of the Verilog module."""
SHAPE = "system_shape.h"
_SOURCES = ("system.cpp", "system_gpu.h")
_OPERATION = ("gpu", "does", "cycles", "flits", "chunk_flits", "lanes", "address", "channel", "target", "waiting")


class Node(wiring.Component):
    """Wraps a chiplet whose routes are inputs, so that one program serves all places of all systems of its spec.

    Members
    -------
    routes : In(data.ArrayLayout(route_bits(spec), addresses)), constant
    i, o, tx, rx : those of ``Chiplet``
    """

    def __init__(self, spec: ChipletSpec, addresses: int):
        self.spec = spec
        ports, line = spec.ports, LineSignature(spec)
        super().__init__(
            {
                "routes": In(data.ArrayLayout(route_bits(spec), addresses)),
                "i": In(stream.Signature(beat_layout(spec))).array(ports),
                "o": Out(stream.Signature(delivered_layout(spec))).array(ports),
                "tx": Out(line).array(ports),
                "rx": In(line).array(ports),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.chiplet = chiplet = Chiplet(self.spec, routes=self.routes)
        for name, port in product(("i", "o", "tx", "rx"), range(self.spec.ports)):
            wiring.connect(m, wiring.flipped(getattr(self, name)[port]), getattr(chiplet, name)[port])
        return m


def sources() -> dict[str, str]:
    """Return the C++ that is the same for all specs, by file name; the first is the program."""
    return texts(_SOURCES)


def shape(node: Node) -> str:
    """Return the header that fits the C++ to a node."""
    spec = node.spec
    numbers = {
        "PORTS": spec.ports,
        "WAVELENGTHS": spec.wavelengths_per_port,
        "CHANNELS": spec.virtual_channels,
        "PAYLOAD_BYTES": spec.payload_bytes,
        "WORD_BYTES": spec.client_bytes,
        "ADDRESS_BITS": ADDRESS_BITS,
        "USER_BITS": user_bits(spec),
        "ROUTE_BITS": route_bits(spec),
        "ROUTES": len(node.routes),
        **places("WORD", beat_layout(spec)),
        **places("DELIVERED", delivered_layout(spec)),
    }
    ports, lines = range(spec.ports), list(product(range(spec.ports), range(spec.wavelengths_per_port)))
    by_port = (accessor(f"{name}_{part}", [f"{name}__{p}__{part}" for p in ports]) for name, part in _BY_PORT)
    by_lane = (accessor(f"{name}_block", [f"{name}__{p}__blocks__{w}" for p, w in lines]) for name in ("tx", "rx"))
    return header(numbers, *by_port, *by_lane)


_BY_PORT = [*product(("i", "o"), ("payload", "valid", "ready")), ("tx", "valid"), ("rx", "valid")]


def places(name: str, layout: data.StructLayout) -> dict[str, int]:
    """Return the first bit of each field."""
    return {f"{name}_{field}": place.offset for field, place in ((key.upper(), place) for key, place in layout)}


def accessor(name: str, members: list[str]) -> str:
    """Write a function of the number of a member, whose name Verilator writes in its way."""
    # Verilator writes the second of two underscores as a hexadecimal number.
    names = [member.replace("__", "___05F") for member in members]
    cases = " ".join(f"case {number}: return top.{member};" for number, member in enumerate(names[1:], 1))
    body = f"switch (number) {{ default: return top.{names[0]}; {cases} }}"
    return f"template <class Top> auto& {name}(Top& top, std::size_t number) {{ {body} }}"


def text(program: Program, spec: ChipletSpec, cabling: Cabling, bound_cycles: int) -> str:
    """Write what the program reads: the bound, then for each GPU its cables and routes, then the operations.

    ValueError unless each circuit is a whole port with one back, and for relays that may deadlock. Virtual channels are not
    renamed, since all places share one chiplet.
    """
    cabling.verify(spec.virtual_channels)
    if cabling.renames:
        raise ValueError(f"Cabling.renames must be empty for chiplets that are all alike, not {dict(cabling.renames)}")
    if not cabling.is_duplex or np.any(np.asarray(cabling.share) != 1):
        raise ValueError("Cabling must join whole ports both ways for RTL, whose links answer in the other direction")
    fibre_m = np.broadcast_to(cabling.fibre_m, cabling.gpu.shape)
    lines = [[bound_cycles, len(cabling.gpu), len(cabling.routes(0)), len(program.operations)]]
    for here, far in enumerate(cabling.gpu.tolist()):
        delays = [fibre_cycles(length, spec) for length in fibre_m[here].tolist()]
        lines += [list(cable) for cable in zip(far, cabling.port[here].tolist(), delays, strict=True)]
        lines.append(cabling.routes(here).tolist())
    lines += [_operation(program, number) for number in range(len(program.operations))]
    return "\n".join(" ".join(map(str, line)) for line in lines) + "\n"


def _operation(program: Program, number: int) -> list[int]:
    operation = program.operations[number]
    after = program.successors[operation["successor"] : operation["successor_end"]]
    return [*(int(operation[name]) for name in _OPERATION), len(after), *after.tolist()]
