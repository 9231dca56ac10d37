"""Optical fabrics join GPUs by circuits of light, which their chiplets end."""
