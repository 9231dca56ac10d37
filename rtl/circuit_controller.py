"""The circuit controller changes the circuits of an optical switch, and no flit is lost in the dark.

The words of its state machines:

* *circuit*: light from port p to port q and back, since a link is answered on the circuit that it sends on; a port that is
  not *lit* has none and is dark
* *entry*: a setting of all ports, when it is to begin, and how long before that its ports begin to drain, the *guard*; the
  *schedule* has the entries that were accepted, the oldest first
* *bank*: the setting in force and the one that is prepared lie in the two halves of a memory, which change places at a turn
* *moves*: ports whose circuit becomes another one; all others are left alone
* *waited for*: those of the moving ports that have not yet done what the phase is about
* *failed*: a port did not do it within the bound, and is dark until the next change, which takes it along
* *out*: a port is out of service, because its mirror did not settle or it was taken out, until it is put back
* *forced*: the port or its old partner is out, so that nothing can be acknowledged any more: its drain is not waited for
"""

from dataclasses import dataclass

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

MIN_PORTS, MAX_PORTS = 2, 64
SCHEDULE_ENTRIES = 4
"""So many settings may wait; a power of two."""
NOW_BITS, GUARD_BITS, COUNT_BITS, PART_BITS = 32, 24, 16, 48
MAX_BOUND_CYCLES = 1 << 30
LEAD_CYCLES = 3
"""From the decision that the ports of an entry are to drain to the turn, where its guard is 0."""
SETTLE_CYCLES = 3
"""What ports answer to a new phase is looked at after so many cycles; SWITCH and LOCK together let a receiver run empty."""


class Refusal(enum.Enum, shape=3):
    """Says why an entry was not accepted, the first of these that holds."""

    NONE = 0
    RANGE = 1
    """A circuit leads to a port that there is not."""
    CONFLICT = 2
    """Two circuits lead to one port."""
    ONE_WAY = 3
    """A circuit has none back."""
    PARTIAL = 4
    """A port is dark and the entry does not say that some are."""
    OUT = 5
    """A circuit leads to or from a port that is out of service."""
    LATE = 6
    """Its drain would have begun by now."""


class Phase(enum.Enum, shape=3):
    """Names the phases of a change in their order; ports that move are dark from DRAIN on until each resumes in TRAIN."""

    IDLE = 0
    PREPARE = 1
    WAIT = 2
    DRAIN = 3
    SWITCH = 4
    LOCK = 5
    TRAIN = 6


PARTS = {"drain": Phase.DRAIN, "switching": Phase.SWITCH, "lock": Phase.LOCK, "training": Phase.TRAIN}
"""The parts of the time for which ports are dark, each with its phase."""


@dataclass(frozen=True)
class PhaseBounds:
    """Says within how many cycles the mirrors must settle, the rings lock and the links be trained."""

    settle_cycles: int
    lock_cycles: int
    train_cycles: int

    def __post_init__(self) -> None:
        for name, cycles in vars(self).items():
            if not SETTLE_CYCLES < cycles <= MAX_BOUND_CYCLES:
                must_be = f"from {SETTLE_CYCLES + 1} to {MAX_BOUND_CYCLES}"
                raise ValueError(f"PhaseBounds.{name} must be {must_be}, not {cycles}")


LONGEST = PhaseBounds(settle_cycles=1 << 25, lock_cycles=1 << 20, train_cycles=1 << 20)
"""These are for any switch but a robotic one, at up to 1 GHz: piezo mirrors take 25 ms, rings 200 us after a cold start."""


def circuit_layout(ports: int) -> data.StructLayout:
    """Lays out where the light of a port leads to, if it is lit."""
    return data.StructLayout({"output": (ports - 1).bit_length(), "lit": 1})


def entry_layout(ports: int) -> data.StructLayout:
    """Lays out a word of an entry: the circuit of a port, and when the setting begins, which its last word says.

    ``at_once`` takes ``guard`` cycles from when it is the turn of the entry on in place of ``start``.
    """
    times = {"at_once": 1, "start": NOW_BITS, "guard": GUARD_BITS}
    return data.StructLayout({"circuit": circuit_layout(ports), "partial": 1, **times})


