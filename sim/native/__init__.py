"""Benches in C++ are wrapped around verilated hardware, for long runs."""
