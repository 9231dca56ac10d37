"""What passed a line or a client is captured as pcapng, for Wireshark and scapy [draft-ietf-opsawg-pcapng]."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lightfabric.model.spec import ChipletSpec
from lightfabric.sim.bench.link import Slot

LINKTYPE_USER0 = 147
"""For private use: a flit or a packet as its bytes, no header of any other layer."""

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_NAME, _RESOLUTION = 2, 9
_PICOSECONDS = 12


@dataclass(frozen=True)
class Captured:
    """Holds what passed an interface at a time since the beginning of the run."""

    time_ps: int
    interface: int
    content: bytes


def pcapng(interfaces: Sequence[str], packets: Iterable[Captured]) -> bytes:
    """Return a section with these interfaces and packets, in the order of their times, which are in picoseconds."""
    head = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    parts = [_block(_SECTION, head)]
    for name in interfaces:
        options = _option(_NAME, name.encode()) + _option(_RESOLUTION, bytes([_PICOSECONDS])) + _option(0, b"")
        parts.append(_block(_INTERFACE, struct.pack("<HHI", LINKTYPE_USER0, 0, 0) + options))
    for packet in sorted(packets, key=lambda packet: packet.time_ps):
        # The captured and the original length of a packet are the same here: nothing is cut off.
        size = len(packet.content)
        high, low = packet.time_ps >> 32, packet.time_ps & 0xFFFFFFFF
        fixed = struct.pack("<IIIII", packet.interface, high, low, size, size)
        parts.append(_block(_PACKET, fixed + _padded(packet.content)))
    return b"".join(parts)


def flits(spec: ChipletSpec, slots: Iterable[Slot], interface: int) -> list[Captured]:
    """Capture the flits of one direction of a line, header and CRC as sent, at the times of their last beats."""
    return [
        Captured(round(slot.arrival_cycle * spec.cycle_ps), interface, slot.flit.encode(spec, slot.upcoming))
        for slot in slots
    ]


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


def _option(code: int, content: bytes) -> bytes:
    return struct.pack("<HH", code, len(content)) + _padded(content)


def _block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)
