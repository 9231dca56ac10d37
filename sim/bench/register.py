"""The bench of the registers has an AXI4-Lite master that pauses on every channel, and inputs for each cycle."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from amaranth import Module

from lightfabric.rtl.register import Registers
from lightfabric.rtl.register_map import REGISTERS, WORD_BYTES, Table
from lightfabric.sim.bench.bench import Bench
from lightfabric.sim.bench.client import Pauses, Taker, never

CHANNELS = ("aw", "w", "b", "ar", "r")
EVERY_BYTE = (1 << WORD_BYTES) - 1


@dataclass(frozen=True)
class Access:
    """Describes a write of ``data`` where ``strobes`` say, or a read if there is no ``data``."""

    address: int
    data: int | None = None
    strobes: int = EVERY_BYTE

    @property
    def channels(self) -> tuple[str, ...]:
        """Return the channels that the access uses, the answer last."""
        return ("ar", "r") if self.data is None else ("aw", "w", "b")


@dataclass(frozen=True)
class Answer:
    """Holds what the master saw of an access: the cycle in which each channel was taken, response and data."""

    access: Access
    cycles: dict[str, int]
    response: int
    data: int | None


@dataclass(frozen=True)
class RegisterRun:
    """Holds what one run of the bench showed.

    ``answers`` are in the order of the accesses; ``changed`` are the cycles in which an answer that had not been taken was
    no longer offered unchanged; ``controls`` and ``irq`` are the outputs in each cycle.
    """

    cycles: int
    answers: list[Answer]
    changed: list[int]
    controls: list[dict[str, int]]
    irq: list[int]


class _Sender:
    """Offers the transfers of one channel in order, each once it may start; an offered one stays until it is taken."""

    def __init__(self, bus, channel: str, transfers: list[dict[str, int]], pauses: Pauses):
        self.bus, self.channel, self.transfers, self.pauses = bus, channel, transfers, pauses
        self.taken: list[int] = []
        self._offering = False
        self.samples = (getattr(bus, f"{channel}ready"),)

    def step(self, ctx, cycle: int, may_start: int, ready: int | None) -> None:
        """Take what cycle ``cycle - 1`` showed; in ``cycle`` the first ``may_start`` transfers may be offered."""
        if self._offering and ready:
            self.taken.append(cycle - 1)
            self._offering = False
        if not self._offering:
            self._offering = len(self.taken) < may_start and not self.pauses(cycle)
            ctx.set(getattr(self.bus, f"{self.channel}valid"), self._offering)
            transfer = self.transfers[len(self.taken)] if self._offering else {}
            for name, value in transfer.items():
                ctx.set(getattr(self.bus, name), value)


class _Answers(Taker):
    """Takes the answers of one channel except while it pauses, and watches those that wait."""

    def __init__(self, bus, channel: str, names: tuple[str, ...], pauses: Pauses):
        values = tuple(getattr(bus, name) for name in names)
        super().__init__(getattr(bus, f"{channel}valid"), getattr(bus, f"{channel}ready"), values, pauses)
        self.taken: list[int] = []
        self.values: list[tuple[int, ...]] = []

    def _take(self, cycle: int, *values: int) -> None:
        self.taken.append(cycle)
        self.values.append(values)


class Master:
    """Makes accesses as a master of AXI4-Lite.

    ``together`` starts every access as soon as it can; otherwise each waits for the answer to the one before it.
    """

    def __init__(self, bus, accesses: Iterable[Access], pauses: Mapping[str, Pauses], together: bool):
        self.accesses, self.together = list(accesses), together
        writes = [access for access in self.accesses if access.data is not None]
        reads = [access for access in self.accesses if access.data is None]
        transfers = {
            "aw": [{"awaddr": access.address} for access in writes],
            "w": [{"wdata": access.data, "wstrb": access.strobes} for access in writes],
            "ar": [{"araddr": access.address} for access in reads],
        }
        self._channels = {name: _Sender(bus, name, transfers[name], pauses.get(name, never)) for name in transfers}
        self._channels["b"] = _Answers(bus, "b", ("bresp",), pauses.get("b", never))
        self._channels["r"] = _Answers(bus, "r", ("rresp", "rdata"), pauses.get("r", never))
        self.samples = tuple(signal for name in CHANNELS for signal in self._channels[name].samples)

    def step(self, ctx, cycle: int, *values: int | None) -> None:
        """Take what cycle ``cycle - 1`` showed, and drive cycle ``cycle``."""
        given = iter(values)
        sampled = {name: [next(given) for _ in self._channels[name].samples] for name in CHANNELS}
        # Answers first: an access that ends in a cycle lets the next one begin in it.
        for name in ("b", "r"):
            self._channels[name].step(ctx, cycle, *sampled[name])
        for name in ("aw", "w", "ar"):
            self._channels[name].step(ctx, cycle, self._may_start(name), *sampled[name])

    def _may_start(self, channel: str) -> int:
        """Count the transfers of the channel in the accesses that may be under way."""
        started = self.accesses if self.together else self.accesses[: self.answered + 1]
        return sum(channel in access.channels for access in started)

    @property
    def answered(self) -> int:
        """Return the number of accesses that were answered."""
        return len(self._channels["b"].taken) + len(self._channels["r"].taken)

    @property
    def done(self) -> bool:
        """Tell whether all accesses were answered."""
        return self.answered >= len(self.accesses)

    @property
    def answers(self) -> list[Answer]:
        """Return the answers of the accesses, all of which were answered."""
        counts, answers = dict.fromkeys(CHANNELS, 0), []
        for access in self.accesses:
            cycles = {name: self._channels[name].taken[counts[name]] for name in access.channels}
            *_, last = access.channels
            response, *read = self._channels[last].values[counts[last]]
            answers.append(Answer(access, cycles, response, read[0] if read else None))
            for name in access.channels:
                counts[name] += 1
        return answers

    @property
    def changed(self) -> list[int]:
        """Return the cycles in which an answer that waited was not offered unchanged."""
        return sorted(self._channels["b"].changed + self._channels["r"].changed)


class _Surroundings:
    """Drives the inputs of each cycle, and records the outputs."""

    def __init__(self, registers: Registers, inputs: Callable[[int], Mapping[str, int]]):
        self.registers, self.inputs = registers, inputs
        self.controls: list[dict[str, int]] = []
        self.irq: list[int] = []
        self.samples = (registers.controls, registers.irq)

    def step(self, ctx, cycle: int, controls, irq: int | None) -> None:
        """Take what cycle ``cycle - 1`` showed, and drive cycle ``cycle``."""
        if cycle:
            self.controls.append({name: controls[name] for name, _ in self.registers.controls.shape()})
            self.irq.append(irq)
        ctx.set(self.registers.inputs, dict(self.inputs(cycle)))


def quiet(_cycle: int) -> dict[str, int]:
    """Return no input, so that all of them are 0."""
    return {}


class RegisterBench:
    """Holds the registers of one table, elaborated once."""

    def __init__(self, table: Table = REGISTERS):
        m = Module()
        m.submodules.registers = self._registers = Registers(table)
        self._bench = Bench(m)

    def run(
        self,
        accesses: Iterable[Access],
        *,
        pauses: Mapping[str, Pauses] | None = None,
        inputs: Callable[[int], Mapping[str, int]] = quiet,
        together: bool = False,
        spare_cycles: int = 0,
        bound_cycles: int = 10_000,
    ) -> RegisterRun:
        """Make the accesses, with ``pauses`` by channel, and go on for ``spare_cycles``; inputs not given are 0."""
        master = Master(self._registers.bus, accesses, pauses or {}, together)
        surroundings = _Surroundings(self._registers, inputs)
        ends: list[int] = []

        def done(cycle: int) -> bool:
            if master.done and not ends:
                ends.append(cycle + spare_cycles)
            return bool(ends) and cycle >= ends[0]

        cycles = self._bench.run([master, surroundings], done, bound_cycles)
        return RegisterRun(cycles, master.answers, master.changed, surroundings.controls, surroundings.irq)
