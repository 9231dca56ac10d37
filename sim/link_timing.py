"""The link built from a spec is measured here, from the slots on its lines and the transfers at its ends."""

# The words of these measurements:
# * *cause*, *effect*: a register at the edge of a block changes, and the slot that shows it; both as cycles seen from
#   outside
# * *decided*: the cycle in which the transmitter fills the next slot; what comes later waits for the slot after
# * *phase*: how many cycles a cause comes before the decision; clock and slots drift, so causes are put in every phase
# * *stage*: the register between the credited input and the transmitter, which holds one flit
# * *exact*: a delay is known when the effect made its slot in one phase and missed it in the next
# * *probe*: one run with many causes; they are *apart* far enough for credits, answers and replays to come to rest
# * *stretch*: the fibre grows by a cycle, which moves arrivals through the phases while decisions stay

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from fractions import Fraction
from functools import partial
from math import gcd
from typing import Any

from lightfabric.model.codec import DATA, EXPLICIT, NAK
from lightfabric.model.cycle.slot import Slots
from lightfabric.model.spec import ChipletSpec
from lightfabric.model.timing import LinkTiming
from lightfabric.rtl.aligner import SILENT_CYCLES
from lightfabric.rtl.transmitter import REPLAYS_TO_RETRAIN
from lightfabric.sim.bench.bench import ClientFlit, Transfers
from lightfabric.sim.bench.link import LinkBench, LinkRun, Lost, Slot
from lightfabric.sim.phase import TooFewPhasesError, same

_FLIT = ClientFlit(b"\1")


def submitter(workers: Executor | None) -> Callable[..., Callable[[], Any]]:
    """Return what gives a call to the workers, or keeps it for now, and returns a function that waits for its result."""
    return (lambda *call: workers.submit(*call).result) if workers else partial


def measure_link(spec: ChipletSpec, workers: Executor | None = None) -> LinkTiming:
    """Measure the timing of the link of this spec, from the slots on both lines and the transfers at both ends."""
    bench = LinkBench(spec)
    slot_cycles = Slots.of(spec).longest_cycles
    glance = bench.run([(0, _FLIT)], settle_cycles=2 * spec.virtual_channels * slot_cycles + 80, decode=True)
    # The line register: from the decision of a slot to the last beat before it at tx.
    line_cycles = _carriers(glance)[0].before_cycle - glance.decided[0]
    slots = Slots.of(spec, glance.first_beat_cycle, glance.frame_beat, line_cycles)
    known: dict[str, Any] = {
        "first_beat_cycle": slots.first_beat_cycle,
        "line_cycles": slots.line_cycles,
        # Slot 0 of end b tells the limits of the reset; the first that can return a credit is one after.
        "first_credit_slot": 1 + [slot.flit.credit_channel for slot in glance.b_slots[1:]].index(0),
        "first_answer_slot": [slot.flit.code != EXPLICIT for slot in glance.b_slots].index(True),
        "start_cycles": glance.credits_back[0] - glance.trained[0],
        **glance.training,
    }
    for experiment in (_Probes.pairs, _Probes.withheld_credits):
        known = known | _measured(experiment, bench, slots, known)
    # The longest goes to the workers, who elaborate the link anew.
    lost_answers = submitter(workers)(_measured, _Probes.lost_answers, spec if workers else bench, slots, known)
    for experiment in (_Probes.stream, _Probes.retraining):
        known = known | _measured(experiment, bench, slots, known)
    return LinkTiming(**known, **lost_answers())


def _measured(
    experiment: "Callable[[_Probes], dict[str, Any]]", on: LinkBench | ChipletSpec, slots: Slots, known: dict[str, Any]
) -> dict[str, Any]:
    """Repeat the experiment as often as it takes, on a bench or on one made of a spec."""
    bench = LinkBench(on) if isinstance(on, ChipletSpec) else on
    for rounds in (1, 2):
        with contextlib.suppress(TooFewPhasesError):
            return experiment(_Probes(bench, slots, known, rounds))
    return experiment(_Probes(bench, slots, known, 4))


