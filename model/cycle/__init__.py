"""Blocks of the cycle model: links, switches, GPUs and the chiplets joined from them."""
