"""Chiplets joined by circuits, each with its GPU, as one system of the cycle kernel that runs a task graph.

A chiplet is a switch with a client and a link for each port, as in ``lightfabric.rtl.chiplet``; all cycles are those
measured on the RTL. A circuit is a fibre from a port of one chiplet to a port of another: on a ring to the next, through
optical switches to whatever these are set to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightfabric.model.bits import lowest
from lightfabric.model.block import Module, connect
from lightfabric.model.channel import Fifo
from lightfabric.model.compiled import Records
from lightfabric.model.gpu import OPERATION, Does, Gpu
from lightfabric.model.kernel import System
from lightfabric.model.link import Link
from lightfabric.model.spec import FIBRE_PS_PER_M, ChipletSpec
from lightfabric.model.switch import Switch
from lightfabric.model.task import Kind, Schedule, TaskGraph
from lightfabric.model.timing import Timing

MOST_CYCLES = 1 << 40
MOST_HUB_GPUS = 64
"""Ports of a switch."""


@dataclass(frozen=True)
class Cabling:
    """Where the fibre of each port ends: port ``port[g, p]`` of GPU ``gpu[g, p]``; all of one length."""

    gpu: NDArray[np.int32]
    port: NDArray[np.int32]
    fibre_m: float

    def address(self, gpu: int) -> int:
        """Of its port 0; those of its other ports follow."""
        return gpu * self.gpu.shape[1]

    def lanes(self, source: int, destination: int) -> int:
        """The set of ports of one GPU that lead to another, as bits; ValueError if there is none."""
        found = np.flatnonzero(self.gpu[source] == destination)
        if not len(found):
            raise ValueError(f"Cabling must have a circuit from GPU {source} to GPU {destination}, not none")
        return int((1 << found).sum())


@dataclass(frozen=True)
class Hub:
    """One switch in the middle that never limits, at the end of a link from each of ``gpus``, in rising order."""

    gpus: NDArray[np.int32]
    fibre_m: float

    def __post_init__(self) -> None:
        if not 1 <= len(self.gpus) <= MOST_HUB_GPUS:
            raise ValueError(f"Hub.gpus must be 1 to {MOST_HUB_GPUS}, not {len(self.gpus)}")

    def address(self, gpu: int) -> int:
        """Port of the switch."""
        return int(np.searchsorted(self.gpus, gpu))

    def lanes(self, source: int, destination: int) -> int:
        """The one port of a GPU."""
        assert source in self.gpus
        assert destination in self.gpus
        return 1


def ring(gpus: int, ports: int, fibre_m: float) -> Cabling:
    """The first half of the ports leads to the next GPU, the other half to the one before."""
    if gpus < 2 or ports % 2:
        raise ValueError(f"ring.ports must be even and gpus at least 2, not {ports} and {gpus}")
    here, half = np.arange(gpus)[:, None], ports // 2
    step = np.where(np.arange(ports) < half, 1, -1)
    far_port = (np.arange(ports) + half) % ports
    return Cabling(((here + step) % gpus).astype(np.int32), np.tile(far_port, (gpus, 1)).astype(np.int32), fibre_m)


def circuit_switched(permutations: ArrayLike, fibre_m: float) -> Cabling:
    """Port p of GPU g leads to port p of GPU ``permutations[p, g]``, through optical circuit switch p and two fibres."""
    ends = np.array(permutations, np.int32)
    each: NDArray[np.int32] = np.arange(ends.shape[1], dtype=np.int32)
    if not np.array_equal(np.sort(ends, axis=1), np.tile(each, (len(ends), 1))):
        raise ValueError(f"circuit_switched.permutations must have a permutation of 0..{ends.shape[1] - 1} in each row")
    ports = np.tile(np.arange(len(ends), dtype=np.int32), (ends.shape[1], 1))
    return Cabling(ends.T.copy(), ports, 2 * fibre_m)


class Cluster:
    """The system that runs ``graph`` on chiplets of a spec and its timing; rank r is GPU r.

    ValueError if GPUs talk to each other that no circuit joins. Memory grows with the places for flits, of which each
    chiplet has ``8 * ports * virtual_channels * buffer_flits``. Every message takes ``message_latency_cycles`` more, as in
    a library of collectives.
    """

    def __init__(
        self,
        graph: TaskGraph,
        spec: ChipletSpec,
        timing: Timing,
        cabling: Cabling | Hub,
        message_latency_cycles: int = 0,
    ) -> None:
        self.graph, self.spec, self._timing = graph, spec, timing
        self._message_latency_cycles = message_latency_cycles
        self.delay_cycles = ceil(cabling.fibre_m * FIBRE_PS_PER_M / spec.cycle_ps)
        self._program = _Program(graph, spec, cabling)
        top = Module()
        self.gpus = list[Gpu]()
        self.links = dict[tuple[int, int], Link]()
        if isinstance(cabling, Hub):
            self._join_to_hub(top, cabling)
        else:
            self._join_by_circuits(top, cabling)
        self.system = System(top)

    def _from_gpu(self, fifo: Fifo) -> Fifo:
        """With the latency of messages; so many more may be under way."""
        more = self._message_latency_cycles
        return Fifo(fifo.depth + more, fifo.latency_cycles + more, fifo.credit_cycles)

    def _join_to_hub(self, top: Module, hub: Hub) -> None:
        spec, timing = self.spec, self._timing
        talks = [int(gpu) for gpu in hub.gpus]
        self.gpus = [top.add(f"gpu[{n}]", self._program.gpu(n, [0] * (n in talks))) for n in range(self.graph.devices)]
        switch = top.add("hub", Switch(replace(spec, ports=-(-len(talks) // 2)), timing.switch))
        for queue in range(len(talks) * spec.virtual_channels, len(switch.i)):  # of an odd number's last port
            connect(switch.o[queue], switch.i[queue], Fifo(1))
        for place, n in enumerate(talks):
            up = top.add(f"up[{n}]", Link(spec, timing.link, self.delay_cycles, timing.switch.credit_cycles))
            self.links[n, 0] = up
            down = top.add(f"down[{n}]", Link(spec, timing.link, self.delay_cycles))
            for v in range(spec.virtual_channels):
                queue = place * spec.virtual_channels + v
                connect(self.gpus[n].o[v], up.i[v], self._from_gpu(Link.input_fifo(spec, timing.link)))
                connect(up.o[v], switch.i[queue], up.output_fifo())
                connect(switch.o[queue], down.i[v], switch.output_fifo(timing.link.accept_cycles))
                connect(down.o[v], self.gpus[n].i[v], down.output_fifo())

    def _join_by_circuits(self, top: Module, cabling: Cabling) -> None:
        spec, timing = self.spec, self._timing
        gpus, ports = self.graph.devices, spec.ports
        self.gpus = [top.add(f"gpu[{n}]", self._program.gpu(n, cabling.port[n])) for n in range(gpus)]
        switches = [top.add(f"switch[{n}]", Switch(spec, timing.switch, _routes(n, spec, cabling))) for n in range(gpus)]
        self.links = {
            (n, p): top.add(f"link[{n}][{p}]", Link(spec, timing.link, self.delay_cycles, timing.switch.credit_cycles))
            for n in range(gpus)
            for p in range(ports)
        }
        for gpu, switch in zip(self.gpus, switches, strict=True):
            for q in range(ports * spec.virtual_channels):
                connect(gpu.o[q], switch.i[q], self._from_gpu(Switch.input_fifo(spec, timing.switch)))
                connect(switch.o[q], gpu.i[q], switch.output_fifo())
        for (n, p), link in self.links.items():
            there = switches[int(cabling.gpu[n, p])]
            for v in range(spec.virtual_channels):
                output, input_ = (ports + p) * spec.virtual_channels + v, int(ports + cabling.port[n, p])
                connect(switches[n].o[output], link.i[v], switches[n].output_fifo(timing.link.accept_cycles))
                connect(link.o[v], there.i[input_ * spec.virtual_channels + v], link.output_fifo())

    def run(self, limit_cycle: int = MOST_CYCLES) -> Schedule:
        """Run to the end. Times are those of the cycles in which tasks start and finish; links are GPU by GPU, port by port.

        DeadlockError if flits wait for ever, TimeoutError if it has not ended before ``limit_cycle``.
        """
        self.system.run_to_idle(limit_cycle)
        operations = np.concatenate([gpu.operations for gpu in self.gpus])
        start, finish = self._program.times(operations)
        slot_ps = float(self.spec.slot_cycles) * self.spec.cycle_ps
        return Schedule(
            np.rint(start * self.spec.cycle_ps).astype(np.int64),
            np.rint(finish * self.spec.cycle_ps).astype(np.int64),
            self._program.limit,
            np.rint(self.flits_per_link() * slot_ps).astype(np.int64),
        )

    def flits_per_link(self) -> NDArray[np.int64]:
        """Flits that each link has sent until now."""
        taken = self.system.channels.fifo["head"]
        return np.array([sum(int(taken[port.bound[0].index]) for port in link.i) for link in self.links.values()], np.int64)


def _routes(here: int, spec: ChipletSpec, cabling: Cabling) -> NDArray[np.int32]:
    """Output of the switch for each address, ``gpu * ports + port``; no flit is sent to those that no circuit leads to."""
    ports = np.arange(spec.ports)
    routes = np.zeros(len(cabling.gpu) * spec.ports, np.int32)
    routes[cabling.gpu[here] * spec.ports + cabling.port[here]] = spec.ports + ports
    routes[here * spec.ports + ports] = ports
    return routes


class _Program:
    """The operations of a task graph, by GPU.

    A transfer is one for each of its ``operations``; an all-reduce is one for each member, between two joins; a barrier
    is a join on GPU 0.
    """

    def __init__(self, graph: TaskGraph, spec: ChipletSpec, cabling: Cabling | Hub) -> None:
        self._graph, self._spec, self._cabling = graph, spec, cabling
        self._made = list[dict[str, int]]()
        self._after = list[list[int]]()
        ends = [self._add_task(task) for task in range(len(graph))]
        for task, (_, last) in enumerate(ends):
            after = graph.successors[graph.successor_start[task] : graph.successor_start[task + 1]]
            self._after[last] += [ends[int(other)][0] for other in after]
        self._first = np.array([first for first, _ in ends], np.int64)
        self._last = np.array([last for _, last in ends], np.int64)
        self._lay_out()

    def _add(self, gpu: int, does: int, after: Sequence[int] = (), /, **fields: int) -> int:
        self._made.append({"gpu": gpu, "does": does, **fields})
        self._after.append(list[int]())
        for before in after:
            self._after[before].append(len(self._made) - 1)
        return len(self._made) - 1

    def _add_task(self, task: int) -> tuple[int, int]:
        """The first and the last operation of a task."""
        graph = self._graph
        kind, gpu, work, peer = (int(field[task]) for field in (graph.kind, graph.device, graph.work, graph.peer))
        if kind == Kind.COMPUTE:
            only = self._add(gpu, Does.COMPUTE, cycles=ceil(work / self._spec.cycle_ps))
            return only, only
        if kind == Kind.BARRIER:
            only = self._add(0, Does.JOIN)
            return only, only
        if kind == Kind.TRANSFER:
            return self._add_transfer(gpu, peer, work, int(graph.operations[task]))
        return self._add_ring(graph.group(peer).tolist(), work, int(graph.operations[task]))

    def _add_transfer(self, gpu: int, peer: int, work: int, count: int) -> tuple[int, int]:
        flits = self._flits(work, count) if gpu != peer else 0
        way = self._way(gpu, peer) if flits else {}
        first = last = self._add(gpu, Does.SEND, flits=flits, **way)
        for _ in range(count - 1 if flits else 0):
            last = self._add(gpu, Does.SEND, [last], flits=flits, **way)
        return first, last

    def _add_ring(self, members: list[int], work: int, count: int) -> tuple[int, int]:
        first, size = self._add(members[0], Does.JOIN), len(members)
        chunk_flits = self._flits(work, count * size) if size > 1 else 0
        rings = [
            self._add(
                member, Does.RING, [first], chunk_flits=chunk_flits, flits=2 * (size - 1) * count * chunk_flits,
                **(self._way(member, members[(place + 1) % size]) if chunk_flits else {}),
            )
            for place, member in enumerate(members)
        ]  # fmt: skip
        for place, ring_ in enumerate(rings):
            self._made[ring_]["target"] = rings[(place + 1) % size]
        return first, self._add(members[0], Does.JOIN, rings)

    def _way(self, gpu: int, peer: int) -> dict[str, int]:
        return {"lanes": self._cabling.lanes(gpu, peer), "address": self._cabling.address(peer)}

    def _flits(self, work_bytes: int, parts: int) -> int:
        return -(-work_bytes // (parts * self._spec.payload_bytes))

    def _lay_out(self) -> None:
        """Number the operations GPU by GPU, in the order in which they were made."""
        gpu = np.array([made["gpu"] for made in self._made], np.int64)
        order = np.argsort(gpu, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        self._place = place
        operations: Records = np.zeros(len(order), OPERATION)
        for name in ("gpu", "does", "cycles", "flits", "chunk_flits", "lanes", "address"):
            operations[name][place] = [made.get(name, 0) for made in self._made]
        operations["target"][place] = place[[made.get("target", number) for number, made in enumerate(self._made)]]
        after = [place[self._after[number]] for number in order.tolist()]
        ends = np.cumsum([0, *map(len, after)])
        operations["successor"], operations["successor_end"] = ends[:-1], ends[1:]
        self._successors = np.concatenate([np.zeros(0, np.int64), *after]).astype(np.int32)
        operations["waiting"] = np.bincount(self._successors, minlength=len(order))
        self._operations = operations
        self._starts = np.searchsorted(gpu[order], np.arange(self._graph.devices + 1))

    def gpu(self, number: int, far_ports: ArrayLike) -> Gpu:
        """The GPU of a rank."""
        begin, end = self._starts[number], self._starts[number + 1]
        own = self._operations[begin:end]
        span = slice(own["successor"][0], own["successor_end"][-1]) if len(own) else slice(0, 0)
        return Gpu(number, int(begin), own, self._successors[span], far_ports, self._spec.virtual_channels)

    def times(self, operations: Records) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cycles in which each task started and finished."""
        return operations["start_cycle"][self._place[self._first]], operations["finish_cycle"][self._place[self._last]]

    @property
    def limit(self) -> NDArray[np.int32]:
        """The first link of each transfer, -1 for what needs none."""
        lanes = self._operations["lanes"][self._place[self._first]].tolist()
        first = [(gpu, lowest(mask) if mask else -1) for gpu, mask in zip(self._graph.device.tolist(), lanes, strict=True)]
        return np.array([gpu * self._spec.ports + port if port >= 0 else -1 for gpu, port in first], np.int32)
