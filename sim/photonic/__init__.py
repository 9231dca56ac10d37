"""Benches of the photonic control join its RTL to the plant, in Python and in C++."""
