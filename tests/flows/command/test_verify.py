"""``lightfabric verify``: proofs hold, a failed one says where its counterexample is, bad input is one line."""

import json
from dataclasses import replace

import pytest
from amaranth import Module
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from lightfabric.flows.command import verify
from lightfabric.flows.report import InputError, RunError
from lightfabric.flows.tool import yowasp
from lightfabric.sim.formal import proof as proofs


class Claims(wiring.Component):
    """Any claim about a free bit."""

    def __init__(self, claim):
        self.claim = claim
        super().__init__({"a": In(1)})

    def elaborate(self, _platform):
        m = Module()
        m.d.comb += self.claim(self.a)
        return m


def proof(claim):
    return proofs.Proof("claim", "arbiter", "a claim", lambda: Claims(claim), 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("block", proofs.BLOCKS)
def test_all_proofs_of_a_block_hold(block, capsys):
    verify.main(block, True)
    result = json.loads(capsys.readouterr().out)
    assert result["proven"] is True
    held = [(row["name"], row["result"], row["method"], row["counterexample"]) for row in result["proofs"]]
    assert held == [(proof.name, "proven", proof.method(), None) for proof in proofs.PROOFS if proof.block == block]


def test_a_proof_says_how_deep_it_is():
    methods = {proof.name: proof.method() for proof in proofs.PROOFS}
    assert methods["turns"] == "k-induction, depth 2"
    assert methods["reset-link"] == "bounded, 16 cycles from reset"


@pytest.mark.slow
def test_a_failed_proof_names_its_property_and_keeps_its_counterexample(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(proofs, "PROOFS", (proof(lambda a: [Assert(~a, "a is low"), Cover(a)]),))
    with pytest.raises(RunError) as error:
        verify.main(None, False)
    text = str(error.value)
    assert text.startswith("verify claim: refuted: a claim (a is low); counterexample: lightfabric-out/verify/claim/")
    assert (tmp_path / text.rpartition(" ")[2]).read_text().startswith("$")
    assert "refuted" in capsys.readouterr().out


@pytest.mark.slow
def test_a_proof_about_nothing_is_vacuous(tmp_path):
    outcome = verify.prove(proof(lambda a: [Assert(a | ~a), Cover(a & ~a)]), tmp_path)
    assert outcome.result == "vacuous"


@pytest.mark.slow
def test_a_proof_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (outcome,) = verify.prove_all([proof(lambda a: [Assert(a | ~a), Cover(a)])])
    assert outcome.result == "proven"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_block_is_refused():
    blocks = "queue, credits, arbiter, link, line, circuit, steering, registers, tuner"
    with pytest.raises(InputError, match=rf"^BLOCK must be one of {blocks}, not 'laser'$"):
        verify.main("laser", False)


def test_a_missing_tool_is_named_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setitem(yowasp.PACKAGES, "z3", "no_such_package")
    with pytest.raises(RunError, match=r"^z3 is not installed: pip install 'lightfabric\[fpga\]' brings it$"):
        verify.main("arbiter", False)


@pytest.mark.slow
def test_a_design_that_yosys_cannot_read_is_an_error_of_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(proofs.Proof, "rtlil", lambda _: "module")
    with pytest.raises(RunError, match=r"^yowasp-sby could not run the proof: .*ERROR.*$"):
        verify.prove(replace(proofs.PROOFS[0]), tmp_path)
