# amaranth: UnusedElaboratable=no
"""Registers: the bus against a twin that is written by cycles, the map against foreign readers of it."""

import json
import random
import re
import shutil
import subprocess
import sysconfig
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lightfabric.flows.command import registers as flow
from lightfabric.flows.command import synth
from lightfabric.flows.report import InputError
from lightfabric.flows.tool import cocotb
from lightfabric.flows.tool.executable import simulator_environment
from lightfabric.model.spec import ChipletSpec
from lightfabric.rtl.register import OKAY, SLVERR, Registers
from lightfabric.rtl.register_map import BUS_ADDRESS_BITS, EVENTS, REGISTERS, Field, Register, verify
from lightfabric.sim.bench.register import CHANNELS, Access, RegisterBench
from lightfabric.sim.cocotb.axi import Run

ROOT = Path(__file__).parents[2]
OFFSETS = {register.name: 4 * number for number, register in enumerate(REGISTERS)}
CONTROL, STATUS, ENABLE, EVENT = (OFFSETS[name] for name in ("control", "status", "interrupt_enable", "interrupt_status"))
END = 4 * len(REGISTERS)
IN_CONTROL = {"enable": 1, "retrain": 2, "freeze": 4, "clear_counters": 8}
INPUT_BITS = {field.name: field.input_bits for register in REGISTERS for field in register.fields if field.input_bits}
COUNTS = [register.name for register in REGISTERS if register.fields[0].kind == "count"]
WORD = (1 << 32) - 1


@pytest.fixture(scope="module")
def bench():
    return RegisterBench()


def pulse(cycles, name, value=1):
    """Inputs with ``name`` at ``value`` in the cycles, and 0 otherwise."""
    return lambda cycle: {name: value} if cycle in cycles else {}


def reads(*names):
    return [Access(OFFSETS[name]) for name in names]


def data_of(run):
    return [answer.data for answer in run.answers if answer.access.data is None]


def byte_mask(strobes):
    return sum(0xFF << 8 * byte for byte in range(4) if strobes >> byte & 1)


def acting_cycles(answers):
    """Cycle -> write that acts in it."""
    acting, answered = {}, -1
    for answer in answers:
        if answer.access.data is not None:
            acting[1 + max(answer.cycles["aw"], answer.cycles["w"], answered)] = answer.access
            answered = answer.cycles["b"]
    return acting


class Twin:
    """The table, cycle by cycle, in plain integers, from the writes that act and the inputs of each cycle."""

    def __init__(self, table):
        self.table = table
        self.fields = [(n, low, field) for n, register in enumerate(table) for low, field in register.placed]
        self.held = {(field.name, field.kind): field.reset for _, _, field in self.fields}
        self.counts = {field.name: 0 for _, _, field in self.fields if field.kind == "count"}
        self.frozen = 0

    def words(self, inputs):
        """What each register reads as."""
        words = [0] * len(self.table)
        for n, low, field in self.fields:
            if field.kind == "status":
                value = inputs.get(field.name, 0)
            else:
                value = 0 if field.kind == "pulse" else self.held[field.name, field.kind]
            words[n] |= (value & field.mask) << low
        return words

    def highs(self):
        """The high half of each count, by the number of its register."""
        return {n: self.held[f.name, f.kind] >> 32 for n, _, f in self.fields if f.is_long}

    def controls(self):
        return {f.name: self.held[f.name, f.kind] for _, _, f in self.fields if f.kind in ("control", "pulse")}

    def irq(self):
        enables = [f.name for _, _, f in self.fields if f.kind == "enable"]
        return int(any(self.held[name, "enable"] and self.held[name, "event"] for name in enables))

    def step(self, inputs, write):
        clear, freeze, frozen = (self.held["clear_counters", "pulse"], self.held["freeze", "control"], self.frozen)
        for n, low, field in self.fields:
            hit = write is not None and write.address >> 2 == n
            mask = byte_mask(write.strobes) >> low & field.mask if hit else 0
            written, key = (write.data >> low & mask if hit else 0), (field.name, field.kind)
            told = inputs.get(field.name, 0)
            if field.kind in ("control", "enable"):
                self.held[key] = self.held[key] & ~mask | written
            elif field.kind == "pulse":
                self.held[key] = written
            elif field.kind == "event":
                self.held[key] = self.held[key] & ~written | told
            elif field.kind == "count":
                self.held[key] = self.held[key] if frozen else self.counts[field.name]
                counted = (0 if clear else self.counts[field.name]) + told
                self.counts[field.name] = counted % (1 << (64 if field.is_long else 32))
        self.frozen = freeze


