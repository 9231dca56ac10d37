"""Proof harnesses put a block into an environment that may do whatever is legal, and say what must then always hold.

Properties do not depend on what a flit carries, so the specs are small: one payload byte, the shortest windows. The
solver picks every input of a harness anew in each cycle. Inductive proofs speak of the registers of a block, which the
block declares as its ``state``, so that the hardware has no ports for its proofs.

Assertions whose text begins with "invariant" are no promises of a block: without them the solver would begin its induction
in states that are never reached.
"""
