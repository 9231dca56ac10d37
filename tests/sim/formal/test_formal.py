"""The proofs can fail: each harness sees red when the block it is about is broken."""

import inspect
import re
import types
from dataclasses import replace
from functools import partial

import pytest
from amaranth import Signal

from lightfabric.flows.command import verify
from lightfabric.rtl import (
    bonding,
    channel,
    circuit_controller,
    claims,
    receiver,
    register,
    replay,
    ring_sweep,
    scrambler,
    steering,
    transmitter,
    tuner,
)
from lightfabric.sim.formal.proof import PROOFS as ALL_PROOFS

PROOFS = {proof.name: proof for proof in ALL_PROOFS}

# (proof, parameter of its harness, module and class of the block, its text, the text of the broken one)
QUEUE = ("queue", channel, "Queue")
CREDITS = ("credit_count", channel, "Credits")
ARBITER = ("arbiter", channel, "RoundRobin")
EARLY_ARBITER = ("early", channel, "EarlyRoundRobin")
LEDGER = ("ledger", channel, "CreditLedger")
BUFFER = ("buffer", replay, "ReplayBuffer")
REGISTERS = ("registers", register, "Registers")
CHECK = ("check", circuit_controller, "EntryCheck")
TABLE = ("table", claims, "ClaimTable")
STEERING = ("steering", steering, "Steering")
TRANSMITTER = ("transmitter", transmitter, "Transmitter")
RECEIVER = ("receiver", receiver, "Receiver")
SCRAMBLER = ("scrambler", scrambler, "scrambled")
DESCRAMBLER = ("descrambler", scrambler, "descrambled")
DISTRIBUTOR = ("distributor", bonding, "Distributor")
COLLECTOR = ("collector", bonding, "Collector")
RINGS = ("tuner", tuner, "Tuner")
RING_SWEEP = ("sweep", ring_sweep, "RingSweep")
MUTANTS = {
    "words before are forgotten": ("bonded-words", *DISTRIBUTOR, "Mux(wraps & (first <= place), *beats)", "beats[1]"),
    "a spare lane repeats a word": ("bonded-words", *DISTRIBUTOR, "Cat(rank == place for", "Cat(rank >= place for"),
    "words come before they are whole": ("bonded-words", *COLLECTOR, "(is_full | ends))", "1)"),
    "a word is kept for the next beat": ("bonded-words", *COLLECTOR, "(place < first) & ~is_full", "0"),
    "two rings take turns at a time": ("one-ring-per-line", *RINGS, "~sweep.busy & waiting.any()", "waiting.any()"),
    "all that wait have the turn": ("one-ring-per-line", *RINGS, "first.eq(lowest(waiting))", "first.eq(waiting)"),
    "a ring that sweeps waits as well": ("one-ring-per-line", *RINGS, "enabled & ~acquires & (", "enabled & ("),
    "a taken line is captured": ("taken-peaks", *RING_SWEEP, "seen_taken | recent)", "seen_taken)"),
    "a tap of the scrambler is wrong": ("scrambler", *SCRAMBLER, "line[done + NEAR :]", "line[done + NEAR + 1 :]"),
    "a tap of the descrambler is missing": ("scrambler", *DESCRAMBLER, "^ line[NEAR:][: len(block)] ^", "^"),
    "the scrambler skips a bit": ("scrambler", *SCRAMBLER, "line[done:][: len(part)]", "line[done + 1 :][: len(part)]"),
    "a flit overtakes": ("flit-order", *QUEUE, ".eq(fifo.r_data)", ".eq(flit)"),
    "the newest overtakes": (
        "flit-order",
        *QUEUE,
        ".eq(fifo.r_data)",
        ".eq(Mux(fifo.w_en & fifo.r_rdy, flit, fifo.r_data))",
    ),
    "a flit enters two queues": ("flit-order", *QUEUE, "virtual_channel == channel", "virtual_channel >= channel"),
    "a flit is lost": ("flit-order", *QUEUE, "fifo.r_en.eq(self.pop[channel])", "fifo.r_en.eq(self.pop.any())"),
    "a credit without a flit": ("credit-loop", *QUEUE, "self.pop[channel] & fifo.r_rdy", "self.pop[channel]"),
    "a credit for two flits": ("credit-loop", *QUEUE, "self.pop[channel] & fifo.r_rdy", "self.pop.all() & fifo.r_rdy"),
    "one credit too many": ("credit-loop", *CREDITS, "depth + 1), init=depth, name", "depth + 2), init=depth + 1, name"),
    "a refund is forgotten": ("credit-loop", *CREDITS, "self.refund[channel] -", "(self.refund & ~self.spend)[channel] -"),
    "a requester is served twice": ("turns", *ARBITER, "winner[:n].any()", "winner[: n + 1].any()"),
    "two are granted": ("turns", *ARBITER, "pending.any(), lowest(pending)", "pending.any(), pending"),
    "the turn stays": ("turns", *ARBITER, "m.If(self.taken)", "m.If(self.taken & self.requests[0])"),
    "an early turn stays": ("early-turns", *EARLY_ARBITER, "Mux(self.taken, _above", "Mux(0, _above"),
    "a leak gives nothing": ("credits", *LEDGER, "(~empty | self.flit)) | self.leak)", "(~empty | self.flit)))"),
    "a leak too soon": ("credits", *LEDGER, "m.If(self.held | self.flit", "m.If(self.flit"),
    "a limit forgets what is out": ("credits", *LEDGER, "Mux(enters == leaves, room", "Mux(enters == leaves, depth"),
    "a flit in the cycle of a credit is forgotten": (
        "credits",
        *LEDGER,
        "Mux(grows == leaves, room, ",
        "Mux(grows == leaves, room + grows, ",
    ),
    "any answer frees": ("replay-window", *BUFFER, "~stale & (ahead <= self.count)", "~stale & (ahead <= self.count + 1)"),
    "a repeated answer frees twice": ("replay-window", *BUFFER, "self.acknowledge & ~stale & ", "self.acknowledge & "),
    "one too many is kept": ("replay-window", *BUFFER, "self.count < most - 1", "self.count < most"),
    "the place of a replay is left behind": ("replay-window", *BUFFER, "m.If(self.jumps)", "m.If(self.rewind)"),
    "the buffer is read late": (
        "replay-window",
        *BUFFER,
        "Mux(self.take, after_place, place) if one_beat",
        "place if one_beat",
    ),
    "the buffer is read early": ("replay-window-slow", *BUFFER, "fetched.eq(0)]", "fetched.eq(1)]"),
    "a replay begins at the end": ("replay-window-slow", *BUFFER, "place.eq(first), ", "place.eq(end), "),
    "any flit is accepted": ("lossy-line", *RECEIVER, " & Mux(was_received, is_next, is_expected)", ""),
    "a wrong frame is accepted": (
        "lossy-line",
        *RECEIVER,
        "sure & ~given_up & Mux(is_implicit",
        "sure | valid & Mux(is_implicit",
    ),
    "a replay has the sequence of the next": (
        "lossy-line",
        *TRANSMITTER,
        "Mux(buffer.again, buffer.sequence, ",
        "Mux(0, buffer.sequence, ",
    ),
    "nobody asks for the last flit": ("calm-line", *RECEIVER, "wanting | missing", "wanting | 0"),
    "a packet begins in the middle": ("reset-link", *TRANSMITTER, "dropping[v].eq(opened[v] & ~kept)", "dropping[v].eq(0)"),
    "a staged flit in the middle of a packet is sent": (
        "reset-link",
        *TRANSMITTER,
        "~new & (begins | ~flushed)",
        "~new & (1 | ~flushed)",
    ),
    "two packets are joined": ("reset-link", *RECEIVER, "(self.flush & is_now_open[v])", "(self.flush & 0)"),
    "the end of a broken packet is not counted": (
        "credits",
        *LEDGER,
        "self.limit + 1, one_less",
        "self.limit + 1, self.limit",
    ),
    "three ports lead in a circle": ("settings", *CHECK, " | (self.back.output != port - 1)", ""),
    "a port is dark unsaid": ("settings", *CHECK, "~lit.all() & ~self.partial", "~lit.any() & ~self.partial"),
    "what clashes is granted": ("claims", *TABLE, "m.If(looks & ~clash & asker", "m.If(looks & asker"),
    "only what is kept clashes": ("claims", *TABLE, "(self.kept[n], self.next[n])]", "(self.kept[n],)]"),
    "a ring that is stuck is waited for": ("moves", *STEERING, "[*self._end(Outcome.STUCK), stuck.eq(1)]", "stuck.eq(1)"),
    "a line is left that is in use": (
        "moves",
        *STEERING,
        "self._end(Outcome.UNDRAINED), self.withdraw.eq(1)",
        "self._end(Outcome.UNDRAINED), self.leave.eq(1)",
    ),
    "a write waits for the strobes": (
        "registers",
        *REGISTERS,
        "commit.eq(both_held & ",
        "commit.eq(write_strobes.any() & both_held & ",
    ),
    "a read is answered twice": (
        "registers",
        *REGISTERS,
        "grouped.eq(reading)]",
        "grouped.eq(reading | (grouped & bus.rready))]",
    ),
    "an answer does not wait": (
        "registers",
        *REGISTERS,
        "m.If(bus.bready):\n            m.d.sync += bus.bvalid",
        "m.If(1):\n            m.d.sync += bus.bvalid",
    ),
}


