"""A cluster joins chiplets, each with its GPU, to one system of the cycle kernel, which runs a task graph.

A chiplet is a switch with a client and a link for each port, as in ``lightfabric.rtl.chiplet``; all cycles are those
measured on the RTL. A circuit is a fibre from a port of one chiplet to a port of another: on a ring to the next, through
optical switches to whatever these are set to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from lightfabric.model.cycle.cabling import Cabling, ElectricalCabling, Hub, delay_cycles, fibre_cycles, line
from lightfabric.model.cycle.gpu import Gpu
from lightfabric.model.cycle.link import Link
from lightfabric.model.cycle.program import NOWHERE, Program
from lightfabric.model.cycle.slot import Losses
from lightfabric.model.cycle.switch import Switch
from lightfabric.model.cycle.switched import SwitchedCabling
from lightfabric.model.kernel.block import Module, Port, connect
from lightfabric.model.kernel.channel import Fifo
from lightfabric.model.kernel.compiled import Records
from lightfabric.model.kernel.system import System
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.task import Schedule, TaskGraph
from lightfabric.model.timing import Timing

MAX_CYCLES = 1 << 40
MAX_PORTS = 32
"""A chiplet's switch has twice as many, and keeps the inputs that want an output in a word of 64 bits."""


class Cluster:
    """Runs ``graph`` on chiplets of a spec and its timing; rank r is GPU r.

    ValueError if GPUs talk to each other that no circuit joins. Memory grows with the places for flits, of which each
    chiplet has ``8 * ports * virtual_channels * buffer_flits``. Every message takes ``message_latency_cycles`` more, as in
    a library of collectives. Lines are trained when the system starts; ``frame_beats`` says for links by GPU and lane which
    of their beats is the first of a slot, 1 where it does not. Each link loses slots to bit errors of its own.

    ``links`` are by GPU and lane; those from a hub or a switch by its node, which follow the GPUs, and a number. They lead
    to ``far_node``.
    """

    def __init__(
        self,
        graph: TaskGraph,
        spec: ChipletSpec,
        timing: Timing,
        cabling: Cabling | ElectricalCabling | SwitchedCabling,
        message_latency_cycles: int = 0,
        frame_beats: Mapping[tuple[int, int], int] = MappingProxyType({}),
    ) -> None:
        self.graph, self.spec, self._timing = graph, spec, timing
        self._message_latency_cycles, self._frame_beats = message_latency_cycles, frame_beats
        self.links = dict[tuple[int, int], Link]()
        self.far_node = dict[tuple[int, int], int]()
        self._program = Program(graph, spec, cabling)
        self.gpus = list[Gpu]()
        top = Module()
        if isinstance(cabling, ElectricalCabling):
            self._add_gpus(top, [cabling.far_ports(n) for n in range(graph.devices)])
            if cabling.circuits:
                self._join_by_circuits(top, cabling.circuits)
            for number, hub in enumerate(cabling.hubs):
                self._join_to_hub(top, number, hub, [cabling.first_lane(n, hub) for n in hub.gpus.tolist()])
        elif isinstance(cabling, SwitchedCabling):
            self._add_gpus(top, [cabling.far_ports(n) for n in range(graph.devices)])
            self._join_by_switches(top, cabling)
        else:
            self._add_gpus(top, cabling.port.tolist())
            self._join_by_circuits(top, cabling)
        self.system = System(top)

    @property
    def delay_cycles(self) -> int:
        """Find the cycles of flight on the longest link."""
        return max(int(link.state["delay_cycles"]) for link in self.links.values())

    def _add_gpus(self, top: Module, far_ports: Sequence[Sequence[int]]) -> None:
        flit_cycles = self._timing.client.ingress_cycles_per_flit
        self.gpus += [top.add(f"gpu[{n}]", self._program.gpu(n, ports, flit_cycles)) for n, ports in enumerate(far_ports)]

    def _from_gpu(self, fifo: Fifo, latency_cycles: int = 0) -> Fifo:
        """Lengthen the channel out of a GPU by the latency of messages."""
        made = _longer(fifo, self._message_latency_cycles + latency_cycles)
        return replace(made, credit_cycles=self._timing.client.ingress_credit_cycles)

    def _join_to_hub(self, top: Module, number: int, hub: Hub, first_lanes: Sequence[int]) -> None:
        """Add the switches of a hub; its links to GPUs are numbered plane by plane."""
        timing, channels, size = self._timing, self.spec.virtual_channels, len(hub.gpus)
        client = timing.client
        spec, node = line(self.spec, hub.share), self.graph.devices + number
        delay, more, back = (delay_cycles(ps, spec) for ps in (hub.flight_ps, hub.latency_ps, hub.down_latency_ps))
        for plane in range(hub.planes):
            switch = top.add(f"hub[{number}][{plane}]", Switch(replace(spec, ports=-(-size // 2)), timing.switch))
            for queue in range(size * channels, len(switch.i)):  # ports are even in number: an odd one leads to itself
                connect(switch.o[queue], switch.i[queue], Fifo(1))
            for place, n in enumerate(map(int, hub.gpus)):
                lane, port = first_lanes[place] + plane, plane * size + place
                up = self._add_link(top, (n, lane), node, spec, delay, timing.switch.credit_cycles)
                down = self._add_link(top, (node, port), n, spec, delay, client.egress_cycles)
                for v in range(channels):
                    queue, of_gpu = place * channels + v, lane * channels + v
                    connect(
                        self.gpus[n].o[of_gpu],
                        up.i[v],
                        self._from_gpu(Link.input_fifo(spec, timing.link, client.ingress_cycles), more),
                    )
                    connect(up.o[v], switch.i[queue], up.output_fifo())
                    connect(switch.o[queue], down.i[v], _longer(switch.output_fifo(timing.link.accept_cycles), back))
                    connect(down.o[v], self.gpus[n].i[of_gpu], down.output_fifo())

    def _add_link(
        self,
        top: Module,
        end: tuple[int, int],
        far_node: int,
        spec: ChipletSpec,
        delay_cycles: int,
        consumer_cycles: int,
        light: tuple[int, int, int] = (0, 0, 0),
    ) -> Link:
        # Each link is the only one with its seed, so that bit errors of different fibres do not coincide.
        losses, frame_beat = Losses.of(spec, seed=len(self.links)), self._frame_beats.get(end, 1)
        link = Link(
            spec, self._timing.link, delay_cycles, consumer_cycles, frame_beat=frame_beat, losses=losses, light=light
        )
        self.links[end], self.far_node[end] = link, far_node
        return top.add(f"link[{end[0]}][{end[1]}]", link)

    def _join_by_circuits(self, top: Module, cabling: Cabling) -> None:
        cabling.verify(self.spec.virtual_channels)
        switches = self._add_switches(top, cabling)
        share, fibre_m = (np.broadcast_to(field, cabling.gpu.shape).tolist() for field in (cabling.share, cabling.fibre_m))
        lines = {share: line(self.spec, share) for share in {*chain(*share)} if share > 0}
        light = [cabling.light_cycles(n, self.spec.cycle_ps) for n in range(len(cabling.gpu))]
        for n, far_gpus in enumerate(cabling.gpu.tolist()):
            for p, far in enumerate(map(int, far_gpus)):
                outputs = self._line_queues(switches[n].o, p)
                inputs = self._line_queues(switches[far].i, int(cabling.port[n, p]))
                if share[n][p] > 0:
                    delay = fibre_cycles(fibre_m[n][p], self.spec)
                    link = self._add_link(
                        top, (n, p), far, lines[share[n][p]], delay, self._timing.switch.credit_cycles, light[n]
                    )
                    renamed = cabling.renames.get((n, far), range(len(outputs)))
                    self._join_by_link(link, switches[n], outputs, inputs, renamed)
                else:
                    # A dark port carries nothing, yet ports of a system must be bound: the cheapest Fifo does.
                    for output, input_ in zip(outputs, inputs, strict=True):
                        connect(output, input_, Fifo(1))

    def _add_switches(self, top: Module, cabling: Cabling) -> list[Switch]:
        """Add the switch of each chiplet, with the GPU at its first ports."""
        if not 1 <= cabling.ports <= MAX_PORTS:
            raise ValueError(f"Cabling.gpu must be of 1 to {MAX_PORTS} ports for each GPU, not {cabling.ports}")
        spec, switches = replace(self.spec, ports=cabling.ports), list[Switch]()
        for n, gpu in enumerate(self.gpus):
            switches.append(top.add(f"switch[{n}]", Switch(spec, self._timing.switch, cabling.routes(n))))
            self._join_to_gpu(gpu, switches[n])
        return switches

    def _join_to_gpu(self, gpu: Gpu, switch: Switch) -> None:
        """Join the lanes of a GPU to the first ports of its switch, as many as there are of both: others lead to hubs."""
        client, joined = self._timing.client, min(len(gpu.o), len(switch.o) // 2)
        for q, (output, input_) in enumerate(zip(gpu.o[:joined], gpu.i[:joined], strict=True)):
            into = Switch.input_fifo(self.spec, self._timing.switch, client.ingress_cycles)
            connect(output, switch.i[q], self._from_gpu(into))
            connect(switch.o[q], input_, switch.output_fifo(client.egress_cycles))

    def _join_by_switches(self, top: Module, cabling: SwitchedCabling) -> None:
        switches = dict[tuple[int, int], Switch]()
        for node in np.flatnonzero(cabling.switch_ports).tolist():
            # The ports of a chiplet's switch are even in number: one that is left over is bound below.
            spec, outputs = replace(self.spec, ports=-(-int(cabling.switch_ports[node]) // 2)), cabling.outputs(node)
            for plane in range(int(cabling.planes[node])):
                made = top.add(f"switch[{node}][{plane}]", Switch(spec, self._timing.switch, outputs))
                switches[node, plane] = made
            if node < len(self.gpus):
                self._join_to_gpu(self.gpus[node], switches[node, 0])

        def end(node: int, first: int, port: int) -> tuple[Gpu | Switch, int]:
            if not cabling.is_switch[node]:
                return self.gpus[node], first + port
            plane, number = cabling.place(node, first, port)
            return switches[node, plane], number

        columns = (cabling.source, cabling.destination, cabling.port_out, cabling.port_in, cabling.ports)
        for link, (source, destination, out, into, ports) in enumerate(
            zip(*(each.tolist() for each in columns), strict=True)
        ):
            spec = line(self.spec, float(cabling.share[link]))
            for port in range(ports):
                ends = end(source, out, port), end(destination, into, port)
                self._add_wire(top, (source, out + port), destination, spec, float(cabling.wait_ps[link]), *ends)
        blocks = [*self.gpus, *switches.values()]
        outputs = [port for block in blocks for port in block.o if not port.bound]
        for output, input_ in zip(outputs, [port for block in blocks for port in block.i if not port.bound], strict=True):
            connect(output, input_, Fifo(1))

    def _add_wire(
        self,
        top: Module,
        end: tuple[int, int],
        far: int,
        spec: ChipletSpec,
        wait_ps: float,
        source: tuple[Gpu | Switch, int],
        destination: tuple[Gpu | Switch, int],
    ) -> None:
        """Add a link from a port of a GPU or a switch to one of another."""
        timing, wait, channels = self._timing, delay_cycles(wait_ps, spec), spec.virtual_channels
        (sender, output), (receiver, input_) = source, destination
        consumer_cycles = timing.switch.credit_cycles if isinstance(receiver, Switch) else timing.client.egress_cycles
        link = self._add_link(top, end, far, spec, 0, consumer_cycles)
        for v in range(channels):
            if isinstance(sender, Switch):
                fifo = _longer(sender.output_fifo(timing.link.accept_cycles), wait)
            else:
                fifo = self._from_gpu(Link.input_fifo(spec, timing.link, timing.client.ingress_cycles), wait)
            connect(sender.o[output * channels + v], link.i[v], fifo)
            connect(link.o[v], receiver.i[input_ * channels + v], link.output_fifo())

    def _line_queues(self, of_switch: list[Port], port: int) -> list[Port]:
        channels = self.spec.virtual_channels
        first = len(of_switch) // 2 + port * channels
        return of_switch[first : first + channels]

    def _join_by_link(
        self, link: Link, switch: Switch, outputs: list[Port], inputs: list[Port], renamed: Sequence[int]
    ) -> None:
        for v, output in zip(renamed, outputs, strict=True):
            connect(output, link.i[v], switch.output_fifo(self._timing.link.accept_cycles))
        for v, input_ in enumerate(inputs):
            connect(link.o[v], input_, link.output_fifo())

    def run(self, limit_cycle: int = MAX_CYCLES) -> Schedule:
        """Run the task graph to its end. Times are those of the cycles in which tasks start and finish.

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
        """Count the messages of each operation that has sent some, and say how many cycles one takes as a mean.

        A message is a transfer, or a chunk of a ring. It begins when it may be sent and ends when its last flit has arrived.
        """
        operations: Records = np.concatenate([gpu.operations for gpu in self.gpus])
        sent = operations[operations["flits"] > 0]
        count = sent["flits"] // sent["chunk_flits"]
        return count, (sent["finish_cycle"] - sent["start_cycle"]) / count

    def _limit(self) -> NDArray[np.int32]:
        """Find the first link of each transfer, -1 for what needs none."""
        number = {end: link for link, end in enumerate(self.links)} | {NOWHERE: -1}
        return np.array([number[end] for end in self._program.first_ends], np.int32)

    def flits_per_link(self) -> NDArray[np.int64]:
        """Count the flits that each link has sent until now."""
        taken = self.system.channels.fifo["head"]
        return np.array([sum(int(taken[port.bound[0].index]) for port in link.i) for link in self.links.values()], np.int64)


def _longer(fifo: Fifo, cycles: int) -> Fifo:
    """Let a channel take so many cycles more; as many more flits may be under way, so it is no slower."""
    return replace(fifo, depth=fifo.depth + cycles, latency_cycles=fifo.latency_cycles + cycles)
