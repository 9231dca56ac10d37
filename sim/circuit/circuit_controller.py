"""The bench of the circuit controller has links, whose light goes through an optical switch, and a client at each."""

# The words of this bench:
# * *told*: a circuit that the mirror has heard of, which it takes up when it is to *turn*
# * *turning*: a mirror carries no light from the turn on until it has settled

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from amaranth import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.channel import ChannelSignature
from lightfabric.rtl.circuit_controller import (
    PARTS,
    CircuitController,
    Phase,
    PhaseBounds,
    Refusal,
)
from lightfabric.rtl.line import LineSignature
from lightfabric.rtl.link import Link
from lightfabric.sim.bench.bench import Bench, Driver, Monitor, Transfers


class SwitchedLinks(wiring.Component):
    """Joins the links of ``ports`` chiplets to the controller of the switch that their light goes through.

    Members
    -------
    i, o : In, Out(ChannelSignature(spec)).array(ports), of the links
    tx, rx : Out, In(LineSignature(spec)).array(ports)
    slip : Out(spec.lanes_per_port).array(ports)
    others : those of ``CircuitController``, but for its links
    """

    OF_LINKS = ("hold", "enable", "renew", "drained", "active")

    def __init__(self, spec: ChipletSpec, ports: int, bounds: PhaseBounds):
        self.spec, self.ports = spec, ports
        self.controller = CircuitController(ports, bounds)
        shown = {name: member for name, member in self.controller.signature.members.items() if name not in self.OF_LINKS}
        channel, line = ChannelSignature(spec), LineSignature(spec)
        ends = {"i": In(channel), "o": Out(channel), "tx": Out(line), "rx": In(line), "slip": Out(spec.lanes_per_port)}
        watched = {name: Out(ports) for name in ("hold", "enable", "active")}
        super().__init__({**shown, **{name: member.array(ports) for name, member in ends.items()}, **watched})

    def elaborate(self, platform):
        m = Module()
        m.submodules.controller = controller = self.controller
        for name, member in controller.signature.members.items():
            if name == "entry":
                wiring.connect(m, wiring.flipped(self.entry), controller.entry)
            elif name not in self.OF_LINKS:
                mine, its = getattr(self, name), getattr(controller, name)
                m.d.comb += its.eq(mine) if member.flow is In else mine.eq(its)
        for port in range(self.ports):
            m.submodules[f"link_{port}"] = link = Link(self.spec)
            wiring.connect(m, wiring.flipped(self.i[port]), link.i)
            wiring.connect(m, link.o, wiring.flipped(self.o[port]))
            wiring.connect(m, link.tx, wiring.flipped(self.tx[port]))
            wiring.connect(m, wiring.flipped(self.rx[port]), link.rx)
            m.d.comb += [
                self.slip[port].eq(link.slip),
                link.hold.eq(controller.hold[port]),
                link.enable.eq(controller.enable[port]),
                link.renew.eq(controller.renew[port]),
                controller.drained[port].eq(link.drained),
                controller.active[port].eq(link.status.active),
            ]
        m.d.comb += [getattr(self, name).eq(getattr(controller, name)) for name in ("hold", "enable")]
        m.d.comb += self.active.eq(controller.active)
        return m


@dataclass(frozen=True)
class Entry:
    """Holds a setting as it is told: the other port of each lit port, which may be any numbers.

    It is sent to the controller from ``at`` on; it begins at ``start``, or at once if that is None.
    """

    outputs: Mapping[int, int]
    guard: int
    at: int = 0
    start: int | None = None
    partial: int = 0

    def words(self, ports: int) -> list[dict]:
        """Return the values for ``rtl.circuit_controller.entry_layout``."""
        times = {"partial": self.partial, "at_once": self.start is None, "start": self.start or 0, "guard": self.guard}
        lit = [{"output": self.outputs.get(port, 0), "lit": port in self.outputs} for port in range(ports)]
        return [{"circuit": circuit, **times} for circuit in lit]


@dataclass(frozen=True)
class CircuitRun:
    """Holds what one run showed.

    ``verdicts`` are (cycle, refusal) in the order of the entries. ``holds`` has for each port the cycles in which its hold
    rose and fell, from cycle 0 on. ``parts`` are the cycles of each part, ``changes``, ``abandoned`` and ``refused`` the
    counts, ``blocking``, ``failed`` and ``out_of_service`` the masks at the end; ``turns`` are (cycle, mask).
    """

    cycles: int
    sent: list[Transfers]
    received: list[Transfers]
    verdicts: list[tuple[int, Refusal]]
    holds: list[list[tuple[int, int]]]
    phases: list[tuple[int, Phase]]
    turns: list[tuple[int, int]]
    parts: dict[str, int]
    counts: dict[str, int]


