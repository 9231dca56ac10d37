"""Packets are made that can be told apart, and what became of them is counted."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lightfabric.model.cycle.slot import Slots
from lightfabric.model.spec import ChipletSpec
from lightfabric.sim.bench.bench import ClientFlit

NUMBER_BYTES = 4
FLITS_ODDS = (0.7, 0.2, 0.1)
"""Of a packet having 1, 2, 3 flits."""

STALL_TIMEOUTS = 20
"""Replay timeouts without an arrival after which a run is given up."""


def stall_cycles(spec: ChipletSpec, timeouts: int) -> int:
    """Return the cycles without an arrival after which what has not arrived is lost: so many replay timeouts."""
    return timeouts * spec.timeout_slots * Slots.of(spec).longest_cycles


@dataclass(frozen=True)
class Packet:
    """Describes a packet between two clients. Its content begins with its number."""

    content: bytes
    source: int = 0
    destination: int = 0
    virtual_channel: int = 0

    @property
    def number(self) -> int:
        """Return its place in the order of sending."""
        return int.from_bytes(self.content[:NUMBER_BYTES], "little")

    def flits(self, spec: ChipletSpec) -> list[ClientFlit]:
        """Return the packet cut into flits, all full but the last."""
        size = spec.payload_bytes
        parts = [self.content[at : at + size] for at in range(0, len(self.content), size)]
        return [
            ClientFlit(part, self.destination, self.source, self.virtual_channel, int(n == len(parts) - 1))
            for n, part in enumerate(parts)
        ]


def random_packets(
    spec: ChipletSpec, count: int, rng: np.random.Generator, sources: Sequence[int], destinations: Sequence[int]
) -> list[Packet]:
    """Make ``count`` packets of 1 to 3 flits with random content, length, source, destination and virtual channel.

    A source does not send to itself unless it is the only destination.
    """
    packets: list[Packet] = []
    for number in range(count):
        flits = 1 + int(rng.choice(len(FLITS_ODDS), p=FLITS_ODDS))
        least_bytes = max(NUMBER_BYTES, (flits - 1) * spec.payload_bytes + 1)
        random_bytes = int(rng.integers(least_bytes, flits * spec.payload_bytes + 1)) - NUMBER_BYTES
        source = int(rng.choice(sources))
        others = [d for d in destinations if d != source] or list(destinations)
        packets.append(
            Packet(
                number.to_bytes(NUMBER_BYTES, "little") + rng.bytes(random_bytes),
                source,
                int(rng.choice(others)),
                int(rng.integers(spec.virtual_channels)),
            )
        )
    return packets


def assembled(flits: Iterable[ClientFlit]) -> list[Packet]:
    """Return the packets in the flits that one client saw, by the order of their last flits.

    Flits of different sources and virtual channels may alternate. A packet without its last flit is not there.
    """
    begun: dict[tuple[int, int], bytes] = {}
    packets: list[Packet] = []
    for flit in flits:
        key = flit.source, flit.virtual_channel
        begun[key] = begun.get(key, b"") + flit.payload
        if flit.last:
            packets.append(Packet(begun.pop(key), flit.source, flit.destination, flit.virtual_channel))
    return packets


@dataclass(frozen=True)
class Tally:
    """Counts what became of the packets that were sent.

    ``delivered`` arrived as they were sent, ``corrupted`` arrivals are like no packet sent, ``duplicated`` arrivals came
    again, ``reordered`` ones came after a later packet of the same source, destination and virtual channel, and ``lost``
    is the number of packets that did not arrive as sent.
    """

    packets: int
    delivered: int
    lost: int
    corrupted: int
    duplicated: int
    reordered: int

    @property
    def clean(self) -> bool:
        """Tell whether every packet arrived once, in order, unchanged."""
        return self.delivered == self.packets and not (self.corrupted or self.duplicated or self.reordered)

    @staticmethod
    def of(sent: Iterable[Packet], received: Iterable[Packet]) -> "Tally":
        """Compare what was sent with what arrived; both in their order of time for each flow."""
        missing, known = Counter(sent), set[Packet]()
        packets = missing.total()
        latest: dict[tuple[int, int, int], int] = {}
        corrupted = duplicated = reordered = 0
        for packet in received:
            if not missing[packet]:
                duplicated += packet in known
                corrupted += packet not in known
                continue
            # Taken off where it arrives, so that the same packet counts as duplicated when it comes again.
            missing[packet] -= 1
            known.add(packet)
            flow = packet.source, packet.destination, packet.virtual_channel
            reordered += packet.number < latest.get(flow, 0)
            latest[flow] = max(packet.number, latest.get(flow, 0))
        lost = missing.total()
        return Tally(packets, packets - lost, lost, corrupted, duplicated, reordered)