def require_as_twin(run, inputs, table=REGISTERS):
    acting, twin, words, highs = acting_cycles(run.answers), Twin(table), [], []
    for cycle in range(run.cycles):
        words.append(twin.words(inputs(cycle)))
        highs.append(twin.highs())
        assert run.controls[cycle] == twin.controls(), cycle
        assert run.irq[cycle] == twin.irq(), cycle
        twin.step(inputs(cycle), acting.get(cycle))
    kinds, high = [register.fields[0].kind for register in table], 0
    for answer in run.answers:
        number = answer.access.address >> 2
        assert answer.response == (OKAY if number < len(table) else SLVERR), answer
        if answer.access.data is None:
            known, seen = number < len(table), answer.cycles["ar"] + 1
            expected = high if known and kinds[number] == "high" else words[seen][number] if known else 0
            assert answer.data == expected, answer
            high = highs[seen].get(number, high)


def random_accesses(rng, count):
    """Half of the accesses at what can be written or counts, a tenth past the end."""
    lively = [CONTROL, CONTROL, ENABLE, EVENT, OFFSETS["skew_overflow"], OFFSETS["corrected_symbols"]]
    accesses = []
    for _ in range(count):
        anywhere = rng.choice([4 * rng.randrange(len(REGISTERS)), rng.choice(lively)]) | rng.randrange(4)
        address = anywhere if rng.random() < 0.9 else rng.randrange(END, 1 << BUS_ADDRESS_BITS)
        data = rng.choice([None, rng.getrandbits(32), rng.getrandbits(32) & rng.getrandbits(32)])
        accesses.append(Access(address, data, rng.choice([15, 15, rng.randrange(16)])))
    return accesses


def random_inputs(rng, cycles):
    """Inputs of each cycle, most events and steps 0 in most cycles."""

    def one_cycle():
        return {name: rng.getrandbits(bits) if rng.random() < 0.2 else 0 for name, bits in INPUT_BITS.items()}

    shown = [one_cycle() for _ in range(cycles)]
    return lambda cycle: shown[cycle % cycles]


PATTERNS = st.lists(st.booleans(), min_size=1, max_size=6).filter(lambda pattern: not all(pattern))


# A smaller seed is no simpler case, and a bus that does not answer takes its time: nothing is shrunk.
@settings(deadline=None, max_examples=40, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    seed=st.integers(0, 1 << 32),
    together=st.booleans(),
    patterns=st.fixed_dictionaries({}, optional=dict.fromkeys(CHANNELS, PATTERNS)),
)
def test_every_access_is_as_the_twin_says(bench, seed, together, patterns):
    rng = random.Random(seed)
    pauses = {name: lambda cycle, p=pattern: p[cycle % len(p)] for name, pattern in patterns.items()}
    inputs = random_inputs(rng, 64)
    run = bench.run(random_accesses(rng, 30), pauses=pauses, inputs=inputs, together=together, bound_cycles=2000)
    assert run.changed == []
    require_as_twin(run, inputs)


def test_random_pauses_on_every_channel_and_many_accesses(bench):
    rng = random.Random(4)
    patterns = {name: [rng.random() < 0.5 for _ in range(101)] for name in CHANNELS}
    pauses = {name: lambda cycle, p=pattern: p[cycle % len(p)] for name, pattern in patterns.items()}
    inputs = random_inputs(rng, 97)
    run = bench.run(random_accesses(rng, 200), pauses=pauses, inputs=inputs, together=True, bound_cycles=6000)
    answers = [answer for answer in run.answers if answer.access.data is not None]
    assert {(a.cycles["aw"] > a.cycles["w"]) - (a.cycles["aw"] < a.cycles["w"]) for a in answers} == {-1, 0, 1}
    assert run.changed == []
    require_as_twin(run, inputs)


