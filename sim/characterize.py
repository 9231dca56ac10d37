"""Measures the RTL built from a spec: the ``Timing`` that the models run on."""

import contextlib
import hashlib
from collections.abc import Callable
from fractions import Fraction
from functools import cached_property
from importlib.metadata import version
from importlib.resources import files
from itertools import pairwise
from math import gcd
from typing import Any

from lightfabric.model.codec import SEQUENCE_BITS
from lightfabric.model.slot import Slots
from lightfabric.model.spec import ChipletSpec, spec_hash
from lightfabric.model.timing import LinkTiming, SwitchTiming, Timing
from lightfabric.sim.bench import ClientFlit, Transfers
from lightfabric.sim.link import Errors, LinkBench, LinkRun, Slot
from lightfabric.sim.switch import SwitchBench

_FLIT = ClientFlit(b"\1")

MEASURED_BY = ("rtl", "sim/bench.py", "sim/link.py", "sim/switch.py", "sim/characterize.py", "model/codec.py")


def rtl_hash() -> str:
    """Hash of the hardware's sources, of what measures it and of the simulator's version, 16 hexadecimal digits."""
    digest = hashlib.sha256(version("amaranth").encode())
    for name in MEASURED_BY:
        folder, _, file = name.partition("/")
        package = files(f"lightfabric.{folder}")
        sources = [package / file] if file else sorted(package.iterdir(), key=lambda entry: entry.name)
        for source in sources:
            if source.name.endswith(".py"):
                digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def characterize(spec: ChipletSpec, progress: Callable[[str], None] = lambda _: None) -> Timing:
    """Simulate link and switch of this spec and return their timing. Takes seconds to a minute by the width of the spec."""
    progress("link")
    measured_link = measure_link(spec)
    progress("switch")
    return Timing(measured_link, measure_switch(spec), spec_hash(spec), rtl_hash(), f"amaranth.sim {version('amaranth')}")


def measure_link(spec: ChipletSpec) -> LinkTiming:
    """Timing of the link of this spec, from the slots on both lines and the transfers at both ends."""
    bench = LinkBench(spec)
    slot_cycles = Slots.of(spec).longest_cycles
    glance = bench.run([(0, _FLIT)], settle_cycles=2 * spec.virtual_channels * slot_cycles + 80, decode=True)
    slots = Slots.of(spec, glance.first_beat_cycle, _carriers(glance)[0].before_cycle - glance.credits_back[0])
    first_credit_slot = 1 + [slot.flit.credit_channel for slot in glance.b_slots[1:]].index(0)
    probes = [_Probes(bench, slots, first_credit_slot, rounds * (slot_cycles + 3)) for rounds in (1, 2, 4)]
    return LinkTiming(
        first_beat_cycle=slots.first_beat_cycle,
        line_cycles=slots.line_cycles,
        first_credit_slot=first_credit_slot,
        **_measured(probes, _Probes.single_flits),
        **_measured(probes, _Probes.withheld_credits),
        **_measured(probes, _Probes.corrupted_flits),
        **_measured(probes, _Probes.full_window),
        **_measured(probes, _Probes.end_to_end),
    )


class _TooFewPhasesError(RuntimeError):
    pass


def _measured(probes: "list[_Probes]", experiment: "Callable[[_Probes], dict[str, Any]]") -> dict[str, Any]:
    """The experiment with as many repetitions as it takes."""
    for fewer in probes[:-1]:
        with contextlib.suppress(_TooFewPhasesError):
            return experiment(fewer)
    return experiment(probes[-1])


