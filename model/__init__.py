"""Specs, task graphs, bit-exact references, and the models of time."""
