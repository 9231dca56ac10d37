"""The bench of the link has two ends, a fibre with delay and bit errors in each direction, a client at each end."""

# The words of this bench:
# * *beat*: one block on each wavelength in a cycle; *slot*: the beats of one flit, the first is its *frame beat*
# * *there*, *back*: the fibres from end a to b and from b to a; flits go there, credits and answers come back
# * *decided*: the cycle in which end a gives a flit to the next slot for the first time, not as a replay
# * *lost*: a slot in which a bit of the payload is flipped, so that its CRC is wrong
# * *stretch*: a cycle in which a fibre grows by one cycle, so that nothing arrives
# * *cut*: the first training set after frames on a line

from collections import deque
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from amaranth import Cat, Module, Mux, Signal

from lightfabric.model import codec
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.link import Link
from lightfabric.rtl.training_state import State
from lightfabric.sim.bench.bench import Bench, ClientFlit, Driver, Monitor, Transfers
from lightfabric.sim.channel.error import Errors
from lightfabric.sim.channel.fault import Channel
from lightfabric.sim.channel.fibre import Fibre as ChannelFibre
from lightfabric.sim.fec.coded import Codewords, SetFinder


def clean(beat: int, bits: int) -> int:
    """Return the mask that flips no bit."""
    return 0


Lost = Callable[[int], bool]
"""Number of the first beat of a slot, counted from reset on -> whether the slot is lost."""


def kept(first_beat: int) -> bool:
    """Tell that no slot is lost."""
    return False


