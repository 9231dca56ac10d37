"""Placement on fabrics that join GPUs directly has one file per kind here."""
