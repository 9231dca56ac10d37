"""Optical circuits for traffic: wavelengths, permutations and schedules."""
