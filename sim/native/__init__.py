"""Benches in C++ around verilated hardware, for long runs."""