class Fibre:
    """Leads from one end's tx to the other's rx, with a delay that can be set and that can grow while the line runs."""

    def __init__(self, m: Module, spec: ChipletSpec, tx, rx, slip=None):
        self.spec, self.bits = spec, spec.block_bits_on_line * spec.lanes_per_port
        self.sent, self.sent_valid = Signal(self.bits), Signal()
        self._flips, self._direct = Signal(self.bits), Signal()
        self._arriving, self._arriving_valid = Signal(self.bits), Signal()
        line, valid = Mux(self._direct, self.sent, self._arriving), Mux(self._direct, self.sent_valid, self._arriving_valid)
        m.d.comb += [self.sent.eq(Cat(block.as_value() for block in tx.blocks)), self.sent_valid.eq(tx.valid)]
        m.d.comb += [Cat(block.as_value() for block in rx.blocks).eq(line ^ self._flips), rx.valid.eq(valid)]
        self.samples = (self.sent, self.sent_valid, Signal() if slip is None else slip)
        self._lost_beat, self._lost_lane = divmod(1, spec.wavelengths_per_port)
        self._codewords = Codewords(spec) if spec.code else None
        self.start(0, clean, kept, frozenset())

    def start(
        self,
        delay_cycles: int,
        errors: Errors,
        lost: Lost,
        stretches: Container[int],
        channel: ChannelFibre | None = None,
    ) -> None:
        """Prepare the fibre for a run.

        ``errors(beat, bits)`` is the mask of flips of each beat; of a slot that is ``lost`` a bit of the payload is flipped,
        but not of the first after training sets if the delay is 0. The delay grows by one in each cycle of ``stretches``.
        A ``channel`` stands in place of all of that.
        """
        self.channel = channel
        self._errors, self._lost, self._stretches, self._delay_cycles = errors, lost, stretches, delay_cycles
        # One entry fewer than the delay: the register that drives rx is the last cycle of it.
        self._in_flight: deque[tuple[int, int]] = deque([(0, 0)] * (delay_cycles - 1))
        self._framed_beats = 0
        self._finder, self._are_frames = SetFinder(self.spec), list[bool]()
        self._codeword = -1, list[int]()
        self.sent_beats: list[tuple[int, int]] = []
        self.arrivals: list[int] = []

    def step(self, ctx, cycle: int, sent: int | None, valid: int | None, slip: int | None) -> None:
        """Move the line on by one cycle."""
        if valid:
            # The sample is of the cycle before: the register tx showed this beat then.
            self.sent_beats.append((cycle - 1, sent))
            self._are_frames.append(self._finder.is_frame(sent))
        if self.channel:
            self._pass_channel(ctx, cycle, sent if valid else None, slip)
        elif self._delay_cycles == 0 and cycle in self._stretches:
            self._lengthen(ctx, cycle, sent, valid)
        elif self._delay_cycles:
            self._arrive(ctx, cycle, sent, valid)
        else:
            self._pass_directly(ctx, cycle, sent, valid)

    def _pass_channel(self, ctx, cycle: int, sent: int | None, slip: int | None) -> None:
        came = self.channel.step(sent, slip) if cycle else None
        ctx.set(self._direct, 0)
        ctx.set(self._flips, 0)
        ctx.set(self._arriving_valid, came is not None)
        if came is not None:
            ctx.set(self._arriving, came)
            self.arrivals.append(cycle)

    def _lengthen(self, ctx, cycle: int, sent: int, valid: int) -> None:
        """Go from no delay to one cycle of delay: what was sent in the cycle before has arrived, this one brings nothing."""
        self._pass_directly(ctx, cycle, sent, valid)
        self._delay_cycles = 1
        ctx.set(self._direct, 0)
        ctx.set(self._flips, 0)
        ctx.set(self._arriving_valid, 0)

    def _arrive(self, ctx, cycle: int, sent: int | None, sent_valid: int | None) -> None:
        if cycle == 0:
            ctx.set(self._direct, 0)
            return
        self._in_flight.append((sent, sent_valid))
        if cycle in self._stretches:
            ctx.set(self._arriving_valid, 0)
            return
        bits, valid = self._in_flight.popleft()
        ctx.set(self._arriving_valid, valid)
        if valid:
            self._count(len(self.arrivals))
            ctx.set(
                self._arriving, bits ^ self._errors(len(self.arrivals), self.bits) ^ self._losses(len(self.arrivals) + 1)
            )
            self.arrivals.append(cycle)

    def _pass_directly(self, ctx, cycle: int, sent: int | None, valid: int | None) -> None:
        ctx.set(self._direct, 1)
        if valid:
            # Without delay a beat is at rx in the very cycle in which tx shows it, the one that was sampled.
            self.arrivals.append(cycle - 1)
            self._count(len(self.arrivals) - 1)
        if valid or cycle == 0:  # the flips of a beat stand until it has passed
            beat, in_frames = len(self.arrivals), self._framed_beats > 0
            self._framed_beats += in_frames
            ctx.set(self._flips, self._errors(beat, self.bits) ^ self._losses(beat + 1))
            # Only looked ahead: the beat itself is counted when it has passed.
            self._framed_beats -= in_frames

    def _count(self, number: int) -> None:
        self._framed_beats = self._framed_beats + 1 if self._are_frames[number] else 0

    def _losses(self, beats: int) -> int:
        """Return the flips of the last of so many beats: of the first bit of a flit's second block, in slots that are lost.

        Its echoes in the descrambler stay in that block.
        """
        if not self._framed_beats:
            return 0
        if self._codewords is None:
            is_lost = self._loses(beats - 1, self._framed_beats - 1)
            return 0b100 << self.spec.block_bits_on_line * self._lost_lane if is_lost else 0
        step = (self._framed_beats - 1) % self.spec.codeword_beats
        first, framed = beats - 1 - step, self._framed_beats - 1 - step
        if first != self._codeword[0]:
            flips = self._codewords.flips(lambda n: self._loses(first + n, framed + n), self._lost_lane)
            self._codeword = first, flips
        return self._codeword[1][step]

    def _loses(self, number: int, framed: int) -> bool:
        """Tell whether a beat of the line, so many of frames after the first one, is the one to lose in a slot."""
        beat = framed % self.spec.beats_per_flit
        return beat == self._lost_beat and self._lost(number - beat)

    def frame_beats(self) -> list[int]:
        """Return the numbers of the beats that began a slot and have arrived whole. Training sets begin the frames anew."""
        firsts, run = list[int](), 0
        for number, is_frame in enumerate(self._are_frames[: len(self.arrivals)]):
            run = run + 1 if is_frame else 0
            if run and run % self.spec.beats_per_flit == 0:
                firsts.append(number + 1 - self.spec.beats_per_flit)
        return firsts

    def cuts(self) -> list[int]:
        """Return the cycles of the training sets that followed frames on the line."""
        numbered = pairwise(zip(self.sent_beats, self._are_frames, strict=True))
        return [cycle for (_, before), ((cycle, _), is_frame) in numbered if before and not is_frame]

    def slots(self) -> list["Slot"]:
        """Return the flits that were sent and have arrived, as sent."""
        spec, plain = self.spec, self._plain_beats()
        slots, upcoming = list[Slot](), 0
        for first in self.frame_beats():
            beats = plain[first : first + spec.beats_per_flit]
            flit = codec.Flit.decode(spec, codec.from_beats(spec, beats), upcoming)
            assert flit is not None, "the transmitter sent a wrong CRC"
            arrival_cycle = self.arrivals[first + spec.beats_per_flit - 1]
            slots.append(Slot(self.sent_beats[first - 1][0], arrival_cycle, flit, upcoming))
            if flit.code == codec.EXPLICIT:
                # As the receiver does: a header with a sequence sets it, a flit without one is the next in turn.
                upcoming = codec.following(spec, flit.sequence)
            elif flit.implicit:
                upcoming = codec.following(spec, upcoming)
        return slots

    def _plain_beats(self) -> list[list[int]]:
        if self._codewords is not None:
            return self._decoded_beats(self._codewords)
        lanes, width = range(self.spec.wavelengths_per_port), self.spec.block_bits_on_line
        states, plain = [0] * len(lanes), list[list[int]]()
        for _, bits in self.sent_beats[: len(self.arrivals)]:
            blocks = []
            for lane in lanes:
                states[lane], block = codec.descramble(states[lane], bits >> width * lane + 2 & (1 << 64) - 1)
                blocks.append(block)
            plain.append(blocks)
        return plain

    def _decoded_beats(self, codewords: Codewords) -> list[list[int]]:
        """Decode each run of frames, which begins with a codeword; sets have no words."""
        beats = [bits for _, bits in self.sent_beats[: len(self.arrivals)]]
        plain = list[list[int]]()
        for is_frame, run in groupby(range(len(beats)), lambda number: self._are_frames[number]):
            numbers = list(run)
            plain += codewords.words(beats[number] for number in numbers) if is_frame else [[] for _ in numbers]
        return plain