def mutant(module, owner, text, broken):
    """The class with one text of its module replaced."""
    source = inspect.getsource(module)
    assert source.count(text) == 1, f"{text!r} must be once in {module.__name__}"
    namespace = types.ModuleType("mutant")
    source = source.replace("from amaranth import ", "from amaranth import Mux, ", 1)
    exec(compile(source.replace(text, broken), "mutant", "exec"), namespace.__dict__)
    return getattr(namespace, owner)


def broken_proof(name, parameter, module, owner, text, broken):
    proof = PROOFS[name]
    return replace(proof, harness=partial(proof.harness, **{parameter: mutant(module, owner, text, broken)}))


@pytest.mark.slow
@pytest.mark.parametrize("case", MUTANTS.values(), ids=MUTANTS)
def test_a_broken_block_is_not_proven(case, tmp_path):
    outcome = verify.prove(broken_proof(*case), tmp_path)
    assert outcome.result == "refuted"
    assert (tmp_path / outcome.counterexample).is_file()
    assert outcome.failed_assertion


def test_every_proof_has_mutants():
    assert {case[0] for case in MUTANTS.values()} == set(PROOFS)


def test_every_mutant_differs_in_one_place():
    # ``mutant`` asserts it; that each can be converted is seen where it is refuted.
    for _, _, *broken in MUTANTS.values():
        assert mutant(*broken)


