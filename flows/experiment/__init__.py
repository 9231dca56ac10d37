"""Experiments that the commands run are here: fidelities, benchmarks and calibration."""
