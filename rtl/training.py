"""Training takes both ends of a line from reset to frames, and back to frames after trouble.

Each end sends training sets until both have heard each other's parameters. The step in the sets says how far an end is:

* 0, it does not hear the other end, or does not know yet whether that was reset
* 1, it hears the other end, and has forgotten its sequence state if that was reset
* 2, it has all parameters of the other end, from after the beginning of its own training
* 3, and it knows that the other end has its own: one cycle of 16 sets, then frames

Trainings are numbered and the numbers echoed, so that no set of an earlier training is taken for one of the present one,
however long the fibre is.

The words of the state machine:

* *cycle*: 16 sets one after the other; the *phase* of a set is its place in the cycle and says what its word means
* *good*: a lane is locked and proven by its sets; *offered*: the good lanes that could be in use, by the roll call
* *hoped for*: lanes that were in use; a training waits for them, up to a bound, before it goes on with the offered ones
* *aligned*: all lanes in use show what was sent together
* *number*, *echo*: an end counts its trainings and says which training of the other end it takes part in
* *unsynced*: this end was reset and has not resumed since, so the other end must *flush*, forget its sequence state
* *renewed*: this end is to meet another far end, and has forgotten the state that it shared with the one before
* *flushed*: this end has nothing to forget, because no frame has come since its own reset or the last flush
* *lapses*: the line was down for longer than packets may wait, so both ends forget, as if both had been reset
* *failure*: a state took longer than its bound, or frames made trouble soon; *repeated* if there was one before it on the
  same lanes and no long service in between
* *resume*: the parameters of the other end are complete, and replay goes on from them
"""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.roll_call import HoldOff, RollCall
from lightfabric.rtl.training_set import (
    HEARD,
    LANE_BITS,
    MAGIC,
    PHASES,
    SET,
    SET_BITS,
    TRAINING_SET,
    TRAININGS,
    Phase,
    config_code,
    parameter_words,
    parameters_layout,
)
from lightfabric.rtl.training_state import TIME_BITS, Bounds, State

CAUSES = data.StructLayout(dict.fromkeys(("again", "fails", "anew"), 1))
"""A training begins again because it is asked for or lost, after a failure, or anew."""


