"""The bench of the chiplet joins some of them by fibres with delay and bit errors, a client at every stream."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from amaranth import Module

from lightfabric.model.deadlock import routed, verify
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.chiplet import Chiplet, paired_routes
from lightfabric.sim.bench.bench import Bench, ClientFlit, Transfers
from lightfabric.sim.bench.client import Pauses, StreamSink, StreamSource, never, words
from lightfabric.sim.bench.link import Errors, Fibre, clean, kept

Port = tuple[int, int]
"""(chiplet, line)"""


@dataclass(frozen=True)
class Plan:
    """Names chiplets of addresses 0, ``spec.ports``, ...: the routes of each, and the fibre pairs between them.

    ``renames`` are those of ``Chiplet``, by line; clients send on virtual channels ``starts``, on any if it is empty.
    """

    routes: tuple[tuple[int, ...], ...]
    fibres: tuple[tuple[Port, Port], ...]
    renames: Mapping[Port, tuple[int, ...]] = field(default_factory=dict)
    starts: tuple[int, ...] = ()

    def verify(self, spec: ChipletSpec) -> None:
        """Refuse routes whose packets may wait for each other in a circle: ValueError names it by output of the switch."""
        ends = [end for there in self.fibres for end in (there, there[::-1])]
        far = {(chiplet, spec.ports + line): other for (chiplet, line), (other, _) in ends}
        renames = {(chiplet, spec.ports + line): rename for (chiplet, line), rename in self.renames.items()}
        starts = self.starts or range(spec.virtual_channels)
        verify("Plan.routes", routed(self.routes, far, starts, renames))


def pair(spec: ChipletSpec) -> Plan:
    """Join two chiplets, line p of one to line p of the other."""
    routes = (paired_routes(spec, 0), paired_routes(spec, spec.ports))
    return Plan(routes, tuple(((0, port), (1, port)) for port in range(spec.ports)))


def chain(spec: ChipletSpec, chiplets: int) -> Plan:
    """Join line 0 of each chiplet to line 1 of the next: packets pass through the switches in between."""
    routes = tuple(
        tuple(_chain_port(spec, here, destination) for destination in range(chiplets * spec.ports))
        for here in range(chiplets)
    )
    return Plan(routes, tuple(((c, 0), (c + 1, 1)) for c in range(chiplets - 1)))


def dateline_ring(spec: ChipletSpec, chiplets: int) -> Plan:
    """Join line 0 of each chiplet to line 1 of the next in a ring; packets go up, and the last line up is the dateline."""
    ports = spec.ports
    routes = tuple(
        tuple(d % ports if d // ports == here else ports for d in range(chiplets * ports)) for here in range(chiplets)
    )
    fibres = tuple(((c, 0), ((c + 1) % chiplets, 1)) for c in range(chiplets))
    rotated = (*range(1, spec.virtual_channels), 0)
    return Plan(routes, fibres, {(chiplets - 1, 0): rotated}, (0,))


def _chain_port(spec: ChipletSpec, here: int, destination: int) -> int:
    there, client = divmod(destination, spec.ports)
    # Ports of the switch: first those of the clients, then the lines, of which 0 leads up and 1 down.
    return client if there == here else spec.ports + (there < here)


@dataclass(frozen=True)
class ChipletRun:
    """Holds what a run showed, by address of the client: words sent and received, told like flits.

    ``replays`` and ``crc_errors`` are of all lines together.
    """

    cycles: int
    sent: dict[int, Transfers]
    received: dict[int, Transfers]
    changed: dict[int, list[int]]
    replays: int
    crc_errors: int


class ChipletBench:
    """Holds the chiplets and fibres of one plan, elaborated once."""

    def __init__(self, spec: ChipletSpec, plan: Plan | None = None):
        self.spec, self.plan, m = spec, plan or pair(spec), Module()
        self._chiplets = [
            Chiplet(spec, n * spec.ports, routes, {line: new for (at, line), new in self.plan.renames.items() if at == n})
            for n, routes in enumerate(self.plan.routes)
        ]
        self.plan.verify(spec)
        for n, chiplet in enumerate(self._chiplets):
            m.submodules[f"chiplet_{n}"] = chiplet
        self._fibres = [
            Fibre(m, spec, self._chiplets[a].tx[line_a], self._chiplets[b].rx[line_b])
            for there in self.plan.fibres
            for (a, line_a), (b, line_b) in (there, there[::-1])
        ]
        self._bench = Bench(m)

    @property
    def addresses(self) -> range:
        """Return the addresses of all clients."""
        return range(len(self._chiplets) * self.spec.ports)

    def run(
        self,
        flits: Mapping[int, Iterable[ClientFlit]],
        *,
        delay_cycles: int = 1,
        errors: Errors = clean,
        source_pauses: Pauses = never,
        sink_pauses: Pauses = never,
        bound_cycles: int = 20_000,
        waves: str | None = None,
        progress: Callable[[int], None] = lambda _: None,
        earliest_cycles: Mapping[int, Sequence[int]] | None = None,
        packets: int | None = None,
    ) -> ChipletRun:
        """Send the packets in ``flits[address]`` from each client, in order, until they have arrived.

        With ``packets`` it ends when so many have, whole or cut. A source whose last packet has no end stalls in it.

        ``errors(beat, bits)`` flips bits on every fibre in turn; ``progress(count)`` is called in each cycle with the
        number of flits of the packets that have arrived. Packet n of a client is offered from cycle
        ``earliest_cycles[address][n]`` on, at once if left out.
        """
        due = earliest_cycles or {}
        for fibre in self._fibres:
            fibre.start(delay_cycles, errors, kept, frozenset())
        spec, offered = self.spec, {a: list(flits.get(a, [])) for a in self.addresses}
        sources = [
            StreamSource(spec, self._stream("i", a), words(spec, offered[a]), source_pauses, earliest_cycles=due.get(a, ()))
            for a in self.addresses
        ]
        sinks = [StreamSink(spec, self._stream("o", a), sink_pauses) for a in self.addresses]
        counts = _LineCounts(self._chiplets)
        total = sum(map(len, offered.values()))

        def done(_: int) -> bool:
            arrived = sum(sink.flits for sink in sinks)
            progress(arrived)
            return arrived >= total if packets is None else sum(sink.packets for sink in sinks) >= packets

        cycles = self._bench.run([*sources, *sinks, *self._fibres, counts], done, bound_cycles, waves)
        return ChipletRun(
            cycles,
            {a: sources[a].sent for a in self.addresses},
            {a: sinks[a].received for a in self.addresses},
            {a: sinks[a].changed for a in self.addresses},
            *counts.totals,
        )

    def _stream(self, side: str, address: int):
        chiplet, client = divmod(address, self.spec.ports)
        return getattr(self._chiplets[chiplet], side)[client]


class _LineCounts:
    def __init__(self, chiplets):
        self._lines = sum(len(chiplet.replays) for chiplet in chiplets)
        self.samples = (*(n for c in chiplets for n in c.replays), *(n for c in chiplets for n in c.crc_errors))
        self.totals = (0, 0)

    def step(self, _ctx, cycle: int, *counts: int) -> None:
        if cycle:
            self.totals = sum(counts[: self._lines]), sum(counts[self._lines :])
