"""The soak of circuit changes has its C++ here, and the header that fits it to one top and spec."""

from itertools import product

from amaranth.lib import data

from lightfabric.rtl.channel import flit_layout
from lightfabric.rtl.circuit_controller import circuit_layout, entry_layout
from lightfabric.sim.circuit.circuit_controller import SwitchedLinks
from lightfabric.sim.native.cluster import accessor, places
from lightfabric.sim.native.link import SHAPE, header, texts

SOURCE = "soak.cpp"


def sources(top: SwitchedLinks) -> dict[str, str]:
    """Return the C++ by file name, the program first, and its header; the Verilog is to have the name ``link``."""
    return {**texts((SOURCE,), "circuit"), **texts(("native_port.h",)), SHAPE: _shape(top)}


def _shape(top: SwitchedLinks) -> str:
    spec, flit = top.spec, flit_layout(top.spec)
    numbers = {
        "PORTS": top.ports,
        "LANES": spec.lanes_per_port,
        "BLOCK_BITS": spec.block_bits_on_line,
        # Verilator keeps a port in words of 32 bits once it is wider than 64.
        "BLOCK_BYTES": -(-spec.block_bits_on_line // 32) * 4,
        "CHANNELS": spec.virtual_channels,
        "BUFFER_FLITS": spec.buffer_flits,
        "PAYLOAD_BYTES": spec.payload_bytes,
        "FLIT_BITS": flit.size,
        "CHANNEL_BITS": _bits(flit, "virtual_channel"),
        "LENGTH_BITS": _bits(flit, "length_bytes"),
        "OUTPUT_BITS": _bits(circuit_layout(top.ports), "output"),
        "ENTRY_BYTES": -(-entry_layout(top.ports).size // 32) * 4,
        **places("FLIT", flit),
        **places("CIRCUIT", circuit_layout(top.ports)),
        **places("ENTRY", entry_layout(top.ports)),
    }
    ports, lines = range(top.ports), list(product(range(top.ports), range(spec.lanes_per_port)))
    by_port = [(name, f"{end}_{name}") for end in "io" for name in ("flit", "valid", "credit", "held")]
    members = [accessor(both, [f"{both[0]}__{p}__{name}" for p in ports]) for name, both in by_port]
    members += [accessor(f"{name}_valid", [f"{name}__{p}__valid" for p in ports]) for name in ("tx", "rx")]
    members += [accessor(f"{name}_block", [f"{name}__{p}__blocks__{w}" for p, w in lines]) for name in ("tx", "rx")]
    members.append(accessor("slip", [f"slip__{p}" for p in ports]))
    return header(numbers, *members)


def _bits(layout: data.StructLayout, name: str) -> int:
    return layout[name].width
