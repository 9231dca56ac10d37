"""The benches share how a design is simulated within a bound on its cycles, and how flits go in and out."""

import contextlib
from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from amaranth import Module
from amaranth.sim import Simulator

from lightfabric.model.spec import ChipletSpec
from lightfabric.sim.bench.simulator import Pins, sampler, simulator


class BenchTimeoutError(Exception):
    """Says that the design did not come to an end within the cycles it was given."""


@dataclass(frozen=True)
class ClientFlit:
    """Holds what the client of a link or switch sees of a flit."""

    payload: bytes
    destination: int = 0
    source: int = 0
    virtual_channel: int = 0
    last: int = 1
    error: int = 0

    def fields(self) -> dict[str, int]:
        """Return the values for ``rtl.channel.flit_layout``."""
        return {
            "last": self.last,
            "error": self.error,
            "virtual_channel": self.virtual_channel,
            "length_bytes": len(self.payload),
            "destination": self.destination,
            "source": self.source,
            "payload": int.from_bytes(self.payload, "little"),
        }

    @staticmethod
    def of(spec: ChipletSpec, flit) -> "ClientFlit":
        """Make a flit from a sampled ``rtl.channel.flit_layout``."""
        payload = flit.payload.to_bytes(spec.payload_bytes, "little")[: flit.length_bytes]
        return ClientFlit(payload, flit.destination, flit.source, flit.virtual_channel, flit.last, flit.error)


Transfers = list[tuple[int, ClientFlit]]
"""(cycle, flit), by rising cycle."""


class Driver:
    """Sends flits into a channel as early as their cycle and the credits of their virtual channel allow.

    ``sent`` and ``credited`` record what was sent when, and when a credit came back.
    """

    def __init__(self, spec: ChipletSpec, channel, flits: Iterable[tuple[int, ClientFlit]]):
        self.spec, self.channel, self.flits = spec, channel, list(flits)
        self.credits = [spec.buffer_flits] * spec.virtual_channels
        self.sent: Transfers = []
        self.credited: list[int] = []
        self.samples = (channel.credit,)

    def step(self, ctx, cycle: int, credit: int | None) -> None:
        """Take what cycle ``cycle - 1`` showed, and drive cycle ``cycle``."""
        credit = credit or 0
        # The credit was at the channel's register in the cycle that was sampled, and may be spent from this one on.
        self.credited.extend([cycle - 1] * credit.bit_count())
        for v in range(len(self.credits)):
            self.credits[v] += credit >> v & 1
        ready = len(self.sent) < len(self.flits) and self.flits[len(self.sent)][0] <= cycle
        flit = self.flits[len(self.sent)][1] if ready else None
        ready = flit is not None and self.credits[flit.virtual_channel] > 0
        ctx.set(self.channel.valid, ready)
        if ready:
            ctx.set(self.channel.flit, flit.fields())
            self.credits[flit.virtual_channel] -= 1
            self.sent.append((cycle, flit))

    @property
    def done(self) -> bool:
        """Tell whether all flits were sent."""
        return len(self.sent) == len(self.flits)


class Monitor:
    """Stands for the client at the end of a channel: records flits and gives their credits back.

    ``credit_cycle(n, cycle)`` says when the buffer of flit n, delivered in ``cycle``, is given back; one per cycle.
    """

    def __init__(self, spec: ChipletSpec, channel, credit_cycle: Callable[[int, int], int] = lambda _, cycle: cycle + 1):
        self.spec, self.channel, self.credit_cycle = spec, channel, credit_cycle
        self.received: Transfers = []
        self.credited: list[int] = []
        self._due: list[tuple[int, int]] = []
        self._held = [0] * spec.virtual_channels
        self.samples = (channel.valid, channel.flit)

    def step(self, ctx, cycle: int, valid: int | None, flit) -> None:
        """Take what cycle ``cycle - 1`` showed, and drive cycle ``cycle``."""
        if valid:
            index = len(self.received)
            self.received.append((cycle - 1, ClientFlit.of(self.spec, flit)))
            # Not before this cycle: the flit was delivered in the one before, and the register of credits is driven
            # now.
            due = max(cycle, self.credit_cycle(index, cycle - 1)), self.received[-1][1].virtual_channel
            # To the right of others, so flits that are due together give their credits in the order of arrival.
            insort(self._due, due, key=lambda entry: entry[0])
            self._held[due[1]] += 1
        now = bool(self._due) and self._due[0][0] <= cycle
        ctx.set(self.channel.held, sum(1 << channel for channel, held in enumerate(self._held) if held))
        credit = self._due.pop(0)[1] if now else None
        ctx.set(self.channel.credit, 0 if credit is None else 1 << credit)
        if credit is not None:
            self._held[credit] -= 1
            self.credited.append(cycle)


class Bench:
    """Holds a design, elaborated once, that can be run many times from reset."""

    def __init__(self, design: Module):
        self._design = design
        self._simulator: Simulator | None = None

    def run(self, actors, done: Callable[[int], bool], bound_cycles: int, waves: str | None = None) -> int:
        """Simulate from reset until ``done(cycle)``; every actor has ``samples`` and ``step(ctx, cycle, *sampled)``.

        Cycle 0 is the first after reset. ``step`` gets what the cycle before showed (None in cycle 0) and drives
        ``cycle``. Returns the cycles run; BenchTimeoutError after ``bound_cycles``.
        """
        self._actors, self._done, self._bound_cycles, self._cycles = actors, done, bound_cycles, 0
        if self._simulator is None:
            self._simulator = simulator(self._design)
            self._simulator.add_clock(1e-9)
            self._simulator.add_process(self._process)
        else:
            # An elaborated design is kept: elaboration takes longer than most runs.
            self._simulator.reset()
        self._ended = False
        with self._simulator.write_vcd(waves) if waves else contextlib.nullcontext():
            while not self._ended:
                self._simulator.advance()
        return self._cycles

    async def _process(self, ctx):
        # Unlike a testbench, a process sets its signals together with the registers, so that the design is evaluated once.
        pins, parts, values = Pins(self._simulator, ctx), [], []
        for actor in self._actors:
            parts.append(slice(len(values), len(values) + len(actor.samples)))
            values.extend(actor.samples)
            actor.step(pins, 0, *(None for _ in actor.samples))
        sample = sampler(self._simulator, values)
        async for _ in ctx.tick():
            self._cycles += 1
            sampled = sample()
            for actor, part in zip(self._actors, parts, strict=True):
                actor.step(pins, self._cycles, *sampled[part])
            if self._done(self._cycles):
                self._ended = True
                return
            if self._cycles >= self._bound_cycles:
                raise BenchTimeoutError(f"the bench did not end within {self._bound_cycles} cycles")