def stream_window_flits(spec: ChipletSpec) -> int:
    """Count the flits for the sustained rate: whole periods of slots against clock, and at least a full buffer.

    Without a fibre a buffer that is as deep as UCIe's never limits the rate, so no more of it need be used.
    """
    beats = spec.blocks_per_cycle.numerator
    period_flits = beats // gcd(beats, spec.beats_per_flit)
    return period_flits * -(-min(spec.buffer_flits, spec.UCIE_OUTSTANDING_FLITS) // period_flits)


# Each effect is (cycle of the cause, slot of the effect).
Effects = Iterable[tuple[int, int]]


class _Probes:
    """Makes experiments on one link, far enough apart for its loops to come to rest in between.

    Causes come one cycle earlier before a slot each time, or arrive one cycle later because the fibre grows, so that they
    meet the slots in every phase, ``rounds`` times. ``known`` has what was measured before.
    """

    def __init__(self, bench: LinkBench, slots: Slots, known: dict[str, Any], rounds: int):
        self.spec, self.bench, self.slots, self.known, self.rounds = bench.spec, bench, slots, known, rounds
        # Two phases more than a slot has cycles, so that the first and the last are on both sides of a decision.
        self.repeats = rounds * (slots.longest_cycles + 2)
        self.apart_slots = 6 + 2 * self.spec.virtual_channels + (4 * self.repeats + 40) // slots.longest_cycles

    def pairs(self) -> dict[str, int]:
        """Send two flits at a time, first at zero delay, then over a fibre that grows at every other time."""
        items, credited_slots = range(2 * self.repeats), 3 + (2 * self.repeats + 20) // self.slots.longest_cycles
        flits = [(self._before_slot(n), _FLIT) for n in items for _ in range(2)]
        back = [self._before_slot(n, credited_slots, 0) + second for n in items for second in range(2)]
        stretches = {self._start_cycle(n) for n in items[2 * self.rounds :: 2 * self.rounds]}
        run = self._run(flits, credit_cycle=lambda number, _: back[number], stretches=stretches)
        carriers, answers, staged = _carriers(run), _acknowledgements(self.spec, run), run.credits_back
        slots_of = [self._number(slot) for slot in carriers]
        credited = zip(run.credited, map(self._number, _credit_returns(self.spec, run)), strict=False)
        acknowledged = zip((s.arrival_cycle for s in carriers), map(self._number, answers), strict=True)
        stage_cycles = self._exact("stage_cycles", zip(staged, slots_of, strict=True))
        # From the decision of the first flit of a pair to the input register of the stage taking the second.
        waits = [staged[n + 1] - run.decided[n] for n in range(0, len(staged), 2)]
        return {
            "accept_cycles": same("accept_cycles", (at - run.sent[n][0] for n, at in enumerate(staged) if n % 2 == 0)),
            "stage_cycles": stage_cycles,
            # The second flit of a pair waits for the stage to be free, then goes through it.
            "next_cycles": max(waits) + stage_cycles,
            "deliver_cycles": same(
                "deliver_cycles", (at - s.arrival_cycle for s, (at, _) in zip(carriers, run.received, strict=True))
            ),
            "credit_out_cycles": self._exact("credit_out_cycles", credited, every=self.spec.virtual_channels),
            "ack_out_cycles": self._exact("ack_out_cycles", acknowledged, every=2),
        }

    def withheld_credits(self) -> dict[str, int]:
        """Fill the far buffer, then give one credit at a time back."""
        depth, fill_slots = self.spec.buffer_flits, self.spec.buffer_flits + 20
        flits = [(0, _FLIT)] * (depth + self.repeats)
        back = [self._before_slot(min(n, self.repeats), fill_slots, 0) for n in range(len(flits))]
        run = self._run(flits, credit_cycle=lambda number, _: back[number])
        returned = (slot.arrival_cycle for slot in _credit_returns(self.spec, run))
        # The first flits fill the far buffer; those after them wait for a credit each.
        staged, admitted = run.credits_back[depth:], run.received[depth:]
        return {
            "credit_in_cycles": same("credit_in_cycles", (at - cause for cause, at in zip(returned, staged, strict=False))),
            "credit_loop_cycles": max(got - at for (got, _), at in zip(admitted, run.credited, strict=False)),
        }

    def stream(self) -> dict[str, int | Fraction]:
        """Send flits in every slot; then two bursts at a time whose second slots are lost, over a fibre that grows."""
        known, spec, window = self.known, self.spec, stream_window_flits(self.spec)
        channels, burst = spec.virtual_channels, 6 + 40 // self.slots.longest_cycles
        slots_per_flit = 1 + known["credit_loop_cycles"] // (channels * spec.buffer_flits * spec.slot_cycles)
        first, apart = 2 * window * slots_per_flit + self.apart_slots, self.apart_slots + 2 * burst * slots_per_flit | 1
        begins = [first + n * apart for n in range(2 * self.repeats)]
        # The input register and the stage lie between a client's flit and the decision.
        early_cycles = known["accept_cycles"] + known["stage_cycles"]
        starts = [0] * 2 * window + [self.slots.decided_cycle(slot) - early_cycles for slot in begins for _ in range(burst)]
        flits = [(at, ClientFlit(b"\1", virtual_channel=n % channels)) for n, at in enumerate(starts)]
        stretches = {self.slots.decided_cycle(slot) - burst for slot in begins[2 * self.rounds :: 2 * self.rounds]}
        run = self._run(flits, lost_a=self._losing({slot + 1 for slot in begins}), stretches=stretches)

        firsts = {self._at(cycle): n for n, cycle in enumerate(run.decided)}
        sent = {self._number(slot): slot for slot in run.a_slots}
        lost = [sent[begin + 1] for begin in begins]
        requests = [next(s for s in run.b_slots if _asks(s) and s.arrival_cycle > slot.arrival_cycle) for slot in lost]
        again = [slot for slot in _carriers(run) if self._number(slot) not in firsts]
        replays = [next(s for s in again if s.arrival_cycle > slot.arrival_cycle) for slot in lost]
        # What the loss cost: beyond the delivery register and the growth of both fibres since the first burst.
        late = [
            run.received[firsts[begin + 1]][0] - slot.arrival_cycle - known["deliver_cycles"] - 2 * (n // 2 // self.rounds)
            for n, (begin, slot) in enumerate(zip(begins, lost, strict=True))
        ]
        asked = ((slot.arrival_cycle, self._number(request)) for slot, request in zip(lost, requests, strict=True))
        answered = ((request.arrival_cycle, self._number(replay)) for request, replay in zip(requests, replays, strict=True))
        nak_in_cycles = self._exact("nak_in_cycles", answered)
        return {
            "nak_out_cycles": self._exact("nak_out_cycles", asked, every=2),
            "nak_in_cycles": nak_in_cycles,
            "halt_in_cycles": self._halt_in_cycles(run, requests, nak_in_cycles),
            "replay_loop_cycles": max(late),
            "cycles_per_flit": Fraction(run.received[2 * window - 1][0] - run.received[window - 1][0], window),
        }

    def _halt_in_cycles(self, run: LinkRun, requests: Iterable[Slot], nak_in_cycles: int) -> int:
        """Find the delay from a request to the first slot that a staged flit did not get."""
        decided, earliest = set(run.decided), 0
        refused = nak_in_cycles
        for request in requests:
            at = request.arrival_cycle
            slot = self.slots.decided_from(at)
            while (cycle := self.slots.decided_cycle(slot)) < at + nak_in_cycles:
                if cycle in decided:
                    # One more: a flit that is decided in this cycle was not stopped by the halt register, which can be
                    # 1 only after it.
                    earliest = max(earliest, cycle - at + 1)
                elif self._is_waiting(run, cycle) and cycle >= at + earliest:
                    refused = min(refused, cycle - at)
                slot += 1
        if earliest > refused:
            raise TooFewPhasesError(f"LinkTiming.halt_in_cycles is {earliest} or more, but the RTL's slots say {refused}")
        return refused

    def _is_waiting(self, run: LinkRun, cycle: int) -> bool:
        # A flit can be decided stage_cycles after the stage took it, hence the difference.
        staged = sum(at <= cycle - self.known["stage_cycles"] for at in run.credits_back)
        return staged > sum(at < cycle for at in run.decided)

    def lost_answers(self) -> dict[str, int]:
        """Lose all answers until the replay buffer is full, but not for so long that the link retrains, over and over.

        The fibre grows meanwhile.
        """
        known, spec = self.known, self.spec
        loop_slots = (
            (known["credit_loop_cycles"] + self.repeats) // self.slots.longest_cycles + 2 * spec.virtual_channels + 4
        )
        full_slots = spec.replay_flits + (spec.replay_flits // spec.buffer_flits + 1) * loop_slots
        # The timeout after the last replay that is allowed trains the link anew: answers come back a loop before it.
        full_slots = min(full_slots, (REPLAYS_TO_RETRAIN + 1) * spec.timeout_slots - loop_slots)
        apart, first = full_slots + self.apart_slots, self.apart_slots
        deaf = {slot for n in range(self.repeats) for slot in range(first + n * apart, first + n * apart + full_slots)}
        answering = known["first_answer_slot"] % 2
        stretches = {self.slots.decided_cycle(first + n * apart - 1) for n in range(1, self.repeats, self.rounds)}
        flits = [(0, _FLIT)] * ((self.repeats + 1) * apart)
        run = self._run(flits, lost_b=self._losing({slot for slot in deaf if slot % 2 == answering}), stretches=stretches)
        by_number = {self._number(slot): slot for slot in run.b_slots}
        ends = [first + n * apart + full_slots for n in range(self.repeats)]
        answers = [by_number[end + (answering - end) % 2] for end in ends]
        freed = [(s.arrival_cycle, self._at(next(at for at in run.decided if at > s.arrival_cycle))) for s in answers]
        ack_in_cycles = self._exact("ack_in_cycles", freed)
        return {"ack_in_cycles": ack_in_cycles, "pointer_loop_cycles": self._pointer_loop_cycles(run, first, ack_in_cycles)}

    def _pointer_loop_cycles(self, run: LinkRun, before_slot: int, ack_in_cycles: int) -> int:
        carriers = [slot for slot in _carriers(run) if self._number(slot) < before_slot - self.apart_slots // 2]
        answers = _acknowledgements(self.spec, run)
        return min(
            answer.arrival_cycle + ack_in_cycles - decided
            for _, answer, decided in zip(carriers, answers, run.decided, strict=False)
        )

    def retraining(self) -> dict[str, int | Fraction]:
        """Send a flit that just makes the shortest slot there is; then train twice, between which the fibre grows."""
        known, slots = self.known, range(self.apart_slots, self.apart_slots + self.slots.beats)
        shortest = min(slots, key=lambda slot: self.slots.decided_cycle(slot + 1) - self.slots.decided_cycle(slot))
        at = self.slots.decided_cycle(shortest) - known["accept_cycles"] - known["stage_cycles"]
        apart_cycles, grow_cycles = self.apart_slots * self.slots.longest_cycles, self.spec.reach_cycles
        first = at + apart_cycles
        grow = first + 4 * (known["align_cycles"] + known["exchange_cycles"])
        # A line on which nothing arrives for long loses its locks: a long fibre grows in every other cycle.
        every_cycles = 1 if grow_cycles < SILENT_CYCLES // 2 else 2
        stretches = range(grow, grow + every_cycles * grow_cycles, every_cycles)
        second = stretches.stop + apart_cycles
        trains = {first, second}
        run = self._run([(at, _FLIT), (second + 1, _FLIT)], stretches=stretches, retrain_at=trains, decode=False)
        near_cycles, far_cycles = run.trained[1] - first, run.trained[2] - second
        # The line register is not part of the cut: it only delays what tx shows.
        cuts = (at - known["line_cycles"] - told for at, told in zip(run.cut, (first, second), strict=True))
        return {
            "latency_cycles": run.received[0][0] - run.sent[0][0],
            "cut_cycles": min(cuts),
            "retrain_cycles": near_cycles,
            "retrain_cycles_per_delay": Fraction(far_cycles - near_cycles, grow_cycles),
            "recovery_cycles": run.recoveries[0],
        }

    def _run(self, flits: Transfers, **options: Any) -> LinkRun:
        settle_cycles = self.apart_slots * self.slots.longest_cycles
        bound_cycles = 50 * self._start_cycle(2 * self.repeats + len(flits)) + 10_000
        return self.bench.run(
            flits, bound_cycles=bound_cycles, **{"settle_cycles": settle_cycles, "decode": True, **options}
        )

    def _losing(self, slots: Iterable[int]) -> Lost:
        beats = {self.slots.frame_beat + slot * self.spec.beats_per_flit for slot in slots}
        return lambda first_beat: first_beat in beats

    def _number(self, slot: Slot) -> int:
        return self._at(slot.before_cycle - self.slots.line_cycles)

    def _at(self, decided_cycle: int) -> int:
        return self.slots.decided_from(decided_cycle)

    def _start_cycle(self, number: int) -> int:
        return self.slots.decided_cycle((number + 1) * self.apart_slots)

    def _before_slot(self, number: int, later_slots: int = 0, channel: int | None = None) -> int:
        """Return when a slot (one with the limit of ``channel``) is decided, and one earlier with each number."""
        # One cycle beyond the repeats, so that even the earliest cause lies after the start.
        slot = self._at(self._start_cycle(number) + self.repeats + 1) + later_slots
        while channel is not None and (slot - self.known["first_credit_slot"]) % self.spec.virtual_channels != channel:
            slot += 1
        return self.slots.decided_cycle(slot) - number % self.repeats

    def _exact(self, name: str, effects: Effects, every: int = 1) -> int:
        """Find the delay from cause to earliest slot that explains every (cycle of the cause, slot of the effect).

        Each effect bounds it from above; the slot before (``every`` slots before), which came too soon, from below.
        """
        pairs = list(effects)
        most = min(self.slots.decided_cycle(n) - cause for cause, n in pairs)
        # One more than the slot that was missed: the effect came after that decision, by a cycle or more.
        least = 1 + max(self.slots.decided_cycle(n - every) - cause for cause, n in pairs)
        if least != most:
            raise TooFewPhasesError(f"LinkTiming.{name} must be one number, but the RTL's slots say {least} to {most}")
        return most


def _carriers(run: LinkRun) -> list[Slot]:
    return [slot for slot in run.a_slots if slot.flit.type == DATA]


def _asks(slot: Slot) -> bool:
    return slot.flit.code == NAK


def _credit_returns(spec: ChipletSpec, run: LinkRun) -> list[Slot]:
    """Find for the n-th credit given back in virtual channel 0, the slot of end b that returns it."""
    returns, limit = list[Slot](), run.b_slots[0].flit.credits
    for slot in run.b_slots:
        if slot.flit.credit_channel == 0:
            # Limits are counted modulo their width; less than a round lies between two of them.
            returns += [slot] * ((slot.flit.credits - limit - len(returns)) % (1 << spec.credit_bits))
    return returns


def _acknowledgements(spec: ChipletSpec, run: LinkRun) -> list[Slot]:
    """Find for the n-th flit the slot of end b that acknowledges it."""
    acks: list[Slot] = []
    for slot in run.b_slots:
        if slot.flit.code != EXPLICIT:
            # An answer names the newest flit received, so one more than its sequence are acknowledged.
            acks += [slot] * ((slot.flit.sequence + 1 - len(acks)) % spec.sequences)
    return acks