class EntryCheck(wiring.Component):
    """Judges an entry by its circuits, which come port by port from 0 on, one in two cycles at most.

    A circuit comes with ``put``; in the cycle after it ``back`` must be the circuit of the port that it leads to, if that is
    a lower one. ``refusal`` is that of the whole entry from the second cycle after its last circuit on, until ``clear``.

    The words of the state: ports are *claimed* by circuits that lead to them, and *lit* if they have one themselves. When
    these are the same ports and nothing conflicts, circuits form cycles; one of more than two has a highest port, which
    does not lead back to where it is led to from, and that is a lower port: so looking back is enough.

    Members
    -------
    put : In(1)
    circuit : In(circuit_layout(ports))
    back : In(circuit_layout(ports))
    partial : In(1)
    out_of_service : In(ports)
    clear : In(1), begin the next entry
    refusal : Out(Refusal), but for LATE
    """

    def __init__(self, ports: int):
        self.ports = ports
        circuit = circuit_layout(ports)
        switches = dict.fromkeys(("put", "partial", "clear"), In(1))
        super().__init__(
            {**switches, "circuit": In(circuit), "back": In(circuit), "out_of_service": In(ports), "refusal": Out(Refusal)}
        )

    def elaborate(self, platform):
        m = Module()
        ports, circuit = self.ports, self.circuit
        claimed, lit, port, looked = Signal(ports), Signal(ports), Signal(range(ports + 1)), Signal(circuit.shape())
        far, conflict, one_way, looks = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [looks.eq(self.put), looked.eq(circuit)]
        with m.If(self.put):
            m.d.sync += [lit.eq(Cat(lit[1:], circuit.lit)), port.eq(port + 1)]
        # A cycle later ``port`` is the one after the port whose circuit is looked at.
        with m.If(looks & looked.lit):
            m.d.sync += [
                far.eq(far | (looked.output >= ports)),
                conflict.eq(conflict | claimed.bit_select(looked.output, 1)),
                claimed.eq(claimed | (1 << looked.output)),
            ]
            with m.If(looked.output < port - 1):
                m.d.sync += one_way.eq(one_way | ~self.back.lit | (self.back.output != port - 1))
        with m.If(self.clear):
            m.d.sync += [value.eq(0) for value in (claimed, lit, port, far, conflict, one_way)]
        with m.If(far):
            m.d.comb += self.refusal.eq(Refusal.RANGE)
        with m.Elif(conflict):
            m.d.comb += self.refusal.eq(Refusal.CONFLICT)
        with m.Elif(one_way | (claimed != lit)):
            m.d.comb += self.refusal.eq(Refusal.ONE_WAY)
        with m.Elif(~lit.all() & ~self.partial):
            m.d.comb += self.refusal.eq(Refusal.PARTIAL)
        with m.Elif((lit & self.out_of_service).any()):
            m.d.comb += self.refusal.eq(Refusal.OUT)
        return m


