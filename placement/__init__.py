"""Workloads, parallelism search, mapping, and the task graphs they make."""