def declared(owner, change):
    """The class with its declaration of what proofs speak of changed once it is elaborated."""

    class Changed(owner):
        def elaborate(self, platform):
            module = super().elaborate(platform)
            change(self.state)
            return module

    return Changed


def rename(state, name):
    state[f"other_{name}"] = state.pop(name)


def replace_by_an_idle_signal(state, name):
    state[name] = Signal.like(state[name])


CHANGES = {
    rename: (KeyError, "state must have {}, which a proof speaks of"),
    replace_by_an_idle_signal: (ValueError, "state must hold signals that the block drives, not {}"),
}

# (proof, parameter of its harness, module and class of the block): what the block declares
DECLARED = {
    ("credit-loop", *CREDITS): "count_0 count_1",
    ("turns", *ARBITER): "above",
    ("early-turns", *EARLY_ARBITER): "above",
    ("credits", *LEDGER): "room quiet_cycles empty full",
    ("replay-window", *BUFFER): "ahead less acknowledged stale oldest after_oldest first end place to_send behind",
    ("claims", *TABLE): "asked asker looks",
    ("moves", *STEERING): "timer age goal old had_line",
    (
        "registers",
        *REGISTERS,
    ): "address_held data_held both_held write_address commit reading read_address grouped read_mapped",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("case", "name"), [(case, name) for case, names in DECLARED.items() for name in names.split()])
def test_a_proof_ends_where_a_block_does_not_declare_what_it_speaks_of(case, name, change):
    proof, parameter, module, owner = case
    error, text = CHANGES[change]
    block = declared(getattr(module, owner), lambda state: change(state, name))
    with pytest.raises(error, match=text.format(name)):
        PROOFS[proof].harness(**{parameter: block}).elaborate(None)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["produce", "consume", "full"])
def test_a_proof_ends_where_the_buffer_in_a_queue_does_not(name, change, monkeypatch):
    error, text = CHANGES[change]
    monkeypatch.setattr(channel, "Fifo", declared(channel.Fifo, lambda state: change(state, name)))
    with pytest.raises(error, match=text.format(name)):
        PROOFS["flit-order"].harness().elaborate(None)


@pytest.mark.parametrize("case", DECLARED, ids=lambda case: case[0])
def test_a_proof_speaks_of_the_block_that_is_proven(case):
    proof, parameter, module, owner = case
    elaborated = []
    block = declared(getattr(module, owner), elaborated.append)
    replace(PROOFS[proof], harness=partial(PROOFS[proof].harness, **{parameter: block})).rtlil()
    assert len(elaborated) == 1


def test_a_proof_does_not_depend_on_the_names_of_variables():
    source = inspect.getsource(replay)
    names = "ahead|stale|oldest|first|end|place|to_send|behind"
    renamed = re.sub(rf'(?<![".])\b({names})\b(?!")', r"other_\1", source)
    assert renamed != source
    namespace = types.ModuleType("renamed")
    exec(compile(renamed, "renamed", "exec"), namespace.__dict__)
    proof = PROOFS["replay-window"]
    texts = [
        replace(proof, harness=partial(proof.harness, buffer=module.ReplayBuffer)).rtlil() for module in (replay, namespace)
    ]
    assert texts[0] == texts[1].replace("other_", "")