def test_a_read_is_answered_three_cycles_later(bench):
    run = bench.run([Access(offset) for offset in range(0, END, 4)])
    assert {answer.cycles["r"] - answer.cycles["ar"] for answer in run.answers} == {3}


@pytest.mark.parametrize(("first", "second"), [("aw", "w"), ("w", "aw")])
@pytest.mark.parametrize("delay", [0, 1, 7])
def test_a_write_is_answered_two_cycles_after_both_address_and_data(bench, first, second, delay):
    run = bench.run([Access(CONTROL, 0)], pauses={second: lambda cycle: cycle < delay})
    assert run.answers[0].cycles == {first: 0, second: delay, "b": delay + 2}
    assert [controls["enable"] for controls in run.controls] == [1] * (delay + 2) + [0]


def test_reads_and_writes_do_not_wait_for_each_other(bench):
    accesses = [Access(CONTROL, 0), *reads("id", "id"), Access(CONTROL, 1)]
    run = bench.run(accesses, together=True, pauses={"b": lambda cycle: cycle < 40})
    assert [answer.cycles["r"] for answer in run.answers if answer.data is not None] == [3, 7]
    run = bench.run(accesses, together=True, pauses={"r": lambda cycle: cycle < 40})
    assert [answer.cycles["b"] for answer in run.answers if answer.data is None] == [2, 4]


def test_the_id_is_read(bench):
    assert data_of(bench.run(reads("id"))) == [0x4C46_0001]


def test_after_reset_a_register_reads_as_its_reset_value(bench):
    run = bench.run([Access(offset) for offset in range(0, END, 4)])
    assert data_of(run) == [register.reset for register in REGISTERS]


def test_an_address_past_the_end_is_an_error_and_changes_nothing(bench):
    aliases = [(1 << bit) + offset for bit in range(END.bit_length(), BUS_ADDRESS_BITS) for offset in (CONTROL, ENABLE)]
    outside = [END, END + 4, *aliases, (1 << BUS_ADDRESS_BITS) - 4]
    run = bench.run([*(Access(address, WORD) for address in outside), *map(Access, outside), *reads("control")])
    *errors, control = run.answers
    assert {answer.response for answer in errors} == {SLVERR}
    assert {answer.data for answer in errors if answer.access.data is None} == {0}
    assert (control.response, control.data) == (OKAY, 1)
    assert all(controls == run.controls[0] for controls in run.controls)


def test_what_can_only_be_read_is_not_written(bench):
    fixed = [r for r in REGISTERS if {f.kind for f in r.fields} <= {"constant", "status", "count"}]
    run = bench.run([*(Access(OFFSETS[r.name], WORD) for r in fixed), *(Access(OFFSETS[r.name]) for r in fixed)])
    assert {answer.response for answer in run.answers} == {OKAY}
    assert data_of(run) == [register.reset for register in fixed]


WIDE = (
    Register("low", (Field("first", 12, "control", "-", reset=0xABC), Field("second", 20, "control", "-")), "-"),
    Register("strikes", (Field("strike", 1, "pulse", "-"), Field("alarms", 17, "event", "-")), "-"),
    Register("sum", (Field("sum", 32, "count", "-", step_bits=32),), "-"),
    Register("rule", (Field("freeze", 1, "control", "-"), Field("clear_counters", 1, "pulse", "-")), "-"),
)


@pytest.fixture(scope="module")
def wide():
    return RegisterBench(WIDE)


@pytest.mark.parametrize("strobes", range(16))
def test_a_byte_without_its_strobe_keeps_what_it_holds(wide, strobes):
    run = wide.run([Access(0, 0x1234_5678, strobes), Access(0)])
    mask = byte_mask(strobes)
    assert data_of(run) == [0x1234_5678 & mask | 0xABC & ~mask]


@pytest.mark.parametrize("table", [WIDE, WIDE * 0 + WIDE[:1], WIDE[:2]], ids=["counts", "controls", "events"])
def test_a_table_of_another_size_is_a_block_too(table):
    last = 4 * (len(table) - 1)
    run = RegisterBench(table).run([Access(0), Access(last), Access(last + 4)])
    assert [answer.response for answer in run.answers] == [OKAY, OKAY, SLVERR]
    assert run.answers[0].data == 0xABC