class Mirrors:
    """Carries light by the circuits that were taken up, and none while a mirror turns.

    A mirror settles ``settle_cycles(port)`` after a turn, or never if that is None; a beat takes ``delay_cycles``.
    """

    def __init__(self, top, settle_cycles: Callable[[int], int | None], delay_cycles: int):
        self._top, self._settle_cycles = top, settle_cycles
        lines = [
            value
            for line in getattr(top, "tx", ())
            for value in (Cat(block.as_value() for block in line.blocks), line.valid)
        ]
        self.samples = (top.mirror_valid, top.mirror_port, top.mirror.output, top.mirror.lit, top.turn, *lines)
        self._told, self._taken = dict[int, int | None](), dict[int, int | None]()
        self._dark_until = dict[int, float]()
        self._way = [deque([None] * delay_cycles) for _ in range(top.ports)]

    def step(self, ctx, cycle: int, valid=0, port=0, output=0, lit=0, turn=0, *lines) -> None:
        """Move the light on by one cycle."""
        if valid:
            self._told[port] = output if lit else None
        for number in range(self._top.ports):
            if turn and turn >> number & 1:
                self._taken[number], settle = self._told[number], self._settle_cycles(number)
                self._dark_until[number] = float("inf") if settle is None else cycle + settle
        carries = [self._dark_until.get(number, 0) <= cycle for number in range(self._top.ports)]
        ctx.set(self._top.settled, sum(1 << number for number, still in enumerate(carries) if still))
        if not lines:
            return
        beats = list(zip(lines[::2], lines[1::2], strict=True))
        comes = {self._taken.get(n): beat[0] for n, beat in enumerate(beats) if beat[1] and carries[n]}
        for number, rx in enumerate(self._top.rx):
            # Light passes the mirrors of both ports of its circuit.
            self._way[number].append(comes.get(number) if carries[number] else None)
            bits = self._way[number].popleft()
            ctx.set(rx.valid, bits is not None)
            if bits is not None:
                for lane, block in enumerate(rx.blocks):
                    ctx.set(block.as_value(), bits >> lane * len(block.as_value()) & (1 << len(block.as_value())) - 1)


class _Operator:
    """Sends entries, takes ports out, and records what the controller tells."""

    def __init__(self, top, entries: Iterable[Entry], pulses: Mapping[int, tuple[str, int]], locked):
        self._top, self._entries, self._pulses, self._locked = top, list(entries), pulses, locked
        self._words, self._offered = list[tuple[int, dict]](), False
        for entry in self._entries:
            self._words += [(entry.at, word) for word in entry.words(top.ports)]
        told = (top.entry.ready, top.judged, top.refusal, top.hold, top.phase, top.turn, top.relock)
        parts = (getattr(top, f"{name}_cycles") for name in PARTS)
        self.samples = (*told, top.changes, top.abandoned, top.refused, top.blocking, top.failed, top.out_of_service, *parts)
        self.verdicts, self.turns, self.phases = list[tuple[int, Refusal]](), list[tuple[int, int]](), [(0, Phase.IDLE)]
        self.holds = [[(0, 1)] for _ in range(top.ports)]
        self.counts, self.parts = dict[str, int](), dict[str, int]()

    def step(self, ctx, cycle, ready=0, judged=0, refusal=0, hold=0, phase=0, turn=0, relock=0, *counts) -> None:
        """Take what cycle ``cycle - 1`` showed, and drive cycle ``cycle``."""
        if self._offered and ready:
            self._words.pop(0)
        self._offered = bool(self._words) and self._words[0][0] <= cycle
        ctx.set(self._top.entry.valid, self._offered)
        if self._offered:
            ctx.set(self._top.entry.payload, self._words[0][1])
        for name in ("take_out", "put_back"):
            asked, mask = self._pulses.get(cycle, ("", 0))
            ctx.set(getattr(self._top, name), mask if asked == name else 0)
        ctx.set(self._top.locked, self._locked(cycle, relock))
        if cycle == 0:
            return
        if judged:
            self.verdicts.append((cycle - 1, Refusal(refusal)))
        if turn:
            self.turns.append((cycle - 1, turn))
        if Phase(phase) != self.phases[-1][1]:
            self.phases.append((cycle - 1, Phase(phase)))
        for port, changes in enumerate(self.holds):
            if changes[-1][1] != hold >> port & 1:
                changes.append((cycle - 1, hold >> port & 1))
        names = ("changes", "abandoned", "refused", "blocking", "failed", "out_of_service")
        self.counts = dict(zip(names, counts[: len(names)], strict=True))
        self.parts = dict(zip(PARTS, counts[len(names) :], strict=True))

    @property
    def done(self) -> bool:
        """Tell whether each entry was made, abandoned or refused."""
        return sum(self.counts.get(name, 0) for name in ("changes", "abandoned", "refused")) >= len(self._entries)

    def run(self, cycles: int, sent: list[Transfers], received: list[Transfers]) -> CircuitRun:
        """Return what was seen until now."""
        return CircuitRun(
            cycles, sent, received, self.verdicts, self.holds, self.phases, self.turns, self.parts, self.counts
        )


