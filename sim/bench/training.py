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

from amaranth import Cat, Const, Module, Mux, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import SEQUENCE_BITS, SYNC_CONTROL, SYNC_DATA
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.lane import Aligner, BlockLock
from lightfabric.rtl.line import LOWER_LANES, UPPER_LANES, LineSignature
from lightfabric.rtl.pacer import Pacer
from lightfabric.rtl.scrambler import Scrambler, scrambled
from lightfabric.rtl.training import Training, connect
from lightfabric.rtl.training_set import SET_BITS
from lightfabric.rtl.training_state import State
from lightfabric.sim.bench.bench import Bench
from lightfabric.sim.channel.fault import Channel, LaneFaults
from lightfabric.sim.channel.fibre import Fibre, Lane


def frame_block(beat: int, lane: int) -> int:
    """Return what the transmitter of this bench sends on a lane in use in the given beat since the last set."""
    return beat << 16 | lane << 8 | 0xA5


class Transmitter(wiring.Component):
    """Sends sets on all lanes, or numbered beats on those in use and zeros on the others, a register after ``beat``.

    Members
    -------
    sets : In(1)
    set : In(32)
    lanes : In(2)
    beat : Out(1)
    line : Out(LineSignature(spec))
    """

    def __init__(self, spec: ChipletSpec):
        self.spec = spec
        line = Out(LineSignature(spec))
        super().__init__({"sets": In(1), "set": In(SET_BITS), "lanes": In(2), "beat": Out(1), "line": line})

    def elaborate(self, platform):
        m = Module()
        m.submodules.pacer = pacer = Pacer(self.spec)
        number, count = Signal(32), self.spec.wavelengths_per_port
        m.d.comb += self.beat.eq(pacer.beat)
        m.d.sync += self.line.valid.eq(pacer.beat)
        with m.If(pacer.beat):
            m.d.sync += number.eq(Mux(self.sets, 0, number + 1))
        for lane, block in enumerate(self.line.blocks):
            info = self.set | lane
            # On half of the lanes the other half sends zeros, which keep its scrambler and the lock running.
            idle = self.lanes == (LOWER_LANES if lane >= count // 2 else UPPER_LANES)
            frame = Mux(idle, 0, Cat(Const(0xA5, 8), Const(lane, 8), number))
            plain = Mux(self.sets, Cat(info[:SET_BITS], ~info[:SET_BITS]), frame)[:64]
            scrambler = Scrambler(scrambled, plain, f"scrambler_{lane}")
            with m.If(pacer.beat):
                sync = Mux(self.sets, SYNC_CONTROL, SYNC_DATA)
                m.d.sync += [scrambler.step(), block.bits.eq(scrambler.out), block.sync.eq(sync)]
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
        connect(part, aligner, training)
        part.d.comb += [
            training.beat.eq(self.transmitter.beat),
            self.transmitter.sets.eq(training.sets),
            self.transmitter.set.eq(training.set),
            self.transmitter.lanes.eq(training.lanes_out),
        ]
        m.submodules[name] = ResetInserter(self._reset)(part)
        state, bits = Signal(4), Signal(len(PULSES + LEVELS))
        sources = {"slip": aligner.slip.any(), "skew_overflow": aligner.skew_overflow.any(), "frames_out": ~training.sets}
        m.d.comb += [
            state.eq(training.state),
            bits.eq(Cat(sources[name] if name in sources else getattr(training, name) for name in PULSES + LEVELS)),
        ]
        remote = training.remote
        self.samples = (state, bits, aligner.beat.valid, aligner.beat.data, remote.expected, remote.limits.as_value())

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
            self._tell(ctx, (self.expected + len(self.frames[-1])) % 255)
        self._shown = shown

    def _tell(self, ctx, expected: int) -> None:
        self.expected = expected
        self.limits = sum((expected + 11 * v + 1) % 256 << 8 * v for v in range(self.spec.virtual_channels))
        ctx.set(self.training.local.as_value(), self.expected | self.limits << SEQUENCE_BITS)

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
        return Report(times, ctx.get(t.lanes_in), ctx.get(t.lanes_out))


@dataclass(frozen=True)
class Report:
    """Holds the registers of an end after a run."""

    cycles: dict[str, int]
    lanes_in: int
    lanes_out: int


class Plant:
    """Leads from a transmitter to the other end's receiver; ``lanes`` and ``silent`` of its fibre may change on the way."""

    def __init__(self, m: Module, spec: ChipletSpec, sender: End, receiver: End):
        tx, rx, self._slip = sender.transmitter.line, receiver.aligner.rx, Signal(spec.wavelengths_per_port)
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
        script: "Script | None" = None,
        bound_cycles: int = 20_000,
    ) -> TrainingRun:
        """Run from reset until the script ends; without one, until both ends have been active for 100 cycles.

        Lanes not given are whole but for bit errors at the rate ``ber``; delays are at least 1. A channel stands for all of
        that.
        """
        for way, (plant, given, delay) in enumerate(zip((self.there, self.back), (there, back), delay_cycles, strict=True)):
            faults = LaneFaults(ber=ber)
            channel = Channel((faults,) * self.spec.wavelengths_per_port, delay_cycles=delay)
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
