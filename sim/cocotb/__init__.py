"""Benches on cocotb, for Icarus and Verilator."""
