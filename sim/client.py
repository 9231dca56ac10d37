"""Benches of the client side: streams with pauses at one end, a credited channel at the other."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from amaranth import Module

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.client import Egress, Ingress
from lightfabric.sim.bench import Bench, ClientFlit, Driver, Monitor, Transfers

Pauses = Callable[[int], bool]
"""Cycle -> whether the client pauses in it."""


def never(_cycle: int) -> bool:
    """No pauses."""
    return False


class StreamSource:
    """Offers flits as beats of a stream, except while it pauses; an offered beat stays until it is taken.

    Bytes outside ``keep`` are ones, so that a design that lets them through is found out.
    """

    def __init__(self, spec: ChipletSpec, stream, flits: Iterable[ClientFlit], pauses: Pauses = never):
        self.spec, self.stream, self.flits, self.pauses = spec, stream, list(flits), pauses
        self.sent: Transfers = []
        self._offering = False
        self.samples = (stream.ready,)

    def step(self, ctx, cycle: int, ready: int | None) -> None:
        """Take what cycle ``cycle - 1`` showed, and drive cycle ``cycle``."""
        if self._offering and ready:
            self.sent.append((cycle - 1, self.flits[len(self.sent)]))
            self._offering = False
        if not self._offering:
            self._offering = not self.done and not self.pauses(cycle)
            ctx.set(self.stream.valid, self._offering)
            if self._offering:
                ctx.set(self.stream.payload, self._beat(self.flits[len(self.sent)]))

    def _beat(self, flit: ClientFlit) -> dict[str, int]:
        stale = b"\xff" * (self.spec.payload_bytes - len(flit.payload))
        return {
            "data": int.from_bytes(flit.payload + stale, "little"),
            "keep": (1 << len(flit.payload)) - 1,
            "last": flit.last,
            "dest": flit.destination,
            "user": flit.virtual_channel,
        }

    @property
    def done(self) -> bool:
        """All flits were taken."""
        return len(self.sent) == len(self.flits)


class StreamSink:
    """Takes the beats of a stream, except while it pauses, and watches what is offered in the meantime.

    ``changed`` are the cycles in which a beat that had not been taken was no longer offered unchanged, ``stale`` those of
    beats with a byte other than zero outside ``keep``.
    """

    def __init__(self, spec: ChipletSpec, stream, pauses: Pauses = never):
        self.spec, self.stream, self.pauses = spec, stream, pauses
        self.received: Transfers = []
        self.changed: list[int] = []
        self.stale: list[int] = []
        self._ready, self._waiting = False, None
        self.samples = (stream.valid, stream.payload)

    def step(self, ctx, cycle: int, valid: int | None, beat) -> None:
        """Take what cycle ``cycle - 1`` showed, and drive cycle ``cycle``."""
        offered = beat.as_bits() if valid else None
        if self._waiting is not None and offered != self._waiting:
            self.changed.append(cycle - 1)
        self._waiting = None if self._ready else offered
        if valid and self._ready:
            self._receive(cycle - 1, beat)
        self._ready = not self.pauses(cycle)
        ctx.set(self.stream.ready, self._ready)

    def _receive(self, cycle: int, beat) -> None:
        length_bytes = beat.keep.bit_count()
        content = beat.data.to_bytes(self.spec.payload_bytes, "little")
        if any(content[length_bytes:]) or beat.keep != (1 << length_bytes) - 1:
            self.stale.append(cycle)
        self.received.append((cycle, ClientFlit(content[:length_bytes], beat.dest, beat.id, beat.user, beat.last)))


@dataclass(frozen=True)
class ClientRun:
    """What one run showed; ``changed`` and ``stale`` as in :class:`StreamSink`."""

    cycles: int
    sent: Transfers
    received: Transfers
    changed: list[int]
    stale: list[int]


class IngressBench:
    """The ingress of one spec, elaborated once: a stream in, a channel out."""

    def __init__(self, spec: ChipletSpec, address: int):
        self.spec, m = spec, Module()
        m.submodules.ingress = self._ingress = Ingress(spec, address)
        self._bench = Bench(m)

    def run(
        self,
        flits: Iterable[ClientFlit],
        *,
        pauses: Pauses = never,
        credit_cycle: Callable[[int, int], int] = lambda _, cycle: cycle + 1,
        bound_cycles: int = 10_000,
    ) -> ClientRun:
        """Send the flits; ``credit_cycle(n, cycle)`` is when the buffer of flit n, delivered in ``cycle``, is given back."""
        source = StreamSource(self.spec, self._ingress.i, flits, pauses)
        monitor = Monitor(self.spec, self._ingress.o, credit_cycle)
        stale = _StaleBytes(self._ingress.o)
        cycles = self._bench.run(
            [source, monitor, stale], lambda _: len(monitor.credited) >= len(source.flits), bound_cycles
        )
        return ClientRun(cycles, source.sent, monitor.received, [], stale.cycles)


class _StaleBytes:
    """Cycles of flits with a byte other than zero past their length."""

    def __init__(self, channel):
        self.cycles: list[int] = []
        self.samples = (channel.valid, channel.flit)

    def step(self, _ctx, cycle: int, valid: int | None, flit) -> None:
        if valid and flit.payload >> 8 * flit.length_bytes:
            self.cycles.append(cycle - 1)


class EgressBench:
    """The egress of one spec, elaborated once: a channel in, a stream out."""

    def __init__(self, spec: ChipletSpec):
        self.spec, m = spec, Module()
        m.submodules.egress = self._egress = Egress(spec)
        self._bench = Bench(m)

    def run(
        self, flits: Iterable[tuple[int, ClientFlit]], *, pauses: Pauses = never, bound_cycles: int = 10_000
    ) -> ClientRun:
        """Send the flits (earliest cycle, flit) as the credits allow until the stream has given them all."""
        driver = Driver(self.spec, self._egress.i, flits)
        sink = StreamSink(self.spec, self._egress.o, pauses)
        cycles = self._bench.run([driver, sink], lambda _: len(sink.received) >= len(driver.flits), bound_cycles)
        return ClientRun(cycles, driver.sent, sink.received, sink.changed, sink.stale)