class Training(wiring.Component):
    """Leads one end of a line from reset to frames and, after trouble, back to frames.

    A training begins with sets instead of frames, which make the other end begin too. It takes the good lanes, whichever
    they are, as soon as these are all that were hoped for or as many as there are wavelengths, or the bound of LOCK has
    passed since the first was good. Lanes that become good later are taken back by another training. A state that takes
    longer than its bound fails: the first failure drops all locks, the second one takes the link down for a while, then it
    begins anew.

    No frame is received without sets in which the other end says that it hears this end. A transmitter that is looped back
    to its own receiver is such an end.

    A line that was in service and is not active for ``spec.stall_cycles`` lapses: this end forgets its sequence state at
    once, says in its sets that it was reset, and so makes the other end forget as soon as it hears them.

    Members
    -------
    enable : In(1), at 0 the state is RESET and sets of step 0 are sent; the sequence state is not forgotten
    retrain : In(1), pulse: train now, with all lanes
    renew : In(1), level, looked at in RESET: the far end is another one from now on, so ``flush`` when ``enable`` rises, as
        if it was reset; ``enable`` must have been 0 for longer than the receiver takes
    trouble : In(1), looked at in ACTIVE: train again
    beat : In(1), a beat is sent: ``sets`` and ``set`` are looked at
    heard : In(HEARD), of Aligner.beat
    good : In(N), of the lanes of the line
    numbers : In(5).array(N)
    aligned : In(1)
    local : In(parameters_layout(spec)), of this end's receiver, that of an empty one within 8 cycles after ``flush``
    sets : Out(1), send training sets
    set : Out(32), TRAINING_SET with lane 0
    frames_in : Out(1), 1 from the first frame beat at Aligner.beat until the next training begins
    active : Out(1), frames flow in both directions
    holds : Out(1), lanes in use bring frames, or are about to
    resume : Out(1), pulse: ``remote`` and ``lanes_out`` are those of the other end, and stay until the next training; at
        least 16 sets follow, then frames
    flush : Out(1), pulse: the other end was reset and this end was not, or is another one, or the line lapsed; at least 32
        beats before ``resume``
    peer_reset : Out(1), from ``flush`` until active
    remote : Out(parameters_layout(spec))
    lanes_out : Out(N), lanes on which frames are sent
    lanes_in : Out(N), the other end's lanes on which frames are received
    use : Out(N), lanes on which they come
    ranks : Out(range(W)).array(N), the place of each among them
    width : Out(range(W + 1)), how many they are
    doubles : Out(N), good lanes that have the number of another one
    reuse : Out(1), pulse: other lanes are in use
    retry : Out(1), pulse: training begins anew
    relock : Out(1), pulse
    realign : Out(1), pulse at the beginning of each training
    state : Out(State)
    config_mismatch : Out(1), the configuration code last heard is not that of this end
    lock_cycles, align_cycles, exchange_cycles : Out(32), of the last attempt: from its beginning to lock, on to EXCHANGE,
        on to ACTIVE
    recovery_cycles : Out(32), from leaving ACTIVE to ACTIVE
    retrainings : Out(1), pulse: active again
    """

    def __init__(self, spec: ChipletSpec):
        self.spec, self.bounds = spec, Bounds(spec)
        count, lanes, parameters = spec.wavelengths_per_port, spec.lanes_per_port, parameters_layout(spec)
        super().__init__(
            {
                **dict.fromkeys(("enable", "retrain", "renew", "trouble", "beat"), In(1)),
                "heard": In(HEARD),
                "good": In(lanes),
                "numbers": In(LANE_BITS).array(lanes),
                "aligned": In(1),
                "local": In(parameters),
                "sets": Out(1, init=1),
                "set": Out(SET_BITS),
                **dict.fromkeys(("frames_in", "holds", "active", "resume", "flush", "peer_reset"), Out(1)),
                "remote": Out(parameters),
                **dict.fromkeys(("lanes_out", "lanes_in"), Out(lanes, init=(1 << count) - 1)),
                "use": Out(lanes, init=(1 << lanes) - 1),
                "ranks": Out(range(max(count, 2))).array(lanes),
                "width": Out(range(count + 1), init=count),
                "doubles": Out(lanes),
                **dict.fromkeys(("reuse", "retry", "relock", "realign"), Out(1)),
                "state": Out(State),
                "config_mismatch": Out(1),
                **{f"{name}_cycles": Out(TIME_BITS) for name in ("lock", "align", "exchange", "recovery")},
                "retrainings": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.roll_call = self._roll_call = roll_call = RollCall(self.spec)
        m.submodules.hold_off = self._hold_off = hold_off = HoldOff()
        m.d.comb += [
            roll_call.good.eq(self.good),
            roll_call.use.eq(self.use),
            roll_call.lanes.eq(self.lanes_in),
            [mine.eq(number) for mine, number in zip(roll_call.numbers, self.numbers, strict=True)],
            [rank.eq(of_lane) for rank, of_lane in zip(self.ranks, roll_call.ranks, strict=True)],
            self.doubles.eq(roll_call.doubles),
            hold_off.beat.eq(self.beat),
            hold_off.active.eq(self.active),
            hold_off.more.eq(roll_call.width > self.width),
        ]
        begin, unsynced, trainings = Signal(), Signal(init=1), Signal(TRAININGS)
        with m.If(begin & self.enable):
            m.d.sync += trainings.own.eq(trainings.own + 1)
        # What the far end before sent last is still in the receiver when ``enable`` falls: it is forgotten when that rises.
        renewing, renewed = Signal(), Signal()
        m.d.sync += [renewing.eq(self.renew & (self.state == State.RESET)), renewed.eq(renewing & self.enable)]
        with m.If(renewing):
            m.d.sync += unsynced.eq(1)
        self._send(m, begin, unsynced, trainings)
        self._machine(m, self._receive(m, begin), begin, unsynced, trainings, renewed)
        self._measure(m, begin)
        return m

    def _send(self, m, begin, unsynced, trainings):
        """Makes the set of the next beat in the beat before it; the state is looked at then."""
        shown, cycle = Signal(TRAINING_SET, init={"magic": MAGIC, "word": config_code(self.spec)}), Signal(4)
        following, last = (shown.phase + 1)[:4], shown.phase == PHASES - 1
        words = parameter_words(self.spec, self.local, unsynced, self.lanes_in, trainings, cycle)
        m.d.comb += self.set.eq(shown)
        # Also while frames are sent: lanes that carry none go on with sets, of step 0.
        with m.If(self.beat):
            m.d.sync += [shown.phase.eq(following), cycle.eq(cycle + last)]
            with m.Switch(following):
                for phase, word in enumerate(words):
                    with m.Case(phase):
                        m.d.sync += shown.word.eq(word)
            with m.Switch(self.state):
                with m.Case(State.EXCHANGE):
                    m.d.sync += shown.step.eq(1)
                with m.Case(State.CONFIRM):
                    m.d.sync += shown.step.eq(2)
                with m.Case(State.START):
                    # Step 3 lasts one whole cycle, so that the other end finds the first frame from any set of it.
                    begun, ends = last | (shown.step == 3), ~self.sets | (last & (shown.step == 3))
                    m.d.sync += [shown.step.eq(Mux(ends, 0, Mux(begun, 3, 2))), self.sets.eq(~ends)]
                with m.Default():
                    m.d.sync += shown.step.eq(0)
        with m.If(begin):
            m.d.sync += [shown.step.eq(0), self.sets.eq(1)]
        with m.If(begin & ~self.sets):
            m.d.sync += [shown.phase.eq(0), shown.word.eq(words[0])]

    def _receive(self, m, begin):
        """Keeps the set of the beat before, and counts beats from it to the first one of frames."""
        previous, phase, start = _HeardSet(), Signal(4), Signal()
        # Bit errors hide sets: from the last one that was seen the phase is counted on with the beats.
        now, starts = Mux(previous.valid, previous.set.phase, phase), Signal()
        # The last set is too late to start from: its cycle is over, and counting would go on through a cycle of frames.
        m.d.comb += starts.eq(start | (previous.valid & (previous.set.step == 3) & (previous.set.phase != PHASES - 1)))
        m.d.sync += [
            previous.valid.eq(self.heard.set_valid),
            previous.set.eq(self.heard.set),
            previous.is_request.eq(self.heard.set.phase == Phase.REQUEST),
            previous.is_number.eq(self.heard.set.phase == Phase.NUMBER),
            previous.in_frames.eq(self.heard.set_valid & self.frames_in),
            phase.eq(now + self.heard.valid),
            start.eq(starts),
        ]
        # ``now`` is of the register stage before: the beat that comes in this cycle is the last one of sets.
        with m.If(self.heard.valid & (now == PHASES - 2)):
            m.d.sync += [start.eq(0), self.frames_in.eq(self.frames_in | (starts & previous.believed))]
        with m.If(begin):
            m.d.sync += [self.frames_in.eq(0), start.eq(0), previous.in_frames.eq(0)]
        return previous

    def _track_peer(self, m, previous, begin, trainings, renewed):
        """Tells whether the other end began another training, was reset before it, and has heard of this one.

        The number of a training is echoed when it has been heard before and after the word that says ``unsynced``:
        parameters that go with an echo are from after the flush, and from after the beginning of the training echoed.
        """
        asked, flushed, must_flush, training = Signal(), Signal(init=1), Signal(), Signal()
        is_new, changed, hears_me, lapses = Signal(), Signal(), Signal(), Signal()
        self._watch(m, flushed, lapses)
        told = data.View(TRAININGS, previous.set.word)
        requests, numbers = previous.valid & previous.is_request, previous.valid & previous.is_number
        m.d.comb += [
            training.eq((self.state != State.RESET) & (self.state != State.DOWN) & ~self.active & ~self.frames_in),
            must_flush.eq(requests & training & previous.set.word[0] & ~flushed),
            is_new.eq(numbers & (told.own != trainings.other)),
        ]
        m.d.sync += [self.flush.eq(must_flush | renewed | lapses), changed.eq(is_new)]
        m.d.sync += [
            flushed.eq((flushed | must_flush | renewed | lapses) & ~self.frames_in),
            self.peer_reset.eq((self.peer_reset | must_flush | lapses) & ~self.active),
        ]
        with m.If(numbers):
            m.d.sync += [trainings.other.eq(told.own), hears_me.eq(told.echoes & (told.other == trainings.own))]
        forgets = is_new | must_flush | begin
        m.d.sync += [
            asked.eq((asked | requests) & ~forgets),
            trainings.echoes.eq(Mux(numbers, asked, trainings.echoes) & ~forgets),
        ]
        # They are taken in EXCHANGE alone: from ``resume`` on ``remote`` must stay as it is.
        with m.If(self.state != State.EXCHANGE):
            m.d.sync += hears_me.eq(0)
        return changed, hears_me, lapses

    def _watch(self, m, flushed, lapses):
        """Lets the line lapse once when it has not been active for too long; not between CONFIRM and what follows it."""
        # Cycles to go, less one: they end at -1, which the sign shows.
        patience = Signal(range(-1, self.spec.stall_cycles), init=self.spec.stall_cycles - 1)
        with m.If(self.active | flushed):
            m.d.sync += patience.eq(self.spec.stall_cycles - 1)
        with m.Elif(~patience[-1]):
            m.d.sync += patience.eq(patience - 1)
        # In these two states the other end's parameters count, and frames may come before the flush.
        agreed = (self.state == State.CONFIRM) | (self.state == State.START)
        m.d.comb += lapses.eq(patience[-1] & ~agreed & ~self.active & ~flushed & ~self.frames_in)

    def _collect(self, m, previous, hears_me):
        """Takes the parameters of the other end; ``complete`` when all have come since it hears this training."""
        channels = self.spec.virtual_channels
        limits, lanes = range(Phase.LIMITS, Phase.LIMITS + channels), range(Phase.LANES, Phase.COUNTED)
        needed = (Phase.CONFIG, Phase.REQUEST, Phase.EXPECTED, *limits, *lanes)
        collected, complete, word = Signal(PHASES), Signal(), previous.set.word
        collects = previous.valid & hears_me & (previous.set.step != 0)
        with m.If(previous.valid & (previous.set.phase == Phase.CONFIG)):
            m.d.sync += self.config_mismatch.eq(word != config_code(self.spec))
        with m.If(~hears_me):
            m.d.sync += collected.eq(0)
        m.d.sync += complete.eq(
            Cat(collected[phase] for phase in needed).all() & self.lanes_out.any() & ~self.config_mismatch
        )
        with m.If(collects):
            m.d.sync += collected.bit_select(previous.set.phase, 1).eq(1)
            with m.Switch(previous.set.phase):
                for phase, part in zip(lanes, (self.lanes_out[:16], self.lanes_out[16:]), strict=True):
                    with m.Case(phase):
                        m.d.sync += part.eq(word)
                with m.Case(Phase.EXPECTED):
                    m.d.sync += self.remote.expected.eq(word)
                for v in range(channels):
                    with m.Case(Phase.LIMITS + v):
                        m.d.sync += self.remote.limits[v].eq(word)
        return complete

    def _machine(self, m, previous, begin, unsynced, trainings, renewed):
        """Goes from state to state, and gathers the causes for which a training begins."""
        timer = Signal(max(self.bounds.exchange, self.bounds.stable).bit_length() + 1)
        entered, expired, self._hoped = Signal(), Signal(), Signal.like(self.use, name="hoped")
        # The bound is known in the cycle after the state, so a timer of the state before does not count in that cycle.
        m.d.comb += expired.eq(timer[-1] & ~entered)
        m.d.sync += entered.eq(0)
        with m.If(entered):
            m.d.sync += timer.eq(self._bound(m))
        with m.Elif(self.beat):
            m.d.sync += timer.eq(timer - ~timer[-1])

        def enter(state: State):
            return [self.state.eq(state), entered.eq(1)]

        causes, seen = Signal(CAUSES), Signal(CAUSES)
        again, fails, anew = seen.again, seen.fails, seen.anew
        changed, hears_me, lapses = self._track_peer(m, previous, begin, trainings, renewed)
        complete = self._collect(m, previous, hears_me)
        all_good, found = (self.good | ~self.use).all(), Signal()
        m.d.comb += [
            previous.believed.eq((self.state == State.CONFIRM) | (self.state == State.START)),
            self.holds.eq(self.frames_in | (self.state == State.START)),
            anew.eq(self.state == State.RESET),
        ]
        m.d.sync += [self.resume.eq(0), self.relock.eq(0), self.reuse.eq(0), self.realign.eq(begin)]
        with m.If(self.resume | lapses):
            m.d.sync += unsynced.eq(lapses)
        with m.Switch(self.state):
            with m.Case(State.LOCK):
                # The bound counts from the first good lane on, for the others to become good as well.
                m.d.sync += found.eq(self._roll_call.width != 0)
                with m.If(~found & (self._roll_call.width != 0)):
                    m.d.sync += entered.eq(1)
                m.d.comb += fails.eq(expired & ~found)
                with m.If(self._takes(m, found & expired)):
                    m.d.sync += enter(State.ALIGN)
            with m.Case(State.ALIGN):
                m.d.comb += [again.eq(~all_good), fails.eq(expired)]
                with m.If(self.aligned & trainings.echoes):
                    m.d.sync += enter(State.EXCHANGE)
            with m.Case(State.EXCHANGE):
                m.d.comb += [again.eq(~self.aligned | ~all_good), fails.eq(expired)]
                with m.If(changed):
                    m.d.sync += enter(State.ALIGN)
                with m.Elif(complete):
                    m.d.sync += enter(State.CONFIRM)
            with m.Case(State.CONFIRM):
                m.d.comb += [again.eq(~self.aligned | ~all_good), fails.eq(expired)]
                with m.If(changed):
                    m.d.sync += enter(State.ALIGN)
                with m.Elif(previous.valid & previous.set.step[1]):
                    m.d.sync += [*enter(State.START), self.resume.eq(~begin)]
            with m.Case(State.START):
                m.d.comb += again.eq(changed | previous.in_frames | ~self.aligned | ~all_good)
                m.d.comb += fails.eq(expired)
                with m.If(self.frames_in & ~self.sets):
                    m.d.sync += [*enter(State.ACTIVE), self.active.eq(1)]
            with m.Case(State.ACTIVE):
                m.d.comb += again.eq(~self.aligned | previous.in_frames | self.trouble | self._hold_off.asks)
                m.d.comb += fails.eq(self.trouble & ~expired)
            with m.Case(State.DOWN):
                m.d.comb += anew.eq(expired)
                m.d.sync += self.relock.eq(expired)

        # A cycle later, for speed; what was seen once does not begin twice.
        m.d.sync += causes.eq(Mux(begin, 0, seen))
        with m.If(self.retrain | ~self.enable | lapses):
            m.d.sync += causes.anew.eq(1)
        gives_up, failed = Signal(), Signal()
        m.d.comb += [failed.eq(causes.fails & ~causes.anew), begin.eq(causes.as_value().any())]
        m.d.comb += self._hold_off.lost.eq(begin & self.active & (~all_good | causes.fails))
        with m.If(begin):
            m.d.sync += [*enter(State.LOCK), self.active.eq(0), found.eq(0)]
            good = self.use & self.good
            m.d.sync += self._hoped.eq(Mux(self.active, self.use, Mux(good.any(), good, ~0)))
        with m.If(failed & gives_up):
            m.d.sync += enter(State.DOWN)
        with m.If(~self.enable):
            m.d.sync += self.state.eq(State.RESET)
        stable = (self.state == State.ACTIVE) & expired
        self._fall_back(m, failed, causes.anew, stable, gives_up)

    def _takes(self, m, late):
        """Takes the lanes offered if they are good and enough, or all that are hoped for, or it is too late for more."""
        call, takes, offered_good = self._roll_call, Signal(), Signal()
        count = self.spec.wavelengths_per_port
        enough = (call.width == count) | (call.offer | ~self._hoped).all() | late
        m.d.comb += offered_good.eq((self.good | ~call.offer).all() & (call.width != 0))
        m.d.comb += takes.eq(offered_good & enough & ~self.relock)
        m.d.sync += self.reuse.eq(takes & (call.offer != self.use))
        with m.If(takes):
            m.d.sync += [self.use.eq(call.offer), self.lanes_in.eq(call.offered), self.width.eq(call.width)]
        return takes

    def _bound(self, m):
        """Looks up how many beats the present state may take."""
        bound = Signal(range(max(self.bounds.exchange, self.bounds.stable) + 1))
        with m.Switch(self.state):
            for state, beats in self.bounds.of_states():
                with m.Case(state):
                    m.d.comb += bound.eq(beats)
        return bound

    def _fall_back(self, m, failed, anew, stable, gives_up):
        """Answers a failure: all locks are dropped, and at a repeated one the link goes down for a while."""
        repeated = Signal()
        m.d.comb += gives_up.eq(repeated)
        m.d.sync += self.retry.eq(anew)
        with m.If(failed):
            m.d.sync += [repeated.eq(1), self.relock.eq(1)]
        with m.Elif(stable | self.reuse):
            m.d.sync += repeated.eq(0)
        with m.If(anew):
            m.d.sync += [repeated.eq(0), self.use.eq(~0), self._hoped.eq(~0)]

    def _measure(self, m, begin):
        """Measures the times of the last training, in cycles, up to 2^31."""
        step, away, was_active, before = Signal(TIME_BITS), Signal(TIME_BITS), Signal(), Signal(State)
        # The wide counter follows a register stage behind, for speed: what it measures is the same.
        was_before, began = Signal(State), Signal()
        m.d.sync += [was_before.eq(before), began.eq(begin)]

        def measured(state: State, name: str):
            with m.If((before == state) & (was_before != state)):
                m.d.sync += [getattr(self, f"{name}_cycles").eq(step), step.eq(1)]

        # A time whose highest bit is 1 stands still: no wrapped count looks like a short time.
        m.d.sync += [before.eq(self.state), step.eq(step + ~step[-1]), away.eq(away + ~away[-1]), self.retrainings.eq(0)]
        measured(State.ALIGN, "lock")
        measured(State.EXCHANGE, "align")
        measured(State.ACTIVE, "exchange")
        with m.If(began):
            m.d.sync += step.eq(0)
        with m.If(self.active):
            m.d.sync += [was_active.eq(1), away.eq(0)]
            with m.If((before != State.ACTIVE) & was_active):
                m.d.sync += [self.recovery_cycles.eq(away), self.retrainings.eq(1)]


class _HeardSet:
    """Holds the set of the beat before: whether it was one, came among frames and may start frames, and what it says."""

    def __init__(self):
        self.valid, self.in_frames, self.believed, self.set = Signal(), Signal(), Signal(), Signal(SET)
        self.is_request, self.is_number = Signal(), Signal()