@dataclass(frozen=True)
class Slot:
    """Holds one flit as it was on the line.

    ``before_cycle`` is that of the last beat before it at the transmitter, ``arrival_cycle`` that of its own last beat at
    the receiver; ``upcoming`` is the sequence that its CRC covers if its header has none.
    """

    before_cycle: int
    arrival_cycle: int
    flit: codec.Flit
    upcoming: int


@dataclass(frozen=True)
class LinkRun:
    """Holds what one run showed, from end a to end b.

    ``credits_back`` are the cycles of the credits at a's input, ``credited`` those of the credits at b's output,
    ``decided`` those in which a gave a flit to a slot for the first time, ``cut`` those of the first set after frames on a's
    line. ``trained`` has a cycle for each training of a in which it had all parameters, ``recoveries`` the time of each but
    the first, ``training`` those of the last one. ``frame_beat`` is the number of a's first beat of a frame, after those of
    training sets. End b checked ``frames``; a checked ``answer_frames``, which carry answers only, and dropped
    ``answer_crc_errors`` of them; ``bits`` have arrived on both lines, whose codes have ``corrected_symbols`` and given up
    ``uncorrectable_codewords``; ``codewords`` are the others, by how many symbols were corrected. ``a_slots`` and
    ``b_slots`` are what each end sent, decoded if asked.
    """

    cycles: int
    sent: Transfers
    credits_back: list[int]
    received: Transfers
    credited: list[int]
    decided: list[int]
    cut: list[int]
    trained: list[int]
    recoveries: list[int]
    training: dict[str, int]
    replays: int
    crc_errors: int
    answer_crc_errors: int
    frames: int
    answer_frames: int
    corrected_symbols: int
    uncorrectable_codewords: int
    codewords: list[int]
    bits: int
    bit_errors: int
    first_beat_cycle: int
    frame_beat: int
    a_slots: list[Slot] = field(repr=False)
    b_slots: list[Slot] = field(repr=False)


