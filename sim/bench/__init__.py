"""Benches run on Amaranth's simulator; they return what they saw."""
