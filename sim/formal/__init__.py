"""Proof harnesses: a block, an environment that may do whatever is legal, and what must then always hold.

Properties do not depend on what a flit carries, so the specs are small: one payload byte, the shortest windows. The
solver picks every input of a harness anew in each cycle. Inductive proofs speak of the registers of a block, which the
block declares as its ``state``, so that the hardware has no ports for its proofs.
"""