class LinkBench:
    """Holds two ends of the link of one spec, elaborated once."""

    def __init__(self, spec: ChipletSpec):
        self.spec, m = spec, Module()
        m.submodules.a, m.submodules.b = a, b = Link(spec), Link(spec)
        self._input, self._output, self._watched = a.i, b.o, (a, b)
        self._there, self._back = Fibre(m, spec, a.tx, b.rx, b.slip), Fibre(m, spec, b.tx, a.rx, a.slip)
        self._bench = Bench(m)

    def run(
        self,
        flits: Iterable[tuple[int, ClientFlit]],
        *,
        delay_cycles: int = 0,
        errors_a: Errors = clean,
        errors_b: Errors = clean,
        channels: tuple[Channel, Channel] | None = None,
        seed: int = 0,
        lost_a: Lost = kept,
        lost_b: Lost = kept,
        stretches: Container[int] = frozenset(),
        retrain_at: Container[int] = frozenset(),
        ready: Callable[[int], bool] | None = None,
        credit_cycle: Callable[[int, int], int] = lambda _, cycle: cycle + 1,
        settle_cycles: int = 0,
        bound_cycles: int = 10_000,
        decode: bool = False,
        waves: str | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> LinkRun:
        """Send ``flits`` (earliest cycle, flit) from end a to end b until all have arrived and are credited, and settled.

        ``errors_a(beat, bits)`` is the mask of flipped bits of each beat that a sends, ``errors_b`` that b sends, ``lost_a``
        and ``lost_b`` say which of their slots are lost; ``credit_cycle(n, cycle)`` is when the buffer of flit n, delivered
        in ``cycle``, is given back. ``channels``, of a's line and of b's, stand in place of delay, errors, losses and
        stretches. ``stretches`` are cycles in which the delay of both fibres grows by one, ``retrain_at``
        those in which a is told to train again; the SerDes of both ends are ``ready(cycle)``, always if that is left out.
        """
        spec = self.spec
        bits = self._there.bits // spec.lanes_per_port
        carriers = [ChannelFibre(channel, bits, (seed, way)) for way, channel in enumerate(channels or ())] or [None, None]
        self._there.start(delay_cycles, errors_a, lost_a, stretches, carriers[0])
        self._back.start(delay_cycles, errors_b, lost_b, stretches, carriers[1])
        driver, monitor = Driver(spec, self._input, flits), Monitor(spec, self._output, credit_cycle)
        watch = _Watch(*self._watched, retrain_at)

        def done(cycle: int) -> bool:
            progress(len(monitor.received))
            ended = driver.done and len(monitor.credited) >= len(driver.flits)
            return ended and cycle > monitor.credited[-1] + settle_cycles

        actors = [driver, self._there, self._back, monitor, watch, *([_SerDes(*self._watched, ready)] if ready else [])]
        cycles = self._bench.run(actors, done, bound_cycles, waves)
        slots = (self._there.slots(), self._back.slots()) if decode else ([], [])
        flipped = sum(getattr(errors, "count", 0) for errors in {errors_a, errors_b})
        flipped += sum(fibre.bit_errors for fibre in carriers if fibre)
        first_beat_cycle, frame_beat = self._there.sent_beats[0][0], self._there.frame_beats()[0]
        transfers = driver.sent, driver.credited, monitor.received, monitor.credited, watch.decided
        trainings = self._there.cuts(), watch.trained, watch.recoveries, watch.training
        fibres = self._there, self._back
        bits = sum(len(fibre.arrivals) * fibre.bits for fibre in fibres)
        counts = *watch.counts, *watch.sums[:4], watch.sums[4:], bits, flipped
        return LinkRun(cycles, *transfers, *trainings, *counts, first_beat_cycle, frame_beat, *slots)


TIMES = ("lock_cycles", "align_cycles", "exchange_cycles")


class _SerDes:
    """Tells both ends in which cycles the SerDes is ready; always again after the run."""

    samples = ()

    def __init__(self, a: Link, b: Link, ready: Callable[[int], bool]):
        self._inputs, self._ready = (a.tx_ready, b.tx_ready), ready

    def step(self, ctx, cycle: int) -> None:
        for tx_ready in self._inputs:
            ctx.set(tx_ready, self._ready(cycle))


class _Watch:
    """Records what end a tells of itself and what b has dropped, and asks a to train again."""

    def __init__(self, a: Link, b: Link, retrain_at: Container[int]):
        self._retrain, self._retrain_at = a.retrain, retrain_at
        times = (getattr(a.status, name) for name in TIMES)
        events = (a.events.sent, a.status.state == State.START, Mux(a.events.retraining, a.status.recovery_cycles, 0))
        checked = (end.events.good | end.events.bad for end in (b, a))
        fec = (a.corrected_symbols + b.corrected_symbols, a.uncorrectable_codewords + b.uncorrectable_codewords)
        fec += tuple(sum(counts) for counts in zip(a.codewords, b.codewords, strict=True))
        self.samples = (*events, *checked, *fec, a.replays, b.crc_errors, a.crc_errors, *times)
        self.decided: list[int] = []
        self.trained: list[int] = []
        self.recoveries: list[int] = []
        self.sums, self.counts, self.training = [0] * (2 + len(fec)), (0, 0, 0), dict[str, int]()
        self._was_starting = 0

    def step(self, ctx, cycle: int, sent: int | None, starting: int | None, recovery: int | None, *values: int) -> None:
        ctx.set(self._retrain, cycle in self._retrain_at)
        if cycle == 0:
            return
        if sent:
            self.decided.append(cycle - 1)
        # The rising edge: the state lasts for some cycles.
        if starting and not self._was_starting:
            self.trained.append(cycle - 1)
        if recovery:
            self.recoveries.append(recovery)
        summed, values = values[: len(self.sums)], values[len(self.sums) :]
        self.sums = [total + new for total, new in zip(self.sums, summed, strict=True)]
        self._was_starting, self.counts, self.training = starting, values[:3], dict(zip(TIMES, values[3:], strict=True))
