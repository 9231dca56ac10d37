"""Experiments behind the commands: fidelities, benchmarks and calibration."""
