"""The bench of the training has two ends that send sets or numbered beats over lanes that slip, lag, err and die."""

# The words of this bench:
# * *set*, *frame*: what rtl.training sends before and after it is trained; a *frame beat* of this bench carries its
#   number
# * *end*: transmitter, aligner and training of one side, without the link above them
# * *plant*: the fibre of one direction with its lanes, after the word of control engineering for what is controlled
# * *channel*, *lane*, *fault*: as in sim.channel
# * *pulse*, *level*: outputs that are noted in each cycle with a 1, or only where they rise
# * *script*: what a test does to plants and ends while they run, resumed once in each cycle

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from amaranth import Cat, Const, Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.aligner import Aligner
from lightfabric.rtl.bonding import Collector, Distributor
from lightfabric.rtl.lane import BlockLock
from lightfabric.rtl.line import sent_layout
from lightfabric.rtl.link import connect
from lightfabric.rtl.pacer import Pacer
from lightfabric.rtl.training import Training
from lightfabric.rtl.training_set import SET_BITS
from lightfabric.rtl.training_state import State
from lightfabric.sim.bench.bench import Bench
from lightfabric.sim.channel.fault import Channel, LaneFaults
from lightfabric.sim.channel.fibre import Fibre, Lane


def frame_word(beat: int, place: int) -> int:
    """Return what the transmitter of this bench sends at a place of the given beat of words since the last set."""
    return beat << 16 | place << 8 | 0xA5