def test_a_pulse_lasts_one_cycle_and_reads_as_0(bench):
    run = bench.run([Access(CONTROL, IN_CONTROL["retrain"] | 1), *reads("control")], spare_cycles=5)
    assert [cycle for cycle, controls in enumerate(run.controls) if controls["retrain"]] == [2]
    assert data_of(run) == [1]


def test_a_pulse_needs_its_byte(wide):
    assert not any(controls["strike"] for controls in wide.run([Access(4, 1, 0b1110)], spare_cycles=3).controls)


def test_an_event_stays_until_a_1_is_written(bench):
    twice = [*reads("interrupt_status"), Access(EVENT, 0xFE), *reads("interrupt_status")]
    run = bench.run([*twice, Access(EVENT, 1), *reads("interrupt_status")], inputs=pulse({0}, "went_up"))
    assert data_of(run) == [1, 1, 0]


@pytest.mark.parametrize(("cycle", "left"), [(0, 0), (1, 1), (2, 1)])
def test_an_event_in_the_cycle_of_the_write_is_kept(bench, cycle, left):
    run = bench.run([Access(EVENT, 1), *reads("interrupt_status")], inputs=pulse({cycle}, "went_up"))
    assert data_of(run) == [left]


@pytest.mark.parametrize("number", range(len(EVENTS)))
def test_an_event_makes_the_interrupt_if_it_is_enabled(bench, number):
    name, _ = EVENTS[number]
    inputs = pulse({20}, name)
    assert not any(bench.run([Access(ENABLE, WORD ^ 1 << number)], inputs=inputs, spare_cycles=30).irq)
    run = bench.run([Access(ENABLE, 1 << number)], inputs=inputs, spare_cycles=30)
    assert run.irq.index(1) == 21
    assert all(run.irq[21:])


def test_an_event_without_an_enable_makes_no_interrupt(bench):
    inputs = pulse({5}, "skew_overflow", 0x8000_0001)
    run = bench.run([Access(ENABLE, WORD), Access(CONTROL, 1), *reads("skew_overflow", "skew_overflow")], inputs=inputs)
    assert data_of(run)[-1] == 0x8000_0001
    assert not any(run.irq)


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_adds_up_what_comes_in(bench, name):
    steps = (1 << INPUT_BITS[name]) - 1
    run = bench.run([Access(CONTROL, 1)] * 4 + reads(*COUNTS), inputs=pulse({1, 2, 5}, name, steps))
    assert data_of(run) == [3 * steps if name == counted else 0 for counted in COUNTS]


def test_a_count_wraps(wide):
    run = wide.run([Access(0)] * 3 + [Access(8)], inputs=pulse({1, 2}, "sum", 0x8000_0003))
    assert data_of(run)[-1] == 6


LONG = (
    Register("rule", (Field("freeze", 1, "control", "-"), Field("clear_counters", 1, "pulse", "-")), "-"),
    Register("sum", (Field("sum", 32, "count", "-", step_bits=32, is_long=True),), "-"),
    Register("high", (Field("high", 32, "high", "-"),), "-"),
    Register("other", (Field("other", 32, "count", "-", step_bits=31, is_long=True),), "-"),
)


@pytest.mark.parametrize("seed", range(4))
def test_both_halves_of_a_long_count_are_of_one_cycle(seed):
    """Carries between the halves, clears and freezes at any time, and reads of other counts between."""
    rng = random.Random(seed)
    steps = [{"sum": rng.choice((0, 1, WORD)), "other": rng.choice((0, WORD >> 1))} for _ in range(97)]
    accesses = [Access(4 * rng.choice((1, 2, 2, 3)), None) for _ in range(120)]
    for at in rng.sample(range(120), 12):
        accesses[at] = Access(0, rng.choice((0, 0, 1, 2, 3)))
    pauses = {"ar": lambda _: rng.random() < 0.3}
    run = RegisterBench(LONG).run(accesses, inputs=lambda cycle: steps[cycle % 97], pauses=pauses, together=True)
    require_as_twin(run, lambda cycle: steps[cycle % 97], LONG)
    assert any(answer.data for answer in run.answers if answer.access.address == 8)


