"""Collectives have their sends here, step by step, and the choice of an algorithm by the time that a fabric needs."""
