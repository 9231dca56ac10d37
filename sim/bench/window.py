"""A window of a training iteration becomes stimulus for the RTL: what a GPU gives its chiplet's client stream, and when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightfabric.model.spec import ChipletSpec
from lightfabric.model.task import Kind, Schedule, TaskGraph
from lightfabric.sim.bench.packet import NUMBER_BYTES, Packet


@dataclass(frozen=True)
class Message:
    """Describes what a GPU sends from ``time_ps`` of the iteration on: the bytes of a transfer, or of a step of a ring."""

    time_ps: int
    destination: int
    bytes: int


def messages(graph: TaskGraph, schedule: Schedule, gpu: int, start_ps: int, end_ps: int) -> list[Message]:
    """Return the messages that ``gpu`` begins to send from ``start_ps`` on and before ``end_ps``, in order of time.

    An ALL_REDUCE gives its 2 (n - 1) steps to the next member, 1/n of ``work`` in each, as a ring does: evenly between its
    start and its finish. Messages of no bytes and to the GPU itself are left out. ``schedule`` is of the same graph.
    """
    found = [
        Message(int(schedule.start_ps[task]), int(graph.peer[task]), int(graph.work[task]))
        for task in np.flatnonzero((graph.kind == Kind.TRANSFER) & (graph.device == gpu)).tolist()
    ]
    for index in range(len(graph.member_start) - 1):
        ring = graph.group(index)
        place = np.flatnonzero(ring == gpu)
        if len(place):
            for task in np.flatnonzero((graph.kind == Kind.ALL_REDUCE) & (graph.peer == index)).tolist():
                # A ring sends its messages evenly: the schedule has no times of single steps.
                found += _steps(graph, schedule, task, ring.tolist(), int(place[0]))
    kept = [m for m in found if start_ps <= m.time_ps < end_ps and m.bytes and m.destination != gpu]
    return sorted(kept, key=lambda message: message.time_ps)


def _steps(graph: TaskGraph, schedule: Schedule, task: int, ring: Sequence[int], place: int) -> list[Message]:
    n, work = len(ring), int(graph.work[task])
    start_ps, finish_ps = int(schedule.start_ps[task]), int(schedule.finish_ps[task])
    parts = [work * (part + 1) // n - work * part // n for part in range(n)]
    steps = 2 * (n - 1)
    return [
        Message(start_ps + (finish_ps - start_ps) * step // steps, ring[(place + 1) % n], parts[(place - step) % n])
        for step in range(steps)
    ]


@dataclass(frozen=True)
class Stimulus:
    """Holds the packets for one client, in order, and the cycle before which the client does not offer each."""

    packets: list[Packet]
    earliest_cycles: list[int]


def stimulus(
    spec: ChipletSpec, sends: Sequence[Message], gpu: int, address: Mapping[int, int], *, start_ps: int, packet_bytes: int
) -> Stimulus:
    """Cut the messages into equal packets of at most ``packet_bytes``; ``address`` is the client's of each GPU.

    Cycle 0 is ``start_ps``. The packets of a message are all due when it begins: the stream's back-pressure paces them.
    Packets are numbered; a message of fewer than ``NUMBER_BYTES`` grows to that many.

    Raises ValueError for packets too small to be numbered.
    """
    if packet_bytes < 2 * NUMBER_BYTES:
        raise ValueError(f"packet_bytes must be at least {2 * NUMBER_BYTES}, not {packet_bytes}")
    packets, earliest = list[Packet](), list[int]()
    for message in sends:
        size = max(message.bytes, NUMBER_BYTES)
        count = -(-size // packet_bytes)
        due = int(np.ceil((message.time_ps - start_ps) / spec.cycle_ps))
        for part in range(count):
            number = len(packets).to_bytes(NUMBER_BYTES, "little")
            filling = bytes(size * (part + 1) // count - size * part // count - NUMBER_BYTES)
            packets.append(Packet(number + filling, address[gpu], address[message.destination]))
            earliest.append(due)
    return Stimulus(packets, earliest)
