"""Chiplets joined by circuits, each with its GPU, as one system of the cycle kernel that runs a task graph.

A chiplet is a switch with a client and a link for each port, as in ``lightfabric.rtl.chiplet``; all cycles are those
measured on the RTL. A circuit is a fibre from a port of one chiplet to a port of another: on a ring to the next, through
optical switches to whatever these are set to.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightfabric.model.bits import lowest
from lightfabric.model.block import Module, Port, connect
from lightfabric.model.cabling import Cabling, Hub, Hubs, delay_cycles, fibre_cycles, line
from lightfabric.model.channel import Fifo
from lightfabric.model.compiled import Records
from lightfabric.model.gpu import OPERATION, Does, Gpu
from lightfabric.model.kernel import System
from lightfabric.model.link import Link
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.switch import Switch
from lightfabric.model.task import Kind, Schedule, TaskGraph
from lightfabric.model.timing import Timing

MOST_CYCLES = 1 << 40
MOST_PORTS = 32
"""A switch has twice as many."""
NOWHERE = -1, -1


class Cluster:
    """The system that runs ``graph`` on chiplets of a spec and its timing; rank r is GPU r.

    ValueError if GPUs talk to each other that no circuit joins. Memory grows with the places for flits, of which each
    chiplet has ``8 * ports * virtual_channels * buffer_flits``. Every message takes ``message_latency_cycles`` more, as in
    a library of collectives.

    ``links`` are by GPU and lane; those from a hub by its node, which follow the GPUs, and a number. They lead to
    ``far_node``.
    """

    def __init__(
        self,
        graph: TaskGraph,
        spec: ChipletSpec,
        timing: Timing,
        cabling: Cabling | Hubs,
        message_latency_cycles: int = 0,
    ) -> None:
        self.graph, self.spec, self._timing = graph, spec, timing
        self._message_latency_cycles = message_latency_cycles
        self.links = dict[tuple[int, int], Link]()
        self.far_node = dict[tuple[int, int], int]()
        self._program = _Program(graph, spec, cabling)
        self.gpus = list[Gpu]()
        top = Module()
        if isinstance(cabling, Hubs):
            self._add_gpus(top, [[0] * cabling.lanes_of(n) for n in range(graph.devices)])
            for number, hub in enumerate(cabling.hubs):
                self._join_to_hub(top, number, hub, [cabling.first_lane(n, hub) for n in hub.gpus.tolist()])
        else:
            self._add_gpus(top, cabling.port.tolist())
            self._join_by_circuits(top, cabling)
        self.system = System(top)

    @property
    def delay_cycles(self) -> int:
        """Time of flight on the longest link."""
        return max(int(link.state["delay_cycles"]) for link in self.links.values())

    def _add_gpus(self, top: Module, far_ports: Sequence[Sequence[int]]) -> None:
        self.gpus += [top.add(f"gpu[{n}]", self._program.gpu(n, ports)) for n, ports in enumerate(far_ports)]

    def _from_gpu(self, fifo: Fifo, latency_cycles: int = 0) -> Fifo:
        """With the latency of messages; so many more may be under way."""
        more = self._message_latency_cycles + latency_cycles
        return Fifo(fifo.depth + more, fifo.latency_cycles + more, fifo.credit_cycles)

    def _join_to_hub(self, top: Module, number: int, hub: Hub, first_lanes: Sequence[int]) -> None:
        """The switches of a hub; its links to GPUs are numbered plane by plane."""
        timing, channels, size = self._timing, self.spec.virtual_channels, len(hub.gpus)
        spec, node = line(self.spec, hub.share), self.graph.devices + number
        delay, more = delay_cycles(hub.flight_ps, spec), delay_cycles(hub.latency_ps, spec)
        for plane in range(hub.planes):
            switch = top.add(f"hub[{number}][{plane}]", Switch(replace(spec, ports=-(-size // 2)), timing.switch))
            for queue in range(size * channels, len(switch.i)):  # of an odd number's last port
                connect(switch.o[queue], switch.i[queue], Fifo(1))
            for place, n in enumerate(map(int, hub.gpus)):
                lane, port = first_lanes[place] + plane, plane * size + place
                up = self._add_link(top, (n, lane), node, Link(spec, timing.link, delay, timing.switch.credit_cycles))
                down = self._add_link(top, (node, port), n, Link(spec, timing.link, delay))
                for v in range(channels):
                    queue, of_gpu = place * channels + v, lane * channels + v
                    connect(self.gpus[n].o[of_gpu], up.i[v], self._from_gpu(Link.input_fifo(spec, timing.link), more))
                    connect(up.o[v], switch.i[queue], up.output_fifo())
                    connect(switch.o[queue], down.i[v], switch.output_fifo(timing.link.accept_cycles))
                    connect(down.o[v], self.gpus[n].i[of_gpu], down.output_fifo())

    def _add_link(self, top: Module, end: tuple[int, int], far_node: int, link: Link) -> Link:
        self.links[end], self.far_node[end] = link, far_node
        return top.add(f"link[{end[0]}][{end[1]}]", link)

    def _join_by_circuits(self, top: Module, cabling: Cabling) -> None:
        switches = self._add_switches(top, cabling)
        share, fibre_m = (np.broadcast_to(field, cabling.gpu.shape).tolist() for field in (cabling.share, cabling.fibre_m))
        lines = {share: line(self.spec, share) for share in {*chain(*share)} if share > 0}
        for n, far_gpus in enumerate(cabling.gpu.tolist()):
            for p, far in enumerate(map(int, far_gpus)):
                outputs = self._line_queues(switches[n].o, p)
                inputs = self._line_queues(switches[far].i, int(cabling.port[n, p]))
                if share[n][p] > 0:
                    delay = fibre_cycles(fibre_m[n][p], self.spec)
                    self._add_circuit(top, (n, p), far, lines[share[n][p]], delay, switches[n], outputs, inputs)
                else:
                    for output, input_ in zip(outputs, inputs, strict=True):
                        connect(output, input_, Fifo(1))

    def _add_switches(self, top: Module, cabling: Cabling) -> list[Switch]:
        """The switch of each chiplet, with the GPU at its first ports."""
        if not 1 <= cabling.ports <= MOST_PORTS:
            raise ValueError(f"Cabling.gpu must be of 1 to {MOST_PORTS} ports for each GPU, not {cabling.ports}")
        spec, timing = replace(self.spec, ports=cabling.ports), self._timing.switch
        switches = list[Switch]()
        for n, gpu in enumerate(self.gpus):
            switches.append(top.add(f"switch[{n}]", Switch(spec, timing, cabling.routes(n))))
            for q in range(len(gpu.o)):
                connect(gpu.o[q], switches[n].i[q], self._from_gpu(Switch.input_fifo(spec, timing)))
                connect(switches[n].o[q], gpu.i[q], switches[n].output_fifo())
        return switches

    def _line_queues(self, of_switch: list[Port], port: int) -> list[Port]:
        channels = self.spec.virtual_channels
        first = len(of_switch) // 2 + port * channels
        return of_switch[first : first + channels]

    def _add_circuit(
        self,
        top: Module,
        end: tuple[int, int],
        far: int,
        spec: ChipletSpec,
        delay_cycles: int,
        switch: Switch,
        outputs: list[Port],
        inputs: list[Port],
    ) -> None:
        timing = self._timing
        link = self._add_link(top, end, far, Link(spec, timing.link, delay_cycles, timing.switch.credit_cycles))
        for v in range(spec.virtual_channels):
            connect(outputs[v], link.i[v], switch.output_fifo(timing.link.accept_cycles))
            connect(link.o[v], inputs[v], link.output_fifo())

    def run(self, limit_cycle: int = MOST_CYCLES) -> Schedule:
        """Run to the end. Times are those of the cycles in which tasks start and finish.

        The links are those of ``links``. DeadlockError if flits wait for ever, TimeoutError if it has not ended before
        ``limit_cycle``.
        """
        self.system.run_to_idle(limit_cycle)
        operations = np.concatenate([gpu.operations for gpu in self.gpus])
        start, finish = self._program.times(operations)
        slot_ps = np.array([float(link.spec.slot_cycles) * link.spec.cycle_ps for link in self.links.values()])
        return Schedule(
            np.rint(start * self.spec.cycle_ps).astype(np.int64),
            np.rint(finish * self.spec.cycle_ps).astype(np.int64),
            self._limit(),
            np.rint(self.flits_per_link() * slot_ps).astype(np.int64),
        )

    def messages(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Messages of each operation that has sent some, and the cycles of one: a transfer, or a chunk of a ring, as a mean.

        They begin when they may be sent, and end when the last flit has arrived.
        """
        operations: Records = np.concatenate([gpu.operations for gpu in self.gpus])
        sent = operations[operations["flits"] > 0]
        count = sent["flits"] // sent["chunk_flits"]
        return count, (sent["finish_cycle"] - sent["start_cycle"]) / count

    def _limit(self) -> NDArray[np.int32]:
        """The first link of each transfer, -1 for what needs none."""
        number = {end: link for link, end in enumerate(self.links)} | {NOWHERE: -1}
        return np.array([number[end] for end in self._program.first_ends], np.int32)

    def flits_per_link(self) -> NDArray[np.int64]:
        """Flits that each link has sent until now."""
        taken = self.system.channels.fifo["head"]
        return np.array([sum(int(taken[port.bound[0].index]) for port in link.i) for link in self.links.values()], np.int64)


class _Program:
    """The operations of a task graph, by GPU.

    A transfer is one for each of its ``operations``; an all-reduce is one for each member, between two joins; a barrier
    is a join on GPU 0.
    """

    def __init__(self, graph: TaskGraph, spec: ChipletSpec, cabling: Cabling | Hubs) -> None:
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
        first = last = self._add(gpu, Does.SEND, flits=flits, chunk_flits=flits, **way)
        for _ in range(count - 1 if flits else 0):
            last = self._add(gpu, Does.SEND, [last], flits=flits, chunk_flits=flits, **way)
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
        cabling = self._cabling
        return {name: getattr(cabling, name)(gpu, peer) for name in ("lanes", "address", "channel")}

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
        for name in ("gpu", "does", "cycles", "flits", "chunk_flits", "lanes", "address", "channel"):
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
    def first_ends(self) -> list[tuple[int, int]]:
        """GPU and lane of each task's first flit, ``NOWHERE`` for what sends none."""
        lanes = self._operations["lanes"][self._place[self._first]].tolist()
        senders = zip(self._graph.device.tolist(), lanes, strict=True)
        return [(gpu, lowest(lanes)) if lanes else NOWHERE for gpu, lanes in senders]
