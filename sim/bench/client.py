"""The benches of the client side have streams with pauses at one end, a credited channel at the other."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from amaranth import Module

from lightfabric.model.codec import ADDRESS_BITS
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.client import Egress, Ingress
from lightfabric.sim.bench.bench import Bench, ClientFlit, Driver, Monitor, Transfers

Pauses = Callable[[int], bool]
"""Cycle -> whether the client pauses in it."""


Words = Iterable[ClientFlit]
"""The words of a stream, told like flits: the payload of a word are the bytes that it keeps."""


def never(_cycle: int) -> bool:
    """Tell that the client never pauses."""
    return False


def words(spec: ChipletSpec, flits: Iterable[ClientFlit]) -> list[ClientFlit]:
    """Return the same packets, flit after flit or word after word, cut into words of the stream: all full but the last."""
    cut: list[ClientFlit] = []
    content = bytearray()
    for flit in flits:
        content += flit.payload
        # Greater, not equal: the last word of a packet is known only when no byte follows.
        while len(content) > spec.client_bytes:
            cut.append(replace(flit, payload=bytes(content[: spec.client_bytes]), last=0, error=0))
            del content[: spec.client_bytes]
        if flit.last:
            cut.append(replace(flit, payload=bytes(content)))
            content.clear()
    return cut


def contiguous(word: ClientFlit) -> int:
    """Return the ``keep`` of a word: its bytes from 0 on."""
    return (1 << len(word.payload)) - 1


class StreamSource:
    """Offers words on a stream, except while it pauses; an offered word stays until it is taken.

    Bytes outside a contiguous ``keep`` are ones, so that a design that lets them through is found out. ``keep(word)`` may
    break the rules. A word of ``error`` sets ``cut`` beside the stream. ``earliest_cycles`` has, of each packet, the cycle
    before which none of its words is offered; packets beyond its end are offered at once.
    """

    def __init__(
        self,
        spec: ChipletSpec,
        stream,
        words: Words,
        pauses: Pauses = never,
        keep: Callable[[ClientFlit], int] = contiguous,
        earliest_cycles: Sequence[int] = (),
        cut=None,
    ):
        self.spec, self.stream, self.words, self.pauses, self.keep = spec, stream, list(words), pauses, keep
        self.earliest_cycles, self._packets = earliest_cycles, 0
        self.cut = cut
        self.sent: Transfers = []
        self._offering = False
        self.samples = (stream.ready,)

    def step(self, ctx, cycle: int, ready: int | None) -> None:
        """Take what cycle ``cycle - 1`` showed, and drive cycle ``cycle``."""
        if self._offering and ready:
            word = self.words[len(self.sent)]
            self.sent.append((cycle - 1, word))
            self._packets += word.last
            self._offering = False
        if not self._offering:
            self._offering = not self.done and self._due(cycle) and not self.pauses(cycle)
            ctx.set(self.stream.valid, self._offering)
            if self._offering:
                word = self.words[len(self.sent)]
                ctx.set(self.stream.payload, self._beat(word))
                if self.cut is not None:
                    ctx.set(self.cut, word.error)

    def _due(self, cycle: int) -> bool:
        return self._packets >= len(self.earliest_cycles) or cycle >= self.earliest_cycles[self._packets]

    def _beat(self, word: ClientFlit) -> dict[str, int]:
        # Ones in place of the zeros that a well behaved client sends.
        stale = b"\xff" * (self.spec.client_bytes - len(word.payload))
        return {
            "data": int.from_bytes(word.payload + stale, "little"),
            "keep": self.keep(word),
            "last": word.last,
            "dest": word.destination,
            "user": word.virtual_channel,
        }

    @property
    def done(self) -> bool:
        """Tell whether all words were taken."""
        return len(self.sent) == len(self.words)


class Taker:
    """Takes what is offered, except while it pauses, and notes in ``changed`` when an offer does not stay until then."""

    def __init__(self, valid, ready, values: tuple, pauses: Pauses):
        self.pauses, self._ready_signal = pauses, ready
        self.changed: list[int] = []
        self._ready, self._waiting = False, None
        self.samples = (valid, *values)

    def step(self, ctx, cycle: int, valid: int | None, *values) -> None:
        """Take what cycle ``cycle - 1`` showed, and drive cycle ``cycle``."""
        offered = values if valid else None
        if self._waiting is not None and offered != self._waiting:
            self.changed.append(cycle - 1)
        # The ready that was driven for the cycle before: a taken word may change.
        self._waiting = None if self._ready else offered
        if valid and self._ready:
            self._take(cycle - 1, *values)
        self._ready = not self.pauses(cycle)
        ctx.set(self._ready_signal, self._ready)


class StreamSink(Taker):
    """Takes the words of a stream, except while it pauses, and watches what is offered in the meantime.

    ``changed`` are the cycles in which a word that had not been taken was no longer offered unchanged, ``stale`` those of
    words with a byte other than zero outside ``keep``, ``short`` those of words before the last that are not full.
    ``packets`` were received to their end; they were sent in ``flits``.
    """

    def __init__(self, spec: ChipletSpec, stream, pauses: Pauses = never):
        super().__init__(stream.valid, stream.ready, (stream.payload,), pauses)
        self.spec = spec
        self.received: Transfers = []
        self.stale: list[int] = []
        self.short: list[int] = []
        self.packets = self.flits = self._packet_bytes = 0

    def _take(self, cycle: int, beat) -> None:
        length_bytes = beat.keep.bit_count()
        content = beat.data.to_bytes(self.spec.client_bytes, "little")
        if any(content[length_bytes:]) or beat.keep != (1 << length_bytes) - 1:
            self.stale.append(cycle)
        if not beat.last and length_bytes < self.spec.client_bytes:
            self.short.append(cycle)
        word = ClientFlit(content[:length_bytes], beat.dest, beat.id, beat.user, beat.last, beat.error)
        self.received.append((cycle, word))
        self._packet_bytes += length_bytes
        if beat.last:
            self.packets += 1
            # A packet without a byte still takes a flit.
            self.flits += max(1, -(-self._packet_bytes // self.spec.payload_bytes))
            self._packet_bytes = 0


@dataclass(frozen=True)
class ClientRun:
    """Holds what a run showed, words on the stream's side; ``changed``, ``stale``, ``short`` as in :class:`StreamSink`.

    ``refused`` and ``stalled`` count the packets of which an ingress says so.
    """

    cycles: int
    sent: Transfers
    received: Transfers
    changed: list[int]
    stale: list[int]
    short: list[int]
    refused: int = 0
    stalled: int = 0


class IngressBench:
    """Holds the ingress of one spec, elaborated once: a stream in, a channel out."""

    def __init__(self, spec: ChipletSpec, address: int, destinations: int = 1 << ADDRESS_BITS):
        self.spec, m = spec, Module()
        m.submodules.ingress = self._ingress = Ingress(spec, address, destinations)
        self._bench = Bench(m)

    def run(
        self,
        words: Words,
        *,
        pauses: Pauses = never,
        keep: Callable[[ClientFlit], int] = contiguous,
        credit_cycle: Callable[[int, int], int] = lambda _, cycle: cycle + 1,
        earliest_cycles: Sequence[int] = (),
        bound_cycles: int = 10_000,
    ) -> ClientRun:
        """Send the words until all are taken, as many packets have come or been refused, and all flits are credited.

        ``credit_cycle(n, cycle)`` is when the buffer of flit n, delivered in ``cycle``, is given back.
        """
        source = StreamSource(self.spec, self._ingress.i, words, pauses, keep, earliest_cycles, self._ingress.cut)
        monitor = Monitor(self.spec, self._ingress.o, credit_cycle)
        watch = _FlitWatch(self._ingress)
        packets = sum(word.last for word in source.words)

        def done(_: int) -> bool:
            ended = watch.packets + watch.refused >= packets
            return source.done and ended and len(monitor.credited) == len(monitor.received)

        cycles = self._bench.run([source, monitor, watch], done, bound_cycles)
        return ClientRun(cycles, source.sent, monitor.received, [], watch.stale, [], watch.refused, watch.stalled)


class _FlitWatch:
    """Counts packets, refused and stalled ones; notes the cycles of flits with a byte other than zero past their length."""

    def __init__(self, ingress):
        self.stale: list[int] = []
        self.packets = self.refused = self.stalled = 0
        self.samples = (ingress.o.valid, ingress.o.flit, ingress.refused, ingress.stalled)

    def step(self, _ctx, cycle: int, valid: int | None, flit, refused: int | None, stalled: int | None) -> None:
        self.refused += refused or 0
        self.stalled += stalled or 0
        if not valid:
            return
        self.packets += flit.last
        if flit.payload >> 8 * flit.length_bytes:
            self.stale.append(cycle - 1)


class EgressBench:
    """Holds the egress of one spec, elaborated once: a channel in, a stream out."""

    def __init__(self, spec: ChipletSpec):
        self.spec, m = spec, Module()
        m.submodules.egress = self._egress = Egress(spec)
        self._bench = Bench(m)

    def run(
        self,
        flits: Iterable[tuple[int, ClientFlit]],
        *,
        pauses: Pauses = never,
        bound_cycles: int = 10_000,
    ) -> ClientRun:
        """Send the flits (earliest cycle, flit) as the credits allow until the stream has given all their packets."""
        driver = Driver(self.spec, self._egress.i, flits)
        sink = StreamSink(self.spec, self._egress.o, pauses)
        packets = sum(flit.last for _, flit in driver.flits)
        cycles = self._bench.run([driver, sink], lambda _: sink.packets >= packets, bound_cycles)
        return ClientRun(cycles, driver.sent, sink.received, sink.changed, sink.stale, sink.short)