class Transmitter(wiring.Component):
    """Sends sets, or numbered beats of words as fast as the lanes in use carry them.

    Members
    -------
    sets : In(1)
    set : In(32)
    width : In(range(W + 1)), lanes in use
    beat : Out(1)
    o : Out(sent_layout(spec)), a register after ``beat``
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        inputs = {"sets": In(1), "set": In(SET_BITS), "width": In(range(spec.wavelengths_per_port + 1))}
        super().__init__({**inputs, "beat": Out(1), "o": Out(sent_layout(spec))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.pacer = pacer = Pacer(self.spec)
        number, sent, count = Signal(32), Signal(32), self.spec.wavelengths_per_port
        owed = Signal(range(-count, count + 1))
        m.d.comb += [
            self.beat.eq(pacer.beat),
            self.o.words.eq(Cat(Cat(Const(0xA5, 8), Const(place, 8), sent, Const(0, 16)) for place in range(count))),
        ]
        m.d.sync += self.o.valid.eq(pacer.beat)
        with m.If(pacer.beat):
            m.d.sync += [self.o.is_set.eq(self.sets), self.o.set.eq(self.set)]
            with m.If(self.sets):
                m.d.sync += [number.eq(0), owed.eq(self.width)]
            with m.Elif(owed > 0):
                # So many words are owed to the next beat of the line, beyond those taken before.
                m.d.sync += [number.eq(number + 1), sent.eq(number), owed.eq(owed + self.width - count)]
            with m.Else():
                m.d.sync += owed.eq(owed + self.width)
        return m


PULSES = ("resume", "flush", "retrainings", "relock", "slip")
LEVELS = ("active", "config_mismatch", "peer_reset", "skew_overflow", "frames_out", "frames_in")


@dataclass(frozen=True)
class Resume:
    """Holds what an end knew of the other end when it resumed, and what the other end told then."""

    cycle: int
    expected: int
    limits: int
    told_expected: int
    told_limits: int


class End:
    """Holds one end: its parts, the parameters that it tells, and what it showed in a run.

    It tells the number of frame beats it has received as its sequence; credit limits are made from that. A flush makes it
    count from 100. ``states`` are (cycle, state) where the state changed, ``events`` the (cycle, name) of ``PULSES``, of
    rising ``LEVELS`` and of resets, ``frames`` the data of the beats with ``frames_in``, a list per time that it was 1.
    """

    def __init__(self, m: Module, name: str, spec: ChipletSpec):
        self.spec = spec
        part, self._reset = Module(), Signal(name=f"{name}_reset")
        part.submodules.transmitter = self.transmitter = Transmitter(spec)
        part.submodules.aligner = self.aligner = aligner = Aligner(spec)
        part.submodules.training = self.training = training = Training(spec)
        part.submodules.distributor = self.distributor = distributor = Distributor(spec)
        part.submodules.collector = collector = Collector(spec)
        connect(part, aligner, training, collector)
        part.d.comb += [
            training.beat.eq(self.transmitter.beat),
            self.transmitter.sets.eq(training.sets),
            self.transmitter.set.eq(training.set),
            self.transmitter.width.eq(distributor.width),
            distributor.i.eq(self.transmitter.o),
            distributor.lanes.eq(training.lanes_out),
        ]
        m.submodules[name] = ResetInserter(self._reset)(part)
        state, bits = Signal(4), Signal(len(PULSES + LEVELS))
        sources = {"slip": aligner.slip.any(), "skew_overflow": aligner.skew_overflow.any(), "frames_out": ~training.sets}
        m.d.comb += [
            state.eq(training.state),
            bits.eq(Cat(sources[name] if name in sources else getattr(training, name) for name in PULSES + LEVELS)),
        ]
        remote = training.remote
        self.samples = (state, bits, collector.words_valid, collector.words, remote.expected, remote.limits.as_value())

    def start(self, other: "End", enable: int, expected: int) -> None:
        """Forget the last run; ``expected`` is the sequence that this end tells first."""
        self._other, self._enable, self._first = other, enable, expected
        self.states: list[tuple[int, State]] = []
        self.events: list[tuple[int, str]] = []
        self.frames: list[list[int]] = []
        self.resumes: list[Resume] = []
        self._shown: frozenset[str] = frozenset()

    def step(self, ctx, cycle: int, state=0, bits=0, valid=0, data=0, expected=0, limits=0) -> None:
        """Take what cycle ``cycle - 1`` showed, and tell the other end the parameters anew where they change."""
        self._cycle = cycle
        if cycle == 0:
            ctx.set(self.training.enable, self._enable)
            self._tell(ctx, self._first)
            return
        if not self.states or self.states[-1][1].value != state:
            self.states.append((cycle - 1, State(state)))
        shown = frozenset(name for n, name in enumerate(PULSES + LEVELS) if bits >> n & 1)
        self.events.extend((cycle - 1, name) for name in sorted(shown) if name in PULSES or name not in self._shown)
        if "resume" in shown:
            self.resumes.append(Resume(cycle - 1, expected, limits, self._other.expected, self._other.limits))
        if "flush" in shown:
            self._tell(ctx, 100)
        if "frames_in" in shown - self._shown:
            self.frames.append([])
        if "frames_in" in shown and valid:
            self.frames[-1].append(data)
        # The count of the beats received is the sequence that the next training tells, as a receiver's is.
        if "frames_in" in self._shown - shown:
            self._tell(ctx, (self.expected + len(self.frames[-1])) % self.spec.sequences)
        self._shown = shown

    def _tell(self, ctx, expected: int) -> None:
        self.expected = expected
        bits, channels = self.spec.credit_bits, range(self.spec.virtual_channels)
        self.limits = sum((expected + 11 * v + 1) % (1 << bits) << bits * v for v in channels)
        ctx.set(self.training.local.as_value(), self.expected | self.limits << self.spec.sequence_bits)

    def reset(self, ctx, on: int) -> None:
        """Hold the whole end in reset, or let it go."""
        ctx.set(self._reset, on)
        self.events.append((self._cycle, "reset" if on else "reset ends"))
        self._tell(ctx, self._first)

    @property
    def state(self) -> State:
        """Return the state of the last cycle."""
        return self.states[-1][1] if self.states else State.RESET

    def cycles_of(self, event: str) -> list[int]:
        """Return the cycles in which an event was seen."""
        return [cycle for cycle, name in self.events if name == event]

    def report(self, ctx) -> "Report":
        """Return what the end says of itself now."""
        t = self.training
        times = {name: ctx.get(getattr(t, f"{name}_cycles")) for name in ("lock", "align", "exchange", "recovery")}
        order = [ctx.get(number) for number in self.aligner.numbers]
        return Report(times, ctx.get(t.lanes_in), ctx.get(t.lanes_out), order, ctx.get(self.aligner.inverted))


@dataclass(frozen=True)
class Report:
    """Holds the registers of an end after a run; the lanes are masks, and ``order`` the number of each lane."""

    cycles: dict[str, int]
    lanes_in: int
    lanes_out: int
    order: list[int]
    inverted: int


class Plant:
    """Leads from a transmitter to the other end's receiver; ``lanes`` and ``silent`` of its fibre may change on the way."""

    def __init__(self, m: Module, spec: ChipletSpec, sender: End, receiver: End):
        tx, rx, self._slip = sender.distributor.line, receiver.aligner.rx, Signal(spec.lanes_per_port)
        blocks = [block.as_value() for block in tx.blocks]
        self._block_bits, sent = len(blocks[0]), Signal(sum(map(len, blocks)))
        self._line = Signal(len(sent) + 1)
        m.d.comb += [
            sent.eq(Cat(blocks)),
            Cat(rx.valid, *(block.as_value() for block in rx.blocks)).eq(self._line),
            self._slip.eq(receiver.aligner.slip),
        ]
        self.samples = (sent, tx.valid, self._slip)

    def start(self, channel: Channel, lanes: Sequence[Lane], seed: tuple[int, int]) -> None:
        """Prepare the fibre for a run."""
        self._fibre = Fibre(channel, self._block_bits, seed, lanes)

    @property
    def lanes(self) -> list[Lane]:
        """Return the lanes of the fibre as they are now."""
        return self._fibre.lanes

    @property
    def silent(self) -> bool:
        """Tell whether nothing arrives on any lane."""
        return self._fibre.silent

    @silent.setter
    def silent(self, silent: bool) -> None:
        self._fibre.silent = silent

    def step(self, ctx, cycle: int, sent: int | None, valid: int | None, slip: int | None) -> None:
        """Move the line on by one cycle."""
        if cycle:
            received = self._fibre.step(sent if valid else None, slip)
            ctx.set(self._line, 0 if received is None else received << 1 | 1)


