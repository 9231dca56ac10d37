"""Benches run on cocotb here, for Icarus and Verilator."""