def stream_window_flits(spec: ChipletSpec) -> int:
    """Flits over which the sustained rate is taken: whole periods of slots against clock, and at least a full buffer."""
    beats = spec.blocks_per_cycle.numerator
    period_flits = beats // gcd(beats, spec.beats_per_flit)
    return period_flits * -(-spec.buffer_flits // period_flits)


class _Probes:
    """Experiments on one link, far enough apart for its loops to come to rest in between.

    Each experiment is repeated with its cause one cycle earlier before a slot, or arriving one cycle later because the
    fibre grows, so that the causes meet the slots in every phase.
    """

    def __init__(self, bench: LinkBench, slots: Slots, first_credit_slot: int, repeats: int):
        self.spec, self.bench, self.slots, self.repeats = bench.spec, bench, slots, repeats
        self.first_credit_slot = first_credit_slot
        slot_cycles = slots.longest_cycles
        self.apart_slots = 4 + 2 * self.spec.virtual_channels + (5 * repeats + 60) // slot_cycles
        self.fill_slots = self.spec.buffer_flits + 4 + 40 // slot_cycles

    @cached_property
    def _single(self) -> LinkRun:
        delivered_slots = 3 + (2 * self.repeats + 20) // self.slots.longest_cycles
        return self._run(self._flits(), credit_cycle=lambda number, _: self._before_slot(number, delivered_slots, 0))

    @cached_property
    def _corrupted_first_sends(self) -> Errors:
        """Flips one bit of each slot that carries a flit of :meth:`_flits` for the first time."""
        slots = frozenset(n for n, slot in enumerate(self._single.a_slots) if slot.flit.data)
        return lambda beat, _: 4 if beat // self.spec.beats_per_flit in slots and beat % self.spec.beats_per_flit == 0 else 0

    def single_flits(self) -> dict[str, int]:
        """A flit at a time."""
        run, carriers = self._single, _carriers(self._single)
        accepted = [(at, slot) for (at, _), slot in zip(run.sent, carriers, strict=True)]
        credited = list(zip(run.credited, _credit_returns(run), strict=False))
        acknowledged = [(slot.arrival_cycle, ack) for slot, ack in zip(carriers, _acknowledgements(run), strict=True)]
        return {
            "accept_cycles": self._exact("accept_cycles", accepted),
            "deliver_cycles": min(at - s.arrival_cycle for s, (at, _) in zip(carriers, run.received, strict=True)),
            "credit_out_cycles": self._exact("credit_out_cycles", credited, every=self.spec.virtual_channels),
            "ack_out_cycles": self._exact("ack_out_cycles", acknowledged),
        }

    def withheld_credits(self) -> dict[str, int]:
        """The buffer is full, and a credit at a time comes back."""
        run = self._run(self._filling_flits(), credit_cycle=self._credit_cycle, first_slot=self.fill_slots)
        admitted = _carriers(run)[self.spec.buffer_flits :]
        used = [(back.arrival_cycle, slot) for back, slot in zip(_credit_returns(run), admitted, strict=False)]
        return {"credit_in_cycles": self._exact("credit_in_cycles", used)}

    def corrupted_flits(self) -> dict[str, int]:
        """A flit at a time, corrupted when it is first sent."""
        run = self._run(self._flits(), errors_a=self._corrupted_first_sends)
        firsts, replays = _carriers(run)[::2], _carriers(run)[1::2]
        shows = [next(s for s in run.a_slots if s.before_cycle > slot.before_cycle) for slot in firsts]
        asks = _nak_flips(run.b_slots)
        asked = [(show.arrival_cycle, ask) for show, ask in zip(shows, asks, strict=True)]
        answered = [(ask.arrival_cycle, replay) for ask, replay in zip(asks, replays, strict=True)]
        return {
            "nak_out_cycles": self._exact("nak_out_cycles", asked),
            "nak_in_cycles": self._exact("nak_in_cycles", answered),
        }

    def full_window(self) -> dict[str, int | None]:
        """The fibre is so long that the replay buffer is full before the first flit is acknowledged."""
        spec = self.spec
        if spec.virtual_channels * spec.buffer_flits <= spec.replay_flits:
            return {"ack_in_cycles": None}
        flits = [(0, ClientFlit(b"\1", virtual_channel=n % spec.virtual_channels)) for n in range(spec.replay_flits + 1)]
        freed: list[tuple[int, Slot]] = []
        for n in range(self.repeats):
            run = self._run(flits, delay_cycles=spec.replay_flits * self.slots.longest_cycles + n + 1, stretches=frozenset())
            freed.append((_acknowledgements(run)[0].arrival_cycle, _carriers(run)[spec.replay_flits]))
        return {"ack_in_cycles": self._exact("ack_in_cycles", freed)}

    def end_to_end(self) -> dict[str, int | Fraction]:
        """The whole link at zero delay."""
        direct = {"delay_cycles": 0, "stretches": frozenset[int]()}
        single = self._run(self._flits(), **direct)
        corrupted = self._run(self._flits(), errors_a=self._corrupted_first_sends, **direct)
        held = self._run(self._filling_flits(), credit_cycle=self._credit_cycle, **direct)
        admitted, window_flits = held.received[self.spec.buffer_flits :], stream_window_flits(self.spec)
        stream = self._run([(0, _FLIT)] * (3 * window_flits), **direct)
        first, last = stream.received[-1 - window_flits], stream.received[-1]
        return {
            "latency_cycles": self._least_latency(),
            "cycles_per_flit": Fraction(last[0] - first[0], window_flits),
            "credit_loop_cycles": max(got - at for (got, _), at in zip(admitted, held.credited, strict=False)),
            "replay_loop_cycles": max(
                got - at for (got, _), (at, _) in zip(corrupted.received, single.received, strict=True)
            ),
        }

    def _least_latency(self) -> int:
        """Of a flit that just makes the shortest slot there is, at zero delay."""
        accept_cycles = self.single_flits()["accept_cycles"]
        slots = range(self.apart_slots, self.apart_slots + self.slots.beats)
        shortest = min(slots, key=lambda slot: self.slots.decided_cycle(slot + 1) - self.slots.decided_cycle(slot))
        run = self._run([(self.slots.decided_cycle(shortest) - accept_cycles, _FLIT)], delay_cycles=0, stretches=frozenset())
        return run.received[0][0] - run.sent[0][0]

    def _run(self, flits: Transfers, *, first_slot: int = 0, **options) -> LinkRun:
        stretches = frozenset(self._start_cycle(first_slot, n) for n in range(1, self.repeats))
        settle_cycles = self.apart_slots * self.slots.longest_cycles
        settings = {"settle_cycles": settle_cycles, "delay_cycles": 1, "stretches": stretches, "decode": True, **options}
        bound_cycles = 4 * self._start_cycle(self.fill_slots, self.repeats + 4) + 10_000
        return self.bench.run(flits, bound_cycles=bound_cycles + 8 * settings["delay_cycles"], **settings)

    def _start_cycle(self, first_slot: int, number: int) -> int:
        return self.slots.decided_cycle(first_slot + number * self.apart_slots)

    def _before_slot(self, number: int, first_slot: int, channel: int | None = None) -> int:
        """The cycle in which a slot (one with the credits of ``channel``) is decided, and one earlier with each number."""
        slot = self.slots.decided_from(self._start_cycle(first_slot, number) + self.repeats + 1)
        while channel is not None and self._credit_channel(slot) != channel:
            slot += 1
        return self.slots.decided_cycle(slot) - number % self.repeats

    def _credit_channel(self, slot: int) -> int:
        return (slot - self.first_credit_slot) % self.spec.virtual_channels

    def _flits(self) -> Transfers:
        return [(self._before_slot(n, 0), _FLIT) for n in range(self.repeats)]

    def _filling_flits(self) -> Transfers:
        return [(0, _FLIT)] * (self.spec.buffer_flits + self.repeats)

    def _credit_cycle(self, number: int, cycle: int) -> int:
        """One buffer at a time from ``fill_slots`` on, the rest when the experiments are over."""
        return self._before_slot(min(number, self.repeats), self.fill_slots, 0)

    def _exact(self, name: str, effects: list[tuple[int, Slot]], every: int = 1) -> int:
        """The delay from cause to earliest slot that explains every (cycle of the cause, slot of the effect).

        Each effect bounds it from above; the slot before (``every`` slots before), which came too soon, from below.
        """
        decided = [(cause, self.slots.decided_from(slot.before_cycle - self.slots.line_cycles)) for cause, slot in effects]
        most = min(self.slots.decided_cycle(n) - cause for cause, n in decided)
        least = 1 + max(self.slots.decided_cycle(n - every) - cause for cause, n in decided)
        if least != most:
            raise _TooFewPhasesError(f"LinkTiming.{name} must be one number, but the RTL's slots say {least} to {most}")
        return most


def _carriers(run: LinkRun) -> list[Slot]:
    return [slot for slot in run.a_slots if slot.flit.data]


def _credit_returns(run: LinkRun) -> list[Slot]:
    """For the n-th credit given back in virtual channel 0, the slot of end b that returns it."""
    returns: list[Slot] = []
    for slot in run.b_slots:
        if slot.flit.credit_channel == 0:
            returns += [slot] * ((slot.flit.credits - len(returns)) % (1 << SEQUENCE_BITS))
    return returns


def _acknowledgements(run: LinkRun) -> list[Slot]:
    """For the n-th flit, the slot of end b that acknowledges it."""
    acks: list[Slot] = []
    for slot in run.b_slots:
        acks += [slot] * ((slot.flit.ack - len(acks)) % (1 << SEQUENCE_BITS))
    return acks


def _nak_flips(slots: list[Slot]) -> list[Slot]:
    return [slot for before, slot in pairwise(slots) if slot.flit.nak != before.flit.nak]


def measure_switch(spec: ChipletSpec) -> SwitchTiming:
    """Timing of the switch of this spec, from input 0 to output 1 with all other ports quiet."""
    bench, flit, depth = SwitchBench(spec), ClientFlit(b"\1", 1), spec.buffer_flits
    stream = bench.run({0: [(0, flit)] + [(20, flit)] * (depth + 8)})
    release_cycle = 2 * depth + 40
    held = bench.run({0: [(0, flit)] * (depth + 1)}, credit_cycle=lambda number, cycle: release_cycle + 100 * min(number, 1))
    arrivals = [cycle for cycle, _ in stream.received[1]]
    return SwitchTiming(
        latency_cycles=arrivals[0] - stream.sent[0][0][0],
        cycles_per_flit=Fraction(arrivals[-1] - arrivals[1], len(arrivals) - 2),
        credit_cycles=stream.credits_back[0][0] - stream.sent[0][0][0],
        credit_loop_cycles=held.received[1][depth][0] - release_cycle,
    )
