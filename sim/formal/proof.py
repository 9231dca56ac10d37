"""Each proof says which harness shows which property of which block, and how deep."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from amaranth import Elaboratable
from amaranth.back import rtlil

from lightfabric.sim.formal.bonding import BondedWords
from lightfabric.sim.formal.channel import CreditLoop, EarlyTurns, FlitOrder, Ledger, Turns
from lightfabric.sim.formal.circuit_controller import Settings
from lightfabric.sim.formal.harness import SLOW
from lightfabric.sim.formal.line import ScramblerIdentity
from lightfabric.sim.formal.link import Calm, LossyLine
from lightfabric.sim.formal.register import Accesses
from lightfabric.sim.formal.replay import ReplayWindow
from lightfabric.sim.formal.reset_link import ResetLink
from lightfabric.sim.formal.steering import Claims, Moves
from lightfabric.sim.formal.tuner import OneRingPerLine, TakenPeaks


@dataclass(frozen=True)
class Proof:
    """States a property of a block; its covers are reached within ``cover_depth`` cycles from reset.

    It is proven by induction over ``depth`` cycles, or, if it is ``bounded``, searched for an exception in all ``depth``
    cycles from reset: then it says nothing about later ones.
    """

    name: str
    block: str
    property: str
    harness: Callable[[], Elaboratable]
    depth: int
    cover_depth: int
    bounded: bool = False

    def method(self) -> str:
        """Says what kind of proof it is, and how deep."""
        return f"bounded, {self.depth} cycles from reset" if self.bounded else f"k-induction, depth {self.depth}"

    def rtlil(self) -> str:
        """Writes the harness as RTLIL, with ``top`` as its top."""
        return rtlil.convert(self.harness(), name="top", emit_src=False)


# Induction needs every invariant spelled out; for two blocks and a line only a search from reset remains.
PROOFS = (
    Proof("flit-order", "queue", "the k-th flit out of a virtual channel is the k-th in", FlitOrder, 2, 12),
    Proof("credit-loop", "credits", "credits are conserved and the queue never overflows", CreditLoop, 2, 16),
    Proof("credits", "credits", "limits are the buffer and what was freed; leaks are what is missing", Ledger, 2, 18),
    Proof("turns", "arbiter", "one requester is granted, and nobody waits longer than a round", Turns, 2, 12),
    Proof("early-turns", "arbiter", "a grant made a cycle ahead is the one that would be made now", EarlyTurns, 2, 6),
    Proof("replay-window", "link", "a replay is what was put and not freed, in order and unchanged", ReplayWindow, 2, 14),
    Proof(
        "replay-window-slow", "link", "the same where a flit is more than a beat", partial(ReplayWindow, spec=SLOW), 2, 20
    ),
    Proof(
        "lossy-line",
        "link",
        "flits arrive once, in order, unchanged, whatever the line does",
        LossyLine,
        17,
        20,
        bounded=True,
    ),
    Proof(
        "calm-line",
        "link",
        f"credits and replay never block each other: on a line without errors a flit comes in {Calm.WITHIN_CYCLES} cycles",
        Calm,
        22,
        20,
        bounded=True,
    ),
    Proof(
        "reset-link",
        "link",
        "while either end is reset at will, packets stay whole or end with an error, none is joined or begins in the middle",
        ResetLink,
        16,
        18,
        bounded=True,
    ),
    Proof(
        "scrambler",
        "line",
        "whatever both states are, all bits behind 58 others come back from the descrambler",
        ScramblerIdentity,
        2,
        4,
    ),
    Proof(
        "bonded-words",
        "line",
        "words come once, in order and unchanged, whatever lanes carry them, spare ones too",
        BondedWords,
        11,
        18,
        bounded=True,
    ),
    Proof("settings", "circuit", "what is accepted are pairs of ports, each in one at most", Settings, 12, 14, bounded=True),
    Proof("claims", "steering", "no two circuits have one wavelength on one segment", Claims, 2, 8),
    Proof("moves", "steering", "a move ends in time; rings are on lines that are claimed", Moves, 2, 30),
    Proof("registers", "registers", "every access is answered, once and soon", Accesses, 5, 12),
    Proof("one-ring-per-line", "tuner", "one ring at a time looks for a line, and no two hold one", OneRingPerLine, 2, 12),
    Proof(
        "taken-peaks",
        "tuner",
        "a line whose ring further down loses its light is not taken",
        TakenPeaks,
        24,
        24,
        bounded=True,
    ),
)
BLOCKS = tuple(dict.fromkeys(proof.block for proof in PROOFS))