@dataclass(frozen=True)
class TrainingRun:
    """Holds what a run showed: its cycles, and of each end what it says of itself; the ends keep what they saw."""

    cycles: int
    a: Report
    b: Report


class TrainingBench:
    """Holds two ends of one spec, or of two specs with as many wavelengths, elaborated once."""

    def __init__(self, spec: ChipletSpec, spec_b: ChipletSpec | None = None):
        self.spec, m = spec, Module()
        self.a, self.b = End(m, "a", spec), End(m, "b", spec_b or spec)
        self.there, self.back = Plant(m, spec, self.a, self.b), Plant(m, spec, self.b, self.a)
        self._bench = Bench(m)

    @property
    def both_active(self) -> bool:
        """Tell whether both ends were active in the last cycle."""
        return self.a.state is State.ACTIVE and self.b.state is State.ACTIVE

    def up(self, cycles: int = 1) -> Iterator[None]:
        """Wait until both ends have been active for so many cycles without a break."""
        left = cycles
        while left:
            yield
            left = left - 1 if self.both_active else cycles

    def run(
        self,
        *,
        there: Sequence[Lane] | Channel = (),
        back: Sequence[Lane] | Channel = (),
        delay_cycles: tuple[int, int] = (1, 1),
        ber: float = 0.0,
        seed: int = 0,
        enable: tuple[int, int] = (1, 1),
        order: tuple[int, ...] = (),
        script: "Script | None" = None,
        bound_cycles: int = 20_000,
    ) -> TrainingRun:
        """Run from reset until the script ends; without one, until both ends have been active for 100 cycles.

        Lanes not given are whole but for bit errors at the rate ``ber``; lane n there carries what was sent on lane
        ``order[n]``; delays are at least 1. A channel stands for all of
        that.
        """
        for way, (plant, given, delay) in enumerate(zip((self.there, self.back), (there, back), delay_cycles, strict=True)):
            faults = LaneFaults(ber=ber)
            channel = Channel((faults,) * self.spec.lanes_per_port, () if way else order, delay_cycles=delay)
            lanes = () if isinstance(given, Channel) else [replace(lane, faults=faults) for lane in given]
            plant.start(given if isinstance(given, Channel) else channel, lanes, (seed, way))
        self.a.start(self.b, enable[0], expected=17)
        self.b.start(self.a, enable[1], expected=203)
        keeper = _Keeper(self, script or (lambda ctx: self.up(100)))
        actors = [self.a, self.b, self.there, self.back, keeper]
        cycles = self._bench.run(actors, lambda _: keeper.done, bound_cycles)
        return TrainingRun(cycles, *keeper.reports)


Script = Callable[[object], Iterator[None]]
"""From the simulator's context, a generator that is resumed in each cycle: it may change plants and drive the ends."""


def wait(cycles: int) -> Iterator[None]:
    """Wait for so many cycles, for a script."""
    for _ in range(cycles):
        yield


class _Keeper:
    def __init__(self, bench: TrainingBench, script: Script):
        self.bench, self.script, self.done, self.samples = bench, script, False, ()

    def step(self, ctx, cycle: int) -> None:
        if cycle == 0:
            self.running = self.script(ctx)
        self.done = next(self.running, True) is not None
        if self.done:
            self.reports = [end.report(ctx) for end in (self.bench.a, self.bench.b)]


class LockBench:
    """Holds the block lock of a lane, alone."""

    def __init__(self):
        m = Module()
        m.submodules.lock = self._lock = BlockLock()
        self._bench = Bench(m)

    def run(self, syncs: Sequence[int | None]) -> list[tuple[int, int]]:
        """Return (locked, slip) in the cycle after each sync header, or after a cycle without a block if it is None."""
        feeder = _Feeder(self._lock, syncs)
        self._bench.run([feeder], lambda cycle: cycle > len(syncs), len(syncs) + 2)
        return feeder.shown


class _Feeder:
    def __init__(self, lock: BlockLock, syncs: Sequence[int | None]):
        self.lock, self.syncs, self.samples, self.shown = lock, syncs, (lock.locked, lock.slip), []

    def step(self, ctx, cycle: int, locked: int | None, slip: int | None) -> None:
        if cycle > 1:
            self.shown.append((locked, slip))
        sync = self.syncs[cycle] if cycle < len(self.syncs) else None
        ctx.set(self.lock.valid, sync is not None)
        ctx.set(self.lock.sync, sync or 0)
