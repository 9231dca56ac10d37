"""The proofs can fail: each harness sees red when the block it is about is broken."""

import inspect
import types
from dataclasses import replace
from functools import partial

import pytest
from amaranth import Module

from lightfabric.flows import verify
from lightfabric.rtl import channel, link
from lightfabric.sim import formal

PROOFS = {proof.name: proof for proof in formal.PROOFS}

# (proof, parameter of its harness, module and class of the block, its text, the text of the broken one)
QUEUE = ("queue", channel, "Queue")
CREDITS = ("credit_count", channel, "Credits")
ARBITER = ("arbiter", channel, "RoundRobin")
TRANSMITTER = ("transmitter", link, "Transmitter")
RECEIVER = ("receiver", link, "Receiver")
MUTANTS = {
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
    "one credit too many": ("credit-loop", *CREDITS, "depth + 1), init=depth", "depth + 2), init=depth + 1"),
    "a refund is forgotten": ("credit-loop", *CREDITS, "self.refund[channel] -", "(self.refund & ~self.spend)[channel] -"),
    "a requester is served twice": ("turns", *ARBITER, "~(self.grant | (self.grant - 1))", "~(self.grant - 1)"),
    "two are granted": ("turns", *ARBITER, "pending & -pending", "pending"),
    "the turn stays": ("turns", *ARBITER, "m.If(self.taken)", "m.If(self.taken & self.requests[0])"),
    "one too many outstanding": ("replay-window", *TRANSMITTER, "unacknowledged < spec", "unacknowledged <= spec"),
    "the send pointer is left behind": ("replay-window", *TRANSMITTER, "start_replay | behind", "start_replay"),
    "the buffer is read late": ("replay-window", *TRANSMITTER, "read.addr.eq(send_next)", "read.addr.eq(send)"),
    "one far buffer too many": ("replay-window", *TRANSMITTER, "in_use != spec.", "in_use <= spec."),
    "any flit is accepted": ("lossy-line", *RECEIVER, "header.data & (ahead == 0)", "header.data"),
    "a flit is accepted twice after a loss": (
        "lossy-line",
        *RECEIVER,
        "self.local.expected + 1), ",
        "self.local.expected + ~self.crc_errors[0]), ",
    ),
    "a replay starts too late": ("lossy-line", *TRANSMITTER, "send_next.eq(acknowledged)", "send_next.eq(acknowledged + 1)"),
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
    for case in MUTANTS.values():
        assert "cell" in broken_proof(*case).rtlil()


def test_a_register_that_is_gone_is_named():
    with pytest.raises(KeyError, match="oldest"):
        formal.register(Module(), "oldest")