def test_frozen_counts_are_of_one_cycle_and_counting_goes_on(bench):
    def always(_cycle):
        return dict.fromkeys(("flits_sent", "flits_received", "replays"), 1)

    program = [Access(CONTROL, 1 | IN_CONTROL["freeze"]), *reads("flits_sent", "id", "replays")]
    run = bench.run([*program, Access(CONTROL, 1), *reads("flits_received")], inputs=always)
    frozen, _, same, later = data_of(run)
    assert frozen == same == run.answers[0].cycles["b"]
    assert later == run.answers[-1].cycles["ar"]


@pytest.mark.parametrize("delay", range(4))
def test_two_intervals_miss_nothing_and_count_nothing_twice(bench, delay):
    rng = random.Random(delay)
    steps = [rng.randrange(256) for _ in range(300)]
    both = 1 | IN_CONTROL["freeze"] | IN_CONTROL["clear_counters"]
    interval = [Access(CONTROL, both), *reads("corrected_symbols"), Access(CONTROL, 1)]
    last = [Access(CONTROL, 1 | IN_CONTROL["freeze"]), *reads("corrected_symbols")]
    run = bench.run(
        interval * 6 + last, inputs=lambda cycle: {"corrected_symbols": steps[cycle]}, pauses={"w": lambda c: c % 5 < delay}
    )
    until = run.answers[-2].cycles["b"]
    assert sum(data_of(run)) == sum(steps[:until])


def test_a_read_after_a_clear_sees_nothing_from_before(bench):
    accesses = [*reads("replays"), Access(CONTROL, 1 | IN_CONTROL["clear_counters"]), *reads("replays")]
    run = bench.run(accesses, inputs=pulse(range(6), "replays"))
    before, after = data_of(run)
    assert (before, after) == (0, 0)
    later = bench.run([*reads("id", "replays"), *accesses[1:]], inputs=pulse(range(6), "replays"))
    assert data_of(later)[1:] == [4, 0]


def test_the_link_finds_its_inputs_and_controls():
    registers = Registers()
    of_tester = {"ber_pattern": 3, "ber_lane": 5, "rx_phase": 8, "ber_error_lanes": 32, "ber_error_blocks": 32}
    switches = ("on", "invert", "reverse", "near_loop", "far_loop", "clear", "snapshot", "error_once")
    of_tester |= {f"ber_{name}": 1 for name in switches}
    controls = {name: member.shape for name, member in registers.controls.shape()}
    assert controls == dict.fromkeys(IN_CONTROL, 1) | of_tester
    narrow = {"state": 4, "lanes": 2, "corrected_symbols": 8, "credit_leaks": 8, "credit_violations": 4}
    narrow |= {"ber_blocks_high": 16, "uncorrectable_codewords": 2, "packets_refused": 4, "packets_cut": 4}
    narrow |= {f"codewords_{n}": 2 for n in range(16)}
    bits = ("up", "config_mismatch", "peer_reset", "ber_present", *dict(EVENTS))
    ones = ("flits_sent", "flits_received", "replays", "replay_timeouts", "crc_errors", "retrainings", "frames_checked")
    narrow |= dict.fromkeys((*bits, *ones), 1)
    wide = ("lanes_locked", "skew_overflow", "lock_cycles", "align_cycles", "exchange_cycles", "recovery_cycles")
    wide += ("ber_locked", "ber_lock_lost", "ber_errors", "ber_blocks")
    masks = (f"lanes_{what}" for what in ("in", "out", "good", "inverted", "doubled"))
    expected = narrow | dict.fromkeys((*wide, *masks, "lane_errors"), 32) | {f"credits_{v}": 16 for v in range(8)}
    expected |= {f"lane_{lane}": 8 for lane in range(32)}
    assert {name: member.shape for name, member in registers.inputs.shape()} == expected


