"""Kinds of jobs: what a job spec asks for as plans, traffic, predictions and a task graph; one file per kind."""
