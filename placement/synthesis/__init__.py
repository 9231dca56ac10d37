"""Schedules of collectives for any topology, each beside a bound that no schedule can be below."""