class CircuitController(wiring.Component):
    """Sets the circuits of an optical switch of ``ports`` ports by a schedule, and keeps flits out of the dark.

    An entry is ``ports`` words of ``entry``, the circuits of the ports from 0 on, one in two cycles; then ``judged`` says by
    ``refusal`` whether it was accepted. While the schedule is full no word is taken. Entries are made in their order. The
    mirrors of the next one are told by ``mirror`` before it is dark, in two cycles for each port.

    From ``guard`` cycles before the start on the links of the ports that move are held. When all are drained, mirrors are
    told to ``turn``; the start is the latest time for that: if a link is not drained then, the change is *abandoned*, and
    all go on in the old circuits, without loss; so it is if its time passes during the change before it. When the mirrors
    have settled, rings are told to lock again; when they are locked, links are trained, and each resumes when it is
    active. No link is waited for longer than its phase's bound, nor stops another one: see *failed* and *out* above. Ports
    whose circuits stay are not disturbed. From reset on all ports are dark.

    ``drain_cycles`` and so on count the cycles of each part since reset, and dark is a port from ``hold`` until it resumes:
    their sum grows by just the time from the first hold to the last resume of a change, or of one abandoned.

    Members
    -------
    entry : In(stream.Signature(entry_layout(ports)))
    judged : Out(1), pulse, with ``refusal``
    refusal : Out(Refusal)
    now : Out(32), cycles since reset, which starts are counted in
    take_out, put_back : In(ports), pulses: ports out of service, and back for the next entry
    out_of_service, failed : Out(ports)
    blocking : Out(ports), those that were not drained when a change was abandoned last
    mirror_valid : Out(1), the circuit ``mirror`` of ``mirror_port`` is to be in force from the next ``turn`` on
    mirror_port : Out(range(ports))
    mirror : Out(circuit_layout(ports))
    turn : Out(ports), pulse: take up the circuits that were told last
    settled : In(ports), looked at from the fourth cycle after ``turn`` on
    relock : Out(ports), pulse: the rings of these ports see other light
    locked : In(ports), all rings of a port are locked, from the fourth cycle after ``relock`` on; 1 where there are none
    hold, enable, renew : Out(ports), of each link
    drained, active : In(ports), of each link; ``drained`` from the third cycle after ``hold`` on
    phase : Out(Phase)
    drain_cycles, switching_cycles, lock_cycles, training_cycles : Out(48)
    changes, abandoned, refused : Out(16)
    """

    def __init__(self, ports: int, bounds: PhaseBounds):
        if not MIN_PORTS <= ports <= MAX_PORTS:
            raise ValueError(f"CircuitController.ports must be from {MIN_PORTS} to {MAX_PORTS}, not {ports}")
        self.ports, self.bounds = ports, bounds
        ins = ("take_out", "put_back", "settled", "locked", "drained", "active")
        outs = ("out_of_service", "failed", "blocking", "turn", "relock", "renew")
        super().__init__(
            {
                "entry": In(stream.Signature(entry_layout(ports))),
                **dict.fromkeys(("judged", "mirror_valid"), Out(1)),
                "refusal": Out(Refusal),
                "now": Out(NOW_BITS),
                **dict.fromkeys(ins, In(ports)),
                **dict.fromkeys(outs, Out(ports)),
                "hold": Out(ports, init=(1 << ports) - 1),
                "enable": Out(ports),
                "mirror_port": Out(range(ports)),
                "mirror": Out(circuit_layout(ports)),
                "phase": Out(Phase),
                **{f"{name}_cycles": Out(PART_BITS) for name in PARTS},
                **dict.fromkeys(("changes", "abandoned", "refused"), Out(COUNT_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._head, self._taken, self._level = Signal(range(SCHEDULE_ENTRIES)), Signal(), Signal(range(SCHEDULE_ENTRIES + 1))
        self._dead = Signal(self.ports)
        m.submodules.schedule = schedule = Memory(
            shape=circuit_layout(self.ports), depth=SCHEDULE_ENTRIES << (self.ports - 1).bit_length(), init=[]
        )
        times = data.StructLayout({"at_once": 1, "drains_at": NOW_BITS, "guard": GUARD_BITS})
        m.submodules.times = self._times = Memory(shape=times, depth=SCHEDULE_ENTRIES, init=[])
        m.d.sync += self.now.eq(self.now + 1)
        self._accept(m, schedule)
        self._change(m, schedule)
        for name, phase in PARTS.items():
            count = getattr(self, f"{name}_cycles")
            with m.If(self.phase == phase):
                m.d.sync += count.eq(count + 1)
        return m

    def _accept(self, m, schedule):
        """Takes the words of an entry, and puts it at the end of the schedule if nothing is wrong with it."""
        word, tail, port = self.entry.payload, Signal(range(SCHEDULE_ENTRIES)), Signal(range(self.ports))
        takes, looks, judges, ended = Signal(), Signal(), Signal(), Signal()
        m.submodules.check = check = EntryCheck(self.ports)
        write, read, times = schedule.write_port(), schedule.read_port(), self._times.write_port()
        drains_at = Signal(NOW_BITS)
        late, refusal = Signal(), Signal(Refusal)
        m.d.comb += [
            self.entry.ready.eq((self._level != SCHEDULE_ENTRIES) & ~looks & ~ended & ~judges),
            takes.eq(self.entry.valid & self.entry.ready),
            write.addr.eq(Cat(port, tail)),
            write.data.eq(word.circuit),
            write.en.eq(takes),
            read.addr.eq(Cat(word.circuit.output, tail)),
            check.put.eq(takes),
            check.circuit.eq(word.circuit),
            check.back.eq(read.data),
            check.out_of_service.eq(self.out_of_service),
            check.clear.eq(judges),
            times.addr.eq(tail),
            # A cycle after the word, when the difference of its times is known.
            times.en.eq(looks),
            [times.data[name].eq(word_was(m, word[name], takes)) for name in ("at_once", "guard")],
            times.data.drains_at.eq(drains_at),
            refusal.eq(Mux((check.refusal == Refusal.NONE) & late, Refusal.LATE, check.refusal)),
        ]
        m.d.sync += [looks.eq(takes), ended.eq(takes & (port == self.ports - 1)), judges.eq(ended)]
        m.d.sync += late.eq((drains_at - self.now)[NOW_BITS - 1] & ~times.data.at_once)
        with m.If(takes):
            m.d.sync += [port.eq(Mux(port == self.ports - 1, 0, port + 1)), drains_at.eq(word.start - word.guard)]
            m.d.sync += check.partial.eq(word.partial)
        accepted = Signal()
        m.d.comb += accepted.eq(judges & (refusal == Refusal.NONE))
        m.d.sync += [self.judged.eq(judges), self._level.eq(self._level + accepted - self._taken)]
        with m.If(judges):
            m.d.sync += [self.refusal.eq(refusal), tail.eq(tail + accepted), self.refused.eq(self.refused + ~accepted)]

    def _prepare(self, m, schedule):
        """Compares the next setting with the one in force, a port in two cycles, and tells the mirrors of it."""
        ports, bits = self.ports, (self.ports - 1).bit_length()
        m.submodules.banks = banks = Memory(shape=circuit_layout(ports), depth=2 << bits, init=[])
        new, old, write = schedule.read_port(), banks.read_port(), banks.write_port()
        port, looks, self._prepared = Signal(range(ports)), Signal(), Signal()
        moves, next_lit, forced = (Signal(ports, name=name) for name in ("moves", "next_lit", "forced"))
        bank, effective = Signal(), Signal(circuit_layout(ports))
        leads_out, led_out, was_failed = Signal(), Signal(), Signal()

        def either(mask, circuit):
            return mask.bit_select(port, 1) | (mask.bit_select(circuit.output, 1) & circuit.lit)

        preparing = self.phase == Phase.PREPARE
        m.d.comb += [
            new.addr.eq(Cat(port, self._head)),
            old.addr.eq(Cat(port, bank)),
            leads_out.eq(either(self.out_of_service, new.data)),
            led_out.eq(either(self.out_of_service, old.data)),
            was_failed.eq(either(self.failed, new.data) | either(self.failed, old.data)),
            effective.output.eq(new.data.output),
            effective.lit.eq(new.data.lit & ~leads_out),
            write.addr.eq(Cat(port, ~bank)),
            write.data.eq(effective),
            write.en.eq(preparing & looks),
            self._prepared.eq(preparing & looks & (port == ports - 1)),
        ]
        m.d.sync += [looks.eq(preparing & ~looks), self.mirror_valid.eq(write.en), self.mirror_port.eq(port)]
        m.d.sync += self.mirror.eq(effective)
        with m.If(write.en):
            differs = (effective.lit != old.data.lit) | (effective.lit & (effective.output != old.data.output)) | was_failed
            m.d.sync += [
                port.eq(Mux(port == ports - 1, 0, port + 1)),
                moves.eq(Cat(moves[1:], differs)),
                next_lit.eq(Cat(next_lit[1:], effective.lit)),
                forced.eq(Cat(forced[1:], led_out)),
            ]
        self._bank = bank
        return moves, next_lit, forced

    def _change(self, m, schedule):
        """Leads the ports that move from phase to phase."""
        moves, next_lit, forced = self._prepare(m, schedule)
        most = max(*vars(self.bounds).values(), (1 << GUARD_BITS) - 1)
        waited, done, age = Signal(self.ports), Signal(), Signal(range(SETTLE_CYCLES + 1))
        timer, ready, expired, ends, drops = Signal(range(most + 1)), Signal(), Signal(), Signal(), Signal()
        due, missed, guard = self._due(m)
        # What each mask is to be: a port that is taken out is so whatever the phase says of it.
        hold, enable, failed, waits = (
            Signal(self.ports, name=f"{name}_next") for name in ("hold", "enable", "failed", "waited")
        )
        m.d.comb += [hold.eq(self.hold), enable.eq(self.enable), failed.eq(self.failed), waits.eq(waited)]
        m.d.comb += [ready.eq(done & (age == SETTLE_CYCLES)), expired.eq((timer == 0) & (age == SETTLE_CYCLES))]
        m.d.sync += [self.turn.eq(0), self.relock.eq(0)]
        m.d.sync += [age.eq(age + (age != SETTLE_CYCLES)), timer.eq(timer - (timer != 0))]

        def enter(phase: Phase, cycles=0):
            return [self.phase.eq(phase), age.eq(0), timer.eq(cycles)]

        def answered(answer):
            """Those of the ports waited for that have answered; ``done`` has looked at all of them a cycle ago."""
            return waited & (answer | ready.replicate(self.ports))

        with m.Switch(self.phase):
            with m.Case(Phase.IDLE):
                with m.If(self._level != 0):
                    m.d.sync += enter(Phase.PREPARE)
            with m.Case(Phase.PREPARE):
                with m.If(self._prepared):
                    m.d.sync += enter(Phase.WAIT)
            with m.Case(Phase.WAIT):
                with m.If((age == SETTLE_CYCLES) & missed):
                    m.d.comb += [ends.eq(1), drops.eq(1)]
                with m.Elif((age == SETTLE_CYCLES) & due & ~moves.any()):
                    m.d.comb += ends.eq(1)
                with m.Elif((age == SETTLE_CYCLES) & due):
                    m.d.sync += enter(Phase.DRAIN, guard)
                    m.d.comb += [hold.eq(self.hold | moves), waits.eq(moves & self.enable & ~forced)]
            with m.Case(Phase.DRAIN):
                m.d.sync += done.eq((self.drained | ~waited).all())
                with m.If(ready):
                    m.d.sync += [*enter(Phase.SWITCH, self.bounds.settle_cycles), self._bank.eq(~self._bank)]
                    m.d.sync += [self.turn.eq(moves), self.renew.eq(moves)]
                    m.d.comb += [
                        enable.eq(self.enable & ~moves),
                        failed.eq(self.failed & ~moves),
                        waits.eq(moves & next_lit),
                    ]
                with m.Elif(expired):
                    m.d.sync += self.blocking.eq(waited & ~self.drained)
                    m.d.comb += [hold.eq(self.hold & ~(moves & self.enable)), ends.eq(1), drops.eq(1)]
            with m.Case(Phase.SWITCH):
                m.d.sync += done.eq((self.settled | ~waited).all())
                with m.If(ready | expired):
                    settled = answered(self.settled)
                    m.d.sync += [*enter(Phase.LOCK, self.bounds.lock_cycles), self.relock.eq(settled)]
                    m.d.comb += [waits.eq(settled), self._dead.eq(waited & ~settled), failed.eq(self.failed | self._dead)]
            with m.Case(Phase.LOCK):
                m.d.sync += done.eq((self.locked | ~waited).all())
                with m.If(ready | expired):
                    locked = answered(self.locked)
                    m.d.sync += [*enter(Phase.TRAIN, self.bounds.train_cycles), self.renew.eq(0)]
                    m.d.comb += [
                        waits.eq(locked),
                        enable.eq(self.enable | locked),
                        failed.eq(self.failed | (waited & ~locked)),
                    ]
            with m.Case(Phase.TRAIN):
                # A port resumes a cycle after it is waited for no longer, for speed; with the last one the phase ends.
                resumes = moves & self.enable & ~waited
                trained = self.active & (age == SETTLE_CYCLES).replicate(self.ports)
                m.d.comb += [hold.eq(self.hold & ~resumes), waits.eq(waited & ~trained), ends.eq(expired | ~waited.any())]
                with m.If(expired):
                    m.d.comb += [failed.eq(self.failed | waited), enable.eq(self.enable & ~waited)]
        # The counts follow a cycle later, for speed.
        dropped, made = Signal(), Signal()
        m.d.sync += [dropped.eq(ends & drops), made.eq(ends & ~drops)]
        m.d.sync += [self.abandoned.eq(self.abandoned + dropped), self.changes.eq(self.changes + made)]
        m.d.comb += self._taken.eq(ends)
        with m.If(ends):
            m.d.sync += [self.phase.eq(Phase.IDLE), self._head.eq(self._head + 1)]
        m.d.sync += [
            self.hold.eq(hold | self.take_out),
            self.enable.eq(enable & ~self.take_out),
            self.failed.eq(failed | self.take_out),
            waited.eq(waits & ~self.take_out),
            self.out_of_service.eq((self.out_of_service & ~self.put_back) | self.take_out | self._dead),
        ]

    def _due(self, m):
        """Tells when the ports of the oldest entry are to drain, or were, and its guard."""
        times, to_due, due, ahead = self._times.read_port(), Signal(NOW_BITS), Signal(), Signal(NOW_BITS, init=LEAD_CYCLES)
        m.d.comb += times.addr.eq(self._head)
        # A register stage for each, for speed. At ``due`` the turn is ``guard`` and LEAD_CYCLES away, at the latest.
        m.d.sync += [ahead.eq(ahead + 1), to_due.eq(times.data.drains_at - ahead)]
        m.d.sync += due.eq(times.data.at_once | (to_due == 1))
        return due, to_due[NOW_BITS - 1] & ~times.data.at_once, times.data.guard


def word_was(m, value, takes):
    """Keeps a value as it was with the word that was taken last."""
    kept = Signal.like(value)
    with m.If(takes):
        m.d.sync += kept.eq(value)
    return kept
