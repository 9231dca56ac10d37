"""Training: both ends of a line from reset to frames, and back to frames after trouble.

Each end sends training sets until both have heard each other's parameters. The step in the sets says how far an end is:

* 0, it does not hear the other end, or does not know yet whether that was reset
* 1, it hears the other end, and has forgotten its sequence state if that was reset
* 2, it has all parameters of the other end, from after the beginning of its own training
* 3, and it knows that the other end has its own: one cycle of 16 sets, then frames

Trainings are numbered and the numbers echoed, so that no set of an earlier training is taken for one of the present one,
however long the fibre is.
"""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from lightfabric.model.codec import CRCS, CREDIT_BITS, SEQUENCE_BITS
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.lane import COUNTED_PHASE, HEARD, MAGIC, PHASES, SET, TRAINING_SET, Aligner
from lightfabric.rtl.line import ALL_LANES, LOWER_LANES, SET_BITS, UPPER_LANES

PROTOCOL_VERSION = 1
CONFIG_PHASE, REQUEST_PHASE, EXPECTED_PHASE, NUMBER_PHASE, LIMITS_PHASE = range(5)
"""Phases of the parameter words: configuration, lanes and freshness, sequence, trainings, first credit limit."""
TRAININGS = data.StructLayout({"own": 7, "echoes": 1, "other": 7, "reserved": 1})
"""The number of this end's training, and with ``echoes`` that of the other end's training that it takes part in."""

CAUSES = data.StructLayout(dict.fromkeys(("again", "lanes_fail", "other_fails", "anew"), 1))
"""Why a training begins: asked for or lost, a failure of either end, or the very beginning with all lanes."""

TIME_BITS = 32


class State(enum.Enum, shape=4):
    """Where the training is."""

    RESET = 0
    LOCK = 1
    ALIGN = 2
    EXCHANGE = 3
    CONFIRM = 4
    START = 5
    ACTIVE = 6
    DOWN = 7


class Bounds:
    """Most beats of the line in each state, and the reasons.

    A lane at a wrong bit sees a bad header after 2 blocks on average and then waits 8: 66 slips take about 660 blocks, and
    64 good headers lock. ``lock`` leaves room for two rounds, for a good place may be passed over because of a bit error.
    """

    lock = 2048
    down = 2048
    room = 2048
    """For a fibre far beyond ``reach_m``, and for 128 cycles of sets, of which one in 5 is lost at a bit error in 1000."""
    stable_slots = 2048
    """Trouble in the first slots of service is a failure of these lanes: more than three replay timeouts of 375 flits."""

    def __init__(self, spec: ChipletSpec):
        self.align = self.confirm = self.start = spec.round_trip_flits * spec.beats_per_flit + self.room
        """The other end hears the sets and sends its own."""
        self.exchange = self.down + 3 * (self.lock + self.align)
        """The other end may be down, or lock only at the third attempt, on half of its lanes."""
        self.stable = self.stable_slots * spec.beats_per_flit

    def of_states(self) -> list[tuple[State, int]]:
        """The bound of each state that has one."""
        names = ("lock", "align", "exchange", "confirm", "start", "down")
        return [(State.ACTIVE, self.stable), *((State[name.upper()], getattr(self, name)) for name in names)]


def parameters_layout(spec: ChipletSpec) -> data.StructLayout:
    """What an end's receiver tells the other end's transmitter: the sequence it expects, credit limits."""
    return data.StructLayout({"expected": SEQUENCE_BITS, "limits": data.ArrayLayout(CREDIT_BITS, spec.virtual_channels)})


def config_code(spec: ChipletSpec) -> int:
    """16 bits that must be equal at both ends: version, wavelengths, virtual channels, CRC, flit size."""
    fields = (
        (PROTOCOL_VERSION, 6),
        (spec.wavelengths_per_port.bit_length() - 1, 3),
        (spec.virtual_channels - 1, 3),
        (list(CRCS).index(spec.crc), 2),
        ((64, 128, 256).index(spec.flit_bytes), 2),
    )
    code = 0
    for value, bits in fields:
        assert value < 1 << bits
        code = code << bits | value
    return code


