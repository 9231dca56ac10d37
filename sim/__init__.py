"""Benches are here: they drive the hardware and return what they saw, never assert."""