class OcsBench:
    """Holds links, a controller and the switch between them, elaborated once."""

    def __init__(self, spec: ChipletSpec, ports: int, bounds: PhaseBounds):
        self.spec, self._top, m = spec, SwitchedLinks(spec, ports, bounds), Module()
        m.submodules.top = self._top
        self._bench = Bench(m)

    def run(
        self,
        flits: Mapping[int, Transfers],
        entries: Iterable[Entry],
        *,
        settle_cycles: Callable[[int], int | None] = lambda _: 40,
        locked: Callable[[int, int], int] = lambda _cycle, _relock: -1,
        pulses: Mapping[int, tuple[str, int]] | None = None,
        delay_cycles: int = 3,
        credit_cycle: Callable[[int, int], int] = lambda _, cycle: cycle + 1,
        arrive: int | None = None,
        bound_cycles: int = 20_000,
    ) -> CircuitRun:
        """Send ``flits[port]`` (earliest cycle, flit) until all or ``arrive`` have come, and all entries are done with.

        Entries are made, abandoned or refused then. ``locked(cycle, relocked mask)`` is the mask of the rings, ``pulses``
        are (member, mask) by cycle.
        """
        top, ports = self._top, range(self._top.ports)
        entries = list(entries)
        drivers = [Driver(self.spec, top.i[port], flits.get(port, [])) for port in ports]
        monitors = [Monitor(self.spec, top.o[port], credit_cycle) for port in ports]
        mirrors, operator = Mirrors(top, settle_cycles, delay_cycles), _Operator(top, entries, pulses or {}, locked)
        total = sum(len(driver.flits) for driver in drivers) if arrive is None else arrive

        def done(_cycle: int) -> bool:
            return operator.done and sum(len(monitor.received) for monitor in monitors) >= total

        cycles = self._bench.run([*drivers, *monitors, mirrors, operator], done, bound_cycles)
        sent, received = [driver.sent for driver in drivers], [monitor.received for monitor in monitors]
        return operator.run(cycles, sent, received)


class _Ports:
    """Stands for the links of a controller that is alone: they drain and train in a given time, or never."""

    def __init__(self, controller: CircuitController, drain_cycles, train_cycles):
        self._controller, self._times = controller, {"drained": drain_cycles, "active": train_cycles}
        self.samples = (controller.hold, controller.enable)
        self._since = dict[tuple[str, int], int]()

    def step(self, ctx, cycle: int, hold: int | None = None, enable: int | None = None) -> None:
        for name, asked in (("drained", hold or 0), ("active", enable or 0)):
            mask = 0
            for port in range(self._controller.ports):
                since = self._since.setdefault((name, port), cycle) if asked >> port & 1 else None
                if since is None:
                    self._since.pop((name, port), None)
                takes = self._times[name](port)
                mask |= (since is not None and takes is not None and cycle - since >= takes) << port
            ctx.set(getattr(self._controller, name), mask)


class ControllerBench:
    """Holds a controller alone, elaborated once; links are numbers of cycles."""

    def __init__(self, ports: int, bounds: PhaseBounds):
        m = Module()
        m.submodules.controller = self._controller = CircuitController(ports, bounds)
        self._bench = Bench(m)

    def run(
        self,
        entries: Iterable[Entry],
        *,
        drain_cycles: Callable[[int], int | None] = lambda _: 10,
        train_cycles: Callable[[int], int | None] = lambda _: 30,
        settle_cycles: Callable[[int], int | None] = lambda _: 20,
        locked: Callable[[int, int], int] = lambda _cycle, _relock: -1,
        pulses: Mapping[int, tuple[str, int]] | None = None,
        bound_cycles: int = 20_000,
    ) -> CircuitRun:
        """Run until all entries are done with; the times are those of each port, None for never."""
        entries = list(entries)
        mirrors = Mirrors(self._controller, settle_cycles, 0)
        operator = _Operator(self._controller, entries, pulses or {}, locked)
        actors = [_Ports(self._controller, drain_cycles, train_cycles), mirrors, operator]
        cycles = self._bench.run(actors, lambda _: operator.done, bound_cycles)
        return operator.run(cycles, [], [])