class Training(wiring.Component):
    """State machine from reset to frames and, after trouble, back to frames.

    A training begins with sets instead of frames, which make the other end begin too. A state that takes longer than its
    bound fails: the first failure drops all locks, the second goes on with the half of the lanes that is good, then the
    other half, then the link is down for a while and begins anew with all lanes. Trouble soon after frames is a failure,
    too; one that is the other end's takes no lanes away.

    No frame is received without sets in which the other end says that it hears this end. A transmitter that is looped back
    to its own receiver is such an end.

    Members
    -------
    enable : In(1), at 0 the state is RESET and sets of step 0 are sent; the sequence state is not forgotten
    retrain : In(1), pulse: train now, with all lanes
    trouble : In(1), looked at in ACTIVE: train again
    beat : In(1), a beat is sent: ``sets`` and ``set`` are looked at
    heard : In(HEARD), of Aligner.beat
    locked : In(W)
    aligned : In(1)
    local : In(parameters_layout(spec)), of this end's receiver, that of an empty one within 8 cycles after ``flush``
    sets : Out(1), send training sets
    set : Out(32), TRAINING_SET with lane 0
    frames_in : Out(1), 1 from the first frame beat at Aligner.beat until the next training begins
    active : Out(1), frames flow in both directions
    resume : Out(1), pulse: ``remote`` and ``lanes_out`` are those of the other end, and stay until the next training; at
        least 16 sets follow, then frames
    flush : Out(1), pulse: the other end was reset and this end was not; at least 32 beats before ``resume``
    peer_reset : Out(1), from ``flush`` until active
    remote : Out(parameters_layout(spec))
    lanes_out : Out(2), lanes on which frames are sent
    lanes_in : Out(2), lanes on which frames are received
    use : Out(W), the same as a mask
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
        lanes, parameters = spec.wavelengths_per_port, parameters_layout(spec)
        super().__init__(
            {
                "enable": In(1),
                "retrain": In(1),
                "trouble": In(1),
                "beat": In(1),
                "heard": In(HEARD),
                "locked": In(lanes),
                "aligned": In(1),
                "local": In(parameters),
                "sets": Out(1, init=1),
                "set": Out(SET_BITS),
                "frames_in": Out(1),
                "active": Out(1),
                "resume": Out(1),
                "flush": Out(1),
                "peer_reset": Out(1),
                "remote": Out(parameters),
                "lanes_out": Out(2),
                "lanes_in": Out(2),
                "use": Out(lanes),
                "relock": Out(1),
                "realign": Out(1),
                "state": Out(State),
                "config_mismatch": Out(1),
                **{f"{name}_cycles": Out(TIME_BITS) for name in ("lock", "align", "exchange", "recovery")},
                "retrainings": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        begin, fresh, trainings = Signal(), Signal(init=1), Signal(TRAININGS)
        with m.If(begin & self.enable):
            m.d.sync += trainings.own.eq(trainings.own + 1)
        self._send(m, begin, fresh, trainings)
        self._machine(m, self._listen(m, begin), begin, fresh, trainings)
        self._measure(m, begin)
        return m

    def _words(self, fresh, trainings, cycle):
        """Parameter words by phase."""
        words = [Const(0, 16)] * COUNTED_PHASE + [cycle] * (PHASES - COUNTED_PHASE)
        words[CONFIG_PHASE] = Const(config_code(self.spec), 16)
        words[REQUEST_PHASE] = Cat(self.lanes_in, fresh)
        words[EXPECTED_PHASE] = self.local.expected
        words[NUMBER_PHASE] = trainings.as_value()
        words[LIMITS_PHASE : LIMITS_PHASE + self.spec.virtual_channels] = list(self.local.limits)
        return words

    def _send(self, m, begin, fresh, trainings):
        """The set of the next beat, made in the beat before; the state is looked at then."""
        shown, cycle = Signal(TRAINING_SET, init={"magic": MAGIC, "word": config_code(self.spec)}), Signal(4)
        following, last = (shown.phase + 1)[:4], shown.phase == PHASES - 1
        m.d.comb += self.set.eq(shown)
        with m.If(self.beat & self.sets):
            m.d.sync += [shown.phase.eq(following), cycle.eq(cycle + last)]
            with m.Switch(following):
                for phase, word in enumerate(self._words(fresh, trainings, cycle)):
                    with m.Case(phase):
                        m.d.sync += shown.word.eq(word)
            with m.Switch(self.state):
                with m.Case(State.EXCHANGE):
                    m.d.sync += shown.step.eq(1)
                with m.Case(State.CONFIRM):
                    m.d.sync += shown.step.eq(2)
                with m.Case(State.START):
                    m.d.sync += [
                        shown.step.eq(Mux(last | (shown.step == 3), 3, 2)),
                        self.sets.eq(~(last & (shown.step == 3))),
                    ]
                with m.Default():
                    m.d.sync += shown.step.eq(0)
        with m.If(begin):
            m.d.sync += [shown.step.eq(0), self.sets.eq(1)]

    def _listen(self, m, begin):
        """The beat before, the number of the present one in its cycle, and from it the first beat of frames."""
        news, phase, start = _News(), Signal(4), Signal()
        now, starts = Mux(news.valid, news.set.phase, phase), Signal()
        m.d.comb += starts.eq(start | (news.valid & (news.set.step == 3) & (news.set.phase != PHASES - 1)))
        m.d.sync += [
            news.valid.eq(self.heard.set_valid),
            news.set.eq(self.heard.set),
            news.in_frames.eq(self.heard.set_valid & self.frames_in),
            phase.eq(now + self.heard.valid),
            start.eq(starts),
        ]
        with m.If(self.heard.valid & (now == PHASES - 2)):
            m.d.sync += [start.eq(0), self.frames_in.eq(self.frames_in | (starts & news.believed))]
        with m.If(begin):
            m.d.sync += [self.frames_in.eq(0), start.eq(0), news.in_frames.eq(0)]
        return news

    def _meet(self, m, news, begin, trainings):
        """Which training of the other end this is, whether that was reset before it, and whether it has heard of this one.

        The number of a training is echoed when it has been heard before and after the other end's freshness: parameters
        that go with an echo are from after the flush, and from after the beginning of the training that is echoed.
        """
        met, clean, must_flush, training = Signal(), Signal(init=1), Signal(), Signal()
        is_new, changed, hears_me = Signal(), Signal(), Signal()
        told = data.View(TRAININGS, news.set.word)
        asks, counts = news.valid & (news.set.phase == REQUEST_PHASE), news.valid & (news.set.phase == NUMBER_PHASE)
        m.d.comb += [
            training.eq((self.state != State.RESET) & (self.state != State.DOWN) & ~self.active & ~self.frames_in),
            must_flush.eq(asks & training & news.set.word[2] & ~clean),
            is_new.eq(counts & (told.own != trainings.other)),
        ]
        m.d.sync += [self.flush.eq(must_flush), changed.eq(is_new)]
        with m.If(must_flush):
            m.d.sync += [clean.eq(1), self.peer_reset.eq(1)]
        with m.Elif(self.frames_in):
            m.d.sync += clean.eq(0)
        with m.If(self.active):
            m.d.sync += self.peer_reset.eq(0)
        with m.If(asks):
            m.d.sync += met.eq(~must_flush)
        with m.If(counts):
            m.d.sync += [trainings.other.eq(told.own), hears_me.eq(told.echoes & (told.other == trainings.own))]
            m.d.sync += trainings.echoes.eq(met)
        with m.If(is_new | must_flush | begin):
            m.d.sync += [met.eq(0), trainings.echoes.eq(0)]
        with m.If(self.state != State.EXCHANGE):
            m.d.sync += hears_me.eq(0)
        return changed, hears_me

    def _collect(self, m, news, hears_me):
        """Parameters of the other end; ``complete`` since it hears this training."""
        channels = self.spec.virtual_channels
        needed = (CONFIG_PHASE, REQUEST_PHASE, EXPECTED_PHASE, *range(LIMITS_PHASE, LIMITS_PHASE + channels))
        collected, complete, word = Signal(PHASES), Signal(), news.set.word
        collects = news.valid & hears_me & (news.set.step != 0)
        with m.If(news.valid & (news.set.phase == CONFIG_PHASE)):
            m.d.sync += self.config_mismatch.eq(word != config_code(self.spec))
        with m.If(~hears_me):
            m.d.sync += collected.eq(0)
        m.d.sync += complete.eq(Cat(collected[phase] for phase in needed).all() & ~self.config_mismatch)
        with m.If(collects):
            m.d.sync += collected.bit_select(news.set.phase, 1).eq(1)
            with m.Switch(news.set.phase):
                with m.Case(REQUEST_PHASE):
                    if self.spec.wavelengths_per_port > 1:
                        m.d.sync += self.lanes_out.eq(word)
                with m.Case(EXPECTED_PHASE):
                    m.d.sync += self.remote.expected.eq(word)
                for v in range(channels):
                    with m.Case(LIMITS_PHASE + v):
                        m.d.sync += self.remote.limits[v].eq(word)
        return complete

    def _machine(self, m, news, begin, fresh, trainings):
        timer, all_locked = Signal(max(self.bounds.exchange, self.bounds.stable).bit_length() + 1), Signal()
        entered, expired = Signal(), Signal()
        m.d.comb += expired.eq(timer[-1] & ~entered)
        m.d.sync += entered.eq(0)
        with m.If(entered):
            m.d.sync += timer.eq(self._bound(m))
        with m.Elif(self.beat):
            m.d.sync += timer.eq(timer - ~timer[-1])

        def enter(state: State):
            return [self.state.eq(state), entered.eq(1)]

        causes, seen = Signal(CAUSES), Signal(CAUSES)
        again, lanes_fail, other_fails, anew = seen.again, seen.lanes_fail, seen.other_fails, seen.anew
        changed, hears_me = self._meet(m, news, begin, trainings)
        complete = self._collect(m, news, hears_me)
        m.d.comb += [
            all_locked.eq((self.locked | ~self.use).all() & ~self.relock),
            news.believed.eq((self.state == State.CONFIRM) | (self.state == State.START)),
            anew.eq(self.state == State.RESET),
        ]
        m.d.sync += [self.resume.eq(0), self.relock.eq(0), self.realign.eq(begin)]
        with m.If(self.resume):
            m.d.sync += fresh.eq(0)
        with m.Switch(self.state):
            with m.Case(State.LOCK):
                m.d.comb += lanes_fail.eq(expired)
                with m.If(all_locked):
                    m.d.sync += enter(State.ALIGN)
            with m.Case(State.ALIGN):
                m.d.comb += lanes_fail.eq(expired | ~all_locked)
                with m.If(self.aligned & trainings.echoes):
                    m.d.sync += enter(State.EXCHANGE)
            with m.Case(State.EXCHANGE):
                m.d.comb += [again.eq(~self.aligned), lanes_fail.eq(~all_locked), other_fails.eq(expired)]
                with m.If(changed):
                    m.d.sync += enter(State.ALIGN)
                with m.Elif(complete):
                    m.d.sync += enter(State.CONFIRM)
            with m.Case(State.CONFIRM):
                m.d.comb += [again.eq(~self.aligned), lanes_fail.eq(~all_locked), other_fails.eq(expired)]
                with m.If(changed):
                    m.d.sync += enter(State.ALIGN)
                with m.Elif(news.valid & news.set.step[1]):
                    m.d.sync += [*enter(State.START), self.resume.eq(~begin)]
            with m.Case(State.START):
                m.d.comb += [again.eq(changed | news.in_frames | ~self.aligned), lanes_fail.eq(~all_locked)]
                m.d.comb += other_fails.eq(expired)
                with m.If(self.frames_in & ~self.sets):
                    m.d.sync += [*enter(State.ACTIVE), self.active.eq(1)]
            with m.Case(State.ACTIVE):
                m.d.comb += [again.eq(~self.aligned | news.in_frames | self.trouble), lanes_fail.eq(self.trouble & ~expired)]
            with m.Case(State.DOWN):
                m.d.comb += anew.eq(expired)
                m.d.sync += self.relock.eq(expired)

        # A cycle later, for speed; what was seen once does not begin twice.
        m.d.sync += causes.eq(Mux(begin, 0, seen))
        with m.If(self.retrain | ~self.enable):
            m.d.sync += causes.anew.eq(1)
        again, lanes_fail, other_fails, anew = causes.again, causes.lanes_fail, causes.other_fails, causes.anew
        gives_up, failed = Signal(), Signal()
        m.d.comb += [failed.eq((lanes_fail | other_fails) & ~anew), begin.eq(causes.as_value().any())]
        with m.If(begin):
            m.d.sync += [*enter(State.LOCK), self.active.eq(0)]
        with m.If(failed & gives_up):
            m.d.sync += enter(State.DOWN)
        with m.If(~self.enable):
            m.d.sync += self.state.eq(State.RESET)
        stable = (self.state == State.ACTIVE) & expired
        self._climb_down(m, failed, lanes_fail, anew, stable, gives_up)

    def _bound(self, m):
        """Most beats in the present state."""
        bound = Signal(range(max(self.bounds.exchange, self.bounds.stable) + 1))
        with m.Switch(self.state):
            for state, beats in self.bounds.of_states():
                with m.Case(state):
                    m.d.comb += bound.eq(beats)
        return bound

    def _climb_down(self, m, failed, lanes_fail, anew, stable, gives_up):
        """What follows a failure: all locks dropped, then fewer lanes, then down."""
        again, lanes = Signal(), self.spec.wavelengths_per_port
        lower, upper = (1 << lanes // 2) - 1, (1 << lanes) - (1 << lanes // 2)
        m.d.comb += self.use.eq(
            Mux(self.lanes_in == UPPER_LANES, upper, Mux(self.lanes_in == LOWER_LANES, lower, lower | upper))
        )
        with m.If(failed):
            m.d.sync += [again.eq(1), self.relock.eq(1)]
        with m.Elif(stable):
            m.d.sync += again.eq(0)
        with m.If(anew):
            m.d.sync += [again.eq(0), self.lanes_in.eq(ALL_LANES)]
        if lanes == 1:
            m.d.comb += gives_up.eq(again)
            return
        lower_is_good = (self.lanes_in == ALL_LANES) & (self.locked | ~Const(lower, lanes)).all()
        upper_is_good = (self.lanes_in != UPPER_LANES) & (self.locked | ~Const(upper, lanes)).all()
        m.d.comb += gives_up.eq(again & ~(lanes_fail & (lower_is_good | upper_is_good)))
        with m.If(failed & again & ~gives_up):
            m.d.sync += self.lanes_in.eq(Mux(lower_is_good, LOWER_LANES, UPPER_LANES))

    def _measure(self, m, begin):
        """Times of the last training, at most 2^31 cycles."""
        step, away, was_active, before = Signal(TIME_BITS), Signal(TIME_BITS), Signal(), Signal(State)

        def measured(state: State, name: str):
            with m.If((self.state == state) & (before != state)):
                m.d.sync += [getattr(self, f"{name}_cycles").eq(step), step.eq(1)]

        m.d.sync += [before.eq(self.state), step.eq(step + ~step[-1]), away.eq(away + ~away[-1]), self.retrainings.eq(0)]
        measured(State.ALIGN, "lock")
        measured(State.EXCHANGE, "align")
        measured(State.ACTIVE, "exchange")
        with m.If(begin):
            m.d.sync += step.eq(0)
        with m.If(self.active):
            m.d.sync += [was_active.eq(1), away.eq(0)]
            with m.If((before != State.ACTIVE) & was_active):
                m.d.sync += [self.recovery_cycles.eq(away), self.retrainings.eq(1)]


class _News:
    """The set in the beat before, if it was one."""

    def __init__(self):
        self.valid, self.in_frames, self.believed, self.set = Signal(), Signal(), Signal(), Signal(SET)


def connect(m: Module, aligner: Aligner, training: Training) -> None:
    """All between the two: locks and alignment, what is heard, the lanes in use."""
    beat, heard = aligner.beat, training.heard
    m.d.comb += [
        heard.valid.eq(beat.valid),
        heard.set_valid.eq(beat.set_valid),
        heard.set.eq(beat.set),
        training.locked.eq(aligner.locked),
        training.aligned.eq(aligner.aligned),
        aligner.use.eq(training.use),
        aligner.relock.eq(training.relock),
        aligner.realign.eq(training.realign),
    ]