BIT = Field("bit", 1, "control", "-")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(BIT, bits=0), "Field.bits must be from 1 to 32, not 0: bit"),
        (lambda: replace(BIT, bits=33), "Field.bits must be from 1 to 32, not 33: bit"),
        (lambda: replace(BIT, kind="count"), "Field.bits must be 32 in a count, not 1: bit"),
        (lambda: replace(BIT, kind="pulse", bits=2), "Field.bits must be 1 in a field of kind pulse, not 2: bit"),
        (lambda: replace(BIT, kind="magic"), "Field.kind must be one of constant, status, count, high, control, enable,"
         " pulse, event, not 'magic': bit"),
        (lambda: replace(BIT, reset=2), "Field.reset must be from 0 to 1, not 2: bit"),
        (lambda: replace(BIT, kind="event", reset=1), "Field.reset must be 0 in a field of kind event, not 1: bit"),
        (lambda: replace(BIT, step_bits=0), "Field.step_bits must be from 1 to 32, not 0: bit"),
        (lambda: replace(BIT, values=((0, "no"), (2, "yes"))), "Field.values must be rising numbers of 1 bits,"
         " not ((0, 'no'), (2, 'yes')): bit"),
        (lambda: replace(BIT, name="Bit"), "Field.name must be a lower-case identifier, not 'Bit': Bit"),
        (lambda: Register("a b", (BIT,), "-"), "Register.name must be a lower-case identifier, not 'a b': a b"),
        (lambda: Register("word", (replace(BIT, bits=32), replace(BIT, name="more")), "-"),
         "Register.fields must have at most 32 bits in all, not 33: word"),
        (lambda: Register("a", (), "-"), "Register.fields must be at least one, each with a name of its own, not (): a"),
        (lambda: verify(()), "Table must have from 1 to 1024 registers, not 0"),
        (lambda: verify((Register("word", (BIT,), "-"),) * 2), "Table must have one register of each name, not two of word"),
        (lambda: Registers((Register("a", (BIT,), "-"), Register("b", (BIT,), "-"))),
         "Table must have one output of each name, not two of bit"),
        (lambda: verify((Register("a", (replace(BIT, kind="enable"),), "-"),)),
         "Table must have an event of one bit for each enable, not none for bit"),
        (lambda: verify((*LONG, Register("more", (Field("more", 32, "high", "-"),), "-"))),
         "Table must have at most one field of kind high, not high, more"),
        (lambda: verify(LONG[:2]), "Table must have a field of kind high for sum"),
        (lambda: replace(BIT, is_long=True), "Field.is_long must be False in a field of kind control, not True: bit"),
        (lambda: verify(WIDE[:3]), "Table must have the control freeze of one bit, because it has counts"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


SOFTWARE = {
    "constant": "r",
    "status": "r",
    "count": "r",
    "high": "r",
    "control": "rw",
    "enable": "rw",
    "pulse": "w",
    "event": "rw",
}


@pytest.fixture(scope="module")
def compiled_map(tmp_path_factory):
    from systemrdl import RDLCompiler
    from systemrdl.messages import MessagePrinter

    class Refusing(MessagePrinter):
        def print_message(self, severity, text, _where):
            raise AssertionError(f"{severity}: {text}")

    path = tmp_path_factory.mktemp("map") / "registers.rdl"
    flow.main(path, "systemrdl")
    compiler = RDLCompiler(message_printer=Refusing())
    compiler.compile_file(str(path))
    return compiler.elaborate().top


def test_peakrdl_reads_the_table(compiled_map):
    registers = list(compiled_map.registers())
    assert [(r.inst_name, r.absolute_address, r.size) for r in registers] == [(n, o, 4) for n, o in OFFSETS.items()]
    for node, register in zip(registers, REGISTERS, strict=True):
        found = [(f.inst_name, f.lsb, f.msb, f.get_property("sw").name) for f in node.fields()]
        assert found == [(f.name, low, low + f.bits - 1, SOFTWARE[f.kind]) for low, f in register.placed]
        for part, field in zip(node.fields(), register.fields, strict=True):
            assert part.get_property("reset") == (None if field.kind == "status" else field.reset)
            assert part.get_property("desc") == field.description
            assert (part.get_property("onwrite") is not None) == (field.kind == "event")
            assert bool(part.get_property("singlepulse")) == (field.kind == "pulse")
            assert bool(part.get_property("counter")) == (field.kind == "count")
            encode = part.get_property("encode")
            assert tuple((member.value, member.name) for member in encode or ()) == field.values


def test_peakrdl_knows_what_enables_each_interrupt(compiled_map):
    interrupts = [f for register in compiled_map.registers() for f in register.fields() if f.get_property("intr")]
    enables = [f.get_property("enable").get_path() for f in interrupts]
    assert [f.inst_name for f in interrupts] == [name for name, _ in EVENTS]
    assert enables == [f"lightfabric_link.interrupt_enable.{name}" for name, _ in EVENTS]


def test_the_peakrdl_command_lists_the_table(tmp_path):
    flow.main(tmp_path / "registers.rdl", "systemrdl")
    command = [f"{sysconfig.get_path('scripts')}/peakrdl", "dump", str(tmp_path / "registers.rdl")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    # It pads all addresses to the digits of the last one.
    width = len(f"{max(OFFSETS.values()) + 3:#x}")
    expected = [f"{at:#0{width}x}-{at + 3:#0{width}x}: lightfabric_link.{name}" for name, at in OFFSETS.items()]
    assert (done.stdout.split("\n")[:-1], done.stderr) == (expected, "")


def test_a_name_that_is_a_keyword_is_written_as_a_name(tmp_path):
    from systemrdl import RDLCompiler

    path = tmp_path / "keywords.rdl"
    parts = [Field(name, 3, "status", 'a "quoted" \\ word', values=((5, "all"),)) for name in ("reg", "rw1")]
    path.write_text(flow.systemrdl((Register("hw", (parts[0],), "-"), Register("r", (parts[1],), "-"))))
    compiler = RDLCompiler()
    compiler.compile_file(str(path))
    nodes = list(compiler.elaborate().top.registers())
    assert [node.inst_name for node in nodes] == ["hw", "r"]
    assert [(f.inst_name, f.get_property("desc")) for f in nodes[0].fields()] == [("reg", 'a "quoted" \\ word')]


@pytest.mark.skipif(shutil.which("cc") is None, reason="cc is not installed: apt install gcc")
@pytest.mark.parametrize("standard", ["-std=c99", "-std=c17"])
def test_the_c_header_says_what_peakrdl_says(compiled_map, standard, tmp_path):
    flow.main(tmp_path / "registers.h", "c")
    macros = re.findall(r"#define (\w+) \S", (tmp_path / "registers.h").read_text())
    values = re.findall(r"^ +(LIGHTFABRIC_\w+) = ", (tmp_path / "registers.h").read_text(), re.MULTILINE)
    lines = [f'    printf("{name} %lu\\n", (unsigned long){name});' for name in (*macros, *values)]
    include = '#include "registers.h"\n'
    (tmp_path / "all.c").write_text("\n".join([include * 2, "#include <stdio.h>", "int main(void) {", *lines, "}", ""]))
    options = [standard, "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run(["cc", *options, "all.c", "-o", "all"], cwd=tmp_path, check=True, timeout=60)
    printed = subprocess.run([tmp_path / "all"], capture_output=True, text=True, check=True, timeout=60).stdout
    said = {name: int(value) for name, value in map(str.split, printed.split("\n")[:-1])}
    assert len(said) == len(macros) + len(values)
    assert said == said_by_peakrdl(compiled_map)


def said_by_peakrdl(top):
    said = {}
    for node in top.registers():
        name = f"LIGHTFABRIC_{node.inst_name}".upper()
        resets = [(f.get_property("reset") or 0) << f.low for f in node.fields()]
        said |= {f"{name}_OFFSET": node.absolute_address, f"{name}_RESET": sum(resets)}
        for field in node.fields():
            part = name if field.inst_name == node.inst_name else f"{name}_{field.inst_name}".upper()
            said |= {f"{part}_SHIFT": field.low, f"{part}_MASK": (2 << field.high) - (1 << field.low)}
            for member in field.get_property("encode") or ():
                said[f"LIGHTFABRIC_{field.inst_name}_{member.name}".upper()] = member.value
    return said


def test_the_page_in_docs_is_of_this_table():
    assert (ROOT / "docs" / "registers.md").read_text(encoding="utf-8") == flow.markdown()


def test_the_page_lists_every_register_and_field():
    page = flow.markdown()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.split("\n") if line.startswith("| ")]
    assert [row[0] for row in rows if row[1].startswith("[")] == [f"`{offset:#04x}`" for offset in OFFSETS.values()]
    fields = [row[1] for row in rows if len(row) == 5 and row[0] != "bits"]
    assert fields == [f"`{field.name}`" for register in REGISTERS for field in register.fields]
    assert {len(row) for row in rows} == {4, 5}


def test_an_unknown_format_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(InputError, match=r"^--format must be one of systemrdl, markdown, c, not 'ipxact'$"):
        flow.main(tmp_path / "registers.xml", "ipxact")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="must be a file that can be written"):
        flow.main(tmp_path / "absent" / "registers.h", "c")


def as_accesses(address, content):
    """The words that a write of bytes touches."""
    first = address & ~3
    padded = bytes(address - first) + bytes(content) + bytes(-(address + len(content)) % 4)
    strobes = ((1 << len(content)) - 1) << address - first
    words = range(0, len(padded), 4)
    return [Access(first + n, int.from_bytes(padded[n : n + 4], "little"), strobes >> n & 15) for n in words]


def require_as_settled_twin(steps):
    """The steps of the cocotb bench, each of which ends before the next one begins."""
    twin, status = Twin(REGISTERS), {}
    shown = {field.name for register in REGISTERS for field in register.fields if field.kind == "status"}
    for step in steps:
        if step["kind"] == "inputs":
            twin.step(step["inputs"], None)
            status = {name: value for name, value in step["inputs"].items() if name in shown}
        elif step["kind"] == "write":
            for access in as_accesses(step["address"], step["data"]):
                twin.step(status, access)
                twin.step(status, None)
        else:
            content = b"".join(word.to_bytes(4, "little") for word in twin.words(status))
            expected = content[step["address"] :][: len(step["data"])]
            assert bytes(step["data"]) == expected.ljust(len(step["data"]), b"\0"), step
        if "response" in step:
            assert step["response"] == (OKAY if step["address"] + len(step["data"]) <= END else SLVERR), step
        for _ in range(3):
            twin.step(status, None)


@pytest.mark.parametrize(
    "simulator",
    [
        pytest.param("icarus", marks=pytest.mark.skipif(shutil.which("iverilog") is None, reason="apt install iverilog")),
        pytest.param("verilator", marks=pytest.mark.slow),
    ],
)
def test_a_foreign_master_finds_what_the_twin_says(simulator, tmp_path, monkeypatch):
    monkeypatch.setattr(cocotb, "_design", lambda *_: Registers())
    job = Run(ChipletSpec(), str(tmp_path / "seen.json"), packets=400, seed=3, bound_s=100)
    with simulator_environment(simulator):
        runner = cocotb._built("registers", simulator, None, tmp_path, False)
        cocotb._test(runner, "registers", simulator, tmp_path, job.environment(), 3, False)
    steps = json.loads((tmp_path / "seen.json").read_text())["steps"]
    assert {kind: sum(step["kind"] == kind for step in steps) > 100 for kind in ("read", "write", "inputs")} == {
        "read": True, "write": True, "inputs": True,
    }  # fmt: skip
    assert {step["response"] for step in steps if "response" in step} == {OKAY, SLVERR}
    require_as_settled_twin(steps)


@pytest.mark.slow
def test_the_registers_take_little_of_an_ecp5_and_run_at_150_mhz(monkeypatch):
    """Those of a link without error correction: 55, with those of lanes and of the bit error tester.

    The counts of an error correction are constants there, which cost nothing.
    """
    of_fec = ("codewords_", "corrected_symbols", "uncorrectable_codewords")
    monkeypatch.setattr(synth, "_design", lambda *_: Registers([r for r in REGISTERS if not r.name.startswith(of_fec)]))
    report = synth.synthesize("link", "ecp5-25k", SimpleNamespace(core_clock_mhz=156.25))
    # An eighth of the smallest device of the family.
    assert 600 < report.ff < 1500
    assert report.lut < 2500
    assert report.fmax_mhz > 150
